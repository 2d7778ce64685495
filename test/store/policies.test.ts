// The policies of docs/stores.md, on a real server: each is enough for its job, and refuses the others'.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { parseVerifyKeys, signerOf } from '../../src/signing.ts';
import { type ActionResult, runAction } from '../support/action.ts';
import { type CliResult, cli, clientBin } from '../support/backup.ts';
import { createShop, repository, scratch } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { S3Server } from '../support/s3.ts';
import { type Keys, keyPair } from '../support/signing.ts';

const page = readFileSync(join(repository, 'docs/stores.md'), 'utf8');
const bucket = 'acme-backups';
const inStore = ['--store', `s3://${bucket}/prod`];

interface Statement {
  readonly Sid?: string;
  readonly Action: string | readonly string[];
  readonly Condition?: unknown;
}

/** The statements of every policy, or piece of one, under a heading of the page. */
function statementsUnder(heading: string): Statement[] {
  const [, section = ''] = page.split(`\n### ${heading}\n`);
  const [own = ''] = section.split(/\n##+ /);
  return [...own.matchAll(/```json\n([\s\S]*?)```/g)]
    .map(([, text = '']) => JSON.parse(text) as Statement | { readonly Statement: Statement[] })
    .flatMap((each) => ('Statement' in each ? each.Statement : [each]));
}

const reading = statementsUnder('The smallest policy that reads');
const policies = {
  // KMS is not a matter of the bucket. Ceph 16 asks for s3:ListBucket at a HEAD without saying which key.
  writer: statementsUnder('The smallest policy that writes')
    .filter(({ Sid }) => Sid !== 'Encrypt')
    .map(({ Condition, ...rest }) => rest),
  reader: reading,
  tester: [...reading, ...statementsUnder('The smallest policy that tests')].map(({ Condition, ...rest }) => rest),
  pruner: statementsUnder('The smallest policy that deletes'),
};
type Who = keyof typeof policies;

let cluster: Cluster;
let server: S3Server;
let users: Record<Who, S3Server>;
let signer: Keys;
let first: ActionResult;

before(async () => {
  [cluster, server, signer] = await Promise.all([Cluster.start(), S3Server.start(), keyPair()]);
  await createShop(cluster, 'shop', 500);
  await server.createBucket(bucket, { objectLock: true });
  await server.put(bucket, 'other/secret', 'x');
  const made: [string, S3Server][] = [];
  for (const name of Object.keys(policies)) made.push([name, await server.user(name)]);
  users = Object.fromEntries(made) as Record<Who, S3Server>;
  const statements = Object.entries(policies).flatMap(([name, each]) =>
    each.map((statement) => ({ ...statement, Principal: { AWS: [`arn:aws:iam:::user/${name}`] } })),
  );
  const named = statements.map((statement, at) => ({ ...statement, Sid: `s${at}` }));
  const policy = await server.request('PUT', `/${bucket}`, {
    query: { policy: '' },
    body: JSON.stringify({ Version: '2012-10-17', Statement: named }),
  });
  assert.ok(policy.status < 300, `${policy.status} ${policy.body}`);
  first = await backUp();
  assert.equal(first.exitCode, 0, first.log);
});
after(() => Promise.all([cluster?.stop(), server?.stop()]));

const keysOf = (who: Who): Record<string, string> => ({
  's3-endpoint': server.endpoint,
  's3-access-key-id': users[who].accessKeyId,
  's3-secret-access-key': users[who].secretAccessKey,
});

const backUp = (): Promise<ActionResult> =>
  runAction(repository, {
    inputs: {
      ...{ 'database-url': cluster.url('shop'), store: `s3://${bucket}/prod`, name: 'shop', ...clientBin(cluster) },
      ...{ ...keysOf('writer'), 'signing-key': signer.privateKey, 's3-object-lock-days': 1, retries: 0 },
    },
  });

const ask = (who: Who, command: string, ...args: string[]): Promise<CliResult> =>
  cli([command, ...args, ...inStore, '--s3-endpoint', server.endpoint, '--verify-key', signer.verify], {
    ...users[who].env,
    HOME: '/nonexistent',
  });

/** What the server answers to that user. */
async function status(who: Who, method: string, path: string, query: Record<string, string> = {}): Promise<number> {
  const body = method === 'PUT' ? 'his' : '';
  return (await users[who].request(method, `/${bucket}${path}`, { query, body })).status;
}

const folder = (): string => `prod/shop/${first.outputs['backup-id']}`;

describe('the writer', () => {
  test('takes backups that follow one another, locked and signed, and starts and aborts uploads', async () => {
    const second = await backUp();
    assert.equal(second.exitCode, 0, second.log);
    // Ceph lets the owner of an object read it, not that of the bucket.
    const path = `prod/shop/${second.outputs['backup-id']}/manifest.json`;
    const manifest = JSON.parse((await users.reader.get(bucket, path)).toString()) as { previous: { id: string } };
    assert.equal(manifest.previous.id, first.outputs['backup-id']);
    assert.deepEqual(second.annotations, []);
    const retention = await users.pruner.request('GET', `/${bucket}/${folder()}/manifest.sig`, {
      query: { retention: '' },
    });
    assert.match(String(retention.body), /GOVERNANCE/);
    const begun = await users.writer.request('POST', `/${bucket}/prod/shop/x`, { query: { uploads: '' } });
    const [, uploadId = ''] = /<UploadId>(.+)<\/UploadId>/.exec(String(begun.body)) ?? [];
    assert.equal(await status('writer', 'GET', '', { uploads: '' }), 200);
    assert.equal(await status('writer', 'DELETE', '/prod/shop/x', { uploadId }), 204);
  });

  test('deletes nothing, not even by a marker, writes nowhere else, and cannot let itself do more', async () => {
    const [version] = await server.versions(bucket, `${folder()}/database.dump`);
    assert.equal(await status('writer', 'DELETE', `/${folder()}/database.dump`), 403);
    const versionId = version?.versionId ?? '';
    assert.equal(await status('writer', 'DELETE', `/${folder()}/database.dump`, { versionId }), 403);
    assert.equal(await status('writer', 'PUT', '/other/secret'), 403);
    assert.equal(await status('writer', 'GET', '/other/secret'), 403);
    for (const subresource of ['policy', 'versioning', 'lifecycle', 'acl', 'object-lock'])
      assert.ok((await status('writer', 'PUT', '', { [subresource]: '' })) >= 400, subresource);
    const { body } = await server.request('GET', `/${bucket}`, { query: { versioning: '' } });
    assert.match(String(body), /Enabled/);
  });

  test('with its keys stolen can write over a backup, which stays what it was', async () => {
    assert.equal(await status('writer', 'PUT', `/${folder()}/manifest.json`), 200);
    const verified = await ask('reader', 'verify', first.outputs['backup-id'] ?? '');
    assert.equal(verified.exitCode, 0, verified.stderr);
    assert.match(verified.stderr, /somebody changed it: manifest\.json was overwritten/);
  });
});

test('the reader lists, verifies and fetches, and changes nothing', async () => {
  const listed = await ask('reader', 'list', '--json');
  assert.ok((listed.json as { backups: unknown[] }).backups.length >= 1, listed.stderr);
  const out = join(await scratch(), 'shop.dump');
  const fetched = await ask('reader', 'fetch', '--out', out);
  assert.equal(fetched.exitCode, 0, fetched.stderr);
  assert.equal(await status('reader', 'PUT', `/${folder()}/proofs/x.json`), 403);
  assert.equal(await status('reader', 'DELETE', `/${folder()}/manifest.json`), 403);
  assert.equal(await status('reader', 'GET', '', { prefix: 'other/' }), 403);
  assert.equal(await status('reader', 'GET', '/other/secret'), 403);
});

test('the tester writes its proof beside the backup, signed, and nothing else', async () => {
  const tester = await keyPair();
  const tested = await runAction(join(repository, 'restore-test'), {
    inputs: {
      ...{ store: `s3://${bucket}/prod`, name: 'shop', ...keysOf('tester'), ...clientBin(cluster) },
      ...{ 'verify-key': signer.publicKey, 'proof-key': tester.privateKey },
    },
  });
  assert.equal(tested.exitCode, 0, tested.log);
  assert.match(tested.outputs.proof ?? '', /\/proofs\//, tested.log);
  const proof = (tested.outputs.proof ?? '').replace(`s3://${bucket}/`, '');
  const { reader } = users;
  const [bytes, signature] = await Promise.all([reader.get(bucket, proof), reader.get(bucket, `${proof}.sig`)]);
  const parsed = parseVerifyKeys(tester.publicKey);
  assert.ok('keys' in parsed);
  assert.equal(signerOf(bytes, signature, parsed.keys)?.id, tester.id);
  assert.equal(await status('tester', 'PUT', `/${folder()}/manifest.json`), 403);
  assert.equal(await status('tester', 'DELETE', `/${folder()}/manifest.json`), 403);
});

test('the pruner deletes versions that are not locked, and writes nothing', async () => {
  const listed = await ask('pruner', 'list', '--json');
  assert.equal(listed.exitCode, 0, listed.stderr);
  const manifests = await server.versions(bucket, `${folder()}/manifest.json`);
  const [locked] = manifests.slice(-1);
  const path = `/${folder()}/manifest.json`;
  assert.equal(await status('pruner', 'DELETE', path, { versionId: locked?.versionId ?? '' }), 403);
  const old = `/prod/shop/20200101T000000Z-aaaaaa/manifest.json`;
  await server.put(bucket, old.slice(1), '{}');
  const [unlocked] = await server.versions(bucket, old.slice(1));
  assert.equal(await status('pruner', 'DELETE', old, { versionId: unlocked?.versionId ?? '' }), 204);
  assert.deepEqual(await server.versions(bucket, old.slice(1)), []);
  assert.equal(await status('pruner', 'PUT', old), 403);
  assert.equal(await status('pruner', 'DELETE', '/other/secret'), 403);
});

test('the rule for unfinished uploads is taken, with the lines of the page', async () => {
  const [, lines = ''] = /```bash\n(cat > lifecycle\.json[\s\S]*?)```/.exec(page) ?? [];
  assert.ok(lines.includes('put-bucket-lifecycle-configuration'));
  const bin = await scratch();
  const aws = `#!/bin/sh\nPATH='${process.env.PATH}' exec aws --endpoint-url '${server.endpoint}' "$@"\n`;
  await writeFile(join(bin, 'aws'), aws, { mode: 0o755 });
  await promisify(execFile)('bash', ['-ec', lines], {
    cwd: await scratch(),
    env: { PATH: `${bin}:/usr/bin:/bin`, BUCKET: bucket, ...server.env },
  });
  const { body } = await server.request('GET', `/${bucket}`, { query: { lifecycle: '' } });
  assert.match(String(body), /<AbortIncompleteMultipartUpload><DaysAfterInitiation>7</);
});
