import { randomBytes } from 'node:crypto';
import type { Keys } from './age.ts';
import type { Backup } from './catalog.ts';
import { type CheckedArchive, checkedArchive } from './checked-archive.ts';
import { cancelled, Failure } from './failure.ts';
import type { Log } from './log.ts';
import { type Machine, type ProgramChoice, programsFor, withPrivateFolder } from './machine.ts';
import type { Census, CensusTable, Manifest } from './manifest.ts';
import { formatBytes, formatCount, formatNumber, formatSeconds, formatTime } from './numbers.ts';
import { columnsOfRows, readArchiveRows } from './postgres/archive-rows.ts';
import type { Toc, TocEntry } from './postgres/archive-toc.ts';
import type { Programs } from './postgres/client.ts';
import type { Session } from './postgres/connect.ts';
import { isDatabaseError, reduceMessage } from './postgres/messages.ts';
import { displayList, displayName, displayWord, nameKey, type QualifiedName, quoteName } from './postgres/names.ts';
import { type Condition, tablesNamed, type WrittenTable } from './postgres/rows-request.ts';
import { connectToLive, lockFailure, lockNotAvailable } from './postgres/rows-session.ts';
import { checkCondition, type FoundRows, Staging, sampleOf, type WantedTable } from './postgres/rows-staging.ts';
import {
  eventTriggersOf,
  insertionOrder,
  readTargetTables,
  type TargetTable,
  triggerNames,
  type WritePlan,
} from './postgres/rows-target.ts';
import { RowsTransaction, type WrittenRows } from './postgres/rows-writing.ts';
import type { ConnectionTarget } from './postgres/url.ts';
import { restoreSecurityWarning } from './postgres/version.ts';
import type { Store } from './store/store.ts';
import { requireKeys, warnUnneeded } from './stored-files.ts';
import { readCensus } from './verify.ts';

/** One `--table` with its `--where`. */
export interface RowsRequest {
  readonly table: WrittenTable;
  readonly condition: Condition;
}

export interface RowsConfig extends ProgramChoice, WritePlan {
  readonly target: ConnectionTarget;
  readonly requests: readonly RowsRequest[];
  /** What there is to open the backup with. */
  readonly keys: Keys;
  /** Everything is done, then rolled back. */
  readonly dryRun: boolean;
  /** A dry run shows whole rows, not their keys only. */
  readonly showValues: boolean;
  readonly timeoutMs: number;
  readonly machine: Machine;
}

export interface BroughtBack {
  readonly manifest: Manifest;
  readonly tables: readonly TableOutcome[];
  readonly seconds: number;
}

export interface TableOutcome extends QualifiedName, WrittenRows {
  readonly found: number;
  /** Of a dry run: the first rows, their primary keys or all of their columns. */
  readonly shown?: { readonly columns: readonly string[]; readonly rows: readonly (readonly (string | null)[])[] };
}

interface Io {
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** Temporary space at the target is about twice this, and what is found. */
const pieceBytes = 8_000_000;
const mostShown = 100;
const neverTargets = ['postgres', 'template0', 'template1'];

/**
 * Brings rows of a backup back into a live database: those of its tables that fit a condition, in one transaction, in the
 * order of the foreign keys, compared with the backup before it is committed. Nothing else changes there. Checks every
 * byte of the archive first. Throws a `Failure`; then nothing was changed, unless it says that nobody knows.
 */
export async function bringBackRows(store: Store, backup: Backup, config: RowsConfig, io: Io): Promise<BroughtBack> {
  requireUsable(backup.manifest, config.target.database);
  requireKeys(backup.manifest, config.keys);
  warnUnneeded(backup.manifest, config.keys, io.log);
  const deadline = new AbortController();
  const timer = setTimeout(() => {
    deadline.abort(
      new Failure('restore', 'timeLimit', `the rows were not back within ${formatSeconds(config.timeoutMs / 1000)}`, {
        hint: 'give it more with --timeout',
      }),
    );
  }, config.timeoutMs);
  const signal = AbortSignal.any([io.signal, deadline.signal]);
  try {
    return await new Recovery(store, backup.manifest, config, { log: io.log, signal }).run();
  } finally {
    clearTimeout(timer);
  }
}

/** Before anybody connects. */
function requireUsable(manifest: Manifest, database: string): void {
  if (neverTargets.includes(database))
    throw new Failure('restore', 'badInput', `${database} is the server's own database and is never written to`, {
      hint: 'name the database that lost the rows in the target URL',
    });
  if (manifest.scope.mode === 'schema-only')
    throw new Failure('restore', 'badInput', `${manifest.name}/${manifest.id} holds definitions only, no rows`, {
      hint: 'choose a full backup (pgassay list shows them): --backup <id>',
    });
}

class Recovery {
  readonly #store: Store;
  readonly #manifest: Manifest;
  readonly #config: RowsConfig;
  readonly #io: Io;
  readonly #started = Date.now();
  #session: Session | undefined;
  #state: 'before' | 'committing' | 'committed' = 'before';

