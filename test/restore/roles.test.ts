import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type Taken, tableOf } from '../support/backup.ts';
import { wrapped } from '../support/faults.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';
import { backupOf, rolesOf, tryRestore } from '../support/restoring.ts';

const ownersQuery = `
  SELECT c.relname AS name, pg_get_userbyid(c.relowner) AS owner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname IN ('public', 'app') ORDER BY 1`;

for (const major of majorsAvailable()) {
  describe(`restoring as a role that may create roles and is no superuser, PostgreSQL ${major}`, () => {
    let cluster: Cluster;
    let backup: Taken;
    before(async () => {
      cluster = await Cluster.start({ major });
      await using source = await Cluster.start({ major });
      await source.query(
        'postgres',
        'CREATE ROLE app; CREATE ROLE reader; CREATE ROLE boss SUPERUSER; GRANT boss TO app',
      );
      backup = await backupOf(
        source,
        'shop',
        `CREATE TABLE t AS SELECT 1 x; ALTER TABLE t OWNER TO app; GRANT SELECT ON t TO reader;
         CREATE SCHEMA app AUTHORIZATION app; CREATE TABLE app.u AS SELECT 2 x; ALTER TABLE app.u OWNER TO app;
         CREATE SEQUENCE app.s; ALTER SEQUENCE app.s OWNER TO app`,
      );
      await cluster.query(
        'postgres',
        `CREATE ROLE adm LOGIN CREATEROLE CREATEDB PASSWORD 'x'; CREATE ROLE boss SUPERUSER`,
      );
    });
    after(() => cluster.stop());

    test('owners and grants are kept, though owners may not create in public', async () => {
      const result = await tryRestore(cluster, backup, cluster.url('kept', 'adm', 'x'));
      assert.equal(result.exitCode, 0, result.stderr);
      assert.deepEqual(await cluster.query('kept', ownersQuery), [
        { name: 's', owner: 'app' },
        { name: 't', owner: 'app' },
        { name: 'u', owner: 'app' },
      ]);
      assert.match(result.stderr, /may grant later:\n {2}GRANT boss TO app;/);
      assert.deepEqual((result.json as { createdRoles: string[] }).createdRoles.toSorted(), ['app', 'reader']);
      assert.deepEqual(await rolesOf(cluster), ['adm', 'app', 'boss', 'reader']);
      const [acl] = await cluster.query(
        'kept',
        `SELECT has_schema_privilege('app', 'public', 'CREATE') AS lent, has_table_privilege('reader', 't', 'SELECT') AS granted`,
      );
      assert.deepEqual(acl, { lent: major < 15, granted: true });
      await cluster.query('postgres', 'DROP DATABASE kept');
      await cluster.query('postgres', 'DROP ROLE app; DROP ROLE reader');
    });

    test('an owner who is there and not ours to give to: owners are left out, with a warning', async () => {
      await cluster.query('postgres', 'CREATE ROLE app');
      const result = await tryRestore(cluster, backup, cluster.url('others', 'adm', 'x'));
      assert.equal(result.exitCode, 0, result.stderr);
      assert.match(result.stderr, /owners and grants are left out: this role may not give objects to app/);
      const owners = await cluster.query<{ owner: string }>('others', ownersQuery);
      assert.deepEqual([...new Set(owners.map((row) => row.owner))], ['adm']);
      assert.deepEqual((result.json as { createdRoles: string[] }).createdRoles, ['reader']);

      const insisted = await tryRestore(cluster, backup, cluster.url('insisted', 'adm', 'x'), ['--owners', 'keep']);
      assert.equal(insisted.exitCode, 12, insisted.stderr);
      assert.match(insisted.stderr, /owners cannot be kept: this role may not give objects to app/);
      await cluster.query('postgres', 'DROP DATABASE others');
      await cluster.query('postgres', 'DROP ROLE app; DROP ROLE reader');
    });

    test('a member that does not inherit could not fill the tables it gave away', async () => {
      await cluster.query(
        'postgres',
        `CREATE ROLE app; CREATE ROLE reader; CREATE ROLE stiff LOGIN NOINHERIT CREATEDB PASSWORD 'x'; GRANT app TO stiff`,
      );
      await using source = await Cluster.start({ major });
      await source.query('postgres', 'CREATE ROLE app');
      const own = await backupOf(
        source,
        'shop',
        'CREATE SCHEMA app AUTHORIZATION app; CREATE TABLE app.u AS SELECT 2 x; ALTER TABLE app.u OWNER TO app',
      );
      const result = await tryRestore(cluster, own, cluster.url('stiff', 'stiff', 'x'));
      assert.equal(result.exitCode, 0, result.stderr);
      assert.match(result.stderr, /owners and grants are left out/);
      await cluster.query('postgres', 'DROP DATABASE stiff');
      await cluster.query('postgres', 'DROP ROLE app; DROP ROLE reader; DROP ROLE stiff');
    });

    test('extensions that a provider has created are used as they are, whose comments only he may set', async () => {
      await using source = await Cluster.start({ major });
      const extended = await backupOf(source, 'shop', 'CREATE EXTENSION postgres_fdw; CREATE TABLE t AS SELECT 1 x');
      await cluster.query('postgres', `CREATE ROLE tenant LOGIN PASSWORD 'x'`);
      await cluster.createDatabase('provided', 'OWNER tenant');
      await cluster.query('provided', 'CREATE EXTENSION postgres_fdw');
      for (const jobs of ['1', '2']) {
        const result = await tryRestore(cluster, extended, cluster.url('provided', 'tenant', 'x'), ['--jobs', jobs]);
        assert.equal(result.exitCode, 0, result.stderr);
        await cluster.query('provided', 'DROP TABLE t');
      }
      await cluster.query('postgres', 'DROP DATABASE provided');
      await cluster.query('postgres', 'DROP ROLE tenant');
    });

    test('a failed restore takes its roles away again', async () => {
      const before = await rolesOf(cluster);
      const bin = await wrapped(cluster, {
        pg_restore: 'case "$*" in *exit-on-error*) "$REAL" "$@"; exit 1;; esac; exec "$REAL" "$@"',
      });
      const result = await tryRestore(cluster, backup, cluster.url('failed', 'adm', 'x'), ['--client-bin', bin]);
      assert.equal(result.exitCode, 50, result.stderr);
      assert.match(result.stderr, /created the roles the backup needs, without login: app, reader/);
      assert.deepEqual(await rolesOf(cluster), before);
    });

    test('with owners dropped, roles that policies need are created, and told', async () => {
      await using source = await Cluster.start({ major });
      await source.query('postgres', 'CREATE ROLE tenant');
      const secured = await backupOf(
        source,
        'shop',
        'CREATE TABLE t AS SELECT 1 x; ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t TO tenant USING (true)',
      );
      const flags = ['--owners', 'drop'];
      const result = await tryRestore(cluster, secured, cluster.url('policies', 'adm', 'x'), flags);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.equal(tableOf(secured.census, 'public.t').rows, 1);
      assert.deepEqual((result.json as { createdRoles: string[] }).createdRoles, ['tenant']);
    });
  });
}
