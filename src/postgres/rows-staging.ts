import { from } from 'pg-copy-streams';
import { Failure } from '../failure.ts';
import { formatCount } from '../numbers.ts';
import type { Session } from './connect.ts';
import { isDatabaseError, reduceMessage, sqlState } from './messages.ts';
import { displayName, displayWord, quoteName, quoteQualified } from './names.ts';
import type { Condition } from './rows-request.ts';
import type { TargetTable } from './rows-target.ts';

/** One table whose rows are looked for in the backup. */
export interface WantedTable {
  readonly target: TargetTable;
  readonly condition: Condition;
  /** The columns of each `TABLE DATA` entry that belongs to it: its own, or those of its partitions. */
  readonly entries: ReadonlyMap<number, readonly string[]>;
}

/** The rows of one table that were found in the backup, in a temporary table of the session. */
export interface FoundRows {
  readonly target: TargetTable;
  /** `pg_temp.…` */
  readonly table: string;
  /** The columns that are written; those the backup has and the target computes are not. */
  readonly columns: readonly string[];
  readonly count: number;
}

/**
 * Where the backup's rows meet the condition: temporary tables at the target, made of the target's own types, since only
 * PostgreSQL can evaluate SQL. A piece of the archive is loaded, what fits is kept, the rest is forgotten with the end of
 * its transaction: temporary space holds one piece and what was found, however large the table, and no transaction is
 * long. All of them are READ ONLY, which temporary tables are exempt from: a condition cannot write.
 */
export class Staging {
  readonly #session: Session;
  readonly #encoding: string;
  readonly #places = new Map<number, Place>();
  readonly #all: Place[] = [];

  private constructor(session: Session, encoding: string) {
    this.#session = session;
    this.#encoding = encoding;
  }

  /** `encoding` is the archive's. */
  static async create(session: Session, encoding: string, tables: readonly WantedTable[]): Promise<Staging> {
    const staging = new Staging(session, encoding);
    for (const [at, wanted] of tables.entries()) {
      const place = placeFor(wanted, at);
      staging.#all.push(place);
      for (const entry of wanted.entries.keys()) staging.#places.set(entry, place);
      const columns = place.columns.map((name) => {
        const column = wanted.target.columns.find((each) => each.name === name);
        const value = column === undefined ? 'NULL::text' : `${quoteName(name)}::${column.plainType}`;
        return `${value} AS ${quoteName(name)}`;
      });
      const select = `SELECT ${columns.join(', ')} FROM ONLY ${quoteQualified(wanted.target)} WITH NO DATA`;
      await session.query('BEGIN READ WRITE');
      await session.query(`CREATE TEMPORARY TABLE ${place.piece} ON COMMIT DELETE ROWS AS ${select}`);
      await session.query(`CREATE TEMPORARY TABLE ${place.found} AS ${select}`);
      await session.query('COMMIT');
    }
    return staging;
  }

