// F14: backups of a hot standby, which replays what its primary does whether that suits a dump or not.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { ActionResult } from '../support/action.ts';
import {
  countedRows,
  gate,
  type Inputs,
  recordedRows,
  restoreWithStockTools,
  restoreWithUs,
  tableOf,
  takeBackup,
  taken,
  tryBackup,
} from '../support/backup.ts';
import { errorOf, filesIn, ourSessions, scratch, sessionsGone, until } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';

const conflict =
  /^dump: the standby cancelled the dump[^:\n]*: it conflicted with recovery\nhint: set hot_standby_feedback = on or a larger max_standby_streaming_delay on the standby, or back up the primary/;

/** Rows are removed for good only by the VACUUM that a test asks for, and what is committed can be replayed. */
const conf = { wal_level: 'replica', max_wal_senders: '4', autovacuum: 'off', synchronous_commit: 'on' };

/** Resolves when the standby has replayed everything that the primary has written so far. */
async function caughtUp(primary: Cluster, standby: Cluster): Promise<void> {
  const [now] = await primary.query<{ at: string }>('postgres', 'SELECT pg_current_wal_flush_lsn()::text AS at');
  await until(async () => {
    const [row] = await standby.query<{ done: boolean }>(
      'postgres',
      'SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS done',
      [now?.at],
    );
    return row?.done === true || undefined;
  });
}

/** Resolves when the last transaction that the standby replayed is so many seconds ago. */
async function olderThan(standby: Cluster, seconds: number): Promise<void> {
  await until(async () => {
    const [row] = await standby.query<{ age: number }>(
      'postgres',
      'SELECT extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 AS age',
    );
    return (row?.age ?? 0) > seconds || undefined;
  });
}

