import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ActionResult } from '../support/action.ts';
import { cli } from '../support/backup.ts';
import {
  backUp,
  createShop,
  descendants,
  during,
  errorOf,
  filesIn,
  processes,
  programBelow,
  repository,
  scratch,
  sessionsGone,
  silentAfter,
  startBackup,
  type Underway,
  until,
  wrapped,
} from '../support/faults.ts';
import { Cluster, freePort } from '../support/postgres.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';

let cluster: Cluster;
before(async () => {
  cluster = await Cluster.start();
  await createShop(cluster, 'shop', 150_000);
});
after(() => cluster?.stop());

/** The runner gives a cancelled step 7.5 s, then SIGTERM, then 2.5 s; a run has to be gone before any of that. */
const mercyMs = 7000;

async function cancel(run: Underway, store: string, signal: NodeJS.Signals = 'SIGINT'): Promise<ActionResult> {
  const children = descendants(run.pid).map(({ pid }) => pid);
  const started = Date.now();
  process.kill(run.pid, signal);
  const result = await run.done;
  const tookMs = Date.now() - started;
  assert.ok(tookMs < mercyMs, `took ${tookMs} ms`);
  assert.equal(result.exitCode, 130, result.log);
  assert.match(errorOf(result), /^\w+: cancelled; nothing was published/);
  assert.deepEqual(
    processes().filter(({ pid }) => children.includes(pid)),
    [],
  );
  assert.deepEqual(await filesIn(store), []);
  assert.deepEqual(result.leftovers, []);
  assert.deepEqual(result.outputs, {});
  return result;
}

