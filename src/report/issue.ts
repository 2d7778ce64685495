import {
  type AlertKind,
  type AlertState,
  alertKinds,
  digestOf,
  everyName,
  exitCodeOf,
  type Failed,
  type FailedChange,
  markOf,
  type Passed,
  type RunOfAlert,
  type Section,
  type Subject,
} from '../alert-state.ts';
import type { ExitName } from '../failure.ts';
import { formatCount, formatSeconds, formatTime } from '../numbers.ts';
import type { Finding } from '../verdict.ts';
import { variablesFor } from './commands.ts';
import { code, cut, fenced } from './markdown.ts';

/** What every text of an issue is about. */
export interface IssueContext {
  readonly kind: AlertKind;
  readonly name: string;
  readonly run: RunOfAlert;
  /** The store's canonical URI. */
  readonly store: string;
  /** How a shell line says which store: `--store s3://acme-backups/prod --s3-region eu-central-1`. */
  readonly storeFlags: string;
  /** False: no names out of the database, no counts, no store; they are for those who may read the log's repository. */
  readonly details: boolean;
  readonly now: Date;
}

/** Bytes, so that each of four sections stays below a quarter of that whatever the script. */
const mostMessage = 2_500;
const mostHint = 1_500;
const mostTable = 3_500;
const mostCell = 300;
const mostSection = 11_000;
const mostTitle = 240;

const failedWords: Record<AlertKind, string> = {
  backup: 'backup failed',
  'restore-test': 'restore test failed',
  health: 'health is critical',
  prune: 'prune failed',
};

const verbs: Record<AlertKind, { readonly failed: string; readonly passed: string }> = {
  backup: { failed: 'The backup of NAME failed', passed: 'The backup of NAME works again' },
  'restore-test': { failed: 'The restore test of NAME failed', passed: 'The restore test of NAME passed' },
  health: { failed: 'The health of the backups of NAME is critical', passed: 'The backups of NAME are healthy again' },
  prune: { failed: 'Pruning the backups of NAME failed', passed: 'Pruning the backups of NAME works again' },
};

interface Advice {
  /** What happened, without a name or a count. */
  readonly brief: string;
  /** What to do first. */
  readonly first: string;
}

const advice: Record<ExitName | 'defect', Advice> = {
  badInput: {
    brief: 'an input is wrong',
    first:
      'Correct the inputs that the message names. A secret that is missing or was renamed arrives as an empty input.',
  },
  connect: {
    brief: 'the database cannot be reached',
    first: 'See whether the server is up, and lets in the network that the job runs in: firewall, allow-list, TLS.',
  },
  authentication: {
    brief: 'the database refused the login',
    first: 'Put the password that is valid now into the secret behind `database-url`, or give the role its login back.',
  },
  privilege: {
    brief: 'the role may not read everything',
    first: 'Run the `GRANT` lines of the message, as the owner of the tables or as a superuser.',
  },
  version: {
    brief: 'no PostgreSQL programs fit the server',
    first: "Leave `install-client` on, or install programs of the server's major version where the job runs.",
  },
  timeLimit: {
    brief: 'a lock or a time limit',
    first:
      'See who held the lock or the time, in `pg_stat_activity` for instance. Move the schedule, or raise the limit that the message names.',
  },
  pooler: {
    brief: 'the connection goes through a pooler',
    first: 'Put the direct address of the database into the secret behind `database-url`.',
  },
  disk: {
    brief: 'a disk is full or cannot be written',
    first: 'Make room on the disk that the message names, or give the job a larger one.',
  },
  store: {
    brief: 'the store failed',
    first: "See whether the store is up and the bucket is there: the provider's status page, the address, the region.",
  },
  storeCredentials: {
    brief: 'the store refused the credentials',
    first: "Renew the store's credentials, or give them the permission that the message names.",
  },
  exists: {
    brief: 'something of that name is already there',
    first: 'Nothing was overwritten. See what is in the way, and who wrote it.',
  },
  verification: {
    brief: 'the proof failed',
    first:
      'Delete nothing, and keep the log of the run. What was counted and what was stored differ: do not trust this copy.',
  },
  wrongKey: { brief: 'the key does not open the backup', first: 'Give the key that the backup was encrypted to.' },
  restore: {
    brief: 'the restore failed',
    first: 'See what the message names: an extension, a role or a setting that is missing.',
  },
  differences: {
    brief: 'not passed',
    first: 'Read the findings: each names an object, what the backup recorded and what came back.',
  },
  retention: {
    brief: 'retention paused',
    first: 'Find out why backups of this name stopped; nothing is deleted until there is a new one.',
  },
  unhealthy: {
    brief: 'not as they should be',
    first: 'Do what the hints of the message say, the first one first.',
  },
  cancelled: { brief: 'cancelled', first: 'Nothing is wrong; run it again.' },
  defect: {
    brief: 'pgassay itself failed',
    first: 'Please report it, with what the log says: https://github.com/pgassay/pgassay/issues',
  },
};

