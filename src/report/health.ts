import { bytesOf, type Condition, type HealthFinding, type HealthStatus } from '../health-findings.ts';
import type { Manifest } from '../manifest.ts';
import { formatAge, formatBytes, formatCount, formatSeconds, formatTime } from '../numbers.ts';
import { restoreSeconds } from '../proof.ts';
import { code, markdown } from './markdown.ts';
import { sizeChart } from './mermaid.ts';
import { withheld } from './summary.ts';

/** What became of a judgement of one name's backups. */
export interface NameHealth extends Condition {
  readonly name: string;
  /** Backups that cannot be used. */
  readonly damaged: number;
}

/** The judgement of a store. */
export interface Health {
  /** The worst of everything. */
  readonly status: HealthStatus;
  /** By the store's clock. */
  readonly checkedAt: Date;
  /** Its URI. */
  readonly store: string;
  /** What concerns no single name: the store, its clock, workflows. */
  readonly findings: readonly HealthFinding[];
  readonly names: readonly NameHealth[];
  /** Sentences that are no findings. */
  readonly notes: readonly string[];
}

/** For a terminal: a line for each name, then what is wrong with it and what to do. */
export function healthText(health: Health): string {
  const lines = [`${health.store}: ${headline(health)}`];
  lines.push(...health.findings.flatMap((each) => findingLines(each)));
  for (const each of health.names) {
    lines.push(`${each.name}: ${each.status}: ${conditionWords(each, health.checkedAt, true)}`);
    lines.push(...each.findings.flatMap((finding) => findingLines(finding)));
  }
  for (const note of health.notes) lines.push(`note: ${note}`);
  return lines.join('\n');
}

function findingLines(finding: HealthFinding): string[] {
  const { severity, object, expected, hint } = finding;
  return [
    `  ${severity.padEnd(8)}  ${object}: expected ${expected}, found ${foundWords(finding)}`,
    ...hint.split('\n').map((line) => `            ${line}`),
  ];
}

function foundWords({ found, ago }: HealthFinding): string {
  return ago === undefined ? found : `${found}, ${ago} ago`;
}

/** `everything is as it should be, 3 names` */
function headline({ status, names }: Health): string {
  const words: Record<HealthStatus, string> = {
    ok: 'everything is as it should be',
    warning: 'worth a look',
    critical: 'critical',
  };
  return `${words[status]}, ${formatCount(names.length, 'name')}`;
}

/** `newest 3 h ago (411 MB), 12 backups, proven 2 days ago in 4 min 10 s` */
function conditionWords({ newest, series, proven }: NameHealth, now: Date, details: boolean): string {
  if (newest === undefined) return 'no backup';
  const size = details ? ` (${formatBytes(bytesOf(newest.manifest))})` : '';
  return [
    `newest ${formatAge(newest.manifest.createdAt, now)}${size}`,
    ...(details ? [formatCount(series.length, 'backup')] : []),
    proven === undefined
      ? 'never proven'
      : `proven ${formatAge(proven.testedAt, now)} in ${formatSeconds(restoreSeconds(proven.timings))}`,
  ].join(', ');
}

const mostFindings = 100;
const mostRows = 200;
/** Backups in a chart. */
const mostBars = 30;
const mostCharts = 10;
/** Names in the first line. */
const mostNamed = 5;

/**
 * The job summary: the verdict, a line for each name, what is wrong. Without `details` it tells what was looked at and what
 * to do, and no name of a table, count, size or store.
 */
export function healthSummary(health: Health, details: boolean): string {
  const { names, checkedAt, notes } = health;
  const findings = [
    ...health.findings.map((finding) => ({ name: '', finding })),
    ...names.flatMap(({ name, findings: of }) => of.map((finding) => ({ name, finding }))),
  ].sort((a, b) => Number(b.finding.severity === 'critical') - Number(a.finding.severity === 'critical'));
  const [only] = names;
  return [
    `### ${verdictOf(health)}`,
    '',
    ...(names.length === 1 && only !== undefined
      ? [`${upperFirst(conditionWords(only, checkedAt, details))}.`, '']
      : []),
    ...(details ? [] : [withheld, '']),
    ...(findings.length === 0 ? [] : findingsTable(findings, names.length > 1, details)),
    ...(names.length > 1 ? namesTable(names, checkedAt, details) : []),
    ...notes.flatMap((note) => [`Note: ${markdown(note)}.`, '']),
    ...(details ? charts(names) : []),
    `Judged ${formatTime(checkedAt)}, by the clock of the store${details ? ` ${code(health.store)}` : ''}.`,
    '',
  ].join('\n');
}

