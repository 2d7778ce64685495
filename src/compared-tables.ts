import { noKeys } from './age.ts';
import type { Backup } from './catalog.ts';
import { Failure } from './failure.ts';
import { type CountedTable, comparedWith, type HealthFacts } from './health-findings.ts';
import { type Census, encryptionOf } from './manifest.ts';
import { displayName, nameKey } from './postgres/names.ts';
import type { Store } from './store/store.ts';
import { readCensus } from './verify.ts';

/** A backup whose bytes are not what was stored; `reason` is a clause. */
export interface Damage {
  readonly id: string;
  readonly reason: string;
}

export interface ComparedTables {
  readonly tables: HealthFacts['tables'];
  readonly damage: readonly Damage[];
}

/**
 * Tables of the newest backup of a series and of the one it is compared with, and what is wrong with what says so; no
 * tables where only the holder of a key may read them.
 */
export async function readComparedTables(store: Store, series: readonly Backup[]): Promise<ComparedTables> {
  const [newest, before] = [series[0], comparedWith(series)[0]];
  if (newest === undefined || before === undefined) return { tables: undefined, damage: [] };
  const [now, then] = await Promise.all([tablesOf(store, newest), tablesOf(store, before)]);
  const damage = [now, then].flatMap((each) => ('reason' in each ? [each] : []));
  const readable = 'tables' in now && now.tables !== undefined && 'tables' in then && then.tables !== undefined;
  return { tables: readable ? { newest: now.tables, before: then.tables } : undefined, damage };
}

async function tablesOf(
  store: Store,
  { manifest }: Backup,
): Promise<{ readonly tables: CountedTable[] | undefined } | Damage> {
  if (encryptionOf(manifest) !== null) return { tables: undefined };
  const read = await damageOf(() => readCensus({ store, manifest, keys: noKeys }));
  return typeof read === 'string' ? { id: manifest.id, reason: read } : { tables: countedTables(read) };
}

function countedTables({ tables, contents }: Census): CountedTable[] {
  const partitions = new Set(
    contents
      .filter(({ kind }) => kind === 'TABLE ATTACH')
      .map(({ schema, tag }) => nameKey({ schema: schema ?? '', name: tag })),
  );
  return tables.map((table) => ({
    name: displayName(table),
    rows: table.data ? table.rows : undefined,
    partition: partitions.has(nameKey(table)),
  }));
}

/** What `read` found wrong with the bytes, as a clause; any other failure is thrown. */
export async function damageOf<T>(read: () => Promise<T>): Promise<T | string> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof Failure) || error.exit !== 'verification') throw error;
    return error.message.replace(/^\S+\/\S+: /, '');
  }
}
