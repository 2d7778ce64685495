import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '../failure.ts';
import { OutputPipe } from '../output-pipe.ts';
import { start } from '../program.ts';
import { ArchiveTextReader, UnreadableArchiveText } from './archive-text.ts';
import type { TocEntry } from './archive-toc.ts';
import { readReports } from './messages.ts';
import { bareEnvironment, type Programs } from './programs.ts';

/** Which rows are read, of what and with what. */
export interface RowsSource {
  readonly programs: Programs;
  /** A private one. */
  readonly folder: string;
  /** An archive that can be read at any place, or the path of one. */
  readonly archive: { readonly file: { readonly fd: number } | undefined; readonly path: string | undefined };
  /** The numbers of entries with data. */
  readonly entries: readonly number[];
}

/** Whole lines of COPY's text format; the last line of a piece ends with its newline. */
export type TakeRows = (entry: number, lines: Buffer) => Promise<void>;

const word = String.raw`(?:"(?:[^"]|"")*"|[^\s"(),.]+)`;
const copyPattern = new RegExp(String.raw`^COPY ${word}(?:\.${word})? \((.*)\) FROM stdin;\s*$`, 's');

/** The columns of an entry's rows, in their order there. Undefined where the rows are not a COPY's. */
export function columnsOfRows({ copyStatement }: TocEntry): string[] | undefined {
  const list = copyPattern.exec(copyStatement)?.[1];
  const words = list?.match(new RegExp(word, 'g'));
  return words?.map((each) => (each.startsWith('"') ? each.slice(1, -1).replaceAll('""', '"') : each));
}

/**
 * Hands over every row of some entries, in pieces of about `pieceBytes`; memory holds one piece, or one row where it is
 * longer. Returns how many rows each entry had. Throws a `Failure` (exit 40) when the archive cannot be read, and what
 * `take` throws.
 */
export async function readArchiveRows(
  source: RowsSource,
  pieceBytes: number,
  take: TakeRows,
  signal: AbortSignal,
): Promise<ReadonlyMap<number, number>> {
  const pieces = new Pieces(pieceBytes);
  const text = new ArchiveTextReader((entry, rows) => pieces.add(entry, rows));
  const drain = async (): Promise<void> => {
    for (let piece = pieces.next(); piece !== undefined; piece = pieces.next()) await take(piece.entry, piece.lines);
  };
  await decodeEntries(source, text, () => (pieces.ready ? drain() : undefined), signal);
  pieces.finish();
  await drain();
  return text.end().rows;
}

/**
 * Has pg_restore decode the data of some entries into `text`; after each chunk `more` is awaited, if it returns something.
 * Throws a `Failure` (exit 40) when the archive cannot be read to its end, and what `more` throws.
 */
export async function decodeEntries(
  source: RowsSource,
  text: ArchiveTextReader,
  more: () => Promise<void> | undefined,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  const list = join(source.folder, `rows-${process.hrtime.bigint()}.list`);
  await writeFile(list, source.entries.map((entry) => `${entry};\n`).join(''), { mode: 0o600, flag: 'wx' });
  const output = await OutputPipe.open(source.folder);
  const { file, path } = source.archive;
  const program = start({
    path: source.programs.pgRestore,
    args: [
      ...['--data-only', '--verbose', '--file=-', `--use-list=${list}`],
      file !== undefined && process.platform === 'linux' ? '/proc/self/fd/3' : (path ?? '/dev/fd/3'),
    ],
    env: bareEnvironment(source.programs.libraryPath),
    ...(file === undefined ? {} : { inherit: [file.fd] }),
    stdout: output.stdout,
  });
  output.started();
  program.stdin.end();
  const stop = (): void => void program.stop().catch(() => undefined);
  signal.addEventListener('abort', stop, { once: true });
  try {
    await output.read(program.stdout, (chunk) => {
      text.push(chunk);
      return more();
    });
    const exit = await program.exited.catch((error: NodeJS.ErrnoException) => {
      throw new Failure('restore', 'restore', `pg_restore could not be started: ${error.code}`, { cause: error });
    });
    signal.throwIfAborted();
    if (exit.code !== 0 || exit.signal !== null) {
      const said = readReports(exit.stderr).find((report) => report.severity === 'error')?.message;
      throw unreadable(
        said === undefined ? `pg_restore ended with ${exit.signal ?? exit.code}` : `pg_restore: ${said}`,
      );
    }
    if (!text.end().complete) throw unreadable('pg_restore exited 0 without having read to the end');
  } catch (error) {
    if (error instanceof UnreadableArchiveText) throw unreadable(error.message, error);
    throw error;
  } finally {
    signal.removeEventListener('abort', stop);
    output.close();
    await program.stop().catch(() => undefined);
  }
}

function unreadable(what: string, cause?: unknown): Failure {
  return new Failure('verify', 'verification', `the rows of the archive cannot be read: ${what}`, { cause });
}

const newline = 0x0a;

/** Gathers lines that come cut anywhere. */
class Pieces {
  readonly #least: number;
  readonly #ready: { readonly entry: number; readonly lines: Buffer }[] = [];
  #entry = 0;
  /** Copies of what came since the last piece, and how much of it is whole lines. */
  #parts: Buffer[] = [];
  #bytes = 0;
  #whole = 0;

  constructor(least: number) {
    this.#least = least;
  }

  get ready(): boolean {
    return this.#ready.length > 0;
  }

  add(entry: number, rows: Buffer): void {
    if (entry !== this.#entry) this.finish();
    this.#entry = entry;
    const end = rows.lastIndexOf(newline) + 1;
    if (end > 0) this.#whole = this.#bytes + end;
    this.#parts.push(Buffer.from(rows));
    this.#bytes += rows.length;
    if (this.#whole >= this.#least) this.#cut();
  }

  /** What is left belongs to no later line. */
  finish(): void {
    if (this.#whole > 0) this.#cut();
  }

  next(): { readonly entry: number; readonly lines: Buffer } | undefined {
    return this.#ready.shift();
  }

  #cut(): void {
    const all = Buffer.concat(this.#parts);
    const rest = all.subarray(this.#whole);
    this.#ready.push({ entry: this.#entry, lines: all.subarray(0, this.#whole) });
    this.#parts = rest.length === 0 ? [] : [Buffer.from(rest)];
    this.#bytes = rest.length;
    this.#whole = 0;
  }
}
