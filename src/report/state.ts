import type { Condition, HealthStatus } from '../health-findings.ts';
import { formatAge, formatCount, formatSeconds } from '../numbers.ts';
import { restoreSeconds } from '../proof.ts';

/** What a sentence about the state may say. */
export interface StateView {
  readonly now: Date;
  /** How long a recovery may take, seconds; undefined: as the last restore test was told. */
  readonly targetSeconds: number | undefined;
  /** Whether counts may be told. */
  readonly details: boolean;
}

/** One name's state in a sentence: `Everything is fine: 48 tables, last backup 3 h ago, last proven 2 days ago in 4 min 10 s.` */
export function stateSentence(condition: Condition, view: StateView): string {
  const { newest, findings, status, proven } = condition;
  if (newest === undefined) return 'Recovery is at risk: there is no backup.';
  const last = `last backup ${formatAge(newest.manifest.createdAt, view.now)}`;
  const about = status === 'ok' ? tables(condition, view) : `${formatCount(findings.length, 'finding')}, `;
  return `${verdictOf(status, proven !== undefined)}: ${about}${last}, ${provenWords(condition, view)}.`;
}

/** Of several names, by name. */
export function statesSentence(
  states: readonly { readonly name: string; readonly condition: Condition }[],
  view: StateView,
): string {
  const [only] = states;
  if (only === undefined) return 'Recovery is at risk: there is no backup.';
  if (states.length === 1) return stateSentence(only.condition, view);
  const all = formatCount(states.length, 'database');
  for (const [status, words] of [
    ['critical', 'Recovery is at risk'],
    ['warning', 'Worth a look'],
  ] as const) {
    const those = states.filter(({ condition }) => condition.status === status);
    if (those.length > 0) return `${words}: ${listed(those)} (${those.length} of ${all}).`;
  }
  const unproven = states.filter(({ condition }) => condition.proven === undefined);
  if (unproven.length > 0)
    return `Backups are taken, but not every one is proven: no restore test has passed for ${listed(unproven)} (${unproven.length} of ${all}).`;
  const oldest = states
    .flatMap(({ condition: { newest } }) => newest?.manifest.createdAt ?? [])
    .sort()
    .at(0);
  const age = oldest === undefined ? '' : `, the oldest last backup ${formatAge(oldest, view.now)}`;
  return `Everything is fine: ${all}${age}, each of them proven.`;
}

function verdictOf(status: HealthStatus, proven: boolean): string {
  if (status === 'critical') return 'Recovery is at risk';
  if (status === 'warning') return 'Worth a look';
  return proven ? 'Everything is fine' : 'Backups are taken, but not proven';
}

function tables({ newest }: Condition, { details }: StateView): string {
  return details && newest !== undefined ? `${formatCount(newest.manifest.totals.tables, 'table')}, ` : '';
}

function provenWords({ proven }: Condition, { now, targetSeconds }: StateView): string {
  if (proven === undefined) return 'no restore test has passed yet';
  const target = targetSeconds ?? proven.maxRestoreSeconds ?? undefined;
  const took = restoreSeconds(proven.timings);
  const allowed =
    target === undefined
      ? ''
      : took > target
        ? `, longer than the ${formatSeconds(target)} allowed`
        : ` of the ${formatSeconds(target)} allowed`;
  return `last proven ${formatAge(proven.testedAt, now)} in ${formatSeconds(took)}${allowed}`;
}

const mostNames = 5;

function listed(states: readonly { readonly name: string }[]): string {
  const names = states.slice(0, mostNames).map(({ name }) => name);
  const more = states.length - names.length;
  return more > 0 ? `${names.join(', ')} and ${more} more` : names.join(', ');
}
