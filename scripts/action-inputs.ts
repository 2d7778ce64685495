// What the action.yml files declare: read by the scripts that write tables and workflows from them, and by the tests.

import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';

const root = join(import.meta.dirname, '..');

/** Every folder with an action.yml, the root first. */
export const actionFolders: readonly string[] = [
  '.',
  ...readdirSync(root, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(join(root, entry.name, 'action.yml')))
    .map((entry) => entry.name)
    .sort(),
];

/** An input as action.yml declares it, with its description taken apart. */
export interface Input {
  readonly name: string;
  /** What it is, without the sentences about default and emptiness. */
  readonly text: string;
  /** As a person types it; undefined: there is none. */
  readonly fallback: string | undefined;
  /** What an empty value means: `Empty means every table.` */
  readonly empty: string;
  readonly required: boolean;
}

/**
 * The inputs of an action.yml, in its order. Throws, naming the input, when a description does not end with what an empty
 * value means, or names another default than the one declared.
 */
export function inputsOf(action: string): Input[] {
  const declared = record(record(parse(action)).inputs);
  return Object.entries(declared).map(([name, value]) => {
    const { description, default: fallback, required = false } = record(value);
    const wrong = (what: string): Error => new Error(`action.yml: ${name}: ${what}`);
    if (typeof description !== 'string') throw wrong('has no description');
    if (fallback !== undefined && typeof fallback !== 'string') throw wrong('its default must be a quoted string');
    const parts = /^(?<text>.+?)\s(?:No default|Default: (?<said>none|`[^`]+`))\.\s(?<empty>Empty .+\.)$/s.exec(
      description.trim(),
    )?.groups;
    if (parts?.text === undefined || parts.empty === undefined) {
      throw wrong('its description must end with "Default: `x`." (or "Default: none.", "No default.") and "Empty …."');
    }
    const { text, said, empty } = parts;
    if (said !== (required ? undefined : fallback === undefined ? 'none' : `\`${fallback}\``)) {
      throw wrong(`its description says ${said ?? 'no default'}, but it declares ${fallback ?? 'none'}`);
    }
    return { name, text, fallback, empty, required: required === true };
  });
}

export function record(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null) throw new Error('action.yml: expected a mapping');
  return value as Record<string, unknown>;
}
