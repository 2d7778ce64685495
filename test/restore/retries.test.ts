import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { RestoreReport, Taken } from '../support/backup.ts';
import { until } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { backupOf, databasesOf, startRestore, tryRestore } from '../support/restoring.ts';

describe('a restore whose connection breaks', () => {
  let cluster: Cluster;
  let backup: Taken;
  before(async () => {
    cluster = await Cluster.start();
    // Every row takes 10 ms to restore, though it took none to write.
    backup = await backupOf(
      cluster,
      'slow',
      `CREATE FUNCTION judge(v int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
       CREATE TABLE t (v int CHECK (public.judge(v))); INSERT INTO t SELECT generate_series(1, 150);
       CREATE OR REPLACE FUNCTION judge(v int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pg_catalog.pg_sleep(0.01); RETURN true; END'`,
    );
  });
  after(() => cluster.stop());

  /** Ends the session that loads rows there, once. */
  const breaks = (database: string): Promise<unknown> =>
    until(async () => {
      const sql = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND query LIKE 'COPY %' AND state = 'active'`;
      return (await cluster.query('postgres', sql, [database])).length > 0 || undefined;
    });

  for (const [what, flags, prepare] of [
    ['a new database is made once more', ['--jobs', '2'], undefined],
    ['what was rolled back is begun again', ['--confirm', 'again', '--tables', 't'], 'DROP TABLE t'],
    [
      'rows alone likewise',
      ['--confirm', 'again', '--mode', 'data-only', '--clean', '--safety-backup', 'false'],
      'SELECT 1',
    ],
  ] as const)
    test(`while the target is as it was, it is tried again: ${what}`, async () => {
      await cluster.query('postgres', 'DROP DATABASE IF EXISTS again');
      if (prepare !== undefined) {
        await cluster.createDatabase('again', 'TEMPLATE slow');
        await cluster.query('again', prepare);
      }
      const run = startRestore(cluster, backup, cluster.url('again'), flags);
      await breaks('again');
      const result = await run.done;
      assert.equal(result.exitCode, 0, result.stderr);
      assert.match(result.stderr, /; trying again in 2 s \(1 of 2\)/);
      assert.equal((result.json as RestoreReport).rows, 150);
      assert.equal((await cluster.query('again', 'SELECT FROM t')).length, 150);
    });

  test('not when a part is there already, and not with retries 0', async () => {
    await cluster.createDatabase('partly');
    const run = startRestore(cluster, backup, cluster.url('partly'), ['--jobs', '2']);
    await breaks('partly');
    const result = await run.done;
    assert.equal(result.exitCode, 50, result.stderr);
    assert.doesNotMatch(result.stderr, /trying again in/);
    assert.match(result.stderr, /hint: partly now holds part of the backup: empty it/);
    const never = startRestore(cluster, backup, cluster.url('never'), ['--retries', '0']);
    await breaks('never');
    const ended = await never.done;
    assert.equal(ended.exitCode, 50, ended.stderr);
    assert.doesNotMatch(ended.stderr, /trying again in/);
    assert.match(ended.stderr, /hint: the database never, created here, was dropped again/);
    assert.ok(!(await databasesOf(cluster)).includes('never'));
  });

  test('not for a refusal: exit 2 at once', async () => {
    const result = await tryRestore(cluster, backup, cluster.url('slow'), ['--retries', '5']);
    assert.equal(result.exitCode, 2, result.stderr);
    assert.doesNotMatch(result.stderr, /trying again in/);
  });
});