function verdictOf({ status, names, findings }: Health): string {
  const meant = status === 'ok' ? names : names.filter((each) => each.status === status);
  const some = meant.length > 0 && meant.length <= mostNamed;
  const whose = some ? `Backups of ${meant.map(({ name }) => markdown(name)).join(', ')}` : 'Backups';
  if (status === 'ok') return `${whose} are as they should be`;
  const worst = [...findings, ...names.flatMap((each) => each.findings)].filter((each) => each.severity === status);
  const things = [...new Set(worst.map(({ check }) => check))].join(', ');
  return `${whose} ${status === 'critical' ? 'are in a critical state' : 'are worth a look'}: ${things}`;
}

function findingsTable(
  findings: readonly { readonly name: string; readonly finding: HealthFinding }[],
  named: boolean,
  details: boolean,
): string[] {
  const columns = [
    ...(named ? ['name'] : []),
    '',
    ...(details ? ['what', 'expected', 'found'] : ['what']),
    'what to do',
  ];
  const rows = findings.slice(0, mostFindings).map(({ name, finding }) => {
    const { severity, check, object, expected, hint } = finding;
    const what = details ? [code(object), code(expected), code(foundWords(finding))] : [check];
    return [...(named ? [name === '' ? 'all' : code(name)] : []), severity, ...what, markdown(hint)];
  });
  const rest = findings.length - rows.length;
  return [
    `| ${columns.join(' | ')} |`,
    `|${columns.map(() => '---|').join('')}`,
    ...rows.map((cells) => `| ${cells.join(' | ')} |`),
    '',
    ...(rest > 0 ? [`And ${formatCount(rest, 'finding')} more; the output \`report\` has them.`, ''] : []),
  ];
}

function namesTable(names: readonly NameHealth[], now: Date, details: boolean): string[] {
  const rows = names.slice(0, mostRows).map((each) => {
    const { newest, proven, series } = each;
    return [
      ...[code(each.name), each.status, newest === undefined ? 'none' : formatAge(newest.manifest.createdAt, now)],
      ...(details ? [newest === undefined ? '' : formatBytes(bytesOf(newest.manifest)), String(series.length)] : []),
      proven === undefined ? 'never' : formatAge(proven.testedAt, now),
      proven === undefined ? '' : formatSeconds(restoreSeconds(proven.timings)),
    ].join(' | ');
  });
  return [
    `| name | | newest |${details ? ' size | backups |' : ''} proven | restore took |`,
    `|---|---|---|${details ? '---:|---:|' : ''}---|---|`,
    ...rows.map((row) => `| ${row} |`),
    '',
    ...(names.length > mostRows ? [`And ${formatCount(names.length - mostRows, 'name')} more.`, ''] : []),
  ];
}

function charts(names: readonly NameHealth[]): string[] {
  return names.slice(0, mostCharts).flatMap(({ name, series }) => {
    const chart = sizeChart(historyOf(series));
    if (chart.length === 0 || names.length === 1) return chart;
    return [`<details><summary>Sizes of ${markdown(name)}</summary>`, '', ...chart, '</details>', ''];
  });
}

/** The latest, oldest first. */
function historyOf(series: Condition['series']): Manifest[] {
  return series
    .slice(0, mostBars)
    .map(({ manifest }) => manifest)
    .reverse();
}

