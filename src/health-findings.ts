import { safetyLabel, timeOfId } from './backup-id.ts';
import { type Backup, type Catalog, futureMs } from './catalog.ts';
import { findGaps } from './chain.ts';
import { byPassphrase, keysOf, type Manifest, shortRecipient } from './manifest.ts';
import { formatBytes, formatCount, formatSeconds, formatTime } from './numbers.ts';
import type { KeyUse } from './opening.ts';
import { type Proof, restoreSeconds } from './proof.ts';
import type { Finding } from './verdict.ts';

/** `warning`: worth a look; `critical`: recovery may fail, or nobody would know. */
export type Severity = 'warning' | 'critical';
export type HealthStatus = 'ok' | Severity;

/** What was looked at. It gives away nothing of the database, so it is shown where names and counts are withheld. */
export type Check =
  | 'age'
  | 'damage'
  | 'future'
  | 'expiry'
  | 'count'
  | 'size'
  | 'tables'
  | 'restore test'
  | 'keys'
  | 'workflow'
  | 'store'
  | 'clock';

/**
 * One thing that is not as it should be, and what to do about it. Object, expected and found stay the same for as long as
 * the same is wrong: what changes by itself is in `ago`.
 */
export interface HealthFinding extends Finding {
  readonly check: Check;
  readonly severity: Severity;
  readonly hint: string;
  /** How long ago that was, `31 h`. */
  readonly ago?: string;
}

/** When to speak up. Durations are milliseconds; undefined: not judged. */
export interface HealthPolicy {
  readonly warnAfterMs: number;
  readonly criticalAfterMs: number;
  readonly minBackups: number | undefined;
  /** How much smaller than the median of the seven before it the newest backup may be, 0 to 1. */
  readonly maxShrink: number;
  readonly maxProofAgeMs: number | undefined;
  /** How long the last passed restore test may have taken, download included. */
  readonly maxRestoreSeconds?: number | undefined;
  /** How long ago each key that the newest backup is encrypted to may have opened one. */
  readonly maxKeyAgeMs?: number | undefined;
  /** False: a file that is missing or has another size is no finding. Such a backup does not count either way. */
  readonly files?: boolean;
}

/** A table of a census. */
export interface CountedTable {
  readonly name: string;
  /** Undefined: its structure only is in the backup, as of a partitioned table. */
  readonly rows: number | undefined;
  readonly partition: boolean;
}

/** What is known of one name. */
export interface HealthFacts {
  readonly catalog: Catalog;
  /** The newest restore test of each backup that has one, by id; tests older than the last one that passed may be missing. */
  readonly proofs: ReadonlyMap<string, Proof>;
  /** Which keys opened which backups; of one key older ones may be missing. Not needed without `maxKeyAgeMs`. */
  readonly keyUses?: readonly KeyUse[];
  /** Tables of the newest backup and of the one it is compared with; undefined where nobody may read them. */
  readonly tables: { readonly newest: readonly CountedTable[]; readonly before: readonly CountedTable[] } | undefined;
  /** What was found by reading files, beyond what a listing tells. */
  readonly damage?: readonly { readonly id: string; readonly reason: string }[];
  /** The store's clock. */
  readonly now: Date;
}

/** What a name's backups amount to: those of the series that counts, newest first, without safety backups. */
export interface Condition {
  readonly status: HealthStatus;
  readonly findings: readonly HealthFinding[];
  readonly series: readonly Backup[];
  readonly newest: Backup | undefined;
  /** The last restore test that passed. */
  readonly proven: Proof | undefined;
  /** Of every file of every backup under the name. */
  readonly totalBytes: number;
}

/** The size of the newest is compared with so many before it. */
const compared = 7;
/** Backups closer together than this are of one day: what goes wrong then must not become the measure within hours. */
const dayMs = 20 * 3_600_000;
const mostTables = 20;

/**
 * Judges the backups of one name. What is dated in the future is critical, and counts for nothing; neither does what is
 * damaged, so that the newest is the newest that could be restored.
 */
