import { mkdir, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '../failure.ts';
import type { Log } from '../log.ts';
import { unpackWithApk } from './install/apk.ts';
import { unpackWithApt } from './install/apt.ts';
import { installWithHomebrew } from './install/homebrew.ts';
import {
  cannotInstall,
  type Order,
  type PackageAccess,
  type Unpacked,
  withoutCredentials,
} from './install/unpacked.ts';
import { executable, type Place, type Programs, placeInTree, probe } from './programs.ts';
import { compareVersions, formatVersion } from './version.ts';

export type { PackageAccess } from './install/unpacked.ts';

export interface Installation {
  readonly major: number;
  readonly atLeastMinor: number;
  /** The server's programs too. */
  readonly serverPrograms: boolean;
  readonly toolCache: string;
  /** Why, for the log: `server is 18.6, found 16.15`. */
  readonly because: string;
  readonly packages?: PackageAccess | undefined;
  readonly log: Log;
  readonly signal?: AbortSignal | undefined;
}

/** What this machine installs packages with. */
export type Manager =
  | { readonly kind: 'apt' }
  | { readonly kind: 'homebrew' | 'apk'; readonly path: string }
  | { readonly kind: 'none'; readonly says: string };

/** The variables an edge hands on from its environment: proxies in either spelling, PGASSAY_APT_REPOSITORY and PGASSAY_APT_KEY. */
export function packageAccess(environment: Readonly<Record<string, string | undefined>>): PackageAccess {
  const proxies: Record<string, string> = {};
  for (const name of ['http_proxy', 'https_proxy', 'no_proxy']) {
    const value = environment[name] || environment[name.toUpperCase()];
    if (value) proxies[name] = value;
  }
  return {
    proxies,
    repository: environment.PGASSAY_APT_REPOSITORY || undefined,
    keyFile: environment.PGASSAY_APT_KEY || undefined,
  };
}

/**
 * Installs PostgreSQL's programs and returns them, proven to start and new enough; those of an earlier run are used
 * again. Unpacked packages live in `<toolCache>/pgassay-postgresql/<package version>/<architecture>[-server]`, a folder
 * that is whole from the moment it has that name. Throws a Failure of stage `client`, exit 13, and leaves nothing then.
 */
export async function install(installation: Installation): Promise<Programs> {
  const { log, major, signal, serverPrograms, toolCache } = installation;
  const earlier = await fromEarlierRun(installation);
  if (earlier !== undefined) return earlier;

  const manager = await packageManager(process.platform, executable);
  if (manager.kind === 'none') throw cannotInstall(manager.says);
  const order: Order = { major, serverPrograms, packages: installation.packages ?? {}, log, signal };
  const what = serverPrograms ? 'server and client' : 'client';
  log.info(`installing PostgreSQL ${major} ${what} from ${sourceName(manager, order)} (${installation.because})`);
  if (manager.kind === 'homebrew') {
    return proven(await installWithHomebrew(manager.path, order), installation, 'Homebrew');
  }
  const home = await storage(toolCache);
  const work = await workFolder(home);
  try {
    const unpacked =
      manager.kind === 'apt' ? await unpackWithApt(order, work) : await unpackWithApk(manager.path, order, work);
    await proven(await placed(unpacked.tree, unpacked.source), installation, unpacked.source);
    return await publish(unpacked, home, work, installation);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Where earlier runs unpacked programs. */
export async function installed(toolCache: string): Promise<Place[]> {
  const home = join(toolCache, 'pgassay-postgresql');
  const places: Place[] = [];
  for (const version of await visible(home)) {
    for (const arch of await visible(join(home, version))) {
      if (arch !== process.arch && arch !== `${process.arch}-server`) continue;
      const tree = join(home, version, arch);
      const place = await placeInTree(tree, `unpacked by an earlier run into ${tree}`);
      if (place !== undefined) places.push(place);
    }
  }
  return places;
}

/** Which package manager `platform` has; `exists` says whether a program is at a path. */
export async function packageManager(
  platform: NodeJS.Platform,
  exists: (path: string) => Promise<boolean>,
): Promise<Manager> {
  if (platform === 'win32') {
    return { kind: 'none', says: 'PostgreSQL programs are not installed on Windows: pgassay runs on Linux and macOS' };
  }
  if ((await exists('/usr/bin/apt-get')) && (await exists('/usr/bin/dpkg-deb'))) return { kind: 'apt' };
  for (const path of ['/sbin/apk', '/usr/sbin/apk', '/usr/bin/apk']) {
    if (await exists(path)) return { kind: 'apk', path };
  }
  for (const path of ['/opt/homebrew/bin/brew', '/usr/local/bin/brew', '/home/linuxbrew/.linuxbrew/bin/brew']) {
    if (await exists(path)) return { kind: 'homebrew', path };
  }
  return { kind: 'none', says: 'this machine has none of apt, apk and Homebrew to install PostgreSQL programs with' };
}

function sourceName(manager: Exclude<Manager, { kind: 'none' }>, order: Order): string {
  if (manager.kind === 'homebrew') return 'Homebrew';
  if (manager.kind === 'apk') return "Alpine's repositories";
  const [mirror] = order.packages.repository?.split(' ') ?? [];
  return mirror === undefined ? 'apt.postgresql.org' : withoutCredentials(mirror);
}

async function fromEarlierRun(installation: Installation): Promise<Programs | undefined> {
  const found: Programs[] = [];
  for (const place of await installed(installation.toolCache)) {
    const one = await probe(place, installation.serverPrograms, installation.signal);
    if (one.kind === 'programs' && isNewEnough(one.programs, installation)) found.push(one.programs);
  }
  return found.toSorted((a, b) => compareVersions(b.version, a.version)).at(0);
}

function isNewEnough({ version }: Programs, { major, atLeastMinor }: Installation): boolean {
  return version.major === major && version.minor >= atLeastMinor;
}

async function placed(tree: string, source: string): Promise<Place> {
  const place = await placeInTree(tree, `unpacked from ${source} into ${tree}`);
  if (place === undefined) throw cannotInstall(`the packages of ${source} hold no PostgreSQL programs`);
  return place;
}

async function proven(place: Place, installation: Installation, source: string): Promise<Programs> {
  const found = await probe(place, installation.serverPrograms, installation.signal);
  if (found.kind === 'absent') throw cannotInstall(`${source} installed no PostgreSQL programs in ${place.bin}`);
  if (found.kind === 'unusable') throw cannotInstall(`the programs from ${source} are of no use here: ${found.says}`);
  if (isNewEnough(found.programs, installation)) return found.programs;
  const wanted = formatVersion({ major: installation.major, minor: installation.atLeastMinor });
  throw cannotInstall(
    `${source} has PostgreSQL ${formatVersion(found.programs.version)}, but ${wanted} or later is needed`,
    {
      hints: [
        source === 'Homebrew'
          ? `brew upgrade postgresql@${installation.major}`
          : 'a mirror may lag behind: update it, or wait until the new minor is there',
      ],
    },
  );
}

/** Gives the tree its name. A tree that is there already is a parallel run's, as good as ours, or no good and replaced. */
async function publish(unpacked: Unpacked, home: string, work: string, installation: Installation): Promise<Programs> {
  const version = unpacked.packageVersion.replace(/[^\w.+~-]/g, '_');
  await mkdir(join(home, version), { recursive: true });
  const final = join(home, version, `${process.arch}${installation.serverPrograms ? '-server' : ''}`);
  for (let attempt = 1; ; attempt++) {
    try {
      await rename(unpacked.tree, final);
      break;
    } catch (error) {
      if (attempt > 3 || !isTaken(error)) throw storageFailure(final, error);
    }
    const other = await placeInTree(final, '');
    const found = other && (await probe(other, installation.serverPrograms, installation.signal));
    if (found?.kind === 'programs' && isNewEnough(found.programs, installation)) break;
    await rename(final, join(work, `replaced-${attempt}`)).catch(() => {});
  }
  return proven(await placed(final, unpacked.source), installation, unpacked.source);
}

function isTaken(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOTEMPTY' || error.code === 'EEXIST');
}

async function storage(toolCache: string): Promise<string> {
  const home = join(toolCache, 'pgassay-postgresql');
  try {
    await mkdir(home, { recursive: true });
    return home;
  } catch (error) {
    throw storageFailure(home, error);
  }
}

/** A folder of this run's own, beside the named ones so that a rename moves the tree. Those of killed runs go after a day. */
async function workFolder(home: string): Promise<string> {
  const day = 24 * 60 * 60 * 1000;
  try {
    for (const name of await readdir(home)) {
      if (!name.startsWith('.partial-')) continue;
      const path = join(home, name);
      if ((await stat(path)).mtimeMs < Date.now() - day) await rm(path, { recursive: true, force: true });
    }
    return await mkdtemp(join(home, '.partial-'));
  } catch (error) {
    throw storageFailure(home, error);
  }
}

function storageFailure(path: string, cause: unknown): Failure {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
  const exit = code === 'ENOSPC' ? 'disk' : 'version';
  return new Failure('client', exit, `cannot write PostgreSQL programs to ${path} (${code})`, {
    cause,
    hint: 'let this user write to the tool cache (RUNNER_TOOL_CACHE), or install PostgreSQL on the machine before this step',
  });
}

async function visible(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).filter((name) => !name.startsWith('.'));
  } catch {
    return [];
  }
}
