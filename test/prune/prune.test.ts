// Retention applied to real stores, by the action, the command line and the backup itself.
import assert from 'node:assert/strict';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { silent } from '../../src/log.ts';
import type { Manifest } from '../../src/manifest.ts';
import { prune } from '../../src/prune.ts';
import { planRetention, type RetentionPolicy } from '../../src/retention.ts';
import { FolderStore } from '../../src/store/folder.ts';
import type { Store } from '../../src/store/store.ts';
import { noSignatures } from '../../src/trust.ts';
import { type ActionResult, runAction } from '../support/action.ts';
import { cli, type Inputs, takeBackup } from '../support/backup.ts';
import { filesIn, repository, scratch } from '../support/faults.ts';
import { storePast, withClock } from '../support/history.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';
import { S3Server } from '../support/s3.ts';
import { S3Proxy } from '../support/s3-faults.ts';
import { openS3 } from '../support/s3-store.ts';

const hour = 3_600_000;
const day = 24 * hour;
const ago = (days: number): Date => new Date(Date.now() - days * day);
const quiet = { log: silent, signal: new AbortController().signal };
const policy = (rules: Partial<RetentionPolicy>): RetentionPolicy => ({
  ...{ last: undefined, within: undefined, daily: undefined, weekly: undefined, monthly: undefined, yearly: undefined },
  ...{ labels: new Map() },
  ...rules,
});

async function folderStore(): Promise<FolderStore> {
  return new FolderStore(await scratch());
}

async function nightly(store: Store, nights: number, newestDaysAgo = 0.5): Promise<Manifest[]> {
  const stored: Manifest[] = [];
  for (let night = nights - 1; night >= 0; night--) stored.push(await storePast(store, ago(newestDaysAgo + night)));
  return stored;
}

const ids = (manifests: readonly Manifest[]): string[] => manifests.map(({ id }) => id);
const step = (inputs: Inputs, env: Record<string, string> = {}): Promise<ActionResult> =>
  runAction(join(repository, 'prune'), { inputs: { name: 'shop', ...inputs }, env });

