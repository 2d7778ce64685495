import assert from 'node:assert/strict';
import { chmod } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { loadSampleDatabase } from '../../scripts/sample-database.ts';
import { type Taken, takeBackup } from '../support/backup.ts';
import { scratch, until } from '../support/faults.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';
import { said, scratchFolders, startRestoreTest, type TestReport, tryRestoreTest } from '../support/restore-test.ts';
import { databasesOf, rolesOf } from '../support/restoring.ts';

describe('a scratch server that was given', () => {
  let source: Cluster;
  let other: Cluster;
  let backup: Taken;
  before(async () => {
    source = await Cluster.start();
    other = await Cluster.start();
    await source.createDatabase('shop');
    await loadSampleDatabase(source.url('shop'));
    backup = await takeBackup(source, 'shop');
  });
  after(async () => {
    await source.stop();
    await other.stop();
  });

  test('takes everything, although its superuser has the name of an owner; nothing stays, and nothing else is touched', async () => {
    await other.createDatabase('somebodys');
    await other.query('somebodys', 'CREATE TABLE t AS SELECT 1 x');
    await other.query('postgres', 'CREATE ROLE shop_app LOGIN');
    const [databases, roles] = [await databasesOf(other), await rolesOf(other)];
    const result = await tryRestoreTest(source, backup, [], { PGASSAY_SCRATCH_URL: other.url('somebodys') });
    const report = result.json as TestReport;
    assert.deepEqual(report?.findings, [], said(result));
    assert.equal(result.exitCode, 0, said(result));
    assert.ok(
      report.leftOut.some((each) => each.startsWith('default privileges of postgres')),
      report.leftOut.join(),
    );
    assert.deepEqual(await databasesOf(other), databases);
    assert.deepEqual(await rolesOf(other), roles);
  });

  test('that is the source is refused, whatever it is called', async () => {
    const url = source.url('postgres').replace('127.0.0.1', 'localhost');
    const result = await tryRestoreTest(source, backup, [], { PGASSAY_SCRATCH_URL: url });
    assert.equal(result.exitCode, 2, said(result));
    assert.match(result.stderr, /the scratch server is the very server this backup was taken from/);
  });

  test('whose user is no superuser is refused with what to do', async () => {
    await other.query('postgres', `CREATE ROLE plain LOGIN CREATEDB PASSWORD 'plain-secret'`);
    const url = other.url('postgres', 'plain', 'plain-secret');
    const result = await tryRestoreTest(source, backup, [], { PGASSAY_SCRATCH_URL: url });
    assert.equal(result.exitCode, 12, said(result));
    assert.match(result.stderr, /plain is no superuser of the scratch server/);
    assert.doesNotMatch(said(result), /plain-secret/);
  });

  test('of an older major is refused; one of a newer major takes it', { skip: twoMajors() }, async () => {
    await using newer = await Cluster.start({ major: 17 });
    const result = await tryRestoreTest(newer, backup, [], { PGASSAY_SCRATCH_URL: newer.url('postgres') });
    assert.deepEqual((result.json as TestReport)?.findings, [], said(result));
    await newer.createDatabase('shop');
    const fromNewer = await takeBackup(newer, 'shop', { 'allow-empty': true });
    const refused = await tryRestoreTest(newer, fromNewer, [], { PGASSAY_SCRATCH_URL: other.url('postgres') });
    assert.equal(refused.exitCode, 13, said(refused));
    assert.match(refused.stderr, /an older server cannot take it/);
  });

  test('that cannot be reached: no verdict, and exit 10', async () => {
    const result = await tryRestoreTest(source, backup, ['--retries', '0'], {
      PGASSAY_SCRATCH_URL: 'postgresql://postgres:x@127.0.0.1:9/postgres',
    });
    assert.equal(result.exitCode, 10, said(result));
    assert.equal(result.stdout, '');
  });

  test('a test that was cancelled leaves no database and no role there', async () => {
    const [databases, roles] = [await databasesOf(other), await rolesOf(other)];
    const run = startRestoreTest(source, backup, ['--checks', 'SELECT pg_sleep(60) IS NULL'], {
      PGASSAY_SCRATCH_URL: other.url('postgres'),
    });
    await until(async () => (await rolesOf(other)).length > roles.length || undefined);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    run.signal('SIGTERM');
    assert.equal((await run.done).exitCode, 130);
    assert.deepEqual(await databasesOf(other), databases);
    assert.deepEqual(await rolesOf(other), roles);
  });

  test('what killed tests have left there a day ago goes with the next one, its roles too', async () => {
    const [databases, roles] = [await databasesOf(other), await rolesOf(other)];
    const left = 'pgassay_test_20200101000000_0123abcd';
    await other.createDatabase(left, 'IS_TEMPLATE true');
    await other.query('postgres', `CREATE ROLE stayed; COMMENT ON ROLE stayed IS 'made by pgassay for ${left}'`);
    const result = await tryRestoreTest(source, backup, [], { PGASSAY_SCRATCH_URL: other.url('postgres') });
    assert.equal(result.exitCode, 0, said(result));
    assert.match(result.stderr, /removed the database pgassay_test_20200101000000_0123abcd/);
    assert.deepEqual(await databasesOf(other), databases);
    assert.deepEqual(await rolesOf(other), roles);
  });

  for (const signal of ['SIGKILL', 'SIGTERM'] as const)
    test(`a throw-away server of ours is gone after ${signal}, with its folder`, { skip: onlyLinux() }, async () => {
      const temporary = await scratch();
      await chmod(temporary, 0o755);
      const run = startRestoreTest(source, backup, ['--checks', 'SELECT pg_sleep(60) IS NULL'], { TMPDIR: temporary });
      await until(async () => scratchFolders(temporary).length > 0 || undefined);
      // Long enough to be anywhere between initdb and the checks.
      await new Promise((resolve) => setTimeout(resolve, signal === 'SIGKILL' ? 1500 : 800));
      run.signal(signal);
      const { exitCode } = await run.done;
      if (signal === 'SIGTERM') assert.equal(exitCode, 130);
      await until(async () => scratchFolders(temporary).length === 0 || undefined);
    });
});

function twoMajors(): string | false {
  return majorsAvailable().includes(17) && majorsAvailable().includes(15) ? false : 'needs PostgreSQL 15 and 17';
}

function onlyLinux(): string | false {
  return process.platform === 'linux' ? false : 'not on this platform: it looks at /proc';
}
