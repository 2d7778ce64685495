import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { loadSampleDatabase } from '../../scripts/sample-database.ts';
import {
  cli,
  countedRows,
  program,
  type RestoreReport,
  recordedRows,
  type Taken,
  takeBackup,
  taken,
  tryBackup,
} from '../support/backup.ts';
import { ourSessions, scratch, until, wrapped } from '../support/faults.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';
import { backupOf, startRestore, tryRestore } from '../support/restoring.ts';

const shop = `
  CREATE SCHEMA sales; CREATE TYPE sales.state AS ENUM ('new', 'sent');
  CREATE TABLE customers (id serial PRIMARY KEY, name text); CREATE INDEX customers_name ON customers (lower(name));
  CREATE TABLE sales.orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int REFERENCES customers, s sales.state);
  CREATE TABLE events (id int, year int) PARTITION BY RANGE (year);
  CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (1) TO (2);
  CREATE VIEW sales.open AS SELECT o.id, c.name FROM sales.orders o JOIN customers c ON c.id = o.customer;
  INSERT INTO customers (name) SELECT 'c' || g FROM generate_series(1, 100) g;
  INSERT INTO sales.orders (customer, s) SELECT g, 'new' FROM generate_series(1, 50) g; INSERT INTO events VALUES (1, 1)`;

const destroyed = `DELETE FROM sales.orders; UPDATE customers SET name = 'gone'; INSERT INTO customers (name) VALUES ('late')`;

