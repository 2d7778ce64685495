import { realpath } from 'node:fs/promises';
import { delimiter, isAbsolute, join } from 'node:path';
import { Failure } from '../failure.ts';
import type { Log } from '../log.ts';
import { install, installed, type PackageAccess } from './install.ts';
import { type Place, type Probe, type Programs, probe } from './programs.ts';
import {
  compareVersions,
  fitsServer,
  formatVersion,
  oldestFittingMinor,
  oldestMajor,
  type PgVersion,
  readsArchive,
  requireSupported,
  supportedMajors,
} from './version.ts';

export type { Programs } from './programs.ts';

export interface Need {
  /** The server to dump; for `restore`, the version whose pg_dump wrote the archive. */
  readonly server: PgVersion;
  readonly use: 'dump' | 'restore';
}

export interface ClientOptions {
  /** `client-bin`: the folder to take them from, and no other. */
  readonly clientBin?: string | undefined;
  /** `install-client`: whether a missing version may be installed. */
  readonly install: boolean;
  readonly toolCache: string;
  /** The text of PATH. */
  readonly path: string;
  readonly log: Log;
  readonly signal?: AbortSignal | undefined;
  /** `initdb`, `postgres` and `pg_ctl` are needed too. */
  readonly serverPrograms?: boolean | undefined;
  readonly packages?: PackageAccess | undefined;
  /** Where packages put the programs; this machine's usual folders unless given. */
  readonly places?: readonly Place[] | undefined;
}

/**
 * The PostgreSQL programs that fit, by absolute path. To dump: the server's own major and a minor that is not too old
 * for it, the highest there is. To restore: any major from the archive's on, its own preferred, highest minor.
 * Throws a Failure of stage `client`, exit 13, before anything is started.
 */
export async function findPrograms(need: Need, options: ClientOptions): Promise<Programs> {
  if (need.use === 'dump' || need.server.major > oldestMajor) requireSupported(need.server);
  const { signal, serverPrograms = false } = options;
  if (options.clientBin !== undefined) return given(need, options.clientBin, serverPrograms, signal);

  const places = await unique([
    ...(options.places ?? systemPlaces()),
    ...(await installed(options.toolCache)),
    ...pathPlaces(options.path),
  ]);
  const probes = await Promise.all(places.map((place) => probe(place, serverPrograms, signal)));
  const best = choose(need, probes);
  if (best !== undefined) {
    options.log.info(`using PostgreSQL ${formatVersion(best.version)} programs: ${best.origin}`);
    return best;
  }
  if (!options.install) throw none(need, probes, serverPrograms);
  const newest = newestFound(probes);
  const server = formatVersion(need.server);
  const programs = await install({
    major: Math.max(need.server.major, oldestMajor),
    atLeastMinor: need.use === 'dump' ? oldestFittingMinor(need.server) : 0,
    serverPrograms,
    toolCache: options.toolCache,
    because: `${need.use === 'dump' ? 'server is' : 'the archive is from'} ${server}, found ${newest ?? 'none'}`,
    packages: options.packages,
    log: options.log,
    signal,
  });
  options.log.info(`using PostgreSQL ${formatVersion(programs.version)} programs: ${programs.origin}`);
  return programs;
}

/** Where the packages of Debian, PostgreSQL's yum repository, Alpine and Homebrew put each major's programs. */
export function systemPlaces(): Place[] {
  const places: Place[] = [];
  const add = (bin: string, whose: string): void => {
    places.push({ bin, libraryPath: undefined, origin: `${whose} ${bin}` });
  };
  const brews = ['/opt/homebrew', '/usr/local', '/home/linuxbrew/.linuxbrew'];
  for (const major of supportedMajors.toReversed()) {
    add(`/usr/lib/postgresql/${major}/bin`, "Debian's");
    add(`/usr/pgsql-${major}/bin`, "PostgreSQL's yum");
    add(`/usr/libexec/postgresql${major}`, "Alpine's");
    for (const brew of brews) add(`${brew}/opt/postgresql@${major}/bin`, "Homebrew's");
  }
  for (const brew of brews) add(`${brew}/opt/libpq/bin`, "Homebrew's");
  return places;
}