/** What failed, for the title: no name out of the database, no markup, nothing that is not ours. */
export function headline(kind: AlertKind, { subject, error, findings, partly }: Failed, details: boolean): string {
  const words = partly === undefined ? failedWords[kind] : `backup in ${partly.stored} of ${partly.of} stores only`;
  if (error !== undefined && findings.length === 0) return `${words}: ${advice[error.exit].brief}`;
  const count = details ? formatCount(findings.length, 'finding') : undefined;
  if (subject.of === 'name') return count === undefined ? words : `${words}: ${count}`;
  const backup = `backup of ${timeOf(subject.id)}`;
  return `${words}: ${count === undefined ? backup : `${count} in ${backup}`}`;
}

/** `shop: restore test failed: 2 findings in backup of 2026-11-20 02:00 UTC` */
export function issueTitle(name: string, state: AlertState): string {
  const headlines = alertKinds.flatMap((kind) => state[kind]?.headline ?? []);
  return cut(
    `${name === everyName ? 'all names' : name}: ${headlines.join('; ')}`.replace(/[\p{Cc}@`]+/gu, ' '),
    mostTitle,
  );
}

/**
 * The whole body. `sections` are the texts of every kind, resolved ones included, as `failedSection` and `passedSection`
 * made them in this run or `sectionsIn` found them.
 */
export function issueBody(
  key: string,
  state: AlertState,
  sections: Readonly<Partial<Record<AlertKind, string>>>,
): string {
  const text = alertKinds.flatMap((kind) => {
    const section = sections[kind];
    return section === undefined ? [] : [`${begins(kind)}\n${shortened(section)}\n${ends(kind)}`];
  });
  const foot =
    '<sub>Written by [pgassay](https://github.com/pgassay/pgassay). It keeps this text up to date, adds a comment when the same fails again, and closes the issue when what failed has passed.</sub>';
  return [...text, foot, markOf(key, state)].join('\n\n');
}

/** GitHub takes 65,536 characters. What we write is shorter; what people added to it by hand may not be. */
function shortened(section: string): string {
  if (Buffer.byteLength(section) <= mostSection) return section;
  const head = section.split('\n\n').slice(0, 2).join('\n\n');
  return `${cut(head, 2_000)}\n\nThe rest was too long to be kept; the next run of its kind writes it anew.`;
}

/** The sections of a body that `issueBody` made, whoever edited what is in them. */
export function sectionsIn(body: string): Partial<Record<AlertKind, string>> {
  const lines = body.replaceAll('\r\n', '\n').split('\n');
  return Object.fromEntries(
    alertKinds.flatMap((kind) => {
      const [from, to] = [lines.indexOf(begins(kind)), lines.indexOf(ends(kind))];
      return from >= 0 && to > from ? [[kind, lines.slice(from + 1, to).join('\n')]] : [];
    }),
  );
}

function begins(kind: AlertKind): string {
  return `<!-- pgassay:begin ${kind} -->`;
}

function ends(kind: AlertKind): string {
  return `<!-- pgassay:end ${kind} -->`;
}

/** A section of something that fails: what happened, what it means, what to do. */
export function failedSection(context: IssueContext, report: Failed, section: Section): string {
  const { kind, run, details, now } = context;
  const facts = [
    runLink(run),
    `workflow ${code(cut(run.workflow, 100))}`,
    ...(details ? [`store ${code(context.store)}`] : []),
    ...(report.error === undefined ? [] : [`${stageOf(report)}exit code ${exitCodeOf(report.error)}`]),
    ...(section.runs > 1 ? [`${section.runs} failed runs since ${formatTime(section.since)}`] : []),
  ];
  return [
    `### ${sentence(verbs[kind].failed, context.name)}`,
    `${formatTime(now)}: ${whatFailed(report, details)}`,
    facts.join(' · '),
    ...happened(context, report, report.findings),
    ...timings(report.timings),
    `**What it means.** ${meaning(kind, report)}`,
    ...othersFailing(report.subject, section),
    '**What to do**',
    steps(context, report)
      .map((step, index) => `${index + 1}. ${step}`)
      .join('\n'),
    '**On your machine**',
    fenced('sh', reproduce(context, report.subject)),
  ].join('\n\n');
}

/** A section of something that passed, while something else may still fail. What had failed is folded away under it. */
export function passedSection(context: IssueContext, report: Passed, failed: string | undefined): string {
  const before =
    failed === undefined || !context.details
      ? []
      : ['<details><summary>The last failure</summary>', failed, '</details>'];
  return [`### ${sentence(verbs[context.kind].passed, context.name)}`, passedLine(context, report), ...before].join(
    '\n\n',
  );
}

/** What a run adds that failed after another one, or after one of another kind: what is new since, and no more. */
export function failedComment(context: IssueContext, report: Failed, change: FailedChange): string {
  const { section, first } = change;
  const facts = [
    runLink(context.run),
    ...(first ? [] : [`${formatCount(section.runs, 'failed run')} since ${formatTime(section.since)}`]),
  ];
  return [
    `**${sentence(verbs[context.kind].failed, context.name)}${first ? '' : ' again'}** at ${formatTime(context.now)}: ${whatFailed(report, context.details)}`,
    facts.join(' · '),
    ...(first ? happened(context, report, report.findings) : changes(context, report, change)),
    'What to do is in the description above, which is about this run now.',
  ].join('\n\n');
}

function changes(context: IssueContext, report: Failed, { news }: FailedChange): string[] {
  if (news.fresh.length === 0 && news.gone === 0)
    return ['Nothing changed since the last failure: the same went wrong again.'];
  if (!context.details || report.findings.length === 0)
    return ['Something else went wrong than the last time.', ...happened(context, report, [])];
  const fresh = report.findings.filter((finding) => news.fresh.includes(digestOf(finding)));
  const counts = [`${formatCount(fresh.length, 'new finding')}`, `${news.gone} gone`, `${news.same} as before`];
  return [`Since the last failure: ${counts.join(', ')}.`, ...happened(context, report, fresh)];
}

/** What a pass adds. `open` are the kinds that still fail; none: the issue is closed with this comment. */
export function passedComment(
  context: IssueContext,
  report: Passed,
  before: Section,
  open: readonly AlertKind[],
): string {
  const seconds = (context.now.getTime() - new Date(before.since).getTime()) / 1000;
  return [
    `**${sentence(verbs[context.kind].passed, context.name)}.** ${passedLine(context, report)}`,
    '',
    `Before that: ${formatCount(before.runs, 'failed run')} since ${formatTime(before.since)}, for ${formatSeconds(seconds)}.`,
    '',
    open.length === 0
      ? 'What failed has passed, so this issue is closed.'
      : `This issue stays open: ${open.map((kind) => failedWords[kind]).join(', ')}.`,
  ].join('\n');
}

/** Under `notify-on: always`: a pass that clears nothing says so, or somebody takes it for the end of the matter. */
export function otherPassComment(context: IssueContext, report: Passed, section: Section): string {
  return [
    `${passedLine(context, report)}`,
    '',
    `That is not what failed: ${section.failing.map(({ subject }) => subjectWords(subject)).join(', ')}. This issue stays open.`,
  ].join('\n');
}

export function duplicateComment(of: number): string {
  return `Another job of the same backups opened #${of} at the same moment. What this one had to say is there.`;
}

function passedLine({ run }: IssueContext, { subject, backup, seconds }: Passed): string {
  const id = backup?.id ?? (subject.of === 'backup' ? subject.id : undefined);
  const snapshot = backup === undefined ? '' : `, snapshot of ${formatTime(backup.createdAt)}`;
  const what = id === undefined ? '' : `Backup ${code(id)}${snapshot}. `;
  return `${what}It took ${formatSeconds(seconds)} · ${runLink(run)}`;
}

function whatFailed({ subject, error, findings }: Failed, details: boolean): string {
  const brief = error === undefined ? undefined : advice[error.exit].brief;
  const count = findings.length === 0 ? undefined : details ? formatCount(findings.length, 'finding') : 'findings';
  const what = [brief, count].filter((each) => each !== undefined).join(', ') || 'not passed';
  return subject.of === 'name' ? `${what}.` : `${what}, in the ${subjectWords(subject)}.`;
}

function subjectWords(subject: Subject): string {
  return subject.of === 'name' ? 'the work itself' : `backup of ${timeOf(subject.id)} (${code(subject.id)})`;
}

function stageOf({ error }: Failed): string {
  return error?.stage === undefined ? '' : `stage ${error.stage}, `;
}

function happened({ run, details }: IssueContext, { error, findings }: Failed, shown: readonly Finding[]): string[] {
  if (!details)
    return [
      `The message, names and counts are withheld here: the repository is public, or may be, or \`alert-details\` is \`false\`. [The log of the run](${run.url}) has them; \`alert-details: true\` shows them.`,
    ];
  const parts: string[] = [];
  if (error !== undefined) {
    const message = cut(`${error.stage === undefined ? '' : `${error.stage}: `}${error.message}`, mostMessage);
    const hint = error.hint === undefined ? [] : [cut(`hint: ${error.hint}`, mostHint)];
    parts.push(fenced('text', [message, ...hint].map(quoted)));
  }
  if (findings.length > 0 && shown.length > 0) parts.push(...findingsTable(shown));
  return parts;
}

/** As many whole rows as fit, and how many did not. */
function findingsTable(findings: readonly Finding[]): string[] {
  const rows: string[] = [];
  let size = 0;
  for (const { object, expected, found } of findings) {
    const row = `| ${[object, expected, found].map((text) => code(cut(text, mostCell))).join(' | ')} |`;
    size += Buffer.byteLength(row) + 1;
    if (size > mostTable) break;
    rows.push(row);
  }
  const rest = findings.length - rows.length;
  return [
    ['| object | expected | found |', '|---|---|---|', ...rows].join('\n'),
    ...(rest === 0 ? [] : [`And ${formatCount(rest, 'finding')} more; the log of the run has all of them.`]),
  ];
}

/** Nothing in a fence is markup, but a line of it must not pass for one of our own marks when the body is read again. */
function quoted(text: string): string {
  return text.replaceAll('<!--', '<\u200b!--');
}

function timings(seconds: Readonly<Record<string, number>>): string[] {
  const entries = Object.entries(seconds);
  if (entries.length === 0) return [];
  return [`Timings: ${entries.map(([stage, time]) => `${stage} ${formatSeconds(time)}`).join(' · ')}`];
}

/** What a failure means for the data. */
export function meaning(kind: AlertKind, { subject, newestProven, partly }: Failed): string {
  switch (kind) {
    case 'backup':
      if (partly !== undefined)
        return `This run's backup is whole in ${partly.stored} of its ${partly.of} stores, and nothing of it is in the others. If what has it is lost, so is all that was written since the newest backup elsewhere.`;
      return 'This run stored no backup. Every backup from before is untouched. Until one succeeds, what was written to the database since the newest of them exists nowhere else.';
    case 'restore-test':
      return subject.of === 'name'
        ? 'Nothing was tested, so nothing is known about the backups that was not known before.'
        : `The backup of ${timeOf(subject.id)} is not proof of recovery. Do not count on it; others are neither better nor worse for this.${provenWords(newestProven)}`;
    case 'health':
      return 'If the database were lost now, what could be brought back may be older or less than you asked for, or nobody would know.';
    case 'prune':
      return 'No backup is missing. Old ones stay longer than they should, and cost what they cost.';
  }
}

function provenWords(id: string | null | undefined): string {
  if (id === undefined) return '';
  return id === null ? ' None has been proven yet.' : ` The newest proven one is of ${timeOf(id)} (${code(id)}).`;
}

function othersFailing(subject: Subject, { failing }: Section): string[] {
  const others = failing.filter((each) => JSON.stringify(each.subject) !== JSON.stringify(subject));
  if (others.length === 0) return [];
  const shown = others.slice(-10).map((each) => subjectWords(each.subject));
  const more = others.length > shown.length ? [`${others.length - shown.length} more`] : [];
  return [`Still failed, and not passed since: ${[...shown, ...more].join(', ')}.`];
}

function steps({ kind, run, details }: IssueContext, { error, subject }: Failed): string[] {
  const first = firstStep(kind, { error }, details);
  const again = `[Run the failed job again](${run.url}).`;
  switch (kind) {
    case 'backup':
      return [
        first,
        'Look how old the newest backup is (`pgassay list`, below), and whether you can live with that until this is mended.',
        `${again} The next backup that is stored closes this.`,
      ];
    case 'restore-test':
      return subject.of === 'name'
        ? [first, `${again} The next test that passes closes this.`]
        : [
            first,
            'Test another backup, to know which one you would restore if you had to today (`before:` in the last line below).',
            'Take a fresh backup and test that one. This closes when the same backup passes, when it is gone, or, if it was tested as the latest, when a newer latest passes.',
          ];
    case 'health':
      return [
        first,
        'See that the backup workflow is enabled and its last runs are green.',
        `${again} It closes when the judgement is good again.`,
      ];
    case 'prune':
      return [first, `${again} The next run that passes closes this.`];
  }
}

/** What to do about a failure before anything else. */
export function firstStep(kind: AlertKind, { error }: Pick<Failed, 'error'>, details: boolean): string {
  const where = details ? '' : ' (the message is in the log)';
  return error === undefined ? firstWithoutError(kind) : `${advice[error.exit].first}${where}`;
}

function firstWithoutError(kind: AlertKind): string {
  return kind === 'health'
    ? 'Take a backup now: run the backup workflow by hand.'
    : 'Read the findings: each names an object, what the backup recorded and what came back.';
}

function reproduce(context: IssueContext, subject: Subject): string[] {
  const variables = variablesFor(context.store, context.details);
  if (variables.length === 0) return commands(context, subject, context.details ? context.storeFlags : "--store '…'");
  return [`export ${variables.join(' ')}`, ...commands(context, subject, '--store artifact')];
}

function commands({ kind, name }: IssueContext, subject: Subject, store: string): string[] {
  const at = `${store} --name ${name}`;
  const list = `pgassay list ${at}`;
  switch (kind) {
    case 'backup':
      // Only a step of a workflow can add an artifact to its run.
      if (store === '--store artifact') return [`${list}   # the backups there are, with their age`];
      return [
        "export DATABASE_URL='…'   # as the job has it; the store's credentials too",
        `pgassay backup ${at} --dry-run   # checks everything, stores nothing`,
        `${list}   # the backups there are, with their age`,
      ];
    case 'restore-test': {
      const id = subject.of === 'backup' ? subject.id : 'latest';
      const before =
        subject.of === 'backup' ? [`pgassay restore-test before:${isoOf(subject.id)} ${at}   # the one before`] : [];
      const key = '# if it is encrypted, with --decrypt-identity-file key.txt';
      return [list, key, `pgassay restore-test ${id} ${at}`, ...before];
    }
    case 'health':
      return [`pgassay health ${store}${name === everyName ? '' : ` --names ${name}`}`];
    case 'prune':
      return [list, `pgassay prune ${at} --dry-run   # says what would go, deletes nothing`];
  }
}

function runLink({ id, attempt, url }: RunOfAlert): string {
  return `[run ${id}${attempt === '1' ? '' : `, attempt ${attempt}`}](${url})`;
}

function sentence(words: string, name: string): string {
  return words.replace('NAME', () => (name === everyName ? 'all names' : code(name)));
}

/** `2026-11-20 02:00 UTC` of an id; the id itself when it holds no time. */
function timeOf(id: string): string {
  const [, y, mo, d, h, mi] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)\d\dZ-/.exec(id) ?? [];
  return y === undefined ? code(id) : `${y}-${mo}-${d} ${h}:${mi} UTC`;
}

function isoOf(id: string): string {
  return id.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-.*$/, '$1-$2-$3T$4:$5:$6Z');
}
