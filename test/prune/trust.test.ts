// Retention where somebody else may write to the store, too.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { FolderStore } from '../../src/store/folder.ts';
import { runAction } from '../support/action.ts';
import { cli } from '../support/backup.ts';
import { repository, scratch } from '../support/faults.ts';
import { storeOpening, storePast, storeProof } from '../support/history.ts';
import { keyPair, signingKey } from '../support/signing.ts';

const ago = (days: number): Date => new Date(Date.now() - days * 86_400_000);

describe('retention with verify-key', () => {
  test('backups that nobody signed push none out and are left alone, and the step fails', async () => {
    const [ours, theirs] = await Promise.all([keyPair(), keyPair()]);
    const store = new FolderStore(await scratch());
    const real: string[] = [];
    for (const days of [4, 3, 2]) real.push((await storePast(store, ago(days), { signing: signingKey(ours) })).id);
    const fake = [
      (await storePast(store, ago(1))).id,
      (await storePast(store, ago(0.5), { signing: signingKey(theirs) })).id,
    ];
    const inputs = { name: 'shop', store: store.uri, 'keep-last': 2, 'critical-after': '90d' };

    const result = await runAction(join(repository, 'prune'), { inputs: { ...inputs, 'verify-key': ours.publicKey } });
    assert.equal(result.exitCode, 40, result.log);
    assert.deepEqual(JSON.parse(result.outputs.pruned ?? ''), real.slice(0, 1));
    assert.deepEqual(await store.ids('shop'), [...real.slice(1), ...fake]);
    assert.match(result.log, new RegExp(`not trusted +${fake[0]}.*left alone: it is not signed`));
    assert.match(result.log, new RegExp(`shop/${fake[1]} is not trusted: its signature is not by a key`));

    // The newest of ours is two days old: with the usual limit, backups have stopped.
    const paused = await cli([
      'prune',
      '--store',
      store.uri,
      '--name',
      'shop',
      '--keep-last',
      '1',
      '--verify-key',
      ours.verify,
    ]);
    assert.equal(paused.exitCode, 40, paused.stderr);
    assert.match(paused.stdout, /nothing deleted, 2 kept: retention is paused\n {2}the newest backup is 2 d old/);
    assert.deepEqual(await store.ids('shop'), [...real.slice(1), ...fake]);
  });

  test('a restore test that the tester did not sign protects nothing and hides none that he did', async () => {
    const [ours, tester] = await Promise.all([keyPair(), keyPair()]);
    const store = new FolderStore(await scratch());
    const signing = signingKey(ours);
    const proven = await storePast(store, ago(4), { signing });
    await storeProof(store, proven, { at: ago(3.9), result: 'passed', signing: signingKey(tester) });
    const claimed = await storePast(store, ago(3), { signing });
    await storeProof(store, claimed, { at: ago(2.9), result: 'passed' });
    await storeProof(store, proven, { at: ago(2.8), result: 'failed' });
    const newest = await storePast(store, ago(0.5), { signing });
    const keys = ['--verify-key', ours.verify, '--proof-verify-key', tester.verify];
    const result = await cli(['prune', '--store', store.uri, '--name', 'shop', '--keep-last', '1', ...keys, '--json']);
    assert.equal(result.exitCode, 0, result.stderr);
    assert.deepEqual(await store.ids('shop'), [proven.id, newest.id]);
  });

  test('the backup that a key opened last stays, with its record, unless the tester did not sign that', async () => {
    const tester = await keyPair();
    const signing = signingKey(tester);
    const [drill, recovery] = [`age1${'d'.repeat(58)}`, `age1${'r'.repeat(58)}`];
    const store = new FolderStore(await scratch());
    const past = { recipients: [drill, recovery] };
    const [opened, claimed, tested, later] = [
      await storePast(store, ago(9), past),
      await storePast(store, ago(8), past),
      await storePast(store, ago(7), past),
      await storePast(store, ago(6), past),
    ];
    // A restore test that failed afterwards does not take back that the key opened it.
    await storeProof(store, tested, { at: ago(5), result: 'passed', recipient: drill, signing });
    await storeProof(store, tested, { at: ago(4.5), result: 'failed', signing });
    await storeOpening(store, opened, { at: ago(4), recipient: recovery, signing });
    await storeProof(store, opened, { at: ago(3.5), result: 'failed', signing });
    await storeOpening(store, claimed, { at: ago(3), recipient: recovery });
    const newest = await storePast(store, ago(0.5), past);
    const flags = ['--store', store.uri, '--name', 'shop', '--keep-last', '1', '--proof-verify-key', tester.verify];
    const dry = await cli(['prune', ...flags, '--dry-run']);
    assert.match(dry.stdout, new RegExp(`${opened.id}.* last that the key of ${recovery} opened`));
    const result = await cli(['prune', ...flags, '--json']);
    assert.equal(result.exitCode, 0, result.stderr);
    assert.deepEqual(await store.ids('shop'), [opened.id, tested.id, newest.id], `${claimed.id} and ${later.id} go`);
    const judged = ['health', '--store', store.uri, '--max-recovery-key-age', '7d'];
    const healthy = await cli([...judged, '--proof-verify-key', tester.verify, '--fail-on', 'never', '--json']);
    const findings = (healthy.json as { names: { findings: { check: string }[] }[] }).names[0]?.findings ?? [];
    assert.deepEqual(
      findings.filter(({ check }) => check === 'keys'),
      [],
    );
  });
});
