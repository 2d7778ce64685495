import { existsSync } from 'node:fs';
import { chown, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Cluster, freePort, ownFolder, startWatched, unprivileged } from './postgres.ts';

const programs = ['/usr/sbin/pgbouncer', '/opt/homebrew/bin/pgbouncer', '/usr/local/bin/pgbouncer'];

export interface PgBouncerOptions {
  readonly mode: 'transaction' | 'session' | 'statement';
  /** More lines for the [pgbouncer] section; they win over ours. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Further users and their passwords; the superuser is known. */
  readonly users?: Readonly<Record<string, string>>;
}

/** A real PgBouncer on loopback in front of every database of `cluster`. */
export class PgBouncer implements AsyncDisposable {
  readonly host = '127.0.0.1';
  readonly port: number;
  readonly directory: string;
  readonly #cluster: Cluster;
  readonly #end: () => Promise<void>;

  private constructor(cluster: Cluster, port: number, directory: string, end: () => Promise<void>) {
    this.#cluster = cluster;
    this.port = port;
    this.directory = directory;
    this.#end = end;
  }

  static async start(cluster: Cluster, options: PgBouncerOptions): Promise<PgBouncer> {
    const directory = await ownFolder('pgassay-pooler-');
    const port = await freePort();
    const userFile = join(directory, 'users.txt');
    const config = join(directory, 'pgbouncer.ini');
    const quoted = (text: string): string => `"${text.replaceAll('"', '""')}"`;
    const users = { [cluster.superuser]: cluster.password, ...options.users };
    const settings = {
      listen_addr: '127.0.0.1',
      listen_port: String(port),
      unix_socket_dir: '',
      auth_type: 'scram-sha-256',
      auth_file: userFile,
      pool_mode: options.mode,
      max_client_conn: '100',
      default_pool_size: '10',
      ignore_startup_parameters: 'extra_float_digits',
      ...options.settings,
    };
    const lines = Object.entries(settings).map(([name, value]) => `${name} = ${value}\n`);
    const { uid, gid } = unprivileged();
    const write = async (path: string, text: string): Promise<void> => {
      await writeFile(path, text, { mode: 0o600 });
      if (uid !== undefined && gid !== undefined) await chown(path, uid, gid);
    };
    await write(
      userFile,
      Object.entries(users)
        .map(([name, secret]) => `${quoted(name)} ${quoted(secret)}\n`)
        .join(''),
    );
    await write(config, `[databases]\n* = host=127.0.0.1 port=${cluster.port}\n\n[pgbouncer]\n${lines.join('')}`);
    const program = programs.find((path) => existsSync(path));
    if (program === undefined) throw new Error('pgbouncer is not on this machine: run node scripts/setup.mjs test');
    const server = startWatched(directory, program, [config]);
    const deadline = Date.now() + 20_000;
    while (!(await listens(port))) {
      if (!server.alive() || Date.now() > deadline) {
        const log = await readFile(join(directory, 'server.log'), 'utf8');
        await server.end();
        throw new Error(`pgbouncer did not start on port ${port}:\n${log.slice(-2000)}`);
      }
      await sleep(20);
    }
    return new PgBouncer(cluster, port, directory, server.end);
  }

  /** As the cluster's own `url`, through the pooler. */
  url(database: string, user: string = this.#cluster.superuser, password: string = this.#cluster.password): string {
    return this.#cluster
      .url(database, user, password)
      .replace(`@${this.#cluster.host}:${this.#cluster.port}/`, `@${this.host}:${this.port}/`);
  }

  stop(): Promise<void> {
    return this.#end();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