export function judge(facts: HealthFacts, policy: HealthPolicy): Condition {
  const { catalog, now } = facts;
  const series = backupsThatCount(catalog, now);
  const [newest] = series;
  const proofs = series
    .flatMap(({ manifest }) => facts.proofs.get(manifest.id) ?? [])
    .filter(({ testedAt }) => Date.parse(testedAt) <= now.getTime() + futureMs)
    .sort((a, b) => Date.parse(b.testedAt) - Date.parse(a.testedAt));
  const proven = proofs.find(({ result }) => result === 'passed');
  const findings = [
    ...judgeAge(newest, catalog, now, policy),
    ...judgeFuture(facts),
    ...judgeDamage(facts, policy),
    ...judgeExpiry(newest, now, policy),
    ...judgeCount(series, policy),
    ...judgeSize(series, policy),
    ...(facts.tables === undefined ? judgeTableCount(series) : judgeTables(facts.tables)),
    ...judgeProofs(proofs[0], proven, now, policy),
    ...judgeRecovery(proven, policy),
    ...judgeKeys(series, facts, policy),
  ];
  const totalBytes = catalog.backups.reduce((bytes, { manifest }) => bytes + bytesOf(manifest), 0);
  return { status: statusOf(findings), findings, series, newest, proven, totalBytes };
}

/** The worst of them. */
export function statusOf(findings: readonly HealthFinding[]): HealthStatus {
  if (findings.some(({ severity }) => severity === 'critical')) return 'critical';
  return findings.length > 0 ? 'warning' : 'ok';
}

/** What to do about some findings, a line each; where there is more than one, each says about what. */
export function hintsOf(findings: readonly Pick<HealthFinding, 'object' | 'hint'>[], most: number): string {
  const objects = new Map(findings.toReversed().map(({ object, hint }) => [hint, object]));
  const hints = [...new Set(findings.map(({ hint }) => hint))];
  const lines = hints.length === 1 ? hints : hints.map((hint) => `${objects.get(hint)}: ${hint}`);
  return lines.slice(0, most).join('\n');
}

/**
 * The backups by which a name is judged, newest first. Only one series counts, the whole database where there are such
 * backups: a nightly dump of one schema says nothing about the rest.
 */
export function backupsThatCount({ backups }: Catalog, now: Date): Backup[] {
  const present = backups.filter(
    (backup) => backup.manifest.label !== safetyLabel && !isFuture(backup, now) && !isExpired(backup, now),
  );
  const series = new Set(present.map(({ manifest }) => manifest.series));
  const [only] = series;
  const counts = series.size === 1 && only !== undefined ? only : 'full';
  return present
    .filter(({ manifest }) => manifest.series === counts)
    .map((backup) => ({ backup, at: Date.parse(backup.manifest.createdAt) }))
    .sort((a, b) => b.at - a.at)
    .map(({ backup }) => backup);
}

/**
 * What the newest of these is compared with, newest first: backups of the same database from the day before and earlier;
 * where there are none, whatever there is.
 */
export function comparedWith([newest, ...before]: readonly Backup[]): Backup[] {
  if (newest === undefined) return [];
  const same = before.filter(({ manifest }) => manifest.database.id === newest.manifest.database.id);
  const latest = Date.parse(newest.manifest.createdAt) - dayMs;
  const earlier = same.filter(({ manifest }) => Date.parse(manifest.createdAt) <= latest);
  return earlier.length > 0 ? earlier : same;
}

export function bytesOf({ files }: Manifest): number {
  return files.reduce((bytes, file) => bytes + file.bytes, 0);
}

function judgeAge(
  newest: Backup | undefined,
  { backups }: Catalog,
  now: Date,
  { warnAfterMs, criticalAfterMs }: HealthPolicy,
): HealthFinding[] {
  const about = {
    ...({ check: 'age', object: 'newest backup' } as const),
    hint: 'look at the last runs of the backup workflow: did they fail, were they skipped, is its schedule disabled',
  };
  const none = `there is none${backups.length === 0 ? '' : ' that counts: a whole database, not expired, not of the future'}`;
  if (newest === undefined) return [{ ...about, severity: 'critical', expected: 'one', found: none }];
  const ageMs = now.getTime() - Date.parse(newest.manifest.createdAt);
  if (ageMs <= Math.min(warnAfterMs, criticalAfterMs)) return [];
  const critical = ageMs > criticalAfterMs;
  return [
    {
      ...{ ...about, severity: critical ? 'critical' : 'warning' },
      expected: `at most ${formatSeconds((critical ? criticalAfterMs : warnAfterMs) / 1000)} old`,
      ...{ found: `taken ${formatTime(newest.manifest.createdAt)}`, ago: formatSeconds(ageMs / 1000) },
    },
  ];
}

