import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  cli,
  clientBin,
  countedRows,
  gate,
  recordedRows,
  restoreWithStockTools,
  takeBackup,
  taken,
  tryBackup,
} from '../support/backup.ts';
import { Cluster } from '../support/postgres.ts';

describe('many tables on a server with default settings', () => {
  let cluster: Cluster;

  before(async () => {
    cluster = await Cluster.start();
    const [row] = await cluster.query('postgres', 'SHOW max_locks_per_transaction');
    assert.deepEqual(row, { max_locks_per_transaction: '64' });
  });
  after(() => cluster.stop());

  /** In pieces, because one transaction has no room for so many new tables' locks. */
  async function create(database: string, tables: number, statement: string): Promise<void> {
    await cluster.createDatabase(database);
    const client = await cluster.client(database);
    for (let from = 1; from <= tables; from += 500)
      await client.query(
        `DO $$ BEGIN FOR i IN ${from}..${Math.min(from + 499, tables)} LOOP EXECUTE pg_catalog.format('${statement}', i); END LOOP; END $$`,
      );
    await client.end();
  }

  test('0.25: 3,000 tables with three indexes each are counted without running out of locks', async () => {
    await create(
      'indexed',
      3000,
      'CREATE TABLE t%1$s (a int, b int, c int); CREATE INDEX ON t%1$s (a); CREATE INDEX ON t%1$s (b); CREATE INDEX ON t%1$s (c); INSERT INTO t%1$s VALUES (%1$s, 1, 1)',
    );
    const { manifest, census, result } = await takeBackup(cluster, 'indexed', { retries: 0 });
    assert.equal(manifest.totals.tables, 3000);
    assert.equal(manifest.totals.rows, 3000);
    assert.ok(census.tables.every(({ rows, archiveRows }) => rows === 1 && archiveRows === 1));
    assert.doesNotMatch(result.log, /Warning/);
  });

  test('F38: 10,000 tables are backed up, verified and listed', async () => {
    await create('wide', 10_000, 'CREATE TABLE t%1$s (a int)');
    const backup = await takeBackup(cluster, 'wide', { retries: 0 });
    assert.equal(backup.manifest.totals.tables, 10_000);
    assert.equal(backup.census.tables.length, 10_000);
    const bin = clientBin(cluster)['client-bin'];
    const { exitCode, stderr } = await cli([
      ...['verify', backup.id, '--store', backup.store],
      ...(bin === undefined ? [] : ['--client-bin', bin]),
    ]);
    assert.equal(exitCode, 0, stderr);
  });
});

describe('more tables than the server can lock twice', () => {
  let cluster: Cluster;
  const changes: readonly (readonly [what: string, sql: string, after: Record<string, number>])[] = [
    ['TRUNCATE and a reload', 'TRUNCATE items; INSERT INTO items VALUES (1), (2)', { 'public.items': 2 }],
    ['a rewriting ALTER', 'ALTER TABLE items ALTER COLUMN id TYPE bigint', { 'public.items': 50 }],
    [
      'a swap of two tables by name',
      'ALTER TABLE items RENAME TO x; ALTER TABLE others RENAME TO items; ALTER TABLE x RENAME TO others',
      { 'public.items': 3, 'public.others': 50 },
    ],
    ['a move to another schema', 'CREATE SCHEMA s; ALTER TABLE items SET SCHEMA s', { 's.items': 50 }],
  ];

  before(async () => {
    // Room for 200 locks and what is spare.
    cluster = await Cluster.start({ conf: { max_locks_per_transaction: '10', max_connections: '20' } });
  });
  after(() => cluster.stop());

  for (const [at, [what, sql, rows]] of changes.entries()) {
    test(`I-2: ${what} before pg_dump has its locks is noticed, and the backup starts again`, async () => {
      const database = `crowded_${at}`;
      await cluster.createDatabase(database);
      await cluster.query(
        database,
        `CREATE TABLE items (id int); INSERT INTO items SELECT generate_series(1, 50); CREATE TABLE others (id int); INSERT INTO others VALUES (1), (2), (3);
         DO $$ BEGIN FOR i IN 1..118 LOOP EXECUTE pg_catalog.format('CREATE TABLE t%s (id int)', i); END LOOP; END $$`,
      );
      const door = await gate(cluster);
      const running = tryBackup(cluster, database, { 'client-bin': door.bin, retries: 1 });
      await door.reached();
      await cluster.query(database, sql);
      await door.open();
      const result = await running;
      assert.equal(result.exitCode, 0, result.log);
      assert.match(
        result.log,
        /(?:public\.items.* changed between the snapshot and pg_dump's locks; letting it go first and start|a table disappeared while pg_dump was looking: .*; try)ing again/,
      );
      const backup = await taken(result);
      const recorded = recordedRows(backup.census);
      for (const [name, count] of Object.entries(rows)) assert.equal(recorded[name], count, name);
      const restored = await restoreWithStockTools(cluster, backup.dump);
      assert.deepEqual(await countedRows(cluster, restored, backup.census), recorded);
    });
  }

  test('nothing is noticed where nothing changed, and rows written meanwhile are not in the backup', async () => {
    const door = await gate(cluster);
    const running = tryBackup(cluster, 'crowded_0', { 'client-bin': door.bin, retries: 0 });
    await door.reached();
    await cluster.query(
      'crowded_0',
      'INSERT INTO items VALUES (9); UPDATE others SET id = 0; CREATE TABLE late (id int)',
    );
    await door.open();
    const result = await running;
    assert.equal(result.exitCode, 0, result.log);
    assert.doesNotMatch(result.log, /starting again/);
    assert.equal(recordedRows((await taken(result)).census)['public.items'], 2);
  });
});
