import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { takeBackup } from '../support/backup.ts';
import { Cluster } from '../support/postgres.ts';
import { forged, said, type TestReport, tryRestoreTest } from '../support/restore-test.ts';

describe('owners, grants and extensions are restored, not skipped', () => {
  let source: Cluster;
  before(async () => {
    source = await Cluster.start();
  });
  after(() => source.stop());

  const passes = async (database: string, sql: string, flags: readonly string[] = []): Promise<TestReport> => {
    await source.createDatabase(database);
    await source.query(database, sql);
    const result = await tryRestoreTest(source, await takeBackup(source, database, { 'allow-empty': true }), flags);
    const report = result.json as TestReport;
    assert.deepEqual(report?.findings, [], said(result));
    assert.equal(result.exitCode, 0, said(result));
    return report;
  };

  test('an owner who may not create in the schema his table is in', async () => {
    await passes(
      'lent',
      `CREATE ROLE lena; CREATE ROLE sam; CREATE SCHEMA sams AUTHORIZATION sam; CREATE SCHEMA lenas AUTHORIZATION lena;
       CREATE TABLE public.a (); ALTER TABLE public.a OWNER TO lena;
       CREATE TABLE sams.b (); ALTER TABLE sams.b OWNER TO lena;
       CREATE TABLE lenas.c (); ALTER TABLE lenas.c OWNER TO sam;
       REVOKE ALL ON SCHEMA sams FROM lena; GRANT USAGE ON SCHEMA lenas TO PUBLIC;
       REVOKE ALL ON TABLE lenas.c FROM sam`,
    );
  });

  test('a materialized view whose owner reads through a group', async () => {
    await passes(
      'grouped',
      `CREATE ROLE readers; CREATE ROLE rita IN ROLE readers; CREATE ROLE olga;
       CREATE TABLE t (id int, who text); INSERT INTO t VALUES (1, 'rita'), (2, 'olga'); ALTER TABLE t OWNER TO olga;
       GRANT SELECT ON t TO readers; GRANT CREATE ON SCHEMA public TO rita;
       SET ROLE rita; CREATE MATERIALIZED VIEW mine AS SELECT * FROM t; RESET ROLE`,
    );
  });

  test('a table whose own policy hides its rows from its owner is counted all the same', async () => {
    await passes(
      'forced',
      `CREATE ROLE frida; CREATE TABLE t AS SELECT g x FROM generate_series(1, 5) g; ALTER TABLE t OWNER TO frida;
       ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY;
       CREATE POLICY few ON t TO frida USING (x > 3); REVOKE ALL ON t FROM frida`,
    );
  });

  test('a schema public with another owner and other grants', async () => {
    await passes(
      'own_public',
      `CREATE ROLE petra; ALTER SCHEMA public OWNER TO petra; GRANT ALL ON SCHEMA public TO PUBLIC;
       COMMENT ON SCHEMA public IS 'ours'; CREATE TABLE public.t AS SELECT 1 x`,
    );
  });

  test('extensions in schemas of their own, with rows of their own and members that were granted', async () => {
    const report = await passes(
      'extended',
      `CREATE SCHEMA tools; CREATE EXTENSION hstore SCHEMA tools; CREATE EXTENSION citext; CREATE EXTENSION postgres_fdw;
       CREATE TABLE t (a tools.hstore, b citext); INSERT INTO t VALUES ('a=>1', 'B');
       CREATE SERVER nowhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'nowhere.invalid');
       CREATE ROLE monitor; GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO monitor;
       GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO monitor;
       GRANT EXECUTE ON FUNCTION tools.hstore_to_json(tools.hstore) TO monitor`,
    );
    assert.equal(report.level, 'rows');
    assert.deepEqual(
      report.leftOut.map((each) => each.replace(/^ACL of (\S+).*$/, '$1')),
      ['FUNCTION', 'FUNCTION', 'FOREIGN'],
      report.leftOut.join(),
    );
  });

  test('a setting of the database that a materialized view asks for', async () => {
    const report = await passes(
      'settled',
      `ALTER DATABASE settled SET app.tenant = 'acme'; ALTER DATABASE settled CONNECTION LIMIT 50; SET app.tenant = 'acme';
       CREATE MATERIALIZED VIEW mine AS SELECT current_setting('app.tenant') AS tenant; CREATE TABLE t AS SELECT 1 x`,
    );
    assert.deepEqual(report.leftOut, ['of the database itself: the connection limit']);
  });

  test('a materialized view that connects to somewhere by a function is not refreshed', async () => {
    const report = await passes(
      'connecting',
      `CREATE EXTENSION dblink; CREATE TABLE t AS SELECT 1 x;
       CREATE MATERIALIZED VIEW far AS SELECT * FROM dblink('host=127.0.0.1 port=${source.port} user=postgres dbname=connecting password=${source.password.replaceAll("'", "''''")}', 'SELECT 1') AS r(x int) WITH NO DATA`,
    );
    assert.deepEqual(report.leftOut, []);
  });

  test('rights that an owner took from himself, on a server that has a role of his name', async () => {
    await using other = await Cluster.start();
    await source.createDatabase('locked');
    await source.query(
      'locked',
      'CREATE TABLE locked AS SELECT 1 x; REVOKE ALL ON locked FROM postgres; CREATE TABLE t AS SELECT 1 x',
    );
    const result = await tryRestoreTest(source, await takeBackup(source, 'locked'), [], {
      PGASSAY_SCRATCH_URL: other.url('postgres'),
    });
    assert.deepEqual((result.json as TestReport)?.findings, [], said(result));
  });

  test('a database with another encoding and locale, and one whose locale this server lacks', async () => {
    await source.query('postgres', `CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'`);
    await source.query('latin', `CREATE TABLE t AS SELECT 'caf' || chr(233) AS x`);
    const result = await tryRestoreTest(source, await takeBackup(source, 'latin', { census: 'content' }));
    assert.deepEqual((result.json as TestReport)?.findings, [], said(result));

    const taken = await takeBackup(source, 'latin', { name: 'elsewhere' });
    const elsewhere = await forged(taken, {
      manifest: (manifest) => ({
        ...manifest,
        database: { ...manifest.database, encoding: 'UTF8', collation: 'xx_YY', lcCollate: 'xx_YY', lcCtype: 'xx_YY' },
      }),
    });
    const substituted = await tryRestoreTest(source, elsewhere);
    const report = substituted.json as TestReport;
    assert.deepEqual(report?.findings, [], said(substituted));
    assert.deepEqual(report.notes, ['the locale xx_YY is not on the scratch server; C.UTF-8 took its place']);
  });

  test('a backup of definitions only is compared as such', async () => {
    await source.createDatabase('definitions');
    await source.query('definitions', 'CREATE TABLE t AS SELECT 1 x; CREATE SEQUENCE s; SELECT nextval($$s$$)');
    const result = await tryRestoreTest(source, await takeBackup(source, 'definitions', { mode: 'schema-only' }));
    const report = result.json as TestReport;
    assert.deepEqual(report?.findings, [], said(result));
    assert.equal(report.level, 'schema');
  });

  test('constraints that were never validated stay as they were, and are no finding', async () => {
    await passes(
      'unvalidated',
      `CREATE TABLE t AS SELECT 1 x; ALTER TABLE t ADD CONSTRAINT never CHECK (x > 5) NOT VALID;
       CREATE DOMAIN d AS int; CREATE TABLE u (v d); ALTER DOMAIN d ADD CONSTRAINT later CHECK (VALUE > 0) NOT VALID`,
    );
  });

  test("a user's checks: true passes, everything else is a finding with its query and no value", async () => {
    const checks = [
      'SELECT count(*) = 3 FROM t',
      "SELECT max(at) > current_setting('pgassay.backup_time')::timestamptz - interval '1 day' FROM t",
      'SELECT count(*) > 1000 FROM t',
      'SELECT bool_and(x > 5) FROM t WHERE x > 50',
      'SELECT secret FROM t LIMIT 1',
      'SELECT x FROM no_such_table',
      'SELECT true UNION ALL SELECT true',
      'DELETE FROM t RETURNING true',
      'SELECT secret::int = 1 FROM t',
      'SELECT true; COMMIT',
    ];
    await source.createDatabase('asked');
    await source.query(
      'asked',
      `CREATE SCHEMA app; CREATE TABLE app.t AS SELECT g x, now() at, 'hush-' || g AS secret FROM generate_series(1, 3) g;
       ALTER DATABASE asked SET search_path = app, public`,
    );
    const backup = await takeBackup(source, 'asked');
    const result = await tryRestoreTest(
      source,
      backup,
      checks.flatMap((check) => ['--checks', check]),
    );
    const { findings } = result.json as TestReport;
    assert.deepEqual(
      findings.map(({ object, expected, found }) => [object, expected, found]),
      [
        ['check SELECT count(*) > 1000 FROM t', 'true', 'false'],
        ['check SELECT bool_and(x > 5) FROM t WHERE x > 50', 'true', 'null'],
        ['check SELECT secret FROM t LIMIT 1', 'true', 'a value that is no boolean'],
        ['check SELECT x FROM no_such_table', 'true', 'error: relation "…" does not exist'],
        ['check SELECT true UNION ALL SELECT true', 'true', 'several rows'],
        ['check DELETE FROM t RETURNING true', 'true', 'error: syntax error at or near "…"'],
        ['check SELECT secret::int = 1 FROM t', 'true', 'error: invalid input syntax for type integer: "…"'],
        ['check SELECT true; COMMIT', 'true', 'error: cannot insert multiple commands into a prepared statement'],
      ],
      said(result),
    );
    assert.equal(result.exitCode, 51);
    assert.doesNotMatch(said(result), /hush-/);
  });
});
