import { Failure } from '../failure.ts';
import type { Session } from './connect.ts';
import { displayName, displayWord, type QualifiedName, sqlName, sqlWord } from './names.ts';
import { judgeWriter, type WriteObstacle } from './write-obstacles.ts';

/** A table of the target that rows are brought back into, with everything that decides how. */
export interface TargetTable extends QualifiedName {
  readonly oid: number;
  readonly partitioned: boolean;
  readonly columns: readonly TargetColumn[];
  /** The primary key; empty without one. */
  readonly key: readonly KeyColumn[];
  /** An ON CONFLICT cannot name a deferrable key. */
  readonly keyDeferrable: boolean;
  /** User triggers and rules that an INSERT (or, with `update`, an UPDATE) would run, partitions' own included. */
  readonly triggers: readonly Trigger[];
  readonly rules: readonly string[];
  readonly references: readonly Reference[];
  /** Catalog ids that a foreign key may mean by this table: itself, its partitions, its parents. */
  readonly family: readonly number[];
  readonly sequences: readonly OwnedSequence[];
  /** Schemas of extensions' types among its columns: a condition needs their operators. */
  readonly typeSchemas: readonly string[];
  /** Names of columns, constraints and indexes, which messages may repeat. */
  readonly names: readonly string[];
}

export interface TargetColumn {
  readonly name: string;
  /** `numeric(10,2)` */
  readonly type: string;
  /** The same without what shortens values, `numeric`; an extension's type as it is. */
  readonly plainType: string;
  readonly generated: boolean;
  /** `GENERATED ALWAYS AS IDENTITY`: no UPDATE may set it. */
  readonly identityAlways: boolean;
  /** NOT NULL, and nothing fills it in. */
  readonly required: boolean;
}

export interface KeyColumn {
  readonly name: string;
  /** `OPERATOR(pg_catalog.=)`, the one its index goes by. */
  readonly equals: string;
}

export interface Trigger {
  readonly name: string;
  readonly table: QualifiedName;
  readonly always: boolean;
}

export interface Reference {
  readonly name: string;
  readonly to: QualifiedName;
  readonly toOid: number;
  readonly deferrable: boolean;
}

export interface OwnedSequence extends QualifiedName {
  readonly column: string;
  readonly ascending: boolean;
  /** Keys from here on collide with what the sequence gives next; null where this role may not read it. */
  readonly next: string | null;
}

export interface WritePlan {
  readonly onConflict: 'fail' | 'skip' | 'update';
  /** Undefined: nobody said. */
  readonly triggers: 'on' | 'off' | undefined;
}

interface Relation {
  readonly oid: number;
  readonly kind: string;
  readonly filtered: boolean;
  readonly select: boolean;
  readonly insert: boolean;
  readonly update: boolean;
  readonly usage: boolean;
  readonly foreign: number;
}

/** Looks at the tables and throws one `Failure` with everything that would keep rows from being written. */
export async function readTargetTables(
  session: Session,
  names: readonly QualifiedName[],
  plan: WritePlan,
): Promise<TargetTable[]> {
  const obstacles: WriteObstacle[] = await judgeSession(session);
  const tables: TargetTable[] = [];
  for (const name of names) {
    const relation = await findRelation(session, name);
    obstacles.push(...judgeRelation(name, relation, plan));
    if (relation === undefined || !['r', 'p'].includes(relation.kind)) continue;
    const table = await readTable(session, name, relation, plan);
    obstacles.push(...judgeTable(table, plan), ...(await judgeOwnership(session, table, plan)));
    tables.push(table);
  }
  const [first] = obstacles;
  if (first === undefined) return tables;
  const exits = new Set(obstacles.map((each) => each.exit));
  throw new Failure(
    'preflight',
    exits.size === 1 ? first.exit : 'badInput',
    obstacles.length === 1
      ? first.message
      : `rows cannot be brought back\n${obstacles.map((each) => `  ${each.message}`).join('\n')}`,
    { hint: [...new Set(obstacles.map((each) => each.hint))].join('\n') },
  );
}

