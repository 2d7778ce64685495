import type { BackupDay, DayState } from '../../backup-days.ts';
import { type Html, html } from './html.ts';
import { heard } from './marks.ts';

const monthNames = 'January February March April May June July August September October November December'.split(' ');
const weekdays = 'Monday Tuesday Wednesday Thursday Friday Saturday Sunday'.split(' ');
const mostMonths = 12;

const meanings: Record<DayState, string> = {
  proven: 'a backup that a restore test passed',
  stored: 'a backup, not tested by itself',
  failed: 'only backups that failed their restore test or are damaged',
  missed: 'a backup was due, and none was taken',
  none: 'none was due, or not yet',
  gone: 'none is kept',
};

/** The days with and without a good backup, a month each, the newest last. Empty without any day. */
export function calendar(days: readonly BackupDay[]): Html {
  const months = [...Map.groupBy(days, ({ day }) => day.slice(0, 7))].slice(-mostMonths);
  const today = days.at(-1)?.day;
  if (today === undefined) return html``;
  const shown = new Set(months.flatMap(([, each]) => each.map(({ state }) => state)));
  const legend = (Object.keys(meanings) as DayState[]).filter((state) => shown.has(state));
  return html`<h3>Days</h3>
<div class="months">${months.map(([month, each]) => monthTable(month, each, today))}</div>
<ul class="legend">${legend.map((state) => html`<li><span class="day ${state}" aria-hidden="true">1</span>${meanings[state]}</li>`)}</ul>
<p class="soft">${summaryOf(days)} Days are in UTC.</p>`;
}

function summaryOf(days: readonly BackupDay[]): string {
  const count = (state: DayState): number => days.filter((day) => day.state === state).length;
  const good = count('proven') + count('stored');
  const missed = count('missed');
  const gone = count('gone');
  return [
    `Of the last ${days.length === 1 ? 'day' : `${days.length} days`}, ${good} ${good === 1 ? 'has' : 'have'} a good backup`,
    missed === 0 ? ', none was missed' : `, ${missed} ${missed === 1 ? 'was' : 'were'} missed`,
    gone === 0 ? '.' : `; of ${gone} none is kept any more.`,
  ].join('');
}

function monthTable(month: string, days: readonly BackupDay[], today: string): Html {
  const [year = 0, number = 1] = month.split('-').map(Number);
  const first = (new Date(Date.UTC(year, number - 1, 1)).getUTCDay() + 6) % 7;
  const length = new Date(Date.UTC(year, number, 0)).getUTCDate();
  const known = new Map(days.map((day) => [Number(day.day.slice(8)), day]));
  const weeks = Array.from({ length: Math.ceil((first + length) / 7) }, (_, week) =>
    Array.from({ length: 7 }, (_, weekday) => week * 7 + weekday - first + 1),
  ).filter((dates) => dates.some((date) => known.has(date)));
  return html`<table class="month"><caption>${monthNames[number - 1]} ${year}</caption>
<thead><tr>${weekdays.map((name) => html`<th scope="col"><abbr title="${name}">${name.slice(0, 1)}</abbr></th>`)}</tr></thead>
<tbody>${weeks.map((dates) => html`<tr>${dates.map((date) => dayCell(date, known.get(date), today))}</tr>`)}</tbody></table>`;
}

function dayCell(date: number, day: BackupDay | undefined, today: string): Html {
  if (day === undefined) return html`<td></td>`;
  const many = day.count > 1 ? ` (${day.count} backups)` : '';
  const title = `${day.day}: ${meanings[day.state]}${many}`;
  return html`<td${day.day === today && html` aria-current="date"`}><span class="day ${day.state}" title="${title}">${date}</span>${heard(`: ${meanings[day.state]}${many}`)}</td>`;
}
