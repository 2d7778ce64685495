import type { Session } from './connect.ts';
import { quoteName, quoteQualified } from './names.ts';
import type { Table } from './scope.ts';
import { type CopiedColumns, readTableByCopy } from './table-copy.ts';

/** What one table held in the snapshot. */
export interface TableCount {
  readonly rows: number;
  readonly digest?: string;
}

/**
 * How `census: content` sums a table up, recorded so that any later reader can do the same:
 * per row a chain of `hashtextextended`, seeded with the previous column's hash, over the columns in name order
 * (restoring can reorder inherited ones), stored generated ones left out (they are recomputed); NULL hashes as `n`, a
 * value as `v` and its output text; the table's digest is the sum over its rows, so row order does not matter.
 */
export const digestAlgorithm = 'sum-hashtextextended-chain/1';

/** Output settings that the digest depends on; the same on both sides or equal rows would differ. */
export const outputSettings = [
  `SET DateStyle = 'ISO, YMD'`,
  `SET IntervalStyle = 'postgres'`,
  `SET TimeZone = 'UTC'`,
  `SET extra_float_digits = 1`,
  `SET bytea_output = 'hex'`,
  `SET lc_monetary = 'C'`,
  `SET xmloption = 'content'`,
  `SET quote_all_identifiers = off`,
] as const;

/** At most so many tables between two releases of locks: counting locks every index too. */
export const tablesPerBatch = 200;
const locksPerBatch = 1000;
const tablesPerQuery = 40;
const smallTable = 8 * 1024 * 1024;

/** Splits tables so that a batch takes few locks (a table and each of its indexes is one). */
export function batchesOf(tables: readonly Table[]): Table[][] {
  const batches: Table[][] = [];
  let batch: Table[] = [];
  let locks = 0;
  for (const table of tables) {
    const needed = 1 + table.indexes;
    if (batch.length > 0 && (batch.length === tablesPerBatch || locks + needed > locksPerBatch)) {
      batches.push(batch);
      batch = [];
      locks = 0;
    }
    batch.push(table);
    locks += needed;
  }
  if (batch.length > 0) batches.push(batch);
  return batches;
}

/**
 * Counts (and digests) the tables in the session's current transaction: those that are trusted with queries, the others
 * as pg_dump reads them, without the planner. It runs a configuration table's condition in a query itself.
 */
export async function countTables(
  session: Session,
  tables: readonly Table[],
  content: boolean,
): Promise<Map<number, TableCount>> {
  const counts = new Map<number, TableCount>();
  const queried = (table: Table): boolean => table.trusted || table.condition !== '';
  const columns = content || !tables.every(queried) ? await columnsOf(session, tables) : new Map<number, never>();
  await countByQuery(session, tables.filter(queried), content ? columns : undefined, counts);
  for (const table of tables.filter((each) => !queried(each))) {
    const copied = columns.get(table.oid) ?? { names: [], narrow: undefined };
    counts.set(table.oid, await readTableByCopy(session, table, copied, content));
  }
  return counts;
}

/**
 * With functions of pg_catalog only, never a cast of a row and never a view or foreign table: those could run other
 * people's code with our rights. Digests when it gets columns.
 */
async function countByQuery(
  session: Session,
  tables: readonly Table[],
  columns: ReadonlyMap<number, CopiedColumns> | undefined,
  counts: Map<number, TableCount>,
): Promise<void> {
  for (const group of queriesOf(tables)) {
    const text = group
      .map((table, at) => {
        const digest = columns === undefined ? 'NULL' : digestExpression(columns.get(table.oid)?.names ?? []);
        return `SELECT ${at} AS at, pg_catalog.count(*) AS rows, ${digest} AS digest FROM ONLY ${quoteQualified(table)}${table.condition}`;
      })
      .join('\nUNION ALL ');
    for (const row of await session.query<{ at: number; rows: string; digest: string | null }>(text)) {
      const table = group[row.at];
      if (table === undefined) continue;
      counts.set(table.oid, {
        rows: Number(row.rows),
        ...(columns === undefined ? {} : { digest: row.digest ?? '0' }),
      });
    }
  }
}