  constructor(store: Store, manifest: Manifest, config: RowsConfig, io: Io) {
    this.#store = store;
    this.#manifest = manifest;
    this.#config = config;
    this.#io = io;
  }

  async run(): Promise<BroughtBack> {
    const { signal } = this.#io;
    // An answer to COMMIT is worth waiting for: without it nobody knows.
    const stop = (): void => void (this.#state === 'before' && this.#session?.close());
    signal.addEventListener('abort', stop, { once: true });
    try {
      return await withPrivateFolder(this.#config.machine, (folder) => this.#run(folder));
    } catch (error) {
      throw this.#told(error);
    } finally {
      signal.removeEventListener('abort', stop);
      await this.#session?.close();
    }
  }

  async #run(folder: string): Promise<BroughtBack> {
    const { log, signal } = this.#io;
    const from = { store: this.#store, manifest: this.#manifest, keys: this.#config.keys };
    const census = await readCensus(from);
    const wanted = this.#config.requests.map((request) => findInBackup(request, census, this.#manifest));
    requireOnce(wanted);
    const programs = await programsFor(this.#manifest, this.#config, this.#config.machine, this.#io);
    const warning = restoreSecurityWarning(programs.version);
    if (warning !== undefined) log.warn(warning);
    this.#session = await connectToLive(this.#config.target, {
      applicationName: `pgassay ${randomBytes(3).toString('hex')} rows`,
      onRunner: this.#config.machine.onRunner,
      signal,
    });
    signal.throwIfAborted();
    const located = await this.#judgeTarget(this.#session, wanted);
    const archive = await checkedArchive(from, folder, signal);
    try {
      const found = await this.#find(this.#session, { programs, folder, archive, census, located });
      return await this.#write(this.#session, found);
    } finally {
      await archive.file.close();
    }
  }

  /** Everything that can be known to fail is found out here, before gigabytes are fetched; and what will happen is said. */
  async #judgeTarget(session: Session, wanted: readonly Wanted[]): Promise<Located[]> {
    const { log } = this.#io;
    const { triggers, dryRun } = this.#config;
    const targets = await readTargetTables(
      session,
      wanted.map((each) => each.table),
      this.#config,
    );
    insertionOrder(targets);
    const eventTriggers = await eventTriggersOf(session);
    if (eventTriggers.length > 0)
      log.notice(`event triggers of the target will see our temporary tables: ${eventTriggers.join(', ')}`);
    const located = wanted.flatMap(({ request }, at) => {
      const target = targets[at];
      return target === undefined ? [] : [{ condition: request.condition, target }];
    });
    for (const { condition, target } of located) {
      await checkCondition(session, target, condition);
      if (target.triggers.length === 0) continue;
      log.notice(
        triggers === 'on'
          ? `triggers of ${displayName(target)} will run: ${triggerNames(target)}${dryRun ? '; what they do outside of the database is not rolled back' : ''}`
          : `triggers of ${displayName(target)} are switched off inside the transaction, and writers of the table wait for its end: ${triggerNames(target)}`,
      );
    }
    return located;
  }

