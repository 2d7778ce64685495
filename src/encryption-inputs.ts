import { checkIdentity, checkRecipient, type Encryption, type Keys } from './age.ts';
import type { Problem } from './failure.ts';
import type { Inputs, ReadInput } from './inputs.ts';

/** Of everything that writes backups. */
export const encryptInputs: readonly string[] = ['encrypt-to', 'encrypt-passphrase'];

/** Of everything that reads them. */
export const decryptInputs: readonly string[] = ['decrypt-identity', 'decrypt-passphrase'];

const secretKeys = /AGE-SECRET-KEY-[0-9A-Z-]+/gi;

/** What must never be shown of these inputs, also when it was given in the wrong place. */
export function encryptionSecrets(read: ReadInput): string[] {
  const texts = [...encryptInputs, ...decryptInputs].map((name) => [name, read(name) ?? ''] as const);
  return texts.flatMap(([name, text]) => {
    const keys = text.match(secretKeys) ?? [];
    // Of a file of identities the comments, with the public key, may be shown.
    const shown = name === 'encrypt-to' || (name === 'decrypt-identity' && keys.length > 0);
    const whole = shown ? [] : [text.trim()];
    return [...keys, ...whole].filter((secret) => secret !== '');
  });
}

/** To whom backups are encrypted; undefined where nobody asked for it, or where there is a problem. */
export function readEncryption(inputs: Inputs): Encryption | undefined {
  const passphrase = readPassphrase(inputs, 'encrypt-passphrase');
  if (inputs.optional('encrypt-to') === undefined) {
    if (passphrase === undefined) return undefined;
    const weakness = weaknessOf(passphrase);
    if (weakness === undefined) return { to: 'passphrase', passphrase };
    inputs.problem('encrypt-passphrase', weakness, passphraseHint);
    return undefined;
  }
  if (passphrase !== undefined)
    inputs.problem(
      'encrypt-passphrase',
      'and encrypt-to are both given, and age cannot do both in one file',
      'give encrypt-to alone: what it protects does not depend on how good a passphrase is',
    );
  const recipients = readRecipients(inputs);
  return recipients === undefined ? undefined : { to: 'recipients', recipients };
}

const passphraseHint = 'let a machine make one: openssl rand -base64 24';

function readRecipients(inputs: Inputs): readonly string[] | undefined {
  const recipients = new Set<string>();
  const before = inputs.problems.length;
  for (const [at, line] of inputs.lines('encrypt-to').entries()) {
    const problem = recipientProblem(line);
    if (problem === undefined) recipients.add(line);
    else inputs.problem('encrypt-to', `recipient ${at + 1} ${problem.message}`, problem.hint);
  }
  if (inputs.problems.length > before) return undefined;
  const hybrid = [...recipients].filter((each) => each.startsWith('age1pq1')).length;
  if (recipients.size === 0)
    inputs.problem(
      'encrypt-to',
      'holds comments only and names no recipient',
      'give one age1… a line, or leave it empty',
    );
  else if (hybrid > 0 && hybrid < recipients.size)
    inputs.problem(
      'encrypt-to',
      'mixes post-quantum recipients (age1pq1…) with others, and a file is no safer than the weakest of them',
      'give all of one kind, as age itself demands; pgassay keygen --post-quantum makes the pair that is missing',
    );
  else return [...recipients];
  return undefined;
}

/** Nothing of the line is repeated: who knows what it is. */
function recipientProblem(line: string): { readonly message: string; readonly hint: string } | undefined {
  if (/AGE-SECRET-KEY-/i.test(line))
    return {
      message: 'is a secret key, and a backup job must never have one',
      hint: 'give its public half, age1…, and make a new pair: whoever could read the configuration of this job may have this one',
    };
  if (/^(?:ssh-|ecdsa-)/.test(line))
    return { message: 'is an SSH key', hint: 'make a pair of age keys: pgassay keygen, or age-keygen' };
  if (!/^age1(?:pq1)?[0-9a-z]+$/.test(line) || /^age1(?!pq1)[^1]*1/.test(line))
    return {
      message: 'is no recipient of age that can be used here',
      hint: 'a recipient begins with age1 (X25519) or age1pq1 (post-quantum) and stands alone on its line; pgassay keygen makes a pair',
    };
  try {
    checkRecipient(line);
    return undefined;
  } catch {
    return { message: 'was not copied whole: its check does not fit', hint: 'copy the public key again, all of it' };
  }
}

