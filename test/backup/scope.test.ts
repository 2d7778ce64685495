import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import {
  cli,
  countedRows,
  nameOf,
  program,
  recordedRows,
  restoreWithStockTools,
  type Taken,
  tableOf,
  takeBackup,
  tryBackup,
} from '../support/backup.ts';
import { errorOf, scratch } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';

const definitions = `
  CREATE SCHEMA sales; CREATE SCHEMA archive; CREATE SCHEMA "Odd.Schema";
  CREATE TABLE sales.orders (id int, year int) PARTITION BY RANGE (year);
  CREATE TABLE archive.orders_old PARTITION OF sales.orders FOR VALUES FROM (2000) TO (2020) PARTITION BY RANGE (year);
  CREATE TABLE archive.orders_2010 PARTITION OF archive.orders_old FOR VALUES FROM (2000) TO (2015);
  CREATE TABLE sales.orders_2024 PARTITION OF sales.orders FOR VALUES FROM (2024) TO (2025);
  CREATE TABLE sales.orders_rest PARTITION OF sales.orders DEFAULT;
  INSERT INTO sales.orders SELECT g, 2000 + g % 15 FROM generate_series(1, 300) g;
  INSERT INTO sales.orders SELECT g, 2024 FROM generate_series(1, 40) g;
  INSERT INTO sales.orders VALUES (1, 2030), (2, 2031);
  CREATE TABLE public.base (id int, note text);
  CREATE TABLE public.derived (extra int) INHERITS (public.base);
  CREATE TABLE sales.derived_further () INHERITS (public.derived);
  INSERT INTO public.base VALUES (1, 'a'); INSERT INTO public.derived VALUES (2, 'b', 3), (3, 'c', 4);
  INSERT INTO sales.derived_further VALUES (4, 'd', 5), (5, 'e', 6), (6, 'f', 7);
  CREATE TABLE public.plain (id serial PRIMARY KEY); INSERT INTO plain SELECT FROM generate_series(1, 5);
  CREATE TABLE public."Plain" (id int); INSERT INTO public."Plain" VALUES (1), (2);
  CREATE TABLE public."pl.ain" (id int); INSERT INTO public."pl.ain" VALUES (1);
  CREATE TABLE public."$1 price" (id int); INSERT INTO public."$1 price" VALUES (1);
  CREATE TABLE "Odd.Schema"."a""b" (id int); INSERT INTO "Odd.Schema"."a""b" VALUES (1), (2), (3);
  CREATE VIEW public.plain_view AS SELECT * FROM public.plain;
  CREATE MATERIALIZED VIEW sales.totals AS SELECT count(*) FROM sales.orders;
  SELECT lo_create(70001);`;

const partitions = { 'archive.orders_2010': 300, 'sales.orders_2024': 40, 'sales.orders_rest': 2 };

