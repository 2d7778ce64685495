import { Failure } from '../failure.ts';

/**
 * A standby ends whoever is in the way of its replay, once max_standby_streaming_delay is over: with SQLSTATE 40001, of
 * which reading has no other cause. The statement is cancelled, or the session ended if it is idle in its transaction.
 */
export const recoveryConflictState = '40001';

/** `at` is ` at public.items`, or empty. */
export function recoveryConflict(cause: unknown, at = ''): Failure {
  return new Failure('dump', 'timeLimit', `the standby cancelled the dump${at}: it conflicted with recovery`, {
    hint: 'set hot_standby_feedback = on or a larger max_standby_streaming_delay on the standby, or back up the primary',
    cause,
    transient: true,
  });
}
