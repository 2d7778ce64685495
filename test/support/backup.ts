import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import pg from 'pg';
import type { Census, CensusTable, Manifest } from '../../src/manifest.ts';
import { type ActionOptions, type ActionResult, runAction } from './action.ts';
import { repository, scratch, until, wrapped } from './faults.ts';
import type { Cluster } from './postgres.ts';

// Every backup, server and folder of a test file wants to be told when the process ends.
process.setMaxListeners(100);

export type Inputs = Readonly<Record<string, string | number | boolean>>;
export type Options = Omit<ActionOptions, 'inputs'>;

/** A stored backup: what the run said and the files it left. */
export interface Taken {
  readonly result: ActionResult;
  readonly outputs: Readonly<Record<string, string>>;
  readonly id: string;
  readonly name: string;
  /** `file:///…`, for `--store`. */
  readonly store: string;
  /** The folder with this backup's files. */
  readonly folder: string;
  readonly dump: string;
  readonly manifest: Manifest;
  readonly census: Census;
}

/** Everything but a fault's own inputs is at its default; programs outside the system's places are named. */
export async function tryBackup(
  cluster: Cluster,
  database: string,
  inputs: Inputs = {},
  options: Options = {},
): Promise<ActionResult> {
  const store = inputs.store ?? `file://${await scratch()}`;
  return runAction(repository, {
    ...options,
    inputs: { 'database-url': cluster.url(database), name: 'assayed', ...clientBin(cluster), ...inputs, store },
  });
}

/** Takes a backup with the committed launcher; a run that fails fails the test, with its log. */
export async function takeBackup(
  cluster: Cluster,
  database: string,
  inputs: Inputs = {},
  options: Options = {},
): Promise<Taken> {
  const result = await tryBackup(cluster, database, inputs, options);
  assert.equal(result.exitCode, 0, result.log);
  return taken(result);
}

/** Reads what a successful run stored. */
export async function taken(result: ActionResult): Promise<Taken> {
  const { location = '', 'backup-id': id = '' } = result.outputs;
  const folder = fileURLToPath(location);
  const read = async (file: string): Promise<unknown> => JSON.parse(await readFile(join(folder, file), 'utf8'));
  const manifest = (await read('manifest.json')) as Manifest;
  const store = location.slice(0, -`/${manifest.name}/${id}`.length);
  return {
    ...{ result, outputs: result.outputs, id, name: manifest.name, store, folder, manifest },
    dump: join(folder, 'database.dump'),
    census: (await read('census.json')) as Census,
  };
}

/** The `client-bin` a backup of this cluster needs; nothing where pgassay looks by itself. */
export function clientBin(cluster: Cluster): { readonly 'client-bin'?: string } {
  return /^\/(?:usr\/lib\/postgresql|opt\/homebrew|usr\/local)\//.test(cluster.bin)
    ? {}
    : { 'client-bin': cluster.bin };
}

let restored = 0;

/** `pg_restore -1 --exit-on-error` into a new database of `cluster`, nothing of ours involved; the database's name. */
export async function restoreWithStockTools(
  cluster: Cluster,
  dump: string,
  { roles, args = [], database }: { roles?: string; args?: readonly string[]; database?: string } = {},
): Promise<string> {
  restored += 1;
  const name = database ?? `restored_${restored}`;
  if (database === undefined) await cluster.createDatabase(name, 'TEMPLATE template0');
  if (roles !== undefined) await program(cluster, 'psql', ['-X', '-q', '-d', cluster.url(name), '-f', roles]);
  await program(cluster, 'pg_restore', [...args, '-1', '--exit-on-error', '-d', cluster.url(name), dump]);
  return name;
}

/** Runs one of the cluster's own programs; what it printed. Throws when it fails. */
export async function program(cluster: Cluster, name: string, args: readonly string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(join(cluster.bin, name), [...args], {
    env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' },
    maxBuffer: 256 * 1024 * 1024,
  });
  return stdout;
}

/** How a table is written here: `schema.name`, unquoted. */
export function nameOf({ schema, name }: { readonly schema: string; readonly name: string }): string {
  return `${schema}.${name}`;
}

