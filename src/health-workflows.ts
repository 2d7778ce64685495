import { safetyLabel } from './backup-id.ts';
import type { Backup } from './catalog.ts';
import type { HealthFinding } from './health-findings.ts';
import { formatCount, formatSeconds, formatTime } from './numbers.ts';

/** Which workflow takes backups. */
export interface WorkflowPlace {
  /** As it was given: `backup.yml`, or `owner/repo/backup.yml`. */
  readonly workflow: string;
  /** `owner/repo` */
  readonly repository: string;
  /** `backup.yml` */
  readonly file: string;
}

/** A workflow that takes backups, as GitHub knows it. */
export interface WatchedWorkflow {
  readonly workflow: string;
  /** Why GitHub could not be asked, a clause, and what to do; everything else is unknown then. */
  readonly trouble?: { readonly what: string; readonly hint: string };
  /** `active`, `disabled_inactivity`, `disabled_manually` …; undefined: there is no such workflow. */
  readonly state: string | undefined;
  /** Whether its file is on the default branch, where schedules run from; undefined where nobody may look. */
  readonly onDefaultBranch: boolean | undefined;
  /** Those on the default branch, newest first. */
  readonly runs: readonly WorkflowRun[];
}

export interface WorkflowRun {
  readonly id: string;
  readonly createdAt: string;
  /** Null while it runs. */
  readonly conclusion: string | null;
}

const mostRuns = 5;

/**
 * What GitHub knows that a store does not: schedules that are switched off, and runs that ended well and left no backup
 * (`continue-on-error`, a step that was skipped, a `dry-run` that was forgotten). Such a run is critical until a later one of
 * the workflow left a backup. `names` are the backups of every name that is judged, newest first, safety backups included.
 */
export function judgeWorkflow(
  { workflow, trouble, state, onDefaultBranch, runs }: WatchedWorkflow,
  names: readonly (readonly Backup[])[],
  { now, criticalAfterMs }: { readonly now: Date; readonly criticalAfterMs: number },
): HealthFinding[] {
  const about = { check: 'workflow', object: `workflow ${workflow}` } as const;
  const critical = { ...about, severity: 'critical' } as const;
  if (trouble !== undefined)
    return [
      { ...about, severity: 'warning', expected: "GitHub's word on it", found: trouble.what, hint: trouble.hint },
    ];
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
      ...(last === undefined || ageMs === undefined
        ? { found: 'none on the default branch' }
        : { found: `none since ${formatTime(last.createdAt)}`, ago: formatSeconds(ageMs / 1000) }),
      hint: 'schedules are dropped when GitHub is busy and switched off after 60 days without a commit; start one by hand and look',
    });
  const empty = runs.filter((run) => run.conclusion === 'success' && leftNothing(run, names));
  const mended = (run: WorkflowRun): boolean =>
    runs.some((later) => later.createdAt > run.createdAt && leftBackup(later, names));
  for (const run of empty.slice(0, mostRuns))
    findings.push({
      ...{ ...about, severity: mended(run) ? 'warning' : 'critical', object: `run ${run.id} of ${workflow}` },
      ...{ expected: 'a backup, as it ended well', found: `none in this store from ${formatTime(run.createdAt)}` },
      hint: 'look at it for continue-on-error, a skipped step, dry-run, or another store',
    });
  const rest = empty.slice(mostRuns);
  if (rest.length > 0)
    findings.push({
      ...{ ...about, severity: rest.every(mended) ? 'warning' : 'critical', expected: 'a backup of each run' },
      ...{ found: `${formatCount(rest.length, 'more run')} without one`, hint: 'look at the newest of them first' },
    });
  return findings;
}

function leftBackup(run: WorkflowRun, names: readonly (readonly Backup[])[]): boolean {
  return names.some((backups) => backups.some(({ manifest }) => manifest.source?.runId === run.id));
}

/**
 * Whether a run is known to have stored nothing. Retention deletes backups, but not what the next one says of the one
 * before it: between two backups of which the later names the earlier there never was another.
 */
function leftNothing(run: WorkflowRun, names: readonly (readonly Backup[])[]): boolean {
  const began = Date.parse(run.createdAt);
  if (leftBackup(run, names)) return false;
  return names.every((backups) => {
    const taken = backups.filter(({ manifest }) => manifest.label !== safetyLabel);
    const after = taken.findLastIndex(({ manifest }) => Date.parse(manifest.createdAt) > began);
    const [next, before] = [taken[after], taken[after + 1]];
    if (next === undefined) return true;
    return before !== undefined && next.manifest.previous?.id === before.manifest.id;
  });
}

function fileOf(workflow: string): string {
  return workflow.split('/').at(-1) ?? workflow;
}
