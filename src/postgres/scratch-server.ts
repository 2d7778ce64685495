import { createHash } from 'node:crypto';
import { Failure } from '../failure.ts';
import type { Log } from '../log.ts';
import type { Manifest } from '../manifest.ts';
import { connect, type PinnedServer, type Session } from './connect.ts';
import { isDatabaseError } from './messages.ts';
import { displayWord, quoteName } from './names.ts';
import { prepareSession } from './server.ts';
import type { ConnectionTarget } from './url.ts';
import { formatVersion, type PgVersion, parseServerVersionNum, parseVersion } from './version.ts';

export interface ScratchIo {
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly onRunner: boolean;
}

/** Of every database that is made for a test; a time and a mark follow. */
export const databasePrefix = 'pgassay_test_';
const dayMs = 24 * 60 * 60 * 1000;

/** A server that may be thrown away, by its superuser, who creates roles, databases and extensions and runs nothing else. */
export class ScratchServer {
  readonly admin: ConnectionTarget;
  readonly #io: ScratchIo;
  readonly #sessions = new Set<Session>();
  #pinned: PinnedServer | undefined;
  #version: PgVersion | undefined;

  constructor(admin: ConnectionTarget, io: ScratchIo) {
    this.admin = admin;
    this.#io = io;
  }

  get version(): PgVersion {
    if (this.#version === undefined) throw new Error('the scratch server was not opened');
    return this.#version;
  }

  get server(): PinnedServer {
    if (this.#pinned === undefined) throw new Error('the scratch server was not opened');
    return this.#pinned;
  }

  /** Looks at the server. Throws a `Failure` when it cannot take this backup, or must not because it is where it came from. */
  async open({ database }: Manifest): Promise<void> {
    const session = await this.connect();
    try {
      const [row] = await session.query<{ version: string; superuser: boolean; standby: boolean }>(
        `SELECT current_setting('server_version_num') AS version, rolsuper AS superuser, pg_is_in_recovery() AS standby
         FROM pg_catalog.pg_roles WHERE rolname = current_user`,
      );
      const version = row === undefined ? undefined : parseServerVersionNum(row.version);
      if (row === undefined || version === undefined)
        throw new Failure('restore', 'version', 'the scratch server did not tell its version');
      this.#version = version;
      if (!row.superuser)
        throw new Failure(
          'restore',
          'privilege',
          `${displayWord(this.admin.user)} is no superuser of the scratch server`,
          {
            hint: 'scratch-url needs the superuser of a server that may be thrown away: he creates roles, a database and extensions, and the restore itself runs without rights',
          },
        );
      if (row.standby)
        throw new Failure('restore', 'restore', 'the scratch server is a standby, which cannot be restored into');
      const archived = parseVersion(database.serverVersion);
      if (archived !== undefined && version.major < archived.major)
        throw new Failure(
          'restore',
          'version',
          `the backup is from PostgreSQL ${formatVersion(archived)} and the scratch server is ${formatVersion(version)}: an older server cannot take it`,
          { hint: `use a scratch server of PostgreSQL ${archived.major}, or leave scratch-url out` },
        );
      if (await this.#isSource(session, database))
        throw new Failure('restore', 'badInput', 'the scratch server is the very server this backup was taken from', {
          hint: 'a restore test never touches it: leave scratch-url out, or name a server that may be thrown away',
        });
      await this.#sweep(session);
    } finally {
      await this.close(session);
    }
  }

  async #isSource(session: Session, { id }: Manifest['database']): Promise<boolean> {
    if (id === null) return false;
    const rows = await session.query<{ system: string; oid: string; name: string }>(
      `SELECT s.system_identifier::text AS system, d.oid::text AS oid, d.datname::text AS name
       FROM pg_catalog.pg_control_system() s, pg_catalog.pg_database d`,
    );
    return rows.some(
      ({ system, oid, name }) => createHash('sha256').update(`${system}\n${oid}\n${name}`).digest('hex') === id,
    );
  }

  /** What killed runs have left here a day ago or more: their databases, then every role that says it was made for one. */
  async #sweep(session: Session): Promise<void> {
    const rows = await session.query<{ name: string }>(
      `SELECT d.datname::text AS name FROM pg_catalog.pg_database d
       WHERE d.datname ~ $1 AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.datid = d.oid)`,
      [`^${databasePrefix}[0-9]{14}_[0-9a-f]{8}$`],
    );
    for (const { name } of rows) {
      const [, stamp = ''] = /_(\d{14})_/.exec(name) ?? [];
      const made = Date.parse(stamp.replace(/^(....)(..)(..)(..)(..)(..)$/, '$1-$2-$3T$4:$5:$6Z'));
      if (!(made < Date.now() - dayMs)) continue;
      const left = await dropAll(session, name, await rolesMadeFor(session, name));
      const what = left.length === 0 ? 'removed' : 'could not remove all of';
      this.#io.log.notice(`${what} the database ${name}, which a killed run had left on the scratch server`);
    }
  }

  /** A session of the superuser, or of somebody else, in a database of this very server. */
  async connect(
    as: Partial<Pick<ConnectionTarget, 'user' | 'password' | 'database' | 'options'>> = {},
    signal = this.#io.signal,
  ): Promise<Session> {
    const session = await connect(
      { ...this.admin, ...as },
      {
        applicationName: 'pgassay restore-test',
        signal,
        onRunner: this.#io.onRunner,
        ...(this.#pinned === undefined ? {} : { pinned: this.#pinned }),
      },
    );
    this.#pinned ??= session.server;
    this.#sessions.add(session);
    await prepareSession(session);
    await session.query('SET default_transaction_read_only = off');
    return session;
  }

  async close(session: Session): Promise<void> {
    this.#sessions.delete(session);
    await session.close();
  }

  async closeAll(): Promise<void> {
    await Promise.all([...this.#sessions].map((session) => this.close(session)));
  }
}

/** Returns what stayed. A database that calls itself a template cannot be dropped, and everybody may call his own one that. */
export async function dropAll(
  session: Session,
  database: string | undefined,
  roles: readonly string[],
): Promise<string[]> {
  const left: string[] = [];
  const attempt = async (what: string, ...statements: readonly string[]): Promise<void> => {
    try {
      for (const statement of statements) await session.query(statement);
    } catch (error) {
      if (!isDatabaseError(error)) throw error;
      left.push(what);
    }
  };
  if (database !== undefined) {
    const name = quoteName(database);
    await attempt(
      `the database ${database}`,
      `ALTER DATABASE ${name} IS_TEMPLATE false`,
      `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`,
    );
  }
  for (const role of roles.toReversed())
    await attempt(`the role ${displayWord(role)}`, `DROP ROLE IF EXISTS ${quoteName(role)}`);
  return left;
}

async function rolesMadeFor(session: Session, database: string): Promise<string[]> {
  const rows = await session.query<{ name: string }>(
    `SELECT rolname::text AS name FROM pg_catalog.pg_roles
     WHERE pg_catalog.shobj_description(oid, 'pg_authid') = $1 ORDER BY oid`,
    [madeFor(database)],
  );
  return rows.map((row) => row.name);
}

/** The comment on every role that is made for a test. */
export function madeFor(database: string): string {
  return `made by pgassay for ${database}`;
}
