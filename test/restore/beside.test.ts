import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { CliResult, RestoreReport, Taken } from '../support/backup.ts';
import { ourSessions, until } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { backupOf, databasesOf, door, rolesOf, startRestore, tryRestore } from '../support/restoring.ts';

describe('a whole database is replaced by one that was restored beside it', () => {
  let cluster: Cluster;
  let backup: Taken;
  before(async () => {
    cluster = await Cluster.start();
    backup = await backupOf(
      cluster,
      'shop',
      `CREATE TABLE t AS SELECT generate_series(1, 100) x; CREATE TABLE u AS SELECT 1 y; SELECT lo_from_bytea(77, 'x')`,
    );
  });
  after(() => cluster.stop());

  const target = async (name: string, sql = 'DELETE FROM t'): Promise<void> => {
    await cluster.createDatabase(name, 'TEMPLATE shop');
    await cluster.query(name, sql);
  };
  const flagsFor = (name: string, flags: readonly string[]): string[] => [
    ...['--clean', '--confirm', name, '--jobs', '2', ...flags],
  ];
  const replace = (name: string, flags: readonly string[] = [], from = backup): Promise<CliResult> =>
    tryRestore(cluster, from, cluster.url(name), flagsFor(name, flags));
  const oidOf = async (name: string): Promise<unknown> =>
    (await cluster.query('postgres', 'SELECT oid::text FROM pg_database WHERE datname = $1', [name]))[0];
  const rowsOf = async (name: string): Promise<number> => (await cluster.query(name, 'SELECT FROM t')).length;
  const others = async (name: string): Promise<string[]> =>
    (await databasesOf(cluster)).filter((each) => each.startsWith(`${name}_`));

  test('with its owner, settings, limits, grants and comment; what was there goes when a safety backup holds it', async () => {
    await cluster.query('postgres', 'CREATE ROLE app; CREATE ROLE guest');
    await target('over');
    const about = `ALTER DATABASE over OWNER TO app; ALTER DATABASE over SET work_mem = '8MB'; ALTER DATABASE over CONNECTION LIMIT 17;
      ALTER ROLE guest IN DATABASE over SET app.x = 'a b'; REVOKE CONNECT ON DATABASE over FROM PUBLIC;
      GRANT CREATE ON DATABASE over TO guest; COMMENT ON DATABASE over IS 'the ''shop'''`;
    await cluster.query('postgres', about);
    const facts = (): Promise<unknown[]> =>
      cluster.query(
        'postgres',
        `SELECT pg_get_userbyid(datdba) AS owner, datconnlimit AS most, (SELECT array_agg(a::text ORDER BY a::text)::text FROM unnest(datacl) a) AS acl, shobj_description(d.oid, 'pg_database') AS comment,
                (SELECT json_agg(json_build_array(setrole::regrole::text, setconfig) ORDER BY setrole)::text FROM pg_db_role_setting WHERE setdatabase = d.oid) AS settings,
                pg_encoding_to_char(encoding) AS encoding, datcollate FROM pg_database d WHERE datname = 'over'`,
      );
    const [before, oid] = [await facts(), await oidOf('over')];
    const result = await replace('over');
    assert.equal(result.exitCode, 0, result.stderr);
    assert.match(
      result.stderr,
      /the backup is restored beside over, as over_pgassay_\w{6}, with several jobs, and compared; then it takes its place in one step, and what over is now gets the name over_before_\d{14} and is dropped, as a safety backup holds it/,
    );
    assert.notDeepEqual(await oidOf('over'), oid);
    assert.deepEqual(await facts(), before);
    assert.equal(await rowsOf('over'), 100);
    assert.equal((result.json as RestoreReport).rows, 101);
    assert.match(result.stderr, /safety backup assayed\/\d{8}T/);
    assert.deepEqual(await others('over'), []);
    assert.deepEqual(await ourSessions(cluster), []);
  });

  test('without a safety backup what was there is kept, and the next run names it', async () => {
    await target('kept', 'DELETE FROM t WHERE x > 7');
    const result = await replace('kept', ['--safety-backup', 'false']);
    assert.equal(result.exitCode, 0, result.stderr);
    const [aside = ''] = await others('kept');
    assert.match(aside, /^kept_before_\d{14}$/);
    assert.ok(result.stderr.includes(`what it was before is ${aside}, until you drop it:\n  DROP DATABASE ${aside};`));
    assert.deepEqual([await rowsOf('kept'), await rowsOf(aside)], [100, 7]);
    const again = await replace('kept', ['--safety-backup', 'false']);
    assert.match(
      again.stderr,
      /kept by earlier restores of kept, as it was before them:\n {2}DROP DATABASE kept_before_/,
    );
  });

  for (const [why, sql, says] of [
    [
      'it holds something else',
      'CREATE TABLE unrelated AS SELECT 1 x',
      'it holds what the backup does not have (TABLE public.unrelated), which stays',
    ],
    [
      'it has a large object of its own',
      `SELECT lo_from_bytea(78, 'y')`,
      'it has the large object 78, which the backup does not have',
    ],
  ] as const)
    test(`not where ${why}: one job in one transaction, which is said`, async () => {
      const name = `not_${why.split(' ').at(-1)}`;
      await target(name, `DELETE FROM t; ${sql}`);
      const oid = await oidOf(name);
      const result = await replace(name);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.ok(
        result.stderr.includes(`not replaced by a database restored beside it with several jobs: ${says}`),
        result.stderr,
      );
      assert.match(result.stderr, /with one job in one transaction: until it ends/);
      assert.deepEqual(await oidOf(name), oid);
      assert.equal(await rowsOf(name), 100);
    });

  test('rows that are written after the safety backup has begun are kept with the database they are in', async () => {
    await target('written');
    const gate = await door(cluster);
    const run = startRestore(cluster, backup, cluster.url('written'), flagsFor('written', ['--client-bin', gate.bin]));
    await gate.reached();
    await cluster.query('written', 'INSERT INTO u VALUES (2)');
    await gate.open();
    const result = await run.done;
    assert.equal(result.exitCode, 0, result.stderr);
    const [aside = ''] = await others('written');
    assert.match(
      result.stderr,
      /warning: written is the restored database now; it was written to after the safety backup had begun, so what it was before is written_before_\d{14}, until you drop it/,
    );
    assert.deepEqual([await rowsOf('written'), (await cluster.query(aside, 'SELECT FROM u')).length], [100, 2]);
  });

  test('not where others are connected; nor where they come before the end: then it is as it was', async () => {
    await target('busy');
    await target('owned', 'CREATE ROLE passing; ALTER TABLE u OWNER TO passing');
    const owned = await backupOf(cluster, 'owned', 'SELECT 1', { name: 'owned' });
    await cluster.query('postgres', 'DROP DATABASE owned');
    await cluster.query('postgres', 'DROP ROLE passing');
    const oid = await oidOf('busy');
    const gate = await door(cluster);
    const run = startRestore(cluster, owned, cluster.url('busy'), flagsFor('busy', ['--client-bin', gate.bin]));
    await gate.reached();
    const client = await cluster.client('busy');
    await gate.open();
    const late = await run.done;
    assert.equal(late.exitCode, 50, late.stderr);
    assert.match(
      late.stderr,
      /^restore: others have connected to busy meanwhile, so that it could not be renamed\nhint: stop what uses it .*\n\s+busy is as it was before\n\s+what it held before is in the safety backup/m,
    );
    assert.deepEqual(await others('busy'), []);
    assert.match(late.stderr, /created the roles the backup needs, without login: passing/);
    assert.ok(!(await rolesOf(cluster)).includes('passing'));
    assert.deepEqual([await oidOf('busy'), await rowsOf('busy')], [oid, 0]);
    const place = await replace('busy', ['--safety-backup', 'false']);
    await client.end();
    assert.equal(place.exitCode, 0, place.stderr);
    assert.match(place.stderr, /with several jobs: others are connected to it/);
    assert.deepEqual([await oidOf('busy'), await rowsOf('busy')], [oid, 100]);
  });

  test('a backup that does not restore: the target is as it was, and nothing is left', async () => {
    const bad = await backupOf(
      cluster,
      'bad',
      `CREATE FUNCTION judge(v int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN true; END';
       CREATE TABLE t (x int CHECK (public.judge(x))); INSERT INTO t VALUES (1);
       CREATE OR REPLACE FUNCTION judge(v int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN false; END'`,
      { name: 'bad' },
    );
    const oid = await oidOf('bad');
    const result = await replace('bad', [], bad);
    assert.equal(result.exitCode, 50, result.stderr);
    assert.match(result.stderr, /^restore: pg_restore stopped at TABLE DATA t /m);
    assert.match(result.stderr, /\n\s+bad is as it was before\n\s+what it held before is in the safety backup bad\//);
    assert.deepEqual([await oidOf('bad'), await rowsOf('bad')], [oid, 1]);
    assert.deepEqual(await others('bad'), []);
  });

  test('cancelled, or killed: the target is as it was; what a kill leaves is named by the next run', async () => {
    for (const signal of ['SIGINT', 'SIGKILL'] as const) {
      const name = signal.toLowerCase();
      await target(name);
      const oid = await oidOf(name);
      const gate = await door(cluster, { after: 'exit 1' });
      const flags = flagsFor(name, ['--client-bin', gate.bin, '--safety-backup', 'false']);
      const run = startRestore(cluster, backup, cluster.url(name), flags);
      await gate.reached();
      run.signal(signal);
      const result = await run.done;
      await gate.open();
      assert.deepEqual([await oidOf(name), await rowsOf(name)], [oid, 0]);
      if (signal === 'SIGINT') {
        assert.equal(result.exitCode, 130, result.stderr);
        assert.match(result.stderr, /^restore: cancelled; sigint is as it was before$/m);
        assert.deepEqual(await others(name), []);
        continue;
      }
      const [left = ''] = await others(name);
      assert.match(left, /^sigkill_pgassay_[0-9a-f]{6}$/);
      await until(async () => (await ourSessions(cluster)).length === 0 || undefined);
      const next = await replace(name, ['--safety-backup', 'false']);
      assert.equal(next.exitCode, 0, next.stderr);
      assert.ok(next.stderr.includes(`sigkill was not touched by them:\n  DROP DATABASE ${left};`), next.stderr);
      assert.equal(await rowsOf(name), 100);
    }
  });
});
