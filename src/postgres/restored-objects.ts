import { Failure } from '../failure.ts';
import type { Census } from '../manifest.ts';
import { start } from '../program.ts';
import type { Finding } from '../verdict.ts';
import { type Toc, type TocEntry, TocReader } from './archive-toc.ts';
import { databaseArgument } from './child-environment.ts';
import type { Session } from './connect.ts';
import { readReports } from './messages.ts';
import { displayName, displayWord } from './names.ts';
import type { Programs } from './programs.ts';

/** What a table of contents says of one object, for a comparison of two of them. */
export interface Content {
  readonly kind: string;
  readonly schema: string | null;
  readonly tag: string;
  readonly owner: string;
}

/** Entries that are rows and values, or belong to the database or the server; what is left defines objects. */
const notObjects = new Set([
  'TABLE DATA',
  'SEQUENCE SET',
  'MATERIALIZED VIEW DATA',
  'STATISTICS DATA',
  'BLOB',
  'BLOBS',
  'BLOB METADATA',
  'DATABASE',
  'DATABASE PROPERTIES',
  // They are compared with the census, which knows their versions too.
  'EXTENSION',
]);

/** Whether an entry defines, comments or grants something that a restore into another database brings back. */
export function isObject({ kind, tag }: { readonly kind: string; readonly tag: string }): boolean {
  if (notObjects.has(kind)) return false;
  const about = kind === 'ACL' || kind === 'COMMENT' || kind === 'SECURITY LABEL';
  return !about || !/^(?:DATABASE|EXTENSION|LARGE OBJECTS?) /.test(tag);
}

/**
 * The table of contents that a database would have if it were dumped now, definitions only. Throws a `Failure`.
 * `environment` says where it is and as whom to read it.
 */
export async function readContents(
  programs: Programs,
  environment: Readonly<Record<string, string>>,
  database: string,
  signal: AbortSignal,
): Promise<Toc> {
  signal.throwIfAborted();
  const program = start({
    path: programs.pgDump,
    args: ['-Fc', '--schema-only', '--compress=0', '--no-password', '-d', databaseArgument(database)],
    env: environment,
  });
  program.stdin.end();
  const stop = (): void => void program.stop().catch(() => undefined);
  signal.addEventListener('abort', stop, { once: true });
  try {
    const reader = new TocReader();
    for await (const chunk of program.stdout as AsyncIterable<Buffer>) reader.push(chunk);
    const exit = await program.exited;
    signal.throwIfAborted();
    if (exit.code === 0 && reader.toc !== undefined) return reader.toc;
    const said = readReports(exit.stderr).find((report) => report.severity === 'error')?.message;
    throw new Failure(
      'verify',
      'restore',
      `the definitions of the database could not be read: ${said ?? 'pg_dump failed'}`,
    );
  } finally {
    signal.removeEventListener('abort', stop);
    await program.stop().catch(() => undefined);
  }
}

/** Both as sets of (kind, schema, tag, owner): what one has and the other has not. */
export function compareContents(archived: readonly Content[], restored: readonly Content[]): Finding[] {
  const left = new Map<string, Content[]>();
  for (const content of restored) {
    const key = JSON.stringify([content.kind, content.schema, content.tag]);
    left.set(key, [...(left.get(key) ?? []), content]);
  }
  const findings: Finding[] = [];
  for (const content of archived) {
    const same = left.get(JSON.stringify([content.kind, content.schema, content.tag])) ?? [];
    const at = Math.max(
      same.findIndex((each) => each.owner === content.owner),
      same.length === 0 ? -1 : 0,
    );
    const [found] = at === -1 ? [] : same.splice(at, 1);
    if (found === undefined) findings.push({ object: describeContent(content), expected: 'there', found: 'missing' });
    else if (found.owner !== content.owner)
      findings.push({
        object: describeContent(content),
        expected: `owned by ${displayWord(content.owner)}`,
        found: `owned by ${displayWord(found.owner)}`,
      });
  }
  for (const extra of [...left.values()].flat())
    findings.push({ object: describeContent(extra), expected: 'not there', found: 'there' });
  return findings;
}

/** `INDEX shop.customers_lower` */
export function describeContent({ kind, schema, tag }: Content): string {
  const name = schema === null ? displayTag(tag) : `${displayWord(schema)}.${displayTag(tag)}`;
  return name.startsWith(`${kind} `) ? name : `${kind} ${name}`;
}

