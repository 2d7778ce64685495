// What is found among a repository's artifacts, across runs, and what is not.
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { readCatalog } from '../../src/catalog.ts';
import type { Opening } from '../../src/opening.ts';
import { readOpenings, writeOpening } from '../../src/openings.ts';
import { readProofs } from '../../src/proofs.ts';
import { parseSigningKey, parseVerifyKeys, type SigningKey, type VerifyKey } from '../../src/signing.ts';
import type { ArtifactStore } from '../../src/store/artifact.ts';
import { put, putNext } from '../../src/store/store.ts';
import { noSignatures } from '../../src/trust.ts';
import { ArtifactServer, openArtifacts, type Run, readArtifacts } from '../support/artifacts.ts';
import { storePast, storeProof } from '../support/history.ts';
import { keyPair } from '../support/signing.ts';

let server: ArtifactServer;
before(async () => (server = await ArtifactServer.start()));
after(() => server[Symbol.asyncDispose]());
beforeEach(() => {
  server.artifacts.length = 0;
  server.requests.length = 0;
});

const id = (n: number): string => `20261121T02${String(n).padStart(4, '0')}Z-3f9a1c`;
const manifest = (of: string): Buffer => Buffer.from(JSON.stringify({ id: of }));
const data = ['database.dump', 'roles.sql', 'census.json'];

/** Every file of a backup, the manifest last, as a step of a run stores it. */
async function store(run: Run, of: string, name = 'shop'): Promise<void> {
  const written = await openArtifacts(server, run);
  for (const file of data) await put(written, `${name}/${of}/${file}`, Buffer.from(`${file} of ${of}`));
  await put(written, `${name}/${of}/manifest.json`, manifest(of));
}

/** Without the uploads: what a list shows of a backup that was stored long ago. */
async function list(run: Run, of: string, name = 'shop'): Promise<void> {
  for (const end of ['dump', 'roles', 'census']) await server.add(`pgassay-${name}-${of}.${end}`, run, Buffer.from(of));
  await server.add(`pgassay-manifest-${name}`, run, manifest(of));
}

const reader = (token?: string): ArtifactStore => readArtifacts(server, token);

async function strangers(count: number): Promise<void> {
  for (let n = 0; n < count; n++) await server.add(`coverage-${n}`, { id: 100_000 + n });
}

