import { randomBytes } from 'node:crypto';
import type { Encryption, Keys } from './age.ts';
import type { Backup } from './catalog.ts';
import { type CheckedArchive, checkedArchive } from './checked-archive.ts';
import { cancelled, Failure } from './failure.ts';
import type { Log } from './log.ts';
import { type Machine, type ProgramChoice, programsFor, programsOfMajor, withPrivateFolder } from './machine.ts';
import { type Census, encryptionOf, type Manifest, type Source as RunSource } from './manifest.ts';
import { formatAge, formatCount, formatSeconds, formatTime } from './numbers.ts';
import type { Wanted } from './postgres/archive-selection.ts';
import type { TocEntry } from './postgres/archive-toc.ts';
import { childEnvironment } from './postgres/child-environment.ts';
import type { Programs } from './postgres/client.ts';
import type { Session } from './postgres/connect.ts';
import { applyToDatabase, databaseStatements } from './postgres/database-settings.ts';
import { settleDefaultGrants } from './postgres/default-grants.ts';
import { isDatabaseError, reduceMessage } from './postgres/messages.ts';
import { displayName, displayWord, nameKey, type QualifiedName } from './postgres/names.ts';
import { readRestored, type Unread } from './postgres/read-back.ts';
import { JobsDeadlocked, type OwnerChoice, restoreArchive } from './postgres/restore.ts';
import { describeContent, readContents } from './postgres/restored-objects.ts';
import { readServerFacts } from './postgres/server.ts';
import { Target } from './postgres/target.ts';
import { countOthers, objectsOf, readRelationIds, requireAnother, requireServer } from './postgres/target-checks.ts';
import { TargetRoles } from './postgres/target-roles.ts';
import type { ConnectionTarget } from './postgres/url.ts';
import { restoreSecurityWarning } from './postgres/version.ts';
import { endSessions } from './postgres/watch.ts';
import { type Choice, choose, listed } from './restore-choice.ts';
import { type RestoreRecord, withoutPatterns, writeRecord } from './restore-record.ts';
import { takeSafetyBackup } from './safety-backup.ts';
import { openStore, type StoreChoice } from './store/open.ts';
import type { Store } from './store/store.ts';
import { requireKeys, warnUnneeded } from './stored-files.ts';
import { compareRestored, describeFindings, type Recorded } from './verdict.ts';
import { readCensus } from './verify.ts';

export interface RestoreConfig extends ProgramChoice {
  readonly target: ConnectionTarget;
  /** A backup that is older is refused. */
  readonly maxAgeMs: number | undefined;
  /** Both empty: the whole backup. */
  readonly wanted: Wanted;
  readonly mode: 'full' | 'schema-only';
  /** What the target has of it is dropped first. */
  readonly clean: boolean;
  /** The user has typed the target database's name. */
  readonly confirmed: boolean;
  /** Of a target that loses something, before it does. */
  readonly safetyBackup: boolean;
  /** To whom that backup is encrypted. */
  readonly encryption: Encryption | undefined;
  /** What there is to open the restored one with. */
  readonly keys: Keys;
  /** Where that backup goes: the store that is restored from. */
  readonly store: StoreChoice;
  readonly stallMs: number;
  readonly source: RunSource | null;
  /** Who started it, for the record of it. */
  readonly actor: string;
  /** A pg_restore with a known hole may be used without a warning. */
  readonly acceptClientRisk: boolean;
  readonly jobs: number;
  readonly owners: OwnerChoice;
  readonly timeoutMs: number;
  readonly machine: Machine;
}

export interface Restored {
  readonly manifest: Manifest;
  readonly tables: number;
  readonly rows: number;
  /** Each table as recorded and as found in the target, both by the server's own count. */
  readonly compared: readonly Recorded[];
  /** Tables that the server would not let this role count: `found` is undefined for them. */
  readonly uncounted: number;
  readonly seconds: number;
  readonly createdDatabase: boolean;
  readonly createdRoles: readonly string[];
  /** The backup of the target that was taken first. */
  readonly safetyBackup: Manifest | undefined;
}

export interface RestoreIo {
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Called with the id of the safety backup before anything is written under it. */
  readonly began?: (id: string) => void;
  /** Called when it is stored. */
  readonly safe?: (id: string) => void;
}

/** What is restored, and with what. */
interface Source {
  readonly programs: Programs;
  /** Private: the password file is written there. */
  readonly folder: string;
  readonly archive: CheckedArchive;
  readonly census: Census;
}

