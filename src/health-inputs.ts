import { namePattern } from './backup-id.ts';
import { Failure } from './failure.ts';
import type { HealthRequest } from './health.ts';
import { type HealthPolicy, type HealthStatus, hintsOf } from './health-findings.ts';
import type { WorkflowPlace } from './health-workflows.ts';
import type { Inputs } from './inputs.ts';
import type { Health } from './report/health.ts';
import { readProofKeys, readTrust } from './signing-inputs.ts';
import type { ArtifactPlace } from './store/artifact-place.ts';
import type { StoreChoice } from './store/open.ts';
import type { IdentityService } from './store/s3-address.ts';
import { readStore, storeReadInputs } from './store-inputs.ts';
import { describeFindings } from './verdict.ts';

/** Every input of health but the alerts'; a test holds health/action.yml and the command line to this list. */
export const healthInputs: readonly string[] = [
  ...storeReadInputs,
  ...['names', 'warn-after', 'critical-after', 'min-backups', 'max-shrink', 'max-proof-age'],
  ...['proof-verify-key', 'max-recovery-key-age'],
  ...['integrity', 'workflows', 'fail-on', 'metrics-file'],
];

export interface HealthConfig extends Omit<HealthRequest, 'store' | 'github'> {
  readonly store: StoreChoice;
  /** From which status on the run fails. */
  readonly failOn: 'critical' | 'warning' | 'never';
  readonly metricsFile: string | undefined;
}

/** Throws a `Failure` that lists every problem of every input. `repository`: `owner/name`, where that is known. */
export function readHealthConfig(
  inputs: Inputs,
  {
    identity,
    artifacts,
    repository,
  }: {
    readonly identity: IdentityService | undefined;
    readonly artifacts: ArtifactPlace | undefined;
    readonly repository: string | undefined;
  },
): HealthConfig {
  const config = {
    store: readStore(inputs, identity, artifacts),
    trust: readTrust(inputs),
    proofKeys: readProofKeys(inputs),
    names: readNames(inputs),
    policy: readHealthPolicy(inputs),
    integrity: inputs.choice('integrity', ['none', 'sizes', 'full'], 'sizes'),
    workflows: readWorkflows(inputs, repository),
    failOn: inputs.choice('fail-on', ['critical', 'warning', 'never'], 'critical'),
    metricsFile: inputs.optional('metrics-file'),
  };
  inputs.finish();
  return { ...config, policy: { ...config.policy, files: config.integrity !== 'none' } };
}

function readNames(inputs: Inputs): string[] {
  const names = [...new Set(inputs.lines('names'))];
  for (const name of names)
    if (!namePattern.test(name))
      inputs.problem('names', `${name} is not a name`, 'one a line, as name of the backup step');
  return names;
}

/** When to speak up, for whoever judges. */
export function readHealthPolicy(inputs: Inputs): Omit<HealthPolicy, 'files'> {
  return {
    warnAfterMs: inputs.duration('warn-after', '26h', '3650d'),
    criticalAfterMs: inputs.duration('critical-after', '30h', '3650d'),
    minBackups: inputs.optional('min-backups') === undefined ? undefined : inputs.integer('min-backups', 1, 1, 100_000),
    maxShrink: readShare(inputs, 'max-shrink', 50),
    maxProofAgeMs:
      inputs.optional('max-proof-age') === undefined ? undefined : inputs.duration('max-proof-age', '30d', '3650d'),
    maxKeyAgeMs:
      inputs.optional('max-recovery-key-age') === undefined
        ? undefined
        : inputs.duration('max-recovery-key-age', '100d', '3650d'),
  };
}

/** `50%` as 0.5. */
function readShare(inputs: Inputs, name: string, fallback: number): number {
  const text = inputs.optional(name) ?? `${fallback}%`;
  const percent = Number(/^(\d{1,3})\s*%$/.exec(text)?.[1] ?? Number.NaN);
  if (percent >= 1 && percent <= 100) return percent / 100;
  inputs.problem(name, `${text} is not a share`, 'write 1% to 100%: 50%');
  return fallback / 100;
}

function readWorkflows(inputs: Inputs, repository: string | undefined): WorkflowPlace[] {
  return [...new Set(inputs.lines('workflows'))].flatMap((workflow) => {
    const [, other, file] = /^(?:(\w[\w.-]*\/\w[\w.-]*)\/)?(\w[\w.-]*\.ya?ml)$/.exec(workflow) ?? [];
    const owner = other ?? repository;
    if (file === undefined)
      inputs.problem('workflows', `${workflow} is no workflow`, 'write backup.yml, or owner/repo/backup.yml');
    else if (owner === undefined)
      inputs.problem('workflows', `${workflow} does not say of which repository`, `write owner/repo/${file}`);
    else return [{ workflow, repository: owner, file }];
    return [];
  });
}

const mostHints = 5;

/** How a run ends that came to a verdict: undefined, or the `Failure` for somebody to look. */
export function failureOfHealth(health: Health, failOn: HealthConfig['failOn']): Failure | undefined {
  const fails: Record<HealthConfig['failOn'], readonly HealthStatus[]> = {
    critical: ['critical'],
    warning: ['critical', 'warning'],
    never: [],
  };
  if (!fails[failOn].includes(health.status)) return undefined;
  const all = [{ name: undefined, findings: health.findings }, ...health.names].flatMap(({ name, findings }) =>
    findings.map((each) => ({ ...each, object: name === undefined ? each.object : `${name}: ${each.object}` })),
  );
  const worst = all.filter(({ severity }) => severity === health.status);
  const what = `${worst.length === 1 ? 'one thing' : `${worst.length} things`} about the backups ${worst.length === 1 ? 'is' : 'are'} ${health.status === 'critical' ? 'critical' : 'worth a look'}`;
  return new Failure('verify', 'unhealthy', `${what}\n${describeFindings(worst)}`, { hint: hintsOf(worst, mostHints) });
}
