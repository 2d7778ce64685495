import type { BackupConfig } from './backup.ts';
import { safetyLabel, timeOfId } from './backup-id.ts';
import { type Backup, describeDamaged, futureMs, readBackup } from './catalog.ts';
import { Failure } from './failure.ts';
import type { Log } from './log.ts';
import { encryptionOf } from './manifest.ts';
import { formatBytes, formatSeconds } from './numbers.ts';
import { type Scope, seriesOf } from './postgres/scope.ts';
import type { Pooling, ServerFacts } from './postgres/server.ts';
import type { Store } from './store/store.ts';

/**
 * Through a transaction pooler, pg_dump's settings would land in the application's sessions. Throws a `Failure` (exit
 * 15) unless the user insists; returns what the manifest has to say about it.
 */
export function judgePooling(pooling: Pooling, { allowPooler }: BackupConfig, log: Log): string[] {
  if (pooling === 'session') log.notice('connected through a pooler that keeps one server session per client');
  if (pooling !== 'transaction') return [];
  if (!allowPooler)
    throw new Failure(
      'connect',
      'pooler',
      'this URL leads to a pooler that shares server sessions between transactions; pg_dump would change the search_path of your application',
      { hint: 'use the direct URL of the server, or the port of its session pool; allow-pooler: true insists' },
    );
  return ['taken through a transaction pooler (allow-pooler)'];
}

/** Throws a `Failure` for a standby that is too far behind. */
export function judgeServer(facts: ServerFacts, { maxReplicaLagMs }: BackupConfig, log: Log): void {
  if (facts.lagSeconds * 1000 > maxReplicaLagMs)
    throw new Failure(
      'preflight',
      'timeLimit',
      `the standby is ${formatSeconds(facts.lagSeconds)} behind, more than the ${formatSeconds(maxReplicaLagMs / 1000)} allowed`,
      { hint: 'resume its replay, back up the primary, or raise max-replica-lag' },
    );
  if (facts.database.id === null)
    log.notice('the server does not tell its system identifier, so a swapped database would go unnoticed');
}

/** An empty dump is a valid archive, and usually the wrong URL. Throws a `Failure` unless the user expects it. */
export function refuseEmpty(scope: Scope, config: BackupConfig): void {
  const useful = config.scope.mode === 'schema-only' ? scope.tables : scope.tables.filter((table) => table.data);
  if (useful.length > 0 || config.allowEmpty) return;
  const what = scope.tables.length === 0 ? 'at all' : 'with data';
  throw new Failure('preflight', 'badInput', `the scope has no table ${what}`, {
    hint: 'check that the URL names the right database; allow-empty: true backs up an empty one',
  });
}

/**
 * The newest whole backup of this name, by somebody who is trusted. Throws a `Failure` when it is of another database, or
 * when the store has less room than it took.
 */
export async function requirePrevious(
  store: Store,
  config: BackupConfig,
  facts: ServerFacts,
  log: Log,
): Promise<Backup | undefined> {
  const newest = await newestOf(store, config, log);
  if (newest === undefined) return undefined;
  const before = newest.manifest.database.id;
  const now = facts.database.id;
  if (before !== null && now !== null && before !== now && !config.acceptNewDatabase)
    throw new Failure(
      'preflight',
      'badInput',
      `${config.name} holds backups of another database (${newest.manifest.database.name}, last on ${newest.manifest.createdAt}) than the one this URL leads to`,
      { hint: 'give this database a name of its own, or say accept-new-database: true if it really moved' },
    );
  requireStillEncrypted(newest, config);
  if (newest.manifest.series === seriesOf(config.scope)) await requireSpace(store, newest);
  return newest;
}

/** A secret that was renamed or emptied reads as no encryption at all. Throws a `Failure`. */
function requireStillEncrypted({ manifest }: Backup, { name, encryption }: BackupConfig): void {
  if (encryption !== undefined || encryptionOf(manifest) === null) return;
  throw new Failure(
    'preflight',
    'badInput',
    `the backups of ${name} are encrypted, and this one would not be: encrypt-to and encrypt-passphrase are empty`,
    {
      hint: 'look whether the variable or secret that encrypt-to comes from is still there; plain backups need another name',
    },
  );
}

/** The last backup tells what the next one needs; without one nobody knows. */
async function requireSpace(store: Store, newest: Backup): Promise<void> {
  const free = await store.freeBytes();
  const needed = newest.manifest.files.reduce((bytes, file) => bytes + file.bytes, 0);
  if (free === undefined || free >= needed) return;
  throw new Failure(
    'preflight',
    'disk',
    `the store has ${formatBytes(free)} free, and the last backup took ${formatBytes(needed)}`,
    { hint: 'free space or move the store to a larger disk' },
  );
}

/** Whatever its series; what is dated in the future says nothing, and a safety backup is of wherever somebody restored into. */
async function newestOf(store: Store, { name, trust }: BackupConfig, log: Log): Promise<Backup | undefined> {
  const latest = (await store.now()).getTime() + futureMs;
  for (const id of (await store.ids(name)).reverse()) {
    if ((timeOfId(id) ?? 0) > latest) continue;
    const found = await readBackup(store, trust, name, id);
    if (found.kind === 'damaged' && found.untrusted === true) log.warn(describeDamaged(found));
    if (found.kind === 'backup' && found.backup.manifest.label !== safetyLabel) return found.backup;
  }
  return undefined;
}
