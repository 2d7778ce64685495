/**
 * What writing leaves behind in a database, cheap enough to look at twice: two looks that agree say that nothing was
 * written in between.
 *
 * The server counts the rows that are inserted, updated and deleted, those of the catalogs too, so that TRUNCATE, every
 * definition and every large object is a number more there. Sequences and what belongs to the database itself are not
 * counted, and are looked at. Left out is what autovacuum writes by itself: the planner's statistics.
 *
 * From PostgreSQL 15 on a session has told what it did before it is gone, so once a database could be renamed, which
 * takes that nobody is in it, all of it is there. What this cannot see: rows that a superuser's session wrote after it
 * had set track_counts off for itself, a sequence that was never used and got another first value, and on
 * PostgreSQL 14 what its collector of statistics was too busy to receive.
 */
import type { Session } from './connect.ts';
import { isDatabaseError } from './messages.ts';

/** A lock on a sequence means that somebody is at work there. */
const lockWaitMs = 5000;

const countedQuery = `SELECT current_setting('track_counts')::bool
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_db_role_setting, unnest(setconfig) AS setting WHERE setting ~* '^track_counts=')
  -- Only the server's own kind of table is known to count.
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_am a ON a.oid = c.relam
                  WHERE a.amtype = 't' AND a.amname <> 'heap') AS counted`;

const tracesQuery = `WITH d AS (SELECT * FROM pg_catalog.pg_database WHERE datname = current_database())
SELECT encode(sha256(convert_to(trace, 'UTF8')), 'hex') AS trace FROM (SELECT concat_ws('|',
  -- Per table, because a table that is dropped takes its numbers with it, and a sum could come out the same.
  (SELECT string_agg(concat_ws(' ', c.oid, c.relfilenode, pg_stat_get_tuples_inserted(c.oid),
                               pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_deleted(c.oid)), ',' ORDER BY c.oid)
   FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'm', 'S') AND NOT c.relisshared
     AND c.oid NOT IN ('pg_catalog.pg_statistic'::regclass, 'pg_catalog.pg_statistic_ext_data'::regclass)),
  (SELECT string_agg(concat_ws(' ', schemaname, sequencename, last_value), ',' ORDER BY schemaname, sequencename)
   FROM pg_catalog.pg_sequences),
  (SELECT max(oid) FROM pg_catalog.pg_largeobject_metadata),
  (SELECT string_agg(s.slot_name::text, ',' ORDER BY s.slot_name::text)
   FROM pg_catalog.pg_replication_slots s WHERE s.datoid = d.oid),
  concat_ws(' ', d.datdba, d.datacl, d.datconnlimit, shobj_description(d.oid, 'pg_database')),
  (SELECT string_agg(concat_ws(' ', r.setrole, r.setconfig), ',' ORDER BY r.setrole)
   FROM pg_catalog.pg_db_role_setting r WHERE r.setdatabase = d.oid),
  -- A server that crashes begins to count anew, and so does one that is told to.
  (SELECT a.stats_reset FROM pg_catalog.pg_stat_archiver a), pg_stat_get_db_stat_reset_time(d.oid)) AS trace FROM d) t`;

/** Another answer later: something was written in `session`'s database, or may have been. Undefined: it cannot be told. */
export async function readTraces(session: Session): Promise<string | undefined> {
  try {
    await session.query('BEGIN READ ONLY');
    await session.query(`SET LOCAL lock_timeout = ${lockWaitMs}`);
    const [state] = await session.query<{ counted: boolean }>(countedQuery);
    const [row] = state?.counted === true ? await session.query<{ trace: string }>(tracesQuery) : [];
    return row?.trace;
  } catch (error) {
    if (!isDatabaseError(error)) throw error;
    return undefined;
  } finally {
    await session.query('ROLLBACK');
  }
}

/** Lets the numbers of sessions that are gone arrive: PostgreSQL 14 shows them up to half a second late. */
export async function awaitStatistics(session: Session): Promise<void> {
  await session.query(`SELECT pg_sleep(1) WHERE current_setting('server_version_num')::int < 150000`);
}
