import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { loadSampleDatabase } from '../../scripts/sample-database.ts';
import { startWriters } from '../../scripts/writers.ts';
import {
  countedRows,
  nameOf,
  recordedRows,
  restoreWithStockTools,
  restoreWithUs,
  type Taken,
  takeBackup,
} from '../support/backup.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';

const newest = majorsAvailable().at(-1) ?? 15;

/** Values whose text depends on settings, on the type's output function, or on who reads it. */
const zoo = `
  CREATE TYPE pair AS (a int, b text);
  CREATE TYPE mood AS ENUM ('glad', 'sad');
  CREATE TABLE zoo (
    id int PRIMARY KEY, f8 float8, f4 float4, num numeric, amount money, at timestamptz, plain timestamp, day date,
    span interval, raw bytea, words text[], doc jsonb, tree xml, ip inet, bits varbit, area box, life tstzrange,
    p pair, m mood, u uuid, c "char", fixed char(5), twice int GENERATED ALWAYS AS (id * 2) STORED, nothing text);
  INSERT INTO zoo (id, f8, f4, num, amount, at, plain, day, span, raw, words, doc, tree, ip, bits, area, life, p, m, u, c, fixed, nothing)
  VALUES
    (1, 0.1::float8 + 0.2::float8, 1e-7, 'NaN', 1234.5, '2024-03-31 02:30+02', '0044-03-15 BC', 'infinity', '1 mon -2 days 03:04:05.678',
     '\\x00ff', '{a,NULL,"b,c"}', '{"k": [1, null]}', '<a>1</a>', '10.0.0.1/8', B'1011', '((1,2),(3,4))', '[2024-01-01,)', '(1,"x,y")', 'sad',
     '00000000-0000-0000-0000-000000000001', 'x', 'ab', NULL),
    (2, '-Infinity', '1e38', 1e100, -0.01, '-infinity', '2024-02-29 23:59:60', '0001-01-01', '-1 year', '', '{}', 'null', '', '::1', B'',
     '((0,0),(0,0))', 'empty', NULL, 'glad', NULL, NULL, '', ''),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'n');`;

function digests(backup: Taken): Record<string, string | undefined> {
  return Object.fromEntries(backup.census.tables.filter((t) => t.data).map((table) => [nameOf(table), table.digest]));
}

