import * as core from '@actions/core';
import { alertInputs } from '../alert-inputs.ts';
import { artifactPlaceOf, identityOf, inputsOf, machineOf } from '../environment.ts';
import type { Manifest } from '../manifest.ts';
import { prune, warnOfPruned } from '../prune.ts';
import { failureOfPruned, type PruneConfig, pruneInputs, readPruneConfig } from '../prune-inputs.ts';
import { pruneSummary, pruneText } from '../report/prune.ts';
import type { Secrets } from '../secrets.ts';
import { openStore, publicWordOf } from '../store/open.ts';
import { type Alerts, prepareAlerts } from './alert.ts';
import { maskAll, type Run, runAction } from './run.ts';
import { hideSecretInputs, input, jsonArray, refuseWindows, reportUnknown, writeSummary } from './step.ts';

/** The action `pgassay/pgassay/prune`: retention, with credentials of its own. */
export function runPrune(): Promise<void> {
  return runAction(async (run) => {
    refuseWindows();
    reportUnknown([...pruneInputs, ...alertInputs], run.log);
    const automatic = process.env.GITHUB_EVENT_NAME === 'schedule';
    const alerts = prepareAlerts(run, { kind: 'prune', read: input, automatic });
    await apply(readRequest(run.secrets, alerts), run, alerts);
  });
}

async function apply(config: PruneConfig, run: Run, alerts: Alerts): Promise<void> {
  const began = Date.now();
  const details = alerts.details();
  const store = openStore(config.store, { signal: run.signal });
  const pruned = await prune({ ...config, store }, run);
  core.setOutput('kept', idsOf(pruned.kept.map(({ manifest }) => manifest)));
  core.setOutput('pruned', idsOf(pruned.removed));
  run.log.info(pruneText(pruned));
  warnOfPruned(pruned, run.log);
  await writeSummary(pruneSummary(pruned, await details), run.log);
  const failure = failureOfPruned(pruned);
  if (failure !== undefined) throw failure;
  await alerts.passed({ subject: { of: 'name' }, seconds: (Date.now() - began) / 1000 });
}

function idsOf(manifests: readonly Manifest[]): string {
  return jsonArray(manifests.map(({ id }) => JSON.stringify(id)));
}

/** Reads the inputs and hides the secrets among them, before anything is logged, also when they are wrong. */
function readRequest(secrets: Secrets, { problems }: Alerts): PruneConfig {
  hideSecretInputs(secrets);
  try {
    const inputs = inputsOf(input);
    inputs.add(problems);
    const artifacts = artifactPlaceOf(process.env, machineOf(process.env).temporary);
    const config = readPruneConfig(inputs, identityOf(process.env), artifacts);
    for (const word of [config.name, publicWordOf(config.store)]) secrets.spare(word);
    return config;
  } finally {
    maskAll(secrets);
  }
}
