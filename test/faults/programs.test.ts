import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ActionResult } from '../support/action.ts';
import {
  backUp,
  createShop,
  during,
  errorOf,
  filesIn,
  programBelow,
  scratch,
  sessionsGone,
  silentAfter,
  startBackup,
  type Wraps,
  wrapped,
} from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';

let cluster: Cluster;
before(async () => {
  cluster = await Cluster.start();
  // More than all the buffers on the way can swallow.
  await createShop(cluster, 'shop', 150_000);
  await cluster.query(
    'shop',
    `CREATE SEQUENCE tickets; SELECT setval('tickets', 77);
     SELECT lo_from_bytea(0, 'large');
     CREATE TABLE orders (id int); INSERT INTO orders SELECT generate_series(1, 7);`,
  );
});
after(() => cluster?.stop());

async function requireNothing(result: ActionResult, store: string): Promise<void> {
  assert.deepEqual(await filesIn(store), []);
  assert.deepEqual(result.leftovers, []);
  assert.deepEqual(result.orphans, []);
  assert.deepEqual(result.outputs, {});
  await sessionsGone(cluster);
}

async function failWith(wraps: Wraps, inputs: Record<string, string | number> = {}): Promise<ActionResult> {
  const store = await scratch();
  const result = await backUp(cluster.url('shop'), store, { 'client-bin': await wrapped(cluster, wraps), ...inputs });
  assert.notEqual(result.exitCode, 0, result.log);
  await requireNothing(result, store);
  return result;
}

describe('F3: a program that is killed', () => {
  for (const [program, says] of [
    ['pg_dump', /^dump: pg_dump was killed by SIGKILL/],
    [
      'pg_restore',
      /^validate: the archive cannot be read to its end: pg_restore, which reads it, was ended by SIGKILL/,
    ],
  ] as const) {
    test(`${program} SIGKILLed mid-stream: the stream ends as if it were whole, and nothing is published`, async () => {
      const store = await scratch();
      const { proxy, silent } = await silentAfter(cluster, 2_000_000);
      try {
        const run = await startBackup(proxy.through(cluster.url('shop')), store);
        await during(run.done, silent);
        const victim = await programBelow(run.pid, program);
        await sleep(200);
        process.kill(victim.pid, 'SIGKILL');
        await sleep(100);
        proxy.resume('down');
        const result = await run.done;
        assert.equal(result.exitCode, 40, result.log);
        assert.match(errorOf(result), says);
        await requireNothing(result, store);
      } finally {
        await proxy.stop();
      }
    });
  }

  test('pg_dump SIGKILLed before its first byte', async () => {
    const result = await failWith({ pg_dump: 'kill -KILL $$' });
    assert.equal(result.exitCode, 40);
    assert.match(errorOf(result), /^dump: pg_dump was killed by SIGKILL/);
  });

  test('pg_dump SIGKILLed after its last byte, the archive whole', async () => {
    const result = await failWith({ pg_dump: '"$REAL" "$@"; kill -KILL $$' });
    assert.equal(result.exitCode, 40);
    assert.match(errorOf(result), /pg_dump was killed by SIGKILL/);
  });

  test('pg_restore SIGKILLed after its last byte', async () => {
    const result = await failWith({ pg_restore: '"$REAL" "$@"; kill -KILL $$' });
    assert.equal(result.exitCode, 40);
    assert.match(errorOf(result), /ended by SIGKILL/);
  });

  test('pg_dumpall SIGKILLed: no roles, no backup', async () => {
    const result = await failWith({ pg_dumpall: 'kill -KILL $$' });
    assert.match(errorOf(result), /pg_dumpall/);
  });

  test('pg_restore ends while a child of its keeps its output open: no chunk waits for ever', async () => {
    const started = Date.now();
    const result = await failWith({ pg_restore: 'sleep 3 & exit 0' });
    assert.equal(result.exitCode, 40);
    assert.ok(Date.now() - started < 20_000, `took ${Date.now() - started} ms`);
  });
});

