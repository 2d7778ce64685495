import { randomBytes } from 'node:crypto';
import { Failure } from '../failure.ts';
import type { Log } from '../log.ts';
import type { Census } from '../manifest.ts';
import type { Session } from './connect.ts';
import { isDatabaseError, reduceMessage } from './messages.ts';
import { displayWord, quoteName, sqlWord } from './names.ts';
import type { OwnerChoice } from './restore.ts';

interface Me {
  readonly superuser: boolean;
  readonly creates: boolean;
  /** `server_version_num` */
  readonly version: number;
}

/** Kinds of entries that `ALTER … OWNER TO` follows, for which the new owner needs CREATE in the schema. */
const ownedInSchema = new Set(
  (
    'TABLE,VIEW,MATERIALIZED VIEW,FOREIGN TABLE,SEQUENCE,TYPE,DOMAIN,FUNCTION,PROCEDURE,AGGREGATE,OPERATOR,OPERATOR CLASS,' +
    'OPERATOR FAMILY,COLLATION,CONVERSION,TEXT SEARCH DICTIONARY,TEXT SEARCH CONFIGURATION,STATISTICS'
  ).split(','),
);

/** The roles that owners, grants and policies need, on the target's server. What was created here can be removed again. */
export class TargetRoles {
  /** Roles that were created and are to stay. */
  readonly created: string[] = [];
  /** Lends CREATE on the schema public to owners while pg_restore runs: its own grants come last. */
  #lender: string | undefined;

