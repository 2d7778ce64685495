import { Failure } from './failure.ts';
import type { Log } from './log.ts';

export interface Limits {
  readonly timeoutMs: number;
  /** What it means that all attempts together took longer. */
  readonly tooLong: () => Failure;
  readonly retries: number;
  /** What it means that somebody cancelled. */
  readonly cancelled: () => Failure;
  /** What is thrown when an attempt was ended early and has thrown something itself; the reason where nobody says. */
  readonly ended?: (reason: Failure, thrown: unknown) => Failure;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/**
 * Runs `attempt` again after transient failures, all within the time limit; `again`: it may be, after this one. Its signal is aborted when the time is up or
 * when ours is; whatever it throws then, the reason is what is thrown, unless `ended` says otherwise.
 */
export async function withinLimits<T>(
  limits: Limits,
  attempt: (signal: AbortSignal, again: boolean) => Promise<T>,
): Promise<T> {
  const { timeoutMs, tooLong, cancelled, retries, log } = limits;
  const deadline = new AbortController();
  const timer = setTimeout(() => deadline.abort(tooLong()), timeoutMs);
  const signal = AbortSignal.any([limits.signal, deadline.signal]);
  const reason = (): Failure => {
    const { reason: given } = signal;
    return given instanceof Failure && given.exit !== 'cancelled' ? given : cancelled();
  };
  try {
    for (let failed = 0; ; failed++) {
      try {
        return await attempt(signal, failed < retries);
      } catch (error) {
        if (signal.aborted) throw limits.ended?.(reason(), error) ?? reason();
        if (!(error instanceof Failure) || !error.transient || failed >= retries) throw error;
        const seconds = 2 ** failed * 2;
        log.warn(`${error.stage}: ${error.message}; trying again in ${seconds} s (${failed + 1} of ${retries})`);
        await pause(seconds * 1000, signal);
        if (signal.aborted) throw reason();
      }
    }
  } finally {
    clearTimeout(timer);
  }
}

/** Ends early when the signal is aborted. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done, { once: true });
    if (signal.aborted) done();
  });
}
