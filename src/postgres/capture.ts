import { Failure } from '../failure.ts';
import type { Log } from '../log.ts';
import { formatBytes, formatSeconds } from '../numbers.ts';
import type { Archive } from './archive.ts';
import {
  batchesOf,
  countTables,
  digestAlgorithm,
  readSurroundings,
  type Surroundings,
  type TableCount,
} from './census.ts';
import type { Session } from './connect.ts';
import { type Dumped, DumpMeter, dump, type Sink } from './dump.ts';
import { isDatabaseError, reduceMessage, sqlState } from './messages.ts';
import type { Programs } from './programs.ts';
import { recoveryConflict, recoveryConflictState } from './recovery-conflict.ts';
import type { Scope, ScopeRequest, Table } from './scope.ts';
import { Overtaken, outOfLocks, requireUnmoved, type Snapshot, takeSnapshot } from './snapshot.ts';
import { Starved, Supervisor } from './supervisor.ts';

/** What one snapshot held, seen from both sides: counted on the server, and read back out of the archive. */
export interface Captured {
  readonly createdAt: Date;
  readonly scope: Scope;
  /** What the server counted, by catalog id; empty with `census: stream`. */
  readonly counts: ReadonlyMap<number, TableCount>;
  /** False with `census: stream`. */
  readonly countedOnServer: boolean;
  readonly archive: Archive;
  readonly surroundings: Surroundings;
  readonly digest: { readonly algorithm: string; readonly columns: string } | null;
  /** Of the archive, as pg_dump wrote it. */
  readonly bytes: number;
  readonly warnings: readonly string[];
}

export interface CaptureConfig {
  readonly scope: ScopeRequest;
  readonly census: 'rows' | 'content' | 'stream';
  readonly lockWaitMs: number;
  readonly onBlockedDdl: 'warn' | 'abort';
  readonly stallMs: number;
}

export interface CaptureMeans {
  readonly control: Session;
  /** Opens another prepared session on the very same server. */
  readonly open: (purpose: string) => Promise<Session>;
  /** Begins the application name of every session of this run. */
  readonly application: string;
  readonly programs: Programs;
  readonly environment: Readonly<Record<string, string>>;
  readonly privateDirectory: string;
  readonly compress: string;
  readonly server: { readonly standby: boolean; readonly database: string };
}