function judgeFuture({ catalog, proofs, now }: HealthFacts): HealthFinding[] {
  const finding = (object: string, time: string): HealthFinding => ({
    ...{ check: 'future', severity: 'critical', object, expected: 'a time in the past', found: formatTime(time) },
    hint: 'set the clock of the machine or of the database server it comes from; it counts for nothing until then',
  });
  return [
    ...catalog.backups
      .filter((backup) => isFuture(backup, now))
      .map(({ manifest }) => finding(`backup ${manifest.id}`, manifest.createdAt)),
    ...[...proofs.values()]
      .filter(({ testedAt }) => Date.parse(testedAt) > now.getTime() + futureMs)
      .map(({ backupId, testedAt }) => finding(`restore test of ${backupId}`, testedAt)),
  ];
}

function judgeDamage({ catalog, damage = [] }: HealthFacts, { files = true }: HealthPolicy): HealthFinding[] {
  const finding = (id: string, found: string): HealthFinding => ({
    ...{ check: 'damage', severity: 'critical', object: `backup ${id}`, expected: 'as it was stored', found },
    hint: 'find out who or what changed the store; take a new backup now, and do not let retention run until it is understood',
  });
  return [
    ...catalog.damaged
      .filter(({ file }) => files || file === undefined)
      .map(({ id, reason, untrusted }) =>
        untrusted
          ? { ...finding(id, reason), expected: 'signed by a key of verify-key, for this place' }
          : finding(id, reason),
      ),
    ...findGaps(catalog)
      .filter(({ kind }) => kind === 'another')
      .map(({ id, previous }) => ({
        ...finding(previous, 'its manifest is another one now'),
        expected: `as ${id} saw it when it followed it`,
      })),
    ...damage.map(({ id, reason }) => finding(id, reason)),
    ...catalog.backups
      .filter(({ tampering }) => tampering.length > 0)
      .map(({ manifest, tampering }) =>
        finding(manifest.id, `${tampering.join(', ')}; what was stored first is whole, and still there`),
      ),
  ];
}

/** When the newest is gone before its absence is critical, nobody is told while there is time. */
function judgeExpiry(newest: Backup | undefined, now: Date, { criticalAfterMs }: HealthPolicy): HealthFinding[] {
  const expiresAt = newest?.manifest.expiresAt ?? null;
  if (newest === undefined || expiresAt === null || Date.parse(expiresAt) > now.getTime() + criticalAfterMs) return [];
  return [
    {
      ...{ check: 'expiry', severity: 'warning', object: `backup ${newest.manifest.id}` },
      expected: `to stay for another ${formatSeconds(criticalAfterMs / 1000)}, until the next one is overdue`,
      found: `the store deletes it on ${formatTime(expiresAt)}`,
      hint: 'take a backup before that, and let the store keep them longer',
    },
  ];
}

function judgeCount(series: readonly Backup[], { minBackups }: HealthPolicy): HealthFinding[] {
  if (minBackups === undefined || series.length >= minBackups) return [];
  return [
    {
      ...{ check: 'count', severity: 'critical', object: 'backups', expected: `${minBackups} or more` },
      found: `${series.length}`,
      hint: 'did something else than retention delete them, a lifecycle rule of the bucket for instance',
    },
  ];
}