interface Prepared {
  readonly choice: Choice;
  readonly keepOwners: boolean;
  /** Of the role that restores. */
  readonly superuser: boolean;
}

const neverTargets = ['postgres', 'template0', 'template1'];

/** A cancelled process has this long to say what it did. */
const recordMs = 3000;

/** A cancelled process is killed soon; an hour's work that failed may take its time to be cleaned up. */
const undoMs = { cancelled: 2000, failed: 60_000 };

/**
 * Restores a backup, or a part of it, into a database that does not exist yet and is created as the source was, is empty,
 * or, when its name was typed, holds something: then in one transaction, after a backup of what is there if any of it is
 * dropped. Checks every byte of the archive first, stops at the first error, and counts every table afterwards. Throws a
 * `Failure` that says what the target holds now; a database and roles that were created here are dropped again unless
 * pg_restore was done.
 */
export async function restore(store: Store, backup: Backup, config: RestoreConfig, io: RestoreIo): Promise<Restored> {
  requireRestorable(backup.manifest, config.target.database, io.log);
  requireKeys(backup.manifest, config.keys);
  warnUnneeded(backup.manifest, config.keys, io.log);
  requireSafeSafety(backup.manifest, config);
  await requireYoung(store, backup.manifest, config.maxAgeMs);
  const deadline = new AbortController();
  const timer = setTimeout(() => {
    deadline.abort(
      new Failure('restore', 'timeLimit', `the restore was not done within ${formatSeconds(config.timeoutMs / 1000)}`, {
        hint: 'give it more with --timeout, or more --jobs',
      }),
    );
  }, config.timeoutMs);
  const signal = AbortSignal.any([io.signal, deadline.signal]);
  const startedAt = new Date();
  const restoration = new Restoration(store, backup.manifest, config, { ...io, signal });
  const record = (end: Pick<RestoreRecord, 'result' | 'exitCode' | 'totals'>): Promise<void> =>
    recordRestore(backup.manifest, config, { ...end, startedAt, safetyBackupId: restoration.safetyBackupId }, io.log);
  try {
    const { tables, rows, ...rest } = await restoration.run();
    await record({ result: 'restored', exitCode: null, totals: { tables, rows } });
    return { ...rest, tables, rows };
  } catch (error) {
    // What was refused before it began changed nothing.
    if (restoration.began)
      await record({ result: 'failed', exitCode: error instanceof Failure ? error.exitCode : 1, totals: null });
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

/** Into the store, whatever became of the run's own connections to it. */
async function recordRestore(
  manifest: Manifest,
  config: RestoreConfig,
  {
    startedAt,
    ...end
  }: Pick<RestoreRecord, 'result' | 'exitCode' | 'totals' | 'safetyBackupId'> & { readonly startedAt: Date },
  log: Log,
): Promise<void> {
  const { name, id } = manifest;
  const { target, mode, clean, actor, source } = config;
  const store = openStore(config.store, { signal: AbortSignal.timeout(recordMs), idleMs: recordMs });
  const times = { startedAt: startedAt.toISOString(), finishedAt: new Date().toISOString() };
  const wanted =
    encryptionOf(manifest) === null
      ? config.wanted
      : withoutPatterns<Record<'tables' | 'schemas', readonly string[]>>({ ...config.wanted });
  const scope = { mode, ...wanted, clean };
  const record: RestoreRecord = {
    ...{ format: 'pgassay-restore/1', name, backupId: id, ...times, database: target.database, scope, ...end },
    ...{ by: actor, source },
  };
  await writeRecord(store, record, log);
}

/** Before anybody connects. */
function requireRestorable(manifest: Manifest, database: string, log: Log): void {
  if (neverTargets.includes(database))
    throw new Failure('restore', 'badInput', `${database} is the server's own database and is never restored into`, {
      hint: 'name another database in the target URL; one that does not exist is created',
    });
  if (manifest.series === 'data-only' || manifest.scope.mode === 'data-only')
    throw new Failure(
      'restore',
      'badInput',
      `${manifest.name}/${manifest.id} holds rows only, and no definitions of the tables they belong to`,
      {
        hint: 'restore a full or schema-only backup first, then load the rows with the stock pg_restore --data-only (pgassay fetch gives the archive)',
      },
    );
  if (!manifest.selfContained)
    log.warn(
      'this backup holds a part of its database: objects that need something outside of it cannot be restored alone',
    );
}

/** A safety backup of what was encrypted would be the one copy that anybody can read. */
function requireSafeSafety(manifest: Manifest, { clean, safetyBackup, encryption }: RestoreConfig): void {
  if (!clean || !safetyBackup || encryption !== undefined || encryptionOf(manifest) === null) return;
  throw new Failure(
    'input',
    'badInput',
    `${manifest.name}/${manifest.id} is encrypted, and the safety backup of the target would not be`,
    {
      hint: 'give encrypt-to (or encrypt-passphrase), as the backup job does; safety-backup: false goes on without one',
    },
  );
}

async function requireYoung(
  store: Store,
  { name, id, createdAt }: Manifest,
  maxAgeMs: number | undefined,
): Promise<void> {
  const now = await store.now();
  if (maxAgeMs === undefined || now.getTime() - Date.parse(createdAt) <= maxAgeMs) return;
  throw new Failure(
    'locate',
    'badInput',
    `${name}/${id} is of ${formatTime(createdAt)}, ${formatAge(createdAt, now)}; max-age allows ${formatSeconds(maxAgeMs / 1000)}`,
    { hint: 'take a newer backup (pgassay list), or allow an older one with max-age' },
  );
}

class Restoration {
  readonly #store: Store;
  readonly #manifest: Manifest;
  readonly #config: RestoreConfig;
  readonly #io: RestoreIo;
  readonly #target: Target;
  readonly #roles = new TargetRoles();
  readonly #started = Date.now();
  readonly #application = `pgassay ${randomBytes(3).toString('hex')}`;
  #choice: Choice | undefined;
  #safety: Manifest | undefined;
  /** What a transaction makes anew, and which relations had these names before it. */
  #relations: readonly QualifiedName[] = [];
  #before = '';
  #state: 'before' | 'restoring' | 'restored' | 'equal' = 'before';

  constructor(store: Store, manifest: Manifest, config: RestoreConfig, io: RestoreIo) {
    this.#store = store;
    this.#manifest = manifest;
    this.#config = config;
    this.#io = io;
    this.#target = new Target({
      connection: config.target,
      applicationName: `${this.#application} restore`,
      onRunner: config.machine.onRunner,
      log: io.log,
      signal: io.signal,
    });
  }

  /** Whether anything was, or may have been, done to the target. */
  get began(): boolean {
    return this.#safety !== undefined || this.#choice !== undefined;
  }

  get safetyBackupId(): string | null {
    return this.#safety?.id ?? null;
  }

  async run(): Promise<Restored> {
    const { signal } = this.#io;
    const closeSessions = (): void => void this.#target.closeAll();
    signal.addEventListener('abort', closeSessions, { once: true });
    try {
      return await withPrivateFolder(this.#config.machine, (folder) => this.#run(folder));
    } catch (error) {
      throw this.#withSafety(this.#told(error, await this.#leave()));
    } finally {
      signal.removeEventListener('abort', closeSessions);
      await this.#target.closeAll();
    }
  }

  async #run(folder: string): Promise<Restored> {
    const { log, signal } = this.#io;
    const from = { store: this.#store, manifest: this.#manifest, keys: this.#config.keys };
    const census = await readCensus(from);
    const programs = await programsFor(this.#manifest, this.#config, this.#config.machine, this.#io);
    const warning = restoreSecurityWarning(programs.version);
    if (warning !== undefined && !this.#config.acceptClientRisk)
      log.warn(`${warning}; accept-client-risk: true stops this warning`);
    const archive = await checkedArchive(from, folder, signal);
    try {
      const { choice, keepOwners } = await this.#fill({ programs, folder, archive, census });
      this.#state = 'restored';
      const session = await this.#target.reopen();
      await this.#roles.settle(session, log);
      const { compared, unread } = await this.#compare(session, choice.census);
      this.#state = 'equal';
      if (this.#isWhole && !choice.occupied) await this.#finishDatabase(session, archive, keepOwners);
      if (choice.only !== undefined && keepOwners) await this.#settleGrants(session, choice.only);
      return {
        manifest: this.#manifest,
        tables: compared.length,
        rows: compared.reduce((rows, table) => rows + (table.found ?? 0), 0),
        compared,
        uncounted: unread.filter((each) => each.kind === 'table').length,
        seconds: (Date.now() - this.#started) / 1000,
        createdDatabase: this.#target.created,
        createdRoles: this.#roles.created,
        safetyBackup: this.#safety,
      };
    } finally {
      await archive.file.close();
    }
  }

  /** Prepares the target and runs pg_restore, once more with one job when several got into each other's way. */
  async #fill(source: Source): Promise<Prepared> {
    try {
      return await this.#fillOnce(source, this.#config.jobs);
    } catch (error) {
      if (!(error instanceof JobsDeadlocked) || !this.#target.created) throw error;
      const left = await this.#leave();
      if (!this.#target.restart()) throw error;
      this.#io.signal.throwIfAborted();
      this.#io.log.notice(`${error.message}: two of its jobs waited for each other; ${left}, once more with one job`);
      this.#state = 'before';
      return this.#fillOnce(source, 1);
    }
  }

  async #fillOnce(source: Source, jobs: number): Promise<Prepared> {
    const prepared = await this.#prepare(source);
    this.#state = 'restoring';
    await this.#restore(source, jobs, prepared);
    return prepared;
  }

  /** Everything that can be known to fail is found out here. No session of ours is left idle while pg_restore runs. */
  async #prepare(source: Source): Promise<Prepared> {
    const { database } = this.#manifest;
    const extensions = this.#isWhole ? source.census.extensions : [];
    let session = await this.#target.open(database, (each) => requireServer(each, database, extensions));
    let choice = await this.#choose(session, source);
    if (choice.clean && this.#safety === undefined && this.#config.safetyBackup) {
      await this.#target.close(session);
      await this.#takeSafetyBackup();
      session = await this.#target.reopen();
      // A partition that somebody added meanwhile would go with its parent.
      choice = await this.#choose(session, source);
    }
    this.#choice = choice;
    await this.#announce(session, choice);
    const relations = (choice.only ?? []).filter((entry) => entry.kind === 'TABLE' || entry.kind === 'VIEW');
    this.#relations = relations.map(({ schema, tag }) => ({ schema: schema ?? '', name: tag }));
    this.#before = await readRelationIds(session, this.#relations);
    const keepOwners = await this.#roles.prepare(session, choice.census, this.#config.owners, this.#io.log);
    const { superuser } = await readServerFacts(session);
    await this.#target.close(session);
    return { choice, keepOwners, superuser };
  }

  async #choose(session: Session, { folder, archive, census }: Source): Promise<Choice> {
    const config = this.#config;
    const { database } = config.target;
    if (!this.#target.created)
      await requireAnother(session, this.#manifest.database, { name: database, confirmed: config.confirmed });
    const objects = this.#target.created ? [] : await objectsOf(session);
    return choose({ ...config, database }, { toc: archive.toc, census }, objects, async () => {
      const { version } = await readServerFacts(session);
      const programs = await programsOfMajor(version.major, false, config, config.machine, this.#io);
      const environment = await this.#environment(programs, folder, 'pg_dump');
      return readContents(programs, environment, database, this.#io.signal).catch((error: unknown) => {
        if (!(error instanceof Failure)) throw error;
        throw new Failure('restore', 'privilege', error.message, {
          hint: `to see what stands in the way, this role has to be able to lock and read every table of ${displayWord(database)}; nothing was changed`,
          cause: error,
        });
      });
    });
  }

  async #takeSafetyBackup(): Promise<void> {
    const config = this.#config;
    const { log, signal, began, safe } = this.#io;
    const { name } = this.#manifest;
    log.info(
      `a safety backup of ${displayWord(config.target.database)} first, under ${name} with the label pre-restore`,
    );
    this.#safety = await takeSafetyBackup({ ...config, name }, { log, signal, began });
    safe?.(this.#safety.id);
    const { tables, rows } = this.#safety.totals;
    log.notice(
      `safety backup ${name}/${this.#safety.id}: ${formatCount(tables, 'table')}, ${formatCount(rows, 'row')}; what is written from now on is not in it`,
    );
  }

  /** Which way it goes, said before it does. */
  async #announce(session: Session, { only, clean, occupied, leftOut, redefined }: Choice): Promise<void> {
    const { log } = this.#io;
    if (redefined.length > 0)
      log.warn(`changed since the backup, and put back to what it says, without what was added: ${listed(redefined)}`);
    if (leftOut.length > 0) {
      const lines = leftOut.slice(0, 20).map((entry) => `  ${describeContent(entry)}`);
      if (leftOut.length > 20) lines.push(`  and ${leftOut.length - 20} more`);
      log.warn(`left out, because the target lacks something that they need:\n${lines.join('\n')}`);
    }
    if (only === undefined || !occupied) return;
    const others = await countOthers(session);
    const name = displayWord(this.#config.target.database);
    log.notice(
      `${formatCount(only.length, 'item')} of the archive ${clean ? 'replace what is there of them' : 'are added'}, with one job in one transaction: until it ends, and if it fails, ${name} is as it was${
        others === 0 ? '' : `; it waits for ${formatCount(others, 'other session')} that may hold locks there`
      }`,
    );
  }

  async #restore(
    { programs, folder, archive }: Source,
    jobs: number,
    { choice, keepOwners, superuser }: Prepared,
  ): Promise<void> {
    const { clean, census } = choice;
    const only = superuser ? choice.only : withoutExtensionComments(choice.only ?? archive.toc.entries);
    await restoreArchive(
      {
        programs,
        environment: await this.#environment(programs, folder, 'pg_restore'),
        database: this.#config.target.database,
        archive,
        jobs,
        keepOwners,
        oneTransaction: this.#atomic,
        only: only && { list: only.map((entry) => entry.dumpId), folder, clean },
        names: census.contents.flatMap((entry) => [entry.tag, entry.schema ?? '']),
      },
      this.#io,
    );
  }

  #environment(programs: Programs, folder: string, purpose: string): Promise<Readonly<Record<string, string>>> {
    return childEnvironment(this.#config.target, this.#target.server, folder, {
      applicationName: `${this.#application} ${purpose}`,
      ...(programs.libraryPath === undefined ? {} : { libraryPath: programs.libraryPath }),
    });
  }

  get #isWhole(): boolean {
    const { tables, schemas } = this.#config.wanted;
    return tables.length === 0 && schemas.length === 0;
  }

  /** A database that was created here can be dropped, so its restore need not be one transaction. */
  get #atomic(): boolean {
    return this.#choice?.only !== undefined || (!this.#target.created && this.#config.jobs === 1);
  }

  async #compare(
    session: Session,
    census: Census,
  ): Promise<{ readonly compared: readonly Recorded[]; readonly unread: readonly Unread[] }> {
    const { state, unread } = await readRestored(session, census, { harmless: false });
    const without = new Set(unread.map((each) => `${each.kind} ${nameKey(each)}`));
    const { compared, findings } = compareRestored(
      {
        ...census,
        tables: census.tables.filter((table) => !without.has(`table ${nameKey(table)}`)),
        sequences: census.sequences.filter((sequence) => !without.has(`sequence ${nameKey(sequence)}`)),
      },
      state,
    );
    if (findings.length > 0)
      throw new Failure(
        'restore',
        'restore',
        `the restored database is not what was backed up\n${describeFindings(findings)}`,
        {
          hint: `${displayWord(this.#config.target.database)} is kept: do not use it before you have looked at it; verify the backup (pgassay verify) and look for triggers or rules that change rows`,
        },
      );
    if (unread.length > 0) {
      const lines = unread.slice(0, 10).map((each) => `  ${each.kind} ${displayName(each)}: ${each.reason}`);
      if (unread.length > 10) lines.push(`  and ${unread.length - 10} more`);
      this.#io.log.warn(`restored, but this role may not read them to compare:\n${lines.join('\n')}`);
    }
    const uncounted = census.tables
      .filter((table) => without.has(`table ${nameKey(table)}`))
      .map(({ schema, name, rows }): Recorded => {
        return { schema, name, object: displayName({ schema, name }), recorded: rows, found: undefined };
      });
    return { compared: [...compared, ...uncounted], unread };
  }

  /** Settings, grants and comment of the database itself: applied to one created here, told for one that was there. */
  async #finishDatabase(session: Session, { toc }: CheckedArchive, keepOwners: boolean): Promise<void> {
    const statements = databaseStatements(toc);
    const wanted = statements.filter((each) => keepOwners || !each.grants);
    const left = this.#target.created
      ? await applyToDatabase(session, this.#config.target.database, wanted)
      : statements.map((each) => each.title);
    if (left.length === 0) return;
    const why = this.#target.created
      ? 'this role may not set them'
      : 'the database was there before, and these belong to whoever made it';
    this.#io.log.warn(
      `of the database itself, these are not as in the backup: ${[...new Set(left)].join(', ')} (${why})`,
    );
  }

  /** Grants as in the backup, whatever this database's default privileges made of them. */
  async #settleGrants(session: Session, only: readonly TocEntry[]): Promise<void> {
    const { changed, left } = await settleDefaultGrants(session, only);
    const lines = (grants: readonly string[]): string =>
      [...grants.slice(0, 10), ...(grants.length > 10 ? [`and ${grants.length - 10} more`] : [])]
        .map((each) => `\n  ${each}`)
        .join('');
    const what = "this database's default privileges give new objects other grants than the backup has";
    if (changed.length > 0) this.#io.log.notice(`${what}; set as they were:${lines(changed)}`);
    if (left.length > 0) this.#io.log.warn(`${what}, and this role may not set them as they were:${lines(left)}`);
  }

  /** Cleans up after a failure and says, in half a sentence, what the target holds now. */
  async #leave(): Promise<string> {
    const { log, signal } = this.#io;
    const name = displayWord(this.#config.target.database);
    if (this.#state === 'equal') return `${name} is restored and every table compared`;
    if (this.#state === 'restored') this.#roles.remind(log);
    if (this.#state === 'restored') return `${name} is kept: pg_restore was done, and the comparison was not`;
    const budget = signal.aborted ? undoMs.cancelled : undoMs.failed;
    const began = this.#state === 'restoring';
    if (!began && !this.#target.created && !this.#roles.hasTraces) return this.#target.untouched();
    let after: string | undefined;
    const told = await this.#target.undo(budget, async (session) => {
      // A pg_restore that had to be killed leaves its sessions behind until the server notices.
      if (began) await endSessions(session, `${this.#application} pg_restore`).catch(() => {});
      if (began && !this.#target.created && this.#relations.length > 0)
        after = await readRelationIds(session, this.#relations);
      if (after === undefined || after === this.#before) await this.#roles.drop(session, log);
    });
    if (told !== '') return told;
    if (!began) return 'nothing was restored';
    if (after !== undefined && after !== this.#before)
      return `${name} is kept: pg_restore had committed, and the comparison was not made`;
    if (this.#choice?.occupied === true)
      return after === undefined && this.#relations.length > 0
        ? `${name} could not be asked: it is as it was before, unless the transaction was committed in its last moment`
        : `it was rolled back, ${name} is as it was before`;
    return this.#atomic
      ? `it was rolled back, ${name} is as empty as before`
      : `${name} now holds part of the backup: empty it, or use another database, before trying again`;
  }

  /** Whatever became of the target, what it held before is somewhere. */
  #withSafety(failure: Failure): Failure {
    if (this.#safety === undefined) return failure;
    const { stage, exit, message, hint, cause } = failure;
    const before = `what it held before is in the safety backup ${this.#safety.name}/${this.#safety.id}`;
    return new Failure(stage, exit, message, { hint: hint === undefined ? before : `${hint}\n${before}`, cause });
  }

  /** The error with what is left of the restore; row values are in none of them. */
  #told(error: unknown, left: string): Failure {
    const { signal } = this.#io;
    if (signal.aborted) {
      const reason = signal.reason instanceof Failure ? signal.reason : cancelled('restore');
      const message = reason.exit === 'cancelled' ? 'cancelled' : reason.message;
      const hint = reason.exit === 'cancelled' ? 'run it again when you are ready' : reason.hint;
      return new Failure('restore', reason.exit, `${message}; ${left}`, { hint, cause: error });
    }
    if (this.#state === 'restored' && !(error instanceof Failure && error.exit === 'restore'))
      return new Failure('restore', 'restore', `the restored database could not be compared: ${said(error)}`, {
        hint: `${left}; do not use it before you have counted its tables, or restore again into another database`,
        cause: error,
      });
    if (error instanceof Failure) {
      if (error.hint !== undefined || error.stage !== 'restore') {
        if (this.#target.created) this.#io.log.info(left);
        return error;
      }
      const next =
        error instanceof JobsDeadlocked ? 'run it again with --jobs 1' : 'correct the cause and run it again';
      return new Failure('restore', error.exit, error.message, {
        hint: `${left}; ${next}`,
        cause: error.cause,
      });
    }
    if (!isDatabaseError(error)) throw error;
    return new Failure('restore', 'restore', `the target server refused a statement: ${said(error)}`, {
      hint: left,
      cause: error,
    });
  }
}

/**
 * Where a provider has created the extensions, they are his, and only he may comment on them; their comments are the
 * same everywhere.
 */
function withoutExtensionComments(entries: readonly TocEntry[]): TocEntry[] {
  return entries.filter(({ kind, tag }) => kind !== 'COMMENT' || !tag.startsWith('EXTENSION '));
}

function said(error: unknown): string {
  if (error instanceof Failure) return error.message;
  return isDatabaseError(error) ? reduceMessage(error.message) : 'the connection broke';
}
