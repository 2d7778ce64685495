// What may be kept in artifacts, for how long, and under which names.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { artifactPlaceOf } from '../../src/environment.ts';
import type { Failure } from '../../src/failure.ts';
import { Inputs } from '../../src/inputs.ts';
import { artifactNameOf, nthName, parseArtifactName, proofSignedBy } from '../../src/store/artifact-names.ts';
import { requireKept, requireLongEnough, requireReadableByFew } from '../../src/store/artifact-permit.ts';
import { readStore } from '../../src/store-inputs.ts';

const dayMs = 86_400_000;
const id = '20261121T020004Z-3f9a1c';

describe('F33: a backup in artifacts', () => {
  const judge = (encrypted: boolean, visibility: 'private' | 'public' | 'unknown', allowPlaintext: boolean) =>
    requireReadableByFew({ encrypted, visibility, allowPlaintext });

  test('that is encrypted may be kept anywhere', () => {
    for (const visibility of ['private', 'public', 'unknown'] as const)
      for (const allowed of [true, false]) judge(true, visibility, allowed);
  });

  test('that is not may be kept where it is allowed and the repository is private, and nowhere else', () => {
    judge(false, 'private', true);
    for (const [visibility, allowed, message] of [
      ['private', false, /is not encrypted, and everybody who may read the repository/],
      ['public', false, /this repository is public/],
      ['public', true, /this repository is public/],
      ['unknown', false, /does not say whether this repository is public/],
      ['unknown', true, /does not say whether this repository is public/],
    ] as const)
      assert.throws(
        () => judge(false, visibility, allowed),
        (failure: Failure) => {
          assert.match(failure.message, message);
          assert.equal(failure.exitCode, 2);
          assert.match(failure.hint ?? '', /encrypt-to.*s3:\/\//);
          return true;
        },
      );
  });
});

describe('F32: the days that a backup is kept', () => {
  test('are enough where the repository allows what keep-within says, or nothing is said', () => {
    requireLongEnough(undefined, 1);
    requireLongEnough(1.5 * dayMs, 2);
    requireLongEnough(90 * dayMs, 90);
    requireLongEnough(400 * dayMs, undefined);
  });

  test('are never shortened in silence', () => {
    for (const [days, most, said] of [
      [91, 90, 90],
      [401, undefined, 400],
    ] as const)
      assert.throws(
        () => requireLongEnough(days * dayMs, most),
        new RegExp(`keep-within asks for ${days} days, and this repository keeps artifacts for ${said} at most`),
      );
    const now = new Date();
    const after = (days: number): Date => new Date(now.getTime() + days * dayMs);
    requireKept(after(30), 30 * dayMs, now);
    requireKept(after(3), undefined, now);
    requireKept(undefined, 30 * dayMs, now);
    assert.throws(() => requireKept(after(28), 30 * dayMs, now), /keeps this backup until .*Z only/);
  });
});

describe('the names of artifacts', () => {
  test("are the contract's", () => {
    for (const [path, artifact, shared] of [
      [`shop/${id}/database.dump`, `pgassay-shop-${id}.dump`, false],
      [`shop/${id}/database.dump.age`, `pgassay-shop-${id}.dump.age`, false],
      [`shop/${id}/roles.sql`, `pgassay-shop-${id}.roles`, false],
      [`shop/${id}/census.json`, `pgassay-shop-${id}.census`, false],
      [`shop/${id}/manifest.json`, 'pgassay-manifest-shop', true],
      [`shop/${id}/proofs/20261121T030000Z.json`, 'pgassay-proof-shop', true],
      [`shop/${id}/proofs/20261121T030000Z.json.sig`, 'pgassay-proofsig-shop', true],
      ['_restores/20261121T030000Z.json', 'pgassay-restores', true],
    ] as const)
      assert.deepEqual(artifactNameOf(path), { artifact, shared });
    assert.equal(nthName('pgassay-manifest-shop', 1), 'pgassay-manifest-shop');
    assert.equal(nthName('pgassay-manifest-shop', 2), 'pgassay-manifest-shop~2');
    assert.throws(() => artifactNameOf(`shop/${id}/notes.txt`), /no artifact is made/);
  });

  test('say what they hold, whatever the backup is called', () => {
    const word = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/);
    const files = ['database.dump', 'database.tar', 'roles.sql', 'census.json', 'manifest.sig', 'census.json.age'];
    fc.assert(
      fc.property(word, fc.constantFrom(...files), fc.integer({ min: 1, max: 200 }), (name, file, nth) => {
        assert.deepEqual(parseArtifactName(artifactNameOf(`${name}/${id}/${file}`).artifact), {
          ...{ kind: 'file', name, id, file },
        });
        const manifest = nthName(artifactNameOf(`${name}/${id}/manifest.json`).artifact, nth);
        assert.deepEqual(parseArtifactName(manifest), { kind: 'manifest', name });
        const signature = nthName(artifactNameOf(`${name}/${id}/proofs/20261121T030000Z.json.sig`).artifact, nth);
        assert.deepEqual(parseArtifactName(signature), { kind: 'proof signature', name });
        assert.deepEqual(parseArtifactName(proofSignedBy(signature)), { kind: 'proof', name });
      }),
    );
  });

  test("leave other people's artifacts alone", () => {
    for (const name of [
      ...['coverage', 'pgassay', 'pgassay-shop', `pgassay-shop-${id}`, `pgassay-shop-${id}.txt`, 'pgassay-manifest-'],
      ...['pgassay-manifest-_state', 'pgassay-manifest-shop~1', 'pgassay-manifest-shop~x', 'my-pgassay-manifest-shop'],
    ])
      assert.equal(parseArtifactName(name), undefined, name);
  });
});

