// A bucket that keeps versions, and an attacker who may write and delete there, but not delete versions.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { readBackup } from '../../src/catalog.ts';
import { parseSigningKey, parseVerifyKeys, signatureOf } from '../../src/signing.ts';
import { type ActionResult, runAction } from '../support/action.ts';
import { type CliResult, cli, clientBin } from '../support/backup.ts';
import { createShop, repository } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { S3Server } from '../support/s3.ts';
import { openS3 } from '../support/s3-store.ts';
import { type Keys, keyPair } from '../support/signing.ts';

let cluster: Cluster;
let server: S3Server;
let signer: Keys;
let attacker: Keys;
/** The bucket's folder of the backup under attack. */
let folder: string;
let id: string;

const bucket = 'versions';

async function backUp(inputs: Record<string, string> = {}): Promise<ActionResult> {
  const result = await runAction(repository, {
    inputs: {
      ...{ 'database-url': cluster.url('shop'), store: `s3://${bucket}/prod`, name: 'shop', ...clientBin(cluster) },
      ...{ 's3-endpoint': server.endpoint, 's3-access-key-id': server.accessKeyId },
      ...{ 's3-secret-access-key': server.secretAccessKey, 'signing-key': signer.privateKey, ...inputs },
    },
  });
  assert.equal(result.exitCode, 0, result.log);
  return result;
}

const ask = (command: string, ...args: string[]): Promise<CliResult> =>
  cli([command, ...args, '--store', `s3://${bucket}/prod`, '--s3-endpoint', server.endpoint], {
    ...server.env,
    HOME: '/nonexistent',
  });

before(async () => {
  [cluster, server, signer, attacker] = await Promise.all([Cluster.start(), S3Server.start(), keyPair(), keyPair()]);
  await server.createBucket(bucket, { versioning: true });
  await createShop(cluster, 'shop', 500);
  id = (await backUp()).outputs['backup-id'] ?? '';
  folder = `prod/shop/${id}`;
});
after(() => Promise.all([cluster?.stop(), server?.stop()]));

/** What the attacker would like us to read. */
async function forged(): Promise<{ readonly manifest: Buffer; readonly signature: Buffer }> {
  const genuine = JSON.parse((await server.get(bucket, `${folder}/manifest.json`)).toString()) as object;
  const manifest = Buffer.from(JSON.stringify({ ...genuine, label: 'his' }));
  const parsed = parseSigningKey(attacker.privateKey);
  assert.ok('key' in parsed);
  return { manifest, signature: signatureOf(manifest, parsed.key) };
}

test('a signed backup has its signature in the bucket, stored once', async () => {
  const versions = (await server.versions(bucket, `${folder}/manifest.`)).map(({ key }) => key);
  assert.deepEqual(versions.sort(), [`${folder}/manifest.json`, `${folder}/manifest.sig`]);
  const verified = await ask('verify', id, '--verify-key', signer.verify);
  assert.equal(verified.exitCode, 0, verified.stderr);
  assert.doesNotMatch(verified.stderr, /somebody changed it/);
});

/** What is read of the backup to judge it: files, and which versions of them. */
async function readsOf(): Promise<string[]> {
  const store = openS3(server, bucket, 'prod');
  const reads: string[] = [];
  const read = store.read.bind(store);
  store.read = async (path, version = 0, largest) => {
    const bytes = await read(path, version, largest);
    if (bytes !== undefined) reads.push(`${path.split('/').pop()} ${version}`);
    return bytes;
  };
  const parsed = parseVerifyKeys(signer.publicKey);
  assert.ok('keys' in parsed);
  const entry = await readBackup(store, { keys: parsed.keys, acceptMoved: false }, 'shop', id);
  assert.equal(entry.kind, 'backup');
  return reads;
}

test('overwritten and hidden, it is read as it was signed, and the tampering is told', async () => {
  const { manifest, signature } = await forged();
  // Of however many versions, and however large: what verifies is all that is read.
  await server.put(bucket, `${folder}/manifest.sig`, Buffer.alloc(2_000_000, 'A'));
  assert.deepEqual(await readsOf(), ['manifest.json 0', 'manifest.sig 0']);
  await server.put(bucket, `${folder}/manifest.json`, manifest);
  await server.put(bucket, `${folder}/manifest.sig`, signature);
  const overwritten = await ask('verify', id, '--verify-key', signer.verify);
  assert.equal(overwritten.exitCode, 0, overwritten.stderr);
  assert.match(
    overwritten.stderr,
    /somebody changed it: manifest\.json was overwritten after it was stored, manifest\.sig was overwritten/,
  );
  for (const file of ['manifest.json', 'manifest.sig', 'database.dump'])
    await server.delete(bucket, `${folder}/${file}`);
  const hidden = await ask('list', '--json', '--verify-key', signer.verify);
  const { backups } = hidden.json as { backups: { id: string; label: string }[] };
  assert.deepEqual(
    backups.map((each) => [each.id, each.label]),
    [[id, 'scheduled']],
    hidden.stderr,
  );
  assert.match(hidden.stderr, /manifest\.sig was deleted after it was stored/);
});

test('whoever was there first is not the backup: the first version that verifies is', async () => {
  const { outputs } = await backUp();
  const second = `prod/shop/${outputs['backup-id']}`;
  const genuine = {
    json: await server.get(bucket, `${second}/manifest.json`),
    sig: await server.get(bucket, `${second}/manifest.sig`),
  };
  for (const { key, versionId } of await server.versions(bucket, `${second}/manifest.`))
    await server.delete(bucket, key, versionId);
  const without = await ask('verify', outputs['backup-id'] ?? '', '--verify-key', signer.verify);
  assert.equal(without.exitCode, 2, without.stderr);
  const evil = Buffer.from(genuine.json.toString().replace('"scheduled"', '"his"'));
  await server.put(bucket, `${second}/manifest.json`, evil);
  await server.put(bucket, `${second}/manifest.sig`, 'his');
  await server.put(bucket, `${second}/manifest.sig`, Buffer.alloc(2_000_000, 'A'));
  await server.put(bucket, `${second}/manifest.json`, genuine.json);
  await server.put(bucket, `${second}/manifest.sig`, genuine.sig);
  const shown = await ask('show', outputs['backup-id'] ?? '', '--json', '--verify-key', signer.verify);
  assert.equal(shown.exitCode, 0, shown.stderr);
  assert.equal((shown.json as { manifest: { label: string } }).manifest.label, 'scheduled');
  assert.match(shown.stderr, /manifest\.json was overwritten/);
  // Without a key, the first one that can be read is all that anybody can go by.
  const unasked = await ask('show', outputs['backup-id'] ?? '', '--json');
  assert.equal((unasked.json as { manifest: { label: string } }).manifest.label, 'his');
});

test('who may delete versions can only destroy: what he leaves is refused', async () => {
  const [first] = (await server.versions(bucket, `${folder}/manifest.sig`)).filter((each) => each.size > 0).slice(-1);
  await server.delete(bucket, first?.key ?? '', first?.versionId);
  const verified = await ask('verify', id, '--verify-key', signer.verify);
  assert.equal(verified.exitCode, 40, verified.stderr);
  assert.match(verified.stderr, /is not trusted: its signature is not by a key of verify-key/);
});
