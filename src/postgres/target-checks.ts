import { Failure } from '../failure.ts';
import type { Census, Manifest } from '../manifest.ts';
import type { Session } from './connect.ts';
import { displayName, displayWord, type QualifiedName } from './names.ts';
import { readServerFacts } from './server.ts';
import { formatVersion, parseVersion } from './version.ts';

/** What a server must have before anything is created there. Throws a `Failure` that says what it lacks. */
export async function requireServer(
  session: Session,
  source: Manifest['database'],
  extensions: Census['extensions'],
): Promise<void> {
  const { version } = await readServerFacts(session);
  const archived = parseVersion(source.serverVersion);
  if (archived !== undefined && version.major < archived.major)
    throw new Failure(
      'restore',
      'version',
      `the backup is from PostgreSQL ${formatVersion(archived)} and the target is ${formatVersion(version)}: an older server cannot take it`,
      { hint: `restore into PostgreSQL ${archived.major} or later` },
    );
  const available = await session.query<{ name: string }>('SELECT name FROM pg_catalog.pg_available_extensions');
  const names = new Set(available.map((row) => row.name));
  const missing = extensions.filter((extension) => !names.has(extension.name));
  if (missing.length === 0) return;
  throw new Failure(
    'restore',
    'restore',
    `the target server does not have ${missing.map((each) => `${displayWord(each.name)} ${displayWord(each.version)}`).join(', ')}`,
    { hint: 'install the extension there, or restore into a server or image that has it' },
  );
}

/** Throws a `Failure` when this is the very database that was backed up, and nobody has typed its name. */
export async function requireAnother(
  session: Session,
  source: Manifest['database'],
  { name, confirmed }: { readonly name: string; readonly confirmed: boolean },
): Promise<void> {
  if (confirmed || source.id === null) return;
  const { database } = await readServerFacts(session);
  if (database.id !== source.id) return;
  throw new Failure(
    'restore',
    'badInput',
    `${displayWord(name)} is the database that this backup was taken from; nothing was changed`,
    { hint: `restore into another database, or say that this one is meant with confirm: ${displayWord(name)}` },
  );
}

/** Catalogs of objects in schemas: what they are called, the catalog, its name and schema columns, a condition. */
const inSchemas = [
  ['', 'pg_class', 'relname', 'relnamespace', "o.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')"],
  ['function ', 'pg_proc', 'proname', 'pronamespace', 'true'],
  [
    'type ',
    'pg_type',
    'typname',
    'typnamespace',
    "(o.typtype IN ('d', 'e', 'r') OR EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = o.typrelid AND c.relkind = 'c'))",
  ],
  ['operator ', 'pg_operator', 'oprname', 'oprnamespace', 'true'],
  ['collation ', 'pg_collation', 'collname', 'collnamespace', 'true'],
  ['conversion ', 'pg_conversion', 'conname', 'connamespace', 'true'],
  ['text search configuration ', 'pg_ts_config', 'cfgname', 'cfgnamespace', 'true'],
  ['text search dictionary ', 'pg_ts_dict', 'dictname', 'dictnamespace', 'true'],
] as const;

/** The same for objects outside of schemas. */
const elsewhere = [
  ['schema ', 'pg_namespace', 'o.nspname', `o.nspname NOT IN ('public', 'information_schema') AND o.nspname !~ '^pg_'`],
  ['large object ', 'pg_largeobject_metadata', 'o.oid', 'true'],
  ['foreign-data wrapper ', 'pg_foreign_data_wrapper', 'o.fdwname', 'true'],
  ['foreign server ', 'pg_foreign_server', 'o.srvname', 'true'],
  ['publication ', 'pg_publication', 'o.pubname', 'true'],
  ['event trigger ', 'pg_event_trigger', 'o.evtname', 'true'],
  ['language ', 'pg_language', 'o.lanname', 'true'],
  ['cast ', 'pg_cast', "pg_catalog.format('%s as %s', o.castsource::regtype, o.casttarget::regtype)", 'true'],
] as const;

/** Objects that initdb makes have lower ids, and extensions' own objects go with their extension. */
const made = (catalog: string): string =>
  `o.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
     WHERE d.classid = 'pg_catalog.${catalog}'::regclass AND d.objid = o.oid AND d.objsubid = 0 AND d.deptype IN ('e', 'i'))`;

const objectsQuery = [
  ...inSchemas.map(
    ([kind, catalog, name, schema, condition]) =>
      `SELECT '${kind}' AS kind, n.nspname::text AS schema, o.${name}::text AS name
       FROM pg_catalog.${catalog} o JOIN pg_catalog.pg_namespace n ON n.oid = o.${schema}
       WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND ${condition} AND ${made(catalog)}`,
  ),
  ...elsewhere.map(
    ([kind, catalog, name, condition]) =>
      `SELECT '${kind}', NULL, (${name})::text FROM pg_catalog.${catalog} o WHERE ${condition} AND ${made(catalog)}`,
  ),
  `SELECT 'subscription ', NULL, o.subname::text FROM pg_catalog.pg_subscription o
   WHERE o.subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())`,
].join('\nUNION ALL ');

/** An object that somebody made; `schema` is null for what is in none. */
export interface TargetObject {
  /** `''` for a table and its like, else with a blank behind it: `large object `. */
  readonly kind: string;
  readonly schema: string | null;
  readonly name: string;
}

/** Every object of the database that somebody made; none: it is empty. */
export function objectsOf(session: Session): Promise<TargetObject[]> {
  return session.query<TargetObject>(
    `SELECT kind, schema, name FROM (${objectsQuery}) o ORDER BY kind COLLATE "C", schema COLLATE "C", name COLLATE "C"`,
  );
}

/** What a database that is not empty has: the first few, and how many more. */
export function describeObjects(objects: readonly TargetObject[], most = 5): string {
  const shown = objects
    .slice(0, most)
    .map(({ kind, schema, name }) => {
      if (schema !== null) return `${kind}${displayName({ schema, name })}`;
      return `${kind}${kind === 'large object ' || kind === 'cast ' ? name : displayWord(name)}`;
    })
    .join(', ');
  return `${shown}${objects.length > most ? ` and ${objects.length - most} more` : ''}`;
}

/** Which relations have these names now: another answer says that they were made anew since. */
export async function readRelationIds(session: Session, names: readonly QualifiedName[]): Promise<string> {
  const [row] = await session.query<{ ids: string }>(
    `SELECT coalesce(string_agg(c.oid::text, ',' ORDER BY c.oid), '') AS ids
     FROM unnest($1::text[], $2::text[]) AS wanted(schema, name)
     JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema
     JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name`,
    [names.map((each) => each.schema), names.map((each) => each.name)],
  );
  return row?.ids ?? '';
}

/** Sessions in this database now that are not ours. */
export async function countOthers(session: Session): Promise<number> {
  const [row] = await session.query<{ count: string }>(
    `SELECT count(*) FROM pg_catalog.pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
       AND application_name !~ '^pgassay '`,
  );
  return Number(row?.count ?? 0);
}

/** What became of a transaction of that number; undefined while it goes on, or when the server does not know any more. */
export async function readTransactionEnd(
  session: Session,
  transaction: string,
): Promise<'committed' | 'aborted' | undefined> {
  const [row] = await session.query<{ status: string | null }>('SELECT pg_catalog.pg_xact_status($1::xid8) AS status', [
    transaction,
  ]);
  return row?.status === 'committed' || row?.status === 'aborted' ? row.status : undefined;
}
