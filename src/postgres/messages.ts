/**
 * What PostgreSQL's servers and programs say when something fails, with everything taken out that could be a row's
 * value: DETAIL, CONTEXT, the failed command, and whatever fills a hole of a message unless it is a known name.
 *
 * A message is repeated only when all of it is PostgreSQL's own text (the templates below). A trigger or a CHECK
 * function may raise anything, and people begin their messages as PostgreSQL does.
 */

import { serverMessages } from './message-templates.ts';

/** A `DatabaseError` of pg, or anything else that carries a SQLSTATE. */
export interface DatabaseError extends Error {
  readonly code: string;
}

export function isDatabaseError(error: unknown): error is DatabaseError {
  return error instanceof Error && /^[0-9A-Z]{5}$/.test((error as { code?: unknown }).code as string);
}

export function sqlState(error: unknown): string | undefined {
  return isDatabaseError(error) ? error.code : undefined;
}

interface Template {
  readonly pattern: RegExp;
  readonly pieces: readonly string[];
}

/** One template for each choice of alternatives. */
function expand(text: string): string[] {
  const choice = /\[([^\]]*)\]/.exec(text);
  if (choice === null) return [text];
  const [whole, alternatives = ''] = choice;
  return alternatives.split('|').flatMap((one) => expand(text.replace(whole, () => one)));
}

const holes = /("…"|\{…\}|\{n\})/;

function compile(text: string): Template {
  const pieces = text.split(holes);
  const sources = pieces.map((piece) => {
    if (piece === '"…"') return '"((?:[^"]|"")*)"';
    if (piece === '{…}') return '(.*?)';
    if (piece === '{n}') return '(-?\\d+)';
    return piece.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  });
  return { pattern: new RegExp(`^${sources.join('')}$`), pieces };
}

/** Words that fill bare holes and are never data. */
const typeWords = new Set(
  'integer bigint smallint numeric real double precision boolean text uuid json jsonb bytea date time timestamp interval inet cidr xml oid character varying with without zone'.split(
    ' ',
  ),
);
const templates = serverMessages.flatMap(expand).map(compile);

const withheld = "an error of the database's own code (its text is withheld: it may hold data)";

/** One message of the server, fit to be printed. `isName` knows the names of objects, which are kept. */
export function reduceMessage(message: string, isName: (word: string) => boolean = () => false): string {
  const firstLine = message.split(/\r?\n/, 1)[0]?.trim() ?? '';
  const text = firstLine.replace(/^(?:ERROR|FATAL|PANIC|WARNING|NOTICE):\s+/, '');
  for (const { pattern, pieces } of templates) {
    const match = pattern.exec(text);
    if (match === null) continue;
    let hole = 0;
    return pieces
      .map((piece) => {
        if (!holes.test(piece)) return piece;
        const word = match[++hole] ?? '';
        if (piece === '{n}') return word;
        if (piece === '"…"') return isName(word) ? `"${word}"` : '"…"';
        return isName(word) || word.split(/[\s()\d,]+/).every((each) => each === '' || typeWords.has(each))
          ? word
          : '…';
      })
      .join('');
  }
  return withheld;
}

/** What a pg_* program reported on standard error, one entry per report. */
export interface ProgramReport {
  readonly severity: 'error' | 'warning' | 'info' | 'detail';
  /** The first line, reduced. */
  readonly message: string;
  /** The message is what the server answered, not the program's own. */
  readonly fromServer: boolean;
  /** pg_restore: the archive's entry at fault, `TABLE DATA public.users`, and its number there. */
  readonly entry: string | undefined;
  readonly dumpId: number | undefined;
}

const ownLine = /^(?:pg_dump|pg_restore|pg_dumpall|psql)(?:\[\d+\])?: (?:(error|warning|detail|hint|fatal): ?)?(.*)$/;
const severities = { error: 'error', fatal: 'error', warning: 'warning', detail: 'detail', hint: 'detail' } as const;

/**
 * Splits a program's standard error into reports, line by line. Lines that do not begin with the program's name belong
 * to the report above them (DETAIL, CONTEXT, HINT, a command) and are dropped. Of a report only the program's own fixed
 * words and a reduced answer of the server stay.
 */
export class ReportReader {
  readonly #isName: (word: string) => boolean;
  #entry: string | undefined;
  #dumpId: number | undefined;

  constructor(isName: (word: string) => boolean = () => false) {
    this.#isName = isName;
  }

  /** The report that begins with this line, if one does. */
  read(line: string): ProgramReport | undefined {
    const [whole, word, text = ''] = ownLine.exec(line) ?? [];
    if (whole === undefined) return undefined;
    const [item, dumpId, entry] = /^from TOC entry (\d+); \d+ \d+ (.*)$/.exec(text) ?? [];
    if (item !== undefined) {
      this.#entry = entry;
      this.#dumpId = Number(dumpId);
      return undefined;
    }
    const severity = word === undefined ? 'info' : severities[word as keyof typeof severities];
    // "could not execute query: ERROR:  …", "COPY failed for table "x": ERROR:  …", "Error message from server: ERROR:  …"
    const [before = '', answer] = text.split(/(?:ERROR|FATAL|PANIC): {1,2}/, 2);
    const fromServer = answer !== undefined;
    const own = before.replace(/"((?:[^"]|"")*)"/g, (_, quoted: string) =>
      this.#isName(quoted) ? `"${quoted}"` : '"…"',
    );
    const message = fromServer
      ? `${own}${reduceMessage(answer, this.#isName)}`
      : /^Command was: /.test(text)
        ? 'a command'
        : own;
    const about = severity === 'error' ? { entry: this.#entry, dumpId: this.#dumpId } : noEntry;
    return { severity, message, fromServer, ...about };
  }
}

const noEntry = { entry: undefined, dumpId: undefined };

/** Every report in a program's whole standard error. */
export function readReports(stderr: string, isName: (word: string) => boolean = () => false): ProgramReport[] {
  const reader = new ReportReader(isName);
  return stderr.split('\n').flatMap((line) => reader.read(line) ?? []);
}
