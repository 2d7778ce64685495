import type { Manifest } from '../manifest.ts';
import { formatAge, formatBytes, formatCount, formatSeconds, formatTime } from '../numbers.ts';
import type { Level, Proof } from '../proof.ts';
import { cell, fenced, markdown } from './markdown.ts';

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
  /** What to run to see it again, without secrets. */
  readonly command: string;
}

const levels: Record<Level, string> = {
  content: 'every row and every value by digest',
  rows: 'the number of rows of every table',
  schema: 'definitions only, as the backup holds no rows',
};

/** For a terminal: the verdict, then what it rests on. */
export function restoreTestText(report: RestoreTestReport): string {
  const { manifest, proof, restoreSeconds, location } = report;
  const lines = [`${manifest.name}/${manifest.id} ${verdictOf(report)}`];
  if (proof.result === 'passed')
    lines.push(`  compared  ${levels[proof.level]}, sequences, every object with its owner`);
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
    return `does not restore as it was recorded: ${formatCount(proof.findings.length, 'finding')}`;
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

/** The job summary: the verdict in its first line, then the findings, then how to see them again. */
export function restoreTestSummary(report: RestoreTestReport, now: Date): string {
  const { manifest, proof, restoreSeconds, command, location, hint } = report;
  const passed = proof.result === 'passed';
  const taken = `backup of ${formatTime(manifest.createdAt)} (${formatAge(manifest.createdAt, now)})`;
  const lines = [
    passed
      ? `### ${markdown(manifest.name)}: the ${taken} restores`
      : `### ${markdown(manifest.name)}: the ${taken} does not restore as it was recorded`,
    '',
    `${passed ? `${formatCount(report.tables, 'table')}, ${formatCount(report.rows, 'row')}` : formatCount(proof.findings.length, 'finding')} · ${formatSeconds(restoreSeconds)} to download and restore${limitOf(proof)} · PostgreSQL ${manifest.database.serverVersion} → ${proof.server || 'not restored'}`,
    '',
    '| backup | size | compared |',
    '|---|---:|---|',
    `| ${cell(`${manifest.name}/${manifest.id}`)} | ${formatBytes(manifest.files[0]?.bytes ?? 0)} | ${passed ? `${levels[proof.level]}, sequences, every object with its owner` : 'see below'} |`,
    '',
  ];
  if (!passed) {
    lines.push('| object | expected | found |', '|---|---|---|');
    for (const each of proof.findings.slice(0, mostFindings))
      lines.push(`| ${markdown(each.object)} | ${markdown(each.expected)} | ${markdown(each.found)} |`);
    lines.push('');
    if (proof.findings.length > mostFindings)
      lines.push(`and ${formatCount(proof.findings.length - mostFindings, 'more finding')}, in the findings file`, '');
    lines.push(
      'This backup is no proof of recovery. Older backups are kept until retention removes them: do not shorten it now.',
      '',
    );
    if (hint !== undefined) lines.push(`What to do: ${markdown(hint)}`, '');
  }
  lines.push(
    '<details><summary>See it again on a machine of your own</summary>',
    '',
    fenced('sh', [command]),
    '',
    '</details>',
    '',
    '<details><summary>Details</summary>',
    '',
    `Timings: ${timesOf(proof)}. ${location === undefined ? 'The proof could not be written.' : `Proof: ${cell(location)}.`}`,
    '',
    ...named('Left out, because it would have reached out of the scratch server:', proof.leftOut),
    ...named('Notes:', proof.notes),
    '</details>',
    '',
  );
  return lines.join('\n');
}

function named(title: string, items: readonly string[]): string[] {
  return items.length === 0 ? [] : [title, '', ...items.map((item) => `- ${markdown(item)}`), ''];
}
