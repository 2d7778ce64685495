import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import pg from 'pg';
import {
  countedRows,
  gate,
  recordedRows,
  restoreWithStockTools,
  restoreWithUs,
  type Taken,
  tableOf,
  takeBackup,
  tryBackup,
  waitsForLock,
} from '../support/backup.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';

const oddNames = [
  'rows',
  'at',
  't',
  'Mixed "quoted" name',
  'new\nline',
  'semi;colon',
  '$dollar$',
  '🐘 größe',
  'COPY x FROM stdin;\n\\.\n',
  '-- TOC entry 1 (class 1 OID 1)',
  "it's \\ E'",
  ' ',
  'a.b',
  '%s',
];

/** What has broken naive censuses, one table each; the number is how many rows it has. */
const definitions = `
  SET check_function_bodies = off;
  CREATE TABLE aliases (rows int, at int, digest text, t text, n text, name text, "format" text, count int, "?column?" int);
  INSERT INTO aliases VALUES (1, 2, 'd', 't', 'n', 'x', 'f', 3, 4), (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

  CREATE TABLE parent (a int, b text);
  CREATE TABLE child (c date, b text, a int);
  ALTER TABLE child INHERIT parent;
  INSERT INTO parent VALUES (1, 'p'); INSERT INTO child VALUES ('2024-01-01', 'c', 2), (NULL, 'd', 3);

  CREATE FUNCTION changing(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2';
  CREATE TABLE generated (x int, y int GENERATED ALWAYS AS (public.changing(x)) STORED);
  INSERT INTO generated (x) SELECT g FROM generate_series(1, 4) g;
  CREATE OR REPLACE FUNCTION changing(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 3';
  CREATE TABLE only_generated (y int GENERATED ALWAYS AS (1 + 1) STORED);
  INSERT INTO only_generated DEFAULT VALUES; INSERT INTO only_generated DEFAULT VALUES;

  CREATE TABLE root (id int) PARTITION BY LIST (id);
  CREATE TABLE leaf PARTITION OF root FOR VALUES IN (1);
  INSERT INTO root SELECT 1 FROM generate_series(1, 6);

  CREATE UNLOGGED TABLE quick (id int); INSERT INTO quick VALUES (1), (2);
  CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES;
  CREATE TABLE dropped (a int, b int, c int); ALTER TABLE dropped DROP b; INSERT INTO dropped VALUES (1, 2);
  CREATE TABLE empty (id int);
  CREATE TABLE lines (line text);
  INSERT INTO lines VALUES ('\\.'), (E'\\\\\\\\.'), (''), (NULL), (E'\\n'), (E'a\\n\\\\.\\nb'), (E'\\r\\n'), ('COPY public.lines FROM stdin;'),
    (repeat('x', 200000)), (E'\\t'), ('-- PostgreSQL database dump complete'), ('\\N');
  CREATE TYPE shape AS (w int, h int);
  CREATE TABLE typed OF shape; INSERT INTO typed VALUES (1, 2);
  CREATE TABLE identities (id int GENERATED ALWAYS AS IDENTITY (INCREMENT -3 MINVALUE -100 MAXVALUE 50 START 5 CYCLE), v text);
  INSERT INTO identities (v) SELECT 'v' FROM generate_series(1, 40);

  CREATE FUNCTION imitator() RETURNS text LANGUAGE plpgsql AS $body$ BEGIN
COPY public.ghost (id) FROM stdin;
1
2
\\.
SELECT pg_catalog.setval('public.ghost', 7, true);
RETURN 'unterminated " quote in a body';
END $body$;
  COMMENT ON TABLE lines IS E'a comment''s\\nCOPY public.ghost (id) FROM stdin;\\n1\\n\\\\.\\n';
  SELECT lo_from_bytea(81001, E'\\nCOPY public.ghost (id) FROM stdin;\\n1\\n'); SELECT lo_create(81002);

  CREATE FOREIGN DATA WRAPPER unreadable; CREATE SERVER away FOREIGN DATA WRAPPER unreadable;
  CREATE FOREIGN TABLE abroad (id int) SERVER away;
  CREATE MATERIALIZED VIEW summary AS SELECT count(*) FROM lines;
  CREATE VIEW failing AS SELECT 1 / 0 AS x;
  CREATE SEQUENCE untouched START 9223372036854775807;
  CREATE SEQUENCE touched MINVALUE -9223372036854775808 START -9223372036854775808; SELECT nextval('touched');
  ${oddNames.map((name) => `CREATE TABLE ${pg.escapeIdentifier(name)} (${pg.escapeIdentifier(name)} text); INSERT INTO ${pg.escapeIdentifier(name)} VALUES ('1'), ('2'), ('3');`).join('\n')}
  CREATE SCHEMA "odd\nschema""s"; CREATE TABLE "odd\nschema""s"."odd table" (id int); INSERT INTO "odd\nschema""s"."odd table" VALUES (1);`;

