import { encryptionOf, type Manifest } from '../manifest.ts';
import { formatAge, formatBytes, formatCount, formatSeconds, formatTime } from '../numbers.ts';
import { type Proof, restoreSeconds } from '../proof.ts';
import type { Pruned } from '../retention.ts';
import { commandOn } from './commands.ts';
import { encryptionWords, keyFlag } from './encryption.ts';
import { code, fenced, markdown } from './markdown.ts';
import { sizeChart } from './mermaid.ts';
import { prunedWords, retentionDetails } from './prune.ts';

/** A stored backup, and what to say about it. */
export interface BackupReport {
  readonly manifest: Manifest;
  /** One for each store that has it. */
  readonly stored: readonly StoredReport[];
  /** The stores that do not. */
  readonly missed: readonly { readonly uri: string; readonly failure: { readonly message: string } }[];
  /** All of them, pg_dump's own too. */
  readonly warnings: readonly string[];
  /** Earlier backups of its name and series, oldest first, and itself. */
  readonly history: readonly Manifest[];
  /** The newest restore test of them that passed. */
  readonly proven: Proof | undefined;
}

/** A backup in one of its stores. */
export interface StoredReport {
  readonly location: string;
  /** With stock programs; undefined where there are no roles. */
  readonly rolesCommand: string | undefined;
  readonly restoreCommand: string;
  /** When the store deletes it by itself. */
  readonly expiresAt: Date | undefined;
  /** What retention did there; undefined where there is no policy, or it could not be applied. */
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
  const { manifest, stored, missed, history, proven } = report;
  const { totals, database, timings } = manifest;
  const dump = manifest.files[0];
  const object = `${manifest.name}/${manifest.id}`;
  const size = `${formatCount(totals.tables, 'table')}, ${formatCount(totals.rows, 'row')}, ${formatBytes(database.sizeBytes)} → ${formatBytes(dump?.bytes ?? 0)} in ${formatSeconds(timings.total ?? 0)} · `;
  const lines = [
    `### Backup of ${markdown(manifest.name)} is whole and stored${missed.length === 0 ? '' : ` in ${stored.length} of ${stored.length + missed.length} stores`}`,
    '',
    `${details ? size : ''}PostgreSQL ${database.serverVersion} · snapshot ${formatTime(manifest.createdAt)}`,
    '',
    ...(details ? [] : [withheld, '']),
    `|${details ? ' store |' : ''} object | checked |`,
    `|${details ? '---|' : ''}---|---|`,
    ...stored.map(
      ({ location }) =>
        `|${details ? ` ${code(storeOf(location, manifest))} |` : ''} ${code(object)} | size, every row, SHA-256 |`,
    ),
    ...missed.map(({ uri, failure }) =>
      details
        ? `| ${code(uri)} | **not stored** | ${markdown(failure.message)} |`
        : '| **not stored** | the log says where, and why |',
    ),
    '',
    `${encryptionWords(manifest)} · ${manifest.signing === null ? 'not signed' : 'signed'} · label ${markdown(manifest.label)} · ${provenWords(proven, now)}`,
    '',
    ...stored.flatMap(({ location, expiresAt }) =>
      expiresAt === undefined
        ? []
        : [
            `**${details ? code(storeOf(location, manifest)) : 'A store'} deletes it on ${formatTime(expiresAt)}.**`,
            '',
          ],
    ),
    ...warnings(report.warnings, details),
    ...(details ? sizeChart(history) : []),
    '<details><summary>Restore it</summary>',
    '',
    ...(details ? stockLines(report) : []),
    'With pgassay, which creates the database and the missing roles and compares every table afterwards:',
    '',
    fenced('sh', [
      `TARGET_URL=postgresql://… ${commandOn(manifest.store, `restore ${manifest.id}`, details)} --name ${manifest.name}${keyFlag(manifest)}`,
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
      )}. Series ${manifest.series}; pg_dump ${manifest.tools.pgDump}; pgassay ${manifest.tools.pgassay}. ${retentionWords(report)}.`,
    '',
    '</details>',
    '',
    ...stored.flatMap(({ pruned }) => (pruned === undefined ? [] : retentionDetails(pruned, details))),
  ];
  return lines.join('\n');
}

/** `s3://bucket/prefix` of `s3://bucket/prefix/shop/<id>` */
function storeOf(location: string, { name, id }: Manifest): string {
  return location.slice(0, -`/${name}/${id}`.length);
}

/** `Retention: 3 backups deleted, 34 kept; nothing was deleted`: one part for each store. */
function retentionWords({ stored }: BackupReport): string {
  const words = stored.map(({ pruned }) => (pruned === undefined ? 'nothing was deleted' : prunedWords(pruned)));
  return `Retention: ${words.join('; ')}`;
}

function stockLines({ manifest, stored }: BackupReport): string[] {
  const [first] = stored;
  if (first === undefined) return [];
  const { rolesCommand, restoreCommand } = first;
  const type = encryptionOf(manifest)?.type;
  const age = { age: ' and age (key.txt holds the secret key)', 'age-passphrase': ' and age' };
  const existing = '# roles that exist already only print an error';
  return [
    `With PostgreSQL's own programs${type === undefined ? '' : age[type]}, into an empty database:`,
    '',
    fenced('sh', [...(rolesCommand === undefined ? [] : [`${rolesCommand}   ${existing}`]), restoreCommand]),
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
