import { createHash } from 'node:crypto';
import { Failure, inputFailure, type Problem } from '../failure.ts';
import type { Session } from './connect.ts';
import { type QualifiedName, quoteName, quoteQualified } from './names.ts';
import { BadPattern, type Pattern, parsePattern } from './pattern.ts';

/** What the user asked to be in the backup. */
export interface ScopeRequest {
  readonly mode: 'full' | 'schema-only' | 'data-only';
  readonly schemas: readonly string[];
  readonly excludeSchemas: readonly string[];
  readonly tables: readonly string[];
  readonly excludeTables: readonly string[];
  readonly excludeTableData: readonly string[];
}

/** One table that pg_dump will meet: it is locked, and counted where its rows are dumped. */
export interface Table extends QualifiedName {
  readonly oid: number;
  /** False: structure only (a partitioned table's root, an excluded one, an unlogged one on a standby). */
  readonly data: boolean;
  /** The archive holds its definition; false for an extension's configuration table and in data-only mode. */
  readonly defined: boolean;
  /** An extension's configuration table is dumped under this condition, ` WHERE …`; else empty. */
  readonly condition: string;
  readonly indexes: number;
  /** Bytes of its own heap, as of the last vacuum or analyze. */
  readonly estimatedBytes: number;
  /**
   * A query over it runs nobody else's code: it has no expression or predicate of an index and no statistics on
   * expressions, which the planner evaluates as us where they are constant, and belongs to our own role or a superuser.
   * So does its schema, whose owner could put another table in its place.
   */
  readonly trusted: boolean;
}

export interface Scope {
  readonly series: string;
  readonly tables: readonly Table[];
  /** Catalog ids of the sequences pg_dump will read. */
  readonly sequences: readonly number[];
  /** pg_dump's options that name the scope, one pattern each. */
  readonly options: readonly (readonly [option: string, pattern: string])[];
  /** Large objects are dumped when nothing is left out. */
  readonly largeObjects: boolean;
  /** Restores alone, without definitions from elsewhere. */
  readonly selfContained: boolean;
  /** Equal as long as no table was created, dropped, renamed, moved or given to somebody else: see {@link readFingerprint}. */
  readonly fingerprint: string;
}

/** `full`, `schema-only`, `data-only`, or `partial-<hash>`: backups of different series are never compared or mixed. */
export function seriesOf(request: ScopeRequest): string {
  const { mode, ...lists } = request;
  if (Object.values(lists).every((list) => list.length === 0)) return mode;
  const canonical = JSON.stringify([mode, ...Object.entries(lists).map(([key, list]) => [key, [...list].sort()])]);
  return `partial-${createHash('sha256').update(canonical).digest('hex').slice(0, 8)}`;
}

/** Patterns that cannot be read, before anybody connects. */
export function patternProblems(request: ScopeRequest): Problem[] {
  const problems: Problem[] = [];
  for (const [input, patterns, parts] of patternInputs(request)) {
    for (const text of patterns) {
      try {
        parsePattern(text, parts);
      } catch (error) {
        if (!(error instanceof BadPattern)) throw error;
        problems.push({ input, message: `the pattern ${text} cannot be read: ${error.message}` });
      }
    }
  }
  if (request.schemas.length > 0 && request.tables.length > 0)
    problems.push({
      input: 'tables',
      message: 'schemas and tables are both given, and pg_dump would then ignore schemas',
      hint: 'give one of them; a table pattern can name its schema: sales.*',
    });
  return problems;
}

function patternInputs(request: ScopeRequest): [input: string, patterns: readonly string[], parts: 2 | 3][] {
  return [
    ['schemas', request.schemas, 2],
    ['exclude-schemas', request.excludeSchemas, 2],
    ['tables', request.tables, 3],
    ['exclude-tables', request.excludeTables, 3],
    ['exclude-table-data', request.excludeTableData, 3],
  ];
}

interface Relation extends QualifiedName {
  readonly oid: number;
  readonly kind: string;
  readonly persistence: string;
  readonly member: boolean;
  readonly configuration: boolean;
  readonly condition: string;
  readonly indexes: number;
  readonly estimated_bytes: string;
  readonly trusted: boolean;
  readonly parents: number[];
}

/**
 * Everything pg_dump may dump rows of, and what `--table` can name. Same selection as pg_dump's getTables and
 * processExtensionTables; `pg_` schemas hold system, temporary and TOAST tables.
 */
