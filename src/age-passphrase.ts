import { createCipheriv, createDecipheriv, randomBytes, type ScryptOptions, scrypt } from 'node:crypto';
import { promisify } from 'node:util';

/** A section of an age file's header. */
interface Stanza {
  readonly args: string[];
  readonly body: Uint8Array;
}

const deriveKey: (passphrase: string, salt: Buffer, length: number, options: ScryptOptions) => Promise<Buffer> =
  promisify(scrypt);
const algorithm = 'chacha20-poly1305';
/** As the age program does it: a second of work and 256 MiB for each guess. */
const workFactor = 18;
/** Whoever writes a header decides how long its reader works. */
const mostWork = 20;
const saltBytes = 16;
const tagBytes = 16;
const bodyBytes = 32;
/** Each key is used once. */
const nonce = Buffer.alloc(12);

/**
 * Passphrases of age files, derived by OpenSSL beside the event loop, which the scrypt of `age-encryption` holds up for
 * seconds in every file.
 */
export function passphraseRecipient(passphrase: string): { wrapFileKey(fileKey: Uint8Array): Promise<Stanza[]> } {
  return {
    async wrapFileKey(fileKey) {
      const salt = randomBytes(saltBytes);
      const key = await keyFrom(passphrase, salt, workFactor);
      const cipher = createCipheriv(algorithm, key, nonce, { authTagLength: tagBytes });
      const body = Buffer.concat([cipher.update(fileKey), cipher.final(), cipher.getAuthTag()]);
      return [{ args: ['scrypt', salt.toString('base64').replaceAll('=', ''), `${workFactor}`], body }];
    },
  };
}

/** Gives null when it is another passphrase or no file of a passphrase; throws where no passphrase can open it. */
export function passphraseIdentity(passphrase: string): {
  unwrapFileKey(stanzas: readonly Stanza[]): Promise<Uint8Array | null>;
} {
  return {
    async unwrapFileKey(stanzas) {
      const stanza = stanzas.find(({ args: [type] }) => type === 'scrypt');
      if (stanza === undefined) return null;
      const [, saltText = '', work = ''] = stanza.args;
      const salt = Buffer.from(saltText, 'base64');
      const whole = stanzas.length === 1 && stanza.args.length === 3 && stanza.body.length === bodyBytes;
      if (!whole || salt.length !== saltBytes || !/^[1-9]\d?$/.test(work) || Number(work) > mostWork)
        throw new Error('the passphrase section of the header is malformed');
      const key = await keyFrom(passphrase, salt, Number(work));
      const decipher = createDecipheriv(algorithm, key, nonce, { authTagLength: tagBytes });
      decipher.setAuthTag(stanza.body.subarray(bodyBytes - tagBytes));
      const fileKey = decipher.update(stanza.body.subarray(0, bodyBytes - tagBytes));
      try {
        decipher.final();
        return fileKey;
      } catch {
        // Not this passphrase.
        return null;
      }
    },
  };
}

function keyFrom(passphrase: string, salt: Buffer, work: number): Promise<Buffer> {
  const cost = 2 ** work;
  const options = { cost, blockSize: 8, parallelization: 1, maxmem: 2 * 128 * 8 * cost };
  return deriveKey(passphrase, Buffer.concat([Buffer.from('age-encryption.org/v1/scrypt'), salt]), 32, options);
}
