import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Taken } from '../support/backup.ts';
import { ourSessions, repository, sessionsGone, until } from '../support/faults.ts';
import { PgBouncer } from '../support/pgbouncer.ts';
import { Cluster } from '../support/postgres.ts';
import { backupOf } from '../support/restoring.ts';
import { counts, everything, rows, rowsArguments } from '../support/rows.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';

let cluster: Cluster;
let backup: Taken;
let without: Record<string, string>;
before(async () => {
  cluster = await Cluster.start();
  backup = await backupOf(
    cluster,
    'shop',
    `CREATE TABLE users (id int PRIMARY KEY, v text); INSERT INTO users SELECT g, 'v' || g FROM generate_series(1, 500) g;
     CREATE TABLE mails (id int);
     CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_sleep(0.05); INSERT INTO public.mails VALUES (new.id); RETURN new; END';
     CREATE TRIGGER slow AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION slow();
     CREATE FUNCTION slowly(v text) RETURNS bool LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_sleep(0.05); RETURN true; END';`,
  );
  await cluster.query('shop', 'DELETE FROM users');
  without = await everything(cluster, 'shop');
});
after(() => cluster?.stop());

const flags = ['--table', 'users', '--where', 'true'];

function start(more: readonly string[]): {
  readonly child: ChildProcess;
  readonly done: Promise<{ code: number | null; stderr: string }>;
} {
  const child = spawn(
    process.execPath,
    [join(repository, 'dist', 'cli.js'), ...rowsArguments(cluster, backup), ...more],
    {
      cwd: '/',
      env: { PATH: '/usr/bin:/bin', HOME: '/nonexistent', LANG: 'C.UTF-8', TARGET_URL: cluster.url('shop') },
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  );
  let stderr = '';
  child.stderr?.on('data', (text) => {
    stderr += text;
  });
  return { child, done: new Promise((resolve) => child.once('close', (code) => resolve({ code, stderr }))) };
}

const running = (statement: string): Promise<unknown> =>
  until(async () => {
    const sql = `SELECT FROM pg_stat_activity WHERE application_name LIKE 'pgassay %' AND state = 'active' AND query LIKE $1`;
    return (await cluster.query('postgres', sql, [statement])).length > 0 || undefined;
  });

const leftovers = `SELECT relname FROM pg_class WHERE relname LIKE 'pgassay%'`;

describe('a run that ends before its time leaves nothing', () => {
  for (const [what, more, statement] of [
    [
      'while it looks for rows',
      ['--table', 'users', '--where', 'public.slowly(v)', '--triggers', 'off'],
      '%WITH kept AS%',
    ],
    ['while it writes', [...flags, '--triggers', 'on'], '%WITH done AS%'],
  ] as const)
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGKILL'] as const)
      test(`${signal} ${what}`, { timeout: 60_000 }, async () => {
        const run = start(more);
        await running(statement);
        run.child.kill(signal);
        const { code, stderr } = await run.done;
        if (signal !== 'SIGKILL') {
          assert.equal(code, 130, stderr);
          assert.match(stderr, /^restore: cancelled; nothing was changed\nhint: run it again when you are ready$/m);
        }
        await sessionsGone(cluster, 5);
        assert.deepEqual(await everything(cluster, 'shop'), without);
        assert.deepEqual(await cluster.query('shop', leftovers), []);
      });

  test('the server ends our session', { timeout: 60_000 }, async () => {
    const run = start([...flags, '--triggers', 'on']);
    await running('%WITH done AS%');
    await cluster.query(
      'postgres',
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'pgassay %'`,
    );
    const { code, stderr } = await run.done;
    assert.equal(code, 10, stderr);
    assert.match(stderr, /^connect: .*; nothing was changed$/m);
    assert.deepEqual(await everything(cluster, 'shop'), without);
    assert.deepEqual(await ourSessions(cluster), []);
  });

  test('the connection ends before the answer to COMMIT: nobody knows, and that is said', {
    timeout: 60_000,
  }, async () => {
    let compared = false;
    await using proxy = await TcpProxy.start(cluster, {
      onChunk: (chunk, direction, self) => {
        compared ||= chunk.includes('EXCEPT ALL');
        if (compared && direction === 'up' && chunk.includes('COMMIT')) {
          self.stall('down');
          setTimeout(() => self.cut(), 500);
        }
        return undefined;
      },
    });
    const one = ['--table', 'users', '--where', 'id = 1', '--triggers', 'off'];
    const result = await rows(cluster, backup, 'shop', one, proxy.through(cluster.url('shop')));
    assert.equal(result.exitCode, 10, result.stderr);
    assert.match(
      result.stderr,
      /^restore: the connection ended while the rows were being committed: they may be there or not\nhint: .*--on-conflict skip/m,
    );
    const again = await rows(cluster, backup, 'shop', [...one, '--on-conflict', 'skip', '--json']);
    assert.equal(again.exitCode, 0, again.stderr);
    assert.deepEqual(counts(again), ['public.users 1 0 1 0']);
    await cluster.query('shop', 'DELETE FROM users');
  });
});

describe('a pooler that shares its sessions', () => {
  test('is refused, and the application keeps its settings', { timeout: 60_000 }, async () => {
    await using pooler = await PgBouncer.start(cluster, { mode: 'transaction' });
    const result = await rows(cluster, backup, 'shop', [...flags, '--triggers', 'off'], pooler.url('shop'));
    assert.equal(result.exitCode, 15, result.stderr);
    assert.match(result.stderr, /shares server sessions between transactions; .*temporary tables/);
    assert.deepEqual(await everything(cluster, 'shop'), without);
  });
});
