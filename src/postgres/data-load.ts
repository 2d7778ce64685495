/** Puts an archive's rows into tables that are there, in the session's own transaction. */
import { from as copyFrom } from 'pg-copy-streams';
import { Failure } from '../failure.ts';
import { ourSettings, theirSettings } from './application-settings.ts';
import { type RowsSource, readArchiveRows } from './archive-rows.ts';
import type { Session } from './connect.ts';
import type { DataPlan } from './data-target.ts';
import { isDatabaseError, reduceMessage, sqlState } from './messages.ts';
import { displayName, type QualifiedName, quoteName, quoteQualified } from './names.ts';

/** Where a sequence is put. */
export interface Position extends QualifiedName {
  readonly value: string;
  readonly called: boolean;
}

const pieceBytes = 1024 * 1024;

/** Keeps everybody from writing to the tables until the transaction ends. */
export async function lockData(session: Session, tables: readonly QualifiedName[], clean: boolean): Promise<void> {
  const mode = clean ? 'ACCESS EXCLUSIVE' : 'SHARE ROW EXCLUSIVE';
  for (const table of tables) await session.query(`LOCK TABLE ONLY ${quoteQualified(table)} IN ${mode} MODE`);
}

/**
 * Empties what is to be emptied, loads every table and sets every sequence. All foreign keys hold when it returns. Throws
 * a `Failure` that holds no row value; the transaction is to be rolled back then.
 */
export async function loadData(
  session: Session,
  plan: DataPlan,
  positions: readonly Position[],
  {
    source,
    encoding,
    signal,
    onTable,
  }: {
    readonly source: Omit<RowsSource, 'entries'>;
    /** The archive's. */
    readonly encoding: string;
    readonly signal: AbortSignal;
    readonly onTable: (table: QualifiedName) => void;
  },
): Promise<void> {
  const refused = refusing(plan);
  for (const key of plan.postponed)
    await session.query(
      `ALTER TABLE ${quoteQualified(key.from)} ALTER CONSTRAINT ${quoteName(key.name)} DEFERRABLE INITIALLY DEFERRED`,
    );
  await session.query('SET CONSTRAINTS ALL DEFERRED');
  // Rows are read as pg_restore has them read: money as the database writes it, and any XML.
  await session.query(`${theirSettings}; SET LOCAL xmloption = 'content'`);
  if (plan.truncate.length > 0)
    await refused('emptying the tables', () =>
      session.query(
        `TRUNCATE ${plan.truncate.map(({ name, only }) => `${only ? 'ONLY ' : ''}${quoteQualified(name)}`).join(', ')}`,
      ),
    );
  const tables = new Map(plan.tables.map((table) => [table.entry, table]));
  let current: { readonly entry: number; readonly copy: TableCopy } | undefined;
  const finish = async (): Promise<void> => {
    const done = current;
    current = undefined;
    if (done !== undefined) await refused(nameOf(tables.get(done.entry)), () => done.copy.end());
  };
  if (tables.size > 0)
    await readArchiveRows(
      { ...source, entries: [...tables.keys()] },
      pieceBytes,
      async (entry, lines) => {
        const table = tables.get(entry);
        if (table === undefined) throw new Error('rows of an entry that nobody asked for');
        if (current?.entry !== entry) {
          await finish();
          onTable(table);
          const columns = table.columns.map(quoteName).join(', ');
          const list = columns === '' ? '' : ` (${columns})`;
          current = {
            entry,
            copy: new TableCopy(
              session,
              `COPY ${quoteQualified(table)}${list} FROM STDIN (FORMAT text, ENCODING '${encoding}')`,
            ),
          };
        }
        const { copy } = current;
        await refused(nameOf(table), () => copy.write(lines));
      },
      signal,
    );
  await finish();
  await refused('what waited for the end', () => session.query('SET CONSTRAINTS ALL IMMEDIATE'));
  await session.query(ourSettings);
  for (const key of plan.postponed)
    await session.query(
      `ALTER TABLE ${quoteQualified(key.from)} ALTER CONSTRAINT ${quoteName(key.name)} NOT DEFERRABLE`,
    );
  for (const position of positions) await refused(`sequence ${displayName(position)}`, () => put(session, position));
}

/**
 * A bare setval outlives a rollback. After RESTART the sequence has a storage of its own until the transaction ends, and
 * setval writes there.
 */
async function put(session: Session, { schema, name, value, called }: Position): Promise<void> {
  const sequence = quoteQualified({ schema, name });
  await session.query(`ALTER SEQUENCE ${sequence} RESTART`);
  await session.query('SELECT pg_catalog.setval($1::regclass, $2::bigint, $3::bool)', [sequence, value, called]);
}

function nameOf(table: QualifiedName | undefined): string {
  return table === undefined ? 'a table' : `the rows of ${displayName(table)}`;
}

function refusing({ names }: DataPlan): (what: string, work: () => Promise<unknown>) => Promise<void> {
  const known = new Set(names);
  return async (what, work) => {
    try {
      await work();
    } catch (error) {
      if (!isDatabaseError(error)) throw error;
      const dangling = sqlState(error) === '23503';
      throw new Failure(
        'restore',
        'restore',
        `the target refused ${what}: ${reduceMessage(error.message, (word) => known.has(word))}${dangling ? '; a row refers to one that is neither in the backup nor in the target' : ''}`,
        { cause: error },
      );
    }
  };
}

/** One COPY, for all rows of a table: its foreign keys are checked when it ends, so a row may refer to a later one. */
class TableCopy {
  readonly #session: Session;
  readonly #stream: ReturnType<typeof copyFrom>;
  readonly #done = Promise.withResolvers<void>();
  #failed = false;

  constructor(session: Session, statement: string) {
    this.#session = session;
    this.#stream = session.client.query(copyFrom(statement));
    this.#stream.once('finish', () => this.#done.resolve());
    this.#stream.once('error', (error) => {
      this.#failed = true;
      this.#done.reject(error);
    });
    const onLost = (): void => this.#done.reject(session.lost.reason);
    session.lost.addEventListener('abort', onLost, { once: true });
    this.#done.promise.catch(() => {}).finally(() => session.lost.removeEventListener('abort', onLost));
  }

  async write(lines: Buffer): Promise<void> {
    if (this.#failed) return this.#result();
    if (this.#stream.write(lines)) return;
    const drained = Promise.withResolvers<void>();
    this.#stream.once('drain', drained.resolve);
    await Promise.race([drained.promise, this.#done.promise]).catch(() => {});
    if (this.#failed || this.#session.lost.aborted) return this.#result();
  }

  async end(): Promise<void> {
    if (!this.#failed) this.#stream.end();
    return this.#result();
  }

  async #result(): Promise<void> {
    try {
      await this.#done.promise;
    } catch (error) {
      // Says whether it is the session that ended; in a failed transaction this fails too, and means nothing.
      await this.#session.query('SELECT 1').catch(() => {});
      this.#session.lost.throwIfAborted();
      throw error;
    }
  }
}
