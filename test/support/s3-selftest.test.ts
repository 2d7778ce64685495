import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { Agent, request as open } from 'node:http';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { processes, until } from './faults.ts';
import { type S3Request, type S3Response, S3Server } from './s3.ts';
import { S3Proxy } from './s3-faults.ts';

const mebibyte = Buffer.alloc(1024 * 1024, 'pgassay ');
const partial = Buffer.alloc(5 * 1024 * 1024, 'part ');

/** How many bits differ. */
function differences(a: Buffer, b: Buffer): number {
  assert.equal(a.length, b.length);
  let bits = 0;
  for (const [i, byte] of a.entries()) {
    for (let rest = byte ^ (b[i] ?? 0); rest > 0; rest >>= 1) bits += rest & 1;
  }
  return bits;
}

function processesOf(directory: string): string[] {
  return processes()
    .filter(({ args }) => args.some((arg) => arg.includes(directory)))
    .map(({ args }) => args.join(' '));
}

const code = (response: S3Response): string | undefined => /<Code>(.*)<\/Code>/.exec(String(response.body))?.[1];

describe('an S3 server of a test', () => {
  test('leaves no process and no folder behind when it is stopped', async () => {
    const server = await S3Server.start();
    const programs = processesOf(server.directory).join('\n');
    for (const name of ['ceph-mon', 'ceph-osd', 'radosgw']) assert.match(programs, new RegExp(`^${name} `, 'm'));
    await server.stop();
    await server.stop();
    const daemons = processesOf(server.directory).filter((line) => /^(ceph|radosgw)/.test(line));
    assert.deepEqual(daemons, []);
    assert.ok(!existsSync(server.directory));
    // The shell that watches over it learns of its end a moment later.
    await until(() => processesOf(server.directory).length === 0);
  });

  for (const [how, wait] of [
    ['up', 'await S3Server.start()'],
    ['coming up', 'void S3Server.start()'],
  ] as const) {
    test(`that is ${how} dies with a test that is killed`, async () => {
      const program = `
        import { readdirSync } from 'node:fs';
        import { S3Server } from ${JSON.stringify(import.meta.resolve('./s3.ts'))};
        ${wait};
        setInterval(() => console.log('alive'), 100);`;
      const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      await new Promise((resolve) => child.stdout.once('data', resolve));
      const directory = await until(() =>
        processes()
          .filter(({ parent }) => parent === child.pid)
          .flatMap(({ args }) => args.filter((arg) => /^\/.*\/pgassay-s3-\w+$/.test(arg)))
          .at(0),
      );
      assert.ok(existsSync(directory));
      child.kill('SIGKILL');
      await until(() => processesOf(directory).length === 0 && !existsSync(directory));
    });
  }
});

