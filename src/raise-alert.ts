import type { GitHub, GitHubError, Trouble } from './alert/github.ts';
import { type Edit, type Issue, Issues } from './alert/issues.ts';
import type { AlertConfig } from './alert-inputs.ts';
import {
  type AlertKind,
  type AlertPlace,
  type AlertState,
  afterFailure,
  afterPass,
  alertKinds,
  commentMark,
  digestsOf,
  type Failed,
  keyOf,
  type Passed,
  type Report,
  type RunOfAlert,
  type Section,
  stateIn,
} from './alert-state.ts';
import type { Log } from './log.ts';
import {
  duplicateComment,
  failedComment,
  failedSection,
  headline,
  type IssueContext,
  issueBody,
  issueTitle,
  otherPassComment,
  passedComment,
  passedSection,
  sectionsIn,
} from './report/issue.ts';
import type { KnownOfRun } from './report/message.ts';

/** Whose run of what it is, and how its issue is to be. */
export interface AlertRequest {
  readonly kind: AlertKind;
  readonly place: AlertPlace;
  /** How the store is shown: its URI, and for shell lines `--store s3://acme-backups/prod --s3-region eu-central-1`. */
  readonly shown: { readonly store: string; readonly storeFlags: string };
  readonly run: RunOfAlert;
  readonly config: Pick<AlertConfig, 'labels' | 'assignees' | 'notifyOn'>;
  /** `owner/name` */
  readonly repository: string;
  readonly details: boolean;
}

export interface AlertIo {
  readonly github: GitHub;
  readonly log: Log;
  readonly now: () => Date;
  /** How long a list may lag behind what was just written. */
  readonly settleMs: number;
}

/** Two runs that write the same body at once undo each other; each looks at what it wrote and writes again. */
const writes = 3;

/**
 * Tells the one issue of a store and name how a run ended: opens it, writes a comment, closes it, or leaves it alone.
 * Resolves with undefined when there is none. Throws a `GitHubError` that `describeTrouble` has words for.
 */
export async function raiseAlert(request: AlertRequest, report: Report, io: AlertIo): Promise<KnownOfRun | undefined> {
  const alert = new Alert(request, io);
  return report.outcome === 'failed' ? alert.failed(report) : alert.passed(report);
}

class Alert {
  readonly #request: AlertRequest;
  readonly #io: AlertIo;
  readonly #issues: Issues;
  readonly #key: string;
  readonly #context: IssueContext;

  constructor(request: AlertRequest, io: AlertIo) {
    this.#request = request;
    this.#io = io;
    this.#issues = new Issues(io.github, request.config.labels[0], io.settleMs);
    this.#key = keyOf(request.place);
    const { kind, place, shown, run, details } = request;
    this.#context = { kind, name: place.name, ...shown, run, details, now: io.now() };
  }

  async failed(report: Failed): Promise<KnownOfRun> {
    const issue = await this.#find();
    if (issue !== undefined) return this.#failedAgain(issue, report);
    const { kind, config } = this.#request;
    const { section } = this.#afterFailure({}, report);
    const state = { [kind]: section };
    const draft = {
      title: issueTitle(this.#context.name, state),
      body: issueBody(this.#key, state, { [kind]: failedSection(this.#context, report, section) }),
      labels: config.labels,
      assignees: config.assignees,
    };
    const opened = await this.#issues.open(this.#key, draft, duplicateComment);
    if (opened.refused.includes('assignees'))
      this.#io.log.warn(
        `the issue is assigned to nobody: GitHub does not take every one of alert-assignees (${config.assignees.join(', ')}); each needs access to ${this.#request.repository}`,
      );
    if (!opened.created) return this.#failedAgain(opened.issue, report);
    this.#io.log.info(`opened issue #${opened.issue.number}: ${opened.issue.url}`);
    return raised(opened.issue, section, true);
  }

  async passed(report: Passed): Promise<KnownOfRun | undefined> {
    const issue = await this.#find();
    if (issue === undefined) return undefined;
    const { kind, run, config } = this.#request;
    const before = stateIn(issue.body)[kind];
    if (before === undefined) return raised(issue, undefined, false);
    const { now } = this.#context;
    const mark = commentMark(kind, run, 'passed');
    const left = afterPass(before, report, run);
    // Asked again of whatever is found when it is written: somebody may have failed in between.
    const clear = (text: string | undefined) => (state: AlertState) => {
      const section = state[kind] && afterPass(state[kind], report, run);
      return { section, text: section === undefined ? text : undefined };
    };
    if (left !== undefined) {
      if (left.failing.length < before.failing.length) await this.#write(issue, clear(undefined));
      if (config.notifyOn === 'always')
        await this.#issues.comment(issue.number, mark, otherPassComment(this.#context, report, left), now);
      return raised(issue, left, false);
    }
    const open = failingKinds(stateIn(issue.body)).filter((other) => other !== kind);
    await this.#issues.comment(issue.number, mark, passedComment(this.#context, report, before, open), now);
    const text = passedSection(this.#context, report, sectionsIn(issue.body)[kind]);
    const still = await this.#write(issue, clear(text));
    if (still.length === 0) this.#io.log.info(`closed issue #${issue.number}: ${issue.url}`);
    return raised(issue, before, true);
  }

  /** Ours, the lowest number of several; the others, which a lagging list let happen, are closed. */
  async #find(): Promise<Issue | undefined> {
    const { ours, foreign } = await this.#issues.find(this.#key);
    for (const { number, author } of foreign)
      this.#io.log.info(`issue #${number} looks like ours, but ${author} wrote it, so it is left alone`);
    const [first, ...others] = ours;
    if (first === undefined || others.length === 0) return first;
    await this.#merge(first, others);
    return this.#issues.read(first.number);
  }

  /** What only a duplicate knows goes into the issue that stays. */
  async #merge(into: Issue, others: readonly Issue[]): Promise<void> {
    let state: AlertState = stateIn(into.body);
    let sections = sectionsIn(into.body);
    for (const other of others) {
      state = { ...stateIn(other.body), ...state };
      sections = { ...sectionsIn(other.body), ...sections };
    }
    await this.#issues.edit(into.number, this.#texts(state, sections));
    for (const { number } of others) await this.#issues.closeDuplicate(number, duplicateComment(into.number));
  }

