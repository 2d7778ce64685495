import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import type { ActionResult } from '../support/action.ts';
import { type Inputs, recordedRows, takeBackup, tryBackup } from '../support/backup.ts';
import { errorOf } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';

const password = 'correct horse';

describe('F15: what the backup role may not read', () => {
  let cluster: Cluster;

  before(async () => {
    cluster = await Cluster.start();
    await cluster.query(
      'postgres',
      `CREATE ROLE "Backup-role" LOGIN PASSWORD '${password}'; CREATE ROLE reader LOGIN PASSWORD '${password}' IN ROLE pg_read_all_data;
       CREATE ROLE app LOGIN PASSWORD '${password}'`,
    );
  });
  after(() => cluster.stop());

  const inputsOf = (database: string, role: string): Inputs => ({
    'database-url': cluster.url(database, role, password),
    retries: 0,
  });

  async function refused(database: string, role: string): Promise<ActionResult> {
    const result = await tryBackup(cluster, database, inputsOf(database, role));
    assert.equal(result.exitCode, 12, result.log);
    assert.match(errorOf(result), /^preflight: role /);
    assert.doesNotMatch(result.log, /##\[group\]Dump/, 'nothing was begun');
    return result;
  }

  /** What a user would paste: the statements below the hint. */
  function grantsIn(result: ActionResult): string[] {
    const [, hint = ''] = errorOf(result).split('\nhint: ');
    return hint.split('\n').flatMap((line) => (/^\s+((?:GRANT|ALTER) .*;)$/.exec(line)?.[1] ?? []) as string | []);
  }

  test('is named all at once, with the statements that make the backup work when they are run', async () => {
    await cluster.createDatabase('shop');
    await cluster.query(
      'shop',
      `CREATE SCHEMA open; CREATE SCHEMA "order"; CREATE SCHEMA "Mixed ""case""";
       CREATE TABLE open.readable (id int); INSERT INTO open.readable VALUES (1);
       CREATE TABLE open."user" (id serial); INSERT INTO open."user" SELECT FROM generate_series(1, 2);
       CREATE TABLE "order"."select" (id int); INSERT INTO "order"."select" VALUES (1), (2), (3);
       CREATE TABLE "Mixed ""case"""."new
line" (id int GENERATED ALWAYS AS IDENTITY, v int); INSERT INTO "Mixed ""case"""."new
line" (v) VALUES (1);
       CREATE SEQUENCE open.hidden_sequence;
       CREATE TABLE open.guarded (id int); ALTER TABLE open.guarded ENABLE ROW LEVEL SECURITY;
       INSERT INTO open.guarded VALUES (1), (2); CREATE POLICY half ON open.guarded USING (id = 1);
       SELECT lo_create(90001); SELECT lo_create(90002);
       GRANT USAGE ON SCHEMA open TO "Backup-role"; GRANT SELECT ON open.readable, open.guarded TO "Backup-role"`,
    );
    const result = await refused('shop', 'Backup-role');
    const said = errorOf(result);
    assert.match(said, /role "Backup-role" cannot read 3 of 5 tables: /);
    for (const name of [
      'open.user',
      'order',
      'Mixed ""case""',
      'new\\nline',
      'open.hidden_sequence',
      '90001',
      '90002',
      'open.guarded',
    ])
      assert.ok(said.includes(name), `${name} is not named in ${said}`);
    assert.doesNotMatch(said.split('hint:')[0] ?? '', /open\.readable/);
    const grants = grantsIn(result);
    assert.ok(grants.length >= 5, said);
    await cluster.query('shop', grants.join('\n'));
    const { census } = await takeBackup(cluster, 'shop', inputsOf('shop', 'Backup-role'));
    assert.deepEqual(recordedRows(census), {
      ...{ 'Mixed "case".new\nline': 1, 'open.guarded': 2, 'open.readable': 1, 'open.user': 2, 'order.select': 3 },
    });
    assert.equal(census.largeObjects, 2);
  });

  test('I-6: rows behind a policy are refused, never left out, even from the owner who is subject to it', async () => {
    await cluster.createDatabase('secured', 'OWNER app');
    const app = await cluster.client('secured', 'app', password);
    await app.query(`CREATE SCHEMA s; CREATE TABLE s.rows (id int); INSERT INTO s.rows SELECT generate_series(1, 1000);
      CREATE TABLE s.plain (id int); ALTER TABLE s.rows ENABLE ROW LEVEL SECURITY; CREATE POLICY half ON s.rows USING (id > 500)`);
    const { manifest } = await takeBackup(cluster, 'secured', inputsOf('secured', 'app'));
    assert.equal(manifest.totals.rows, 1000, 'the owner sees all');

    await app.query('ALTER TABLE s.rows FORCE ROW LEVEL SECURITY');
    await app.end();
    const owner = await refused('secured', 'app');
    assert.match(errorOf(owner), /row-level security policy lets through in s\.rows/);
    assert.match(errorOf(await refused('secured', 'reader')), /in s\.rows/);
    assert.deepEqual(grantsIn(owner), ['ALTER ROLE app BYPASSRLS;']);

    const structure = await takeBackup(cluster, 'secured', { ...inputsOf('secured', 'app'), mode: 'schema-only' });
    assert.equal(structure.manifest.totals.rows, 0);
    const without = await takeBackup(cluster, 'secured', {
      ...inputsOf('secured', 'app'),
      'exclude-table-data': 's.rows',
    });
    assert.equal(without.manifest.totals.rows, 0);
  });

  test('I-8: pg_read_all_data reads every table but no large object, which is said before the dump', async () => {
    await cluster.createDatabase('objects');
    await cluster.query(
      'objects',
      `CREATE SCHEMA hidden; CREATE TABLE hidden.t (id serial); INSERT INTO hidden.t DEFAULT VALUES`,
    );
    assert.equal((await takeBackup(cluster, 'objects', inputsOf('objects', 'reader'))).manifest.totals.rows, 1);
    await cluster.query(
      'objects',
      `SELECT lo_from_bytea(91001, 'x'); SELECT lo_create(91002); GRANT SELECT ON LARGE OBJECT 91002 TO reader`,
    );
    const result = await refused('objects', 'reader');
    assert.match(errorOf(result), /cannot read 1 large object: 91001/);
    assert.deepEqual(grantsIn(result), ['GRANT SELECT ON LARGE OBJECT 91001 TO reader;']);
    await cluster.query('objects', grantsIn(result).join('\n'));
    const { census } = await takeBackup(cluster, 'objects', inputsOf('objects', 'reader'));
    assert.equal(census.largeObjects, 2);
  });

  test('does not matter where it is out of scope', async () => {
    await cluster.createDatabase('partly');
    await cluster.query(
      'partly',
      `CREATE SCHEMA mine; CREATE SCHEMA theirs; CREATE TABLE mine.t (id int); CREATE TABLE theirs.t (id int); SELECT lo_create(92001);
       GRANT USAGE ON SCHEMA mine TO app; GRANT SELECT ON mine.t TO app; INSERT INTO mine.t VALUES (1)`,
    );
    const { manifest } = await takeBackup(cluster, 'partly', { ...inputsOf('partly', 'app'), schemas: 'mine' });
    assert.equal(manifest.totals.rows, 1);
    const named = errorOf(await refused('partly', 'app'));
    assert.match(named, /cannot read 1 of 2 tables: theirs\.t; it cannot read 1 large object: 92001/);
  });

  test('a limited role stores role definitions without any setting, and its limits do not reach the sessions', async () => {
    await cluster.createDatabase('limited');
    await cluster.query(
      'limited',
      `CREATE TABLE t (id int, note text); INSERT INTO t SELECT g, repeat('x', 1000) FROM generate_series(1, 100000) g;
       GRANT SELECT ON t TO app; ALTER ROLE app SET statement_timeout = '50ms'; ALTER ROLE app SET lock_timeout = '1ms';
       ALTER ROLE app SET idle_in_transaction_session_timeout = '1ms'; ALTER ROLE app SET app.jwt_secret = 'canary-4711';
       ALTER ROLE app SET default_transaction_isolation = 'serializable'; ALTER ROLE app SET row_security = off`,
    );
    // A network that takes longer than the role may be idle.
    await using far = await TcpProxy.start(cluster, {
      onChunk(chunk, direction, proxy) {
        if (direction === 'up') proxy.stall('up');
        if (direction === 'up') setTimeout(() => proxy.resume('up'), 10);
        return chunk;
      },
    });
    const { folder, manifest } = await takeBackup(cluster, 'limited', {
      ...inputsOf('limited', 'app'),
      'database-url': far.through(cluster.url('limited', 'app', password)),
      census: 'content',
    });
    assert.equal(manifest.totals.rows, 100_000);
    const roles = await readFile(`${folder}/roles.sql`, 'utf8');
    assert.match(roles, /^CREATE ROLE app;$/m);
    assert.match(roles, /^GRANT pg_read_all_data TO reader/m);
    assert.doesNotMatch(roles, /canary|PASSWORD|SCRAM|timeout/);
    for (const file of manifest.files.filter(({ name }) => name !== 'database.dump'))
      assert.ok(!(await readFile(`${folder}/${file.name}`, 'utf8')).includes('canary-4711'));
  });
});
