import { withinLimits } from './attempts.ts';
import type { Check } from './checks.ts';
import { Failure } from './failure.ts';
import type { Log } from './log.ts';
import { type Machine, type ProgramChoice, programsOfMajor, withPrivateFolder } from './machine.ts';
import type { Census, Manifest, Source } from './manifest.ts';
import { formatCount, formatSeconds } from './numbers.ts';
import { childEnvironment } from './postgres/child-environment.ts';
import type { Programs } from './postgres/client.ts';
import { applyToDatabase, customOptions, databaseStatements } from './postgres/database-settings.ts';
import { imagesFor } from './postgres/extension-images.ts';
import { compareLargeObjects } from './postgres/large-objects.ts';
import { isDatabaseError } from './postgres/messages.ts';
import { displayWord, nameKey } from './postgres/names.ts';
import { readRestored } from './postgres/read-back.ts';
import { JobsDeadlocked, type Refused, restoreLeniently } from './postgres/restore.ts';
import {
  compareContents,
  compareExtensions,
  describeContent,
  displayTag,
  isObject,
  readContents,
  readUnsound,
} from './postgres/restored-objects.ts';
import { runChecks } from './postgres/run-checks.ts';
import { readsOurFiles } from './postgres/sandbox.ts';
import { MissingExtensions, ScratchDatabase, seeingRoles } from './postgres/scratch.ts';
import { type ScratchCluster, startScratchCluster } from './postgres/scratch-cluster.ts';
import { ScratchServer } from './postgres/scratch-server.ts';
import { runScript } from './postgres/script-restore.ts';
import type { ConnectionTarget } from './postgres/url.ts';
import { formatVersion, parseVersion, restoreSecurityWarning } from './postgres/version.ts';
import { type Level, type Proof, restoreSeconds } from './proof.ts';
import { shellWord } from './publish.ts';
import { commandOn } from './report/commands.ts';
import { keyFlag } from './report/encryption.ts';
import type { RestoreTestReport } from './report/restore-test.ts';
import type { SigningKey } from './signing.ts';
import type { TestArchive, TestSubject } from './test-subject.ts';
import { compareRestored, type Finding, type Recorded } from './verdict.ts';

/** Everything a restore test needs to know besides the backup. Durations are milliseconds. */
export interface RestoreTestConfig extends ProgramChoice {
  /** The superuser of a server that may be thrown away; undefined: one is started here. */
  readonly scratch: ConnectionTarget | undefined;
  /** The restore runs as a superuser of the scratch server. */
  readonly superuser: boolean;
  readonly allowUnsandboxed: boolean;
  readonly checks: readonly Check[];
  /** `auto`: what the backup recorded. */
  readonly census: 'auto' | 'rows' | 'content';
  readonly jobs: number;
  readonly maxRestoreMs: number | undefined;
  readonly skipExtensions: readonly string[];
  /** Signs the proof; undefined: nobody does. */
  readonly proofKey: SigningKey | undefined;
  readonly timeoutMs: number;
  readonly retries: number;
  readonly version: string;
  readonly source: Source | null;
  readonly machine: Machine;
}

/** A restore test that came to a verdict. */
export interface RestoreTested {
  readonly manifest: Manifest;
  readonly proof: Proof;
  /** Where the proof was written; undefined when the store refused it. */
  readonly location: string | undefined;
  readonly tables: number;
  readonly rows: number;
  /** What to do about it, for people. */
  readonly hint: string | undefined;
  /** How it failed; undefined when it passed. */
  readonly failure: Failure | undefined;
}

interface Io {
  readonly log: Log;
  readonly signal: AbortSignal;
}

/**
 * Restores a backup into a database that is thrown away afterwards, compares everything with what was recorded, and
 * writes the verdict beside the backup. Throws a `Failure` when there can be no verdict: the store or the scratch server
 * cannot be used, or somebody cancelled.
 */
export async function restoreTest(subject: TestSubject, config: RestoreTestConfig, io: Io): Promise<RestoreTested> {
  const limits = {
    ...io,
    timeoutMs: config.timeoutMs,
    tooLong: () =>
      new Failure(
        'restore',
        'timeLimit',
        `the restore test was not done within ${formatSeconds(config.timeoutMs / 1000)}`,
        {
          hint: 'give it more with timeout, or more jobs; nothing of it is left',
        },
      ),
    retries: config.retries,
    cancelled: () =>
      new Failure('restore', 'cancelled', 'cancelled; what was restored is thrown away, and there is no verdict', {
        hint: 'run it again when you are ready',
      }),
  };
  return withinLimits(limits, (signal) => new RestoreTest(subject, config, { ...io, signal }).run());
}

