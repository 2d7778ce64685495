import type { Manifest } from '../manifest.ts';
import { formatAge, formatBytes, formatCount, formatSeconds, formatTime } from '../numbers.ts';
import { type Level, type Proof, restoreSeconds as restoreSecondsOf } from '../proof.ts';
import { code, fenced, markdown } from './markdown.ts';
import { recoveryChart } from './mermaid.ts';

/** A restore test that came to a verdict, and what to say about it. */
export interface RestoreTestReport {
  readonly manifest: Manifest;
  readonly proof: Proof;
  /** Where the proof was written; undefined when the store refused it. */
  readonly location: string | undefined;
  readonly tables: number;
  readonly rows: number;
  /** What to do about it. */
  readonly hint: string | undefined;
  /** The step's whole way from the archive to a database, seconds. */
  readonly restoreSeconds: number;
  /** What to run to see it again, for a store that is named so in a shell. */
  readonly command: (store: string) => string;
  /** The store's address, as a shell names it. */
  readonly store: string;
}

const levels: Record<Level, string> = {
  content: 'the rows of every table and the digest of their values',
  rows: 'the number of rows of every table',
  schema: 'definitions only, as the backup holds no rows',
};

/** For a terminal: the verdict, then what it rests on. */
export function restoreTestText(report: RestoreTestReport): string {
  const { manifest, proof, restoreSeconds, location } = report;
  const lines = [`${manifest.name}/${manifest.id} ${verdictOf(report)}`];
  if (proof.result === 'passed')
    lines.push(`  compared  ${levels[proof.level]}, sequences, how many large objects, every object with its owner`);
  lines.push(
    `  took      ${formatSeconds(restoreSeconds)} to download and restore${limitOf(proof)}; ${timesOf(proof)}`,
  );
  for (const each of proof.leftOut) lines.push(`  left out  ${each}`);
  for (const each of proof.notes) lines.push(`  note      ${each}`);
  if (location !== undefined) lines.push(`  proof     ${location}`);
  return lines.join('\n');
}

function verdictOf({ proof, tables, rows }: RestoreTestReport): string {
  if (proof.result === 'failed')
    return `did not pass its restore test: ${formatCount(proof.findings.length, 'finding')}`;
  return `restores: ${formatCount(tables, 'table')}, ${formatCount(rows, 'row')}, all as recorded`;
}

function limitOf({ maxRestoreSeconds }: Proof): string {
  return maxRestoreSeconds === null ? '' : ` of the ${formatSeconds(maxRestoreSeconds)} allowed`;
}

function timesOf({ timings }: Proof): string {
  return Object.entries(timings)
    .map(([phase, took]) => `${phase} ${formatSeconds(took)}`)
    .join(', ');
}

const mostFindings = 200;

/**
 * The job summary: the verdict in its first line, then the findings, then how to see them again, and the `earlier` tests
 * of the same name's backups, newest first. Without `details` it holds no name out of the database and no count.
 */
export function restoreTestSummary(
  report: RestoreTestReport,
  earlier: readonly Proof[],
  { now, details }: { readonly now: Date; readonly details: boolean },
): string {
  const { manifest, proof, restoreSeconds, command, location, store } = report;
  const passed = proof.result === 'passed';
  const taken = `backup of ${formatTime(manifest.createdAt)} (${formatAge(manifest.createdAt, now)})`;
  const counts = passed
    ? `${formatCount(report.tables, 'table')}, ${formatCount(report.rows, 'row')} · `
    : `${formatCount(proof.findings.length, 'finding')} · `;
  const size = formatBytes(manifest.files[0]?.bytes ?? 0);
  return [
    `### ${markdown(manifest.name)}: the ${taken} ${passed ? 'restores' : 'did not pass its restore test'}`,
    '',
    `${details ? counts : ''}${formatSeconds(restoreSeconds)} to download and restore${limitOf(proof)} · PostgreSQL ${manifest.database.serverVersion} → ${proof.server || 'not restored'}`,
    '',
    `| backup |${details ? ' size |' : ''} compared |`,
    `|---|${details ? '---:|' : ''}---|`,
    `| ${code(`${manifest.name}/${manifest.id}`)} |${details ? ` ${size} |` : ''} ${passed ? `${levels[proof.level]}, sequences, how many large objects, every object with its owner` : 'see below'} |`,
    '',
    ...(passed ? [] : failedLines(report, details)),
    ...recoveryChart(earlier),
    '<details><summary>See it again on a machine of your own</summary>',
    '',
    fenced('sh', [command(details ? store : "'…'")]),
    '',
    '</details>',
    '',
    ...historyLines(earlier, now),
    '<details><summary>Details</summary>',
    '',
    `Timings: ${timesOf(proof)}. ${location === undefined ? 'The proof could not be written.' : details ? `Proof: ${code(location)}.` : 'The proof lies beside the backup.'}`,
    '',
    ...(details ? named('Left out, because it would have reached out of the scratch server:', proof.leftOut) : []),
    ...(details ? named('Notes:', proof.notes) : []),
    '</details>',
    '',
  ].join('\n');
}

function historyLines(earlier: readonly Proof[], now: Date): string[] {
  if (earlier.length === 0) return [];
  return [
    '<details><summary>Earlier restore tests</summary>',
    '',
    '| tested | backup | result | download and restore |',
    '|---|---|---|---:|',
    ...earlier.map(
      (proof) =>
        `| ${formatAge(proof.testedAt, now)} | ${code(proof.backupId)} | ${proof.result} | ${formatSeconds(restoreSecondsOf(proof.timings))} |`,
    ),
    '',
    '</details>',
    '',
  ];
}

function failedLines({ proof, hint }: RestoreTestReport, details: boolean): string[] {
  const meaning =
    'This backup is no proof of recovery. Older backups are kept until retention removes them: do not shorten it now.';
  if (!details)
    return [
      'What was found names objects of the database and is withheld here: the repository is public, or may be, or `alert-details` is `false`. The log and the findings file have it; `alert-details: true` shows it.',
      '',
      meaning,
      '',
    ];
  const rest = proof.findings.length - mostFindings;
  return [
    '| object | expected | found |',
    '|---|---|---|',
    ...proof.findings
      .slice(0, mostFindings)
      .map((each) => `| ${code(each.object)} | ${code(each.expected)} | ${code(each.found)} |`),
    '',
    ...(rest > 0 ? [`and ${formatCount(rest, 'more finding')}, in the findings file`, ''] : []),
    meaning,
    '',
    ...(hint === undefined ? [] : [`What to do: ${markdown(hint)}`, '']),
  ];
}

function named(title: string, items: readonly string[]): string[] {
  return items.length === 0 ? [] : [title, '', ...items.map((item) => `- ${code(item)}`), ''];
}