  /**
   * Creates what is missing, NOLOGIN with its memberships, where that is allowed. Returns whether owners and grants can
   * be kept. Throws a `Failure` when `keep` insists and it is not possible, or when policies need roles that are not there.
   */
  async prepare(session: Session, census: Census, owners: OwnerChoice, log: Log): Promise<boolean> {
    const me = await readMe(session);
    const owning = ownersOf(census);
    const needed = [...new Set([...census.roles, ...owning])].filter((role) => !isPredefined(role));
    const missing = await missingOf(session, needed);
    const hasPolicies = census.contents.some((entry) => entry.kind === 'POLICY');
    if (missing.length > 0 && (owners !== 'drop' || hasPolicies)) {
      if (me.creates) await this.#create(session, me, missing, { owners, memberships: census.memberships, log });
      else if (owners === 'keep' || hasPolicies)
        throw new Failure('restore', 'privilege', `the target lacks the roles ${missing.map(displayWord).join(', ')}`, {
          hint: `let an administrator run:\n${missing.map((role) => `  CREATE ROLE ${sqlWord(role)} NOLOGIN;`).join('\n')}`,
        });
    }
    if (owners === 'drop') return false;
    const absent = missing.filter((role) => !this.created.includes(role));
    const obstacle =
      absent.length > 0
        ? `there is no role ${absent.map(displayWord).join(', ')}, and this role may not create it`
        : me.superuser
          ? undefined
          : ((await strangers(session, me, owning)) ?? (await this.#lend(session, me, census)));
    if (obstacle === undefined) return true;
    if (owners === 'keep')
      throw new Failure('restore', 'privilege', `owners cannot be kept: ${obstacle}`, {
        hint: 'restore as a superuser or as a member of those roles, or leave owners and grants out with --owners drop',
      });
    log.warn(`owners and grants are left out: ${obstacle}; everything will belong to this role`);
    return false;
  }

  async #create(
    session: Session,
    me: Me,
    missing: readonly string[],
    {
      owners,
      memberships,
      log,
    }: { readonly owners: OwnerChoice; readonly memberships: Census['memberships']; readonly log: Log },
  ): Promise<void> {
    const isNew = new Set(missing);
    // Who creates a role on 16 and later may administer it, and neither use nor give to it.
    const joins = !me.superuser && owners !== 'drop';
    const statements = missing.flatMap((name) => [
      `CREATE ROLE ${quoteName(name)} NOLOGIN`,
      ...(joins ? [grant(name, 'CURRENT_USER', me)] : []),
    ]);
    try {
      await session.query(`BEGIN;\n${statements.join(';\n')};\nCOMMIT`);
    } catch (error) {
      if (!isDatabaseError(error)) throw error;
      await session.query('ROLLBACK').catch(() => {});
      const said = reduceMessage(error.message, (word) => isNew.has(word));
      throw new Failure('restore', 'privilege', `the roles the backup needs could not be created: ${said}`, {
        hint: "create them first with the backup's roles.sql, or restore with --owners drop",
        cause: error,
      });
    }
    this.created.push(...missing);
    const also = joins ? ', and made this role a member of them' : '';
    log.notice(`created the roles the backup needs, without login: ${missing.map(displayWord).join(', ')}${also}`);
    const refused: string[] = [];
    for (const { role, member } of memberships) {
      if (!isNew.has(role) && !isNew.has(member)) continue;
      try {
        await session.query(`GRANT ${quoteName(role)} TO ${quoteName(member)}`);
      } catch (error) {
        if (!isDatabaseError(error)) throw error;
        refused.push(`  GRANT ${sqlWord(role)} TO ${sqlWord(member)};`);
      }
    }
    if (refused.length > 0)
      log.warn(`this role may not grant what an administrator may grant later:\n${refused.join('\n')}`);
  }

  /** What keeps an owner from owning objects in a schema; undefined when nothing does. */
  async #lend(session: Session, me: Me, census: Census): Promise<string | undefined> {
    const schemaOwners = new Map(
      census.contents.filter((entry) => entry.kind === 'SCHEMA').map((entry) => [entry.tag, entry.owner]),
    );
    const pairs = new Map<string, { schema: string; owner: string; schemaOwner: string | null }>();
    for (const { kind, schema, owner } of census.contents) {
      const schemaOwner = schema === null ? undefined : schemaOwners.get(schema);
      if (schema === null || owner === '' || owner === schemaOwner || !ownedInSchema.has(kind)) continue;
      pairs.set(JSON.stringify([schema, owner]), { schema, owner, schemaOwner: schemaOwner ?? null });
    }
    const list = [...pairs.values()];
    const barred = await session.query<{ schema: string; owner: string }>(
      `SELECT p.schema, p.owner
       FROM unnest($1::text[], $2::text[], $3::text[]) AS p(schema, owner, schema_owner)
       JOIN pg_catalog.pg_roles r ON r.rolname = p.owner
       LEFT JOIN pg_catalog.pg_roles s ON s.rolname = p.schema_owner
       LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = p.schema
       WHERE NOT CASE WHEN s.oid IS NOT NULL THEN pg_has_role(r.oid, s.oid, 'USAGE')
                      WHEN n.oid IS NOT NULL THEN has_schema_privilege(r.oid, n.oid, 'CREATE')
                      ELSE true END
       ORDER BY 1, 2`,
      [list.map((each) => each.schema), list.map((each) => each.owner), list.map((each) => each.schemaOwner)],
    );
    if (barred.length === 0) return undefined;
    const says = ({ schema, owner }: { schema: string; owner: string }): string =>
      `${displayWord(owner)} may not create in the schema ${displayWord(schema)}`;
    const other = barred.find((each) => each.schema !== 'public');
    if (other !== undefined) return says(other);
    const [first] = barred;
    if (first === undefined || !me.creates) return first && says(first);
    const lender = `pgassay_restore_${randomBytes(4).toString('hex')}`;
    try {
      await session.query(
        [
          'BEGIN',
          `CREATE ROLE ${quoteName(lender)} NOLOGIN`,
          `GRANT CREATE ON SCHEMA public TO ${quoteName(lender)}`,
          ...barred.map(({ owner }) => grant(lender, quoteName(owner), me)),
          'COMMIT',
        ].join(';\n'),
      );
      this.#lender = lender;
      const [lent] = await session.query<{ able: boolean }>(
        `SELECT bool_and(has_schema_privilege(rolname, 'public', 'CREATE')) AS able FROM pg_catalog.pg_roles WHERE rolname = ANY ($1)`,
        [barred.map((each) => each.owner)],
      );
      return lent?.able === true ? undefined : says(first);
    } catch (error) {
      if (!isDatabaseError(error)) throw error;
      await session.query('ROLLBACK').catch(() => {});
      return says(first);
    }
  }

