import type { Census } from '../manifest.ts';
import type { RestoredState } from '../verdict.ts';
import { countTables, type TableCount, tablesPerBatch } from './census.ts';
import type { Session } from './connect.ts';
import { isDatabaseError, reduceMessage } from './messages.ts';
import { displayName, nameKey, type QualifiedName, quoteQualified } from './names.ts';
import { resolveScope, type Table } from './scope.ts';

/** A table or sequence that the server would not let us read, and what it said. */
export interface Unread extends QualifiedName {
  readonly kind: 'table' | 'sequence';
  readonly reason: string;
}

/**
 * Counts what the census counted, in the restored database. What cannot be read is told, not guessed. `harmless` says
 * that this session's role has no rights that matter, so that queries may run whatever code the tables bring along.
 */
export async function readRestored(
  session: Session,
  census: Census,
  { harmless }: { readonly harmless: boolean },
): Promise<{ readonly state: RestoredState; readonly unread: readonly Unread[] }> {
  const unread: Unread[] = [];
  const scope = await resolveScope(
    session,
    { mode: 'full', schemas: [], excludeSchemas: [], tables: [], excludeTables: [], excludeTableData: [] },
    { standby: false, database: '' },
  );
  const wanted = new Map(census.tables.map((table) => [nameKey(table), table]));
  const present = scope.tables.filter((table) => wanted.has(nameKey(table)));
  const counted = present
    .filter((table) => wanted.get(nameKey(table))?.data === true)
    .map((table) => (harmless ? { ...table, trusted: true } : table));
  const counts = new Map<number, TableCount>();
  for (let from = 0; from < counted.length; from += tablesPerBatch)
    await countInto(counts, unread, session, counted.slice(from, from + tablesPerBatch), census.digest !== null);

  const sequences = new Map<string, { value: string; called: boolean }>();
  for (const sequence of census.sequences) {
    try {
      const [row] = await session.query<{ value: string; called: boolean }>(
        `SELECT last_value::text AS value, is_called AS called FROM ${quoteQualified(sequence)}`,
      );
      if (row !== undefined) sequences.set(nameKey(sequence), row);
    } catch (error) {
      if (!isDatabaseError(error)) throw error;
      // Undefined table, undefined schema: that it is not there is the finding.
      if (error.code === '42P01' || error.code === '3F000') continue;
      unread.push({ ...nameOf(sequence), kind: 'sequence', reason: reduceMessage(error.message) });
    }
  }
  const [large] = await session.query<{ count: string }>('SELECT count(*) FROM pg_catalog.pg_largeobject_metadata');
  return {
    unread,
    state: {
      tables: new Map(present.map((table) => [nameKey(table), counts.get(table.oid) ?? { rows: 0 }])),
      sequences,
      largeObjects: Number(large?.count ?? 0),
      show: displayName,
      key: nameKey,
    },
  };
}

/** All together, or one by one when the server refuses one of them. */
async function countInto(
  counts: Map<number, TableCount>,
  unread: Unread[],
  session: Session,
  tables: readonly Table[],
  content: boolean,
): Promise<void> {
  try {
    for (const [oid, count] of await countTables(session, tables, content)) counts.set(oid, count);
  } catch (error) {
    if (!isDatabaseError(error)) throw error;
    const [first, second] = tables;
    if (first !== undefined && second === undefined)
      unread.push({ ...nameOf(first), kind: 'table', reason: reduceMessage(error.message) });
    else for (const table of tables) await countInto(counts, unread, session, [table], content);
  }
}

function nameOf({ schema, name }: QualifiedName): QualifiedName {
  return { schema, name };
}
