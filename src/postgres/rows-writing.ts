import { Failure } from '../failure.ts';
import type { Log } from '../log.ts';
import { formatCount, formatNumber } from '../numbers.ts';
import { ourSettings, theirSettings } from './application-settings.ts';
import type { Session } from './connect.ts';
import { isDatabaseError, reduceMessage } from './messages.ts';
import { displayName, displayWord, quoteName, quoteQualified, sqlName, sqlWord } from './names.ts';
import { lockFailure, lockNotAvailable } from './rows-session.ts';
import { type FoundRows, nameOf } from './rows-staging.ts';
import {
  type InsertionOrder,
  insertionOrder,
  type OwnedSequence,
  readTargetTables,
  type TargetTable,
  triggerNames,
  type WritePlan,
} from './rows-target.ts';

/** What became of the rows of one table. */
export interface WrittenRows {
  readonly inserted: number;
  /** There already, and left as they were; with `triggers: on`, also what a trigger kept out. */
  readonly skipped: number;
  /** There already, and now as in the backup. */
  readonly updated: number;
}

/**
 * The one transaction that writes: it locks the tables against ALTER, looks at them again, inserts in the order of the
 * foreign keys, has every constraint checked and compares what is there with what was found. The caller ends it.
 */
export class RowsTransaction {
  readonly #session: Session;
  readonly #found: readonly FoundRows[];
  readonly #plan: WritePlan;
  readonly #log: Log;

  constructor(session: Session, found: readonly FoundRows[], plan: WritePlan, log: Log) {
    this.#session = session;
    this.#found = found;
    this.#plan = plan;
    this.#log = log;
  }

  /** Everything but COMMIT or ROLLBACK. Throws a `Failure` that names table and constraint, and no value. */
  async write(): Promise<Map<FoundRows, WrittenRows>> {
    const session = this.#session;
    const targets = this.#found.map((each) => each.target);
    for (const [at] of this.#found.entries())
      await session.query(`BEGIN READ WRITE; CREATE TEMPORARY TABLE ${written(at)} (relation oid, place tid); COMMIT`);
    await session.query('BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE');
    const order = await this.#lock(targets);
    const states = await this.#switchTriggersOff(order.tables);
    if (order.deferred) await session.query('SET CONSTRAINTS ALL DEFERRED');
    await session.query(theirSettings);
    const outcome = new Map<FoundRows, WrittenRows>();
    for (const target of order.tables) {
      const at = this.#found.findIndex((each) => each.target.oid === target.oid);
      const found = this.#found[at];
      if (found === undefined) continue;
      outcome.set(found, await this.#refusals(order.tables, () => this.#insert(found, at), target));
    }
    await this.#refusals(order.tables, () => session.query('SET CONSTRAINTS ALL IMMEDIATE'));
    await session.query(ourSettings);
    await this.#switchTriggersBack(order.tables, states);
    for (const [at, found] of this.#found.entries()) await this.#compare(found, at, outcome.get(found));
    for (const { sequences, ...target } of order.tables) await this.#judgeSequences(target, sequences);
    return outcome;
  }

  /** Tables in one order for all runs; what was read of them before may have changed since. */
  async #lock(targets: readonly TargetTable[]): Promise<InsertionOrder> {
    for (const target of [...targets].sort((a, b) => a.oid - b.oid)) {
      const mode =
        this.#plan.triggers === 'off' && target.triggers.length > 0 ? 'SHARE ROW EXCLUSIVE' : 'ROW EXCLUSIVE';
      await this.#refusals([target], () =>
        this.#session.query(`LOCK TABLE ${only(target)}${quoteQualified(target)} IN ${mode} MODE`),
      );
    }
    const now = await readTargetTables(this.#session, targets, this.#plan);
    const shape = (tables: readonly TargetTable[]): string =>
      JSON.stringify(tables.map((table) => ({ ...table, sequences: [] })));
    if (shape(now) !== shape(targets))
      throw new Failure('restore', 'restore', 'a table was changed at the target while its rows were being read', {
        hint: 'nothing was changed; run it again',
      });
    return insertionOrder(now);
  }

  async #insert(found: FoundRows, at: number): Promise<WrittenRows> {
    const { target, columns, table, count } = found;
    const list = columns.map(quoteName).join(', ');
    const key = target.key.map((each) => quoteName(each.name)).join(', ');
    const conflict = { fail: '', skip: ' ON CONFLICT DO NOTHING', update: ` ON CONFLICT (${key}) DO NOTHING` };
    const inserted = await this.#record(
      at,
      `INSERT INTO ${quoteQualified(target)} (${list}) OVERRIDING SYSTEM VALUE SELECT ${list} FROM ${table}${conflict[this.#plan.onConflict]}
       RETURNING tableoid AS relation, ctid AS place`,
    );
    const left = count - inserted;
    if (this.#plan.onConflict !== 'update' || left === 0) return { inserted, skipped: left, updated: 0 };
    const settable = settableColumns(found);
    if (settable.length === 0) return { inserted, skipped: left, updated: 0 };
    const updated = await this.#record(
      at,
      `UPDATE ${only(target)}${quoteQualified(target)} AS target
       SET ${settable.map((name) => `${quoteName(name)} = source.${quoteName(name)}`).join(', ')}
       FROM ${table} AS source
       WHERE ${target.key.map(({ name, equals }) => `target.${quoteName(name)} ${equals} source.${quoteName(name)}`).join(' AND ')}
         AND NOT EXISTS (SELECT FROM ${written(at)} w WHERE w.relation OPERATOR(pg_catalog.=) target.tableoid AND w.place OPERATOR(pg_catalog.=) target.ctid)
       RETURNING target.tableoid AS relation, target.ctid AS place`,
    );
    return { inserted, skipped: left - updated, updated };
  }

