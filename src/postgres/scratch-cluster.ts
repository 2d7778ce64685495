import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  appendFile,
  chown,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  realpath,
  rm,
  stat,
  statfs,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { cancelled, Failure } from '../failure.ts';
import type { Log } from '../log.ts';
import { formatBytes } from '../numbers.ts';
import { bareEnvironment, type Programs } from './programs.ts';
import type { ConnectionTarget } from './url.ts';

/** A server of our own, for one restore. */
export interface ScratchCluster {
  /** Its superuser, whose name nobody has in an archive, in the database `postgres`. */
  readonly admin: ConnectionTarget;
  /** It runs as another user of this machine than we do, with an empty environment. */
  readonly otherUser: boolean;
  /** Ends it and removes its folder; harmless when repeated. */
  stop(): Promise<void>;
}

const prefix = 'pgassay-scratch-';
const startMs = 60_000;
/** Of a socket's path, its own name included, on the stricter systems. */
const longestSocket = 100;

/**
 * What a throw-away server may do without: durability, WAL for a copy that never was, housekeeping. It listens on a
 * socket only, and writes no value anywhere: what a statement did wrong is told to its session, not to a log.
 */
const settings: Readonly<Record<string, string>> = {
  listen_addresses: '',
  unix_socket_permissions: '0700',
  log_destination: 'stderr',
  logging_collector: 'off',
  // Until it is up: why it does not come up is worth knowing.
  log_min_messages: 'fatal',
  log_min_error_statement: 'panic',
  fsync: 'off',
  synchronous_commit: 'off',
  full_page_writes: 'off',
  wal_level: 'minimal',
  max_wal_senders: '0',
  max_wal_size: '4GB',
  checkpoint_timeout: '1h',
  autovacuum: 'off',
  bgwriter_lru_maxpages: '0',
  shared_buffers: '256MB',
  maintenance_work_mem: '256MB',
  // A container's /dev/shm is small, and every processor has a job of pg_restore's already.
  max_parallel_workers_per_gather: '0',
  max_locks_per_transaction: '512',
  max_connections: '100',
  jit: 'off',
};

/**
 * Starts a fresh cluster of the programs' version, in a folder of mode 0700 below `temporary`, and removes what killed
 * runs have left there; of less room than `bytes` it warns. It ends and its folder goes with `stop`, and also when this process is killed: a supervisor of
 * its own holds the other end of a pipe of ours. Throws a `Failure`.
 */
export async function startScratchCluster(
  programs: Programs,
  { temporary, bytes, log }: { readonly temporary: string; readonly bytes: number; readonly log: Log },
  signal: AbortSignal,
): Promise<ScratchCluster> {
  const owner = await serverUser();
  const base = await baseFor(temporary, owner !== undefined);
  await sweepScratch(base);
  await lookForRoom(base, bytes, log);
  const folder = await mkdtemp(join(base, prefix));
  const running = supervised(folder);
  try {
    await writeFile(join(folder, 'owner'), `${process.pid} ${await processSpace()}`);
    if (owner !== undefined) {
      await requireReachable(programs.bin, owner);
      await chown(folder, owner.uid, owner.gid);
    }
    const [user, password] = [`pgassay_${randomBytes(4).toString('hex')}`, randomBytes(24).toString('hex')];
    await initialise(programs, folder, { user, password, owner, signal });
    running.start(programs, owner);
    await ready(folder, running, signal);
    await appendFile(join(folder, 'data', 'postgresql.conf'), "log_min_messages = 'panic'\n");
    running.reload();
    return { admin: adminOf(folder, user, password), otherUser: owner !== undefined, stop: running.stop };
  } catch (error) {
    await running.stop();
    throw error;
  }
}

function adminOf(folder: string, user: string, password: string): ConnectionTarget {
  return {
    hosts: [{ host: folder, port: 5432 }],
    user,
    password,
    database: 'postgres',
    sslMode: 'disable',
    tls: {},
    channelBinding: 'disable',
    connectTimeoutSeconds: 30,
    targetSessionAttrs: 'any',
    options: undefined,
    poolerHint: undefined,
    notices: [],
  };
}

interface ServerUser {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/** A server refuses to run as root. Undefined: we are not. */
async function serverUser(): Promise<ServerUser | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const lines = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':'));
  for (const wanted of ['nobody', 'postgres']) {
    const [name, , uid, gid] = lines.find(([user]) => user === wanted) ?? [];
    if (name !== undefined && Number(uid) > 0) return { name, uid: Number(uid), gid: Number(gid) };
  }
  throw new Failure('restore', 'version', 'a scratch server cannot run as root, and there is no user nobody here', {
    hint: 'run this step as another user, or give scratch-url: a server that may be thrown away',
  });
}

