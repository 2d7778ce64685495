import { safetyLabel, timeOfId } from './backup-id.ts';
import { type Backup, type Catalog, futureMs } from './catalog.ts';
import { formatBytes, formatCount, formatSeconds, formatTime } from './numbers.ts';
import { type Proof, restoreSeconds } from './proof.ts';
import type { Finding } from './verdict.ts';

/** `warning`: worth a look; `critical`: recovery may fail, or nobody would know. */
export type Severity = 'warning' | 'critical';
export type HealthStatus = 'ok' | Severity;

/** One thing that is not as it should be, and what to do about it. */
export interface HealthFinding extends Finding {
  readonly severity: Severity;
  readonly hint: string;
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
}

/** What is known of one name. */
export interface HealthFacts {
  readonly catalog: Catalog;
  /** The newest restore test of each backup that has one, by id. */
  readonly proofs: ReadonlyMap<string, Proof>;
  /** Tables of the newest backup and of the one before it, as `schema.name`; undefined where nobody may read them. */
  readonly tables: { readonly newest: readonly string[]; readonly before: readonly string[] } | undefined;
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
  readonly totalBytes: number;
}

/** The size of the newest is compared with so many before it. */
const compared = 7;

/**
 * Judges the backups of one name. Only one series counts, the whole database where there are such backups: a nightly dump
 * of one schema says nothing about the rest. What is dated in the future is critical, and counts for nothing.
 */
export function judge(facts: HealthFacts, policy: HealthPolicy): Condition {
  const { catalog, proofs, now } = facts;
  const present = catalog.backups.filter((backup) => !isFuture(backup, now));
  const series = ofOneSeries(present.filter(({ manifest }) => manifest.label !== safetyLabel));
  const [newest] = series;
  const tested = series.flatMap(({ manifest }) => proofs.get(manifest.id) ?? []);
  const proven = tested.filter(({ result }) => result === 'passed').sort(byTestTime)[0];
  const findings = [
    ...judgeAge(newest, now, policy),
    ...judgeFuture(catalog, now),
    ...judgeDamage(catalog),
    ...judgeCount(series, policy),
    ...judgeSize(series, policy),
    ...judgeTables(facts.tables),
    ...judgeProofs(tested.toSorted(byTestTime)[0], proven, now, policy),
    ...judgeRecovery(proven, policy),
  ];
  const totalBytes = catalog.backups.reduce((bytes, backup) => bytes + sizeOf(backup), 0);
  return { status: statusOf(findings), findings, series, newest, proven, totalBytes };
}

/** The worst of them. */
export function statusOf(findings: readonly HealthFinding[]): HealthStatus {
  if (findings.some(({ severity }) => severity === 'critical')) return 'critical';
  return findings.length > 0 ? 'warning' : 'ok';
}

function judgeAge(
  newest: Backup | undefined,
  now: Date,
  { warnAfterMs, criticalAfterMs }: HealthPolicy,
): HealthFinding[] {
  const hint =
    'look at the last runs of the backup workflow: did they fail, were they skipped, is its schedule disabled';
  if (newest === undefined)
    return [{ severity: 'critical', object: 'newest backup', expected: 'one', found: 'there is none', hint }];
  const ageMs = now.getTime() - Date.parse(newest.manifest.createdAt);
  if (ageMs <= warnAfterMs) return [];
  const critical = ageMs > criticalAfterMs;
  const limit = formatSeconds((critical ? criticalAfterMs : warnAfterMs) / 1000);
  return [
    {
      ...{ severity: critical ? 'critical' : 'warning', object: 'newest backup', hint },
      ...{ expected: `at most ${limit} old`, found: `${formatSeconds(ageMs / 1000)} old (${newest.manifest.id})` },
    },
  ];
}

function judgeFuture({ backups }: Catalog, now: Date): HealthFinding[] {
  return backups
    .filter((backup) => isFuture(backup, now))
    .map(({ manifest }) => ({
      ...{ severity: 'critical', object: `backup ${manifest.id}`, expected: `a time before ${formatTime(now)}` },
      found: `dated ${formatTime(manifest.createdAt)}`,
      hint: 'set the clock of the machine or of the database server that took it; it counts for nothing until then',
    }));
}

function judgeDamage({ backups, damaged }: Catalog): HealthFinding[] {
  const hint =
    'find out who or what changed the store; take a new backup now, and do not let retention run until it is understood';
  return [
    ...damaged.map(
      ({ id, reason }): HealthFinding => ({
        ...{ severity: 'critical', object: `backup ${id}`, expected: 'as it was stored', found: reason, hint },
      }),
    ),
    ...backups
      .filter(({ tampering }) => tampering.length > 0)
      .map(
        ({ manifest, tampering }): HealthFinding => ({
          ...{ severity: 'critical', object: `backup ${manifest.id}`, expected: 'as it was stored' },
          ...{ found: `${tampering.join(', ')}; the first version is whole`, hint },
        }),
      ),
  ];
}

