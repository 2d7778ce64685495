import { cancelled, Failure } from './failure.ts';
import type { Manifest } from './manifest.ts';
import { isDatabaseError, reduceMessage } from './postgres/messages.ts';
import { JobsDeadlocked } from './postgres/restore.ts';

/** What is left of a restore that failed. */
export interface Left {
  /** What the target holds now, in half a sentence. */
  readonly text: string;
  /** The target is known to be as it was, so that the same may be tried again. */
  readonly intact: boolean;
}

/** How far a restore came before it failed. */
export interface Outcome {
  readonly left: Left;
  readonly signal: AbortSignal;
  /** pg_restore was done; the comparison was not. */
  readonly restored: boolean;
  /** The sentence about what is left is to be in the error even where the error has a hint of its own. */
  readonly changed: boolean;
  readonly safety: Manifest | undefined;
}

/** The error with what is left of the restore; row values are in none of them. */
export function tellFailure(error: unknown, outcome: Outcome): Failure {
  return withSafety(told(error, outcome), outcome);
}

function told(error: unknown, { left, signal, restored, changed }: Outcome): Failure {
  if (signal.aborted) {
    const reason = signal.reason instanceof Failure ? signal.reason : cancelled('restore');
    const message = reason.exit === 'cancelled' ? 'cancelled' : reason.message;
    const hint = reason.exit === 'cancelled' ? 'run it again when you are ready' : reason.hint;
    return new Failure('restore', reason.exit, `${message}; ${left.text}`, { hint, cause: error });
  }
  if (restored && !(error instanceof Failure && error.exit === 'restore'))
    return new Failure('restore', 'restore', `the restored database could not be compared: ${said(error)}`, {
      hint: `${left.text}; do not use it before you have counted its tables, or restore again into another database`,
      cause: error,
    });
  if (error instanceof Failure) {
    const transient = error.transient && left.intact;
    if (error.hint !== undefined || error.stage !== 'restore') {
      const hint = changed ? [error.hint, left.text].filter((each) => each !== undefined).join('\n') : error.hint;
      return new Failure(error.stage, error.exit, error.message, { hint, cause: error.cause, transient });
    }
    const next = error instanceof JobsDeadlocked ? 'run it again with --jobs 1' : 'correct the cause and run it again';
    return new Failure('restore', error.exit, error.message, {
      hint: `${left.text}; ${next}`,
      cause: error.cause,
      transient,
    });
  }
  if (!isDatabaseError(error)) throw error;
  return new Failure('restore', 'restore', `the target server refused a statement: ${said(error)}`, {
    hint: left.text,
    cause: error,
  });
}

/** Whatever became of the target, what it held before is somewhere. */
function withSafety(failure: Failure, { safety }: Outcome): Failure {
  if (safety === undefined) return failure;
  const { stage, exit, message, hint, cause, transient } = failure;
  const before = `what it held before is in the safety backup ${safety.name}/${safety.id}`;
  return new Failure(stage, exit, message, {
    hint: hint === undefined ? before : `${hint}\n${before}`,
    cause,
    transient,
  });
}

function said(error: unknown): string {
  if (error instanceof Failure) return error.message;
  return isDatabaseError(error) ? reduceMessage(error.message) : 'the connection broke';
}
