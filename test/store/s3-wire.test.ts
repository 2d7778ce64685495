// F21–F25: what can happen on the way to an S3 server, at each of its verbs.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Failure } from '../../src/failure.ts';
import type { S3Options } from '../../src/store/s3-address.ts';
import type { StoreUse } from '../../src/store/store.ts';
import { put, type Store } from '../../src/store/store.ts';
import { S3Server } from '../support/s3.ts';
import { type Fault, type Operation, S3Proxy } from '../support/s3-faults.ts';
import { openS3 } from '../support/s3-store.ts';

const large = randomBytes(20_000_000);
const small = randomBytes(1000);
const folder = 'shop/20261121T020000Z-3f9a1c';
const path = `${folder}/database.dump`;

/** A proxy, a bucket and a store of one test's own. */
class Wire implements AsyncDisposable {
  readonly proxy: S3Proxy;
  readonly bucket: string;
  readonly store: Store;
  readonly #server: S3Server;

  private constructor(server: S3Server, proxy: S3Proxy, bucket: string, store: Store) {
    this.#server = server;
    this.proxy = proxy;
    this.bucket = bucket;
    this.store = store;
  }

  static async open(server: S3Server, options: Partial<S3Options> = {}, use: StoreUse = {}): Promise<Wire> {
    const bucket = `wire-${randomBytes(6).toString('hex')}`;
    const [proxy] = await Promise.all([S3Proxy.start(server), server.createBucket(bucket)]);
    const { accessKeyId, secretAccessKey, region } = server;
    const place = { accessKeyId, secretAccessKey, region, endpoint: proxy.endpoint };
    return new Wire(server, proxy, bucket, openS3(place, bucket, 'p', options, { idleMs: 5000, ...use }));
  }

  async upload(content: Buffer): Promise<void> {
    const begun = await this.store.begin(path, content.length);
    try {
      for (let at = 0; at < content.length; at += 1_000_000) await begun.write(content.subarray(at, at + 1_000_000));
      assert.deepEqual(await begun.complete(), { bytes: content.length });
    } catch (error) {
      await begun.abort();
      throw error;
    }
  }

  async failure(content: Buffer): Promise<Failure> {
    try {
      await this.upload(content);
    } catch (error) {
      assert.ok(error instanceof Failure, String((error as Error).stack));
      return error;
    }
    throw new assert.AssertionError({ message: 'the upload went through' });
  }

  async read(): Promise<Buffer> {
    const file = await this.store.open(path);
    assert.ok(file !== undefined);
    return buffer(file.stream);
  }

