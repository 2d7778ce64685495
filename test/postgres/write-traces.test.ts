import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { connect } from '../../src/postgres/connect.ts';
import { prepareSession } from '../../src/postgres/server.ts';
import { parseDatabaseUrl } from '../../src/postgres/url.ts';
import { awaitStatistics, readTraces } from '../../src/postgres/write-traces.ts';
import { until } from '../support/faults.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';

for (const major of majorsAvailable())
  describe(`traces of writing in PostgreSQL ${major}`, () => {
    let cluster: Cluster;
    before(async () => {
      cluster = await Cluster.start({ major, conf: { wal_level: 'logical', autovacuum: 'off' } });
      await cluster.createDatabase('shop');
      await cluster.query(
        'shop',
        `CREATE TABLE t (x int, long text); INSERT INTO t SELECT g, repeat(md5(g::text), 200) FROM generate_series(1, 100) g;
         CREATE SEQUENCE s; CREATE MATERIALIZED VIEW v AS SELECT x FROM t; SELECT lo_create(77); CREATE ROLE guest`,
      );
    });
    after(() => cluster.stop());

    const look = async (): Promise<string | undefined> => {
      // Nobody else is there when a restore looks.
      const busy = `SELECT FROM pg_stat_activity WHERE datname = 'shop'`;
      await until(async () => (await cluster.query('postgres', busy)).length === 0 || undefined);
      const { target } = parseDatabaseUrl(cluster.url('shop'), { input: 'database-url' });
      assert.ok(target);
      const session = await connect(target, { applicationName: 'pgassay test' });
      try {
        await prepareSession(session);
        await awaitStatistics(session);
        return await readTraces(session);
      } finally {
        await session.close();
      }
    };

    let last: string | undefined;
    for (const sql of [
      'INSERT INTO t VALUES (0)',
      'UPDATE t SET x = x WHERE x = 1',
      'DELETE FROM t WHERE x = 1',
      'TRUNCATE t',
      'CREATE TABLE fresh ()',
      'DROP TABLE fresh',
      'ALTER TABLE t ADD COLUMN y int',
      `CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
      `CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'`,
      'GRANT SELECT ON t TO guest',
      `COMMENT ON TABLE t IS 'x'`,
      'REFRESH MATERIALIZED VIEW v',
      `SELECT nextval('s')`,
      `SELECT setval('s', 7)`,
      'ALTER SEQUENCE s RESTART',
      'SELECT lo_create(78)',
      `SELECT lo_put(77, 0, 'x')`,
      'SELECT lo_unlink(78)',
      `ALTER DATABASE shop SET work_mem = '8MB'`,
      'ALTER DATABASE shop CONNECTION LIMIT 50',
      'GRANT CREATE ON DATABASE shop TO guest',
      `COMMENT ON DATABASE shop IS 'x'`,
      `SELECT pg_create_logical_replication_slot('follower', 'pgoutput')`,
      'SELECT pg_stat_reset()',
    ])
      test(`of ${sql}`, async () => {
        last ??= await look();
        await cluster.query('shop', sql);
        const now = await look();
        assert.match(now ?? '', /^[0-9a-f]{64}$/);
        assert.notEqual(now, last);
        last = now;
      });

    test('none of reading, of a dump and of what autovacuum does', async () => {
      const before = await look();
      await cluster.query('shop', 'SELECT count(*) FROM t');
      await cluster.query('shop', 'VACUUM ANALYZE');
      await cluster.query('shop', 'CHECKPOINT');
      await promisify(execFile)(join(cluster.bin, 'pg_dump'), ['--create', cluster.url('shop')]);
      assert.equal(await look(), before);
    });

    test('of a server that has crashed, which forgets its numbers', async () => {
      const starts = async (): Promise<number> =>
        (await cluster.log()).split('database system is ready to accept connections').length;
      const crash = async (): Promise<void> => {
        const before = await starts();
        const client = await cluster.client('postgres');
        const [backend] = (await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')).rows;
        process.kill(backend?.pid ?? Number.NaN, 'SIGKILL');
        await until(async () => (await starts()) > before || undefined);
        await client.end().catch(() => {});
      };
      await crash();
      const before = await look();
      await cluster.query('shop', 'INSERT INTO t VALUES (-1)');
      await crash();
      assert.notEqual(await look(), before);
    });

    for (const [what, on, off] of [
      ['a role that is not counted', 'ALTER ROLE guest SET track_counts = off', 'ALTER ROLE guest RESET track_counts'],
      [
        'tables of another kind',
        'CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler; CREATE TABLE strange () USING other',
        'DROP TABLE strange; DROP ACCESS METHOD other',
      ],
    ] as const)
      test(`cannot be told with ${what}`, async () => {
        await cluster.query('shop', on);
        assert.equal(await look(), undefined);
        await cluster.query('shop', off);
        assert.notEqual(await look(), undefined);
      });
  });
