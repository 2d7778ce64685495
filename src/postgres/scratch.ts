import { createHash, randomBytes } from 'node:crypto';
import { Failure } from '../failure.ts';
import type { Log } from '../log.ts';
import type { Census, Manifest } from '../manifest.ts';
import type { Finding } from '../verdict.ts';
import type { Toc, TocEntry } from './archive-toc.ts';
import { connect, type PinnedServer, type Session } from './connect.ts';
import { isDatabaseError, reduceMessage, sqlState } from './messages.ts';
import { displayWord, nameKey, type QualifiedName, quoteName, quoteQualified } from './names.ts';
import { type Content, describeContent, displayTag, isObject } from './restored-objects.ts';
import { prepareSession } from './server.ts';
import { createDatabase, type DatabaseIdentity } from './target-database.ts';
import type { ConnectionTarget } from './url.ts';
import { formatVersion, type PgVersion, parseServerVersionNum, parseVersion } from './version.ts';

/** Where an archive is restored to be looked at, and what of it. */
export interface ScratchRequest {
  readonly manifest: Manifest;
  readonly census: Census;
  readonly toc: Toc;
  /** Roles that saw everything at the source: superusers, and those with BYPASSRLS. */
  readonly seeing: SeeingRoles;
  /** Extensions that are left out, with everything that depends on them. */
  readonly skipExtensions: readonly string[];
  /** The restore runs as a superuser: only where nothing of ours can be reached from the server. */
  readonly superuser: boolean;
  /** The server was made for this test: there is nothing on it that anybody could want. */
  readonly own: boolean;
}

export interface SeeingRoles {
  readonly superusers: ReadonlySet<string>;
  readonly bypassing: ReadonlySet<string>;
}

/** What the backup's `roles.sql` says of them; without that file the role `postgres` is taken for a superuser. */
export function seeingRoles(rolesSql: string | undefined): SeeingRoles {
  const superusers = new Set(rolesSql === undefined ? ['postgres'] : []);
  const bypassing = new Set<string>();
  const name = '("(?:[^"]|"")*"|[^\\s"]+)';
  for (const [, quoted = '', attributes = ''] of (rolesSql ?? '').matchAll(
    new RegExp(`^ALTER ROLE ${name} WITH (.*);$`, 'gm'),
  )) {
    const role = quoted.startsWith('"') ? quoted.slice(1, -1).replaceAll('""', '"') : quoted;
    if (/\bSUPERUSER\b/.test(attributes)) superusers.add(role);
    if (/\bBYPASSRLS\b/.test(attributes)) bypassing.add(role);
  }
  return { superusers, bypassing };
}

export interface ScratchIo {
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly onRunner: boolean;
}

/** PostgreSQL's own role that reads everything, in every database: for servers of our own, where there is no other. */
const readsAll = 'pg_read_all_data';

const databasePrefix = 'pgassay_test_';
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

/** The tester, and who lends CREATE on schemas to the owners of what is in them while pg_restore runs. */
function rolesOf(mark: string): readonly [tester: string, lender: string] {
  return [`pgassay_${mark}`, `pgassay_${mark}_lender`];
}

/** A new database on a scratch server, made ready for one archive, and everything that was made for it there. */
export class ScratchDatabase {
  readonly name: string;
  /** How the restore, the counts and the checks log in: a role without rights beyond this database, unless asked for. */
  readonly tester: { readonly user: string; readonly password: string; readonly database: string };
  /** Owners that are superusers here, or lead to one: what is theirs in the archive belongs to the tester. */
  readonly replaced: ReadonlySet<string>;
  /** Entries of the archive that pg_restore restores, in its order. */
  readonly entries: readonly TocEntry[];
  /** What is left out for safety's sake, for people: `SUBSCRIPTION from_production`. */
  readonly leftOut: readonly string[];
  /** What this machine could not do as the source did, and what nobody needs to do anything about. */
  readonly notes: readonly string[];
  /** Extensions that were asked to be skipped, and what depends on them. */
  readonly skipped: readonly Finding[];
  readonly #server: ScratchServer;
  readonly #made: Made;
  readonly #schemas: readonly TocEntry[];

