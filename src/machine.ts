import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from './failure.ts';
import type { Log } from './log.ts';
import type { Manifest } from './manifest.ts';
import { type ClientOptions, findPrograms, type Programs } from './postgres/client.ts';
import type { PackageAccess } from './postgres/install.ts';
import { type PgVersion, parseVersion } from './postgres/version.ts';

/** What of this machine a run may use, read once by an edge. */
export interface Machine {
  /** Where a private folder can be made; it is removed when the run ends. */
  readonly temporary: string;
  readonly toolCache: string;
  /** The text of PATH. */
  readonly path: string;
  /** True on GitHub's runner, where localhost is the runner itself. */
  readonly onRunner: boolean;
  /** Proxies and mirrors for installing programs. */
  readonly packages?: PackageAccess | undefined;
}

/** Which PostgreSQL programs a run uses. */
export interface ProgramChoice {
  readonly clientBin: string | undefined;
  readonly installClient: boolean;
}

/** Programs that read the archive of this backup. */
export function programsFor(
  manifest: Manifest,
  choice: ProgramChoice,
  machine: Machine,
  io: { readonly log: Log; readonly signal: AbortSignal },
): Promise<Programs> {
  const version = parseVersion(manifest.tools.pgDump);
  if (version === undefined)
    throw new Failure('client', 'verification', `the manifest names no version of pg_dump: ${manifest.tools.pgDump}`);
  return programsReading(version, choice, machine, io);
}

/** Programs that read what a pg_dump of this version wrote. */
export function programsReading(
  version: PgVersion,
  choice: ProgramChoice,
  machine: Machine,
  io: { readonly log: Log; readonly signal: AbortSignal },
): Promise<Programs> {
  return findPrograms({ server: version, use: 'restore' }, optionsOf(choice, machine, io));
}

/** Programs of a server's own major, which dump it too; with `serverPrograms` those that make such a server. */
export function programsOfMajor(
  major: number,
  serverPrograms: boolean,
  choice: ProgramChoice,
  machine: Machine,
  io: { readonly log: Log; readonly signal: AbortSignal },
): Promise<Programs> {
  return findPrograms(
    { server: { major, minor: 0 }, use: 'dump' },
    { ...optionsOf(choice, machine, io), serverPrograms },
  );
}

function optionsOf(
  { clientBin, installClient }: ProgramChoice,
  { toolCache, path, packages }: Machine,
  { log, signal }: { readonly log: Log; readonly signal: AbortSignal },
): ClientOptions {
  return { clientBin, install: installClient, toolCache, path, log, signal, packages };
}

/** Runs `work` with a private folder (0700) that is removed whatever happens. */
export async function withPrivateFolder<T>(machine: Machine, work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(machine.temporary, 'pgassay-'));
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
