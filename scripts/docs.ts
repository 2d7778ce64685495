// Writes what has its truth elsewhere: the tables of the READMEs (inputs and outputs from the action.yml beside each, exit
// codes from src/failure.ts), each between `<!-- NAME:start -->` and `<!-- NAME:end -->`, and scripts/workflows.ts's parts.
//
//   node scripts/docs.ts           rewrites them
//   node scripts/docs.ts --check   changes nothing; exit 1 and the first difference when one is out of date

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { type ExitName, exitCodes } from '../src/failure.ts';
import { actionFolders, type Input, inputsOf, record } from './action-inputs.ts';
import { alias, generatedFiles } from './workflows.ts';

const root = join(import.meta.dirname, '..');

const meanings: Record<ExitName, string> = {
  badInput: 'An input is wrong. All problems of all inputs are listed at once.',
  connect: 'The server cannot be reached: name, network, TLS, or it is not up.',
  authentication: 'The server refused the user, password or certificate.',
  privilege: 'The role may not read something, or row-level security would hide rows. The GRANT to run is printed.',
  version: 'No PostgreSQL programs fit this server, or the server is too old or too new.',
  timeLimit: 'A lock or a time limit: `lock-wait-timeout`, `stall-timeout`, `timeout`, or DDL given way to.',
  pooler: 'The connection goes through a pooler that a dump must not use.',
  disk: 'A disk is full or cannot be written.',
  store: 'The store failed: unreachable, not writable, or the stored file is not what was sent.',
  storeCredentials: 'The store refused the credentials.',
  exists: 'Something of that name is already there. Nothing was overwritten.',
  verification:
    'The proof failed: counts, checksums, a damaged or altered file, or a signature that is missing or wrong. A backup that ends so publishes nothing.',
  wrongKey: 'The key does not open this backup.',
  restore: 'The restore failed or the target is not empty.',
  differences: 'A restore test found that the restored database is not what was backed up. Every finding is listed.',
  retention:
    'Retention refused to delete: backups of this name have stopped, and what is there may be all there will be.',
  unhealthy: 'Health found something critical, or what `fail-on` names. Every finding is listed, with what to do.',
  cancelled: 'Cancelled. Nothing was published.',
};

/** The folders whose README has tables: every action's but the one that only repeats the root's. */
export const documentedFolders = actionFolders.filter((folder) => folder !== alias);

if (import.meta.main) {
  const args = process.argv.slice(2);
  if (args.length > 1 || (args[0] !== undefined && args[0] !== '--check')) {
    console.error('docs: the only argument is --check');
    process.exit(2);
  }
  const readmes = documentedFolders.map((folder) => {
    const path = join(folder, 'README.md');
    const before = readFileSync(join(root, path), 'utf8');
    return { path, before, after: filled(before, readFileSync(join(root, folder, 'action.yml'), 'utf8')) };
  });
  for (const { path, before, after } of [...readmes, ...generatedFiles()]) {
    if (after === before) console.log(`${path} agrees with what it is made from`);
    else if (args[0] === '--check') {
      console.error(`${path} does not agree with its action.yml and src/failure.ts\n${firstDifference(before, after)}`);
      console.error(`run \`npm run docs\` and commit ${path} with the change`);
      process.exitCode = 1;
    } else {
      writeFileSync(join(root, path), after);
      console.log(`${path} rewritten`);
    }
  }
}

/**
 * `readme` with its tables made anew from `action` (the text of an action.yml). Throws when a marker is missing; only the
 * table of exit codes may be left out.
 */
export function filled(readme: string, action: string): string {
  const tables = { inputs: inputTable(inputsOf(action)), outputs: outputTable(action), 'exit-codes': exitTable() };
  let text = readme;
  for (const [name, table] of Object.entries(tables)) {
    const [start, end] = [`<!-- ${name}:start -->`, `<!-- ${name}:end -->`];
    if (name === 'exit-codes' && !readme.includes(start) && !readme.includes(end)) continue;
    const [head, rest, ...more] = text.split(start);
    const [old, tail, ...again] = rest?.split(end) ?? [];
    if (head === undefined || old === undefined || tail === undefined || more.length > 0 || again.length > 0) {
      throw new Error(`README.md needs exactly one ${start} … ${end}`);
    }
    text = `${head}${start}\n\n${table}\n\n${end}${tail}`;
  }
  return text;
}

function inputTable(inputs: readonly Input[]): string {
  const rows = inputs.map(({ name, text, fallback, empty, required }) => {
    const shown = required ? '**required**' : fallback === undefined ? '' : `\`${fallback}\``;
    // "Empty means the default" is said once, above the table.
    const rest = /^Empty (means the default|is an error)\.$/.test(empty) ? '' : ` ${empty}`;
    return [`\`${name}\``, shown, `${text}${rest}`];
  });
  return table(['Input', 'Default', 'What it is'], rows);
}

function outputTable(action: string): string {
  const rows = Object.entries(record(record(parse(action)).outputs)).map(([name, value]) => {
    const { description } = record(value);
    if (typeof description !== 'string') throw new Error(`action.yml: ${name}: has no description`);
    return [`\`${name}\``, description];
  });
  return table(['Output', 'What it is'], rows);
}

function exitTable(): string {
  const rows = (Object.keys(exitCodes) as ExitName[])
    .toSorted((a, b) => exitCodes[a] - exitCodes[b])
    .map((name) => [String(exitCodes[name]), meanings[name]]);
  return table(['Code', 'What happened'], [['0', 'Done.'], ...rows]);
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replace(/\s+/g, ' ').replaceAll('|', '\\|').trim()).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

function firstDifference(before: string, after: string): string {
  const [old, now] = [before.split('\n'), after.split('\n')];
  const length = Math.max(old.length, now.length);
  const at = Array.from({ length }).findIndex((_, index) => old[index] !== now[index]);
  const show = (line: string | undefined): string => line ?? '(nothing)';
  return `  line ${at + 1}\n  - ${show(old[at])}\n  + ${show(now[at])}`;
}
