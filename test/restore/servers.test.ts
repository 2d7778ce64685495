import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Taken } from '../support/backup.ts';
import { wrapped } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { backupOf, databasesOf, door, startRestore, tryRestore } from '../support/restoring.ts';

describe('a restore that fails drops nothing but what it made', () => {
  let source: Cluster;
  let backup: Taken;
  before(async () => {
    source = await Cluster.start();
    backup = await backupOf(source, 'shop', 'CREATE TABLE t AS SELECT generate_series(1, 10) x');
  });
  after(() => source.stop());

  test('with two hosts in the URL, a database of the other server stays', async () => {
    await using first = await Cluster.start();
    await using second = await Cluster.start();
    for (const cluster of [first, second])
      await cluster.query('postgres', `CREATE ROLE r SUPERUSER LOGIN PASSWORD 'same'`);
    await second.createDatabase('shop');
    await second.query('shop', 'CREATE TABLE precious AS SELECT 1 x');
    const gate = await door(source);
    const url = `postgresql://r:same@127.0.0.1:${first.port},127.0.0.1:${second.port}/shop`;
    const run = startRestore(source, backup, url, ['--client-bin', gate.bin]);
    await gate.reached();
    assert.ok((await databasesOf(first)).includes('shop'), 'it was created on the first server');
    await first.stop();
    await gate.open();
    const result = await run.done;
    assert.equal(result.exitCode, 50, result.stderr);
    assert.match(result.stderr, /shop, created here, could not be dropped again; it is not complete/);
    assert.equal((await second.query('shop', 'SELECT x FROM precious')).length, 1);
  });

  test('a later database of the same name stays', async () => {
    await using cluster = await Cluster.start();
    const gate = await door(cluster, { after: 'exit 1' });
    const run = startRestore(cluster, backup, cluster.url('shop'), ['--client-bin', gate.bin]);
    await gate.reached();
    await cluster.query('postgres', 'DROP DATABASE shop');
    await cluster.createDatabase('shop');
    await cluster.query('shop', 'CREATE TABLE precious AS SELECT 1 x');
    await gate.open();
    const result = await run.done;
    assert.equal(result.exitCode, 50, result.stderr);
    assert.match(result.stderr, /another database is called shop now .*nothing was dropped/);
    assert.equal((await cluster.query('shop', 'SELECT x FROM precious')).length, 1);
  });

  test('the database it made is dropped, sessions in it and all', async () => {
    await using cluster = await Cluster.start();
    const gate = await door(cluster, { after: 'exit 1' });
    const run = startRestore(cluster, backup, cluster.url('shop'), ['--client-bin', gate.bin]);
    await gate.reached();
    const guest = await cluster.client('shop');
    await gate.open();
    const result = await run.done;
    await guest.end().catch(() => {});
    assert.equal(result.exitCode, 50, result.stderr);
    assert.match(result.stderr, /hint: the database shop, created here, was dropped again/);
    assert.ok(!(await databasesOf(cluster)).includes('shop'));
  });

  test('a database that was there is not dropped', async () => {
    await using cluster = await Cluster.start();
    await cluster.createDatabase('there');
    const bin = await wrapped(cluster, {
      pg_restore: 'case "$*" in *exit-on-error*) exit 1;; esac; exec "$REAL" "$@"',
    });
    for (const jobs of ['1', '2']) {
      const flags = ['--client-bin', bin, '--jobs', jobs];
      const result = await tryRestore(cluster, backup, cluster.url('there'), flags);
      assert.equal(result.exitCode, 50, result.stderr);
      assert.match(
        result.stderr,
        jobs === '1' ? /rolled back, there is as empty as before/ : /there now holds part of the backup/,
      );
    }
    assert.ok((await databasesOf(cluster)).includes('there'));
  });
});

describe('two jobs of pg_restore that wait for each other', () => {
  let cluster: Cluster;
  let backup: Taken;
  before(async () => {
    cluster = await Cluster.start();
    const indexed = (table: string, [first, second]: readonly [number, number]): string =>
      `CREATE TABLE ${table} AS SELECT 1 AS x;
       CREATE FUNCTION ${table}_key(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$BEGIN
         PERFORM pg_advisory_xact_lock(${first}); PERFORM pg_sleep(1); PERFORM pg_advisory_xact_lock(${second}); RETURN x;
       END$$;
       CREATE INDEX ON ${table} (${table}_key(x));`;
    backup = await backupOf(cluster, 'crossing', indexed('a', [1, 2]) + indexed('b', [2, 1]));
  });
  after(() => cluster.stop());

  test('are followed by one job, in a database that was created for them', async () => {
    const result = await tryRestore(cluster, backup, cluster.url('crossed'), ['--jobs', '2']);
    assert.equal(result.exitCode, 0, result.stderr);
    assert.match(result.stderr, /deadlock detected.*crossed, created here, was dropped again, once more with one job/);
    assert.match(await cluster.log(), /deadlock detected/);
    assert.equal((await cluster.query('crossed', 'SELECT x FROM a UNION ALL SELECT x FROM b')).length, 2);
  });

  test('end the restore of a database that was there, and one job is advised', async () => {
    await cluster.createDatabase('there');
    const result = await tryRestore(cluster, backup, cluster.url('there'), ['--jobs', '2']);
    assert.equal(result.exitCode, 50, result.stderr);
    assert.match(result.stderr, /deadlock detected/);
    assert.match(result.stderr, /there now holds part of the backup.*run it again with --jobs 1/);
  });
});
