import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  type Census,
  type Manifest,
  parseCensus,
  parseManifest,
  serialize,
  UnreadableDocument,
} from '../src/manifest.ts';

const sha = 'ab'.repeat(32);

const manifest: Manifest = {
  format: 'pgassay/1',
  id: '20261121T020004Z-3f9a1c',
  name: 'shop',
  label: 'scheduled',
  series: 'full',
  createdAt: '2026-11-21T02:00:04.123Z',
  finishedAt: '2026-11-21T02:01:00.000Z',
  expiresAt: null,
  database: {
    id: sha,
    name: 'shop',
    serverVersion: '17.11',
    encoding: 'UTF8',
    collation: 'C.UTF-8',
    sizeBytes: 12_345_678,
  },
  tools: { pgDump: '17.11', pgassay: '0.1.0' },
  source: { repository: 'o/r', workflow: 'w', runId: '1', runAttempt: '1', runUrl: 'https://x', sha: '0123' },
  scope: { mode: 'full', schemas: [], excludeSchemas: [], tables: [], excludeTables: [], excludeTableData: [] },
  store: 'file:///backups',
  previous: { id: '20261120T020004Z-3f9a1c', manifestSha256: sha },
  signing: null,
  files: [
    { name: 'database.dump', bytes: 1000, sha256: sha, plainSha256: sha, compression: 'zstd:3', encryption: null },
    { name: 'roles.sql', bytes: 10, sha256: sha, plainSha256: sha, compression: 'none', encryption: null },
    { name: 'census.json', bytes: 20, sha256: sha, plainSha256: sha, compression: 'none', encryption: null },
  ],
  totals: { tables: 3, rows: 42, largeObjects: 2 },
  selfContained: true,
  warnings: ['something'],
  timings: { dump: 1.5, total: 2 },
};

const census: Census = {
  tables: [{ schema: 'public', name: 'users', rows: 42, archiveRows: 42, data: true, digest: '-17' }],
  digest: { algorithm: 'a', columns: 'b' },
  sequences: [{ schema: 'public', name: 's', value: '-9223372036854775808', called: true }],
  contents: [{ kind: 'TABLE', schema: 'public', tag: 'users', owner: 'postgres' }],
  extensions: [{ name: 'plpgsql', version: '1.0', schema: 'pg_catalog' }],
  roles: ['postgres'],
  memberships: [{ role: 'a', member: 'b' }],
  largeObjects: 2,
  migrations: null,
};

type Json = Record<string, unknown>;

/** Every place in a document, as the keys that lead there. */
function places(value: unknown, path: readonly (string | number)[] = []): (readonly (string | number)[])[] {
  const deeper =
    typeof value === 'object' && value !== null
      ? Object.entries(value).flatMap(([key, item]) =>
          places(item, [...path, Array.isArray(value) ? Number(key) : key]),
        )
      : [];
  return path.length === 0 ? deeper : [path, ...deeper];
}

/** The document with something else in that place; undefined takes the key away. */
function changed(document: unknown, path: readonly (string | number)[], to: unknown): Buffer {
  const copy = structuredClone(document) as Json;
  let at: Json = copy;
  for (const key of path.slice(0, -1)) at = at[key] as Json;
  const last = path.at(-1) ?? '';
  if (to === undefined && !Array.isArray(at)) delete at[last];
  else at[last] = to ?? null;
  return Buffer.from(JSON.stringify(copy));
}

/** Values no field of either document may have; which of them fit a field by chance is no matter. */
const wrong = [undefined, null, -1, 1.5, '', 'x', [], [null], {}, true, { length: 3 }];
/** What may be null, and maps whose keys are free. */
const nullable = [
  'expiresAt',
  'id',
  'source',
  'previous',
  'signing',
  'encryption',
  'largeObjects',
  'digest',
  'migrations',
  'schema',
];
/** Text that may be any text. */
const free = [
  'label',
  'series',
  'store',
  'encoding',
  'collation',
  'repository',
  'workflow',
  'runId',
  'runAttempt',
  'runUrl',
  'sha',
];