  /**
   * Takes lines of COPY's text format and keeps the rows that fit; returns how many rows the server took them for. Throws
   * a `Failure` that holds none of them.
   */
  async load(entry: number, lines: Buffer): Promise<number> {
    const place = this.#places.get(entry);
    if (place === undefined) throw new Error('rows of an entry that nobody asked for');
    const columns = place.wanted.entries.get(entry) ?? [];
    const { target, condition } = place.wanted;
    // A domain's CHECK is the database's own code, and finds its functions as in the application's sessions.
    await this.#session.query('BEGIN READ ONLY; SET LOCAL search_path TO DEFAULT');
    let loaded: number;
    try {
      loaded = await copyIn(
        this.#session,
        `COPY ${place.piece} (${columns.map(quoteName).join(', ')}) FROM STDIN (FORMAT text, ENCODING '${this.#encoding}')`,
        lines,
      );
    } catch (error) {
      if (!isDatabaseError(error)) throw error;
      throw new Failure(
        'restore',
        'restore',
        `the target does not take the rows of ${displayName(target)} as they are in the backup: ${reduceMessage(error.message, nameOf(target))}`,
        {
          hint: 'nothing was changed; its columns have other types now: restore the backup into another database and convert the rows there',
          cause: error,
        },
      );
    }
    const select = `WITH kept AS (INSERT INTO ${place.found} SELECT * FROM ${place.piece} AS ${quoteName(target.name)} WHERE (\n`;
    place.count += await askWhere(
      this.#session,
      target,
      condition,
      place.columns,
      async () => {
        await this.#session.query(searchPathFor(target));
        const [row] = await this.#session.query<{ count: string }>(
          `${select}${condition.text}\n) AND $1::bool RETURNING 1) SELECT pg_catalog.count(*) AS count FROM kept`,
          [true],
        );
        return Number(row?.count ?? 0);
      },
      select,
    );
    await this.#session.query('COMMIT');
    return loaded;
  }

  /** So far. */
  get count(): number {
    return this.#all.reduce((sum, place) => sum + place.count, 0);
  }

  /** What was found. Throws a `Failure` when the target cannot hold a value of it as it was. */
  async finish(): Promise<FoundRows[]> {
    const found: FoundRows[] = [];
    for (const place of this.#all) {
      await this.#requireKept(place);
      found.push({
        target: place.wanted.target,
        table: place.found,
        columns: place.columns.filter(
          (name) => place.wanted.target.columns.find((each) => each.name === name)?.generated === false,
        ),
        count: place.count,
      });
    }
    return found;
  }

  /** Columns that are gone from the target must be NULL in every row; typed ones must lose nothing. */
  async #requireKept({ wanted: { target }, columns, found, count }: Place): Promise<void> {
    if (count === 0) return;
    const gone = columns.filter((name) => !target.columns.some((each) => each.name === name));
    const shortened = target.columns.filter(
      (each) => columns.includes(each.name) && each.type !== each.plainType && !each.generated,
    );
    const lost = [
      ...gone.map((name) => `pg_catalog.num_nonnulls(${quoteName(name)}) OPERATOR(pg_catalog.>) 0`),
      ...shortened.map(({ name, type }) => `${quoteName(name)} IS DISTINCT FROM ${quoteName(name)}::${type}`),
    ];
    if (lost.length === 0) return;
    const [row] = await this.#session.query<{ counts: string[] }>(
      `SELECT ARRAY[${lost.map((each) => `pg_catalog.count(*) FILTER (WHERE ${each})`).join(', ')}]::text[] AS counts FROM ${found}`,
    );
    const counts = (row?.counts ?? []).map(Number);
    const told = (names: readonly string[], offset: number): string[] =>
      names.filter((_, at) => (counts[offset + at] ?? 0) > 0).map(displayWord);
    const missing = told(gone, 0);
    const name = displayName(target);
    if (missing.length > 0)
      throw new Failure(
        'restore',
        'restore',
        `the rows of ${name} have values in ${formatCount(missing.length, 'column')} that the target does not have: ${missing.join(', ')}`,
        {
          hint: 'nothing was changed; add the column again and drop it afterwards, or restore the backup into another database and copy what you need',
        },
      );
    const cut = told(
      shortened.map((each) => each.name),
      gone.length,
    );
    if (cut.length > 0)
      throw new Failure('restore', 'restore', `the target would cut or round values of ${name}: ${cut.join(', ')}`, {
        hint: 'nothing was changed; these columns have a narrower type than they had in the backup',
      });
  }
}

interface Place {
  readonly wanted: WantedTable;
  /** Every column that any entry has. */
  readonly columns: readonly string[];
  readonly piece: string;
  readonly found: string;
  count: number;
}

function placeFor(wanted: WantedTable, at: number): Place {
  return {
    wanted,
    columns: [...new Set([...wanted.entries.values()].flat())],
    piece: `pg_temp.pgassay_piece_${at}`,
    found: `pg_temp.pgassay_found_${at}`,
    count: 0,
  };
}

/**
 * Asks the server whether it understands the condition, before anything is downloaded. A column it does not have may
 * still be in the backup. Throws a `Failure`.
 */
