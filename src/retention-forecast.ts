import { safetyLabel } from './backup-id.ts';
import type { Backup } from './catalog.ts';
import { planRetention, type RetentionFacts, type RetentionPolicy } from './retention.ts';

/** What retention is going to do with one backup. */
export interface Fate {
  /** The rules that keep it today; none of them: the next run deletes it. */
  readonly keptBy: readonly string[];
  /** The day of the first run that lets it go; undefined: none that the forecast reaches. */
  readonly goes: Date | undefined;
}

export interface Forecast {
  /** By id. */
  readonly fates: ReadonlyMap<string, Fate>;
  /** Why nothing may be deleted now. */
  readonly paused: string | undefined;
  /** How far it reaches. */
  readonly end: Date;
  /** What it takes for the time from one backup to the next, milliseconds. */
  readonly everyMs: number;
}

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const longestDays = 731;
/** In all: a fraction of a second. */
const mostDecisions = 120_000;

/**
 * Plays retention forward, one run a day, while backups like the newest one go on as they came. The rules' own code
 * decides, so what is foretold is what will be done. Restore tests to come are not foreseen: that a backup is the newest
 * proven one, or the last that a key opened, keeps it today, and says nothing about tomorrow.
 */
export function forecastRetention(policy: RetentionPolicy, facts: RetentionFacts): Forecast {
  const { decisions, paused } = planRetention(policy, facts);
  const began = facts.now.getTime();
  const goes = new Map<string, Date>();
  const open = new Set(decisions.map(({ backup }) => backup.manifest.id));
  const newest = decisions.map(({ backup }) => backup).find((backup) => isRegular(backup) && timeOf(backup) <= began);
  const everyMs = intervalOf(
    decisions.map(({ backup }) => backup),
    newest,
  );
  let present: readonly Backup[] = decisions.flatMap(({ backup, keptBy }) => (keptBy.length > 0 ? [backup] : []));
  for (const { backup, keptBy } of decisions) if (keptBy.length === 0) leave(backup, facts.now);
  let now = began;
  let taken = newest === undefined ? began : timeOf(newest);
  let decided = 0;
  for (let day = 0; day < longestDays && decided < mostDecisions && open.size > 0; day++) {
    now += dayMs;
    const coming: Backup[] = [];
    for (; newest !== undefined && taken + everyMs <= now; taken += everyMs)
      coming.push(anotherOf(newest, new Date(Math.max(taken + everyMs, began))));
    const plan = planRetention(policy, {
      ...{ backups: [...present, ...coming], proven: new Set<string>(), opened: [], now: new Date(now) },
      criticalAfterMs: undefined,
    });
    decided += plan.decisions.length;
    for (const { backup, keptBy } of plan.decisions) if (keptBy.length === 0) leave(backup, new Date(now));
    present = plan.decisions.flatMap(({ backup, keptBy }) => (keptBy.length > 0 ? [backup] : []));
  }
  const fates = decisions.map(({ backup: { manifest }, keptBy }): [string, Fate] => [
    manifest.id,
    { keptBy, goes: goes.get(manifest.id) },
  ]);
  return { fates: new Map(fates), paused, end: new Date(now), everyMs };

  function leave({ manifest: { id } }: Backup, at: Date): void {
    if (open.delete(id)) goes.set(id, at);
  }
}

/** The usual time between the last backups of the newest one's kind, in whole hours; a day where nobody can tell. */
function intervalOf(backups: readonly Backup[], newest: Backup | undefined): number {
  const times = backups
    .filter(({ manifest }) => manifest.label === newest?.manifest.label && manifest.series === newest.manifest.series)
    .map(timeOf)
    .slice(0, 9);
  const gaps = times.slice(1).map((time, at) => (times[at] ?? time) - time);
  const usual = gaps.sort((a, b) => a - b)[Math.floor(gaps.length / 2)];
  return usual === undefined ? dayMs : Math.max(1, Math.round(usual / hourMs)) * hourMs;
}

function anotherOf(backup: Backup, at: Date): Backup {
  const createdAt = at.toISOString();
  const id = `${createdAt.slice(0, 19).replace(/[-:]/g, '')}Z-000000`;
  return { ...backup, manifest: { ...backup.manifest, id, createdAt } };
}

function isRegular({ manifest }: Backup): boolean {
  return manifest.label !== safetyLabel;
}

function timeOf({ manifest }: Backup): number {
  return Date.parse(manifest.createdAt);
}
