import { withinLimits } from './attempts.ts';
import type { Backup } from './catalog.ts';
import { cancelled, Failure } from './failure.ts';
import type { Log } from './log.ts';
import { encryptionOf, type Manifest } from './manifest.ts';
import { formatAge, formatSeconds, formatTime } from './numbers.ts';
import { Restoration } from './restoration.ts';
import type { RestoreConfig, Restored, RestoreIo } from './restore-config.ts';
import { type RestoreRecord, withoutPatterns, writeRecord } from './restore-record.ts';
import { requireSafetyKeys } from './safety-backup.ts';
import { openStore } from './store/open.ts';
import type { Store } from './store/store.ts';
import { requireKeys, warnUnneeded } from './stored-files.ts';

const neverTargets = ['postgres', 'template0', 'template1'];

/** A cancelled process has this long to say what it did. */
const recordMs = 3000;

/**
 * Restores a backup, or a part of it, into a database that does not exist yet and is created as the source was, is empty,
 * or, when its name was typed, holds something: then in one transaction, after a backup of what is there if any of it is
 * dropped. Checks every byte of the archive first, stops at the first error, and counts every table afterwards. A fault
 * that may pass is tried again as long as the target is as it was. Throws a `Failure` that says what the target holds
 * now; a database and roles that were created here are dropped again unless pg_restore was done.
 */
export async function restore(store: Store, backup: Backup, config: RestoreConfig, io: RestoreIo): Promise<Restored> {
  requireRestorable(backup.manifest, config, io.log);
  requireKeys(backup.manifest, config.keys);
  warnUnneeded(backup.manifest, config.keys, io.log);
  if (config.clean && config.safetyBackup) requireSafetyKeys(backup, config);
  await requireYoung(store, backup.manifest, config.maxAgeMs);
  const startedAt = new Date();
  let began = false;
  let safetyBackupId: string | null = null;
  const attempt = async (signal: AbortSignal): Promise<Restored> => {
    const restoration = new Restoration(store, backup.manifest, config, { ...io, signal });
    try {
      return await restoration.run();
    } finally {
      began ||= restoration.began;
      safetyBackupId = restoration.safetyBackupId ?? safetyBackupId;
    }
  };
  const record = (end: Pick<RestoreRecord, 'result' | 'exitCode' | 'totals'>): Promise<void> =>
    recordRestore(backup.manifest, config, { ...end, startedAt, safetyBackupId }, io.log);
  try {
    const restored = await withinLimits(limitsOf(config, io), attempt);
    const { tables, rows } = restored;
    await record({ result: 'restored', exitCode: null, totals: { tables, rows } });
    return restored;
  } catch (error) {
    // What was refused before it began changed nothing.
    if (began)
      await record({ result: 'failed', exitCode: error instanceof Failure ? error.exitCode : 1, totals: null });
    throw error;
  }
}

function limitsOf(
  { timeoutMs, retries }: RestoreConfig,
  { log, signal }: RestoreIo,
): Parameters<typeof withinLimits>[0] {
  return {
    ...{ timeoutMs, retries, log, signal },
    tooLong: () =>
      new Failure('restore', 'timeLimit', `the restore was not done within ${formatSeconds(timeoutMs / 1000)}`, {
        hint: 'give it more with --timeout, or more --jobs',
      }),
    cancelled: () => new Failure('restore', 'cancelled', cancelled('restore').message),
    // Only the attempt knows what the target holds now.
    ended: (reason, thrown) => (thrown instanceof Failure && thrown.exit === reason.exit ? thrown : reason),
  };
}

/** Into the store, whatever became of the run's own connections to it. */
async function recordRestore(
  manifest: Manifest,
  config: RestoreConfig,
  {
    startedAt,
    ...end
  }: Pick<RestoreRecord, 'result' | 'exitCode' | 'totals' | 'safetyBackupId'> & { readonly startedAt: Date },
  log: Log,
): Promise<void> {
  const { name, id } = manifest;
  const { target, mode, clean, actor, source } = config;
  const store = openStore(config.store, { signal: AbortSignal.timeout(recordMs), idleMs: recordMs });
  const times = { startedAt: startedAt.toISOString(), finishedAt: new Date().toISOString() };
  const wanted =
    encryptionOf(manifest) === null
      ? config.wanted
      : withoutPatterns<Record<'tables' | 'schemas', readonly string[]>>({ ...config.wanted });
  const scope = { mode, ...wanted, clean };
  const record: RestoreRecord = {
    ...{ format: 'pgassay-restore/1', name, backupId: id, ...times, database: target.database, scope, ...end },
    ...{ by: actor, source },
  };
  await writeRecord(store, record, log);
}

/** Before anybody connects. */
function requireRestorable(manifest: Manifest, { target, mode }: RestoreConfig, log: Log): void {
  const { name, id, scope, series, selfContained } = manifest;
  if (neverTargets.includes(target.database))
    throw new Failure(
      'restore',
      'badInput',
      `${target.database} is the server's own database and is never restored into`,
      { hint: 'name another database in the target URL; one that does not exist is created' },
    );
  const rowsOnly = series === 'data-only' || scope.mode === 'data-only';
  if (rowsOnly && mode !== 'data-only')
    throw new Failure(
      'restore',
      'badInput',
      `${name}/${id} holds rows only, and no definitions of the tables they belong to`,
      {
        hint: 'restore a full or schema-only backup first, then this one with mode: data-only',
      },
    );
  if (scope.mode === 'schema-only' && mode === 'data-only')
    throw new Failure('restore', 'badInput', `${name}/${id} holds definitions only, and no rows`, {
      hint: 'take a full or data-only backup (pgassay list shows the series of each)',
    });
  if (!selfContained && mode !== 'data-only')
    log.warn(
      'this backup holds a part of its database: objects that need something outside of it cannot be restored alone',
    );
}

async function requireYoung(
  store: Store,
  { name, id, createdAt }: Manifest,
  maxAgeMs: number | undefined,
): Promise<void> {
  const now = await store.now();
  if (maxAgeMs === undefined || now.getTime() - Date.parse(createdAt) <= maxAgeMs) return;
  throw new Failure(
    'locate',
    'badInput',
    `${name}/${id} is of ${formatTime(createdAt)}, ${formatAge(createdAt, now)}; max-age allows ${formatSeconds(maxAgeMs / 1000)}`,
    { hint: 'take a newer backup (pgassay list), or allow an older one with max-age' },
  );
}
