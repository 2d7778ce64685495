import { access, constants, readdir, realpath } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type Output, run } from '../program.ts';
import { compareVersions, formatVersion, type PgVersion, parseProgramVersion } from './version.ts';

/** One set of PostgreSQL's programs, all of one version and all proven to start. */
export interface Programs {
  readonly version: PgVersion;
  /** The folder they are in; with server programs asked for, `initdb`, `postgres` and `pg_ctl` are in it too. */
  readonly bin: string;
  readonly pgDump: string;
  readonly pgRestore: string;
  readonly pgDumpall: string;
  readonly psql?: string;
  /** Where an unpacked tree has its libraries; undefined where the system's own libraries serve. */
  readonly libraryPath: string | undefined;
  /** Where they are from, for the log: `Debian's /usr/lib/postgresql/17/bin`. */
  readonly origin: string;
}

/** A folder where the programs may be. */
export interface Place {
  readonly bin: string;
  readonly libraryPath: string | undefined;
  readonly origin: string;
}

/** What a folder turned out to hold. */
export type Probe =
  | { readonly kind: 'programs'; readonly programs: Programs }
  /** pg_dump is there, but the set is no use: `says` is the reason. */
  | { readonly kind: 'unusable'; readonly place: Place; readonly version: PgVersion | undefined; readonly says: string }
  | { readonly kind: 'absent'; readonly place: Place };

const clientPrograms = ['pg_dump', 'pg_restore', 'pg_dumpall'] as const;
const serverOnly = ['initdb', 'postgres', 'pg_ctl'] as const;

/**
 * Runs every program of `place` with `--version`. Debian's pg_wrapper is no set of programs: it starts another version
 * for every cluster and connection, so a folder whose pg_dump is one counts as absent.
 */
export async function probe(place: Place, serverPrograms: boolean, signal?: AbortSignal): Promise<Probe> {
  const pgDump = join(place.bin, 'pg_dump');
  if (!(await executable(pgDump)) || (await isWrapper(pgDump))) return { kind: 'absent', place };
  const names = [...clientPrograms, ...(serverPrograms ? serverOnly : [])];
  const answers = await Promise.all(
    names.map(async (name) => [name, await versionOf(join(place.bin, name), place.libraryPath, signal)] as const),
  );
  let version: PgVersion | undefined;
  for (const [name, answer] of answers) {
    if (typeof answer === 'string') return { kind: 'unusable', place, version, says: `${name} ${answer}` };
    if (version !== undefined && compareVersions(version, answer) !== 0) {
      const says = `pg_dump is ${formatVersion(version)} but ${name} is ${formatVersion(answer)}`;
      return { kind: 'unusable', place, version, says };
    }
    version = answer;
  }
  if (version === undefined) return { kind: 'absent', place };
  const psql = join(place.bin, 'psql');
  return {
    kind: 'programs',
    programs: {
      version,
      bin: place.bin,
      pgDump,
      pgRestore: join(place.bin, 'pg_restore'),
      pgDumpall: join(place.bin, 'pg_dumpall'),
      ...((await executable(psql)) ? { psql } : {}),
      libraryPath: place.libraryPath,
      origin: place.origin,
    },
  };
}

/** The programs inside an unpacked tree: Debian's and Alpine's layout. Undefined when it has none. */
export async function placeInTree(tree: string, origin: string): Promise<Place | undefined> {
  const found: string[] = [];
  for (const name of await names(join(tree, 'usr/lib/postgresql')))
    found.push(join(tree, 'usr/lib/postgresql', name, 'bin'));
  for (const name of await names(join(tree, 'usr/libexec'))) {
    if (/^postgresql\d+$/.test(name)) found.push(join(tree, 'usr/libexec', name));
  }
  const [bin] = found;
  if (bin === undefined) return undefined;
  const libraries: string[] = [];
  for (const lib of ['usr/lib', 'lib']) {
    const folders = ['.', ...(await names(join(tree, lib))).filter((name) => /^[\w]+-linux-\w+$/.test(name))];
    for (const folder of folders) {
      const path = join(tree, lib, folder);
      if ((await names(path)).some((name) => /\.so(\.|$)/.test(name))) libraries.push(path);
    }
  }
  return { bin, origin, libraryPath: libraries.length === 0 ? undefined : libraries.join(':') };
}

async function versionOf(
  path: string,
  libraryPath: string | undefined,
  signal: AbortSignal | undefined,
): Promise<PgVersion | string> {
  if (!(await executable(path))) return 'is missing';
  const env = bareEnvironment(libraryPath);
  let output: Output;
  try {
    output = await run(
      { path, args: ['--version'], env },
      { timeoutMs: 30_000, ...(signal === undefined ? {} : { signal }) },
    );
  } catch (error) {
    signal?.throwIfAborted();
    return `does not start (${error instanceof Error ? error.message : String(error)})`;
  }
  if (output.code !== 0) return `does not start (${lastLine(output.stderr) ?? `exit ${output.code ?? output.signal}`})`;
  return (
    parseProgramVersion(output.stdout) ?? `is not PostgreSQL's (it says ${JSON.stringify(output.stdout.slice(0, 60))})`
  );
}

/** A program that connects to nothing gets nothing of ours, not even a home. */
export function bareEnvironment(libraryPath: string | undefined): Record<string, string> {
  const variable = process.platform === 'darwin' ? 'DYLD_LIBRARY_PATH' : 'LD_LIBRARY_PATH';
  return { PATH: '/usr/bin:/bin', LC_ALL: 'C', ...(libraryPath === undefined ? {} : { [variable]: libraryPath }) };
}

/** /usr/bin/pg_dump is a symbolic link to ../share/postgresql-common/pg_wrapper, a Perl script, on Debian and Ubuntu. */
async function isWrapper(path: string): Promise<boolean> {
  return basename(await realpath(path)) === 'pg_wrapper';
}

export async function executable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

async function names(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch {
    return [];
  }
}

function lastLine(text: string): string | undefined {
  return text.trim().split('\n').at(-1) || undefined;
}