const relationsQuery = `
  SELECT c.oid::int8::float8 AS oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind,
         c.relpersistence AS persistence,
         e.objid IS NOT NULL AS member, x.condition IS NOT NULL AS configuration, coalesce(x.condition, '') AS condition,
         (SELECT count(*) FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid)::int4 AS indexes,
         c.relpages::int8 * current_setting('block_size')::int8 AS estimated_bytes,
         coalesce((o.rolsuper OR o.rolname = current_user) AND (s.rolsuper OR s.rolname = current_user), false)
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid
                         AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL))
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_statistic_ext x WHERE x.stxrelid = c.oid AND x.stxexprs IS NOT NULL)
         AS trusted,
         ARRAY(SELECT h.inhparent::int8::float8 FROM pg_catalog.pg_inherits h WHERE h.inhrelid = c.oid) AS parents
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_database d ON d.datname = current_database()
  LEFT JOIN pg_catalog.pg_roles o ON o.oid = c.relowner
  LEFT JOIN pg_catalog.pg_roles s ON s.oid = CASE n.nspowner WHEN 'pg_database_owner'::regrole THEN d.datdba ELSE n.nspowner END
  LEFT JOIN pg_catalog.pg_depend e ON e.classid = 'pg_catalog.pg_class'::regclass AND e.objid = c.oid AND e.objsubid = 0
        AND e.refclassid = 'pg_catalog.pg_extension'::regclass AND e.deptype = 'e'
  LEFT JOIN LATERAL (
    SELECT coalesce(x.extcondition[array_position(x.extconfig, c.oid)], '') AS condition
    FROM pg_catalog.pg_extension x WHERE x.oid = e.refobjid AND c.oid = ANY (x.extconfig)) x ON true
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"`;

/**
 * Resolves the request against the catalog `session` sees (with an empty search path). Throws a `Failure` when a
 * pattern matches nothing.
 */
export async function resolveScope(
  session: Session,
  request: ScopeRequest,
  server: { readonly standby: boolean; readonly database: string },
): Promise<Scope> {
  const relations = await session.query<Relation>(relationsQuery);
  const fingerprint = fingerprintOf(relations);
  const schemas = await session.query<{ name: string }>(
    `SELECT nspname AS name FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'`,
  );
  const matcher = new Matcher(
    session,
    server.database,
    relations,
    schemas.map((schema) => schema.name),
  );

  const onlySchemas = await matcher.schemas('schemas', request.schemas);
  const noSchemas = await matcher.schemas('exclude-schemas', request.excludeSchemas);
  const onlyTables = await matcher.tables('tables', request.tables);
  const noTables = await matcher.tables('exclude-tables', request.excludeTables);
  const noData = await matcher.tables('exclude-table-data', request.excludeTableData);
  matcher.report();

  const everything = request.schemas.length === 0 && request.tables.length === 0;
  const selected = (relation: Relation): boolean => {
    if (noTables.has(relation.oid) || noSchemas.has(relation.schema)) return false;
    if (request.tables.length > 0) return onlyTables.has(relation.oid);
    if (request.schemas.length > 0) return onlySchemas.has(relation.schema);
    return true;
  };
  const tables = relations
    .filter((relation) => relation.kind === 'r' || relation.kind === 'p')
    .filter((relation) => !relation.member || relation.configuration)
    .filter(selected)
    .map((relation): Table => {
      const unreadable = relation.persistence === 'u' && server.standby;
      const withheld = request.mode === 'schema-only' || noData.has(relation.oid);
      return {
        oid: relation.oid,
        schema: relation.schema,
        name: relation.name,
        data: relation.kind === 'r' && !unreadable && !withheld,
        defined: !relation.member && request.mode !== 'data-only',
        condition: relation.condition === '' ? '' : ` ${relation.condition}`,
        indexes: relation.indexes,
        estimatedBytes: Number(relation.estimated_bytes),
        trusted: relation.trusted,
      };
    });
  const qualified = (oids: ReadonlySet<number>): string[] =>
    relations.filter((relation) => oids.has(relation.oid)).map(quoteQualified);
  const options: (readonly [string, string])[] = [
    ...[...onlySchemas].map((name) => ['--schema', quoteName(name)] as const),
    ...[...noSchemas].map((name) => ['--exclude-schema', quoteName(name)] as const),
    ...qualified(onlyTables).map((name) => ['--table', name] as const),
    ...qualified(noTables).map((name) => ['--exclude-table', name] as const),
    ...qualified(noData).map((name) => ['--exclude-table-data', name] as const),
  ];
  const series = seriesOf(request);
  return {
    series,
    tables,
    sequences: relations
      .filter((relation) => relation.kind === 'S' && !relation.member && selected(relation))
      .map((relation) => relation.oid),
    options,
    largeObjects: everything && request.mode !== 'schema-only',
    selfContained: series === 'full' || series === 'schema-only',
    fingerprint,
  };
}

/** What {@link Scope.fingerprint} is in this session's view of the catalog. */
export async function readFingerprint(session: Session): Promise<string> {
  return fingerprintOf(await session.query<Relation>(relationsQuery));
}

