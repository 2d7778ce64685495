import { safetyLabel } from '../../backup-id.ts';
import type { Backup } from '../../catalog.ts';
import type { NameState } from '../../page-facts.ts';
import { type Proof, restoreSeconds } from '../../proof.ts';
import type { Fate, Forecast } from '../../retention-forecast.ts';
import { type Html, html } from './html.ts';
import { age, time } from './marks.ts';
import { sizeOf } from './trends.ts';
import { bytes, count, seconds } from './words.ts';

export interface BackupsView {
  readonly now: Date;
  readonly details: boolean;
}

const shownRows = 14;
/** Older ones are folded by month, or by year where the months would be many. */
const mostMonths = 13;

/** Every backup, newest first, and what becomes of it. */
export function backupList({ backups, lastTests, forecast }: NameState, view: BackupsView): Html {
  if (backups.length === 0) return html``;
  const older = backups.slice(shownRows);
  const months = Map.groupBy(older, ({ manifest }) => manifest.createdAt.slice(0, 7));
  const groups =
    months.size <= mostMonths ? months : Map.groupBy(older, ({ manifest }) => manifest.createdAt.slice(0, 4));
  const table = (part: readonly Backup[]): Html => backupTable(part, lastTests, forecast, view);
  const sizeWords = (part: readonly Backup[]): string =>
    view.details ? `, ${bytes(part.reduce((sum, each) => sum + sizeOf(each), 0))}` : '';
  return html`<h3>Backups</h3>
${forecast === undefined ? html`<p class="soft">What retention does next is shown when this page is written with the <code>keep-*</code> rules of the backup workflow.</p>` : forecastWords(forecast)}
${table(backups.slice(0, shownRows))}
${[...groups].map(
  ([period, part]) => html`<details><summary>${period}: ${count(part.length, 'backup')}${sizeWords(part)}</summary>
${table(part)}</details>`,
)}`;
}

function forecastWords({ paused, everyMs, end }: Forecast): Html {
  if (paused !== undefined)
    return html`<p><strong>Retention is paused:</strong> ${paused}. Until there is a newer backup nothing is deleted.</p>`;
  return html`<p class="soft">When a backup goes is foretold as if one came every ${seconds(everyMs / 1000)}, up to ${end.toISOString().slice(0, 10)}. The newest one that a restore test passed and the last one that each key opened stay longer, until there is another such one.</p>`;
}

function backupTable(
  backups: readonly Backup[],
  tests: ReadonlyMap<string, Proof>,
  forecast: Forecast | undefined,
  view: BackupsView,
): Html {
  const heads = ['Backup', ...(view.details ? ['Holds'] : []), 'Restore test', ...(forecast ? ['Retention'] : [])];
  return html`<table class="rows" role="table" aria-label="Backups"><thead role="rowgroup"><tr role="row">${heads.map((head) => html`<th role="columnheader" scope="col">${head}</th>`)}</tr></thead>
<tbody role="rowgroup">${backups.map((backup) => row(backup, tests.get(backup.manifest.id), forecast, view))}</tbody></table>`;
}

function row(backup: Backup, test: Proof | undefined, forecast: Forecast | undefined, view: BackupsView): Html {
  const { manifest } = backup;
  const { id, createdAt, label, series, totals } = manifest;
  const words = [
    label === 'scheduled' ? undefined : label === safetyLabel ? `${label}, a safety backup` : label,
    series === 'full' ? undefined : series,
    manifest.files.some(({ encryption }) => encryption !== null) ? 'encrypted' : undefined,
    manifest.signing === null ? undefined : 'signed',
  ].filter((word) => word !== undefined);
  return html`<tr role="row"><td class="whole" role="cell">${time(createdAt)} <span class="soft">${age(createdAt, view.now)}</span><br><code>${id}</code>${words.map((word) => html` <span class="tag">${word}</span>`)}</td>
${view.details && html`<td class="whole" role="cell">${bytes(sizeOf(backup))} <span class="soft under">${count(totals.rows, 'row')}</span></td>`}
<td role="cell">${proofCell(test, view.now)}</td>
${forecast && html`<td role="cell">${fateCell(forecast.fates.get(id), forecast, manifest.expiresAt)}</td>`}</tr>`;
}

function proofCell(test: Proof | undefined, now: Date): Html {
  if (test === undefined) return html`<span class="soft">not tested</span>`;
  const took = seconds(restoreSeconds(test.timings));
  return html`<span class="word ${test.result}">${test.result}</span> <span class="soft under">${age(test.testedAt, now)}, ${took}</span>`;
}

function fateCell(fate: Fate | undefined, { paused, end }: Forecast, expiresAt: string | null): Html {
  const expiry = expiresAt === null ? '' : `; the store lets it expire on ${expiresAt.slice(0, 10)}`;
  if (fate === undefined) return html`<span class="soft">${expiry}</span>`;
  const { keptBy, goes } = fate;
  if (keptBy.length === 0)
    return html`${paused === undefined ? 'goes with the next run' : 'would go, were retention not paused'} <span class="soft under">no rule keeps it${expiry}</span>`;
  const until =
    goes === undefined
      ? html`stays beyond ${end.toISOString().slice(0, 10)}`
      : html`stays until ${goes.toISOString().slice(0, 10)}`;
  return html`${until} <span class="soft under">${keptBy.map(withoutPeriod).join(', ')}${expiry}</span>`;
}

/** `keep-daily 7` of `keep-daily 7: 2026-11-20`, which stands beside the time it comes from. */
function withoutPeriod(rule: string): string {
  return rule.replace(/^(keep-(?:daily|weekly|monthly|yearly) \d+): .*$/, '$1');
}