/** Small tables share a round trip; a large one gets its own. */
function queriesOf(tables: readonly Table[]): Table[][] {
  const queries: Table[][] = [];
  let small: Table[] = [];
  for (const table of tables) {
    if (table.estimatedBytes > smallTable || table.condition !== '') queries.push([table]);
    else small.push(table);
    if (small.length === tablesPerQuery) {
      queries.push(small);
      small = [];
    }
  }
  if (small.length > 0) queries.push(small);
  return queries;
}

/** Names in the digest's order; to count, the smallest column of a fixed width, else the first. */
async function columnsOf(session: Session, tables: readonly Table[]): Promise<Map<number, CopiedColumns>> {
  const rows = await session.query<{ oid: number } & CopiedColumns>(
    `SELECT a.attrelid::int8::float8 AS oid, array_agg(a.attname::text ORDER BY a.attname COLLATE "C") AS names,
            (array_agg(a.attname::text ORDER BY CASE WHEN a.attlen > 0 THEN a.attlen END, a.attnum))[1] AS narrow
     FROM pg_catalog.pg_attribute a
     WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
     GROUP BY a.attrelid`,
    [tables.map((table) => table.oid)],
  );
  return new Map(rows.map((row) => [row.oid, row]));
}

/** `format` calls a type's own output function, as COPY does, and no cast that somebody may have made. */
function digestExpression(columns: readonly string[]): string {
  let chain = '0::bigint';
  for (const column of columns) {
    const name = quoteName(column);
    chain = `pg_catalog.hashtextextended(CASE WHEN pg_catalog.num_nulls(${name}) OPERATOR(pg_catalog.=) 1 THEN 'n' ELSE pg_catalog.format('v%s', ${name}) END COLLATE pg_catalog."C", ${chain})`;
  }
  return `pg_catalog.sum(${chain})::text`;
}

/** A role of the cluster that this database's objects, grants or policies name, and the roles it is a member of. */
export interface Roles {
  readonly names: readonly string[];
  readonly memberships: readonly { readonly role: string; readonly member: string }[];
}

export interface Extension {
  readonly name: string;
  readonly version: string;
  readonly schema: string;
}

/** What the archive's own contents cannot tell, read in the snapshot. */
export interface Surroundings {
  readonly roles: Roles;
  readonly extensions: readonly Extension[];
  readonly largeObjects: number;
}

export async function readSurroundings(session: Session): Promise<Surroundings> {
  const extensions = await session.query<Extension>(
    `SELECT x.extname AS name, x.extversion AS version, n.nspname AS schema
     FROM pg_catalog.pg_extension x JOIN pg_catalog.pg_namespace n ON n.oid = x.extnamespace
     ORDER BY x.extname COLLATE "C"`,
  );
  const [large] = await session.query<{ count: string }>('SELECT count(*) FROM pg_catalog.pg_largeobject_metadata');
  // pg_shdepend leaves out the bootstrap superuser, who owns what nobody else does.
  const memberships = await session.query<{ role: string; member: string | null }>(
    `WITH RECURSIVE needed(oid) AS (
       SELECT d.refobjid FROM pg_catalog.pg_shdepend d
       WHERE d.refclassid = 'pg_catalog.pg_authid'::regclass
         AND (d.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
              OR (d.dbid = 0 AND d.classid = 'pg_catalog.pg_database'::regclass
                  AND d.objid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())))
       UNION SELECT c.relowner FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
       UNION SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN needed ON m.member = needed.oid)
     SELECT r.rolname AS role, m.rolname AS member
     FROM needed JOIN pg_catalog.pg_roles r ON r.oid = needed.oid
     LEFT JOIN (SELECT DISTINCT a.roleid, u.rolname FROM pg_catalog.pg_auth_members a
                JOIN pg_catalog.pg_roles u ON u.oid = a.member JOIN needed n ON n.oid = a.member) m ON m.roleid = r.oid
     ORDER BY r.rolname COLLATE "C", m.rolname COLLATE "C"`,
  );
  return {
    extensions,
    largeObjects: Number(large?.count ?? 0),
    roles: {
      names: [...new Set<string>(memberships.map((row) => row.role))],
      memberships: memberships.flatMap(({ role, member }) => (member === null ? [] : [{ role, member }])),
    },
  };
}
