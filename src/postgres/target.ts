import { Failure } from '../failure.ts';
import type { Log } from '../log.ts';
import type { Manifest } from '../manifest.ts';
import { connect, type PinnedServer, type Session } from './connect.ts';
import { displayWord } from './names.ts';
import { prepareSession } from './server.ts';
import {
  CreationUnknown,
  createDatabase,
  type DatabaseIdentity,
  dropDatabase,
  identify,
  isMissingDatabase,
  isSame,
} from './target-database.ts';
import type { ConnectionTarget } from './url.ts';

/** Every server has this database, and a role that may create one may usually connect to it. */
const maintenanceDatabase = 'postgres';

export interface TargetOptions {
  readonly connection: ConnectionTarget;
  readonly applicationName: string;
  readonly onRunner: boolean;
  readonly log: Log;
  /** Ends the sessions and with them whatever they wait for. */
  readonly signal: AbortSignal;
}

/** What is left of a database after a restore that failed, in half a sentence (empty: nothing was to be undone). */
export interface Undone {
  readonly text: string;
  /** It is known to be as it was, as far as the database itself goes. */
  readonly intact: boolean;
}

/** The database that is restored into, on the one server that the first session reached. */
export class Target {
  readonly #options: TargetOptions;
  readonly #sessions = new Set<Session>();
  #server: PinnedServer | undefined;
  #database: DatabaseIdentity | undefined;
  #created = false;
  #dropped = false;
  #creationUnknown = false;

  constructor(options: TargetOptions) {
    this.#options = options;
  }

  get created(): boolean {
    return this.#created;
  }

  get server(): PinnedServer {
    if (this.#server === undefined) throw new Error('the target was not opened');
    return this.#server;
  }

  /** Of the database that was opened. */
  get identity(): DatabaseIdentity {
    if (this.#database === undefined) throw new Error('the target was not opened');
    return this.#database;
  }

  /** A session beside the database, from which it can be renamed. */
  maintenance(): Promise<Session> {
    return this.#connect(maintenanceDatabase, this.#options.signal);
  }

  /**
   * A session in the database, which is created as `source` was when the server does not have it (undefined: it has to
   * be there); `judge` is asked about the server first. Throws a `Failure`.
   */
  async open(source: Manifest['database'] | undefined, judge: (session: Session) => Promise<void>): Promise<Session> {
    const { connection, log } = this.#options;
    const name = connection.database;
    try {
      const session = await this.#connect(name, this.#options.signal);
      this.#database = await identify(session, name);
      await judge(session);
      return session;
    } catch (error) {
      if (!isMissingDatabase(error)) throw error;
      if (source === undefined)
        throw new Failure('restore', 'badInput', `the server has no database ${displayWord(name)}`, {
          hint: 'rows alone need the tables they belong to: restore without mode: data-only, and the database is created',
          cause: error,
        });
    }
    const maintenance = await this.#connect(maintenanceDatabase, this.#options.signal);
    await judge(maintenance);
    // Of several hosts this may be another one than said that it has no such database.
    this.#database = await identify(maintenance, name);
    if (this.#database === undefined && source !== undefined) {
      try {
        this.#database = await createDatabase(maintenance, name, source);
      } catch (error) {
        if (!(error instanceof CreationUnknown)) throw error;
        this.#creationUnknown = true;
        throw new Failure('restore', 'connect', `the connection ended while ${displayWord(name)} was being created`, {
          cause: error,
        });
      }
      this.#created = true;
      log.info(`created the database ${displayWord(name)}`);
    }
    await this.close(maintenance);
    return this.reopen();
  }

  /** A fresh session in that very database. Throws a `Failure` when another one has its name now. */
  async reopen(
    signal = this.#options.signal,
    /** It was renamed. */
    name = this.#options.connection.database,
  ): Promise<Session> {
    const session = await this.#connect(name, signal);
    const found = await identify(session, name);
    if (found !== undefined && this.#database !== undefined && isSame(found, this.#database)) return session;
    await this.close(session);
    throw new Failure('restore', 'restore', `${displayWord(name)} is not the database any more that was restored into`);
  }

  async close(session: Session): Promise<void> {
    this.#sessions.delete(session);
    await session.close();
  }

  async closeAll(): Promise<void> {
    await Promise.all([...this.#sessions].map((session) => this.close(session)));
  }

  /** Begins anew when {@link undo} has dropped the database; false when there is something left of it. */
  restart(): boolean {
    if (!this.#dropped) return false;
    this.#dropped = false;
    this.#created = false;
    this.#database = undefined;
    return true;
  }

  /** What to say when there is nothing to undo. */
  untouched(): Undone {
    if (!this.#creationUnknown) return { text: 'nothing was changed', intact: true };
    const name = displayWord(this.#options.connection.database);
    return { text: `the database ${name} may be there now, empty: its creation had been asked for`, intact: false };
  }

  /**
   * Drops the database if it was created here and is still that very one, and tells what is left of it. `onServer` gets
   * a session on the server afterwards: in the maintenance database, or in the target when that was there before.
   */
  async undo(withinMs: number, onServer: (session: Session) => Promise<void>): Promise<Undone> {
    const name = displayWord(this.#options.connection.database);
    const limit = AbortSignal.timeout(withinMs);
    const late = new Promise<never>((_resolve, reject) => {
      limit.addEventListener('abort', () => reject(new Error('too late')), { once: true });
    });
    late.catch(() => {});
    const work = async (): Promise<Undone> => {
      if (!this.#created || this.#database === undefined) {
        await onServer(await this.reopen(limit));
        return { text: '', intact: true };
      }
      const session = await this.#connect(maintenanceDatabase, limit);
      const outcome = await dropDatabase(session, this.#database, { force: true });
      this.#dropped = outcome !== 'another';
      await onServer(session);
      if (outcome === 'another')
        return {
          text: `another database is called ${name} now than the one created here; nothing was dropped`,
          intact: false,
        };
      return {
        text: `the database ${name}, created here, ${outcome === 'gone' ? 'is gone' : 'was dropped again'}`,
        intact: true,
      };
    };
    try {
      return await Promise.race([work(), late]);
    } catch {
      if (!this.#created) return { text: '', intact: false };
      return {
        text: `the database ${name}, created here, could not be dropped again; it is not complete, do not use it`,
        intact: false,
      };
    } finally {
      await this.closeAll();
    }
  }

  async #connect(database: string, signal: AbortSignal): Promise<Session> {
    const { connection, applicationName, onRunner } = this.#options;
    const session = await connect(
      { ...connection, database },
      { applicationName, signal, onRunner, ...(this.#server === undefined ? {} : { pinned: this.#server }) },
    );
    this.#server ??= session.server;
    this.#sessions.add(session);
    await prepareSession(session);
    await session.query('SET default_transaction_read_only = off');
    return session;
  }
}
