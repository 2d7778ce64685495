import { Failure } from '../failure.ts';
import type { Log } from '../log.ts';
import type { Session } from './connect.ts';
import { isDatabaseError, sqlState } from './messages.ts';
import { displayList, nameKey, type QualifiedName, quoteQualified } from './names.ts';
import { readFingerprint, resolveScope, type Scope, type ScopeRequest, type Table } from './scope.ts';

/** An exported snapshot in which every table of the scope is locked against being emptied or rewritten. */
export interface Snapshot {
  readonly id: string;
  /**
   * False: the tables are so many that the server has no room to lock them twice, so pg_dump's locks have to do.
   * {@link requireUnmoved} then tells whether they came in time.
   */
  readonly locked: boolean;
  /** The server's clock right before the export; on a standby the time of the last transaction it replayed. */
  readonly createdAt: Date;
  readonly scope: Scope;
}

const attempts = 5;
const locksPerStatement = 500;

/**
 * Locks first, then looks: a TRUNCATE or a rewriting ALTER that commits between a snapshot and a lock would leave the
 * snapshot with no rows at all, and no error. LOCK takes no snapshot itself.
 *
 * `exporter` is left in its transaction, which keeps the snapshot and the locks alive until it ends. `control` reads
 * the catalog in short transactions. Throws a `Failure` when a lock is not had in time or the tables never hold still.
 */
export async function takeSnapshot(
  { exporter, control }: { readonly exporter: Session; readonly control: Session },
  request: ScopeRequest,
  server: { readonly standby: boolean; readonly database: string },
  { lockWaitMs, log }: { readonly lockWaitMs: number; readonly log: Log },
): Promise<Snapshot> {
  for (let attempt = 1; attempt <= attempts; attempt++) {
    const scope = await resolveScope(control, request, server);
    const roomy = await fitTwice(control, scope.tables.length);
    await exporter.query('BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY');
    if (!roomy || (await lockTables(exporter, control, scope.tables, lockWaitMs))) {
      const createdAt = await snapshotTime(control, server.standby);
      const [exported] = await exporter.query<{ id: string }>('SELECT pg_catalog.pg_export_snapshot() AS id');
      if (exported === undefined) throw new Failure('snapshot', 'connect', 'the server exported no snapshot');
      if ((await readFingerprint(exporter)) === scope.fingerprint)
        return { id: exported.id, locked: roomy, createdAt, scope };
    }
    await exporter.query('ROLLBACK');
    log.info(
      `tables were created or dropped while they were being locked; listing them again (${attempt} of ${attempts})`,
    );
  }
  throw new Failure(
    'snapshot',
    'timeLimit',
    `tables were created or dropped during each of ${attempts} attempts to lock them`,
    {
      hint: 'back up at a time when no migration runs, or leave the schema that changes out with exclude-schemas',
      transient: true,
    },
  );
}

/** Our locks and pg_dump's stand side by side, and half of the server's room for locks is left to everybody else. */
async function fitTwice(control: Session, tables: number): Promise<boolean> {
  const [row] = await control.query<{ room: number }>(
    `SELECT current_setting('max_locks_per_transaction')::int
            * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int) AS room`,
  );
  return 2 * tables <= (row?.room ?? 0);
}

/** A table of the snapshot is not what it was when pg_dump locked it; start again with a new snapshot. */
export class Overtaken extends Error {}

/**
 * For a snapshot without locks of its own, once pg_dump holds its locks: throws {@link Overtaken} when a table was
 * emptied, rewritten, renamed, moved or dropped in between. Every way to empty or rewrite a table gives it new storage.
 */
