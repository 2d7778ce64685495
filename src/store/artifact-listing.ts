import { idPattern } from '../backup-id.ts';
import { Failure } from '../failure.ts';
import { type ArtifactApi, type ArtifactPage, pageSize, type StoredArtifact } from './artifact-api.ts';
import { type ArtifactName, manifestsOf, nthName, parseArtifactName, proofsOf, recordsName } from './artifact-names.ts';

/** A repository with no more artifacts is listed whole. */
const fewPages = 10;
/** Names can be found by listing everything only, and that ends somewhere: a job may ask GitHub 1,000 times an hour. */
const mostPages = 200;
const mostReadings = 3;
/** Requests at the same time. */
const atOnce = 8;
/** Of a shared name's numbers so many in a row that nobody has are the end of it. */
const gap = 3;
/** Proofs whose content is looked at, newest first. */
const mostProofs = 100;

/** What there is of one backup. */
export interface ArtifactEntry {
  readonly id: string;
  /** By the name that the file has in every store. */
  readonly files: ReadonlyMap<string, StoredArtifact>;
  /** Every manifest that says it is of this id, the first one first. */
  readonly manifests: readonly StoredArtifact[];
  readonly proofs: ReadonlyMap<string, StoredArtifact>;
}

/** Everything of one name that has not expired. */
export interface ArtifactSurvey {
  /** Oldest first. */
  readonly entries: readonly ArtifactEntry[];
  /** Runs in which a manifest of this name is that nobody can tell the backup of: nothing there is known to be unfinished. */
  readonly unclear: ReadonlySet<number>;
}

/** Finds a store's files among a repository's artifacts. What was read once is remembered: artifacts never change. */
export class ArtifactLister {
  readonly #api: ArtifactApi;
  /** The content of a small artifact; undefined when it is gone. */
  readonly #read: (artifact: StoredArtifact) => Promise<Buffer | undefined>;
  /** What this process uploaded and a list may not show yet. */
  readonly #own: ReadonlyMap<number, StoredArtifact>;

  constructor(
    api: ArtifactApi,
    own: ReadonlyMap<number, StoredArtifact>,
    read: (artifact: StoredArtifact) => Promise<Buffer | undefined>,
  ) {
    this.#api = api;
    this.#own = own;
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

  async survey(name: string): Promise<ArtifactSurvey> {
    const all = await this.#about(name);
    const named = all.flatMap((artifact) => {
      const parsed = parseArtifactName(artifact.name);
      return parsed !== undefined && 'name' in parsed && parsed.name === name ? [{ artifact, parsed }] : [];
    });
    const files = new Map<string, Map<string, StoredArtifact>>();
    for (const { artifact, parsed } of named) {
      if (parsed.kind !== 'file') continue;
      const of = files.get(parsed.id) ?? new Map<string, StoredArtifact>();
      files.set(parsed.id, of);
      // What came first counts; a name cannot be taken twice in a run, but in another one.
      const taken = of.get(parsed.file);
      if (taken === undefined || artifact.id < taken.id) of.set(parsed.file, artifact);
    }
    const ofKind = (kind: ArtifactName['kind']): StoredArtifact[] =>
      named.flatMap(({ artifact, parsed }) => (parsed.kind === kind && !artifact.expired ? [artifact] : []));
    const { manifests, unclear } = await this.#identify(ofKind('manifest').sort(byAge), files);
    const proofs = await this.#proofs(ofKind('proof'));
    const ids = [...new Set([...files.keys(), ...manifests.keys()])].sort();
    const entries = ids.flatMap((id): ArtifactEntry[] => {
      const found = files.get(id) ?? new Map<string, StoredArtifact>();
      // GitHub deletes a backup's artifacts one by one: what has lost one to age is over as a whole.
      if ([...found.values()].some((artifact) => artifact.expired)) return [];
      return [{ id, files: found, manifests: manifests.get(id) ?? [], proofs: proofs.get(id) ?? new Map() }];
    });
    return { entries, unclear };
  }

  /** Records of restores by the names that they have in every store. */
  async records(): Promise<ReadonlyMap<string, StoredArtifact>> {
    const all = this.#withOwn(await this.#shared(recordsName)).filter(
      (each) => !each.expired && parseArtifactName(each.name)?.kind === 'record',
    );
    return this.#dated(all.sort(byAge), (content) => timeFile(content.finishedAt));
  }

