import type { AlertKind, Failed, Passed, Report, RunOfAlert } from '../alert-state.ts';
import { formatCount, formatSeconds, formatTime } from '../numbers.ts';
import { firstStep, headline, meaning } from './issue.ts';
import { cut } from './markdown.ts';

/** What a message of a run is about. */
export interface MessageContext {
  readonly kind: AlertKind;
  /** Whose backups; the repository where the name could not be read. */
  readonly name: string;
  /** The store's URI; undefined: it could not be read. */
  readonly store: string | undefined;
  readonly run: RunOfAlert;
  /** `owner/name` */
  readonly repository: string;
  /** False: no messages, no names out of the database, no counts, no store. */
  readonly details: boolean;
  readonly now: Date;
  /** What the issue remembers; undefined: there is none, or nobody could ask. */
  readonly known: KnownOfRun | undefined;
}

/** What a run's issue remembers of the run's kind. */
export interface KnownOfRun {
  /** This run changed something: it is the first to fail, it failed anew or is due again, it ended what failed. */
  readonly news: boolean;
  /** The first failure, ISO; undefined: nothing of this kind failed. */
  readonly since: string | undefined;
  /** Failed runs since then. */
  readonly runs: number;
  readonly issue: { readonly number: number; readonly url: string };
}

/** One message: what, since when, what it means, what to do, where to look. Secrets were taken out of it before. */
export interface Message {
  /** One line. */
  readonly title: string;
  readonly facts: readonly Fact[];
  /** Lines that are not ours: errors, findings. */
  readonly quoted: readonly string[];
  readonly advice: readonly { readonly label: string; readonly text: string }[];
  readonly links: readonly { readonly label: string; readonly url: string }[];
}

/** `code`: text of somebody else's. */
export interface Fact {
  readonly label: string;
  readonly code?: string;
}

const mostTitle = 200;
const mostError = 1_500;
const mostHint = 1_000;
const mostFindings = 10;
const mostFinding = 300;

const passedWords: Record<AlertKind, { readonly again: string; readonly plain: string }> = {
  backup: { again: 'backups work again', plain: 'backup stored' },
  'restore-test': { again: 'restore test passed again', plain: 'restore test passed' },
  health: { again: 'backups are healthy again', plain: 'backups are healthy' },
  prune: { again: 'prune works again', plain: 'prune passed' },
};

export function messageOf(context: MessageContext, report: Report): Message {
  const { run, known } = context;
  const links = [
    { label: `run ${run.id}${run.attempt === '1' ? '' : `, attempt ${run.attempt}`}`, url: run.url },
    ...(known === undefined ? [] : [{ label: `issue #${known.issue.number}`, url: known.issue.url }]),
  ];
  return { ...(report.outcome === 'failed' ? ofFailed(context, report) : ofPassed(context, report)), links };
}

function ofFailed(context: MessageContext, report: Failed): Omit<Message, 'links'> {
  const { kind, now, known, details } = context;
  const { since, runs } = known ?? { since: undefined, runs: 0 };
  const again = since === undefined || runs < 2 ? [] : [`since ${formatTime(since)}`, formatCount(runs, 'failed run')];
  return {
    title: titleOf(context, headline(kind, report, details)),
    facts: [{ label: formatTime(now) }, ...again.map((label) => ({ label })), ...placeOf(context)],
    quoted: details ? quotedOf(report) : [],
    advice: [
      ...(details ? [] : [withheld]),
      { label: 'What it means', text: meaning(kind, report) },
      { label: 'What to do', text: `${firstStep(kind, report, true)} Then run the failed job again.` },
    ],
  };
}

const withheld = {
  label: 'Withheld',
  text: 'The message, names and counts: the repository is public, or may be, or `alert-details` is `false`. The log of the run has them.',
};

function ofPassed(context: MessageContext, { seconds, backup }: Passed): Omit<Message, 'links'> {
  const { kind, now, known } = context;
  const words = passedWords[kind];
  const over = known?.news === true && known.since !== undefined ? known.since : undefined;
  const failed = over === undefined ? undefined : formatSeconds((now.getTime() - new Date(over).getTime()) / 1000);
  const open = known !== undefined && !known.news && known.since !== undefined;
  return {
    title: titleOf(context, over === undefined ? words.plain : words.again),
    facts: [
      { label: formatTime(now) },
      ...(backup === undefined ? [] : [{ label: 'backup', code: backup.id }]),
      { label: `took ${formatSeconds(seconds)}` },
      ...placeOf(context),
    ],
    quoted: [],
    advice: [
      ...(over === undefined || failed === undefined
        ? []
        : [
            {
              label: 'Before that',
              text: `${formatCount(known?.runs ?? 0, 'failed run')} since ${formatTime(over)}, for ${failed}.`,
            },
          ]),
      ...(open ? [{ label: 'Still open', text: 'What failed before is something else, and has not passed.' }] : []),
    ],
  };
}

