import { GitHub, type GitHubAccess, GitHubError } from '../alert/github.ts';
import { markedIssues } from '../alert/issues.ts';
import { type AlertConfig, readAlertConfig } from '../alert-inputs.ts';
import {
  type AlertError,
  type AlertKind,
  type AlertPlace,
  everyName,
  type Failed,
  keyOf,
  type Passed,
  type Report,
  type RunOfAlert,
  type Subject,
} from '../alert-state.ts';
import { namePattern } from '../backup-id.ts';
import { secretsOfChannels } from '../channel-inputs.ts';
import { artifactPlaceOf, sourceOf } from '../environment.ts';
import type { Failure, Problem } from '../failure.ts';
import { Inputs, type ReadInput } from '../inputs.ts';
import type { Source } from '../manifest.ts';
import { shellWord } from '../publish.ts';
import { describeTrouble, raiseAlert } from '../raise-alert.ts';
import type { KnownOfRun } from '../report/message.ts';
import { parseStoreAddress, uriOf } from '../store/open.ts';
import { isTold, tellChannels } from '../tell-channels.ts';
import { describeDefect } from '../unexpected.ts';
import { visibilityOf, visibilityOfEvent } from '../visibility.ts';
import { RunSwitch, soonAfter } from './channels.ts';
import { maskAll, type Run } from './run.ts';

/** What a failed run says that its error does not. */
export type FailedDetails = Partial<Pick<Failed, 'findings' | 'timings' | 'newestProven' | 'partly'>>;

/**
 * The alerts of one run. A `Failure` that reaches the edge is told by itself, after it was printed; a cancelled run tells
 * nothing. Nothing here throws, and nothing changes how the run ends: what goes wrong is a warning.
 */
export interface Alerts {
  /** Wrong alert inputs, to be reported with all the others. */
  readonly problems: readonly Problem[];
  /** Whether names and counts may be shown in the issue and in the job summary. */
  details(): Promise<boolean>;
  /** From here on a failure is about this, until something else is said: at first the work itself. */
  about(subject: Subject, details?: FailedDetails): void;
  /**
   * The run failed with findings, and perhaps the error that sums them up; a `Failure` that follows is not told again.
   * The issue's number.
   */
  failed(details: FailedDetails, error?: AlertError): Promise<number | undefined>;
  /** The run passed. Which failures that clears is written at `clears` in alert-state.ts. */
  passed(report: Omit<Passed, 'outcome'>): Promise<number | undefined>;
  /**
   * How a run that judges several names ended for each of them; a `Failure` that follows is not told again. The numbers of
   * the issues that failed.
   */
  judged(verdicts: readonly NameVerdict[]): Promise<number[]>;
}

/** `name` may be `everyName`. */
export interface NameVerdict {
  readonly name: string;
  readonly report: Report;
}

export interface AlertEdge {
  readonly kind: AlertKind;
  readonly read: ReadInput;
  /** What `alert-issue: auto` means for this action and event. */
  readonly automatic: boolean;
}

const wholeMs = 30_000;
const afterCancelMs = 2_000;
const settleMs = 1_500;

/** Reads the alerts' inputs and hides what is secret in them. To be called first, so that wrong inputs of the work are told too. */
export function prepareAlerts(run: Run, edge: AlertEdge): Alerts {
  const inputs = new Inputs(edge.read);
  const token = edge.read('github-token')?.trim();
  if (token) run.secrets.add(token);
  const config = readAlertConfig(inputs);
  maskAll(run.secrets);
  // The runner is told to mask these together with the work's own secrets, once the public words are known.
  for (const secret of secretsOfChannels(edge.read)) run.secrets.add(secret);
  for (const note of config.notes) run.log.warn(note);
  const alerts = new RunAlerts(run, edge, config, inputs.problems);
  run.onFailure((failure) => alerts.failedWith(failure));
  alerts.begin();
  return alerts;
}

class RunAlerts implements Alerts {
  readonly problems: readonly Problem[];
  readonly #run: Run;
  readonly #edge: AlertEdge;
  readonly #config: AlertConfig;
  readonly #began = new Date().toISOString();
  #subject: Subject = { of: 'name' };
  #known: FailedDetails = {};
  readonly #switch: RunSwitch;
  #details: Promise<boolean> | undefined;
  #told = false;

  constructor(run: Run, edge: AlertEdge, config: AlertConfig, problems: readonly Problem[]) {
    this.#run = run;
    this.#edge = edge;
    this.#config = config;
    this.problems = problems;
    this.#switch = new RunSwitch(run, this.#onlyLooks() ? undefined : config.channels.ping);
  }

  begin(): void {
    this.#switch.begin();
  }

  details(): Promise<boolean> {
    this.#details ??= this.#mayShow();
    return this.#details;
  }

  about(subject: Subject, details: FailedDetails = {}): void {
    this.#subject = subject;
    this.#known = details;
  }

  failed(details: FailedDetails, error?: AlertError): Promise<number | undefined> {
    return this.#failed(error, details);
  }