/** The folder to make ours in: one that the server's user can reach, and short enough for a socket's path. */
async function baseFor(temporary: string, other: boolean): Promise<string> {
  const fits = temporary.length + prefix.length + '/XXXXXX/.s.PGSQL.5432'.length <= longestSocket;
  return fits && (!other || (await isOpen(temporary))) ? temporary : '/tmp';
}

/** A guess only: how much of the source's size was air, nobody knows. */
async function lookForRoom(base: string, bytes: number, log: Log): Promise<void> {
  const { bavail, bsize } = await statfs(base);
  if (bavail * bsize >= bytes) return;
  log.warn(
    `restoring may need about ${formatBytes(bytes)} in ${base}, which has ${formatBytes(bavail * bsize)}; if it fails, use a larger disk, or scratch-url`,
  );
}

/** Whether everybody may pass through a folder and all that it is in. */
async function isOpen(folder: string): Promise<boolean> {
  for (let path = await realpath(folder); ; path = dirname(path)) {
    if (((await stat(path)).mode & 0o001) === 0) return false;
    if (path === dirname(path)) return true;
  }
}

async function requireReachable(bin: string, { name }: ServerUser): Promise<void> {
  if (await isOpen(bin)) return;
  throw new Failure('client', 'version', `the user ${name}, as whom a scratch server has to run, cannot reach ${bin}`, {
    hint: 'root may not run a server: put the programs where every user may pass (RUNNER_TOOL_CACHE or XDG_CACHE_HOME says where they are installed), run this step as another user, or give scratch-url',
  });
}

interface Start {
  readonly user: string;
  readonly password: string;
  readonly owner: ServerUser | undefined;
  readonly signal: AbortSignal;
}

