import type { TocEntry } from './archive-toc.ts';
import type { Session } from './connect.ts';
import { isDatabaseError } from './messages.ts';
import { displayName, displayWord, type QualifiedName, quoteName, quoteQualified } from './names.ts';

const granting = new Set(['TABLE', 'FOREIGN TABLE', 'VIEW', 'MATERIALIZED VIEW', 'SEQUENCE']);

interface Grant extends QualifiedName {
  readonly kind: 'TABLE' | 'SEQUENCE';
  /** Null: everybody. */
  readonly grantee: string | null;
  readonly privilege: string;
}

/**
 * Default privileges of the target grant something on whatever is made there, which the source's object need not have
 * had: takes back what the archive's entries do not grant. Returns what was taken back and what could not be, for people.
 */
export async function revokeAdded(
  session: Session,
  entries: readonly TocEntry[],
): Promise<{ readonly revoked: string[]; readonly left: string[] }> {
  const relations = entries.filter((entry) => granting.has(entry.kind));
  const grants = await session.query<Grant>(
    `SELECT n.nspname::text AS schema, c.relname::text AS name, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
            r.rolname::text AS grantee, a.privilege_type AS privilege
     FROM unnest($1::text[], $2::text[]) AS made(schema, name)
     JOIN pg_catalog.pg_namespace n ON n.nspname = made.schema
     JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = made.name
     CROSS JOIN LATERAL aclexplode(c.relacl) a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
     WHERE a.grantee <> c.relowner AND (a.grantee = 0 OR r.rolname IS NOT NULL)
     ORDER BY 1, 2, 4, 5`,
    [relations.map((each) => each.schema ?? ''), relations.map((each) => each.tag)],
  );
  const recorded = new Map<string, string[]>();
  for (const { kind, schema, tag, definition } of entries) {
    if (kind !== 'ACL') continue;
    const key = JSON.stringify([schema, tag]);
    recorded.set(key, [...(recorded.get(key) ?? []), definition]);
  }
  const [revoked, left]: [string[], string[]] = [[], []];
  for (const grant of grants) {
    const { schema, kind, name, grantee, privilege } = grant;
    const definitions = recorded.get(JSON.stringify([schema, `${kind} ${name}`])) ?? [];
    if (definitions.some((definition) => isGranted(definition, grant))) continue;
    const said = `${privilege} on ${displayName(grant)} to ${grantee === null ? 'everybody' : displayWord(grantee)}`;
    try {
      await session.query(
        `REVOKE ${privilege} ON ${kind} ${quoteQualified(grant)} FROM ${grantee === null ? 'PUBLIC' : quoteName(grantee)}`,
      );
      revoked.push(said);
    } catch (error) {
      if (!isDatabaseError(error)) throw error;
      left.push(said);
    }
  }
  return { revoked, left };
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
