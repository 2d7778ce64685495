import { safetyLabel } from './backup-id.ts';
import type { Backup } from './catalog.ts';
import type { HealthFinding } from './health-findings.ts';
import { formatCount, formatSeconds, formatTime } from './numbers.ts';

/** A workflow that takes backups, as GitHub knows it. */
export interface WatchedWorkflow {
  /** `backup.yml`, or `owner/repo/backup.yml` */
  readonly workflow: string;
  /** `active`, `disabled_inactivity`, `disabled_manually` …; undefined: there is no such workflow. */
  readonly state: string | undefined;
  /** Whether its file is on the default branch, where schedules run from; undefined where nobody may look. */
  readonly onDefaultBranch: boolean | undefined;
  /** Newest first. */
  readonly runs: readonly WorkflowRun[];
}

export interface WorkflowRun {
  readonly id: string;
  readonly createdAt: string;
  /** Null while it runs. */
  readonly conclusion: string | null;
}

const mostRuns = 10;

/**
 * What GitHub knows that a store does not: schedules that are switched off, and runs that ended well and left no backup
 * (`continue-on-error`, a step that was skipped, a `dry-run` that was forgotten). `names` are the backups of every name
 * that is judged, newest first, safety backups included.
 */
export function judgeWorkflow(
  { workflow, state, onDefaultBranch, runs }: WatchedWorkflow,
  names: readonly (readonly Backup[])[],
  { now, criticalAfterMs }: { readonly now: Date; readonly criticalAfterMs: number },
): HealthFinding[] {
  const critical = { severity: 'critical', object: `workflow ${workflow}` } as const;
  if (state === undefined)
    return [
      {
        ...critical,
        expected: 'a workflow',
        found: 'there is none',
        hint: 'check the name in workflows, and that github-token may read actions',
      },
    ];
  const findings: HealthFinding[] = [];
  if (state !== 'active')
    findings.push({
      ...critical,
      expected: 'enabled',
      found: state,
      hint: `enable it: gh workflow enable ${fileOf(workflow)}`,
    });
  if (onDefaultBranch === false)
    findings.push({
      ...critical,
      expected: 'its file on the default branch',
      found: 'it is on another one only',
      hint: 'merge it: schedules run from the default branch',
    });
  const [last] = runs;
  const ageMs = last === undefined ? undefined : now.getTime() - Date.parse(last.createdAt);
  if (ageMs === undefined || ageMs > criticalAfterMs)
    findings.push({
      ...{ ...critical, expected: `a run in the last ${formatSeconds(criticalAfterMs / 1000)}` },
      found: ageMs === undefined ? 'it has never run' : `the last one began ${formatSeconds(ageMs / 1000)} ago`,
      hint: 'schedules are dropped when GitHub is busy and switched off after 60 days without a commit; start one by hand and look',
    });
  const empty = runs.filter((run) => run.conclusion === 'success' && leftNothing(run, names));
  for (const run of empty.slice(0, mostRuns))
    findings.push({
      ...{ ...critical, object: `run ${run.id} of ${workflow}`, expected: 'a backup, as it ended well' },
      found: `none in this store from ${formatTime(run.createdAt)}`,
      hint: 'look at it for continue-on-error, a skipped step, dry-run, or another store',
    });
  if (empty.length > mostRuns)
    findings.push({
      ...{ ...critical, expected: 'a backup of each' },
      found: `${formatCount(empty.length - mostRuns, 'more run')} without one`,
      hint: 'look at its newest run first',
    });
  return findings;
}

/**
 * Whether a run is known to have stored nothing. Retention deletes backups, but not what the next one says of the one
 * before it: between two backups of which the later names the earlier there never was another.
 */
function leftNothing(run: WorkflowRun, names: readonly (readonly Backup[])[]): boolean {
  const began = Date.parse(run.createdAt);
  return names.every((backups) => {
    const taken = backups.filter(({ manifest }) => manifest.label !== safetyLabel);
    if (taken.some(({ manifest }) => manifest.source?.runId === run.id)) return false;
    const after = taken.findLastIndex(({ manifest }) => Date.parse(manifest.createdAt) > began);
    const [next, before] = [taken[after], taken[after + 1]];
    if (next === undefined) return true;
    return before !== undefined && next.manifest.previous?.id === before.manifest.id;
  });
}

function fileOf(workflow: string): string {
  return workflow.split('/').at(-1) ?? workflow;
}
