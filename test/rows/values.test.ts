import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { clientBin, type Taken } from '../support/backup.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';
import { backupOf } from '../support/restoring.ts';
import { counts, everything, rows } from '../support/rows.ts';

const schema = `
  CREATE TYPE mood AS ENUM ('sad', 'it''s ok', 'happy');
  CREATE DOMAIN short AS varchar(8) CHECK (VALUE <> 'never');
  CREATE TYPE pair AS (a int, b text);
  CREATE TABLE everything (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, twice int GENERATED ALWAYS AS (n * 2) STORED, n int,
    big bigint, small smallint, num numeric, money_like numeric(12, 2), f4 real, f8 double precision, flag bool,
    t text, vc varchar(20), c char(5), sh short, m mood, p pair, ps pair[],
    b bytea, j json, jb jsonb, x xml, u uuid, a int[], aa text[][], d date, ts timestamp, tz timestamptz(3), tm time, iv interval,
    ip inet, pt point, r int4range, bits bit(4), vb bit varying, ts_v tsvector, "odd ""name"", 日本" text);
  CREATE TABLE other (id serial PRIMARY KEY, v text);
  INSERT INTO other (v) SELECT 'other ' || g FROM generate_series(1, 50) g;
  CREATE INDEX ON everything ((n + 1));`;

const values = `
  INSERT INTO everything (n, big, small, num, money_like, f4, f8, flag, t, vc, c, sh, m, p, ps, b, j, jb, x, u, a, aa, d, ts, tz, tm, iv, ip, pt, r, bits, vb, ts_v, "odd ""name"", 日本") VALUES
  (1, 9223372036854775807, -32768, 'NaN', 12.30, 'Infinity', 0.1, true, E'tab\\t newline\\n \\\\N backslash \\\\ quote '' "', 'ü', 'ab', 'x', 'it''s ok',
   ROW(1, E'a,"b\\n'), ARRAY[ROW(1, 'x')::pair, NULL, ROW(NULL, NULL)::pair], '\\x00ff5c2e0a', '{"a" : 1,  "a":2}', '{"z":[1,null]}', '<a>é</a>',
   'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{1,NULL,3}', '{{a,"b,c"},{NULL,"N\\\\"}}', 'infinity', '-infinity', 'infinity', '24:00', '1 year -3 days 04:05:06.789',
   '10.0.0.1/8', '(1.5,-0)', '[1,)', B'1010', B'1', 'a:1 b:2', E'\\\\.'),
  (2, NULL, NULL, 123456789012345678901234567890.123456789, 0, '-0', '-Infinity', NULL, '\\N', '', '', NULL, NULL, NULL, '{}', '', 'null', 'null', '', NULL, '{}', NULL, '0001-01-01 BC',
   '2024-02-29 23:59:59.999999', '2024-02-29 23:59:59.999+05:30', NULL, '0', '::1', NULL, 'empty', B'0000', B'', '', ''),
  (3, 0, 0, 'Infinity', 1, 'NaN', 1e308, false, '$$; DROP TABLE other; --', '🐘', 'abcde', 'eight888', 'happy', ROW(NULL, 'NULL'), NULL, decode(repeat('deadbeef', 5000), 'hex'),
   '[]', '"\\u00e9"', NULL, NULL, NULL, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
  INSERT INTO everything (n) SELECT g FROM generate_series(4, 40) g;`;

for (const major of majorsAvailable()) {
  describe(`values of every kind come back as they were, PostgreSQL ${major}`, () => {
    let cluster: Cluster;
    let backup: Taken;
    let whole: Record<string, string>;
    before(async () => {
      cluster = await Cluster.start({ major });
      backup = await backupOf(cluster, 'shop', `${schema}${values}`, clientBin(cluster));
      whole = await everything(cluster, 'shop');
    });
    after(() => cluster.stop());

    test('deleted rows, and nothing else', async () => {
      await cluster.query('shop', 'DELETE FROM everything WHERE n <= 3');
      const result = await rows(cluster, backup, 'shop', [
        '--table',
        'everything',
        '--where',
        'n in (1, 2, 3)',
        '--json',
      ]);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.deepEqual(counts(result), ['public.everything 3 3 0 0']);
      assert.deepEqual(await everything(cluster, 'shop'), whole);
      assert.doesNotMatch(result.stderr, /the sequence/);
    });

    test('every column, asked of every kind', async () => {
      await cluster.query('shop', 'DELETE FROM everything WHERE n <= 3');
      const where = `(flag OR t = E'\\\\N' OR m = 'happy') AND b IS NOT NULL AND (p).b IS DISTINCT FROM 'no' AND (jb @> '{"z": [1]}' OR n > 1)
        -- a comment at the end`;
      const result = await rows(cluster, backup, 'shop', ['--table', 'public.everything', '--where', where, '--json']);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.deepEqual(counts(result), ['public.everything 3 3 0 0']);
      assert.deepEqual(await everything(cluster, 'shop'), whole);
    });

    test('all rows of a table that was emptied', async () => {
      await cluster.query('shop', 'TRUNCATE everything');
      const result = await rows(cluster, backup, 'shop', ['--table', 'everything', '--where', 'true', '--json']);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.deepEqual(counts(result), ['public.everything 40 40 0 0']);
      const { catalog: _, ...data } = whole;
      const { catalog: __, ...now } = await everything(cluster, 'shop');
      assert.deepEqual(now, data);
    });
  });
}

describe('more rows than one piece', () => {
  let cluster: Cluster;
  before(async () => {
    cluster = await Cluster.start();
  });
  after(() => cluster.stop());

  test('of a large table only those that fit are kept, and rows longer than a piece are whole', async () => {
    const backup = await backupOf(
      cluster,
      'large',
      `CREATE TABLE big (id int PRIMARY KEY, v text);
       INSERT INTO big SELECT g, repeat(md5(g::text), 20) FROM generate_series(1, 60000) g;
       INSERT INTO big SELECT 60000 + g, repeat(chr(64 + g), 9000000) FROM generate_series(1, 2) g;`,
    );
    const whole = await everything(cluster, 'large');
    await cluster.query('large', 'DELETE FROM big WHERE id % 10000 = 0 OR id > 59999');
    const result = await rows(cluster, backup, 'large', [
      ...['--table', 'big', '--where', 'id % 10000 = 0 OR id > 59999', '--json'],
    ]);
    assert.equal(result.exitCode, 0, result.stderr);
    assert.deepEqual(counts(result), ['public.big 8 8 0 0']);
    assert.deepEqual(await everything(cluster, 'large'), whole);
    assert.match(result.stderr, /looking through 60 002 rows of public\.big as of .*, in temporary tables/);
  });
});