/** One line break at the end belongs to the file it came from. */
function readPassphrase(inputs: Inputs, name: string): string | undefined {
  const passphrase = inputs.raw(name)?.replace(/\r?\n$/, '');
  if (passphrase === undefined) return undefined;
  if (/AGE-SECRET-KEY-/i.test(passphrase) || /^age1[0-9a-z]{50,}/.test(passphrase))
    inputs.problem(
      name,
      'is a key of age and no passphrase',
      'a public key belongs into encrypt-to, a secret one into decrypt-identity',
    );
  return passphrase;
}

const leastCharacters = 16;
const leastDifferent = 8;

/** A bucket that leaked is tried for years: what people make up and remember is found. */
function weaknessOf(passphrase: string): string | undefined {
  if (/[\r\n]/.test(passphrase) || passphrase !== passphrase.trim())
    return 'has a line break inside, or a space at one of its ends, which nobody types again';
  const characters = [...passphrase];
  if (characters.length < leastCharacters) return `is shorter than ${leastCharacters} characters`;
  if (new Set(characters).size < leastDifferent) return `has fewer than ${leastDifferent} different characters`;
  if (/^(.{1,12})\1+.{0,11}$/s.test(passphrase)) return 'is the same few characters again and again';
  if (isSequence(characters)) return 'is a row of neighbouring characters';
  return undefined;
}

/** `abcdefgh…` or `98765…`: nearly every character is its neighbour's neighbour. */
function isSequence(characters: readonly string[]): boolean {
  const codes = characters.map((each) => each.codePointAt(0) ?? 0);
  const steps = codes.slice(1).map((code, at) => code - (codes[at] ?? 0));
  return [1, -1].some((step) => steps.filter((each) => each === step).length >= steps.length * 0.75);
}

/** What opens encrypted backups. */
export function readKeys(inputs: Inputs): Keys {
  const passphrase = readPassphrase(inputs, 'decrypt-passphrase');
  const identities = new Set<string>();
  for (const [at, line] of inputs.lines('decrypt-identity').entries()) {
    const problem = identityProblem(line);
    if (problem === undefined) identities.add(line);
    else inputs.problem('decrypt-identity', `key ${at + 1} ${problem.message}`, problem.hint);
  }
  if (inputs.optional('decrypt-identity') !== undefined && inputs.lines('decrypt-identity').length === 0)
    inputs.problem(
      'decrypt-identity',
      'holds comments only and no secret key',
      'give the line that begins with AGE-SECRET-KEY-',
    );
  return { identities: [...identities], passphrase };
}

function identityProblem(line: string): { readonly message: string; readonly hint: string } | undefined {
  const give = 'give the secret key, the line of its file that begins with AGE-SECRET-KEY-';
  if (/^age1/.test(line)) return { message: 'is a public key, which opens nothing', hint: give };
  if (line.startsWith('age-encryption.org/') || line.startsWith('-----BEGIN AGE ENCRYPTED FILE'))
    return { message: 'is itself encrypted with a passphrase', hint: 'decrypt it first: age -d key.age' };
  if (!/^AGE-SECRET-KEY-(?:PQ-)?1[0-9A-Z]+$/.test(line))
    return { message: 'is no secret key of age that can be used here', hint: give };
  try {
    checkIdentity(line);
    return undefined;
  } catch {
    return { message: 'was not copied whole: its check does not fit', hint: 'copy the secret key again, all of it' };
  }
}

/** A backup job that holds the key gives it to whoever takes over the job. */
export function refuseKeys(inputs: Inputs): void {
  for (const name of decryptInputs) if (inputs.optional(name) !== undefined) inputs.problem(name, ...keyInBackup);
}

const keyInBackup = [
  'was given to a backup, which never needs it: whoever takes this job over could read every backup',
  'take it out, and keep it where only restores and restore tests run (docs/keys.md)',
] as const;

/** The same where it lies in the environment. */
export function strayKeys(variables: Readonly<Record<string, string | undefined>>): Problem[] {
  const variable = 'PGASSAY_DECRYPT_IDENTITY';
  const [message, hint] = keyInBackup;
  return variables[variable]?.trim() ? [{ input: variable, message, hint }] : [];
}
