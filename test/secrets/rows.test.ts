import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { ActionResult } from '../support/action.ts';
import { cli, type Taken, takeBackup } from '../support/backup.ts';
import { backUp, errorOf, filesIn, scratch, wrapped } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';

const canary = 'Canary4711';
const address = `${canary.toLowerCase()}@example.com`;

let cluster: Cluster;
before(async () => {
  cluster = await Cluster.start();
});
after(() => cluster?.stop());

function requireNoRow(text: string): void {
  assert.doesNotMatch(text, /canary4711/i);
}

function allOf(result: ActionResult): string {
  return [result.rawLog, result.log, result.summary, JSON.stringify([result.outputs, result.annotations])].join('\n');
}

/** Databases that back up well, and whose rows fail wherever else they are restored. */
const elsewhere = "current_database() NOT LIKE 'source%'";
const sources: Record<string, string> = {
  'a CHECK function that raises with the value': `
    CREATE FUNCTION fine(v text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
      IF ${elsewhere} THEN RAISE EXCEPTION 'bad address % of customer %', v, v; END IF; RETURN true; END $$;
    CREATE TABLE people (id int, mail text CHECK (fine(mail)));`,
  'the same under the name of one of our own messages': `
    CREATE FUNCTION fine(v text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
      IF ${elsewhere} THEN RAISE EXCEPTION 'relation % does not exist', v USING DETAIL = v, HINT = v; END IF;
      RETURN true; END $$;
    CREATE TABLE people (id int, mail text CHECK (fine(mail)));`,
  'a CHECK that is false': `
    CREATE FUNCTION fine(v text) RETURNS bool LANGUAGE sql AS $$ SELECT NOT (${elsewhere}) $$;
    CREATE TABLE people (id int, mail text CHECK (fine(mail)));`,
  'a domain whose check is false': `
    CREATE FUNCTION fine(v text) RETURNS bool LANGUAGE sql AS $$ SELECT NOT (${elsewhere}) $$;
    CREATE DOMAIN address AS text CHECK (fine(VALUE));
    CREATE TABLE people (id int, mail address);`,
  'a cast of the value, which the primary message repeats': `
    CREATE FUNCTION fine(v text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
      IF ${elsewhere} THEN RETURN v::int > 0; END IF; RETURN true; END $$;
    CREATE TABLE people (id int, mail text CHECK (fine(mail)));`,
  'a date out of range': `
    CREATE FUNCTION fine(v text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
      IF ${elsewhere} THEN RETURN v::date IS NULL; END IF; RETURN true; END $$;
    CREATE TABLE people (id int, mail text CHECK (fine(mail)));`,
  'json that is none': `
    CREATE FUNCTION fine(v text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
      IF ${elsewhere} THEN RETURN v::json IS NULL; END IF; RETURN true; END $$;
    CREATE TABLE people (id int, mail text CHECK (fine(mail)));`,
  'EXECUTE of SQL with the value in it': `
    CREATE FUNCTION fine(v text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
      IF ${elsewhere} THEN EXECUTE 'SELECT ' || v || ' FROM x'; END IF; RETURN true; END $$;
    CREATE TABLE people (id int, mail text CHECK (fine(mail)));`,
  'a unique index that finds the value twice': `
    CREATE FUNCTION key(v text, id int) RETURNS text LANGUAGE sql IMMUTABLE AS
      $$ SELECT CASE WHEN ${elsewhere} THEN '${address}' ELSE v || id END $$;
    CREATE TABLE people (id int, mail text);
    CREATE UNIQUE INDEX people_key ON people (key(mail, id));`,
  'a foreign key that finds the value missing': `
    CREATE TABLE known (mail text PRIMARY KEY);
    CREATE TABLE people (id int, mail text REFERENCES known);
    SET session_replication_role = replica;`,
  'a materialized view that raises with the value': `
    CREATE TABLE people (id int, mail text);
    CREATE FUNCTION fine(v text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
      IF ${elsewhere} THEN RAISE EXCEPTION '%', v; END IF; RETURN v; END $$;
    CREATE MATERIALIZED VIEW mails AS SELECT fine(mail) FROM people WITH NO DATA;`,
};
const rows = `INSERT INTO people VALUES (1, '${address}'), (2, '${address}');`;

