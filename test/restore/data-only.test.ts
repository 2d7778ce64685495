import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { CliResult, RestoreReport, Taken } from '../support/backup.ts';
import { ourSessions } from '../support/faults.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';
import { backupOf, databasesOf, tryRestore } from '../support/restoring.ts';

/** Names and rows are in an order in which nothing fits: who refers comes before who is referred to. */
const definitions = `
  CREATE SCHEMA sales; CREATE TABLE zustomers (id serial PRIMARY KEY, name text NOT NULL, price money);
  CREATE TABLE sales.orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int REFERENCES zustomers, total int,
    twice int GENERATED ALWAYS AS (total * 2) STORED);
  CREATE TABLE events (id int, year int, customer int REFERENCES zustomers, PRIMARY KEY (id, year)) PARTITION BY RANGE (year);
  CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (1) TO (2);
  CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (2) TO (3);
  CREATE TABLE notes (event int, year int, FOREIGN KEY (event, year) REFERENCES events);
  CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree);
  CREATE TABLE chicken (id int PRIMARY KEY, egg int); CREATE TABLE egg (id int PRIMARY KEY, chicken int REFERENCES chicken);
  ALTER TABLE chicken ADD CONSTRAINT hatched FOREIGN KEY (egg) REFERENCES egg;
  CREATE TABLE "Weird ""t" ("Col\\umn" text); CREATE SEQUENCE lonely;`;
const rows = `
  INSERT INTO zustomers (name, price) SELECT E'c\\t\\\\' || g, g FROM generate_series(1, 100) g;
  INSERT INTO sales.orders (customer, total) SELECT g, g FROM generate_series(1, 50) g;
  INSERT INTO events SELECT g, 1 + g % 2, g FROM generate_series(1, 10) g; INSERT INTO notes SELECT id, year FROM events;
  INSERT INTO tree SELECT g, nullif(g + 1, 101) FROM generate_series(1, 100) g;
  INSERT INTO chicken VALUES (1); INSERT INTO egg VALUES (1, 1); UPDATE chicken SET egg = 1;
  INSERT INTO "Weird ""t" VALUES ('x'), (NULL); SELECT setval('lonely', 42);`;
const total = 100 + 50 + 10 + 10 + 100 + 1 + 1 + 2;

