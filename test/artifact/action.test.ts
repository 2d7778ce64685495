// A backup that one run keeps in artifacts, and later runs and the command line find, test and restore.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, afterEach, before, describe, test } from 'node:test';
import { parseManifest } from '../../src/manifest.ts';
import { type ActionOptions, type ActionResult, runAction } from '../support/action.ts';
import { ArtifactServer, type Run } from '../support/artifacts.ts';
import { type CliResult, cli, clientBin } from '../support/backup.ts';
import { errorOf, repository, scratch, wrapped } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { keyPair } from '../support/signing.ts';

describe('store: artifact', () => {
  let cluster: Cluster;
  let server: ArtifactServer;
  let id: string;
  let taken: ActionResult;

  const step = (
    run: Run,
    folder: string,
    inputs: ActionOptions['inputs'] = {},
    env: Readonly<Record<string, string>> = {},
  ): Promise<ActionResult> =>
    runAction(join(repository, folder), {
      inputs: { store: 'artifact', name: 'shop', ...inputs },
      token: server.token,
      env: { ...server.env(run), ...env },
    });
  const backup = (run: Run, inputs: ActionOptions['inputs'] = {}, env: Readonly<Record<string, string>> = {}) =>
    step(
      run,
      '.',
      {
        ...{ 'database-url': cluster.url('shop'), 'install-client': false, retries: 0, 'alert-issue': false },
        ...{ 'allow-plaintext-artifact': true, ...clientBin(cluster), ...inputs },
      },
      env,
    );
  const atHome = (args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<CliResult> =>
    cli([...args, '--store', 'artifact'], {
      ...{ GITHUB_API_URL: server.url, GITHUB_REPOSITORY: server.repository, GITHUB_TOKEN: server.readToken },
      ...env,
    });

  before(async () => {
    [cluster, server] = await Promise.all([Cluster.start(), ArtifactServer.start()]);
    await cluster.createDatabase('shop');
    await cluster.query(
      'shop',
      `CREATE TABLE customers (id int PRIMARY KEY, name text);
       INSERT INTO customers SELECT g, 'customer ' || g FROM generate_series(1, 500) g`,
    );
    taken = await backup({ id: 1 });
    assert.equal(taken.exitCode, 0, taken.log);
    id = taken.outputs['backup-id'] ?? '';
  });
  after(() => Promise.all([cluster.stop(), server[Symbol.asyncDispose]()]));
  afterEach(() => {
    server.visibility = 'private';
  });

  test('a run leaves four artifacts, the manifest last, and says until when GitHub keeps them', async () => {
    assert.deepEqual(
      server.artifacts.slice(0, 4).map(({ name }) => name),
      [`pgassay-shop-${id}.dump`, `pgassay-shop-${id}.roles`, `pgassay-shop-${id}.census`, 'pgassay-manifest-shop'],
    );
    const [dump, , , published] = server.artifacts;
    assert.ok(dump !== undefined && published !== undefined);
    const manifest = parseManifest(await server.content(published), { name: 'shop', id });
    assert.equal(manifest.store, 'artifact://github.com/octo/backups');
    assert.equal(manifest.expiresAt, dump.expiresAt.toISOString());
    assert.equal(taken.outputs.location, `artifact://github.com/octo/backups/shop/${id}`);
    assert.equal(
      taken.outputs['restore-command'],
      `set -o pipefail; gh api /repos/octo/backups/actions/artifacts/${dump.id}/zip | pg_restore -1 --exit-on-error -d "$TARGET_URL"`,
    );
    const day = manifest.expiresAt?.slice(0, 10) ?? '';
    assert.match(taken.log, new RegExp(`artifact://\\S+ is deleted by its store on ${day}`));
    assert.match(taken.summary, new RegExp(`artifact://\\S+ deletes it on ${day}`));
    assert.match(taken.summary, /GITHUB_REPOSITORY=octo\/backups pgassay restore \S+ --store artifact --name shop/);
    assert.deepEqual([taken.leftovers, taken.orphans, taken.droppedOutputs], [[], [], []]);
    assert.ok(!taken.log.includes(server.token));
  });

  test('the command line lists, shows, verifies and fetches it with a token that may only read', async () => {
    const listed = await atHome(['list', '--json']);
    assert.equal(listed.exitCode, 0, listed.stderr);
    const { backups } = listed.json as { backups: { id: string; expiresAt: string }[] };
    assert.deepEqual(
      backups.map((each) => each.id),
      [id],
    );
    for (const args of [
      ['show', id],
      ['verify', 'latest', ...programs()],
    ]) {
      const result = await atHome(args);
      assert.equal(result.exitCode, 0, result.stderr);
    }
    const file = join(await scratch(), 'shop.dump');
    assert.equal((await atHome(['fetch', '--out', file])).exitCode, 0);
    const [dump] = server.artifacts;
    assert.ok(dump !== undefined && (await readFile(file)).equals(await server.content(dump)));
  });

  test('a later run locates it, tests it, and leaves a signed proof that everybody sees', async () => {
    const tester = await keyPair();
    const located = await step({ id: 2 }, 'locate');
    assert.equal(located.outputs['backup-id'], id, located.log);
    const tested = await step({ id: 2 }, 'restore-test', {
      ...{ ...clientBin(cluster), 'install-client': false, 'alert-issue': false, 'proof-key': tester.privateKey },
    });
    assert.equal(tested.exitCode, 0, tested.log);
    assert.equal(tested.outputs.result, 'passed', tested.log);
    assert.match(tested.outputs.proof ?? '', new RegExp(`^artifact://github.com/octo/backups/shop/${id}/proofs/`));
    assert.deepEqual(
      server.artifacts.filter(({ run }) => run.id === 2).map(({ name }) => name),
      ['pgassay-proofsig-shop', 'pgassay-proof-shop'],
    );
    const shown = await atHome(['show', id]);
    assert.match(shown.stdout, /tested {4}passed/);
    const recent = ['health', '--max-proof-age', '1d', '--proof-verify-key'];
    const judged = await atHome([...recent, tester.verify]);
    assert.equal(judged.exitCode, 0, judged.stdout);
    const others = await atHome([...recent, (await keyPair()).verify]);
    assert.equal(others.exitCode, 70, others.stdout);
  });

  test('it is restored from another run, over what is there, with a safety backup and a record', async () => {
    await cluster.createDatabase('live', 'TEMPLATE shop');
    await cluster.query('live', 'DELETE FROM customers WHERE id > 10');
    const restored = await step({ id: 3 }, 'restore', {
      ...{ 'target-url': cluster.url('live'), clean: true, confirm: 'live', 'allow-plaintext-artifact': true },
      ...clientBin(cluster),
    });
    assert.equal(restored.exitCode, 0, restored.log);
    assert.equal((await cluster.query('live', 'SELECT 1 FROM customers')).length, 500);
    assert.deepEqual(
      server.artifacts.filter(({ run }) => run.id === 3).map(({ name }) => name.replace(/\d{8}T\d{6}Z-\w{6}/, 'ID')),
      [
        'pgassay-shop-ID.dump',
        'pgassay-shop-ID.roles',
        'pgassay-shop-ID.census',
        'pgassay-manifest-shop',
        'pgassay-restores',
      ],
    );
    const restores = await atHome(['list', '--restores', '--json']);
    const [record] = (restores.json as { restores: { database: string; safetyBackupId: string }[] }).restores;
    assert.deepEqual([record?.database, record?.safetyBackupId], ['live', restored.outputs['safety-backup-id']]);
  });

  test('the next backup knows the last one', async () => {
    const next = await backup({ id: 4 }, { label: 'next' });
    assert.equal(next.exitCode, 0, next.log);
    const [published] = server.artifacts.filter(({ run, name }) => run.id === 4 && name === 'pgassay-manifest-shop');
    assert.ok(published !== undefined);
    const { previous } = parseManifest(await server.content(published));
    assert.equal(previous?.id, id);
    await cluster.createDatabase('other');
    await cluster.query('other', 'CREATE TABLE t AS SELECT 1 x');
    const other = await backup({ id: 5 }, { 'database-url': cluster.url('other') });
    assert.match(errorOf(other), /shop holds backups of another database/);
  });

  for (const [what, end, least] of [
    ['whose dump fails after its last byte', 'exit 1', 1],
    ['that is killed with its dump', 'kill -9 $PPID; exit 1', 137],
  ] as const)
    test(`a run ${what} uploads nothing and leaves nothing on the disk`, async () => {
      const pgDump = `"$REAL" "$@"; case "$*" in *--snapshot=*) ${end};; esac`;
      server.requests.length = 0;
      const failed = await backup({ id: 6 }, { 'client-bin': await wrapped(cluster, { pg_dump: pgDump }) });
      assert.ok(failed.exitCode >= least, failed.log);
      assert.deepEqual(
        server.requests.filter(({ path }) => path.includes('CreateArtifact')),
        [],
      );
      assert.deepEqual([failed.leftovers, failed.orphans], [[], []]);
    });

  test('a repository that keeps artifacts for less than keep-within is told of before the dump', async () => {
    const refused = await backup(
      { id: 8 },
      { 'database-url': 'postgresql://u:pw@127.0.0.1:9/shop', 'keep-within': '100d' },
    );
    assert.equal(refused.exitCode, 2, refused.log);
    assert.match(errorOf(refused), /^preflight: keep-within asks for 100 days, and this repository .* 90 at most/);
  });

  test('a backup that fails after its dump was uploaded takes it away again', async () => {
    server.fault = ({ path, body }) =>
      /CreateArtifact/.test(path) && body.includes('.census')
        ? { status: 403, message: 'insufficient usage' }
        : undefined;
    const failed = await backup({ id: 7 });
    server.fault = () => undefined;
    assert.equal(failed.exitCode, 30, failed.log);
    assert.match(errorOf(failed), /^upload: the storage that the account has for artifacts is used up\nhint: /);
    assert.deepEqual(
      server.artifacts.filter(({ run }) => run.id === 7),
      [],
    );
  });

  test('F33: what others could read is refused before anybody connects', async () => {
    const nowhere = { 'database-url': 'postgresql://u:pw@127.0.0.1:9/shop' };
    for (const [visibility, inputs, message] of [
      ['private', { 'allow-plaintext-artifact': false }, /^preflight: this backup is not encrypted/],
      ['public', {}, /^preflight: this repository is public/],
      [undefined, {}, /^preflight: GitHub does not say whether this repository is public/],
    ] as const) {
      server.visibility = visibility;
      const refused = await backup({ id: 8 }, { ...nowhere, ...inputs });
      assert.equal(refused.exitCode, 2, refused.log);
      assert.match(errorOf(refused), message);
    }
  });

  test('Enterprise Server, no permission, no token, and a command line that would write: each has its own words', async () => {
    const enterprise = await backup({ id: 9 }, {}, { GITHUB_SERVER_URL: 'https://github.acme.example' });
    assert.match(
      errorOf(enterprise),
      /^input: store: artifact needs artifacts that GitHub Enterprise Server does not have/,
    );
    const stranger = await step({ id: 9 }, 'locate', { 'github-token': server.strangerToken });
    assert.match(errorOf(stranger), /\(403\)\nhint: give the job\n {2}permissions:\n {4}actions: read/);
    const silent = await atHome(['list'], { GITHUB_TOKEN: '' });
    assert.equal(silent.exitCode, 31);
    assert.match(silent.stderr, /no token to read the artifacts of octo\/backups with/);
    const nameless = await atHome(['list'], { GITHUB_REPOSITORY: '' });
    assert.match(nameless.stderr, /set GITHUB_REPOSITORY to owner\/name/);
    const written = await atHome(['backup', '--name', 'shop', '--allow-plaintext-artifact'], {
      DATABASE_URL: cluster.url('shop'),
    });
    assert.equal(written.exitCode, 31);
    assert.match(written.stderr, /only by a step that uses the action/);
    server.requests.length = 0;
    const recorded = await atHome(['verify', 'latest', '--sign-proof', ...programs()]);
    assert.equal(recorded.exitCode, 2, recorded.stderr);
    assert.match(recorded.stderr, /^input: sign-proof: keeps its record beside the backup, and only a step/m);
    assert.match(recorded.stderr, /^hint: .*restore test \(decrypt-identity of .*a bucket or a folder/m);
    assert.deepEqual(server.requests, [], 'nothing is downloaded for it');
    const judged = await atHome(['health', '--max-recovery-key-age', '100d']);
    assert.match(judged.stdout, /note: for max-recovery-key-age only restore tests that passed count here/);
  });

  const programs = (): string[] => Object.entries(clientBin(cluster)).flatMap(([name, value]) => [`--${name}`, value]);
});