function pathPlaces(path: string): Place[] {
  const folders = path.split(delimiter).filter((folder) => isAbsolute(folder));
  return folders.map((bin) => ({ bin, libraryPath: undefined, origin: `${bin} on PATH` }));
}

/** Each pg_dump once, under the first name it was found by. */
async function unique(places: readonly Place[]): Promise<Place[]> {
  const seen = new Set<string>();
  const kept: Place[] = [];
  for (const place of places) {
    let real: string;
    try {
      real = await realpath(join(place.bin, 'pg_dump'));
    } catch {
      continue;
    }
    if (seen.has(real)) continue;
    seen.add(real);
    kept.push(place);
  }
  return kept;
}

function fits(need: Need, client: PgVersion): boolean {
  return need.use === 'dump' ? fitsServer(client, need.server) : readsArchive(client, need.server);
}

function choose(need: Need, probes: readonly Probe[]): Programs | undefined {
  const fitting = probes.flatMap((found) =>
    found.kind === 'programs' && fits(need, found.programs.version) ? [found.programs] : [],
  );
  const distance = (programs: Programs): number => programs.version.major - need.server.major;
  return fitting.toSorted((a, b) => distance(a) - distance(b) || compareVersions(b.version, a.version)).at(0);
}

async function given(
  need: Need,
  bin: string,
  serverPrograms: boolean,
  signal: AbortSignal | undefined,
): Promise<Programs> {
  const found = await probe({ bin, libraryPath: undefined, origin: `client-bin ${bin}` }, serverPrograms, signal);
  if (found.kind === 'programs' && fits(need, found.programs.version)) return found.programs;
  const hint = `point client-bin at a folder with ${wanted(need, serverPrograms)}, or leave it empty to let pgassay find or install them`;
  if (found.kind === 'programs') {
    const message = `client-bin ${bin} holds PostgreSQL ${formatVersion(found.programs.version)}, but ${task(need)} needs ${wantedVersion(need)}`;
    throw new Failure('client', 'version', message, { hint });
  }
  const says = found.kind === 'absent' ? 'holds no pg_dump of a single version' : `is of no use: ${found.says}`;
  throw new Failure('client', 'version', `client-bin ${bin} ${says}`, { hint });
}

function none(need: Need, probes: readonly Probe[], serverPrograms: boolean): Failure {
  const found = probes.flatMap((one) => {
    if (one.kind === 'programs') return [`${formatVersion(one.programs.version)} in ${one.programs.bin}`];
    return one.kind === 'unusable' ? [`an unusable set in ${one.place.bin} (${one.says})`] : [];
  });
  const major = Math.max(need.server.major, oldestMajor);
  const packages = serverPrograms ? `postgresql-${major}` : `postgresql-client-${major}`;
  const message = `no ${wanted(need, serverPrograms)} on this machine, which ${task(need)} needs; found ${found.length === 0 ? 'none at all' : found.join(', ')}`;
  return new Failure('client', 'version', message, {
    hint: [
      'one of:',
      '  install-client: true                       # unpacked into the tool cache, without root',
      `  sudo apt-get install ${packages}   # from https://apt.postgresql.org`,
      '  client-bin: /folder/of/those/programs',
    ].join('\n'),
  });
}

function task(need: Need): string {
  const version = formatVersion(need.server);
  return need.use === 'dump' ? `dumping a ${version} server` : `reading an archive of PostgreSQL ${version}`;
}

function wantedVersion(need: Need): string {
  if (need.use === 'restore') return `${Math.max(need.server.major, oldestMajor)} or later`;
  return `${need.server.major}.${oldestFittingMinor(need.server)} or a later ${need.server.major}`;
}

function wanted(need: Need, serverPrograms: boolean): string {
  return `PostgreSQL ${wantedVersion(need)} ${serverPrograms ? 'server and client programs' : 'client programs'}`;
}

function newestFound(probes: readonly Probe[]): string | undefined {
  const versions = probes.flatMap((found) => (found.kind === 'programs' ? [found.programs.version] : []));
  const newest = versions.toSorted(compareVersions).at(-1);
  return newest === undefined ? undefined : formatVersion(newest);
}
