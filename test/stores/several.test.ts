// One backup in several stores: dumped once, whole in each, and an outage of one costs no other its copy.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { generateKeyPair } from '../../src/age.ts';
import type { Failed } from '../../src/alert-state.ts';
import type { Manifest } from '../../src/manifest.ts';
import { headline, meaning } from '../../src/report/issue.ts';
import { FolderStore } from '../../src/store/folder.ts';
import { type ActionResult, runAction } from '../support/action.ts';
import { cli, clientBin, type Inputs } from '../support/backup.ts';
import { createShop, errorOf, filesIn, repository, scratch, startBackup, until, wrapped } from '../support/faults.ts';
import { storePast } from '../support/history.ts';
import { Cluster } from '../support/postgres.ts';
import { S3Server } from '../support/s3.ts';
import { S3Proxy } from '../support/s3-faults.ts';

let cluster: Cluster;
let server: S3Server;
before(async () => {
  [cluster, server] = await Promise.all([Cluster.start(), S3Server.start()]);
  // Three parts, uncompressed.
  await createShop(cluster, 'shop', 90_000);
});
after(() => Promise.all([cluster?.stop(), server?.stop()]));

/** A folder and a bucket of a test's own, the bucket behind a proxy that breaks things. */
class Places implements AsyncDisposable {
  readonly folder: string;
  readonly bucket: string;
  readonly proxy: S3Proxy;

  private constructor(folder: string, bucket: string, proxy: S3Proxy) {
    this.folder = folder;
    this.bucket = bucket;
    this.proxy = proxy;
  }

  static async open(): Promise<Places> {
    const bucket = `several-${randomBytes(6).toString('hex')}`;
    await server.createBucket(bucket);
    return new Places(await scratch(), bucket, await S3Proxy.start(server));
  }

  get inputs(): Record<string, string> {
    return {
      'database-url': cluster.url('shop'),
      store: `file://${this.folder}\ns3://${this.bucket}/p`,
      name: 'shop',
      's3-endpoint': this.proxy.endpoint,
      's3-access-key-id': server.accessKeyId,
      's3-secret-access-key': server.secretAccessKey,
      compression: 'none',
      retries: '0',
      ...clientBin(cluster),
    };
  }

  run(more: Inputs = {}): Promise<ActionResult> {
    return runAction(repository, { inputs: { ...this.inputs, ...more } });
  }

  /** A file of a backup as each place has it. */
  async both(id: string, file: string): Promise<[Buffer, Buffer]> {
    return [await readFile(join(this.folder, 'shop', id, file)), await server.get(this.bucket, `p/shop/${id}/${file}`)];
  }

  async manifests(id: string): Promise<[Manifest, Manifest]> {
    const [one, two] = await this.both(id, 'manifest.json');
    return [JSON.parse(one.toString()) as Manifest, JSON.parse(two.toString()) as Manifest];
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.proxy.stop();
  }
}

const digest = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

