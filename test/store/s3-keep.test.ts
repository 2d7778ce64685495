// How objects are kept: locks, encryption, classes and versions, on a real server that ignores some of it.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { Failure } from '../../src/failure.ts';
import type { S3Options } from '../../src/store/s3-address.ts';
import { put, type Store } from '../../src/store/store.ts';
import { S3Server } from '../support/s3.ts';
import { S3Proxy } from '../support/s3-faults.ts';
import { openS3 } from '../support/s3-store.ts';

const id = '20261121T020000Z-3f9a1c';
const folder = `shop/${id}`;
const large = randomBytes(9_000_000);
const day = 86_400_000;

let server: S3Server;
before(async () => (server = await S3Server.start()));
after(() => server?.stop());

/** The answer's headers of a HEAD of the object. */
const head = async (bucket: string, key: string): Promise<Record<string, unknown>> =>
  (await server.request('HEAD', `/${bucket}/nightly/${key}`)).headers;

async function failure(store: Store, path: string, content: Buffer): Promise<Failure> {
  try {
    await put(store, path, content);
  } catch (error) {
    assert.ok(error instanceof Failure, String(error));
    return error;
  }
  throw new assert.AssertionError({ message: `${path} was stored` });
}

describe('object lock', () => {
  before(() => server.createBucket('locked', { objectLock: true }));

  for (const [mode, days] of [
    ['GOVERNANCE', 1],
    ['COMPLIANCE', 400],
  ] as const)
    test(`${mode} for ${days} days holds for every object, in one part and in several`, async () => {
      const store = openS3(server, 'locked', `nightly/${mode}`, { lock: { mode, days } });
      for (const [file, content] of [
        ['roles.sql', Buffer.from('x')],
        ['database.dump', large],
        ['manifest.json', Buffer.from('{}')],
      ] as const) {
        await put(store, `${folder}/${file}`, content);
        const headers = await head('locked', `${mode}/${folder}/${file}`);
        assert.equal(headers['x-amz-object-lock-mode'], mode, file);
        const until = Date.parse(String(headers['x-amz-object-lock-retain-until-date']));
        assert.ok(Math.abs(until - Date.now() - days * day) < 60_000, `${file}: ${until}`);
      }
    });

  test('a bucket without it is a failure, and nothing passes for stored', async () => {
    await server.createBucket('unlocked');
    const store = openS3(server, 'unlocked', 'nightly', { lock: { mode: 'GOVERNANCE', days: 7 } });
    for (const content of [Buffer.from('x'), large]) {
      const failed = await failure(store, `${folder}/${content.length}.dump`, content);
      assert.ok(failed.exit === 'store' || failed.exit === 'storeCredentials', failed.message);
    }
  });

  test('a lock that a server says it set and did not is a failure', async () => {
    await using proxy = await S3Proxy.start(server);
    const headers = ['x-amz-object-lock-mode', 'x-amz-object-lock-retain-until-date'];
    proxy.fail('HeadObject', { kind: 'drop-response-headers', headers }, { times: Infinity });
    proxy.fail(
      'GetObjectRetention',
      {
        kind: 'function',
        answer: () => ({
          status: 200,
          body: '<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>1990-01-01T00:00:00Z</RetainUntilDate></Retention>',
        }),
      },
      { times: Infinity },
    );
    const place = { ...keys(), endpoint: proxy.endpoint };
    const store = openS3(place, 'locked', 'lying', { lock: { mode: 'GOVERNANCE', days: 7 } });
    const failed = await failure(store, `${folder}/database.dump`, large);
    assert.match(failed.message, /is not locked as s3-object-lock-days asks/);
  });
});

function keys(): { accessKeyId: string; secretAccessKey: string; region: string } {
  const { accessKeyId, secretAccessKey, region } = server;
  return { accessKeyId, secretAccessKey, region };
}

describe('what a store was asked for and silently did not do', () => {
  before(() => server.createBucket('kept'));
  const open = (options: Partial<S3Options>): Store =>
    openS3(server, 'kept', `nightly/${randomBytes(4).toString('hex')}`, options);

  test('a storage class that is there is used', async () => {
    const store = open({ storageClass: 'STANDARD_IA' });
    for (const content of [Buffer.from('x'), large]) {
      await put(store, `${folder}/${content.length}.dump`, content);
      const [, key] = /s3:\/\/kept\/nightly\/(.*)/.exec(store.pathFor(`${folder}/${content.length}.dump`)) ?? [];
      assert.equal((await head('kept', key ?? ''))['x-amz-storage-class'], 'STANDARD_IA');
    }
  });

  test('a storage class that is not there is refused', async () => {
    const failed = await failure(open({ storageClass: 'ONEZONE_IA' }), `${folder}/database.dump`, large);
    assert.ok(failed.exit === 'badInput' || failed.exit === 'store', failed.message);
    assert.match(failed.hint ?? '', /s3-storage-class/);
  });

  test('encryption with a KMS key is done, or the upload fails', async () => {
    const store = open({ encryption: { kind: 'aws:kms', kmsKeyId: 'testkey' } });
    for (const content of [Buffer.from('x'), large]) {
      await put(store, `${folder}/${content.length}.dump`, content);
      const stored = await store.open(`${folder}/${content.length}.dump`);
      assert.ok(stored !== undefined && (await buffer(stored.stream)).equals(content));
    }
    const unknown = open({ encryption: { kind: 'aws:kms', kmsKeyId: 'no-such-key' } });
    assert.match((await failure(unknown, `${folder}/database.dump`, large)).hint ?? '', /s3-sse-kms-key-id/);
  });

  test('AES256, which this server ignores or refuses, fails the upload', async () => {
    const store = open({ encryption: { kind: 'AES256', kmsKeyId: undefined } });
    for (const content of [Buffer.from('x'), large]) {
      const failed = await failure(store, `${folder}/${content.length}.dump`, content);
      assert.match(failed.message, /is not encrypted with AES256 by the store|refused to write/);
      assert.match(failed.hint ?? '', /s3-sse/);
    }
  });
});

