import {
  Decrypter,
  Encrypter,
  generateHybridIdentity,
  generateX25519Identity,
  identityToRecipient,
} from 'age-encryption';
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

/** The file was not encrypted to any of the keys. */
export class WrongKey extends Error {}

/** It is not what age writes: cut off, changed, or something else. The message goes after "it". */
export class NotAgeFile extends Error {}

/** The line of the MAC ends an age file's header. A hundred hybrid recipients take 170 kB. */
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

function encrypterFor(encryption: Encryption): Encrypter {
  const encrypter = new Encrypter();
  if (encryption.to === 'passphrase') encrypter.setPassphrase(encryption.passphrase);
  else for (const recipient of encryption.recipients) encrypter.addRecipient(recipient);
  return encrypter;
}

/** A small file, whole. */
export async function encrypt(content: Buffer, encryption: Encryption): Promise<Buffer> {
  const encrypted = await encrypterFor(encryption).encrypt(content);
  return Buffer.from(encrypted.buffer, encrypted.byteOffset, encrypted.byteLength);
}

/**
 * Encrypts what is written to it and gives `take` the age file, piece by piece, the next one when it has resolved. The
 * memory of a chunk may be used again when its `write` has resolved, and little more than a chunk is held.
 */
export class AgeWriter {
  readonly #source: ReadableStream<Uint8Array>;
  #controller: ReadableStreamDefaultController<Uint8Array> | undefined;
  /** Whoever encrypts has come for the next chunk, and is done with the last one. */
  #wanted = Promise.withResolvers<void>();
  #pumping: Promise<void> = Promise.resolve();
  #failure: { readonly error: unknown } | undefined;

  private constructor() {
    this.#source = new ReadableStream<Uint8Array>(
      {
        start: (controller) => {
          this.#controller = controller;
        },
        pull: () => this.#wanted.resolve(),
        cancel: (reason) => this.#fail(reason ?? new Error('nobody takes what is encrypted any more')),
      },
      // With a queue, a chunk would be held after its `write` has resolved.
      { highWaterMark: 0 },
    );
    this.#wanted.promise.catch(() => {});
  }

  static async begin(encryption: Encryption, take: (chunk: Buffer) => Promise<void>): Promise<AgeWriter> {
    const writer = new AgeWriter();
    const encrypted = await encrypterFor(encryption).encrypt(writer.#source);
    writer.#pumping = writer.#pump(encrypted, take);
    writer.#pumping.catch(() => {});
    return writer;
  }

  async write(chunk: Buffer): Promise<void> {
    if (chunk.length === 0) return;
    await this.#whenWanted();
    this.#wanted = Promise.withResolvers();
    this.#wanted.promise.catch(() => {});
    this.#controller?.enqueue(chunk);
    await this.#whenWanted();
  }

  /** Resolves when all of the age file has been taken. */
  async end(): Promise<void> {
    await this.#whenWanted();
    this.#controller?.close();
    await this.#pumping;
  }

  async #whenWanted(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure.error;
    await this.#wanted.promise;
  }

  async #pump(encrypted: ReadableStream<Uint8Array>, take: (chunk: Buffer) => Promise<void>): Promise<void> {
    // Told before the stream is cancelled, which gives no reason.
    const failed = (error: unknown): never => {
      this.#fail(error);
      throw error;
    };
    for await (const { buffer, byteOffset, byteLength } of encrypted)
      await take(Buffer.from(buffer, byteOffset, byteLength)).catch(failed);
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#wanted.reject(this.#failure.error);
  }
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
  return { recipient, plain: decrypted(head, source, fileKey) };
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
    const mac = head.indexOf('\n--- ');
    const end = mac === -1 ? -1 : head.indexOf('\n', mac + 1);
    if (end !== -1) return { head, headerBytes: end + 1 };
    if (!head.toString('latin1', 0, 21).startsWith('age-encryption.org/v1'.slice(0, head.length))) break;
  }
  throw new NotAgeFile('does not begin as an age file does');
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
    passphrase === undefined ? undefined : await tryKey(header, (decrypter) => decrypter.addPassphrase(passphrase));
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

async function* decrypted(
  head: Buffer,
  source: AsyncIterator<Buffer>,
  fileKey: Uint8Array,
): AsyncGenerator<Buffer, void, undefined> {
  // The key is known: a passphrase takes a second each time.
  const decrypter = new Decrypter();
  decrypter.addIdentity({ unwrapFileKey: () => fileKey });
  const upstream: { failure?: { readonly error: unknown } } = {};
  let first: Buffer | undefined = head;
  const stored = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        if (first !== undefined) {
          controller.enqueue(first);
          first = undefined;
          return;
        }
        try {
          const { done, value } = await source.next();
          if (done === true) controller.close();
          else controller.enqueue(value);
        } catch (error) {
          upstream.failure = { error };
          controller.error(error);
        }
      },
    },
    { highWaterMark: 0 },
  );
  const reader = await decrypter
    .decrypt(stored)
    .then((plain) => plain.getReader())
    .catch((cause: unknown) => {
      throw upstream.failure === undefined
        ? new NotAgeFile('ends inside its header', { cause })
        : upstream.failure.error;
    });
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((cause: unknown) => {
        if (upstream.failure !== undefined) throw upstream.failure.error;
        throw new NotAgeFile('was changed or cut off: it does not decrypt to its end', { cause });
      });
      if (done) return;
      yield Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
