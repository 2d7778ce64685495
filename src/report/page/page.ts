import { createHash } from 'node:crypto';
import type { HealthStatus } from '../../health-findings.ts';
import type { NameState, PageFacts } from '../../page-facts.ts';
import { statesSentence } from '../state.ts';
import { Html, html } from './html.ts';
import { statusMark, time } from './marks.ts';
import { foldedName, nameSection } from './name.ts';
import { style } from './style.ts';
import { seconds, unbroken } from './words.ts';

/** By this a page is known to be this program's. */
export const generator = html`<meta name="generator" content="pgassay report">`;

/**
 * The page: one HTML document that asks the network for nothing, and that its own policy forbids to. All it says is there
 * without its script, which only speaks up once the page is out of date.
 */
export function page(facts: PageFacts): Html {
  const { names, now, status, details, store } = facts;
  const sentence = unbroken(statesSentence(names, facts));
  const title = `${status === 'ok' ? '' : `${status}: `}backups${details ? ` in ${store}` : ''}`;
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<meta name="referrer" content="no-referrer">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src '${hashOf(style)}'; script-src '${hashOf(script)}'; img-src data:; base-uri 'none'; form-action 'none'">
${generator}
<title>${title}</title>
<link rel="icon" href="data:,">
<style>${new Html(style)}</style>
</head>
<body>
<a class="skip" href="#state">Skip to the state</a>
<header><p><strong>pgassay</strong>${details && html` <code>${store}</code>`}</p><p class="soft">as of ${time(now)}</p></header>
<main id="state">
<p id="stale" class="stale" role="alert" data-until="${goodUntil(facts).toISOString()}" hidden>This page is out of date: it was written ${time(now)}, and says nothing about what happened since.</p>
<div class="state ${status}">${names.every(isProven) ? statusMark(status) : statusMark(status === 'ok' ? 'unproven' : status)}<h1>${sentence}</h1></div>
${names.length === 1 ? names.map((each) => html`<section aria-label="${each.name}"><h2>${each.name}</h2>${nameSection(each, facts)}</section>`) : byNeed(names).map((each) => foldedName(each, facts))}
</main>
<footer>
<p>By ${time(goodUntil(facts))} there should be a newer backup${names.length > 1 && ' of one of them'}, and a newer page. ${policyWords(facts)}</p>
<p>${details ? '' : 'Names of the database, counts, sizes and the store are withheld here. '}Written by pgassay ${facts.release}. This page loads nothing from anywhere.</p>
</footer>
<script>${new Html(script)}</script>
</body>
</html>
`;
}

function isProven({ condition }: NameState): boolean {
  return condition.proven !== undefined;
}

/** A page that nobody renews goes on saying that all is well: after this it says so. */
function goodUntil({ names, now, health }: PageFacts): Date {
  const due = names.flatMap(({ condition: { newest } }) =>
    newest === undefined ? [] : [Date.parse(newest.manifest.createdAt) + health.criticalAfterMs],
  );
  const next = Math.min(...due.filter((time) => time > now.getTime()));
  return new Date(Number.isFinite(next) ? next : now.getTime() + health.criticalAfterMs);
}

const script = `const stale = document.getElementById('stale');
const look = () => { stale.hidden = Date.now() <= Date.parse(stale.dataset.until); };
look();
setInterval(look, 60000);
`;

/** What needs somebody first. */
function byNeed(names: readonly NameState[]): NameState[] {
  const order: readonly HealthStatus[] = ['critical', 'warning', 'ok'];
  return names.toSorted((a, b) => order.indexOf(a.condition.status) - order.indexOf(b.condition.status));
}

function policyWords({ health }: PageFacts): string {
  const { warnAfterMs, criticalAfterMs, maxProofAgeMs, minBackups } = health;
  const said = [
    `a backup is late after ${seconds(warnAfterMs / 1000)} and overdue after ${seconds(criticalAfterMs / 1000)}`,
    maxProofAgeMs === undefined
      ? undefined
      : `a restore test has to have passed in the last ${seconds(maxProofAgeMs / 1000)}`,
    minBackups === undefined ? undefined : `at least ${minBackups} backups are wanted`,
  ].filter((each) => each !== undefined);
  return `How it is judged: ${said.join('; ')}.`;
}

function hashOf(text: string): string {
  return `sha256-${createHash('sha256').update(text).digest('base64')}`;
}