function judgeCount(series: readonly Backup[], { minBackups }: HealthPolicy): HealthFinding[] {
  if (minBackups === undefined || series.length >= minBackups) return [];
  return [
    {
      ...{ severity: 'critical', object: 'backups', expected: `${minBackups} or more`, found: `${series.length}` },
      hint: 'did something else than retention delete them, a lifecycle rule of the bucket for instance',
    },
  ];
}

function judgeSize([newest, ...before]: readonly Backup[], { maxShrink }: HealthPolicy): HealthFinding[] {
  const usual = median(before.slice(0, compared).map(sizeOf));
  if (newest === undefined || usual === undefined) return [];
  const size = sizeOf(newest);
  if (size >= usual * (1 - maxShrink)) return [];
  return [
    {
      ...{ severity: 'critical', object: `size of ${newest.manifest.id}` },
      expected: `at least ${formatBytes(usual * (1 - maxShrink))}, as the ones before it have ${formatBytes(usual)}`,
      found: formatBytes(size),
      hint: 'were rows deleted, or does the backup see less than before; if it is right, the next ones will be the usual size',
    },
  ];
}

function judgeTables(tables: HealthFacts['tables']): HealthFinding[] {
  if (tables === undefined) return [];
  const there = new Set(tables.newest);
  const gone = tables.before.filter((table) => !there.has(table));
  return gone.slice(0, mostTables).map((table, at) => ({
    ...{ severity: 'warning', object: table, expected: 'a table, as in the backup before' },
    found: `gone${at === mostTables - 1 && gone.length > mostTables ? `, and ${formatCount(gone.length - mostTables, 'more table')}` : ''}`,
    hint: 'if nobody dropped it on purpose, bring it back: pgassay restore --tables',
  }));
}

const mostTables = 20;

function judgeProofs(
  last: Proof | undefined,
  proven: Proof | undefined,
  now: Date,
  { maxProofAgeMs }: HealthPolicy,
): HealthFinding[] {
  const findings: HealthFinding[] = [];
  if (last?.result === 'failed')
    findings.push({
      ...{ severity: 'critical', object: `restore test of ${last.backupId}`, expected: 'passed' },
      found: `failed on ${formatTime(last.testedAt)}`,
      hint: 'read its findings: pgassay show, or the job summary of that run',
    });
  if (maxProofAgeMs === undefined) return findings;
  const limit = formatSeconds(maxProofAgeMs / 1000);
  const ageMs = proven === undefined ? undefined : now.getTime() - Date.parse(proven.testedAt);
  if (ageMs === undefined || ageMs > maxProofAgeMs)
    findings.push({
      ...{ severity: 'critical', object: 'restore test', expected: `one that passed in the last ${limit}` },
      found: ageMs === undefined ? 'none has passed' : `the last one passed ${formatSeconds(ageMs / 1000)} ago`,
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
      ...{ severity: 'warning', object: `restore test of ${proven.backupId}` },
      ...{ expected: `at most ${formatSeconds(maxRestoreSeconds)}`, found: formatSeconds(took) },
      hint: 'give the restore more jobs or a faster machine, or agree on what a recovery may take',
    },
  ];
}

function ofOneSeries(backups: readonly Backup[]): Backup[] {
  const series = new Set(backups.map(({ manifest }) => manifest.series));
  const [only] = series;
  const counts = series.size === 1 && only !== undefined ? only : 'full';
  return backups
    .filter(({ manifest }) => manifest.series === counts)
    .sort((a, b) => Date.parse(b.manifest.createdAt) - Date.parse(a.manifest.createdAt));
}

function isFuture({ manifest }: Backup, now: Date): boolean {
  const latest = now.getTime() + futureMs;
  return Date.parse(manifest.createdAt) > latest || (timeOfId(manifest.id) ?? 0) > latest;
}

function sizeOf({ manifest }: Backup): number {
  return manifest.files.reduce((bytes, file) => bytes + file.bytes, 0);
}

function median(values: readonly number[]): number | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const [low, high] = [sorted[middle - 1], sorted[middle]];
  return sorted.length % 2 === 1 || low === undefined || high === undefined ? high : (low + high) / 2;
}

function byTestTime(a: Proof, b: Proof): number {
  return a.testedAt < b.testedAt ? 1 : -1;
}