  async requireStored(content: Buffer): Promise<void> {
    assert.deepEqual(await this.#server.keys(this.bucket), [`p/${path}`]);
    assert.ok((await this.#server.get(this.bucket, `p/${path}`)).equals(content));
    assert.deepEqual(await this.#server.uploads(this.bucket), []);
  }

  async requireNothing(): Promise<void> {
    assert.deepEqual(await this.#server.keys(this.bucket), []);
    assert.deepEqual(await this.#server.uploads(this.bucket), []);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.proxy.stop();
  }
}

describe('on the way to an S3 server', { concurrency: 4 }, () => {
  let server: S3Server;
  before(async () => (server = await S3Server.start()));
  after(() => server?.stop());

  /** Only silence is waited for. */
  const patience = ({ kind }: Fault): StoreUse => (kind === 'stall' ? { idleMs: 700 } : {});
  const contentFor = (operation: Operation): Buffer => (/^(?:Put|Head)/.test(operation) ? small : large);

  const writing = ['CreateMultipartUpload', 'UploadPart', 'CompleteMultipartUpload', 'PutObject'] as const;
  const passing: readonly (readonly [string, Fault])[] = [
    ['500', { kind: 'status', status: 500, code: 'InternalError' }],
    ['503 SlowDown', { kind: 'status', status: 503, code: 'SlowDown' }],
    ['429', { kind: 'status', status: 429, code: 'TooManyRequests' }],
    ['a reset', { kind: 'reset' }],
    ['a reset after it was done', { kind: 'reset-after' }],
    ['silence', { kind: 'stall' }],
  ];

  for (const operation of writing)
    for (const [what, fault] of passing)
      test(`F21: ${what} at ${operation}, twice, is tried again`, async () => {
        await using wire = await Wire.open(server, {}, patience(fault));
        wire.proxy.fail(operation, fault, { times: 2 });
        await wire.upload(contentFor(operation));
        await wire.requireStored(contentFor(operation));
      });

  test('F21, I-19: 200 with an error in it is a failure of CompleteMultipartUpload, and tried again', async () => {
    await using wire = await Wire.open(server);
    wire.proxy.fail('CompleteMultipartUpload', { kind: 'ok-with-error', code: 'InternalError' });
    await wire.upload(large);
    await wire.requireStored(large);
    await using other = await Wire.open(server);
    other.proxy.fail('CompleteMultipartUpload', { kind: 'ok-with-error', code: 'InternalError' }, { times: Infinity });
    assert.equal((await other.failure(large)).exit, 'store');
    await other.requireNothing();
  });

  for (const operation of writing)
    for (const [what, fault, exit, transient] of [
      ['500', { kind: 'status', status: 500, code: 'InternalError' }, 'store', true],
      ['503 SlowDown', { kind: 'status', status: 503, code: 'SlowDown' }, 'store', true],
      ['a reset', { kind: 'reset' }, 'store', true],
      ['silence', { kind: 'stall' }, 'store', true],
      ['403', { kind: 'status', status: 403, code: 'AccessDenied' }, 'storeCredentials', false],
      ['an expired token', { kind: 'status', status: 400, code: 'ExpiredToken' }, 'storeCredentials', false],
      ['a full store', { kind: 'status', status: 507, code: 'InsufficientStorage' }, 'disk', false],
    ] as const)
      test(`F21–F23, I-17: ${what} at every ${operation} is told, and leaves nothing`, async () => {
        await using wire = await Wire.open(server, {}, patience(fault));
        wire.proxy.fail(operation, fault, { times: Infinity });
        const failed = await wire.failure(contentFor(operation));
        assert.equal(failed.exit, exit, failed.message);
        assert.equal(failed.transient, transient, failed.message);
        assert.equal(failed.stage, 'upload');
        assert.ok(failed.hint !== undefined && failed.hint.length > 10);
        await wire.requireNothing();
      });

  test('I-20: what will not change is asked once', async () => {
    await using wire = await Wire.open(server);
    for (const code of ['AccessDenied', 'InvalidAccessKeyId', 'SignatureDoesNotMatch']) {
      const before = wire.proxy.requests.length;
      wire.proxy.fail('PutObject', { kind: 'status', status: 403, code });
      await wire.failure(small);
      assert.equal(wire.proxy.requests.slice(before).filter((each) => each.operation === 'PutObject').length, 1);
    }
  });

  for (const [code, status, says, exit] of [
    ['AccessDenied', 403, /may not write s3:\/\/wire-[0-9a-f]+\/p\/shop.*database\.dump/, 'storeCredentials'],
    ['InvalidAccessKeyId', 403, /does not know this access key id/, 'storeCredentials'],
    ['SignatureDoesNotMatch', 403, /does not belong to this access key id/, 'storeCredentials'],
    ['ExpiredToken', 400, /session token of the store has expired/, 'storeCredentials'],
    ['InvalidToken', 400, /session token does not belong to these keys/, 'storeCredentials'],
    ['RequestTimeTooSkewed', 403, /clock and the store's are more than 15 minutes apart/, 'store'],
    ['NoSuchBucket', 404, /there is no bucket wire-[0-9a-f]+/, 'store'],
    ['PermanentRedirect', 301, /the bucket wire-[0-9a-f]+ is not in us-east-1/, 'store'],
    ['AuthorizationHeaderMalformed', 400, /the bucket wire-[0-9a-f]+ is not in us-east-1/, 'store'],
    ['QuotaExceeded', 403, /no space left/, 'disk'],
    ['InvalidStorageClass', 400, /has no storage class/, 'badInput'],
    ['KMS.DisabledException', 400, /may not use the KMS key/, 'storeCredentials'],
    ['ConditionalRequestConflict', 409, /another writer/, 'store'],
    ['MethodNotAllowed', 405, /refused to write .* \(405 MethodNotAllowed\)/, 'store'],
  ] as const)
    test(`F22, F23: ${status} ${code} has its own words`, async () => {
      await using wire = await Wire.open(server);
      const canary = 'ROW-VALUE-4711';
      wire.proxy.fail('PutObject', { kind: 'status', status, code, message: canary }, { times: Infinity });
      const failed = await wire.failure(small);
      assert.match(failed.message, says);
      assert.equal(failed.exit, exit);
      assert.ok(!`${failed.message} ${failed.hint}`.includes(canary), "the server's own text is not repeated");
    });

  test('F24: a server that refuses checksum headers gets MD5 sums, and the run goes on', async () => {
    for (const [operation, content] of [
      ['CreateMultipartUpload', large],
      ['PutObject', small],
    ] as const) {
      await using wire = await Wire.open(server);
      // Of a request with a condition, the condition is given up first.
      const times = operation === 'PutObject' ? 2 : 1;
      wire.proxy.fail(operation, { kind: 'status', status: 501, code: 'NotImplemented' }, { times });
      await wire.upload(content);
      await wire.requireStored(content);
      const sent = wire.proxy.requests.filter(
        (each) => each.operation === (content === small ? 'PutObject' : 'UploadPart'),
      );
      assert.ok(sent.at(-1)?.headers['content-md5'] !== undefined);
      assert.equal(sent.at(-1)?.headers['x-amz-checksum-crc32'], undefined);
    }
  });

  test('F24: with when-required no checksum header is ever sent', async () => {
    await using wire = await Wire.open(server, { checksums: 'when-required' });
    const before = wire.proxy.requests.length;
    await wire.upload(large);
    for (const { headers, operation } of wire.proxy.requests.slice(before))
      assert.ok(!Object.keys(headers).some((name) => /x-amz-(?:sdk-)?checksum/.test(name)), operation);
  });

  test('F25, I-15: 412 for an object that somebody else wrote is "already there"', async () => {
    await using wire = await Wire.open(server);
    await server.put(wire.bucket, `p/${path}`, 'theirs');
    wire.proxy.fail('HeadObject', { kind: 'status', status: 404, code: 'NotFound' });
    const failed = await wire.failure(small);
    assert.equal(failed.exit, 'exists');
    assert.equal((await server.get(wire.bucket, `p/${path}`)).toString(), 'theirs');
  });

  test('a server that refuses the checksum of a part, and not of the upload, gets MD5 sums too', async () => {
    await using wire = await Wire.open(server);
    wire.proxy.fail('UploadPart', { kind: 'status', status: 400, code: 'InvalidArgument' });
    await wire.upload(large);
    await wire.requireStored(large);
  });

  test('a 412 because of an object that is not there is not believed', async () => {
    for (const [operation, content] of [
      ['CompleteMultipartUpload', large],
      ['PutObject', small],
    ] as const) {
      await using wire = await Wire.open(server);
      wire.proxy.fail(operation, { kind: 'status', status: 412, code: 'PreconditionFailed' });
      await wire.upload(content);
      await wire.requireStored(content);
      const sent = wire.proxy.requests.filter((each) => each.operation === operation);
      assert.equal(sent.at(0)?.headers['if-none-match'], '*');
      assert.equal(sent.at(-1)?.headers['if-none-match'], undefined);
    }
  });

  test('I-15: whether the condition is honoured is found out once, by writing a small file twice', async () => {
    await using wire = await Wire.open(server);
    const puts = (): number => wire.proxy.requests.filter((each) => each.operation === 'PutObject').length;
    await put(wire.store, `${folder}/roles.sql`, small);
    assert.equal(puts(), 2);
    await put(wire.store, `${folder}/census.json`, small);
    await put(wire.store, `${folder}/manifest.json`, small);
    assert.equal(puts(), 4);
    // A server that ignores it: every write is preceded by a look.
    await using other = await Wire.open(server);
    other.proxy.fail(
      'PutObject',
      { kind: 'function', answer: () => ({ status: 200, headers: { etag: '"x"' } }) },
      { nth: 2 },
    );
    await put(other.store, `${folder}/roles.sql`, small);
    await server.put(other.bucket, `p/${folder}/census.json`, 'theirs');
    await assert.rejects(put(other.store, `${folder}/census.json`, small), { exit: 'exists' });
    // A bucket whose own rules forbid it keeps the promise in another way.
    await using third = await Wire.open(server);
    third.proxy.fail('PutObject', { kind: 'status', status: 403, code: 'AccessDenied' }, { nth: 2 });
    await put(third.store, `${folder}/roles.sql`, small);
  });

  test('a store that takes nothing any more holds the writer back, and memory with it', async () => {
    await using wire = await Wire.open(server, {}, { idleMs: 60_000 });
    wire.proxy.fail('UploadPart', { kind: 'stall' }, { times: Infinity });
    const begun = await wire.store.begin(path, 1e9);
    const chunk = Buffer.alloc(1_000_000);
    let taken = 0;
    const writing = (async () => {
      for (;;) {
        await begun.write(chunk);
        taken += chunk.length;
      }
    })();
    writing.catch(() => {});
    for (let before = -1; before !== taken; await sleep(300)) before = taken;
    assert.ok(taken > 8e6 && taken < 60e6, `${taken} bytes were taken`);
    await begun.abort();
    await assert.rejects(writing);
    await wire.requireNothing();
  });

  test('a byte that changes on the way is refused', async () => {
    await using wire = await Wire.open(server);
    wire.proxy.fail('UploadPart', { kind: 'corrupt-request' }, { times: Infinity });
    await wire.failure(large);
    await wire.requireNothing();
  });

  test('I-16: an object that has another size than what was sent is not taken for stored', async () => {
    await using wire = await Wire.open(server);
    wire.proxy.fail(
      'HeadObject',
      {
        kind: 'function',
        answer: () => ({ status: 200, headers: { 'content-length': '999', etag: '"x"' } }),
      },
      { nth: 2, times: Infinity },
    );
    const failed = await wire.failure(small);
    assert.match(failed.message, /has 999 bytes of the 1000 that were sent/);
  });

  test('I-16: an object that has another checksum than what was sent is not taken for stored', async () => {
    await using wire = await Wire.open(server);
    wire.proxy.fail(
      'HeadObject',
      {
        kind: 'function',
        answer: () => ({ status: 200, headers: { 'content-length': '1000', 'x-amz-checksum-crc32': 'AAAAAA==' } }),
      },
      { nth: 2, times: Infinity },
    );
    assert.match((await wire.failure(small)).message, /has another checksum than what was sent/);
  });

  /** With one large object in it. */
  async function stocked(use: StoreUse = {}): Promise<Wire> {
    const wire = await Wire.open(server, {}, use);
    await wire.upload(large);
    return wire;
  }

  for (const [what, fault] of [
    ['500', { kind: 'status', status: 500, code: 'InternalError' }],
    ['503 SlowDown', { kind: 'status', status: 503, code: 'SlowDown' }],
    ['a reset', { kind: 'reset' }],
    ['silence', { kind: 'stall' }],
    ['an answer that is cut off', { kind: 'truncate', bytes: 5_000_000 }],
  ] as const)
    test(`F21: ${what} at GetObject, twice, is tried again from where it was`, async () => {
      await using wire = await stocked(patience(fault));
      wire.proxy.fail('GetObject', fault, { times: 2 });
      assert.ok((await wire.read()).equals(large));
    });

  test('an answer that is cut off every time is a failure, not a short file', async () => {
    await using wire = await stocked();
    wire.proxy.fail('GetObject', { kind: 'truncate', bytes: 1000 }, { times: Infinity });
    await assert.rejects(wire.read(), (error: unknown) => error instanceof Failure && error.stage === 'download');
  });

  test('F22: 403 at GetObject and at ListObjectsV2 name the permission; at ListObjectVersions a plain list does', async () => {
    await using wire = await stocked();
    wire.proxy.fail('GetObject', { kind: 'status', status: 403, code: 'AccessDenied' });
    await assert.rejects(wire.read(), { message: /may not read s3:\/\//, hint: /allow s3:GetObject on arn:aws:s3:::/ });
    const denied: Fault = { kind: 'status', status: 403, code: 'AccessDenied' };
    wire.proxy.fail('ListObjectVersions', denied);
    assert.equal((await wire.store.ids('shop')).length, 1);
    wire.proxy.fail('ListObjectsV2', denied);
    await assert.rejects(wire.store.ids('shop'), {
      message: /may not list the bucket/,
      hint: `allow s3:ListBucket on arn:aws:s3:::${wire.bucket}`,
    });
  });

  for (const fault of [
    { kind: 'status', status: 500, code: 'InternalError' },
    { kind: 'reset' },
    { kind: 'truncate', bytes: 100 },
  ] as const)
    test(`F21: ${fault.kind} at ListObjectVersions is tried again, and told when it stays`, async () => {
      await using wire = await stocked();
      wire.proxy.fail('ListObjectVersions', fault, { times: 2 });
      assert.equal((await wire.store.ids('shop')).length, 1);
      wire.proxy.fail('ListObjectVersions', fault, { times: Infinity });
      await assert.rejects(
        wire.store.ids('shop'),
        (error: unknown) => error instanceof Failure && error.exit === 'store',
      );
    });

  for (const operation of [...writing, 'HeadObject'] as const)
    test(`F28: a cancelled run ends at once while ${operation} hangs, and can still clean up`, async () => {
      const cancelling = new AbortController();
      await using wire = await Wire.open(server, {}, { signal: cancelling.signal, idleMs: 60_000 });
      wire.proxy.fail(operation, { kind: 'stall' }, { times: Infinity });
      const begun = Date.now();
      setTimeout(() => cancelling.abort(new Failure('upload', 'cancelled', 'cancelled')), 300);
      const failed = await wire.failure(contentFor(operation));
      assert.equal(failed.exit, 'cancelled', failed.message);
      wire.proxy.heal();
      await wire.store.discard('shop', folder.slice(5));
      assert.ok(Date.now() - begun < 5000);
      await wire.requireNothing();
    });
});
