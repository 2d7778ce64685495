import * as core from '@actions/core';
import { alertInputs } from '../alert-inputs.ts';
import type { Failed } from '../alert-state.ts';
import { type BackupConfig, type BackupResult, backup, failOfMissed } from '../backup.ts';
import { backupInputs, readBackupConfig } from '../backup-inputs.ts';
import { decryptInputs, strayKeys } from '../encryption-inputs.ts';
import { artifactPlaceOf, identityOf, machineOf, readHiding, sourceOf, withPemFiles } from '../environment.ts';
import type { Problem } from '../failure.ts';
import { Inputs } from '../inputs.ts';
import { formatBytes, formatCount, formatTime } from '../numbers.ts';
import { publicWordsOf, secretsOf } from '../postgres/url.ts';
import { warnOfPruned } from '../prune.ts';
import { pruneText } from '../report/prune.ts';
import { backupSummary, withheld } from '../report/summary.ts';
import type { Secrets } from '../secrets.ts';
import { publicWordOf } from '../store/open.ts';
import { prepareAlerts } from './alert.ts';
import { maskAll, type Run, runAction } from './run.ts';
import {
  discardUnfinished,
  hideSecretInputs,
  input,
  jsonArray,
  refuseWindows,
  removeStepFolder,
  reportUnknown,
  saveUnfinished,
  withStepFolder,
  writeSummary,
} from './step.ts';

/** The action `pgassay/pgassay`: takes one backup. */
export function runBackup(): Promise<void> {
  return runAction(async (run) => {
    refuseWindows();
    reportUnknown([...backupInputs, ...alertInputs, ...decryptInputs], run.log);
    const automatic = process.env.GITHUB_EVENT_NAME === 'schedule';
    const alerts = prepareAlerts(run, { kind: 'backup', read: input, automatic });
    await withStepFolder(async (temporary) => {
      const config = readConfig(run.secrets, temporary, alerts.problems);
      for (const notice of config.target.notices) run.log.notice(notice);
      const { password } = config.target;
      if (password !== undefined && !run.secrets.forms().includes(password))
        run.log.warn(
          'the password is too short to be hidden in logs, or part of a host, user, database or folder name: choose another',
        );
      // Asked now, so that nobody waits for the answer once the backup is stored.
      const details = alerts.details();
      const result = await backup(config, { ...run, began: (id) => saveUnfinished(config.name, id) });
      await report(result, run, await details);
      if (result.kind === 'stored' && result.missed.length > 0)
        alerts.about({ of: 'name' }, { timings: result.manifest.timings, partly: countsOf(result) });
      failOfMissed(result);
      if (result.kind === 'stored') {
        const { manifest } = result;
        await alerts.passed({ subject: { of: 'name' }, backup: manifest, seconds: manifest.timings.total ?? 0 });
      }
    });
  });
}

/** Reads the inputs and hides the secrets among them, before anything is logged, also when they are wrong. */
function readConfig(secrets: Secrets, temporary: string, known: readonly Problem[]): BackupConfig {
  const url = input('database-url') ?? '';
  hideSecretInputs(secrets);
  try {
    const inputs = new Inputs(input);
    inputs.add(known);
    inputs.add(strayKeys(process.env));
    const read = withPemFiles(input, inputs);
    const surroundings = {
      machine: { ...machineOf(process.env), temporary },
      source: sourceOf(process.env),
      event: process.env.GITHUB_EVENT_NAME,
      identity: identityOf(process.env),
      artifacts: artifactPlaceOf(process.env, temporary),
    };
    const config = readHiding(secrets, url, () => readBackupConfig(read, surroundings, inputs.problems));
    for (const secret of secretsOf(url, config.target)) secrets.add(secret);
    for (const word of [...publicWordsOf(config.target), config.name, config.label, ...config.stores.map(publicWordOf)])
      secrets.spare(word);
    return config;
  } finally {
    maskAll(secrets);
  }
}

function countsOf({ stored, missed }: Pick<BackupResult & { kind: 'stored' }, 'stored' | 'missed'>): Failed['partly'] {
  return { stored: stored.length, of: stored.length + missed.length };
}

async function report(result: BackupResult, { log }: Run, details: boolean): Promise<void> {
  if (result.kind === 'dry-run') {
    const tables = formatCount(result.tables, 'table');
    log.info(
      `dry run: ${tables} would be dumped from PostgreSQL ${result.server} with pg_dump ${result.client}; nothing was stored`,
    );
    const dumped = details ? `${tables} would be dumped; nothing was stored.` : `Nothing was stored. ${withheld}`;
    return writeSummary(`### Dry run\n\nEverything is in place. ${dumped}\n`, log);
  }
  const { manifest, stored, missed } = result;
  const dump = manifest.files[0];
  const prunedIds = new Set(stored.flatMap(({ pruned }) => pruned?.removed ?? []).map(({ id }) => id));
  const outputs: Record<string, string> = {
    'backup-id': manifest.id,
    location: stored.map((each) => each.location).join('\n'),
    sha256: dump?.sha256 ?? '',
    'size-bytes': String(dump?.bytes ?? 0),
    'database-bytes': String(manifest.database.sizeBytes),
    tables: String(manifest.totals.tables),
    rows: String(manifest.totals.rows),
    'server-version': manifest.database.serverVersion,
    'duration-seconds': String(manifest.timings.total ?? 0),
    pruned: jsonArray([...prunedIds].sort().map((id) => JSON.stringify(id))),
    'restore-command': stored[0]?.restoreCommand ?? '',
    'failed-stores': missed.map(({ uri }) => uri).join('\n'),
  };
  for (const [name, value] of Object.entries(outputs)) core.setOutput(name, value);
  for (const warning of result.warnings) log.warn(warning);
  const { tables, rows } = manifest.totals;
  log.info(
    `backup ${manifest.name}/${manifest.id} is whole and stored: ${formatCount(tables, 'table')}, ${formatCount(rows, 'row')}, ${formatBytes(dump?.bytes ?? 0)}; restore it with\n  ${stored[0]?.restoreCommand}`,
  );
  for (const { location, expiresAt, pruned } of stored) {
    if (expiresAt !== undefined) log.notice(`${location} is deleted by its store on ${formatTime(expiresAt)}`);
    if (pruned !== undefined) {
      log.info(pruneText(pruned));
      warnOfPruned(pruned, log);
    }
  }
  await writeSummary(backupSummary(result, details, new Date()), log);
}

/** After the job: removes what a killed run left. Never fails the job. */
export async function runBackupPost(): Promise<void> {
  try {
    await removeStepFolder();
    await discardUnfinished();
  } catch (error) {
    core.warning(`cleaning up after the backup failed: ${(error as Error).message}`);
  }
}