  /** `failure` is undefined for a defect. */
  async failedWith(failure: Failure | undefined): Promise<void> {
    if (this.#told) return;
    const message = 'an error that nobody foresaw; the log of the run says where';
    const error: AlertError =
      failure === undefined ? { stage: undefined, exit: 'defect', message, hint: undefined } : failure;
    await this.#failed(error, this.#known);
  }

  passed(report: Omit<Passed, 'outcome'>): Promise<number | undefined> {
    return this.#tell({ ...report, outcome: 'passed' });
  }

  #failed(
    error: AlertError | undefined,
    { findings = [], timings = {}, newestProven, partly }: FailedDetails,
  ): Promise<number | undefined> {
    this.#told = true;
    return this.#tell({ outcome: 'failed', subject: this.#subject, error, findings, timings, newestProven, partly });
  }

  async #tell(report: Report): Promise<number | undefined> {
    this.#switch.saw(report.outcome);
    const place = this.#place();
    const known = await this.#tellIssue(report, place);
    await this.#tellChannels(report, known, place);
    return known?.issue.number;
  }

  async #tellIssue(report: Report, place: AlertPlace | undefined): Promise<KnownOfRun | undefined> {
    const teller = this.#teller(report.outcome);
    if (teller === undefined) return undefined;
    if (place === undefined) {
      if (report.outcome === 'failed')
        this.#run.log.warn('no issue can be opened for this failure: it needs a store and a name that can be read');
      return undefined;
    }
    return this.#orWarn(teller, () => this.#raise(place, report, teller));
  }

  async judged(verdicts: readonly NameVerdict[]): Promise<number[]> {
    const worst = verdicts.some(({ report }) => report.outcome === 'failed') ? 'failed' : 'passed';
    this.#told = true;
    this.#switch.saw(worst);
    const known = await this.#tellIssues(verdicts, this.#teller(worst));
    for (const { name, report } of verdicts) {
      const ofName = known.get(name);
      // What concerns all names together is nobody's news as long as it is well.
      if (name === everyName && report.outcome === 'passed' && ofName === undefined) continue;
      await this.#tellChannels(report, ofName, this.#place(name));
    }
    const failed = verdicts.filter(({ report }) => report.outcome === 'failed');
    return failed.flatMap(({ name }) => known.get(name)?.issue.number ?? []);
  }

  /** What the issue of each name knows, as far as GitHub could be asked. */
  async #tellIssues(
    verdicts: readonly NameVerdict[],
    teller: GitHubAccess | undefined,
  ): Promise<ReadonlyMap<string, KnownOfRun>> {
    const told = new Map<string, KnownOfRun>();
    if (teller === undefined) return told;
    await this.#orWarn(teller, async () => {
      // Most names are well and have no issue: one list tells.
      const marked = await bounded(this.#run.signal, (stop) =>
        markedIssues(new GitHub(teller, stop), this.#config.labels[0]),
      );
      for (const { name, report } of verdicts) {
        const place = this.#place(name);
        if (place === undefined || (report.outcome === 'passed' && !marked.has(keyOf(place)))) continue;
        const known = await this.#raise(place, report, teller);
        if (known !== undefined) told.set(name, known);
      }
    });
    return told;
  }

  /** Everybody else, whatever became of the issue. */
  async #tellChannels(report: Report, known: KnownOfRun | undefined, place: AlertPlace | undefined): Promise<void> {
    const { log, secrets, signal } = this.#run;
    const { channels, notifyOn } = this.#config;
    const { slack, webhook, mail } = channels;
    const source = sourceOf(process.env);
    if ([slack, webhook, mail].every((each) => each === undefined) || source === null || signal.aborted) return;
    if (!isTold(notifyOn, report, known)) return;
    const context = {
      ...{ kind: this.#edge.kind, repository: source.repository, details: await this.details(), known },
      now: new Date(),
      ...{ name: nameOf(place) ?? source.repository, store: place && secrets.redact(place.store) },
      run: this.#runOf(source),
    };
    const told = redacted(report, (text) => secrets.redact(text));
    await tellChannels(channels, context, told, { log, stop: soonAfter(signal) });
  }

  #runOf(source: Source): RunOfAlert {
    return {
      ...{ id: source.runId, attempt: source.runAttempt, url: source.runUrl, began: this.#began },
      workflow: this.#run.secrets.redact(source.workflow),
    };
  }

  /** Who tells GitHub about this run; undefined when nobody is to. */
  #teller(outcome: Report['outcome']): GitHubAccess | undefined {
    const { log, signal } = this.#run;
    const { issue, token } = this.#config;
    const source = sourceOf(process.env);
    if (!(issue === 'auto' ? this.#edge.automatic : issue) || source === null || signal.aborted) return undefined;
    if (token !== undefined) return access(source.repository, token);
    if (issue === true) log.warn('no issue is opened or closed: github-token is empty');
    else if (outcome === 'failed') log.info('no issue is opened: github-token is empty');
    return undefined;
  }

  async #orWarn<T>({ repository }: GitHubAccess, work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      this.#run.log.warn(
        error instanceof GitHubError
          ? describeTrouble(error, repository)
          : `no issue was told of this run: ${describeDefect(error)}`,
      );
      return undefined;
    }
  }

  /** Throws a `GitHubError`. */
  #raise(place: AlertPlace, report: Report, teller: GitHubAccess): Promise<KnownOfRun | undefined> {
    const { log, secrets, signal } = this.#run;
    const { labels, assignees, notifyOn } = this.#config;
    const source = sourceOf(process.env);
    if (source === null) return Promise.resolve(undefined);
    return bounded(signal, async (stop) => {
      const details = await this.details();
      return raiseAlert(
        {
          ...{ kind: this.#edge.kind, run: this.#runOf(source), repository: teller.repository, details },
          config: { labels, assignees, notifyOn },
          // What is found again later must not depend on what happened to be a secret in this run.
          place,
          shown: { store: secrets.redact(place.store), storeFlags: secrets.redact(this.#storeFlags()) },
        },
        redacted(report, (text) => secrets.redact(text)),
        { github: new GitHub(teller, stop), log, now: () => new Date(), settleMs },
      );
    });
  }

  /** As far as the inputs can be read: a run that fails for its other inputs is told too. */
  #place(name = new Inputs(this.#edge.read).optional('name') ?? ''): AlertPlace | undefined {
    const inputs = new Inputs(this.#edge.read);
    const parsed = parseStoreAddress(inputs.lines('store')[0] ?? '');
    if (name !== everyName && !namePattern.test(name)) return undefined;
    if ('problem' in parsed) return undefined;
    return { store: uriOf(parsed.address, artifactPlaceOf(process.env, '')), name };
  }

  /** A dry run that went well is not the news that a dead-man's switch waits for. */
  #onlyLooks(): boolean {
    return new Inputs(this.#edge.read).optional('dry-run')?.toLowerCase() === 'true';
  }

  #storeFlags(): string {
    const inputs = new Inputs(this.#edge.read);
    const region = inputs.optional('s3-region');
    const given = [
      ['--store', inputs.lines('store')[0]],
      ['--s3-endpoint', inputs.optional('s3-endpoint')],
      ['--s3-region', region === 'us-east-1' ? undefined : region],
      ['--s3-path-style', inputs.optional('s3-path-style')],
    ] as const;
    return given.flatMap(([flag, value]) => (value === undefined ? [] : [flag, shellWord(value)])).join(' ');
  }

  async #mayShow(): Promise<boolean> {
    const { details, token } = this.#config;
    if (details !== 'auto') return details;
    const told = visibilityOfEvent(process.env.GITHUB_EVENT_PATH);
    if (told !== 'unknown') return told === 'private';
    const repository = sourceOf(process.env)?.repository;
    if (repository === undefined || token === undefined) return false;
    try {
      return await bounded(this.#run.signal, async (stop) => {
        const github = new GitHub(access(repository, token), stop);
        return visibilityOf(await github.repository('GET', '')) === 'private';
      });
    } catch {
      return false;
    }
  }
}