async function initialise(programs: Programs, folder: string, { user, password, owner, signal }: Start): Promise<void> {
  const passwordFile = join(folder, 'password');
  const data = join(folder, 'data');
  await writeFile(passwordFile, `${password}\n`, { mode: 0o600 });
  await mkdir(data, { mode: 0o700 });
  if (owner !== undefined) for (const path of [passwordFile, data]) await chown(path, owner.uid, owner.gid);
  const args = [
    ...['-D', data, '-U', user, '-A', 'scram-sha-256', `--pwfile=${passwordFile}`, '--no-sync', '--no-instructions'],
    ...['--encoding=UTF8', '--locale=C'],
  ];
  const said = await finished(join(programs.bin, 'initdb'), args, programs, folder, owner, signal);
  if (said !== undefined) throw cannotStart(programs, `initdb: ${said}`);
  await rm(passwordFile);
  const lines = Object.entries({ ...settings, unix_socket_directories: folder }).map(
    ([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`,
  );
  await writeFile(join(data, 'postgresql.conf'), lines.join(''), { flag: 'a' });
}

/** Undefined when it exited 0, else the last of what it said. */
async function finished(
  path: string,
  args: readonly string[],
  programs: Programs,
  folder: string,
  owner: ServerUser | undefined,
  signal: AbortSignal,
): Promise<string | undefined> {
  signal.throwIfAborted();
  const child = spawn(path, args, {
    cwd: folder,
    env: bareEnvironment(programs.libraryPath),
    stdio: ['ignore', 'ignore', 'pipe'],
    detached: true,
    ...identityOf(owner),
  });
  const kill = (): void => void child.kill('SIGKILL');
  signal.addEventListener('abort', kill, { once: true });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-4096);
  });
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    if (signal.aborted) throw cancelled('restore');
    return code === 0 ? undefined : (said.trim().split('\n').at(-1) ?? `exit ${code}`);
  } finally {
    signal.removeEventListener('abort', kill);
  }
}

function identityOf(owner: ServerUser | undefined): { readonly uid?: number; readonly gid?: number } {
  return owner === undefined ? {} : { uid: owner.uid, gid: owner.gid };
}

/**
 * Reads the server's process number from descriptor 3, a pipe that only we hold open, and on to its end; then ends the
 * server and removes the folder. A folder that is gone already was removed by `stop`.
 */
const supervision = `folder=$1
pid=
while read -r line; do pid=$line; done
[ -d "$folder" ] || exit 0
ours() { [ -n "$pid" ] && kill -0 "$pid" && { [ ! -d /proc/self ] || grep -qaF "$folder" "/proc/$pid/cmdline"; } }
if ours; then
  kill -QUIT "$pid"
  n=0; while ours && [ $n -lt 50 ]; do sleep 0.1; n=$((n+1)); done
  if ours; then kill -KILL "$pid"; fi
fi
rm -rf "$folder"`;

interface Supervised {
  readonly start: (programs: Programs, owner: ServerUser | undefined) => void;
  readonly alive: () => boolean;
  readonly reload: () => void;
  /** What it said so far, the last of it. */
  readonly said: () => string;
  readonly stop: () => Promise<void>;
}

/** A folder that does not outlive us, and the server in it. */
function supervised(folder: string): Supervised {
  const guard = spawn('/bin/sh', ['-c', supervision, 'pgassay-scratch', folder], {
    cwd: '/',
    env: bareEnvironment(undefined),
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  // A guard that cannot be started or ends guards nothing; the next run sweeps then.
  guard.on('error', () => {});
  guard.stdin.on('error', () => {});
  guard.unref();
  (guard.stdin as unknown as { unref(): void }).unref();
  let server: ChildProcess | undefined;
  let gone: Promise<void> = Promise.resolve();
  let said = '';
  const alive = (): boolean => server?.pid !== undefined && server.exitCode === null && server.signalCode === null;
  const stop = async (): Promise<void> => {
    if (alive()) server?.kill('SIGQUIT');
    const mercy = setTimeout(() => server?.kill('SIGKILL'), 5000);
    if (alive()) await gone;
    clearTimeout(mercy);
    await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 });
    guard.stdin.destroy();
    server?.stderr?.destroy();
  };
  let stopping: Promise<void> | undefined;
  return {
    start: (programs, owner) => {
      const child = spawn(join(programs.bin, 'postgres'), ['-D', join(folder, 'data')], {
        cwd: folder,
        env: bareEnvironment(programs.libraryPath),
        stdio: ['ignore', 'ignore', 'pipe'],
        detached: true,
        ...identityOf(owner),
      });
      if (child.pid !== undefined) guard.stdin.write(`${child.pid}\n`);
      gone = new Promise((resolve) => {
        child.once('exit', () => resolve());
        child.once('error', () => resolve());
      });
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        said = (said + text).slice(-4096);
      });
      server = child;
    },
    alive,
    reload: () => void server?.kill('SIGHUP'),
    said: () => said,
    stop: () => {
      stopping ??= stop();
      return stopping;
    },
  };
}

async function ready(folder: string, server: Supervised, signal: AbortSignal): Promise<void> {
  const deadline = Date.now() + startMs;
  for (;;) {
    if (signal.aborted) throw cancelled('restore');
    const status = await readFile(join(folder, 'data', 'postmaster.pid'), 'utf8').catch(() => '');
    if (status.split('\n')[7]?.trim() === 'ready') return;
    if (!server.alive() || Date.now() > deadline) {
      const said = server.said().trim().split('\n').at(-1);
      throw cannotStart(undefined, said || (server.alive() ? 'it was not ready within a minute' : 'it ended at once'));
    }
    await sleep(15);
  }
}

function cannotStart(programs: Programs | undefined, said: string): Failure {
  const from = programs === undefined ? '' : ` with the programs of ${programs.origin}`;
  return new Failure('restore', 'restore', `a scratch server could not be started${from}: ${said}`, {
    hint: 'give scratch-url instead: a server that may be thrown away, in a service container for instance',
  });
}

/** Removes what killed runs have left below `base`, with the servers that may still run there. */
async function sweepScratch(base: string): Promise<void> {
  const names = await readdir(base).catch((): string[] => []);
  for (const name of names.filter((each) => each.startsWith(prefix))) {
    const folder = join(base, name);
    const [pid, space] = (await readFile(join(folder, 'owner'), 'utf8').catch(() => '')).split(' ');
    // Without an owner it is being made at this moment; of another container nobody here knows who lives.
    if (!pid || space !== (await processSpace()) || isAlive(Number(pid))) continue;
    const server = Number(
      (await readFile(join(folder, 'data', 'postmaster.pid'), 'utf8').catch(() => '')).split('\n')[0],
    );
    if (server > 1 && (await servesFrom(server, folder))) process.kill(server, 'SIGQUIT');
    await rm(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 }).catch(() => {});
  }
}

/** In which container process numbers mean what they mean here. */
function processSpace(): Promise<string> {
  return readlink('/proc/self/ns/pid').catch(() => process.platform);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Whether that process is a server whose data is in `folder`, and no other that got its number since. */
async function servesFrom(pid: number, folder: string): Promise<boolean> {
  const words = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  return isAlive(pid) && words.split('\0').includes(join(folder, 'data'));
}
