import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { loadSampleDatabase } from '../../scripts/sample-database.ts';
import { countTables, type TableCount } from '../../src/postgres/census.ts';
import { connect, type Session } from '../../src/postgres/connect.ts';
import { resolveScope, type Scope } from '../../src/postgres/scope.ts';
import { prepareSession } from '../../src/postgres/server.ts';
import { parseDatabaseUrl } from '../../src/postgres/url.ts';
import {
  gate,
  nameOf,
  recordedRows,
  restoreWithUs,
  tableOf,
  takeBackup,
  taken,
  tryBackup,
  waitsForLock,
} from '../support/backup.ts';
import { until } from '../support/faults.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';

async function open(cluster: Cluster, database: string, user?: string, password?: string): Promise<Session> {
  const { target } = parseDatabaseUrl(cluster.url(database, user, password), { input: 'database-url' });
  assert.ok(target !== undefined);
  const session = await connect(target, { applicationName: 'census' });
  await prepareSession(session);
  return session;
}

function scopeOf(session: Session): Promise<Scope> {
  const none = { schemas: [], excludeSchemas: [], tables: [], excludeTables: [], excludeTableData: [] };
  return resolveScope(session, { mode: 'full', ...none }, { standby: false, database: '' });
}

interface Counted {
  readonly trusted: Record<string, boolean>;
  readonly counts: Record<string, TableCount | undefined>;
}

/** Every table of a database, counted as a backup counts it. */
async function counted(cluster: Cluster, database: string, content: boolean): Promise<Counted> {
  const session = await open(cluster, database);
  try {
    const tables = (await scopeOf(session)).tables.filter((table) => table.data);
    const counts = await countTables(session, tables, content);
    return {
      trusted: Object.fromEntries(tables.map((table) => [nameOf(table), table.trusted])),
      counts: Object.fromEntries(tables.map((table) => [nameOf(table), counts.get(table.oid)])),
    };
  } finally {
    await session.close();
  }
}

/** Makes every table somebody else's, who is no superuser. */
const giveAway = `DO $$ DECLARE t regclass; BEGIN
  FOR t IN SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  LOOP EXECUTE format('ALTER TABLE %s OWNER TO app', t); END LOOP; END $$`;

const variants: Readonly<Record<string, string>> = {
  'an index expression': 'CREATE INDEX ON app.t ((id + app.evil(1)))',
  'an index predicate': 'CREATE INDEX ON app.t (id) WHERE app.evil(1) = 1',
  'extended statistics': 'CREATE STATISTICS app.s ON (id + app.evil(1)), id FROM app.t',
};

for (const [variant, sql] of Object.entries(variants)) {
  describe(`0.14: a function that is constant in ${variant}`, () => {
    let cluster: Cluster;
    const fired = async (): Promise<string[]> =>
      // pg_restore makes the index again, as stock tools do: that it plans is not ours to change.
      (await cluster.log()).split('\n').filter((line) => line.includes('TRAP') && !line.includes('pg_restore'));

    before(async () => {
      cluster = await Cluster.start();
      await cluster.createDatabase('shop');
      await cluster.query(
        'shop',
        `CREATE ROLE app; CREATE SCHEMA app AUTHORIZATION app; SET ROLE app;
         CREATE TABLE app.t (id int, note text); INSERT INTO app.t SELECT g, 'n' || g FROM generate_series(1, 10) g;
         CREATE FUNCTION app.work() RETURNS void VOLATILE LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'TRAP as %', current_user; END $$;
         CREATE FUNCTION app.evil(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
           $$ BEGIN IF current_user <> 'app' THEN PERFORM app.work(); END IF; RETURN $1; END $$;
         ${sql}`,
      );
    });
    after(() => cluster.stop());

    test('is not called as the superuser who takes the backup, nor when a restored database is compared', async () => {
      for (const census of ['rows', 'content']) {
        const backup = await takeBackup(cluster, 'shop', { census });
        assert.deepEqual(recordedRows(backup.census), { 'app.t': 10 });
        assert.equal(tableOf(backup.census, 'app.t').digest !== undefined, census === 'content');
        for (const owners of ['keep', 'drop']) {
          const report = await restoreWithUs(cluster, backup, `${census}_${owners}`, ['--owners', owners]);
          assert.equal(report.rows, 10);
        }
      }
      assert.deepEqual(await fired(), []);
    });

    test('is called when such a count is planned', async () => {
      await cluster.query('shop', 'SELECT count(*) FROM ONLY app.t');
      assert.match((await fired()).join('\n'), /TRAP as postgres/);
    });
  });
}

