import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '../failure.ts';
import { OutputPipe } from '../output-pipe.ts';
import { type Exit, run, start } from '../program.ts';
import { type Archive, ArchiveDecoder } from './archive.ts';
import { readReports } from './messages.ts';
import { bareEnvironment, type Programs } from './programs.ts';
import { recoveryConflict } from './recovery-conflict.ts';
import type { Scope, ScopeRequest } from './scope.ts';
import { outOfLocks } from './snapshot.ts';

export interface DumpPlan {
  readonly programs: Programs;
  /** PG* variables that reach the snapshot's server. */
  readonly environment: Readonly<Record<string, string>>;
  /** A folder of our own for what does not fit on a command line. */
  readonly privateDirectory: string;
  readonly snapshot: string;
  readonly scope: Scope;
  readonly mode: ScopeRequest['mode'];
  /** pg_dump's own word, `zstd:3` or `1`. */
  readonly compress: string;
  readonly lockWaitMs: number;
}

/** What a running dump is doing; read by progress lines and by the stall watchdog. */
export class DumpMeter {
  bytes = 0;
  lastByteAt = Date.now();
  /** Whose turn it is: the server's to send, or pg_restore's or the store's to take what was sent; nobody's at the end. */
  waitingFor: 'server' | 'validation' | 'store' | 'nobody' = 'server';
  decoder: ArchiveDecoder | undefined;
}

/** Where the archive's bytes go; resolves when there is room for more, and keeps no part of the chunk then. */
export type Sink = (chunk: Buffer) => Promise<void>;

export interface Dumped {
  readonly bytes: number;
  readonly archive: Archive;
  /** What pg_dump warned about though it exited 0. */
  readonly warnings: readonly string[];
}

/** More patterns than this go into a file where pg_dump can read one (17 and later). */
const mostPatterns = 200;
const longestCommandLine = 1024 * 1024;

/**
 * Streams pg_dump's archive to `sink` and, at the same time, through pg_restore. Resolves only when both exited 0 and
 * the archive was read to its end; the caller decides whether what was read is right. On `signal` both are ended.
 */
export async function dump(plan: DumpPlan, sink: Sink, meter: DumpMeter, signal: AbortSignal): Promise<Dumped> {
  signal.throwIfAborted();
  const args = await dumpArguments(plan);
  const output = await OutputPipe.open(plan.privateDirectory);
  const decoder = await ArchiveDecoder.start(plan.programs, plan.privateDirectory);
  const program = start({ path: plan.programs.pgDump, args, env: plan.environment, stdout: output.stdout });
  output.started();
  program.stdin.end();
  meter.decoder = decoder;
  meter.lastByteAt = Date.now();
  const stopAll = (): void => {
    void program.stop().catch(() => undefined);
    void decoder.stop();
  };
  // A sink that never takes its chunk must not keep the run from ending.
  let onAbort = stopAll;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => {
      stopAll();
      reject(signal.reason);
    };
  });
  aborted.catch(() => {});
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    if (signal.aborted) onAbort();
    const pumping = output.read(program.stdout, (chunk) => pass(chunk, decoder, sink, meter));
    pumping.catch(() => {});
    await Promise.race([pumping, aborted]);
    const exit = await program.exited.catch((error: unknown) => {
      throw new Failure('dump', 'version', `${plan.programs.pgDump} could not be started`, { cause: error });
    });
    signal.throwIfAborted();
    judge(exit, plan.scope);
    meter.lastByteAt = Date.now();
    meter.waitingFor = 'validation';
    const archive = await decoder.finish();
    meter.waitingFor = 'nobody';
    if (meter.bytes === 0) throw new Failure('dump', 'verification', 'pg_dump exited 0 without writing a byte');
    return { bytes: meter.bytes, archive, warnings: warningsOf(exit.stderr, plan.scope) };
  } catch (error) {
    await Promise.all([program.stop().catch(() => undefined), decoder.stop()]);
    if (signal.aborted) throw signal.reason;
    // When pg_dump dies the reader fails too, on half an archive; the first cause is the one to tell.
    const exit = await program.exited.catch(() => undefined);
    if (error instanceof Failure && error.stage === 'validate' && exit !== undefined && !endedByUs(exit))
      judge(exit, plan.scope);
    throw error;
  } finally {
    signal.removeEventListener('abort', onAbort);
    output.close();
  }
}

