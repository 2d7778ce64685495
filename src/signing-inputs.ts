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

function readKey(inputs: Inputs, name: string): SigningKey | undefined {
  const text = inputs.raw(name);
  if (text === undefined) return undefined;
  const parsed = parseSigningKey(text);
  if ('key' in parsed) return parsed.key;
  inputs.problem(name, parsed.problem, parsed.hint);
  return undefined;
}

/** Hides the private keys among the inputs, also one that was given as a public key by mistake. */
export function hideKeys(read: ReadInput, secrets: Secrets): void {
  for (const name of keyInputs) {
    const text = read(name)?.trim();
    if (!text || (name.endsWith('verify-key') && !text.includes('PRIVATE KEY')) || existsSync(text)) continue;
    const lines = text.split(/\r?\n/).map((line) => line.trim());
    // The first and last lines of a block are the same in all of them.
    for (const line of lines.length === 1 ? lines : lines.filter((each) => !each.startsWith('-----')))
      secrets.add(line);
  }
}
