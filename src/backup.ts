import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Encryption } from './age.ts';
import { withinLimits } from './attempts.ts';
import { newId, safetyLabel } from './backup-id.ts';
import { readRecent } from './catalog.ts';
import { Destinations, failureOfMissed, type MissedStore } from './destinations.ts';
import { cancelled, Failure } from './failure.ts';
import type { Log } from './log.ts';
import type { Machine } from './machine.ts';
import { fileNames, type Manifest, type Source } from './manifest.ts';
import { formatBytes, formatCount, formatSeconds } from './numbers.ts';
import type { Outgoing } from './outgoing.ts';
import { type Captured, captureSnapshot } from './postgres/capture.ts';
import { childEnvironment } from './postgres/child-environment.ts';
import { findPrograms, type Programs } from './postgres/client.ts';
import { connect, type Session } from './postgres/connect.ts';
import { chooseCompression, type Sink } from './postgres/dump.ts';
import { displayWord } from './postgres/names.ts';
import { dumpRoles } from './postgres/roles.ts';
import { resolveScope, type ScopeRequest } from './postgres/scope.ts';
import {
  detectPooling,
  type Pooling,
  prepareSession,
  readServerFacts,
  requirePrivileges,
  type ServerFacts,
} from './postgres/server.ts';
import type { ConnectionTarget } from './postgres/url.ts';
import { dumpSecurityWarning, formatVersion } from './postgres/version.ts';
import { endSessions } from './postgres/watch.ts';
import { judgePooling, judgeServer, refuseEmpty, requirePrevious } from './preflight.ts';
import type { Proof } from './proof.ts';
import { newestPassed } from './proofs.ts';
import { prune } from './prune.ts';
import {
  censusDocument,
  manifestOf,
  type Published,
  Publisher,
  requireEqual,
  restoreCommand,
  rolesCommand,
} from './publish.ts';
import type { Pruned, RetentionPolicy } from './retention.ts';
import type { SigningKey } from './signing.ts';
import { openStore, type StoreChoice } from './store/open.ts';
import type { Store } from './store/store.ts';
import type { Trust } from './trust.ts';

/** Everything one backup needs to know, read and judged by an edge. Durations are milliseconds. */
export interface BackupConfig {
  readonly target: ConnectionTarget;
  /** Where it goes, one or more: dumped once, to all of them at the same time. */
  readonly stores: readonly StoreChoice[];
  readonly name: string;
  readonly label: string;
  /** Signs the manifest; undefined: nobody does. */
  readonly signing: SigningKey | undefined;
  /** Which earlier backups count. */
  readonly trust: Trust;
  readonly scope: ScopeRequest;
  /** To whom everything but the manifest is encrypted; undefined: nothing is. */
  readonly encryption: Encryption | undefined;
  readonly roles: boolean;
  /** `auto`, `zstd:N`, `gzip:N`, `lz4`, `none` */
  readonly compression: string;
  readonly census: 'rows' | 'content' | 'stream';
  readonly allowEmpty: boolean;
  readonly allowPooler: boolean;
  readonly acceptNewDatabase: boolean;
  readonly lockWaitMs: number;
  readonly onBlockedDdl: 'warn' | 'abort';
  readonly maxReplicaLagMs: number;
  readonly verifyUpload: 'checksum' | 'read-back';
  readonly dryRun: boolean;
  /** Applied once the backup is stored; undefined: nothing is deleted. */
  readonly retention: RetentionPolicy | undefined;
  readonly clientBin: string | undefined;
  readonly installClient: boolean;
  readonly timeoutMs: number;
  readonly retries: number;
  readonly stallMs: number;
  readonly version: string;
  readonly source: Source | null;
  readonly machine: Machine;
}

export type BackupResult =
  | {
      readonly kind: 'stored';
      /** As the first of the stores has it: those of the others say another store, and another backup before it. */
      readonly manifest: Manifest;
      /** In the order in which the stores were given, without those that failed. */
      readonly stored: readonly StoredBackup[];
      /** All of them, pg_dump's own too. */
      readonly warnings: readonly string[];
      /** This backup and those before it of its name and series, oldest first, 30 at most. */
      readonly history: readonly Manifest[];
      /** The newest passed restore test among them; undefined when there is none. */
      readonly proven: Proof | undefined;
      readonly missed: readonly MissedStore[];
    }
  | {
      readonly kind: 'dry-run';
      readonly tables: number;
      readonly server: string;
      readonly client: string;
      readonly missed: readonly MissedStore[];
    };