for (const major of majorsAvailable())
  describe(`rows into tables that are there, PostgreSQL ${major}`, () => {
    let cluster: Cluster;
    let backup: Taken;
    before(async () => {
      cluster = await Cluster.start({ major });
      backup = await backupOf(cluster, 'shop', `${definitions}${rows}`, { census: 'content' });
      await cluster.createDatabase('empty');
      await cluster.query('empty', definitions);
    });
    after(() => cluster.stop());

    const target = async (name: string, template: 'shop' | 'empty', sql = 'SELECT 1'): Promise<void> => {
      await cluster.createDatabase(name, `TEMPLATE ${template}`);
      await cluster.query(name, sql);
    };
    const bring = (name: string, flags: readonly string[] = [], from = backup): Promise<CliResult> =>
      tryRestore(cluster, from, cluster.url(name), ['--mode', 'data-only', '--confirm', name, ...flags]);
    const stateOf = (name: string): Promise<unknown[]> =>
      cluster.query(
        name,
        `SELECT (SELECT json_agg(z ORDER BY id) FROM zustomers z)::text AS customers, (SELECT json_agg(o ORDER BY id) FROM sales.orders o)::text AS orders,
                (SELECT count(*)::int FROM events) AS events, (SELECT count(*)::int FROM notes) AS notes, (SELECT json_agg(t ORDER BY id) FROM tree t)::text AS tree,
                (SELECT egg FROM chicken) AS egg, (SELECT count(*)::int FROM "Weird ""t") AS weird,
                (SELECT last_value::int FROM lonely) AS lonely, (SELECT is_called FROM lonely) AS called, (SELECT last_value::int FROM zustomers_id_seq) AS next,
                (SELECT json_agg(json_build_array(conname, condeferrable, condeferred, convalidated) ORDER BY conname, conrelid::regclass::text) FROM pg_constraint WHERE contype = 'f')::text AS keys`,
      );
    const whole = (): Promise<unknown[]> => stateOf('shop');

    test('all of them: referenced tables first, circles checked at the end, sequences put where they were', async () => {
      await target('all', 'empty');
      const result = await bring('all');
      assert.equal(result.exitCode, 0, result.stderr);
      assert.equal((result.json as RestoreReport).rows, total);
      assert.deepEqual(await stateOf('all'), await whole());
      assert.match(
        result.stderr,
        /foreign keys between public\.chicken, public\.egg form a circle: they are checked at the end, for which egg_chicken_fkey, hatched are deferrable until then/,
      );
      assert.match(
        result.stderr,
        /the rows of 9 tables and the positions of 3 sequences are added, in one transaction/,
      );
    });

    test('a backup of rows alone', async () => {
      const alone = await backupOf(cluster, 'shop', 'SELECT 1', { mode: 'data-only', name: 'rows' });
      await target('alone', 'empty');
      const result = await bring('alone', [], alone);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.deepEqual(await stateOf('alone'), await whole());
      await target('some', 'empty');
      const some = await bring('some', ['--tables', 'zustomers*'], alone);
      assert.equal(some.exitCode, 0, some.stderr);
      assert.equal((some.json as RestoreReport).rows, 100);
      const structure = await tryRestore(cluster, alone, cluster.url('never'));
      assert.equal(structure.exitCode, 2);
      assert.match(structure.stderr, /holds rows only, .*\nhint: .*then this one with mode: data-only/);
    });

    test('tables that hold rows are named; with clean exactly theirs are replaced, after a safety backup', async () => {
      await target('replaced', 'shop', `UPDATE zustomers SET name = 'gone'; SELECT setval('zustomers_id_seq', 999)`);
      await cluster.query('replaced', `CREATE TABLE unrelated AS SELECT 1 x; DELETE FROM tree`);
      const refused = await bring('replaced');
      assert.equal(refused.exitCode, 2, refused.stderr);
      assert.match(
        refused.stderr,
        /rows are there already: .*public\.chicken, .*; nothing was changed\nhint: clean: true/,
      );
      assert.doesNotMatch(refused.stderr, /there already:.*public\.tree/);
      const result = await bring('replaced', ['--clean']);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.deepEqual(await stateOf('replaced'), await whole());
      assert.match(result.stderr, /safety backup assayed\/\d{8}T/);
      assert.equal((await cluster.query('replaced', 'SELECT FROM unrelated')).length, 1);
    });

    test('one table, its partitions and its sequence; what others refer to is not emptied', async () => {
      await target('one', 'shop', `TRUNCATE notes, events; UPDATE zustomers SET name = 'kept'`);
      const events = await bring('one', ['--tables', 'events']);
      assert.equal(events.exitCode, 0, events.stderr);
      assert.equal((events.json as RestoreReport).rows, 10);
      const referred = await bring('one', ['--tables', 'zustomers', '--clean']);
      assert.equal(referred.exitCode, 2, referred.stderr);
      assert.match(
        referred.stderr,
        /refer to what would be emptied: events_customer_fkey \(public\.events to public\.zustomers\), /,
      );
      assert.equal((await cluster.query('one', `SELECT FROM zustomers WHERE name = 'kept'`)).length, 100);
      const both = await bring('one', ['--schemas', 'public', '--schemas', 'sales', '--clean']);
      assert.equal(both.exitCode, 0, both.stderr);
      assert.deepEqual(await stateOf('one'), await whole());
    });

    test('missing tables and columns, what a table needs, unchecked keys: all named at once, nothing changed', async () => {
      await target(
        'drifted',
        'empty',
        `DROP TABLE notes; ALTER TABLE sales.orders DROP COLUMN total CASCADE; ALTER TABLE tree ADD COLUMN added int NOT NULL;
         ALTER TABLE egg DISABLE TRIGGER ALL; DROP SEQUENCE lonely`,
      );
      const result = await bring('drifted');
      assert.equal(result.exitCode, 2, result.stderr);
      for (const line of [
        'the target has no table public.notes',
        'sales.orders of the target cannot take the column total, which the backup has',
        'public.tree of the target needs added, which the backup does not have',
        'foreign keys that nobody would check, because their triggers are disabled: egg_chicken_fkey (public.egg to public.chicken)',
        'the target has no sequence public.lonely',
      ])
        assert.ok(result.stderr.includes(line), result.stderr);
      assert.match(result.stderr, /\nnothing was changed\n/);
      assert.equal((await cluster.query('drifted', 'SELECT FROM zustomers')).length, 0);
    });

    test('a column that the backup does not have gets its default, and rows are counted instead of their digest', async () => {
      await target('wider', 'empty', `ALTER TABLE tree ADD COLUMN added int NOT NULL DEFAULT 7`);
      const result = await bring('wider', ['--tables', 'tree', '--tables', 'zustomers']);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.match(result.stderr, /compared by their number of rows, not by digest: public\.tree$/m);
      assert.equal((await cluster.query('wider', 'SELECT FROM tree WHERE added = 7')).length, 100);
    });

    test('no name typed, no such database, definitions alone: exit 2', async () => {
      await target('unsaid', 'empty');
      const unsaid = await tryRestore(cluster, backup, cluster.url('unsaid'), ['--mode', 'data-only']);
      assert.match(unsaid.stderr, /rows go into tables that unsaid has already; .*\nhint: .*confirm: unsaid/);
      const nowhere = await bring('nowhere');
      assert.match(nowhere.stderr, /the server has no database nowhere\nhint: rows alone need the tables/);
      assert.ok(!(await databasesOf(cluster)).includes('nowhere'));
      const structure = await backupOf(cluster, 'shop', 'SELECT 1', { mode: 'schema-only', name: 'structure' });
      const empty = await bring('unsaid', [], structure);
      assert.match(empty.stderr, /holds definitions only, and no rows/);
      for (const each of [unsaid, nowhere, empty]) assert.equal(each.exitCode, 2, each.stderr);
    });

    test('a row that refers to nothing: rolled back with the sequences, no value said', async () => {
      await target('dangling', 'empty', `SELECT setval('zustomers_id_seq', 7)`);
      const before = await stateOf('dangling');
      await cluster.query(
        'dangling',
        'ALTER TABLE sales.orders ADD CONSTRAINT also FOREIGN KEY (total) REFERENCES egg',
      );
      const result = await bring('dangling');
      assert.equal(result.exitCode, 50, result.stderr);
      assert.match(
        result.stderr,
        /^restore: the target refused the rows of sales\.orders: .*foreign key constraint "also"; a row refers to one that is neither in the backup nor in the target\nhint: it was rolled back, dangling is as it was before/m,
      );
      assert.doesNotMatch(result.stderr, /Key \(/);
      await cluster.query('dangling', 'ALTER TABLE sales.orders DROP CONSTRAINT also');
      assert.deepEqual(await stateOf('dangling'), before);
      assert.deepEqual(await ourSessions(cluster), []);
    });

    test('triggers run, which is said before; one that changes rows is found out, and all is rolled back', async () => {
      await target(
        'triggered',
        'empty',
        `CREATE TABLE log (n int); CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (1); RETURN NEW; END';
         CREATE TRIGGER noted BEFORE INSERT ON tree FOR EACH ROW EXECUTE FUNCTION noted()`,
      );
      const noted = await bring('triggered', ['--tables', 'tree']);
      assert.equal(noted.exitCode, 0, noted.stderr);
      assert.match(noted.stderr, /triggers of triggered run for every row, unless .*: noted on public\.tree/);
      assert.equal((await cluster.query('triggered', 'SELECT FROM log')).length, 100);
      await cluster.query(
        'triggered',
        `CREATE FUNCTION spoilt() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.name := ''other''; RETURN NEW; END';
         CREATE TRIGGER spoilt BEFORE INSERT ON zustomers FOR EACH ROW EXECUTE FUNCTION spoilt()`,
      );
      const spoilt = await bring('triggered', ['--tables', 'zustomers']);
      assert.equal(spoilt.exitCode, 50, spoilt.stderr);
      assert.match(spoilt.stderr, /public\.zustomers: expected the digest recorded, found another digest/);
      assert.match(
        spoilt.stderr,
        /hint: it was rolled back, triggered is as it was before; look for triggers .*: spoilt on public\.zustomers/,
      );
      assert.equal((await cluster.query('triggered', 'SELECT FROM zustomers')).length, 0);
    });

    test('as the owner, without any rights of a superuser', async () => {
      await cluster.query('postgres', `CREATE ROLE app LOGIN PASSWORD 'x'`);
      await cluster.createDatabase('owned', 'OWNER app');
      await cluster.query('owned', 'ALTER SCHEMA public OWNER TO app');
      const client = await cluster.client('owned', 'app', 'x');
      await client.query(definitions);
      await client.end();
      const flags = ['--mode', 'data-only', '--confirm', 'owned'];
      const result = await tryRestore(cluster, backup, cluster.url('owned', 'app', 'x'), flags);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.deepEqual(await stateOf('owned'), await whole());
      await cluster.query('owned', 'TRUNCATE chicken, egg; ALTER TABLE egg OWNER TO postgres; GRANT ALL ON egg TO app');
      const other = await tryRestore(cluster, backup, cluster.url('owned', 'app', 'x'), [
        ...flags,
        ...['--tables', 'egg', '--tables', 'chicken'],
      ]);
      assert.equal(other.exitCode, 12, other.stderr);
      assert.match(other.stderr, /egg_chicken_fkey .* only its table's owner may let it/);
      await cluster.query(
        'owned',
        'TRUNCATE tree; ALTER TABLE tree OWNER TO postgres; GRANT SELECT, INSERT ON tree TO app',
      );
      const tree = (): Promise<CliResult> =>
        tryRestore(cluster, backup, cluster.url('owned', 'app', 'x'), [...flags, '--tables', 'tree']);
      const unlocked = await tree();
      assert.equal(unlocked.exitCode, 12, unlocked.stderr);
      assert.match(
        unlocked.stderr,
        /this role may not read and fill public\.tree; .*\nhint: .*SELECT, INSERT, UPDATE ON/,
      );
      await cluster.query('owned', 'GRANT UPDATE ON tree TO app');
      const granted = await tree();
      assert.equal(granted.exitCode, 0, granted.stderr);
    });

    test('large objects are no rows: refused, with the way on', async () => {
      const large = await backupOf(cluster, 'large', `CREATE TABLE t AS SELECT lo_from_bytea(0, 'x') o`, {
        name: 'large',
      });
      await target('largely', 'empty', 'CREATE TABLE t (o oid)');
      const refused = await bring('largely', [], large);
      assert.equal(refused.exitCode, 2, refused.stderr);
      assert.match(refused.stderr, /the backup holds large objects, .*; nothing was changed\nhint: schemas: \*/);
      const result = await bring('largely', ['--schemas', '*'], large);
      assert.equal(result.exitCode, 0, result.stderr);
    });
  });
