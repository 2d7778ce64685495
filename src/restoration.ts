import { randomBytes } from 'node:crypto';
import { type CheckedArchive, checkedArchive } from './checked-archive.ts';
import { programsFor, withPrivateFolder } from './machine.ts';
import type { Census, Manifest } from './manifest.ts';
import type { Toc } from './postgres/archive-toc.ts';
import { childEnvironment } from './postgres/child-environment.ts';
import type { Programs } from './postgres/client.ts';
import type { Session } from './postgres/connect.ts';
import { carryOver, swapped } from './postgres/database-swap.ts';
import { displayWord, type QualifiedName } from './postgres/names.ts';
import { JobsDeadlocked, restoreArchive } from './postgres/restore.ts';
import { readServerFacts } from './postgres/server.ts';
import { Target } from './postgres/target.ts';
import { objectsOf, readRelationIds, requireAnother, requireServer } from './postgres/target-checks.ts';
import { TargetRoles } from './postgres/target-roles.ts';
import { restoreSecurityWarning } from './postgres/version.ts';
import { endSessions } from './postgres/watch.ts';
import { readTraces } from './postgres/write-traces.ts';
import { type Left, tellFailure } from './restore-aftermath.ts';
import { planBeside, takePlace } from './restore-beside.ts';
import { type Choice, choose, listed, withoutExtensionComments } from './restore-choice.ts';
import { type Compared, compareWithCensus, finishDatabase, settleGrants } from './restore-comparison.ts';
import type { RestoreConfig, Restored, RestoreIo } from './restore-config.ts';
import { restoreData } from './restore-data.ts';
import { announce, leaveBeside, leaveTransaction, readTargetContents, rolledBack } from './restore-target.ts';
import { takeSafetyBackup } from './safety-backup.ts';
import type { Store } from './store/store.ts';
import { readCensus } from './verify.ts';

/** What is restored, and with what. */
export interface Source {
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

/** What a restoration beside another database is given instead of finding it out. */
interface Beside {
  readonly source: Source;
  /** The database that it is to replace: it is created as that one is. */
  readonly like: { readonly database: Manifest['database']; readonly toc: Toc };
}

/** A cancelled process is killed soon; an hour's work that failed may take its time to be cleaned up. */
const undoMs = { cancelled: 2000, failed: 60_000 };

/** One attempt to restore a backup. */
export class Restoration {
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
  /** Of writing in the target, before the safety backup. */
  #traces: string | undefined;
  /** What a transaction makes anew, and which relations had these names before it. */
  #relations: readonly QualifiedName[] = [];
  #before = '';
  /** Of rows alone: the number of the one that they go in with. */
  #transaction: string | undefined;
  #opened = false;
  readonly #beside: Beside | undefined;
  /** The target's own table of contents, read last. */
  #targetToc: Toc | undefined;
  /** Restored beside the target, and not yet in its place; `aside` is what the target is called then. */
  #replacement: Restoration | undefined;
  #aside = '';
  #state: 'before' | 'restoring' | 'restored' | 'equal' = 'before';

  constructor(store: Store, manifest: Manifest, config: RestoreConfig, io: RestoreIo, beside?: Beside) {
    this.#beside = beside;
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
    return this.#safety !== undefined || this.#choice !== undefined || this.#transaction !== undefined;
  }

  get safetyBackupId(): string | null {
    return this.#safety?.id ?? null;
  }