describe('with an S3 server', () => {
  let server: S3Server;
  let proxy: S3Proxy;
  const call = (method: string, path: string, options: S3Request = {}): Promise<S3Response> =>
    server.request(method, path, { ...options, endpoint: proxy.endpoint });

  before(async () => {
    server = await S3Server.start();
    await server.createBucket('bucket');
    await server.put('bucket', 'there', mebibyte, { 'x-amz-acl': 'public-read' });
    proxy = await S3Proxy.start(server);
  });
  after(async () => {
    await proxy?.stop();
    await server?.stop();
  });
  afterEach(() => {
    proxy.heal();
    proxy.release();
    proxy.skewMs = 0;
  });

  test('objects come back as they went, whatever their key', async () => {
    const key = "a folder/größe +&<>'()*!~%2F=.dump";
    for (const endpoint of [server.endpoint, proxy.endpoint]) {
      assert.equal((await server.request('PUT', `/bucket/${key}`, { body: mebibyte, endpoint })).status, 200);
      assert.deepEqual((await server.request('GET', `/bucket/${key}`, { endpoint })).body, mebibyte);
      assert.deepEqual(await server.keys('bucket', 'a f'), [key]);
      await server.delete('bucket', key);
      assert.deepEqual(await server.keys('bucket', 'a f'), []);
    }
    await assert.rejects(server.get('bucket', key), /GET \/bucket\/a folder.*: 404 .*NoSuchKey/s);
    assert.equal(code(await server.request('PUT', '/missing/key', { body: mebibyte })), 'NoSuchBucket');
    const headers = { 'x-amz-date': '20200101T000000Z' };
    assert.equal(code(await server.request('GET', '/bucket', { headers })), 'RequestTimeTooSkewed');
  });

  test('every key is listed, page after page', async () => {
    await server.createBucket('many');
    const keys = Array.from({ length: 1001 }, (_, i) => `key-${String(i).padStart(4, '0')}`);
    for (let i = 0; i < keys.length; i += 50) {
      await Promise.all(keys.slice(i, i + 50).map((key) => server.put('many', key, '')));
    }
    assert.deepEqual(await server.keys('many'), keys);
  });

  test('versions, delete markers and locks', async () => {
    await server.createBucket('versions', { versioning: true });
    await server.put('versions', 'key', 'one');
    await server.put('versions', 'key', 'second');
    await server.delete('versions', 'key');
    const [second, first, marker, ...more] = await server.versions('versions', 'k');
    assert.deepEqual([first?.size, first?.isLatest, second?.size, more], [3, false, 6, []]);
    assert.deepEqual([marker?.key, marker?.isLatest, marker?.isDeleteMarker], ['key', true, true]);
    await server.delete('versions', 'key', marker?.versionId);
    assert.equal(String(await server.get('versions', 'key')), 'second');

    await server.createBucket('locked', { objectLock: true });
    const { headers } = await server.put('locked', 'key', 'kept', {
      'x-amz-object-lock-mode': 'COMPLIANCE',
      'x-amz-object-lock-retain-until-date': new Date(Date.now() + 3_600_000).toISOString(),
    });
    await assert.rejects(server.delete('locked', 'key', String(headers['x-amz-version-id'])), /403/);
  });

  test('storage classes and keys of KMS', async () => {
    await server.put('bucket', 'cold', 'x', { 'x-amz-storage-class': 'STANDARD_IA' });
    assert.equal((await call('HEAD', '/bucket/cold')).headers['x-amz-storage-class'], 'STANDARD_IA');
    const encryption = { 'x-amz-server-side-encryption': 'aws:kms' };
    const key = 'x-amz-server-side-encryption-aws-kms-key-id';
    await server.put('bucket', 'secret', 'x', { ...encryption, [key]: 'testkey' });
    assert.equal((await call('HEAD', '/bucket/secret')).headers[key], 'testkey');
    assert.equal(String(await server.get('bucket', 'secret')), 'x');
    await assert.rejects(
      server.put('bucket', 'secret', 'x', { ...encryption, [key]: 'unknown' }),
      /Failed to retrieve the actual key/,
    );
  });

  test('uploads in parts, and what the proxy calls each request', async () => {
    const from = proxy.requests.length;
    const path = '/bucket/parts';
    const begin = async (): Promise<string> => {
      const started = await call('POST', path, { query: { uploads: '' } });
      return /<UploadId>(.*)<\/UploadId>/.exec(String(started.body))?.[1] ?? '';
    };
    const uploadId = await begin();
    assert.deepEqual(await server.uploads('bucket'), [{ key: 'parts', uploadId }]);
    const part = await call('PUT', path, { query: { uploadId, partNumber: '1', 'x-id': 'UploadPart' }, body: partial });
    const body = `<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>${part.headers.etag}</ETag></Part></CompleteMultipartUpload>`;
    assert.equal((await call('POST', path, { query: { uploadId }, body })).status, 200);
    assert.deepEqual((await call('GET', path, { query: { 'x-id': 'GetObject' } })).body, partial);
    await call('DELETE', path, { query: { uploadId: await begin() } });
    assert.deepEqual(await server.uploads('bucket'), []);
    await call('PUT', path, { query: { retention: '' } });
    await call('GET', path, { query: { retention: '' } });
    await call('GET', path, { query: { tagging: '' } });
    await call('HEAD', path);
    await call('DELETE', path, { query: { versionId: 'null' } });
    await call('HEAD', '/bucket');
    await call('GET', '/bucket', { query: { 'list-type': '2', prefix: '' } });
    await call('GET', '/bucket', { query: { versions: '' } });
    await call('GET', '/bucket', { query: { uploads: '' } });
    await call('POST', '/bucket', { query: { delete: '' }, body: '<Delete/>' });
    await call('GET', '/');
    await call('PUT', '/bucket/put');
    const seen = proxy.requests.slice(from);
    assert.deepEqual(
      seen.map(({ operation }) => operation),
      [
        ...['CreateMultipartUpload', 'UploadPart', 'CompleteMultipartUpload', 'GetObject', 'CreateMultipartUpload'],
        ...['AbortMultipartUpload', 'PutObjectRetention', 'GetObjectRetention', 'Other', 'HeadObject', 'DeleteObject'],
        ...['HeadBucket', 'ListObjectsV2', 'ListObjectVersions', 'ListMultipartUploads', 'DeleteObjects', 'Other'],
        'PutObject',
      ],
    );
    const { method, query, status, aborted } = seen[1] ?? {};
    assert.deepEqual([method, seen[1]?.path, status, aborted], ['PUT', path, 200, false]);
    assert.deepEqual(query, { uploadId, partNumber: '1', 'x-id': 'UploadPart' });
    assert.equal(proxy.headersSeen('UploadPart').at(-1)?.['content-length'], String(partial.length));
  });

  test('an error of a fault hits the requests it is meant for', async () => {
    const slowDown = { kind: 'status', status: 503, code: 'SlowDown' } as const;
    proxy.fail('PutObject', slowDown, { nth: 2, times: 2 });
    const statuses = [];
    for (const key of ['f1', 'f2', 'f3', 'f4']) {
      await call('GET', '/bucket/there');
      const answer = await call('PUT', `/bucket/${key}`, { body: mebibyte });
      statuses.push([answer.status, code(answer)]);
    }
    assert.deepEqual(statuses, [
      [200, undefined],
      [503, 'SlowDown'],
      [503, 'SlowDown'],
      [200, undefined],
    ]);
    assert.deepEqual(await server.keys('bucket', 'f'), ['f1', 'f4']);
    proxy.fail('*', slowDown, { times: Number.POSITIVE_INFINITY });
    for (const method of ['HEAD', 'GET', 'DELETE']) assert.equal((await call(method, '/bucket/there')).status, 503);
    proxy.heal();
    assert.equal((await call('HEAD', '/bucket/there')).status, 200);
  });

  test('an error that comes with 200, and an answer of the test’s own', async () => {
    proxy.fail('PutObject', { kind: 'ok-with-error', code: 'InternalError' });
    const answer = await call('PUT', '/bucket/late', { body: mebibyte });
    assert.deepEqual([answer.status, code(answer)], [200, 'InternalError']);
    proxy.fail(
      'GetObject',
      {
        kind: 'function',
        answer: ({ path }) =>
          path === '/bucket/mine' ? { status: 418, headers: { 'x-a': 'b' }, body: 'tea' } : undefined,
      },
      { times: 2 },
    );
    const mine = await call('GET', '/bucket/mine');
    assert.deepEqual([mine.status, mine.headers['x-a'], String(mine.body)], [418, 'b', 'tea']);
    assert.deepEqual((await call('GET', '/bucket/there')).body, mebibyte);
  });

  test('a reset in the middle of a request, and one after it was served', async () => {
    proxy.fail('*', { kind: 'reset' }, { times: 2 });
    await assert.rejects(call('PUT', '/bucket/lost', { body: partial }), /ECONNRESET|EPIPE/);
    await assert.rejects(call('GET', '/bucket/there'), /ECONNRESET/);
    assert.deepEqual(await server.keys('bucket', 'lost'), []);
    proxy.fail('PutObject', { kind: 'reset-after' });
    await assert.rejects(call('PUT', '/bucket/done', { body: partial }), /ECONNRESET/);
    assert.deepEqual(await server.get('bucket', 'done'), partial);
    await until(() => proxy.requests.at(-1)?.aborted);
    assert.equal(proxy.requests.at(-1)?.status, undefined);
  });

  test('a stalled request hangs until it is released', async () => {
    proxy.fail('PutObject', { kind: 'stall' });
    let over = false;
    const put = call('PUT', '/bucket/stalled', { body: partial }).finally(() => {
      over = true;
    });
    put.catch(() => {});
    await sleep(300);
    assert.equal(over, false);
    assert.equal((await call('HEAD', '/bucket/there')).status, 200);
    proxy.release();
    await assert.rejects(put, /ECONNRESET|EPIPE/);
  });

  test('a slow line carries everything, slowly, both ways', async () => {
    const tenth = mebibyte.subarray(0, 100 * 1024);
    const fault = { kind: 'slow', bytesPerSecond: 200 * 1024 } as const;
    proxy.fail('PutObject', fault);
    proxy.fail('GetObject', fault);
    let start = performance.now();
    assert.equal((await call('PUT', '/bucket/slow', { body: tenth })).status, 200);
    assert.ok(performance.now() - start > 450);
    start = performance.now();
    assert.deepEqual((await call('GET', '/bucket/slow')).body, tenth);
    assert.ok(performance.now() - start > 450);
  });

  test('a truncated answer ends early, with as many bytes as asked for', async () => {
    for (const bytes of [0, 1000, 700_000]) {
      proxy.fail('GetObject', { kind: 'truncate', bytes });
      const seen = await fragment(`${proxy.endpoint}/bucket/there`);
      assert.deepEqual(seen, { announced: mebibyte.length, arrived: bytes, complete: false });
    }
    await assert.rejects(async () => {
      proxy.fail('GetObject', { kind: 'truncate', bytes: 10 });
      await call('GET', '/bucket/there');
    }, /aborted/);
    await until(() => proxy.requests.at(-1)?.aborted);
  });

  test('one bit is flipped in an answer, or in a request', async () => {
    proxy.fail('GetObject', { kind: 'corrupt' });
    const { status, body } = await call('GET', '/bucket/there');
    assert.deepEqual([status, differences(body, mebibyte)], [200, 1]);
    assert.equal(differences((await call('GET', '/bucket/there')).body, mebibyte), 0);

    const put = (options: S3Request): Promise<S3Response> => {
      proxy.fail('PutObject', { kind: 'corrupt-request' });
      return call('PUT', '/bucket/flipped', { ...options, body: mebibyte });
    };
    assert.equal(code(await put({})), 'XAmzContentSHA256Mismatch');
    const md5 = createHash('md5').update(mebibyte).digest('base64');
    assert.equal(code(await put({ headers: { 'content-md5': md5 }, unsignedPayload: true })), 'BadDigest');
    assert.equal((await put({ unsignedPayload: true })).status, 200);
    assert.equal(differences(await server.get('bucket', 'flipped'), mebibyte), 1);
  });

  test('answers lose headers, and their clock may be wrong', async () => {
    proxy.fail('HeadObject', { kind: 'drop-response-headers', headers: ['ETag'] });
    proxy.skewMs = -3_600_000;
    const { headers } = await call('HEAD', '/bucket/there');
    assert.deepEqual([headers.etag, headers['content-length']], [undefined, String(mebibyte.length)]);
    proxy.fail('HeadObject', { kind: 'status', status: 500, code: 'InternalError' });
    for (const date of [headers.date, (await call('HEAD', '/bucket/there')).headers.date]) {
      assert.ok(Math.abs(Date.parse(date ?? '') - (Date.now() - 3_600_000)) < 30_000, date);
    }
  });

  test('a refused body does not cost the client its answer, nor its connection', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const ports = new Set<number | undefined>();
    for (let i = 0; i < 3; i += 1) {
      const status = await new Promise((resolve, reject) => {
        const headers = { expect: '100-continue', 'content-length': 2 * partial.length };
        const put = open(`${proxy.endpoint}/bucket/unsigned`, { method: 'PUT', agent, headers });
        put.once('error', reject);
        put.once('response', (response) => {
          ports.add(put.socket?.localPort);
          response.resume().once('end', () => resolve(response.statusCode));
        });
        put.write(partial);
        setTimeout(() => put.end(partial), 100);
      });
      assert.equal(status, 403);
    }
    agent.destroy();
    assert.equal(ports.size, 1);
  });

  test('stopping ends what is under way', async () => {
    const other = await S3Proxy.start(server);
    other.fail('GetObject', { kind: 'stall' });
    const get = server.request('GET', '/bucket/there', { endpoint: other.endpoint });
    get.catch(() => {});
    await until(() => other.requests.length === 1);
    await other.stop();
    await assert.rejects(get, /ECONNRESET|socket hang up/);
  });
});

/** What arrives of an object that everybody may read, announced and in fact. */
function fragment(url: string): Promise<{ announced: number; arrived: number; complete: boolean }> {
  return new Promise((resolve, reject) => {
    const get = open(url, { agent: false }, (response) => {
      let arrived = 0;
      response.on('data', (chunk: Buffer) => {
        arrived += chunk.length;
      });
      response.on('error', () => {});
      response.once('close', () => {
        resolve({ announced: Number(response.headers['content-length']), arrived, complete: response.complete });
      });
    });
    get.once('error', reject);
    get.end();
  });
}
