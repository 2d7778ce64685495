import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import type { Taken } from '../support/backup.ts';
import { Cluster } from '../support/postgres.ts';
import { backupOf, databasesOf, rolesOf, tryRestore } from '../support/restoring.ts';

describe('what a restore looks at before it touches the target', () => {
  let cluster: Cluster;
  let backup: Taken;
  before(async () => {
    cluster = await Cluster.start({ conf: { wal_level: 'logical' } });
    backup = await backupOf(cluster, 'shop', 'CREATE TABLE t AS SELECT 1 x');
  });
  after(() => cluster.stop());

  test('an archive with a changed byte: exit 40, no database, no role', async () => {
    await using source = await Cluster.start();
    await source.query('postgres', 'CREATE ROLE app');
    const changed = await backupOf(source, 'shop', 'CREATE TABLE t AS SELECT 1 x; ALTER TABLE t OWNER TO app');
    const file = await open(changed.dump, 'r+');
    const { size } = await file.stat();
    await file.write(Buffer.from([0x55, 0xaa]), 0, 2, size - 20);
    await file.close();
    const databases = await databasesOf(cluster);
    const result = await tryRestore(cluster, changed, cluster.url('never'));
    assert.equal(result.exitCode, 40, result.stderr);
    assert.deepEqual(await databasesOf(cluster), databases);
    assert.deepEqual(await rolesOf(cluster), []);
    const unreachable = await tryRestore(cluster, changed, 'postgresql://a:b@127.0.0.1:1/x');
    assert.equal(unreachable.exitCode, 40, unreachable.stderr);
  });

  test('rows without definitions: exit 2 before anybody connects', async () => {
    for (const inputs of [{ mode: 'data-only' }, { mode: 'data-only', tables: 'public.t' }]) {
      const rows = await backupOf(cluster, 'shop', 'SELECT 1', { ...inputs, name: `rows-${'tables' in inputs}` });
      const result = await tryRestore(cluster, rows, 'postgresql://a:b@127.0.0.1:1/x');
      assert.equal(result.exitCode, 2, result.stderr);
      assert.match(result.stderr, /holds rows only, and no definitions/);
      assert.match(
        result.stderr,
        /hint: restore a full or schema-only backup first, then this one with mode: data-only/,
      );
    }
  });

  test('a part of a database is restored with a warning', async () => {
    const part = await backupOf(cluster, 'shop', 'SELECT 1', { tables: 'public.t', name: 'part' });
    const result = await tryRestore(cluster, part, cluster.url('part'));
    assert.equal(result.exitCode, 0, result.stderr);
    assert.match(result.stderr, /warning: this backup holds a part of its database/);
  });

  for (const [what, sql, named] of [
    ['a large object', `SELECT lo_from_bytea(777777, 'production data')`, 'large object 777777'],
    ['an empty schema', 'CREATE SCHEMA "Sales"', 'schema "Sales"'],
    ['a table', 'CREATE TABLE users ()', 'public.users'],
    ['a type', 'CREATE TYPE pair AS (a int)', 'type public.pair'],
    ['a foreign server', 'CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w', 'foreign server s'],
    ['a publication', 'CREATE PUBLICATION p', 'publication p'],
    [
      'a subscription',
      `CREATE SUBSCRIPTION s CONNECTION 'dbname=none' PUBLICATION p WITH (connect = false)`,
      'subscription s',
    ],
    [
      'an event trigger',
      `CREATE FUNCTION pg_catalog.f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION pg_catalog.f()`,
      'event trigger e',
    ],
    ['a cast', 'CREATE CAST (point AS text) WITH INOUT', 'cast point as text'],
  ] as const) {
    test(`${what} makes a database not empty`, async () => {
      const name = `not_empty_${what.replace(/\W/g, '_')}`;
      await cluster.createDatabase(name);
      if (what === 'an event trigger') await cluster.query('postgres', 'SELECT 1');
      const client = await cluster.client(name);
      await client.query(what === 'an event trigger' ? `SET allow_system_table_mods = on; ${sql}` : sql);
      await client.end();
      const result = await tryRestore(cluster, backup, cluster.url(name));
      assert.equal(result.exitCode, 2, result.stderr);
      assert.ok(result.stderr.includes(`is not empty: it has `) && result.stderr.includes(named), result.stderr);
    });
  }

  test('an extension alone does not', async () => {
    await cluster.createDatabase('extended');
    await cluster.query('extended', 'CREATE EXTENSION plpgsql').catch(() => {});
    const result = await tryRestore(cluster, backup, cluster.url('extended'));
    assert.equal(result.exitCode, 0, result.stderr);
  });
});
