import { AtOnce } from './at-once.ts';
import type { Backup } from './catalog.ts';
import { Failure } from './failure.ts';
import { UnreadableDocument } from './manifest.ts';
import { type Opening, parseOpening } from './opening.ts';
import { isNamedAfter, largestProof, type Proof, parseProof, proofName, serializeProof } from './proof.ts';
import { largestSignature, type SigningKey, signatureOf, signerOf, type VerifyKey } from './signing.ts';
import { put, putNext, type Store } from './store/store.ts';

/**
 * Whoever may write to a store may put large files there, and many: so many are read at the same time, whoever in this
 * process asks for them.
 */
const reading = new AtOnce(16);

/** Writes a proof beside its backup, signed where there is a key, and returns its address. Throws a `Failure`. */
export function writeProof(store: Store, proof: Proof, key: SigningKey | undefined): Promise<string> {
  const path = `${proof.name}/${proof.backupId}/${proofName(new Date(proof.testedAt))}`;
  return putEvidence(store, path, serializeProof(proof), key);
}

/** Anything that lies under `proofs/`. Returns its address. Throws a `Failure`. */
export async function putEvidence(
  store: Store,
  path: string,
  bytes: Buffer,
  key: SigningKey | undefined,
): Promise<string> {
  const written = key === undefined ? await putNext(store, path, bytes) : await putSigned(store, path, bytes, key);
  return `${store.uri}/${written}`;
}

/** The signature first, as with a backup, both under the next name that is free for both: see `putNext`. */
async function putSigned(store: Store, path: string, bytes: Buffer, key: SigningKey): Promise<string> {
  const signature = signatureOf(bytes, key);
  for (let more = 1; ; more++) {
    const free = more === 1 ? path : path.replace(/\.json$/, `-${more}.json`);
    try {
      await put(store, `${free}.sig`, signature);
      await put(store, free, bytes);
      return free;
    } catch (error) {
      if (!(error instanceof Failure) || error.exit !== 'exists' || more === 10) throw error;
    }
  }
}

/** Whose signature a proof must have to count; none: nobody asks. */
export type ProofKeys = readonly VerifyKey[];

/** The newest proof of a backup that is of this very manifest; undefined when it was never tested. */
export async function newestProof(store: Store, backup: Backup, keys: ProofKeys = []): Promise<Proof | undefined> {
  for (const file of backup.proofs.toReversed()) {
    const proof = await readProof(store, backup, file, keys);
    if (proof !== undefined) return proof;
  }
  return undefined;
}

/** All of them, newest first. */
export async function readProofs(store: Store, backup: Backup, keys: ProofKeys = []): Promise<Proof[]> {
  return (await readProofFiles(store, backup, keys)).filter(isProof);
}

/** All that lies under `proofs/`, newest first. */
export async function readProofFiles(
  store: Store,
  backup: Backup,
  keys: ProofKeys = [],
): Promise<readonly (Proof | Opening)[]> {
  const files = await Promise.all(backup.proofs.toReversed().map((file) => readProofFile(store, backup, file, keys)));
  return files.filter((each) => each !== undefined);
}

async function readProof(store: Store, backup: Backup, file: string, keys: ProofKeys): Promise<Proof | undefined> {
  const said = await readProofFile(store, backup, file, keys);
  return said !== undefined && isProof(said) ? said : undefined;
}

/** The verdict of a restore test, and not the record of a key. */
export function isProof(said: Proof | Opening): said is Proof {
  return said.format === 'pgassay-proof/1';
}

/** Undefined for what is neither kind, is of another manifest or time, or what nobody signed who has to. */
export async function readProofFile(
  store: Store,
  backup: Backup,
  file: string,
  keys: ProofKeys,
): Promise<Proof | Opening | undefined> {
  const bytes = await readEvidence(store, backup, file, keys);
  const said = bytes && parseProofFile(bytes);
  if (said === undefined) return undefined;
  const { manifest, manifestSha256 } = backup;
  const same = said.backupId === manifest.id && said.name === manifest.name && said.manifestSha256 === manifestSha256;
  return same && isNamedAfter(file, isProof(said) ? said.testedAt : said.openedAt) ? said : undefined;
}

function parseProofFile(bytes: Buffer): Proof | Opening | undefined {
  for (const parse of [parseProof, parseOpening])
    try {
      return parse(bytes);
    } catch (error) {
      if (!(error instanceof UnreadableDocument)) throw error;
    }
  return undefined;
}

/** Undefined for what is not there, or what nobody signed who has to. */
function readEvidence(
  store: Store,
  { manifest: { name, id } }: Backup,
  file: string,
  keys: ProofKeys,
): Promise<Buffer | undefined> {
  const path = `${name}/${id}/${file}`;
  return reading.run(async () => {
    const bytes = await readSmall(store, path, largestProof);
    if (bytes === undefined || keys.length === 0) return bytes;
    const signature = await readSmall(store, `${path}.sig`, largestSignature);
    return signature === undefined || signerOf(bytes, signature, keys) === undefined ? undefined : bytes;
  });
}

/** A file that is too large to be a proof is none, and no reason to read no other. */
function readSmall(store: Store, path: string, largest: number): Promise<Buffer | undefined> {
  return store.read(path, 0, largest).catch((error: unknown) => {
    if (error instanceof Failure && error.exit === 'verification') return undefined;
    throw error;
  });
}

/** Of the newest of these backups whose last restore test passed. At most so many are looked at. */
export async function newestPassed(
  store: Store,
  backups: readonly Backup[],
  { most = 60, keys = [] }: { readonly most?: number; readonly keys?: ProofKeys } = {},
): Promise<Proof | undefined> {
  for (const backup of backups.filter((each) => each.proofs.length > 0).slice(0, most)) {
    const proof = await newestProof(store, backup, keys);
    if (proof?.result === 'passed') return proof;
  }
  return undefined;
}

/**
 * The newest restore test of each of these backups, by id, down to the newest that passed. At most so many are looked at:
 * after that many failures in a row another pass is no news.
 */
export async function proofsDownToPassed(
  store: Store,
  backups: readonly Backup[],
  { most = 60, keys = [] }: { readonly most?: number; readonly keys?: ProofKeys } = {},
): Promise<Map<string, Proof>> {
  const files = backups
    .flatMap((backup) => backup.proofs.map((file) => ({ backup, file })))
    .sort((a, b) => (a.file < b.file ? 1 : -1))
    .slice(0, most);
  const proofs = new Map<string, Proof>();
  for (const { backup, file } of files) {
    if (proofs.has(backup.manifest.id)) continue;
    const proof = await readProof(store, backup, file, keys);
    if (proof !== undefined) proofs.set(backup.manifest.id, proof);
    if (proof?.result === 'passed') break;
  }
  return proofs;
}

/** The last restore tests of these backups, newest test first. */
export async function lastProofs(
  store: Store,
  backups: readonly Backup[],
  { most = 10, keys = [] }: { readonly most?: number; readonly keys?: ProofKeys } = {},
): Promise<Proof[]> {
  const files = backups
    .flatMap((backup) => backup.proofs.map((file) => ({ backup, file })))
    .sort((a, b) => (a.file < b.file ? 1 : -1))
    // Some may be records of keys that opened a backup.
    .slice(0, most * 2);
  const proofs = await Promise.all(files.map(({ backup, file }) => readProof(store, backup, file, keys)));
  return proofs.filter((proof) => proof !== undefined).slice(0, most);
}