  async #failedAgain(issue: Issue, report: Failed): Promise<KnownOfRun> {
    const { kind, run } = this.#request;
    const change = this.#afterFailure(stateIn(issue.body), report);
    // The comment first: it is found again by its mark, if this run ends before the state says that it is there.
    if (change.tell || change.first) {
      const text = failedComment(this.#context, report, change);
      await this.#issues.comment(issue.number, commentMark(kind, run, 'failed'), text, this.#context.now);
    }
    await this.#write(issue, (state) => {
      const { section } = this.#afterFailure(state, report);
      return { section, text: failedSection(this.#context, report, section) };
    });
    this.#io.log.info(`told issue #${issue.number}: ${issue.url}`);
    return raised(issue, change.section, change.tell || change.first);
  }

  #afterFailure(state: AlertState, report: Failed): ReturnType<typeof afterFailure> {
    const { kind, run, config, details } = this.#request;
    return afterFailure(state[kind], {
      ...{ kind, report, run, now: this.#context.now, notifyOn: config.notifyOn },
      headline: headline(kind, report, details),
      wrong: digestsOf(report, details),
    });
  }

  /**
   * Writes our kind's section, and leaves those of the others as they are; the kinds that fail afterwards. `change` is
   * asked anew for whatever state is found; without `text` the section's own stays.
   */
  async #write(
    issue: Issue,
    change: (state: AlertState) => { readonly section: Section | undefined; readonly text: string | undefined },
  ): Promise<AlertKind[]> {
    const { kind } = this.#request;
    let { body } = issue;
    for (let attempt = 1; ; attempt++) {
      const state = stateIn(body);
      const { section, text } = change(state);
      const { [kind]: _, ...others } = state;
      const next: AlertState = section === undefined ? others : { ...others, [kind]: section };
      const sections = sectionsIn(body);
      const texts = this.#texts(next, text === undefined ? sections : { ...sections, [kind]: text });
      await this.#issues.edit(issue.number, texts);
      ({ body } = await this.#issues.read(issue.number));
      const written = JSON.stringify(stateIn(body)[kind]) === JSON.stringify(next[kind]);
      if (written || attempt === writes) return failingKinds(stateIn(body));
    }
  }

  /** Closed when nothing is left that fails, under the title it had; open again when another job has just closed it. */
  #texts(state: AlertState, sections: Readonly<Partial<Record<AlertKind, string>>>): Edit {
    const body = issueBody(this.#key, state, sections);
    return failingKinds(state).length === 0
      ? { body, state: 'closed', state_reason: 'completed' }
      : { body, state: 'open', title: issueTitle(this.#context.name, state) };
  }
}

function raised({ number, url }: Issue, section: Section | undefined, news: boolean): KnownOfRun {
  return { news, since: section?.since, runs: section?.runs ?? 0, issue: { number, url } };
}

function failingKinds(state: AlertState): AlertKind[] {
  return alertKinds.filter((kind) => state[kind] !== undefined);
}

/** One sentence for whatever kept the issue from being told, with what to do about it. */
export function describeTrouble(error: GitHubError, repository: string): string {
  return `no issue was told of this run: ${sentenceOf(error.trouble, repository)}`;
}

function sentenceOf(trouble: Trouble, repository: string): string {
  switch (trouble.kind) {
    case 'refused':
      return refusal(trouble.status, repository);
    case 'archived':
      return `${repository} is archived, so nothing can be written there; set alert-issue: false`;
    case 'invalid':
      return `GitHub did not accept it (422${trouble.fields.length === 0 ? '' : `, because of ${trouble.fields.join(', ')}`}); see alert-labels and alert-assignees`;
    case 'rate-limit':
      return `GitHub's rate limit for this token is used up${trouble.waitSeconds === undefined ? '' : ` for another ${trouble.waitSeconds} s`}; the next run tries again`;
    case 'server':
      return `GitHub answered ${trouble.status}; the next run tries again`;
    case 'unreachable':
      return `GitHub cannot be reached (${trouble.code}); the next run tries again`;
    case 'silent':
      return `GitHub did not answer in time; the next run tries again`;
    case 'unreadable':
      return `GitHub's answer cannot be read; is GITHUB_API_URL the API of GitHub?`;
  }
}

const permission = 'permissions:\n  issues: write';

function refusal(status: 401 | 403 | 404 | 410, repository: string): string {
  switch (status) {
    case 401:
      return `GitHub does not know the token of github-token (401); leave the input out to use the job's own, and give the job\n${permission}`;
    case 403:
      return `the token may not write issues in ${repository} (403). Give the job, beside the permissions it has,\n${permission}\nor set alert-issue: false`;
    case 404:
      return `the token is not shown ${repository} or its issues (404). Give the job, beside the permissions it has,\n${permission}\nor set alert-issue: false`;
    case 410:
      return `issues are turned off in ${repository} (410); turn them on in its settings under Features, or set alert-issue: false`;
  }
}
