import assert from 'node:assert/strict';
import { connect, createServer, type Socket } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ActionResult } from '../support/action.ts';
import {
  backUp,
  createShop,
  during,
  errorOf,
  filesIn,
  scratch,
  sessionsGone,
  silentAfter,
  startBackup,
  terminate,
  until,
} from '../support/faults.ts';
import { Cluster, freePort } from '../support/postgres.ts';

const midCopy = 2_000_000;

describe('a connection that breaks while the dump runs', () => {
  let cluster: Cluster;
  before(async () => {
    cluster = await Cluster.start();
    // More than all the buffers on the way can swallow.
    await createShop(cluster, 'shop', 150_000);
  });
  after(() => cluster?.stop());

  /** Ends one of our sessions once the COPY of the large table is under way. */
  async function breakMidCopy(purpose: string, retries: number): Promise<{ result: ActionResult; store: string }> {
    const store = await scratch();
    const { proxy, silent } = await silentAfter(cluster, midCopy);
    try {
      const run = await startBackup(proxy.through(cluster.url('shop')), store, { retries });
      await during(run.done, silent);
      await terminate(cluster, purpose);
      proxy.resume('down');
      return { result: await run.done, store };
    } finally {
      await proxy.stop();
    }
  }

  for (const [row, purpose] of [
    ['F1', 'pg_dump'],
    ['I-3, F9', 'exporter'],
  ] as const) {
    test(`${row}: ${purpose}'s session terminated mid-COPY leaves nothing when there is no retry`, async () => {
      const { result, store } = await breakMidCopy(purpose, 0);
      assert.equal(result.exitCode, 10, result.log);
      assert.match(errorOf(result), purpose === 'pg_dump' ? /^dump: .*connection/ : /connection .* was lost/);
      assert.deepEqual(await filesIn(store), []);
      assert.deepEqual(result.leftovers, []);
      assert.deepEqual(result.orphans, []);
      assert.deepEqual(result.outputs, {});
      await sessionsGone(cluster);
    });

    test(`${row}: ${purpose}'s session terminated mid-COPY is tried again, from a new snapshot`, async () => {
      const { result, store } = await breakMidCopy(purpose, 1);
      assert.equal(result.exitCode, 0, result.log);
      assert.match(result.log, /^Warning: .*trying again in 2 s \(1 of 1\)$/m);
      const folder = `shop/${result.outputs['backup-id']}`;
      assert.deepEqual(
        await filesIn(store),
        ['census.json', 'database.dump', 'manifest.json', 'roles.sql'].map((name) => `${folder}/${name}`),
      );
      assert.equal(result.outputs.rows, '150100');
      assert.deepEqual(result.leftovers, []);
    });
  }

  test('F1: the server crashing mid-COPY (SIGKILL of the backend) is survived by a retry', async () => {
    const store = await scratch();
    const { proxy, silent } = await silentAfter(cluster, midCopy);
    try {
      const run = await startBackup(proxy.through(cluster.url('shop')), store, { retries: 2 });
      await during(run.done, silent);
      const backend = await until(async () =>
        (
          await cluster.query<{ pid: number }>(
            'postgres',
            `SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pgassay % pg_dump'`,
          )
        ).at(0),
      );
      process.kill(backend.pid, 'SIGKILL');
      proxy.resume('down');
      const result = await run.done;
      assert.equal(result.exitCode, 0, result.log);
      assert.equal(result.outputs.rows, '150100');
      assert.match(result.log, /trying again/);
    } finally {
      await proxy.stop();
    }
  });

  test('F1: every connection reset mid-COPY (RST) leaves nothing', async () => {
    const store = await scratch();
    const { proxy, silent } = await silentAfter(cluster, midCopy);
    try {
      const run = await startBackup(proxy.through(cluster.url('shop')), store);
      await during(run.done, silent);
      proxy.cut();
      const result = await run.done;
      assert.equal(result.exitCode, 10, result.log);
      assert.deepEqual(await filesIn(store), []);
      assert.deepEqual(result.leftovers, []);
    } finally {
      await proxy.stop();
    }
  });
});

