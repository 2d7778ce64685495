import { Failure } from '../failure.ts';
import { OutputPipe } from '../output-pipe.ts';
import { type Running, start } from '../program.ts';
import { ArchiveTextReader, type SequencePosition, UnreadableArchiveText } from './archive-text.ts';
import { NotAnArchive, type Toc, type TocEntry, TocReader } from './archive-toc.ts';
import { readReports } from './messages.ts';
import type { QualifiedName } from './names.ts';
import { bareEnvironment, type Programs } from './programs.ts';
import type { Inserted } from './sql-script.ts';

/** What a whole archive was found to hold, once every byte of it has been read. */
export interface Archive {
  readonly toc: Toc;
  /** Tables with data, by catalog id. */
  readonly tables: ReadonlyMap<number, ArchivedTable>;
  /** Those whose rows are INSERTs, by catalog id; undefined when one of them holds no values. A backup has none. */
  readonly inserted: ReadonlyMap<number, Inserted | undefined>;
  /** Catalog ids of the tables whose definition is there. */
  readonly defined: ReadonlySet<number>;
  readonly sequences: readonly (QualifiedName & SequencePosition)[];
  readonly contents: readonly ContentsEntry[];
  readonly largeObjects: number;
  /**
   * A definition sets `pg_attver`, a column option that a server of November 2026 keeps for itself; an older pg_dump
   * writes it out, and no server accepts it back.
   */
  readonly privateOption: boolean;
}

export interface ArchivedTable extends QualifiedName {
  readonly rows: number;
}

const pieceBytes = 128 * 1024;
/** 4 MiB. */
const mostPieces = 32;

/** One line of the table of contents, as `pg_restore --list` has it, with its name unfolded. */
export interface ContentsEntry {
  readonly kind: string;
  readonly schema: string | null;
  readonly tag: string;
  readonly owner: string;
}

/**
 * Reads an archive to its last byte with pg_restore and checks it while it streams by: write every chunk, then
 * `finish`. Nothing touches the disk, and memory does not grow with the data.
 */
export class ArchiveDecoder {
  /** How many tables' rows have been decoded, and which table is being decoded now. */
  tablesRead = 0;
  table: string | undefined;

  readonly #toc = new TocReader();
  readonly #text = new ArchiveTextReader();
  readonly #program: Running;
  readonly #output: OutputPipe;
  readonly #decoded: Promise<void>;
  #trouble: Error | undefined;
  #ended = false;
  /** What goes to pg_restore next, and what it has let go of. */
  #piece: Buffer = Buffer.allocUnsafeSlow(pieceBytes);
  #filled = 0;
  readonly #spare: Buffer[] = [];
  #pieces = 1;
  #roomier = Promise.withResolvers<void>();

