import { cancelled, Failure } from './failure.ts';
import { isDatabaseError, reduceMessage } from './postgres/messages.ts';

/** The `Failure` behind an error that reached an edge; undefined for a defect of this program. */
export function failureOf(error: unknown, signal: AbortSignal): Failure | undefined {
  if (error instanceof Failure) return error;
  if (signal.aborted) return cancelled('dump');
  const { code, syscall } = (error ?? {}) as { readonly code?: unknown; readonly syscall?: unknown };
  if (typeof syscall !== 'string' || !['mkdtemp', 'mkdir', 'open', 'write', 'fsync'].includes(syscall))
    return undefined;
  // The store and every file a user names have errors of their own.
  const hint = 'RUNNER_TEMP, or TMPDIR on a command line, must be a folder this user can write to';
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return new Failure('preflight', 'disk', 'no space is left in the temporary folder', { hint, cause: error });
  if (code === 'ENOENT' || code === 'EACCES' || code === 'EROFS' || code === 'ENOTDIR')
    return new Failure('preflight', 'disk', `the temporary folder cannot be used (${code})`, { hint, cause: error });
  return undefined;
}

/** What helps us to find a defect: where it happened. A server's message is reduced, because it may hold data. */
export function describeDefect(error: unknown): string {
  const before = 'this is a defect of pgassay, please report it: ';
  if (!(error instanceof Error)) return `${before}${typeof error}`;
  if (!isDatabaseError(error)) return `${before}${error.stack ?? error.message}`;
  const frames = (error.stack ?? '').split('\n').filter((line) => /^ {4}at /.test(line));
  return [`${before}SQLSTATE ${error.code}, ${reduceMessage(error.message)}`, ...frames].join('\n');
}