async function judgeSession(session: Session): Promise<WriteObstacle[]> {
  const [state] = await session.query<{ temporary: boolean; role: string; name: string }>(
    `SELECT has_database_privilege(current_database(), 'TEMP') AS temporary, current_user::text AS role,
            current_database()::text AS name`,
  );
  const obstacles = await judgeWriter(session);
  if (state?.temporary === false)
    obstacles.push({
      message: `role ${sqlWord(state.role)} may not create temporary tables, through which rows are read`,
      hint: `GRANT TEMPORARY ON DATABASE ${sqlWord(state.name)} TO ${sqlWord(state.role)};`,
      exit: 'privilege',
    });
  return obstacles;
}

/** Event triggers that run when temporary tables are made; a superuser's session of 17 or later has them off. */
export async function eventTriggersOf(session: Session): Promise<string[]> {
  const rows = await session.query<{ name: string }>(
    `SELECT evtname::text AS name FROM pg_catalog.pg_event_trigger
     WHERE evtenabled IN ('O', 'A') AND evtevent IN ('ddl_command_start', 'ddl_command_end')
       AND (evttags IS NULL OR evttags && ARRAY['CREATE TABLE', 'CREATE TABLE AS', 'ALTER TABLE'])
       AND coalesce(current_setting('event_triggers', true), 'on') = 'on' ORDER BY 1`,
  );
  return rows.map((row) => displayWord(row.name));
}

async function findRelation(session: Session, name: QualifiedName): Promise<Relation | undefined> {
  const [relation] = await session.query<Relation>(
    `SELECT c.oid::int8::float8 AS oid, c.relkind AS kind,
            row_security_active(c.oid) AS filtered, has_table_privilege(c.oid, 'SELECT') AS "select",
            has_table_privilege(c.oid, 'INSERT') AS insert, has_table_privilege(c.oid, 'UPDATE') AS update,
            has_schema_privilege(n.oid, 'USAGE') AS usage,
            (SELECT count(*) FROM pg_partition_tree(c.oid) t JOIN pg_class f ON f.oid = t.relid AND f.relkind = 'f')::int4 AS foreign
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = $1 AND c.relname = $2`,
    [name.schema, name.name],
  );
  return relation;
}

