import { resolve } from 'node:path';
import { namePattern } from './backup-id.ts';
import type { HealthPolicy } from './health-findings.ts';
import type { Inputs } from './inputs.ts';
import type { RetentionPolicy } from './retention.ts';
import { keepInputs, readRetention } from './retention-inputs.ts';
import type { StoreChoice } from './store/open.ts';
import type { IdentityService } from './store/s3-address.ts';
import { readStore, storeReadInputs } from './store-inputs.ts';

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
  'max-restore-time',
  'alert-details',
  'github-token',
];

export interface ReportConfig {
  readonly store: StoreChoice;
  readonly name: string | undefined;
  readonly folder: string;
  readonly health: HealthPolicy;
  readonly retention: RetentionPolicy | undefined;
  readonly targetSeconds: number | undefined;
  /** `auto`: as public as the repository is, in a workflow; shown elsewhere. */
  readonly details: 'auto' | boolean;
}

const longest = '3650d';

/** Throws a `Failure` that lists every problem of every input. */
export function readReportConfig(inputs: Inputs, identity: IdentityService | undefined): ReportConfig {
  const store = readStore(inputs, identity);
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
    ...{ store, name, folder, health, retention },
    targetSeconds: targetMs === undefined ? undefined : targetMs / 1000,
    details: details === 'auto' ? details : details === 'true',
  };
}

function readHealthPolicy(inputs: Inputs): HealthPolicy {
  const warnAfterMs = inputs.duration('warn-after', '26h', longest);
  const criticalAfterMs = inputs.duration('critical-after', '30h', longest);
  if (warnAfterMs > criticalAfterMs) inputs.problem('warn-after', 'is more than critical-after');
  const proofAge = inputs.optional('max-proof-age');
  return {
    ...{ warnAfterMs, criticalAfterMs, maxShrink: readPercent(inputs, 'max-shrink', '50%') },
    minBackups: inputs.optional('min-backups') === undefined ? undefined : inputs.integer('min-backups', 1, 1, 100_000),
    maxProofAgeMs: proofAge === undefined ? undefined : inputs.duration('max-proof-age', proofAge, longest),
  };
}

/** 0 to 1. */
function readPercent(inputs: Inputs, name: string, fallback: string): number {
  const text = inputs.optional(name) ?? fallback;
  const value = /^\d{1,3}%$/.test(text) ? Number(text.slice(0, -1)) : Number.NaN;
  if (value >= 1 && value <= 100) return value / 100;
  inputs.problem(name, `${text} is not a percentage from 1% to 100%`);
  return 0.5;
}
