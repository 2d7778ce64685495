// Whole runs against a real S3 server: killed, cancelled, and with faults on the wire.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type ActionResult, runAction } from '../support/action.ts';
import { type CliResult, cli } from '../support/backup.ts';
import { createShop, descendants, errorOf, processes, repository, scratch, until } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { S3Server } from '../support/s3.ts';
import { type Answer, type Fault, type Operation, S3Proxy } from '../support/s3-faults.ts';

let cluster: Cluster;
let server: S3Server;
before(async () => {
  [cluster, server] = await Promise.all([Cluster.start(), S3Server.start()]);
  // Two parts and a bit, uncompressed.
  await createShop(cluster, 'shop', 90_000);
});
after(() => Promise.all([cluster?.stop(), server?.stop()]));

async function newBucket(): Promise<string> {
  const bucket = `faults-${randomBytes(6).toString('hex')}`;
  await server.createBucket(bucket);
  return bucket;
}

const inputs = (bucket: string, proxy: S3Proxy): Record<string, string> => ({
  'database-url': cluster.url('shop'),
  store: `s3://${bucket}/p`,
  name: 'shop',
  's3-endpoint': proxy.endpoint,
  's3-access-key-id': server.accessKeyId,
  's3-secret-access-key': server.secretAccessKey,
  compression: 'none',
  retries: '0',
});

const command = (bucket: string, proxy: S3Proxy, args: readonly string[]): Promise<CliResult> =>
  cli([...args, '--store', `s3://${bucket}/p`, '--s3-endpoint', proxy.endpoint, '--name', 'shop', '--json'], {
    ...server.env,
    TARGET_URL: cluster.url(`back_${randomBytes(3).toString('hex')}`),
  });

const listed = async (bucket: string, proxy: S3Proxy): Promise<string[]> => {
  const result = await command(bucket, proxy, ['list']);
  if (/has no backups named shop/.test(result.stderr)) return [];
  assert.equal(result.exitCode, 0, result.stderr);
  assert.doesNotMatch(result.stderr, /damaged/);
  return (result.json as { backups: { id: string }[] }).backups.map(({ id }) => id);
};

