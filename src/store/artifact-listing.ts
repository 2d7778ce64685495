import { AtOnce } from '../at-once.ts';
import { idPattern } from '../backup-id.ts';
import { Failure } from '../failure.ts';
import { type ArtifactApi, type ArtifactPage, pageSize, type StoredArtifact } from './artifact-api.ts';
import {
  type ArtifactName,
  manifestsOf,
  nthName,
  parseArtifactName,
  proofSignaturesOf,
  proofSignedBy,
  proofsOf,
  recordsName,
} from './artifact-names.ts';
import { proofsFolder } from './store.ts';

/** A repository with no more artifacts is listed whole. */
const fewPages = 10;
/** Names can be found by listing everything only, and that ends somewhere: a job may ask GitHub 1,000 times an hour. */
const mostPages = 200;
const mostReadings = 3;
/** Requests at the same time. */
const atOnce = 8;
/** Of a shared name's numbers so many in a row that nobody has are the end of it. */
const gap = 3;
/** Proofs that are looked into at a time, newest first: all of these, and older ones until one says that it passed. */
const proofsAtOnce = 100;

/** What there is of one backup. */
export interface ArtifactEntry {
  readonly id: string;
  /** By the name that the file has in every store. */
  readonly files: ReadonlyMap<string, StoredArtifact>;
  /** Every manifest that says it is of this id, the first one first. */
  readonly manifests: readonly StoredArtifact[];
  /** And the signatures of those that are signed. */
  readonly proofs: ReadonlyMap<string, StoredArtifact>;
}

/** Everything of one name that has not expired. */
export interface ArtifactSurvey {
  /** Oldest first. */
  readonly entries: readonly ArtifactEntry[];
  /** Runs in which a manifest of this name is that nobody can tell the backup of: nothing there is known to be unfinished. */
  readonly unclear: ReadonlySet<number>;
}

/** What this process did and a list may not show yet. */
export interface OwnWork {
  readonly uploaded: ReadonlyMap<number, StoredArtifact>;
  readonly removed: ReadonlySet<number>;
}

/** Finds a store's files among a repository's artifacts. What was read once is remembered: artifacts never change. */
export class ArtifactLister {
  readonly #api: ArtifactApi;
  /** The content of a small artifact; undefined when it is gone, or not to be used. */
  readonly #read: (artifact: StoredArtifact) => Promise<Buffer | undefined>;
  readonly #ownWork: OwnWork;

  constructor(api: ArtifactApi, ownWork: OwnWork, read: (artifact: StoredArtifact) => Promise<Buffer | undefined>) {
    this.#api = api;
    this.#ownWork = ownWork;
    this.#read = read;
  }

  /** Every name that has a manifest, sorted. */
  async names(): Promise<string[]> {
    const first = await this.#api.page({}, 1);
    if (pagesOf(first) > mostPages)
      throw new Failure(
        'locate',
        'badInput',
        `the repository has ${first.total} artifacts, too many to look for the names of backups among them`,
        { hint: "say which database's backups are meant with name" },
      );
    const all = this.#withOwn(await this.#rest({}, first));
    const names = all.flatMap(({ expired, name }) => {
      const parsed = parseArtifactName(name);
      return !expired && parsed?.kind === 'manifest' ? [parsed.name] : [];
    });
    return [...new Set(names)].sort();
  }

  /** `runs`: only what these runs made, asked for anew. */
  async survey(name: string, runs?: readonly number[]): Promise<ArtifactSurvey> {
    const all = runs === undefined ? await this.#about(name) : await this.#ofRuns(runs);
    const named = all.flatMap((artifact) => {
      const parsed = parseArtifactName(artifact.name);
      return parsed !== undefined && 'name' in parsed && parsed.name === name ? [{ artifact, parsed }] : [];
    });
    const files = new Map<string, FileArtifact[]>();
    for (const { artifact, parsed } of named)
      if (parsed.kind === 'file')
        files.set(parsed.id, [...(files.get(parsed.id) ?? []), { file: parsed.file, artifact }]);
    const ofKind = (kind: ArtifactName['kind']): StoredArtifact[] =>
      named.flatMap(({ artifact, parsed }) => (parsed.kind === kind && !artifact.expired ? [artifact] : []));
    const { manifests, unclear } = await this.#identify(ofKind('manifest').sort(byAge), files);
    const proofs = await this.#proofs(ofKind('proof'), ofKind('proof signature'));
    const ids = [...new Set([...files.keys(), ...manifests.keys()])].sort();
    const entries = ids.flatMap((id): ArtifactEntry[] => {
      const [first, ...others] = manifests.get(id) ?? [];
      const found = filesOf(files.get(id) ?? [], first?.runId);
      // GitHub deletes a backup's artifacts one by one: what has lost one to age is over as a whole.
      if ([...found.values()].some((artifact) => artifact.expired)) return [];
      const published = first === undefined ? [] : [first, ...others];
      return [{ id, files: found, manifests: published, proofs: proofs.get(id) ?? new Map() }];
    });
    return { entries, unclear };
  }

