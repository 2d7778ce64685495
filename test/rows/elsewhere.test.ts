import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { cli, clientBin, tryBackup } from '../support/backup.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';
import { backupOf } from '../support/restoring.ts';
import { counts, everything, rows } from '../support/rows.ts';
import { S3Server } from '../support/s3.ts';

const table = `CREATE TABLE t (id int PRIMARY KEY, v text, f float8, d date);
  INSERT INTO t VALUES (1, 'é ÿ', 0.1, '2026-01-01'), (2, 'plain', 'NaN', 'infinity'), (3, '', NULL, NULL)`;

let cluster: Cluster;
before(async () => {
  cluster = await Cluster.start();
});
after(() => cluster?.stop());

describe('rows from a backup', () => {
  test('in a bucket', async () => {
    await using server = await S3Server.start();
    await server.createBucket('backups');
    await cluster.createDatabase('shop');
    await cluster.query('shop', table);
    const store = {
      store: 's3://backups/prod',
      's3-endpoint': server.endpoint,
      's3-access-key-id': server.accessKeyId,
      's3-secret-access-key': server.secretAccessKey,
    };
    const taken = await tryBackup(cluster, 'shop', store);
    assert.equal(taken.exitCode, 0, taken.log);
    const whole = await everything(cluster, 'shop');
    await cluster.query('shop', 'DELETE FROM t WHERE id < 3');
    const result = await cli(
      [
        ...['rows', '--table', 't', '--where', 'id < 3', '--store', store.store, '--json'],
        ...['--s3-endpoint', server.endpoint, '--s3-access-key-id', server.accessKeyId],
      ],
      { TARGET_URL: cluster.url('shop'), PGASSAY_S3_SECRET_ACCESS_KEY: server.secretAccessKey },
    );
    assert.equal(result.exitCode, 0, result.stderr);
    assert.deepEqual(counts(result), ['public.t 2 2 0 0']);
    assert.deepEqual(await everything(cluster, 'shop'), whole);
  });

  test('in another encoding', async () => {
    for (const encoding of ['LATIN1', 'UTF8', 'SQL_ASCII']) {
      const name = `enc_${encoding.toLowerCase()}`;
      await cluster.createDatabase(name, `TEMPLATE template0 ENCODING '${encoding}' LOCALE 'C'`);
      const called = encoding === 'SQL_ASCII' ? 't' : 'tä';
      const backup = await backupOf(cluster, name, table.replaceAll(/\bt\b/g, called), { name });
      for (const into of ['LATIN1', 'UTF8']) {
        const target = `${name}_into_${into.toLowerCase()}`;
        await cluster.createDatabase(target, `TEMPLATE template0 ENCODING '${into}' LOCALE 'C'`);
        await cluster.query(target, `CREATE TABLE ${called} (id int PRIMARY KEY, v text, f float8, d date)`);
        const where = encoding === 'SQL_ASCII' ? 'id < 3' : `id < 3 AND v IN ('é ÿ', 'plain')`;
        const result = await rows(cluster, backup, target, ['--table', called, '--where', where, '--json']);
        // Bytes without an encoding are taken for what the target has; Latin-1 takes any.
        if (encoding === 'SQL_ASCII' && into === 'LATIN1') {
          assert.equal(result.exitCode, 0, result.stderr);
          continue;
        }
        assert.deepEqual(counts(result), [`public.${called} 2 2 0 0`], `${encoding} ${into}: ${result.stderr}`);
        assert.deepEqual(await cluster.query(target, `SELECT v FROM ${called} ORDER BY id`), [
          { v: 'é ÿ' },
          { v: 'plain' },
        ]);
      }
    }
  });

  for (const [from, into] of [majorsAvailable(), majorsAvailable().reverse()].map(([a, b]) => [a, b] as const))
    test(`of ${from} in a database of ${into}`, { skip: from === into || into === undefined }, async () => {
      await using source = await Cluster.start({ major: from ?? 15 });
      await using target = await Cluster.start({ major: into ?? 15 });
      const backup = await backupOf(source, 'shop', table, clientBin(source));
      const whole = (await everything(source, 'shop'))['r public.t'];
      await target.createDatabase('shop');
      await target.query('shop', table.split(';')[0] ?? '');
      const flags = ['--table', 't', '--where', 'true', '--json'];
      const result = await rows(source, backup, 'shop', flags, target.url('shop'));
      assert.equal(result.exitCode, 0, result.stderr);
      assert.equal((await everything(target, 'shop'))['r public.t'], whole);
    });

  test('named as latest, by its id, by a time before the mistake, twice', async () => {
    const old = await backupOf(cluster, 'history', table, { name: 'history' });
    await cluster.query('history', 'DELETE FROM t WHERE id = 1');
    await sleep(1100);
    const then = new Date().toISOString();
    await sleep(1100);
    const young = await backupOf(cluster, 'history', 'SELECT 1', { name: 'history', store: old.store });
    assert.notEqual(young.id, old.id);
    const run = (...words: string[]) =>
      cli(['rows', ...words, '--store', old.store, '--table', 't', '--where', 'id = 1', '--dry-run', '--json'], {
        TARGET_URL: cluster.url('history'),
      });
    for (const [words, found] of [
      [[], 0],
      [['latest'], 0],
      [['--backup', young.id], 0],
      [[old.id], 1],
      [['--backup', old.id], 1],
      [['--backup', `before:${then}`], 1],
      [[`before:${then}`], 1],
    ] as const) {
      const result = await run(...words);
      assert.deepEqual(counts(result), [`public.t ${found} ${found} 0 0`], `${words.join(' ')}: ${result.stderr}`);
      assert.equal(/were they gone already when it was taken\? --backup before:/.test(result.stderr), found === 0);
    }
    const both = await run(old.id, '--backup', young.id);
    assert.equal(both.exitCode, 2, both.stderr);
    assert.match(both.stderr, /backup: is given twice, and they differ/);
  });
});
