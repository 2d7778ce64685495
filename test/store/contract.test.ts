// What every store promises, whatever it is made of.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { decrypt, generateKeyPair } from '../../src/age.ts';
import { Failure } from '../../src/failure.ts';
import { Outgoing } from '../../src/outgoing.ts';
import { FolderStore } from '../../src/store/folder.ts';
import { put, type Store } from '../../src/store/store.ts';
import { ArtifactServer, openArtifacts, pathsIn } from '../support/artifacts.ts';
import { filesIn, scratch } from '../support/faults.ts';
import { S3Server } from '../support/s3.ts';
import { openS3 } from '../support/s3-store.ts';

/** What every manifest has: a store may have nothing else to find its backup by. */
const manifest = (of: string): Buffer => Buffer.from(JSON.stringify({ id: of }));
const id = (n: number): string => `20261121T0200${String(n).padStart(2, '0')}Z-3f9a1c`;

interface Place {
  readonly store: Store;
  /** Every file that is visible in the store, and whatever is hidden or half there. */
  readonly everything: () => Promise<string[]>;
  /** What is not complete is not in the store in any form, and nothing is that does not belong to a backup. */
  readonly spools?: boolean;
}

function promises(kind: string, open: () => Promise<Place>): void {
  describe(`a ${kind} store`, () => {
    let store: Store;
    let everything: Place['everything'];
    let spools: boolean;
    before(async () => ({ store, everything, spools = false } = await open()));

    test('that is empty has no names, no ids, no files', async () => {
      assert.deepEqual(await store.names(), []);
      assert.deepEqual(await store.ids('shop'), []);
      assert.deepEqual([...(await store.files('shop'))], []);
      assert.equal(await store.read('shop/x/manifest.json'), undefined);
      assert.equal(await store.open('shop/x/database.dump'), undefined);
    });

    test('gives back what was put, in one piece and in many', async () => {
      for (const [file, size, chunk] of [
        ['roles.sql', 0, 1],
        ['census.json', 100_001, 7777],
        ['database.dump', 21_000_003, 65_536],
      ] as const) {
        const content = randomBytes(size);
        const path = `shop/${id(1)}/${file}`;
        const upload = await store.begin(path, size);
        for (let at = 0; at < size; at += chunk) await upload.write(content.subarray(at, at + chunk));
        assert.ok(
          !(await store.files('shop', id(1))).get(id(1))?.has(file),
          'nothing is visible before it is complete',
        );
        assert.equal((await upload.complete()).bytes, size);
        await upload.abort();
        const stored = await store.open(path);
        assert.equal(stored?.bytes, size);
        assert.ok(stored !== undefined && (await buffer(stored.stream)).equals(content));
        assert.ok((await store.read(path))?.equals(content));
      }
      assert.deepEqual(
        [...(await store.files('shop', id(1)))].map(([of, files]) => [of, [...files].sort()]),
        [
          [
            id(1),
            [
              ['census.json', 100_001],
              ['database.dump', 21_000_003],
              ['roles.sql', 0],
            ],
          ],
        ],
      );
    });

    test('reads a chunk before the caller may use its memory again', async () => {
      const chunk = Buffer.alloc(300_000);
      const hash = createHash('sha256');
      const upload = await store.begin(`shop/${id(2)}/database.dump`, 1000);
      for (let n = 0; n < 70; n++) {
        chunk.fill(n);
        hash.update(chunk);
        await upload.write(chunk);
      }
      await upload.complete();
      const stored = await store.open(`shop/${id(2)}/database.dump`);
      assert.ok(stored !== undefined);
      const found = createHash('sha256').update(await buffer(stored.stream));
      assert.equal(found.digest('hex'), hash.digest('hex'));
    });

    test('gives back what was encrypted on its way, whoever of the recipients asks', async () => {
      const [one, two] = await Promise.all([generateKeyPair('x25519'), generateKeyPair('x25519')]);
      const encryption = { to: 'recipients', recipients: [one.recipient, two.recipient] } as const;
      const chunk = Buffer.alloc(65_536);
      const hash = createHash('sha256');
      const path = `shop/${id(7)}/database.dump.age`;
      const upload = await store.begin(path, 1000);
      const outgoing = await Outgoing.begin(upload, encryption);
      for (let n = 0; n < 140; n++) {
        chunk.fill(n);
        hash.update(chunk);
        await outgoing.write(chunk);
      }
      const sent = await outgoing.end();
      assert.equal((await upload.complete()).bytes, sent.bytes);
      const stored = await store.read(path);
      assert.ok(stored !== undefined);
      assert.equal(createHash('sha256').update(stored).digest('hex'), sent.sha256);
      const expected = hash.digest('hex');
      for (const { identity, recipient } of [one, two]) {
        const opened = await decrypt(stored, { identities: [identity], passphrase: undefined });
        assert.equal(opened.recipient, recipient);
        assert.equal(createHash('sha256').update(opened.plain).digest('hex'), expected);
      }
      // A killed run's: nobody has given it up.
      const before = await everything();
      const begun = await store.begin(`gone/${id(7)}/database.dump.age`, 20_000_000);
      const killed = await Outgoing.begin(begun, encryption);
      for (let n = 0; n < 160; n++) await killed.write(chunk);
      // GitHub gets nothing of an artifact before it is whole.
      if (kind !== 'workflow artifact') assert.ok((await everything()).length > before.length);
      await store.discard('gone', id(7));
      assert.deepEqual(await everything(), before);
      await begun.abort();
    });

    test('never replaces a file, small or large', async () => {
      for (const [file, size] of [
        ['roles.sql', 10],
        ['database.dump', 20_000_000],
      ] as const) {
        const path = `shop/${id(3)}/${file}`;
        const first = randomBytes(size);
        await put(store, path, first);
        await assert.rejects(put(store, path, randomBytes(size)), (error: unknown) => {
          assert.ok(error instanceof Failure);
          assert.equal(error.exit, 'exists');
          return true;
        });
        const stored = await store.open(path);
        assert.ok(stored !== undefined && (await buffer(stored.stream)).equals(first));
      }
    });

    test('leaves nothing of an upload that is given up', async () => {
      const before = await everything();
      for (const size of [10, 20_000_000]) {
        const upload = await store.begin(`gone/${id(4)}/database.dump`, size);
        await upload.write(randomBytes(size));
        await upload.abort();
        await upload.abort();
        await store.discard('gone', id(4));
      }
      assert.deepEqual(await everything(), before);
      assert.ok(!(await store.names()).includes('gone'));
    });

    test('discards what an unfinished run put there, and nothing beside a manifest', async () => {
      for (const file of ['database.dump', 'roles.sql', 'census.json', 'manifest.sig'])
        await put(store, `shop/${id(5)}/${file}`, Buffer.from('x'));
      await store.discard('shop', id(5));
      assert.equal((await store.files('shop', id(5))).get(id(5))?.size ?? 0, 0);
      await put(store, `shop/${id(6)}/database.dump`, Buffer.from('x'));
      await put(store, `shop/${id(6)}/manifest.json`, manifest(id(6)));
      await store.discard('shop', id(6));
      assert.deepEqual([...((await store.files('shop', id(6))).get(id(6)) ?? new Map()).keys()].sort(), [
        'database.dump',
        'manifest.json',
      ]);
    });

    test('is swept of what runs left unfinished, when it is old enough, and of nothing else', async () => {
      const before = await everything();
      const [past, future] = [-60_000, 60_000].map((ms) => new Date(Date.now() + ms)) as [Date, Date];
      const killed = await store.begin(`swept/${id(1)}/database.dump`, 20_000_000);
      await killed.write(randomBytes(20_000_000));
      for (const file of ['database.dump', 'manifest.sig'])
        await put(store, `swept/${id(2)}/${file}`, Buffer.from('x'));
      for (const file of ['database.dump', 'manifest.json'])
        await put(store, `swept/${id(3)}/${file}`, manifest(id(3)));
      await put(store, `swept-2/${id(4)}/roles.sql`, Buffer.from('x'));
      assert.deepEqual(await store.sweep('swept', past), []);
      assert.deepEqual(await store.sweep('swept', future), spools ? [id(2)] : [id(1), id(2)]);
      assert.deepEqual(await store.sweep('swept', future), []);
      const left = (await everything()).filter((file) => !before.includes(file));
      assert.deepEqual(
        left.map((file) => file.slice(file.indexOf('swept'))),
        [`swept-2/${id(4)}/roles.sql`, `swept/${id(3)}/database.dump`, `swept/${id(3)}/manifest.json`],
      );
      await killed.abort();
      await store.sweep('swept-2', future);
    });

    test('lists names and ids of its own making only, sorted', async () => {
      await put(store, `a.b/${id(9)}/manifest.json`, manifest(id(9)));
      await put(store, `a.b/${id(8)}/manifest.json`, manifest(id(8)));
      await put(store, `a.b/not-an-id/manifest.json`, manifest('not-an-id'));
      await put(store, `_state/${id(8)}/manifest.json`, manifest(id(8)));
      assert.deepEqual(await store.names(), ['a.b', 'shop', 'swept']);
      assert.deepEqual(await store.ids('a.b'), [id(8), id(9)]);
      assert.deepEqual([...(await store.files('a.b')).keys()], [id(8), id(9)]);
      assert.deepEqual(await store.ids('a'), []);
    });

    test('has a clock', async () => {
      assert.ok(Math.abs((await store.now()).getTime() - Date.now()) < 5000);
    });

    test('removes a backup whole, and nothing that is not its own', async () => {
      const folder = `gone/${id(9)}`;
      const files = ['database.dump', 'census.json', 'manifest.json', 'manifest.sig', 'proofs/20261121T020000Z.json'];
      const content = Buffer.from(JSON.stringify({ id: id(9), backupId: id(9), testedAt: '2026-11-21T02:00:00Z' }));
      for (const file of files) await put(store, `${folder}/${file}`, content);
      const foreign = spools ? [] : [['notes.txt', content.length]];
      if (!spools) await put(store, `${folder}/notes.txt`, content);
      assert.deepEqual(await store.remove('gone', id(9)), { kind: 'removed' });
      assert.deepEqual([...((await store.files('gone')).get(id(9)) ?? [])], foreign);
      assert.deepEqual(await store.remove('gone', id(9)), { kind: 'removed' }, 'what is gone stays gone');
      assert.equal((await everything()).filter((file) => /\bgone\b/.test(file)).length, foreign.length);
    });
  });
}

