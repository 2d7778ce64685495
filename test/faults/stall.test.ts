import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Failure } from '../../src/failure.ts';
import { connect } from '../../src/postgres/connect.ts';
import { DumpMeter } from '../../src/postgres/dump.ts';
import { type Starved, Supervisor } from '../../src/postgres/supervisor.ts';
import { parseDatabaseUrl } from '../../src/postgres/url.ts';
import {
  backUp,
  createShop,
  descendants,
  during,
  errorOf,
  filesIn,
  programBelow,
  scratch,
  sessionsGone,
  silentAfter,
  startBackup,
  terminate,
  wrapped,
} from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import type { TcpProxy } from '../support/tcp-proxy.ts';

let cluster: Cluster;
before(async () => {
  cluster = await Cluster.start();
  // More than all the buffers on the way can swallow.
  await createShop(cluster, 'shop', 150_000);
});
after(() => cluster?.stop());

describe('F2: a stall on the way from the server', () => {
  test('of every connection: ended in bounded time, though SIGTERM cannot stop pg_dump', async () => {
    const store = await scratch();
    const { proxy, silent } = await silentAfter(cluster, 2_000_000);
    try {
      const run = await startBackup(proxy.through(cluster.url('shop')), store, { 'stall-timeout': '2s' });
      await during(run.done, silent);
      const pgDump = await programBelow(run.pid, 'pg_dump');
      // Nothing goes back either: pg_dump's own handling of SIGTERM waits for an answer that never comes.
      proxy.stall('both');
      const started = Date.now();
      const result = await run.done;
      assert.ok(Date.now() - started < 25_000, `took ${Date.now() - started} ms`);
      assert.equal(result.exitCode, 14, result.log);
      assert.match(
        errorOf(result),
        /^dump: no byte for \d+ s, and the server does not answer on another connection either \(last table: public\.items\)\nhint: look for a broken network path/,
      );
      assert.deepEqual(result.orphans, []);
      assert.equal(
        descendants(process.pid).find(({ pid }) => pid === pgDump.pid),
        undefined,
      );
      assert.deepEqual(await filesIn(store), []);
      assert.deepEqual(result.leftovers, []);
    } finally {
      await proxy.stop();
    }
    await sessionsGone(cluster);
  });

  /** Only pg_dump goes through the proxy, so that the server can be asked. */
  async function stallPgDump(
    act: (proxy: TcpProxy) => void | Promise<void>,
    sooner = 2_000_000,
  ): Promise<{ said: string; code: number }> {
    const { proxy, silent } = await silentAfter(cluster, sooner);
    try {
      const store = await scratch();
      const password = cluster.password.replaceAll("'", `'\\''`);
      const elsewhere = `export PGPORT=${proxy.port} PGPASSWORD='${password}'`;
      const bin = await wrapped(cluster, { pg_dump: `${elsewhere}; exec "$REAL" "$@"` });
      const run = backUp(cluster.url('shop'), store, { 'stall-timeout': '2s', 'client-bin': bin });
      await during(run, silent);
      await act(proxy);
      const started = Date.now();
      const result = await run;
      assert.ok(Date.now() - started < 20_000, `took ${Date.now() - started} ms`);
      assert.deepEqual(await filesIn(store), []);
      assert.deepEqual(result.orphans, []);
      return { said: errorOf(result), code: result.exitCode };
    } finally {
      await proxy.stop();
    }
  }

  test("of pg_dump's connection only: the server has data that does not arrive", async () => {
    const { said, code } = await stallPgDump(() => {});
    assert.equal(code, 14);
    assert.match(said, /^dump: no byte for \d+ s: the server has data that does not arrive here/);
  });

  test("of pg_dump's connection, its session dead: the server has no session any more", async () => {
    const { said, code } = await stallPgDump(() => terminate(cluster, 'pg_dump'));
    assert.equal(code, 14);
    assert.match(said, /^dump: no byte for \d+ s, and the server has no session of pg_dump any more/);
  });

  test("of pg_dump's questions: it asks the server for nothing", async () => {
    const { said, code } = await stallPgDump((proxy) => {
      proxy.stall('up');
      proxy.resume('down');
    }, 30_000);
    assert.equal(code, 14);
    assert.match(said, /^dump: no byte for \d+ s: pg_dump is asking the server for nothing/);
  });
});