describe('the scope of a backup', () => {
  let cluster: Cluster;
  let store: string;

  before(async () => {
    cluster = await Cluster.start();
    await cluster.createDatabase('shop');
    await cluster.query('shop', definitions);
    store = `file://${await scratch()}`;
  });
  after(() => cluster.stop());

  const take = (inputs: Record<string, string>): Promise<Taken> => takeBackup(cluster, 'shop', { store, ...inputs });
  const verify = async (backup: Taken): Promise<void> => {
    const { exitCode, stderr } = await cli(['verify', backup.id, '--store', store]);
    assert.equal(exitCode, 0, stderr);
  };

  test('0.23: a partitioned table named by a pattern has its rows, in every partition of every level and schema', async () => {
    const backup = await take({ tables: 'sales.orders' });
    assert.deepEqual(recordedRows(backup.census), partitions);
    assert.equal(tableOf(backup.census, 'sales.orders').data, false);
    assert.equal(backup.census.largeObjects, null);
    assert.equal(backup.manifest.totals.largeObjects, null);
    assert.equal(backup.manifest.selfContained, false);
    await verify(backup);
    await cluster.createDatabase('partitions');
    await cluster.query('partitions', 'CREATE SCHEMA sales; CREATE SCHEMA archive');
    await restoreWithStockTools(cluster, backup.dump, { database: 'partitions' });
    const [row] = await cluster.query<{ n: number }>('partitions', 'SELECT count(*)::int AS n FROM sales.orders');
    assert.equal(row?.n, 342);
  });

  test('inheritance children come with their parent, counted each for itself', async () => {
    const { census } = await take({ tables: 'base' });
    assert.deepEqual(recordedRows(census), { 'public.base': 1, 'public.derived': 2, 'sales.derived_further': 3 });
  });

  test('exclude-tables takes a parent with all that is below it out; exclude-table-data takes the rows', async () => {
    const without = await take({ 'exclude-tables': 'sales.orders\nbase', 'exclude-schemas': '"Odd.Schema"' });
    assert.deepEqual(recordedRows(without.census), {
      ...{ 'public.$1 price': 1, 'public.Plain': 2, 'public.pl.ain': 1, 'public.plain': 5 },
    });
    assert.ok(!without.census.tables.some(({ name }) => name.startsWith('orders')));
    await verify(without);

    const structure = await take({ 'exclude-table-data': 'sales.orders\n"pl.ain"' });
    for (const name of Object.keys(partitions)) {
      const { rows, archiveRows, data } = tableOf(structure.census, name);
      assert.deepEqual({ rows, archiveRows, data }, { rows: 0, archiveRows: 0, data: false }, name);
    }
    assert.equal(tableOf(structure.census, 'public.pl.ain').data, false);
    assert.equal(structure.manifest.selfContained, false);
    await verify(structure);
    const database = await restoreWithStockTools(cluster, structure.dump);
    assert.deepEqual(await countedRows(cluster, database, structure.census), recordedRows(structure.census));
    const [row] = await cluster.query<{ n: number }>(database, 'SELECT count(*)::int AS n FROM sales.orders');
    assert.equal(row?.n, 0);
  });

  test('schemas takes what is in them, large objects and other schemas not', async () => {
    const backup = await take({ schemas: '"Odd.Schema"\nsal*' });
    assert.deepEqual(recordedRows(backup.census), {
      ...{ 'Odd.Schema.a"b': 3, 'sales.derived_further': 3, 'sales.orders_2024': 40, 'sales.orders_rest': 2 },
    });
    assert.equal(backup.census.largeObjects, null);
    await verify(backup);
  });

  test('schema-only is whole without a row and restores empty', async () => {
    const backup = await take({ mode: 'schema-only' });
    assert.equal(backup.manifest.series, 'schema-only');
    assert.equal(backup.manifest.selfContained, true);
    assert.equal(backup.manifest.totals.rows, 0);
    assert.ok(backup.census.tables.length > 10);
    assert.ok(backup.census.tables.every(({ data, rows, archiveRows }) => !data && rows + archiveRows === 0));
    assert.ok(!backup.census.contents.some(({ kind }) => kind === 'TABLE DATA'));
    await verify(backup);
    const database = await restoreWithStockTools(cluster, backup.dump);
    const [row] = await cluster.query<{ n: number }>(database, 'SELECT count(*)::int AS n FROM sales.orders');
    assert.equal(row?.n, 0);
  });

  test('data-only holds every row and no definition, and restores into what schema-only made', async () => {
    const backup = await take({ mode: 'data-only' });
    const schema = await take({ mode: 'schema-only' });
    assert.equal(backup.manifest.series, 'data-only');
    assert.equal(backup.manifest.selfContained, false);
    assert.equal(backup.census.largeObjects, 1);
    assert.ok(!backup.census.contents.some(({ kind }) => kind === 'TABLE'));
    await verify(backup);
    const database = await restoreWithStockTools(cluster, schema.dump);
    await restoreWithStockTools(cluster, backup.dump, { database });
    assert.deepEqual(await countedRows(cluster, database, backup.census), recordedRows(backup.census));
    assert.deepEqual(await countedRows(cluster, 'shop', backup.census), recordedRows(backup.census));
  });

  test('series is the scope: the same lists in another order are the same one', async () => {
    const [a, b, c, d] = await Promise.all([
      take({ tables: 'plain\nbase' }),
      take({ tables: 'base\n# a comment\n\n  plain' }),
      take({ tables: 'plain' }),
      take({ 'exclude-tables': 'plain' }),
    ]);
    assert.match(a.manifest.series, /^partial-[0-9a-f]{8}$/);
    assert.equal(a.manifest.series, b.manifest.series);
    assert.equal(new Set([a, c, d].map(({ manifest }) => manifest.series)).size, 3);
    assert.deepEqual(a.manifest.scope.tables, ['plain', 'base']);
    const full = await take({});
    assert.equal(full.manifest.series, 'full');
    const latest = await cli(['show', 'latest', '--store', store, '--json']);
    assert.equal((latest.json as { manifest: { id: string } }).manifest.id, full.id, 'latest is the newest of full');
  });

  test('B43: every pattern that matches nothing is named, of every input, all in one error of exit 2', async () => {
    const before = await cli(['list', '--store', store, '--json']);
    const result = await tryBackup(cluster, 'shop', {
      ...{ store, tables: 'sales.orders\nsales.oders\nPlain1', 'exclude-schemas': 'sale', 'exclude-tables': 'lpain' },
      ...{ 'exclude-table-data': 'other.public.plain\n"PLAIN"' },
    });
    assert.equal(result.exitCode, 2, result.log);
    for (const line of [
      /tables: the pattern sales\.oders matches no table/,
      /tables: the pattern Plain1 matches no table/,
      /exclude-schemas: the pattern sale matches no schema/,
      /exclude-tables: the pattern lpain matches no table/,
      /exclude-table-data: the pattern other\.public\.plain names another database than shop/,
      /exclude-table-data: the pattern "PLAIN" matches no table/,
    ])
      assert.match(errorOf(result), line);
    assert.doesNotMatch(errorOf(result), /pattern sales\.orders /);
    const schemas = await tryBackup(cluster, 'shop', { schemas: 'nowhere', store });
    assert.equal(schemas.exitCode, 2);
    assert.match(errorOf(schemas), /^input: schemas: the pattern nowhere matches no schema/);
    assert.deepEqual((await cli(['list', '--store', store, '--json'])).json, before.json);
  });

  test('B44: patterns that cannot be one are refused before anybody connects', async () => {
    const result = await tryBackup(cluster, 'shop', {
      ...{ tables: '--file=/tmp/x\na.b.c.d\n"open', schemas: 'x', 'exclude-tables': 'a..b', 'client-bin': '/nowhere' },
    });
    assert.equal(result.exitCode, 2);
    for (const line of [
      /tables: the pattern --file=\/tmp\/x begins with a hyphen/,
      /tables: the pattern a\.b\.c\.d cannot be read: it has 4 dotted names/,
      /tables: the pattern "open cannot be read: a double quote is never closed/,
      /exclude-tables: the pattern a\.\.b cannot be read: one of its dotted names is empty/,
      /tables: schemas and tables are both given/,
    ])
      assert.match(errorOf(result), line);
    assert.match(
      errorOf(await tryBackup(cluster, 'shop', { tables: 'pl(ain' })),
      /^input: a pattern is no regular expression PostgreSQL accepts/,
    );
  });

  const choices: readonly (readonly [string, Record<string, string>])[] = [
    ['an unqualified name, folded to lower case', { tables: 'PLAIN' }],
    [
      'quoted names, with dots, dollars and quotes in them',
      { tables: '"Plain"\n"pl.ain"\n"$1 price"\n"Odd.Schema"."a""b"' },
    ],
    ['wildcards and regular expressions', { tables: 'public.pl*\n(sales|archive).totals\npublic.$1?[o-q]rice' }],
    ['a view, a sequence and a materialized view', { tables: 'plain_view\nplain_id_seq\nsales.totals\n"Plain"' }],
    ['partly quoted names and a database', { tables: 'shop.public.pl"."ain\n"Odd."*.*' }],
    ['schemas by pattern', { schemas: 's*\n"Odd."*', 'exclude-tables': 'sales.totals' }],
    ['exclusions', { 'exclude-tables': '"Odd.Schema".*\n*_view', 'exclude-schemas': 'arch?ve|sales' }],
    ['everything', {}],
  ];
  for (const [what, inputs] of choices) {
    test(`takes what pg_dump itself takes: ${what}`, async () => {
      const backup = await take(inputs);
      const file = join(await scratch(), 'plain.dump');
      const flags = Object.entries(inputs).flatMap(([input, lines]) =>
        lines.split('\n').map((pattern) => `--${input.replace(/s$/, '')}=${pattern}`),
      );
      await program(cluster, 'pg_dump', ['-Fc', '-f', file, ...flags, cluster.url('shop')]);
      assert.deepEqual(await contentsOf(backup.dump), await contentsOf(file));
      assert.ok(backup.census.contents.length > 1);
    });
  }

  test('an unqualified pattern is looked up in the search path that the role would have', async () => {
    await cluster.query('shop', 'ALTER DATABASE shop SET search_path = sales, public');
    try {
      const { census } = await take({ tables: 'orders_2024\nplain' });
      assert.deepEqual(census.tables.map(nameOf), ['public.plain', 'sales.orders_2024']);
    } finally {
      await cluster.query('shop', 'ALTER DATABASE shop RESET search_path');
    }
  });

  /** The archive's list without its numbers. A parent's children are what pg_dump leaves out and we do not. */
  async function contentsOf(dump: string): Promise<string[]> {
    const list = await program(cluster, 'pg_restore', ['-l', dump]);
    return list
      .split('\n')
      .filter((line) => /^\d+;/.test(line))
      .map((line) => line.replace(/^\d+; \d+ \d+ /, ''))
      .sort();
  }
});