function fingerprintOf(relations: readonly Relation[]): string {
  const tables = relations
    .filter((relation) => relation.kind === 'r' || relation.kind === 'p')
    .map(({ oid, schema, name, kind, persistence, condition, trusted, parents }) =>
      [oid, schema, name, kind, persistence, condition, trusted, ...parents.toSorted((a, b) => a - b)].join('\0'),
    );
  return createHash('sha256').update(tables.join('\n')).digest('hex');
}

/** Matches patterns on the server, with the regular expressions pg_dump itself would use, and gathers what matched nothing. */
class Matcher {
  readonly #problems: Problem[] = [];
  readonly #session: Session;
  readonly #database: string;
  readonly #relations: readonly Relation[];
  readonly #schemas: readonly string[];
  #visible: Set<number> | undefined;

  constructor(session: Session, database: string, relations: readonly Relation[], schemas: readonly string[]) {
    this.#session = session;
    this.#database = database;
    this.#relations = relations;
    this.#schemas = schemas;
  }

  async schemas(input: string, patterns: readonly string[]): Promise<Set<string>> {
    const found = new Set<string>();
    for (const text of patterns) {
      const pattern = parsePattern(text, 2);
      const matches = await this.#matching(this.#schemas, pattern.name);
      for (const index of matches) found.add(this.#schemas[index] ?? '');
      this.#judge(input, pattern, matches.length, 'schema');
    }
    return found;
  }

  /** What the patterns name, with every partition and inheritance child below it. */
  async tables(input: string, patterns: readonly string[]): Promise<Set<number>> {
    const found = new Set<number>();
    for (const text of patterns) {
      const pattern = parsePattern(text, 3);
      const named = await this.#matching(
        this.#relations.map((relation) => relation.name),
        pattern.name,
      );
      let matches = named.map((index) => this.#relations[index]).filter((relation) => relation !== undefined);
      if (pattern.schema === undefined) {
        const visible = await this.#visibleRelations();
        matches = matches.filter((relation) => visible.has(relation.oid));
      } else {
        const inSchema = new Set(
          (await this.#matching(this.#schemas, pattern.schema)).map((index) => this.#schemas[index]),
        );
        matches = matches.filter((relation) => inSchema.has(relation.schema));
      }
      for (const relation of matches) found.add(relation.oid);
      this.#judge(input, pattern, matches.length, 'table');
    }
    this.#addChildren(found);
    return found;
  }

  report(): void {
    const [first, ...rest] = this.#problems;
    if (first !== undefined) throw inputFailure([first, ...rest]);
  }

  #judge(input: string, pattern: Pattern, matches: number, what: string): void {
    if (pattern.database !== undefined && pattern.database !== this.#database)
      this.#problems.push({
        input,
        message: `the pattern ${pattern.text} names another database than ${this.#database}`,
        hint: 'leave the database out',
      });
    else if (matches === 0)
      this.#problems.push({
        input,
        message: `the pattern ${pattern.text} matches no ${what}`,
        hint: 'unquoted letters fold to lower case, and a name without a schema is looked up in the search path: write schema.name, or "Name"',
      });
  }

  async #matching(names: readonly string[], expression: string): Promise<number[]> {
    const rows = await this.#session
      .query<{ at: string }>(
        `SELECT n.at - 1 AS at FROM unnest($1::text[]) WITH ORDINALITY AS n(name, at)
         WHERE n.name OPERATOR(pg_catalog.~) $2 COLLATE pg_catalog."default"`,
        [names, expression],
      )
      .catch((error: unknown) => {
        throw new Failure('input', 'badInput', `a pattern is no regular expression PostgreSQL accepts: ${expression}`, {
          cause: error,
        });
      });
    return rows.map((row) => Number(row.at));
  }

  /** pg_dump looks unqualified names up in the user's own search path; nothing unqualified is called while it is set. */
  async #visibleRelations(): Promise<Set<number>> {
    if (this.#visible !== undefined) return this.#visible;
    await this.#session.query('BEGIN READ ONLY');
    try {
      await this.#session.query('SET LOCAL search_path TO DEFAULT');
      const rows = await this.#session.query<{ oid: number }>(
        'SELECT pg_catalog.float8(pg_catalog.int8(c.oid)) AS oid FROM pg_catalog.pg_class c WHERE pg_catalog.pg_table_is_visible(c.oid)',
      );
      this.#visible = new Set(rows.map((row) => row.oid));
    } finally {
      await this.#session.query('ROLLBACK');
    }
    return this.#visible;
  }

  #addChildren(found: Set<number>): void {
    for (let before = -1; before !== found.size; ) {
      before = found.size;
      for (const relation of this.#relations)
        if (relation.parents.some((parent) => found.has(parent))) found.add(relation.oid);
    }
  }
}