/** What was found so far, and how it can be said. */
interface Verdict {
  readonly findings: readonly Finding[];
  readonly leftOut?: readonly string[];
  readonly notes?: readonly string[];
  readonly tables?: number;
  readonly rows?: number;
  readonly hint?: string | undefined;
  /** When the bytes themselves are wrong. */
  readonly failure?: Failure;
}

class RestoreTest {
  readonly #subject: TestSubject;
  readonly #manifest: Manifest;
  readonly #config: RestoreTestConfig;
  readonly #io: Io;
  readonly #started = Date.now();
  readonly #timings: Record<string, number> = {};
  #rolesSql: string | undefined;
  #server = '';
  #pgRestore = '';
  #recipient: string | null = null;

  constructor(subject: TestSubject, config: RestoreTestConfig, io: Io) {
    this.#subject = subject;
    this.#manifest = subject.manifest;
    this.#config = config;
    this.#io = io;
  }

  async run(): Promise<RestoreTested> {
    let census: Census | undefined;
    let verdict: Verdict;
    try {
      census = await this.#subject.census();
      verdict = await this.#judge(census);
    } catch (error) {
      if (!(error instanceof Failure) || (error.exit !== 'verification' && error.exit !== 'wrongKey')) throw error;
      const expected = error.exit === 'wrongKey' ? 'to be opened with the key that was given' : 'as it was written';
      const finding = { object: 'the stored backup', expected, found: error.message };
      verdict = { findings: [finding], hint: error.hint, failure: error };
    }
    this.#io.signal.throwIfAborted();
    this.#timings.total = seconds(this.#started);
    return this.#conclude(verdict, this.#levelOf(census));
  }

  async #judge(census: Census): Promise<Verdict> {
    const { scope, series, selfContained } = this.#manifest;
    if (!selfContained || scope.mode === 'data-only')
      return {
        findings: [
          {
            object: `the backup's scope (${series})`,
            expected: 'a whole database, or its whole schema',
            found: 'a part, which needs definitions from elsewhere: it cannot be proved alone',
          },
        ],
        hint: 'test a full backup of this database; a part is proved by restoring it where it is needed',
      };
    if (this.#config.census === 'content' && census.digest === null && scope.mode !== 'schema-only')
      throw new Failure('input', 'badInput', 'census: content needs digests, and this backup has recorded none', {
        hint: 'take backups with census: content, or leave census at auto',
      });
    return withPrivateFolder(this.#config.machine, (folder) => this.#restoreIn(folder, census));
  }

  #levelOf(census: Census | undefined): Level {
    if (this.#manifest.scope.mode === 'schema-only') return 'schema';
    return census !== undefined && census.digest !== null && this.#config.census !== 'rows' ? 'content' : 'rows';
  }

  async #restoreIn(folder: string, census: Census): Promise<Verdict> {
    const began = Date.now();
    const [archive, scratch] = await this.#downloadAndOpen(folder);
    const closeSessions = (): void => void scratch.server.closeAll();
    this.#io.signal.addEventListener('abort', closeSessions, { once: true });
    try {
      this.#timings.prepare = seconds(began);
      await this.#requireSandbox(scratch, folder);
      return await this.#restoreAndCompare(folder, census, archive, scratch);
    } finally {
      this.#io.signal.removeEventListener('abort', closeSessions);
      await archive.file?.close();
      await scratch.close();
    }
  }

  /** Both at the same time; who fails first ends the other. A damaged archive says more than a server that does not start. */
  async #downloadAndOpen(folder: string): Promise<[TestArchive, Scratch]> {
    const failed = new AbortController();
    const signal = AbortSignal.any([this.#io.signal, failed.signal]);
    const stopOther = (error: unknown): never => {
      failed.abort(error);
      throw error;
    };
    const [downloaded, opened] = await Promise.allSettled([
      this.#download(folder, signal).catch(stopOther),
      this.#open(signal).catch(stopOther),
    ]);
    if (downloaded.status === 'fulfilled' && opened.status === 'fulfilled') return [downloaded.value, opened.value];
    if (downloaded.status === 'fulfilled') await downloaded.value.file?.close();
    if (opened.status === 'fulfilled') await opened.value.close();
    throw failed.signal.reason;
  }

  /** Every file of the backup is read and hashed; the archive stays open. */
  async #download(folder: string, signal: AbortSignal): Promise<TestArchive> {
    const began = Date.now();
    this.#rolesSql = await this.#subject.roles();
    const archive = await this.#subject.archive(folder, signal);
    this.#recipient = archive.recipient;
    this.#timings.download = seconds(began);
    return archive;
  }