describe('F27: the process is killed', () => {
  /** Its own bucket, in which one run after the other is killed at the moments given: a request, before or after it. */
  async function killAt(
    moments: (all: number) => readonly (readonly [number, 'before' | 'after' | 'a while after'])[],
  ): Promise<number> {
    const bucket = await newBucket();
    await using proxy = await S3Proxy.start(server);

    /** Runs the launcher without its post step. Returns how many requests it made. */
    const run = async (at = Infinity, when: 'before' | 'after' | 'a while after' = 'before'): Promise<number> => {
      const child = spawn(process.execPath, [join(repository, 'dist', 'backup.js')], {
        env: {
          PATH: '/usr/bin:/bin',
          RUNNER_TEMP: await scratch(),
          ...Object.fromEntries(
            Object.entries(inputs(bucket, proxy)).map(([name, value]) => [`INPUT_${name.toUpperCase()}`, value]),
          ),
        },
        stdio: 'ignore',
      });
      let children: number[] = [];
      let requests = 0;
      const kill = (): void => {
        children = descendants(child.pid ?? -1).map(({ pid }) => pid);
        child.kill('SIGKILL');
      };
      const answer = (): Answer | undefined => {
        requests++;
        if (requests === at && when === 'before') kill();
        // The server is done with the request long before this.
        if (requests === at && when === 'after') setTimeout(kill, 30);
        if (requests === at && when === 'a while after') setTimeout(kill, 120);
        return undefined;
      };
      proxy.fail('*', { kind: 'function', answer }, { times: Infinity });
      await new Promise((resolve) => child.once('close', resolve));
      await until(() => !processes().some(({ pid }) => children.includes(pid)) || undefined, 10);
      proxy.heal();
      return requests;
    };

    const all = await run();
    assert.ok(all >= 15 && all < 60, `${all} requests`);
    const known = new Set(await listed(bucket, proxy));
    assert.equal(known.size, 1);
    const points = moments(all);
    for (const [at, when] of points) {
      await run(at, when);
      const now = await listed(bucket, proxy);
      for (const id of known) assert.ok(now.includes(id), `${id} is lost, killed ${when} request ${at}`);
      for (const id of now) {
        if (known.has(id)) continue;
        const verified = await command(bucket, proxy, ['verify', id]);
        assert.equal(verified.exitCode, 0, `killed ${when} request ${at}: ${verified.stderr}`);
        known.add(id);
      }
    }
    const leftovers = async (): Promise<string[]> => [
      ...(await server.keys(bucket)).filter((key) => ![...known].some((id) => key.includes(id))),
      ...(await server.uploads(bucket)).map(({ key }) => key),
    ];
    assert.ok((await leftovers()).length > 0, 'no run was killed in the middle of an upload');

    // A day and an hour later the next run clears them away.
    proxy.olderMs = 25 * 60 * 60 * 1000;
    const later = await runAction(repository, { inputs: inputs(bucket, proxy) });
    assert.equal(later.exitCode, 0, later.log);
    assert.match(later.log, /removed what \d+ unfinished runs? had left in the store/);
    known.add(later.outputs['backup-id'] ?? '');
    assert.deepEqual(await leftovers(), []);
    proxy.olderMs = 0;
    assert.deepEqual((await listed(bucket, proxy)).sort(), [...known].sort());
    return points.length;
  }

  test('at 50 moments and more, before and after its requests: what is listed is whole, the rest is swept later', async () => {
    const lanes = 3;
    const killed = await Promise.all(
      Array.from({ length: lanes }, (_, lane) =>
        killAt((all) =>
          Array.from({ length: all }, (_, n) => n + 1)
            .flatMap((n) => (['before', 'after', 'a while after'] as const).map((when) => [n, when] as const))
            .filter((_, n) => n % lanes === lane),
        ),
      ),
    );
    assert.ok(killed.reduce((sum, each) => sum + each) >= 50, killed.join());
  });

  test('and its post step takes away what it had begun', async () => {
    const bucket = await newBucket();
    await using proxy = await S3Proxy.start(server);
    proxy.fail('UploadPart', { kind: 'stall' }, { nth: 2, times: Infinity });
    const result = await runAction(repository, {
      inputs: inputs(bucket, proxy),
      onLine: (_line, step) => {
        if (step.phase !== 'main') return;
        void until(() => proxy.requestsOf('UploadPart').length >= 2 || undefined).then(() => {
          proxy.heal();
          step.signal('SIGKILL');
        });
      },
    });
    assert.notEqual(result.exitCode, 0);
    assert.deepEqual(await server.keys(bucket), []);
    assert.deepEqual(await server.uploads(bucket), []);
  });
});

describe('F28, I-37: cancelled as the runner does it', () => {
  for (const operation of [
    'ListObjectVersions',
    'CreateMultipartUpload',
    'UploadPart',
    'CompleteMultipartUpload',
    'PutObject',
  ] as const)
    test(`while ${operation} hangs: gone within 7 s, nothing left`, async () => {
      const bucket = await newBucket();
      await using proxy = await S3Proxy.start(server);
      proxy.fail(operation, { kind: 'stall' });
      let began = 0;
      const result = await runAction(repository, {
        inputs: inputs(bucket, proxy),
        onLine: (_line, step) => {
          if (step.phase !== 'main' || began !== 0) return;
          began = 1;
          void until(() => proxy.requestsOf(operation).length > 0 || undefined).then(() => {
            began = Date.now();
            step.cancel();
          });
        },
      });
      assert.ok(began > 1, 'it was cancelled');
      assert.ok(Date.now() - began < 9000, `${Date.now() - began} ms, with the post step`);
      assert.equal(result.exitCode, 130, result.log);
      assert.match(errorOf(result), /^\w+: cancelled; nothing was published/);
      assert.deepEqual(await server.keys(bucket), []);
      assert.deepEqual(await server.uploads(bucket), []);
    });
});

