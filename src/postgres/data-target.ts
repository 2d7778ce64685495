/**
 * What the target says about tables whose rows are to be brought back, and everything that would keep them from being
 * brought back as they were. Read twice: before anything is said, and under the locks of the transaction that does it.
 */
import { Failure } from '../failure.ts';
import { formatCount } from '../numbers.ts';
import type { Session } from './connect.ts';
import { type ForeignKey, loadingOrder, readForeignKeys } from './data-order.ts';
import { displayName, displayWord, nameKey, type QualifiedName, quoteQualified, sqlName, sqlWord } from './names.ts';
import { judgeWriter, type WriteObstacle } from './write-obstacles.ts';

/** Rows of one table in the archive. */
export interface ArchivedRows extends QualifiedName {
  /** The entry's number. */
  readonly entry: number;
  /** Those the rows have, in their order. */
  readonly columns: readonly string[];
}

export interface DataPlan {
  /** Tables whose rows are needed by others come first. */
  readonly tables: readonly ArchivedRows[];
  readonly sequences: readonly QualifiedName[];
  /** What is emptied in one statement: none when nothing is. */
  readonly truncate: readonly { readonly name: QualifiedName; readonly only: boolean }[];
  /** Tables with columns that the backup does not have: a digest of their rows is another one. */
  readonly wider: readonly QualifiedName[];
  /** Keys of a circle that cannot wait by themselves: made to, and put back. */
  readonly postponed: readonly ForeignKey[];
  /** Tables of a circle of foreign keys. */
  readonly circle: readonly QualifiedName[];
  /** User triggers that will run, `audit on public.orders`. */
  readonly triggers: readonly string[];
  /** Materialized views, which are not filled anew. */
  readonly views: readonly QualifiedName[];
  /** Names that messages may repeat. */
  readonly names: readonly string[];
}

interface Relation extends QualifiedName {
  readonly oid: number;
  readonly kind: string;
  readonly owned: boolean;
  readonly allowed: boolean;
  readonly filtered: boolean;
  readonly extension: boolean;
  readonly columns: readonly { readonly name: string; readonly generated: boolean; readonly required: boolean }[];
  /** Itself, and what it is a partition of. */
  readonly ancestors: readonly number[];
}

/**
 * How the rows go in. Throws one `Failure` that names everything in the way; `clean` says that rows which are there go.
 */
export async function planData(
  session: Session,
  wanted: { readonly rows: readonly ArchivedRows[]; readonly positions: readonly QualifiedName[] },
  { clean }: { readonly clean: boolean },
): Promise<DataPlan> {
  const obstacles: WriteObstacle[] = await judgeWriter(session);
  const relations = new Map(
    (await readRelations(session, [...wanted.rows, ...wanted.positions], clean)).map((each) => [nameKey(each), each]),
  );
  // An extension fills its own tables.
  const ours = <T extends QualifiedName>(names: readonly T[]): T[] =>
    names.filter((each) => relations.get(nameKey(each))?.extension !== true);
  const [rows, positions] = [ours(wanted.rows), ours(wanted.positions)];
  for (const each of rows) obstacles.push(...judgeTable(each, relations.get(nameKey(each)), clean));
  for (const each of positions) obstacles.push(...judgeSequence(each, relations.get(nameKey(each))));
  const tables = rows.flatMap((each) => {
    const relation = relations.get(nameKey(each));
    return relation === undefined || relation.kind !== 'r' ? [] : [{ ...each, ...relation, columns: each.columns }];
  });
  const filled = clean ? [] : await withRows(session, tables);
  if (filled.length > 0)
    obstacles.push({
      message: `rows are there already: ${listed(filled)}`,
      hint: 'clean: true and confirm replace the rows of exactly these tables, after a safety backup; pgassay rows brings back some rows of a table',
      exit: 'badInput',
    });
  const all = [...new Set(tables.flatMap((table) => [table.oid, ...table.ancestors]))];
  const keys = await readForeignKeys(session, all);
  obstacles.push(...judgeKeys(keys, new Set(all), clean));
  const { order, circle, postponed } = loadingOrder(tables, keys);
  obstacles.push(...postponed.filter((key) => !key.owned).map(cannotWait));
  if (obstacles.length > 0) throw refusal(obstacles);
  return {
    tables: order,
    sequences: positions,
    truncate: clean ? await emptied(session, tables) : [],
    postponed,
    wider: tables
      .filter((table) => relations.get(nameKey(table))?.columns.some((each) => isBeyond(each, table)))
      .map(({ schema, name }) => ({ schema, name })),
    circle: circle.map(({ schema, name }) => ({ schema, name })),
    triggers: await readTriggers(session, all, clean),
    views: await session.query<QualifiedName>(
      `SELECT n.nspname::text AS schema, c.relname::text AS name FROM pg_catalog.pg_class c
       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
       WHERE c.relkind = 'm' AND c.relispopulated ORDER BY 1, 2`,
    ),
    names: [...tables.flatMap((each) => [each.schema, each.name, ...each.columns]), ...keys.map((key) => key.name)],
  };
}