function upperFirst(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** What `--json` and the output `report` say. Times are ISO 8601 in UTC, sizes bytes, ages hours. */
export function healthDocument(health: Health): HealthDocument {
  return {
    ...{ status: health.status, checkedAt: health.checkedAt.toISOString(), store: health.store },
    ...{ findings: health.findings, names: health.names.map((each) => nameDocument(each, health.checkedAt)) },
    notes: health.notes,
  };
}

export interface HealthDocument {
  readonly status: HealthStatus;
  readonly checkedAt: string;
  readonly store: string;
  readonly findings: readonly HealthFinding[];
  readonly names: readonly NameDocument[];
  readonly notes: readonly string[];
  /** What a cut document left out. */
  readonly leftOut?: { readonly findings: number; readonly names: number };
}

interface NameDocument {
  readonly name: string;
  readonly status: HealthStatus;
  /** Null where there is no backup, or no restore test that passed. */
  readonly latest: {
    readonly id: string;
    readonly createdAt: string;
    readonly ageHours: number;
    readonly sizeBytes: number;
  } | null;
  readonly backups: number;
  readonly damaged: number;
  readonly totalBytes: number;
  readonly proof: {
    readonly backupId: string;
    readonly testedAt: string;
    readonly ageHours: number;
    readonly restoreSeconds: number;
  } | null;
  readonly findings: readonly HealthFinding[];
}

function nameDocument({ newest, proven, ...each }: NameHealth, now: Date): NameDocument {
  return {
    ...{ name: each.name, status: each.status },
    latest: newest === undefined ? null : latestOf(newest.manifest, now),
    ...{ backups: each.series.length, damaged: each.damaged, totalBytes: each.totalBytes },
    proof:
      proven === undefined
        ? null
        : {
            ...{ backupId: proven.backupId, testedAt: proven.testedAt, ageHours: hoursSince(proven.testedAt, now) },
            restoreSeconds: restoreSeconds(proven.timings),
          },
    findings: each.findings,
  };
}

function latestOf(manifest: Manifest, now: Date): NonNullable<NameDocument['latest']> {
  const { id, createdAt } = manifest;
  return { id, createdAt, ageHours: hoursSince(createdAt, now), sizeBytes: bytesOf(manifest) };
}

/** Of several names the one whose newest backup is the oldest; undefined when one of them has none. */
export function latestOfAll({ names, checkedAt }: Health): NameDocument['latest'] | undefined {
  const each = names.map(({ newest }) => newest && latestOf(newest.manifest, checkedAt));
  if (each.includes(undefined)) return undefined;
  return each.toSorted((a, b) => (b?.ageHours ?? 0) - (a?.ageHours ?? 0))[0];
}

function hoursSince(time: string, now: Date): number {
  return Math.round((now.getTime() - Date.parse(time)) / 36_000) / 100;
}

/** The document as JSON in so many bytes: findings are left out before names are, and those that are well before the rest. */
export function cutDocument(document: HealthDocument, bytes: number): string {
  const fits = (text: string): boolean => Buffer.byteLength(text) <= bytes;
  const whole = JSON.stringify(document);
  if (fits(whole)) return whole;
  const rank: Record<HealthStatus, number> = { critical: 0, warning: 1, ok: 2 };
  const names = document.names.toSorted((a, b) => rank[a.status] - rank[b.status]);
  for (const [mostOfAll, most] of [
    [names.length, 20],
    [names.length, 3],
    [names.length, 1],
    [100, 1],
    [20, 1],
  ] as const) {
    const kept = names.slice(0, mostOfAll);
    const findings = names.reduce((count, each) => count + each.findings.length, document.findings.length);
    const cut = {
      ...document,
      findings: document.findings.slice(0, most),
      names: kept.map((each) => ({ ...each, findings: each.findings.slice(0, most) })),
    };
    const left = cut.names.reduce((count, each) => count + each.findings.length, cut.findings.length);
    const text = JSON.stringify({ ...cut, leftOut: { findings: findings - left, names: names.length - kept.length } });
    if (fits(text)) return text;
  }
  const { status, checkedAt, store } = document;
  return JSON.stringify({ status, checkedAt, store, findings: [], names: [], notes: [] });
}