describe('locks and settings of the server', () => {
  let cluster: Cluster;
  before(async () => {
    cluster = await Cluster.start();
    await createShop(cluster);
  });
  after(() => cluster?.stop());

  test('F7: an ACCESS EXCLUSIVE lock that is held ends the run in time and names the table', async () => {
    const holder = await cluster.client('shop');
    try {
      await holder.query('BEGIN; LOCK TABLE customers IN ACCESS EXCLUSIVE MODE');
      const started = Date.now();
      const store = await scratch();
      const result = await backUp(cluster.url('shop'), store, { 'lock-wait-timeout': '2s' });
      assert.equal(result.exitCode, 14, result.log);
      assert.match(errorOf(result), /^snapshot: public\.customers stayed locked by another session for 2 s/);
      assert.ok(Date.now() - started < 8000, `took ${Date.now() - started} ms`);
      assert.deepEqual(await filesIn(store), []);
      assert.deepEqual(result.leftovers, []);
    } finally {
      await holder.end();
    }
  });

  test('F7: a lock that is let go within the wait does no harm', async () => {
    const holder = await cluster.client('shop');
    await holder.query('BEGIN; LOCK TABLE customers IN ACCESS EXCLUSIVE MODE');
    const store = await scratch();
    const run = backUp(cluster.url('shop'), store, { 'lock-wait-timeout': '20s' });
    await until(async () =>
      (await cluster.query('postgres', `SELECT FROM pg_locks WHERE NOT granted AND mode = 'AccessShareLock'`)).at(0),
    );
    await holder.end();
    const result = await run;
    assert.equal(result.exitCode, 0, result.log);
  });

  test('F8: settings of the role and of the database do not reach the dump', async () => {
    await cluster.query(
      'shop',
      `CREATE ROLE hindered LOGIN SUPERUSER PASSWORD 'hinder3d';
       CREATE SCHEMA decoy; CREATE TABLE decoy.items (id int);
       ALTER ROLE hindered SET statement_timeout = '100ms';
       ALTER ROLE hindered SET lock_timeout = '1ms';
       ALTER ROLE hindered SET idle_in_transaction_session_timeout = '500ms';
       ALTER ROLE hindered SET idle_session_timeout = '500ms';
       ALTER ROLE hindered SET default_transaction_read_only = on;
       ALTER ROLE hindered SET default_transaction_isolation = 'serializable';
       ALTER ROLE hindered SET search_path = decoy, pg_catalog;
       ALTER DATABASE shop SET row_security = off;
       ALTER DATABASE shop SET DateStyle = 'SQL, DMY';
       ALTER DATABASE shop SET standard_conforming_strings = off;
       ALTER DATABASE shop SET bytea_output = 'escape';
       ALTER DATABASE shop SET client_min_messages = 'debug1';
       ALTER DATABASE shop SET default_transaction_deferrable = on;`,
    );
    const store = await scratch();
    // Long enough for every limit to have passed.
    const { proxy, silent } = await silentAfter(cluster, midCopy);
    try {
      const run = backUp(proxy.through(cluster.url('shop', 'hindered', 'hinder3d')), store, { census: 'content' });
      await during(run, silent);
      await sleep(1500);
      proxy.resume('down');
      const result = await run;
      assert.equal(result.exitCode, 0, result.log);
      assert.equal(result.outputs.tables, '3');
      assert.equal(result.outputs.rows, '40100');
    } finally {
      await proxy.stop();
    }
  });
});

describe('a server that is not ready', () => {
  test('B54: nobody listens yet, and then somebody does: a retry gets through', async () => {
    const cluster = await Cluster.start();
    try {
      await createShop(cluster, 'shop', 100);
      const store = await scratch();
      const url = cluster.url('shop').replace(`:${cluster.port}/`, `:${await freePort()}/`);
      const port = Number(/:(\d+)\/shop$/.exec(url)?.[1]);
      let proxied: Promise<{ stop(): Promise<void> }> | undefined;
      const result = await backUp(
        url,
        store,
        { retries: 2 },
        {
          onLine: (line) => {
            if (/nothing listens at .*; trying again/.test(line)) proxied ??= relay(port, cluster);
          },
        },
      );
      await (await proxied)?.stop();
      assert.equal(result.exitCode, 0, result.log);
      assert.ok(proxied !== undefined, 'the first try got through');
    } finally {
      await cluster.stop();
    }
  });

  test('B54: nobody listens for good: exit 10, and on a runner the hint explains localhost', async () => {
    const store = await scratch();
    const result = await backUp(`postgresql://u:secret-word@127.0.0.1:${await freePort()}/shop`, store);
    assert.equal(result.exitCode, 10, result.log);
    assert.match(
      errorOf(result),
      /^connect: nothing listens at 127\.0\.0\.1:\d+\nhint: localhost is the runner itself/,
    );
    assert.deepEqual(await filesIn(store), []);
  });
});

/** Listens on a port that was chosen before. */
async function relay(port: number, to: { host: string; port: number }): Promise<{ stop(): Promise<void> }> {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(to.port, to.host);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => {});
    }
    client.pipe(upstream).pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  return {
    stop: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