describe('a backup of a hot standby', () => {
  let primary: Cluster;
  let standby: Cluster;
  before(async () => {
    primary = await Cluster.start({ conf });
    await primary.createDatabase('shop');
    await primary.query(
      'shop',
      `CREATE TABLE customers (id int PRIMARY KEY, name text);
       INSERT INTO customers SELECT g, 'customer ' || g FROM generate_series(1, 100) g;
       CREATE TABLE items (id serial PRIMARY KEY, code text);
       INSERT INTO items (code) SELECT md5(g::text) FROM generate_series(1, 5000) g;
       CREATE UNLOGGED TABLE carts (id int PRIMARY KEY, item int);
       INSERT INTO carts VALUES (1, 1), (2, 2);`,
    );
    standby = await Cluster.standbyOf(primary, { hot_standby_feedback: 'off', max_standby_streaming_delay: '0' });
  });
  after(() => Promise.all([standby?.stop(), primary?.stop()]));

  test('F14: one that has replayed no transaction yet cannot tell how old it is, and is refused', async () => {
    const store = await scratch();
    const result = await tryBackup(standby, 'shop', { store: `file://${store}`, retries: 0 });
    assert.equal(result.exitCode, 10, result.log);
    assert.match(
      errorOf(result),
      /^snapshot: the standby has not replayed a transaction yet[^\n]*\nhint: back up the primary/,
    );
    assert.deepEqual(await filesIn(store), []);
  });

  test('F14: is whole, counted in the same snapshot, and restores; unlogged tables come without their rows', async () => {
    await primary.query('shop', `INSERT INTO items (code) VALUES ('first')`);
    await caughtUp(primary, standby);
    const backup = await takeBackup(standby, 'shop', { census: 'content' });
    assert.match(backup.result.log, /PostgreSQL [\d.]+ \(standby\)/);
    assert.deepEqual(recordedRows(backup.census), { 'public.customers': 100, 'public.items': 5001 });
    const { data, rows, digest } = tableOf(backup.census, 'public.carts');
    assert.deepEqual({ data, rows, digest }, { data: false, rows: 0, digest: undefined });
    assert.ok(tableOf(backup.census, 'public.items').digest !== undefined);
    const restored = await restoreWithStockTools(primary, backup.dump);
    assert.deepEqual(await countedRows(primary, restored, backup.census), recordedRows(backup.census));
    assert.deepEqual(await primary.query(restored, 'SELECT count(*)::int AS n FROM carts'), [{ n: 0 }]);
    // Digests and sequences too.
    const { rows: compared } = await restoreWithUs(primary, backup, 'restored_by_us');
    assert.equal(compared, 5101);
  });

  test('F14: the time of the snapshot is that of the last transaction the standby replayed', async () => {
    const [row] = await primary.query<{ at: Date }>(
      'shop',
      `INSERT INTO items (code) VALUES ('late') RETURNING clock_timestamp() AS at`,
    );
    await caughtUp(primary, standby);
    const backup = await takeBackup(standby, 'shop');
    const apart = new Date(backup.manifest.createdAt).getTime() - (row?.at.getTime() ?? 0);
    assert.ok(apart >= 0 && apart < 1000, `${apart} ms`);
  });

  test('F14: one whose replay is paused is as old as its data, and refused beyond max-replica-lag', async () => {
    await caughtUp(primary, standby);
    await standby.query('postgres', 'SELECT pg_wal_replay_pause()');
    const paused = async (): Promise<true | undefined> => {
      const [row] = await standby.query('postgres', 'SELECT pg_get_wal_replay_pause_state() AS state');
      return row?.state === 'paused' || undefined;
    };
    try {
      await until(paused);
      await primary.query('shop', `INSERT INTO items (code) VALUES ('unseen')`);
      await olderThan(standby, 2);
      const store = await scratch();
      const inputs = { store: `file://${store}`, retries: 0 };
      const refused = await tryBackup(standby, 'shop', { ...inputs, 'max-replica-lag': '1s' });
      assert.equal(refused.exitCode, 14, refused.log);
      assert.match(
        errorOf(refused),
        /^preflight: the standby is \d+(?:\.\d+)? s behind, more than the 1 s allowed\nhint: resume its replay, back up the primary, or raise max-replica-lag/,
      );
      assert.deepEqual(await filesIn(store), []);
      const allowed = await takeBackup(standby, 'shop', { 'max-replica-lag': '1h' });
      assert.ok(Date.now() - new Date(allowed.manifest.createdAt).getTime() > 2000);
    } finally {
      await standby.query('postgres', 'SELECT pg_wal_replay_resume()');
    }
  });

  test('F14: one whose primary is gone is as old as its data, though it has replayed all that it received', async () => {
    await using other = await Cluster.start({ conf });
    await other.createDatabase('shop');
    await using orphan = await Cluster.standbyOf(other);
    await other.query(
      'shop',
      `CREATE TABLE items AS SELECT 1 AS id; CREATE ROLE reader LOGIN PASSWORD 'reads-what-it-may'; GRANT SELECT ON items TO reader`,
    );
    await caughtUp(other, orphan);
    await olderThan(orphan, 2);
    // Nobody but a monitor sees what a receiver receives, but everybody sees that there is one.
    const inputs = {
      'database-url': orphan.url('shop', 'reader', 'reads-what-it-may'),
      'max-replica-lag': '1s',
      retries: 0,
    };
    const idle = await tryBackup(orphan, 'shop', { ...inputs, 'dry-run': true });
    assert.equal(idle.exitCode, 0, `one that only has nothing to replay is up to date: ${idle.log}`);
    await other.stop();
    await until(
      async () => (await orphan.query('postgres', 'SELECT FROM pg_stat_wal_receiver')).length === 0 || undefined,
    );
    const result = await tryBackup(orphan, 'shop', inputs);
    assert.equal(result.exitCode, 14, result.log);
    assert.match(errorOf(result), /^preflight: the standby is [\d.]+ s behind, more than the 1 s allowed/);
  });

  /** Does something on the primary while every table is locked on the standby and pg_dump stands at the door. */
  async function conflicting(inputs: Inputs, sql: readonly string[]): Promise<{ result: ActionResult; store: string }> {
    await caughtUp(primary, standby);
    const store = await scratch();
    const door = await gate(standby);
    const running = tryBackup(standby, 'shop', { ...inputs, store: `file://${store}`, 'client-bin': door.bin });
    await door.reached();
    for (const statement of sql) await primary.query('shop', statement);
    await until(async () => (await ourSessions(standby)).every(({ purpose }) => purpose !== 'exporter') || undefined);
    await door.open();
    return { result: await running, store };
  }

  for (const [what, before, sql] of [
    [
      'VACUUM removes rows that the snapshot sees',
      'SELECT 1',
      ['DELETE FROM customers WHERE id = 1', 'VACUUM customers'],
    ],
    ['DROP takes a table that is locked', 'CREATE TABLE doomed AS SELECT 1 AS id', ['DROP TABLE doomed']],
  ] as const) {
    test(`F14: when ${what}, the conflict is told with its remedies and nothing is left`, async () => {
      await primary.query('shop', before);
      const { result, store } = await conflicting({ retries: 0 }, sql);
      assert.equal(result.exitCode, 14, result.log);
      assert.match(errorOf(result), conflict);
      assert.deepEqual(await filesIn(store), []);
      assert.deepEqual(result.outputs, {});
      assert.deepEqual(result.leftovers, []);
      assert.deepEqual(result.orphans, []);
      await sessionsGone(standby);
    });
  }

  test('F14: after a conflict a retry takes a new snapshot, of what is there now', async () => {
    await primary.query('shop', 'CREATE TABLE doomed AS SELECT 1 AS id');
    const { result } = await conflicting({ retries: 1 }, ['DROP TABLE doomed']);
    assert.equal(result.exitCode, 0, result.log);
    assert.match(result.log, /conflicted with recovery; trying again in 2 s \(1 of 1\)/);
    assert.ok(!Object.keys(recordedRows((await taken(result)).census)).includes('public.doomed'));
  });
});
