// Proofs, records and signatures that somebody made large, and many: readers pass them over, and stay small.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { type Backup, readCatalog } from '../../src/catalog.ts';
import { serializeOpening } from '../../src/opening.ts';
import { readOpenings } from '../../src/openings.ts';
import { largestProof, type Proof, parseProof, proofName, serializeProof } from '../../src/proof.ts';
import { newestProof, readProofs, writeProof } from '../../src/proofs.ts';
import { parseSigningKey, parseVerifyKeys } from '../../src/signing.ts';
import { FolderStore } from '../../src/store/folder.ts';
import type { Store } from '../../src/store/store.ts';
import { noSignatures } from '../../src/trust.ts';
import { scratch } from '../support/faults.ts';
import { storePast } from '../support/history.ts';
import { keyPair } from '../support/signing.ts';

const hour = 3_600_000;
const began = Date.parse('2026-11-21T02:00:00.000Z');
const time = (hours: number): Date => new Date(began + hours * hour);

function proofOf({ manifest, manifestSha256 }: Pick<Backup, 'manifest' | 'manifestSha256'>, testedAt: Date): Proof {
  return {
    ...{ format: 'pgassay-proof/1', backupId: manifest.id, name: manifest.name, manifestSha256 },
    ...{ testedAt: testedAt.toISOString(), result: 'passed', level: 'rows', findings: [], findingsLeftOut: 0 },
    ...{ leftOut: [], notes: [], timings: {}, maxRestoreSeconds: null, server: '17.6', recipient: null, runUrl: null },
    tools: { pgRestore: '17.6', pgassay: '0.1.0' },
  };
}

/** The store, and how many reads of it there were at the same time at most, once something was read. */
function watched(store: Store): { readonly store: Store; readonly most: () => number } {
  let [reads, most] = [0, 0];
  const read: Store['read'] = async (...args) => {
    reads += 1;
    most = Math.max(most, reads);
    try {
      return await store.read(...args);
    } finally {
      reads -= 1;
    }
  };
  return {
    store: new Proxy(store, {
      get(target, property) {
        if (property === 'read') return read;
        const value: unknown = Reflect.get(target, property, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    }),
    most: () => most,
  };
}

async function oneBackup(): Promise<{ readonly store: FolderStore; readonly root: string; readonly folder: string }> {
  const root = await scratch();
  const store = new FolderStore(root);
  const { name, id } = await storePast(store, time(0));
  const folder = join(root, name, id);
  await mkdir(join(folder, 'proofs'));
  return { store, root, folder };
}

const only = async (store: Store): Promise<Backup> => {
  const [backup] = (await readCatalog(store, noSignatures, 'shop')).backups;
  assert.ok(backup !== undefined);
  return backup;
};

describe('what lies beside a backup', () => {
  test('and is too large to be a proof, a record or a signature is passed over', async () => {
    const { store, folder } = await oneBackup();
    const pair = await keyPair();
    const [secret, open] = [parseSigningKey(pair.privateKey), parseVerifyKeys(pair.publicKey)];
    assert.ok('key' in secret && 'keys' in open);
    const backup = await only(store);
    for (const hours of [1, 2, 3]) await writeProof(store, proofOf(backup, time(hours)), secret.key);
    const file = (hours: number): string => join(folder, proofName(time(hours)));
    // Both are what they were, but for white space that nobody needs.
    await writeFile(file(3), Buffer.concat([await readFile(file(3)), Buffer.alloc(largestProof, ' ')]));
    await writeFile(`${file(2)}.sig`, Buffer.concat([await readFile(`${file(2)}.sig`), Buffer.alloc(1024, '\n')]));
    const { manifest, manifestSha256 } = backup;
    const opening = (hours: number): Buffer =>
      serializeOpening({
        ...{ format: 'pgassay-opening/1', backupId: manifest.id, name: manifest.name, manifestSha256 },
        ...{ openedAt: time(hours).toISOString(), recipient: 'passphrase', bytes: 3, runUrl: null },
        tools: { pgassay: '0.1.0' },
      });
    await writeFile(file(4), Buffer.concat([opening(4), Buffer.alloc(largestProof, ' ')]));
    await writeFile(file(5), opening(5));
    const tested = await only(store);
    assert.equal(tested.proofs.length, 5);
    const times = async (keys: typeof open.keys): Promise<string[]> =>
      (await readProofs(store, tested, keys)).map(({ testedAt }) => testedAt);
    assert.deepEqual(
      await times([]),
      [2, 1].map((hours) => time(hours).toISOString()),
    );
    assert.deepEqual(await times(open.keys), [time(1).toISOString()]);
    assert.equal((await readOpenings(store, tested)).length, 1);
  });

  test('is read a few files at a time, however many there are and whoever asks', async () => {
    const root = await scratch();
    for (let n = 0; n < 30; n++) {
      const manifest = await storePast(new FolderStore(root), time(n));
      const folder = join(root, manifest.name, manifest.id);
      const manifestSha256 = createHash('sha256')
        .update(await readFile(join(folder, 'manifest.json')))
        .digest('hex');
      await mkdir(join(folder, 'proofs'));
      for (const hours of [40, 41])
        await writeFile(
          join(folder, proofName(time(hours))),
          serializeProof(proofOf({ manifest, manifestSha256 }, time(hours))),
        );
    }
    const { backups } = await readCatalog(new FolderStore(root), noSignatures, 'shop');
    const { store, most } = watched(new FolderStore(root));
    const [newest, all] = await Promise.all([
      Promise.all(backups.map((each) => newestProof(store, each))),
      Promise.all(backups.map((each) => readProofs(store, each))),
      Promise.all(backups.map((each) => readOpenings(store, each))),
    ]);
    assert.deepEqual([newest.filter((each) => each !== undefined).length, all.flat().length], [30, 60]);
    assert.equal(most(), 16);
  });
});

test('a proof of more than fits is stored as its verdict, with the number of its findings', async () => {
  const { store } = await oneBackup();
  const long = 'x'.repeat(2000);
  const findings = Array.from({ length: 1200 }, (_, n) => ({
    object: `public.t${n}`,
    expected: long,
    found: '0 rows',
  }));
  const bytes = serializeProof({ ...proofOf(await only(store), time(1)), result: 'failed', findings, notes: [long] });
  assert.ok(bytes.length <= largestProof);
  const { result, findingsLeftOut, notes } = parseProof(bytes);
  assert.deepEqual([result, findingsLeftOut, notes], ['failed', 1200, []]);
});
