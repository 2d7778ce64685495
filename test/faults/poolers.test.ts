import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { type Taken, taken } from '../support/backup.ts';
import { backUp, createShop, errorOf, filesIn, scratch } from '../support/faults.ts';
import { PgBouncer } from '../support/pgbouncer.ts';
import { Cluster } from '../support/postgres.ts';

let cluster: Cluster;
before(async () => {
  cluster = await Cluster.start();
  await createShop(cluster, 'shop', 3000);
});
after(() => cluster?.stop());

/** What an application sees when something has changed the session it was given. */
interface Traffic {
  readonly queries: () => number;
  readonly wrong: readonly string[];
  stop(): Promise<void>;
}

/** Clients that work on the pool all the while and look at what a dump would change. */
async function traffic(pooler: PgBouncer, clients: number): Promise<Traffic> {
  const wrong: string[] = [];
  let queries = 0;
  let over = false;
  const look = async (): Promise<void> => {
    const client = new pg.Client(pooler.url('shop'));
    client.on('error', (error) => wrong.push(error.message));
    await client.connect();
    try {
      while (!over) {
        await client.query('BEGIN');
        await client.query('SELECT count(*) FROM customers');
        await client.query('UPDATE customers SET name = name WHERE id = 1');
        await client.query('ROLLBACK');
        const { rows } = await client.query(
          `SELECT current_setting('search_path') AS path, current_setting('row_security') AS rls,
                  current_setting('default_transaction_read_only') AS readonly, current_setting('statement_timeout') AS timeout,
                  current_setting('DateStyle') AS dates, current_setting('extra_float_digits') AS digits`,
        );
        queries += 1;
        const seen = JSON.stringify(rows[0]);
        const expected = `{"path":"\\"$user\\", public","rls":"on","readonly":"off","timeout":"0","dates":"ISO, MDY","digits":"1"}`;
        if (seen !== expected) wrong.push(seen);
        await sleep(1);
      }
    } catch (error) {
      wrong.push(String(error));
    } finally {
      await client.end().catch(() => {});
    }
  };
  const all = Promise.all(Array.from({ length: clients }, look));
  await sleep(100);
  return {
    queries: () => queries,
    wrong,
    stop: async () => {
      over = true;
      await all;
    },
  };
}

describe('F12, I-5: PgBouncer in transaction mode', () => {
  for (const [what, size, clients] of [
    ['with one server session', 1, 0],
    ['with one server session and an application on it', 1, 3],
    ['with two server sessions and three clients', 2, 3],
    ['with server sessions to spare', 20, 0],
    ['with server sessions to spare and an application on them', 20, 4],
  ] as const) {
    test(`${what} is refused, and the application notices nothing`, async () => {
      const pooler = await PgBouncer.start(cluster, {
        mode: 'transaction',
        settings: { default_pool_size: String(size) },
      });
      const application = await traffic(pooler, clients);
      const store = await scratch();
      try {
        for (let attempt = 0; attempt < 3; attempt++) {
          const started = Date.now();
          const result = await backUp(pooler.url('shop'), store, { retries: 2 });
          assert.equal(result.exitCode, 15, result.log);
          assert.match(
            errorOf(result),
            /^connect: this URL leads to a pooler that shares server sessions between transactions/,
          );
          assert.match(errorOf(result), /\nhint: use the direct URL/);
          assert.ok(Date.now() - started < 10_000, `took ${Date.now() - started} ms`);
        }
        assert.deepEqual(await filesIn(store), []);
        await sleep(100);
      } finally {
        await application.stop();
        await pooler.stop();
      }
      assert.deepEqual(application.wrong, []);
      if (clients > 0) assert.ok(application.queries() > 20, `${application.queries()}`);
    });
  }

  test('in statement mode it is refused too', async () => {
    await using pooler = await PgBouncer.start(cluster, { mode: 'statement' });
    const result = await backUp(pooler.url('shop'), await scratch());
    assert.equal(result.exitCode, 15, result.log);
  });

  test('allow-pooler: true takes the backup and records how', async () => {
    await using pooler = await PgBouncer.start(cluster, { mode: 'transaction' });
    const store = await scratch();
    const result = await backUp(pooler.url('shop'), store, { 'allow-pooler': true });
    assert.equal(result.exitCode, 0, result.log);
    const { manifest }: Taken = await taken(result);
    assert.deepEqual(manifest.warnings, ['taken through a transaction pooler (allow-pooler)']);
    assert.match(result.log, /^Warning: .*transaction pooler/m);
    assert.equal(manifest.totals.rows, 3100);
  });
});