/** What the census says of each table with data. */
export function recordedRows(census: Census): Record<string, number> {
  return Object.fromEntries(census.tables.filter((table) => table.data).map((table) => [nameOf(table), table.rows]));
}

/** The same tables counted in a database, one by one. */
export async function countedRows(cluster: Cluster, database: string, census: Census): Promise<Record<string, number>> {
  const client = await cluster.client(database);
  const counts: Record<string, number> = {};
  try {
    for (const table of census.tables.filter(({ data }) => data)) {
      const name = `${pg.escapeIdentifier(table.schema)}.${pg.escapeIdentifier(table.name)}`;
      const { rows } = await client.query<{ count: string }>(`SELECT count(*) FROM ONLY ${name}`);
      counts[nameOf(table)] = Number(rows[0]?.count);
    }
  } finally {
    await client.end();
  }
  return counts;
}

/** One table of the census; throws when it is not there. */
export function tableOf(census: Census, name: string): CensusTable {
  const table = census.tables.find((each) => nameOf(each) === name);
  assert.ok(table !== undefined, `${name} is not in the census: ${census.tables.map(nameOf).join(', ')}`);
  return table;
}

export interface CliResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  /** What `--json` printed; undefined when it was not JSON. */
  readonly json: unknown;
}

/** Runs the committed `dist/cli.js` with nothing in its environment but `env`. */
export async function cli(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<CliResult> {
  const child = spawn(process.execPath, [join(repository, 'dist', 'cli.js'), ...args], {
    cwd: '/',
    env: { PATH: '/usr/bin:/bin', HOME: '/nonexistent', LANG: 'C.UTF-8', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const kill = (): void => void child.kill('SIGKILL');
  process.once('exit', kill);
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
  const exitCode = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve(code ?? -1));
  });
  process.removeListener('exit', kill);
  const stdout = Buffer.concat(out).toString('utf8');
  return { exitCode, stdout, stderr: Buffer.concat(err).toString('utf8'), json: parsed(stdout) };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export interface RestoreReport {
  readonly database: string;
  readonly tables: number;
  readonly rows: number;
  readonly compared: readonly {
    readonly schema: string;
    readonly name: string;
    readonly recorded: number;
    readonly restored: number | null;
  }[];
}

/** `pgassay restore` into a database that it creates: it compares rows, digests and sequences. Throws when it fails. */
export async function restoreWithUs(
  cluster: Cluster,
  backup: Taken,
  database: string,
  flags: readonly string[] = [],
): Promise<RestoreReport> {
  const bin = clientBin(cluster)['client-bin'];
  const result = await cli(
    [
      ...['restore', backup.id, '--store', backup.store, '--name', backup.name, '--json'],
      ...(bin === undefined ? [] : ['--client-bin', bin]),
      ...flags,
    ],
    { TARGET_URL: cluster.url(database) },
  );
  assert.equal(result.exitCode, 0, result.stderr);
  return result.json as RestoreReport;
}

/** A pg_dump that stops at the door: the snapshot is there and every table is locked, but pg_dump has not begun. */
export interface Gate {
  /** For `client-bin`. */
  readonly bin: string;
  /** Resolves when pg_dump stands at the door. */
  readonly reached: () => Promise<void>;
  /** Lets it in. A second pg_dump of the same run finds the door open. */
  readonly open: () => Promise<void>;
}

export async function gate(cluster: Cluster): Promise<Gate> {
  const folder = await scratch();
  const [here, go] = [join(folder, 'here'), join(folder, 'go')];
  return {
    bin: await wrapped(cluster, {
      pg_dump: `case "$*" in *--snapshot=*) : >'${here}'; while [ ! -e '${go}' ]; do sleep 0.05; done;; esac\nexec "$REAL" "$@"`,
    }),
    reached: async () => void (await until(() => existsSync(here) || undefined)),
    open: () => writeFile(go, ''),
  };
}

/** Resolves when a session whose statement begins so waits for a lock. */
export async function waitsForLock(cluster: Cluster, statement: string): Promise<void> {
  await until(async () => {
    const rows = await cluster.query(
      'postgres',
      `SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND starts_with(query, $1)`,
      [statement],
    );
    return rows.length > 0 || undefined;
  });
}