describe('I-37, F4, F28: cancelled as the runner does it', () => {
  test('while it connects to a host that does not answer', async () => {
    const proxy = await TcpProxy.start(cluster);
    proxy.stall();
    const store = await scratch();
    const run = await startBackup(proxy.through(cluster.url('shop')), store);
    await until(() => proxy.accepted > 0 || undefined);
    await cancel(run, store);
    await proxy.stop();
  });

  test('while it waits for the next try', async () => {
    const store = await scratch();
    const { promise: waiting, resolve } = Promise.withResolvers<void>();
    const run = await startBackup(
      `postgresql://u:secretword@127.0.0.1:${await freePort()}/shop`,
      store,
      { retries: 9 },
      { onLine: (line) => void (/trying again/.test(line) && resolve()) },
    );
    await waiting;
    await cancel(run, store);
  });

  test('while it waits for a lock', async () => {
    const holder = await cluster.client('shop');
    try {
      await holder.query('BEGIN; LOCK TABLE items IN ACCESS EXCLUSIVE MODE');
      const store = await scratch();
      const run = await startBackup(cluster.url('shop'), store);
      await until(async () => (await cluster.query('shop', 'SELECT FROM pg_locks WHERE NOT granted')).at(0));
      await cancel(run, store);
      await sessionsGone(cluster);
    } finally {
      await holder.end();
    }
  });

  test('while pg_dump has not sent its first byte', async () => {
    const store = await scratch();
    const bin = await wrapped(cluster, { pg_dump: 'sleep 60' });
    const run = await startBackup(cluster.url('shop'), store, { 'client-bin': bin });
    await programBelow(run.pid, 'sleep');
    await cancel(run, store);
    await sessionsGone(cluster);
  });

  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    test(`in the middle of the dump (${signal})`, async () => {
      const store = await scratch();
      const { proxy, silent } = await silentAfter(cluster, 5_000_000);
      const run = await startBackup(proxy.through(cluster.url('shop')), store);
      await during(run.done, silent);
      proxy.resume('down');
      await cancel(run, store, signal);
      await sessionsGone(cluster);
      await proxy.stop();
    });
  }

  test('in the middle of the dump, the network gone: SIGTERM alone would leave pg_dump for hours', async () => {
    const store = await scratch();
    const { proxy, silent } = await silentAfter(cluster, 5_000_000);
    const run = await startBackup(proxy.through(cluster.url('shop')), store);
    await programBelow(run.pid, 'pg_dump');
    await during(run.done, silent);
    proxy.stall('both');
    await cancel(run, store);
    await proxy.stop();
    await sessionsGone(cluster);
  });

  test('while pg_restore does not take what it is sent', async () => {
    const store = await scratch();
    const bin = await wrapped(cluster, { pg_restore: 'exec sleep 60' });
    const run = await startBackup(cluster.url('shop'), store, { 'client-bin': bin });
    await programBelow(run.pid, 'pg_dump');
    await sleep(500);
    await cancel(run, store);
    await sessionsGone(cluster);
  });

  test('when the dump is whole and the roles are being read', async () => {
    const store = await scratch();
    const bin = await wrapped(cluster, { pg_dumpall: 'exec sleep 60' });
    const run = await startBackup(cluster.url('shop'), store, { 'client-bin': bin });
    await programBelow(run.pid, 'sleep');
    await cancel(run, store);
    await sessionsGone(cluster);
  });

  for (const step of ['link 1', 'unlink 1', 'open 6', 'link 2', 'link 3', 'sync 9']) {
    test(`while it publishes, before ${step} in the file system`, async () => {
      const store = await scratch();
      const hook = join(repository, 'test', 'support', 'crash-point.ts');
      const env = { NODE_OPTIONS: `--import ${hook}`, PGASSAY_TEST_CRASH_AT: step, PGASSAY_TEST_SIGNAL: 'SIGINT' };
      const started = Date.now();
      const result = await backUp(cluster.url('shop'), store, { 'verify-upload': 'read-back' }, { env });
      assert.equal(result.exitCode, 130, result.log);
      assert.ok(Date.now() - started < mercyMs + 5000);
      assert.deepEqual(await filesIn(store), []);
      assert.deepEqual(result.leftovers, []);
    });
  }

  test('too late to cancel: what is published stays, and is whole', async () => {
    const store = await scratch();
    const hook = join(repository, 'test', 'support', 'crash-point.ts');
    const env = { NODE_OPTIONS: `--import ${hook}`, PGASSAY_TEST_CRASH_AT: 'unlink 4', PGASSAY_TEST_SIGNAL: 'SIGINT' };
    const result = await backUp(cluster.url('shop'), store, {}, { env });
    assert.deepEqual(
      (await filesIn(store)).map((file) => file.split('/')[2]),
      ['census.json', 'database.dump', 'manifest.json', 'roles.sql'],
    );
    assert.equal((await cli(['verify', '--store', `file://${store}`])).exitCode, 0);
    assert.equal(result.exitCode, 0, result.log);
  });

  test('a program that ignores SIGTERM is killed', async () => {
    const store = await scratch();
    const bin = await wrapped(cluster, { pg_dump: `trap '' TERM INT\nwhile :; do sleep 1; done` });
    const run = await startBackup(cluster.url('shop'), store, { 'client-bin': bin });
    await until(() => descendants(run.pid).find(({ args }) => args[1]?.endsWith('/pg_dump') && args.length > 3));
    await sleep(200);
    await cancel(run, store);
  });

  test('a second signal changes nothing', async () => {
    const store = await scratch();
    const { proxy, silent } = await silentAfter(cluster, 5_000_000);
    const run = await startBackup(proxy.through(cluster.url('shop')), store);
    await during(run.done, silent);
    proxy.stall('both');
    setTimeout(() => process.kill(run.pid, 'SIGTERM'), 500).unref();
    await cancel(run, store);
    await proxy.stop();
  });
});

describe('I-37: the command line', () => {
  test('Ctrl-C in the middle of the dump', async () => {
    const store = await scratch();
    const temporary = await scratch();
    const { proxy, silent } = await silentAfter(cluster, 5_000_000);
    const child = spawn(
      process.execPath,
      [
        join(repository, 'dist', 'cli.js'),
        ...['backup', '--store', `file://${store}`, '--name', 'shop', '--install-client', 'false'],
      ],
      {
        env: { DATABASE_URL: proxy.through(cluster.url('shop')), PATH: '/usr/bin:/bin', TMPDIR: temporary },
        stdio: ['ignore', 'ignore', 'pipe'],
      },
    );
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk;
    });
    const exited = new Promise<number | null>((resolve) => child.once('close', resolve));
    await silent;
    const started = Date.now();
    child.kill('SIGINT');
    proxy.resume('down');
    assert.equal(await exited, 130, said);
    assert.ok(Date.now() - started < mercyMs);
    assert.match(said, /^\w+: cancelled; nothing was published$/m);
    assert.deepEqual(await filesIn(store), []);
    assert.deepEqual(await filesIn(temporary), []);
    await sessionsGone(cluster);
    await proxy.stop();
  });
});