  async run(): Promise<Restored> {
    const { signal, log } = this.#io;
    const closeSessions = (): void => void this.#target.closeAll();
    signal.addEventListener('abort', closeSessions, { once: true });
    try {
      return await withPrivateFolder(this.#config.machine, (folder) => this.#run(folder));
    } catch (error) {
      const left = await this.#leave();
      const changed = this.#replacement !== undefined || (this.#state === 'restoring' && !left.intact);
      const restored = this.#state === 'restored' && this.#beside === undefined;
      const outcome = { left, signal, restored, changed, safety: this.#safety };
      if (this.#target.created && !signal.aborted) log.info(left.text);
      throw tellFailure(error, outcome);
    } finally {
      signal.removeEventListener('abort', closeSessions);
      await this.#target.closeAll();
    }
  }

  async #run(folder: string): Promise<Restored> {
    if (this.#beside !== undefined) return this.#resultOf(await this.#restoreObjects(this.#beside.source));
    const { log, signal } = this.#io;
    const from = { store: this.#store, manifest: this.#manifest, keys: this.#config.keys };
    const census = await readCensus(from);
    const programs = await programsFor(this.#manifest, this.#config, this.#config.machine, this.#io);
    const warning = restoreSecurityWarning(programs.version);
    if (warning !== undefined && !this.#config.acceptClientRisk)
      log.warn(`${warning}; accept-client-risk: true stops this warning`);
    const archive = await checkedArchive(from, folder, signal);
    try {
      const source = { programs, folder, archive, census };
      if (this.#config.mode === 'data-only') return this.#resultOf(await this.#restoreData(source));
      return (await this.#restoreBeside(source)) ?? this.#resultOf(await this.#restoreObjects(source));
    } finally {
      await archive.file.close();
    }
  }

  #resultOf({ compared, uncounted }: Compared): Restored {
    return {
      ...{ manifest: this.#manifest, compared, uncounted, tables: compared.length },
      rows: compared.reduce((rows, table) => rows + (table.found ?? 0), 0),
      seconds: (Date.now() - this.#started) / 1000,
      createdDatabase: this.#target.created,
      createdRoles: this.#roles.created,
      safetyBackup: this.#safety,
    };
  }

  async #restoreObjects(source: Source): Promise<Compared> {
    const { log } = this.#io;
    const { database } = this.#config.target;
    const { choice, keepOwners } = await this.#fill(source);
    this.#state = 'restored';
    const session = await this.#target.reopen();
    await this.#roles.settle(session, log);
    const name = displayWord(database);
    const fate =
      this.#beside === undefined
        ? `${name} is kept: do not use it before you have looked at it`
        : `${name} is dropped again`;
    const otherwise = `${fate}; verify the backup (pgassay verify) and look for triggers or rules that change rows`;
    const compared = await compareWithCensus(session, choice.census, { otherwise, log });
    if (this.#beside !== undefined) await carryOver(session, database, this.#beside.like.toc);
    this.#state = 'equal';
    const { created } = this.#target;
    if (this.#isWhole && !choice.occupied && this.#beside === undefined)
      await finishDatabase(session, source.archive.toc, { database, created, keepOwners, log });
    if (choice.only !== undefined && keepOwners) await settleGrants(session, choice.only, log);
    await this.#target.closeAll();
    return compared;
  }

  /**
   * Over a whole database with several jobs: into a new one that takes its place. Undefined where that cannot be or was
   * not asked for; nothing was done then but the safety backup.
   */
  async #restoreBeside(source: Source): Promise<Restored | undefined> {
    const { clean, jobs, mode, target } = this.#config;
    const { log } = this.#io;
    if (!clean || !this.#isWhole || mode !== 'full' || jobs === 1) return undefined;
    const { session, choice } = await this.#look(source);
    const toc = this.#targetToc;
    if (!choice.occupied || toc === undefined) {
      await this.#target.close(session);
      return undefined;
    }
    const { sizeBytes: bytes } = this.#manifest.database;
    const before = { safe: this.#safety !== undefined, traces: this.#traces };
    const names = await planBeside(session, { target, toc, archive: source.archive, bytes, before, log });
    const { database } = await readServerFacts(session);
    await this.#target.close(session);
    if (names === undefined) return undefined;
    this.#choice = choice;
    this.#aside = names.aside;
    if (choice.redefined.length > 0)
      log.warn(`changed since the backup, and put back to what it says: ${listed(choice.redefined)}`);
    this.#replacement = new Restoration(
      this.#store,
      this.#manifest,
      { ...this.#config, clean: false, target: { ...target, database: names.fresh } },
      this.#io,
      { source, like: { database: { ...database, serverVersion: this.#manifest.database.serverVersion }, toc } },
    );
    const restored = await this.#replacement.run();
    await takePlace(this.#target, this.#replacement.#target.identity, { ...names, before, log });
    this.#state = 'equal';
    return {
      ...restored,
      seconds: (Date.now() - this.#started) / 1000,
      createdDatabase: false,
      safetyBackup: this.#safety,
    };
  }

  async #restoreData(source: Source): Promise<Compared> {
    const { database } = this.#manifest;
    const open = async (): Promise<Session> => {
      if (this.#opened) return this.#target.reopen();
      this.#opened = true;
      const session = await this.#target.open(undefined, (each) => requireServer(each, database, []));
      await requireAnother(session, database, {
        name: this.#config.target.database,
        confirmed: this.#config.confirmed,
      });
      return session;
    };
    const compared = await restoreData({
      ...{ config: this.#config, source, open, log: this.#io.log, signal: this.#io.signal },
      close: (session) => this.#target.close(session),
      takeSafetyBackup: () => this.#takeSafetyBackup(),
      began: (transaction) => {
        this.#transaction = transaction;
        this.#state = 'restoring';
      },
    });
    this.#state = 'equal';
    return compared;
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
      this.#io.log.notice(
        `${error.message}: two of its jobs waited for each other; ${left.text}, once more with one job`,
      );
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

  /** What is there, and what is to be done with it: after the safety backup, where something is dropped. */
  async #look(source: Source): Promise<{ readonly session: Session; readonly choice: Choice }> {
    const { database } = this.#manifest;
    const extensions = this.#isWhole ? source.census.extensions : [];
    const like = this.#beside?.like.database ?? database;
    const session = await this.#target.open(like, (each) => requireServer(each, database, extensions));
    const choice = await this.#choose(session, source);
    if (!choice.clean || this.#safety !== undefined || !this.#config.safetyBackup) return { session, choice };
    this.#traces = await readTraces(session);
    await this.#target.close(session);
    await this.#takeSafetyBackup();
    const again = await this.#target.reopen();
    // A partition that somebody added meanwhile would go with its parent.
    return { session: again, choice: await this.#choose(again, source) };
  }

  /** Everything that can be known to fail is found out here. No session of ours is left idle while pg_restore runs. */
  async #prepare(source: Source): Promise<Prepared> {
    const { session, choice } = await this.#look(source);
    this.#choice = choice;
    await announce(session, this.#config.target.database, choice, this.#io.log);
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
    const request = { ...config, database, mode: config.mode === 'schema-only' ? config.mode : 'full' } as const;
    return choose(request, { toc: archive.toc, census }, objects, async () => {
      const environment = (programs: Programs): Promise<Readonly<Record<string, string>>> =>
        this.#environment(programs, folder, 'pg_dump');
      const { machine } = config;
      this.#targetToc = await readTargetContents(session, database, {
        ...{ choice: config, machine, environment, ...this.#io },
      });
      return this.#targetToc;
    });
  }

  async #takeSafetyBackup(): Promise<void> {
    this.#safety = await takeSafetyBackup({ ...this.#config, name: this.#manifest.name }, this.#io);
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

  /** Cleans up after a failure and says what the target holds now. */
  async #leave(): Promise<Left> {
    const { log, signal } = this.#io;
    const name = displayWord(this.#config.target.database);
    const kept = (text: string): Left => ({ text: `${name} is ${text}`, intact: false });
    // Beside another database it is worth nothing until it has taken its place.
    const keeps = this.#beside === undefined;
    if (this.#state === 'equal' && keeps) return kept('restored and every table compared');
    if (this.#state === 'restored' && keeps) this.#roles.remind(log);
    if (this.#state === 'restored' && keeps) return kept('kept: pg_restore was done, and the comparison was not');
    const budget = signal.aborted ? undoMs.cancelled : undoMs.failed;
    const replacement = this.#replacement;
    if (replacement !== undefined)
      return leaveBeside({ name, aside: displayWord(this.#aside) }, replacement.#target, budget, async (session) => {
        const taken = await swapped(session, { old: this.#target.identity, fresh: replacement.#target.identity });
        if (!taken) await replacement.#roles.drop(session, log);
        return taken;
      });
    const transaction = this.#transaction;
    const application = `${this.#application} restore`;
    if (transaction !== undefined)
      return leaveTransaction(this.#target, { name, transaction, application, withinMs: budget });
    const began = this.#state !== 'before';
    if (!began && !this.#target.created && !this.#roles.hasTraces) return this.#target.untouched();
    let after: string | undefined;
    const told = await this.#target.undo(budget, async (session) => {
      // A pg_restore that had to be killed leaves its sessions behind until the server notices.
      if (began) await endSessions(session, `${this.#application} pg_restore`).catch(() => {});
      if (began && !this.#target.created && this.#relations.length > 0)
        after = await readRelationIds(session, this.#relations);
      if (after === undefined || after === this.#before) await this.#roles.drop(session, log);
    });
    if (told.text !== '') return told;
    if (!began) return { text: 'nothing was restored', intact: true };
    if (after !== undefined && after !== this.#before)
      return kept('kept: pg_restore had committed, and the comparison was not made');
    const asked = after !== undefined || this.#relations.length === 0;
    const occupied = this.#choice?.occupied === true;
    return rolledBack(name, { occupied, atomic: this.#atomic, asked, intact: told.intact });
  }
}