function isBeyond(column: Relation['columns'][number], { columns }: ArchivedRows): boolean {
  return !column.generated && !columns.includes(column.name);
}

async function readRelations(session: Session, names: readonly QualifiedName[], clean: boolean): Promise<Relation[]> {
  return session.query<Relation>(
    `SELECT n.nspname::text AS schema, c.relname::text AS name, c.oid::int8::float8 AS oid, c.relkind AS kind,
            pg_has_role(c.relowner, 'USAGE') AS owned, row_security_active(c.oid) AS filtered,
            has_schema_privilege(n.oid, 'USAGE') AND
              CASE WHEN c.relkind = 'S' THEN true
                   ELSE has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
                        AND has_table_privilege(c.oid, CASE WHEN $3 THEN 'TRUNCATE' ELSE 'UPDATE, DELETE, TRUNCATE' END) END AS allowed,
            EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass
                    AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e') AS extension,
            ARRAY(SELECT a.relid::oid::int8::float8 FROM pg_partition_ancestors(c.oid) a) AS ancestors,
            (SELECT coalesce(json_agg(json_build_object('name', a.attname, 'generated', a.attgenerated <> '',
                      'required', a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND t.typdefault IS NULL)), '[]')
             FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
     FROM (SELECT DISTINCT * FROM unnest($1::text[], $2::text[]) AS w(schema, name)) w
     JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
     JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name`,
    [names.map((each) => each.schema), names.map((each) => each.name), clean],
  );
}

function judgeTable(archived: ArchivedRows, relation: Relation | undefined, clean: boolean): WriteObstacle[] {
  const table = displayName(archived);
  const restored = 'restore it with its definition: mode: full with tables';
  if (relation === undefined)
    return [{ message: `the target has no table ${table}`, hint: restored, exit: 'badInput' }];
  if (relation.kind !== 'r')
    return [
      {
        message: `${table} of the target is not an ordinary table`,
        hint: 'restore the backup into another database, and move the rows from there',
        exit: 'badInput',
      },
    ];
  const obstacles: WriteObstacle[] = [];
  const there = new Map(relation.columns.map((column) => [column.name, column]));
  const missing = archived.columns.filter((name) => there.get(name)?.generated !== false);
  const required = relation.columns.filter((column) => column.required && !archived.columns.includes(column.name));
  const drifted = 'bring the table to the definition of the backup first, or restore into another database';
  if (missing.length > 0)
    obstacles.push({
      message: `${table} of the target cannot take the column${missing.length === 1 ? '' : 's'} ${missing.map(displayWord).join(', ')}, which the backup has`,
      hint: drifted,
      exit: 'badInput',
    });
  if (required.length > 0)
    obstacles.push({
      message: `${table} of the target needs ${required.map((each) => displayWord(each.name)).join(', ')}, which the backup does not have`,
      hint: drifted,
      exit: 'badInput',
    });
  if (!relation.allowed)
    obstacles.push({
      message: `this role may not read and fill${clean ? ' and empty' : ''} ${table}`,
      // Without one of the other rights it may not lock the table against writers.
      hint: `run as the table's owner: GRANT SELECT, INSERT, ${clean ? 'TRUNCATE' : 'UPDATE'} ON ${sqlName(archived)} TO …; or use the owner's URL`,
      exit: 'privilege',
    });
  if (relation.filtered)
    obstacles.push({
      message: `row-level security policies of ${table} apply to this role, and would hide or refuse rows`,
      hint: 'use a role with BYPASSRLS, or the owner where the table does not FORCE ROW LEVEL SECURITY',
      exit: 'privilege',
    });
  return obstacles;
}

function judgeSequence(name: QualifiedName, relation: Relation | undefined): WriteObstacle[] {
  if (relation?.kind !== 'S')
    return [
      {
        message: `the target has no sequence ${displayName(name)}`,
        hint: 'restore it with its definition: mode: full with tables',
        exit: 'badInput',
      },
    ];
  if (relation.owned) return [];
  return [
    {
      message: `only the owner of the sequence ${displayName(name)} may set its position so that it can be rolled back`,
      hint: "use the owner's URL",
      exit: 'privilege',
    },
  ];
}

