import * as core from '@actions/core';
import { cancelOnSignals, exitEvenIfBusy } from '../environment.ts';
import { cancelled, type Failure } from '../failure.ts';
import type { Log } from '../log.ts';
import { Secrets } from '../secrets.ts';
import { describeDefect, failureOf } from '../unexpected.ts';
import { harmless, runnerLog } from './log.ts';

export interface Run {
  readonly log: Log;
  readonly secrets: Secrets;
  readonly signal: AbortSignal;
}

/**
 * Runs one action: catches once, prints the failure once, sets the exit status. A masked value in an output makes the
 * runner drop the output, so public words are spared from the masks before any is set.
 */
export async function runAction(work: (run: Run) => Promise<void>): Promise<void> {
  const secrets = new Secrets();
  const log = runnerLog(secrets);
  const signal = cancelOnSignals(() => cancelled('dump'));
  try {
    await work({ log, secrets, signal });
  } catch (error) {
    const failure = failureOf(error, signal);
    const text = failure === undefined ? describeDefect(error) : describeFailure(failure);
    core.error(harmless(secrets.redact(text)));
    process.exitCode = failure?.exitCode ?? 1;
  } finally {
    exitEvenIfBusy();
  }
}

function describeFailure({ stage, message, hint }: Failure): string {
  return `${stage}: ${message}${hint === undefined ? '' : `\nhint: ${hint}`}`;
}

/** Tells the runner what to hide. Forms shorter than four characters stay readable: they would blot out every log. */
export function maskAll(secrets: Secrets): void {
  for (const form of secrets.forms()) core.setSecret(form);
}
