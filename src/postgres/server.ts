import { createHash } from 'node:crypto';
import { Failure } from '../failure.ts';
import { formatCount } from '../numbers.ts';
import { outputSettings } from './census.ts';
import type { Session } from './connect.ts';
import { displayList, type QualifiedName, sqlName, sqlWord } from './names.ts';
import type { Scope } from './scope.ts';
import { type PgVersion, parseServerVersionNum } from './version.ts';

export interface ServerFacts {
  readonly version: PgVersion;
  readonly standby: boolean;
  /** Seconds the standby's data is old; 0 on a primary. */
  readonly lagSeconds: number;
  readonly role: string;
  readonly superuser: boolean;
  readonly database: {
    readonly name: string;
    /** See `Manifest.database.id`. */
    readonly id: string | null;
    readonly encoding: string;
    readonly collation: string;
    readonly lcCollate?: string;
    readonly lcCtype?: string;
    readonly icuRules?: string;
    readonly sizeBytes: number;
  };
}

/**
 * Settings of every session of ours, sent once it is known that no pooler hands our session to somebody else: an empty
 * search path, nothing written, no time limits that a role may have, row security an error instead of a filter.
 */
export async function prepareSession(session: Session): Promise<void> {
  await session.query(
    [
      `SET search_path = ''`,
      'SET default_transaction_read_only = on',
      'SET statement_timeout = 0',
      'SET lock_timeout = 0',
      'SET idle_in_transaction_session_timeout = 0',
      `SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name IN ('transaction_timeout', 'idle_session_timeout')`,
      'SET row_security = off',
      'SET jit = off',
      'SET client_min_messages = error',
      ...outputSettings,
    ].join(';\n'),
  );
}

/**
 * The role's own limits would end it while it waits for the other session; after its COMMIT they are as before. Nothing
 * in it looks up a function or an operator: the session's search_path is still whatever the database's owner made it.
 */
const patientTransaction = `BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL statement_timeout = 0`;

/** What kind of connection pooler is in between, if any. Changes nothing in the sessions. */
export type Pooling = 'direct' | 'session' | 'transaction';

/**
 * A pooler gives a session another backend than the one it announced. It pools transactions when two sessions are ever
 * seen on one backend, or one session on two: the sessions take turns, one of them pins a backend in a transaction, so
 * that a pool with backends to spare shows itself too. Throws a `Failure` when a pooler has no second backend to give.
 */
export async function detectPooling(session: Session, openAnother: () => Promise<Session>): Promise<Pooling> {
  const first = await backendOf(session);
  const announced = session.backendPid === first;
  const other = await openAnother();
  try {
    const mine = new Set([first]);
    const another = await patiently(backendOf(other));
    if (another === undefined) throw exhausted();
    const theirs = new Set([another]);
    const shared = (): boolean => mine.size > 1 || theirs.size > 1 || !mine.isDisjointFrom(theirs);
    for (let turn = 0; turn < 4 && !shared(); turn++) {
      await session.query(patientTransaction);
      mine.add(await backendOf(session));
      // Who waits for a backend that it had a moment ago has to share it.
      const pinned = await patiently(backendOf(other));
      await session.query('COMMIT');
      if (pinned === undefined) return 'transaction';
      theirs.add(pinned);
      theirs.add(await backendOf(other));
      mine.add(await backendOf(session));
    }
    if (shared()) return 'transaction';
    return announced ? 'direct' : 'session';
  } catch (error) {
    // A pooler of statements ends a session that says BEGIN.
    if (!announced && error instanceof Failure && (error.cause as Error | undefined)?.message === '08P01')
      return 'transaction';
    throw error;
  } finally {
    await other.close();
  }
}

const poolWaitMs = 5000;

/** Undefined when there is no answer in time. */
async function patiently<T>(answer: Promise<T>): Promise<T | undefined> {
  answer.catch(() => {});
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, poolWaitMs, undefined);
  });
  return Promise.race([answer, late]).finally(() => clearTimeout(timer));
}

function exhausted(): Failure {
  return new Failure('connect', 'connect', `a second session got no answer within ${poolWaitMs / 1000} s`, {
    hint: 'a pooler in between with no server session left looks like this: use the direct URL, or give its pool 6 more',
    transient: true,
  });
}

