import { createHash } from 'node:crypto';
import type { BackupConfig } from './backup.ts';
import type { Backup } from './catalog.ts';
import { Failure } from './failure.ts';
import { fileNames, type Manifest, type ManifestFile, serialize } from './manifest.ts';
import { formatCount } from './numbers.ts';
import type { Captured } from './postgres/capture.ts';
import { displayName } from './postgres/names.ts';
import type { ServerFacts } from './postgres/server.ts';
import { formatVersion } from './postgres/version.ts';
import { put, type Store, type Upload } from './store/store.ts';
import { type Counted, censusTables, compareCensus, describeFindings } from './verdict.ts';

/** Throws a `Failure` unless the archive holds exactly what the server counted in the snapshot. */
export function requireEqual(captured: Captured): void {
  const { archive, scope, surroundings } = captured;
  if (archive.privateOption)
    throw new Failure(
      'validate',
      'version',
      'pg_dump wrote a private column option of this server (pg_attver) that no server accepts',
      { hint: 'use a client of at least 14.25, 15.20, 16.16, 17.12 or 18.7: leave install-client on' },
    );
  const findings = compareCensus(countedTables(captured), archive);
  if (scope.largeObjects && surroundings.largeObjects !== archive.largeObjects)
    findings.push({
      object: 'large objects',
      expected: `${surroundings.largeObjects}`,
      found: `${archive.largeObjects} in the archive`,
    });
  if (findings.length > 0)
    throw new Failure(
      'validate',
      'verification',
      `the archive is not what the snapshot held: ${formatCount(findings.length, 'difference')}\n${describeFindings(findings)}`,
      { hint: 'nothing was published; run it again, and if it happens again report it with these lines' },
    );
}

/** Puts a backup's files into the store, one after the other, the manifest last. */
export class Publisher {
  /** What is in the store so far. */
  readonly files: ManifestFile[] = [];
  /** When the store deletes the first of them by itself; null where it never does. */
  expiresAt: Date | null = null;
  readonly #store: Store;
  readonly #folder: string;
  readonly #signal: AbortSignal;

  constructor(store: Store, folder: string, signal: AbortSignal) {
    this.#store = store;
    this.#folder = folder;
    this.#signal = signal;
  }

  /** Completes the archive's upload and asks the store what it has; `read-back` hashes the stored bytes again. */
  async completeDump(
    upload: Upload | undefined,
    { bytes, sha256 }: Pick<Captured, 'bytes' | 'sha256'>,
    compression: string,
    verifyUpload: BackupConfig['verifyUpload'],
  ): Promise<void> {
    if (upload === undefined) throw new Failure('upload', 'store', 'no upload was begun');
    this.#signal.throwIfAborted();
    const stored = await upload.complete();
    if (stored.bytes !== bytes)
      throw new Failure(
        'upload',
        'store',
        `the store says it has ${stored.bytes} bytes of the ${bytes} that were sent`,
        { hint: 'the store lost data; nothing was published', transient: true },
      );
    this.expiresAt = stored.expiresAt ?? null;
    if (verifyUpload === 'read-back') await this.#readBack(sha256);
    this.files.push({ name: fileNames.dump, bytes, sha256, plainSha256: sha256, compression, encryption: null });
  }