/** Resolves when both have taken the chunk. */
async function pass(chunk: Buffer, decoder: ArchiveDecoder, sink: Sink, meter: DumpMeter): Promise<void> {
  meter.bytes += chunk.length;
  meter.lastByteAt = Date.now();
  meter.waitingFor = 'store';
  const stored = sink(chunk).then(() => {
    meter.waitingFor = 'validation';
  });
  await Promise.all([stored, decoder.write(chunk)]);
  meter.waitingFor = 'server';
}

/** Where its standard output is a socket: closed with bytes in it, that is a reset and not a broken pipe. */
function endedByUs(exit: Exit): boolean {
  const lostItsReader = /terminated by user|could not write to [^:]*: (?:Broken pipe|Connection reset by peer)/;
  return exit.signal === 'SIGTERM' || exit.signal === 'SIGPIPE' || lostItsReader.test(exit.stderr);
}

async function dumpArguments(plan: DumpPlan): Promise<string[]> {
  const args = [
    '--format=custom',
    '--no-password',
    `--snapshot=${plan.snapshot}`,
    `--compress=${plan.compress}`,
    `--lock-wait-timeout=${plan.lockWaitMs}`,
  ];
  if (plan.mode === 'schema-only') args.push('--schema-only');
  if (plan.mode === 'data-only') args.push('--data-only');
  const { options } = plan.scope;
  if (options.length > mostPatterns && plan.programs.version.major >= 17) {
    const file = join(plan.privateDirectory, 'filter');
    await writeFile(file, options.map(filterLine).join(''), { mode: 0o600 });
    return [...args, `--filter=${file}`];
  }
  args.push(...options.map(([option, pattern]) => `${option}=${pattern}`));
  if (args.reduce((bytes, argument) => bytes + Buffer.byteLength(argument) + 1, 0) > longestCommandLine)
    throw new Failure('dump', 'badInput', `the scope names ${options.length} tables, too many for one command line`, {
      hint: 'name schemas instead of tables, or use the PostgreSQL 17 client, which reads them from a file',
    });
  return args;
}

function filterLine([option, pattern]: readonly [string, string]): string {
  const words: Record<string, string> = {
    '--schema': 'include schema',
    '--exclude-schema': 'exclude schema',
    '--table': 'include table',
    '--exclude-table': 'exclude table',
    '--exclude-table-data': 'exclude table_data',
  };
  return `${words[option]} ${pattern}\n`;
}

function warningsOf(stderr: string, scope: Scope): string[] {
  return readReports(stderr, isNameIn(scope))
    .filter((report) => report.severity === 'warning')
    .map((report) => report.message);
}

function isNameIn(scope: Scope): (word: string) => boolean {
  const names = new Set(scope.tables.flatMap((table) => [table.name, table.schema, `${table.schema}.${table.name}`]));
  return (word) => names.has(word);
}

