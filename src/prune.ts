import { type Catalog, readCatalog } from './catalog.ts';
import type { Log } from './log.ts';
import type { Manifest } from './manifest.ts';
import { newestProof, type ProofKeys } from './proofs.ts';
import { type Decision, type KeptBackup, type Pruned, planRetention, type RetentionPolicy } from './retention.ts';
import type { Removal, Store } from './store/store.ts';
import type { Trust } from './trust.ts';

export interface PruneRequest {
  readonly store: Store;
  readonly name: string;
  readonly policy: RetentionPolicy;
  /** Which backups count: what is not trusted pushes nothing out, and is left alone. */
  readonly trust: Trust;
  readonly proofKeys: ProofKeys;
  /** See `RetentionFacts`. */
  readonly criticalAfterMs: number | undefined;
  readonly dryRun: boolean;
}

/**
 * Applies a retention policy to the backups of one name, oldest first, so that what a cancelled run leaves is what a
 * stricter policy would have left. Throws a `Failure` when the store cannot be used; a deletion that the store refuses
 * only keeps that backup.
 */
export async function prune(
  { store, name, policy, trust, proofKeys, criticalAfterMs, dryRun }: PruneRequest,
  io: { readonly log: Log; readonly signal: AbortSignal },
): Promise<Pruned> {
  const catalog = await readCatalog(store, trust, name);
  const proven = await provenOf(store, catalog, proofKeys);
  const plan = planRetention(policy, { backups: catalog.backups, proven, now: await store.now(), criticalAfterMs });
  const kept = plan.decisions.filter(stays).map(keptOf);
  const going = plan.decisions.filter((each) => !stays(each)).map(({ backup }) => backup.manifest);
  const result = { name, dryRun, paused: plan.paused, damaged: catalog.damaged };
  if (plan.paused !== undefined) return { ...result, kept: plan.decisions.map(keptOf), removed: [] };
  if (dryRun) return { ...result, kept, removed: going.toReversed() };
  const removed: Manifest[] = [];
  for (const manifest of going.toReversed()) {
    io.signal.throwIfAborted();
    const removal = await store.remove(name, manifest.id);
    if (removal.kind === 'partly') io.log.warn(describePartly(manifest, removal));
    if (removal.kind === 'kept') kept.push({ manifest, reasons: [removal.reason], refused: true });
    else removed.push(manifest);
  }
  return { ...result, kept: kept.sort(newestFirst), removed };
}

/** What did not go although it should have. */
export function warnOfPruned({ kept }: Pruned, log: Log): void {
  for (const { manifest, reasons } of kept.filter((each) => each.refused))
    log.warn(`${manifest.name}/${manifest.id} was not deleted: ${reasons.join(', ')}`);
}

/** The ids of the backups whose newest restore test passed. */
async function provenOf(store: Store, { backups }: Catalog, keys: ProofKeys): Promise<Set<string>> {
  const tested = backups.filter((backup) => backup.proofs.length > 0);
  const results = await Promise.all(tested.map(async (each) => (await newestProof(store, each, keys))?.result));
  return new Set(tested.flatMap(({ manifest }, at) => (results[at] === 'passed' ? [manifest.id] : [])));
}

function stays(decision: Decision): boolean {
  return decision.keptBy.length > 0;
}

function keptOf({ backup, keptBy }: Decision): KeptBackup {
  return { manifest: backup.manifest, reasons: keptBy, refused: false };
}

function describePartly({ name, id }: Manifest, { reason }: Extract<Removal, { kind: 'partly' }>): string {
  return `${name}/${id} is no backup any more, but files of it stay in the store: ${reason}`;
}

function newestFirst(a: KeptBackup, b: KeptBackup): number {
  return a.manifest.id < b.manifest.id ? 1 : -1;
}