  private constructor(server: ScratchServer, made: Made, plan: Plan, notes: readonly string[]) {
    this.#server = server;
    this.#made = made;
    this.name = made.database;
    this.tester = { user: made.tester, password: made.password, database: made.database };
    this.replaced = made.replaced;
    this.entries = plan.entries;
    this.leftOut = [...new Set(plan.leftOut)];
    this.skipped = plan.skipped;
    this.notes = notes;
    this.#schemas = plan.schemas;
  }

  /**
   * Creates database, roles, schemas and extensions. Throws {@link MissingExtensions} before it creates anything, and a
   * `Failure` when the server refuses; nothing is left then.
   */
  static async create(server: ScratchServer, request: ScratchRequest, log: Log): Promise<ScratchDatabase> {
    const session = await server.connect();
    const mark = randomBytes(4).toString('hex');
    const stamp = new Date().toISOString().replace(/\D/g, '').slice(0, 14);
    const [tester, lender] = rolesOf(mark);
    const made: Made = {
      database: `${databasePrefix}${stamp}_${mark}`,
      identity: undefined,
      tester,
      password: randomBytes(24).toString('hex'),
      lender,
      roles: [],
      replaced: new Set(),
      lent: [],
    };
    try {
      await requireExtensions(session, request);
      const notes = await createRoles(session, request, made);
      const plan = planOf(request, made.replaced);
      notes.push(...(await createScratchDatabase(session, made, request.manifest.database)));
      const inside = await server.connect({ database: made.database });
      try {
        await prepareSchemas(inside, plan, made);
        await createExtensions(inside, request, log);
        await lend(inside, plan, made);
      } finally {
        await server.close(inside);
      }
      return new ScratchDatabase(server, made, plan, notes);
    } catch (error) {
      await dropMade(server, made).catch(() => {});
      if (error instanceof Failure || error instanceof MissingExtensions || !isDatabaseError(error)) throw error;
      throw new Failure(
        'restore',
        'restore',
        `the scratch server refused to be prepared: ${reduceMessage(error.message)}`,
        {
          cause: error,
        },
      );
    } finally {
      await server.close(session);
    }
  }

