import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type CliResult, clientBin, type Taken, takeBackup } from './backup.ts';
import { repository, scratch, until, wrapped } from './faults.ts';
import type { Cluster } from './postgres.ts';

/** A `pgassay restore` that is under way. */
export interface Restoring {
  readonly signal: (name: NodeJS.Signals) => void;
  readonly done: Promise<CliResult>;
}

/** Starts `pgassay restore --json` of that backup towards `url` with the committed `dist/cli.js`. */
export function startRestore(
  cluster: Cluster,
  backup: Pick<Taken, 'id' | 'store' | 'name'>,
  url: string,
  flags: readonly string[] = [],
): Restoring {
  const bin = clientBin(cluster)['client-bin'];
  const child = spawn(
    process.execPath,
    [
      ...[join(repository, 'dist', 'cli.js'), 'restore', backup.id, '--store', backup.store, '--name', backup.name],
      ...['--json', ...(bin === undefined || flags.includes('--client-bin') ? [] : ['--client-bin', bin]), ...flags],
    ],
    {
      cwd: '/',
      env: { PATH: '/usr/bin:/bin', HOME: '/nonexistent', LANG: 'C.UTF-8', TARGET_URL: url },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  const kill = (): void => void child.kill('SIGKILL');
  process.once('exit', kill);
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
  const done = new Promise<CliResult>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => {
      process.removeListener('exit', kill);
      const stdout = Buffer.concat(out).toString('utf8');
      let json: unknown;
      try {
        json = JSON.parse(stdout);
      } catch {}
      resolve({ exitCode: code ?? -1, stdout, stderr: Buffer.concat(err).toString('utf8'), json });
    });
  });
  done.catch(() => {});
  return { signal: (name) => void child.kill(name), done };
}

export function tryRestore(...args: Parameters<typeof startRestore>): Promise<CliResult> {
  return startRestore(...args).done;
}

/** A pg_restore that does `first`, stops at a door, and then does `then`; `$REAL "$@"` is the true one. */
export async function door(
  cluster: Cluster,
  { first = ':', after = 'exec "$REAL" "$@"' }: { readonly first?: string; readonly after?: string } = {},
): Promise<{ readonly bin: string; readonly reached: () => Promise<void>; readonly open: () => Promise<void> }> {
  const folder = await scratch();
  const [here, go] = [join(folder, 'here'), join(folder, 'go')];
  return {
    bin: await wrapped(cluster, {
      pg_restore: `case "$*" in *exit-on-error*) ;; *) exec "$REAL" "$@";; esac
${first}
: >'${here}'; while [ ! -e '${go}' ]; do sleep 0.05; done
${after}`,
    }),
    reached: async () => void (await until(() => existsSync(here) || undefined)),
    open: () => writeFile(go, ''),
  };
}

/** Backs up what `sql` makes of an empty database. */
export async function backupOf(
  cluster: Cluster,
  database: string,
  sql: string,
  inputs: Parameters<typeof takeBackup>[2] = {},
): Promise<Taken> {
  if ((await cluster.query('postgres', 'SELECT FROM pg_database WHERE datname = $1', [database])).length === 0)
    await cluster.createDatabase(database);
  await cluster.query(database, sql);
  return takeBackup(cluster, database, { 'allow-empty': true, ...inputs });
}

export async function databasesOf(cluster: Cluster): Promise<string[]> {
  const rows = await cluster.query<{ name: string }>('postgres', 'SELECT datname AS name FROM pg_database');
  return rows.map((row) => row.name);
}

/** Roles that the test or pgassay made, PostgreSQL's own left out. */
export async function rolesOf(cluster: Cluster): Promise<string[]> {
  const rows = await cluster.query<{ name: string }>(
    'postgres',
    `SELECT rolname AS name FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> 'postgres' ORDER BY 1`,
  );
  return rows.map((row) => row.name);
}
