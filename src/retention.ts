import { safetyLabel, timeOfId } from './backup-id.ts';
import { type Backup, type Catalog, futureMs } from './catalog.ts';
import { byPassphrase, keysOf, type Manifest, shortRecipient } from './manifest.ts';
import { formatSeconds } from './numbers.ts';
import type { KeyUse } from './opening.ts';

/** What to keep; a backup stays when any rule keeps it. Durations are milliseconds; undefined: no such rule. */
export interface RetentionPolicy {
  readonly last: number | undefined;
  readonly within: number | undefined;
  readonly daily: number | undefined;
  readonly weekly: number | undefined;
  readonly monthly: number | undefined;
  readonly yearly: number | undefined;
  /** How long backups of a label stay, whatever the other rules say of them. */
  readonly labels: ReadonlyMap<string, number>;
}

/** What a plan is made from, besides the policy. */
export interface RetentionFacts {
  /** Whole backups of one name, in any order. What cannot be trusted or read is not among them, and is never deleted. */
  readonly backups: readonly Backup[];
  /** The ids of those whose newest restore test passed. */
  readonly proven: ReadonlySet<string>;
  /** Which keys opened which of them, and when. */
  readonly opened: readonly KeyUse[];
  /** The store's clock. */
  readonly now: Date;
  /** The name's newest backup may be this old, milliseconds; an older one pauses retention. Undefined: it was just taken. */
  readonly criticalAfterMs: number | undefined;
}

/** One backup and the rules that keep it; none of them: it goes. */
export interface Decision {
  readonly backup: Backup;
  readonly keptBy: readonly string[];
}

export interface RetentionPlan {
  /** Newest first. */
  readonly decisions: readonly Decision[];
  /** Why nothing may be deleted now, whatever the decisions say. */
  readonly paused: string | undefined;
}

/** What retention did to one name, or with a dry run would do. */
export interface Pruned {
  readonly name: string;
  readonly dryRun: boolean;
  /** Why nothing may be deleted now. */
  readonly paused: string | undefined;
  /** Newest first. */
  readonly kept: readonly KeptBackup[];
  /** Oldest first. */
  readonly removed: readonly Manifest[];
  /** Not trusted, or with a manifest that cannot be used, or files that are not as it says: left alone, and somebody should look. */
  readonly damaged: Catalog['damaged'];
}

export interface KeptBackup {
  readonly manifest: Manifest;
  /** `keep-daily 7: 2026-11-20`, or what the store said when it was to be deleted. */
  readonly reasons: readonly string[];
  /** A rule would have let it go, and the store did not. */
  readonly refused: boolean;
}

const dayMs = 86_400_000;

/** How long safety backups stay when `keep-labels` does not say otherwise. */
export const safetyMs = 30 * dayMs;

/** Whether a policy has any rule. Without one nothing is ever deleted. */
export function keepsAnything(policy: RetentionPolicy): boolean {
  const { labels, ...rules } = policy;
  return labels.size > 0 || Object.values(rules).some((rule) => rule !== undefined);
}

/**
 * Decides for each backup of one name whether it stays, by the rules of restic: the last N, all within a duration of the
 * newest, and the last one of each of the N latest days, weeks (from Monday), months and years that have one, in UTC, by
 * the time of its snapshot. Backups of another series or another database are a history of their own, and within one each
 * label is counted by itself. Throws for a policy without rules: nobody may act on it.
 */
export function planRetention(policy: RetentionPolicy, facts: RetentionFacts): RetentionPlan {
  if (!keepsAnything(policy)) throw new Error('a retention policy without rules');
  const latest = facts.now.getTime() + futureMs;
  const decided = new Map<Backup, string[]>(facts.backups.map((backup) => [backup, []]));
  const keep = (backup: Backup, rule: string): void => void decided.get(backup)?.push(rule);
  const present: Backup[] = [];
  for (const backup of facts.backups)
    if (isFuture(backup, latest)) keep(backup, 'dated in the future');
    else present.push(backup);
  present.sort(newestFirst);
  for (const history of Map.groupBy(present, historyOf).values()) {
    keepHistory(history, policy, facts, keep);
    if (facts.opened.length === 0) continue;
    const staying = history.filter((backup) => (decided.get(backup)?.length ?? 0) > 0);
    keepOpened(history, new Set(staying.flatMap(({ manifest }) => keysOf(manifest))), facts, keep);
  }
  return {
    decisions: [...decided]
      .map(([backup, keptBy]) => ({ backup, keptBy }))
      .sort((a, b) => newestFirst(a.backup, b.backup)),
    paused: pauseOf(present, facts),
  };
}

type Keep = (backup: Backup, rule: string) => void;