  /** Takes back what was lent for the restore, so that grants and owners are the archive's and nothing else. */
  async settle(): Promise<void> {
    const session = await this.#server.connect({ database: this.name });
    try {
      for (const statement of this.#made.lent)
        await session.query(statement).catch((error: unknown) => {
          // What is not as it was shows when the tables of contents are compared.
          if (!isDatabaseError(error)) throw error;
        });
    } finally {
      await this.#server.close(session);
    }
  }

  /** The objects that must be here after the restore, with their owners. */
  get expected(): Content[] {
    return this.comparable([...this.#schemas, ...this.entries]).map(({ kind, schema, tag, owner }) => {
      return { kind, schema, tag, owner: this.replaced.has(owner) ? this.tester.user : owner };
    });
  }

  /** Without grants on what the tester owns for somebody else: to whom that one gave nothing, he gives something here. */
  comparable(entries: readonly TocEntry[]): TocEntry[] {
    const others = new Set([...this.replaced, this.tester.user]);
    return entries.filter((entry) => isObject(entry) && (entry.kind !== 'ACL' || !others.has(entry.owner)));
  }

  /** Also after a cancel. Returns what could not be dropped. */
  drop(): Promise<string[]> {
    return dropMade(this.#server, this.#made);
  }
}

interface Made {
  readonly database: string;
  identity: DatabaseIdentity | undefined;
  readonly tester: string;
  readonly password: string;
  readonly lender: string;
  readonly roles: string[];
  readonly replaced: Set<string>;
  /** Statements that take back what was lent. */
  readonly lent: string[];
}

const dropMs = 4000;

/** With a session and a time limit of its own: whatever has become of the run's. */
async function dropMade(server: ScratchServer, { identity, roles }: Made): Promise<string[]> {
  const session = await server.connect({}, AbortSignal.timeout(dropMs));
  try {
    return await dropAll(session, identity?.name, roles);
  } finally {
    await server.close(session);
  }
}

/** Returns what stayed. A database that calls itself a template cannot be dropped, and everybody may call his own one that. */
async function dropAll(session: Session, database: string | undefined, roles: readonly string[]): Promise<string[]> {
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
function madeFor(database: string): string {
  return `made by pgassay for ${database}`;
}

/** The scratch server lacks them, and nobody said to skip them. */
export class MissingExtensions extends Error {
  readonly missing: Census['extensions'];

  constructor(missing: Census['extensions']) {
    super(`${missing.length} extensions are not available`);
    this.missing = missing;
  }
}

async function requireExtensions(session: Session, { census, skipExtensions }: ScratchRequest): Promise<void> {
  const rows = await session.query<{ name: string }>(
    'SELECT name::text AS name FROM pg_catalog.pg_available_extensions',
  );
  const available = new Set(rows.map((row) => row.name));
  const missing = census.extensions.filter(({ name }) => !available.has(name) && !skipExtensions.includes(name));
  if (missing.length > 0) throw new MissingExtensions(missing);
}

/** What of an archive goes through pg_restore. */
interface Plan {
  readonly entries: readonly TocEntry[];
  readonly leftOut: readonly string[];
  readonly skipped: readonly Finding[];
  /** Entries whose work the superuser does beforehand: schemas. */
  readonly schemas: readonly TocEntry[];
  /** Who owns what in which schema. */
  readonly owners: readonly { readonly schema: string; readonly owner: string }[];
  /** Rows and values of extensions' configuration tables and sequences. */
  readonly configuration: readonly TocEntry[];
}

/** They would reach the production server, or the machine's disks; or hold its passwords. */
const dangerous = new Set([
  'SUBSCRIPTION',
  'SUBSCRIPTION TABLE',
  'PUBLICATION',
  'PUBLICATION TABLE',
  'PUBLICATION TABLES IN SCHEMA',
  'USER MAPPING',
]);

function planOf({ toc, skipExtensions }: ScratchRequest, replaced: ReadonlySet<string>): Plan {
  const byId = new Map(toc.entries.map((entry) => [entry.dumpId, entry]));
  const skip = new Set(skipExtensions);
  const reach = new Reach(toc.entries, byId);
  const entries: TocEntry[] = [];
  const leftOut: string[] = [];
  const skipped: Finding[] = [];
  const tables = new Set(toc.entries.filter((entry) => entry.kind === 'TABLE').map((entry) => entry.oid));
  for (const entry of toc.entries) {
    const about = /^(SUBSCRIPTION|PUBLICATION|EXTENSION|DATABASE) /.exec(entry.tag)?.[1];
    const annotates = entry.kind === 'COMMENT' || entry.kind === 'SECURITY LABEL' || entry.kind === 'ACL';
    if (dangerous.has(entry.kind)) {
      // Its tables go with a publication.
      if (!/^\w+ TABLE/.test(entry.kind)) leftOut.push(describeContent(entry));
    } else if (entry.kind === 'DEFAULT ACL' && replaced.has(entry.owner))
      leftOut.push(`default privileges of ${displayWord(entry.owner)}, who is powerful on the scratch server`);
    else if (entry.kind === 'MATERIALIZED VIEW DATA' && reach.foreign(entry))
      leftOut.push(`the rows of materialized view ${displayWord(entry.tag)}, which reads from another server`);
    else if (annotates && isOfOthers(entry, byId))
      leftOut.push(`${entry.kind} of ${displayTag(entry.tag)}, which belongs to an extension or to PostgreSQL`);
    else if (entry.kind === 'ACL' && /^SET SESSION AUTHORIZATION /m.test(entry.definition))
      leftOut.push(`grants on ${displayTag(entry.tag)}, some of them passed on by who is not its owner`);
    else if (entry.kind === 'EXTENSION' || entry.kind === 'SCHEMA' || /^DATABASE/.test(entry.kind)) continue;
    else if (annotates && about !== undefined) continue;
    else {
      const extension = reach.extension(entry, skip);
      if (extension === undefined) entries.push(entry);
      else
        skipped.push({
          object: `${entry.kind} ${displayWord(entry.tag)}`,
          expected: 'restored',
          found: `left out with the extension ${displayWord(extension)}`,
        });
    }
  }
  for (const name of skip)
    skipped.unshift({
      object: `extension ${displayWord(name)}`,
      expected: 'there',
      found: 'left out (skip-extensions)',
    });
  const owners = new Map<string, { schema: string; owner: string }>();
  for (const { schema, owner } of entries)
    if (schema !== null && owner !== '') owners.set(JSON.stringify([schema, owner]), { schema, owner });
  return {
    entries,
    leftOut,
    skipped,
    schemas: toc.entries.filter((entry) => entry.kind === 'SCHEMA'),
    owners: [...owners.values()],
    configuration: entries.filter(
      ({ kind, oid, dependencies }) =>
        (kind === 'TABLE DATA' && !tables.has(oid)) ||
        (kind === 'SEQUENCE SET' && !dependencies.some((id) => byId.has(id))),
    ),
  };
}

/** Of an object whose definition is not in the archive; the schema public is there without one. */
function isOfOthers({ tag, dependencies }: TocEntry, byId: ReadonlyMap<number, TocEntry>): boolean {
  return !/^(?:SCHEMA public$|LARGE OBJECTS? )/.test(tag) && !dependencies.some((id) => byId.has(id));
}

/** Functions of extensions that connect to somewhere. */
const connects = /\b(?:dblink\w*|http(?:_\w+)?|net\.http_\w+)\s*\(/i;

/** What an entry depends on, over any number of steps. */
class Reach {
  readonly #entries: ReadonlyMap<number, TocEntry>;
  /** Tables that have a foreign table for a partition or a child: to read them is to read it. */
  readonly #parents = new Set<number>();
  readonly #foreign = new Map<number, boolean>();
  readonly #extension = new Map<number, string | null>();

  constructor(all: readonly TocEntry[], entries: ReadonlyMap<number, TocEntry>) {
    this.#entries = entries;
    const isForeign = (id: number): boolean => entries.get(id)?.kind === 'FOREIGN TABLE';
    for (const { dumpId, kind, dependencies } of all)
      if (isForeign(dumpId) || (/ATTACH$/.test(kind) && dependencies.some(isForeign)))
        for (const id of dependencies) if (entries.get(id)?.kind === 'TABLE') this.#parents.add(id);
  }

  foreign(entry: TocEntry): boolean {
    const known = this.#foreign.get(entry.dumpId);
    if (known !== undefined) return known;
    this.#foreign.set(entry.dumpId, false);
    const found =
      entry.kind === 'FOREIGN TABLE' ||
      this.#parents.has(entry.dumpId) ||
      connects.test(entry.definition) ||
      this.#below(entry).some((each) => this.foreign(each));
    this.#foreign.set(entry.dumpId, found);
    return found;
  }

  /** The one of `names` that it needs. */
  extension(entry: TocEntry, names: ReadonlySet<string>): string | undefined {
    if (names.size === 0) return undefined;
    const known = this.#extension.get(entry.dumpId);
    if (known !== undefined) return known ?? undefined;
    this.#extension.set(entry.dumpId, null);
    let found = entry.kind === 'EXTENSION' && names.has(entry.tag) ? entry.tag : undefined;
    for (const each of this.#below(entry)) found ??= this.extension(each, names);
    this.#extension.set(entry.dumpId, found ?? null);
    return found;
  }

  #below(entry: TocEntry): TocEntry[] {
    return entry.dependencies.flatMap((id) => this.#entries.get(id) ?? []);
  }
}

/**
 * Roles that the archive needs, without login, and the tester. A role that was here before is nobody of ours: he may own
 * other databases, create some, or lead to a superuser. Whatever is his in the archive is the tester's. What could not be
 * repeated here is returned, for people.
 */
async function createRoles(
  session: Session,
  { census, toc, seeing, superuser, own }: ScratchRequest,
  made: Made,
): Promise<string[]> {
  const needed = [...new Set([...census.roles, ...toc.entries.map((entry) => entry.owner)])].filter(
    (role) => role !== '' && !role.startsWith('pg_'),
  );
  const existing = await session.query<{ name: string }>(
    'SELECT rolname::text AS name FROM pg_catalog.pg_roles WHERE rolname = ANY ($1)',
    [needed],
  );
  if (!superuser) for (const { name } of existing) made.replaced.add(name);
  const known = new Set(existing.map((role) => role.name));
  const create = async (name: string, attributes: string): Promise<void> => {
    await session.query(`CREATE ROLE ${quoteName(name)} ${attributes}`);
    made.roles.push(name);
    await session.query(`COMMENT ON ROLE ${quoteName(name)} IS '${madeFor(made.database)}'`);
  };
  const ours = needed.filter((role) => !known.has(role));
  for (const role of ours) {
    const sees = seeing.superusers.has(role) || seeing.bypassing.has(role);
    await create(role, `NOLOGIN${sees ? ' BYPASSRLS' : ''}`);
  }
  const rights = superuser ? 'SUPERUSER' : 'NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS';
  await create(made.tester, `LOGIN PASSWORD '${made.password}' ${rights} INHERIT`);
  await create(made.lender, 'NOLOGIN');
  const notes: string[] = [];
  for (const { role, member } of census.memberships) {
    if (!ours.includes(member)) continue;
    if (ours.includes(role) || (own && role === readsAll)) await grantRole(session, role, member);
    // Of PostgreSQL's own roles many lead to files and programs of the server's machine.
    else notes.push(`${displayWord(member)} is no member of ${displayWord(role)} here`);
  }
  for (const role of ours) {
    await grantRole(session, role, made.tester);
    await grantRole(session, made.lender, role);
    if (!seeing.superusers.has(role)) continue;
    // A superuser's materialized view reads what nobody granted him.
    if (own) await grantRole(session, readsAll, role);
    else for (const each of ours) if (each !== role) await grantRole(session, each, role);
  }
  await grantRole(session, made.lender, made.tester);
  if (own) await grantRole(session, readsAll, made.tester);
  return notes;
}

/** A membership that would close a circle is left out. */
async function grantRole(session: Session, role: string, member: string): Promise<void> {
  try {
    await session.query(`GRANT ${quoteName(role)} TO ${quoteName(member)}`);
  } catch (error) {
    // Invalid grant operation.
    if (sqlState(error) !== '0LP01') throw error;
  }
}

/** With the source's encoding and locale; where the machine lacks the locale, with one that it has, and a note. */
async function createScratchDatabase(session: Session, made: Made, source: Manifest['database']): Promise<string[]> {
  const give = `ALTER DATABASE ${quoteName(made.database)} OWNER TO ${quoteName(made.tester)}`;
  try {
    made.identity = await createDatabase(session, made.database, source);
    await session.query(give);
    return [];
  } catch (error) {
    if (made.identity !== undefined || !isLocaleRefusal(error)) throw error;
  }
  const utf8 = source.encoding === 'UTF8';
  const substitutes = utf8 ? ['C.UTF-8', 'C.utf8', 'C'] : ['C'];
  for (const [at, collation] of substitutes.entries()) {
    try {
      made.identity = await createDatabase(session, made.database, {
        ...{ id: null, name: source.name, serverVersion: source.serverVersion, sizeBytes: source.sizeBytes },
        ...{ encoding: source.encoding, collation, lcCollate: collation, lcCtype: collation },
      });
      await session.query(give);
      return [`the locale ${source.collation} is not on the scratch server; ${collation} took its place`];
    } catch (error) {
      if (at === substitutes.length - 1 || made.identity !== undefined || !isLocaleRefusal(error)) throw error;
    }
  }
  throw new Error('no locale was tried');
}

function isLocaleRefusal(error: unknown): boolean {
  if (!(error instanceof Failure) || !isDatabaseError(error.cause)) return false;
  return /locale|collation|encoding/i.test(error.cause.message);
}

/** As their owners have them; pg_restore would make them the tester's first, and their owners may not create in them. */
async function prepareSchemas(session: Session, { schemas }: Plan, made: Made): Promise<void> {
  const ownerOf = ({ owner }: TocEntry): string =>
    quoteName(owner === '' || made.replaced.has(owner) ? made.tester : owner);
  for (const schema of schemas) {
    if (schema.tag === 'public') await session.query(`ALTER SCHEMA public OWNER TO ${ownerOf(schema)}`);
    else await session.query(`CREATE SCHEMA ${quoteName(schema.tag)} AUTHORIZATION ${ownerOf(schema)}`);
  }
  const [row] = await session.query<{ owner: string }>(
    `SELECT pg_get_userbyid(nspowner)::text AS owner FROM pg_catalog.pg_namespace WHERE nspname = 'public'`,
  );
  // Before 15 public belongs to the superuser, and what the archive grants on it only its owner may grant.
  if (row === undefined || row.owner === 'pg_database_owner' || schemas.some(({ tag }) => tag === 'public')) return;
  await session.query(`ALTER SCHEMA public OWNER TO ${quoteName(made.tester)}`);
  made.lent.push(`ALTER SCHEMA public OWNER TO ${quoteName(row.owner)}`);
}

/** In rounds: which needs which is known to the server alone, and CASCADE would put the needed one into another's schema. */
async function createExtensions(session: Session, { census, skipExtensions }: ScratchRequest, log: Log): Promise<void> {
  let waiting = census.extensions.filter(({ name }) => !skipExtensions.includes(name));
  let refusals = new Map<string, string>();
  for (let before = -1; waiting.length > 0 && before !== waiting.length; ) {
    before = waiting.length;
    refusals = new Map();
    for (const extension of waiting) {
      const refusal = await createExtension(session, extension);
      if (refusal !== undefined) refusals.set(extension.name, refusal);
    }
    waiting = waiting.filter(({ name }) => refusals.has(name));
  }
  // Compared afterwards: what is missing is a finding then.
  for (const [name, refusal] of refusals)
    log.warn(`the extension ${displayWord(name)} could not be created: ${refusal}`);
}

/** Returns why the server refused, if it did. */
async function createExtension(
  session: Session,
  { name, version, schema }: Census['extensions'][number],
): Promise<string | undefined> {
  const [here] = await session.query<{ schema: boolean; version: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1) AS schema,
            EXISTS (SELECT FROM pg_catalog.pg_available_extension_versions v WHERE v.name = $2 AND v.version = $3) AS version`,
    [schema, name, version],
  );
  const where = here?.schema === true ? ` SCHEMA ${quoteName(schema)}` : '';
  const which = here?.version === true ? ` VERSION ${quoteName(version)}` : '';
  try {
    await session.query(`CREATE EXTENSION IF NOT EXISTS ${quoteName(name)}${where}${which}`);
    return undefined;
  } catch (error) {
    if (!isDatabaseError(error)) throw error;
    return reduceMessage(error.message);
  }
}

/** Rights that genuine archives need and that no object of theirs keeps. */
async function lend(session: Session, { owners, configuration }: Plan, made: Made): Promise<void> {
  const give = async (what: string, role: string): Promise<void> => {
    await session.query(`GRANT ${what} TO ${quoteName(role)}`);
    made.lent.push(`REVOKE ${what} FROM ${quoteName(role)}`);
  };
  const schemas = await session.query<{ name: string }>(
    `SELECT nspname::text AS name FROM pg_catalog.pg_namespace
     WHERE nspname = ANY ($1) AND nspname !~ '^pg_' AND nspname <> 'information_schema'`,
    [[...new Set(owners.map((each) => each.schema))]],
  );
  for (const { name } of schemas) await give(`CREATE, USAGE ON SCHEMA ${quoteName(name)}`, made.lender);
  const wrappers = await session.query<{ name: string }>(
    'SELECT fdwname::text AS name FROM pg_catalog.pg_foreign_data_wrapper',
  );
  for (const { name } of wrappers) await give(`USAGE ON FOREIGN DATA WRAPPER ${quoteName(name)}`, made.lender);
  const loaded = await session.query<QualifiedName & { kind: string }>(
    `SELECT n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind
     FROM pg_catalog.pg_extension x JOIN pg_catalog.pg_class c ON c.oid = ANY (x.extconfig)
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace`,
  );
  const wanted = new Set(configuration.map(({ schema, tag }) => nameKey({ schema: schema ?? '', name: tag })));
  for (const relation of loaded.filter((each) => wanted.has(nameKey(each))))
    await give(
      relation.kind === 'S'
        ? `SELECT, UPDATE ON SEQUENCE ${quoteQualified(relation)}`
        : `SELECT, INSERT ON TABLE ${quoteQualified(relation)}`,
      made.tester,
    );
}