/** A backup in one of its stores. */
export interface StoredBackup {
  /** When the store deletes it by itself; undefined where it never does. */
  readonly expiresAt: Date | undefined;
  /** `s3://bucket/prefix/shop/<id>` */
  readonly location: string;
  /** For the roles, which come first; undefined where they were left out. */
  readonly rolesCommand: string | undefined;
  readonly restoreCommand: string;
  /** What retention did there; undefined where there is no policy, or it could not be applied. */
  readonly pruned: Pruned | undefined;
}

/** Throws the `Failure` of a backup that is not in all of its stores. */
export function failOfMissed(result: BackupResult): void {
  const [first, ...others] = result.missed;
  if (first === undefined) return;
  const stored = result.kind === 'stored' ? result.stored.map(({ location }) => location) : [];
  throw failureOfMissed([first, ...others], stored);
}

export interface BackupIo {
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Called with the id before anything is written under it. */
  readonly began?: (id: string) => void;
}

/**
 * Takes one backup. Resolves only when it is whole, proven and stored, in one of its stores at least; every other end
 * throws a `Failure` and leaves nothing that is listed. Transient failures are tried again until something has been
 * published.
 */
export async function backup(config: BackupConfig, io: BackupIo): Promise<BackupResult> {
  const limits = {
    ...io,
    timeoutMs: config.timeoutMs,
    tooLong: () =>
      new Failure('dump', 'timeLimit', `the backup was not done within ${formatSeconds(config.timeoutMs / 1000)}`, {
        hint: 'give it more with timeout, or less to do with exclude-table-data; nothing was published',
      }),
    retries: config.retries,
    cancelled: () => cancelled('dump'),
  };
  return withinLimits(limits, (signal, again) => new Attempt(config, { ...io, signal }, again).run());
}

/** Younger ones may belong to a run that is still going. */
const leftoverMs = 24 * 60 * 60 * 1000;
const sweepMs = 60_000;

/** A server or a store that does not answer this soon is left to itself. */
const cleanUpMs = 2000;