/** A tag may be `customers customers_pkey` or `label(text, integer)`, a version `0.8.0`: no names to be quoted, but on one line. */
export function displayTag(tag: string): string {
  return /^[\p{L}\p{N}_ (),.[\]-]+$/u.test(tag) ? tag : displayWord(tag);
}

interface Unsound {
  readonly kind: 'index' | 'constraint' | 'view';
  readonly schema: string;
  readonly table: string;
  readonly name: string;
}

/**
 * Materialized views that were to be filled (by `restored`) and are not, indexes that are not valid, and constraints that are not validated though they were at the source: the archive says
 * NOT VALID where they were not.
 */
export async function readUnsound(
  session: Session,
  archived: readonly TocEntry[],
  restored: readonly TocEntry[],
): Promise<Finding[]> {
  const rows = await session.query<Unsound>(
    `SELECT 'index' AS kind, n.nspname::text AS schema, t.relname::text AS table, c.relname::text AS name
     FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
     JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'i' AND NOT (i.indisvalid AND i.indisready) AND n.nspname !~ '^pg_'
     UNION ALL
     SELECT 'view', n.nspname::text, c.relname::text, c.relname::text
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'm' AND NOT c.relispopulated
     UNION ALL
     SELECT 'constraint', n.nspname::text, coalesce(t.relname, y.typname)::text, o.conname::text
     FROM pg_catalog.pg_constraint o JOIN pg_catalog.pg_namespace n ON n.oid = o.connamespace
     LEFT JOIN pg_catalog.pg_class t ON t.oid = o.conrelid LEFT JOIN pg_catalog.pg_type y ON y.oid = o.contypid
     WHERE NOT o.convalidated AND o.conparentid = 0
     ORDER BY 1, 2, 3, 4`,
  );
  const unchecked = new Set(
    archived
      .filter((entry) => /CONSTRAINT/.test(entry.kind) && /\bNOT (?:VALID|ENFORCED)\b/.test(entry.definition))
      .map((entry) => `${entry.schema} ${entry.tag}`),
  );
  // A table's own definition may hold constraints that are not enforced, and so are never validated.
  const inTables = new Set(
    archived
      .filter((entry) => entry.kind === 'TABLE' && /\bNOT (?:VALID|ENFORCED)\b/.test(entry.definition))
      .map((entry) => `${entry.schema} ${entry.tag}`),
  );
  const filled = new Set(
    restored.filter((entry) => entry.kind === 'MATERIALIZED VIEW DATA').map((entry) => `${entry.schema} ${entry.tag}`),
  );
  return rows.flatMap(({ kind, schema, table, name }): Finding[] => {
    if (kind === 'view') {
      if (!filled.has(`${schema} ${name}`)) return [];
      const object = `rows of materialized view ${displayName({ schema, name })}`;
      return [{ object, expected: 'there', found: 'never filled' }];
    }
    if (kind === 'index')
      return [{ object: `index ${displayName({ schema, name })}`, expected: 'valid', found: 'not valid' }];
    if (unchecked.has(`${schema} ${table} ${name}`) || inTables.has(`${schema} ${table}`)) return [];
    const object = `constraint ${displayWord(name)} on ${displayName({ schema, name: table })}`;
    return [{ object, expected: 'validated', found: 'not validated' }];
  });
}

/** Extensions that are missing; and of the others, which have another version here. */
export async function compareExtensions(
  session: Session,
  extensions: Census['extensions'],
): Promise<{ readonly findings: Finding[]; readonly versions: string[] }> {
  const rows = await session.query<{ name: string; version: string; schema: string }>(
    `SELECT x.extname::text AS name, x.extversion::text AS version, n.nspname::text AS schema
     FROM pg_catalog.pg_extension x JOIN pg_catalog.pg_namespace n ON n.oid = x.extnamespace`,
  );
  const here = new Map(rows.map((row) => [row.name, row.version]));
  const schemas = new Map(rows.map((row) => [row.name, row.schema]));
  return {
    findings: extensions.flatMap(({ name, schema }): Finding[] => {
      const [object, found] = [`extension ${displayWord(name)}`, schemas.get(name)];
      if (found === undefined) return [{ object, expected: 'there', found: 'missing' }];
      if (found === schema) return [];
      return [{ object, expected: `in the schema ${displayWord(schema)}`, found: `in ${displayWord(found)}` }];
    }),
    versions: extensions
      .filter(({ name, version }) => version !== '' && here.has(name) && here.get(name) !== version)
      .map(
        (each) =>
          `extension ${displayWord(each.name)} ${displayTag(each.version)} was ${displayTag(here.get(each.name) ?? '')} here`,
      ),
  };
}