function judgeSize(series: readonly Backup[], { maxShrink }: HealthPolicy): HealthFinding[] {
  const [newest] = series;
  const before = comparedWith(series).slice(0, compared);
  if (newest === undefined) return [];
  // Bytes of the same database differ by how they are compressed; then only the database's own size can be compared.
  const alike = before.every((each) => packedAs(each) === packedAs(newest));
  const size = ({ manifest }: Backup): number => (alike ? bytesOf(manifest) : manifest.database.sizeBytes);
  const usual = median(before.map(size));
  if (usual === undefined) return [];
  const least = usual * (1 - maxShrink);
  if (size(newest) >= least) return [];
  return [
    {
      ...{ check: 'size', severity: 'critical', object: `${alike ? 'size' : 'database'} of ${newest.manifest.id}` },
      expected: `at least ${formatBytes(least)}, as the usual size is ${formatBytes(usual)}`,
      found: formatBytes(size(newest)),
      hint: 'were rows deleted, or does the backup see less than before; if it is right, this is the usual size after a few more',
    },
  ];
}

/** A partition that goes as another one comes is what partitions are for; a table that was empty took nothing with it. */
function judgeTables(tables: NonNullable<HealthFacts['tables']>): HealthFinding[] {
  const there = new Set(tables.newest.map(({ name }) => name));
  const gone = tables.before.filter(({ name, partition }) => !partition && !there.has(name));
  const hint = 'if nobody dropped it on purpose, bring it back from the backup before: pgassay restore --tables';
  const about = { check: 'tables', hint } as const;
  const severity = (of: readonly CountedTable[]): Severity =>
    of.every(({ rows }) => rows === 0) ? 'warning' : 'critical';
  const findings = gone.slice(0, mostTables).map(
    (table): HealthFinding => ({
      ...{ ...about, severity: severity([table]), object: table.name },
      expected: `a table${table.rows === undefined ? '' : ` with ${formatCount(table.rows, 'row')}`}, as in the backup before`,
      found: 'no such table',
    }),
  );
  const rest = gone.slice(mostTables);
  if (rest.length > 0)
    findings.push({
      ...{ ...about, severity: severity(rest), object: 'other tables', expected: 'as in the backup before' },
      found: `${formatCount(rest.length, 'more table')} gone`,
    });
  const partitions = (of: readonly CountedTable[]): number => of.filter(({ partition }) => partition).length;
  const [had, has] = [partitions(tables.before), partitions(tables.newest)];
  if (has < had)
    findings.push({
      ...{ check: 'tables', severity: 'warning', object: 'partitions', expected: `${had}, as in the backup before` },
      found: `${has}`,
      hint: 'see that whatever drops old partitions makes new ones too',
    });
  return findings;
}

/** Of an encrypted backup the manifest tells no more than a number. */
function judgeTableCount(series: readonly Backup[]): HealthFinding[] {
  const [newest, before] = [series[0]?.manifest.totals, comparedWith(series)[0]?.manifest.totals];
  if (newest === undefined || before === undefined || newest.tables >= before.tables) return [];
  return [
    {
      ...{
        check: 'tables',
        severity: 'critical',
        object: 'tables',
        expected: `${before.tables}, as in the backup before`,
      },
      found: `${newest.tables}`,
      hint: 'see which are gone, with the key that opens both backups: pgassay show; bring them back with pgassay restore --tables',
    },
  ];
}

function judgeProofs(
  last: Proof | undefined,
  proven: Proof | undefined,
  now: Date,
  { maxProofAgeMs }: HealthPolicy,
): HealthFinding[] {
  const findings: HealthFinding[] = [];
  const ago = (time: string): string => formatSeconds((now.getTime() - Date.parse(time)) / 1000);
  const about = { check: 'restore test', severity: 'critical' } as const;
  if (last?.result === 'failed')
    findings.push({
      ...{ ...about, object: `restore test of ${last.backupId}`, expected: 'passed' },
      ...{ found: `failed on ${formatTime(last.testedAt)}`, ago: ago(last.testedAt) },
      hint: 'read its findings: pgassay show, or the job summary of that run',
    });
  if (maxProofAgeMs === undefined) return findings;
  if (proven === undefined || now.getTime() - Date.parse(proven.testedAt) > maxProofAgeMs)
    findings.push({
      ...{ ...about, object: 'restore test' },
      expected: `one that passed in the last ${formatSeconds(maxProofAgeMs / 1000)}`,
      ...(proven === undefined
        ? { found: 'none' }
        : { found: `none since ${formatTime(proven.testedAt)}`, ago: ago(proven.testedAt) }),
      hint: 'run a restore test now, and look why the scheduled one does not run or pass',
    });
  return findings;
}