export async function requireUnmoved(
  { exporter, control }: { readonly exporter: Session; readonly control: Session },
  { tables }: Scope,
): Promise<void> {
  const storage = async (session: Session): Promise<Map<number, string>> => {
    const rows = await session.query<QualifiedName & { oid: number; file: string }>(
      `SELECT c.oid::int8::float8 AS oid, n.nspname AS schema, c.relname AS name, c.relfilenode::text AS file
       FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1::oid[])`,
      [tables.map((table) => table.oid)],
    );
    return new Map(rows.map((row) => [row.oid, `${row.file} ${nameKey(row)}`]));
  };
  const then = await storage(exporter);
  const now = await storage(control);
  const moved = tables.filter((table) => then.get(table.oid) !== now.get(table.oid));
  if (moved.length > 0)
    throw new Overtaken(`${displayList(moved, 3)} changed between the snapshot and pg_dump's locks`);
}

/** False when a table is gone; the caller lists again. */
async function lockTables(
  exporter: Session,
  control: Session,
  tables: readonly Table[],
  lockWaitMs: number,
): Promise<boolean> {
  await exporter.query(`SET LOCAL lock_timeout = ${lockWaitMs}`);
  for (let from = 0; from < tables.length; from += locksPerStatement) {
    const some = tables.slice(from, from + locksPerStatement);
    const names = some.map((table) => `ONLY ${quoteQualified(table)}`).join(', ');
    try {
      await exporter.query(`LOCK TABLE ${names} IN ACCESS SHARE MODE`);
    } catch (error) {
      if (!isDatabaseError(error)) throw error;
      const state = sqlState(error);
      if (state === '42P01' || state === '3F000') return false;
      if (state === '40P01')
        throw new Failure('snapshot', 'timeLimit', 'locking the tables ended in a deadlock with another session', {
          cause: error,
          transient: true,
        });
      if (state === '55P03') throw await lockTimeout(control, some, lockWaitMs, error);
      if (state === '42501')
        throw new Failure('snapshot', 'privilege', `a table of the scope cannot be locked: ${error.message}`, {
          hint: 'grant SELECT on it to the backup role',
          cause: error,
        });
      if (state === '53200') throw outOfLocks('snapshot', error);
      throw error;
    }
  }
  return true;
}

/** What to say when the server's lock table is full. */
export function outOfLocks(stage: 'snapshot' | 'dump', cause: unknown): Failure {
  return new Failure(stage, 'timeLimit', "the server's lock table is full, so not every table can be locked at once", {
    hint: 'raise max_locks_per_transaction (it needs a restart), or back up schema by schema with the schemas input',
    cause,
  });
}

async function lockTimeout(
  control: Session,
  tables: readonly Table[],
  waitedMs: number,
  cause: unknown,
): Promise<Failure> {
  const held = await control.query<QualifiedName & { kind: string | null }>(
    `SELECT n.nspname AS schema, c.relname AS name,
            (regexp_match(a.query, '^\\s*(\\w+(?:\\s+\\w+)?)'))[1] AS kind
     FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
     WHERE l.mode = 'AccessExclusiveLock' AND l.relation = ANY ($1::oid[]) ORDER BY 1, 2`,
    [tables.map((table) => table.oid)],
  );
  const names = held.length === 0 ? 'one of the tables' : displayList(held);
  const statement = held[0]?.kind;
  return new Failure(
    'snapshot',
    'timeLimit',
    `${names} stayed locked by another session for ${waitedMs / 1000} s${statement ? `; its last statement: ${statement.toUpperCase()}` : ''}`,
    {
      hint: 'let the migration finish and run the backup again, or wait longer with lock-wait-timeout',
      cause,
      transient: true,
    },
  );
}

async function snapshotTime(control: Session, standby: boolean): Promise<Date> {
  const [row] = await control.query<{ at: Date | null }>(
    standby ? 'SELECT pg_catalog.pg_last_xact_replay_timestamp() AS at' : 'SELECT pg_catalog.clock_timestamp() AS at',
  );
  if (!row?.at)
    throw new Failure(
      'snapshot',
      'connect',
      'the standby has not replayed a transaction yet, so its data has no time',
      {
        hint: 'back up the primary, or wait until the standby has replayed something',
      },
    );
  return row.at;
}
