import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { takeBackup } from '../support/backup.ts';
import { Cluster } from '../support/postgres.ts';
import { said, type TestReport, tryRestoreTest } from '../support/restore-test.ts';

describe('a restore test leaves production alone', () => {
  let production: Cluster;
  let source: Cluster;
  before(async () => {
    production = await Cluster.start({ conf: { wal_level: 'logical' } });
    source = await Cluster.start({ conf: { wal_level: 'logical' } });
    await production.createDatabase('origin');
    await production.query('origin', 'CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)');
    await production.query('origin', 'CREATE PUBLICATION everything FOR ALL TABLES');
  });
  after(async () => {
    await source.stop();
    await production.stop();
  });

  test('a subscription is left out and named: its slot survives, and nobody else connects for it', async () => {
    await source.createDatabase('replica');
    await source.query('replica', 'CREATE TABLE t (id int PRIMARY KEY)');
    const { host, port, password } = production;
    const connection = `host=${host} port=${port} user=postgres dbname=origin password='${password.replace(/['\\]/g, '\\$&')}'`;
    await source.query(
      'replica',
      `CREATE SUBSCRIPTION from_production CONNECTION '${connection.replaceAll("'", "''")}' PUBLICATION everything`,
    );
    const slots = (): Promise<{ name: string }[]> =>
      production.query(
        'postgres',
        'SELECT slot_name::text AS name FROM pg_replication_slots WHERE NOT temporary ORDER BY 1',
      );
    for (let tries = 0; (await source.query('replica', 'SELECT FROM t')).length < 2; tries++) {
      assert.ok(tries < 100, 'the subscription copied nothing');
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const backup = await takeBackup(source, 'replica');
    const log = (await production.log()).length;
    const result = await tryRestoreTest(source, backup);
    const report = result.json as TestReport;
    assert.equal(result.exitCode, 0, said(result));
    assert.deepEqual(report.leftOut, ['SUBSCRIPTION from_production']);
    assert.deepEqual(
      (await slots()).map((slot) => slot.name),
      ['from_production'],
    );
    assert.doesNotMatch((await production.log()).slice(log), /replication slot .* (?:dropped|created)|pgassay/);
    assert.doesNotMatch(said(result), new RegExp(password.slice(-12)));
    // Otherwise the server cannot be stopped in peace.
    await source.query('replica', 'ALTER SUBSCRIPTION from_production DISABLE');
  });

  test('a materialized view over a foreign table is not refreshed: no connection is made', async () => {
    let connections = 0;
    const listener = createServer((socket) => {
      connections++;
      socket.destroy();
    });
    await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
    const { port } = listener.address() as { port: number };
    try {
      await source.createDatabase('linked');
      await source.query(
        'linked',
        `CREATE EXTENSION postgres_fdw;
         CREATE SERVER production FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '${production.port}', dbname 'origin');
         CREATE USER MAPPING FOR PUBLIC SERVER production OPTIONS (user 'postgres', password '${production.password.replaceAll("'", "''")}');
         CREATE FOREIGN TABLE far (id int) SERVER production OPTIONS (schema_name 'public', table_name 't');
         CREATE VIEW between_them AS SELECT * FROM far;
         CREATE MATERIALIZED VIEW near AS SELECT * FROM between_them;
         CREATE MATERIALIZED VIEW at_home AS SELECT 1 AS x;
         ALTER SERVER production OPTIONS (SET port '${port}')`,
      );
      const backup = await takeBackup(source, 'linked', { 'allow-empty': true });
      const result = await tryRestoreTest(source, backup);
      const report = result.json as TestReport;
      assert.deepEqual(report?.findings, [], said(result));
      assert.deepEqual(report.leftOut, [
        'USER MAPPING public SERVER production',
        'the rows of materialized view near, which reads from another server',
      ]);
      assert.equal(connections, 0);
    } finally {
      listener.close();
    }
  });
});
