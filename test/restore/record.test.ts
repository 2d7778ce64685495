import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { RestoreRecord } from '../../src/restore-record.ts';
import { cli, type Taken } from '../support/backup.ts';
import { Cluster } from '../support/postgres.ts';
import { backupOf, tryRestore } from '../support/restoring.ts';
import { S3Server } from '../support/s3.ts';

describe('every restore is recorded in the store', () => {
  let cluster: Cluster;
  let backup: Taken;
  before(async () => {
    cluster = await Cluster.start();
    backup = await backupOf(
      cluster,
      'shop',
      'CREATE TABLE t AS SELECT generate_series(1, 10) x; CREATE TABLE u AS SELECT 1 x',
    );
  });
  after(() => cluster.stop());

  const recorded = async (store: string, flags: readonly string[] = []): Promise<RestoreRecord[]> => {
    const listed = await cli(['list', '--restores', '--store', store, '--json', ...flags]);
    assert.equal(listed.exitCode, 0, listed.stderr);
    return (listed.json as { restores: RestoreRecord[] }).restores;
  };

  test('who, what, into which database, and how it ended, failed ones too; refused ones changed nothing and are not', async () => {
    assert.deepEqual(await recorded(backup.store), []);
    assert.equal((await tryRestore(cluster, backup, cluster.url('one'))).exitCode, 0);
    assert.equal((await tryRestore(cluster, backup, cluster.url('one'))).exitCode, 2);
    await cluster.query(
      'one',
      'DROP TABLE u; CREATE FUNCTION veto() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE $x$no$x$; END $$; CREATE EVENT TRIGGER veto ON ddl_command_start EXECUTE FUNCTION veto()',
    );
    const failed = await tryRestore(cluster, backup, cluster.url('one'), ['--tables', 'u', '--confirm', 'one']);
    assert.equal(failed.exitCode, 50, failed.stderr);
    const [newest, first, ...more] = await recorded(backup.store);
    assert.deepEqual(more, []);
    const { startedAt, finishedAt, by, ...rest } = first as RestoreRecord;
    assert.ok(Date.parse(startedAt) <= Date.parse(finishedAt) && by !== '');
    assert.deepEqual(rest, {
      format: 'pgassay-restore/1',
      name: 'assayed',
      backupId: backup.id,
      database: 'one',
      scope: { mode: 'full', tables: [], schemas: [], clean: false },
      result: 'restored',
      exitCode: null,
      totals: { tables: 2, rows: 11 },
      safetyBackupId: null,
      source: null,
    });
    assert.equal(newest?.result, 'failed');
    assert.equal(newest?.exitCode, 50);
    assert.deepEqual(newest?.scope.tables, ['u']);
    assert.deepEqual(await recorded(backup.store, ['--name', 'another']), []);
    const text = await cli(['list', '--restores', '--store', backup.store]);
    assert.match(text.stdout, /just now +assayed\/\S+ +one +table u +failed, exit 50/);
    assert.match(text.stdout, / +one +all +restored: 2 tables, 11 rows/);
    // It is no name of backups, and what somebody else puts there is passed over.
    const folder = join(fileURLToPath(backup.store), '_restores');
    await writeFile(join(folder, '20260101T000000Z.json'), '{}');
    await writeFile(join(folder, '20260102T000000Z.json'), `${JSON.stringify(first)}${' '.repeat(1024 * 1024)}`);
    assert.equal((await recorded(backup.store)).length, 2);
    const names = await cli(['list', '--store', backup.store, '--json']);
    assert.equal((names.json as { backups: unknown[] }).backups.length, 1);
  });

  test('a store that refuses it is a warning, and the restore is done', async () => {
    const root = fileURLToPath(backup.store);
    await rm(join(root, '_restores'), { recursive: true, force: true });
    await writeFile(join(root, '_restores'), '');
    const result = await tryRestore(cluster, backup, cluster.url('unrecorded'));
    await rm(join(root, '_restores'));
    assert.equal(result.exitCode, 0, result.stderr);
    assert.match(result.stderr, /warning: this restore could not be recorded in the store: /);
  });

  test('in a bucket too', async () => {
    await using server = await S3Server.start();
    await server.createBucket('backups');
    const access = { 's3-endpoint': server.endpoint, 's3-access-key-id': server.accessKeyId };
    const taken = await cli(
      [
        'backup',
        '--store',
        's3://backups/prod',
        '--name',
        'shop',
        ...Object.entries(access).flatMap(([name, value]) => [`--${name}`, value]),
      ],
      { DATABASE_URL: cluster.url('shop'), PGASSAY_S3_SECRET_ACCESS_KEY: server.secretAccessKey },
    );
    assert.equal(taken.exitCode, 0, taken.stderr);
    const flags = [
      '--store',
      's3://backups/prod',
      ...Object.entries(access).flatMap(([name, value]) => [`--${name}`, value]),
    ];
    const env = { PGASSAY_S3_SECRET_ACCESS_KEY: server.secretAccessKey };
    const restored = await cli(['restore', ...flags], { ...env, TARGET_URL: cluster.url('from_bucket') });
    assert.equal(restored.exitCode, 0, restored.stderr);
    assert.doesNotMatch(restored.stderr, /could not be recorded/);
    const listed = await cli(['list', '--restores', '--json', ...flags], env);
    const [record] = (listed.json as { restores: RestoreRecord[] }).restores;
    assert.equal(record?.database, 'from_bucket');
    const backups = await cli(['list', '--json', ...flags], env);
    assert.equal((backups.json as { backups: unknown[] }).backups.length, 1);
  });
});