  /** Where each row went is written down, so that it can be looked at again without an index. */
  async #record(at: number, statement: string): Promise<number> {
    const [row] = await this.#session.query<{ count: string }>(
      `WITH done AS (${statement}), noted AS (INSERT INTO ${written(at)} SELECT relation, place FROM done RETURNING 1)
       SELECT pg_catalog.count(*) AS count FROM noted`,
    );
    return Number(row?.count ?? 0);
  }

  /** Every row that was written must still be there, as in the backup: a trigger may have changed it. */
  async #compare(found: FoundRows, at: number, outcome: WrittenRows | undefined): Promise<void> {
    const { target, columns, table, count } = found;
    if (outcome === undefined) throw new Error('a table was not written');
    const wanted = new Map(
      target.columns
        .filter((each) => columns.includes(each.name))
        .map(({ name, type }) => [name, `${quoteName(name)}::${type}`]),
    );
    const changedIn = async (names: readonly string[]): Promise<number> => {
      const backup = `SELECT ${digest(names.map((name) => wanted.get(name) ?? ''))} FROM ${table}`;
      const now = `SELECT ${digest(names.map((name) => `target.${quoteName(name)}`))} FROM ${only(target)}${quoteQualified(target)} AS target
        WHERE target.ctid = ANY (ARRAY(SELECT place FROM ${written(at)}))
          AND EXISTS (SELECT FROM ${written(at)} w WHERE w.relation = target.tableoid AND w.place = target.ctid)`;
      const [row] = await this.#session.query<{ differing: string; there: string }>(
        `SELECT (SELECT pg_catalog.count(*) FROM (${now} EXCEPT ALL ${backup}) d) AS differing,
                (SELECT pg_catalog.count(*) FROM (${now}) n) AS there`,
      );
      const gone = outcome.inserted + outcome.updated - Number(row?.there ?? 0);
      return gone + Number(row?.differing ?? 0);
    };
    const { onConflict } = this.#plan;
    const maySkip = onConflict === 'skip' || (onConflict === 'update' && settableColumns(found).length === 0);
    const rejected = maySkip ? 0 : outcome.skipped;
    const changed = (await changedIn(columns)) + rejected;
    if (changed === 0) return;
    const where: string[] = [];
    if (rejected === 0) for (const name of columns) if ((await changedIn([name])) > 0) where.push(displayWord(name));
    const named = where.length === 0 || where.length === columns.length ? '' : ` (${where.join(', ')})`;
    const ran = target.triggers.length > 0 && this.#plan.triggers === 'on';
    throw new Failure(
      'restore',
      'restore',
      `${formatNumber(changed)} of the ${formatCount(count, 'row')} of ${displayName(target)} would not be as in the backup${named}${ran ? `: its triggers change what is inserted, ${triggerNames(target)}` : ''}`,
      {
        hint: ran
          ? 'it was rolled back, nothing was changed; --triggers off brings the rows back as they were'
          : 'it was rolled back, nothing was changed; if somebody else was changing the same rows, run it again, else look for triggers of other tables',
      },
    );
  }

  async #switchTriggersOff(tables: readonly TargetTable[]): Promise<string> {
    if (this.#plan.triggers !== 'off') return '';
    const states = await this.#triggerStates(tables);
    for (const { triggers } of tables)
      for (const { name, table } of triggers)
        await this.#refusals(tables, () =>
          this.#session.query(`ALTER TABLE ONLY ${quoteQualified(table)} DISABLE TRIGGER ${quoteName(name)}`),
        );
    return states;
  }

  /** Parents first: what is said of them goes on to their partitions, which are set after them. */
  async #switchTriggersBack(tables: readonly TargetTable[], states: string): Promise<void> {
    if (this.#plan.triggers !== 'off') return;
    for (const { triggers } of tables)
      for (const { name, table, always } of triggers)
        await this.#session.query(
          `ALTER TABLE ONLY ${quoteQualified(table)} ENABLE ${always ? 'ALWAYS ' : ''}TRIGGER ${quoteName(name)}`,
        );
    if ((await this.#triggerStates(tables)) !== states)
      throw new Failure('restore', 'restore', 'the triggers could not be switched on again exactly as they were', {
        hint: 'it was rolled back, nothing was changed; --triggers on leaves them alone',
      });
  }

  async #triggerStates(tables: readonly TargetTable[]): Promise<string> {
    const rows = await this.#session.query(
      `SELECT tgrelid::text, tgname::text, tgenabled FROM pg_catalog.pg_trigger
       WHERE tgrelid = ANY ($1::oid[]) ORDER BY tgrelid, tgname`,
      [tables.flatMap((table) => table.family)],
    );
    return JSON.stringify(rows);
  }

  /** Nothing else changes at the target, so a sequence that will give a key again is only told. */
  async #judgeSequences(target: Omit<TargetTable, 'sequences'>, sequences: readonly OwnedSequence[]): Promise<void> {
    const found = this.#found.find((each) => each.target.oid === target.oid);
    for (const { schema, name, column, ascending, next } of sequences) {
      const type = target.columns.find((each) => each.name === column)?.type ?? '';
      if (next === null || !found?.columns.includes(column) || !['smallint', 'integer', 'bigint'].includes(type))
        continue;
      const furthest = ascending ? 'max' : 'min';
      const [row] = await this.#session.query<{ behind: boolean | null }>(
        `SELECT pg_catalog.${furthest}(${quoteName(column)}) ${ascending ? '>=' : '<='} $1::numeric AS behind FROM ${found.table}`,
        [next],
      );
      if (row?.behind !== true) continue;
      const sequence = sqlName({ schema, name }).replaceAll("'", "''");
      this.#log.warn(
        `the sequence ${displayName({ schema, name })} will give keys that these rows have; to move it on: SELECT setval('${sequence}', (SELECT ${furthest}(${sqlWord(column)}) FROM ${sqlName(target)}));`,
      );
    }
  }

  /** The server's refusals in our words, names of constraints and tables kept where the catalog knows them. */
  async #refusals<T>(tables: readonly TargetTable[], work: () => Promise<T>, about?: TargetTable): Promise<T> {
    try {
      return await work();
    } catch (error) {
      this.#session.lost.throwIfAborted();
      if (!isDatabaseError(error)) throw error;
      throw refusal(error, tables, about);
    }
  }
}