const expected: Record<string, number> = {
  ...{ aliases: 2, parent: 1, child: 2, generated: 4, only_generated: 2, leaf: 6, quick: 2, nothing: 3, dropped: 1 },
  ...{ empty: 0, lines: 12, typed: 1, identities: 40, ...Object.fromEntries(oddNames.map((name) => [name, 3])) },
};

/** Makes `configuration` what CREATE EXTENSION makes of a table with pg_extension_config_dump. */
const extension = (condition: string): string => `
  CREATE TABLE configuration (id int, own boolean);
  ALTER EXTENSION plpgsql ADD TABLE configuration;
  UPDATE pg_catalog.pg_extension SET extconfig = ARRAY['configuration'::regclass::oid], extcondition = ARRAY['${condition}']
  WHERE extname = 'plpgsql';`;

const majors = [...new Set([15, majorsAvailable().at(-1) ?? 15])].filter((major) => majorsAvailable().includes(major));
for (const major of majors) {
  describe(`the census on PostgreSQL ${major}`, () => {
    let cluster: Cluster;
    let backup: Taken;

    before(async () => {
      cluster = await Cluster.start({ major });
      await cluster.createDatabase('odd');
      await cluster.query('odd', definitions);
      backup = await takeBackup(cluster, 'odd', { census: 'content' });
    });
    after(() => cluster.stop());

    test('0.27, 0.22: counts what pg_dump dumps, whatever tables, columns and values are called', () => {
      assert.deepEqual(recordedRows(backup.census), {
        ...Object.fromEntries(Object.entries(expected).map(([name, rows]) => [`public.${name}`, rows])),
        'odd\nschema"s.odd table': 1,
      });
      for (const table of backup.census.tables) assert.equal(table.archiveRows, table.rows, table.name);
      assert.equal(tableOf(backup.census, 'public.root').data, false);
      assert.equal(backup.census.largeObjects, 2);
      assert.ok(backup.census.tables.every(({ name }) => !['abroad', 'summary', 'failing', 'ghost'].includes(name)));
    });

    test('0.31: records sequences as the archive sets them, bigints to the last digit', () => {
      const positions = Object.fromEntries(
        backup.census.sequences.map(({ name, value, called }) => [name, [value, called]]),
      );
      assert.deepEqual(positions, {
        identities_id_seq: ['41', true],
        touched: ['-9223372036854775808', true],
        untouched: ['9223372036854775807', false],
      });
    });

    test('is equal to what stock tools restore', async () => {
      const database = await restoreWithStockTools(cluster, backup.dump);
      assert.deepEqual(await countedRows(cluster, database, backup.census), recordedRows(backup.census));
    });

    test('0.22: has digests that a restore with other column orders and recomputed columns meets', async () => {
      const report = await restoreWithUs(cluster, backup, 'compared');
      assert.equal(report.tables, backup.census.tables.length);
      const columns = (database: string): Promise<{ name: string; y: string | null }[]> =>
        cluster.query(
          database,
          `SELECT string_agg(attname, ',' ORDER BY attnum) AS name, (SELECT sum(y)::text FROM public.generated) AS y
           FROM pg_attribute WHERE attrelid = 'child'::regclass AND attnum > 0`,
        );
      assert.deepEqual(await columns('odd'), [{ name: 'c,b,a', y: '20' }]);
      assert.deepEqual(await columns('compared'), [{ name: 'a,b,c', y: '30' }]);
      assert.notEqual(tableOf(backup.census, 'public.aliases').digest, tableOf(backup.census, 'public.empty').digest);
    });

    test('census: stream counts in the archive alone and comes to the same', async () => {
      const { census } = await takeBackup(cluster, 'odd', { census: 'stream' });
      assert.deepEqual(recordedRows(census), recordedRows(backup.census));
      assert.equal(census.digest, null);
      assert.deepEqual(census.sequences, backup.census.sequences);
    });

    test("0.24: an extension's configuration table is counted under its condition, as it is dumped", async () => {
      for (const name of ['configured', 'prepared']) {
        await cluster.createDatabase(name, 'TEMPLATE template0');
        await cluster.query(name, `${extension('WHERE own')} CREATE TABLE others (id int)`);
      }
      await cluster.query(
        'configured',
        'INSERT INTO configuration SELECT g, g % 10 = 0 FROM generate_series(1, 100) g',
      );
      await cluster.query('prepared', 'DROP TABLE others');
      const { census, dump } = await takeBackup(cluster, 'configured', { census: 'content' });
      assert.deepEqual(recordedRows(census), { 'public.configuration': 10, 'public.others': 0 });
      assert.ok(!census.contents.some(({ kind, tag }) => kind === 'TABLE' && tag === 'configuration'));
      await restoreWithStockTools(cluster, dump, { database: 'prepared' });
      assert.equal((await countedRows(cluster, 'prepared', census))['public.configuration'], 10);
    });
  });
}

