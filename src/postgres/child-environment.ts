import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { PinnedServer } from './connect.ts';
import { bareEnvironment } from './programs.ts';
import { defaultAuthorities, type SslMode } from './tls.ts';
import type { ConnectionTarget } from './url.ts';

export interface ChildOptions {
  readonly applicationName: string;
  /** The folder of libpq, for programs that were unpacked rather than installed. */
  readonly libraryPath?: string | undefined;
}

/**
 * The whole environment for a libpq program that is to reach `server`, the one our own session reached, and nothing
 * else. Password and certificates go as files of mode 0600 into `privateDirectory`, which exists, belongs to us (0700)
 * and lives as long as the child; several calls may share the folder.
 */
export async function childEnvironment(
  target: ConnectionTarget,
  server: PinnedServer,
  privateDirectory: string,
  { applicationName, libraryPath }: ChildOptions,
): Promise<Record<string, string>> {
  const absent = join(privateDirectory, 'absent');
  const unique = randomBytes(6).toString('hex');
  const keep = async (name: string, text: string): Promise<string> => {
    const path = join(privateDirectory, `${name}-${unique}`);
    await writeFile(path, text, { mode: 0o600, flag: 'wx' });
    return path;
  };
  const mode = modeFor(target.sslMode, server);
  const encrypted = mode !== 'disable';
  const verifies = mode === 'verify-ca' || mode === 'verify-full';
  const rootCert = target.tls.rootCert ?? (verifies ? defaultAuthorities() : undefined);
  const { cert, key } = target.tls;

  const environment: Record<string, string> = {
    ...bareEnvironment(libraryPath),
    HOME: privateDirectory,
    PGHOST: server.host,
    PGPORT: String(server.port),
    PGUSER: target.user,
    PGDATABASE: target.database,
    PGPASSFILE: absent,
    PGSSLMODE: mode,
    // Before 15 libpq finds the home directory in /etc/passwd, so a path must be given to keep ~/.postgresql out.
    PGSSLROOTCERT: encrypted && rootCert !== undefined ? await keep('root.crt', rootCert) : absent,
    PGSSLCERT: encrypted && cert !== undefined ? await keep('client.crt', cert) : absent,
    PGSSLKEY: encrypted && key !== undefined ? await keep('client.key', key) : absent,
    PGSSLCRL: absent,
    PGCHANNELBINDING: target.channelBinding,
    PGGSSENCMODE: 'disable',
    PGAPPNAME: applicationName,
    PGCONNECT_TIMEOUT: String(target.connectTimeoutSeconds),
    PGSERVICEFILE: absent,
    PGSYSCONFDIR: privateDirectory,
  };
  if (server.address !== undefined) environment.PGHOSTADDR = server.address;
  if (target.options !== undefined) environment.PGOPTIONS = target.options;
  if (target.password !== undefined) {
    // A line of a password file cannot hold a line break, and libpq cuts a carriage return off its end: no escape exists.
    // The environment of a process can be read only by its own user and root, like the file.
    if (/\n|\r$/.test(`${target.user}${target.password}`)) environment.PGPASSWORD = target.password;
    else environment.PGPASSFILE = await keep('pgpass', passwordFile(target.user, target.password, server));
  }
  return environment;
}

/** A database's name for `-d` and `-l`: a plain name with a = in it would be taken for a connection string. */
export function databaseArgument(name: string): string {
  return `dbname='${name.replace(/[\\']/g, '\\$&')}'`;
}

/** What our own session found out settles the modes that leave it open: a child must not fall back to plain text. */
function modeFor(mode: SslMode, { host, encrypted }: PinnedServer): SslMode {
  if (host.startsWith('/')) return 'disable';
  if ((mode !== 'prefer' && mode !== 'allow') || encrypted === undefined) return mode;
  return encrypted ? 'require' : 'disable';
}

/**
 * Any database of this server, since pg_restore connects to more than one. libpq looks for PGHOST, even with PGHOSTADDR,
 * and for `localhost` when PGHOST is the socket directory it was built with.
 */
function passwordFile(user: string, password: string, { host, port }: PinnedServer): string {
  const names = host.startsWith('/') ? [host, 'localhost'] : [host];
  return names.map((name) => `${escapeField(name)}:${port}:*:${escapeField(user)}:${escapeField(password)}\n`).join('');
}

/** `*` alone would match everything. */
function escapeField(field: string): string {
  return field === '*' ? '\\*' : field.replace(/[\\:]/g, '\\$&');
}
