import { createHash } from 'node:crypto';
import { beginAge, type Encryption } from './age.ts';
import type { PayloadWriter } from './age-payload.ts';
import type { Upload } from './store/store.ts';

/** What was sent, as it is stored. */
export interface Sent {
  readonly bytes: number;
  readonly sha256: string;
}

/**
 * A file on its way to the store: encrypted where that is asked for, once, then counted, hashed and uploaded. Nothing of
 * it is visible there before the upload is completed, which is not done here.
 */
export class Outgoing {
  readonly #upload: Pick<Upload, 'write'>;
  readonly #hash = createHash('sha256');
  #bytes = 0;
  #age: PayloadWriter | undefined;

  private constructor(upload: Pick<Upload, 'write'>) {
    this.#upload = upload;
  }

  static async begin(upload: Pick<Upload, 'write'>, encryption: Encryption | undefined): Promise<Outgoing> {
    const outgoing = new Outgoing(upload);
    if (encryption !== undefined) outgoing.#age = await beginAge(encryption, (chunk) => outgoing.#send(chunk));
    return outgoing;
  }

  /** Resolves when there is room for more, and the chunk's memory may be used again. */
  write(chunk: Buffer): Promise<void> {
    return this.#age === undefined ? this.#send(chunk) : this.#age.write(chunk);
  }

  /** To be called when all that belongs to the file has been written, and is known to be whole. */
  async end(): Promise<Sent> {
    await this.#age?.end();
    return { bytes: this.#bytes, sha256: this.#hash.digest('hex') };
  }

  #send(chunk: Buffer): Promise<void> {
    this.#bytes += chunk.length;
    this.#hash.update(chunk);
    return this.#upload.write(chunk);
  }
}
