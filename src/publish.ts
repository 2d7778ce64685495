import { createHash } from 'node:crypto';
import { type Encryption, encrypt } from './age.ts';
import type { BackupConfig } from './backup.ts';
import { type Destination, type Destinations, FanOut } from './destinations.ts';
import { cancelled, Failure } from './failure.ts';
import {
  encryptionOf,
  fileNames,
  type Manifest,
  type ManifestFile,
  plainName,
  serialize,
  storedName,
} from './manifest.ts';
import { formatCount } from './numbers.ts';
import { Outgoing, type Sent } from './outgoing.ts';
import type { Captured } from './postgres/capture.ts';
import { displayName } from './postgres/names.ts';
import type { ServerFacts } from './postgres/server.ts';
import { formatVersion } from './postgres/version.ts';
import { withoutPatterns } from './restore-record.ts';
import { type SigningKey, signatureOf } from './signing.ts';
import { put, type Store } from './store/store.ts';
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

/** Puts a backup's files into its stores, one after the other, the manifest last. */
export class Publisher {
  /** What is in the stores so far. */
  readonly files: ManifestFile[] = [];
  readonly #destinations: Destinations;
  readonly #folder: string;
  readonly #encryption: Encryption | undefined;
  readonly #stallMs: number;
  readonly #signal: AbortSignal;

  constructor(
    destinations: Destinations,
    folder: string,
    {
      encryption,
      stallMs,
      signal,
    }: { readonly encryption: Encryption | undefined; readonly stallMs: number; readonly signal: AbortSignal },
  ) {
    this.#destinations = destinations;
    this.#folder = folder;
    this.#encryption = encryption;
    this.#stallMs = stallMs;
    this.#signal = signal;
  }

  /** Begins the archive's uploads, anew where some were begun; `expected` is a guess of its size in bytes. */
  async beginDump(expected: number): Promise<Outgoing> {
    await this.#destinations.each(async (destination) => {
      await destination.upload?.abort();
      destination.upload = await destination.store.begin(this.#path(fileNames.dump), expected);
    });
    return Outgoing.begin(new FanOut(this.#destinations, this.#stallMs / 2), this.#encryption);
  }

  /** Completes the archive's uploads and asks each store what it has; `read-back` hashes the stored bytes again. */
  async completeDump(
    outgoing: Outgoing | undefined,
    compression: string,
    verifyUpload: BackupConfig['verifyUpload'],
  ): Promise<void> {
    if (outgoing === undefined) throw new Failure('upload', 'store', 'no upload was begun');
    this.#signal.throwIfAborted();
    const sent = await outgoing.end();
    await this.#destinations.each(async (destination) => {
      const { store, upload } = destination;
      const stored = await upload?.complete();
      if (stored?.bytes !== sent.bytes)
        throw new Failure(
          'upload',
          'store',
          `the store says it has ${stored?.bytes ?? 0} bytes of the ${sent.bytes} that were sent`,
          { hint: 'the store lost data; nothing was published there', transient: true },
        );
      destination.expiresAt = stored.expiresAt;
      if (verifyUpload === 'read-back') await this.#readBack(store, sent.sha256);
    });
    this.#add(fileNames.dump, sent, compression);
  }

  async put(name: string, content: Buffer): Promise<void> {
    this.#signal.throwIfAborted();
    const stored = this.#encryption === undefined ? content : await encrypt(content, this.#encryption);
    await this.#destinations.each(({ store }) => put(store, this.#path(name), stored));
    const sha256 = createHash('sha256').update(stored).digest('hex');
    this.#add(name, { bytes: stored.length, sha256 }, 'none');
  }

  /**
   * From here on it is a backup, in each store that has its manifest. A signature is there before it, or there would be a
   * moment without one.
   */
  async publish(
    manifestFor: (destination: Destination) => Manifest,
    key: SigningKey | undefined,
  ): Promise<Published[]> {
    this.#signal.throwIfAborted();
    const published: Published[] = [];
    const publishing = this.#destinations.each(async (destination) => {
      const { store } = destination;
      const manifest = manifestFor(destination);
      const bytes = serialize(manifest);
      if (key !== undefined) await put(store, `${this.#folder}/${fileNames.signature}`, signatureOf(bytes, key));
      this.#signal.throwIfAborted();
      await put(store, `${this.#folder}/${fileNames.manifest}`, bytes);
      destination.published = true;
      published.push({ store, manifest });
    });
    await publishing.catch((error: unknown) => {
      // Somebody cancelled, or the time was up, and yet it is a backup where it is published.
      if (published.length === 0) throw error;
      this.#destinations.giveUpUnpublished(asFailure(error));
    });
    const order = this.#destinations.open.map(({ store }) => store);
    return published.sort((a, b) => order.indexOf(a.store) - order.indexOf(b.store));
  }

  #path(name: string): string {
    return `${this.#folder}/${storedName(name, this.#encryption !== undefined)}`;
  }

  #add(name: string, { bytes, sha256 }: Sent, compression: string): void {
    const encryption = encryptionEntry(this.#encryption);
    const plain = encryption === null ? { plainSha256: sha256 } : {};
    this.files.push({ name: storedName(name, encryption !== null), bytes, sha256, ...plain, compression, encryption });
  }

  async #readBack(store: Store, sha256: string): Promise<void> {
    const file = await store.open(this.#path(fileNames.dump));
    if (file === undefined) throw new Failure('upload', 'store', 'the dump is not in the store after its upload');
    const hash = createHash('sha256');
    for await (const chunk of file.stream as AsyncIterable<Buffer>) {
      this.#signal.throwIfAborted();
      hash.update(chunk);
    }
    if (hash.digest('hex') !== sha256)
      throw new Failure('upload', 'store', 'the stored bytes are not the bytes that were sent', {
        hint: "check the store's disk; nothing was published there",
        transient: true,
      });
  }
}