/** A test of its own limit fails; this is what somebody wants today. */
function judgeRecovery(proven: Proof | undefined, { maxRestoreSeconds }: HealthPolicy): HealthFinding[] {
  if (proven === undefined || maxRestoreSeconds === undefined) return [];
  const took = restoreSeconds(proven.timings);
  if (took <= maxRestoreSeconds) return [];
  return [
    {
      ...{ check: 'restore test', severity: 'warning', object: `restore test of ${proven.backupId}` },
      ...{ expected: `at most ${formatSeconds(maxRestoreSeconds)}`, found: formatSeconds(took) },
      hint: 'give the restore more jobs or a faster machine, or agree on what a recovery may take',
    },
  ];
}

function isFuture({ manifest }: Backup, now: Date): boolean {
  const latest = now.getTime() + futureMs;
  return Date.parse(manifest.createdAt) > latest || (timeOfId(manifest.id) ?? 0) > latest;
}

function isExpired({ manifest: { expiresAt } }: Backup, now: Date): boolean {
  return expiresAt !== null && Date.parse(expiresAt) <= now.getTime();
}

/** `zstd`, `gzip`: the largest file is the dump. */
function packedAs({ manifest }: Backup): string {
  return manifest.files[0]?.compression.split(':')[0] ?? '';
}

function median(values: readonly number[]): number | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const [low, high] = [sorted[middle - 1], sorted[middle]];
  return sorted.length % 2 === 1 || low === undefined || high === undefined ? high : (low + high) / 2;
}

/**
 * A key that nobody has tried for long may be lost, and with it every backup. A restore test that passed tries the key it
 * was given; `verify --sign-proof` tries the one that is offline.
 */
function judgeKeys(
  series: readonly Backup[],
  { keyUses = [], now }: HealthFacts,
  { maxKeyAgeMs }: HealthPolicy,
): HealthFinding[] {
  const [newest] = series;
  if (newest === undefined || maxKeyAgeMs === undefined) return [];
  const { manifest } = newest;
  const keys = keysOf(manifest);
  const about = { check: 'keys', severity: 'critical' } as const;
  if (keys.length === 0)
    return [
      {
        ...{ ...about, object: `backup ${manifest.id}`, expected: 'encrypted', found: 'it is not' },
        hint: 'look whether encrypt-to of the backup step is empty, or take max-recovery-key-age out',
      },
    ];
  const ids = new Set(series.map((each) => each.manifest.id));
  const used = keyUses.filter(({ backupId, at }) => ids.has(backupId) && Date.parse(at) <= now.getTime() + futureMs);
  return keys.flatMap((key): HealthFinding[] => {
    const [last] = used
      .filter(({ recipient }) => recipient === key)
      .map(({ at }) => at)
      .sort()
      .toReversed();
    const ageMs = last === undefined ? undefined : now.getTime() - Date.parse(last);
    if (ageMs !== undefined && ageMs <= maxKeyAgeMs) return [];
    return [
      {
        ...{ ...about, object: key === byPassphrase ? 'the passphrase' : `the secret key of ${shortRecipient(key)}` },
        expected: `to have opened a backup in the last ${formatSeconds(maxKeyAgeMs / 1000)}`,
        found: last === undefined ? 'it is not known to have opened any' : `it did on ${formatTime(last)}`,
        ...(ageMs === undefined ? {} : { ago: formatSeconds(ageMs / 1000) }),
        hint: `${tryingKeys(manifest)}; a key that is lost needs a new pair now (docs/keys.md)`,
      },
    ];
  });
}

/** To artifacts only a run of GitHub Actions can add a record. */
function tryingKeys({ store }: Manifest): string {
  if (!store.startsWith('artifact:')) return 'whoever holds it runs pgassay verify latest --sign-proof with it';
  return 'give it to a restore test (decrypt-identity), which is what counts in artifacts; if it stays offline, keep a copy in a bucket or a folder too, and judge the keys there: pgassay verify latest --sign-proof';
}
