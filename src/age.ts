import {
  Decrypter,
  Encrypter,
  generateHybridIdentity,
  generateX25519Identity,
  identityToRecipient,
} from 'age-encryption';
import { NotAgeFile, WrongKey } from './age-errors.ts';
import { passphraseIdentity, passphraseRecipient } from './age-passphrase.ts';
import { openPayload, PayloadWriter } from './age-payload.ts';
import { byPassphrase } from './manifest.ts';

/** Who can open what is encrypted: whoever has one of the recipients' identities, or whoever knows the passphrase. */
export type Encryption =
  | { readonly to: 'recipients'; readonly recipients: readonly string[] }
  | { readonly to: 'passphrase'; readonly passphrase: string };

/** What there is to open encrypted files with. */
export interface Keys {
  /** `AGE-SECRET-KEY-1…` or `AGE-SECRET-KEY-PQ-1…`, tried in this order. */
  readonly identities: readonly string[];
  readonly passphrase: string | undefined;
}

export const noKeys: Keys = { identities: [], passphrase: undefined };

/** A hundred hybrid recipients take 170 kB. */
const longestHeader = 1024 * 1024;

/** The sum of a recipient's own check: throws when it was not copied whole. */
export function checkRecipient(recipient: string): void {
  new Encrypter().addRecipient(recipient);
}

/** The same for an identity. */
export function checkIdentity(identity: string): void {
  new Decrypter().addIdentity(identity);
}

export interface KeyPair {
  readonly recipient: string;
  readonly identity: string;
}

export async function generateKeyPair(kind: 'x25519' | 'post-quantum'): Promise<KeyPair> {
  const identity = kind === 'x25519' ? await generateX25519Identity() : await generateHybridIdentity();
  return { identity, recipient: await identityToRecipient(identity) };
}

/** A small file, whole. */
export async function encrypt(content: Buffer, encryption: Encryption): Promise<Buffer> {
  const pieces: Buffer[] = [];
  const writer = await beginAge(encryption, async (piece) => void pieces.push(piece));
  await writer.write(content);
  await writer.end();
  return Buffer.concat(pieces);
}

/**
 * Begins an age file. What is written to it is encrypted and given to `take`, piece by piece, the next one when it has
 * resolved. The memory of a chunk may be used again when its `write` has resolved, and little more than a piece is held.
 */
export async function beginAge(encryption: Encryption, take: (piece: Buffer) => Promise<void>): Promise<PayloadWriter> {
  const encrypter = new Encrypter();
  if (encryption.to === 'passphrase') encrypter.addRecipient(passphraseRecipient(encryption.passphrase));
  else for (const recipient of encryption.recipients) encrypter.addRecipient(recipient);
  let fileKey: Uint8Array | undefined;
  // Asked like all others to wrap the key of the file, and the only one that adds nothing to the header.
  encrypter.addRecipient({
    wrapFileKey: (key) => {
      fileKey = key;
      return [];
    },
  });
  const empty = Buffer.from(await encrypter.encrypt(new Uint8Array()));
  if (fileKey === undefined) throw new Error('a header was made without a key');
  return new PayloadWriter(empty.subarray(0, headerBytesOf(empty)), fileKey, take);
}

/** An age file that one of the keys opens. */
export interface Opened {
  /** The recipient whose identity it was, or `passphrase`. */
  readonly recipient: string;
  /** What was encrypted, each piece authenticated. Throws {@link NotAgeFile} where it does not go on, or ends, as it was written. */
  readonly plain: AsyncIterable<Buffer>;
}

/** Reads a file's header and opens it. Throws {@link WrongKey}, {@link NotAgeFile}, and whatever `source` throws. */
export async function openAge(source: AsyncIterator<Buffer>, keys: Keys): Promise<Opened> {
  const { head, headerBytes } = await readHeader(source);
  const { fileKey, recipient } = await unwrap(head.subarray(0, headerBytes), keys);
  return { recipient, plain: openPayload(fileKey, head.subarray(headerBytes), source) };
}

/** The same for a small file at hand. */
export async function decrypt(
  content: Buffer,
  keys: Keys,
): Promise<{ readonly recipient: string; readonly plain: Buffer }> {
  const pieces = [content].values();
  const source: AsyncIterator<Buffer> = { next: async () => pieces.next() };
  const { recipient, plain } = await openAge(source, keys);
  return { recipient, plain: Buffer.concat(await Array.fromAsync(plain)) };
}

/** Everything up to the header's end, and a little of what comes after it. */
async function readHeader(
  source: AsyncIterator<Buffer>,
): Promise<{ readonly head: Buffer; readonly headerBytes: number }> {
  let head = Buffer.alloc(0);
  while (head.length < longestHeader) {
    const { done, value } = await source.next();
    if (done === true) throw new NotAgeFile('ends inside its header');
    head = Buffer.concat([head, value]);
    const headerBytes = headerBytesOf(head);
    if (headerBytes > 0) return { head, headerBytes };
    if (!head.toString('latin1', 0, 21).startsWith('age-encryption.org/v1'.slice(0, head.length))) break;
  }
  throw new NotAgeFile('does not begin as an age file does');
}

/** Where the line of the MAC ends; 0 where that is not there. */
function headerBytesOf(file: Buffer): number {
  const mac = file.indexOf('\n--- ');
  return mac === -1 ? 0 : file.indexOf('\n', mac + 1) + 1;
}

async function unwrap(
  header: Buffer,
  { identities, passphrase }: Keys,
): Promise<{ readonly fileKey: Uint8Array; readonly recipient: string }> {
  for (const identity of identities) {
    const fileKey = await tryKey(header, (decrypter) => decrypter.addIdentity(identity));
    if (fileKey !== undefined) return { fileKey, recipient: await identityToRecipient(identity) };
  }
  const fileKey =
    passphrase === undefined
      ? undefined
      : await tryKey(header, (decrypter) => decrypter.addIdentity(passphraseIdentity(passphrase)));
  if (fileKey !== undefined) return { fileKey, recipient: byPassphrase };
  throw new WrongKey('none of the keys opens it');
}

/** Undefined: another key. Throws {@link NotAgeFile} for a header that no key can open. */
async function tryKey(header: Buffer, add: (decrypter: Decrypter) => void): Promise<Uint8Array | undefined> {
  let tried = false;
  const decrypter = new Decrypter();
  add(decrypter);
  // Asked only when the key before it did not fit.
  decrypter.addIdentity({
    unwrapFileKey: () => {
      tried = true;
      return null;
    },
  });
  try {
    return await decrypter.decryptHeader(header);
  } catch (cause) {
    if (tried) return undefined;
    throw new NotAgeFile('has a header that no key can open', { cause });
  }
}
