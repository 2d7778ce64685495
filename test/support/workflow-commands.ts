/** A line `::name key=value,key=value::data`, unescaped. */
export interface WorkflowCommand {
  readonly name: string;
  readonly properties: Readonly<Record<string, string>>;
  readonly data: string;
}

const known = new Set([
  ...['add-mask', 'add-matcher', 'add-path', 'debug', 'echo', 'endgroup', 'error', 'group', 'notice'],
  ...['remove-matcher', 'save-state', 'set-env', 'set-output', 'stop-commands', 'warning'],
]);

/**
 * The workflow command in `line`, or undefined when the runner would print it as it is: leading blanks are allowed,
 * unknown names are not. `resume` is the token that `stop-commands` asked for; while it is set nothing else is a command.
 */
export function parseCommand(line: string, resume?: string): WorkflowCommand | undefined {
  const match = /^\s*::([^\s:]+)(?:\s([^:]*))?::([\s\S]*)$/.exec(line);
  if (match === null) return undefined;
  const [, name = '', properties = '', data = ''] = match;
  if (resume === undefined ? !known.has(name.toLowerCase()) : name !== resume) return undefined;
  const pairs = properties.split(',').flatMap((pair) => {
    const equals = pair.indexOf('=');
    return equals < 1 ? [] : [[pair.slice(0, equals).trim(), unescapeProperty(pair.slice(equals + 1))] as const];
  });
  return {
    name: resume === undefined ? name.toLowerCase() : name,
    properties: Object.fromEntries(pairs),
    data: unescapeData(data),
  };
}

function unescapeData(text: string): string {
  return text.replaceAll('%0D', '\r').replaceAll('%0A', '\n').replaceAll('%25', '%');
}

function unescapeProperty(text: string): string {
  const part = text.replaceAll('%0D', '\r').replaceAll('%0A', '\n').replaceAll('%3A', ':').replaceAll('%2C', ',');
  return part.replaceAll('%25', '%');
}

/**
 * The runner's secret masker: every masked value, each of its lines on its own, and what the runner itself derives from
 * them (base64 at every alignment, percent-encoding, JSON and XML escapes, without the quotes around it).
 */
export class Masker {
  /** What the action asked for, in order. */
  readonly values: string[] = [];
  readonly #forms = new Set<string>();

  /** False when there is nothing to mask in `value`. */
  add(value: string): boolean {
    if (value.trim() === '') return false;
    this.values.push(value);
    for (const text of [value, ...value.split(/[\r\n]+/)]) {
      if (text.trim() === '') continue;
      this.#forms.add(text);
      for (const form of derived(text)) if (form !== '') this.#forms.add(form);
    }
    return true;
  }

  /** `text` with every masked stretch as `***`; stretches that overlap become one. */
  mask(text: string): string {
    const hidden: [number, number][] = [];
    for (const form of this.#forms) {
      for (let at = text.indexOf(form); at >= 0; at = text.indexOf(form, at + 1)) hidden.push([at, at + form.length]);
    }
    hidden.sort(([a], [b]) => a - b);
    let out = '';
    let end = 0;
    for (const [from, to] of hidden) {
      if (from >= end) out += `${text.slice(end, from)}***`;
      end = Math.max(end, to);
    }
    return out + text.slice(end);
  }
}

function derived(text: string): string[] {
  const bytes = Buffer.from(text);
  // A secret inside a longer base64 text starts at any of three alignments; what its neighbours share is cut off.
  const aligned = [0, 1, 2].map((shift) =>
    bytes
      .subarray(shift)
      .toString('base64')
      .replace(/=+$/, '')
      .slice(0, Math.floor(((bytes.length - shift) * 4) / 3)),
  );
  const xml = text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&apos;');
  const unquoted = text.length > 2 && text.startsWith('"') && text.endsWith('"') ? text.slice(1, -1) : '';
  const percent = encodeURIComponent(text.toWellFormed()).replace(/[!'()*]/g, (c) => `%${hex(c)}`);
  return [...aligned.filter((form) => form.length >= 4), percent, JSON.stringify(text).slice(1, -1), xml, unquoted];
}

function hex(character: string): string {
  return character.charCodeAt(0).toString(16).toUpperCase();
}

/**
 * A command file's pairs: `name=value` and `name<<DELIMITER` blocks. Throws what the runner fails a step with when a line
 * is neither or a block has no end.
 */
export function parseCommandFile(text: string): [name: string, value: string][] {
  const lines = text.split(/\r?\n/);
  const pairs: [string, string][] = [];
  for (let i = 0; i < lines.length; i += 1) {
    const line = lines[i] ?? '';
    if (line === '') continue;
    const block = line.indexOf('<<');
    const equals = line.indexOf('=');
    if (block > 0 && (equals < 0 || block < equals)) {
      const delimiter = line.slice(block + 2);
      if (delimiter === '') throw new Error(`Invalid format '${line}'. Delimiter must not be empty`);
      const end = lines.indexOf(delimiter, i + 1);
      if (end < 0) throw new Error(`Invalid value. Matching delimiter not found '${delimiter}'`);
      pairs.push([line.slice(0, block), lines.slice(i + 1, end).join('\n')]);
      i = end;
    } else if (equals > 0) {
      pairs.push([line.slice(0, equals), line.slice(equals + 1)]);
    } else {
      throw new Error(`Invalid format '${line}'`);
    }
  }
  return pairs;
}
