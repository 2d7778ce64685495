import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { NotAgeFile } from './age-errors.ts';

/**
 * What follows an age file's header: a salt, then pieces of ChaCha20-Poly1305, each authenticated by itself, numbered,
 * and the last one marked, so that none can be changed, moved, left out or cut off. OpenSSL computes it: five times as
 * many bytes a second as JavaScript, and every byte of a backup comes through here.
 */
const algorithm = 'chacha20-poly1305';
const pieceBytes = 64 * 1024;
const tagBytes = 16;
const saltBytes = 16;

function payloadKey(fileKey: Uint8Array, salt: Uint8Array): Buffer {
  return Buffer.from(hkdfSync('sha256', fileKey, salt, 'payload', 32));
}

/** Piece after piece: eleven bytes of its number, and one that says whether it is the last. */
class PieceNonce {
  readonly #bytes = Buffer.alloc(12);
  #number = 0;

  next(last: boolean): Buffer {
    this.#bytes.writeUIntBE(this.#number, 5, 6);
    this.#bytes[11] = last ? 1 : 0;
    this.#number++;
    return this.#bytes;
  }
}

/** Encrypts what is written to it. At most a piece is held; `take` gets the next one when it is done with the last. */
export class PayloadWriter {
  readonly #key: Buffer;
  readonly #take: (chunk: Buffer) => Promise<void>;
  readonly #nonce = new PieceNonce();
  readonly #piece = Buffer.allocUnsafe(pieceBytes);
  #used = 0;
  /** The header and the salt, until they have been sent. */
  #head: Buffer | undefined;

  constructor(header: Buffer, fileKey: Uint8Array, take: (chunk: Buffer) => Promise<void>) {
    const salt = randomBytes(saltBytes);
    this.#key = payloadKey(fileKey, salt);
    this.#head = Buffer.concat([header, salt]);
    this.#take = take;
  }

  async write(chunk: Buffer): Promise<void> {
    for (let at = 0; at < chunk.length; ) {
      // A full piece waits: it may be the last one, which is marked.
      if (this.#used === pieceBytes) await this.#send(false);
      const copied = chunk.copy(this.#piece, this.#used, at);
      this.#used += copied;
      at += copied;
    }
  }

  async end(): Promise<void> {
    await this.#send(true);
  }

  async #send(last: boolean): Promise<void> {
    const cipher = createCipheriv(algorithm, this.#key, this.#nonce.next(last), { authTagLength: tagBytes });
    const encrypted = cipher.update(this.#piece.subarray(0, this.#used));
    const parts: Buffer[] = [encrypted, cipher.final(), cipher.getAuthTag()];
    this.#used = 0;
    if (this.#head !== undefined) parts.unshift(this.#head);
    this.#head = undefined;
    await this.#take(Buffer.concat(parts));
  }
}

/**
 * Decrypts what comes after a header: `first`, then `source`. Each piece is given away when it has been authenticated,
 * and is the receiver's own. Throws {@link NotAgeFile}, and whatever `source` throws.
 */
export async function* openPayload(
  fileKey: Uint8Array,
  first: Buffer,
  source: AsyncIterator<Buffer>,
): AsyncGenerator<Buffer, void, undefined> {
  let head = first;
  while (head.length < saltBytes) {
    const { done, value } = await source.next();
    if (done === true) throw new NotAgeFile('ends inside its header');
    head = Buffer.concat([head, value]);
  }
  const key = payloadKey(fileKey, head.subarray(0, saltBytes));
  const nonce = new PieceNonce();
  const piece = Buffer.allocUnsafe(pieceBytes + tagBytes);
  let used = 0;
  let pieces = 0;
  let chunk = head.subarray(saltBytes);
  for (;;) {
    for (let at = 0; at < chunk.length; ) {
      // A full piece with something after it is not the last.
      if (used === piece.length) {
        yield openPiece(key, nonce.next(false), piece);
        pieces++;
        used = 0;
      }
      const copied = chunk.copy(piece, used, at);
      used += copied;
      at += copied;
    }
    const { done, value } = await source.next();
    if (done === true) break;
    chunk = value;
  }
  const last = openPiece(key, nonce.next(true), piece.subarray(0, used));
  if (last.length > 0) yield last;
  else if (pieces > 0) throw new NotAgeFile('ends with a piece that holds nothing');
}

function openPiece(key: Buffer, nonce: Buffer, piece: Buffer): Buffer {
  const changed = 'was changed or cut off: it does not decrypt to its end';
  const tagAt = piece.length - tagBytes;
  if (tagAt < 0) throw new NotAgeFile(changed);
  const decipher = createDecipheriv(algorithm, key, nonce, { authTagLength: tagBytes });
  decipher.setAuthTag(piece.subarray(tagAt));
  const plain = decipher.update(piece.subarray(0, tagAt));
  try {
    decipher.final();
  } catch (cause) {
    throw new NotAgeFile(changed, { cause });
  }
  return plain;
}
