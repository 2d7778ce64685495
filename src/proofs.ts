import type { Backup } from './catalog.ts';
import { UnreadableDocument } from './manifest.ts';
import { type Proof, parseProof, proofName, serializeProof } from './proof.ts';
import { putNext, type Store } from './store/store.ts';

/** Writes a proof beside its backup and returns its address. Throws a `Failure`. */
export async function writeProof(store: Store, proof: Proof): Promise<string> {
  const path = `${proof.name}/${proof.backupId}/${proofName(new Date(proof.testedAt))}`;
  return `${store.uri}/${await putNext(store, path, serializeProof(proof))}`;
}

/** The newest proof of a backup that is of this very manifest; undefined when it was never tested. */
export async function newestProof(store: Store, backup: Backup): Promise<Proof | undefined> {
  for (const file of backup.proofs.toReversed()) {
    const proof = await readProof(store, backup, file);
    if (proof !== undefined) return proof;
  }
  return undefined;
}

/** All of them, newest first. */
export async function readProofs(store: Store, backup: Backup): Promise<Proof[]> {
  const proofs = await Promise.all(backup.proofs.toReversed().map((file) => readProof(store, backup, file)));
  return proofs.filter((proof) => proof !== undefined);
}

/** Undefined for what is no proof, or one of another manifest. */
async function readProof(store: Store, { manifest, manifestSha256 }: Backup, file: string): Promise<Proof | undefined> {
  const bytes = await store.read(`${manifest.name}/${manifest.id}/${file}`);
  if (bytes === undefined) return undefined;
  try {
    const proof = parseProof(bytes);
    const same = proof.backupId === manifest.id && proof.name === manifest.name;
    return same && proof.manifestSha256 === manifestSha256 ? proof : undefined;
  } catch (error) {
    if (error instanceof UnreadableDocument) return undefined;
    throw error;
  }
}

/** Of the newest of these backups whose last restore test passed. At most so many are looked at. */
export async function newestPassed(store: Store, backups: readonly Backup[], most = 60): Promise<Proof | undefined> {
  for (const backup of backups.filter((each) => each.proofs.length > 0).slice(0, most)) {
    const proof = await newestProof(store, backup);
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
  most = 60,
): Promise<Map<string, Proof>> {
  const files = backups
    .flatMap((backup) => backup.proofs.map((file) => ({ backup, file })))
    .sort((a, b) => (a.file < b.file ? 1 : -1))
    .slice(0, most);
  const proofs = new Map<string, Proof>();
  for (const { backup, file } of files) {
    if (proofs.has(backup.manifest.id)) continue;
    const proof = await readProof(store, backup, file);
    if (proof !== undefined) proofs.set(backup.manifest.id, proof);
    if (proof?.result === 'passed') break;
  }
  return proofs;
}

/** The last restore tests of these backups, newest test first. */
export async function lastProofs(store: Store, backups: readonly Backup[], most = 10): Promise<Proof[]> {
  const files = backups
    .flatMap((backup) => backup.proofs.map((file) => ({ backup, file })))
    .sort((a, b) => (a.file < b.file ? 1 : -1))
    .slice(0, most);
  const proofs = await Promise.all(files.map(({ backup, file }) => readProof(store, backup, file)));
  return proofs.filter((proof) => proof !== undefined);
}
