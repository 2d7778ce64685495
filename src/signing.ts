import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from 'node:crypto';

/** The half that signs, which nobody but one job has. */
export interface SigningKey {
  readonly id: string;
  readonly key: KeyObject;
}

/** The half that tells who signed. */
export interface VerifyKey {
  readonly id: string;
  readonly key: KeyObject;
}

/** Why a text is no key: a sentence that begins after the input's name, and what to do. */
export interface KeyProblem {
  readonly problem: string;
  readonly hint?: string;
}

const makeOne = 'pgassay keygen --signing makes a pair of Ed25519 keys';
const pemBlock = /-----BEGIN ([A-Z0-9 ]+)-----([^-]*)-----END \1-----/g;

/** 64 bytes as base64, and white space around it. */
const signaturePattern = /^\s*([A-Za-z0-9+/]{86}==)\s*$/;

/** A file that is longer is no signature. Bytes. */
export const largestSignature = 1024;

/** The content of a `.sig` file: the Ed25519 signature of exactly these bytes, in base64, and a line break. */
export function signatureOf(bytes: Buffer, { key }: SigningKey): Buffer {
  return Buffer.from(`${sign(null, bytes, key).toString('base64')}\n`);
}

/** Which of the keys made this signature of exactly these bytes; undefined: none of them. */
export function signerOf(bytes: Buffer, signature: Buffer, keys: readonly VerifyKey[]): VerifyKey | undefined {
  const [, text] =
    signature.length > largestSignature ? [] : (signaturePattern.exec(signature.toString('latin1')) ?? []);
  if (text === undefined) return undefined;
  const raw = Buffer.from(text, 'base64');
  return keys.find(({ key }) => verify(null, bytes, key, raw));
}

/** A private key in PEM; what is wrong with it otherwise. */
export function parseSigningKey(text: string): { readonly key: SigningKey } | KeyProblem {
  const blocks = blocksOf(text);
  if ('problem' in blocks) return blocks;
  const [first, ...others] = blocks.blocks;
  if (first === undefined) return notPem('PRIVATE KEY');
  if (others.length > 0) return { problem: 'holds several keys, and one signs', hint: 'give the newest one' };
  if (first.label === 'PUBLIC KEY')
    return {
      problem: 'is a public key, which cannot sign',
      hint: 'give the private half; the public one is for verify-key',
    };
  if (first.label === 'ENCRYPTED PRIVATE KEY')
    return { problem: 'is protected by a passphrase, which nobody can type here', hint: makeOne };
  if (first.label !== 'PRIVATE KEY')
    return { problem: `is ${article(first.label)}, and no Ed25519 key`, hint: makeOne };
  const key = read(() => createPrivateKey(first.text));
  if (key === undefined) return cutShort;
  return key.asymmetricKeyType === 'ed25519' ? { key: { id: keyIdOf(key), key } } : anotherKind(key);
}

/** One or more public keys in PEM; what is wrong with the first one that is none. */
export function parseVerifyKeys(text: string): { readonly keys: readonly VerifyKey[] } | KeyProblem {
  const blocks = blocksOf(text);
  if ('problem' in blocks) return blocks;
  if (blocks.blocks.length === 0) return notPem('PUBLIC KEY');
  const keys = new Map<string, VerifyKey>();
  for (const { label, text: block } of blocks.blocks) {
    if (label.endsWith('PRIVATE KEY'))
      return {
        problem: 'holds a private key, and whoever reads that can sign',
        hint: 'give the public half here; where this text may have been seen, make a new pair',
      };
    if (label !== 'PUBLIC KEY') return { problem: `holds ${article(label)}, and no Ed25519 key`, hint: makeOne };
    const key = read(() => createPublicKey(block));
    if (key === undefined) return cutShort;
    if (key.asymmetricKeyType !== 'ed25519') return anotherKind(key);
    const id = keyIdOf(key);
    keys.set(id, { id, key });
  }
  return { keys: [...keys.values()] };
}

/** The public half of a key, to look for it among others. */
export function verifyKeyOf({ id, key }: SigningKey): VerifyKey {
  return { id, key: createPublicKey(key) };
}

/** A new pair, as PEM texts. */
export function generateSigningKeys(): {
  readonly id: string;
  readonly privateKey: string;
  readonly publicKey: string;
} {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  return {
    id: keyIdOf(publicKey),
    privateKey: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    publicKey: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
  };
}

/** SHA-256 of the 32 bytes of the public key, 64 hexadecimal digits: the same for both halves. */
function keyIdOf(key: KeyObject): string {
  const half = key.type === 'private' ? createPublicKey(key) : key;
  const raw = Buffer.from(half.export({ format: 'jwk' }).x ?? '', 'base64url');
  return createHash('sha256').update(raw).digest('hex');
}

/** As people compare it: the first 16 digits. */
export function shortKeyId(id: string): string {
  return id.slice(0, 16);
}

/** Line breaks and indentation suffer on the way through forms and files; the letters of the key are what counts. */
function blocksOf(
  text: string,
): { readonly blocks: readonly { readonly label: string; readonly text: string }[] } | KeyProblem {
  if (!/[\r\n]/.test(text.trim()) && text.includes('\\n'))
    return {
      problem: 'has \\n in it in place of line breaks',
      hint: 'store the key with its line breaks, as a file has them',
    };
  const blocks = [...text.matchAll(pemBlock)].map(([, label = '', body = '']) => {
    const lines = body.replaceAll(/\s/g, '').match(/.{1,64}/g) ?? [];
    return { label, text: [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ''].join('\n') };
  });
  const rest = text.replaceAll(pemBlock, '').replaceAll(/^\s*#.*$/gm, '');
  if (blocks.length > 0 && rest.trim() !== '') return cutShort;
  return { blocks };
}

function read(make: () => KeyObject): KeyObject | undefined {
  try {
    return make();
  } catch {
    // The library's words may quote the key.
    return undefined;
  }
}

const cutShort: KeyProblem = {
  problem: 'has a block that cannot be read as a key; it may be cut short',
  hint: 'copy it again, whole, with its first and last line',
};

function notPem(label: string): KeyProblem {
  return {
    problem: 'is no key in PEM',
    hint: `give all of it, from -----BEGIN ${label}----- to -----END ${label}-----; ${makeOne}`,
  };
}

function anotherKind({ asymmetricKeyType }: KeyObject): KeyProblem {
  return { problem: `is a key for ${asymmetricKeyType ?? 'something else'}, and Ed25519 is needed`, hint: makeOne };
}

/** A PEM label in a sentence: `an OPENSSH PRIVATE KEY`. */
function article(label: string): string {
  return `${/^[AEIO]|^RSA/.test(label) ? 'an' : 'a'} ${label}`;
}
