import { namePattern } from './backup-id.ts';
import { describeDamaged } from './catalog.ts';
import { Failure } from './failure.ts';
import type { Inputs } from './inputs.ts';
import type { ProofKeys } from './proofs.ts';
import type { Pruned, RetentionPolicy } from './retention.ts';
import { keepInputs, readRetention } from './retention-inputs.ts';
import { readProofKeys, readTrust } from './signing-inputs.ts';
import type { ArtifactPlace } from './store/artifact-place.ts';
import type { StoreChoice } from './store/open.ts';
import type { IdentityService } from './store/s3-address.ts';
import { readStore, storeReadInputs } from './store-inputs.ts';
import type { Trust } from './trust.ts';

/** Every input of retention; a test holds prune/action.yml and the command line to this list. */
export const pruneInputs: readonly string[] = [
  ...storeReadInputs,
  'name',
  ...keepInputs,
  'dry-run',
  'critical-after',
  'proof-verify-key',
];

export interface PruneConfig {
  readonly store: StoreChoice;
  readonly name: string;
  readonly policy: RetentionPolicy;
  readonly trust: Trust;
  readonly proofKeys: ProofKeys;
  readonly criticalAfterMs: number;
  readonly dryRun: boolean;
}

/** Throws a `Failure` that lists every problem of every input. `artifacts`: see `readStore`. */
export function readPruneConfig(
  inputs: Inputs,
  identity: IdentityService | undefined,
  artifacts: ArtifactPlace | undefined,
): PruneConfig {
  const store = readStore(inputs, identity, artifacts);
  const trust = readTrust(inputs);
  const name = inputs.matching('name', undefined, namePattern, 'the name that the backup step has');
  const problems = inputs.problems.length;
  const policy = readRetention(inputs);
  if (policy === undefined && inputs.problems.length === problems)
    inputs.problem(
      'keep-last',
      'and every other keep-* is empty: without a rule nothing is deleted',
      'say what stays: keep-daily: 7 and keep-monthly: 12, for instance',
    );
  const criticalAfterMs = inputs.duration('critical-after', '30h', '3650d');
  const proofKeys = readProofKeys(inputs);
  const dryRun = inputs.flag('dry-run', false);
  inputs.finish();
  if (policy === undefined) throw new Error('a policy without a rule and without a problem');
  return { store, name, policy, trust, proofKeys, criticalAfterMs, dryRun };
}

/** How a run that did all it may ends: undefined, or the `Failure` for somebody to look. */
export function failureOfPruned({ paused, damaged }: Pruned): Failure | undefined {
  if (damaged.length > 0) {
    const lines = damaged.map((each) => `  ${describeDamaged(each)}`);
    return new Failure('prune', 'verification', `backups that cannot be used were left alone\n${lines.join('\n')}`, {
      hint: 'find out who changed them; the rules were applied to all others',
    });
  }
  if (paused === undefined) return undefined;
  return new Failure('prune', 'retention', `nothing was deleted: ${paused}`, {
    hint: 'what is there may be all there will be: find out why backups of this name stopped; critical-after says how old the newest may be',
  });
}