async function backendOf(session: Session): Promise<number> {
  const [row] = await session.query<{ pid: number }>('SELECT pg_catalog.pg_backend_pid() AS pid');
  return row?.pid ?? -1;
}

export async function readServerFacts(session: Session): Promise<ServerFacts> {
  const [row] = await session.query<{
    version: string;
    standby: boolean;
    lag: number;
    role: string;
    superuser: boolean;
    name: string;
    oid: string;
    encoding: string;
    size: string;
  }>(
    `SELECT current_setting('server_version_num') AS version, pg_is_in_recovery() AS standby,
            CASE WHEN NOT pg_is_in_recovery() THEN 0
                 -- What was received says nothing about the primary once nobody receives any more.
                 WHEN pg_get_wal_replay_pause_state() = 'not paused' AND EXISTS (SELECT FROM pg_stat_wal_receiver)
                      AND pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
                 ELSE coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0) END::float8 AS lag,
            current_user AS role, r.rolsuper AS superuser,
            d.datname AS name, d.oid::text AS oid, pg_encoding_to_char(d.encoding) AS encoding,
            pg_database_size(d.oid) AS size
     FROM pg_catalog.pg_database d, pg_catalog.pg_roles r
     WHERE d.datname = current_database() AND r.rolname = current_user`,
  );
  const version = row === undefined ? undefined : parseServerVersionNum(row.version);
  if (row === undefined || version === undefined)
    throw new Failure('preflight', 'connect', 'the server did not tell what it is', {
      hint: 'it may not be PostgreSQL; pgassay supports PostgreSQL 14 to 18',
    });
  return {
    version,
    standby: row.standby,
    lagSeconds: row.lag,
    role: row.role,
    superuser: row.superuser,
    database: {
      name: row.name,
      id: await identity(session, row.oid, row.name),
      encoding: row.encoding,
      ...(await localesOf(session)),
      sizeBytes: Number(row.size),
    },
  };
}

/** Which database this is, whatever host, pooler or user leads to it. */
async function identity(session: Session, oid: string, name: string): Promise<string | null> {
  const system = await session
    .query<{ id: string }>('SELECT system_identifier::text AS id FROM pg_catalog.pg_control_system()')
    .catch(() => []);
  const id = system[0]?.id;
  return id === undefined ? null : createHash('sha256').update(`${id}\n${oid}\n${name}`).digest('hex');
}

interface Locales {
  /** `en_US.UTF-8`, or with its provider `icu:de-DE`, `builtin:C.UTF-8`. */
  readonly collation: string;
  readonly lcCollate?: string;
  readonly lcCtype?: string;
  readonly icuRules?: string;
}

/** Columns differ between majors. */
async function localesOf(session: Session): Promise<Locales> {
  const [row] = await session.query<{ database: Record<string, string | null> }>(
    'SELECT to_jsonb(d) AS database FROM pg_catalog.pg_database d WHERE d.datname = current_database()',
  );
  const { datlocprovider: provider, datlocale, daticulocale, ...database } = row?.database ?? {};
  const locale = datlocale ?? daticulocale;
  const { datcollate, datctype, daticurules } = database;
  return {
    collation: provider === 'i' ? `icu:${locale}` : provider === 'b' ? `builtin:${locale}` : (datcollate ?? ''),
    ...(typeof datcollate === 'string' ? { lcCollate: datcollate } : {}),
    ...(typeof datctype === 'string' ? { lcCtype: datctype } : {}),
    ...(typeof daticurules === 'string' ? { icuRules: daticurules } : {}),
  };
}

/**
 * Everything the role may not read in the scope, in one failure with the statements that help. pg_dump would stop at
 * the first such object, halfway. A policy would filter rows silently if row security were not switched off.
 */
