import type { Session } from './connect.ts';
import { displayName } from './names.ts';

/** What the server says about our own sessions and those that wait for them. */
export interface Watch {
  readonly sessions: readonly OurSession[];
  readonly waiting: readonly Waiting[];
}

export interface OurSession {
  readonly pid: number;
  readonly applicationName: string;
  readonly state: string;
  /** What it waits for, `ClientWrite` when we read too slowly; null while it works. */
  readonly waitEvent: string | null;
  /** Seconds in this state. */
  readonly seconds: number;
}

/** A session that waits for a lock on a table. */
export interface Waiting {
  readonly pid: number;
  readonly table: string;
  /** The statement's first words, `ALTER TABLE`; the lock's mode where its text may not be seen. */
  readonly statement: string;
  readonly seconds: number;
  readonly blockers: readonly number[];
}

/** Asks the server; `application` begins the application name of every session of this run. */
export async function watch(control: Session, application: string): Promise<Watch> {
  const sessions = await control.query<OurSession>(
    `SELECT pid, application_name AS "applicationName", coalesce(state, '') AS state, wait_event AS "waitEvent",
            coalesce(extract(epoch FROM clock_timestamp() - state_change), 0)::float8 AS seconds
     FROM pg_catalog.pg_stat_activity
     WHERE pid <> pg_backend_pid() AND left(application_name, length($1)) = $1`,
    [application],
  );
  const waiting = await control.query<{
    pid: number;
    schema: string;
    name: string;
    statement: string | null;
    mode: string;
    seconds: number;
    blockers: number[];
  }>(
    `SELECT l.pid, n.nspname AS schema, c.relname AS name, l.mode, pg_blocking_pids(l.pid) AS blockers,
            (regexp_match(a.query, '^\\s*([A-Za-z]+(?:\\s+[A-Za-z]+)?)'))[1] AS statement,
            coalesce(extract(epoch FROM clock_timestamp() - coalesce(l.waitstart, a.state_change)), 0)::float8 AS seconds
     FROM pg_catalog.pg_locks l
     JOIN pg_catalog.pg_class c ON c.oid = l.relation
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
     WHERE NOT l.granted AND l.locktype = 'relation'
       AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())`,
  );
  return {
    sessions,
    waiting: waiting.map((row) => ({
      pid: row.pid,
      table: displayName(row),
      statement: (row.statement ?? row.mode).toUpperCase(),
      seconds: row.seconds,
      blockers: row.blockers,
    })),
  };
}

/** Ends every server session whose application name begins so; a role may end its own. */
export async function endSessions(session: Session, application: string): Promise<void> {
  await session.query(
    `SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
     WHERE pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
       AND pg_catalog.left(application_name, pg_catalog.length($1)) OPERATOR(pg_catalog.=) $1`,
    [application],
  );
}

/** A request of somebody else that waits because of one of our sessions. */
export function blockedByUs({ sessions, waiting }: Watch): Waiting[] {
  const ours = new Set(sessions.map((session) => session.pid));
  return waiting.filter((wait) => !ours.has(wait.pid) && wait.blockers.some((pid) => ours.has(pid)));
}

/**
 * The foreign request that stands between our locks and one of our own sessions: it waits for the exporter, and
 * `application` waits behind it. Neither moves until the exporter lets go.
 */
export function starvedBy(state: Watch, application: string): Waiting | undefined {
  const pids = new Set(
    state.sessions.filter((session) => session.applicationName === application).map((session) => session.pid),
  );
  const inFront = new Set(state.waiting.filter((wait) => pids.has(wait.pid)).flatMap((wait) => wait.blockers));
  return blockedByUs(state).find((wait) => inFront.has(wait.pid));
}
