import { resolve } from 'node:path';
import { namePattern } from './backup-id.ts';
import type { HealthPolicy } from './health-findings.ts';
import { readHealthPolicy } from './health-inputs.ts';
import type { Inputs } from './inputs.ts';
import type { ProofKeys } from './proofs.ts';
import type { RetentionPolicy } from './retention.ts';
import { keepInputs, readRetention } from './retention-inputs.ts';
import { readProofKeys, readTrust } from './signing-inputs.ts';
import type { ArtifactPlace } from './store/artifact-place.ts';
import type { StoreChoice } from './store/open.ts';
import type { IdentityService } from './store/s3-address.ts';
import { readStore, storeReadInputs } from './store-inputs.ts';
import type { Trust } from './trust.ts';

/** Every input of the page; a test holds the command line to this list. */
export const reportInputs: readonly string[] = [
  ...storeReadInputs,
  'name',
  'out',
  ...keepInputs,
  'warn-after',
  'critical-after',
  'min-backups',
  'max-shrink',
  'max-proof-age',
  'max-recovery-key-age',
  'proof-verify-key',
  'max-restore-time',
  'alert-details',
];

export interface ReportConfig {
  readonly store: StoreChoice;
  readonly name: string | undefined;
  readonly trust: Trust;
  readonly proofKeys: ProofKeys;
  readonly folder: string;
  readonly health: HealthPolicy;
  readonly retention: RetentionPolicy | undefined;
  readonly targetSeconds: number | undefined;
  /** `auto`: as public as the repository is, in a workflow; shown elsewhere. */
  readonly details: 'auto' | boolean;
}

const longest = '3650d';

/** Throws a `Failure` that lists every problem of every input. */
export function readReportConfig(
  inputs: Inputs,
  identity: IdentityService | undefined,
  artifacts: ArtifactPlace | undefined,
): ReportConfig {
  const store = readStore(inputs, identity, artifacts);
  const trust = readTrust(inputs);
  const proofKeys = readProofKeys(inputs);
  const name = inputs.optional('name');
  if (name !== undefined && !namePattern.test(name))
    inputs.problem('name', `${name} is not allowed`, 'the name that the backup step has; empty for all of them');
  const folder = resolve(inputs.required('out', 'the folder that gets index.html'));
  const health = readHealthPolicy(inputs);
  const retention = readRetention(inputs);
  const given = inputs.optional('max-restore-time');
  const targetMs = given === undefined ? undefined : inputs.duration('max-restore-time', given, longest);
  const details = inputs.choice('alert-details', ['auto', 'true', 'false'], 'auto');
  inputs.finish();
  return {
    ...{ store, name, trust, proofKeys, folder, health, retention },
    targetSeconds: targetMs === undefined ? undefined : targetMs / 1000,
    details: details === 'auto' ? details : details === 'true',
  };
}