/** One series of one database. */
function keepHistory(
  history: readonly Backup[],
  policy: RetentionPolicy,
  { proven, now }: RetentionFacts,
  keep: Keep,
): void {
  const regular = history.filter((backup) => !isSafety(backup));
  const [newest] = regular;
  if (newest !== undefined) keep(newest, 'newest');
  const reference = newest === undefined ? 0 : timeOf(newest);
  const passed = regular.find((backup) => proven.has(backup.manifest.id));
  if (passed !== undefined) keep(passed, 'newest that a restore test passed');
  for (const [label, backups] of Map.groupBy(history, labelOf)) {
    const ownMs = policy.labels.get(label) ?? (label === safetyLabel ? safetyMs : undefined);
    if (ownMs !== undefined)
      for (const backup of backups)
        if (now.getTime() - timeOf(backup) <= ownMs)
          keep(backup, `keep-labels ${label}=${formatSeconds(ownMs / 1000)}`);
    if (label === safetyLabel) continue;
    if (!keepsAnything({ ...policy, labels: new Map() })) {
      if (ownMs === undefined) for (const backup of backups) keep(backup, `no rule for the label ${label}`);
      continue;
    }
    keepByRules(backups, policy, reference, keep);
  }
}

/**
 * The record of a key lies beside the backup that the key opened, and goes with it. So for each of these keys the backup
 * that it opened last stays: without it nobody could say any more that the key is not lost.
 */
function keepOpened(
  history: readonly Backup[],
  keys: ReadonlySet<string>,
  { opened, now }: RetentionFacts,
  keep: Keep,
): void {
  const regular = new Map(history.flatMap((each) => (isSafety(each) ? [] : [[each.manifest.id, each] as const])));
  const last = new Map<string, { readonly backup: Backup; readonly at: number }>();
  for (const { backupId, recipient, at: time } of opened) {
    const [backup, at] = [regular.get(backupId), Date.parse(time)];
    if (backup === undefined || !keys.has(recipient) || at > now.getTime() + futureMs) continue;
    if (at > (last.get(recipient)?.at ?? Number.NEGATIVE_INFINITY)) last.set(recipient, { backup, at });
  }
  for (const [key, { backup }] of last)
    keep(backup, `last that ${key === byPassphrase ? 'the passphrase' : `the key of ${shortRecipient(key)}`} opened`);
}

/** Backups of one label, newest first; `reference` is the time of the newest of all labels. */
function keepByRules(backups: readonly Backup[], policy: RetentionPolicy, reference: number, keep: Keep): void {
  for (const backup of backups.slice(0, policy.last))
    if (policy.last !== undefined) keep(backup, `keep-last ${policy.last}`);
  if (policy.within !== undefined) keepWithin(backups, policy.within, reference, keep);
  for (const [rule, periodOf] of periods) {
    const count = policy[rule];
    if (count === undefined) continue;
    const latest = new Map<string, Backup>();
    for (const backup of backups) {
      const period = periodOf(new Date(timeOf(backup)));
      if (!latest.has(period)) latest.set(period, backup);
    }
    for (const [period, backup] of [...latest].slice(0, count)) keep(backup, `keep-${rule} ${count}: ${period}`);
  }
}

/** The newest before the window stays too: it is the state that the window began with. */
function keepWithin(backups: readonly Backup[], within: number, reference: number, keep: Keep): void {
  const rule = `keep-within ${formatSeconds(within / 1000)}`;
  for (const backup of backups) {
    const inside = reference - timeOf(backup) <= within;
    keep(backup, inside ? rule : `${rule}: how it began`);
    if (!inside) return;
  }
}

const periods: readonly (readonly ['daily' | 'weekly' | 'monthly' | 'yearly', (time: Date) => string])[] = [
  ['daily', (time) => time.toISOString().slice(0, 10)],
  ['weekly', weekOf],
  ['monthly', (time) => time.toISOString().slice(0, 7)],
  ['yearly', (time) => time.toISOString().slice(0, 4)],
];

/** `week of 2026-11-16`, its Monday. */
function weekOf(time: Date): string {
  const sinceMonday = (time.getUTCDay() + 6) % 7;
  return `week of ${new Date(time.getTime() - sinceMonday * dayMs).toISOString().slice(0, 10)}`;
}

/** Backups have stopped: what is there may be all that there will be. */
function pauseOf(present: readonly Backup[], { now, criticalAfterMs }: RetentionFacts): string | undefined {
  if (criticalAfterMs === undefined) return undefined;
  const newest = present.find((backup) => !isSafety(backup));
  if (newest === undefined) return undefined;
  const ageMs = now.getTime() - timeOf(newest);
  if (ageMs <= criticalAfterMs) return undefined;
  return `the newest backup is ${formatSeconds(ageMs / 1000)} old, and one is due every ${formatSeconds(criticalAfterMs / 1000)}`;
}

function isSafety(backup: Backup): boolean {
  return backup.manifest.label === safetyLabel;
}

function isFuture({ manifest }: Backup, latest: number): boolean {
  return Date.parse(manifest.createdAt) > latest || (timeOfId(manifest.id) ?? 0) > latest;
}

/** A server that does not tell its identity has a history of its own. */
function historyOf({ manifest }: Backup): string {
  return `${manifest.series} ${manifest.database.id}`;
}

function labelOf({ manifest }: Backup): string {
  return manifest.label;
}

function timeOf({ manifest }: Backup): number {
  return Date.parse(manifest.createdAt);
}

function newestFirst(a: Backup, b: Backup): number {
  return timeOf(b) - timeOf(a) || (a.manifest.id < b.manifest.id ? 1 : -1);
}
