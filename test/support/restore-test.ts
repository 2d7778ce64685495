import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Census, Manifest } from '../../src/manifest.ts';
import { type CliResult, cli, clientBin, program, type Taken } from './backup.ts';
import { repository, scratch } from './faults.ts';
import type { Cluster } from './postgres.ts';

/** What `pgassay restore-test --json` prints. */
export interface TestReport {
  readonly result: 'passed' | 'failed';
  readonly backupId: string;
  readonly restoreSeconds: number;
  readonly totalSeconds: number;
  readonly level: string;
  readonly findings: readonly { readonly object: string; readonly expected: string; readonly found: string }[];
  readonly leftOut: readonly string[];
  readonly notes: readonly string[];
  readonly timings: Readonly<Record<string, number>>;
  readonly proof: string | null;
}

/** A `pgassay restore-test` that is under way. */
export function startRestoreTest(
  cluster: Cluster,
  backup: Pick<Taken, 'id' | 'store' | 'name'>,
  flags: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): { readonly signal: (name: NodeJS.Signals) => void; readonly done: Promise<{ readonly exitCode: number }> } {
  const bin = clientBin(cluster)['client-bin'];
  const child = spawn(
    process.execPath,
    [
      ...[
        join(repository, 'dist', 'cli.js'),
        'restore-test',
        backup.id,
        '--store',
        backup.store,
        '--name',
        backup.name,
      ],
      ...(bin === undefined ? [] : ['--client-bin', bin]),
      ...flags,
    ],
    { cwd: '/', env: { PATH: '/usr/bin:/bin', HOME: '/nonexistent', ...env }, stdio: 'ignore' },
  );
  const kill = (): void => void child.kill('SIGKILL');
  process.once('exit', kill);
  const done = new Promise<{ readonly exitCode: number }>((resolve) => {
    child.once('close', (code) => {
      process.removeListener('exit', kill);
      resolve({ exitCode: code ?? -1 });
    });
  });
  return { signal: (name) => void child.kill(name), done };
}

/** Runs `pgassay restore-test --json` with the programs of `cluster`; a throw-away server unless the flags name one. */
export function tryRestoreTest(
  cluster: Cluster,
  backup: Pick<Taken, 'id' | 'store' | 'name'>,
  flags: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Promise<CliResult> {
  const bin = clientBin(cluster)['client-bin'];
  return cli(
    [
      ...['restore-test', backup.id, '--store', backup.store, '--name', backup.name, '--json'],
      ...(bin === undefined || flags.includes('--client-bin') ? [] : ['--client-bin', bin]),
      ...flags,
    ],
    env,
  );
}

/** The findings, one a line, for a message that shows them. */
export function said(result: CliResult): string {
  return `${result.stderr}\n${result.stdout}`;
}

/**
 * A copy of a backup in a store of its own whose checksums all fit, though its dump, its census or something else is
 * not what it was: what a test of the bytes alone would never notice.
 */
export async function forged(
  backup: Taken,
  change: {
    readonly dump?: Buffer;
    readonly census?: (census: Census) => unknown;
    readonly manifest?: (manifest: Manifest) => unknown;
  },
): Promise<Pick<Taken, 'id' | 'store' | 'name'> & { readonly folder: string }> {
  const root = await scratch();
  const folder = join(root, backup.name, backup.id);
  await cp(backup.folder, folder, { recursive: true });
  if (change.dump !== undefined) await writeFile(join(folder, 'database.dump'), change.dump);
  if (change.census !== undefined)
    await writeFile(join(folder, 'census.json'), JSON.stringify(change.census(structuredClone(backup.census))));
  const manifest = structuredClone(backup.manifest) as unknown as {
    files: { name: string; bytes: number; sha256: string }[];
  };
  for (const file of manifest.files) {
    const bytes = await readFile(join(folder, file.name));
    file.bytes = bytes.length;
    file.sha256 = createHash('sha256').update(bytes).digest('hex');
  }
  const changed = change.manifest?.(manifest as unknown as Manifest) ?? manifest;
  await writeFile(join(folder, 'manifest.json'), JSON.stringify(changed));
  return { id: backup.id, name: backup.name, store: `file://${root}`, folder };
}

/** What pg_dump makes of that database, whoever asks. */
export async function dumpOf(cluster: Cluster, database: string): Promise<Buffer> {
  const file = join(await scratch(), 'dump');
  await program(cluster, 'pg_dump', ['-Fc', '-f', file, '-d', cluster.url(database)]);
  return readFile(file);
}

/** Folders of throw-away servers below `folder`. */
export function scratchFolders(folder: string): string[] {
  return readdirSync(folder).filter((name) => name.startsWith('pgassay-scratch-'));
}