describe('F3, I-10: a program that exits 0 and did not do its work', () => {
  const cases: [string, Wraps, RegExp][] = [
    ['pg_dump writes nothing', { pg_dump: 'exit 0' }, /./],
    [
      'pg_dump writes the beginning only',
      { pg_dump: '"$REAL" "$@" 2>/dev/null | head -c 1000000; exit 0' },
      /^validate: the archive cannot be read to its end/,
    ],
    [
      'pg_dump writes all but its last byte',
      { pg_dump: '"$REAL" "$@" | head -c -1; exit 0' },
      /^validate: the archive cannot be read to its end/,
    ],
    [
      'pg_dump writes its table of contents only',
      { pg_dump: '"$REAL" "$@" 2>/dev/null | head -c 3000; exit 0' },
      /^validate: the archive cannot be read to its end/,
    ],
    [
      'pg_dump writes another format',
      { pg_dump: 'exec "$REAL" "$@" --format=plain' },
      /^validate: the archive cannot be read to its end: it does not begin with PGDMP/,
    ],
    [
      'pg_restore reads nothing',
      { pg_restore: 'exit 0' },
      /^validate: the archive cannot be read to its end: (?:pg_restore|it ends inside|the text ends)/,
    ],
    [
      'pg_restore reads everything and decodes nothing',
      { pg_restore: 'exec cat > /dev/null' },
      /^validate: the archive cannot be read to its end: pg_restore exited 0 without having read to the end/,
    ],
    [
      'pg_restore decodes half',
      { pg_restore: '"$REAL" "$@" | head -c 4000000; cat > /dev/null; exit 0' },
      /^validate: the archive cannot be read to its end/,
    ],
    [
      'pg_restore drops one row of one table',
      { pg_restore: '"$REAL" "$@" | sed "/^4711\\t/d"' },
      /^validate: the archive is not what the snapshot held: 1 difference\n {2}public\.items: expected 150000 rows, found 149999 rows/,
    ],
  ];
  for (const [what, wraps, says] of cases) {
    test(what, async () => {
      const result = await failWith(wraps);
      assert.equal(result.exitCode, 40, result.log);
      assert.match(errorOf(result), says);
    });
  }
});

describe('I-1, I-10: an archive that is whole and not what the snapshot held', () => {
  const cases: [string, string, RegExp][] = [
    [
      'rows of one table left out',
      '--exclude-table-data=public.orders',
      /public\.orders: expected 7 rows, found no rows section/,
    ],
    [
      'a table left out',
      '-T public.orders',
      /public\.orders: expected its definition, found no definition in the archive/,
    ],
    ['definitions only', '--schema-only', /public\.customers: expected 100 rows, found no rows section/],
    ['rows only', '--data-only', /public\.customers: expected its definition/],
    ['large objects left out', '--no-blobs', /large objects: expected 1, found 0 in the archive/],
  ];
  for (const [what, option, says] of cases) {
    test(`${what} (pg_dump ${option})`, async () => {
      const result = await failWith({ pg_dump: `exec "$REAL" "$@" ${option}` });
      assert.equal(result.exitCode, 40, result.log);
      assert.match(errorOf(result), says);
    });
  }

  test('pg_dump ignores the snapshot and dumps live data', async () => {
    const psql = `${cluster.bin}/psql -X -q -c "INSERT INTO public.orders VALUES (8)"`;
    const ignore = 'for a; do shift; case "$a" in --snapshot=*) ;; *) set -- "$@" "$a" ;; esac; done';
    const result = await failWith({ pg_dump: `${psql} || exit 3\n${ignore}\nexec "$REAL" "$@"` });
    assert.equal(result.exitCode, 40, result.log);
    assert.match(errorOf(result), /^validate: .*: 1 difference\n {2}public\.orders: expected 7 rows, found 8 rows$/m);
    await cluster.query('shop', 'DELETE FROM orders WHERE id = 8');
  });

  test('the same with census: stream is refused only where the archive contradicts itself', async () => {
    const result = await failWith({ pg_dump: 'exec "$REAL" "$@" -T public.orders' }, { census: 'stream' });
    assert.equal(result.exitCode, 40);
    assert.match(errorOf(result), /public\.orders/);
  });
});

describe('0.12, F43: the private column option pg_attver', () => {
  test('in a definition: refused with exit 13', async () => {
    const store = await scratch();
    await cluster.createDatabase('attver');
    await cluster.query(
      'attver',
      `CREATE TABLE t (a int); CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1 /* SET (pg_attver=3) */';`,
    );
    const result = await backUp(cluster.url('attver'), store);
    // A function that only quotes the option is refused too: rather one backup too few than one nobody can restore.
    assert.equal(result.exitCode, 13, result.log);
    assert.match(errorOf(result), /^validate: pg_dump wrote a private column option of this server \(pg_attver\)/);
    await requireNothing(result, store);
  });

  test('in a row: none of our business', async () => {
    await cluster.createDatabase('innocent');
    await cluster.query('innocent', `CREATE TABLE t (a text); INSERT INTO t VALUES ('SET (pg_attver=3)')`);
    const result = await backUp(cluster.url('innocent'), await scratch());
    assert.equal(result.exitCode, 0, result.log);
  });
});