async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms / 1000} s`)), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** One try, from the first connection to the manifest. Whatever it opens, it closes. */
class Attempt {
  readonly #config: BackupConfig;
  readonly #io: BackupIo;
  readonly #log: Log;
  readonly #signal: AbortSignal;
  readonly #destinations: Destinations;
  /** As long as nothing is dumped, another attempt costs less than a store without a backup. */
  readonly #again: boolean;
  readonly #started = Date.now();
  readonly #timings: Record<string, number> = {};
  readonly #sessions: Session[] = [];
  readonly #cleanups: (() => Promise<void>)[] = [];
  readonly #application = `pgassay ${randomBytes(3).toString('hex')}`;

  constructor(config: BackupConfig, io: BackupIo, again: boolean) {
    this.#again = again;
    this.#config = config;
    this.#io = io;
    this.#log = io.log;
    this.#signal = io.signal;
    const use = { signal: io.signal, idleMs: Math.min(config.stallMs, 60_000) };
    this.#destinations = new Destinations(
      config.stores.map((choice) => openStore(choice, use)),
      io,
    );
  }

  async run(): Promise<BackupResult> {
    // A query that waits on the server ends only with its session.
    const closeSessions = async (): Promise<void> => {
      await Promise.all(this.#sessions.map((session) => session.close()));
    };
    this.#signal.addEventListener('abort', closeSessions, { once: true });
    try {
      return await this.#run();
    } finally {
      this.#signal.removeEventListener('abort', closeSessions);
      await closeSessions();
      await this.#cleanUp();
    }
  }

  async #run(): Promise<BackupResult> {
    const config = this.#config;
    const traits = { encrypted: config.encryption !== undefined, keepMs: config.retention?.within };
    await this.#destinations.each(({ store }) => store.admit(traits), { again: this.#again });
    const control = await this.#open('control');
    const warnings = judgePooling(await this.#pooling(control), config, this.#log);
    await prepareSession(control);
    const facts = await readServerFacts(control);
    judgeServer(facts, config, this.#log);
    const preview = await resolveScope(control, config.scope, {
      standby: facts.standby,
      database: facts.database.name,
    });
    await requirePrivileges(control, preview, facts);
    refuseEmpty(preview, config);
    await this.#destinations.each(
      async (destination) => {
        destination.previous = await requirePrevious(destination.store, config, facts, this.#log);
      },
      { again: this.#again },
    );
    const programs = await this.#programs(facts);
    const temporary = await this.#privateFolder();
    const compression = await chooseCompression(config.compression, programs);
    this.#lap('preflight');
    this.#log.info(
      `${displayWord(facts.database.name)}: PostgreSQL ${formatVersion(facts.version)}${facts.standby ? ' (standby)' : ''}, ${formatBytes(facts.database.sizeBytes)}, ${formatCount(preview.tables.length, 'table')}; pg_dump ${formatVersion(programs.version)} from ${programs.origin}, ${compression.name}`,
    );
    if (config.dryRun)
      return {
        kind: 'dry-run',
        tables: preview.tables.length,
        server: formatVersion(facts.version),
        client: `${formatVersion(programs.version)} from ${programs.origin}`,
        missed: this.#destinations.missed,
      };

    const environment = await childEnvironment(config.target, control.server, temporary, {
      applicationName: `${this.#application} pg_dump`,
      ...(programs.libraryPath === undefined ? {} : { libraryPath: programs.libraryPath }),
    });
    // Before hours are spent on the dump: some providers hide roles.
    const roles = config.roles ? await dumpRoles(programs, environment, this.#signal) : undefined;
    const id = await this.#newId();
    const folder = `${config.name}/${id}`;
    this.#io.began?.(id);
    this.#cleanups.push(() => this.#destinations.discard(config.name, id));
    this.#cleanups.push(() => this.#destinations.abort());
    // Text without compression can take more room than the tables: a bytea doubles.
    const expected = facts.database.sizeBytes * (compression.name === 'none' ? 2.5 : 1);
    const publisher = new Publisher(this.#destinations, folder, { ...config, signal: this.#signal });
    let outgoing: Outgoing | undefined;
    const begin = async (): Promise<Sink> => {
      const begun = await publisher.beginDump(expected);
      outgoing = begun;
      return (chunk) => begun.write(chunk);
    };
    const captured = await this.#log.group('Dump', () =>
      this.#capture(
        {
          control,
          open: (purpose) => this.#openPrepared(purpose, control),
          application: this.#application,
          programs,
          environment,
          privateDirectory: temporary,
          compress: compression.word,
          server: { standby: facts.standby, database: facts.database.name },
        },
        config,
        { begin, log: this.#log, signal: this.#signal },
      ),
    );
    this.#lap('dump');
    requireEqual(captured);
    await publisher.completeDump(outgoing, compression.name, config.verifyUpload);
    if (roles !== undefined) await publisher.put(fileNames.roles, roles);
    await publisher.put(fileNames.census, censusDocument(captured, config));
    this.#lap('publish');
    const parts = { id, config, facts, captured, pgDump: formatVersion(programs.version), warnings };
    const timings = { ...this.#timings, total: seconds(this.#started) };
    const published = await publisher.publish(
      (destination) => manifestOf({ ...parts, destination, files: publisher.files, timings }),
      config.signing,
    );
    const stored = await Promise.all(published.map((each) => this.#settle(each)));
    const [first] = published;
    if (first === undefined) throw new Error('a backup was published nowhere');
    const { history, proven } = await this.#history(first);
    return {
      kind: 'stored',
      manifest: first.manifest,
      stored,
      warnings: [...warnings, ...captured.warnings],
      history,
      proven,
      missed: this.#destinations.missed,
    };
  }

  /** By the first store's clock, and free in all of them. */
  async #newId(): Promise<string> {
    const found = await this.#destinations.each(
      async ({ store }) => ({
        now: await store.now(),
        ids: await store.ids(this.#config.name),
      }),
      { again: this.#again },
    );
    return newId(
      found[0]?.now ?? new Date(),
      found.flatMap(({ ids }) => ids),
    );
  }

  /** What is left to do in a store that has the backup. */
  async #settle({ store, manifest }: Published): Promise<StoredBackup> {
    const pruned = await this.#prune(store);
    await this.#sweep(store);
    return {
      expiresAt: manifest.expiresAt === null ? undefined : new Date(manifest.expiresAt),
      location: `${store.uri}/${manifest.name}/${manifest.id}`,
      rolesCommand: rolesCommand(store, manifest),
      restoreCommand: restoreCommand(store, manifest),
      pruned,
    };
  }

  /** The backup is published: what goes wrong here is a warning, and keeps more than it should. */
  async #prune(store: Store): Promise<Pruned | undefined> {
    const { name, retention, trust } = this.#config;
    if (retention === undefined) return undefined;
    const rules = { policy: retention, trust, proofKeys: [], criticalAfterMs: undefined, dryRun: false };
    try {
      return await prune({ store, name, ...rules }, this.#io);
    } catch (error) {
      if (!this.#signal.aborted && !(error instanceof Failure)) throw error;
      this.#log.warn(`the backup is stored, and retention was not applied to the end: ${(error as Error).message}`);
      return undefined;
    }
  }

  /** What killed runs left behind a day ago or more. The backup is published: nothing here can fail it. */
  async #sweep(store: Store): Promise<void> {
    const { name } = this.#config;
    try {
      const before = new Date((await store.now()).getTime() - leftoverMs);
      const swept = await within(sweepMs, store.sweep(name, before));
      if (swept.length > 0)
        this.#log.notice(
          `removed what ${formatCount(swept.length, 'unfinished run')} had left in the store: ${swept.join(', ')}`,
        );
    } catch (error) {
      this.#log.info(`leftovers of unfinished runs, if there are any, stay in the store: ${(error as Error).message}`);
    }
  }

  /** For the report only: whatever goes wrong here, the backup is published. */
  async #history({
    store,
    manifest,
  }: Published): Promise<{ readonly history: Manifest[]; readonly proven: Proof | undefined }> {
    const recent = await readRecent(store, this.#config.trust, manifest.name, 30).catch(() => []);
    const series = recent.filter(
      ({ manifest: each }) =>
        each.series === manifest.series && (each.label === safetyLabel) === (manifest.label === safetyLabel),
    );
    const proven = await newestPassed(store, series.toReversed()).catch(() => undefined);
    return { history: series.map((backup) => backup.manifest), proven };
  }

  /** A session that every end of this attempt closes; nothing is set in it yet. */
  async #open(purpose: string, sameServerAs?: Session): Promise<Session> {
    const session = await connect(this.#config.target, {
      applicationName: `${this.#application} ${purpose}`,
      signal: this.#signal,
      onRunner: this.#config.machine.onRunner,
      ...(sameServerAs === undefined ? {} : { pinned: sameServerAs.server }),
    });
    this.#sessions.push(session);
    return session;
  }

  async #openPrepared(purpose: string, sameServerAs: Session): Promise<Session> {
    const session = await this.#open(purpose, sameServerAs);
    await prepareSession(session);
    return session;
  }

  /** A pg_dump that had to be killed leaves its server session behind, with its locks, until the server notices. */
  async #capture(...args: Parameters<typeof captureSnapshot>): Promise<Captured> {
    try {
      return await captureSnapshot(...args);
    } catch (error) {
      await this.#endServerSessions(args[0].control).catch(() => {});
      throw error;
    }
  }

  async #endServerSessions(control: Session): Promise<void> {
    const session = await connect(this.#config.target, {
      applicationName: 'pgassay clean-up',
      signal: AbortSignal.timeout(cleanUpMs),
      pinned: control.server,
    });
    try {
      await within(cleanUpMs, endSessions(session, this.#application));
    } finally {
      await session.close();
    }
  }

  #pooling(control: Session): Promise<Pooling> {
    return detectPooling(control, () => this.#open('probe', control));
  }

  async #programs(facts: ServerFacts): Promise<Programs> {
    const { machine, clientBin, installClient } = this.#config;
    const programs = await findPrograms(
      { server: facts.version, use: 'dump' },
      {
        clientBin,
        install: installClient,
        toolCache: machine.toolCache,
        path: machine.path,
        log: this.#log,
        signal: this.#signal,
        packages: machine.packages,
      },
    );
    const warning = dumpSecurityWarning(programs.version);
    if (warning !== undefined) this.#log.warn(warning);
    return programs;
  }

  async #privateFolder(): Promise<string> {
    const folder = await mkdtemp(join(this.#config.machine.temporary, 'pgassay-'));
    this.#cleanups.push(() => rm(folder, { recursive: true, force: true }));
    return folder;
  }

  #lap(stage: string): void {
    const before = Object.values(this.#timings).reduce((sum, time) => sum + time, 0);
    this.#timings[stage] = Math.max(0, Math.round((seconds(this.#started) - before) * 10) / 10);
  }

  async #cleanUp(): Promise<void> {
    for (let next = this.#cleanups.pop(); next !== undefined; next = this.#cleanups.pop())
      await within(cleanUpMs, next()).catch((error: unknown) =>
        this.#log.warn(`cleaning up failed: ${(error as Error).message}`),
      );
  }
}

function seconds(since: number): number {
  return Math.round((Date.now() - since) / 100) / 10;
}