  async #find(session: Session, source: Source): Promise<FoundRows[]> {
    const { log, signal } = this.#io;
    const { toc } = source.archive;
    const tables: WantedTable[] = [];
    const entries: TocEntry[] = [];
    for (const { condition, target } of source.located) {
      const data = dataOf(target, toc, log);
      const twice = data.find((each) => entries.includes(each));
      if (twice !== undefined)
        throw new Failure(
          'input',
          'badInput',
          `table: the rows of ${displayName({ schema: twice.schema ?? '', name: twice.tag })} are asked for twice, by its own name and as a partition`,
          { hint: 'name the parent or the partition, and write one condition: --where "(…) OR (…)"' },
        );
      entries.push(...data);
      const columns = columnsOf(target, data);
      if (this.#config.onConflict === 'update') requireKey(target, new Set([...columns.values()].flat()));
      tables.push({ target, condition, entries: columns });
      const retyped = retypedColumns(target, toc);
      if (retyped.length > 0)
        log.warn(
          `columns of ${displayName(target)} have other types than in the backup, and their values are converted: ${retyped.map(displayWord).join(', ')}`,
        );
    }
    const recorded = new Map(source.census.tables.map((table) => [nameKey(table), table.archiveRows]));
    const recordedRows = ({ schema, tag }: TocEntry): number =>
      recorded.get(nameKey({ schema: schema ?? '', name: tag })) ?? 0;
    const total = entries.reduce((rows, entry) => rows + recordedRows(entry), 0);
    log.info(
      `looking through ${formatCount(total, 'row')} of ${displayList(tables.map((each) => each.target))} as of ${formatTime(this.#manifest.createdAt)}, in temporary tables at the target, ${formatBytes(pieceBytes)} at a time`,
    );
    const staging = await Staging.create(session, toc.encoding, tables);
    const started = Date.now();
    let bytes = 0;
    const loaded = new Map<number, number>();
    const progress = setInterval(() => {
      log.progress(
        `rows ${formatBytes(bytes)} read · ${formatCount(staging.count, 'row')} found · elapsed ${Math.round((Date.now() - started) / 1000)} s`,
      );
    }, 10_000);
    try {
      const rows = await readArchiveRows(
        // In the archive's own order, which is read from its beginning to its end.
        { ...source, entries: toc.entries.filter((each) => entries.includes(each)).map((each) => each.dumpId) },
        pieceBytes,
        async (entry, lines) => {
          signal.throwIfAborted();
          loaded.set(entry, (loaded.get(entry) ?? 0) + (await staging.load(entry, lines)));
          bytes += lines.length;
        },
        signal,
      );
      for (const entry of entries) this.#requireAll(entry, recordedRows(entry), rows, loaded);
    } finally {
      clearInterval(progress);
    }
    return staging.finish();
  }

  /** As many rows as were recorded, by pg_restore's text and by the server's own count of what it was given. */
  #requireAll(
    { schema, tag, dumpId }: TocEntry,
    recorded: number,
    ...counted: readonly ReadonlyMap<number, number>[]
  ): void {
    const wrong = counted.map((rows) => rows.get(dumpId) ?? 0).find((rows) => rows !== recorded);
    if (wrong === undefined) return;
    const { name, id } = this.#manifest;
    throw new Failure(
      'verify',
      'verification',
      `${name}/${id}: ${formatCount(wrong, 'row')} of ${displayName({ schema: schema ?? '', name: tag })} in the archive, and ${formatNumber(recorded)} recorded`,
      { hint: 'nothing was changed; this backup cannot be trusted, use another one (pgassay list)' },
    );
  }