for (const major of majorsAvailable())
  describe(`restoring over what is there, PostgreSQL ${major}`, () => {
    let cluster: Cluster;
    let backup: Taken;
    before(async () => {
      cluster = await Cluster.start({ major, conf: { wal_level: 'logical' } });
      backup = await backupOf(cluster, 'shop', shop);
    });
    after(() => cluster.stop());

    const clean = (database: string, flags: readonly string[] = []) =>
      tryRestore(cluster, backup, cluster.url(database), ['--clean', '--confirm', database, ...flags]);
    const stateOf = async (database: string): Promise<unknown> =>
      cluster.query(
        database,
        `SELECT (SELECT array_agg(c.oid::text ORDER BY c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname IN ('public', 'sales')) AS oids,
                (SELECT count(*) FROM customers) AS customers, (SELECT min(name) FROM customers) AS name`,
      );
    const copy = async (name: string): Promise<void> => {
      await cluster.createDatabase(name, 'TEMPLATE shop');
    };

    test('the database that was backed up is brought back, its own state kept as a safety backup', async () => {
      await copy('over');
      const own = await backupOf(cluster, 'over', 'SELECT 1', { store: `${backup.store}-over`, name: 'over' });
      await cluster.query('over', destroyed);
      await cluster.query('over', 'CREATE TABLE unrelated AS SELECT 1 x; ALTER TABLE events ADD COLUMN added int');
      const flags = ['--clean', '--confirm', 'over'];
      const result = await tryRestore(cluster, own, cluster.url('over'), flags);
      assert.equal(result.exitCode, 0, result.stderr);
      const report = result.json as RestoreReport & { safetyBackupId: string };
      assert.equal(report.rows, 151);
      assert.match(result.stderr, new RegExp(`safety backup over/${report.safetyBackupId}: 5 tables, 103 rows`));
      assert.match(
        result.stderr,
        /changed since the backup, and put back .*: TABLE public\.events, TABLE public\.events_1\n/,
      );
      assert.match(result.stderr, /in one transaction: until it ends, and if it fails, over is as it was/);
      const [now] = await cluster.query(
        'over',
        `SELECT count(*)::int AS names, count(*) FILTER (WHERE name = 'gone')::int AS gone, (SELECT count(*)::int FROM sales.open) AS open,
                (SELECT x FROM unrelated) AS unrelated, nextval('customers_id_seq')::int AS next FROM customers`,
      );
      assert.deepEqual(now, { names: 100, gone: 0, open: 50, unrelated: 1, next: 101 });

      // The newest backup is still the ordinary one, and the next ordinary one is not refused.
      const listed = await cli(['show', 'latest', '--store', own.store, '--json']);
      assert.equal((listed.json as { manifest: { id: string } }).manifest.id, own.id);
      const next = await tryBackup(cluster, 'over', { store: own.store, name: 'over' });
      assert.equal(next.exitCode, 0, next.log);
      assert.equal((await taken(next)).manifest.previous?.id, own.id);

      const back = await tryRestore(cluster, { ...own, id: report.safetyBackupId }, cluster.url('undone'));
      assert.equal(back.exitCode, 0, back.stderr);
      assert.equal((await cluster.query('undone', `SELECT FROM customers WHERE name = 'gone'`)).length, 100);
    });

    test('every kind of object, over itself', async () => {
      await cluster.createDatabase('sample');
      await loadSampleDatabase(cluster.url('sample'), { eventTrigger: true });
      const definitions = async (): Promise<string[]> =>
        (await program(cluster, 'pg_dump', ['-s', '-d', cluster.url('sample')]))
          .split('\n')
          .filter((line) => !/^\\(?:un)?restrict /.test(line))
          .sort();
      const before = await definitions();
      const own = await takeBackup(cluster, 'sample', { name: 'sample' });
      await cluster.query('sample', `DELETE FROM shop.orders; DROP TABLE shop.customers CASCADE`);
      const result = await tryRestore(cluster, own, cluster.url('sample'), ['--clean', '--confirm', 'sample']);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.deepEqual(await definitions(), before);
      assert.deepEqual(await countedRows(cluster, 'sample', own.census), recordedRows(own.census));
    });

    test('as an owner without any rights of a superuser, with an extension that is not his', async () => {
      await cluster.query('postgres', `CREATE ROLE app LOGIN PASSWORD 'x'`);
      await cluster.createDatabase('owned', 'OWNER app');
      await cluster.query('owned', `CREATE EXTENSION citext; COMMENT ON EXTENSION citext IS 'not his'`);
      const client = await cluster.client('owned', 'app', 'x');
      await client.query(
        'CREATE SCHEMA shop; CREATE TABLE shop.t (v public.citext); INSERT INTO shop.t SELECT g::text FROM generate_series(1, 9) g',
      );
      const own = await takeBackup(cluster, 'owned', {
        name: 'owned',
        'database-url': cluster.url('owned', 'app', 'x'),
      });
      await client.query('TRUNCATE shop.t');
      await client.end();
      const result = await tryRestore(cluster, own, cluster.url('owned', 'app', 'x'), [
        '--clean',
        '--confirm',
        'owned',
      ]);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.equal((await cluster.query('owned', 'SELECT FROM shop.t')).length, 9);
      assert.match(result.stderr, /safety backup owned\/\d{8}T/);
    });

    test('into another database than the one that was backed up, and the next backup of the source is not refused', async () => {
      const own = await backupOf(cluster, 'shop', 'SELECT 1', { name: 'twin' });
      await copy('staging');
      const result = await tryRestore(cluster, own, cluster.url('staging'), ['--clean', '--confirm', 'staging']);
      assert.equal(result.exitCode, 0, result.stderr);
      const next = await tryBackup(cluster, 'shop', { store: own.store, name: 'twin' });
      assert.equal(next.exitCode, 0, next.log);
    });

    for (const [what, sql, named] of [
      ['a view', 'CREATE VIEW recent AS SELECT id FROM customers', 'VIEW public.recent: depends on what is dropped'],
      [
        'a view over a view',
        'CREATE VIEW a AS SELECT id FROM customers; CREATE VIEW b AS SELECT id FROM a',
        'VIEW public.b: depends',
      ],
      ['a partition', 'CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (2) TO (3)', 'public.events_2'],
      ['an index', 'CREATE INDEX later ON customers (id)', 'INDEX public.later'],
      [
        'a foreign key',
        'CREATE TABLE invoices (customer int REFERENCES customers)',
        'FK CONSTRAINT public.invoices invoices_customer_fkey',
      ],
      ['a column of its type', 'CREATE TABLE log (s sales.state)', 'TABLE public.log'],
      [
        'a trigger',
        `CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER added BEFORE INSERT ON customers FOR EACH ROW EXECUTE FUNCTION f()`,
        'TRIGGER public.customers added',
      ],
      ['row security', 'ALTER TABLE customers ENABLE ROW LEVEL SECURITY', 'ROW SECURITY public.customers'],
      ['a table that inherits', 'CREATE TABLE vip () INHERITS (customers)', 'TABLE public.vip'],
      ['a published table', 'CREATE PUBLICATION p FOR TABLE customers', 'PUBLICATION TABLE public.p customers'],
      [
        'another thing of that name',
        'DROP VIEW sales.open; CREATE TABLE sales.open (x int)',
        'TABLE sales.open: has the name of something else',
      ],
    ] as const)
      test(`${what} that is not in the backup is listed, and nothing is done`, async () => {
        const name = `way_${what.replace(/\W/g, '_')}`;
        await copy(name);
        await cluster.query(name, sql);
        const before = await stateOf(name);
        const backups = readdirSync(dirname(backup.folder));
        const result = await clean(name);
        assert.equal(result.exitCode, 2, result.stderr);
        assert.match(result.stderr, /^restore: \d+ objects? of way_\w+ stands? in the way, /m);
        assert.ok(result.stderr.includes(named), result.stderr);
        assert.match(result.stderr, /; nothing was changed\nhint: drop or rename them/);
        assert.deepEqual(await stateOf(name), before);
        assert.deepEqual(readdirSync(dirname(backup.folder)), backups);
      });

    test('a subscription is never touched: the lines that detach it without its slot are printed', async () => {
      await copy('subscribed');
      await cluster.query(
        'subscribed',
        `CREATE PUBLICATION p; CREATE SUBSCRIPTION "S 1" CONNECTION 'dbname=none' PUBLICATION p WITH (connect = false)`,
      );
      const result = await clean('subscribed');
      assert.equal(result.exitCode, 2, result.stderr);
      assert.match(result.stderr, /ALTER SUBSCRIPTION "S 1" SET \(slot_name = NONE\);\n.*DROP SUBSCRIPTION "S 1";/);
      await cluster.query('subscribed', 'ALTER SUBSCRIPTION "S 1" SET (slot_name = NONE)');
      await cluster.query('subscribed', 'DROP SUBSCRIPTION "S 1"');
    });

    test('no table is dropped whose rows the backup does not have, or was not asked to bring', async () => {
      await copy('rowless');
      const before = await stateOf('rowless');
      const structure = await backupOf(cluster, 'rowless', 'SELECT 1', { mode: 'schema-only', name: 'structure' });
      const without = await backupOf(cluster, 'rowless', 'SELECT 1', {
        'exclude-table-data': 'customers',
        name: 'less',
      });
      const flags = ['--clean', '--confirm', 'rowless', '--safety-backup', 'false'];
      for (const [own, more, lost] of [
        [structure, [], 'TABLE public.customers, TABLE public.events_1, TABLE sales.orders'],
        [without, [], 'TABLE public.customers'],
        [without, ['--tables', 'customers'], 'TABLE public.customers'],
        [backup, ['--mode', 'schema-only'], 'TABLE public.customers, TABLE public.events_1, TABLE sales.orders'],
      ] as const) {
        const result = await tryRestore(cluster, own, cluster.url('rowless'), [...flags, ...more]);
        assert.equal(result.exitCode, 2, result.stderr);
        assert.ok(result.stderr.includes(`rowless would lose the rows of ${lost}: what is restored`), result.stderr);
      }
      assert.deepEqual(await stateOf('rowless'), before);
    });

    test('without its name typed, or with another one, nothing is done', async () => {
      await copy('unconfirmed');
      const before = await stateOf('unconfirmed');
      const silent = await tryRestore(cluster, backup, cluster.url('unconfirmed'), ['--clean']);
      assert.equal(silent.exitCode, 2, silent.stderr);
      assert.match(silent.stderr, /confirm: is needed with clean/);
      const wrong = await tryRestore(cluster, backup, cluster.url('unconfirmed'), ['--clean', '--confirm', 'shop']);
      assert.equal(wrong.exitCode, 2, wrong.stderr);
      assert.deepEqual(await stateOf('unconfirmed'), before);
    });

    test('a restore that fails halfway, after its drops, is rolled back, and no row is told', async () => {
      const judged = await backupOf(
        cluster,
        'judged',
        `CREATE FUNCTION judge(v text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN true; END';
         CREATE TABLE customers (name text CHECK (public.judge(name))); INSERT INTO customers VALUES ('canary-7f3a');
         CREATE OR REPLACE FUNCTION judge(v text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RAISE ''bad %'', v; END'`,
      );
      const before = await stateOf('judged');
      // With several jobs it would be restored beside it, and nothing would be dropped first.
      const flags = ['--clean', '--confirm', 'judged', '--jobs', '1'];
      const result = await tryRestore(cluster, judged, cluster.url('judged'), flags);
      assert.equal(result.exitCode, 50, result.stderr);
      assert.match(
        result.stderr,
        /^restore: pg_restore stopped.*\nhint: it was rolled back, judged is as it was before; /m,
      );
      assert.deepEqual(await stateOf('judged'), before);
      assert.ok(!`${result.stdout}${result.stderr}`.includes('canary'), result.stderr);
    });

    test('rows that are not the recorded ones afterwards: the safety backup is named', async () => {
      await copy('differs');
      const bin = await wrapped(cluster, {
        pg_restore: `case "$*" in *--clean*) "$REAL" "$@" || exit; exec '${join(cluster.bin, 'psql')}' -X -q -c 'DELETE FROM public.events';; esac; exec "$REAL" "$@"`,
      });
      const result = await clean('differs', ['--client-bin', bin, '--jobs', '1']);
      assert.equal(result.exitCode, 50, result.stderr);
      assert.match(result.stderr, /public\.events_1: expected 1 row, found 0 rows/);
      const [, id = ''] =
        /what it held before is in the safety backup shop\/(\S+)/.exec(result.stderr.replaceAll('assayed', 'shop')) ??
        [];
      assert.match(id, /^\d{8}T\d{6}Z-[0-9a-f]{6}$/, result.stderr);
    });

    test('cancelled in the middle of it: the database is as it was', async () => {
      await copy('stopped');
      await cluster.query('stopped', destroyed);
      const before = await stateOf('stopped');
      // Somebody reads a table, so that the DROP has to wait.
      const reader = await cluster.client('stopped');
      await reader.query('BEGIN; SELECT FROM customers');
      const run = startRestore(cluster, backup, cluster.url('stopped'), ['--clean', '--confirm', 'stopped']);
      await until(async () => {
        const waiting = await cluster.query(
          'postgres',
          `SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = 'stopped'`,
        );
        return waiting.length > 0 || undefined;
      });
      run.signal('SIGINT');
      const result = await run.done;
      await reader.end();
      assert.equal(result.exitCode, 130, result.stderr);
      assert.match(result.stderr, /^restore: cancelled; it was rolled back, stopped is as it was before$/m);
      assert.match(result.stderr, /1 other session/);
      assert.deepEqual(await stateOf('stopped'), before);
      assert.deepEqual(await ourSessions(cluster), []);
    });

    test('a safety backup that fails leaves everything as it was', async () => {
      await copy('unsafe');
      const before = await stateOf('unsafe');
      const bin = await wrapped(cluster, {
        pg_dump: 'case "$*" in *--snapshot=*) exit 1;; esac; exec "$REAL" "$@"',
      });
      const result = await clean('unsafe', ['--client-bin', bin]);
      assert.notEqual(result.exitCode, 0, result.stderr);
      assert.match(result.stderr, /: the safety backup of unsafe failed: /);
      assert.match(result.stderr, /unsafe was not changed; safety-backup: false goes on without one/);
      assert.deepEqual(await stateOf('unsafe'), before);
      const without = await clean('unsafe', ['--safety-backup', 'false', '--client-bin', bin]);
      assert.equal(without.exitCode, 0, without.stderr);
      assert.equal((without.json as { safetyBackupId: string | null }).safetyBackupId, null);
    });

    test('a partition that somebody adds after the first look is seen by the second', async () => {
      await copy('racing');
      const seen = join(await scratch(), 'seen');
      const added = 'CREATE TABLE public.events_9 PARTITION OF public.events FOR VALUES FROM (9) TO (10)';
      const bin = await wrapped(cluster, {
        pg_dump: `case "$*" in *--schema-only*) if [ -e '${seen}' ]; then PGOPTIONS= '${join(cluster.bin, 'psql')}' -X -q -d racing -c '${added}' >&2; fi; : >'${seen}';; esac; exec "$REAL" "$@"`,
      });
      const result = await clean('racing', ['--client-bin', bin]);
      assert.equal(result.exitCode, 2, result.stderr);
      assert.match(result.stderr, /events_9/);
    });
  });
