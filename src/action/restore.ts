import * as core from '@actions/core';
import { actorOf, artifactPlaceOf, identityOf, machineOf, readHiding, sourceOf, withPemFiles } from '../environment.ts';
import { Inputs } from '../inputs.ts';
import { locate } from '../locate.ts';
import { displayWord } from '../postgres/names.ts';
import { publicWordsOf, secretsOf } from '../postgres/url.ts';
import { restoreSummary, restoreText } from '../report/restore.ts';
import { restore } from '../restore.ts';
import { type RestoreRequest, readRestore, restoreInputs } from '../restore-inputs.ts';
import type { Secrets } from '../secrets.ts';
import { openStore, publicWordOf } from '../store/open.ts';
import { repositoryIsPrivate } from './alert.ts';
import { maskAll, type Run, runAction } from './run.ts';
import {
  discardUnfinished,
  hideSecretInputs,
  input,
  refuseWindows,
  removeStepFolder,
  reportUnknown,
  saveUnfinished,
  withStepFolder,
  writeSummary,
} from './step.ts';

/** The action `pgassay/pgassay/restore`: recovery. */
export function runRestore(): Promise<void> {
  return runAction(async (run) => {
    refuseWindows();
    reportUnknown(restoreInputs, run.log);
    await withStepFolder((temporary) => recover(readRequest(run.secrets, temporary), run));
  });
}

async function recover({ config, idleMs, name, selector }: RestoreRequest, run: Run): Promise<void> {
  const { log, secrets, signal } = run;
  for (const notice of config.target.notices) log.notice(notice);
  const opened = openStore(config.store, { signal, idleMs });
  const { backup } = await locate(opened, { name, selector, trust: config.trust }, log);
  core.setOutput('backup-id', backup.manifest.id);
  core.setOutput('safety-backup-id', '');
  const restored = await log.group('Restore', () =>
    restore(opened, backup, config, {
      log,
      signal,
      began: (id) => saveUnfinished(backup.manifest.name, id),
      safe: (id) => core.setOutput('safety-backup-id', id),
    }),
  );
  const report = { ...restored, database: displayWord(config.target.database) };
  for (const [output, value] of Object.entries({
    tables: report.tables,
    rows: report.rows,
    'duration-seconds': Math.round(report.seconds * 10) / 10,
  }))
    core.setOutput(output, String(value));
  log.info(restoreText(report));
  await writeSummary(secrets.redact(restoreSummary(report, await opened.now(), repositoryIsPrivate())), log);
}

/** Reads the inputs and hides the secrets among them, before anything is logged, also when they are wrong. */
function readRequest(secrets: Secrets, temporary: string): RestoreRequest {
  const url = input('target-url') ?? '';
  hideSecretInputs(secrets);
  try {
    const inputs = new Inputs(input);
    const read = withPemFiles(input, inputs);
    const surroundings = {
      machine: { ...machineOf(process.env), temporary },
      source: sourceOf(process.env),
      actor: actorOf(process.env),
      identity: identityOf(process.env),
      artifacts: artifactPlaceOf(process.env, temporary),
    };
    const request = readHiding(secrets, url, () => readRestore(read, surroundings, inputs.problems));
    const { target } = request.config;
    for (const secret of secretsOf(url, target)) secrets.add(secret);
    for (const word of [...publicWordsOf(target), request.name, publicWordOf(request.config.store)])
      secrets.spare(word);
    return request;
  } finally {
    maskAll(secrets);
  }
}

/** After the job: removes what a killed run left. Never fails the job. */
export async function runRestorePost(): Promise<void> {
  try {
    await removeStepFolder();
    await discardUnfinished();
  } catch (error) {
    core.warning(`cleaning up after the restore failed: ${(error as Error).message}`);
  }
}
