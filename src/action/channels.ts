import type { Channels } from '../channel-inputs.ts';
import { tellSwitch } from '../tell-channels.ts';
import type { Run } from './run.ts';

const afterCancelMs = 2_000;

/** Aborted two seconds after the run is cancelled: the runner waits little longer. */
export function soonAfter(cancel: AbortSignal): AbortSignal {
  const stop = new AbortController();
  const end = (): void => void setTimeout(() => stop.abort(), afterCancelMs).unref();
  if (cancel.aborted) end();
  else cancel.addEventListener('abort', end, { once: true });
  return stop.signal;
}

/**
 * The dead-man's switch of one run: told that it began, and once, when all is said, how it ended. A run that was cancelled
 * or that only looked (`dry-run`) says nothing, which is what the switch is waiting for.
 */
export class RunSwitch {
  readonly #run: Run;
  readonly #address: Channels['ping'];
  #began: Promise<void> | undefined;
  #failed = false;
  #passed = false;

  constructor(run: Run, address: Channels['ping']) {
    this.#run = run;
    this.#address = address;
    run.onEnd(() => this.#end());
  }

  /** Does not wait for the answer: nothing of the run depends on it. */
  begin(): void {
    if (this.#address === undefined) return;
    const { log, signal } = this.#run;
    // Whether the end arrives is what counts, and is warned of.
    const quiet = { ...log, warn: (message: string) => log.info(message) };
    this.#began = tellSwitch(this.#address, 'start', { log: quiet, stop: soonAfter(signal) });
  }

  /** Of several outcomes the worst counts. */
  saw(outcome: 'failed' | 'passed'): void {
    if (outcome === 'failed') this.#failed = true;
    else this.#passed = true;
  }

  async #end(): Promise<void> {
    const { log, signal } = this.#run;
    if (this.#address === undefined || signal.aborted || !(this.#failed || this.#passed)) return;
    await this.#began;
    await tellSwitch(this.#address, this.#failed ? 'fail' : 'success', { log, stop: soonAfter(signal) });
  }
}
