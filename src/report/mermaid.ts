import type { Manifest } from '../manifest.ts';
import { type Proof, restoreSeconds } from '../proof.ts';
import { fenced } from './markdown.ts';

/** Fewer say nothing over time. */
const leastBars = 3;
const mostBars = 30;

/** Sizes over time say more than one size: a dump that shrank overnight is worth a look. Oldest first; nothing for too few. */
export function sizeChart(history: readonly Manifest[]): string[] {
  const shown = history.slice(-mostBars);
  const sizes = shown.map((manifest) => manifest.files[0]?.bytes ?? 0);
  const most = Math.max(...sizes);
  const [unit, divisor] = most >= 1e9 ? ['GB', 1e9] : most >= 1e6 ? ['MB', 1e6] : ['kB', 1e3];
  return barChart({
    ...{ title: `Size of the last ${shown.length} backups`, unit },
    bars: shown.map(({ createdAt }, at) => ({ at: createdAt, value: (sizes[at] ?? 0) / divisor })),
  });
}

/** What recoveries took. Newest first, as the tests are listed. */
export function recoveryChart(tests: readonly Proof[]): string[] {
  const shown = tests.slice(0, mostBars).toReversed();
  const times = shown.map(({ timings }) => restoreSeconds(timings));
  const [unit, divisor] = Math.max(...times) >= 300 ? ['minutes', 60] : ['seconds', 1];
  return barChart({
    ...{ title: `Download and restore in the last ${shown.length} tests`, unit },
    bars: shown.map(({ testedAt }, at) => ({ at: testedAt, value: (times[at] ?? 0) / divisor })),
  });
}

interface Bars {
  readonly title: string;
  readonly unit: string;
  readonly bars: readonly { readonly at: string; readonly value: number }[];
}

/** GitHub draws it. Nothing in it is text of anybody's: titles are ours, the rest are dates and numbers. */
function barChart({ title, unit, bars }: Bars): string[] {
  if (bars.length < leastBars) return [];
  const values = bars.map(({ value }) => value);
  return [
    fenced('mermaid', [
      'xychart-beta',
      `  title "${title}"`,
      `  x-axis [${bars.map(({ at }) => `"${at.slice(5, 10)}"`).join(', ')}]`,
      `  y-axis "${unit}" 0 --> ${plain(Math.max(...values))}`,
      `  bar [${values.map(plain).join(', ')}]`,
    ]),
    '',
  ];
}

/** Three digits, never with an exponent, which Mermaid does not read. */
function plain(value: number): string {
  return String(Number(value.toPrecision(3)));
}
