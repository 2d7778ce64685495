import type { FileHandle } from 'node:fs/promises';
import { cancelled, Failure } from '../failure.ts';
import type { Log } from '../log.ts';
import { start } from '../program.ts';
import { databaseArgument } from './child-environment.ts';
import { readReports } from './messages.ts';
import type { Programs } from './programs.ts';

/** `auto` keeps owners and grants where the target's role may set them; `keep` insists; `drop` gives all to that role. */
export type OwnerChoice = 'auto' | 'keep' | 'drop';

export interface RestorePlan {
  readonly programs: Programs;
  readonly environment: Readonly<Record<string, string>>;
  readonly database: string;
  /** A custom-format archive, seekable, so that several jobs can read it. */
  readonly archive: { readonly file: FileHandle; readonly path: string | undefined };
  readonly jobs: number;
  readonly keepOwners: boolean;
  /** All or nothing, with one connection; `jobs` counts otherwise. */
  readonly oneTransaction: boolean;
  /** Names of the archive's objects, which messages may repeat. */
  readonly names: readonly string[];
}

/**
 * The server ended a wait of pg_restore's own jobs for each other. It happens with partitions of partitions: attaching an
 * index and checking a foreign key of the same tree are given to two jobs (seen with 17.11, 2 of 100 with eight jobs).
 */
export class JobsDeadlocked extends Failure {}

/** Runs pg_restore, stopping at the first error. Throws a `Failure` without a hint that names the entry, and no row value. */
export async function restoreArchive(
  plan: RestorePlan,
  { log, signal }: { readonly log: Log; readonly signal: AbortSignal },
): Promise<void> {
  signal.throwIfAborted();
  const program = start({
    path: plan.programs.pgRestore,
    args: [
      '--exit-on-error',
      '--no-password',
      '--verbose',
      '-d',
      databaseArgument(plan.database),
      ...(plan.oneTransaction ? ['--single-transaction'] : [`--jobs=${plan.jobs}`]),
      ...(plan.keepOwners ? [] : ['--no-owner', '--no-privileges']),
      // Every job opens the archive anew; on Linux /proc does that even for a file without a name.
      process.platform === 'linux' ? '/proc/self/fd/3' : (plan.archive.path ?? '/dev/fd/3'),
    ],
    env: plan.environment,
    inherit: [plan.archive.file.fd],
  });
  program.stdin.end();
  program.stdout.resume();
  let entries = 0;
  let current = '';
  program.onStderrLine((line) => {
    const item = /^pg_restore: (?:creating|processing|executing|launching item \d+) (.*)$/.exec(line)?.[1];
    if (item === undefined) return;
    entries++;
    current = item;
  });
  const started = Date.now();
  const progress = setInterval(() => {
    log.progress(`restore ${entries} entries · ${current} · elapsed ${Math.round((Date.now() - started) / 1000)} s`);
  }, 10_000);
  const stop = (): void => void program.stop().catch(() => undefined);
  signal.addEventListener('abort', stop, { once: true });
  try {
    const exit = await program.exited.catch((error: NodeJS.ErrnoException) => {
      throw new Failure('restore', 'restore', `pg_restore could not be started: ${error.code}`, { cause: error });
    });
    if (exit.code === 0 && exit.signal === null) return;
    if (signal.aborted) throw cancelled('restore');
    const names = new Set(plan.names);
    const reports = readReports(exit.stderr, (word) => names.has(word) || names.has(word.split('.').at(-1) ?? ''));
    const error = reports.find((report) => report.severity === 'error');
    const where = error?.entry === undefined ? '' : ` at ${error.entry}`;
    const what = exit.signal === null ? (error?.message ?? `exit ${exit.code}`) : `killed by ${exit.signal}`;
    const own = plan.jobs > 1 && !plan.oneTransaction && /deadlock detected$/.test(error?.message ?? '');
    throw new (own ? JobsDeadlocked : Failure)('restore', 'restore', `pg_restore stopped${where}: ${what}`);
  } finally {
    clearInterval(progress);
    signal.removeEventListener('abort', stop);
  }
}