describe('a census that meets an ALTER', () => {
  test('I-12: whoever waits for the dump does not stop the count, which would stop the dump in turn', async () => {
    await using cluster = await Cluster.start();
    await cluster.createDatabase('shop');
    // The first batch of tables takes 3 s to count and ends with the configuration table; `zebras` is in the second.
    await cluster.query(
      'shop',
      `${extension('WHERE pg_catalog.pg_sleep(3) IS NOT NULL')} INSERT INTO configuration VALUES (1, true);
       DO $$ BEGIN FOR i IN 1..220 LOOP EXECUTE format('CREATE TABLE more_%s (id int)', i); END LOOP; END $$;
       CREATE TABLE zebras (id int); INSERT INTO zebras VALUES (1), (2);`,
    );
    const door = await gate(cluster);
    await door.open();
    const running = tryBackup(cluster, 'shop', { 'client-bin': door.bin, retries: 0, 'stall-timeout': '20s' });
    await door.reached();
    await locked(cluster, 'zebras');
    const app = await cluster.client('shop');
    const change = app.query('ALTER TABLE zebras ADD COLUMN stripes int');
    await waitsForLock(cluster, 'ALTER TABLE zebras');
    const result = await running;
    assert.equal(result.exitCode, 0, result.log);
    assert.doesNotMatch(result.log, /starting again/);
    await change;
    await app.end();
  });
});

/** Resolves when pg_dump has its lock on a table. */
async function locked(cluster: Cluster, table: string): Promise<void> {
  for (;;) {
    const rows = await cluster.query(
      'shop',
      `SELECT 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid)
       WHERE a.application_name ~ ' pg_dump$' AND l.relation = $1::regclass AND l.granted`,
      [table],
    );
    if (rows.length > 0) return;
  }
}
