import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { generateSigningKeys, parseSigningKey, type SigningKey } from '../../src/signing.ts';
import { scratch } from './faults.ts';

/** A pair of keys of a test's own. */
export interface Keys {
  readonly id: string;
  readonly privateKey: string;
  readonly publicKey: string;
  /** The public half in a file, for `--verify-key`. */
  readonly verify: string;
}

export async function keyPair(): Promise<Keys> {
  const pair = generateSigningKeys();
  const verify = join(await scratch(), 'verify.pem');
  await writeFile(verify, pair.publicKey);
  return { ...pair, verify };
}

/** The private half, ready to sign with. */
export function signingKey({ privateKey }: Keys): SigningKey {
  const parsed = parseSigningKey(privateKey);
  if ('key' in parsed) return parsed.key;
  throw new Error(parsed.problem);
}
