import { GitHub, type GitHubAccess, GitHubError } from '../alert/github.ts';
import { type AlertConfig, readAlertConfig } from '../alert-inputs.ts';
import type { AlertError, AlertKind, Failed, Passed, Report, RunOfAlert, Subject } from '../alert-state.ts';
import { namePattern } from '../backup-id.ts';
import { sourceOf } from '../environment.ts';
import type { Failure, Problem } from '../failure.ts';
import { Inputs, type ReadInput } from '../inputs.ts';
import { shellWord } from '../publish.ts';
import { describeTrouble, raiseAlert } from '../raise-alert.ts';
import { parseStoreAddress, uriOf } from '../store/open.ts';
import { describeDefect } from '../unexpected.ts';
import { visibilityOf, visibilityOfEvent } from '../visibility.ts';
import { maskAll, type Run } from './run.ts';

/** What a failed run says that its error does not. */
export type FailedDetails = Partial<Pick<Failed, 'findings' | 'timings' | 'newestProven'>>;

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

/** Reads the alerts' inputs and hides the token. To be called first, so that wrong inputs of the work are told too. */
export function prepareAlerts(run: Run, edge: AlertEdge): Alerts {
  const inputs = new Inputs(edge.read);
  const token = edge.read('github-token')?.trim();
  if (token) run.secrets.add(token);
  const config = readAlertConfig(inputs);
  maskAll(run.secrets);
  for (const note of config.notes) run.log.warn(note);
  const alerts = new RunAlerts(run, edge, config, inputs.problems);
  run.onFailure((failure) => alerts.failedWith(failure));
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
  #details: Promise<boolean> | undefined;
  #told = false;

  constructor(run: Run, edge: AlertEdge, config: AlertConfig, problems: readonly Problem[]) {
    this.#run = run;
    this.#edge = edge;
    this.#config = config;
    this.problems = problems;
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
    { findings = [], timings = {}, newestProven }: FailedDetails,
  ): Promise<number | undefined> {
    this.#told = true;
    return this.#tell({ outcome: 'failed', subject: this.#subject, error, findings, timings, newestProven });
  }

  async #tell(report: Report): Promise<number | undefined> {
    const { log, secrets, signal } = this.#run;
    const { issue, token, labels, assignees, notifyOn } = this.#config;
    const source = sourceOf(process.env);
    if (!(issue === 'auto' ? this.#edge.automatic : issue) || source === null || signal.aborted) return undefined;
    if (token === undefined) {
      if (issue === true) log.warn('no issue is opened or closed: github-token is empty');
      else if (report.outcome === 'failed') log.info('no issue is opened: github-token is empty');
      return undefined;
    }
    const place = this.#place();
    if (place === undefined) {
      if (report.outcome === 'failed')
        log.warn('no issue can be opened for this failure: it needs a store and a name that can be read');
      return undefined;
    }
    const { repository } = source;
    try {
      return await bounded(signal, async (stop) => {
        const run: RunOfAlert = {
          ...{ id: source.runId, attempt: source.runAttempt, url: source.runUrl, began: this.#began },
          workflow: secrets.redact(source.workflow),
        };
        const details = await this.details();
        return raiseAlert(
          {
            ...{ kind: this.#edge.kind, run, repository, details, config: { labels, assignees, notifyOn } },
            // What is found again later must not depend on what happened to be a secret in this run.
            place,
            shown: { store: secrets.redact(place.store), storeFlags: secrets.redact(this.#storeFlags()) },
          },
          redacted(report, (text) => secrets.redact(text)),
          { github: new GitHub(access(repository, token), stop), log, now: () => new Date(), settleMs },
        );
      });
    } catch (error) {
      log.warn(
        error instanceof GitHubError
          ? describeTrouble(error, repository)
          : `no issue was told of this run: ${describeDefect(error)}`,
      );
      return undefined;
    }
  }

  /** As far as the inputs can be read: a run that fails for its other inputs is told too. */
  #place(): { readonly store: string; readonly name: string } | undefined {
    const inputs = new Inputs(this.#edge.read);
    const parsed = parseStoreAddress(inputs.lines('store')[0] ?? '');
    const name = inputs.optional('name') ?? '';
    return 'problem' in parsed || !namePattern.test(name) ? undefined : { store: uriOf(parsed.address), name };
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
