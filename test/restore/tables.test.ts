import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { RestoreReport, Taken } from '../support/backup.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';
import { backupOf, tryRestore } from '../support/restoring.ts';

const shop = `
  CREATE SCHEMA sales; CREATE TYPE sales.state AS ENUM ('new', 'sent');
  CREATE FUNCTION sales.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
  CREATE SEQUENCE sales.numbers START 500;
  CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL, s sales.state DEFAULT 'new', number int DEFAULT nextval('sales.numbers'),
    boss int REFERENCES customers, CHECK (name <> ''));
  CREATE UNIQUE INDEX customers_name ON customers (lower(name)); CREATE STATISTICS customers_st ON id, boss FROM customers;
  CREATE TRIGGER touch BEFORE INSERT ON customers FOR EACH ROW EXECUTE FUNCTION sales.touch();
  ALTER TABLE customers ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON customers TO reader USING (true);
  GRANT SELECT ON customers TO reader; COMMENT ON TABLE customers IS 'who buys'; COMMENT ON COLUMN customers.name IS 'full';
  CREATE RULE quiet AS ON UPDATE TO customers WHERE false DO NOTHING;
  CREATE TABLE sales.orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int CONSTRAINT who REFERENCES customers);
  CREATE VIEW sales.open AS SELECT o.id, c.name FROM sales.orders o JOIN customers c ON c.id = o.customer;
  CREATE VIEW sales.opener AS SELECT count(*) FROM sales.open; GRANT SELECT ON sales.opener TO reader;
  CREATE MATERIALIZED VIEW sales.totals AS SELECT count(*) FROM customers; CREATE INDEX totals_count ON sales.totals (count);
  CREATE FUNCTION label(customers) RETURNS text LANGUAGE sql AS 'SELECT $1.name';
  CREATE TABLE events (id int, year int, PRIMARY KEY (id, year)) PARTITION BY RANGE (year); CREATE INDEX events_year ON events (year);
  CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (1) TO (2) PARTITION BY RANGE (id);
  CREATE TABLE events_1_a PARTITION OF events_1 FOR VALUES FROM (0) TO (100); CREATE TABLE events_2 PARTITION OF events DEFAULT;
  CREATE TABLE base (a int); CREATE TABLE "De.rived" (b int) INHERITS (base);
  CREATE PUBLICATION changes FOR TABLE customers;
  INSERT INTO customers (name) SELECT 'c' || g FROM generate_series(1, 100) g;
  INSERT INTO sales.orders (customer) SELECT g FROM generate_series(1, 50) g; REFRESH MATERIALIZED VIEW sales.totals;
  INSERT INTO events VALUES (1, 1), (2, 1), (3, 7); INSERT INTO base VALUES (1); INSERT INTO "De.rived" VALUES (2, 3)`;

/** Everything the catalog says of these two schemas, without ids. */
const described = `
  SELECT string_agg(line, E'\\n' ORDER BY line) AS all FROM (
    SELECT format('%s %s %s %s rls=%s acl=%s %s', c.relkind, n.nspname, c.relname, pg_get_userbyid(c.relowner), c.relrowsecurity, c.relacl, obj_description(c.oid)) AS line
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('public', 'sales')
    UNION ALL SELECT format('col %s %s %s %s %s', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid))
      FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid LEFT JOIN pg_attrdef d ON d.adrelid = attrelid AND d.adnum = attnum
      WHERE attnum > 0 AND relkind IN ('r', 'p', 'v', 'm') AND relnamespace IN ('public'::regnamespace, 'sales'::regnamespace)
    UNION ALL SELECT format('con %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint WHERE connamespace IN ('public'::regnamespace, 'sales'::regnamespace)
    UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = indrelid WHERE relnamespace IN ('public'::regnamespace, 'sales'::regnamespace)
    UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT format('policy %s %s', polname, polrelid::regclass) FROM pg_policy
    UNION ALL SELECT format('rule %s %s', rulename, tablename) FROM pg_rules WHERE schemaname IN ('public', 'sales')
    UNION ALL SELECT format('view %s %s', viewname, definition) FROM pg_views WHERE schemaname IN ('public', 'sales')
    UNION ALL SELECT format('inherits %s %s', inhrelid::regclass, inhparent::regclass) FROM pg_inherits
    UNION ALL SELECT format('published %s %s', pubname, tablename) FROM pg_publication_tables
    UNION ALL SELECT format('statistics %s', stxname) FROM pg_statistic_ext
    UNION ALL SELECT format('function %s', oid::regprocedure) FROM pg_proc WHERE pronamespace IN ('public'::regnamespace, 'sales'::regnamespace)) all_lines`;

