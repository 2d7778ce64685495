import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { chmod, mkdtemp, readdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ActionOptions, type ActionResult, runAction } from './action.ts';
import type { Cluster } from './postgres.ts';
import { TcpProxy } from './tcp-proxy.ts';

export const repository = join(import.meta.dirname, '..', '..');

type Inputs = Record<string, string | number | boolean>;

const folders: string[] = [];
process.once('exit', () => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** A folder of the test's own below the machine's temporary one, gone when this process ends. */
export async function scratch(prefix = 'pgassay-test-'): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), prefix));
  folders.push(folder);
  return folder;
}

/** Every file below `folder`, as relative paths, sorted. */
export async function filesIn(folder: string): Promise<string[]> {
  if (!existsSync(folder)) return [];
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}

/** A database whose one large table streams for a while: about 8 MB of text, and some small ones. */
export async function createShop(cluster: Cluster, database = 'shop', rows = 40_000): Promise<void> {
  await cluster.createDatabase(database);
  await cluster.query(
    database,
    `CREATE TABLE customers (id int PRIMARY KEY, name text);
     INSERT INTO customers SELECT g, 'customer ' || g FROM generate_series(1, 100) g;
     CREATE TABLE items (id int PRIMARY KEY, code text);
     INSERT INTO items SELECT g, repeat(md5(g::text) || md5((g * 7)::text), 3) FROM generate_series(1, ${rows}) g;`,
  );
}

/** Takes a backup as the runner does. No retries and no downloads unless asked for. */
export function backUp(
  url: string,
  store: string,
  inputs: Inputs = {},
  options: Omit<ActionOptions, 'inputs'> = {},
): Promise<ActionResult> {
  return runAction(repository, {
    ...options,
    inputs: {
      'database-url': url,
      store: `file://${store}`,
      name: 'shop',
      retries: 0,
      'install-client': false,
      ...inputs,
    },
  });
}

/** A backup that is under way: its process, and its result once it ended. */
export interface Underway {
  readonly pid: number;
  readonly done: Promise<ActionResult>;
}

/** As `backUp`, but hands out the process as soon as it is there. */
export async function startBackup(...args: Parameters<typeof backUp>): Promise<Underway> {
  const before = new Set(processes().map(({ pid }) => pid));
  const done = backUp(...args);
  done.catch(() => {});
  const step = await until(() =>
    processes().find(
      ({ pid, parent, args: words }) =>
        parent === process.pid && !before.has(pid) && words.some((word) => word.endsWith('/dist/backup.js')),
    ),
  );
  return { pid: step.pid, done };
}

export interface ProcessInfo {
  readonly pid: number;
  readonly parent: number;
  readonly args: readonly string[];
}

/** What /proc shows of every process; those that just ended are left out. */
export function processes(): ProcessInfo[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const args = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0').slice(0, -1);
        const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
        const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
        return state === 'Z' ? [] : [{ pid: Number(name), parent: Number(parent), args }];
      } catch {
        return [];
      }
    });
}

/** Every process below `pid`, children of children included. */
export function descendants(pid: number): ProcessInfo[] {
  const all = processes();
  const found: ProcessInfo[] = [];
  for (let parents = [pid]; parents.length > 0; ) {
    const next = all.filter(({ parent }) => parents.includes(parent));
    found.push(...next);
    parents = next.map((each) => each.pid);
  }
  return found;
}

/** The process below `pid` that runs `program` (its name, without a folder) in earnest, as soon as there is one. */
export function programBelow(pid: number, program: string): Promise<ProcessInfo> {
  return until(() =>
    descendants(pid).find(({ args }) => basename(args[0] ?? '') === program && args[1] !== '--version'),
  );
}

/** Waits for `look` to give something; throws after `seconds`. */
export async function until<T>(look: () => T | undefined | Promise<T | undefined>, seconds = 20): Promise<T> {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    if (Date.now() > deadline) throw new Error(`nothing came of ${look.toString().slice(0, 200)}`);
    await sleep(10);
  }
}

/** A proxy in front of `cluster` that falls silent towards the client once `bytes` have gone through. */
export async function silentAfter(
  cluster: Cluster,
  bytes: number,
): Promise<{ readonly proxy: TcpProxy; readonly silent: Promise<void> }> {
  const { promise: silent, resolve } = Promise.withResolvers<void>();
  let armed = true;
  const proxy = await TcpProxy.start(cluster, {
    onChunk: (_chunk, direction, self) => {
      if (armed && direction === 'down' && self.bytes.down > bytes) {
        armed = false;
        self.stall('down');
        resolve();
      }
      return undefined;
    },
  });
  return { proxy, silent };
}

/** Waits for a moment in a run; a run that ends before it comes throws, with its log. */
export async function during(run: Promise<ActionResult>, moment: Promise<void>): Promise<void> {
  const early = await Promise.race([moment.then(() => undefined), run]);
  if (early !== undefined) throw new Error(`the run ended before its time with ${early.exitCode}:\n${early.log}`);
}

/** Our sessions on the server: their application names without the run's own number, `pgassay exporter`. */
export async function ourSessions(cluster: Cluster): Promise<{ readonly pid: number; readonly purpose: string }[]> {
  const rows = await cluster.query<{ pid: number; name: string }>(
    'postgres',
    `SELECT pid, application_name AS name FROM pg_stat_activity WHERE application_name LIKE 'pgassay %'`,
  );
  return rows.map(({ pid, name }) => ({ pid, purpose: name.split(' ').slice(2).join(' ') }));
}

/** Ends our session of this purpose as an administrator would. */
export async function terminate(cluster: Cluster, purpose: string): Promise<void> {
  const session = await until(async () => (await ourSessions(cluster)).find((each) => each.purpose === purpose));
  await cluster.query('postgres', 'SELECT pg_terminate_backend($1)', [session.pid]);
}

/** Resolves when none of our sessions is left on the server; throws when one is still there after `seconds`. */
export async function sessionsGone(cluster: Cluster, seconds = 10): Promise<void> {
  await until(async () => ((await ourSessions(cluster)).length === 0 ? true : undefined), seconds);
}

export interface Wraps {
  readonly pg_dump?: string;
  readonly pg_restore?: string;
  readonly pg_dumpall?: string;
}

/**
 * A folder for `client-bin` whose programs run a piece of shell instead of the real ones, which they find as `$REAL`.
 * Questions for the version go straight through.
 */
export async function wrapped(cluster: Cluster, wraps: Wraps): Promise<string> {
  const folder = await scratch('pgassay-bin-');
  for (const name of ['pg_dump', 'pg_restore', 'pg_dumpall', 'psql'] as const) {
    const body = (name === 'psql' ? undefined : wraps[name]) ?? 'exec "$REAL" "$@"';
    const path = join(folder, name);
    await writeFile(
      path,
      `#!/bin/sh\nREAL='${join(cluster.bin, name)}'\n[ "$1" = --version ] && exec "$REAL" "$@"\n${body}\n`,
    );
    await chmod(path, 0o755);
  }
  return folder;
}

/** The sentence of the error annotation, `dump: …` with its hint; empty when there was none. */
export function errorOf(result: ActionResult): string {
  return result.annotations
    .filter(({ level }) => level === 'error')
    .map(({ message }) => message)
    .join('\n');
}