describe('0.29: who is slow', () => {
  test('a server that works without sending a byte is left in peace', async () => {
    await cluster.createDatabase('silent');
    await cluster.query(
      'silent',
      `CREATE TABLE settings (name text); INSERT INTO settings VALUES ('one');
       CREATE TABLE other (a int); INSERT INTO other VALUES (1);
       ALTER EXTENSION plpgsql ADD TABLE settings;
       UPDATE pg_extension SET extconfig = ARRAY['settings'::regclass::oid],
              extcondition = ARRAY['WHERE pg_catalog.pg_sleep(7) IS NOT NULL'] WHERE extname = 'plpgsql';`,
    );
    const store = await scratch();
    const result = await backUp(cluster.url('silent'), store, { 'stall-timeout': '2s' });
    assert.equal(result.exitCode, 0, result.log);
    assert.match(result.log, /^no byte for \d+ s, but the server is working.*; waiting$/m);
    assert.equal(result.outputs.rows, '2');
  });

  test('pg_restore that does not read is told from a server that does not send', async () => {
    const bin = await wrapped(cluster, { pg_restore: 'exec sleep 600' });
    const store = await scratch();
    const result = await backUp(cluster.url('shop'), store, { 'stall-timeout': '2s', 'client-bin': bin });
    assert.equal(result.exitCode, 14, result.log);
    assert.match(errorOf(result), /^validate: no byte for \d+ s: pg_restore does not read what pg_dump sends/);
    assert.deepEqual(await filesIn(store), []);
    assert.deepEqual(result.orphans, []);
  });

  test('a store that takes nothing is told from a server that does not send', async () => {
    const { target } = parseDatabaseUrl(cluster.url('shop'), { input: 'database-url' });
    assert.ok(target !== undefined);
    const meter = new DumpMeter();
    meter.bytes = 100;
    meter.lastByteAt = Date.now() - 60_000;
    meter.waitingFor = 'store';
    const reason = await new Promise<Failure | Starved>((resolve) => {
      const supervisor = new Supervisor({
        openControl: () => connect(target, { applicationName: 'pgassay test watch' }),
        application: 'pgassay test',
        meter,
        stallMs: 1000,
        onBlockedDdl: 'warn',
        log: { ...quiet, group: (_title, work) => work() },
        abort: (why) => void supervisor.stop().then(() => resolve(why)),
      });
    });
    assert.match(String(reason), /no byte for 6\d s: the store does not take what pg_dump sends/);
    assert.equal((reason as Failure).stage, 'upload');
    assert.equal((reason as Failure).exitCode, 14);
  });
});

test('the total time limit ends a run that would go on, retries and all', async () => {
  const store = await scratch();
  const holder = await cluster.client('shop');
  try {
    await holder.query('BEGIN; LOCK TABLE customers IN ACCESS EXCLUSIVE MODE');
    const started = Date.now();
    const result = await backUp(cluster.url('shop'), store, { timeout: '3s', 'lock-wait-timeout': '60s', retries: 5 });
    assert.equal(result.exitCode, 14, result.log);
    assert.match(errorOf(result), /^dump: the backup was not done within 3 s/);
    assert.ok(Date.now() - started < 9000, `took ${Date.now() - started} ms`);
    assert.deepEqual(await filesIn(store), []);
    await sleep(100);
    await sessionsGone(cluster, 3);
  } finally {
    await holder.end();
  }
});

const quiet = { info() {}, notice() {}, warn() {}, progress() {} };
