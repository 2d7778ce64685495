import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type pg from 'pg';
import type { ActionResult } from '../support/action.ts';
import {
  countedRows,
  gate,
  nameOf,
  recordedRows,
  restoreWithStockTools,
  takeBackup,
  taken,
  tryBackup,
  waitsForLock,
} from '../support/backup.ts';
import { errorOf, wrapped } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';

const tables = `
  CREATE TABLE accounts (id int PRIMARY KEY, balance int);
  INSERT INTO accounts SELECT g, g FROM generate_series(1, 50) g;
  CREATE TABLE items (id int PRIMARY KEY, code text);
  INSERT INTO items SELECT g, 'code ' || g FROM generate_series(1, 1000) g;
  CREATE TABLE zebras (id int); INSERT INTO zebras VALUES (1), (2), (3);`;

describe('definitions that change while a backup is taken', () => {
  let cluster: Cluster;
  let made = 0;

  before(async () => {
    cluster = await Cluster.start();
  });
  after(() => cluster.stop());

  async function database(): Promise<{ name: string; app: pg.Client }> {
    made += 1;
    const name = `app_${made}`;
    await cluster.createDatabase(name);
    await cluster.query(name, tables);
    return { name, app: await cluster.client(name) };
  }

  async function requireRestorable(result: ActionResult): Promise<Record<string, number>> {
    assert.equal(result.exitCode, 0, result.log);
    const backup = await taken(result);
    const recorded = recordedRows(backup.census);
    const restored = await restoreWithStockTools(cluster, backup.dump);
    assert.deepEqual(await countedRows(cluster, restored, backup.census), recorded);
    return recorded;
  }

  // Without LOCK before the snapshot this is exit 0 with no rows: the table's new file is invisible to the snapshot.
  for (const [what, sql, rows] of [
    ['TRUNCATE and a reload', 'TRUNCATE items; INSERT INTO items SELECT g FROM generate_series(1, 7) g', 7],
    ['a rewriting ALTER', 'ALTER TABLE items ALTER COLUMN id TYPE bigint', 1000],
  ] as const) {
    test(`I-2: ${what} that commits while we wait for the lock leaves no empty table`, async () => {
      const { name, app } = await database();
      await app.query(`BEGIN; ${sql}`);
      const running = tryBackup(cluster, name);
      await waitsForLock(cluster, 'LOCK TABLE');
      await app.query('COMMIT');
      const recorded = await requireRestorable(await running);
      assert.deepEqual(recorded, { 'public.accounts': 50, 'public.items': rows, 'public.zebras': 3 });
      await app.end();
    });
  }

  test('F10: a table dropped, one created and one moved while we wait for a lock are seen, and listed again', async () => {
    const { name, app } = await database();
    await app.query('BEGIN; LOCK TABLE accounts');
    const running = tryBackup(cluster, name);
    await waitsForLock(cluster, 'LOCK TABLE');
    await cluster.query(
      name,
      `DROP TABLE zebras; CREATE TABLE newcomers (id int); INSERT INTO newcomers VALUES (1), (2);
       CREATE SCHEMA old; ALTER TABLE items SET SCHEMA old`,
    );
    await app.query('COMMIT');
    const result = await running;
    assert.match(
      result.log,
      /tables were created or dropped while they were being locked; listing them again \(1 of 5\)/,
    );
    assert.deepEqual(await requireRestorable(result), {
      'public.accounts': 50,
      'public.newcomers': 2,
      'old.items': 1000,
    });
    await app.end();
  });

  test('a new table alone is found too, though every lock was had', async () => {
    const { name, app } = await database();
    await app.query('BEGIN; LOCK TABLE accounts');
    const running = tryBackup(cluster, name);
    await waitsForLock(cluster, 'LOCK TABLE');
    await cluster.query(name, 'CREATE TABLE newcomers AS SELECT 1 AS id');
    await app.query('COMMIT');
    const recorded = await requireRestorable(await running);
    assert.equal(recorded['public.newcomers'], 1);
    await app.end();
  });

  for (const [what, sql, rows] of [
    ['ALTER TABLE', 'ALTER TABLE items ALTER COLUMN id TYPE bigint', 1000],
    ['TRUNCATE', 'TRUNCATE items; INSERT INTO items SELECT g FROM generate_series(1, 7) g', 7],
  ] as const) {
    test(`0.13: ${what} that comes between our locks and pg_dump's goes first, and the backup starts again`, async () => {
      const { name, app } = await database();
      const door = await gate(cluster);
      const running = tryBackup(cluster, name, { 'client-bin': door.bin });
      await door.reached();
      const began = Date.now();
      const change = app.query(sql);
      await waitsForLock(cluster, sql.slice(0, 12));
      await door.open();
      await change;
      assert.ok(Date.now() - began < 10_000, 'the application waited too long');
      const result = await running;
      assert.match(
        result.log,
        new RegExp(
          `Warning: ${what}(?: \\w+)? on public\\.items came between our locks and pg_dump's; letting it go first and starting again`,
        ),
      );
      assert.equal((await requireRestorable(result))['public.items'], rows);
      await app.end();
    });
  }

  test('F11: a table dropped between our locks and the dump cannot be: the DROP waits, then the backup starts again', async () => {
    const { name, app } = await database();
    const door = await gate(cluster);
    const running = tryBackup(cluster, name, { 'client-bin': door.bin });
    await door.reached();
    const change = app.query('DROP TABLE items');
    await waitsForLock(cluster, 'DROP TABLE');
    await door.open();
    await change;
    const result = await running;
    assert.match(result.log, /DROP TABLE on public\.items came between/);
    assert.deepEqual(await requireRestorable(result), { 'public.accounts': 50, 'public.zebras': 3 });
    await app.end();
  });

  test('a table created after the snapshot is not part of the backup', async () => {
    const { name, app } = await database();
    const door = await gate(cluster);
    const running = tryBackup(cluster, name, { 'client-bin': door.bin });
    await door.reached();
    await app.query('CREATE TABLE late AS SELECT 1 AS id; INSERT INTO items VALUES (-1)');
    await door.open();
    assert.deepEqual(await requireRestorable(await running), {
      'public.accounts': 50,
      'public.items': 1000,
      'public.zebras': 3,
    });
    await app.end();
  });

  test('F7: a lock that is not let go in time is exit 14 and names the table and who holds it', async () => {
    const { name, app } = await database();
    await app.query('BEGIN; LOCK TABLE items');
    const result = await tryBackup(cluster, name, { 'lock-wait-timeout': '700ms', retries: 0 });
    assert.equal(result.exitCode, 14, result.log);
    assert.match(
      errorOf(result),
      /^snapshot: public\.items stayed locked by another session for 0\.7 s; its last statement: /,
    );
    assert.match(errorOf(result), /hint: .*lock-wait-timeout/);
    await app.query('ROLLBACK');
    await app.end();
  });

  // The only slow test: 30 seconds are the contract's.
  test('I-12: a statement that waits 30 s for the dump is named, or given way to', async () => {
    const [patient, polite] = [await database(), await database()];
    const slow = await wrapped(cluster, { pg_dump: '"$REAL" "$@"; code=$?; sleep 38; exit $code' });
    const inputs = { 'client-bin': slow, retries: 0 };
    const started = Date.now();
    const runs = [patient, polite].map(async ({ name, app }, at) => {
      const running = tryBackup(cluster, name, { ...inputs, 'on-blocked-ddl': at === 0 ? 'warn' : 'abort' });
      await waitForExporter(name);
      const change = app.query('ALTER TABLE items ADD COLUMN note text').then(() => Date.now() - started);
      const result = await running;
      const ended = Date.now() - started;
      const changed = await change;
      await app.end();
      return { result, ended, changed };
    });
    const [warned, aborted] = await Promise.all(runs);
    assert.ok(warned !== undefined && aborted !== undefined);
    const said = /ALTER TABLE on public\.items (?:has been waiting|waited) 3\d s for this dump/;
    assert.equal(warned.result.exitCode, 0, warned.result.log);
    assert.match(warned.result.annotations.map(({ message }) => message).join('\n'), said);
    assert.ok(warned.ended > 37_000);

    assert.equal(aborted.result.exitCode, 14, aborted.result.log);
    assert.match(errorOf(aborted.result), said);
    assert.ok(aborted.ended < 38_000 && aborted.changed < 38_000, `${aborted.ended} ms, ${aborted.changed} ms`);
    assert.equal((await takeBackup(cluster, polite.name)).census.tables.map(nameOf).length, 3);
  });

  async function waitForExporter(name: string): Promise<void> {
    for (;;) {
      const rows = await cluster.query(
        name,
        `SELECT 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid)
         WHERE a.application_name ~ '^pgassay .* pg_dump$' AND l.relation = 'items'::regclass AND l.granted`,
      );
      if (rows.length > 0) return;
    }
  }
});