function titleOf({ name }: MessageContext, words: string): string {
  return cut(oneLine(`${name}: ${words}`), mostTitle);
}

function placeOf({ run, store, details, repository }: MessageContext): Fact[] {
  return [
    { label: 'repository', code: oneLine(repository) },
    { label: 'workflow', code: cut(oneLine(run.workflow), 100) },
    ...(details && store !== undefined ? [{ label: 'store', code: oneLine(store) }] : []),
  ];
}

function quotedOf({ error, findings }: Failed): string[] {
  const stage = error?.stage === undefined ? '' : `${error.stage}: `;
  const lines = [
    ...(error === undefined ? [] : [cut(`${stage}${error.message}`, mostError)]),
    ...(error?.hint === undefined ? [] : [cut(`hint: ${error.hint}`, mostHint)]),
    ...findings
      .slice(0, mostFindings)
      .map(({ object, expected, found }) => cut(`${object}: expected ${expected}, found ${found}`, mostFinding)),
  ];
  const rest = findings.length - mostFindings;
  return [...lines.map(visible), ...(rest > 0 ? [`and ${formatCount(rest, 'more finding')}`] : [])];
}

/** Without what is not seen, or turns the reading direction; line breaks stay. */
function visible(text: string): string {
  return text
    .replace(/\r\n?|[\u2028\u2029]/g, '\n')
    .replace(/(?!\n)[\p{Cc}\u200e\u200f\u202a-\u202e\u2066-\u2069]+/gu, ' ');
}

function oneLine(text: string): string {
  return visible(text).replace(/\s+/g, ' ');
}

/** As plain text, for mails and for `text` of the JSON webhook. */
export function plainText({ title, facts, quoted, advice, links }: Message): string {
  const parts = [
    title,
    facts.map(({ label, code }) => (code === undefined ? label : `${label} ${code}`)).join(' · '),
    ...(quoted.length === 0 ? [] : [quoted.map((text) => text.replace(/^/gm, '  ')).join('\n')]),
    ...advice.map(({ label, text }) => `${label}: ${text}`),
    links.map(({ label, url }) => `${label}: ${url}`).join('\n'),
  ];
  return `${parts.join('\n\n')}\n`;
}

/** In Slack's mrkdwn, where `<!channel>` calls everybody and backticks end code. */
export function slackText({ title, facts, quoted, advice, links }: Message): string {
  const parts = [
    `*${escaped(title.replace(/[`*]/g, "'"))}*`,
    facts
      .map(({ label, code }) => (code === undefined ? escaped(label) : `${escaped(label)} \`${inCode(code)}\``))
      .join(' · '),
    ...(quoted.length === 0 ? [] : [`\`\`\`\n${inCode(quoted.join('\n'))}\n\`\`\``]),
    ...advice.map(({ label, text }) => `*${label}.* ${escaped(text)}`),
    links.map(({ label, url }) => `<${escaped(url).replaceAll('|', '%7C')}|${escaped(label)}>`).join(' · '),
  ];
  return parts.join('\n');
}

/** The three characters that Slack gives a meaning everywhere. */
function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function inCode(text: string): string {
  return escaped(text.replaceAll('`', "'"));
}

/** What the JSON webhook gets. Fields are only ever added under this format's name. */
export function messageJson(
  context: MessageContext,
  report: Report,
  { id, message }: { readonly id: string; readonly message: Message },
): Readonly<Record<string, unknown>> {
  const { kind, name, store, run, repository, details, now, known } = context;
  const failed = report.outcome === 'failed' ? report : undefined;
  const error = failed?.error;
  const findings = failed?.findings ?? [];
  return {
    format: 'pgassay-alert/1',
    id,
    sentAt: now.toISOString(),
    kind,
    outcome: report.outcome,
    name,
    store: details ? (store ?? null) : null,
    title: message.title,
    text: plainText(message),
    error:
      error === undefined
        ? null
        : {
            stage: error.stage ?? null,
            exit: error.exit,
            message: details ? cut(error.message, mostError) : null,
            hint: details && error.hint !== undefined ? cut(error.hint, mostHint) : null,
          },
    findings: details ? findings.slice(0, mostFindings) : [],
    findingsTotal: details ? findings.length : null,
    backupId: backupOf(report),
    news: known?.news ?? null,
    since: known?.since ?? null,
    failedRuns: known === undefined ? null : known.runs,
    issue: known?.issue ?? null,
    run: { id: run.id, attempt: run.attempt, url: run.url, workflow: run.workflow, repository },
  };
}

function backupOf(report: Report): string | null {
  if (report.outcome === 'passed' && report.backup !== undefined) return report.backup.id;
  return report.subject.of === 'backup' ? report.subject.id : null;
}