describe('a backup in a folder and a bucket', () => {
  test('is dumped once, is the same in both, and each says what is true of it', async () => {
    await using places = await Places.open();
    const calls = join(await scratch(), 'calls');
    const bin = await wrapped(cluster, {
      pg_dump: `case "$*" in *--format=custom*|*-Fc*) echo dump >> ${calls};; esac; exec "$REAL" "$@"`,
    });
    const drill = await generateKeyPair('x25519');
    const first = await places.run({ 'client-bin': bin, 'encrypt-to': drill.recipient });
    assert.equal(first.exitCode, 0, first.log);
    const id = first.outputs['backup-id'] ?? '';
    assert.equal(first.outputs.location, `file://${places.folder}/shop/${id}\ns3://${places.bucket}/p/shop/${id}`);
    assert.equal(first.outputs['failed-stores'], '');
    assert.equal((await readFile(calls, 'utf8')).trim(), 'dump');
    const [here, there] = await places.both(id, 'database.dump.age');
    assert.equal(digest(here), first.outputs.sha256);
    assert.equal(digest(there), first.outputs.sha256);
    const second = await places.run({ 'encrypt-to': drill.recipient });
    assert.equal(second.exitCode, 0, second.log);
    const [one, two] = await places.manifests(second.outputs['backup-id'] ?? '');
    assert.deepEqual([one.store, two.store], [`file://${places.folder}`, `s3://${places.bucket}/p`]);
    assert.deepEqual([one.previous?.id, two.previous?.id], [id, id]);
    assert.notEqual(one.previous?.manifestSha256, two.previous?.manifestSha256);
    assert.deepEqual(one.files, two.files);
    assert.match(second.summary, /### Backup of shop is whole and stored\n/);
    assert.match(second.summary, new RegExp(`\`file://${places.folder}\` .*\n.*\`s3://${places.bucket}/p\` `));

    const verified = await cli(
      ['verify', '--store', `s3://${places.bucket}/p`, '--s3-endpoint', places.proxy.endpoint],
      {
        ...server.env,
        PGASSAY_DECRYPT_IDENTITY: drill.identity,
      },
    );
    assert.equal(verified.exitCode, 0, verified.stderr);
  });

  test('retention is applied in each store to what is there', async () => {
    await using places = await Places.open();
    const folder = new FolderStore(places.folder);
    const old = [];
    for (const days of [3, 2]) old.push(await storePast(folder, new Date(Date.now() - days * 86_400_000)));
    const result = await places.run({ 'keep-last': 1, 'accept-new-database': true });
    assert.equal(result.exitCode, 0, result.log);
    // Of another database than these two, so the newer one stays as the newest of its own.
    assert.deepEqual(JSON.parse(result.outputs.pruned ?? ''), [old[0]?.id]);
    assert.deepEqual(await folder.ids('shop'), [old[1]?.id, result.outputs['backup-id']]);
    assert.match(result.summary, /Retention: 1 backup deleted, 2 kept; 0 backups deleted, 1 kept/);
  });
});

describe('one of two stores fails', () => {
  const outages = [
    ['before the dump', 'ListObjectVersions', 1],
    ['when the upload begins', 'CreateMultipartUpload', 1],
    ['in the middle of the dump', 'UploadPart', 2],
    ['when the upload is completed', 'CompleteMultipartUpload', 1],
    ['when a small file is written', 'PutObject', 3],
    ['when the manifest is written', 'PutObject', 4],
  ] as const;
  for (const [when, operation, nth] of outages)
    test(`${when}: the other has a whole backup, and the step fails and says which`, async () => {
      await using places = await Places.open();
      const fault = { kind: 'status', status: 403, code: 'AccessDenied' } as const;
      places.proxy.fail(operation === 'ListObjectVersions' ? '*' : operation, fault, { nth, times: Infinity });
      const result = await places.run({ 'keep-last': 1 });
      assert.equal(result.exitCode, 31, result.log);
      const id = result.outputs['backup-id'] ?? '';
      assert.equal(result.outputs.location, `file://${places.folder}/shop/${id}`);
      assert.equal(result.outputs['failed-stores'], `s3://${places.bucket}/p`);
      assert.match(
        errorOf(result),
        new RegExp(
          `the backup is whole and stored, but not in one of the stores\n +file://${places.folder}/shop/${id}: stored\n +s3://${places.bucket}/p: `,
        ),
      );
      assert.match(result.log, new RegExp(`s3://${places.bucket}/p will not have this backup: .*going on with file:`));
      assert.match(result.summary, /is whole and stored in 1 of 2 stores\n.*\*\*not stored\*\*/s);
      const verified = await cli(['verify', '--store', `file://${places.folder}`, '--name', 'shop']);
      assert.equal(verified.exitCode, 0, verified.stderr);
      places.proxy.heal();
      if (operation !== 'PutObject') assert.deepEqual(await server.keys(places.bucket), []);
      assert.ok(!(await server.keys(places.bucket)).some((key) => key.endsWith('manifest.json')));
      assert.deepEqual(await server.uploads(places.bucket), []);
    });

  test('that takes nothing any more is given up before the dump is', async () => {
    await using places = await Places.open();
    places.proxy.fail('UploadPart', { kind: 'stall' }, { times: Infinity });
    // More than all parts on their way hold.
    await createShop(cluster, 'large', 450_000);
    const result = await places.run({ 'database-url': cluster.url('large'), 'stall-timeout': '6s' });
    places.proxy.release();
    assert.equal(result.exitCode, 14, result.log);
    assert.equal(result.outputs['failed-stores'], `s3://${places.bucket}/p`);
    assert.match(result.log, /will not have this backup: it took nothing for 3 s/);
    const verified = await cli(['verify', '--store', `file://${places.folder}`, '--name', 'shop']);
    assert.equal(verified.exitCode, 0, verified.stderr);
  });

  test('in passing, before anything is dumped: the run is tried again, and both have it', async () => {
    await using places = await Places.open();
    places.proxy.fail('*', { kind: 'status', status: 503, code: 'ServiceUnavailable' }, { times: 5 });
    const result = await places.run({ retries: 1 });
    assert.equal(result.exitCode, 0, result.log);
    assert.match(result.log, /trying again in/);
    assert.equal(result.outputs['failed-stores'], '');
  });

  test('to be done when the run is cancelled: what is published stays, and is told', async () => {
    await using places = await Places.open();
    places.proxy.fail('PutObject', { kind: 'stall' }, { nth: 4 });
    const underway = await startBackup(cluster.url('shop'), places.folder, places.inputs);
    await until(() => places.proxy.requestsOf('PutObject').length === 4 || undefined);
    await until(async () => (await filesIn(places.folder)).some((file) => file.endsWith('manifest.json')) || undefined);
    process.kill(underway.pid, 'SIGINT');
    const result = await underway.done;
    places.proxy.release();
    assert.equal(result.exitCode, 130, result.log);
    assert.match(result.outputs.location ?? '', new RegExp(`^file://${places.folder}/shop/[^\n]+$`));
    const verified = await cli(['verify', '--store', `file://${places.folder}`, '--name', 'shop']);
    assert.equal(verified.exitCode, 0, verified.stderr);
  });

  test('is told as what it is: a backup that is not everywhere', () => {
    const error = { stage: 'upload', exit: 'storeCredentials', message: 'refused', hint: undefined } as const;
    const report: Failed = { outcome: 'failed', subject: { of: 'name' }, error, findings: [], timings: {} };
    const partly: Failed = { ...report, partly: { stored: 1, of: 2 } };
    assert.match(meaning('backup', report), /^This run stored no backup/);
    assert.match(meaning('backup', partly), /^This run's backup is whole in 1 of its 2 stores/);
    assert.match(headline('backup', partly, false), /^backup in 1 of 2 stores only: /);
  });

  test('nothing is pruned where it failed, and the next run stores in both again', async () => {
    await using places = await Places.open();
    const first = await places.run();
    assert.equal(first.exitCode, 0, first.log);
    places.proxy.fail('UploadPart', { kind: 'status', status: 403, code: 'AccessDenied' }, { times: Infinity });
    const second = await places.run({ 'keep-last': 1 });
    assert.equal(second.exitCode, 31, second.log);
    places.proxy.heal();
    assert.deepEqual(await new FolderStore(places.folder).ids('shop'), [second.outputs['backup-id']]);
    const inBucket = `p/shop/${first.outputs['backup-id']}/manifest.json`;
    assert.ok((await server.keys(places.bucket)).includes(inBucket));
    const third = await places.run();
    assert.equal(third.exitCode, 0, third.log);
    const [one, two] = await places.manifests(third.outputs['backup-id'] ?? '');
    assert.equal(one.previous?.id, second.outputs['backup-id']);
    assert.equal(two.previous?.id, first.outputs['backup-id']);
  });

  test('a folder whose disk is full or closed costs the bucket nothing', async () => {
    await using places = await Places.open();
    await writeFile(join(places.folder, 'shop'), 'a file in the way of the folder');
    const result = await places.run();
    assert.notEqual(result.exitCode, 0, result.log);
    assert.equal(result.outputs['failed-stores'], `file://${places.folder}`);
    assert.ok((await server.keys(places.bucket)).includes(`p/shop/${result.outputs['backup-id']}/manifest.json`));
  });

  test('a dry run says so, and both failing fails as one does', async () => {
    await using places = await Places.open();
    places.proxy.fail('*', { kind: 'status', status: 403, code: 'AccessDenied' }, { times: Infinity });
    const dry = await places.run({ 'dry-run': true });
    assert.equal(dry.exitCode, 31, dry.log);
    assert.match(errorOf(dry), /one of the stores cannot be used\n +s3:\/\//);
    const stores = `s3://${places.bucket}/p\ns3://${places.bucket}/q`;
    const none = await places.run({ store: stores });
    assert.equal(none.exitCode, 31, none.log);
    assert.equal(none.outputs.location, undefined);
    assert.doesNotMatch(none.log, /is whole and stored/);
  });
});

describe('on the command line', () => {
  test('the flag --store is repeated, and each folder has the backup', async () => {
    const [one, two] = [await scratch(), await scratch()];
    const bin = Object.entries(clientBin(cluster)).flatMap(([name, value]) => [`--${name}`, value]);
    const taken = await cli(
      ['backup', '--store', `file://${one}`, '--store', `file://${two}`, '--name', 'shop', ...bin, '--json'],
      { DATABASE_URL: cluster.url('shop') },
    );
    assert.equal(taken.exitCode, 0, taken.stderr);
    const { backup } = taken.json as { backup: Manifest };
    for (const folder of [one, two]) assert.ok(existsSync(join(folder, 'shop', backup.id, 'manifest.json')), folder);
  });
});

describe('both stores', () => {
  test('are left clean by a run that is cancelled, and by the post step of one that is killed', async () => {
    await using places = await Places.open();
    places.proxy.fail('UploadPart', { kind: 'slow', bytesPerSecond: 50_000 }, { times: Infinity });
    const underway = await startBackup(cluster.url('shop'), places.folder, places.inputs);
    await until(() => places.proxy.requestsOf('UploadPart').length > 0 || undefined);
    assert.ok(existsSync(join(places.folder, 'shop')));
    process.kill(underway.pid, 'SIGINT');
    const result = await underway.done;
    assert.equal(result.exitCode, 130, result.log);
    assert.deepEqual(await filesIn(places.folder), []);
    places.proxy.heal();
    assert.deepEqual(await server.keys(places.bucket), []);
    assert.deepEqual(await server.uploads(places.bucket), []);
  });

  test('have to be two', async () => {
    await using places = await Places.open();
    const twice = await places.run({ store: `file://${places.folder}\nfile://${places.folder}/` });
    assert.equal(twice.exitCode, 2, twice.log);
    assert.match(errorOf(twice), /store: names file:\/\/\S+ twice/);
    const repeated = await cli(['list', '--store', 'file:///srv/a', '--store', 'file:///srv/b']);
    assert.equal(repeated.exitCode, 2);
    assert.match(repeated.stderr, /^input: store: was given more than once/);
    const read = await cli(['list', '--store', 'file:///srv/a\nfile:///srv/b']);
    assert.equal(read.exitCode, 2);
    assert.match(read.stderr, /store: names 2 stores, and only a backup goes to several/);
  });
});
