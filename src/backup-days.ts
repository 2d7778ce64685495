import { safetyLabel, timeOfId } from './backup-id.ts';
import type { Backup, Catalog } from './catalog.ts';
import type { Proof } from './proof.ts';

/**
 * What one day of a name's history amounts to:
 * `proven` a backup of it passed its last restore test; `stored` there is one; `failed` all that there is failed its last
 * restore test or is damaged; `missed` one was due and none was taken; `none` none was taken, and none was due;
 * `gone` none is kept, and whether one was taken only its successor could tell.
 */
export type DayState = 'proven' | 'stored' | 'failed' | 'missed' | 'none' | 'gone';

export interface BackupDay {
  /** `2026-11-21`, UTC */
  readonly day: string;
  readonly state: DayState;
  /** How many are stored, damaged ones included. */
  readonly count: number;
}

export interface DayFacts {
  /** Everything of one name. */
  readonly catalog: Catalog;
  /** Of its backups those that count, newest first. */
  readonly series: readonly Backup[];
  /** The newest restore test of each backup that has one, by id. */
  readonly proofs: ReadonlyMap<string, Proof>;
  /** How long after a backup the next one is overdue, milliseconds. */
  readonly dueMs: number;
  readonly now: Date;
}

const dayMs = 86_400_000;

/**
 * The days from the first backup that is known to this one, oldest first; `mostDays` of them at most. Retention deletes
 * backups, so a day without one is not a day on which none was taken: that is known only where a backup names the one
 * that is there as the one before it, and since the newest.
 */
export function backupDays(facts: DayFacts, mostDays: number): BackupDay[] {
  const { catalog, series, proofs, now } = facts;
  const stored = Map.groupBy(series, ({ manifest }) => dayOf(Date.parse(manifest.createdAt)));
  const damaged = Map.groupBy(catalog.damaged, ({ id }) => dayOf(timeOfId(id) ?? 0));
  const gaps = gapsOf(facts);
  const known = [...series.map(timeOf), ...catalog.damaged.map(({ id }) => timeOfId(id) ?? Number.NaN)];
  const first = Math.min(...[...known, ...gaps.map(({ from }) => from)].filter((time) => time > 0));
  if (!Number.isFinite(first)) return [];
  const last = startOf(now.getTime());
  const days: BackupDay[] = [];
  for (let at = Math.max(startOf(first), last - (mostDays - 1) * dayMs); at <= last; at += dayMs) {
    const day = dayOf(at);
    const backups = stored.get(day) ?? [];
    const count = backups.length + (damaged.get(day)?.length ?? 0);
    const results = backups.map(({ manifest }) => proofs.get(manifest.id)?.result);
    const state = count > 0 ? stateOf(results) : emptyState(at, gaps);
    days.push({ day, state, count });
  }
  return days;
}

function stateOf(results: readonly (Proof['result'] | undefined)[]): DayState {
  if (results.includes('passed')) return 'proven';
  return results.includes(undefined) ? 'stored' : 'failed';
}

/** A time in which no backup was taken, milliseconds since 1970; today is a part of the last one as a whole. */
interface Gap {
  readonly from: number;
  readonly to: number;
  readonly overdue: boolean;
}

function gapsOf({ catalog, dueMs, now }: DayFacts): Gap[] {
  const latest = now.getTime();
  const taken = catalog.backups
    .filter((backup) => backup.manifest.label !== safetyLabel && timeOf(backup) <= latest)
    .sort((a, b) => timeOf(a) - timeOf(b));
  const gaps = taken.flatMap(({ manifest: { previous, createdAt } }) => {
    const from = previous === null ? undefined : timeOfId(previous.id);
    const to = Date.parse(createdAt);
    return from === undefined || from > to ? [] : [{ from, to, overdue: to - from > dueMs }];
  });
  const newest = taken.at(-1);
  if (newest === undefined) return gaps;
  const from = timeOf(newest);
  return [...gaps, { from, to: latest + dayMs, overdue: latest - from > dueMs }];
}

/** A day is empty for sure when it lies in a gap as a whole. */
function emptyState(at: number, gaps: readonly Gap[]): DayState {
  const gap = gaps.find(({ from, to }) => startOf(from) < at && at < startOf(to));
  if (gap === undefined) return 'gone';
  return gap.overdue ? 'missed' : 'none';
}

function dayOf(time: number): string {
  return new Date(time).toISOString().slice(0, 10);
}

function startOf(time: number): number {
  return Math.floor(time / dayMs) * dayMs;
}

function timeOf({ manifest }: Backup): number {
  return Date.parse(manifest.createdAt);
}
