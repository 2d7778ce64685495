import type { Backup } from '../../catalog.ts';
import type { HealthFinding } from '../../health-findings.ts';
import type { NameState, PageFacts } from '../../page-facts.ts';
import { restoreSeconds } from '../../proof.ts';
import { commandOn } from '../commands.ts';
import { keyFlag } from '../encryption.ts';
import { stateSentence } from '../state.ts';
import { backupList } from './backups.ts';
import { calendar } from './calendar.ts';
import { type Html, html } from './html.ts';
import { age, markOf, statusMark, time } from './marks.ts';
import { restoreTests } from './tests.ts';
import { trends } from './trends.ts';
import { bytes, count, seconds, unbroken } from './words.ts';

/** All about one name, from what is wrong to the list of its backups. */
export function nameSection(state: NameState, page: PageFacts): Html {
  return html`${findings(state.condition.findings, page.details)}
${figures(state, page)}
${calendar(state.days)}
${page.details && trends(state.condition.series)}
${restoreTests(state.tests, page)}
${backupList(state, page)}
${restoreLines(state, page)}`;
}

/** One of several: what is fine is folded. */
export function foldedName(state: NameState, page: PageFacts): Html {
  const { status } = state.condition;
  return html`<details class="name"${status !== 'ok' && html` open`}><summary>${markOf(state.condition)} <h2>${state.name}</h2><span class="soft">${unbroken(stateSentence(state.condition, page))}</span></summary>
<div>${nameSection(state, page)}</div></details>`;
}

/** What is not as it should be, and what to do about it. */
function findings(all: readonly HealthFinding[], details: boolean): Html {
  if (all.length === 0) return html``;
  return html`<ul class="findings">${all.map(
    ({ severity, object, expected, found, hint }) => html`<li>${statusMark(severity)}<div>
<p><strong>${severity}${details && html`: ${object}`}</strong>${details && html`<br>${found}; expected: ${expected}`}</p>
<p class="soft">What to do: ${hint}.</p></div></li>`,
  )}</ul>`;
}

function figures({ condition, backups }: NameState, { details, now, targetSeconds }: PageFacts): Html {
  const { newest, proven, totalBytes } = condition;
  if (newest === undefined) return html``;
  const { manifest } = newest;
  const target = targetSeconds ?? proven?.maxRestoreSeconds ?? undefined;
  const encrypted = manifest.files.some(({ encryption }) => encryption !== null);
  const plain = `${encrypted ? 'encrypted' : 'not encrypted'}, ${manifest.signing === null ? 'not signed' : 'signed'}`;
  const all: readonly (readonly [string, Html, Html | false])[] = [
    ['Last backup', age(manifest.createdAt, now), html`${time(manifest.createdAt)}`],
    [
      'Last proven',
      proven === undefined ? html`never` : age(proven.testedAt, now),
      proven === undefined ? html`no restore test has passed` : html`${time(proven.testedAt)}`,
    ],
    [
      'Recovery took',
      proven === undefined ? html`unknown` : html`${seconds(restoreSeconds(proven.timings))}`,
      target === undefined ? html`no limit is set` : html`of ${seconds(target)} allowed`,
    ],
    ...(details
      ? [
          [
            'Holds',
            html`${count(manifest.totals.tables, 'table')}`,
            html`${count(manifest.totals.rows, 'row')}`,
          ] as const,
        ]
      : []),
    [
      'In store',
      details ? html`${bytes(totalBytes)}` : html`${count(backups.length, 'backup')}`,
      details && html`${count(backups.length, 'backup')}`,
    ],
  ];
  return html`<dl class="figures">${all.map(
    ([term, value, note]) =>
      html`<div><dt>${term}</dt><dd><strong>${value}</strong><span class="soft">${note}</span></dd></div>`,
  )}</dl>
<p class="soft">PostgreSQL ${manifest.database.serverVersion}${details && html`, database ${manifest.database.name}`}; the last backup is ${plain}.</p>`;
}

/** At 2 a.m. this is what the page was opened for. */
function restoreLines({ name, condition }: NameState, { details, shellStore }: PageFacts): Html {
  const { newest, series } = condition;
  if (newest === undefined) return html``;
  const proven = series.find(({ manifest }) => manifest.id === condition.proven?.backupId);
  const line = ({ manifest }: Backup): Html =>
    html`<pre><code>TARGET_URL=postgresql://… ${commandOn(shellStore, `restore ${manifest.id}`, details)} --name ${name}${keyFlag(manifest)}</code></pre>`;
  return html`<h3>Restore it</h3>
<p>The newest backup, into a database that is empty or does not exist yet:</p>
${line(newest)}
${proven !== undefined && proven !== newest && html`<p>The newest one that a restore test passed:</p>${line(proven)}`}`;
}