/** A store, and the manifest that it has. */
export interface Published {
  readonly store: Store;
  readonly manifest: Manifest;
}

function asFailure(error: unknown): Failure {
  return error instanceof Failure ? error : new Failure('publish', 'cancelled', cancelled('publish').message);
}

function encryptionEntry(encryption: Encryption | undefined): ManifestFile['encryption'] {
  if (encryption === undefined) return null;
  return encryption.to === 'passphrase'
    ? { type: 'age-passphrase', recipients: [] }
    : { type: 'age', recipients: encryption.recipients };
}

/** `census.json`, ready to be stored. */
export function censusDocument(captured: Captured, config: BackupConfig): Buffer {
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
    ...(config.encryption === undefined ? {} : { scope: config.scope, warnings: captured.warnings }),
  });
}

export function manifestOf(parts: {
  readonly id: string;
  readonly config: BackupConfig;
  readonly destination: Destination;
  readonly facts: ServerFacts;
  readonly captured: Captured;
  readonly pgDump: string;
  readonly files: readonly ManifestFile[];
  readonly warnings: readonly string[];
  readonly timings: Readonly<Record<string, number>>;
}): Manifest {
  const { config, facts, captured } = parts;
  const { store, previous, expiresAt } = parts.destination;
  const { mode, ...patterns } = config.scope;
  const tables = censusTables(countedTables(captured), captured.archive);
  return {
    format: 'pgassay/1',
    id: parts.id,
    name: config.name,
    label: config.label,
    series: captured.scope.series,
    createdAt: captured.createdAt.toISOString(),
    finishedAt: new Date().toISOString(),
    expiresAt: expiresAt?.toISOString() ?? null,
    database: { ...facts.database, serverVersion: formatVersion(facts.version) },
    tools: { pgDump: parts.pgDump, pgassay: config.version },
    source: config.source,
    scope: config.encryption === undefined ? config.scope : { mode, ...withoutPatterns(patterns) },
    store: store.uri,
    previous: previous === undefined ? null : { id: previous.manifest.id, manifestSha256: previous.manifestSha256 },
    signing: config.signing === undefined ? null : { keyId: config.signing.id },
    files: parts.files,
    totals: {
      tables: tables.length,
      rows: tables.reduce((rows, table) => rows + table.rows, 0),
      largeObjects: captured.scope.largeObjects ? captured.archive.largeObjects : null,
    },
    selfContained: captured.scope.selfContained,
    warnings: [
      ...parts.warnings,
      ...(config.encryption === undefined ? captured.warnings : countOnly(captured.warnings)),
    ],
    timings: parts.timings,
  };
}

/** pg_dump's warnings name tables. */
function countOnly(warnings: readonly string[]): string[] {
  if (warnings.length === 0) return [];
  return [`${formatCount(warnings.length, 'warning')} of pg_dump, told in the encrypted census`];
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

/** One line that needs nothing but PostgreSQL's own programs, and age where it is encrypted. */
export function restoreCommand(store: Store, manifest: Manifest): string {
  return stockCommand(store, manifest, fileNames.dump, 'pg_restore -1 --exit-on-error -d "$TARGET_URL"');
}

/** The same for the roles, which come first; undefined where they were left out. */
export function rolesCommand(store: Store, manifest: Manifest): string | undefined {
  if (!manifest.files.some((file) => plainName(file) === fileNames.roles)) return undefined;
  return stockCommand(store, manifest, fileNames.roles, 'psql -X -d "$TARGET_URL"', '-f ');
}

/** Has `program` read a stored file, by its name (after `flag`) or, where it must be fetched or decrypted, from a pipe. */
function stockCommand(store: Store, manifest: Manifest, name: string, program: string, flag = ''): string {
  const encryption = encryptionOf(manifest);
  const file = `${manifest.name}/${manifest.id}/${storedName(name, encryption !== null)}`;
  const read = store.commandToRead(file)?.map(shellWord).join(' ');
  const local = shellWord(store.pathFor(file));
  if (encryption === null)
    return read === undefined ? `${program} ${flag}${local}` : `set -o pipefail; ${read} | ${program}`;
  // Where it is a passphrase, age asks for it on the terminal.
  const age = encryption.type === 'age' ? 'age -d -i key.txt' : 'age -d';
  return `set -o pipefail; ${read === undefined ? `${age} ${local}` : `${read} | ${age}`} | ${program}`;
}

/** Fit to be pasted into a shell. */
export function shellWord(text: string): string {
  return /^[\w./:@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
