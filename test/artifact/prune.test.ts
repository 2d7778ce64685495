// Retention applied to the artifacts of a repository, across the runs that made them.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import type { Manifest } from '../../src/manifest.ts';
import { parseSigningKey } from '../../src/signing.ts';
import { type ActionResult, runAction } from '../support/action.ts';
import { ArtifactServer, openArtifacts, readArtifacts } from '../support/artifacts.ts';
import { type CliResult, cli } from '../support/backup.ts';
import { repository } from '../support/faults.ts';
import { type Past, storePast } from '../support/history.ts';
import { keyPair } from '../support/signing.ts';

const day = 86_400_000;

describe('retention in artifacts', () => {
  let server: ArtifactServer;
  let runs = 0;
  before(async () => (server = await ArtifactServer.start()));
  after(() => server[Symbol.asyncDispose]());
  beforeEach(() => {
    server.artifacts.length = 0;
    server.requests.length = 0;
  });
  afterEach(() => {
    server.fault = () => undefined;
  });

  /** Each taken by a run of its own. */
  async function stored(...pasts: readonly (readonly [daysAgo: number, past?: Past])[]): Promise<string[]> {
    const manifests: Manifest[] = [];
    for (const [daysAgo, past] of pasts)
      manifests.push(
        await storePast(await openArtifacts(server, { id: ++runs }), new Date(Date.now() - daysAgo * day), past),
      );
    return manifests.map(({ id }) => id);
  }

  /** The step of a later run. */
  const prune = (inputs: Readonly<Record<string, string>> = {}): Promise<ActionResult> =>
    runAction(join(repository, 'prune'), {
      inputs: { store: 'artifact', name: 'shop', 'keep-last': 1, ...inputs },
      token: server.token,
      env: server.env({ id: ++runs }),
    });
  const atHome = (args: readonly string[], token: string): Promise<CliResult> =>
    cli([...args, '--store', 'artifact'], {
      ...{ GITHUB_API_URL: server.url, GITHUB_REPOSITORY: server.repository, GITHUB_TOKEN: token },
    });
  const deletions = (): string[] =>
    server.requests.flatMap(({ method, path }) => (method === 'DELETE' ? [path.split('/').at(-1) ?? ''] : []));
  const read = () => readArtifacts(server);

  test('deletes every artifact of what no rule keeps, the manifest first, and no other', async () => {
    const { privateKey, publicKey } = await keyPair();
    const parsed = parseSigningKey(privateKey);
    assert.ok('key' in parsed);
    const signing = parsed.key;
    const tested = { at: new Date(Date.now() - 3.5 * day), result: 'failed', signing } as const;
    const [old, proven, newest] = await stored(
      [4, { tested }],
      [3, { tested: { at: new Date(Date.now() - 2 * day), result: 'passed', signing } }],
      [0.5],
    );
    await stored([9, { name: 'other' }]);
    await server.add('coverage', { id: 1 });
    const gone = server.artifacts.slice(0, 6);
    assert.deepEqual(
      gone.slice(3).map(({ name }) => name),
      ['pgassay-manifest-shop', 'pgassay-proofsig-shop', 'pgassay-proof-shop'],
    );
    const result = await prune({ 'proof-verify-key': publicKey });
    assert.equal(result.exitCode, 0, result.log);
    assert.equal(result.outputs.pruned, JSON.stringify([old]));
    assert.equal(deletions()[0], String(gone[3]?.id));
    assert.deepEqual(deletions().sort(), gone.map(({ id }) => String(id)).sort());
    assert.deepEqual(await read().ids('shop'), [proven, newest]);
    assert.deepEqual([(await read().ids('other')).length, server.named('coverage').length], [1, 1]);
    assert.ok(!result.log.includes(server.token));
  });

  test('I-29: without actions: write everything stays, and the permission is named', async () => {
    const ids = await stored([2], [0.5]);
    const before = server.artifacts.length;
    const result = await prune({ 'github-token': server.readToken });
    assert.equal(result.exitCode, 0, result.log);
    assert.match(
      result.log,
      new RegExp(`shop/${ids[0]} was not deleted: github-token needs the permission actions: write`),
    );
    assert.equal(server.artifacts.length, before);
    assert.equal(result.outputs.pruned, '[]');
  });

  test('I-25, F27: cut off at any deletion, it leaves whole backups or none, and later runs finish', async () => {
    for (const nth of [1, 3]) {
      server.artifacts.length = 0;
      const [old, newest] = await stored([2], [0.5]);
      let left = nth;
      server.fault = ({ method }) => (method === 'DELETE' && --left <= 0 ? 'reset' : undefined);
      const cut = await prune();
      server.fault = () => undefined;
      assert.equal(cut.exitCode, 30, cut.log);
      const listed = await atHome(['list', '--json'], server.readToken);
      const { backups } = listed.json as { backups: { id: string }[] };
      assert.deepEqual(
        backups.map(({ id }) => id),
        nth === 1 ? [newest, old] : [newest],
      );
      if (nth === 1) {
        const pruned = await atHome(['prune', '--name', 'shop', '--keep-last', '1', '--json'], server.token);
        assert.deepEqual((pruned.json as { pruned: string[] }).pruned, [old], pruned.stderr);
      } else {
        const store = readArtifacts(server, server.token);
        assert.deepEqual(await store.sweep('shop', new Date(Date.now() + day)), [old]);
      }
      assert.equal(server.artifacts.length, 4);
    }
  });

  test('a second manifest goes before the first, and what the same run published stays', async () => {
    const both = await openArtifacts(server, { id: ++runs });
    const old = await storePast(both, new Date(Date.now() - 3 * day));
    const kept = await storePast(both, new Date(Date.now() - 0.5 * day));
    const [first] = server.named('pgassay-manifest-shop');
    assert.ok(first !== undefined);
    const second = await server.add('pgassay-manifest-shop', { id: ++runs }, await server.content(first));
    const result = await prune();
    assert.equal(result.outputs.pruned, JSON.stringify([old.id]), result.log);
    assert.deepEqual(deletions().slice(0, 2), [String(second.id), String(first.id)]);
    assert.deepEqual(await read().ids('shop'), [kept.id]);
    assert.deepEqual(
      server.artifacts.map(({ name }) => name),
      [...['dump', 'roles', 'census'].map((end) => `pgassay-shop-${kept.id}.${end}`), 'pgassay-manifest-shop~2'],
    );
  });
});
