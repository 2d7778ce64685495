import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Taken } from '../support/backup.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';
import { backupOf, tryRestore } from '../support/restoring.ts';

const facts = `
  SELECT datcollate, datctype, datconnlimit, ARRAY(SELECT unnest(datacl)::text ORDER BY 1) AS acl, shobj_description(oid, 'pg_database') AS comment,
         ARRAY(SELECT coalesce(r.rolname, '') || ':' || unnest(s.setconfig) FROM pg_db_role_setting s
               LEFT JOIN pg_roles r ON r.oid = s.setrole WHERE s.setdatabase = d.oid ORDER BY 1) AS settings
  FROM pg_database d WHERE datname = $1`;

describe('a database that a restore makes is as its source was', () => {
  let cluster: Cluster;
  let backup: Taken;
  before(async () => {
    cluster = await Cluster.start();
    const name = `d";'; $$x`;
    await cluster.createDatabase(name, `TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'`);
    const quoted = `"${name.replaceAll('"', '""')}"`;
    await cluster.query('postgres', 'CREATE ROLE app');
    for (const statement of [
      `ALTER DATABASE ${quoted} SET statement_timeout = '7s'`,
      `ALTER DATABASE ${quoted} SET app.note = 'it''s; "DATABASE" \\ ''x'''`,
      `ALTER DATABASE ${quoted} SET default_transaction_read_only = on`,
      `ALTER DATABASE ${quoted} CONNECTION LIMIT 40`,
      `ALTER ROLE app IN DATABASE ${quoted} SET work_mem = '5MB'`,
      `REVOKE CONNECT ON DATABASE ${quoted} FROM PUBLIC`,
      `GRANT CONNECT ON DATABASE ${quoted} TO app`,
      `COMMENT ON DATABASE ${quoted} IS 'ours; DATABASE "it" is'`,
    ])
      await cluster.query('postgres', statement);
    backup = await backupOf(cluster, name, `BEGIN READ WRITE; CREATE TABLE t AS SELECT 'ÄB'::text x; COMMIT`);
  });
  after(() => cluster.stop());

  test('locale, settings, limit, grants and comment', async () => {
    const name = 'the "new"; one';
    const result = await tryRestore(cluster, backup, cluster.url(name));
    assert.equal(result.exitCode, 0, result.stderr);
    const [was] = await cluster.query('postgres', facts, [`d";'; $$x`]);
    const [is] = await cluster.query('postgres', facts, [name]);
    assert.deepEqual(is, was);
    assert.equal(is?.datctype, 'C.UTF-8');
    assert.doesNotMatch(result.stderr, /of the database itself/);
  });

  test('a database that was there keeps its own, and is told so, without the values', async () => {
    await cluster.createDatabase('there');
    const result = await tryRestore(cluster, backup, cluster.url('there'));
    assert.equal(result.exitCode, 0, result.stderr);
    assert.match(
      result.stderr,
      /not as in the backup: .*the connection limit.*the setting app\.note.*\(the database was there before/,
    );
    assert.doesNotMatch(result.stderr, /DATABASE"/);
  });

  test('a backup of before the locales were recorded restores as it did', async () => {
    const old = await backupOf(cluster, 'old', 'CREATE TABLE t AS SELECT 1 x', { name: 'old' });
    const path = join(old.folder, 'manifest.json');
    const manifest = JSON.parse(await readFile(path, 'utf8'));
    for (const key of ['lcCollate', 'lcCtype', 'icuRules']) delete manifest.database[key];
    await writeFile(path, `${JSON.stringify(manifest, null, 2)}\n`);
    const result = await tryRestore(cluster, old, cluster.url('old2'));
    assert.equal(result.exitCode, 0, result.stderr);
    const [is] = await cluster.query('postgres', facts, ['old2']);
    assert.deepEqual([is?.datcollate, is?.datctype], ['C.UTF-8', 'C.UTF-8']);
  });

  for (const major of majorsAvailable().filter((each) => each >= 16)) {
    test(`ICU's locale and rules, PostgreSQL ${major}`, async () => {
      await using server = await Cluster.start({ major });
      await server.createDatabase(
        'icu',
        `TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' ICU_RULES '&a < g' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'`,
      );
      const taken = await backupOf(server, 'icu', `CREATE TABLE t AS SELECT 'x'::text x`);
      const result = await tryRestore(server, taken, server.url('icu2'));
      assert.equal(result.exitCode, 0, result.stderr);
      const rows = await server.query(
        'postgres',
        `SELECT datlocprovider, to_jsonb(d) ->> 'datlocale' AS locale, daticurules, datcollate, datctype FROM pg_database d WHERE datname LIKE 'icu%'`,
      );
      assert.equal(rows.length, 2);
      assert.deepEqual(rows[0], rows[1]);
    });
  }
});