export interface CaptureOutlet {
  /** Where the archive's bytes go, from the start; what an earlier try of this run sent is thrown away. */
  readonly begin: () => Promise<Sink>;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** How often somebody else's exclusive lock may send us back to the start. */
const mostRestarts = 4;
/** A count that waits longer than this for a lock is given to the exporter, which has it already. */
const countingLockMs = 2000;
const progressMs = 10_000;

/**
 * Locks, exports a snapshot, and while pg_dump streams it out counts the same snapshot on the server. Resolves when
 * both are done; what they say is the caller's to compare. Throws a `Failure`, or the signal's reason.
 */
export async function captureSnapshot(
  means: CaptureMeans,
  config: CaptureConfig,
  outlet: CaptureOutlet,
): Promise<Captured> {
  for (let restart = 0; ; restart++) {
    const exporter = await means.open('exporter');
    try {
      const snapshot = await takeSnapshot({ exporter, control: means.control }, config.scope, means.server, {
        lockWaitMs: config.lockWaitMs,
        log: outlet.log,
      });
      return await capture(means, config, outlet, exporter, snapshot);
    } catch (error) {
      const what = overtakenBy(error);
      if (what === undefined) throw sqlState(error) === recoveryConflictState ? recoveryConflict(error) : error;
      if (restart >= mostRestarts)
        throw new Failure('snapshot', 'timeLimit', `${what}, ${restart + 1} times in a row`, {
          hint: 'run the backup when no migration runs',
          transient: true,
        });
      outlet.log.warn(`${what}; letting it go first and starting again`);
    } finally {
      // Closing ends the transaction, so whoever waited moves on at once.
      await exporter.close();
    }
  }
}

function overtakenBy(error: unknown): string | undefined {
  if (error instanceof Overtaken) return error.message;
  if (!(error instanceof Starved)) return undefined;
  return `${error.waiting.statement} on ${error.waiting.table} came between our locks and pg_dump's`;
}

async function capture(
  means: CaptureMeans,
  config: CaptureConfig,
  outlet: CaptureOutlet,
  exporter: Session,
  snapshot: Snapshot,
): Promise<Captured> {
  const { log } = outlet;
  const { scope } = snapshot;
  const counter = await means.open('census');
  const sink = await outlet.begin();
  const meter = new DumpMeter();
  const ended = new AbortController();
  const signal = AbortSignal.any([outlet.signal, ended.signal, exporter.lost]);
  const supervisor = new Supervisor({
    openControl: () => means.open('watch'),
    application: means.application,
    meter,
    stallMs: config.stallMs,
    onBlockedDdl: config.onBlockedDdl,
    log,
    abort: (reason) => ended.abort(reason),
  });
  // pg_dump has all its locks before it writes its first byte.
  let unmoved: Promise<void> | undefined = snapshot.locked ? Promise.resolve() : undefined;
  const guarded: Sink = (chunk) => {
    if (unmoved === undefined) {
      unmoved = requireUnmoved({ exporter, control: means.control }, scope);
      unmoved.catch((error: unknown) => ended.abort(error));
    }
    return sink(chunk);
  };
  const progress = setInterval(() => log.progress(progressLine(meter, scope, started)), progressMs);
  const started = Date.now();
  try {
    const census = countSnapshot(counter, exporter, snapshot, config.census);
    // A census that fails first ends the dump; a dump that fails first ends the census.
    census.catch((error: unknown) => ended.abort(error));
    const dumping = dump(
      {
        programs: means.programs,
        environment: means.environment,
        privateDirectory: means.privateDirectory,
        snapshot: snapshot.id,
        scope,
        mode: config.scope.mode,
        compress: means.compress,
        lockWaitMs: config.lockWaitMs,
      },
      guarded,
      meter,
      signal,
    );
    const [dumped, counts] = await bothOrFirstFailure(dumping, census, [counter, exporter]);
    await unmoved;
    // Without locks of our own nothing held the tables still while the count went on after pg_dump.
    if (!snapshot.locked) await requireUnmoved({ exporter, control: means.control }, scope);
    await exporter.query('SELECT 1');
    log.progress(progressLine(meter, scope, started));
    return assemble(snapshot, config, dumped, counts);
  } finally {
    clearInterval(progress);
    await Promise.all([supervisor.stop(), counter.close()]);
  }
}

interface Counts {
  readonly tables: ReadonlyMap<number, TableCount>;
  readonly surroundings: Surroundings;
}

async function bothOrFirstFailure(
  dumping: Promise<Dumped>,
  census: Promise<Counts>,
  sessions: readonly Session[],
): Promise<[Dumped, Counts]> {
  try {
    const dumped = await dumping;
    return [dumped, await census];
  } catch (error) {
    // A count that is still running ends only with its session.
    await Promise.all(sessions.map((session) => session.close()));
    await Promise.allSettled([dumping, census]);
    throw error;
  }
}

/** Counts in a session of its own that imports the snapshot and lets its locks go again and again. */
async function countSnapshot(
  counter: Session,
  exporter: Session,
  snapshot: Snapshot,
  census: CaptureConfig['census'],
): Promise<Counts> {
  const counted = census === 'stream' ? [] : snapshot.scope.tables.filter((table) => table.data);
  const tables = new Map<number, TableCount>();
  try {
    for (const batch of batchesOf(counted)) {
      const counts = await countBatch(counter, exporter, snapshot, batch, census === 'content');
      for (const [oid, count] of counts) tables.set(oid, count);
    }
    const surroundings = await inSnapshot(counter, snapshot.id, () => readSurroundings(counter));
    return { tables, surroundings };
  } catch (error) {
    if (!snapshot.locked && (sqlState(error) === '42P01' || sqlState(error) === '3F000'))
      throw new Overtaken('a table was dropped before it was counted');
    throw censusFailure(error, snapshot.scope);
  }
}

/**
 * An ALTER that waits for us makes every newcomer wait behind it, this session too, and we end only after the count:
 * nobody would move. Where the exporter holds the lock it counts such a batch itself, in a
 * savepoint that is rolled back, which lets go of the indexes' locks.
 */
async function countBatch(
  counter: Session,
  exporter: Session,
  snapshot: Snapshot,
  batch: readonly Table[],
  content: boolean,
): Promise<Map<number, TableCount>> {
  try {
    return await inSnapshot(counter, snapshot.id, async () => {
      await counter.query(`SET LOCAL lock_timeout = ${countingLockMs}`);
      return countTables(counter, batch, content);
    });
  } catch (error) {
    if (sqlState(error) !== '55P03') throw error;
    if (!snapshot.locked) throw new Overtaken('a change of a table came before our count of it');
  }
  await exporter.query('SAVEPOINT census');
  try {
    return await countTables(exporter, batch, content);
  } finally {
    await exporter.query('ROLLBACK TO SAVEPOINT census');
  }
}

async function inSnapshot<T>(session: Session, snapshot: string, work: () => Promise<T>): Promise<T> {
  await session.query('BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY');
  try {
    await session.query(`SET TRANSACTION SNAPSHOT '${snapshot.replaceAll("'", "''")}'`);
    const result = await work();
    await session.query('COMMIT');
    return result;
  } catch (error) {
    await session.query('ROLLBACK').catch(() => {});
    throw error;
  }
}

function censusFailure(error: unknown, scope: Scope): unknown {
  if (!isDatabaseError(error)) return error;
  const names = new Set(scope.tables.flatMap((table) => [table.name, table.schema]));
  const said = reduceMessage(error.message, (word) => names.has(word));
  if (error.code === '53200') return outOfLocks('dump', error);
  if (error.code === '42501')
    return new Failure('dump', 'privilege', `counting the snapshot's rows was refused: ${said}`, { cause: error });
  if (error.code === recoveryConflictState) return recoveryConflict(error);
  if (error.code.startsWith('57') || error.code.startsWith('08'))
    return new Failure('dump', 'connect', `counting the snapshot's rows broke off: ${said}`, {
      cause: error,
      transient: true,
    });
  return new Failure('dump', 'verification', `the snapshot's rows could not be counted: ${said}`, {
    hint: 'census: stream counts them in the archive only',
    cause: error,
  });
}

function assemble(snapshot: Snapshot, config: CaptureConfig, dumped: Dumped, counts: Counts): Captured {
  return {
    createdAt: snapshot.createdAt,
    scope: snapshot.scope,
    counts: counts.tables,
    countedOnServer: config.census !== 'stream',
    archive: dumped.archive,
    surroundings: counts.surroundings,
    digest:
      config.census === 'content' ? { algorithm: digestAlgorithm, columns: 'by name, without generated ones' } : null,
    bytes: dumped.bytes,
    warnings: dumped.warnings,
  };
}

/** `dump 412 MB · 68 MB/s · public.events (31 of 48 tables) · elapsed 6 s` */
function progressLine(meter: DumpMeter, scope: Scope, started: number): string {
  const elapsed = (Date.now() - started) / 1000;
  const tables = scope.tables.filter((table) => table.data).length;
  const table = meter.decoder?.table;
  const at = table === undefined ? '' : ` · ${table} (${meter.decoder?.tablesRead} of ${tables} tables)`;
  return `dump ${formatBytes(meter.bytes)} · ${formatBytes(meter.bytes / Math.max(elapsed, 0.001))}/s${at} · elapsed ${formatSeconds(elapsed)}`;
}