  private constructor(programs: Programs, output: OutputPipe) {
    this.#output = output;
    this.#program = start({
      path: programs.pgRestore,
      args: ['--data-only', '--verbose', '--file=-'],
      env: bareEnvironment(programs.libraryPath),
      stdout: output.stdout,
    });
    output.started();
    this.#program.onStderrLine((line) => {
      const table = /^pg_restore: processing data for table "(.*)"?$/.exec(line)?.[1];
      if (table === undefined) return;
      this.tablesRead++;
      this.table = table.replace(/"$/, '');
    });
    this.#decoded = this.#read();
    this.#decoded.catch(() => {});
    this.#program.exited.then(
      () => {
        this.#ended = true;
      },
      (error: unknown) => {
        this.#trouble ??= error as Error;
        this.#ended = true;
      },
    );
  }

  /** `folder` is a private one. */
  static async start(programs: Programs, folder: string): Promise<ArchiveDecoder> {
    return new ArchiveDecoder(programs, await OutputPipe.open(folder));
  }

  /** Takes a copy of the chunk, as soon as there is room for it. Throws a `Failure` as soon as the archive is known to be bad. */
  async write(chunk: Buffer): Promise<void> {
    if (this.#trouble === undefined) {
      try {
        this.#toc.push(chunk);
      } catch (error) {
        this.#trouble = error as Error;
      }
    }
    if (this.#ended || this.#trouble !== undefined) {
      await this.stop();
      throw await this.#failure();
    }
    for (let at = 0; at < chunk.length; ) {
      const copied = chunk.copy(this.#piece, this.#filled, at);
      this.#filled += copied;
      at += copied;
      if (this.#filled === pieceBytes) await this.#send();
    }
  }

  /** Both programs write and read 4 KiB at a time: in larger pieces, some of them waiting, neither stops the other. */
  async #send(): Promise<void> {
    const piece = this.#piece;
    // An error is not told here: `finish` tells what became of the program.
    this.#program.stdin.write(piece.subarray(0, this.#filled), () => {
      this.#spare.push(piece);
      this.#roomier.resolve();
      this.#roomier = Promise.withResolvers();
    });
    this.#filled = 0;
    while (this.#spare.length === 0 && this.#pieces === mostPieces) await this.#roomier.promise;
    const spare = this.#spare.pop();
    if (spare === undefined) this.#pieces++;
    this.#piece = spare ?? Buffer.allocUnsafeSlow(pieceBytes);
  }

  /** Ends the archive. Throws a `Failure` (exit 40) unless every part of it was read and fits together. */
  async finish(): Promise<Archive> {
    this.#program.stdin.end(this.#piece.subarray(0, this.#filled));
    await this.#decoded.catch(() => {});
    const exit = await this.#program.exited.catch(() => undefined);
    if (exit?.code !== 0 || exit.signal !== null || this.#trouble !== undefined) throw await this.#failure();
    if (this.#toc.toc === undefined) throw damaged('it ends inside its table of contents');
    try {
      const text = this.#text.end();
      if (!text.complete) throw damaged('pg_restore exited 0 without having read to the end');
      return assemble(this.#toc.toc, text);
    } catch (error) {
      if (error instanceof UnreadableArchiveText) throw damaged(error.message);
      throw error;
    }
  }

  /** Ends pg_restore, if it is still there. */
  async stop(): Promise<void> {
    await this.#program.stop().catch(() => undefined);
    await this.#decoded.catch(() => {});
  }

  async #read(): Promise<void> {
    try {
      await this.#output.read(this.#program.stdout, (chunk) => void this.#text.push(chunk));
    } catch (error) {
      this.#trouble ??= error as Error;
      await this.#program.stop().catch(() => undefined);
    }
  }

  async #failure(): Promise<Failure> {
    const exit = await this.#program.exited.catch(() => undefined);
    if (this.#trouble instanceof NotAnArchive) return damaged(this.#trouble.message);
    const reports = readReports(exit?.stderr ?? '');
    const said = reports.find((report) => report.severity === 'error')?.message;
    if (exit?.signal) return damaged(`pg_restore, which reads it, was ended by ${exit.signal}`, this.#trouble);
    if (said !== undefined) return damaged(`pg_restore: ${said}`, this.#trouble);
    return damaged(this.#trouble?.message ?? `pg_restore exited ${exit?.code ?? 'before it started'}`, this.#trouble);
  }
}

/** Reads an archive of any format to its last byte, from where it lies. `folder` is a private one. Throws as `finish` does. */
export async function readArchiveAt(
  programs: Programs,
  { path, toc }: { readonly path: string; readonly toc: Toc },
  folder: string,
  signal: AbortSignal,
): Promise<Archive> {
  signal.throwIfAborted();
  const output = await OutputPipe.open(folder);
  const program = start({
    path: programs.pgRestore,
    args: ['--data-only', '--verbose', '--file=-', path],
    env: bareEnvironment(programs.libraryPath),
    stdout: output.stdout,
  });
  output.started();
  program.stdin.end();
  const stop = (): void => void program.stop().catch(() => undefined);
  signal.addEventListener('abort', stop, { once: true });
  const reader = new ArchiveTextReader();
  try {
    await output.read(program.stdout, (chunk) => void reader.push(chunk));
    const exit = await program.exited;
    signal.throwIfAborted();
    const said = readReports(exit.stderr).find((report) => report.severity === 'error')?.message;
    if (exit.code !== 0) throw damaged(`pg_restore: ${said ?? `exit ${exit.code ?? exit.signal}`}`);
    const text = reader.end();
    if (!text.complete) throw damaged('pg_restore exited 0 without having read to the end');
    return assemble(toc, text);
  } catch (error) {
    signal.throwIfAborted();
    throw error instanceof UnreadableArchiveText ? damaged(error.message) : error;
  } finally {
    signal.removeEventListener('abort', stop);
    await program.stop().catch(() => undefined);
  }
}

function damaged(what: string, cause?: unknown): Failure {
  return new Failure('validate', 'verification', `the archive cannot be read to its end: ${what}`, { cause });
}

function assemble(toc: Toc, text: ReturnType<ArchiveTextReader['end']>): Archive {
  const tables = new Map<number, ArchivedTable>();
  const inserted = new Map<number, Inserted | undefined>();
  const defined = new Set<number>();
  const sequences: (QualifiedName & SequencePosition)[] = [];
  for (const entry of toc.entries) {
    const name = { schema: entry.schema ?? '', name: entry.tag };
    if (entry.kind === 'TABLE') defined.add(entry.oid);
    else if (entry.kind === 'TABLE DATA') {
      const rows = text.rows.get(entry.dumpId);
      // Whoever has a census misses them among the tables: a backup is never written so.
      if (rows === undefined && entry.copyStatement === '') {
        const has = text.inserted.has(entry.dumpId);
        inserted.set(entry.oid, has ? text.inserted.get(entry.dumpId) : { rows: 0, skips: false });
        continue;
      }
      if (rows === undefined) throw damaged('a table of its table of contents has no rows section');
      tables.set(entry.oid, { ...name, rows });
    } else if (entry.kind === 'SEQUENCE SET') {
      const position = text.sequences.get(entry.dumpId);
      if (position === undefined) throw damaged('a sequence of its table of contents has no value');
      sequences.push({ ...name, ...position });
    }
  }
  if (tables.size !== text.rows.size) throw damaged('it holds rows that its table of contents does not name');
  return {
    toc,
    tables,
    inserted,
    defined,
    sequences,
    contents: toc.entries
      .filter((entry) => !isAboutDatabase(entry))
      .map(({ kind, schema, tag, owner }) => ({ kind, schema, tag, owner })),
    largeObjects: text.largeObjects,
    privateOption: toc.entries.some((entry) => entry.definition.includes('SET (pg_attver')),
  };
}

/** Only `pg_restore --create` uses these, and they carry the database's name. */
function isAboutDatabase({ kind, tag }: TocEntry): boolean {
  if (kind === 'DATABASE' || kind === 'DATABASE PROPERTIES') return true;
  return (kind === 'ACL' || kind === 'COMMENT' || kind === 'SECURITY LABEL') && tag.startsWith('DATABASE ');
}