describe('backups in artifacts', () => {
  test('lie under the names of the contract, each its own file, and are read by who may only read', async () => {
    await store({ id: 1 }, id(1));
    await store({ id: 1 }, id(2));
    await store({ id: 2 }, id(3));
    assert.deepEqual(
      server.artifacts.filter(({ run }) => run.id === 1).map(({ name }) => name),
      [
        ...['dump', 'roles', 'census'].map((end) => `pgassay-shop-${id(1)}.${end}`),
        'pgassay-manifest-shop',
        ...['dump', 'roles', 'census'].map((end) => `pgassay-shop-${id(2)}.${end}`),
        'pgassay-manifest-shop~2',
      ],
    );
    const [dump] = server.named(/\.dump$/);
    assert.ok(dump !== undefined);
    assert.equal((await server.content(dump)).toString(), `database.dump of ${id(1)}`);
    const artifacts = reader();
    assert.equal(artifacts.uri, 'artifact://github.com/octo/backups');
    assert.deepEqual(await artifacts.names(), ['shop']);
    assert.deepEqual(await artifacts.ids('shop'), [1, 2, 3].map(id));
    for (const n of [1, 2, 3]) {
      assert.deepEqual([...((await artifacts.files('shop')).get(id(n))?.keys() ?? [])].sort(), [
        ...['census.json', 'database.dump', 'manifest.json', 'roles.sql'],
      ]);
      assert.deepEqual(await artifacts.read(`shop/${id(n)}/manifest.json`), manifest(id(n)));
      assert.equal(String(await artifacts.read(`shop/${id(n)}/database.dump`)), `database.dump of ${id(n)}`);
    }
    assert.deepEqual(artifacts.commandToRead(`shop/${id(1)}/database.dump`), [
      ...['gh', 'api', `/repos/octo/backups/actions/artifacts/${dump.id}/zip`],
    ]);
  });

  test('of runs that made one each are told apart without reading a manifest', async () => {
    for (let n = 1; n <= 30; n++) await list({ id: n }, id(n));
    assert.deepEqual(
      await reader().ids('shop'),
      Array.from({ length: 30 }, (_, index) => id(index + 1)),
    );
    assert.equal(server.requests.length, 2, 'two pages');
  });

  test('F31: are found in a list of many pages, and in one that is too long to read', async () => {
    await list({ id: 1 }, id(1));
    await strangers(250);
    await list({ id: 2 }, id(2));
    assert.deepEqual(await reader().ids('shop'), [id(1), id(2)]);
    await strangers(1000);
    await list({ id: 3 }, id(3));
    await list({ id: 3 }, id(4), 'other');
    await list({ id: 4, fork: true }, id(5));
    await server.add(`pgassay-manifest-shop~4`, { id: 3 }, manifest(id(6)));
    server.requests.length = 0;
    const artifacts = reader();
    assert.deepEqual([...(await artifacts.files('shop')).keys()], [id(1), id(2), id(3), id(6)]);
    assert.ok(server.requests.length <= 20, `${server.requests.length} requests`);
    assert.deepEqual(await artifacts.names(), ['other', 'shop']);
  });

  test('F31: are not missed when others are deleted while a list is read', async () => {
    await strangers(80);
    await list({ id: 1 }, id(1));
    await strangers(130);
    server.fault = ({ path }) => {
      if (/[?&]page=2/.test(path)) {
        server.artifacts.splice(150, 40);
        server.fault = () => undefined;
      }
      return undefined;
    };
    assert.deepEqual(await reader().ids('shop'), [id(1)]);
  });

  test('are not looked for by name among more artifacts than can be asked for', async () => {
    await strangers(20_001);
    await assert.rejects(reader().names(), /20001 artifacts, too many/);
  });

  test('of a fork are nobody’s: neither manifests, nor files, nor proofs', async () => {
    await list({ id: 1 }, id(1));
    const fork = { id: 2, fork: true };
    await list(fork, id(2));
    await server.add(`pgassay-shop-${id(1)}.sig`, fork, Buffer.from('forged'));
    await server.add(
      'pgassay-proof-shop',
      fork,
      Buffer.from(JSON.stringify({ backupId: id(1), testedAt: new Date() })),
    );
    const artifacts = reader();
    assert.deepEqual(await artifacts.ids('shop'), [id(1)]);
    assert.deepEqual(
      [...((await artifacts.files('shop')).get(id(1))?.keys() ?? [])].filter((file) => !data.includes(file)),
      ['manifest.json'],
    );
  });

  test('are made by one run: what another one calls the same is not theirs', async () => {
    await list({ id: 1 }, id(1));
    const planted = await server.add(`pgassay-shop-${id(1)}.sig`, { id: 2 }, Buffer.from('planted'));
    planted.expiresAt = new Date(Date.now() - 1000);
    await server.add(`pgassay-shop-${id(1)}.dump`, { id: 2 }, Buffer.from('planted'));
    const artifacts = reader();
    assert.deepEqual([...((await artifacts.files('shop')).get(id(1))?.keys() ?? [])].sort(), [
      ...['census.json', 'database.dump', 'manifest.json', 'roles.sql'],
    ]);
    assert.equal(String(await artifacts.read(`shop/${id(1)}/database.dump`)), id(1));
  });

  test('are listed beside artifacts that are not what GitHub says, or far too large', async () => {
    await list({ id: 1 }, id(1));
    await list({ id: 2 }, id(2));
    for (const [name, change] of [
      ['pgassay-manifest-shop', { digest: `sha256:${'0'.repeat(64)}` }],
      ['pgassay-manifest-shop~2', { size: 1e12 }],
      ['pgassay-proof-shop', { size: 3 }],
      ['pgassay-proof-shop~2', { size: 1e12 }],
    ] as const)
      Object.assign(await server.add(name, { id: 3 }, manifest(id(3))), change);
    const [, , , broken] = server.artifacts;
    assert.ok(broken?.name === 'pgassay-manifest-shop');
    broken.digest = `sha256:${'0'.repeat(64)}`;
    const { backups, damaged, unfinished } = await readCatalog(reader(), noSignatures, 'shop');
    assert.deepEqual([backups.length, unfinished.length], [0, 0]);
    assert.deepEqual(
      damaged.map((each) => [each.id, /not what it says it has/.test(each.reason)]),
      [
        [id(1), true],
        [id(2), false],
      ],
    );
  });

  test('F32: that have expired are not offered, from the first artifact on', async () => {
    for (const n of [1, 2]) await list({ id: n }, id(n));
    const [first] = server.artifacts;
    assert.ok(first !== undefined);
    first.expiresAt = new Date(Date.now() - 1000);
    assert.deepEqual(await reader().ids('shop'), [id(2)]);
    for (const artifact of server.artifacts) artifact.expiresAt = new Date(Date.now() - 1000);
    assert.deepEqual(await reader().ids('shop'), []);
    assert.deepEqual(await reader().names(), []);
  });

  test('a second manifest of the same backup is seen, and the first one counts', async () => {
    await list({ id: 1 }, id(1));
    await server.add('pgassay-manifest-shop', { id: 2 }, Buffer.from(JSON.stringify({ id: id(1), other: true })));
    const artifacts = reader();
    await artifacts.files('shop');
    const path = `shop/${id(1)}/manifest.json`;
    assert.equal(artifacts.history(path), 'overwritten');
    assert.deepEqual(await artifacts.read(path), manifest(id(1)));
    assert.match(String(await artifacts.read(path, 1)), /other/);
    assert.equal(await artifacts.read(path, 2), undefined);
  });

  test('a run that was started again leaves its first try unfinished', async () => {
    await server.add(`pgassay-shop-${id(1)}.dump`, { id: 1 }, Buffer.from('half'));
    await list({ id: 1 }, id(2));
    const files = await reader().files('shop');
    assert.deepEqual([...(files.get(id(1))?.keys() ?? [])], ['database.dump']);
    assert.ok(files.get(id(2))?.has('manifest.json'));
  });

  test('unfinished ones of other runs are swept by who may delete, but not in a run whose manifest nobody can read', async () => {
    await server.add(`pgassay-shop-${id(1)}.dump`, { id: 1 }, Buffer.from('left'));
    await server.add(`pgassay-shop-${id(2)}.dump`, { id: 2 }, Buffer.from('unclear'));
    await server.add(`pgassay-shop-${id(3)}.dump`, { id: 2 }, Buffer.from('unclear'));
    await server.add('pgassay-manifest-shop', { id: 2 }, Buffer.from('{'));
    const future = new Date(Date.now() + 60_000);
    await assert.rejects(reader().sweep('shop', future), /may not delete an artifact.*\(403\)/);
    assert.deepEqual(await reader(server.token).sweep('shop', future), [id(1)]);
    assert.deepEqual(
      server.artifacts.map(({ run }) => run.id),
      [2, 2, 2],
    );
  });
});