  /** Every artifact that says anything about a name; in a large repository, of the runs that published backups of it. */
  async #about(name: string): Promise<StoredArtifact[]> {
    const first = await this.#api.page({}, 1);
    if (pagesOf(first) <= fewPages) return this.#withOwn(await this.#rest({}, first));
    const [manifests, proofs] = await Promise.all([this.#shared(manifestsOf(name)), this.#shared(proofsOf(name))]);
    const runs = [...new Set(manifests.map(({ runId }) => runId))];
    if (pagesOf(first) <= runs.length) return this.#withOwn(await this.#rest({}, first));
    const ofRuns = await inParallel(runs, async (runId) => this.#rest({ runId }, await this.#api.page({ runId }, 1)));
    return this.#withOwn([...manifests, ...proofs, ...ofRuns.flat()]);
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
    files: ReadonlyMap<string, ReadonlyMap<string, StoredArtifact>>,
  ): Promise<{ manifests: Map<string, StoredArtifact[]>; unclear: Set<number> }> {
    const found = new Map<string, StoredArtifact[]>();
    const unclear = new Set<number>();
    const runs = [...Map.groupBy(manifests, ({ runId }) => runId)];
    const told = await inParallel(runs, async ([runId, those]) => {
      const ids = [...files].flatMap(([id, of]) => ([...of.values()].some((each) => each.runId === runId) ? [id] : []));
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

  async #proofs(artifacts: readonly StoredArtifact[]): Promise<Map<string, Map<string, StoredArtifact>>> {
    const newest = artifacts.toSorted(byAge).slice(-mostProofs);
    const contents = await inParallel(newest, async (each) => parsed(await this.#read(each)));
    const found = new Map<string, StoredArtifact[]>();
    for (const [index, artifact] of newest.entries()) {
      const id = contents[index]?.backupId;
      if (typeof id === 'string') found.set(id, [...(found.get(id) ?? []), artifact]);
    }
    const proofs = new Map<string, Map<string, StoredArtifact>>();
    for (const [id, those] of found)
      proofs.set(id, await this.#dated(those, ({ testedAt }) => prefixed('proofs/', timeFile(testedAt))));
    return proofs;
  }

  /** By file name; a second one of the same second gets `-2`, as everywhere. */
  async #dated(
    artifacts: readonly StoredArtifact[],
    nameOf: (content: Readonly<Record<string, unknown>>) => string | undefined,
  ): Promise<Map<string, StoredArtifact>> {
    const contents = await inParallel(artifacts, async (each) => parsed(await this.#read(each)));
    const found = new Map<string, StoredArtifact>();
    for (const [index, artifact] of artifacts.entries()) {
      const file = nameOf(contents[index] ?? {});
      if (file === undefined) continue;
      let free = file;
      for (let more = 2; found.has(free); more++) free = file.replace(/\.json$/, `-${more}.json`);
      found.set(free, artifact);
    }
    return found;
  }

  #withOwn(artifacts: readonly StoredArtifact[]): StoredArtifact[] {
    return [...new Map([...artifacts, ...this.#own.values()].map((each) => [each.id, each])).values()];
  }
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

function prefixed(prefix: string, text: string | undefined): string | undefined {
  return text === undefined ? undefined : `${prefix}${text}`;
}

async function inParallel<T, U>(items: readonly T[], work: (item: T) => Promise<U>): Promise<U[]> {
  const results: U[] = [];
  const waiting = items.entries();
  const worker = async (): Promise<void> => {
    for (const [index, item] of waiting) results[index] = await work(item);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  return results;
}
