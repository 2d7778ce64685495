import { idPattern, namePattern } from './backup-id.ts';

/** What `manifest.json` says about one backup. Times are ISO 8601 in UTC, sizes are bytes. */
export interface Manifest {
  readonly format: 'pgassay/1';
  readonly id: string;
  readonly name: string;
  readonly label: string;
  /** `full`, `schema-only`, `data-only`, `partial-<hash>`: different ones are never compared or mixed. */
  readonly series: string;
  /** The snapshot's time by the server's clock. */
  readonly createdAt: string;
  readonly finishedAt: string;
  readonly expiresAt: string | null;
  readonly database: {
    /** SHA-256 over system identifier, database oid and name; null where the server does not tell. */
    readonly id: string | null;
    readonly name: string;
    readonly serverVersion: string;
    readonly encoding: string;
    readonly collation: string;
    /** The libc locales and ICU's own rules; absent in backups of before they were recorded, and rules where there are none. */
    readonly lcCollate?: string;
    readonly lcCtype?: string;
    readonly icuRules?: string;
    readonly sizeBytes: number;
  };
  readonly tools: { readonly pgDump: string; readonly pgassay: string };
  /** The run on GitHub that took it; null elsewhere. */
  readonly source: Source | null;
  /** What was asked for. Patterns name tables: those of an encrypted backup are null here and in its census instead. */
  readonly scope: {
    readonly mode: string;
    readonly schemas: readonly string[] | null;
    readonly excludeSchemas: readonly string[] | null;
    readonly tables: readonly string[] | null;
    readonly excludeTables: readonly string[] | null;
    readonly excludeTableData: readonly string[] | null;
  };
  /** The canonical address of the store it was written to. */
  readonly store: string;
  readonly previous: { readonly id: string; readonly manifestSha256: string } | null;
  readonly signing: { readonly keyId: string } | null;
  readonly files: readonly ManifestFile[];
  readonly totals: { readonly tables: number; readonly rows: number; readonly largeObjects: number | null };
  readonly selfContained: boolean;
  /**
   * What pg_dump warned about though it exited 0, and what the user opted into. pg_dump names tables: of an encrypted
   * backup its words are in the census.
   */
  readonly warnings: readonly string[];
  /** Seconds, by stage. */
  readonly timings: Readonly<Record<string, number>>;
}

export interface Source {
  readonly repository: string;
  readonly workflow: string;
  readonly runId: string;
  readonly runAttempt: string;
  readonly runUrl: string;
  readonly sha: string;
}

export interface ManifestFile {
  readonly name: string;
  readonly bytes: number;
  /** Of the bytes as they are stored. */
  readonly sha256: string;
  /** Absent when encrypted: it would tell whoever has a guess that it is right. */
  readonly plainSha256?: string;
  /** `zstd:3`, `gzip:1`, `none`: how the content is compressed. */
  readonly compression: string;
  /** `recipients` are age's public keys; with a passphrase there are none. */
  readonly encryption: { readonly type: 'age' | 'age-passphrase'; readonly recipients: readonly string[] } | null;
}

/** What `census.json` says: the snapshot's tables as the server counted them and as the archive holds them. */
export interface Census {
  readonly tables: readonly CensusTable[];
  readonly digest: { readonly algorithm: string; readonly columns: string } | null;
  readonly sequences: readonly {
    readonly schema: string;
    readonly name: string;
    readonly value: string;
    readonly called: boolean;
  }[];
  readonly contents: readonly {
    readonly kind: string;
    readonly schema: string | null;
    readonly tag: string;
    readonly owner: string;
  }[];
  readonly extensions: readonly { readonly name: string; readonly version: string; readonly schema: string }[];
  readonly roles: readonly string[];
  readonly memberships: readonly { readonly role: string; readonly member: string }[];
  /** Null when large objects are out of scope. */
  readonly largeObjects: number | null;
  readonly migrations: { readonly tool: string; readonly latest: string | null; readonly failed: number } | null;
  /** What the manifest of an encrypted backup must not tell; absent where it does. */
  readonly scope?: Manifest['scope'];
  readonly warnings?: readonly string[];
}

export interface CensusTable {
  readonly schema: string;
  readonly name: string;
  /** Counted on the server in the snapshot (with `census: stream`, in the archive). */
  readonly rows: number;
  /** Counted in the archive's decoded text. */
  readonly archiveRows: number;
  /** False: its structure only is in the archive. */
  readonly data: boolean;
  readonly digest?: string;
}

/** The names of a backup's files; those of an encrypted one end in `.age`, but for the manifest's. */
export const fileNames = {
  dump: 'database.dump',
  roles: 'roles.sql',
  census: 'census.json',
  manifest: 'manifest.json',
  signature: 'manifest.sig',
} as const;

/** What stands for a recipient where a passphrase was used. */
export const byPassphrase = 'passphrase';

/** Post-quantum recipients have 2 000 characters; their beginning and end tell them apart. */
export function shortRecipient(recipient: string): string {
  if (recipient === byPassphrase) return 'the passphrase';
  return recipient.length <= 64 ? recipient : `${recipient.slice(0, 24)}…${recipient.slice(-12)}`;
}