promises('folder', async () => {
  const folder = await scratch();
  return { store: new FolderStore(folder), everything: () => filesIn(folder) };
});

describe('on the artifacts of a repository', () => {
  let server: ArtifactServer;
  before(async () => (server = await ArtifactServer.start()));
  after(() => server[Symbol.asyncDispose]());

  promises('workflow artifact', async () => ({
    store: await openArtifacts(server, { id: 1 }),
    everything: () => pathsIn(server),
    spools: true,
  }));
});

/** `http://KEY:SECRET@host:port`: another server than ours. */
const elsewhere = process.env.PGASSAY_TEST_S3;

describe('on a real S3 server', () => {
  let server: S3Server;
  before(async () => (server = elsewhere === undefined ? await S3Server.start() : S3Server.at(new URL(elsewhere))));
  after(() => server.stop());

  for (const [kind, bucket, options] of [
    ['S3', 'plain', {}],
    ['versioned S3', 'versioned', { versioning: true }],
  ] as const)
    promises(kind, async () => {
      await server.createBucket(bucket, options);
      return {
        store: openS3(server, bucket, 'nightly/eu'),
        everything: async () => [
          ...(await server.keys(bucket)),
          ...(await server.uploads(bucket)).map((upload) => `${upload.key} (unfinished)`),
        ],
      };
    });
});