describe('F21, F22: faults on the wire during a whole run', () => {
  const denied: Fault = { kind: 'status', status: 403, code: 'AccessDenied' };
  const broken: Fault = { kind: 'status', status: 500, code: 'InternalError' };

  const backUp = async (fault: Fault, operation: Operation, more: Record<string, string> = {}, times = Infinity) => {
    const bucket = await newBucket();
    const proxy = await S3Proxy.start(server);
    proxy.fail(operation, fault, { times });
    const result: ActionResult = await runAction(repository, { inputs: { ...inputs(bucket, proxy), ...more } });
    return { bucket, proxy, result };
  };

  for (const [operation, fault, exit] of [
    ['CreateMultipartUpload', denied, 31],
    ['UploadPart', broken, 30],
    ['CompleteMultipartUpload', denied, 31],
    ['CompleteMultipartUpload', { kind: 'ok-with-error', code: 'InternalError' }, 30],
    ['PutObject', denied, 31],
    ['ListObjectsV2', denied, 31],
  ] as const)
    test(`${fault.kind === 'status' ? fault.status : '200 with an error'} at ${operation}: told, and nothing is left`, async () => {
      const { bucket, proxy, result } = await backUp(fault, operation);
      await proxy.stop();
      assert.equal(result.exitCode, exit, result.log);
      assert.match(result.log, /hint: /);
      assert.deepEqual(await server.keys(bucket), []);
      assert.deepEqual(await server.uploads(bucket), []);
    });

  test('a fault that passes is not seen, and a run that had to begin anew leaves nothing of the first try', async () => {
    // As many refusals as one request is given: the run itself is tried again.
    const { bucket, proxy, result } = await backUp(broken, 'CompleteMultipartUpload', { retries: '1' }, 5);
    assert.equal(result.exitCode, 0, result.log);
    assert.match(result.log, /trying again in 2 s/);
    assert.equal((await server.keys(bucket)).length, 4);
    assert.deepEqual(await server.uploads(bucket), []);
    assert.deepEqual(await listed(bucket, proxy), [result.outputs['backup-id']]);

    for (const args of [
      ['list'],
      ['verify', 'latest'],
      ['fetch', 'latest', '--out', `${await scratch()}/x`],
      ['restore', 'latest'],
    ]) {
      for (const operation of ['ListObjectVersions', 'GetObject'] as const) {
        proxy.fail(operation, broken, { times: 2 });
        const passed = await command(
          bucket,
          proxy,
          operation === 'GetObject' && args[0] === 'fetch' ? [...args.slice(0, 3), `${args[3]}2`] : args,
        );
        assert.equal(passed.exitCode, 0, `${args[0]} with ${operation}: ${passed.stderr}`);
        proxy.heal();
      }
      proxy.fail('GetObject', denied, { times: Infinity });
      const refused = await command(bucket, proxy, args);
      assert.equal(refused.exitCode, 31, `${args[0]}: ${refused.stderr}`);
      assert.match(refused.stderr, /may not read s3:.*\n.*allow s3:GetObject/);
      proxy.heal();
    }
    await proxy.stop();
  });

  test('F18: a byte that changes on the way back is found', async () => {
    const { bucket, proxy, result } = await backUp(broken, 'Other');
    assert.equal(result.exitCode, 0, result.log);
    for (const args of [
      ['verify', 'latest'],
      ['fetch', 'latest', '--out', `${await scratch()}/x`],
      ['restore', 'latest'],
    ]) {
      // The manifest first, then the census or the dump: the last of them is the dump.
      proxy.fail('GetObject', { kind: 'function', answer: () => undefined });
      proxy.fail('GetObject', { kind: 'corrupt' }, { nth: 2, times: Infinity });
      const found = await command(bucket, proxy, args);
      assert.equal(found.exitCode, 40, `${args[0]}: ${found.stderr}`);
      assert.match(found.stderr, /does not have the SHA-256 it was stored with/);
      proxy.heal();
    }
    await proxy.stop();
  });
});
