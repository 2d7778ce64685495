import type { Manifest } from '../manifest.ts';
import { formatAge, formatBytes, formatCount, formatSeconds, formatTime } from '../numbers.ts';
import { type Proof, restoreSeconds } from '../proof.ts';
import type { Pruned } from '../retention.ts';
import { code, fenced, markdown } from './markdown.ts';
import { sizeChart } from './mermaid.ts';
import { prunedWords, retentionDetails } from './prune.ts';

/** A stored backup, and what to say about it. */
export interface BackupReport {
  readonly manifest: Manifest;
  /** Its folder, as a shell would name it. */
  readonly folder: string;
  readonly restoreCommand: string;
  /** Earlier backups of its name and series, oldest first, and itself. */
  readonly history: readonly Manifest[];
  /** The newest restore test of them that passed. */
  readonly proven: Proof | undefined;
  /** What retention did; undefined where there is no policy, or it could not be applied. */
  readonly pruned: Pruned | undefined;
}

/** In a summary whose names, counts and sizes are withheld. */
export const withheld =
  'Names, counts and sizes are withheld here: the repository is public, or may be, or `alert-details` is `false`. `alert-details: true` shows them.';

/**
 * The job summary of a stored backup: the verdict in the first line, how to restore in the first fold-out. Without
 * `details` nothing in it comes out of the database.
 */
export function backupSummary(report: BackupReport, details: boolean, now: Date): string {
  const { manifest, folder, restoreCommand, history, proven, pruned } = report;
  const { totals, database, timings } = manifest;
  const dump = manifest.files[0];
  const size = `${formatCount(totals.tables, 'table')}, ${formatCount(totals.rows, 'row')}, ${formatBytes(database.sizeBytes)} → ${formatBytes(dump?.bytes ?? 0)} in ${formatSeconds(timings.total ?? 0)} · `;
  const lines = [
    `### Backup of ${markdown(manifest.name)} is whole and stored`,
    '',
    `${details ? size : ''}PostgreSQL ${database.serverVersion} · snapshot ${formatTime(manifest.createdAt)}`,
    '',
    ...(details ? [] : [withheld, '']),
    `|${details ? ' store |' : ''} object | checked |`,
    `|${details ? '---|' : ''}---|---|`,
    `|${details ? ` ${code(manifest.store)} |` : ''} ${code(`${manifest.name}/${manifest.id}`)} | size, every row, SHA-256 |`,
    '',
    `Not encrypted · not signed · label ${markdown(manifest.label)} · ${provenWords(proven, now)}`,
    '',
    ...warnings(manifest.warnings, details),
    ...(details ? sizeChart(history) : []),
    '<details><summary>Restore it</summary>',
    '',
    ...(details ? stockLines(folder, restoreCommand) : []),
    'With pgassay, which creates the database and the missing roles and compares every table afterwards:',
    '',
    fenced('sh', [
      `TARGET_URL=postgresql://… pgassay restore ${manifest.id} --store ${details ? manifest.store : "'…'"} --name ${manifest.name}`,
    ]),
    '',
    '</details>',
    '',
    '<details><summary>Details</summary>',
    '',
    details ? '| file | bytes | SHA-256 |' : '| file | SHA-256 |',
    details ? '|---|---:|---|' : '|---|---|',
    ...manifest.files.map(({ name, bytes, sha256 }) => `| ${name} |${details ? ` ${bytes} |` : ''} \`${sha256}\` |`),
    '',
    `Timings: ${Object.entries(timings)
      .map(([stage, seconds]) => `${stage} ${formatSeconds(seconds)}`)
      .join(
        ' · ',
      )}. Series ${manifest.series}; pg_dump ${manifest.tools.pgDump}; pgassay ${manifest.tools.pgassay}. Retention: ${pruned === undefined ? 'nothing was deleted' : prunedWords(pruned)}.`,
    '',
    '</details>',
    '',
    ...(pruned === undefined ? [] : retentionDetails(pruned, details)),
  ];
  return lines.join('\n');
}

function stockLines(folder: string, restoreCommand: string): string[] {
  return [
    "With PostgreSQL's own programs, into an empty database:",
    '',
    fenced('sh', [
      `cd ${folder}`,
      'psql -d "$TARGET_URL" -f roles.sql   # roles that exist already only print an error',
      restoreCommand,
    ]),
    '',
  ];
}

function provenWords(proven: Proof | undefined, now: Date): string {
  if (proven === undefined) return 'never proven by a restore test';
  return `last proven restore: ${formatAge(proven.testedAt, now)} (${formatSeconds(restoreSeconds(proven.timings))})`;
}

function warnings(texts: readonly string[], details: boolean): string[] {
  if (texts.length === 0) return [];
  if (!details) return [`pg_dump gave ${texts.length === 1 ? 'a warning' : 'warnings'}; the log has the text.`, ''];
  return ['pg_dump warned:', '', ...texts.map((text) => `- ${markdown(text)}`), ''];
}
