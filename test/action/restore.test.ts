import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type ActionOptions, type ActionResult, runAction } from '../support/action.ts';
import { clientBin, type Taken, takeBackup } from '../support/backup.ts';
import { errorOf, filesIn, repository, wrapped } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { databasesOf } from '../support/restoring.ts';

describe('the step pgassay/pgassay/restore', () => {
  let cluster: Cluster;
  let backup: Taken;
  before(async () => {
    cluster = await Cluster.start();
    await cluster.createDatabase('shop');
    await cluster.query(
      'shop',
      `CREATE TABLE customers AS SELECT g id, 'c' || g AS name FROM generate_series(1, 500) g;
       CREATE TABLE "<b>@octo</b> | ::error::x" AS SELECT 1 x`,
    );
    backup = await takeBackup(cluster, 'shop');
  });
  after(() => cluster.stop());

  const step = (
    database: string,
    inputs: ActionOptions['inputs'] = {},
    options: Omit<ActionOptions, 'inputs'> = {},
  ): Promise<ActionResult> =>
    runAction(join(repository, 'restore'), {
      ...options,
      inputs: { ...clientBin(cluster), store: backup.store, 'target-url': cluster.url(database), ...inputs },
    });

  test('restores into a new database: outputs, a summary that begins with the verdict', async () => {
    const result = await step('recovered');
    assert.equal(result.exitCode, 0, result.log);
    const { 'duration-seconds': seconds, ...outputs } = result.outputs;
    assert.deepEqual(outputs, { 'backup-id': backup.id, tables: '2', rows: '501', 'safety-backup-id': '' });
    assert.ok(Number(seconds) > 0);
    assert.match(result.summary, /^### assayed is restored into recovered: all as recorded\n\n2 tables, 501 rows · /);
    assert.ok(result.summary.includes('| `public."<b>@octo</b> ¦ ::error::x"` | 1 | 1 |'), result.summary);
    assert.deepEqual(result.droppedOutputs, []);
    assert.deepEqual([result.orphans, result.leftovers], [[], []]);
    assert.ok(!result.log.includes(cluster.password));
  });

  test('where the repository is public, the summary holds no name and no count', async () => {
    const result = await step('public_one', {}, { event: { repository: { private: false, visibility: 'public' } } });
    assert.equal(result.exitCode, 0, result.log);
    assert.match(result.summary, /^### assayed is restored: all as recorded\n/);
    assert.doesNotMatch(result.summary, /customers|501|public_one/);
  });

  test('a backup older than max-age, a wrong confirm, a system database, a full one: refused with exit 2, untouched', async () => {
    const databases = await databasesOf(cluster);
    for (const [database, inputs, says] of [
      ['never', { 'max-age': '1s' }, /^locate: assayed\/\S+ is of .* UTC, .*; max-age allows 1 s\nhint: /],
      ['never', { confirm: 'shop' }, /^input: confirm: shop is not the name of the target database, never\n/],
      ['postgres', { confirm: 'postgres' }, /^restore: postgres is the server's own database/],
      [
        'shop',
        {},
        /^restore: shop is the database that this backup was taken from; nothing was changed\nhint: .*confirm: shop/,
      ],
      ['shop', { confirm: 'shop' }, /^restore: the database shop is not empty/],
    ] as const) {
      const result = await step(database, inputs);
      assert.equal(result.exitCode, 2, result.log);
      assert.match(errorOf(result), says);
      assert.equal(result.annotations.filter(({ level }) => level === 'error').length, 1);
    }
    assert.deepEqual(await databasesOf(cluster), databases);
    const rows = await cluster.query('shop', 'SELECT FROM customers');
    assert.equal(rows.length, 500);
  });

  test('over what is there: the safety backup is an output, and in the summary', async () => {
    await cluster.createDatabase('over', 'TEMPLATE shop');
    await cluster.query('over', 'DELETE FROM customers');
    const result = await step('over', { clean: true, confirm: 'over', tables: 'customers' });
    assert.equal(result.exitCode, 0, result.log);
    const { 'safety-backup-id': safety = '', tables, rows } = result.outputs;
    assert.deepEqual([tables, rows], ['1', '500']);
    assert.match(safety, /^\d{8}T\d{6}Z-[0-9a-f]{6}$/);
    assert.ok(result.summary.includes(`safety backup \`assayed/${safety}\``), result.summary);
    const undone = await step('undone', { backup: safety });
    assert.equal(undone.exitCode, 0, undone.log);
    assert.equal(undone.outputs.rows, '1');
  });

  test('a step that is killed in its safety backup leaves no half of one in the store', async () => {
    await cluster.createDatabase('killed', 'TEMPLATE shop');
    const backups = await filesIn(fileURLToPath(backup.store));
    const bin = await wrapped(cluster, {
      pg_dump: 'case "$*" in *--snapshot=*) "$REAL" "$@" | head -c 4000; sleep 30;; *) exec "$REAL" "$@";; esac',
    });
    const result = await step(
      'killed',
      { clean: true, confirm: 'killed', 'client-bin': bin },
      {
        onLine: (line, running) => {
          if (line.includes('safety backup')) setTimeout(() => running.signal('SIGKILL'), 1500);
        },
      },
    );
    assert.equal(result.exitCode, 137, result.log);
    assert.deepEqual(await filesIn(fileURLToPath(backup.store)), backups);
    assert.equal((await cluster.query('killed', 'SELECT FROM customers')).length, 500);
  });

  test('into the emptied source only with its name typed', async () => {
    await cluster.createDatabase('emptied');
    await cluster.query('emptied', 'CREATE TABLE t AS SELECT generate_series(1, 7) x');
    const own = await takeBackup(cluster, 'emptied');
    await cluster.query('emptied', 'DROP TABLE t');
    const refused = await step('emptied', { store: own.store });
    assert.equal(refused.exitCode, 2, refused.log);
    assert.match(errorOf(refused), /emptied is the database that this backup was taken from/);
    const confirmed = await step('emptied', { store: own.store, confirm: 'emptied' });
    assert.equal(confirmed.exitCode, 0, confirmed.log);
    assert.equal(confirmed.outputs.rows, '7');
  });
});
