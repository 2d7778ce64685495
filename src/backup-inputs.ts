import type { BackupConfig } from './backup.ts';
import { namePattern, safetyLabel } from './backup-id.ts';
import { encryptInputs, readEncryption, refuseKeys } from './encryption-inputs.ts';
import type { Problem } from './failure.ts';
import { Inputs, type ReadInput } from './inputs.ts';
import type { Machine } from './machine.ts';
import type { Source } from './manifest.ts';
import { patternProblems } from './postgres/scope.ts';
import { type ConnectionTarget, parseDatabaseUrl } from './postgres/url.ts';
import { release } from './release.ts';
import { keepInputs, readRetention } from './retention-inputs.ts';
import { readBackupKey, readTrust } from './signing-inputs.ts';
import type { ArtifactPlace } from './store/artifact-place.ts';
import type { IdentityService } from './store/s3-address.ts';
import { readStores, storeInputs } from './store-inputs.ts';

/** What an edge knows beyond the inputs. */
export interface Surroundings {
  readonly machine: Machine;
  readonly source: Source | null;
  /** The event that started the run on GitHub; undefined elsewhere. */
  readonly event: string | undefined;
  /** Where this job may ask GitHub for a token that says who it is. */
  readonly identity?: IdentityService | undefined;
  /** Whose artifacts `store: artifact` means. */
  readonly artifacts?: ArtifactPlace | undefined;
}

/** Every input of a backup; a test holds action.yml and the command line to this list. */
export const backupInputs: readonly string[] = [
  ...storeInputs,
  'name',
  'database-url',
  'mode',
  'schemas',
  'exclude-schemas',
  'tables',
  'exclude-tables',
  'exclude-table-data',
  'roles',
  'compression',
  'jobs',
  'census',
  'label',
  'allow-empty',
  'allow-pooler',
  'accept-new-database',
  'allow-events',
  ...encryptInputs,
  'lock-wait-timeout',
  'on-blocked-ddl',
  'max-replica-lag',
  'signing-key',
  'verify-upload',
  'dry-run',
  ...keepInputs,
  'client-bin',
  'install-client',
  'timeout',
  'retries',
  'stall-timeout',
  'tls-ca',
  'tls-client-cert',
  'tls-client-key',
];

/** Events that somebody without write access can start, with this repository's secrets in reach or none at all. */
const strangersEvents = [
  'pull_request',
  'pull_request_target',
  'pull_request_review',
  'pull_request_review_comment',
  'issue_comment',
  'issues',
  'discussion',
  'discussion_comment',
  'fork',
  'watch',
  'workflow_run',
];

/**
 * Inputs to one readonly configuration. Throws a `Failure` that lists every problem of every input. `read` gives PEM
 * texts for `tls-*`, a path already read; `known` are problems an edge found before.
 */
export function readBackupConfig(
  read: ReadInput,
  { machine, source, event, identity, artifacts }: Surroundings,
  known: readonly Problem[] = [],
): BackupConfig {
  const inputs = new Inputs(read);
  inputs.add(known);
  refuseKeys(inputs);
  const allowed = inputs.lines('allow-events');
  if (event !== undefined && strangersEvents.includes(event) && !allowed.includes(event))
    inputs.problem(
      'allow-events',
      `this run was started by ${event}, which a stranger can cause`,
      `run backups on schedule, push or workflow_dispatch; allow-events: ${event} insists`,
    );
  const target = readTarget(inputs, 'database-url');
  const stores = readStores(inputs, identity, artifacts);
  const trust = readTrust(inputs);
  const allowPooler = inputs.flag('allow-pooler', false);
  if (target?.poolerHint !== undefined && !allowPooler)
    inputs.add([
      {
        input: 'database-url',
        message: `${target.poolerHint.reason}, and a dump through it would change the settings of your application's sessions`,
        hint: `${target.poolerHint.direct}; allow-pooler: true insists`,
        exit: 'pooler',
      },
    ]);
  const scope = {
    mode: inputs.choice('mode', ['full', 'schema-only', 'data-only'], 'full'),
    schemas: inputs.patterns('schemas'),
    excludeSchemas: inputs.patterns('exclude-schemas'),
    tables: inputs.patterns('tables'),
    excludeTables: inputs.patterns('exclude-tables'),
    excludeTableData: inputs.patterns('exclude-table-data'),
  };
  inputs.add(patternProblems(scope));
  if (inputs.integer('jobs', 1, 1, 16) !== 1)
    inputs.problem('jobs', 'more than one is not part of this release', 'leave it at 1');
  const config = {
    stores,
    trust,
    signing: readBackupKey(inputs, trust),
    name: inputs.matching(
      'name',
      undefined,
      namePattern,
      'a letter or digit, then up to 63 letters, digits, dots, underscores or hyphens',
    ),
    label: inputs.matching(
      'label',
      'scheduled',
      namePattern,
      'a letter or digit, then up to 63 letters, digits, dots, underscores or hyphens',
    ),
    scope,
    encryption: readEncryption(inputs),
    roles: inputs.flag('roles', true),
    compression: readCompression(inputs),
    census: inputs.choice('census', ['rows', 'content', 'stream'], 'rows'),
    allowEmpty: inputs.flag('allow-empty', false),
    allowPooler,
    acceptNewDatabase: inputs.flag('accept-new-database', false),
    lockWaitMs: inputs.duration('lock-wait-timeout', '60s', '24h'),
    onBlockedDdl: inputs.choice('on-blocked-ddl', ['warn', 'abort'], 'warn'),
    maxReplicaLagMs: inputs.duration('max-replica-lag', '1h', '365d'),
    verifyUpload: inputs.choice('verify-upload', ['checksum', 'read-back'], 'checksum'),
    dryRun: inputs.flag('dry-run', false),
    retention: readRetention(inputs),
    clientBin: inputs.optional('client-bin'),
    installClient: inputs.flag('install-client', true),
    timeoutMs: inputs.duration('timeout', '5h', '120h'),
    retries: inputs.integer('retries', 2, 0, 10),
    stallMs: inputs.duration('stall-timeout', '5m', '24h'),
    version: release,
    source,
    machine,
  };
  if (config.label === safetyLabel)
    inputs.problem('label', `${safetyLabel} is kept for safety backups that restore takes`, 'choose another label');
  inputs.finish();
  if (target === undefined) throw new Error('a URL without a target and without a problem');
  return { target, ...config };
}

/** Reads a database URL and the TLS inputs beside it. */
export function readTarget(inputs: Inputs, name: string): ConnectionTarget | undefined {
  const parsed = parseDatabaseUrl(inputs.raw(name) ?? '', {
    input: name,
    tlsCa: inputs.raw('tls-ca'),
    tlsClientCert: inputs.raw('tls-client-cert'),
    tlsClientKey: inputs.raw('tls-client-key'),
  });
  inputs.add(parsed.problems);
  return parsed.target;
}

const levels: Record<string, number> = { zstd: 22, gzip: 9, lz4: 12 };

function readCompression(inputs: Inputs): string {
  const text = inputs.optional('compression') ?? 'auto';
  if (text === 'auto' || text === 'none' || text === 'lz4' || text === 'zstd' || text === 'gzip') return text;
  const [, method = '', level = ''] = /^(zstd|gzip|lz4):(\d+)$/.exec(text) ?? [];
  const most = levels[method];
  if (most === undefined)
    inputs.problem('compression', `${text} is not a compression`, 'use auto, zstd:3, gzip:1, lz4 or none');
  else if (Number(level) < 1 || Number(level) > most)
    inputs.problem('compression', `${method} has the levels 1 to ${most}, not ${level}`);
  return text;
}