export async function checkCondition(session: Session, target: TargetTable, condition: Condition): Promise<void> {
  const columns = target.columns.filter((each) => !each.generated).map((each) => quoteName(each.name));
  const select = `EXPLAIN SELECT FROM (SELECT ${columns.join(', ')} FROM ONLY ${quoteQualified(target)}) AS ${quoteName(target.name)} WHERE (\n`;
  await session.query('BEGIN READ ONLY');
  try {
    await session.query(searchPathFor(target));
    await askWhere(
      session,
      target,
      condition,
      target.columns.map((each) => each.name),
      () => session.query(`${select}${condition.text}\n) AND $1::bool`, [true]),
      select,
    );
  } catch (error) {
    if (!(error instanceof Failure) || sqlState(error.cause) !== undefinedColumn) throw error;
  } finally {
    await session.query('ROLLBACK').catch(() => {});
  }
}

const undefinedColumn = '42703';

/** Names without a schema are PostgreSQL's own, and the operators of extensions' types that the table has. */
function searchPathFor({ typeSchemas }: TargetTable): string {
  return `SET LOCAL search_path = ${typeSchemas.length === 0 ? "''" : typeSchemas.map(quoteName).join(', ')}`;
}

/** Of what the server says about a condition, the place in it and names that it holds itself. */
async function askWhere<T>(
  session: Session,
  target: TargetTable,
  condition: Condition,
  columns: readonly string[],
  ask: () => Promise<T>,
  before: string,
): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    session.lost.throwIfAborted();
    // A syntax error, a value, a function's own exception; the rest is not the condition's fault.
    if (!isDatabaseError(error) || !/^(?:0A|21|22|25|42|P0)/.test(error.code)) throw error;
    const isName = nameOf(target);
    const said = reduceMessage(error.message, (word) =>
      word.split('.').every((part) => condition.names.has(part.replace(/^"|"$/g, '')) || isName(part)),
    );
    const offset = Number((error as { position?: string }).position) - [...before].length;
    const at = offset >= 1 && offset <= [...condition.text].length ? ` (at its character ${offset})` : '';
    throw new Failure(
      'input',
      'badInput',
      `where: the condition for ${displayName(target)} cannot be used: ${said}${at}`,
      {
        hint: `it is one SQL expression over the columns of the backup: ${columns.slice(0, 30).map(displayWord).join(', ')}; functions and tables that are not PostgreSQL's own need their schema, public.users`,
        cause: error,
      },
    );
  }
}

/** The first rows that were found, by primary key where there is one: texts as psql shows them, null for NULL. */
export async function sampleOf(
  session: Session,
  { target, table, columns: held }: FoundRows,
  columns: readonly string[],
  most: number,
): Promise<(string | null)[][]> {
  if (columns.length === 0) return [];
  const text = (name: string): string =>
    `CASE WHEN pg_catalog.num_nulls(${quoteName(name)}) OPERATOR(pg_catalog.=) 0 THEN pg_catalog.format('%s', ${quoteName(name)}) END`;
  const order = target.key
    .filter((each) => held.includes(each.name))
    .map((each) => quoteName(each.name))
    .join(', ');
  const rows = await session.query<{ texts: (string | null)[] }>(
    `SELECT ARRAY[${columns.map(text).join(', ')}]::text[] AS texts FROM ${table}${order === '' ? '' : ` ORDER BY ${order}`} LIMIT ${most}`,
  );
  return rows.map((row) => row.texts);
}

/** Whether a word of a message is a name of this table's own. */
export function nameOf(target: TargetTable): (word: string) => boolean {
  const names = new Set([...target.names, target.schema, target.name]);
  return (word) => names.has(word);
}

const messageBytes = 1024 * 1024;

/** The lines are in memory already, so nothing is waited for between messages. */
async function copyIn(session: Session, statement: string, lines: Buffer): Promise<number> {
  try {
    const stream = session.client.query(from(statement));
    await new Promise<void>((resolve, reject) => {
      stream.once('error', reject).once('finish', () => resolve());
      for (let at = 0; at < lines.length; at += messageBytes) stream.write(lines.subarray(at, at + messageBytes));
      stream.end();
    });
    return stream.rowCount;
  } catch (error) {
    // Says whether it is the session that ended; in a failed transaction this fails too, and means nothing.
    await session.query('SELECT 1').catch(() => {});
    session.lost.throwIfAborted();
    throw error;
  }
}
