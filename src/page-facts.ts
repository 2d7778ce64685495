import { type BackupDay, backupDays } from './backup-days.ts';
import type { Backup, Catalog } from './catalog.ts';
import { type Condition, type HealthFacts, type HealthPolicy, type HealthStatus, judge } from './health-findings.ts';
import type { Proof } from './proof.ts';
import type { RetentionPolicy } from './retention.ts';
import { type Forecast, forecastRetention } from './retention-forecast.ts';

/** What was read of one name. */
export interface NameFacts {
  readonly name: string;
  readonly catalog: Catalog;
  /** Every restore test of each backup that has one, newest first, by id. */
  readonly proofs: ReadonlyMap<string, readonly Proof[]>;
  /** See `HealthFacts`. */
  readonly tables: HealthFacts['tables'];
  readonly damage: NonNullable<HealthFacts['damage']>;
  readonly keyUses: NonNullable<HealthFacts['keyUses']>;
}

/** How to look at it. */
export interface PageView {
  readonly health: HealthPolicy;
  /** Undefined: nobody said, so what retention does next is not foretold. */
  readonly retention: RetentionPolicy | undefined;
  /** How long a recovery may take, seconds; undefined: as the last restore test was told. */
  readonly targetSeconds: number | undefined;
  /** Whether names of the database, counts, sizes and the store may be shown. */
  readonly details: boolean;
}

/** One name, judged. */
export interface NameState {
  readonly name: string;
  /** All of them, newest first. */
  readonly backups: readonly Backup[];
  readonly condition: Condition;
  /** Every restore test, newest first. */
  readonly tests: readonly Proof[];
  /** The newest restore test of each backup that has one, by id. */
  readonly lastTests: ReadonlyMap<string, Proof>;
  readonly days: readonly BackupDay[];
  readonly forecast: Forecast | undefined;
}

/** All that the page says. */
export interface PageFacts extends PageView {
  readonly store: string;
  /** The same as a shell names it. */
  readonly shellStore: string;
  /** The store's clock. */
  readonly now: Date;
  readonly names: readonly NameState[];
  readonly status: HealthStatus;
  /** The program's version. */
  readonly release: string;
}

/** As many months as a calendar shows. */
const mostDays = 366;

/** Judges every name, as `health` does. */
export function pageFacts(
  names: readonly NameFacts[],
  view: PageView,
  rest: Pick<PageFacts, 'store' | 'shellStore' | 'now' | 'release'>,
): PageFacts {
  const states = names.map((each) => stateOf(each, view, rest.now));
  const of = (status: HealthStatus): boolean => states.some(({ condition }) => condition.status === status);
  // Nothing at all is what nobody wants to find.
  const status = states.length === 0 || of('critical') ? 'critical' : of('warning') ? 'warning' : 'ok';
  return { ...view, ...rest, names: states, status };
}

function stateOf({ name, catalog, proofs, ...facts }: NameFacts, view: PageView, now: Date): NameState {
  const lastTests = new Map([...proofs].flatMap(([id, [last]]) => (last === undefined ? [] : [[id, last] as const])));
  const health = { ...view.health, maxRestoreSeconds: view.targetSeconds };
  const condition = judge({ ...facts, catalog, proofs: lastTests, now }, health);
  const passed = [...lastTests].filter(([, { result }]) => result === 'passed').map(([id]) => id);
  const days = backupDays(
    { catalog, series: condition.series, proofs: lastTests, dueMs: view.health.criticalAfterMs, now },
    mostDays,
  );
  return {
    ...{ name, backups: catalog.backups, condition, lastTests, days },
    tests: [...proofs.values()].flat().sort((a, b) => (a.testedAt < b.testedAt ? 1 : -1)),
    forecast:
      view.retention &&
      forecastRetention(view.retention, {
        ...{ backups: catalog.backups, proven: new Set(passed), opened: facts.keyUses, now },
        criticalAfterMs: view.health.criticalAfterMs,
      }),
  };
}
