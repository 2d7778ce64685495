import { createHash } from 'node:crypto';
import { type Keys, openAge } from './age.ts';
import { NotAgeFile, WrongKey } from './age-errors.ts';
import { cancelled, Failure } from './failure.ts';
import type { Log } from './log.ts';
import { encryptionOf, type Manifest, type ManifestFile, plainName, shortRecipient } from './manifest.ts';
import type { Store } from './store/store.ts';

/** A stored backup, and what there is to open it with. */
export interface StoredBackup {
  readonly store: Store;
  readonly manifest: Manifest;
  readonly keys: Keys;
}

export interface ReadFile {
  /** As they are stored. */
  readonly bytes: number;
  /** Whose identity opened it, or `passphrase`; null where it is not encrypted. */
  readonly recipient: string | null;
}

/** A file by its plain name, encrypted or not. Throws a `Failure` (exit 40) when the manifest does not name it. */
export function fileOf(manifest: Manifest, name: string): ManifestFile {
  const file = manifest.files.find((each) => plainName(each) === name);
  if (file === undefined) throw damaged(manifest, name, 'is not in the manifest');
  return file;
}

/** Throws a `Failure` (exit 41) when a backup is encrypted and there is nothing to open it with. */
export function requireKeys(manifest: Manifest, keys: Keys): void {
  const encryption = encryptionOf(manifest);
  if (encryption === null || !isEmpty(keys)) return;
  throw new Failure(
    'decrypt',
    'wrongKey',
    `${manifest.name}/${manifest.id} is encrypted, and there is no key to open it with`,
    { hint: keysFor(encryption) },
  );
}

/** Who brings a key expects that it is needed: anybody can write a plain backup into a bucket he can write to. */
export function warnUnneeded(manifest: Manifest, keys: Keys, log: Log): void {
  if (isEmpty(keys) || encryptionOf(manifest) !== null) return;
  log.warn(
    `${manifest.name}/${manifest.id} is not encrypted, though a key to open it with was given; was it, when it was taken?`,
  );
}

function isEmpty({ identities, passphrase }: Keys): boolean {
  return identities.length === 0 && passphrase === undefined;
}

/** Throws a `Failure` (exit 40 or 41). */
export async function readSmall(from: StoredBackup, name: string): Promise<Buffer> {
  const { store, manifest, keys } = from;
  const file = fileOf(manifest, name);
  requireKeys(manifest, keys);
  const stored = await store.read(`${manifest.name}/${manifest.id}/${file.name}`);
  if (stored === undefined) throw damaged(manifest, file.name, 'is missing');
  requireChecksum(manifest, file, stored.length, createHash('sha256').update(stored).digest('hex'));
  if (file.encryption === null) return stored;
  const pieces: Buffer[] = [];
  await decryptInto([stored].values(), { manifest, file, keys }, async (chunk) => void pieces.push(chunk));
  return Buffer.concat(pieces);
}

/**
 * Streams a file's content through `take`, decrypted where it is encrypted, and requires the size and SHA-256 of what is
 * stored. Throws a `Failure` (exit 40 or 41); what was taken before is not to be used then.
 */
export async function readWhole(
  { store, manifest, keys }: StoredBackup,
  name: string,
  signal: AbortSignal,
  take: (chunk: Buffer) => Promise<void>,
): Promise<ReadFile> {
  const file = fileOf(manifest, name);
  requireKeys(manifest, keys);
  const stored = await store.open(`${manifest.name}/${manifest.id}/${file.name}`);
  if (stored === undefined) throw damaged(manifest, file.name, 'is missing');
  if (file.encryption === null)
    return { bytes: await checkStream(stored.stream, manifest, file, signal, take), recipient: null };
  const measured = new Measured(stored.stream, signal);
  const source = measured.chunks();
  try {
    let trouble: unknown;
    const recipient = await decryptInto(source, { manifest, file, keys }, take).catch((error: unknown) => {
      if (!(error instanceof Failure) || error.stage !== 'decrypt') throw error;
      trouble = error;
    });
    // A changed byte shows in the checksum too, which says more: read on to the end for it.
    while ((await source.next()).done !== true);
    requireChecksum(manifest, file, measured.bytes, measured.sha256());
    if (trouble !== undefined || typeof recipient !== 'string') throw trouble;
    return { bytes: measured.bytes, recipient };
  } finally {
    await source.return();
  }
}

