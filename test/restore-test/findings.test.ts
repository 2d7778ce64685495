import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { copyFile, cp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type Taken, takeBackup } from '../support/backup.ts';
import { Cluster } from '../support/postgres.ts';
import { dumpOf, forged, said, type TestReport, tryRestoreTest } from '../support/restore-test.ts';

const shop = `
  CREATE SCHEMA sales;
  CREATE TABLE sales.orders (id int PRIMARY KEY, total numeric CHECK (total >= 0), note text);
  INSERT INTO sales.orders SELECT g, g, 'n' || g FROM generate_series(1, 100) g;
  CREATE INDEX by_total ON sales.orders (total);
  CREATE SEQUENCE sales.numbers;
  SELECT nextval('sales.numbers') FROM generate_series(1, 7);
  SELECT lo_create(4242);
  CREATE VIEW sales.large AS SELECT * FROM sales.orders WHERE total > 50;`;

describe('what is not as it was recorded is found, though every checksum fits', () => {
  let cluster: Cluster;
  let backup: Taken;
  before(async () => {
    cluster = await Cluster.start();
    await cluster.createDatabase('shop');
    await cluster.query('shop', shop);
    backup = await takeBackup(cluster, 'shop', { census: 'content' });
  });
  after(() => cluster.stop());

  let changes = 0;
  /** A backup whose dump is of a database that something was done to after the census. */
  const changed = async (sql: string): Promise<Pick<Taken, 'id' | 'store' | 'name'>> => {
    const name = `changed_${++changes}`;
    await cluster.createDatabase(name);
    await cluster.query(name, `${shop}; ${sql}`);
    return forged(backup, { dump: await dumpOf(cluster, name) });
  };

  const cases: readonly (readonly [what: string, sql: string, findings: TestReport['findings']])[] = [
    [
      'a removed row',
      'DELETE FROM sales.orders WHERE id = 7',
      [{ object: 'sales.orders', expected: '100 rows', found: '99 rows' }],
    ],
    [
      'a changed value',
      `UPDATE sales.orders SET note = 'other' WHERE id = 7`,
      [{ object: 'sales.orders', expected: 'the digest recorded', found: 'another digest: values differ' }],
    ],
    [
      'a dropped index',
      'DROP INDEX sales.by_total',
      [{ object: 'INDEX sales.by_total', expected: 'there', found: 'missing' }],
    ],
    ['a dropped view', 'DROP VIEW sales.large', [{ object: 'VIEW sales.large', expected: 'there', found: 'missing' }]],
    [
      'a sequence that counted on',
      `SELECT nextval('sales.numbers')`,
      [{ object: 'sequence sales.numbers', expected: '7, called', found: '8, called' }],
    ],
    ['a lost large object', 'SELECT lo_unlink(4242)', [{ object: 'large objects', expected: '1', found: '0' }]],
    [
      'a table too many',
      'CREATE TABLE sales.extra ()',
      [{ object: 'TABLE sales.extra', expected: 'not there', found: 'there' }],
    ],
    [
      'another owner',
      `DO $$ BEGIN CREATE ROLE somebody; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
       ALTER VIEW sales.large OWNER TO somebody`,
      [{ object: 'VIEW sales.large', expected: 'owned by postgres', found: 'owned by somebody' }],
    ],
  ];
  for (const [what, sql, findings] of cases)
    test(what, async () => {
      const result = await tryRestoreTest(cluster, await changed(sql));
      const report = result.json as TestReport;
      assert.deepEqual(report?.findings, findings, said(result));
      assert.equal(report.result, 'failed');
      assert.equal(result.exitCode, 51, said(result));
      for (const { object, expected, found } of findings)
        assert.ok(result.stderr.includes(`${object}: expected ${expected}, found ${found}`), result.stderr);
      const proof = JSON.parse(readFileSync(new URL(report.proof ?? ''), 'utf8'));
      assert.equal(proof.result, 'failed');
      assert.deepEqual(proof.findings, findings);
    });

  test('a dropped table is one finding, and what hangs on it is named too', async () => {
    const result = await tryRestoreTest(cluster, await changed('DROP TABLE sales.orders CASCADE'));
    const { findings } = result.json as TestReport;
    assert.deepEqual(
      findings.map((each) => `${each.object}: ${each.found}`),
      [
        'sales.orders: no such table',
        'VIEW sales.large: missing',
        'CONSTRAINT sales.orders orders_pkey: missing',
        'INDEX sales.by_total: missing',
      ],
      said(result),
    );
  });

  test('a restore that takes longer than it may', async () => {
    const result = await tryRestoreTest(cluster, backup, ['--max-restore-time', '1ms']);
    const { findings } = result.json as TestReport;
    assert.equal(result.exitCode, 51, said(result));
    assert.equal(findings.length, 1);
    assert.equal(findings[0]?.object, 'restore time, download included');
    assert.equal(findings[0]?.expected, 'at most 0 s');
  });

  test('an extension the server lacks: nothing is restored, and the image that has it is named', async () => {
    const lacking = await forged(backup, {
      census: (census) => ({
        ...census,
        extensions: [...census.extensions, { name: 'vector', version: '0.8.0', schema: 'public' }],
      }),
    });
    const result = await tryRestoreTest(cluster, lacking);
    const { findings } = result.json as TestReport;
    assert.deepEqual(findings, [
      {
        object: 'extension vector 0.8.0',
        expected: 'available on the scratch server',
        found: 'not installed there, so nothing was restored',
      },
    ]);
    assert.equal(result.exitCode, 51, said(result));
    assert.match(result.stderr, /hint: .*pgvector\/pgvector:pg15, and give its scratch-url/);
    const skipping = await tryRestoreTest(cluster, lacking, ['--skip-extensions', 'vector']);
    assert.equal(skipping.exitCode, 51, said(skipping));
    assert.deepEqual((skipping.json as TestReport).findings, [
      { object: 'extension vector', expected: 'there', found: 'left out (skip-extensions)' },
    ]);
  });

  test('a part of a database is never proved alone', async () => {
    const part = await takeBackup(cluster, 'shop', { tables: 'sales.orders', name: 'part' });
    const result = await tryRestoreTest(cluster, part);
    assert.equal(result.exitCode, 51, said(result));
    assert.match((result.json as TestReport).findings[0]?.found ?? '', /cannot be proved alone/);
  });

  describe('bytes that are not those that were stored: exit 40, failed, and a proof that says so', () => {
    const damaged = async (
      damage: (folder: string) => Promise<void>,
    ): Promise<Pick<Taken, 'id' | 'store' | 'name'>> => {
      const copy = await forged(backup, {});
      await damage(copy.folder);
      return copy;
    };
    const flip = async (path: string): Promise<void> => {
      const bytes = await readFile(path);
      bytes[Math.floor(bytes.length / 2)] = (bytes[Math.floor(bytes.length / 2)] ?? 0) ^ 1;
      await writeFile(path, bytes);
    };
    const cases: readonly (readonly [string, (folder: string) => Promise<void>, RegExp])[] = [
      [
        'a flipped bit in the dump',
        (folder) => flip(join(folder, 'database.dump')),
        /database\.dump does not have the SHA-256/,
      ],
      [
        'a flipped bit in the census',
        (folder) => flip(join(folder, 'census.json')),
        /census\.json does not have the SHA-256/,
      ],
      [
        'a flipped bit in the roles',
        (folder) => flip(join(folder, 'roles.sql')),
        /roles\.sql does not have the SHA-256/,
      ],
    ];
    for (const [what, damage, message] of cases)
      test(what, async () => {
        const result = await tryRestoreTest(cluster, await damaged(damage));
        assert.equal(result.exitCode, 40, said(result));
        const report = result.json as TestReport;
        assert.equal(report.result, 'failed');
        assert.match(report.findings[0]?.found ?? '', message);
        assert.equal(JSON.parse(readFileSync(new URL(report.proof ?? ''), 'utf8')).result, 'failed');
      });

    const unusable: readonly (readonly [string, (folder: string) => Promise<void>, RegExp])[] = [
      [
        'a truncated dump',
        (folder) => truncate(join(folder, 'database.dump'), 2000),
        /is damaged: database\.dump has 2000 bytes/,
      ],
      ['a missing dump', (folder) => rm(join(folder, 'database.dump')), /is damaged: database\.dump is missing/],
      ['no manifest', (folder) => rm(join(folder, 'manifest.json')), /there is no backup/],
      [
        'a manifest that was edited',
        async (folder) => {
          const path = join(folder, 'manifest.json');
          await writeFile(path, (await readFile(path, 'utf8')).replace('"name":"assayed"', '"name":"another"'));
        },
        /is damaged: it belongs to another/,
      ],
      [
        "another backup's dump of the same size",
        async (folder) => {
          const path = join(folder, 'database.dump');
          const { length } = await readFile(path);
          await writeFile(path, Buffer.alloc(length));
          await copyFile(path, `${path}.copy`);
        },
        /database\.dump does not have the SHA-256/,
      ],
    ];
    for (const [what, damage, message] of unusable)
      test(what, async () => {
        const copy = await damaged(damage);
        const result = await tryRestoreTest(cluster, copy);
        assert.ok([2, 40].includes(result.exitCode), said(result));
        assert.match(result.stderr, message);
        assert.doesNotMatch(result.stdout, /passed/);
      });

    test('random: draws damaged backups too, and then fails', async () => {
      const copy = await forged(backup, {});
      const stamp = backup.id.slice(0, 16);
      for (let at = 0; at < 30; at++)
        await cp(copy.folder, join(copy.folder, '..', `${stamp}-0000${String(at).padStart(2, '0')}`), {
          recursive: true,
        });
      const result = await tryRestoreTest(cluster, { ...copy, id: 'random:1d' });
      // One of 31 is whole.
      if (result.exitCode === 0) return;
      assert.equal(result.exitCode, 40, said(result));
      assert.match(result.stderr, /^locate: the backup to be tested, assayed\/\S+, is damaged/m);
    });

    test('the newest backup is damaged: latest does not pass with an older one', async () => {
      const copy = await forged(backup, {});
      const proofsOf = (folder: string): string[] =>
        readdirSync(join(folder, 'proofs'), { recursive: true }) as string[];
      const before = proofsOf(copy.folder);
      const root = join(copy.folder, '..');
      const newer = '20991231T000000Z-abcdef';
      await cp(copy.folder, join(root, newer), { recursive: true });
      const result = await tryRestoreTest(cluster, { ...copy, id: 'latest' });
      assert.equal(result.exitCode, 40, said(result));
      assert.match(result.stderr, /^locate: the backup to be tested, assayed\/20991231T000000Z-abcdef, is damaged/m);
      assert.deepEqual(proofsOf(copy.folder), before);
    });
  });
});