describe('I-1: what is recorded is what the archive restores to', () => {
  let cluster: Cluster;
  let other: Cluster;

  before(async () => {
    [cluster, other] = await Promise.all([Cluster.start(), Cluster.start({ major: newest })]);
    for (const server of [cluster, other]) {
      await server.createDatabase('shop');
      await loadSampleDatabase(server.url('shop'));
      await server.query('shop', zoo);
    }
  });
  after(() => Promise.all([cluster.stop(), other.stop()]));

  test('digests of equal rows are equal on different majors, whatever the roles and databases have set', async () => {
    await cluster.query(
      'shop',
      `ALTER DATABASE shop SET DateStyle = 'German, DMY'; ALTER DATABASE shop SET bytea_output = 'escape';
       ALTER ROLE postgres SET TimeZone = 'Asia/Kathmandu'; ALTER DATABASE shop SET IntervalStyle = 'sql_standard';
       ALTER DATABASE shop SET extra_float_digits = -5; ALTER ROLE postgres SET xmloption = 'document';`,
    );
    const [here, there] = await Promise.all([
      takeBackup(cluster, 'shop', { census: 'content' }),
      takeBackup(other, 'shop', { census: 'content' }),
    ]);
    assert.deepEqual(here.census.digest, {
      algorithm: 'sum-hashtextextended-chain/1',
      columns: 'by name, without generated ones',
    });
    const [a, b] = [digests(here), digests(there)];
    assert.ok(Object.values(a).every((digest) => digest !== undefined));
    assert.deepEqual(a, b);
  });

  test('a digest tells a changed value, a moved value, NULL from empty, but not the order of rows or columns', async () => {
    const make = async (name: string, sql: string): Promise<string | undefined> => {
      await cluster.createDatabase(name);
      await cluster.query(name, sql);
      const { census } = await takeBackup(cluster, name, { census: 'content' });
      return census.tables[0]?.digest;
    };
    const base = `CREATE TABLE t (a text, b text); INSERT INTO t VALUES ('1', '2'), ('3', NULL)`;
    const [same, ...others] = await Promise.all([
      make('base', base),
      make('reordered', `CREATE TABLE t (b text, a text); INSERT INTO t VALUES (NULL, '3'), ('2', '1')`),
      make('changed', `CREATE TABLE t (a text, b text); INSERT INTO t VALUES ('1', '2'), ('4', NULL)`),
      make('swapped', `CREATE TABLE t (a text, b text); INSERT INTO t VALUES ('2', '1'), ('3', NULL)`),
      make('empty', `CREATE TABLE t (a text, b text); INSERT INTO t VALUES ('1', '2'), ('3', '')`),
      make('letter', `CREATE TABLE t (a text, b text); INSERT INTO t VALUES ('1', '2'), ('3', 'n')`),
      make('crossed', `CREATE TABLE t (a text, b text); INSERT INTO t VALUES ('1', NULL), ('3', '2')`),
    ]);
    const [reordered, ...different] = others;
    assert.ok(same !== undefined && same !== '0');
    assert.equal(reordered, same);
    assert.equal(new Set([same, ...different]).size, 6);
  });

  test('0.14: a digest is the same whether the table is trusted and queried, or another role owns it and it is copied', async () => {
    const odd = `CREATE TABLE odd (a text, b text, c bytea); INSERT INTO odd VALUES (E'\\\\.', E'\\\\N', E'\\\\x00'), (NULL, '', ''),
      (E'line\nbreak\ttab\rreturn\\\\back\bspace\ffeed\vvertical', '🐘 größe', NULL), (repeat('x', 100000), E'\\\\', E'\\\\xff');
      CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES; CREATE TABLE none_yet (id int)`;
    const seen = await Promise.all(
      [cluster, other].flatMap((server) =>
        ['trusted', 'foreign'].map(async (name) => {
          await server.createDatabase(name);
          await server.query(name, `SET xmloption = content; SET TimeZone = 'UTC'; ${zoo} ${odd}`);
          if (name === 'foreign')
            await server.query(
              name,
              `CREATE ROLE somebody; ALTER TABLE zoo OWNER TO somebody; ALTER TABLE odd OWNER TO somebody;
               ALTER TABLE nothing OWNER TO somebody; ALTER TABLE none_yet OWNER TO somebody`,
            );
          const backup = await takeBackup(server, name, { census: 'content' });
          assert.deepEqual(recordedRows(backup.census), {
            'public.none_yet': 0,
            'public.nothing': 2,
            'public.odd': 4,
            'public.zoo': 3,
          });
          return digests(backup);
        }),
      ),
    );
    for (const each of seen) assert.deepEqual(each, seen[0]);
  });

  test('with writers all the while: recorded = restored, by stock tools and on another major, and live has moved on', async () => {
    const writers = await startWriters(cluster.url('shop'), 4);
    let backup: Taken;
    try {
      backup = await takeBackup(cluster, 'shop', { census: 'content' });
    } finally {
      await writers.stop();
    }
    const recorded = recordedRows(backup.census);
    const database = await restoreWithStockTools(cluster, backup.dump);
    assert.deepEqual(await countedRows(cluster, database, backup.census), recorded);
    const live = await countedRows(cluster, 'shop', backup.census);
    assert.notDeepEqual(live, recorded);
    // Row counts, digests, sequences and large objects, read by another major's server.
    const report = await restoreWithUs(other, backup, 'moved');
    assert.equal(report.rows, backup.manifest.totals.rows);
    const again = await takeBackup(other, 'moved', { census: 'content', name: 'moved' });
    assert.deepEqual(digests(again), digests(backup));
  });
});
