import type { CheckedArchive } from './checked-archive.ts';
import { censusOfData, chooseData } from './data-choice.ts';
import { Failure } from './failure.ts';
import type { Log } from './log.ts';
import type { Census } from './manifest.ts';
import { formatCount } from './numbers.ts';
import { columnsOfRows } from './postgres/archive-rows.ts';
import type { Programs } from './postgres/client.ts';
import type { Session } from './postgres/connect.ts';
import { loadData, lockData } from './postgres/data-load.ts';
import { type ArchivedRows, type DataPlan, planData } from './postgres/data-target.ts';
import { displayName, displayWord, nameKey, sqlName } from './postgres/names.ts';
import { countOthers } from './postgres/target-checks.ts';
import { type Compared, compareWithCensus } from './restore-comparison.ts';
import type { RestoreConfig } from './restore-config.ts';

export interface DataRestore {
  readonly config: RestoreConfig;
  readonly source: {
    readonly programs: Programs;
    readonly folder: string;
    readonly archive: CheckedArchive;
    readonly census: Census;
  };
  /** A session in the target, which is there. */
  readonly open: () => Promise<Session>;
  readonly close: (session: Session) => Promise<void>;
  /** Taken before anything is emptied, where one is wanted. */
  readonly takeSafetyBackup: () => Promise<void>;
  /** From now on something is done, in the transaction of this number. */
  readonly began: (transaction: string) => void;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/**
 * Rows and sequence positions, into tables that are there, in one transaction that is committed when foreign keys hold
 * and the rows of each table are those of the census. Throws a `Failure`; the target is as it was then.
 */
export async function restoreData(restore: DataRestore): Promise<Compared> {
  const { config, source, log } = restore;
  const { clean, confirmed, safetyBackup, target } = config;
  const name = displayWord(target.database);
  const choice = chooseData(source.archive.toc, config.wanted);
  if (!confirmed)
    throw new Failure('restore', 'badInput', `rows go into tables that ${name} has already; nothing was changed`, {
      hint: `say that this database is meant with confirm: ${name}`,
    });
  const wanted = {
    rows: choice.rows.map(
      (entry): ArchivedRows => ({
        ...{ schema: entry.schema ?? '', name: entry.tag, entry: entry.dumpId },
        columns: columnsOfRows(entry) ?? [],
      }),
    ),
    positions: choice.positions.map((entry) => ({ schema: entry.schema ?? '', name: entry.tag })),
  };
  const census = censusOfData(choice, source.census);
  let session = await restore.open();
  const plan = await planData(session, wanted, { clean });
  if (clean && safetyBackup) {
    await restore.close(session);
    await restore.takeSafetyBackup();
    session = await restore.open();
  }
  if (census.digest !== null && plan.wider.length > 0)
    log.warn(
      `columns that the backup does not have get their defaults, so these tables are compared by their number of rows, not by digest: ${some(plan.wider.map(displayName))}`,
    );
  await announce(session, plan, restore);
  return inTransaction(session, restore, async () => {
    // What somebody else writes until the locks are there is seen by what is read after them.
    await lockData(session, plan.tables, clean);
    const settled = await planData(session, wanted, { clean });
    if (shapeOf(settled) !== shapeOf(plan))
      throw new Failure('restore', 'restore', `a table of ${name} was changed while the restore was being prepared`, {
        hint: 'nothing was changed by it; run it again',
      });
    const expected = expectedOf(census, settled);
    let done = 0;
    const { archive, folder, programs } = source;
    await loadData(session, settled, expected.sequences, {
      source: { programs, folder, archive },
      encoding: archive.toc.encoding,
      signal: restore.signal,
      onTable: (table) => log.progress(`restore ${displayName(table)} (${++done} of ${settled.tables.length} tables)`),
    });
    return compareWithCensus(session, expected, {
      all: true,
      otherwise: `it was rolled back, ${name} is as it was before; look for triggers that change rows${plan.triggers.length === 0 ? '' : `: ${plan.triggers.slice(0, 5).join(', ')}`}`,
      log,
    });
  });
}

/** What would go otherwise than was said. */
function shapeOf({ tables, sequences, truncate, postponed, triggers, wider }: DataPlan): string {
  return JSON.stringify({ tables, sequences, truncate, postponed, triggers, wider });
}

/** What is loaded, by its digest only where the target has the columns that it was made of, and no others. */
function expectedOf(census: Census, plan: DataPlan): Census {
  const loaded = new Set([...plan.tables, ...plan.sequences].map(nameKey));
  const wider = new Set(plan.wider.map(nameKey));
  return {
    ...census,
    tables: census.tables
      .filter((table) => loaded.has(nameKey(table)))
      .map(({ digest, ...table }) =>
        digest === undefined || wider.has(nameKey(table)) ? table : { ...table, digest },
      ),
    sequences: census.sequences.filter((sequence) => loaded.has(nameKey(sequence))),
  };
}

/** Said before anything is done. */
async function announce(session: Session, plan: DataPlan, { config, log }: DataRestore): Promise<void> {
  const { tables, sequences, truncate, circle, postponed, triggers, views } = plan;
  const name = displayWord(config.target.database);
  if (triggers.length > 0)
    log.warn(
      `triggers of ${name} run for every row, unless they are disabled first (ALTER TABLE … DISABLE TRIGGER …): ${some(triggers)}`,
    );
  if (circle.length > 0)
    log.notice(
      `foreign keys between ${some(circle.map(displayName))} form a circle: they are checked at the end${
        postponed.length === 0
          ? ''
          : `, for which ${some(postponed.map((key) => displayWord(key.name)))} ${postponed.length === 1 ? 'is' : 'are'} deferrable until then`
      }`,
    );
  if (views.length > 0)
    log.notice(
      `materialized views show what they showed before until they are refreshed: ${some(views.map((view) => `REFRESH MATERIALIZED VIEW ${sqlName(view)};`))}`,
    );
  const others = await countOthers(session);
  log.notice(
    `the rows of ${formatCount(tables.length, 'table')} and the positions of ${formatCount(sequences.length, 'sequence')} ${truncate.length > 0 ? 'replace what is there' : 'are added'}, in one transaction: until it ends, and if it fails, ${name} is as it was${
      others === 0 ? '' : `; it waits for ${formatCount(others, 'other session')} that may hold locks there`
    }`,
  );
}

function some(names: readonly string[]): string {
  return names.length > 10 ? `${names.slice(0, 10).join(', ')} and ${names.length - 10} more` : names.join(', ');
}

async function inTransaction<T>(session: Session, restore: DataRestore, work: () => Promise<T>): Promise<T> {
  await session.query('BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE');
  const [row] = await session.query<{ id: string }>('SELECT pg_catalog.pg_current_xact_id()::text AS id');
  restore.began(row?.id ?? '');
  const result = await work();
  restore.signal.throwIfAborted();
  // The COMMIT of a transaction that has failed is a ROLLBACK that reports no error.
  await session.query('SELECT 1');
  await session.query('COMMIT');
  return result;
}
