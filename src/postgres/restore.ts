import { type FileHandle, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { cancelled, Failure } from '../failure.ts';
import type { Log } from '../log.ts';
import { type Exit, start } from '../program.ts';
import { databaseArgument } from './child-environment.ts';
import { type ProgramReport, ReportReader, readReports } from './messages.ts';
import type { Programs } from './programs.ts';

/** `auto` keeps owners and grants where the target's role may set them; `keep` insists; `drop` gives all to that role. */
export type OwnerChoice = 'auto' | 'keep' | 'drop';

export interface RestorePlan {
  readonly programs: Programs;
  readonly environment: Readonly<Record<string, string>>;
  readonly database: string;
  /** A custom-format archive, seekable, so that several jobs can read it; or the path of any archive. */
  readonly archive: { readonly file: FileHandle | undefined; readonly path: string | undefined };
  readonly jobs: number;
  /** Names of the archive's objects, which messages may repeat. */
  readonly names: readonly string[];
}

/** How a database that is meant to be used is restored. */
export interface RecoveryPlan extends RestorePlan {
  readonly keepOwners: boolean;
  /** All or nothing, with one connection; `jobs` counts otherwise. */
  readonly oneTransaction: boolean;
  /** Only these entries (their numbers, in the archive's order), dropped first with `clean`; undefined: the whole archive. */
  readonly only?: { readonly list: readonly number[]; readonly folder: string; readonly clean: boolean } | undefined;
}

/**
 * The server ended a wait of pg_restore's own jobs for each other. It happens with partitions of partitions: attaching an
 * index and checking a foreign key of the same tree are given to two jobs (seen with 17.11, 2 of 100 with eight jobs).
 */
export class JobsDeadlocked extends Failure {}

/** Runs pg_restore, stopping at the first error. Throws a `Failure` without a hint that names the entry, and no row value. */
export async function restoreArchive(plan: RecoveryPlan, io: Io): Promise<void> {
  const { only } = plan;
  const exit = await pgRestore(
    plan,
    [
      '--exit-on-error',
      '--verbose',
      ...(only === undefined ? [] : [`--use-list=${await writeList(only)}`]),
      ...(only?.clean === true ? ['--clean', '--if-exists'] : []),
      ...(plan.oneTransaction ? ['--single-transaction'] : [`--jobs=${plan.jobs}`]),
      ...(plan.keepOwners ? [] : ['--no-owner', '--no-privileges']),
    ],
    io,
  );
  if (exit.code === 0 && exit.signal === null) return;
  const error = readReports(exit.stderr, knownNames(plan)).find((report) => report.severity === 'error');
  const where = error?.entry === undefined ? '' : ` at ${error.entry}`;
  const what = exit.signal === null ? (error?.message ?? `exit ${exit.code}`) : `killed by ${exit.signal}`;
  const own = plan.jobs > 1 && !plan.oneTransaction && isDeadlock(error);
  throw new (own ? JobsDeadlocked : Failure)('restore', 'restore', `pg_restore stopped${where}: ${what}`, {
    transient: exit.stderr.split('\n').some((line) => line.startsWith('pg_restore: error: ') && broken.test(line)),
  });
}

/** What pg_restore says when its connection ends, or cannot be made again. */
const broken =
  /server closed the connection|terminating connection|could not (?:receive|send) data|connection to server|SSL (?:SYSCALL|error)|no connection to the server/;

/** What did not go well in a restore that went on all the same. */
export interface Refused {
  /** The archive's entry; undefined when pg_restore named none. */
  readonly dumpId: number | undefined;
  /** What it was about, where there are no entries. */
  readonly object?: string;
  /** Without row values. */
  readonly message: string;
}

const mostRefused = 10_000;

/** A restore that went on after its errors. */
export interface Lenient {
  readonly refused: readonly Refused[];
  /** How many errors were expected and are not among `refused`. */
  readonly expected: number;
}

/**
 * Restores the entries of `list` (their numbers, in the archive's order), and goes on after an error: returns them all,
 * but those that `isExpected`. Nothing that would reach another server or place is restored. Throws
 * {@link JobsDeadlocked} and, when pg_restore was ended by somebody, a `Failure`.
 */
export async function restoreLeniently(
  plan: RestorePlan,
  {
    list,
    folder,
    isExpected,
  }: {
    readonly list: readonly number[];
    readonly folder: string;
    readonly isExpected: (refused: Refused) => boolean;
  },
  io: Io,
): Promise<Lenient> {
  const path = await writeList({ list, folder });
  const reader = new ReportReader(knownNames(plan));
  const refused: Refused[] = [];
  let deadlocked = false;
  let expected = 0;
  let unnamed = 0;
  let ignored: number | undefined;
  // Its jobs write to one standard error in pieces, and -v would have them write about everything.
  const args = [
    ...[`--jobs=${plan.jobs}`, `--use-list=${path}`],
    ...['--no-subscriptions', '--no-publications', '--no-tablespaces'],
  ];
  const exit = await pgRestore(plan, args, io, (line) => {
    const counted = /^pg_restore: warning: errors ignored on restore: (\d+)$/.exec(line)?.[1];
    if (counted !== undefined) ignored = Number(counted);
    const report = reader.read(line);
    if (report?.severity !== 'error') return;
    deadlocked ||= isDeadlock(report);
    const each = { dumpId: report.dumpId, message: report.message };
    if (isExpected(each)) expected++;
    else if (refused.length < mostRefused) refused.push(each);
    else unnamed++;
  });
  if (deadlocked && plan.jobs > 1)
    throw new JobsDeadlocked('restore', 'restore', 'pg_restore stopped: the server ended a deadlock of its own jobs');
  if (exit.signal !== null) throw new Failure('restore', 'restore', `pg_restore was ended by ${exit.signal}`);
  if (unnamed > 0) refused.push({ dumpId: undefined, message: `${unnamed} more errors` });
  // Expected errors alone are no failure, but only when they are all that there were: pieces of two lines can mix.
  if (exit.code !== 0 && refused.length === 0 && ignored !== expected)
    refused.push({
      dumpId: undefined,
      message: `pg_restore exited ${exit.code} after ${ignored ?? 'some'} errors, of which ${expected} were expected; what the others said was lost`,
    });
  return { refused, expected };
}

async function writeList({
  list,
  folder,
}: {
  readonly list: readonly number[];
  readonly folder: string;
}): Promise<string> {
  const path = join(folder, `list-${process.hrtime.bigint()}`);
  await writeFile(path, list.map((id) => `${id};\n`).join(''), { mode: 0o600, flag: 'wx' });
  return path;
}

function isDeadlock(report: ProgramReport | undefined): boolean {
  return /deadlock detected$/.test(report?.message ?? '');
}

function knownNames({ names }: RestorePlan): (word: string) => boolean {
  const known = new Set(names);
  return (word) => known.has(word) || known.has(word.split('.').at(-1) ?? '');
}

interface Io {
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** Runs pg_restore to its end; throws only when it was cancelled or could not be started. */
async function pgRestore(
  plan: RestorePlan,
  args: readonly string[],
  { log, signal }: Io,
  onLine: (line: string) => void = () => {},
): Promise<Exit> {
  signal.throwIfAborted();
  const program = start({
    path: plan.programs.pgRestore,
    args: [...['--no-password', '--verbose', '-d', databaseArgument(plan.database), ...args], pathOf(plan.archive)],
    env: plan.environment,
    ...(plan.archive.file === undefined ? {} : { inherit: [plan.archive.file.fd] }),
  });
  program.stdin.end();
  program.stdout.resume();
  let entries = 0;
  let current = '';
  program.onStderrLine((line) => {
    onLine(line);
    const item = /^pg_restore: (?:creating|processing|executing|launching item \d+) (.*)$/.exec(line)?.[1];
    if (item === undefined) return;
    entries++;
    current = item;
  });
  const started = Date.now();
  const progress = setInterval(() => {
    const done = entries === 0 ? '' : `${entries} entries · ${current} · `;
    log.progress(`restore ${done}elapsed ${Math.round((Date.now() - started) / 1000)} s`);
  }, 10_000);
  const stop = (): void => void program.stop().catch(() => undefined);
  signal.addEventListener('abort', stop, { once: true });
  try {
    const exit = await program.exited.catch((error: NodeJS.ErrnoException) => {
      throw new Failure('restore', 'restore', `pg_restore could not be started: ${error.code}`, { cause: error });
    });
    if ((exit.code !== 0 || exit.signal !== null) && signal.aborted) throw cancelled('restore');
    return exit;
  } finally {
    clearInterval(progress);
    signal.removeEventListener('abort', stop);
  }
}

/** Every job opens the archive anew; on Linux /proc does that even for a file without a name. */
function pathOf({ file, path }: RestorePlan['archive']): string {
  if (file !== undefined && process.platform === 'linux') return '/proc/self/fd/3';
  return path ?? '/dev/fd/3';
}
