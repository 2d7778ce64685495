import type { TocEntry } from './archive-toc.ts';
import type { Session } from './connect.ts';
import { isDatabaseError } from './messages.ts';
import { displayName, displayWord, nameKey, type QualifiedName, quoteName, quoteQualified } from './names.ts';
import { displayTag } from './restored-objects.ts';

const granting = new Set(['TABLE', 'FOREIGN TABLE', 'VIEW', 'MATERIALIZED VIEW', 'SEQUENCE']);

interface Grant extends QualifiedName {
  readonly kind: 'TABLE' | 'SEQUENCE';
  /** Null: everybody. */
  readonly grantee: string | null;
  readonly privilege: string;
}

/** What was changed, and what this role may not change, for people. */
export interface SettledGrants {
  readonly changed: readonly string[];
  readonly left: readonly string[];
}

/**
 * Default privileges of the target grant something on whatever is made there, or keep a function from everybody, which the
 * source's object need not have had. Takes back what the archive's entries do not grant, and lets everybody execute the
 * functions that the archive keeps from nobody.
 */
export async function settleDefaultGrants(session: Session, entries: readonly TocEntry[]): Promise<SettledGrants> {
  const [changed, left]: [string[], string[]] = [[], []];
  const recorded = aclsOf(entries);
  const attempt = async (said: string, statement: string): Promise<void> => {
    try {
      await session.query(statement);
      changed.push(said);
    } catch (error) {
      if (!isDatabaseError(error)) throw error;
      left.push(said);
    }
  };
  for (const { entry, ...grant } of await readGrants(session, entries)) {
    const { kind, grantee, privilege } = grant;
    if (recorded(entry).some((definition) => isGranted(definition, grant))) continue;
    const [from, shown] = grantee === null ? ['PUBLIC', 'everybody'] : [quoteName(grantee), displayWord(grantee)];
    await attempt(
      `not granted: ${privilege} on ${displayName(grant)} to ${shown}`,
      `REVOKE ${privilege} ON ${kind} ${quoteQualified(grant)} FROM ${from}`,
    );
  }
  const [withheld] = await session.query(`SELECT FROM pg_catalog.pg_default_acl WHERE defaclobjtype = 'f'`);
  if (withheld === undefined) return { changed, left };
  for (const entry of entries.filter(({ kind }) => routines.has(kind))) {
    if (recorded(entry).some((definition) => /^REVOKE .* FROM PUBLIC;$/m.test(definition))) continue;
    const signature = await withheldRoutine(session, entry);
    if (signature !== undefined)
      await attempt(
        `granted: EXECUTE on ${displayTag(entry.tag)} to everybody`,
        `GRANT EXECUTE ON ROUTINE ${signature} TO PUBLIC`,
      );
  }
  return { changed, left };
}

/** An object's grants in the archive. */
function aclsOf(entries: readonly TocEntry[]): (entry: TocEntry) => readonly string[] {
  const definitions = new Map<number, string[]>();
  for (const { kind, dependencies, definition } of entries)
    if (kind === 'ACL')
      for (const id of dependencies) definitions.set(id, [...(definitions.get(id) ?? []), definition]);
  return ({ dumpId }) => definitions.get(dumpId) ?? [];
}

/** What others than its owner may do with each relation among the entries. */
async function readGrants(
  session: Session,
  entries: readonly TocEntry[],
): Promise<(Grant & { readonly entry: TocEntry })[]> {
  const relations = new Map(
    entries
      .filter((entry) => granting.has(entry.kind))
      .map((entry) => [nameKey({ schema: entry.schema ?? '', name: entry.tag }), entry]),
  );
  const grants = await session.query<Grant>(
    `SELECT n.nspname::text AS schema, c.relname::text AS name, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
            r.rolname::text AS grantee, a.privilege_type AS privilege
     FROM unnest($1::text[], $2::text[]) AS made(schema, name)
     JOIN pg_catalog.pg_namespace n ON n.nspname = made.schema
     JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = made.name
     CROSS JOIN LATERAL aclexplode(c.relacl) a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
     WHERE a.grantee <> c.relowner AND (a.grantee = 0 OR r.rolname IS NOT NULL)
     ORDER BY 1, 2, 4, 5`,
    [[...relations.values()].map((each) => each.schema ?? ''), [...relations.values()].map((each) => each.tag)],
  );
  return grants.flatMap((grant) => {
    const entry = relations.get(nameKey(grant));
    return entry === undefined ? [] : [{ ...grant, entry }];
  });
}

const routines = new Set(['FUNCTION', 'PROCEDURE', 'AGGREGATE']);

/** Its signature as SQL, when not everybody may execute it. A name that looks like a signature itself is not found. */
async function withheldRoutine(session: Session, { schema, tag }: TocEntry): Promise<string | undefined> {
  const at = tag.indexOf('(');
  const asked = `${quoteName(schema ?? '')}.${quoteName(tag.slice(0, at))}${tag.slice(at).replace('(*)', '()')}`;
  try {
    const [row] = await session.query<{ signature: string }>(
      `SELECT p.oid::regprocedure::text AS signature FROM pg_catalog.pg_proc p
       WHERE p.oid = to_regprocedure($1)
         AND NOT EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0)`,
      [asked],
    );
    return row?.signature;
  } catch (error) {
    if (isDatabaseError(error)) return undefined;
    throw error;
  }
}

/** `GRANT SELECT,INSERT ON TABLE sales.orders TO reader;`, as pg_dump writes it, one a line. */
function isGranted(definition: string, { grantee, privilege }: Grant): boolean {
  for (const [, privileges = '', to = ''] of definition.matchAll(
    /^GRANT (ALL|[A-Z, ]+) ON .* TO (.+?)(?: WITH GRANT OPTION)?;$/gm,
  )) {
    const same = grantee === null ? to === 'PUBLIC' : to === grantee || to === quoteName(grantee);
    if (same && (privileges === 'ALL' || privileges.split(/, */).includes(privilege))) return true;
  }
  return false;
}
