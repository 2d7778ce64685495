import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { loadSampleDatabase } from '../../scripts/sample-database.ts';
import { type Census, type Manifest, parseManifest } from '../../src/manifest.ts';
import { type ActionResult, runAction } from '../support/action.ts';
import { cli, clientBin, countedRows, recordedRows } from '../support/backup.ts';
import { repository, scratch } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { S3Server } from '../support/s3.ts';

const execute = promisify(execFile);

describe('a backup in a real S3 bucket', () => {
  let cluster: Cluster;
  let server: S3Server;
  let result: ActionResult;
  let manifest: Manifest;
  let census: Census;

  const inputs = (): Record<string, string> => ({
    'database-url': cluster.url('shop'),
    store: 's3://backups/nightly/eu',
    name: 'shop',
    's3-endpoint': server.endpoint,
    's3-access-key-id': server.accessKeyId,
    's3-secret-access-key': server.secretAccessKey,
    ...clientBin(cluster),
  });
  const flags = (): string[] => [
    ...['--store', 's3://backups/nightly/eu', '--s3-endpoint', server.endpoint],
    ...Object.entries(clientBin(cluster)).flatMap(([name, value]) => [`--${name}`, value]),
  ];
  const env = (): Record<string, string> => ({ ...server.env, HOME: '/nonexistent' });
  const json = async (key: string): Promise<unknown> => JSON.parse((await server.get('backups', key)).toString());

  before(async () => {
    [cluster, server] = await Promise.all([Cluster.start(), S3Server.start()]);
    await server.createBucket('backups');
    await cluster.createDatabase('shop');
    await loadSampleDatabase(cluster.url('shop'));
    result = await runAction(repository, { inputs: inputs() });
    assert.equal(result.exitCode, 0, result.log);
    const folder = `nightly/eu/shop/${result.outputs['backup-id']}`;
    manifest = parseManifest(await server.get('backups', `${folder}/manifest.json`), {
      name: 'shop',
      id: result.outputs['backup-id'] ?? '',
    });
    census = (await json(`${folder}/census.json`)) as Census;
  });
  after(() => Promise.all([cluster?.stop(), server?.stop()]));

  test('is four objects and nothing else, at the place that the outputs name', async () => {
    const folder = `nightly/eu/shop/${manifest.id}`;
    assert.deepEqual(
      await server.keys('backups'),
      ['census.json', 'database.dump', 'manifest.json', 'roles.sql'].map((file) => `${folder}/${file}`),
    );
    assert.deepEqual(await server.uploads('backups'), []);
    assert.equal(result.outputs.location, `s3://backups/${folder}`);
    assert.equal(manifest.store, 's3://backups/nightly/eu');
    assert.equal((await server.get('backups', `${folder}/database.dump`)).length, manifest.files[0]?.bytes);
    assert.deepEqual(result.droppedOutputs, []);
    assert.ok(result.log.includes(result.outputs.location ?? '-'), result.log);
    assert.ok(!result.log.includes(server.secretAccessKey) && result.masks.includes(server.secretAccessKey));
  });

  test('is listed, shown, verified, fetched and restored with nothing but its address', async () => {
    const listed = await cli(['list', ...flags(), '--json'], env());
    assert.equal(listed.exitCode, 0, listed.stderr);
    assert.deepEqual(
      (listed.json as { backups: { id: string }[] }).backups.map((backup) => backup.id),
      [manifest.id],
    );
    const shown = await cli(['show', 'latest', ...flags(), '--json'], env());
    assert.deepEqual(shown.json, { manifest, census, proofs: [], openings: [] }, shown.stderr);
    const verified = await cli(['verify', 'latest', ...flags()], env());
    assert.equal(verified.exitCode, 0, verified.stderr);
    const file = `${await scratch()}/shop.dump`;
    const fetched = await cli(['fetch', manifest.id, ...flags(), '--out', file], env());
    assert.equal(fetched.exitCode, 0, fetched.stderr);
    const restored = await cli(['restore', 'latest', ...flags(), '--json'], {
      ...env(),
      TARGET_URL: cluster.url('from_s3'),
    });
    assert.equal(restored.exitCode, 0, restored.stderr);
    assert.deepEqual(await countedRows(cluster, 'from_s3', census), recordedRows(census));
  });

  test("is restored by the outputs' restore-command, with aws and pg_restore alone", async () => {
    await cluster.createDatabase('by_hand', 'TEMPLATE template0');
    await execute('bash', ['-c', result.outputs['restore-command'] ?? 'exit 1'], {
      env: {
        ...server.env,
        PATH: `${cluster.bin}:${process.env.PATH}`,
        TARGET_URL: cluster.url('by_hand'),
      },
    });
    assert.deepEqual(await countedRows(cluster, 'by_hand', census), recordedRows(census));
  });

  test('is followed by one from the command line, with keys from the usual variables', async () => {
    const taken = await cli(['backup', '--name', 'shop', ...flags(), '--json'], {
      ...env(),
      DATABASE_URL: cluster.url('shop'),
    });
    assert.equal(taken.exitCode, 0, taken.stderr);
    const { backup } = taken.json as { backup: Manifest };
    assert.equal(backup.previous?.id, manifest.id);
    assert.ok(backup.id > manifest.id);
  });

  test('is refused when the keys, the bucket or the address are wrong, each in its own words', async () => {
    const wrong = async (values: Record<string, string>): Promise<ActionResult> =>
      runAction(repository, { inputs: { ...inputs(), retries: '0', ...values } });
    for (const [values, exit, says] of [
      [{ 's3-secret-access-key': 'wrong' }, 31, /the secret access key does not belong to this access key id/],
      [{ 's3-access-key-id': 'AKIAUNKNOWN' }, 31, /does not know this access key id/],
      [{ store: 's3://no-such-bucket/x' }, 30, /there is no bucket no-such-bucket at http:\/\/127/],
      [{ 's3-endpoint': 'http://127.0.0.1:9' }, 30, /could not be reached to list the bucket backups \(ECONNREFUSED\)/],
      [{ 's3-access-key-id': '', 's3-secret-access-key': '' }, 31, /there are no credentials for the store/],
    ] as const) {
      const refused = await wrong(values);
      assert.equal(refused.exitCode, exit, refused.log);
      assert.match(refused.log, says);
      assert.match(refused.log, /hint: /);
      assert.ok(!refused.log.includes('##[group]Dump'), 'nothing was dumped');
    }
  });

  test('passes a restore test, whose proof lies beside it and shows in the list; the copy on disk is gone', async () => {
    const { 'database-url': _, ...given } = inputs();
    const tested = await runAction(join(repository, 'restore-test'), { inputs: { ...given, backup: manifest.id } });
    assert.equal(tested.exitCode, 0, tested.log);
    assert.match(
      tested.outputs.proof ?? '',
      new RegExp(`^s3://backups/nightly/eu/shop/${manifest.id}/proofs/\\d{8}T\\d{6}Z\\.json$`),
    );
    assert.deepEqual(
      tested.leftovers.filter((name) => !name.startsWith('pgassay-findings-')),
      [],
    );
    const listed = await cli(['list', ...flags(), '--json'], env());
    const { backups } = listed.json as { backups: { id: string; proof: { result: string } | null }[] };
    assert.equal(backups.find((each) => each.id === manifest.id)?.proof?.result, 'passed');
  });
});
