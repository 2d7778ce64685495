import { AtOnce } from './at-once.ts';
import { idPattern, namePattern } from './backup-id.ts';
import { Failure } from './failure.ts';
import type { Log } from './log.ts';
import { JsonCheck, parseJsonObject, type Source, UnreadableDocument } from './manifest.ts';
import { putNext, recordsFolder, type Store } from './store/store.ts';

/** What `_restores/<time>.json` in a store says: who restored what into which database, and how it ended. */
export interface RestoreRecord {
  readonly format: 'pgassay-restore/1';
  readonly name: string;
  readonly backupId: string;
  /** ISO 8601 in UTC. */
  readonly startedAt: string;
  readonly finishedAt: string;
  /** The target database's name; no host, no user of the server. */
  readonly database: string;
  /** Null are patterns that name what an encrypted backup keeps secret. */
  readonly scope: {
    readonly mode: string;
    readonly tables: readonly string[] | null;
    readonly schemas: readonly string[] | null;
    readonly clean: boolean;
  };
  readonly result: 'restored' | 'failed';
  /** What it failed with, `50`; null when it did not. */
  readonly exitCode: number | null;
  /** What was restored; null when it failed. */
  readonly totals: { readonly tables: number; readonly rows: number } | null;
  readonly safetyBackupId: string | null;
  /** The person on GitHub, or the user of the machine. */
  readonly by: string;
  readonly source: Source | null;
}

/** Each list of patterns, unless it says something: then null. */
export function withoutPatterns<T extends Readonly<Record<string, readonly string[]>>>(
  lists: T,
): { readonly [Key in keyof T]: T[Key] | null } {
  const kept = Object.entries(lists).map(([key, patterns]) => [key, patterns.length === 0 ? patterns : null]);
  return Object.fromEntries(kept) as { readonly [Key in keyof T]: T[Key] | null };
}

/** A few hundred bytes, and as many patterns as somebody typed. */
const largestRecord = 1024 * 1024;
/** Whoever may write to a store may put large files there, and many. */
const reading = new AtOnce(16);

const recordPattern = /^\d{8}T\d{6}Z(?:-\d+)?\.json$/;

/** A store that refuses it is a warning: the restore is what it is. */
export async function writeRecord(store: Store, record: RestoreRecord, log: Log): Promise<void> {
  const file = record.finishedAt.replace(/[-:]/g, '').replace(/\.\d+Z$/, 'Z');
  const content = Buffer.from(`${JSON.stringify(record, null, 2)}\n`);
  try {
    await putNext(store, `${recordsFolder}/${file}.json`, content);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    log.warn(`this restore could not be recorded in the store: ${error.message}`);
  }
}

/** Newest first; of one name where one is given. What is no record is passed over. */
export async function readRecords(store: Store, name: string | undefined): Promise<RestoreRecord[]> {
  const files = (await store.records()).filter((file) => recordPattern.test(file));
  const records = await Promise.all(
    files.map((file) => reading.run(() => readRecord(store, `${recordsFolder}/${file}`))),
  );
  return records
    .filter((record) => record !== undefined)
    .filter((record) => name === undefined || record.name === name)
    .sort((a, b) => Date.parse(b.finishedAt) - Date.parse(a.finishedAt));
}

async function readRecord(store: Store, path: string): Promise<RestoreRecord | undefined> {
  try {
    const bytes = await store.read(path, 0, largestRecord);
    return bytes === undefined ? undefined : parseRecord(bytes);
  } catch (error) {
    if (error instanceof UnreadableDocument) return undefined;
    if (error instanceof Failure && error.exit === 'verification') return undefined;
    throw error;
  }
}

/** Parses and checks a record. Throws {@link UnreadableDocument}. */
export function parseRecord(bytes: Buffer): RestoreRecord {
  const value = parseJsonObject(bytes, 'the record');
  const check = new JsonCheck(value, 'the record');
  check.text('format', /^pgassay-restore\/1$/);
  check.text('name', namePattern);
  check.text('backupId', idPattern);
  for (const key of ['startedAt', 'finishedAt']) check.time(key);
  for (const key of ['database', 'by']) check.text(key);
  const scope = check.object('scope');
  scope.text('mode');
  for (const key of ['tables', 'schemas']) if (!scope.isNull(key)) scope.texts(key);
  scope.flag('clean');
  check.text('result', /^(?:restored|failed)$/);
  if (!check.isNull('exitCode')) check.count('exitCode');
  const totals = check.isNull('totals') ? undefined : check.object('totals');
  for (const key of ['tables', 'rows']) totals?.count(key);
  if (!check.isNull('safetyBackupId')) check.text('safetyBackupId', idPattern);
  return value as unknown as RestoreRecord;
}