/** Throws what a pg_dump that did not end well has to say. */
function judge(exit: Exit, scope: Scope): void {
  if (exit.code === 0 && exit.signal === null) return;
  const reports = readReports(exit.stderr, isNameIn(scope)).filter((report) => report.severity !== 'warning');
  const raw = exit.stderr;
  const said = reports
    .filter((report) => report.severity === 'error' || report.fromServer)
    .map((report) => report.message)
    .join('; ');
  const table = tableIn(raw, scope);
  const at = table === undefined ? '' : ` at table ${table}`;

  if (exit.signal !== null)
    throw new Failure(
      'dump',
      'verification',
      `pg_dump was killed by ${exit.signal}${at}, so its archive is not whole`,
      {
        hint: 'SIGKILL usually means that the machine ran out of memory; nothing was stored',
      },
    );
  if (/invalid snapshot identifier|could not import the requested snapshot/.test(raw))
    throw new Failure('dump', 'connect', 'the snapshot was gone before pg_dump could use it', { transient: true });
  if (/lock timeout|due to statement timeout[\s\S]*LOCK TABLE/.test(raw))
    throw new Failure('dump', 'timeLimit', `pg_dump did not get its lock${at} in time`, {
      hint: 'let the migration finish and run the backup again, or wait longer with lock-wait-timeout',
      transient: true,
    });
  if (/due to user request|deadlock detected/.test(raw))
    throw new Failure('dump', 'timeLimit', `the server cancelled the dump${at}: ${said}`, {
      hint: 'somebody or a deadlock ended its query; nothing was stored',
      transient: true,
    });
  if (/conflict with recovery/.test(raw)) throw recoveryConflict(undefined, at);
  if (/row-level security/.test(raw))
    throw new Failure('dump', 'privilege', `a row-level security policy would hide rows${at}`, {
      hint: 'run as the owner or a superuser: ALTER ROLE <the backup role> BYPASSRLS;',
    });
  if (/permission denied|must be superuser|must be owner/.test(raw))
    throw new Failure('dump', 'privilege', `pg_dump was refused: ${said}`, {
      hint: 'grant the backup role SELECT on it (and USAGE on its schema)',
    });
  if (/server version mismatch/.test(raw))
    throw new Failure('dump', 'version', 'pg_dump is older than the server', { hint: 'leave install-client on' });
  if (/out of shared memory/.test(raw)) throw outOfLocks('dump', undefined);
  if (/No space left on device/.test(raw))
    throw new Failure('dump', 'disk', `the server ran out of disk space${at}`, { hint: 'free space on the server' });
  if (/invalid memory alloc request size|out of memory|string buffer/.test(raw))
    throw new Failure('dump', 'verification', `a value is too large to be dumped${at}`, {
      hint: 'PostgreSQL cannot send a value whose text is near 1 GB (a bytea doubles in text): split it, or leave the table out with exclude-table-data',
    });
  if (/does not exist/.test(raw))
    throw new Failure('dump', 'timeLimit', `a table disappeared while pg_dump was looking: ${said}`, {
      transient: true,
    });
  if (
    /server closed the connection|terminating connection|could not (?:receive|send) data|connection to server|SSL (?:SYSCALL|error)|no connection to the server/.test(
      raw,
    )
  )
    throw new Failure('dump', 'connect', `the connection broke during the dump${at}: ${said}`, {
      hint: 'look into the server log for the reason; nothing was stored',
      transient: true,
    });
  throw new Failure('dump', 'verification', `pg_dump exited ${exit.code}${at}${said === '' ? '' : `: ${said}`}`, {
    hint: 'nothing was stored',
  });
}

/** The table pg_dump was at, if it is one of the scope's. */
function tableIn(stderr: string, scope: Scope): string | undefined {
  const name = /(?:contents of table|LOCK TABLE|COPY) "?([^\s;"(]+)/.exec(stderr)?.[1]?.replaceAll('"', '');
  if (name === undefined) return undefined;
  const bare = name.split('.').at(-1);
  return scope.tables.some((table) => table.name === bare || `${table.schema}.${table.name}` === name)
    ? name
    : undefined;
}

/**
 * The word for pg_dump's `--compress`. `auto` is zstd where that very pg_dump can, which only running it tells:
 * Debian's and Homebrew's builds differ. Throws a `Failure` when the program cannot do what was asked.
 */
export async function chooseCompression(
  wish: string,
  programs: Programs,
): Promise<{ readonly word: string; readonly name: string }> {
  const modern = programs.version.major >= 16;
  if (wish === 'none') return { word: '0', name: 'none' };
  const [method = '', level] = wish === 'auto' ? ['zstd', '3'] : wish.split(':');
  if (method === 'gzip') return { word: modern ? `gzip:${level ?? 6}` : `${level ?? 6}`, name: `gzip:${level ?? 6}` };
  const word = level === undefined ? method : `${method}:${level}`;
  if (modern && (await canCompress(word, programs))) return { word, name: word };
  if (wish === 'auto') return { word: modern ? 'gzip:1' : '1', name: 'gzip:1' };
  throw new Failure(
    'client',
    'badInput',
    `compression: this pg_dump (${programs.version.major}.${programs.version.minor}) cannot do ${word}`,
    {
      hint: modern
        ? 'use gzip:1 to gzip:9, or auto'
        : `${method} needs a server and client of PostgreSQL 16 or later; use gzip:1 to gzip:9, or auto`,
    },
  );
}

/** pg_dump judges its compression before it connects, so a connection that cannot work is the sign of a yes. */
async function canCompress(word: string, programs: Programs): Promise<boolean> {
  const { stderr } = await run({
    path: programs.pgDump,
    args: ['--format=custom', `--compress=${word}`, '--no-password'],
    env: { ...bareEnvironment(programs.libraryPath), PGHOST: '/nonexistent' },
  });
  return /connection to server/.test(stderr);
}