test('F13: a session pool that is used up: no endless wait', async () => {
  await using pooler = await PgBouncer.start(cluster, { mode: 'session', settings: { default_pool_size: '1' } });
  const started = Date.now();
  const result = await backUp(pooler.url('shop'), await scratch());
  assert.equal(result.exitCode, 10, result.log);
  assert.match(errorOf(result), /^connect: a second session got no answer within 5 s\nhint: .*use the direct URL/);
  assert.ok(Date.now() - started < 15_000, `took ${Date.now() - started} ms`);
});

test('F12: PgBouncer in session mode works end to end, and an application on it notices nothing', async () => {
  await using pooler = await PgBouncer.start(cluster, { mode: 'session' });
  const application = await traffic(pooler, 2);
  const store = await scratch();
  const result = await backUp(pooler.url('shop'), store, { census: 'content' });
  // Clients that come later get the server sessions that were ours.
  const later = await traffic(pooler, 6);
  await sleep(300);
  await later.stop();
  await application.stop();
  assert.equal(result.exitCode, 0, result.log);
  assert.match(result.log, /^Notice: connected through a pooler that keeps one server session per client$/m);
  assert.equal(result.outputs.rows, '3100');
  const { manifest } = await taken(result);
  assert.deepEqual(manifest.warnings, []);
  assert.deepEqual([...application.wrong, ...later.wrong], []);
});

describe('F12, B26, B32: URLs that say themselves that they lead to a transaction pooler', () => {
  const login = 'postgresql://somebody:secretword';
  for (const [url, direct] of [
    [
      `${login}@ep-cool-darkness-123456-pooler.eu-central-1.aws.neon.tech/shop`,
      'ep-cool-darkness-123456.eu-central-1.aws.neon.tech',
    ],
    [`${login}@aws-0-eu-central-1.pooler.supabase.com:6543/postgres`, 'aws-0-eu-central-1.pooler.supabase.com:5432'],
    [`${login}@db.abcdefghijklmnopqrst.supabase.co:6543/postgres`, 'db.abcdefghijklmnopqrst.supabase.co:5432'],
    [`${login}@db.example.com/shop?pgbouncer=true`, "the database's own host and port"],
  ] as const) {
    test(`${url.slice(login.length + 1)}: refused before anybody connects, with the direct URL`, async () => {
      const store = await scratch();
      const result = await backUp(url, store);
      assert.equal(result.exitCode, 15, result.log);
      assert.match(errorOf(result), /^input: database-url: /);
      assert.ok(errorOf(result).split('\nhint: ')[1]?.includes(direct), errorOf(result));
      assert.deepEqual(await filesIn(store), []);
    });
  }

  test('pgbouncer=true in front of a server is refused without a word to it, unless allowed', async () => {
    const url = `${cluster.url('shop')}?pgbouncer=true&connection_limit=1`;
    const before = (await cluster.log()).length;
    const refused = await backUp(url, await scratch());
    assert.equal(refused.exitCode, 15, refused.log);
    assert.doesNotMatch((await cluster.log()).slice(before), /pgassay/);
    const allowed = await backUp(url, await scratch(), { 'allow-pooler': true });
    assert.equal(allowed.exitCode, 0, allowed.log);
  });
});
