import { Failure } from '../failure.ts';

/** A PostgreSQL version, 17.11. A beta, a release candidate and a development build count as minor 0, as in `server_version_num`. */
export interface PgVersion {
  readonly major: number;
  readonly minor: number;
}

/** The majors pgassay dumps and restores, and the first of them. */
export const supportedMajors: readonly number[] = [14, 15, 16, 17, 18];
export const oldestMajor = 14;

/**
 * The first minor of each major whose pg_dump leaves out the private column option of servers since November 2026
 * (15.20 measured, 15.18 and 17.11 measured to write `SET (pg_attver=…)`), and whose pg_restore survives a crafted
 * archive (CVE-2026-116314). From here on a client may be older than its server.
 */
const fixedMinors: ReadonlyMap<number, number> = new Map([
  [14, 25],
  [15, 20],
  [16, 16],
  [17, 12],
  [18, 7],
]);

/** The first minors whose pg_dump a hostile server cannot overwrite through `lo_read`: CVE-2026-6477. */
const safeDumpMinors: ReadonlyMap<number, number> = new Map([
  [14, 23],
  [15, 18],
  [16, 14],
  [17, 10],
  [18, 4],
]);

/** Reads `SHOW server_version_num`: `170011`, and `90624` (9.6.24) as 9.6. Undefined when it is not such a number. */
export function parseServerVersionNum(text: string | number): PgVersion | undefined {
  const digits = String(text).trim();
  if (!/^\d{5,7}$/.test(digits)) return undefined;
  const number = Number(digits);
  if (number < 100_000) return { major: Math.floor(number / 10_000), minor: Math.floor(number / 100) % 100 };
  return { major: Math.floor(number / 10_000), minor: number % 10_000 };
}

/** Reads the first line of `pg_dump --version` and its siblings: `pg_dump (PostgreSQL) 17.11 (Debian 17.11-0+deb13u1)`, `… 18beta1`. */
export function parseProgramVersion(line: string): PgVersion | undefined {
  const match = /^\S+ \(PostgreSQL\) (\d+)(?:\.(\d+)|beta\d+|rc\d+|devel)?(?:[ \n.]|$)/.exec(line);
  if (match === null) return undefined;
  return { major: Number(match[1]), minor: Number(match[2] ?? 0) };
}

/** Reads `17.11`, `17` and `18beta1`, as manifests and people write them. */
export function parseVersion(text: string): PgVersion | undefined {
  return parseProgramVersion(`version (PostgreSQL) ${text.trim()}`);
}

export function formatVersion(version: PgVersion): string {
  return `${version.major}.${version.minor}`;
}

/** Negative when `a` is older than `b`, zero when they are equal. */
export function compareVersions(a: PgVersion, b: PgVersion): number {
  return a.major - b.major || a.minor - b.minor;
}

/** The oldest minor of the server's own major that may dump it. */
export function oldestFittingMinor(server: PgVersion): number {
  return Math.min(server.minor, fixedMinors.get(server.major) ?? server.minor);
}

/** Whether `client` may dump `server`: the same major, and a minor that is not older or does not need to be newer. */
export function fitsServer(client: PgVersion, server: PgVersion): boolean {
  return client.major === server.major && client.minor >= oldestFittingMinor(server);
}

/** Whether a pg_restore of `client` reads an archive that pg_dump of `archive` wrote. */
export function readsArchive(client: PgVersion, archive: PgVersion): boolean {
  return client.major >= archive.major;
}

/** Throws exit 13 for a server of a major that pgassay does not dump. */
export function requireSupported(server: PgVersion): void {
  if (supportedMajors.includes(server.major)) return;
  const [first, last] = [supportedMajors.at(0), supportedMajors.at(-1)];
  const older = server.major < oldestMajor;
  throw new Failure(
    'client',
    'version',
    `the server is PostgreSQL ${formatVersion(server)}; this release of pgassay works with ${first} to ${last}`,
    {
      hint: older
        ? `PostgreSQL ${formatVersion(server)} gets no fixes any more: upgrade the server (https://www.postgresql.org/support/versioning/)`
        : 'use a newer release of pgassay',
    },
  );
}

/** Why it is a risk to dump a server one does not trust with this client; undefined when none is known. */
export function dumpSecurityWarning(client: PgVersion): string | undefined {
  const safe = safeDumpMinors.get(client.major);
  if (safe === undefined || client.minor >= safe) return undefined;
  return `pg_dump ${formatVersion(client)} can be taken over by the server it dumps (CVE-2026-6477); ${client.major}.${safe} and later are safe`;
}

/** Why it is a risk to read an archive one does not trust with this client; undefined when none is known. */
export function restoreSecurityWarning(client: PgVersion): string | undefined {
  const safe = fixedMinors.get(client.major);
  if (safe === undefined || client.minor >= safe) return undefined;
  return `pg_restore ${formatVersion(client)} can be taken over by a crafted archive (CVE-2026-116314); ${client.major}.${safe} and later are safe`;
}