/** What age calls a recipient: they are printed, and are nothing but that. */
export const recipientPattern = /^age1[0-9a-z]{1,4000}$/;

const encryptedSuffix = '.age';

/** What a file is called in the store. */
export function storedName(name: string, encrypted: boolean): string {
  return encrypted ? `${name}${encryptedSuffix}` : name;
}

/** What a file is called once it is decrypted: one of {@link fileNames}. */
export function plainName({ name }: ManifestFile): string {
  return name.endsWith(encryptedSuffix) ? name.slice(0, -encryptedSuffix.length) : name;
}

/** To whom a backup is encrypted; null when it is not. One kind holds for all of its files. */
export function encryptionOf({ files }: Manifest): ManifestFile['encryption'] {
  return files[0]?.encryption ?? null;
}

/** Each of its secret keys opens a backup: age's recipients, or `passphrase`; none where it is not encrypted. */
export function keysOf(manifest: Manifest): readonly string[] {
  const encryption = encryptionOf(manifest);
  if (encryption === null) return [];
  return encryption.type === 'age-passphrase' ? [byPassphrase] : encryption.recipients;
}

const sha256Pattern = /^[0-9a-f]{64}$/;

/** A manifest or census that this program cannot use; the message says why. */
export class UnreadableDocument extends Error {}

/** A manifest that is well made, and of another backup than the one whose folder it is in. */
export class MisplacedManifest extends UnreadableDocument {}

/** The bytes to store: stable key order, one trailing newline. */
export function serialize(document: Manifest | Census): Buffer {
  return Buffer.from(`${JSON.stringify(document, null, 2)}\n`);
}

/** Parses and checks `manifest.json`. Throws {@link UnreadableDocument}; never trusts a name or a number. */
export function parseManifest(bytes: Buffer, expected?: { readonly name: string; readonly id: string }): Manifest {
  const value = parseJsonObject(bytes, 'manifest.json');
  const format = value.format;
  if (format !== 'pgassay/1') {
    const newer = typeof format === 'string' && /^pgassay\/\d+$/.test(format);
    throw new UnreadableDocument(
      newer
        ? `it has the format ${format}, which a newer pgassay wrote; use that version to read it`
        : 'it is not a pgassay manifest',
    );
  }
  const check = new JsonCheck(value, 'manifest.json');
  check.text('id', idPattern);
  check.text('name', namePattern);
  for (const key of ['label', 'series', 'store']) check.text(key);
  for (const key of ['createdAt', 'finishedAt']) check.time(key);
  if (!check.isNull('expiresAt')) check.time('expiresAt');
  const database = check.object('database');
  if (!database.isNull('id')) database.text('id', sha256Pattern);
  for (const key of ['name', 'serverVersion', 'encoding', 'collation']) database.text(key);
  for (const key of ['lcCollate', 'lcCtype', 'icuRules']) database.optionalText(key);
  database.count('sizeBytes');
  const tools = check.object('tools');
  for (const key of ['pgDump', 'pgassay']) tools.text(key);
  const source = check.isNull('source') ? undefined : check.object('source');
  for (const key of ['repository', 'workflow', 'runId', 'runAttempt', 'runUrl', 'sha']) source?.text(key);
  const scope = check.object('scope');
  scope.text('mode');
  const previous = check.isNull('previous') ? undefined : check.object('previous');
  previous?.text('id', idPattern);
  previous?.text('manifestSha256', sha256Pattern);
  if (!check.isNull('signing')) check.object('signing').text('keyId', sha256Pattern);
  const files = check.list('files');
  if (files.length === 0) throw new UnreadableDocument('manifest.json names no file');
  for (const file of files) {
    file.text('name', /^[a-z]+\.[a-z]+(?:\.age)?$/);
    file.count('bytes');
    file.text('sha256', sha256Pattern);
    if (file.has('plainSha256')) file.text('plainSha256', sha256Pattern);
    file.text('compression');
    const encryption = file.isNull('encryption') ? undefined : file.object('encryption');
    encryption?.text('type', /^age(?:-passphrase)?$/);
    encryption?.texts('recipients', recipientPattern);
  }
  const totals = check.object('totals');
  totals.count('tables');
  totals.count('rows');
  if (!totals.isNull('largeObjects')) totals.count('largeObjects');
  check.flag('selfContained');
  check.texts('warnings');
  check.numbers('timings');
  const manifest = value as unknown as Manifest;
  if (!manifest.files.some((file) => plainName(file) === fileNames.dump))
    throw new UnreadableDocument(`manifest.json names no ${fileNames.dump}`);
  requireOneEncryption(manifest);
  for (const key of ['schemas', 'excludeSchemas', 'tables', 'excludeTables', 'excludeTableData'])
    if (encryptionOf(manifest) === null || !scope.isNull(key)) scope.texts(key);
  if (expected !== undefined && (manifest.id !== expected.id || manifest.name !== expected.name))
    throw new MisplacedManifest(`it belongs to ${manifest.name}/${manifest.id}, not to the folder it is in`);
  return manifest;
}

