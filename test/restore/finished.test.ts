import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { RestoreReport, Taken } from '../support/backup.ts';
import { ourSessions, wrapped } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { backupOf, databasesOf, door, startRestore, tryRestore } from '../support/restoring.ts';

describe('what pg_restore has finished is kept', () => {
  let cluster: Cluster;
  let backup: Taken;
  before(async () => {
    cluster = await Cluster.start();
    backup = await backupOf(cluster, 'shop', 'CREATE TABLE t AS SELECT generate_series(1, 10) x');
  });
  after(() => cluster.stop());

  /** A pg_restore that succeeds, and SQL that runs right after it. */
  const followedBy = (sql: string): Promise<string> =>
    wrapped(cluster, {
      pg_restore: `case "$*" in *exit-on-error*) ;; *) exec "$REAL" "$@";; esac
"$REAL" "$@" || exit
exec '${join(cluster.bin, 'psql')}' -X -q -v ON_ERROR_STOP=1 -c "${sql}"`,
    });

  test('no session of ours waits idle while pg_restore runs', async () => {
    const gate = await door(cluster);
    const run = startRestore(cluster, backup, cluster.url('busy'), ['--client-bin', gate.bin]);
    await gate.reached();
    const sessions = await ourSessions(cluster);
    await gate.open();
    assert.equal((await run.done).exitCode, 0);
    assert.deepEqual(sessions, []);
  });

  test('a difference: exit 50, the database stays and is not to be used', async () => {
    const bin = await followedBy('DELETE FROM public.t WHERE x = 1');
    const result = await tryRestore(cluster, backup, cluster.url('differs'), ['--client-bin', bin]);
    assert.equal(result.exitCode, 50, result.stderr);
    assert.match(result.stderr, /^restore: the restored database is not what was backed up/m);
    assert.match(result.stderr, /public\.t: expected 10 rows, found 9 rows/);
    assert.match(result.stderr, /differs is kept: do not use it before you have looked at it/);
    assert.ok((await databasesOf(cluster)).includes('differs'));
  });

  test('a database that cannot be counted afterwards stays', async () => {
    const bin = await followedBy(`UPDATE pg_database SET datallowconn = false WHERE datname = 'locked'`);
    const result = await tryRestore(cluster, backup, cluster.url('locked'), ['--client-bin', bin]);
    assert.equal(result.exitCode, 50, result.stderr);
    assert.match(result.stderr, /^restore: the restored database could not be compared: /m);
    assert.match(result.stderr, /locked is kept/);
    assert.ok((await databasesOf(cluster)).includes('locked'));
  });

  test('a table that its own policy hides from its owner is named, not counted', async () => {
    const hidden = await backupOf(
      cluster,
      'hidden',
      `CREATE TABLE a AS SELECT 1 x; CREATE TABLE z AS SELECT 1 x;
       CREATE TABLE "T b" AS SELECT 1 x; ALTER TABLE "T b" ENABLE ROW LEVEL SECURITY; ALTER TABLE "T b" FORCE ROW LEVEL SECURITY;
       CREATE POLICY p ON "T b" USING (true)`,
    );
    await cluster.query('postgres', `CREATE ROLE adm LOGIN CREATEDB PASSWORD 'x'`);
    const result = await tryRestore(cluster, hidden, cluster.url('hidden2', 'adm', 'x'));
    assert.equal(result.exitCode, 0, result.stderr);
    assert.match(
      result.stderr,
      /may not read them to compare:\n {2}table public\."T b": query would be affected by row-/,
    );
    const counts = Object.fromEntries(
      (result.json as RestoreReport).compared.map((each) => [each.name, each.restored]),
    );
    assert.deepEqual(counts, { a: 1, z: 1, 'T b': null });
    assert.ok((await databasesOf(cluster)).includes('hidden2'));
  });

  test('no row value is in what a failed restore says', async () => {
    const canary = 'canary-7f3a';
    const secret = await backupOf(
      cluster,
      'canaries',
      `CREATE FUNCTION judge(v text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN true; END';
       CREATE TABLE t (v text CHECK (public.judge(v))); INSERT INTO t VALUES ('${canary}');
       CREATE OR REPLACE FUNCTION judge(v text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RAISE ''bad %'', v; END'`,
    );
    for (const jobs of ['1', '2']) {
      const result = await tryRestore(cluster, secret, cluster.url('canaries2'), ['--jobs', jobs]);
      assert.equal(result.exitCode, 50, result.stderr);
      assert.match(result.stderr, /^restore: pg_restore stopped/m);
      assert.ok(!`${result.stdout}${result.stderr}`.includes(canary), result.stderr);
      assert.ok(!(await databasesOf(cluster)).includes('canaries2'));
    }
  });
});