describe('the step pgassay/pgassay/prune', () => {
  test('deletes what no rule keeps, with every file of it, and says what stays and why', async () => {
    const store = await folderStore();
    const stored = await nightly(store, 6);
    const result = await step({ store: store.uri, 'keep-daily': 3 });
    assert.equal(result.exitCode, 0, result.log);
    assert.deepEqual(JSON.parse(result.outputs.pruned ?? ''), ids(stored.slice(0, 3)));
    assert.deepEqual(JSON.parse(result.outputs.kept ?? ''), ids(stored.slice(3).toReversed()));
    assert.deepEqual(await store.ids('shop'), ids(stored.slice(3)));
    assert.match(result.log, /shop: 3 backups deleted, 3 kept\n/);
    assert.match(result.log, new RegExp(`stays +${stored[5]?.id}.*newest, keep-daily 3: `));
    assert.match(result.summary, /### Retention of shop: 3 backups deleted, 3 kept/);
    assert.match(
      result.summary,
      new RegExp(`These are gone:[^]*\`${stored[0]?.id}\`[^]*What stays, and why[^]*\`${stored[5]?.id}\``),
    );
  });

  test('dry-run says the very same and deletes nothing', async () => {
    const store = await folderStore();
    const stored = await nightly(store, 5);
    const before = await filesIn(fileURLToPath(store.uri));
    const dry = await step({ store: store.uri, 'keep-last': 2, 'dry-run': true });
    assert.equal(dry.exitCode, 0, dry.log);
    assert.match(dry.log, /3 backups would be deleted, 2 kept/);
    assert.deepEqual(await filesIn(fileURLToPath(store.uri)), before);
    const wet = await step({ store: store.uri, 'keep-last': 2 });
    assert.deepEqual([wet.outputs.pruned, wet.outputs.kept], [dry.outputs.pruned, dry.outputs.kept]);
    assert.deepEqual(await store.ids('shop'), ids(stored.slice(3)));
  });

  test('I-27: without a rule, and with a rule of 0, it refuses to start', async () => {
    const store = await folderStore();
    await nightly(store, 2);
    for (const inputs of [{}, { 'keep-last': 0 }, { 'keep-last': '' }] as Inputs[]) {
      const result = await step({ store: store.uri, ...inputs });
      assert.equal(result.exitCode, 2, result.log);
      assert.match(result.log, /input: keep-last: /);
    }
    assert.equal((await store.ids('shop')).length, 2);
  });

  test('F29: pauses with exit 60 when the newest backup is older than critical-after', async () => {
    const store = await folderStore();
    await nightly(store, 4, 3);
    const result = await step({ store: store.uri, 'keep-last': 1 });
    assert.equal(result.exitCode, 60, result.log);
    assert.match(
      result.log,
      /prune: nothing was deleted: the newest backup is 3 d old, and one is due every 30 h\nhint: /,
    );
    assert.equal(result.outputs.pruned, '[]');
    assert.equal((await store.ids('shop')).length, 4);
    const weekly = await step({ store: store.uri, 'keep-last': 1, 'critical-after': '8d' });
    assert.equal(weekly.exitCode, 0, weekly.log);
    assert.equal((await store.ids('shop')).length, 1);
  });

  test('a backup that is damaged is left alone, the others are pruned, and the step fails', async () => {
    const store = await folderStore();
    const stored = await nightly(store, 5);
    const [first, second] = stored;
    const at = (manifest: Manifest | undefined, file: string): string =>
      join(fileURLToPath(store.uri), 'shop', manifest?.id ?? '', file);
    await writeFile(at(first, 'manifest.json'), '{ "format": "pgassay/1"');
    await rm(at(second, 'database.dump'));
    const result = await step({ store: store.uri, 'keep-last': 1 });
    assert.equal(result.exitCode, 40, result.log);
    assert.match(
      result.log,
      new RegExp(
        `prune: backups that cannot be used were left alone\\n +shop/${first?.id} is damaged: .*\\n +shop/${second?.id} is damaged: database.dump is missing`,
      ),
    );
    assert.deepEqual(JSON.parse(result.outputs.pruned ?? ''), ids(stored.slice(2, 4)));
    assert.deepEqual(await store.ids('shop'), [first?.id, second?.id, stored[4]?.id]);
  });

  test('I-26, I-31: other names, files of others and what has no manifest stay', async () => {
    const store = await folderStore();
    const root = fileURLToPath(store.uri);
    const stored = await nightly(store, 3);
    const other = await storePast(store, ago(40), { name: 'other' });
    const old = join(root, 'shop', stored[0]?.id ?? '');
    await writeFile(join(old, 'notes.txt'), 'mine');
    await mkdir(join(root, 'shop', '20200101T000000Z-aaaaaa'));
    await writeFile(join(root, 'shop', '20200101T000000Z-aaaaaa', 'database.dump'), 'running');
    const result = await step({ store: store.uri, 'keep-last': 1 });
    assert.equal(result.exitCode, 0, result.log);
    assert.equal(await readFile(join(old, 'notes.txt'), 'utf8'), 'mine');
    assert.deepEqual(
      (await filesIn(root)).filter((file) => !file.startsWith(`shop/${stored[2]?.id}`)),
      ['other', 'shop'].flatMap((name) =>
        name === 'other'
          ? ['census.json', 'database.dump', 'manifest.json', 'roles.sql'].map((file) => `other/${other.id}/${file}`)
          : ['shop/20200101T000000Z-aaaaaa/database.dump', `shop/${stored[0]?.id}/notes.txt`],
      ),
    );
  });

  test('a proven backup stays, and its proofs go with it once a newer one is proven', async () => {
    const store = await folderStore();
    const proven = await storePast(store, ago(9), { tested: { at: ago(8), result: 'passed' } });
    const failed = await storePast(store, ago(5), { tested: { at: ago(4), result: 'failed' } });
    const newest = await storePast(store, ago(0.5));
    await step({ store: store.uri, 'keep-last': 1 });
    assert.deepEqual(await store.ids('shop'), [proven.id, newest.id]);
    const later = await storePast(store, ago(0.4), { tested: { at: ago(0.3), result: 'passed' } });
    const result = await step({ store: store.uri, 'keep-last': 1 });
    assert.equal(result.exitCode, 0, result.log);
    assert.deepEqual(await store.ids('shop'), [later.id]);
    assert.ok(!(await filesIn(fileURLToPath(store.uri))).some((file) => file.includes(failed.id)));
  });
});

describe('the command prune', () => {
  test('prints JSON, or a table that says why', async () => {
    const store = await folderStore();
    const stored = await nightly(store, 3);
    const flags = ['prune', '--store', store.uri, '--name', 'shop', '--keep-last', '1', '--dry-run'];
    const json = (await cli([...flags, '--json'])).json as Record<string, unknown>;
    assert.deepEqual(json, {
      name: 'shop',
      dryRun: true,
      paused: null,
      kept: [{ id: stored[2]?.id, reasons: ['newest', 'keep-last 1'], refused: false }],
      pruned: ids(stored.slice(0, 2)),
      damaged: [],
    });
    const text = await cli(flags);
    assert.match(text.stdout, new RegExp(`goes +${stored[0]?.id} .* no rule keeps it`));
  });
});

describe('a backup with keep-*', () => {
  let cluster: Cluster;
  before(async () => {
    cluster = await Cluster.start({ major: majorsAvailable().at(-1) ?? 0 });
    await cluster.createDatabase('shop');
    await cluster.query('shop', 'CREATE TABLE t AS SELECT 1 AS a');
  });
  after(() => cluster?.stop());

  test('prunes once it is stored, tells what went, and counts itself', async () => {
    const first = await takeBackup(cluster, 'shop', { label: 'one' });
    const second = await takeBackup(cluster, 'shop', { store: first.store, label: 'one' });
    const third = await takeBackup(cluster, 'shop', { store: first.store, label: 'one', 'keep-last': 2 });
    assert.equal(third.outputs.pruned, JSON.stringify([first.id]));
    assert.match(third.result.log, /assayed: 1 backup deleted, 2 kept/);
    assert.match(third.result.summary, /Retention: 1 backup deleted, 2 kept/);
    const listed = (await cli(['list', '--store', first.store, '--json'])).json as { backups: { id: string }[] };
    assert.deepEqual(
      listed.backups.map(({ id }) => id),
      [third.id, second.id],
    );
  });

  test('I-24: one that fails deletes nothing', async () => {
    const store = await folderStore();
    await storePast(store, ago(3), { name: 'assayed' });
    await storePast(store, ago(2), { name: 'assayed' });
    const result = await runAction(repository, {
      inputs: { 'database-url': cluster.url('missing'), name: 'assayed', store: store.uri, 'keep-last': 1 },
    });
    assert.notEqual(result.exitCode, 0);
    assert.equal((await store.ids('assayed')).length, 2);
  });
});

describe('retention in S3', () => {
  let server: S3Server;
  before(async () => {
    server = await S3Server.start();
    await server.createBucket('plain');
    await server.createBucket('versioned', { versioning: true });
    await server.createBucket('locked', { objectLock: true });
  });
  after(() => server?.stop());

  const inputs = (endpoint: string): Inputs => ({
    ...{ 's3-endpoint': endpoint, 's3-access-key-id': server.accessKeyId },
    ...{ 's3-secret-access-key': server.secretAccessKey, 'keep-last': 1 },
  });

  for (const bucket of ['plain', 'versioned'])
    test(`F30: nothing of a pruned backup is left in a ${bucket} bucket, in no version`, async () => {
      const store = openS3(server, bucket);
      const stored = await nightly(store, 3);
      // Somebody hid one behind a marker and wrote over another: they are the backups they were.
      if (bucket === 'versioned') {
        await server.delete(bucket, `nightly/shop/${stored[0]?.id}/manifest.json`);
        await server.put(bucket, `nightly/shop/${stored[1]?.id}/manifest.json`, '{}');
      }
      const result = await step({ store: `s3://${bucket}/nightly`, ...inputs(server.endpoint) });
      assert.equal(result.exitCode, 0, result.log);
      const left = (await server.versions(bucket, 'nightly/shop/')).filter(({ isDeleteMarker }) => !isDeleteMarker);
      assert.deepEqual(new Set(left.map(({ key }) => key.split('/')[2])), new Set([stored[2]?.id]));
      assert.deepEqual(await openS3(server, bucket).ids('shop'), [stored[2]?.id]);
    });

  test('I-29: what is locked stays whole, and the warning says until when', async () => {
    const store = openS3(server, 'locked', 'nightly', { lock: { mode: 'GOVERNANCE', days: 5 } });
    const stored = await nightly(store, 2);
    const result = await step({ store: 's3://locked/nightly', ...inputs(server.endpoint) });
    assert.equal(result.exitCode, 0, result.log);
    assert.match(
      result.log,
      new RegExp(`shop/${stored[0]?.id} was not deleted: it is locked until \\d{4}-\\d\\d-\\d\\d`),
    );
    assert.deepEqual(
      [...(await openS3(server, 'locked').files('shop'))].map(([, files]) => files.size),
      [4, 4],
    );
    assert.match(result.summary, /The store did not let these go/);
  });

  test('I-29: without the permission to delete, everything stays and the permission is named', async () => {
    const store = openS3(server, 'plain', 'denied');
    const stored = await nightly(store, 2);
    await using proxy = await S3Proxy.start(server);
    proxy.fail('DeleteObject', { kind: 'status', status: 403, code: 'AccessDenied' }, { times: Infinity });
    const result = await step({ store: 's3://plain/denied', ...inputs(proxy.endpoint) });
    assert.equal(result.exitCode, 0, result.log);
    assert.match(
      result.log,
      new RegExp(`shop/${stored[0]?.id} was not deleted: it needs the permission s3:DeleteObject`),
    );
    assert.deepEqual(await store.ids('shop'), ids(stored));
  });

  test('I-25, F27: cut off at any request, it leaves whole backups or none, and the next run finishes', async () => {
    for (const nth of [1, 2, 3, 4]) {
      const prefix = `cut-${nth}`;
      const store = openS3(server, 'versioned', prefix);
      const stored = await nightly(store, 2);
      await using proxy = await S3Proxy.start(server);
      proxy.fail('DeleteObject', { kind: 'reset' }, { nth, times: Infinity });
      const cut = await step({ store: `s3://versioned/${prefix}`, ...inputs(proxy.endpoint) });
      assert.equal(cut.exitCode, 30, cut.log);
      const listed = (
        await cli(['list', '--store', `s3://versioned/${prefix}`, '--s3-endpoint', server.endpoint, '--json'], {
          AWS_ACCESS_KEY_ID: server.accessKeyId,
          AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
        })
      ).json as { backups: { id: string }[] };
      assert.deepEqual(
        listed.backups.map(({ id }) => id),
        nth === 1 ? ids(stored.toReversed()) : [stored[1]?.id],
      );
      assert.deepEqual(await store.sweep('shop', new Date(Date.now() + day)), nth === 1 ? [] : [stored[0]?.id]);
      await step({ store: `s3://versioned/${prefix}`, ...inputs(server.endpoint) });
      const left = (await server.versions('versioned', `${prefix}/shop/`)).filter(
        ({ isDeleteMarker }) => !isDeleteMarker,
      );
      assert.deepEqual(new Set(left.map(({ key }) => key.split('/')[2])), new Set([stored[1]?.id]));
    }
  });

  test('a month of nights, pruned each night, is what the policy says', () =>
    simulate(openS3(server, 'plain', 'month'), 31));
});

test('a year of nightly, weekly and pre-migration backups with failures, pruned daily, always holds what the policy promises', async () => {
  await simulate(await folderStore(), 366);
});

/** Nights from 2027-10-01 on, over a leap day; every morning the promise is checked against all that was ever stored. */
async function simulate(place: Store, nights: number): Promise<void> {
  let now = new Date('2027-10-01T02:00:00Z');
  const store = withClock(place, () => now);
  const rules = policy({ daily: 7, weekly: 4, monthly: 12, labels: new Map([['pre-migration', 90 * day]]) });
  const ever: Manifest[] = [];
  const start = now.getTime();
  for (let night = 0; night < nights; night++) {
    now = new Date(start + night * day + (night % 4) * 15 * 60_000);
    // Every ninth night fails, and a whole week in March.
    const fails = night % 9 === 8 || (night >= 160 && night < 167);
    if (!fails) {
      const tested =
        night % 7 === 6
          ? { tested: { at: new Date(now.getTime() + hour), result: night % 5 === 0 ? 'failed' : 'passed' } as const }
          : {};
      ever.push(await storePast(store, now, tested));
    }
    if (night % 11 === 10)
      ever.push(await storePast(store, new Date(now.getTime() + 12 * hour), { label: 'pre-migration' }));
    now = new Date(now.getTime() + 14 * hour);
    const pruned = await prune(
      {
        store,
        name: 'shop',
        policy: rules,
        trust: noSignatures,
        proofKeys: [],
        criticalAfterMs: 30 * hour,
        dryRun: false,
      },
      quiet,
    );
    assert.equal(pruned.paused !== undefined, now.getTime() - Date.parse(ever.at(-1)?.createdAt ?? '') > 30 * hour);
    const held = new Set(await store.ids('shop'));
    for (const promised of promisedAt(now, ever))
      assert.ok(held.has(promised.id), `${promised.createdAt} on ${now.toISOString()}`);
    assert.ok(held.size <= 7 + 4 + 12 + 10 + 8 + 7, `${held.size} are held`);
  }
  // Nothing that a plan over all of history would keep is gone.
  const backups = ever.map((manifest) => ({ manifest, manifestSha256: '', tampering: [], proofs: [] }));
  const ideal = planRetention(rules, {
    backups,
    proven: new Set(),
    opened: [],
    now,
    criticalAfterMs: undefined,
  }).decisions;
  const held = new Set(await store.ids('shop'));
  for (const { backup, keptBy } of ideal) if (keptBy.length > 0) assert.ok(held.has(backup.manifest.id), keptBy.join());
}

/** Written without the plan's own means: what somebody reading the README would expect to find on a morning. */
function promisedAt(now: Date, ever: readonly Manifest[]): Manifest[] {
  const regular = ever.filter(({ label }) => label === 'scheduled').toReversed();
  const lastOf = (length: number, count: number): Manifest[] => {
    const seen = new Map<string, Manifest>();
    for (const each of regular) {
      const period = each.createdAt.slice(0, length);
      if (!seen.has(period)) seen.set(period, each);
    }
    return [...seen.values()].slice(0, count);
  };
  const migrations = ever.filter(
    ({ label, createdAt }) => label === 'pre-migration' && now.getTime() - Date.parse(createdAt) <= 90 * day,
  );
  return [...lastOf(10, 7), ...lastOf(7, 12), ...migrations];
}