describe('sweeping artifacts', () => {
  test('F31: takes nothing of a backup whose manifest a list has lost', async () => {
    for (let n = 1; n <= 30; n++) await list({ id: n }, id(n));
    const published = server.artifacts.filter(({ name }) => name === 'pgassay-manifest-shop');
    // Somebody deletes on the first page and adds there: the second page begins one further, and the total is the same.
    server.fault = ({ path }) => {
      for (const each of published) each.finalized = path.includes('/runs/');
      return undefined;
    };
    assert.deepEqual(await reader(server.token).sweep('shop', new Date(Date.now() + 60_000)), []);
    server.fault = () => undefined;
    assert.equal(server.artifacts.length, 120);
  });
});

describe('small artifacts beside backups', () => {
  test('the newest proof that passed is found behind a hundred that failed', async () => {
    await list({ id: 1 }, id(1));
    const proof = (n: number, result: string): Buffer =>
      Buffer.from(JSON.stringify({ backupId: id(1), testedAt: new Date(Date.UTC(2026, 7, n)), result }));
    await server.add('pgassay-proof-shop', { id: 2 }, proof(0, 'failed'));
    await server.add('pgassay-proof-shop', { id: 3 }, proof(1, 'passed'));
    for (let n = 2; n <= 120; n++) await server.add('pgassay-proof-shop', { id: n + 2 }, proof(n, 'failed'));
    const files = [...((await reader().files('shop')).get(id(1))?.keys() ?? [])];
    assert.equal(files.filter((file) => file.startsWith('proofs/')).length, 121);
    assert.ok(files.includes('proofs/20260801T000000Z.json'));
  });

  test('proofs are found by what is in them, restores by when they were', async () => {
    await list({ id: 1 }, id(1));
    const tested = await openArtifacts(server, { id: 2 });
    const proof = (testedAt: string): Buffer => Buffer.from(JSON.stringify({ backupId: id(1), testedAt }));
    const times = ['2026-11-21T03:00:00.000Z', '2026-11-21T04:00:00.000Z'];
    for (const time of times)
      await putNext(tested, `shop/${id(1)}/proofs/${time.replace(/[-:]|\.000/g, '')}.json`, proof(time));
    const record = Buffer.from(JSON.stringify({ finishedAt: times[0] }));
    for (let n = 0; n < 2; n++) await putNext(tested, '_restores/20261121T030000Z.json', record);
    assert.deepEqual(
      server.artifacts.slice(-4).map(({ name }) => name),
      ['pgassay-proof-shop', 'pgassay-proof-shop~2', 'pgassay-restores', 'pgassay-restores~2'],
    );
    const artifacts = reader();
    const proofs = [...((await artifacts.files('shop')).get(id(1))?.keys() ?? [])].filter((file) =>
      /proofs/.test(file),
    );
    assert.deepEqual(proofs, ['proofs/20261121T030000Z.json', 'proofs/20261121T040000Z.json']);
    assert.deepEqual(await artifacts.read(`shop/${id(1)}/${proofs[1]}`), proof(times[1] ?? ''));
    assert.deepEqual(await artifacts.records(), ['20261121T030000Z-2.json', '20261121T030000Z.json']);
    assert.deepEqual(await artifacts.read('_restores/20261121T030000Z.json'), record);
    // As large as somebody else wants them, they are not read.
    await assert.rejects(artifacts.read('_restores/20261121T030000Z.json', 0, record.length - 1), /too many for what/);
  });

  test('a signed proof counts, whoever else tests in the same run, and in a list that is too long to read', async () => {
    const { key, keys } = await tester();
    const manifest = await storePast(await openArtifacts(server, { id: 1 }), new Date('2026-11-21T02:00:00Z'));
    const at = (minute: number): Date => new Date(Date.UTC(2026, 10, 21, 3, minute));
    // Two jobs of one run: the second one stores both of its files while the first one has stored its signature.
    const [one, other] = [await openArtifacts(server, { id: 2 }), await openArtifacts(server, { id: 2 })];
    const begin = one.begin.bind(one);
    let first = true;
    one.begin = async (path, expected) => {
      if (path.endsWith('.json') && first) {
        first = false;
        await storeProof(other, manifest, { at: at(1), result: 'failed', signing: key });
      }
      return begin(path, expected);
    };
    await storeProof(one, manifest, { at: at(0), result: 'failed', signing: key });
    await storeProof(one, manifest, { at: at(2), result: 'failed', signing: key });
    // In a later run, nobody signed the first one, and of the second one somebody stored the signature twice.
    const later = await openArtifacts(server, { id: 3 });
    await storeProof(later, manifest, { at: at(3), result: 'passed' });
    await server.add('pgassay-proofsig-shop', { id: 4 }, Buffer.from('of a first try'));
    await storeProof(await openArtifacts(server, { id: 4 }), manifest, { at: at(4), result: 'passed', signing: key });
    const read = async (of: typeof keys): Promise<string[]> => {
      const artifacts = reader();
      const { backups } = await readCatalog(artifacts, noSignatures, 'shop');
      const tests = await Promise.all(backups.map((backup) => readProofs(artifacts, backup, of)));
      return tests.flat().map(({ testedAt }) => testedAt.slice(14, 16));
    };
    assert.deepEqual(await read([]), ['04', '03', '02', '01', '00']);
    assert.deepEqual(await read(keys), ['04', '02', '01', '00']);
    await strangers(1000);
    server.requests.length = 0;
    assert.deepEqual(await read(keys), ['04', '02', '01', '00']);
    const lists = server.requests.filter(({ path }) => path.includes('artifacts?')).length;
    assert.ok(lists <= 20, `${lists} lists`);
  });

  test('a record of a key that opened a backup lies there as a proof does', async () => {
    const { key, keys } = await tester();
    const run = await openArtifacts(server, { id: 1 });
    const { id: backupId, name } = await storePast(run, new Date('2026-11-21T02:00:00Z'));
    const { backups } = await readCatalog(run, noSignatures, 'shop');
    const [backup] = backups;
    assert.ok(backup !== undefined);
    const opening: Opening = {
      ...{ format: 'pgassay-opening/1', backupId, name, manifestSha256: backup.manifestSha256 },
      ...{ openedAt: '2026-11-21T03:00:00.000Z', recipient: 'passphrase', bytes: 3, runUrl: null },
      tools: { pgassay: '0.1.0' },
    };
    await writeOpening(run, opening, key);
    const artifacts = reader();
    const listed = await readCatalog(artifacts, noSignatures, 'shop');
    assert.ok(listed.backups[0] !== undefined);
    assert.deepEqual(listed.backups[0].proofs, ['proofs/20261121T030000Z.json']);
    assert.deepEqual(await readOpenings(artifacts, listed.backups[0], keys), [opening]);
  });
});

/** A key that signs proofs, and whoever believes it. */
async function tester(): Promise<{ readonly key: SigningKey; readonly keys: readonly VerifyKey[] }> {
  const pair = await keyPair();
  const [secret, open] = [parseSigningKey(pair.privateKey), parseVerifyKeys(pair.publicKey)];
  assert.ok('key' in secret && 'keys' in open);
  return { key: secret.key, keys: open.keys };
}