/** The same for a file whose bytes are at hand and are not decrypted; returns its size. */
export async function checkStream(
  stream: AsyncIterable<Buffer>,
  manifest: Manifest,
  file: ManifestFile,
  signal: AbortSignal,
  take: (chunk: Buffer) => Promise<void>,
): Promise<number> {
  const measured = new Measured(stream, signal);
  for await (const chunk of measured.chunks()) await take(chunk);
  requireChecksum(manifest, file, measured.bytes, measured.sha256());
  return measured.bytes;
}

/** Reads a stored file to its end, as it lies there: nothing is decrypted. Throws a `Failure` (exit 40). */
export async function checkStored(
  store: Store,
  manifest: Manifest,
  file: ManifestFile,
  signal: AbortSignal,
): Promise<void> {
  const stored = await store.open(`${manifest.name}/${manifest.id}/${file.name}`);
  if (stored === undefined) throw damaged(manifest, file.name, 'is missing');
  await checkStream(stored.stream, manifest, file, signal, async () => {});
}

/** Counts and hashes what passes. */
class Measured {
  bytes = 0;
  readonly #hash = createHash('sha256');
  readonly #stream: AsyncIterable<Buffer>;
  readonly #signal: AbortSignal;

  constructor(stream: AsyncIterable<Buffer>, signal: AbortSignal) {
    this.#stream = stream;
    this.#signal = signal;
  }

  async *chunks(): AsyncGenerator<Buffer, void, undefined> {
    for await (const chunk of this.#stream) {
      if (this.#signal.aborted) throw cancelled('download');
      this.bytes += chunk.length;
      this.#hash.update(chunk);
      yield chunk;
    }
  }

  sha256(): string {
    return this.#hash.digest('hex');
  }
}

/** Returns whose identity opened it. Throws a `Failure` of the stage `decrypt`, and whatever source and `take` throw. */
async function decryptInto(
  source: Iterator<Buffer> | AsyncIterator<Buffer>,
  { manifest, file, keys }: { readonly manifest: Manifest; readonly file: ManifestFile; readonly keys: Keys },
  take: (chunk: Buffer) => Promise<void>,
): Promise<string> {
  try {
    const { recipient, plain } = await openAge({ next: async () => source.next() }, keys);
    for await (const chunk of plain) await take(chunk);
    return recipient;
  } catch (error) {
    if (error instanceof WrongKey) throw wrongKey(manifest, file, error);
    if (!(error instanceof NotAgeFile)) throw error;
    throw new Failure(
      'decrypt',
      'verification',
      `${manifest.name}/${manifest.id}: ${file.name} ${error.message}, though it is what was stored`,
      {
        hint: 'this backup cannot be trusted; take a new one, and use an older one to recover (pgassay list)',
        cause: error,
      },
    );
  }
}

function wrongKey(manifest: Manifest, file: ManifestFile, cause: unknown): Failure {
  return new Failure(
    'decrypt',
    'wrongKey',
    `${manifest.name}/${manifest.id}: ${file.name} is not encrypted to the key that was given`,
    { hint: file.encryption === null ? undefined : keysFor(file.encryption), cause },
  );
}

function keysFor({ type, recipients }: NonNullable<ManifestFile['encryption']>): string {
  if (type === 'age-passphrase') return 'it was encrypted with a passphrase: give decrypt-passphrase';
  const lines = recipients.map((each) => `  ${shortRecipient(each)}`);
  return `give decrypt-identity, the secret key (AGE-SECRET-KEY-…) of ${recipients.length === 1 ? 'its recipient' : 'one of its recipients'}:\n${lines.join('\n')}`;
}

function requireChecksum(manifest: Manifest, file: ManifestFile, bytes: number, sha256: string): void {
  if (bytes !== file.bytes) throw damaged(manifest, file.name, `has ${bytes} bytes; ${file.bytes} were stored`);
  if (sha256 !== file.sha256)
    throw damaged(manifest, file.name, 'does not have the SHA-256 it was stored with: its bytes have changed');
}

/** A backup that is not what was stored. */
export function damaged(manifest: Manifest, file: string, what: string): Failure {
  return new Failure('verify', 'verification', `${manifest.name}/${manifest.id}: ${file} ${what}`, {
    hint: 'this backup cannot be trusted; take a new one, and use an older one to recover (pgassay list)',
  });
}