  /** Takes back what was lent for the time of the restore. `session` is in the target database. */
  async settle(session: Session, log: Log): Promise<void> {
    const lender = this.#lender;
    if (lender === undefined) return;
    try {
      for (const statement of takingBack(lender)) await session.query(statement);
      this.#lender = undefined;
    } catch {
      this.remind(log);
    }
  }

  /** Says what is still lent, if anything is, and how to take it back. */
  remind(log: Log): void {
    if (this.#lender === undefined) return;
    const lines = takingBack(this.#lender).map((statement) => `\n  ${statement};`);
    log.warn(`run this in the restored database, it could not be done here:${lines.join('')}`);
    this.#lender = undefined;
  }

  /** After a failure, when the objects are gone: drops every role created here. Those that could not be are named. */
  async drop(session: Session, log: Log): Promise<void> {
    if (this.#lender !== undefined) {
      await session.query(`REVOKE CREATE ON SCHEMA public FROM ${quoteName(this.#lender)}`).catch(() => {});
      this.created.push(this.#lender);
      this.#lender = undefined;
    }
    const left: string[] = [];
    for (const name of this.created.splice(0))
      await session.query(`DROP ROLE IF EXISTS ${quoteName(name)}`).catch(() => left.push(name));
    if (left.length > 0)
      log.warn(`these roles, created here, could not be dropped again: ${left.map(displayWord).join(', ')}`);
  }

  /** Whether there is anything that {@link drop} has to do. */
  get hasTraces(): boolean {
    return this.created.length > 0 || this.#lender !== undefined;
  }
}

function takingBack(lender: string): string[] {
  return [`REVOKE CREATE ON SCHEMA public FROM ${quoteName(lender)}`, `DROP ROLE ${quoteName(lender)}`];
}

function grant(role: string, member: string, { version }: Me): string {
  return `GRANT ${quoteName(role)} TO ${member}${version >= 160_000 ? ' WITH INHERIT TRUE, SET TRUE' : ''}`;
}

/** PostgreSQL's own roles, which are on every server. */
function isPredefined(role: string): boolean {
  return role === '' || role.startsWith('pg_');
}

function ownersOf(census: Census): string[] {
  return [...new Set(census.contents.map((entry) => entry.owner))].filter((role) => !isPredefined(role));
}

async function readMe(session: Session): Promise<Me> {
  const [me] = await session.query<Me>(
    `SELECT rolsuper AS superuser, rolsuper OR rolcreaterole AS creates,
            current_setting('server_version_num')::int4 AS version
     FROM pg_catalog.pg_roles WHERE rolname = current_user`,
  );
  return me ?? { superuser: false, creates: false, version: 0 };
}

async function missingOf(session: Session, needed: readonly string[]): Promise<string[]> {
  const existing = await session.query<{ name: string }>(
    'SELECT rolname::text AS name FROM pg_catalog.pg_roles WHERE rolname = ANY ($1)',
    [needed],
  );
  const known = new Set(existing.map((role) => role.name));
  return needed.filter((role) => !known.has(role));
}

/** To give an object away takes SET (a membership before 16); to fill the table afterwards takes its privileges too. */
async function strangers(session: Session, me: Me, owners: readonly string[]): Promise<string | undefined> {
  const rows = await session.query<{ name: string }>(
    `SELECT rolname::text AS name FROM pg_catalog.pg_roles
     WHERE rolname = ANY ($1) AND NOT (pg_has_role(oid, $2) AND pg_has_role(oid, 'USAGE'))
     ORDER BY rolname COLLATE "C"`,
    [owners, me.version >= 160_000 ? 'SET' : 'MEMBER'],
  );
  if (rows.length === 0) return undefined;
  return `this role may not give objects to ${rows.map((row) => displayWord(row.name)).join(', ')}, who own them in the backup`;
}