  async #open(signal: AbortSignal): Promise<Scratch> {
    const { scratch, machine } = this.#config;
    const { log } = this.#io;
    const io = { log, signal, onRunner: machine.onRunner };
    const archived = parseVersion(this.#manifest.database.serverVersion);
    if (archived === undefined)
      throw new Failure('client', 'verification', 'the manifest names no version of the server it is from');
    if (scratch !== undefined) {
      const server = new ScratchServer(scratch, io);
      try {
        await server.open(this.#manifest);
        const programs = await this.#programs(server.version.major, false, signal);
        return { server, programs, cluster: undefined, close: () => server.closeAll() };
      } catch (error) {
        await server.closeAll();
        throw error;
      }
    }
    const programs = await this.#programs(archived.major, true, signal);
    // The archive's copy lies beside it, where the store is elsewhere.
    const structure = this.#manifest.scope.mode === 'schema-only';
    const bytes = (structure ? 0 : this.#manifest.database.sizeBytes * 1.1) + (this.#manifest.files[0]?.bytes ?? 0);
    const cluster = await startScratchCluster(programs, { temporary: machine.temporary, bytes, log }, signal);
    const server = new ScratchServer(cluster.admin, io);
    const close = async (): Promise<void> => {
      await server.closeAll();
      await cluster.stop();
    };
    try {
      await server.open(this.#manifest);
      return { server, programs, cluster, close };
    } catch (error) {
      await close();
      throw error;
    }
  }

  async #programs(major: number, serverPrograms: boolean, signal: AbortSignal): Promise<Programs> {
    const { machine } = this.#config;
    const { log } = this.#io;
    const programs = await programsOfMajor(major, serverPrograms, this.#config, machine, { log, signal });
    const warning = restoreSecurityWarning(programs.version);
    if (warning !== undefined) this.#io.log.warn(warning);
    this.#pgRestore = formatVersion(programs.version);
    return programs;
  }

  /** A superuser's restore runs whatever the archive says, on the server's machine and as the server's user. */
  async #requireSandbox(scratch: Scratch, folder: string): Promise<void> {
    const { superuser, allowUnsandboxed } = this.#config;
    if (!superuser || allowUnsandboxed) return;
    const open =
      scratch.cluster === undefined ? await readsOurFiles(scratch.server, folder) : !scratch.cluster.otherUser;
    if (!open) return;
    throw new Failure(
      'restore',
      'privilege',
      'scratch-privileges: superuser would let the archive run programs as this very user, who can read our secrets',
      {
        hint: 'give scratch-url: a server in a service container, or of another user; allow-unsandboxed: true insists, for archives you trust',
      },
    );
  }

  async #restoreAndCompare(folder: string, census: Census, archive: TestArchive, scratch: Scratch): Promise<Verdict> {
    const { log } = this.#io;
    this.#server = formatVersion(scratch.server.version);
    let jobs = archive.parallel ? this.#config.jobs : 1;
    for (;;) {
      let database: ScratchDatabase;
      try {
        database = await ScratchDatabase.create(
          scratch.server,
          {
            manifest: this.#manifest,
            census,
            toc: archive.toc,
            seeing: seeingRoles(this.#rolesSql),
            skipExtensions: this.#config.skipExtensions,
            superuser: this.#config.superuser,
            own: scratch.cluster !== undefined,
          },
          log,
        );
      } catch (error) {
        if (error instanceof MissingExtensions) return this.#withoutExtensions(error.missing, scratch);
        throw error;
      }
      try {
        // Expected errors among the mixed lines of several jobs could hide another one: pg_restore counts exactly with one.
        const exact = database.replaced.size > 0;
        if (exact && jobs > 1)
          log.notice(
            `restoring with one job: ${displayNames(database.replaced)} of the archive ${database.replaced.size === 1 ? 'is a role' : 'are roles'} of the scratch server already; with a superuser of another name it would be several`,
          );
        return await this.#inDatabase(folder, census, archive, { ...scratch, database, jobs: exact ? 1 : jobs });
      } catch (error) {
        if (!(error instanceof JobsDeadlocked)) throw error;
        log.notice("two of pg_restore's own jobs waited for each other; once more with one job");
        jobs = 1;
      } finally {
        await this.#dropped(scratch, database);
      }
    }
  }

  /** A cluster of our own goes as a whole; on somebody else's server nothing of ours stays. */
  async #dropped({ cluster }: Scratch, database: ScratchDatabase): Promise<void> {
    if (cluster !== undefined) return;
    const left = await database.drop().catch((error: unknown) => {
      if (error instanceof Failure || isDatabaseError(error)) return [`the database ${database.name} and its roles`];
      throw error;
    });
    if (left.length === 0) return;
    this.#io.log.warn(
      `left on the scratch server: ${left.join(', ')}; another test may need them still, and a run after a day removes them`,
    );
  }