describe('0.14: which tables are trusted', () => {
  let cluster: Cluster;

  before(async () => {
    cluster = await Cluster.start();
    await cluster.createDatabase('shop');
    await cluster.query(
      'shop',
      `CREATE ROLE app; CREATE ROLE chief SUPERUSER; CREATE ROLE reader LOGIN PASSWORD 'long enough' IN ROLE pg_read_all_data;
       CREATE TABLE ours (id int PRIMARY KEY, v text CHECK (v <> 'x'), UNIQUE (v)); CREATE STATISTICS plain ON id, v FROM ours;
       CREATE TABLE chiefs (id int); ALTER TABLE chiefs OWNER TO chief;
       CREATE TABLE apps (id int); ALTER TABLE apps OWNER TO app;
       CREATE TABLE readers (id int); ALTER TABLE readers OWNER TO reader;
       CREATE SCHEMA theirs AUTHORIZATION app; CREATE TABLE theirs.ours (id int);
       CREATE TABLE expression (id int); CREATE INDEX ON expression ((id + 1));
       CREATE TABLE predicate (id int); CREATE INDEX ON predicate (id) WHERE id > 0;
       CREATE TABLE statistic (id int); CREATE STATISTICS computed ON (id + 1) FROM statistic;
       CREATE TABLE secret (id int); ALTER TABLE secret OWNER TO app; ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
       CREATE POLICY half ON secret USING (id % 2 = 0); INSERT INTO secret SELECT generate_series(1, 10);`,
    );
  });
  after(() => cluster.stop());

  const trusted = async (session: Session): Promise<string[]> =>
    (await scopeOf(session)).tables.filter((table) => table.trusted).map((table) => table.name);

  test('our own and those of superusers, without expressions', async () => {
    const session = await open(cluster, 'shop');
    assert.deepEqual(await trusted(session), ['chiefs', 'ours']);
    await session.close();
    const reader = await open(cluster, 'shop', 'reader', 'long enough');
    assert.deepEqual(await trusted(reader), ['chiefs', 'ours', 'readers']);
    await reader.close();
  });

  test('not those whose schema somebody else owns, and could put another table in their place', async () => {
    await cluster.createDatabase('given', 'OWNER app');
    await cluster.query('given', 'CREATE TABLE plain (id int); CREATE SCHEMA mine; CREATE TABLE mine.plain (id int)');
    const session = await open(cluster, 'given');
    const { tables } = await scopeOf(session);
    // From 15 on public belongs to whoever owns the database.
    assert.deepEqual(Object.fromEntries(tables.map((table) => [nameOf(table), table.trusted])), {
      'mine.plain': true,
      'public.plain': cluster.major < 15,
    });
    await session.close();
  });

  test('a table that changes hands counts as moved', async () => {
    const session = await open(cluster, 'shop');
    const { fingerprint } = await scopeOf(session);
    await cluster.query('shop', 'ALTER TABLE ours OWNER TO app');
    assert.notEqual((await scopeOf(session)).fingerprint, fingerprint);
    await cluster.query('shop', 'ALTER TABLE ours OWNER TO postgres');
    assert.equal((await scopeOf(session)).fingerprint, fingerprint);
    await session.close();
  });

  test('a policy is refused, not applied', async () => {
    const session = await open(cluster, 'shop', 'reader', 'long enough');
    const tables = (await scopeOf(session)).tables.filter((table) => table.name === 'secret');
    await assert.rejects(countTables(session, tables, false), { code: '42501' });
    await session.close();
    const { counts } = await counted(cluster, 'shop', false);
    assert.deepEqual(counts['public.secret'], { rows: 10 });
  });
});

