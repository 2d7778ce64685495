import { type Backup, futureMs } from './catalog.ts';
import { keysOf } from './manifest.ts';
import { type KeyUse, keyUseOf, type Opening, serializeOpening } from './opening.ts';
import { type Proof, proofName } from './proof.ts';
import { isProof, type ProofKeys, putEvidence, readProofFile, readProofFiles } from './proofs.ts';
import type { SigningKey } from './signing.ts';
import type { Store } from './store/store.ts';

/** Files read at the same time: the newest few nearly always have all keys. */
const atOnce = 16;

/** Writes the record beside its backup, signed where there is a key, and returns its address. Throws a `Failure`. */
export function writeOpening(store: Store, opening: Opening, key: SigningKey | undefined): Promise<string> {
  const path = `${opening.name}/${opening.backupId}/${proofName(new Date(opening.openedAt))}`;
  return putEvidence(store, path, serializeOpening(opening), key);
}

/** Those of this very manifest, newest first. */
export async function readOpenings(store: Store, backup: Backup, keys: ProofKeys = []): Promise<Opening[]> {
  return (await readProofFiles(store, backup, keys)).filter((said) => !isProof(said));
}

/**
 * When each key that the newest of these backups is encrypted to last opened one of them, for those that ever did. Reads
 * from the newest file on, until every key was seen.
 */
export async function lastKeyUses(
  store: Store,
  backups: readonly Backup[],
  { now, keys = [] }: { readonly now: Date; readonly keys?: ProofKeys },
): Promise<KeyUse[]> {
  const [newest] = backups;
  const unseen = new Set(newest === undefined ? [] : keysOf(newest.manifest));
  const files = backups
    .flatMap((backup) => backup.proofs.map((file) => ({ backup, file })))
    .sort((a, b) => (a.file < b.file ? 1 : -1));
  const uses: KeyUse[] = [];
  for (let from = 0; from < files.length && unseen.size > 0; from += atOnce) {
    const batch = files.slice(from, from + atOnce);
    const read = await Promise.all(batch.map(({ backup, file }) => readProofFile(store, backup, file, keys)));
    for (const use of usesIn(read, now)) if (unseen.delete(use.recipient)) uses.push(use);
  }
  return uses;
}

/** What retention asks of one backup's proofs, read from the newest on. */
export async function readVerdict(
  store: Store,
  backup: Backup,
  { now, keys }: { readonly now: Date; readonly keys: ProofKeys },
): Promise<{
  /** How its newest restore test ended; undefined when it was never tested. */
  readonly result: 'passed' | 'failed' | undefined;
  /** The last time each of its keys opened it. */
  readonly uses: readonly KeyUse[];
}> {
  const unseen = new Set(keysOf(backup.manifest));
  let result: 'passed' | 'failed' | undefined;
  const uses: KeyUse[] = [];
  for (const file of backup.proofs.toReversed()) {
    if (result !== undefined && unseen.size === 0) break;
    const said = await readProofFile(store, backup, file, keys);
    if (said !== undefined && isProof(said)) result ??= said.result;
    for (const use of usesIn([said], now)) if (unseen.delete(use.recipient)) uses.push(use);
  }
  return { result, uses };
}

/** Without those of the future: a clock that runs ahead proves nothing. */
function usesIn(files: readonly (Proof | Opening | undefined)[], now: Date): KeyUse[] {
  const latest = now.getTime() + futureMs;
  return files.flatMap((said) => (said && keyUseOf(said)) ?? []).filter(({ at }) => Date.parse(at) <= latest);
}
