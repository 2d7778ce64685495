import { randomBytes } from 'node:crypto';
import { Failure } from '../failure.ts';
import type { Log } from '../log.ts';
import type { Census, Manifest } from '../manifest.ts';
import type { Finding } from '../verdict.ts';
import type { Toc, TocEntry } from './archive-toc.ts';
import type { Session } from './connect.ts';
import { isDatabaseError, reduceMessage, sqlState } from './messages.ts';
import { displayWord, nameKey, type QualifiedName, quoteName, quoteQualified } from './names.ts';
import { type Content, isObject } from './restored-objects.ts';
import { planOf, type ScratchPlan } from './scratch-plan.ts';
import { databasePrefix, dropAll, madeFor, type ScratchServer } from './scratch-server.ts';
import { createDatabase, type DatabaseIdentity } from './target-database.ts';

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

/** PostgreSQL's own role that reads everything, in every database: for servers of our own, where there is no other. */
const readsAll = 'pg_read_all_data';

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

  private constructor(server: ScratchServer, made: Made, plan: ScratchPlan, notes: readonly string[]) {
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
async function prepareSchemas(session: Session, { schemas }: ScratchPlan, made: Made): Promise<void> {
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
async function lend(session: Session, { owners, configuration }: ScratchPlan, made: Made): Promise<void> {
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