test('I-12: a COPY that would wait behind an ALTER is left to the session that has the lock', async () => {
  await using cluster = await Cluster.start();
  await cluster.createDatabase('shop');
  // The first batch of tables takes 3 s to count, because of the configuration table's condition; `zebras` is in the second.
  await cluster.query(
    'shop',
    `CREATE TABLE configuration (id int); INSERT INTO configuration VALUES (1); ALTER EXTENSION plpgsql ADD TABLE configuration;
     UPDATE pg_extension SET extconfig = ARRAY['configuration'::regclass::oid],
       extcondition = ARRAY['WHERE pg_catalog.pg_sleep(3) IS NOT NULL'] WHERE extname = 'plpgsql';
     DO $$ BEGIN FOR i IN 1..220 LOOP EXECUTE format('CREATE TABLE more_%s (id int)', i); END LOOP; END $$;
     CREATE ROLE app; CREATE TABLE zebras (id int); INSERT INTO zebras VALUES (1), (NULL); ALTER TABLE zebras OWNER TO app`,
  );
  const door = await gate(cluster);
  await door.open();
  const running = tryBackup(cluster, 'shop', { 'client-bin': door.bin, retries: 0, census: 'content' });
  await door.reached();
  await until(async () => {
    const rows = await cluster.query(
      'shop',
      `SELECT 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid)
       WHERE a.application_name ~ ' pg_dump$' AND l.relation = 'zebras'::regclass AND l.granted`,
    );
    return rows.length > 0 || undefined;
  });
  const owner = await cluster.client('shop');
  const change = owner.query('ALTER TABLE zebras ADD COLUMN stripes int');
  await waitsForLock(cluster, 'ALTER TABLE zebras');
  const result = await running;
  assert.equal(result.exitCode, 0, result.log);
  assert.doesNotMatch(result.log, /starting again/);
  await change;
  await owner.end();
  const { census } = await taken(result);
  assert.equal(tableOf(census, 'public.zebras').rows, 2);
  assert.notEqual(tableOf(census, 'public.zebras').digest, '0');
});

/** Beside the sample database: every escape, encodings, and tables that have nothing to name. */
const odd = `
  CREATE TABLE escapes (id int, v text, "ö ""x""" text);
  INSERT INTO escapes SELECT g, chr(g), chr(g) || E'\\\\' || chr(g) FROM generate_series(1, 255) g;
  INSERT INTO escapes VALUES (300, '\\N', NULL), (301, NULL, '\\N'), (302, '', 'n'), (303, E'\\\\.', E'\\\\\\\\N'), (304, 'v', repeat(E'\\t', 300000));
  CREATE TABLE kinds (b bool, c "char", f char(7), raw bytea, a text[], j jsonb, at timestamptz, n numeric, d float8);
  INSERT INTO kinds VALUES (true, 'x', 'ab', '\\x005c0a09', E'{"a\\\\\\\\b",NULL,"\\t"}', '{"k": "a\\\\b"}', '2024-03-31 02:30+02', 'NaN', 0.1::float8 + 0.2),
    (false, '', '', '', '{}', 'null', '-infinity', 1e100, '-0'), (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
  CREATE TABLE zero (); INSERT INTO zero DEFAULT VALUES; INSERT INTO zero DEFAULT VALUES; CREATE TABLE zero_rows ();
  CREATE TABLE made (y int GENERATED ALWAYS AS (1 + 1) STORED); INSERT INTO made DEFAULT VALUES;
  CREATE TABLE half_made (y int GENERATED ALWAYS AS (1 + 1) STORED, w text); INSERT INTO half_made (w) VALUES ('a'), (NULL), (E'\\n');
  CREATE TABLE ancestor (v text); CREATE TABLE heir (w int) INHERITS (ancestor);
  INSERT INTO ancestor VALUES ('a'); INSERT INTO heir VALUES ('b', 1), (NULL, 2);`;

