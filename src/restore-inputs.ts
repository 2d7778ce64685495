import { availableParallelism } from 'node:os';
import { readTarget } from './backup-inputs.ts';
import { parseSelector, type Selector } from './catalog.ts';
import { decryptInputs, encryptInputs, readEncryption, readKeys } from './encryption-inputs.ts';
import type { Problem } from './failure.ts';
import { Inputs, type ReadInput } from './inputs.ts';
import type { Machine } from './machine.ts';
import type { Source } from './manifest.ts';
import type { RestoreConfig } from './restore-config.ts';
import { readSigningKey, readTrust } from './signing-inputs.ts';
import type { ArtifactPlace } from './store/artifact-place.ts';
import type { IdentityService } from './store/s3-address.ts';
import { readStore, storeInputs } from './store-inputs.ts';

/** Every input of a restore; a test holds restore/action.yml and the command line to this list. */
export const restoreInputs: readonly string[] = [
  ...storeInputs,
  'name',
  'backup',
  'max-age',
  'target-url',
  'tables',
  'schemas',
  'mode',
  'clean',
  'confirm',
  'safety-backup',
  ...encryptInputs,
  ...decryptInputs,
  'jobs',
  'owners',
  'accept-client-risk',
  'accept-moved',
  'signing-key',
  'client-bin',
  'install-client',
  'timeout',
  'retries',
  'stall-timeout',
  'tls-ca',
  'tls-client-cert',
  'tls-client-key',
];

export interface RestoreRequest {
  readonly config: RestoreConfig;
  /** How long the store may be silent, milliseconds. */
  readonly idleMs: number;
  /** Undefined: the only one in the store. */
  readonly name: string | undefined;
  readonly selector: Selector;
}

export interface RestoreSurroundings {
  readonly machine: Machine;
  readonly source: Source | null;
  /** Who started it. */
  readonly actor: string;
  readonly identity: IdentityService | undefined;
  /** Whose artifacts `store: artifact` means. */
  readonly artifacts?: ArtifactPlace | undefined;
}

/** Inputs to one readonly request. Throws a `Failure` that lists every problem of every input. */
export function readRestore(
  read: ReadInput,
  { machine, source, actor, identity, artifacts }: RestoreSurroundings,
  known: readonly Problem[] = [],
): RestoreRequest {
  const inputs = new Inputs(read);
  inputs.add(known);
  const store = readStore(inputs, identity, artifacts);
  const trust = readTrust(inputs);
  const parsed = parseSelector(inputs.optional('backup') ?? 'latest');
  if ('problem' in parsed) inputs.problem('backup', parsed.problem);
  const target = readTarget(inputs, 'target-url');
  const confirm = inputs.optional('confirm');
  if (confirm !== undefined && target !== undefined && confirm !== target.database)
    inputs.problem(
      'confirm',
      `${confirm} is not the name of the target database, ${target.database}`,
      'look at the target URL again, and say the name of the database that may be changed',
    );
  const config = {
    maxAgeMs: inputs.optional('max-age') === undefined ? undefined : inputs.duration('max-age', '1d', '36500d'),
    wanted: { tables: inputs.patterns('tables'), schemas: inputs.patterns('schemas') },
    mode: inputs.choice('mode', ['full', 'schema-only', 'data-only'], 'full'),
    clean: inputs.flag('clean', false),
    safetyBackup: inputs.flag('safety-backup', true),
    encryption: readEncryption(inputs),
    keys: readKeys(inputs),
    store,
    trust,
    signing: readSigningKey(inputs, trust),
    source,
    actor,
    confirmed: confirm !== undefined,
    jobs: inputs.integer('jobs', Math.min(16, availableParallelism()), 1, 64),
    owners: inputs.choice('owners', ['auto', 'keep', 'drop'], 'auto'),
    acceptClientRisk: inputs.flag('accept-client-risk', false),
    clientBin: inputs.optional('client-bin'),
    installClient: inputs.flag('install-client', true),
    timeoutMs: inputs.duration('timeout', '5h', '120h'),
    retries: inputs.integer('retries', 2, 0, 10),
    machine,
  };
  const stallMs = inputs.duration('stall-timeout', '5m', '24h');
  if (config.wanted.tables.length > 0 && config.wanted.schemas.length > 0)
    inputs.problem(
      'tables',
      'and schemas are both given',
      'give one of them; a table pattern can name its schema: sales.*',
    );
  if (config.clean && confirm === undefined)
    inputs.problem('confirm', 'is needed with clean', 'say the name of the database in which something may be dropped');
  inputs.finish();
  if (target === undefined || 'problem' in parsed) throw new Error('a problem with an input that nobody told');
  return {
    config: { ...config, target, stallMs },
    idleMs: Math.min(stallMs, 60_000),
    name: inputs.optional('name'),
    selector: parsed.selector,
  };
}