/** A dump in plain text beside an encrypted census is what nobody asked for. */
function requireOneEncryption(manifest: Manifest): void {
  const first = JSON.stringify(encryptionOf(manifest));
  for (const file of manifest.files) {
    const encrypted = file.encryption !== null;
    if (encrypted !== file.name.endsWith(encryptedSuffix))
      throw new UnreadableDocument(`manifest.json: the name of ${file.name} does not go with its encryption`);
    if (JSON.stringify(file.encryption) !== first)
      throw new UnreadableDocument('manifest.json: its files are not all encrypted in the same way');
    if (encrypted && file.plainSha256 !== undefined)
      throw new UnreadableDocument(`manifest.json: ${file.name} is encrypted, and a digest of its content is told`);
  }
}

/** Parses and checks `census.json`. Throws {@link UnreadableDocument}. */
export function parseCensus(bytes: Buffer): Census {
  const value = parseJsonObject(bytes, 'census.json');
  const check = new JsonCheck(value, 'census.json');
  for (const table of check.list('tables')) {
    table.text('schema');
    table.text('name');
    table.count('rows');
    table.count('archiveRows');
    table.flag('data');
    if (table.has('digest')) table.text('digest');
  }
  const digest = check.isNull('digest') ? undefined : check.object('digest');
  for (const key of ['algorithm', 'columns']) digest?.text(key);
  for (const sequence of check.list('sequences')) {
    sequence.text('schema');
    sequence.text('name');
    sequence.text('value', /^-?\d+$/);
    sequence.flag('called');
  }
  for (const entry of check.list('contents')) {
    for (const key of ['kind', 'tag', 'owner']) entry.text(key);
    if (!entry.isNull('schema')) entry.text('schema');
  }
  for (const extension of check.list('extensions'))
    for (const key of ['name', 'version', 'schema']) extension.text(key);
  check.texts('roles');
  for (const membership of check.list('memberships')) {
    membership.text('role');
    membership.text('member');
  }
  if (!check.isNull('largeObjects')) check.count('largeObjects');
  const migrations = check.isNull('migrations') ? undefined : check.object('migrations');
  migrations?.text('tool');
  if (migrations?.isNull('latest') === false) migrations.text('latest');
  migrations?.count('failed');
  if (check.has('warnings')) check.texts('warnings');
  return value as unknown as Census;
}

/** Throws {@link UnreadableDocument}. */
export function parseJsonObject(bytes: Buffer, file: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch (cause) {
    throw new UnreadableDocument(`${file} is not JSON; it may be cut short`, { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new UnreadableDocument(`${file} is not an object`);
  return value as Record<string, unknown>;
}

/** Looks at the fields of a document somebody else may have written; each method throws {@link UnreadableDocument}. */
export class JsonCheck {
  readonly #value: Record<string, unknown>;
  readonly #at: string;

  constructor(value: Record<string, unknown>, at: string) {
    this.#value = value;
    this.#at = at;
  }

  has(key: string): boolean {
    return this.#value[key] !== undefined;
  }

  /** Null was written there, which is not the same as nothing. */
  isNull(key: string): boolean {
    return this.#value[key] === null;
  }

  /** A date of the calendar, in UTC. */
  time(key: string): void {
    this.text(key, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z$/);
    if (Number.isNaN(Date.parse(String(this.#value[key])))) this.#refuse(key);
  }

  /** An object of numbers. */
  numbers(key: string): void {
    const { [key]: value } = this.#value;
    this.object(key);
    if (!Object.values(value as object).every((each) => typeof each === 'number')) this.#refuse(key);
  }

  text(key: string, pattern?: RegExp): void {
    const value = this.#value[key];
    if (typeof value !== 'string' || (pattern !== undefined && !pattern.test(value))) this.#refuse(key);
  }

  optionalText(key: string): void {
    if (this.#value[key] !== undefined) this.text(key);
  }

  texts(key: string, pattern?: RegExp): void {
    const value = this.#value[key];
    const fits = (item: unknown): boolean => typeof item === 'string' && (pattern === undefined || pattern.test(item));
    if (!Array.isArray(value) || !value.every(fits)) this.#refuse(key);
  }

  count(key: string): void {
    const value = this.#value[key];
    if (!Number.isSafeInteger(value) || (value as number) < 0) this.#refuse(key);
  }

  flag(key: string): void {
    if (typeof this.#value[key] !== 'boolean') this.#refuse(key);
  }

  object(key: string): JsonCheck {
    const value = this.#value[key];
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return this.#refuse(key);
    return new JsonCheck(value as Record<string, unknown>, `${this.#at}: ${key}`);
  }

  list(key: string): JsonCheck[] {
    const value = this.#value[key];
    if (!Array.isArray(value)) return this.#refuse(key);
    return value.map((item: unknown, at) => {
      if (typeof item !== 'object' || item === null || Array.isArray(item)) return this.#refuse(`${key}[${at}]`);
      return new JsonCheck(item as Record<string, unknown>, `${this.#at}: ${key}[${at}]`);
    });
  }

  #refuse(key: string): never {
    throw new UnreadableDocument(`${this.#at}: ${key} is missing or malformed`);
  }
}