const majors = [...new Set([15, majorsAvailable().at(-1) ?? 15])].filter((major) => majorsAvailable().includes(major));
for (const major of majors) {
  describe(`0.22: a COPY and a query count and digest alike on PostgreSQL ${major}`, () => {
    let cluster: Cluster;

    before(async () => {
      cluster = await Cluster.start({ major });
      await cluster.query('postgres', 'CREATE ROLE app');
    });
    after(() => cluster.stop());

    async function compare(database: string): Promise<Counted> {
      const content = await counted(cluster, database, true);
      const rows = await counted(cluster, database, false);
      await cluster.query(database, giveAway);
      const copiedContent = await counted(cluster, database, true);
      const copiedRows = await counted(cluster, database, false);
      assert.ok(Object.values(content.trusted).filter(Boolean).length >= 8);
      assert.ok(Object.values(copiedContent.trusted).every((trusted) => !trusted));
      assert.deepEqual(copiedContent.counts, content.counts);
      assert.deepEqual(copiedRows.counts, rows.counts);
      return content;
    }

    test('in the sample database, with every escape, and where there is no column to name', async () => {
      await cluster.createDatabase('shop');
      await loadSampleDatabase(cluster.url('shop'));
      await cluster.query('shop', odd);
      const { counts } = await compare('shop');
      assert.deepEqual(counts['public.zero'], { rows: 2, digest: '0' });
      assert.deepEqual(counts['public.zero_rows'], { rows: 0, digest: '0' });
      assert.deepEqual(counts['public.made'], { rows: 1, digest: '0' });
      assert.equal(counts['public.ancestor']?.rows, 1);
      assert.equal(counts['public.escapes']?.rows, 260);
    });

    test('in a database that is not UTF8', async () => {
      for (const encoding of ['LATIN1', 'SQL_ASCII', 'EUC_JP']) {
        const name = encoding.toLowerCase();
        await cluster.createDatabase(name, `TEMPLATE template0 ENCODING '${encoding}' LOCALE 'C'`);
        const values =
          encoding === 'EUC_JP' ? odd.replaceAll('ö', '日本').replaceAll('255', '127') : odd.replaceAll('255', '127');
        await cluster.query(
          name,
          `${values} CREATE TABLE "größe" (v text);`.replace('größe', encoding === 'EUC_JP' ? '語' : 'größe'),
        );
        await cluster.query(
          name,
          encoding === 'EUC_JP'
            ? `INSERT INTO "語" VALUES ('日本語')`
            : `INSERT INTO "größe" VALUES ('größe'), (convert_from('\\xe4fc', '${encoding}'))`,
        );
        await compare(name);
      }
    });

    test('200 000 rows in a few seconds', async () => {
      await cluster.createDatabase('wide');
      await cluster.query(
        'wide',
        `CREATE TABLE t AS SELECT g AS id, md5(g::text) AS a, repeat('x', 200) AS b FROM generate_series(1, 200000) g; ${giveAway}`,
      );
      const started = performance.now();
      const { counts } = await counted(cluster, 'wide', true);
      const between = performance.now();
      assert.equal(counts['public.t']?.rows, 200_000);
      assert.deepEqual((await counted(cluster, 'wide', false)).counts, { 'public.t': { rows: 200_000 } });
      assert.ok(between - started < 10_000, `content took ${between - started} ms`);
      assert.ok(performance.now() - between < 5000, `rows took ${performance.now() - between} ms`);
    });

    test('a session that ends in the middle of a COPY is a lost connection, and a closed one does not hang', async () => {
      await cluster.createDatabase('broken');
      await cluster.query('broken', `CREATE TABLE t (id int); ${giveAway}`);
      const blocker = await cluster.client('broken');
      await blocker.query('BEGIN; LOCK t');
      for (const end of ['terminate', 'close']) {
        const session = await open(cluster, 'broken');
        const { tables } = await scopeOf(session);
        const counting = countTables(session, tables, false);
        counting.catch(() => {});
        await until(async () => {
          const waiting = await cluster.query(
            'postgres',
            `SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'`,
            [session.backendPid],
          );
          return waiting.length > 0 || undefined;
        });
        if (end === 'terminate') await blocker.query('SELECT pg_terminate_backend($1)', [session.backendPid]);
        else await session.close();
        await assert.rejects(counting, end === 'terminate' ? { exit: 'connect', transient: true } : Error);
        await session.close();
      }
      await blocker.end();
    });
  });
}