describe('store: artifact', () => {
  const onGitHub = {
    ...{ GITHUB_ACTIONS: 'true', GITHUB_REPOSITORY: 'octo/backups', GITHUB_RUN_ID: '7', GITHUB_RETENTION_DAYS: '30' },
    ...{ ACTIONS_RUNTIME_TOKEN: 'x', ACTIONS_RESULTS_URL: 'https://results.example' },
  };
  const read = (variables: Record<string, string>, given: Record<string, string> = {}) => {
    const inputs = new Inputs((name) => ({ store: 'artifact', 'github-token': 'ghs_x', ...given })[name]);
    const choice = readStore(inputs, undefined, artifactPlaceOf(variables, '/tmp'));
    return { choice, problems: inputs.problems.map(({ input, message }) => `${input}: ${message}`) };
  };

  test("is the running repository's", () => {
    const { choice, problems } = read(onGitHub, { 'allow-plaintext-artifact': 'true' });
    assert.deepEqual(problems, []);
    assert.deepEqual(choice, {
      kind: 'artifact',
      options: {
        place: {
          ...{ apiUrl: 'https://api.github.com', serverUrl: 'https://github.com', repository: 'octo/backups' },
          ...{ runId: '7', writable: true, mostDays: 30, temporary: '/tmp' },
        },
        ...{ token: 'ghs_x', allowPlaintext: true },
      },
    });
  });

  test('needs a repository, GitHub itself, and a token that can be one; S3 inputs are not for it', () => {
    assert.match(read({}).problems.join(), /store: artifact does not say of which repository/);
    for (const serverUrl of ['https://github.acme.com', 'https://github.com.evil.example'])
      assert.match(
        read({ ...onGitHub, GITHUB_SERVER_URL: serverUrl }).problems.join(),
        /GitHub Enterprise Server does not have/,
      );
    assert.deepEqual(read({ ...onGitHub, GITHUB_SERVER_URL: 'https://acme.ghe.com' }).problems, []);
    assert.match(read(onGitHub, { 'github-token': 'two words' }).problems.join(), /github-token: has a space/);
    assert.match(
      read(onGitHub, { 's3-sse': 'AES256' }).problems.join(),
      /s3-sse: is for S3 stores, and the store is artifact/,
    );
    assert.match(
      read(onGitHub, { store: 'file:///srv/x', 'allow-plaintext-artifact': 'true' }).problems.join(),
      /allow-plaintext-artifact: is for store: artifact/,
    );
  });
});