  /** Records of restores by the names that they have in every store. */
  async records(): Promise<ReadonlyMap<string, StoredArtifact>> {
    const all = this.#withOwn(await this.#shared(recordsName)).filter(
      (each) => !each.expired && parseArtifactName(each.name)?.kind === 'record',
    );
    const files = await inParallel(all.sort(byAge), async (artifact) => {
      const file = timeFile(parsed(await this.#read(artifact)).finishedAt);
      return file === undefined ? [] : [{ file, artifact }];
    });
    return byFile(files.flat());
  }

  /** Every artifact that says anything about a name; in a large repository, of the runs that published backups of it. */
  async #about(name: string): Promise<StoredArtifact[]> {
    const first = await this.#api.page({}, 1);
    if (pagesOf(first) <= fewPages) return this.#withOwn(await this.#rest({}, first));
    const [manifests, proofs] = await Promise.all([this.#shared(manifestsOf(name)), this.#shared(proofsOf(name))]);
    const runs = [...new Set(manifests.map(({ runId }) => runId))];
    if (pagesOf(first) <= runs.length) return this.#withOwn(await this.#rest({}, first));
    const signatures = proofs.length === 0 ? [] : await this.#shared(proofSignaturesOf(name));
    return this.#withOwn([...manifests, ...proofs, ...signatures, ...(await this.#ofRuns(runs))]);
  }

  async #ofRuns(runs: readonly number[]): Promise<StoredArtifact[]> {
    const lists = await inParallel(runs, async (runId) => this.#rest({ runId }, await this.#api.page({ runId }, 1)));
    const own = [...this.#ownWork.uploaded.values()].filter(({ runId }) => runs.includes(runId));
    return this.#distinct([...lists.flat(), ...own]);
  }

  /** Every artifact with a shared name, whatever its number. */
  async #shared(artifact: string): Promise<StoredArtifact[]> {
    const found: StoredArtifact[] = [];
    for (let from = 1; ; from += gap) {
      const names = Array.from({ length: gap }, (_, index) => nthName(artifact, from + index));
      const lists = await Promise.all(
        names.map(async (name) => this.#rest({ name }, await this.#api.page({ name }, 1))),
      );
      found.push(...lists.flat());
      if (lists.every((list) => list.length === 0)) return found;
    }
  }

  /** All pages. What is deleted meanwhile moves the rest forward, past whoever is reading: then it is read again. */
  async #rest(of: { readonly name?: string; readonly runId?: number }, first: ArtifactPage): Promise<StoredArtifact[]> {
    for (let attempt = 1; ; attempt++) {
      const start = attempt === 1 ? first : await this.#api.page(of, 1);
      const pages = [start];
      let last = start;
      let { listed } = start;
      while (listed < last.total && last.listed > 0) {
        last = await this.#api.page(of, pages.length + 1);
        pages.push(last);
        listed += last.listed;
      }
      if ((listed >= last.total && last.total >= start.total) || attempt === mostReadings)
        return pages.flatMap(({ artifacts }) => artifacts);
    }
  }

  /** Which backup each manifest publishes. */
  async #identify(
    manifests: readonly StoredArtifact[],
    files: ReadonlyMap<string, readonly FileArtifact[]>,
  ): Promise<{ manifests: Map<string, StoredArtifact[]>; unclear: Set<number> }> {
    const found = new Map<string, StoredArtifact[]>();
    const unclear = new Set<number>();
    const runs = [...Map.groupBy(manifests, ({ runId }) => runId)];
    const told = await inParallel(runs, async ([runId, those]) => {
      const ids = [...files].flatMap(([id, of]) => (of.some(({ artifact }) => artifact.runId === runId) ? [id] : []));
      const [only, ...others] = ids;
      // Most runs make one backup, and then nothing has to be read. Whoever reads the manifest checks the id in it.
      if (those.length === 1 && only !== undefined && others.length === 0) return those.map(() => only);
      return Promise.all(those.map(async (each) => idOf(await this.#read(each))));
    });
    for (const [index, [runId, those]] of runs.entries())
      for (const [at, manifest] of those.entries()) {
        const id = told[index]?.[at];
        if (id === undefined) unclear.add(runId);
        else found.set(id, [...(found.get(id) ?? []), manifest].sort(byAge));
      }
    return { manifests: found, unclear };
  }

  async #proofs(
    artifacts: readonly StoredArtifact[],
    signatures: readonly StoredArtifact[],
  ): Promise<Map<string, Map<string, StoredArtifact>>> {
    const found = new Map<string, FileArtifact[]>();
    const newestFirst = artifacts.toSorted(byAge).toReversed();
    for (let from = 0, passed = false; from < newestFirst.length && !passed; from += proofsAtOnce) {
      const told = await inParallel(newestFirst.slice(from, from + proofsAtOnce), async (artifact) => ({
        ...proofIn(parsed(await this.#read(artifact))),
        artifact,
      }));
      passed = told.some((each) => each.passed);
      for (const { id, file, artifact } of told)
        if (id !== undefined && file !== undefined) found.set(id, [{ file, artifact }, ...(found.get(id) ?? [])]);
    }
    return new Map([...found].map(([id, proofs]) => [id, withSignatures(byFile(proofs), signatures)]));
  }

  #withOwn(artifacts: readonly StoredArtifact[]): StoredArtifact[] {
    return this.#distinct([...artifacts, ...this.#ownWork.uploaded.values()]);
  }

  #distinct(artifacts: readonly StoredArtifact[]): StoredArtifact[] {
    const there = artifacts.filter(({ id }) => !this.#ownWork.removed.has(id));
    return [...new Map(there.map((each) => [each.id, each])).values()];
  }
}

/** One file of a backup, or what has its name in another run. */
interface FileArtifact {
  readonly file: string;
  readonly artifact: StoredArtifact;
}

/** A backup is made by one run, that of its manifest: other runs can take the same names, and are not looked at. */
function filesOf(all: readonly FileArtifact[], runId: number | undefined): Map<string, StoredArtifact> {
  const found = new Map<string, StoredArtifact>();
  for (const { file, artifact } of all) {
    if (runId !== undefined && artifact.runId !== runId) continue;
    const taken = found.get(file);
    if (taken === undefined || artifact.id < taken.id) found.set(file, artifact);
  }
  return found;
}

/** By file name; a second one of the same second gets `-2`, as everywhere. */
function byFile(all: readonly FileArtifact[]): Map<string, StoredArtifact> {
  const found = new Map<string, StoredArtifact>();
  for (const { file, artifact } of all) {
    let free = file;
    for (let more = 2; found.has(free); more++) free = file.replace(/\.json$/, `-${more}.json`);
    found.set(free, artifact);
  }
  return found;
}

/**
 * A signature is stored right before its proof, by the same run and with the same number. A run that was started again has
 * a number twice: then it is the last one before the proof.
 */
function withSignatures(
  proofs: ReadonlyMap<string, StoredArtifact>,
  signatures: readonly StoredArtifact[],
): Map<string, StoredArtifact> {
  const pairs = [...proofs].flatMap(([file, proof]) => {
    const signature = signatures
      .filter(({ id, runId, name }) => runId === proof.runId && id < proof.id && proofSignedBy(name) === proof.name)
      .sort(byAge)
      .at(-1);
    return signature === undefined ? [] : [[`${file}.sig`, signature] as const];
  });
  return new Map([...proofs, ...pairs]);
}

function pagesOf({ total }: ArtifactPage): number {
  return Math.ceil(total / pageSize);
}

function byAge(a: StoredArtifact, b: StoredArtifact): number {
  return a.id - b.id;
}

function idOf(manifest: Buffer | undefined): string | undefined {
  const { id } = parsed(manifest);
  return typeof id === 'string' && idPattern.test(id) ? id : undefined;
}

/** No members at all for what is no JSON object. */
function parsed(content: Buffer | undefined): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(content?.toString('utf8') ?? '');
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** `20261121T020004Z.json` */
function timeFile(time: unknown): string | undefined {
  const date = new Date(typeof time === 'string' ? time : Number.NaN);
  if (Number.isNaN(date.getTime())) return undefined;
  return `${date
    .toISOString()
    .replace(/[-:]/g, '')
    .replace(/\.\d+Z$/, 'Z')}.json`;
}

/** What a restore test's proof, or the record of a key that opened a backup, says of its place. */
function proofIn({ backupId, testedAt, openedAt, result }: Readonly<Record<string, unknown>>): {
  readonly id: string | undefined;
  readonly file: string | undefined;
  readonly passed: boolean;
} {
  const file = timeFile(testedAt ?? openedAt);
  return {
    id: typeof backupId === 'string' && idPattern.test(backupId) ? backupId : undefined,
    file: file === undefined ? undefined : `${proofsFolder}/${file}`,
    passed: result === 'passed',
  };
}

function inParallel<T, U>(items: readonly T[], work: (item: T) => Promise<U>): Promise<U[]> {
  const few = new AtOnce(atOnce);
  return Promise.all(items.map((item) => few.run(() => work(item))));
}