function judgeRelation(name: QualifiedName, relation: Relation | undefined, plan: WritePlan): WriteObstacle[] {
  const table = displayName(name);
  if (relation === undefined)
    return [
      {
        message: `the target has no table ${table}`,
        hint: 'create the table first: pgassay fetch gives the archive, and pg_restore --schema-only --table its definition',
        exit: 'badInput',
      },
    ];
  if (!['r', 'p'].includes(relation.kind) || relation.foreign > 0)
    return [
      {
        message: `${table} of the target ${relation.foreign > 0 ? 'has partitions on other servers' : 'is not a table'}`,
        hint: 'rows are brought back into ordinary and partitioned tables of this server only',
        exit: 'badInput',
      },
    ];
  const lacking = [
    ...(relation.select ? [] : ['SELECT']),
    ...(relation.insert ? [] : ['INSERT']),
    ...(relation.update || plan.onConflict !== 'update' ? [] : ['UPDATE']),
  ];
  const obstacles: WriteObstacle[] = [];
  if (!relation.usage || lacking.length > 0)
    obstacles.push({
      message: `this role may not ${lacking.join(', ') || 'use the schema'} ${lacking.length > 0 ? 'on ' : 'of '}${table}`,
      hint: relation.usage
        ? `run as the table's owner: GRANT ${lacking.join(', ')} ON ${sqlName(name)} TO …; or use the owner's URL`
        : `GRANT USAGE ON SCHEMA ${sqlWord(name.schema)} TO …; or use the owner's URL`,
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

function judgeTable(table: TargetTable, { onConflict, triggers }: WritePlan): WriteObstacle[] {
  const name = displayName(table);
  const obstacles: WriteObstacle[] = [];
  if (onConflict === 'update' && (table.key.length === 0 || table.keyDeferrable))
    obstacles.push({
      message: `${name} has ${table.key.length === 0 ? 'no' : 'a deferrable'} primary key, and --on-conflict update finds rows by it`,
      hint: '--on-conflict skip, or none: then a row that is there already stops everything',
      exit: 'badInput',
    });
  if (table.rules.length > 0)
    obstacles.push({
      message: `${name} has rules that rewrite what is written to it: ${table.rules.map(displayWord).join(', ')}`,
      hint: `switch them off while rows are brought back: ALTER TABLE ${sqlName(table)} DISABLE RULE …`,
      exit: 'badInput',
    });
  if (table.triggers.length > 0 && triggers === undefined)
    obstacles.push({
      message: `${name} has triggers that would run: ${triggerNames(table)}`,
      hint: '--triggers off brings the rows back as they were (writers of the table wait for that moment); --triggers on runs the triggers, which may send mails or change rows',
      exit: 'badInput',
    });
  return obstacles;
}

export function triggerNames({ triggers }: TargetTable): string {
  return [...new Set(triggers.map((each) => displayWord(each.name)))].join(', ');
}

async function judgeOwnership(session: Session, table: TargetTable, { triggers }: WritePlan): Promise<WriteObstacle[]> {
  if (triggers !== 'off' || table.triggers.length === 0) return [];
  const [row] = await session.query<{ owned: boolean }>(
    `SELECT coalesce(bool_and(pg_has_role(c.relowner, 'USAGE')), true) AS owned
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     JOIN unnest($1::text[], $2::text[]) AS t(schema, name) ON t.schema = n.nspname AND t.name = c.relname`,
    [table.triggers.map((each) => each.table.schema), table.triggers.map((each) => each.table.name)],
  );
  if (row?.owned) return [];
  return [
    {
      message: `only the owner of ${displayName(table)} may switch its triggers off`,
      hint: "use the owner's URL, or --triggers on",
      exit: 'privilege',
    },
  ];
}

async function readTable(
  session: Session,
  name: QualifiedName,
  { oid }: Relation,
  { onConflict }: WritePlan,
): Promise<TargetTable> {
  const tree = (
    await session.query<{ oid: number }>(
      `SELECT oid::int8::float8 AS oid FROM (
         SELECT $1::oid AS oid, -1 AS level UNION ALL
         SELECT relid, level FROM pg_partition_tree($1::oid) WHERE relid <> $1::oid) t ORDER BY level, oid`,
      [oid],
    )
  ).map((row) => row.oid);
  const ancestors = (
    await session.query<{ oid: number }>('SELECT relid::int8::float8 AS oid FROM pg_partition_ancestors($1::oid)', [
      oid,
    ])
  ).map((row) => row.oid);
  const family = [...new Set([...tree, ...ancestors])];
  const columns = await session.query<TargetColumn>(
    `SELECT a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type,
            CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN format_type(a.atttypid, -1)
                 ELSE format_type(a.atttypid, a.atttypmod) END AS "plainType",
            a.attgenerated <> '' AS generated, a.attidentity = 'a' AS "identityAlways",
            a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND t.typdefault IS NULL AS required
     FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
     WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`,
    [oid],
  );
  const [ownKey] = await session.query<{ immediate: boolean; columns: KeyColumn[] }>(
    `SELECT i.indimmediate AS immediate,
            json_agg(json_build_object('name', a.attname, 'equals',
              format('OPERATOR(%I.%s)', n.nspname, o.oprname)) ORDER BY k.place) AS columns
     FROM pg_catalog.pg_index i
     CROSS JOIN unnest(i.indkey::int2[], i.indclass::oid[]) WITH ORDINALITY AS k(attnum, opclass, place)
     JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
     JOIN pg_catalog.pg_opclass c ON c.oid = k.opclass
     JOIN pg_catalog.pg_am am ON am.oid = c.opcmethod AND am.amname = 'btree'
     JOIN pg_catalog.pg_amop m ON m.amopfamily = c.opcfamily AND m.amoplefttype = c.opcintype
          AND m.amoprighttype = c.opcintype AND m.amopstrategy = 3
     JOIN pg_catalog.pg_operator o ON o.oid = m.amopopr
     JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
     WHERE i.indrelid = $1 AND i.indisprimary AND k.place <= i.indnkeyatts
     GROUP BY i.indexrelid, i.indimmediate`,
    [oid],
  );
  const rules = await session.query<{ name: string }>(
    `SELECT rulename::text AS name FROM pg_catalog.pg_rewrite
     WHERE ev_class = $1 AND ev_enabled IN ('O', 'A') AND ev_type = ANY ($2) ORDER BY 1`,
    [oid, onConflict === 'update' ? ['2', '3'] : ['3']],
  );
  const [types] = await session.query<{ schemas: string[] }>(
    `SELECT coalesce(array_agg(DISTINCT n.nspname::text), '{}') AS schemas
     FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
     LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
     JOIN pg_catalog.pg_type b ON b.oid = CASE WHEN t.typcategory = 'A' THEN e.oid ELSE t.oid END
     JOIN pg_catalog.pg_namespace n ON n.oid = b.typnamespace
     WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND b.typtype = 'b' AND n.nspname <> 'pg_catalog'`,
    [oid],
  );
  return {
    ...{ schema: name.schema, name: name.name, oid, columns, family },
    partitioned: tree.length > 1 || (await isPartitioned(session, oid)),
    key: ownKey?.columns ?? [],
    keyDeferrable: ownKey?.immediate === false,
    triggers: await readTriggers(session, oid, tree, onConflict === 'update'),
    rules: rules.map((row) => row.name),
    references: await readReferences(session, tree),
    sequences: await readSequences(session, family),
    typeSchemas: types?.schemas ?? [],
    names: await readNames(session, tree),
  };
}

async function isPartitioned(session: Session, oid: number): Promise<boolean> {
  const rows = await session.query(`SELECT FROM pg_catalog.pg_class WHERE oid = $1 AND relkind = 'p'`, [oid]);
  return rows.length > 0;
}

/** Triggers of partitions fire for rows only; parents come first, as their clones follow them. */
async function readTriggers(
  session: Session,
  oid: number,
  tree: readonly number[],
  updates: boolean,
): Promise<Trigger[]> {
  const rows = await session.query<QualifiedName & { trigger: string; always: boolean }>(
    `SELECT t.tgname::text AS trigger, n.nspname::text AS schema, c.relname::text AS name, t.tgenabled = 'A' AS always
     FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE t.tgrelid = ANY ($1::oid[]) AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
       AND (t.tgtype & $2) <> 0 AND (t.tgrelid = $3::oid OR (t.tgtype & 1) <> 0)
     ORDER BY array_position($1::oid[], t.tgrelid), t.tgname`,
    [tree, updates ? 20 : 4, oid],
  );
  return rows.map(({ trigger, schema, name, always }) => ({ name: trigger, table: { schema, name }, always }));
}

async function readReferences(session: Session, tree: readonly number[]): Promise<Reference[]> {
  const rows = await session.query<QualifiedName & { key: string; toOid: number; deferrable: boolean }>(
    `SELECT k.conname::text AS key, n.nspname::text AS schema, c.relname::text AS name,
            k.confrelid::int8::float8 AS "toOid", k.condeferrable AS deferrable
     FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.confrelid
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE k.contype = 'f' AND k.conrelid = ANY ($1::oid[])
     ORDER BY k.conparentid <> 0, array_position($1::oid[], k.conrelid), k.conname COLLATE "C"`,
    [tree],
  );
  return rows.map(({ key, schema, name, toOid, deferrable }) => ({
    ...{ name: key, to: { schema, name }, toOid, deferrable },
  }));
}

/** Sequences of serial and identity columns, and those a default takes its values from. */
async function readSequences(session: Session, family: readonly number[]): Promise<OwnedSequence[]> {
  return session.query<OwnedSequence>(
    `SELECT DISTINCT a.attname::text AS column, n.nspname::text AS schema, c.relname::text AS name,
            q.seqincrement > 0 AS ascending,
            CASE WHEN has_sequence_privilege(c.oid, 'USAGE, SELECT')
                 THEN coalesce(pg_sequence_last_value(c.oid)::numeric + sign(q.seqincrement), q.seqstart)::text END AS next
     FROM (SELECT d.objid AS sequence, d.refobjid AS relation, d.refobjsubid AS attnum FROM pg_catalog.pg_depend d
           WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
             AND d.deptype IN ('a', 'i')
           UNION SELECT d.refobjid, f.adrelid, f.adnum FROM pg_catalog.pg_depend d
           JOIN pg_catalog.pg_attrdef f ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid
           WHERE d.refclassid = 'pg_catalog.pg_class'::regclass) s
     JOIN pg_catalog.pg_class c ON c.oid = s.sequence AND c.relkind = 'S'
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     JOIN pg_catalog.pg_sequence q ON q.seqrelid = c.oid
     JOIN pg_catalog.pg_attribute a ON a.attrelid = s.relation AND a.attnum = s.attnum
     WHERE s.relation = ANY ($1::oid[])
     ORDER BY 1, 2, 3`,
    [family],
  );
}

async function readNames(session: Session, tree: readonly number[]): Promise<string[]> {
  const rows = await session.query<{ name: string }>(
    `SELECT conname::text AS name FROM pg_catalog.pg_constraint WHERE conrelid = ANY ($1::oid[])
     UNION SELECT c.relname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
     WHERE i.indrelid = ANY ($1::oid[])
     UNION SELECT relname::text FROM pg_catalog.pg_class WHERE oid = ANY ($1::oid[])
     UNION SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = ANY ($1::oid[]) AND attnum > 0
     ORDER BY 1`,
    [tree],
  );
  return rows.map((row) => row.name);
}

export interface InsertionOrder {
  readonly tables: readonly TargetTable[];
  /** Foreign keys between these tables form a circle: the deferrable ones wait for the end. */
  readonly deferred: boolean;
}

/** Referenced tables first. Throws a `Failure` for a circle of foreign keys none of which can wait. */
export function insertionOrder(tables: readonly TargetTable[]): InsertionOrder {
  const strict = sorted(tables, () => true);
  if (strict.left.length === 0) return { tables: strict.order, deferred: false };
  const lenient = sorted(tables, (reference) => !reference.deferrable);
  if (lenient.left.length === 0) return { tables: lenient.order, deferred: true };
  const keys = lenient.left.flatMap((table) =>
    table.references
      .filter((each) => lenient.left.some((other) => other !== table && other.family.includes(each.toOid)))
      .map((each) => displayWord(each.name)),
  );
  throw new Failure(
    'preflight',
    'badInput',
    `the foreign keys of ${lenient.left.map(displayName).join(' and ')} refer to each other, and none of them can wait for the other: ${[...new Set(keys)].join(', ')}`,
    {
      hint: 'make one of them deferrable (ALTER TABLE … ALTER CONSTRAINT … DEFERRABLE), or bring the tables back one after the other',
    },
  );
}

function sorted(
  tables: readonly TargetTable[],
  counts: (reference: Reference) => boolean,
): { readonly order: TargetTable[]; readonly left: TargetTable[] } {
  const order: TargetTable[] = [];
  let left = [...tables];
  for (;;) {
    const free = left.filter((table) =>
      table.references.every(
        (each) => !counts(each) || !left.some((other) => other !== table && other.family.includes(each.toOid)),
      ),
    );
    if (free.length === 0) return { order, left };
    order.push(...free);
    left = left.filter((table) => !free.includes(table));
  }
}