  #withoutExtensions(missing: Census['extensions'], { server }: Scratch): Verdict {
    const names = missing.map((each) => each.name);
    const images = imagesFor(names, server.version.major);
    const image =
      images.length === 0
        ? 'use a scratch server that has them (scratch-url)'
        : `run a scratch server that has them as a service container, of the image ${images.join(' or ')}, and give its scratch-url`;
    return {
      findings: missing.map(({ name, version }) => ({
        object: `extension ${displayWord(name)}${version === '' ? '' : ` ${displayTag(version)}`}`,
        expected: 'available on the scratch server',
        found: 'not installed there, so nothing was restored',
      })),
      hint: `${image}; skip-extensions: ${names.join(', ')} restores the rest without them, and never passes`,
    };
  }

  async #inDatabase(folder: string, census: Census, archive: TestArchive, place: Place): Promise<Verdict> {
    const { server, programs, database, jobs } = place;
    const options = customOptions(databaseStatements(archive.toc));
    const environment = await this.#environmentFor({ ...server.admin, ...database.tester, options }, place, folder);
    await this.#applySettings(archive, place);
    const began = Date.now();
    const names = census.contents.flatMap((entry) => [entry.tag, entry.schema ?? '']);
    const isExpected = givingAway(archive, database);
    const refused =
      archive.script === undefined
        ? (
            await restoreLeniently(
              { programs, environment, database: database.name, archive, jobs, names },
              { list: database.entries.map((entry) => entry.dumpId), folder, isExpected },
              this.#io,
            )
          ).refused
        : await runScript(await server.connect(database.tester), archive.script, this.#io);
    this.#timings.restore = seconds(began);
    const verifying = Date.now();
    await database.settle();
    // On a server of our own the tester may read everything, and as he has no other rights his queries may run anything.
    // Elsewhere the superuser reads, as carefully as a census does: what lies in the database runs no code of its own.
    const own = place.cluster !== undefined;
    const reader = own ? database.tester : { database: database.name };
    const readerEnvironment = own
      ? environment
      : await this.#environmentFor({ ...server.admin, ...reader }, place, folder);
    const session = await server.connect(reader);
    const wanted =
      this.#levelOf(census) === 'content'
        ? census
        : { ...census, digest: null, tables: census.tables.map(withoutDigest) };
    // One counts while the other reads catalogs.
    const [read, restored] = await Promise.all([
      readRestored(session, wanted, { harmless: own }),
      readContents(programs, readerEnvironment, database.name, this.#io.signal),
    ]);
    const { compared, findings } = compareRestored(wanted, read.state);
    const fewer = compared.filter(
      (each) => archive.mayLack?.has(nameKey(each)) && each.found !== undefined && each.found < each.recorded,
    );
    const skipped = new Set(fewer.map((each) => each.object));
    const differences = findings.filter((each) => !skipped.has(each.object));
    const unread = read.unread.map(({ kind, schema, name, reason }) => {
      return { object: `${kind} ${displayWord(schema)}.${displayWord(name)}`, expected: 'readable', found: reason };
    });
    const extensions = await compareExtensions(
      session,
      census.extensions.filter((each) => !this.#config.skipExtensions.includes(each.name)),
    );
    const unsound = await readUnsound(session, archive.toc.entries, database.entries);
    const contents =
      archive.script === undefined
        ? [
            ...compareContents(census.contents.filter(isObject), archive.toc.entries.filter(isObject)),
            ...compareContents(database.expected, database.comparable(restored.entries)),
          ]
        : [];
    const largeObjects = archive.script === undefined ? await this.#compareLargeObjects(folder, archive, place) : [];
    this.#timings.verify = seconds(verifying);
    const checks = await this.#check(archive, place);
    const failed = refusals(refused, archive);
    // Why something is not there has been said already, or that it is a table that is not.
    const told = new Set([
      ...failed.map((each) => each.object),
      ...differences.filter((each) => each.found === 'no such table').map((each) => `TABLE ${each.object}`),
    ]);
    const all = [
      ...database.skipped,
      ...failed,
      ...differences,
      ...largeObjects,
      ...unread,
      ...extensions.findings,
      ...contents.filter((each) => each.found !== 'missing' || !told.has(each.object)),
      // Which constraints were never validated, only a table of contents tells.
      ...unsound
        .filter((each) => !/^constraint /.test(each.object) || archive.script === undefined)
        .filter((each) => !told.has(each.object.replace('rows of materialized view', 'MATERIALIZED VIEW DATA'))),
      ...checks,
      ...this.#slowness(),
    ];
    return {
      findings: all,
      leftOut: [...database.leftOut, ...ofTheDatabase(archive), ...(archive.script?.leftOut ?? [])],
      notes: [...database.notes, ...extensions.versions, ...fewer.map(describeFewer)],
      tables: compared.length,
      rows: compared.reduce((rows, table) => rows + (table.found ?? 0), 0),
      hint: this.#config.superuser || !all.some(needsSuperuser) ? undefined : superuserHint,
    };
  }

  /** A census says how many there are; what is in them, to whom they belong and who may read them, the archive says. */
  async #compareLargeObjects(folder: string, archive: TestArchive, place: Place): Promise<Finding[]> {
    const { server, programs, database } = place;
    const { replaced, tester, entries } = database;
    const session = await server.connect({ database: database.name });
    try {
      return await compareLargeObjects(
        session,
        { programs, folder, archive, entries },
        (owner) =>
          owner === '' || replaced.has(owner) ? { owner: tester.user, grants: false } : { owner, grants: true },
        this.#io.signal,
      );
    } finally {
      await server.close(session);
    }
  }

  /** The database's own settings, as its owner may set them: a materialized view may ask for one. */
  async #applySettings({ toc }: TestArchive, { server, database }: Place): Promise<void> {
    const settings = databaseStatements(toc).filter(
      ({ title, custom }) =>
        custom === undefined &&
        title.startsWith('the setting ') &&
        !/read_only|_timeout|^the setting role$/.test(title),
    );
    if (settings.length === 0) return;
    const owner = await server.connect(database.tester);
    await applyToDatabase(owner, database.name, settings);
    await server.close(owner);
  }

  #environmentFor(
    target: ConnectionTarget,
    { server, programs }: Scratch,
    folder: string,
  ): Promise<Record<string, string>> {
    return childEnvironment(target, server.server, folder, {
      applicationName: 'pgassay restore-test',
      libraryPath: programs.libraryPath,
    });
  }

  async #check(archive: TestArchive, { server, database }: Place): Promise<Finding[]> {
    if (this.#config.checks.length === 0) return [];
    const began = Date.now();
    const session = await server.connect({
      ...database.tester,
      options: customOptions(databaseStatements(archive.toc)),
    });
    const findings = await runChecks(session, this.#config.checks, this.#manifest.createdAt);
    this.#timings.checks = seconds(began);
    return findings;
  }

  #slowness(): Finding[] {
    const { maxRestoreMs } = this.#config;
    const took = restoreSeconds(this.#timings);
    if (maxRestoreMs === undefined || took * 1000 <= maxRestoreMs) return [];
    return [
      {
        object: 'restore time, download included',
        expected: `at most ${formatSeconds(maxRestoreMs / 1000)}`,
        found: formatSeconds(took),
      },
    ];
  }

  async #conclude(verdict: Verdict, level: Level): Promise<RestoreTested> {
    const { findings, hint } = verdict;
    const { maxRestoreMs, source, version } = this.#config;
    const manifest = this.#manifest;
    const proof: Proof = {
      format: 'pgassay-proof/1',
      backupId: manifest.id,
      name: manifest.name,
      manifestSha256: this.#subject.manifestSha256,
      testedAt: new Date((await this.#subject.now()).getTime()).toISOString(),
      result: findings.length === 0 ? 'passed' : 'failed',
      level,
      findings,
      findingsLeftOut: 0,
      leftOut: verdict.leftOut ?? [],
      notes: verdict.notes ?? [],
      timings: this.#timings,
      maxRestoreSeconds: maxRestoreMs === undefined ? null : maxRestoreMs / 1000,
      server: this.#server,
      recipient: this.#recipient,
      tools: { pgRestore: this.#pgRestore, pgassay: version },
      runUrl: source?.runUrl ?? null,
    };
    let location: string | undefined;
    try {
      location = await this.#subject.keep(proof, this.#config.proofKey);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      this.#io.log.warn(`the proof could not be written beside the backup: ${error.message}`);
    }
    return {
      manifest,
      proof,
      location,
      tables: verdict.tables ?? 0,
      rows: verdict.rows ?? 0,
      hint,
      failure: findings.length === 0 ? undefined : (verdict.failure ?? differs(manifest, findings, hint)),
    };
  }
}

function displayNames(names: ReadonlySet<string>): string {
  return [...names].slice(0, 5).map(displayWord).join(', ');
}

/** Grants, limits and the comment of the database itself: another one has its own. */
function ofTheDatabase({ toc }: TestArchive): string[] {
  const titles = databaseStatements(toc).flatMap(({ title }) => (title.startsWith('the setting ') ? [] : [title]));
  return titles.length === 0 ? [] : [`of the database itself: ${[...new Set(titles)].join(', ')}`];
}

/** A scratch server and what was found to work with it. */
interface Scratch {
  readonly server: ScratchServer;
  readonly programs: Programs;
  readonly cluster: ScratchCluster | undefined;
  readonly close: () => Promise<void>;
}

interface Place extends Scratch {
  readonly database: ScratchDatabase;
  readonly jobs: number;
}

function describeFewer({ object, recorded, found }: Recorded): string {
  return `${object} has ${found} of ${formatCount(recorded, 'row')}: the dump's own INSERTs leave out what is there already (ON CONFLICT)`;
}

function withoutDigest({ digest: _, ...table }: Census['tables'][number]): Census['tables'][number] {
  return table;
}

const needsMore = /must be (?:superuser|owner|able to)|permission denied/;
const superuserHint =
  'objects that only a superuser may create need scratch-privileges: superuser, and a scratch server that may be trusted with the archive';

function needsSuperuser({ found }: Finding): boolean {
  return needsMore.test(found);
}

/**
 * An error that was expected: the answer to `ALTER … OWNER TO` a role that was on the scratch server before. Rows are
 * given to nobody, so what comes up while they are loaded is never one.
 */
function givingAway({ toc }: TestArchive, { replaced }: ScratchDatabase): (refused: Refused) => boolean {
  const given = new Set(
    toc.entries.filter((entry) => replaced.has(entry.owner) && !/ DATA$/.test(entry.kind)).map((entry) => entry.dumpId),
  );
  return ({ dumpId, message }) =>
    dumpId !== undefined &&
    given.has(dumpId) &&
    /^could not execute query: must be (?:member of role|able to SET ROLE) "/.test(message);
}

/** pg_restore's errors, by the archive's own entries. */
function refusals(refused: readonly Refused[], { toc }: TestArchive): Finding[] {
  const entries = new Map(toc.entries.map((entry) => [entry.dumpId, entry]));
  const told = new Set<number>();
  return refused.flatMap(({ dumpId, object: said, message }): Finding[] => {
    // What follows from an entry's first error says nothing new.
    if (dumpId !== undefined && told.has(dumpId)) return [];
    if (dumpId !== undefined) told.add(dumpId);
    const entry = dumpId === undefined ? undefined : entries.get(dumpId);
    const object = entry === undefined ? (said ?? 'pg_restore') : describeContent(entry);
    return [{ object, expected: 'restored without an error', found: message }];
  });
}

function differs({ name, id }: Manifest, findings: readonly Finding[], hint: string | undefined): Failure {
  const lines = findings.slice(0, 20).map((each) => `  ${each.object}: expected ${each.expected}, found ${each.found}`);
  if (findings.length > 20) lines.push(`  and ${findings.length - 20} more`);
  return new Failure(
    'verify',
    'differences',
    `${name}/${id} did not pass its restore test: ${formatCount(findings.length, 'finding')}\n${lines.join('\n')}`,
    {
      hint:
        hint ?? 'this backup is no proof of recovery: look at the findings, and keep older backups until one passes',
    },
  );
}

function seconds(since: number): number {
  return Math.round((Date.now() - since) / 100) / 10;
}

/** What the edges say about it. */
export function reportOf({ failure: _, ...tested }: RestoreTested, store: string): RestoreTestReport {
  const { manifest, proof } = tested;
  return {
    ...tested,
    restoreSeconds: restoreSeconds(proof.timings),
    command: (at) =>
      `${commandOn(at, `restore-test ${manifest.id}`, true)} --name ${shellWord(manifest.name)}${keyFlag(manifest)}`,
    store: shellWord(store),
  };
}