  async #write(session: Session, found: readonly FoundRows[]): Promise<BroughtBack> {
    const { log } = this.#io;
    for (const { target, count } of found)
      if (count === 0)
        log.warn(
          `no row of ${displayName(target)} in this backup fits its condition; were they gone already when it was taken? --backup before:<time> names an older one`,
        );
    const shown = new Map<FoundRows, TableOutcome['shown']>();
    if (this.#config.dryRun) for (const each of found) shown.set(each, await this.#show(session, each));
    const some = found.filter((each) => each.count > 0);
    let outcome = new Map<FoundRows, WrittenRows>();
    if (some.length > 0) {
      log.info(
        `found ${formatCount(
          some.reduce((rows, each) => rows + each.count, 0),
          'row',
        )}; writing and comparing them in one transaction`,
      );
      outcome = await new RowsTransaction(session, some, this.#config, log).write();
      this.#io.signal.throwIfAborted();
      if (!this.#config.dryRun) this.#state = 'committing';
      await session.query(this.#config.dryRun ? 'ROLLBACK' : 'COMMIT');
      if (!this.#config.dryRun) this.#state = 'committed';
    }
    return {
      manifest: this.#manifest,
      tables: found.map((each) => {
        const { schema, name } = each.target;
        const rows = shown.get(each);
        return {
          ...{ schema, name, found: each.count, inserted: 0, skipped: 0, updated: 0 },
          ...outcome.get(each),
          ...(rows === undefined ? {} : { shown: rows }),
        };
      }),
      seconds: (Date.now() - this.#started) / 1000,
    };
  }

  async #show(session: Session, found: FoundRows): Promise<TableOutcome['shown']> {
    const keys = found.target.key.map((each) => each.name).filter((name) => found.columns.includes(name));
    const columns = this.#config.showValues ? found.columns : keys;
    return { columns, rows: await sampleOf(session, found, columns, mostShown) };
  }

  /** The error with what became of the target; row values are in none of them. */
  #told(error: unknown): Failure {
    const { signal } = this.#io;
    if (this.#state === 'committing' && !isDatabaseError(error))
      return new Failure(
        'restore',
        'connect',
        'the connection ended while the rows were being committed: they may be there or not',
        {
          hint: 'run it again with --on-conflict skip, which brings back what is missing',
          cause: error,
        },
      );
    if (signal.aborted) {
      const reason = signal.reason instanceof Failure ? signal.reason : cancelled('restore');
      const message = reason.exit === 'cancelled' ? 'cancelled' : reason.message;
      const hint = reason.exit === 'cancelled' ? 'run it again when you are ready' : reason.hint;
      return new Failure('restore', reason.exit, `${message}; nothing was changed`, { hint, cause: error });
    }
    if (error instanceof Failure) {
      if (error.hint !== undefined && error !== this.#session?.lost.reason) return error;
      const { stage, exit, message, hint } = error;
      return new Failure(stage, exit, `${message}; nothing was changed`, { hint, cause: error });
    }
    if (!isDatabaseError(error)) throw error;
    if (error.code === lockNotAvailable) return lockFailure(error);
    return new Failure('restore', 'restore', `the target refused a statement: ${reduceMessage(error.message)}`, {
      hint: 'nothing was changed',
      cause: error,
    });
  }
}

interface Wanted {
  readonly request: RowsRequest;
  readonly table: CensusTable;
}

interface Located {
  readonly condition: Condition;
  readonly target: TargetTable;
}

/** What is read, and with what. */
interface Source {
  readonly programs: Programs;
  /** Private. */
  readonly folder: string;
  readonly archive: CheckedArchive;
  readonly census: Census;
  readonly located: readonly Located[];
}

function findInBackup(request: RowsRequest, census: Census, { name, id }: Manifest): Wanted {
  const { schema } = request.table;
  const word = request.table.name.word;
  const written = schema === undefined ? displayWord(word) : displayName({ schema: schema.word, name: word });
  const [table, ...more] = tablesNamed(request.table, census.tables);
  if (table === undefined)
    throw new Failure('locate', 'badInput', `there is no table ${written} in ${name}/${id}`, {
      hint: `its tables are ${displayList(census.tables, 20)}`,
    });
  if (more.length > 0)
    throw new Failure(
      'locate',
      'badInput',
      `${written} is the name of ${more.length + 1} tables in ${name}/${id}: ${displayList([table, ...more])}`,
      { hint: `write the schema too: --table ${displayName(table)}` },
    );
  return { request, table };
}

function requireOnce(wanted: readonly Wanted[]): void {
  const seen = new Set<string>();
  for (const { table } of wanted) {
    if (seen.has(nameKey(table)))
      throw new Failure('input', 'badInput', `table: ${displayName(table)} is named twice`, {
        hint: 'write one condition: --where "(…) OR (…)"',
      });
    seen.add(nameKey(table));
  }
}

/** The table's own rows, or those of its partitions, however deep. Throws a `Failure` when none are in the archive. */
function dataOf(table: QualifiedName, { entries }: Toc, log: Log): TocEntry[] {
  const data = new Map(
    entries.filter((each) => each.kind === 'TABLE DATA').map((each) => [keyOf(each), each] as const),
  );
  const relations = new Map(
    entries.filter((each) => each.kind === 'TABLE' || each.kind === 'FOREIGN TABLE').map((each) => [each.dumpId, each]),
  );
  const children = new Map<string, TocEntry[]>();
  for (const attach of entries.filter((each) => each.kind === 'TABLE ATTACH')) {
    const both = attach.dependencies.flatMap((id) => relations.get(id) ?? []);
    const child = both.find((each) => keyOf(each) === keyOf(attach));
    const parent = both.find((each) => keyOf(each) !== keyOf(attach));
    if (child === undefined || parent === undefined) continue;
    children.set(keyOf(parent), [...(children.get(keyOf(parent)) ?? []), child]);
  }
  const found: TocEntry[] = [];
  const without: QualifiedName[] = [];
  const collect = (key: string, name: QualifiedName): void => {
    const own = data.get(key);
    if (own !== undefined) found.push(own);
    const below = children.get(key) ?? [];
    if (own === undefined && below.length === 0) without.push(name);
    for (const child of below) collect(keyOf(child), { schema: child.schema ?? '', name: child.tag });
  };
  collect(nameKey(table), table);
  if (found.length === 0)
    throw new Failure(
      'locate',
      'badInput',
      `the rows of ${displayName(table)} are not in this backup, only its definition`,
      {
        hint: 'they were left out when it was taken (exclude-table-data, an unlogged or a foreign table): choose another backup (pgassay list); in a backup of rows only, name the partitions',
      },
    );
  if (without.length > 0) log.warn(`the rows of these partitions are not in the backup: ${displayList(without)}`);
  return found;
}

function keyOf({ schema, tag }: TocEntry): string {
  return nameKey({ schema: schema ?? '', name: tag });
}

function columnsOf(target: TargetTable, data: readonly TocEntry[]): Map<number, readonly string[]> {
  const columns = new Map<number, readonly string[]>();
  for (const entry of data) {
    const names = columnsOfRows(entry);
    if (names === undefined)
      throw new Failure('locate', 'restore', `the rows of ${displayName(target)} have no columns in this backup`, {
        hint: 'there is nothing in them to bring back',
      });
    columns.set(entry.dumpId, names);
  }
  const held = new Set([...columns.values()].flat());
  const filled = target.columns.filter((each) => !each.generated && held.has(each.name));
  if (filled.length === 0)
    throw new Failure('restore', 'restore', `${displayName(target)} of the target has no column that the backup has`, {
      hint: 'it is another table of the same name; look at it first',
    });
  const empty = target.columns.filter((each) => each.required && !held.has(each.name));
  if (empty.length > 0)
    throw new Failure(
      'restore',
      'restore',
      `${displayName(target)} of the target has columns that are NOT NULL without a default, and the backup does not know them: ${empty.map((each) => displayWord(each.name)).join(', ')}`,
      { hint: `nothing was changed; give them a default first: ALTER TABLE … ALTER COLUMN … SET DEFAULT …` },
    );
  return columns;
}

function requireKey(target: TargetTable, held: ReadonlySet<string>): void {
  const unknown = target.key.filter((each) => !held.has(each.name));
  if (unknown.length === 0) return;
  throw new Failure(
    'restore',
    'badInput',
    `the primary key of ${displayName(target)} has columns that the backup does not know, and --on-conflict update finds rows by it: ${unknown.map((each) => displayWord(each.name)).join(', ')}`,
    { hint: 'nothing was changed; --on-conflict skip, or none' },
  );
}

/** By the definition in the archive, where it is there; pg_dump writes a column a line, and types as the server does. */
function retypedColumns(target: TargetTable, { entries }: Toc): string[] {
  const table = entries.find((each) => each.kind === 'TABLE' && keyOf(each) === nameKey(target));
  const lines = (table?.definition ?? '').split('\n');
  return target.columns
    .filter(({ name, type }) => {
      const bare = lines.find((each) => each.startsWith(`    ${name} `));
      const line = bare ?? lines.find((each) => each.startsWith(`    ${quoteName(name)} `));
      const rest = line?.slice(5 + (bare === undefined ? quoteName(name) : name).length);
      return rest !== undefined && !(rest.startsWith(type) && /^(?:[ ,]|$)/.test(rest.slice(type.length)));
    })
    .map((each) => each.name);
}