export async function requirePrivileges(session: Session, scope: Scope, facts: ServerFacts): Promise<void> {
  if (facts.superuser) return;
  const oids = scope.tables.map((table) => table.oid);
  const rows = await session.query<QualifiedName & { usage: boolean; select: boolean; filtered: boolean }>(
    `SELECT * FROM (
       SELECT n.nspname AS schema, c.relname AS name, has_schema_privilege(n.oid, 'USAGE') AS usage,
              has_table_privilege(c.oid, 'SELECT') AS "select",
              row_security_active(c.oid) AND c.oid = ANY ($2::oid[]) AS filtered
       FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
       WHERE c.oid = ANY ($1::oid[])) t
     WHERE NOT usage OR NOT "select" OR filtered
     ORDER BY schema COLLATE "C", name COLLATE "C"`,
    [oids, scope.tables.filter((table) => table.data).map((table) => table.oid)],
  );
  const sequences = await session.query<QualifiedName>(
    `SELECT n.nspname AS schema, c.relname AS name
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = ANY ($1::oid[]) AND CASE WHEN c.relkind = 'S' THEN NOT has_sequence_privilege(c.oid, 'SELECT') END
     ORDER BY 1, 2`,
    [scope.sequences],
  );
  const largeObjects = scope.largeObjects ? await unreadableLargeObjects(session) : [];
  if (rows.length + sequences.length + largeObjects.length === 0) return;

  const role = sqlWord(facts.role);
  const unreadable = rows.filter((row) => !row.usage || !row.select);
  const filtered = rows.filter((row) => row.filtered);
  const what: string[] = [];
  const grants: string[] = [];
  const schemas = [...new Set(rows.filter((row) => !row.usage).map((row) => sqlWord(row.schema)))];
  if (schemas.length > 0) grants.push(`GRANT USAGE ON SCHEMA ${schemas.join(', ')} TO ${role};`);
  if (unreadable.length > 0) {
    what.push(`cannot read ${unreadable.length} of ${formatCount(oids.length, 'table')}: ${displayList(unreadable)}`);
    const ungranted = unreadable.filter((row) => !row.select);
    if (ungranted.length > 0) grants.push(`GRANT SELECT ON ${ungranted.map(sqlName).join(', ')} TO ${role};`);
    const all = [...new Set(unreadable.map((row) => sqlWord(row.schema)))].join(', ');
    grants.push(`ALTER DEFAULT PRIVILEGES IN SCHEMA ${all} GRANT SELECT ON TABLES TO ${role};`);
  }
  if (sequences.length > 0) {
    what.push(`cannot read ${formatCount(sequences.length, 'sequence')}: ${displayList(sequences)}`);
    grants.push(`GRANT SELECT ON SEQUENCE ${sequences.map(sqlName).join(', ')} TO ${role};`);
  }
  if (largeObjects.length > 0) {
    const some = largeObjects.slice(0, 10).join(', ');
    what.push(
      `cannot read ${formatCount(largeObjects.length, 'large object')}: ${some}${largeObjects.length > 10 ? ' …' : ''}`,
    );
    grants.push(`GRANT SELECT ON LARGE OBJECT ${largeObjects.slice(0, 100).join(', ')} TO ${role};`);
  }
  if (filtered.length > 0) {
    what.push(`sees only the rows that a row-level security policy lets through in ${displayList(filtered)}`);
    grants.push(`ALTER ROLE ${role} BYPASSRLS;`);
  }
  throw new Failure('preflight', 'privilege', `role ${role} ${what.join('; it ')}, so the dump would fail halfway`, {
    hint: `run as the tables' owner (BYPASSRLS: as a superuser):\n${grants.map((line) => `  ${line}`).join('\n')}`,
  });
}

/** has_largeobject_privilege is new in 18, and pg_read_all_data does not reach large objects. */
async function unreadableLargeObjects(session: Session): Promise<string[]> {
  const rows = await session.query<{ oid: string }>(
    `SELECT l.oid::text AS oid FROM pg_catalog.pg_largeobject_metadata l
     WHERE NOT current_setting('lo_compat_privileges')::bool
       AND NOT pg_has_role(l.lomowner, 'USAGE')
       AND NOT EXISTS (SELECT FROM aclexplode(l.lomacl) a
                       WHERE a.privilege_type = 'SELECT'
                         AND CASE WHEN a.grantee = 0 THEN true ELSE pg_has_role(a.grantee, 'USAGE') END)
     ORDER BY l.oid`,
  );
  return rows.map((row) => row.oid);
}
