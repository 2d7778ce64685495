import { execFile, type SpawnOptions, spawn } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import { accessSync, constants, openSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { chmod, chown, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import pg from 'pg';

const execute = promisify(execFile);
const repository = join(import.meta.dirname, '..', '..');

export interface ClusterOptions {
  /** Which server; 15, or the oldest one this machine has. */
  readonly major?: number;
  /** Lines for postgresql.conf, unquoted. */
  readonly conf?: Readonly<Record<string, string>>;
  /** The whole pg_hba.conf. By default every connection needs the password (scram-sha-256). */
  readonly hba?: string;
  /** More arguments for initdb; they win over ours. */
  readonly initdb?: readonly string[];
  /** Speak TLS with a fresh self-signed certificate for localhost and 127.0.0.1. */
  readonly tls?: boolean;
}

/**
 * A real server of a test's own, on loopback. Nothing survives the test: `stop` (or `await using`) ends it, so does the
 * end of this process, and a watcher outside of it does when this process is killed.
 */
export class Cluster implements AsyncDisposable {
  readonly host = '127.0.0.1';
  readonly superuser = 'postgres';
  readonly major: number;
  /** The folder with this major's programs. */
  readonly bin: string;
  readonly port: number;
  readonly pid: number;
  /** Holds `data`, the socket and `server.log`. */
  readonly directory: string;
  readonly socketDirectory: string;
  /** Full of characters that have to be quoted somewhere. */
  readonly password: string;
  /** Path of the PEM certificate that clients have to trust; undefined without `tls`. */
  readonly certificate: string | undefined;
  readonly #end: () => Promise<void>;

  private constructor(place: Place, port: number, server: Server) {
    this.major = place.major;
    this.bin = place.bin;
    this.directory = place.directory;
    this.socketDirectory = place.directory;
    this.password = place.password;
    this.certificate = place.certificate;
    this.port = port;
    this.pid = server.pid;
    this.#end = server.end;
  }

  /** A server that accepts connections. Throws with the end of its log when it does not come up. */
  static start(options: ClusterOptions = {}): Promise<Cluster> {
    return Cluster.#startIn(() => prepare(options));
  }

  /**
   * A hot standby that streams from `primary` (any cluster whose `hba` is the default), as it is now. `conf` comes after
   * the primary's own. It has the same password and outlives a primary that stops.
   */
  static standbyOf(primary: Cluster, conf: Readonly<Record<string, string>> = {}): Promise<Cluster> {
    return Cluster.#startIn(() => copy(primary, conf));
  }

  static async #startIn(make: () => Promise<Place>): Promise<Cluster> {
    for (let attempt = 1; ; attempt += 1) {
      const place = await make();
      const port = await freePort();
      const server = startWatched(place.directory, join(place.bin, 'postgres'), [
        ...['-D', join(place.directory, 'data'), '-p', String(port)],
      ]);
      try {
        await ready(place, port, server);
        return new Cluster(place, port, server);
      } catch (error) {
        await server.end();
        // Somebody else took the port between our look and the server's.
        const taken = String(error).includes('Address already in use');
        if (!taken || attempt === 5) throw error;
      }
    }
  }

  /** A URL through TCP with every part percent-encoded. Another user needs its password given. */
  url(database: string, user: string = this.superuser, password: string = this.password): string {
    const [u, p, d] = [user, password, database].map(encodeURIComponent);
    return `postgresql://${u}:${p}@${this.host}:${this.port}/${d}`;
  }

  /** The superuser's connection, which the caller ends. A server that stops under it raises no unhandled error. */
  async client(database: string, user: string = this.superuser, password: string = this.password): Promise<pg.Client> {
    const client = new pg.Client({ host: this.host, port: this.port, user, password, database });
    client.on('error', () => {});
    await client.connect();
    return client;
  }

  /** The rows of `sql` (of its last statement, if there are several) on a fresh connection of the superuser. */
  async query<Row extends pg.QueryResultRow = pg.QueryResultRow>(
    database: string,
    sql: string,
    values?: unknown[],
  ): Promise<Row[]> {
    const client = await this.client(database);
    try {
      const result: pg.QueryResult<Row> | pg.QueryResult<Row>[] = await client.query<Row>(sql, values);
      return (Array.isArray(result) ? result.at(-1) : result)?.rows ?? [];
    } finally {
      await client.end();
    }
  }

  /** `options` is SQL after the name: `TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'`. */
  async createDatabase(name: string, options = ''): Promise<void> {
    await this.query('postgres', `CREATE DATABASE ${pg.escapeIdentifier(name)} ${options}`);
  }

  /** Everything the server has written to its log so far. */
  log(): Promise<string> {
    return readFile(join(this.directory, 'server.log'), 'utf8');
  }

  /** Immediate, not clean; the folder goes too. Harmless when repeated. */
  stop(): Promise<void> {
    return this.#end();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

/** The majors whose server and client programs are here, oldest first. */
export function majorsAvailable(): number[] {
  return [...installations().keys()].sort((a, b) => a - b);
}

/** The folder with the programs of `major`. Throws when this machine does not have them. */
export function binOf(major: number): string {
  const bin = installations().get(major);
  if (bin !== undefined) return bin;
  const here = majorsAvailable().join(', ') || 'none';
  throw new Error(`PostgreSQL ${major} is not on this machine (found: ${here}): run node scripts/setup.mjs test`);
}

/** The machine's own packages first, then what set-up unpacked for us. */
function installations(): Map<number, string> {
  const system = '/usr/lib/postgresql';
  const cache = join(repository, '.cache');
  const candidates = [
    ...entries(system).map((name) => [name, join(system, name, 'bin')] as const),
    ...['/opt/homebrew/opt', '/usr/local/opt'].flatMap((root) =>
      entries(root)
        .filter((name) => name.startsWith('postgresql@'))
        .map((name) => [name.slice('postgresql@'.length), join(root, name, 'bin')] as const),
    ),
    ...entries(cache)
      .filter((name) => name.startsWith('postgresql-'))
      .map((name) => name.slice('postgresql-'.length))
      .map((major) => [major, join(cache, `postgresql-${major}`, 'usr/lib/postgresql', major, 'bin')] as const),
  ];
  const found = new Map<number, string>();
  const wanted = process.env.PGASSAY_TEST_MAJORS?.split(',');
  for (const [major, bin] of candidates) {
    if (!/^\d+$/.test(major) || found.has(Number(major)) || wanted?.includes(major) === false) continue;
    const complete = ['postgres', 'initdb', 'pg_dump', 'pg_restore', 'psql'].every((name) =>
      isProgram(join(bin, name)),
    );
    // The server runs as somebody else when we are root, who may not pass through our folders but through their target.
    if (complete) found.set(Number(major), realpathSync(bin));
  }
  return found;
}

function entries(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Whom programs that refuse root have to run as; empty when we are not root. */
export function unprivileged(): { uid?: number; gid?: number } {
  if (process.getuid?.() !== 0) return {};
  const accounts = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'));
  const account = ['postgres', 'nobody'].map((name) => accounts.find(([user]) => user === name)).find(Boolean);
  if (account === undefined) throw new Error('no user "postgres" or "nobody": a server refuses to run as root');
  return { uid: Number(account[2]), gid: Number(account[3]) };
}

/** A fresh folder of that user's with a path short enough for sockets. The caller removes it. */
export async function ownFolder(prefix: string): Promise<string> {
  const folder = await mkdtemp(join('/tmp', prefix));
  const { uid, gid } = unprivileged();
  if (uid !== undefined && gid !== undefined) await chown(folder, uid, gid);
  await chmod(folder, 0o755);
  return folder;
}

/** A port of 127.0.0.1 that nobody listens on, below the range of outgoing connections. */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const port = randomInt(20_000, 32_000);
    const free = await new Promise<boolean>((resolve) => {
      const probe = createServer();
      probe.once('error', () => resolve(false));
      probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
    });
    if (free) return port;
  }
  throw new Error('no free port on 127.0.0.1');
}

interface Place {
  readonly major: number;
  readonly bin: string;
  readonly directory: string;
  readonly password: string;
  readonly certificate: string | undefined;
}

async function prepare(options: ClusterOptions): Promise<Place> {
  const majors = majorsAvailable();
  const major = options.major ?? (majors.includes(15) ? 15 : (majors[0] ?? 15));
  const bin = binOf(major);
  const directory = await ownFolder('pgassay-pg-');
  const owner = unprivileged();
  const password = `p@ss:w/rd%23 'q\\-${randomBytes(6).toString('hex')}`;
  const passwordFile = join(directory, 'password');
  const data = join(directory, 'data');
  const locale = process.platform === 'darwin' ? 'en_US.UTF-8' : 'C.UTF-8';
  const own = async (path: string, mode: number): Promise<void> => {
    if (owner.uid !== undefined && owner.gid !== undefined) await chown(path, owner.uid, owner.gid);
    await chmod(path, mode);
  };
  await writeFile(passwordFile, `${password}\n`);
  await own(passwordFile, 0o600);
  await mkdir(data);
  await own(data, 0o700);
  await execute(
    join(bin, 'initdb'),
    [
      ...['-D', data, '-U', 'postgres', '-A', 'scram-sha-256', `--pwfile=${passwordFile}`, '--no-sync'],
      ...['--encoding=UTF8', `--locale=${locale}`, ...(options.initdb ?? [])],
    ],
    { cwd: directory, env: serverEnvironment(), ...owner },
  );
  const certificate = options.tls === true ? join(directory, 'server.crt') : undefined;
  if (certificate !== undefined) {
    const key = join(directory, 'server.key');
    await execute('openssl', [
      ...['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=localhost'],
      ...['-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', key, '-out', certificate],
    ]);
    await own(key, 0o600);
    await own(certificate, 0o644);
  }
  const conf = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: directory,
    fsync: 'off',
    synchronous_commit: 'off',
    full_page_writes: 'off',
    log_line_prefix: '%m [%p] %q%u@%d %a ',
    ...(certificate === undefined
      ? {}
      : { ssl: 'on', ssl_cert_file: certificate, ssl_key_file: join(directory, 'server.key') }),
    ...options.conf,
  };
  await configure(data, conf);
  if (options.hba !== undefined) await writeFile(join(data, 'pg_hba.conf'), options.hba);
  return { major, bin, directory, password, certificate };
}

async function copy(primary: Cluster, conf: Readonly<Record<string, string>>): Promise<Place> {
  const { major, bin, password, certificate } = primary;
  const directory = await ownFolder('pgassay-pg-');
  const data = join(directory, 'data');
  await execute(
    join(bin, 'pg_basebackup'),
    [
      ...['-D', data, '-h', primary.host, '-p', String(primary.port), '-U', primary.superuser, '--no-password'],
      ...['--write-recovery-conf', '--wal-method=stream', '--checkpoint=fast', '--no-sync'],
    ],
    { cwd: directory, env: { ...serverEnvironment(), PGPASSWORD: password }, ...unprivileged() },
  );
  await configure(data, { unix_socket_directories: directory, ...conf });
  return { major, bin, directory, password, certificate };
}

async function configure(data: string, conf: Readonly<Record<string, string>>): Promise<void> {
  const lines = Object.entries(conf).map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`);
  await writeFile(join(data, 'postgresql.conf'), lines.join(''), { flag: 'a' });
}

export interface Server {
  readonly pid: number;
  readonly alive: () => boolean;
  /** SIGQUIT, which is an immediate shutdown; resolves when the process and its folder are gone. */
  readonly end: () => Promise<void>;
}

/**
 * Waits for the end of descriptor 3, a pipe that only the test holds open, then ends program $2 and removes folder $1.
 * A folder that is gone already means that the test cleaned up behind itself.
 */
const watcher = `folder=$1; shift
( (
  read -r _ <&3
  [ -d "$folder" ] || exit 0
  kill -QUIT $$
  n=0; while kill -0 $$ && [ $n -lt 60 ]; do
    grep -q "^State:.Z" /proc/$$/status && break
    sleep 0.1; n=$((n+1))
  done
  kill -KILL $$
  rm -rf "$folder"
) >/dev/null 2>&1 & )
exec "$@" 3<&-`;

/** How to end what runs at this moment. */
const running = new Set<() => void>();
process.once('exit', () => {
  for (const endNow of running) endNow();
});

/**
 * Starts `program` as an unprivileged user in a session of its own, writing to `folder`/server.log. The folder is removed
 * and the program ended (SIGQUIT, then SIGKILL) when this process ends in whatever way without having called `end`.
 */
export function startWatched(folder: string, program: string, args: readonly string[]): Server {
  const log = openSync(join(folder, 'server.log'), 'a');
  const options: SpawnOptions = {
    cwd: folder,
    env: serverEnvironment(),
    detached: true,
    stdio: ['ignore', log, log, 'pipe'],
    ...unprivileged(),
  };
  const child = spawn('/bin/sh', ['-c', watcher, 'watched', folder, program, ...args], options);
  const { pid } = child;
  if (pid === undefined) throw new Error(`could not start ${program}`);
  const lifeline = child.stdio[3];
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const alive = (): boolean => child.exitCode === null && child.signalCode === null;
  const endNow = (): void => void (alive() && child.kill('SIGQUIT'));
  running.add(endNow);
  // A test that forgets to stop its server ends all the same.
  child.unref();
  if (lifeline !== null && lifeline !== undefined && 'unref' in lifeline) (lifeline as { unref(): void }).unref();
  return {
    pid,
    alive,
    end: async () => {
      running.delete(endNow);
      child.ref();
      if (alive()) child.kill('SIGQUIT');
      const mercy = setTimeout(() => child.kill('SIGKILL'), 10_000);
      await (alive() ? gone : undefined);
      clearTimeout(mercy);
      await rm(folder, { recursive: true, force: true, maxRetries: 3 });
      lifeline?.destroy();
    },
  };
}

async function ready(place: Place, port: number, server: Server): Promise<void> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const status = await readFile(join(place.directory, 'data', 'postmaster.pid'), 'utf8').catch(() => '');
    if (status.split('\n')[7]?.trim() === 'ready') return;
    if (!server.alive() || Date.now() > deadline) {
      const log = await readFile(join(place.directory, 'server.log'), 'utf8').catch(() => '');
      throw new Error(`PostgreSQL ${place.major} did not start on port ${port}:\n${log.slice(-2000)}`);
    }
    await sleep(20);
  }
}

function serverEnvironment(): Record<string, string> {
  return { PATH: '/usr/local/bin:/usr/bin:/bin', LANG: 'C', TZ: 'UTC' };
}
