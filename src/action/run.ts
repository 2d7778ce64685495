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
  /**
   * Adds somebody to be told of a run that failed, after the error was printed; of a cancelled one nobody is. He gets
   * undefined for a defect, never throws, and takes no longer than he must.
   */
  onFailure(tell: (failure: Failure | undefined) => Promise<void>): void;
  /** Adds what is done last, however the run ended unless it was cancelled. It never throws, and is quick. */
  onEnd(last: () => Promise<void>): void;
}

/**
 * Runs one action: catches once, prints the failure once, sets the exit status. A masked value in an output makes the
 * runner drop the output, so public words are spared from the masks before any is set.
 */
export async function runAction(work: (run: Run) => Promise<void>): Promise<void> {
  const secrets = new Secrets();
  const log = runnerLog(secrets);
  const signal = cancelOnSignals(() => cancelled('dump'));
  const told: ((failure: Failure | undefined) => Promise<void>)[] = [];
  const ended: (() => Promise<void>)[] = [];
  try {
    await work({ log, secrets, signal, onFailure: (tell) => told.push(tell), onEnd: (last) => ended.push(last) });
    for (const last of ended) await last();
  } catch (error) {
    const failure = failureOf(error, signal);
    const text = failure === undefined ? describeDefect(error) : describeFailure(failure);
    core.error(harmless(secrets.redact(text)));
    process.exitCode = failure?.exitCode ?? 1;
    if (failure?.exit === 'cancelled') return;
    for (const tell of told) await tell(failure);
    for (const last of ended) await last();
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
