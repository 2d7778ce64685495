import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadSampleDatabase } from '../../scripts/sample-database.ts';
import { takeBackup } from '../support/backup.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';
import { said, type TestReport, tryRestoreTest } from '../support/restore-test.ts';

for (const major of majorsAvailable()) {
  test(`a backup of everything at once restores equal into a throw-away ${major}, with its owners and grants`, async () => {
    await using cluster = await Cluster.start({ major });
    await cluster.createDatabase('shop');
    await loadSampleDatabase(cluster.url('shop'));
    const backup = await takeBackup(cluster, 'shop', { census: 'content' });
    const result = await tryRestoreTest(cluster, backup);
    const report = result.json as TestReport;
    assert.deepEqual(report?.findings, [], said(result));
    assert.equal(result.exitCode, 0, said(result));
    assert.equal(report.result, 'passed');
    assert.equal(report.level, 'content');
    assert.deepEqual(report.leftOut, ['PUBLICATION sample_orders']);
  });
}