describe('a manifest', () => {
  test('is read back as it was written', () => {
    assert.deepEqual(parseManifest(serialize(manifest)), manifest);
    assert.deepEqual(parseManifest(serialize(manifest), { name: 'shop', id: manifest.id }), manifest);
    const bare = { ...manifest, source: null, previous: null, database: { ...manifest.database, id: null } };
    assert.deepEqual(
      parseManifest(serialize({ ...bare, totals: { ...manifest.totals, largeObjects: null } })).previous,
      null,
    );
  });

  test('with any field missing is refused, by the name of the field', () => {
    for (const path of places(manifest)) {
      if (typeof path.at(-1) === 'number' || path[0] === 'timings') continue;
      const key = path.at(-1) as string;
      if (key === 'plainSha256') continue; // absent when encrypted
      assert.throws(
        () => parseManifest(changed(manifest, path, undefined)),
        (error) =>
          error instanceof UnreadableDocument && (key === 'format' || error.message.includes(`${key} is missing`)),
        path.join('.'),
      );
    }
  });

  test('with a value of another type in any place is refused, never half understood', () => {
    for (const path of places(manifest)) {
      const key = String(path.at(-1));
      for (const value of wrong) {
        const original = path.reduce<unknown>((at, step) => (at as Json)[step], manifest);
        const sameType =
          value !== undefined &&
          value !== null &&
          typeof value === typeof original &&
          Array.isArray(value) === Array.isArray(original);
        if (
          sameType ||
          (value === null && nullable.includes(key)) ||
          (value === undefined && ['plainSha256', 'total', 'dump'].includes(key))
        )
          continue;
        if (value === undefined && typeof path.at(-1) === 'number') continue;
        if (original === null) continue;
        assert.throws(
          () => parseManifest(changed(manifest, path, value)),
          UnreadableDocument,
          `${path.join('.')} = ${JSON.stringify(value)}`,
        );
      }
      if (
        typeof manifestValue(path) === 'string' &&
        !free.includes(key) &&
        !['name', 'warnings', 'pgDump', 'pgassay', 'mode', 'compression', '0', 'serverVersion'].includes(key)
      )
        assert.throws(() => parseManifest(changed(manifest, path, '../x')), UnreadableDocument, path.join('.'));
    }
  });

  function manifestValue(path: readonly (string | number)[]): unknown {
    return path.reduce<unknown>((at, step) => (at as Json)[step], manifest);
  }

  test('of an encrypted backup keeps its patterns to itself, and is encrypted as a whole or not at all', () => {
    const encryption = () => ({ type: 'age', recipients: ['age1x', 'age1y'] }) as const;
    const files = manifest.files.map(({ plainSha256: _, ...file }) => ({
      ...file,
      name: `${file.name}.age`,
      encryption: encryption(),
    }));
    const encrypted: Manifest = { ...manifest, files, scope: { ...manifest.scope, tables: null } };
    assert.deepEqual(parseManifest(serialize(encrypted)), encrypted);
    assert.throws(() => parseManifest(changed(manifest, ['scope', 'tables'], null)), /tables is missing or malformed/);
    for (const [path, to, message] of [
      [['files', 1, 'encryption'], null, /the name of roles\.sql\.age does not go with its encryption/],
      [['files', 1, 'name'], 'roles.sql', /the name of roles\.sql does not go with its encryption/],
      [['files', 2, 'encryption', 'recipients'], ['age1z'], /not all encrypted in the same way/],
      [['files', 0, 'plainSha256'], sha, /is encrypted, and a digest of its content is told/],
      [['files', 0, 'encryption', 'type'], 'gpg', /type is missing or malformed/],
      [['files', 0, 'encryption', 'recipients'], ['age1x\n::error::'], /recipients is missing or malformed/],
    ] as const)
      assert.throws(() => parseManifest(changed(encrypted, path, to)), message);
    const plainCensus = {
      ...encrypted,
      files: files.map((file, at) => (at === 2 ? (manifest.files[2] ?? file) : file)),
    };
    assert.throws(() => parseManifest(serialize(plainCensus)), /not all encrypted in the same way/);
  });

  test('of a newer format is refused by the name of the format', () => {
    for (const format of ['pgassay/2', 'pgassay/17'])
      assert.throws(
        () => parseManifest(changed(manifest, ['format'], format)),
        new RegExp(`it has the format ${format}, which a newer pgassay wrote`),
      );
    for (const format of ['other/1', 1, null])
      assert.throws(() => parseManifest(changed(manifest, ['format'], format)), /it is not a pgassay manifest/);
  });

  test('never leads out of its folder, and belongs where it lies', () => {
    for (const name of [
      '../database.dump',
      '/etc/passwd',
      'database.dump/..',
      'a\u0000.b',
      'Database.dump',
      '.',
      'database..dump',
    ])
      assert.throws(() => parseManifest(changed(manifest, ['files', 0, 'name'], name)), UnreadableDocument, name);
    for (const id of ['../20261121T020004Z-3f9a1c', '20261121T020004Z-3f9a1c/..', 'latest', '20261121T020004Z-3F9A1C'])
      assert.throws(() => parseManifest(changed(manifest, ['id'], id)), UnreadableDocument, id);
    for (const name of ['..', '.hidden', 'a/b', '', 'x'.repeat(65), 'ä'])
      assert.throws(() => parseManifest(changed(manifest, ['name'], name)), UnreadableDocument, name);
    for (const expected of [
      { name: 'other', id: manifest.id },
      { name: 'shop', id: '20261121T020004Z-000000' },
    ])
      assert.throws(
        () => parseManifest(serialize(manifest), expected),
        /it belongs to shop\/20261121T020004Z-3f9a1c, not to the folder/,
      );
  });

  test('without its dump, or that is no whole JSON object, is refused', () => {
    const without = { ...manifest, files: manifest.files.slice(1) };
    assert.throws(() => parseManifest(serialize(without)), /names no database\.dump/);
    assert.throws(() => parseManifest(serialize({ ...manifest, files: [] })), /names no file/);
    const whole = serialize(manifest);
    for (const bytes of [
      Buffer.alloc(0),
      whole.subarray(0, -10),
      whole.subarray(0, 100),
      Buffer.from('[]'),
      Buffer.from('null'),
      Buffer.alloc(500),
    ])
      assert.throws(() => parseManifest(bytes), UnreadableDocument);
  });
});