describe('F30: a bucket that keeps versions', () => {
  const manifest = `${folder}/manifest.json`;
  let bucket: string;
  let store: Store;

  before(async () => {
    bucket = 'versions';
    await server.createBucket(bucket, { versioning: true });
    store = openS3(server, bucket);
    await put(store, `${folder}/database.dump`, large);
    await put(store, `${folder}/roles.sql`, Buffer.from('-- roles'));
    await put(store, manifest, Buffer.from('{"first": true}'));
  });

  test('shows what a delete marker hides, name, id and files', async () => {
    for (const key of await server.keys(bucket)) await server.delete(bucket, key);
    assert.deepEqual(await server.keys(bucket), []);
    assert.deepEqual(await store.names(), ['shop']);
    assert.deepEqual(await store.ids('shop'), [id]);
    assert.deepEqual([...((await store.files('shop')).get(id)?.keys() ?? [])].sort(), [
      'database.dump',
      'manifest.json',
      'roles.sql',
    ]);
    assert.equal((await store.read(manifest))?.toString(), '{"first": true}');
    assert.equal(store.history(manifest), 'deleted');
    const dump = await store.open(`${folder}/database.dump`);
    assert.ok(dump !== undefined && (await buffer(dump.stream)).equals(large));
  });

  test('gives the first version of what was overwritten, and the next when it is asked for', async () => {
    await server.put(bucket, `nightly/${manifest}`, '{"second": true}');
    await server.put(bucket, `nightly/${folder}/database.dump`, 'short');
    const files = (await store.files('shop', id)).get(id);
    assert.equal(files?.get('database.dump'), large.length);
    assert.equal(store.history(manifest), 'overwritten');
    assert.equal((await store.read(manifest))?.toString(), '{"first": true}');
    assert.equal((await store.read(manifest, 1))?.toString(), '{"second": true}');
    assert.equal(await store.read(manifest, 2), undefined);
    const dump = await store.open(`${folder}/database.dump`);
    assert.ok(dump !== undefined && (await buffer(dump.stream)).equals(large));
  });

  test('is read as it looks when the credentials may not list versions', async () => {
    await using proxy = await S3Proxy.start(server);
    proxy.fail('ListObjectVersions', { kind: 'status', status: 403, code: 'AccessDenied' }, { times: Infinity });
    const plain = openS3({ ...keys(), endpoint: proxy.endpoint }, bucket);
    assert.equal((await plain.files('shop', id)).get(id)?.get('database.dump'), 5);
    await plain.ids('shop');
    assert.equal(proxy.requests.filter((each) => each.operation === 'ListObjectVersions').length, 1);
  });

  test('is cleared of an unfinished run, versions and all', async () => {
    const other = '20261121T020001Z-3f9a1c';
    await put(store, `shop/${other}/roles.sql`, Buffer.from('x'));
    await put(store, `shop/${other}/database.dump`, Buffer.from('x'));
    await store.discard('shop', other);
    assert.deepEqual(
      (await server.versions(bucket)).filter(({ key }) => key.includes(other)),
      [],
    );
  });
});

describe('F31: a bucket with many backups', () => {
  test('is listed page by page, this name only, in few requests', async () => {
    const bucket = 'many';
    await server.createBucket(bucket, { versioning: true });
    const ids = Array.from(
      { length: 620 },
      (_, n) => `20261121T0${Math.floor(n / 60) % 10}${String(n % 60).padStart(2, '0')}00Z-3f9a1c`,
    );
    const work = ids.flatMap((each) =>
      ['database.dump', 'manifest.json'].map((file) => `nightly/shop/${each}/${file}`),
    );
    work.push(
      'nightly/shop-2/20261121T000000Z-3f9a1c/manifest.json',
      'other/shop/20261121T000000Z-3f9a1c/manifest.json',
    );
    while (work.length > 0) await Promise.all(work.splice(0, 20).map((key) => server.put(bucket, key, 'x')));
    await using proxy = await S3Proxy.start(server);
    const store = openS3({ ...keys(), endpoint: proxy.endpoint }, bucket);
    const files = await store.files('shop');
    assert.equal(files.size, new Set(ids).size);
    for (const [, each] of files) assert.equal(each.size, 2);
    assert.deepEqual(await store.ids('shop'), [...new Set(ids)].sort());
    assert.ok(proxy.requests.length <= 5, `${proxy.requests.length} requests`);
  });
});
