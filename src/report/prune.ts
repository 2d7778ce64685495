import type { Manifest } from '../manifest.ts';
import { formatBytes, formatCount, formatTime } from '../numbers.ts';
import type { KeptBackup, Pruned } from '../retention.ts';
import { code, markdown } from './markdown.ts';
import { sizeChart } from './mermaid.ts';
import { table } from './table.ts';

/** `3 backups deleted, 34 kept` */
export function prunedWords({ dryRun, paused, kept, removed }: Pruned): string {
  if (paused !== undefined) return `nothing deleted, ${kept.length} kept: retention is paused`;
  return `${formatCount(removed.length, 'backup')} ${dryRun ? 'would be deleted' : 'deleted'}, ${kept.length} kept`;
}

/** For a terminal: every backup, newest first, with the rules that keep it. */
export function pruneText(pruned: Pruned): string {
  const fate = pruned.dryRun ? 'goes' : 'deleted';
  const rows = [
    ...pruned.kept.map(({ manifest, reasons, refused }) => row(refused ? 'not deleted' : 'stays', manifest, reasons)),
    ...pruned.removed.toReversed().map((manifest) => row(fate, manifest, ['no rule keeps it'])),
    ...pruned.damaged.map(({ id, reason, untrusted }) => [
      untrusted ? 'not trusted' : 'damaged',
      id,
      '',
      '',
      '',
      `left alone: ${reason}`,
    ]),
  ].sort((a, b) => ((a[1] ?? '') < (b[1] ?? '') ? 1 : -1));
  const lines = [`${pruned.name}: ${prunedWords(pruned)}`];
  if (pruned.paused !== undefined) lines.push(`  ${pruned.paused}`);
  if (rows.length > 0) lines.push(table(['', 'id', 'taken', 'label', 'size', 'why'], rows, [4]));
  return lines.join('\n');
}

function row(fate: string, manifest: Manifest, reasons: readonly string[]): string[] {
  return [fate, manifest.id, formatTime(manifest.createdAt), manifest.label, sizeOf(manifest), reasons.join(', ')];
}

function sizeOf({ files }: Manifest): string {
  return formatBytes(files.reduce((bytes, file) => bytes + file.bytes, 0));
}

const mostRows = 200;

/** The job summary: what went, then why the rest stays. Without `details` it holds no sizes. */
export function pruneSummary(pruned: Pruned, details: boolean): string {
  const { name, removed, paused, damaged, dryRun } = pruned;
  const refused = pruned.kept.filter((each) => each.refused);
  return [
    `### Retention of ${markdown(name)}: ${prunedWords(pruned)}`,
    '',
    ...(paused === undefined ? [] : [`${markdown(paused)}. Find out why backups stopped before anything else.`, '']),
    ...(damaged.length === 0 ? [] : [...named('Not usable, and left alone:', damaged, details), '']),
    ...(refused.length === 0 ? [] : ['The store did not let these go:', '', ...keptTable(refused, details)]),
    ...(removed.length === 0
      ? []
      : [
          dryRun ? 'These would go:' : 'These are gone:',
          '',
          `| backup | taken | label |${details ? ' size |' : ''}`,
          `|---|---|---|${details ? '---:|' : ''}`,
          ...removed
            .slice(0, mostRows)
            .map(
              (each) =>
                `| ${code(each.id)} | ${formatTime(each.createdAt)} | ${markdown(each.label)} |${details ? ` ${sizeOf(each)} |` : ''}`,
            ),
          '',
          ...more(removed.length),
        ]),
    ...(details ? sizeChart(pruned.kept.map(({ manifest }) => manifest).toReversed()) : []),
    ...retentionDetails(pruned, details),
  ].join('\n');
}

/** A fold-out that tells of every backup which rule keeps it. */
export function retentionDetails({ kept }: Pruned, details: boolean): string[] {
  if (kept.length === 0) return [];
  return ['<details><summary>What stays, and why</summary>', '', ...keptTable(kept, details), '</details>', ''];
}

function keptTable(kept: readonly KeptBackup[], details: boolean): string[] {
  return [
    `| backup | taken | label |${details ? ' size |' : ''} why |`,
    `|---|---|---|${details ? '---:|' : ''}---|`,
    ...kept
      .slice(0, mostRows)
      .map(
        ({ manifest, reasons }) =>
          `| ${code(manifest.id)} | ${formatTime(manifest.createdAt)} | ${markdown(manifest.label)} |${details ? ` ${sizeOf(manifest)} |` : ''} ${markdown(reasons.join(', '))} |`,
      ),
    '',
    ...more(kept.length),
  ];
}

function named(title: string, damaged: Pruned['damaged'], details: boolean): string[] {
  return [title, '', ...damaged.map(({ id, reason }) => `- ${code(id)}${details ? `: ${markdown(reason)}` : ''}`)];
}

function more(count: number): string[] {
  return count > mostRows ? [`and ${formatCount(count - mostRows, 'more backup')}`, ''] : [];
}