function nameOf(place: AlertPlace | undefined): string | undefined {
  return place?.name === everyName ? 'all names' : place?.name;
}

function access(repository: string, token: string): GitHubAccess {
  const apiUrl = process.env.GITHUB_API_URL || 'https://api.github.com';
  return { apiUrl, graphqlUrl: process.env.GITHUB_GRAPHQL_URL || `${apiUrl}/graphql`, repository, token };
}

/** Ends whatever `work` does, and stops waiting for it: half a minute in all, two seconds once the run is cancelled. */
export async function bounded<T>(cancel: AbortSignal, work: (stop: AbortSignal) => Promise<T>): Promise<T> {
  const stop = new AbortController();
  const timers: NodeJS.Timeout[] = [];
  const { promise: late, reject } = Promise.withResolvers<never>();
  const after = (ms: number): void => {
    const end = (): void => {
      reject(new GitHubError({ kind: 'silent', seconds: ms / 1000 }));
      stop.abort();
    };
    timers.push(setTimeout(end, ms));
  };
  const onCancel = (): void => after(afterCancelMs);
  cancel.addEventListener('abort', onCancel, { once: true });
  after(wholeMs);
  try {
    return await Promise.race([work(stop.signal), late]);
  } finally {
    cancel.removeEventListener('abort', onCancel);
    for (const timer of timers) clearTimeout(timer);
  }
}

function redacted(report: Report, redact: (text: string) => string): Report {
  if (report.outcome === 'passed') return report;
  const { error, findings } = report;
  return {
    ...report,
    error: error && {
      ...{ stage: error.stage, exit: error.exit, message: redact(error.message) },
      hint: error.hint === undefined ? undefined : redact(error.hint),
    },
    findings: findings.map(({ object, expected, found }) => ({
      ...{ object: redact(object), expected: redact(expected), found: redact(found) },
    })),
  };
}

/** As the event that started the run says; without one nobody knows. */
export function repositoryIsPrivate(): boolean {
  return visibilityOfEvent(process.env.GITHUB_EVENT_PATH) === 'private';
}
