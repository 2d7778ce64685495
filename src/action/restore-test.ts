import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import * as core from '@actions/core';
import { alertInputs } from '../alert-inputs.ts';
import type { Subject } from '../alert-state.ts';
import { artifactPlaceOf, identityOf, machineOf, readHiding, sourceOf, withPemFiles } from '../environment.ts';
import { Failure, type Problem } from '../failure.ts';
import { Inputs, type ReadInput } from '../inputs.ts';
import { locate } from '../locate.ts';
import { publicWordsOf, secretsOf } from '../postgres/url.ts';
import type { Proof } from '../proof.ts';
import { lastProofs, newestPassed } from '../proofs.ts';
import { restoreTestSummary, restoreTestText } from '../report/restore-test.ts';
import { type RestoreTested, reportOf, restoreTest } from '../restore-test.ts';
import { type RestoreTestRequest, readRestoreTest, restoreTestInputs } from '../restore-test-inputs.ts';
import type { Secrets } from '../secrets.ts';
import { openStore, publicWordOf } from '../store/open.ts';
import { warnUnneeded } from '../stored-files.ts';
import { storedSubject } from '../test-subject.ts';
import type { Finding } from '../verdict.ts';
import { type Alerts, prepareAlerts } from './alert.ts';
import { maskAll, type Run, runAction } from './run.ts';
import {
  hideSecretInputs,
  input,
  jsonArray,
  refuseWindows,
  removeStepFolder,
  reportUnknown,
  withStepFolder,
  writeSummary,
} from './step.ts';

/** The action `pgassay/pgassay/restore-test`: proves that a backup restores. */
export function runRestoreTest(): Promise<void> {
  return runAction(async (run) => {
    refuseWindows();
    reportUnknown([...restoreTestInputs, ...alertInputs], run.log);
    // A store with one name needs no name, and its issue has one all the same.
    let located: string | undefined;
    const read: ReadInput = (name) => (name === 'name' ? input(name) || located : input(name));
    const alerts = prepareAlerts(run, { kind: 'restore-test', read, automatic: true });
    await withStepFolder(async (temporary) => {
      let failure: Failure | undefined;
      try {
        const request = readRequest(run.secrets, temporary, alerts.problems);
        failure = await test(request, run, alerts, (name) => {
          located = name;
        });
      } catch (error) {
        // Without a verdict it is no pass, whoever asks.
        const found = error instanceof Failure ? error.message : 'an unexpected error';
        const object = error instanceof Failure ? `stage ${error.stage}` : 'the restore test';
        await tell({ result: 'failed' }, [{ object, expected: 'a verdict', found }], run.secrets);
        throw error;
      }
      if (failure !== undefined) throw failure;
    });
  });
}

/** Returns how the backup failed; throws what kept the test from coming to a verdict. */
async function test(
  { config, store, keys, idleMs, name, selector, trust }: RestoreTestRequest,
  run: Run,
  alerts: Alerts,
  named: (name: string) => void,
): Promise<Failure | undefined> {
  const { log, secrets, signal } = run;
  for (const notice of config.scratch?.notices ?? []) log.notice(notice);
  const opened = openStore(store, { signal, idleMs });
  const { backup, catalog } = await locate(opened, { name, selector, trust, strict: true }, log);
  const { manifest } = backup;
  named(manifest.name);
  warnUnneeded(manifest, keys, log);
  core.setOutput('backup-id', manifest.id);
  // Asked now, so that nobody waits for the answer once there is a verdict.
  const details = alerts.details();
  const tested = await log.group('Restore', () =>
    restoreTest(storedSubject(opened, backup, keys), config, { log, signal }),
  );
  const report = reportOf(tested, opened.uri);
  const { proof, failure } = tested;
  const outputs = {
    result: proof.result,
    'restore-seconds': String(report.restoreSeconds),
    'total-seconds': String(proof.timings.total ?? 0),
    proof: tested.location ?? '',
  };
  await tell(outputs, proof.findings, secrets);
  log.info(restoreTestText(report));
  const earlier = await lastProofs(opened, catalog.backups).catch(() => []);
  const summary = restoreTestSummary(report, earlier, { now: await opened.now(), details: await details });
  await writeSummary(secrets.redact(summary), log);
  const subject: Subject = { of: 'backup', id: manifest.id, latest: selector.by === 'latest' };
  const issue =
    failure === undefined
      ? await alerts.passed({
          ...{ subject, backup: manifest, seconds: proof.timings.total ?? 0 },
          stored: catalog.backups.map((each) => each.manifest.id),
        })
      : await toldOf(failure, {
          subject,
          tested,
          alerts,
          proven: await newestPassed(
            opened,
            catalog.backups.filter((each) => each !== backup),
          ),
        });
  core.setOutput('issue-number', issue === undefined ? '' : String(issue));
  return failure;
}

/** The findings are a table there: of the error only its first line is said. */
function toldOf(
  failure: Failure,
  about: {
    readonly subject: Subject;
    readonly tested: RestoreTested;
    readonly alerts: Alerts;
    readonly proven: Proof | undefined;
  },
): Promise<number | undefined> {
  const { subject, tested, alerts, proven } = about;
  const { findings, timings } = tested.proof;
  const { stage, exit, hint } = failure;
  const message = failure.message.split('\n', 1)[0] ?? '';
  alerts.about(subject);
  return alerts.failed({ findings, timings, newestProven: proven?.backupId ?? null }, { stage, exit, message, hint });
}

/** Reads the inputs and hides the secrets among them, before anything is logged, also when they are wrong. */
function readRequest(secrets: Secrets, temporary: string, known: readonly Problem[]): RestoreTestRequest {
  const url = input('scratch-url') ?? '';
  hideSecretInputs(secrets);
  try {
    const inputs = new Inputs(input);
    inputs.add(known);
    const read = withPemFiles(input, inputs);
    const surroundings = {
      machine: { ...machineOf(process.env), temporary },
      source: sourceOf(process.env),
      identity: identityOf(process.env),
      artifacts: artifactPlaceOf(process.env, temporary),
    };
    const request = readHiding(secrets, url, () => readRestoreTest(read, surroundings, inputs.problems));
    const { scratch } = request.config;
    if (scratch !== undefined) for (const secret of secretsOf(url, scratch)) secrets.add(secret);
    for (const word of scratch === undefined ? [] : publicWordsOf(scratch)) secrets.spare(word);
    for (const word of [request.name, publicWordOf(request.store)]) secrets.spare(word);
    return request;
  } finally {
    maskAll(secrets);
  }
}

async function tell(
  outputs: Readonly<Record<string, string>>,
  findings: readonly Finding[],
  secrets: Secrets,
): Promise<void> {
  const texts = findings.map((finding) => secrets.redact(JSON.stringify(finding)));
  // The step's own folder goes with the step; this file is for the steps after it.
  const file = join(machineOf(process.env).temporary, `pgassay-findings-${randomBytes(4).toString('hex')}.json`);
  await writeFile(file, `[${texts.join(',\n')}]\n`, { mode: 0o600 });
  const all = { ...outputs, findings: jsonArray(texts), 'findings-file': file };
  for (const [name, value] of Object.entries(all)) core.setOutput(name, value);
}

/** After the job: removes what a killed run left. Never fails the job. */
export async function runRestoreTestPost(): Promise<void> {
  try {
    await removeStepFolder();
  } catch (error) {
    core.warning(`cleaning up after the restore test failed: ${(error as Error).message}`);
  }
}
