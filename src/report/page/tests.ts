import { formatTime } from '../../numbers.ts';
import { type Level, type Proof, restoreSeconds } from '../../proof.ts';
import { type Mark, stemChart } from './chart.ts';
import { type Html, html, link } from './html.ts';
import { age } from './marks.ts';
import { count, seconds } from './words.ts';

export interface TestsView {
  readonly now: Date;
  readonly targetSeconds: number | undefined;
  readonly details: boolean;
}

const levels: Record<Level, string> = { content: 'every value', rows: 'rows of every table', schema: 'definitions' };
const [shownRows, mostRows] = [8, 200];
const mostMarks = 120;

/** The restore tests, newest first: how long each took, against the target. */
export function restoreTests(tests: readonly Proof[], view: TestsView): Html {
  const [last] = tests;
  if (last === undefined)
    return html`<h3>Restore tests</h3>
<p>None yet. A backup is proven when it has been restored: <code>pgassay restore-test</code>, or the action of that name on a schedule.</p>`;
  const target = view.targetSeconds ?? last.maxRestoreSeconds ?? undefined;
  const marks = tests.slice(0, mostMarks).toReversed().map(markOf);
  const passed = tests.filter(({ result }) => result === 'passed').length;
  const words = `${count(tests.length, 'restore test')}, ${passed} passed; the last one took ${seconds(secondsOf(last))}${target === undefined ? '' : ` of the ${seconds(target)} allowed`}`;
  return html`<h3>Restore tests</h3>
${stemChart(marks, target === undefined ? undefined : { value: target, words: `${seconds(target)} allowed` }, { title: 'Time to download and restore', words, format: seconds, units: 'time' })}
${table(tests.slice(0, shownRows), view)}
${
  tests.length > shownRows &&
  html`<details><summary>${count(Math.min(tests.length, mostRows) - shownRows, 'earlier test')}</summary>
${table(tests.slice(shownRows, mostRows), view)}</details>`
}`;
}

function markOf(proof: Proof): Mark {
  const value = secondsOf(proof);
  const words = `${formatTime(proof.testedAt)}: ${proof.result}, ${seconds(value)}`;
  return { time: Date.parse(proof.testedAt), value, kind: proof.result, words };
}

function secondsOf({ timings }: Proof): number {
  return restoreSeconds(timings);
}

function table(tests: readonly Proof[], view: TestsView): Html {
  return html`<table class="rows" role="table" aria-label="Restore tests"><thead role="rowgroup"><tr role="row"><th role="columnheader" scope="col">Tested</th><th role="columnheader" scope="col">Result</th><th role="columnheader" scope="col">Recovery took</th><th role="columnheader" scope="col">Backup</th></tr></thead>
<tbody role="rowgroup">${tests.map((each) => row(each, view))}</tbody></table>`;
}

function row(proof: Proof, { now, targetSeconds, details }: TestsView): Html {
  const took = secondsOf(proof);
  const limit = targetSeconds ?? proof.maxRestoreSeconds ?? undefined;
  const { result, findings, findingsLeftOut, level } = proof;
  const found = findings.length + findingsLeftOut;
  const [first] = findings;
  return html`<tr role="row"><td class="whole" role="cell">${age(proof.testedAt, now)}${details && proof.runUrl !== null && html` <span class="soft">${link(proof.runUrl, 'run', `run that tested ${proof.backupId}`)}</span>`}</td>
<td role="cell"><span class="word ${result}">${result}</span> <span class="soft">${
    result === 'passed'
      ? `compared ${levels[level]}`
      : details && first !== undefined
        ? `${count(found, 'finding')}: ${first.object}, expected ${first.expected}, found ${first.found}`
        : count(found, 'finding')
  }</span></td>
<td class="whole" role="cell">${seconds(took)}${limit !== undefined && html` <span class="soft">of ${seconds(limit)}${took > limit && ', too long'}</span>`}</td>
<td role="cell"><code>${proof.backupId}</code></td></tr>`;
}
