import { existsSync } from 'node:fs';
import type { Inputs, ReadInput } from './inputs.ts';
import type { Secrets } from './secrets.ts';
import { parseSigningKey, parseVerifyKeys, type SigningKey, type VerifyKey } from './signing.ts';
import type { Trust } from './trust.ts';

/** Every input that is a key of ours in PEM, as text or as the path of a file. */
export const keyInputs: readonly string[] = ['verify-key', 'proof-verify-key', 'signing-key', 'proof-key'];

/** Reads `verify-key`, and `accept-moved` where that is an input. What is returned with a problem is never used. */
export function readTrust(inputs: Inputs): Trust {
  const acceptMoved = inputs.flag('accept-moved', false);
  return { keys: publicKeys(inputs, 'verify-key'), acceptMoved };
}

/** Reads `proof-verify-key`: whose proofs count. */
export function readProofKeys(inputs: Inputs): readonly VerifyKey[] {
  return publicKeys(inputs, 'proof-verify-key');
}

function publicKeys(inputs: Inputs, name: string): readonly VerifyKey[] {
  const text = inputs.raw(name);
  if (text === undefined) return [];
  const parsed = parseVerifyKeys(text);
  if ('keys' in parsed) return parsed.keys;
  inputs.problem(name, parsed.problem, parsed.hint);
  return [];
}

/** Reads the private key that signs backups. What it signs must be what `trust` accepts. */
export function readSigningKey(inputs: Inputs, { keys }: Trust): SigningKey | undefined {
  const key = readKey(inputs, 'signing-key');
  if (key !== undefined && keys.length > 0 && !keys.some(({ id }) => id === key.id))
    inputs.problem(
      'verify-key',
      'does not hold the public half of signing-key, so whoever reads with it would refuse this backup',
      'add that half as one more block; the keys of before stay for the backups of before',
    );
  return key;
}

/** Reads the private key that signs proofs. Who tests backups must not be able to write one that counts. */
export function readProofKey(inputs: Inputs, { keys }: Trust): SigningKey | undefined {
  const key = readKey(inputs, 'proof-key');
  if (key !== undefined && keys.some(({ id }) => id === key.id))
    inputs.problem(
      'proof-key',
      'is the key that signs backups, and a test must not be able to make one',
      'make another pair for the tester: pgassay keygen --signing',
    );
  return key;
}

/** The same for a backup step, which with `verify-key` alone would store what does not count for itself. */
export function readBackupKey(inputs: Inputs, trust: Trust): SigningKey | undefined {
  const key = readSigningKey(inputs, trust);
  if (trust.keys.length > 0 && inputs.raw('signing-key') === undefined)
    inputs.problem(
      'signing-key',
      'is empty, and with verify-key a backup that nobody signed does not count',
      'look whether the secret exists and this job may read it; without signatures leave verify-key out as well',
    );
  return key;
}

function readKey(inputs: Inputs, name: string): SigningKey | undefined {
  const text = inputs.raw(name);
  if (text === undefined) return undefined;
  const parsed = parseSigningKey(text);
  if ('key' in parsed) return parsed.key;
  inputs.problem(name, parsed.problem, parsed.hint);
  return undefined;
}

/** Hides the private keys among the inputs, also one that was given as a public key by mistake, and one in another form. */
export function hideKeys(read: ReadInput, secrets: Secrets): void {
  for (const name of keyInputs) {
    const text = read(name)?.trim();
    if (!text || existsSync(text)) continue;
    if (name.endsWith('verify-key') && text.includes('PUBLIC KEY') && !text.includes('PRIVATE KEY')) continue;
    // The first and last lines of a block are the same in all of them.
    const pieces = text.replaceAll(/-----(?:BEGIN|END) [A-Z0-9 ]+-----/g, '\n');
    for (const line of pieces.split('\n')) secrets.add(line.trim());
    // In one line, or with \n in place of line breaks, the key is a word among others.
    for (const word of pieces.split(/\s|\\n/)) if (word.length >= 16) secrets.add(word);
  }
}
