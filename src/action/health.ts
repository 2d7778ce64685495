import * as core from '@actions/core';
import { alertInputs } from '../alert-inputs.ts';
import { everyName, type Failed, type Passed } from '../alert-state.ts';
import { artifactPlaceOf, identityOf, inputsOf, machineOf, sourceOf } from '../environment.ts';
import { Failure } from '../failure.ts';
import { health } from '../health.ts';
import { type HealthFinding, hintsOf } from '../health-findings.ts';
import { failureOfHealth, type HealthConfig, healthInputs, readHealthConfig } from '../health-inputs.ts';
import { Inputs, type ReadInput } from '../inputs.ts';
import { writeMetrics } from '../metrics-file.ts';
import { cutDocument, type Health, healthDocument, healthSummary, healthText, latestOfAll } from '../report/health.ts';
import { openMetrics } from '../report/metrics.ts';
import type { Secrets } from '../secrets.ts';
import { openStore, publicWordOf } from '../store/open.ts';
import { type Alerts, type NameVerdict, prepareAlerts } from './alert.ts';
import { maskAll, type Run, runAction } from './run.ts';
import { hideSecretInputs, input, mostBytes, refuseWindows, reportUnknown, writeSummary } from './step.ts';

/** The action `pgassay/pgassay/health`: speaks up when backups are missing, old, damaged or unproven. */
export function runHealth(): Promise<void> {
  return runAction(async (run) => {
    refuseWindows();
    reportUnknown([...healthInputs, ...alertInputs], run.log);
    const alerts = prepareAlerts(run, { kind: 'health', read: readNamed, automatic: true });
    let metricsFile: string | undefined;
    try {
      const config = readRequest(run.secrets, alerts);
      ({ metricsFile } = config);
      await look(config, run, alerts);
    } catch (error) {
      // Without a verdict all is not well, whoever asks.
      if (error instanceof Failure && error.exit !== 'unhealthy' && !run.signal.aborted)
        await tellUnknown(error, metricsFile, run);
      throw error;
    }
  });
}

/** What keeps health from judging at all is told to the issue of the one name it is about, else to the store's. */
const readNamed: ReadInput = (name) => {
  if (name !== 'name') return input(name);
  const [only, ...others] = new Inputs(input).lines('names');
  return only !== undefined && others.length === 0 ? only : everyName;
};

async function look({ store, failOn, metricsFile, ...request }: HealthConfig, run: Run, alerts: Alerts): Promise<void> {
  const { log, secrets, signal } = run;
  const began = Date.now();
  const details = alerts.details();
  const token = input('github-token')?.trim();
  const apiUrl = process.env.GITHUB_API_URL || 'https://api.github.com';
  const github = token ? { apiUrl, graphqlUrl: `${apiUrl}/graphql`, token } : undefined;
  const judged = await health(
    { ...request, store: openStore(store, { signal }), github },
    { log, signal, now: () => new Date() },
  );
  for (const { name } of judged.names) secrets.spare(name);
  tell(judged, secrets);
  log.info(healthText(judged));
  for (const note of judged.notes) log.warn(note);
  await writeSummary(secrets.redact(healthSummary(judged, await details)), log);
  const unwritten = metricsFile === undefined ? undefined : await metricsFailure(metricsFile, judged, judged.checkedAt);
  const numbers = await alerts.judged(verdictsOf(judged, (Date.now() - began) / 1000));
  core.setOutput('issue-number', numbers.join(','));
  const failure = failureOfHealth(judged, failOn) ?? unwritten;
  if (failure !== undefined) throw failure;
}

function tell(judged: Health, secrets: Secrets): void {
  const latest = latestOfAll(judged);
  const sum = (count: (of: Health['names'][number]) => number): string =>
    String(judged.names.reduce((total, each) => total + count(each), 0));
  const outputs = {
    status: judged.status,
    'latest-backup-id': latest?.id ?? '',
    'age-hours': latest === undefined ? '' : String(latest?.ageHours),
    backups: sum(({ series }) => series.length),
    'total-bytes': sum(({ totalBytes }) => totalBytes),
    report: secrets.redact(cutDocument(healthDocument(judged), mostBytes)),
  };
  for (const [name, value] of Object.entries(outputs)) core.setOutput(name, value);
}

/**
 * What to tell of each name, and of all of them. What concerns none in particular is told with the only one where there is
 * one: nobody needs two issues for one database. Warnings never open an issue, and do not keep one open.
 */
function verdictsOf(judged: Health, seconds: number): NameVerdict[] {
  const critical = (findings: readonly HealthFinding[]): HealthFinding[] =>
    findings.filter(({ severity }) => severity === 'critical');
  const common = critical(judged.findings);
  const alone = judged.names.length === 1;
  const verdicts = judged.names.map(({ name, findings, newest }): NameVerdict => {
    const wrong = [...critical(findings), ...(alone ? common : [])];
    return { name, report: wrong.length > 0 ? failed(name, wrong) : passed(seconds, newest?.manifest) };
  });
  if (!alone && common.length > 0) return [...verdicts, { name: everyName, report: failed('all names', common) }];
  return common.length > 0 ? verdicts : [...verdicts, { name: everyName, report: passed(seconds, undefined) }];
}

/** What an issue has room for. */
const mostHints = 10;

function failed(name: string, findings: readonly HealthFinding[]): Failed {
  const hint = hintsOf(findings, mostHints);
  const error = {
    stage: 'verify',
    exit: 'unhealthy',
    message: `the backups of ${name} are in a critical state`,
    hint,
  } as const;
  return { outcome: 'failed', subject: { of: 'name' }, error, findings, timings: {} };
}

function passed(seconds: number, backup: Passed['backup']): Passed {
  return { outcome: 'passed', subject: { of: 'name' }, backup, seconds };
}

async function metricsFailure(path: string, judged: Health | undefined, now: Date): Promise<Failure | undefined> {
  try {
    await writeMetrics(path, openMetrics(judged, now));
    return undefined;
  } catch (error) {
    if (error instanceof Failure) return error;
    throw error;
  }
}

/** Outputs and metrics of a run that came to no verdict. */
async function tellUnknown(failure: Failure, metricsFile: string | undefined, run: Run): Promise<void> {
  const found = run.secrets.redact(failure.message);
  const finding = {
    check: 'store',
    severity: 'critical',
    object: `stage ${failure.stage}`,
    expected: 'a verdict',
    found,
  };
  core.setOutput('status', 'critical');
  core.setOutput('report', JSON.stringify({ status: 'critical', findings: [finding], names: [], notes: [] }));
  if (metricsFile === undefined || failure.exit === 'disk') return;
  const unwritten = await metricsFailure(metricsFile, undefined, new Date());
  if (unwritten !== undefined) run.log.warn(unwritten.message);
}

/** Reads the inputs and hides the secrets among them, before anything is logged, also when they are wrong. */
function readRequest(secrets: Secrets, { problems }: Alerts): HealthConfig {
  hideSecretInputs(secrets);
  try {
    const inputs = inputsOf(input);
    inputs.add(problems);
    const repository = sourceOf(process.env)?.repository;
    if (inputs.lines('workflows').length > 0 && inputs.optional('github-token') === undefined)
      inputs.problem('github-token', 'is empty, and GitHub tells nobody else about workflows', 'leave the input out');
    const config = readHealthConfig(inputs, {
      identity: identityOf(process.env),
      artifacts: artifactPlaceOf(process.env, machineOf(process.env).temporary),
      repository,
    });
    for (const word of [...config.names, publicWordOf(config.store)]) secrets.spare(word);
    return config;
  } finally {
    maskAll(secrets);
  }
}