describe('I-42: a restore that fails on a row', () => {
  let number = 0;
  for (const [what, sql] of Object.entries(sources)) {
    test(`${what}: the entry is named, the value is not`, async () => {
      number += 1;
      const database = `source_${number}`;
      await cluster.createDatabase(database);
      const refresh = sql.includes('MATERIALIZED') ? 'REFRESH MATERIALIZED VIEW mails;' : '';
      await cluster.query(database, `${sql}\n${rows}\n${refresh}`);
      const taken: Taken = await takeBackup(cluster, database, { name: database });
      requireNoRow(allOf(taken.result));
      for (const jobs of ['1', '4']) {
        const target = `target_${number}_${jobs}`;
        const result = await cli(
          ['restore', taken.id, '--store', taken.store, '--name', taken.name, '--jobs', jobs, '--json'],
          { TARGET_URL: cluster.url(target) },
        );
        assert.equal(result.exitCode, 50, `${result.stdout}${result.stderr}`);
        requireNoRow(`${result.stdout}${result.stderr}`);
        assert.match(result.stderr, /^restore: pg_restore stopped at [A-Z ]+ \S+ .*: \S/m);
        const [kept] = await cluster.query('postgres', 'SELECT FROM pg_database WHERE datname = $1', [target]);
        assert.equal(kept, undefined);
      }
    });
  }

  test('warnings and notices that a function raises with a value are not repeated', async () => {
    await cluster.createDatabase('source_notice');
    await cluster.query(
      'source_notice',
      `CREATE FUNCTION fine(v text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
         IF ${elsewhere} THEN RAISE WARNING 'looking at %', v; RAISE NOTICE '%', v; END IF; RETURN true; END $$;
       CREATE TABLE people (id int, mail text CHECK (fine(mail)));
       ${rows}`,
    );
    const taken = await takeBackup(cluster, 'source_notice', { name: 'notice' });
    const result = await cli(['restore', taken.id, '--store', taken.store, '--name', taken.name], {
      TARGET_URL: cluster.url('target_notice'),
    });
    assert.equal(result.exitCode, 0, result.stderr);
    requireNoRow(`${result.stdout}${result.stderr}`);
  });
});

describe('I-42: a backup that fails on a row', () => {
  before(async () => {
    await cluster.createDatabase('source_shop');
    await cluster.query(
      'source_shop',
      `CREATE TABLE other (a int); CREATE TABLE people (id int, mail text); ${rows}
       CREATE FUNCTION telling(v text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
         RAISE EXCEPTION 'column % does not exist', v USING DETAIL = v; END $$;
       ALTER EXTENSION plpgsql ADD TABLE people;
       UPDATE pg_extension SET extconfig = ARRAY['people'::regclass::oid],
              extcondition = ARRAY['WHERE public.telling(mail)'] WHERE extname = 'plpgsql';`,
    );
  });

  for (const census of ['rows', 'content', 'stream']) {
    test(`the condition of an extension's table raises with it (census: ${census})`, async () => {
      const store = await scratch();
      const result = await backUp(cluster.url('source_shop'), store, { census });
      assert.notEqual(result.exitCode, 0);
      assert.doesNotMatch(errorOf(result), /defect/);
      requireNoRow(allOf(result));
      assert.deepEqual(await filesIn(store), []);
    });
  }

  const lines: Record<string, string> = {
    'a query that failed': `pg_dump: error: query failed: ERROR:  invalid input syntax for type integer: "${address}"`,
    'a COPY that failed': `pg_dump: error: Dumping the contents of table "people" failed: PQgetResult() failed.
pg_dump: detail: Error message from server: ERROR:  invalid byte sequence for ${address}
CONTEXT:  COPY people, line 1: "1	${address}"
pg_dump: detail: Command was: COPY public.people (id, mail) TO stdout; -- ${address}`,
    'a message nobody knows': `pg_dump: error: what was read is "${address}"`,
    'a message without its program': `${address} is not what it was`,
    'a warning': `pg_dump: warning: could not resolve "${address}" for object ID 4711`,
  };
  for (const [what, text] of Object.entries(lines)) {
    test(`pg_dump prints ${what} with it and exits 1`, async () => {
      const bin = await wrapped(cluster, { pg_dump: `cat >&2 <<'END'\n${text}\nEND\nexit 1` });
      const result = await backUp(cluster.url('postgres'), await scratch(), { 'client-bin': bin, 'allow-empty': true });
      assert.equal(result.exitCode, 40, result.log);
      requireNoRow(allOf(result));
    });

    test(`pg_dump prints ${what} with it and exits 0`, async () => {
      const bin = await wrapped(cluster, { pg_dump: `cat >&2 <<'END'\n${text}\nEND\nexec "$REAL" "$@"` });
      const store = await scratch();
      const result = await backUp(cluster.url('postgres'), store, { 'client-bin': bin, 'allow-empty': true });
      assert.equal(result.exitCode, 0, result.log);
      requireNoRow(allOf(result));
      for (const file of await filesIn(store))
        if (!file.endsWith('.dump')) requireNoRow(await readFile(join(store, file), 'utf8'));
    });
  }

  test('pg_restore prints a row while it validates', async () => {
    const bin = await wrapped(cluster, {
      pg_restore: `echo 'pg_restore: error: unexpected data: "${address}"' >&2; echo '${address}' >&2; exit 1`,
    });
    const result = await backUp(cluster.url('postgres'), await scratch(), { 'client-bin': bin, 'allow-empty': true });
    assert.equal(result.exitCode, 40, result.log);
    requireNoRow(allOf(result));
  });
});
