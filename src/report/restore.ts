import type { Manifest } from '../manifest.ts';
import { formatAge, formatCount, formatNumber, formatSeconds, formatTime } from '../numbers.ts';
import type { Recorded } from '../verdict.ts';
import { code, fenced, markdown } from './markdown.ts';
import { table } from './table.ts';

/** A restore that is done, and what to say about it. */
export interface RestoreReport {
  readonly manifest: Manifest;
  /** The target database, as people write it. */
  readonly database: string;
  readonly tables: number;
  readonly rows: number;
  readonly compared: readonly Recorded[];
  /** Tables that the server would not let this role count. */
  readonly uncounted: number;
  readonly seconds: number;
  /** The backup of the target that was taken first. */
  readonly safetyBackup: Manifest | undefined;
}

const analyze = 'ANALYZE';

/** For a terminal: every table, then the verdict, then what is left to do. */
export function restoreText(report: RestoreReport): string {
  const { manifest, database, compared, seconds, safetyBackup } = report;
  return [
    table(
      ['table', 'recorded', 'restored'],
      compared.map((each) => [each.object, formatNumber(each.recorded), foundIn(each)]),
      [1, 2],
    ),
    '',
    `${manifest.name}/${manifest.id} restored into ${database} in ${formatSeconds(seconds)}: ${countsOf(report)}, ${verdictOf(report)}`,
    ...(safetyBackup === undefined
      ? []
      : [`what was there before is in the safety backup ${safetyBackup.name}/${safetyBackup.id}`]),
    `run ${analyze} there before traffic returns: statistics are not part of a dump`,
  ].join('\n');
}

const mostTables = 500;

/** The job summary. Without `details` it holds no name out of the database and no count. */
export function restoreSummary(report: RestoreReport, now: Date, details: boolean): string {
  const { manifest, database, compared, seconds, safetyBackup } = report;
  const rest = compared.length - mostTables;
  return [
    `### ${markdown(manifest.name)} is restored${details ? ` into ${markdown(database)}` : ''}: ${verdictOf(report)}`,
    '',
    `${details ? `${countsOf(report)} · ` : ''}${formatSeconds(seconds)} · backup of ${formatTime(manifest.createdAt)} (${formatAge(manifest.createdAt, now)}) · PostgreSQL ${manifest.database.serverVersion}`,
    '',
    '| backup | compared |',
    '|---|---|',
    `| ${code(`${manifest.name}/${manifest.id}`)} | size, SHA-256, rows of every table, sequences |`,
    '',
    ...(safetyBackup === undefined
      ? []
      : [
          `What was there before is in the safety backup ${code(`${safetyBackup.name}/${safetyBackup.id}`)}: restore it by this id to go back.`,
          '',
        ]),
    '<details><summary>What to do before traffic returns</summary>',
    '',
    'Statistics are not part of a dump: without them queries are planned badly.',
    '',
    fenced('sh', [`psql -d "$TARGET_URL" -c ${analyze}`]),
    '',
    '</details>',
    '',
    ...(details
      ? [
          '<details><summary>Tables</summary>',
          '',
          '| table | recorded | restored |',
          '|---|---:|---:|',
          ...compared
            .slice(0, mostTables)
            .map((each) => `| ${code(each.object)} | ${formatNumber(each.recorded)} | ${foundIn(each)} |`),
          '',
          ...(rest > 0 ? [`and ${formatCount(rest, 'more table')}`, ''] : []),
          '</details>',
          '',
        ]
      : []),
  ].join('\n');
}

function countsOf({ tables, rows }: RestoreReport): string {
  return `${formatCount(tables, 'table')}, ${formatCount(rows, 'row')}`;
}

function foundIn({ found }: Recorded): string {
  return found === undefined ? 'not counted' : formatNumber(found);
}

function verdictOf({ uncounted }: RestoreReport): string {
  return uncounted === 0 ? 'all as recorded' : `as recorded but for ${formatCount(uncounted, 'table')} not counted`;
}
