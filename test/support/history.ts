import { createHash } from 'node:crypto';
import { newId } from '../../src/backup-id.ts';
import { type Census, type Manifest, serialize, storedName } from '../../src/manifest.ts';
import { writeOpening } from '../../src/openings.ts';
import { type Proof, proofName, serializeProof } from '../../src/proof.ts';
import { type SigningKey, signatureOf } from '../../src/signing.ts';
import { put, type Store } from '../../src/store/store.ts';

/** What a made-up backup differs in. */
export interface Past {
  readonly name?: string;
  readonly label?: string;
  readonly series?: string;
  readonly database?: string | null;
  /** Bytes of its dump. */
  readonly bytes?: number;
  /** Rows of each table of the schema public. */
  readonly tables?: Readonly<Record<string, number>>;
  /** When a restore test of it ended, and how. */
  readonly tested?: {
    readonly at: Date;
    readonly result: Proof['result'];
    readonly restoreSeconds?: number;
    readonly signing?: SigningKey;
    /** Whose identity opened it. */
    readonly recipient?: string | null;
  };
  /** To whom it is encrypted, as its manifest has it; what its files hold is not. */
  readonly recipients?: readonly string[];
  /** Who signs it. */
  readonly signing?: SigningKey;
  readonly more?: Partial<Manifest>;
}

const sha256 = (content: Buffer): string => createHash('sha256').update(content).digest('hex');
export const oneDatabase = sha256(Buffer.from('one database'));

/** Stores a backup as of `at`, whole but for what its files hold, and returns its manifest. */
export async function storePast(store: Store, at: Date, past: Past = {}): Promise<Manifest> {
  const { name = 'shop', label = 'scheduled', series = 'full', database = oneDatabase, bytes = 100 } = past;
  const { tables = { users: bytes }, recipients } = past;
  const id = newId(at, []);
  const folder = `${name}/${id}`;
  const contents = {
    'database.dump': Buffer.alloc(bytes, 7),
    'roles.sql': Buffer.alloc(0),
    'census.json': serialize(censusOf(tables)),
  };
  const files: Manifest['files'] = Object.entries(contents).map(([file, content]) => ({
    ...{ name: storedName(file, recipients !== undefined), bytes: content.length, sha256: sha256(content) },
    ...(recipients === undefined
      ? { plainSha256: sha256(content), encryption: null }
      : { encryption: { type: 'age' as const, recipients } }),
    compression: 'none',
  }));
  const manifest: Manifest = {
    ...{ format: 'pgassay/1', id, name, label, series },
    ...{ createdAt: at.toISOString(), finishedAt: at.toISOString(), expiresAt: null },
    database: {
      ...{ id: database, name: 'shop', serverVersion: '17.6', encoding: 'UTF8', collation: 'C.UTF-8' },
      sizeBytes: bytes * 3,
    },
    tools: { pgDump: '17.6', pgassay: '0.1.0' },
    source: null,
    scope: { mode: 'full', schemas: [], excludeSchemas: [], tables: [], excludeTables: [], excludeTableData: [] },
    store: store.uri,
    previous: null,
    signing: past.signing === undefined ? null : { keyId: past.signing.id },
    files,
    totals: { tables: Object.keys(tables).length, rows: bytes, largeObjects: 0 },
    selfContained: true,
    warnings: [],
    timings: { total: 1 },
    ...past.more,
  };
  for (const [file, content] of Object.entries(contents))
    await put(store, `${folder}/${storedName(file, recipients !== undefined)}`, content);
  const bytesOfIt = serialize(manifest);
  if (past.signing !== undefined) await put(store, `${folder}/manifest.sig`, signatureOf(bytesOfIt, past.signing));
  await put(store, `${folder}/manifest.json`, bytesOfIt);
  if (past.tested !== undefined) await storeProof(store, manifest, past.tested);
  return manifest;
}

function censusOf(tables: Readonly<Record<string, number>>): Census {
  return {
    tables: Object.entries(tables).map(([name, rows]) => ({
      schema: 'public',
      name,
      rows,
      archiveRows: rows,
      data: true,
    })),
    ...{ digest: null, sequences: [], contents: [], extensions: [], roles: [], memberships: [] },
    ...{ largeObjects: 0, migrations: null },
  };
}

/** Stores the verdict of a restore test beside a backup. */
export async function storeProof(
  store: Store,
  manifest: Manifest,
  { at, result, restoreSeconds = 10, signing, recipient = null }: NonNullable<Past['tested']>,
): Promise<void> {
  const proof: Proof = {
    ...{ format: 'pgassay-proof/1', backupId: manifest.id, name: manifest.name },
    ...{ manifestSha256: sha256(serialize(manifest)), testedAt: at.toISOString(), result, level: 'rows' },
    findings: result === 'passed' ? [] : [{ object: 'public.users', expected: '3 rows', found: '2 rows' }],
    ...{ findingsLeftOut: 0, leftOut: [], notes: [] },
    timings: { download: 1, restore: restoreSeconds - 1, total: restoreSeconds + 2 },
    ...{ maxRestoreSeconds: null, server: '17.6', recipient },
    tools: { pgRestore: '17.6', pgassay: '0.1.0' },
    runUrl: null,
  };
  const path = `${manifest.name}/${manifest.id}/${proofName(at)}`;
  if (signing !== undefined) await put(store, `${path}.sig`, signatureOf(serializeProof(proof), signing));
  await put(store, path, serializeProof(proof));
}

/** Stores the record of a key that opened a backup. */
export async function storeOpening(
  store: Store,
  manifest: Manifest,
  { at, recipient, signing }: { readonly at: Date; readonly recipient: string; readonly signing?: SigningKey },
): Promise<void> {
  await writeOpening(
    store,
    {
      ...{ format: 'pgassay-opening/1', backupId: manifest.id, name: manifest.name, recipient, bytes: 100 },
      ...{ manifestSha256: sha256(serialize(manifest)), openedAt: at.toISOString() },
      ...{ tools: { pgassay: '0.1.0' }, runUrl: null },
    },
    signing,
  );
}

/** A store whose clock says what the test says. */
export function withClock<S extends Store>(store: S, now: () => Date): S {
  return new Proxy(store, {
    get(target, property) {
      if (property === 'now') return async () => now();
      const value: unknown = Reflect.get(target, property, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}
