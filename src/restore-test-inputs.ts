import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { Keys } from './age.ts';
import { readTarget } from './backup-inputs.ts';
import { parseSelector, type Selector } from './catalog.ts';
import { type Check, checksOfLines, checksOfText } from './checks.ts';
import { decryptInputs, readKeys } from './encryption-inputs.ts';
import type { Problem } from './failure.ts';
import { Inputs, type ReadInput } from './inputs.ts';
import type { Machine } from './machine.ts';
import type { Source } from './manifest.ts';
import { release } from './release.ts';
import type { RestoreTestConfig } from './restore-test.ts';
import { readProofKey, readTrust } from './signing-inputs.ts';
import type { ArtifactPlace } from './store/artifact-place.ts';
import type { StoreChoice } from './store/open.ts';
import type { IdentityService } from './store/s3-address.ts';
import { readStore, storeInputs } from './store-inputs.ts';
import type { Trust } from './trust.ts';

/** Every input of a restore test; a test holds restore-test/action.yml and the command line to this list. */
export const restoreTestInputs: readonly string[] = [
  ...storeInputs,
  'name',
  'backup',
  'scratch-url',
  'scratch-privileges',
  'allow-unsandboxed',
  'checks',
  'checks-file',
  'census',
  'jobs',
  'max-restore-time',
  'skip-extensions',
  'proof-key',
  ...decryptInputs,
  'client-bin',
  'install-client',
  'timeout',
  'retries',
  'stall-timeout',
  'tls-ca',
  'tls-client-cert',
  'tls-client-key',
];

export interface RestoreTestRequest {
  readonly config: RestoreTestConfig;
  readonly store: StoreChoice;
  readonly keys: Keys;
  /** How long the store may be silent, milliseconds. */
  readonly idleMs: number;
  /** Undefined: the only one in the store. */
  readonly name: string | undefined;
  readonly selector: Selector;
  readonly trust: Trust;
}

export interface TestSurroundings {
  readonly machine: Machine;
  readonly source: Source | null;
  readonly identity: IdentityService | undefined;
  /** Whose artifacts `store: artifact` means. */
  readonly artifacts?: ArtifactPlace | undefined;
}

/** Inputs to one readonly request. Throws a `Failure` that lists every problem of every input. */
export function readRestoreTest(
  read: ReadInput,
  { machine, source, identity, artifacts }: TestSurroundings,
  known: readonly Problem[] = [],
): RestoreTestRequest {
  const inputs = new Inputs(read);
  inputs.add(known);
  const store = readStore(inputs, identity, artifacts);
  const trust = readTrust(inputs);
  const parsed = parseSelector(inputs.optional('backup') ?? 'latest');
  if ('problem' in parsed) inputs.problem('backup', parsed.problem);
  const scratch = inputs.optional('scratch-url') === undefined ? undefined : readTarget(inputs, 'scratch-url');
  const longest = inputs.optional('max-restore-time');
  const config: RestoreTestConfig = {
    scratch,
    superuser: inputs.choice('scratch-privileges', ['owner', 'superuser'], 'owner') === 'superuser',
    allowUnsandboxed: inputs.flag('allow-unsandboxed', false),
    checks: readChecks(inputs),
    census: inputs.choice('census', ['auto', 'rows', 'content'], 'auto'),
    jobs: inputs.integer('jobs', Math.min(16, availableParallelism()), 1, 64),
    proofKey: readProofKey(inputs, trust),
    maxRestoreMs: longest === undefined ? undefined : inputs.duration('max-restore-time', '1h', '120h'),
    skipExtensions: inputs
      .lines('skip-extensions')
      .flatMap((line) => line.split(/[\s,]+/).filter((word) => word !== '')),
    clientBin: inputs.optional('client-bin'),
    installClient: inputs.flag('install-client', true),
    timeoutMs: inputs.duration('timeout', '5h', '120h'),
    retries: inputs.integer('retries', 2, 0, 10),
    version: release,
    source,
    machine,
  };
  const keys = readKeys(inputs);
  const idleMs = Math.min(inputs.duration('stall-timeout', '5m', '24h'), 60_000);
  inputs.finish();
  if ('problem' in parsed) throw new Error('a selector with a problem that nobody told');
  return { config, store, keys, idleMs, name: inputs.optional('name'), selector: parsed.selector, trust };
}

function readChecks(inputs: Inputs): Check[] {
  const checks = checksOfLines(inputs.lines('checks'));
  const path = inputs.optional('checks-file');
  if (path === undefined) return checks;
  try {
    const found = checksOfText(readFileSync(path, 'utf8'));
    if (found.length === 0) inputs.problem('checks-file', `${path} holds no query`);
    return [...checks, ...found];
  } catch {
    inputs.problem('checks-file', `${path} cannot be read`, 'the path is taken from the folder the step runs in');
    return checks;
  }
}
