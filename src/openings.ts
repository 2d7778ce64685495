import type { Backup } from './catalog.ts';
import { UnreadableDocument } from './manifest.ts';
import { type Opening, parseOpening, serializeOpening } from './opening.ts';
import { proofName } from './proof.ts';
import { putNext, type Store } from './store/store.ts';

/** Writes the record beside its backup and returns its address. Throws a `Failure`. */
export async function writeOpening(store: Store, opening: Opening): Promise<string> {
  const path = `${opening.name}/${opening.backupId}/${proofName(new Date(opening.openedAt))}`;
  return `${store.uri}/${await putNext(store, path, serializeOpening(opening))}`;
}

/** Those of this very manifest, newest first. */
export async function readOpenings(store: Store, backup: Backup): Promise<Opening[]> {
  const openings = await Promise.all(backup.proofs.toReversed().map((file) => readOpening(store, backup, file)));
  return openings.filter((opening) => opening !== undefined);
}

/** Undefined for what is something else, a restore test's proof for instance. */
async function readOpening(
  store: Store,
  { manifest, manifestSha256 }: Backup,
  file: string,
): Promise<Opening | undefined> {
  const bytes = await store.read(`${manifest.name}/${manifest.id}/${file}`);
  if (bytes === undefined) return undefined;
  try {
    const opening = parseOpening(bytes);
    const same = opening.backupId === manifest.id && opening.name === manifest.name;
    return same && opening.manifestSha256 === manifestSha256 ? opening : undefined;
  } catch (error) {
    if (error instanceof UnreadableDocument) return undefined;
    throw error;
  }
}