  async put(name: string, content: Buffer): Promise<void> {
    this.#signal.throwIfAborted();
    await put(this.#store, `${this.#folder}/${name}`, content);
    const sha256 = createHash('sha256').update(content).digest('hex');
    this.files.push({
      name,
      bytes: content.length,
      sha256,
      plainSha256: sha256,
      compression: 'none',
      encryption: null,
    });
  }

  /** From here on it is a backup. */
  async publish(manifest: Manifest): Promise<void> {
    this.#signal.throwIfAborted();
    await put(this.#store, `${this.#folder}/${fileNames.manifest}`, serialize(manifest));
  }

  async #readBack(sha256: string): Promise<void> {
    const file = await this.#store.open(`${this.#folder}/${fileNames.dump}`);
    if (file === undefined) throw new Failure('upload', 'store', 'the dump is not in the store after its upload');
    const hash = createHash('sha256');
    for await (const chunk of file.stream as AsyncIterable<Buffer>) {
      this.#signal.throwIfAborted();
      hash.update(chunk);
    }
    if (hash.digest('hex') !== sha256)
      throw new Failure('upload', 'store', 'the stored bytes are not the bytes that were sent', {
        hint: "check the store's disk; nothing was published",
        transient: true,
      });
  }
}

/** `census.json`, ready to be stored. */
export function censusDocument(captured: Captured): Buffer {
  const { archive, surroundings, scope } = captured;
  return serialize({
    tables: censusTables(countedTables(captured), archive),
    digest: captured.digest,
    sequences: archive.sequences,
    contents: archive.contents,
    extensions: surroundings.extensions,
    roles: surroundings.roles.names,
    memberships: surroundings.roles.memberships,
    largeObjects: scope.largeObjects ? archive.largeObjects : null,
    migrations: null,
  });
}

export function manifestOf(parts: {
  readonly id: string;
  readonly config: BackupConfig;
  readonly store: Store;
  readonly facts: ServerFacts;
  readonly captured: Captured;
  readonly previous: Backup | undefined;
  readonly pgDump: string;
  readonly files: readonly ManifestFile[];
  readonly expiresAt: Date | null;
  readonly warnings: readonly string[];
  readonly timings: Readonly<Record<string, number>>;
}): Manifest {
  const { config, facts, captured, previous } = parts;
  const tables = censusTables(countedTables(captured), captured.archive);
  return {
    format: 'pgassay/1',
    id: parts.id,
    name: config.name,
    label: config.label,
    series: captured.scope.series,
    createdAt: captured.createdAt.toISOString(),
    finishedAt: new Date().toISOString(),
    expiresAt: parts.expiresAt?.toISOString() ?? null,
    database: { ...facts.database, serverVersion: formatVersion(facts.version) },
    tools: { pgDump: parts.pgDump, pgassay: config.version },
    source: config.source,
    scope: config.scope,
    store: parts.store.uri,
    previous: previous === undefined ? null : { id: previous.manifest.id, manifestSha256: previous.manifestSha256 },
    signing: null,
    files: parts.files,
    totals: {
      tables: tables.length,
      rows: tables.reduce((rows, table) => rows + table.rows, 0),
      largeObjects: captured.scope.largeObjects ? captured.archive.largeObjects : null,
    },
    selfContained: captured.scope.selfContained,
    warnings: [...parts.warnings, ...captured.warnings],
    timings: parts.timings,
  };
}

/** With `census: stream` the archive's own count is all there is. */
function countedTables({ scope, counts, countedOnServer, archive }: Captured): Counted[] {
  return scope.tables.map((table) => ({
    oid: table.oid,
    schema: table.schema,
    name: table.name,
    object: displayName(table),
    data: table.data,
    defined: table.defined,
    rows: countedOnServer ? counts.get(table.oid)?.rows : archive.tables.get(table.oid)?.rows,
    digest: counts.get(table.oid)?.digest,
  }));
}

/** One line that needs nothing but PostgreSQL's own programs. */
export function restoreCommand(store: Store, manifest: Manifest): string {
  const file = `${manifest.name}/${manifest.id}/${fileNames.dump}`;
  const restore = 'pg_restore -1 --exit-on-error -d "$TARGET_URL"';
  const read = store.commandToRead(file);
  if (read === undefined) return `${restore} ${shellWord(store.pathFor(file))}`;
  return `set -o pipefail; ${read.map(shellWord).join(' ')} | ${restore}`;
}

/** Fit to be pasted into a shell. */
export function shellWord(text: string): string {
  return /^[\w./:@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