/** Of pg's error, names that the catalog may confirm; a trigger can put anything there. */
interface Named {
  readonly code: string;
  readonly message: string;
  readonly schema?: string;
  readonly table?: string;
  readonly constraint?: string;
}

/** `about` is the table that was being written; a deferred constraint names its own. */
function refusal(error: Named & Error, tables: readonly TargetTable[], about?: TargetTable): Failure {
  const { code, constraint = '' } = error;
  const holders = tables.filter((each) => each.names.includes(constraint) && each.names.includes(error.table ?? ''));
  const target =
    holders.find((each) => each.schema === error.schema && each.name === error.table) ??
    holders[0] ??
    about ??
    (tables.length === 1 ? tables[0] : undefined);
  const known = target?.names.includes(constraint) === true;
  const at = target === undefined ? 'the target' : displayName(target);
  if ((code === '23505' || code === '23P01') && known)
    return new Failure('restore', 'restore', `${at} has rows with the same key already (${displayWord(constraint)})`, {
      hint: 'it was rolled back, nothing was changed; --on-conflict skip leaves rows that are there as they are, --on-conflict update makes them as in the backup',
      cause: error,
    });
  const reference = target?.references.find((each) => each.name === constraint);
  if (code === '23503' && reference !== undefined)
    return new Failure(
      'restore',
      'restore',
      `rows of ${at} refer to rows of ${displayName(reference.to)} that are not there (${displayWord(constraint)})`,
      {
        hint: `it was rolled back, nothing was changed; bring those rows back too: --table ${displayName(reference.to)} --where …`,
        cause: error,
      },
    );
  if (code === lockNotAvailable) return lockFailure(error, at);
  const isName = (word: string): boolean => tables.some((each) => nameOf(each)(word));
  return new Failure('restore', 'restore', `${at} refused the rows: ${reduceMessage(error.message, isName)}`, {
    hint: 'it was rolled back, nothing was changed',
    cause: error,
  });
}

/** What an update sets: no key, and nothing that the server refuses to have set. */
function settableColumns({ target, columns }: FoundRows): string[] {
  return columns.filter(
    (name) =>
      !target.key.some((each) => each.name === name) &&
      target.columns.find((each) => each.name === name)?.identityAlways === false,
  );
}

function written(at: number): string {
  return `pg_temp.pgassay_written_${at}`;
}

function only({ partitioned }: TargetTable): string {
  return partitioned ? '' : 'ONLY ';
}

/** One number for a row: a chain of hashes over its values' output texts, as in a census. */
function digest(values: readonly string[]): string {
  let chain = '0::bigint';
  for (const value of values)
    chain = `pg_catalog.hashtextextended(CASE WHEN pg_catalog.num_nulls(${value}) OPERATOR(pg_catalog.=) 1 THEN 'n' ELSE pg_catalog.format('v%s', ${value}) END COLLATE pg_catalog."C", ${chain})`;
  return chain;
}