function judgeKeys(keys: readonly ForeignKey[], ours: ReadonlySet<number>, clean: boolean): WriteObstacle[] {
  const obstacles: WriteObstacle[] = [];
  const unchecked = keys.filter((key) => key.unchecked && ours.has(key.from.oid));
  if (unchecked.length > 0)
    obstacles.push({
      message: `foreign keys that nobody would check, because their triggers are disabled: ${[...new Set(unchecked.map(describeKey))].join(', ')}`,
      hint: `enable them: ${[...new Set(unchecked.map((key) => `ALTER TABLE ${sqlName(key.from)} ENABLE TRIGGER ALL;`))].join(' ')}`,
      exit: 'badInput',
    });
  const others = keys.filter((key) => ours.has(key.to.oid) && !ours.has(key.from.oid));
  if (clean && others.length > 0)
    obstacles.push({
      message: `rows of other tables refer to what would be emptied: ${[...new Set(others.map(describeKey))].join(', ')}`,
      hint: 'add these tables to what is restored, or bring back single rows with pgassay rows --on-conflict update',
      exit: 'badInput',
    });
  return obstacles;
}

function describeKey({ name, from, to }: ForeignKey): string {
  return `${displayWord(name)} (${displayName(from)} to ${displayName(to)})`;
}

function cannotWait(key: ForeignKey): WriteObstacle {
  return {
    message: `the foreign key ${describeKey(key)} is part of a circle, cannot wait for the end of a transaction, and only its table's owner may let it`,
    hint: `use the owner's URL, or have him run: ALTER TABLE ${sqlName(key.from)} ALTER CONSTRAINT ${sqlWord(key.name)} DEFERRABLE;`,
    exit: 'privilege',
  };
}

const tablesPerQuery = 100;

async function withRows(session: Session, tables: readonly QualifiedName[]): Promise<QualifiedName[]> {
  const filled: QualifiedName[] = [];
  for (let from = 0; from < tables.length; from += tablesPerQuery) {
    const some = tables.slice(from, from + tablesPerQuery);
    const text = some.map((table, at) => `SELECT ${at} AS at WHERE EXISTS (SELECT FROM ONLY ${quoteQualified(table)})`);
    for (const { at } of await session.query<{ at: number }>(`${text.join('\nUNION ALL ')}\nORDER BY 1`)) {
      const table = some[at];
      if (table !== undefined) filled.push(table);
    }
  }
  return filled;
}

/** A partitioned table is named itself where all of it goes: foreign keys are between whole tables. */
async function emptied(
  session: Session,
  tables: readonly (QualifiedName & { readonly oid: number; readonly ancestors: readonly number[] })[],
): Promise<DataPlan['truncate']> {
  const whole = await session.query<QualifiedName>(
    `SELECT n.nspname::text AS schema, c.relname::text AS name FROM pg_catalog.pg_class c
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = ANY ($1::oid[]) AND c.relkind = 'p'
       AND NOT EXISTS (SELECT FROM pg_partition_tree(c.oid) t WHERE t.isleaf AND t.relid <> ALL ($2::oid[]))`,
    [tables.flatMap((table) => table.ancestors), tables.map((table) => table.oid)],
  );
  return [
    ...tables.map(({ schema, name }) => ({ name: { schema, name }, only: true })),
    ...whole.map((name) => ({ name, only: false })),
  ];
}

/** Enabled ones that an INSERT runs, and with `clean` a TRUNCATE; of a parent those of each statement do not. */
async function readTriggers(session: Session, oids: readonly number[], clean: boolean): Promise<string[]> {
  const rows = await session.query<QualifiedName & { trigger: string }>(
    `SELECT t.tgname::text AS trigger, n.nspname::text AS schema, c.relname::text AS name
     FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE t.tgrelid = ANY ($1::oid[]) AND c.relkind = 'r' AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
       AND (t.tgtype & $2) <> 0 ORDER BY 2, 3, 1`,
    [oids, clean ? 4 | 32 : 4],
  );
  return rows.map(({ trigger, ...table }) => `${displayWord(trigger)} on ${displayName(table)}`);
}

function listed(names: readonly QualifiedName[]): string {
  const shown = names.slice(0, 20).map(displayName).join(', ');
  return names.length > 20 ? `${shown} and ${names.length - 20} more` : shown;
}

function refusal(obstacles: readonly WriteObstacle[]): Failure {
  const exits = new Set(obstacles.map((each) => each.exit));
  const [first] = obstacles;
  const lines = obstacles.slice(0, 30).map((each) => `  ${each.message}`);
  if (obstacles.length > 30) lines.push(`  and ${obstacles.length - 30} more`);
  const message =
    obstacles.length === 1
      ? (first?.message ?? '')
      : `rows cannot be brought back, for ${formatCount(obstacles.length, 'reason')}\n${lines.join('\n')}`;
  return new Failure(
    'restore',
    exits.size === 1 && first !== undefined ? first.exit : 'badInput',
    `${message}${obstacles.length === 1 ? '; ' : '\n'}nothing was changed`,
    { hint: [...new Set(obstacles.map((each) => each.hint))].slice(0, 10).join('\n') },
  );
}