describe('a census', () => {
  test('is read back as it was written', () => {
    assert.deepEqual(parseCensus(serialize(census)), census);
    const bare = { ...census, digest: null, largeObjects: null, tables: [] };
    assert.deepEqual(parseCensus(serialize(bare)), bare);
  });

  test('with any field missing or of another type is refused', () => {
    for (const path of places(census)) {
      const key = String(path.at(-1));
      const original = path.reduce<unknown>((at, step) => (at as Json)[step], census);
      for (const value of wrong) {
        const sameType =
          value !== undefined &&
          value !== null &&
          typeof value === typeof original &&
          Array.isArray(value) === Array.isArray(original);
        if (
          sameType ||
          original === null ||
          (value === null && nullable.includes(key)) ||
          (value === undefined && key === 'digest' && path.length > 1)
        )
          continue;
        if (value === undefined && typeof path.at(-1) === 'number') continue;
        assert.throws(
          () => parseCensus(changed(census, path, value)),
          UnreadableDocument,
          `${path.join('.')} = ${JSON.stringify(value)}`,
        );
      }
    }
    for (const rows of [-1, 0.5, '42', Number.MAX_SAFE_INTEGER + 1])
      assert.throws(() => parseCensus(changed(census, ['tables', 0, 'rows'], rows)), UnreadableDocument);
    assert.throws(() => parseCensus(changed(census, ['sequences', 0, 'value'], '1e3')), UnreadableDocument);
  });
});
