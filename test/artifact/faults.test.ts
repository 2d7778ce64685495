// F32 and its kin: what goes wrong between us and GitHub's artifacts has its own words, and publishes nothing.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import { cancelled, Failure } from '../../src/failure.ts';
import type { ArtifactStore } from '../../src/store/artifact.ts';
import { requireSpoolSpace } from '../../src/store/artifact-upload.ts';
import { put, type Upload } from '../../src/store/store.ts';
import { type ApiRequest, ArtifactServer, type Fault, openArtifacts, readArtifacts } from '../support/artifacts.ts';
import { filesIn, scratch } from '../support/faults.ts';

let server: ArtifactServer;
let store: ArtifactStore;
before(async () => (server = await ArtifactServer.start()));
after(() => server[Symbol.asyncDispose]());
beforeEach(async () => {
  server.artifacts.length = 0;
  server.requests.length = 0;
  store = await openArtifacts(server, { id: 1 });
});
afterEach(() => {
  server.fault = () => undefined;
  server.visibility = 'private';
  server.mostDays = 90;
});

const id = '20261121T020004Z-3f9a1c';
const dump = `shop/${id}/database.dump`;

async function failureOf(work: Promise<unknown>): Promise<Failure> {
  const error = await work.then(
    () => assert.fail('it succeeded'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof Failure, String(error));
  return error;
}

function fail(matching: RegExp, fault: Fault, times = Number.POSITIVE_INFINITY): void {
  let left = times;
  server.fault = ({ method, path }: ApiRequest) =>
    matching.test(`${method} ${path}`) && left-- > 0 ? fault : undefined;
}

async function said(work: Promise<unknown>, exit: Failure['exit'], message: RegExp, hint: RegExp): Promise<void> {
  const failure = await failureOf(work);
  assert.match(failure.message, message);
  assert.match(failure.hint ?? '', hint);
  assert.equal(failure.exit, exit, failure.message);
}

const create = /CreateArtifact/;

describe('an upload to artifacts', () => {
  test('sends nothing before it is complete, and nothing at all when it is given up', async () => {
    const spool = await openArtifacts(server, { id: 1 });
    const upload: Upload = await spool.begin(dump, 1000);
    await upload.write(randomBytes(3_000_000));
    await upload.abort();
    await upload.abort();
    assert.equal(server.requests.filter(({ path }) => path.startsWith('/twirp/')).length, 0);
    assert.equal(server.artifacts.length, 0);
  });

  test('leaves nothing on the disk, whatever became of it', async () => {
    const temporary = await scratch();
    const place = await openArtifacts(server, { id: 1 }, { temporary });
    await put(place, `shop/${id}/roles.sql`, Buffer.from('x'));
    fail(create, { status: 403, message: 'insufficient usage to create artifact' });
    await failureOf(put(place, `shop/${id}/census.json`, Buffer.from('x')));
    assert.deepEqual(await filesIn(temporary), []);
  });

  for (const [what, fault, exit, message, hint] of [
    [
      'a quota that is used up',
      { status: 403, message: 'insufficient usage to create artifact' },
      'store',
      /storage that the account has for artifacts is used up/,
      /until the month is over.*nothing was published/,
    ],
    [
      'a token of the runner’s that is over',
      { status: 401, message: 'unauthenticated' },
      'storeCredentials',
      /refused the token that the runner gave this job/,
      /ends with the job/,
    ],
    [
      'an answer nobody knows',
      { status: 400, message: 'bad request' },
      'store',
      /pgassay-shop-.*\.dump could not be uploaded \(400\)/,
      /githubstatus/,
    ],
  ] as const)
    test(`F32: ${what} is told as that`, async () => {
      fail(create, fault);
      await said(put(store, dump, Buffer.from('x')), exit, message, hint);
      assert.equal(server.artifacts.length, 0);
    });

  test('F32: a name that this run has already is told, and nothing is replaced', async () => {
    await put(store, dump, Buffer.from('first'));
    await said(
      put(store, dump, Buffer.from('second')),
      'exists',
      /this run already has an artifact pgassay-shop-.*\.dump/,
      /new run/,
    );
    assert.deepEqual((await Promise.all(server.artifacts.map((each) => server.content(each)))).map(String), ['first']);
  });

  test('F32: what GitHub has afterwards must be what was sent', async () => {
    for (const change of [{ digest: `sha256:${'0'.repeat(64)}` }, { size: 3 }]) {
      server.artifacts.length = 0;
      server.fault = ({ method, path }) => {
        const [artifact] = server.artifacts;
        if (method === 'GET' && /artifacts\/\d+$/.test(path) && artifact !== undefined) Object.assign(artifact, change);
        return undefined;
      };
      await said(put(store, dump, Buffer.from('x')), 'store', /what GitHub stored .* is not what was sent/, /nothing/);
    }
  });

  test('F32: a shorter retention than asked for is an error, also where only GitHub knows of it', async () => {
    server.mostDays = 30;
    const days = (count: number) => ({ encrypted: true, keepMs: count * 86_400_000 });
    const told = await openArtifacts(server, { id: 2 });
    await said(told.admit(days(60)), 'badInput', /keep-within asks for 60 days.*artifacts for 30 at most/, /settings/);
    await told.admit(days(10));
    await put(told, dump, Buffer.from('x'));
    const [kept] = server.artifacts;
    const lasts = ((kept?.expiresAt.getTime() ?? 0) - Date.now()) / 86_400_000;
    assert.ok(
      lasts > 29.9,
      `${lasts} days: it is kept for as long as the repository allows, for the sake of other rules`,
    );
    const untold = await openArtifacts(server, { id: 3 });
    server.mostDays = 5;
    await untold.admit(days(10));
    await said(put(untold, dump, Buffer.from('x')), 'store', /keeps this backup until .*Z only/, /retention/);
  });

  test('is read again where GitHub does not say what it has', async () => {
    const content = Buffer.from('content');
    server.fault = ({ method, path }) => {
      const [artifact] = server.artifacts;
      if (method === 'GET' && /artifacts\/\d+$/.test(path) && artifact !== undefined) artifact.digest = null;
      return undefined;
    };
    await put(store, dump, content);
    server.artifacts.length = 0;
    const upload = await store.begin(dump, 1);
    await upload.write(content);
    let tampered: Promise<void> | undefined;
    server.fault = ({ method, path }) => {
      const [artifact] = server.artifacts;
      if (method === 'GET' && /artifacts\/\d+$/.test(path) && artifact !== undefined) artifact.digest = null;
      if (path.includes('FinalizeArtifact') && artifact !== undefined)
        tampered = server.tamper(artifact, Buffer.from('CONTENT'));
      return undefined;
    };
    await said(upload.complete(), 'store', /what GitHub stored .* is not what was sent/, /nothing/);
    await tampered;
  });

  test('is not begun where the disk has no room for it', async () => {
    await said(
      requireSpoolSpace('/tmp', 1e15),
      'disk',
      /it needs about 1 PB in \/tmp, which has .* free/,
      /larger disk, or a bucket/,
    );
    await put(store, dump, randomBytes(1_000_000));
    await put(store, `shop/${id}/manifest.json`, Buffer.from(JSON.stringify({ id })));
    // The last one was small, so a database that would not fit may be dumped all the same.
    const upload = await store.begin(`shop/${id.replace('04Z', '05Z')}/database.dump`, 1e15);
    await upload.abort();
    const first = await failureOf(store.begin(`other/${id}/database.dump`, 1e17));
    assert.equal(first.exit, 'disk');
  });

  test('ends when the run is cancelled', async () => {
    const controller = new AbortController();
    const temporary = await scratch();
    const stopped = await openArtifacts(server, { id: 4 }, { temporary }, { signal: controller.signal });
    fail(create, 'silence');
    const upload = await stopped.begin(dump, 10);
    await upload.write(Buffer.from('x'));
    const done = failureOf(upload.complete());
    setTimeout(() => controller.abort(cancelled('upload')), 100);
    assert.equal((await done).exit, 'cancelled');
    await upload.abort();
    assert.deepEqual(await filesIn(temporary), []);
  });
});

describe('a manifest on its way to artifacts when the run is cancelled', () => {
  const manifest = `shop/${id}/manifest.json`;

  /** The publication is stopped while GitHub has not answered; then the run clears up. */
  async function cancelWhilePublishing(fault: (request: ApiRequest) => Fault | undefined): Promise<void> {
    const controller = new AbortController();
    const stopped = await openArtifacts(server, { id: 5 }, {}, { signal: controller.signal });
    await put(stopped, dump, Buffer.from('x'));
    server.fault = (request) => {
      if (request.path.includes('CreateArtifact')) controller.abort(cancelled('publish'));
      return fault(request);
    };
    assert.equal((await failureOf(put(stopped, manifest, Buffer.from(JSON.stringify({ id }))))).exit, 'cancelled');
    await stopped.discard('shop', id);
  }

  test('publishes a whole backup, or none that anybody sees', async () => {
    await cancelWhilePublishing(() => undefined);
    server.fault = () => undefined;
    const files = (await readArtifacts(server).files('shop')).get(id);
    assert.deepEqual([...(files?.keys() ?? [])].sort(), ['database.dump', 'manifest.json']);
  });

  test('keeps what it names for as long as it may still arrive', async () => {
    await cancelWhilePublishing(({ path }) => (path.includes('CreateArtifact') ? 'silence' : undefined));
    server.fault = () => undefined;
    assert.equal(server.named(/\.dump$/).length, 1);
    // The next process knows that nobody is sending any more.
    await (await openArtifacts(server, { id: 5 })).discard('shop', id);
    assert.equal(server.artifacts.length, 0);
  });
});

describe('reading artifacts', () => {
  const open = (token: string | undefined) => openArtifacts(server, { id: 9 }, { token });

  test('needs a token that may: none, a wrong one, one without the permission, another repository’s', async () => {
    await said(
      (await open(undefined)).ids('shop'),
      'storeCredentials',
      /no token to read the artifacts of octo\/backups/,
      /GITHUB_TOKEN[\s\S]*actions: read/,
    );
    await said(
      (await open('ghs_old')).ids('shop'),
      'storeCredentials',
      /does not know the token .*401/,
      /leave github-token/,
    );
    await said(
      (await open(server.strangerToken)).ids('shop'),
      'storeCredentials',
      /may not list the artifacts of octo\/backups \(403\)/,
      /permissions:\n {4}actions: read/,
    );
    fail(/GET \/repos/, { status: 404, message: 'Not Found' });
    await said(
      store.ids('shop'),
      'storeCredentials',
      /there is no repository octo\/backups .*404/,
      /GITHUB_REPOSITORY/,
    );
  });

  test('waits for what passes, and tells a limit, an outage and a network that does not', async () => {
    fail(/GET/, { status: 502 }, 2);
    assert.deepEqual(await store.ids('shop'), []);
    fail(/GET/, 'reset', 1);
    store = await openArtifacts(server, { id: 1 });
    assert.deepEqual(await store.ids('shop'), []);
    for (const [fault, message] of [
      [{ status: 500 }, /could not list the artifacts of octo\/backups \(500\)/],
      [
        { status: 403, message: 'API rate limit exceeded', headers: { 'retry-after': '90' } },
        /limit of requests.*1 min 30 s/,
      ],
      ['reset', /could not be reached to list/],
    ] as const) {
      store = await openArtifacts(server, { id: 1 });
      fail(/GET/, fault);
      const failure = await failureOf(store.ids('shop'));
      assert.match(failure.message, message);
      assert.ok(failure.transient && failure.exit === 'store');
    }
  });

  test('takes a download up again where it broke', async () => {
    const content = randomBytes(3_000_000);
    await put(store, dump, content);
    server.cuts = 3;
    const file = await store.open(dump);
    assert.ok(file !== undefined && (await buffer(file.stream)).equals(content));
    assert.equal(server.cuts, 0);
  });

  test('F18: refuses bytes that are not those that GitHub says it has', async () => {
    const content = randomBytes(100_000);
    await put(store, dump, content);
    const [artifact] = server.artifacts;
    assert.ok(artifact !== undefined);
    for (const changed of [Buffer.alloc(100_000), Buffer.concat([content, content])]) {
      await server.tamper(artifact, changed);
      const file = await store.open(dump);
      assert.ok(file !== undefined);
      await said(buffer(file.stream), 'verification', /what GitHub gave of the artifact/, /another backup/);
    }
  });

  test('F32: tells one that expired in the meantime, and one that is gone', async () => {
    await put(store, dump, Buffer.from('x'));
    await store.files('shop');
    const [artifact] = server.artifacts;
    assert.ok(artifact !== undefined);
    artifact.expiresAt = new Date(Date.now() - 1000);
    await said(store.open(dump), 'store', /the artifact pgassay-shop-.* has expired/, /younger backup/);
    server.artifacts.length = 0;
    assert.equal(await store.open(dump), undefined);
  });
});

describe('F33: before a backup', () => {
  test('the repository is asked for its visibility, and what it does not say counts as public', async () => {
    const plain = { encrypted: false, keepMs: undefined };
    await store.admit(plain);
    server.visibility = 'internal';
    await store.admit(plain);
    await said(
      (await openArtifacts(server, { id: 1 }, { allowPlaintext: false })).admit(plain),
      'badInput',
      /is not encrypted/,
      /insists/,
    );
    server.visibility = 'public';
    await said(store.admit(plain), 'badInput', /this repository is public/, /s3:\/\//);
    await store.admit({ ...plain, encrypted: true });
    server.visibility = undefined;
    await said(store.admit(plain), 'badInput', /does not say whether/, /github-token/);
    fail(/GET/, { status: 403 });
    await said(store.admit(plain), 'badInput', /does not say whether/, /github-token/);
  });

  test('a place that can only read is refused', async () => {
    const readOnly = readArtifacts(server);
    for (const work of [readOnly.admit({ encrypted: true, keepMs: undefined }), readOnly.begin(dump, 1)])
      await said(work, 'storeCredentials', /only by a step that uses the action/, /use a bucket or a folder/);
  });
});
