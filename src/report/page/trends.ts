import type { Backup } from '../../catalog.ts';
import { lineChart, type Point } from './chart.ts';
import { type Html, html } from './html.ts';
import { bytes, count, number } from './words.ts';

/** How size and rows went. Nothing while there is but one backup. */
export function trends(series: readonly Backup[]): Html {
  if (series.length < 2) return html``;
  const sizes = pointsOf(series, sizeOf);
  const rows = pointsOf(series, ({ manifest }) => manifest.totals.rows);
  return html`<h3>Size and rows</h3>
<div class="charts">
${lineChart(sizes, { title: `Stored size, now ${lastOf(sizes, bytes)}`, words: wordsOf('Stored size', sizes, bytes), format: bytes })}
${lineChart(rows, { title: `Rows, now ${lastOf(rows, number)}`, words: wordsOf('Rows', rows, number), format: number })}
</div>`;
}

/** All of its files, as `health` and `prune` count it. */
export function sizeOf({ manifest }: Backup): number {
  return manifest.files.reduce((sum, file) => sum + file.bytes, 0);
}

function pointsOf(series: readonly Backup[], value: (backup: Backup) => number): Point[] {
  return series.map((backup) => ({ time: Date.parse(backup.manifest.createdAt), value: value(backup) })).toReversed();
}

function lastOf(points: readonly Point[], format: (value: number) => string): string {
  return format(points.at(-1)?.value ?? 0);
}

function wordsOf(what: string, points: readonly Point[], format: (value: number) => string): string {
  const values = points.map(({ value }) => value);
  const [least, most] = values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [
    Number.POSITIVE_INFINITY,
    0,
  ] as readonly [number, number]);
  const dates = [points[0], points.at(-1)].map((point) => new Date(point?.time ?? 0).toISOString().slice(0, 10));
  return `${what} of ${count(points.length, 'backup')}, ${dates[0]} to ${dates[1]}: first ${format(values[0] ?? 0)}, last ${format(values.at(-1) ?? 0)}, least ${format(least)}, most ${format(most)}`;
}