for (const major of majorsAvailable())
  describe(`bringing back a part of a database, PostgreSQL ${major}`, () => {
    let cluster: Cluster;
    let backup: Taken;
    let whole: unknown;
    before(async () => {
      cluster = await Cluster.start({ major });
      await cluster.query('postgres', 'CREATE ROLE reader');
      backup = await backupOf(cluster, 'shop', shop);
      whole = await cluster.query('shop', described);
    });
    after(() => cluster.stop());

    const copy = async (name: string, sql = 'SELECT 1'): Promise<void> => {
      await cluster.createDatabase(name, 'TEMPLATE shop');
      await cluster.query(name, sql);
    };
    const bring = (database: string, flags: readonly string[]) =>
      tryRestore(cluster, backup, cluster.url(database), ['--confirm', database, ...flags]);

    test('one dropped table comes back with its keys, indexes, grants, sequence, and the foreign keys and views that pointed at it', async () => {
      await copy('dropped', 'DROP TABLE customers CASCADE; INSERT INTO sales.orders (customer) VALUES (7)');
      const result = await bring('dropped', ['--tables', 'public.customers']);
      assert.equal(result.exitCode, 0, result.stderr);
      const report = result.json as RestoreReport;
      assert.deepEqual(report.compared, [{ schema: 'public', name: 'customers', recorded: 100, restored: 100 }]);
      assert.deepEqual(await cluster.query('dropped', described), whole);
      const [values] = await cluster.query(
        'dropped',
        `SELECT nextval('customers_id_seq')::int AS serial, (SELECT count(*)::int FROM sales.orders) AS orders,
                (SELECT count(*)::int FROM sales.open) AS open, (SELECT count::int FROM sales.totals) AS totals`,
      );
      assert.deepEqual(values, { serial: 101, orders: 51, open: 51, totals: 100 });
    });

    test('a partitioned table and an inherited one come back with their children', async () => {
      await copy('parents', 'DROP TABLE events; DROP TABLE base CASCADE');
      const result = await bring('parents', ['--tables', 'events', '--tables', 'base']);
      assert.equal(result.exitCode, 0, result.stderr);
      const names = (result.json as RestoreReport).compared.map((each) => `${each.name} ${each.restored}`).sort();
      assert.deepEqual(names, ['De.rived 1', 'base 1', 'events 0', 'events_1 0', 'events_1_a 2', 'events_2 1']);
      assert.deepEqual(await cluster.query('parents', described), whole);
    });

    test('one partition comes back to its parent', async () => {
      await copy('partition', 'DROP TABLE events_2');
      const result = await bring('partition', ['--tables', 'events_2']);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.deepEqual(await cluster.query('partition', described), whole);
    });

    test('what a table needs comes along where it is missing: types, functions, sequences', async () => {
      await copy(
        'needs',
        'DROP TABLE customers CASCADE; DROP FUNCTION sales.touch; DROP TYPE sales.state; DROP SEQUENCE sales.numbers',
      );
      const result = await bring('needs', ['--tables', 'customers']);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.deepEqual(await cluster.query('needs', described), whole);
      const [next] = await cluster.query('needs', `SELECT nextval('sales.numbers')::int AS next`);
      assert.deepEqual(next, { next: 600 });
    });

    test('a whole schema comes back', async () => {
      await copy(
        'schema',
        'DROP VIEW sales.opener, sales.open; DROP MATERIALIZED VIEW sales.totals; DROP TABLE sales.orders',
      );
      const result = await bring('schema', ['--schemas', 'sales']);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.deepEqual(await cluster.query('schema', described), whole);
    });

    test('what default privileges grant on new tables, and the backup does not, is taken back and said', async () => {
      await copy('defaults', 'DROP TABLE customers CASCADE');
      await cluster.query(
        'defaults',
        `ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO reader; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;
         ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO reader`,
      );
      const result = await bring('defaults', ['--tables', 'customers']);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.match(result.stderr, /give new objects other grants than the backup has; set as they were:\n/);
      assert.match(result.stderr, /not granted: DELETE on public\.customers to reader/);
      const granted = await cluster.query(
        'defaults',
        `SELECT c.relname AS name, coalesce(r.rolname, 'PUBLIC') AS to, privilege_type AS what FROM pg_class c, aclexplode(c.relacl) a
         LEFT JOIN pg_roles r ON r.oid = grantee
         WHERE relnamespace IN ('public'::regnamespace, 'sales'::regnamespace) AND grantee <> relowner ORDER BY 1`,
      );
      assert.deepEqual(granted, [
        { name: 'customers', to: 'reader', what: 'SELECT' },
        { name: 'opener', to: 'reader', what: 'SELECT' },
      ]);
    });

    test('one table alone into a new database: what points elsewhere is left out and named', async () => {
      const result = await bring('alone', ['--tables', 'sales.orders']);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.match(
        result.stderr,
        /left out, because the target lacks something that they need:\n[\s\S]*FK CONSTRAINT sales\.orders who/,
      );
      assert.deepEqual(
        (result.json as RestoreReport).compared.map((each) => each.restored),
        [50],
      );
      const [next] = await cluster.query('alone', `INSERT INTO sales.orders DEFAULT VALUES RETURNING id`);
      assert.deepEqual(next, { id: 51 });
    });

    test('definitions alone', async () => {
      const result = await bring('definitions', ['--mode', 'schema-only']);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.equal((result.json as RestoreReport).rows, 0);
      assert.deepEqual(await cluster.query('definitions', described), whole);
      assert.equal((await cluster.query('definitions', 'SELECT FROM customers')).length, 0);
    });

    test('a table that is there is refused; with clean it is replaced, and what points at it made again', async () => {
      await copy('there', `UPDATE customers SET name = 'x' || id; INSERT INTO sales.orders (customer) VALUES (7)`);
      const refused = await bring('there', ['--tables', 'customers']);
      assert.equal(refused.exitCode, 2, refused.stderr);
      assert.match(
        refused.stderr,
        /there has TABLE public\.customers already; nothing was changed\nhint: .*clean: true/,
      );
      assert.equal((await cluster.query('there', `SELECT FROM customers WHERE name LIKE 'x%'`)).length, 100);
      const replaced = await bring('there', ['--tables', 'customers', '--clean']);
      assert.equal(replaced.exitCode, 0, replaced.stderr);
      assert.deepEqual(await cluster.query('there', described), whole);
      const [now] = await cluster.query(
        'there',
        `SELECT (SELECT count(*)::int FROM customers WHERE name LIKE 'c%') AS back, (SELECT count(*)::int FROM sales.orders) AS orders`,
      );
      assert.deepEqual(now, { back: 100, orders: 51 });
      assert.match(replaced.stderr, /safety backup assayed\/\d{8}T/);
    });

    test('without the name typed, a wrong pattern, an ambiguous one: refused, exit 2', async () => {
      await copy('untouched', 'DROP TABLE events; CREATE TABLE sales.base ()');
      const silent = await tryRestore(cluster, backup, cluster.url('untouched'), ['--tables', 'events']);
      assert.match(silent.stderr, /untouched is not empty: it has .*; nothing was changed\nhint: .*confirm: untouched/);
      for (const [flags, says] of [
        [['--tables', 'nothing'], /the backup has no table nothing; nothing was changed/],
        [['--schemas', 'nothing'], /the backup has no schema nothing/],
        [['--tables', 'x', '--schemas', 'y'], /tables: and schemas are both given/],
        [['--tables', 'sales.open'], /untouched has VIEW sales\.open already/],
      ] as const) {
        const result = await bring('untouched', flags);
        assert.equal(result.exitCode, 2, result.stderr);
        assert.match(result.stderr, says);
      }
      assert.equal(silent.exitCode, 2);
      assert.equal((await cluster.query('untouched', `SELECT FROM pg_class WHERE relname = 'events'`)).length, 0);
    });

    test('rows that a foreign key no longer finds: rolled back, named', async () => {
      await copy('dangling', 'DROP TABLE customers CASCADE; INSERT INTO sales.orders (customer) VALUES (7777)');
      const result = await bring('dangling', ['--tables', 'customers']);
      assert.equal(result.exitCode, 50, result.stderr);
      assert.match(
        result.stderr,
        /^restore: pg_restore stopped at FK CONSTRAINT orders who .*\nhint: it was rolled back, dangling is as it was before/m,
      );
      assert.doesNotMatch(result.stderr, /7777/);
      assert.equal((await cluster.query('dangling', `SELECT FROM pg_class WHERE relname = 'customers'`)).length, 0);
    });
  });
