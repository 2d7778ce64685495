// Encrypted and signed in one run's artifacts; opened, trusted and judged by whoever holds which key.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { generateKeyPair } from '../../src/age.ts';
import { type ActionResult, runAction } from '../support/action.ts';
import { ArtifactServer } from '../support/artifacts.ts';
import { type CliResult, cli, clientBin } from '../support/backup.ts';
import { repository, scratch } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { type Keys, keyPair } from '../support/signing.ts';

describe('store: artifact, encrypted and signed', () => {
  let cluster: Cluster;
  let server: ArtifactServer;
  let signer: Keys;
  let drill: { readonly recipient: string; readonly identity: string };
  let folder: string;
  let taken: ActionResult;

  const step = (
    run: number,
    action: string,
    inputs: Record<string, string | number | boolean>,
  ): Promise<ActionResult> =>
    runAction(join(repository, action), {
      inputs: { store: 'artifact', ...inputs },
      token: server.token,
      env: server.env({ id: run }),
    });
  const atHome = (args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<CliResult> =>
    cli([...args, '--store', 'artifact', '--name', 'shop'], {
      ...{ GITHUB_API_URL: server.url, GITHUB_REPOSITORY: server.repository, GITHUB_TOKEN: server.readToken },
      ...env,
    });

  before(async () => {
    [cluster, server, signer, drill] = await Promise.all([
      Cluster.start(),
      ArtifactServer.start(),
      keyPair(),
      generateKeyPair('x25519'),
    ]);
    await cluster.createDatabase('shop');
    await cluster.query('shop', 'CREATE TABLE secret_plans AS SELECT g AS id FROM generate_series(1, 500) g');
    folder = await scratch();
    taken = await step(1, '.', {
      ...{ 'database-url': cluster.url('shop'), name: 'shop', 'install-client': false, 'alert-issue': false },
      ...{ store: `artifact\nfile://${folder}`, 'encrypt-to': drill.recipient, 'signing-key': signer.privateKey },
      ...clientBin(cluster),
    });
    assert.equal(taken.exitCode, 0, taken.log);
  });
  after(() => Promise.all([cluster.stop(), server[Symbol.asyncDispose]()]));

  test('goes to another store in the same run, and nothing in an artifact names a table', async () => {
    const id = taken.outputs['backup-id'] ?? '';
    assert.deepEqual((taken.outputs.location ?? '').split('\n'), [
      `artifact://github.com/octo/backups/shop/${id}`,
      `file://${folder}/shop/${id}`,
    ]);
    assert.deepEqual(server.artifacts.map(({ name }) => name).sort(), [
      'pgassay-manifest-shop',
      ...['census.age', 'dump.age', 'roles.age', 'sig'].map((end) => `pgassay-shop-${id}.${end}`),
    ]);
    for (const artifact of server.artifacts)
      assert.ok(!(await server.content(artifact)).includes('secret_plans'), artifact.name);
  });

  test('is verified by its signature and with its key, and refused without', async () => {
    const trusted = await atHome(['verify', 'latest', '--verify-key', signer.verify], {
      PGASSAY_DECRYPT_IDENTITY: drill.identity,
    });
    assert.equal(trusted.exitCode, 0, trusted.stderr);
    assert.match(trusted.stdout, /opened with the key of .*signed by key/s);
    const [keyless, stranger] = await Promise.all([
      atHome(['verify', 'latest']),
      atHome(['list', '--verify-key', (await keyPair()).verify]),
    ]);
    assert.equal(keyless.exitCode, 41, keyless.stderr);
    assert.match(stranger.stderr, /is not trusted/);
  });

  test('is judged by health, which warns that artifacts are no second copy', async () => {
    const result = await step(2, 'health', {
      ...{ 'verify-key': signer.publicKey, 'alert-issue': false },
      'max-recovery-key-age': '100d',
    });
    assert.equal(result.exitCode, 70, result.log);
    assert.match(result.log, /Warning: the backups here are artifacts of GitHub/);
    const report = JSON.parse(result.outputs.report ?? '') as { names: { findings: { check: string }[] }[] };
    assert.deepEqual(
      report.names.map(({ findings }) => findings.map(({ check }) => check)),
      [['keys']],
    );
  });

  test('is tested in a later run with the drill key, which health then knows to work', async () => {
    const tested = await step(3, 'restore-test', {
      ...{ 'verify-key': signer.publicKey, 'decrypt-identity': drill.identity, 'alert-issue': false },
      ...{ 'install-client': false, ...clientBin(cluster) },
    });
    assert.equal(tested.exitCode, 0, tested.log);
    const judged = await step(4, 'health', {
      ...{ 'verify-key': signer.publicKey, 'alert-issue': false },
      'max-recovery-key-age': '100d',
    });
    assert.equal(judged.exitCode, 0, judged.log);
  });
});
