import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Taken } from '../support/backup.ts';
import { ourSessions, until } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { backupOf, databasesOf, door, rolesOf, startRestore, tryRestore } from '../support/restoring.ts';

describe('a restore that is cancelled says what the target holds', () => {
  let cluster: Cluster;
  let backup: Taken;
  before(async () => {
    cluster = await Cluster.start();
    await cluster.query('postgres', 'CREATE ROLE app');
    // Every row takes 20 ms to restore, though it took none to write.
    backup = await backupOf(
      cluster,
      'slow',
      `CREATE FUNCTION judge(v int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
       CREATE TABLE other AS SELECT 1 x; ALTER TABLE other OWNER TO app;
       CREATE TABLE t (v int CHECK (public.judge(v))); INSERT INTO t SELECT generate_series(1, 2000);
       CREATE OR REPLACE FUNCTION judge(v int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pg_catalog.pg_sleep(0.02); RETURN true; END'`,
    );
    await cluster.query('slow', 'ALTER TABLE other OWNER TO postgres');
    await cluster.query('postgres', 'DROP ROLE app');
  });
  after(() => cluster.stop());

  const copying = (database: string): Promise<unknown> =>
    until(async () => {
      const sql = `SELECT FROM pg_stat_activity WHERE datname = $1 AND query LIKE 'COPY public.t %' AND state = 'active'`;
      return (await cluster.query('postgres', sql, [database])).length > 0 || undefined;
    });
  const tablesOf = async (database: string): Promise<number> =>
    (await cluster.query(database, `SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace`)).length;

  test('a new database: it is dropped, and the roles with it', async () => {
    const run = startRestore(cluster, backup, cluster.url('fresh'), ['--jobs', '2']);
    await copying('fresh');
    run.signal('SIGINT');
    const result = await run.done;
    assert.equal(result.exitCode, 130, result.stderr);
    assert.match(result.stderr, /^restore: cancelled; the database fresh, created here, was dropped again$/m);
    assert.doesNotMatch(result.stderr, /published/);
    assert.ok(!(await databasesOf(cluster)).includes('fresh'));
    assert.deepEqual(await rolesOf(cluster), []);
    assert.deepEqual(await ourSessions(cluster), []);
  });

  test('an empty database with one job: it is rolled back', async () => {
    await cluster.createDatabase('one');
    const run = startRestore(cluster, backup, cluster.url('one'), ['--jobs', '1']);
    await copying('one');
    run.signal('SIGTERM');
    const result = await run.done;
    assert.equal(result.exitCode, 130, result.stderr);
    assert.match(result.stderr, /^restore: cancelled; it was rolled back, one is as empty as before$/m);
    assert.equal(await tablesOf('one'), 0);
    assert.deepEqual(await rolesOf(cluster), []);
  });

  test('an empty database with several jobs: it holds a part', async () => {
    await cluster.createDatabase('many');
    const run = startRestore(cluster, backup, cluster.url('many'), ['--jobs', '2', '--owners', 'drop']);
    await copying('many');
    run.signal('SIGINT');
    const result = await run.done;
    assert.equal(result.exitCode, 130, result.stderr);
    assert.match(result.stderr, /^restore: cancelled; many now holds part of the backup: empty it/m);
    assert.ok((await tablesOf('many')) > 0);
    assert.deepEqual(await ourSessions(cluster), []);
  });

  test('one that takes too long ends likewise, with exit 14', async () => {
    const result = await tryRestore(cluster, backup, cluster.url('late'), ['--timeout', '4s']);
    assert.equal(result.exitCode, 14, result.stderr);
    assert.match(
      result.stderr,
      /^restore: the restore was not done within 4\S* s; the database late, created here, was dropped again\nhint: .*--timeout/m,
    );
    assert.ok(!(await databasesOf(cluster)).includes('late'));
  });

  test('a pg_restore that does not listen is killed, and its database dropped', async () => {
    const gate = await door(cluster, { first: "trap '' TERM INT" });
    const run = startRestore(cluster, backup, cluster.url('deaf'), ['--client-bin', gate.bin]);
    await gate.reached();
    run.signal('SIGINT');
    const result = await run.done;
    assert.equal(result.exitCode, 130, result.stderr);
    assert.ok(!(await databasesOf(cluster)).includes('deaf'));
  });
});
