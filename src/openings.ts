import type { Backup } from './catalog.ts';
import { UnreadableDocument } from './manifest.ts';
import { type Opening, parseOpening, serializeOpening } from './opening.ts';
import { proofName } from './proof.ts';
import { type ProofKeys, putEvidence, readEvidence } from './proofs.ts';
import type { SigningKey } from './signing.ts';
import type { Store } from './store/store.ts';

/** Writes the record beside its backup, signed where there is a key, and returns its address. Throws a `Failure`. */
export function writeOpening(store: Store, opening: Opening, key: SigningKey | undefined): Promise<string> {
  const path = `${opening.name}/${opening.backupId}/${proofName(new Date(opening.openedAt))}`;
  return putEvidence(store, path, serializeOpening(opening), key);
}

/** Those of this very manifest, newest first. */
export function readOpenings(store: Store, backup: Backup, keys: ProofKeys = []): Promise<Opening[]> {
  return readAll(
    store,
    backup.proofs.toReversed().map((file) => ({ backup, file })),
    keys,
  );
}

/** Of these backups, newest first; of all that lies under their `proofs/`, the newest files are looked at. */
export function newestOpenings(
  store: Store,
  backups: readonly Backup[],
  { most = 60, keys = [] }: { readonly most?: number; readonly keys?: ProofKeys } = {},
): Promise<Opening[]> {
  const files = backups
    .flatMap((backup) => backup.proofs.map((file) => ({ backup, file })))
    .sort((a, b) => (a.file < b.file ? 1 : -1))
    .slice(0, most);
  return readAll(store, files, keys);
}

async function readAll(
  store: Store,
  files: readonly { readonly backup: Backup; readonly file: string }[],
  keys: ProofKeys,
): Promise<Opening[]> {
  const openings = await Promise.all(files.map(({ backup, file }) => readOpening(store, backup, file, keys)));
  return openings.filter((opening) => opening !== undefined);
}

/** Undefined for what is something else, a restore test's proof for instance. */
async function readOpening(store: Store, backup: Backup, file: string, keys: ProofKeys): Promise<Opening | undefined> {
  const bytes = await readEvidence(store, backup, file, keys);
  if (bytes === undefined) return undefined;
  try {
    const opening = parseOpening(bytes);
    const { manifest, manifestSha256 } = backup;
    const same = opening.backupId === manifest.id && opening.name === manifest.name;
    return same && opening.manifestSha256 === manifestSha256 ? opening : undefined;
  } catch (error) {
    if (error instanceof UnreadableDocument) return undefined;
    throw error;
  }
}
