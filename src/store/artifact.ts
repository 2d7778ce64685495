import type { FileHandle } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { idPattern, namePattern } from '../backup-id.ts';
import { Failure } from '../failure.ts';
import { ArtifactApi, type StoredArtifact } from './artifact-api.ts';
import { deleting, deletionFailure, noToken, notWritable } from './artifact-failure.ts';
import { type ArtifactEntry, ArtifactLister, type ArtifactSurvey } from './artifact-listing.ts';
import { artifactNameOf, proofSignedBy } from './artifact-names.ts';
import { requireLongEnough, requireReadableByFew } from './artifact-permit.ts';
import { type ArtifactOptions, type ArtifactPlace, artifactUri } from './artifact-place.ts';
import { ArtifactUpload, artifactClient, orAborted, requireSpoolSpace } from './artifact-upload.ts';
import {
  type BackupTraits,
  type History,
  largestRead,
  type Removal,
  recordsFolder,
  type Store,
  type StoredFile,
  type StoreUse,
  type Upload,
} from './store.ts';

const defaultIdleMs = 60_000;
const cleanUpMs = 5000;
/** A manifest that was on its way when the run was cancelled is there by then, or nobody waits for it. */
const publishingMs = 1500;
/** What one command asks one thing after the other is answered from one listing. */
const surveyMs = 10_000;
/** Manifests and proofs are smaller; a census may be large, and is read once. Bytes. */
const largestKept = 256 * 1024;
/** Of all that is kept. Bytes. */
const mostKept = 64 * 1024 * 1024;
/** Of a database nobody has dumped yet, a dump can be this part: rows compress, and indexes are not in it. */
const smallestPart = 10;

/** The workflow artifacts of one repository: written by the run that is going on, read across runs. */
export class ArtifactStore implements Store {
  readonly uri: string;
  readonly #options: ArtifactOptions;
  readonly #place: ArtifactPlace;
  readonly #signal: AbortSignal | undefined;
  readonly #idleMs: number;
  readonly #api: ArtifactApi;
  readonly #own = { uploaded: new Map<number, StoredArtifact>(), removed: new Set<number>() };
  /** Manifests that GitHub's client was given, by `<name>/<id>`. */
  readonly #publishing = new Map<string, Promise<unknown>>();
  readonly #paths = new Map<string, StoredArtifact>();
  /** How many manifests there are of a backup. */
  readonly #manifests = new Map<string, number>();
  readonly #contents = new Map<number, Promise<Buffer | undefined>>();
  #keptBytes = 0;
  readonly #lister: ArtifactLister;
  readonly #surveys = new Map<string, { readonly until: number; readonly survey: Promise<ArtifactSurvey> }>();
  #keepMs: number | undefined;

  constructor(options: ArtifactOptions, { signal, idleMs = defaultIdleMs }: StoreUse = {}) {
    this.uri = artifactUri(options.place);
    this.#options = options;
    this.#place = options.place;
    this.#signal = signal;
    this.#idleMs = idleMs;
    this.#api = this.#apiUntil(signal);
    this.#lister = this.#listerOf(this.#api);
  }

  async admit({ encrypted, keepMs }: BackupTraits): Promise<void> {
    const { place, token, allowPlaintext } = this.#options;
    if (!place.writable) throw notWritable(place.repository);
    if (token === undefined) throw noToken(place.repository);
    const visibility = encrypted ? 'private' : await this.#api.visibility();
    requireReadableByFew({ encrypted, visibility, allowPlaintext });
    requireLongEnough(keepMs, place.mostDays);
    this.#keepMs = keepMs;
  }

  names(): Promise<string[]> {
    return this.#lister.names();
  }

  async ids(name: string): Promise<string[]> {
    return (await this.#survey(name)).entries.map(({ id }) => id);
  }

  async files(name: string, id?: string): Promise<Map<string, Map<string, number>>> {
    const { entries } = await this.#survey(name);
    return new Map(
      entries
        .filter((entry) => id === undefined || entry.id === id)
        .map((entry) => [entry.id, new Map([...filesOf(entry)].map(([file, { bytes }]) => [file, bytes]))]),
    );
  }

  async records(): Promise<string[]> {
    const records = await this.#lister.records();
    for (const [file, artifact] of records) this.#paths.set(`${recordsFolder}/${file}`, artifact);
    return [...records.keys()].sort();
  }

  history(path: string): History {
    const [name = '', id = '', file] = path.split('/');
    const manifests = this.#manifests.get(`${name}/${id}`) ?? 0;
    return file === 'manifest.json' && manifests > 1 ? 'overwritten' : 'as written';
  }

  async read(path: string, version = 0, largest = largestRead): Promise<Buffer | undefined> {
    const artifact = await this.#find(path, version);
    if (artifact === undefined) return undefined;
    if (artifact.bytes > largest)
      throw new Failure(
        'download',
        'verification',
        `the artifact ${artifact.name} has ${artifact.bytes} bytes, too many for what it is`,
      );
    return this.#content(artifact, this.#api);
  }

  async open(path: string): Promise<StoredFile | undefined> {
    const artifact = await this.#find(path, 0);
    const bytes = artifact && (await this.#api.download(artifact));
    if (artifact === undefined || bytes === undefined) return undefined;
    return {
      bytes: artifact.bytes,
      stream: Readable.from(bytes, { objectMode: false, highWaterMark: 1024 * 1024 }),
    };
  }

  async openLocal(): Promise<FileHandle | undefined> {
    return undefined;
  }

  async begin(path: string, expected: number): Promise<Upload> {
    const { repository, writable, temporary } = this.#place;
    if (!writable) throw notWritable(repository);
    const [name = '', id = '', file = ''] = path.split('/');
    if (file.startsWith('database.')) await requireSpoolSpace(temporary, await this.#needed(name, expected));
    return ArtifactUpload.begin({
      ...this.#nameFor(path),
      ...{ api: this.#api, temporary, signal: this.#signal, keepMs: this.#keepMs },
      sending: (work) => {
        if (file === 'manifest.json') this.#publishing.set(`${name}/${id}`, work);
      },
      stored: (artifact) => {
        this.#own.uploaded.set(artifact.id, artifact);
        this.#paths.set(path, artifact);
        this.#surveys.clear();
      },
    });
  }

  /** A proof gets the number of its signature: that is how a reader knows them for a pair. */
  #nameFor(path: string): ReturnType<typeof artifactNameOf> {
    const signature = this.#paths.get(`${path}.sig`);
    if (signature === undefined || !this.#own.uploaded.has(signature.id)) return artifactNameOf(path);
    return { artifact: proofSignedBy(signature.name), shared: false };
  }

  async discard(name: string, id: string): Promise<void> {
    // A manifest on its way publishes what it names: nothing of that may go until it has arrived, or cannot any more.
    const publishing = this.#publishing.get(`${name}/${id}`);
    if (publishing !== undefined && !(await settles(publishing, publishingMs))) return;
    const signal = AbortSignal.timeout(cleanUpMs);
    const api = this.#apiUntil(signal);
    const { runId } = this.#place;
    const { entries } = await this.#listerOf(api).survey(name, runId === undefined ? undefined : [Number(runId)]);
    const entry = entries.find((each) => each.id === id);
    if (entry === undefined || entry.manifests.length > 0) return;
    for (const artifact of entry.files.values()) await this.#delete(artifact, api, signal);
    this.#surveys.clear();
  }

  async sweep(name: string, before: Date): Promise<string[]> {
    const swept: string[] = [];
    for (const { id, files } of leftoversIn(await this.#lister.survey(name), before)) {
      const runs = [...new Set([...files.values()].map(({ runId }) => runId))];
      // A long list can lose a line to somebody who deletes meanwhile; the short one of a run has its manifest for certain.
      const again = leftoversIn(await this.#lister.survey(name, runs), before).find((each) => each.id === id);
      if (again === undefined) continue;
      for (const artifact of again.files.values()) await this.#delete(artifact, this.#api, this.#signal);
      swept.push(id);
    }
    this.#surveys.clear();
    return swept;
  }

  async remove(name: string, id: string): Promise<Removal> {
    const survey = await this.#survey(name);
    const entry = survey.entries.find((each) => each.id === id);
    if (entry === undefined) return { kind: 'removed' };
    const known = this.#surveys.get(name);
    this.#surveys.delete(name);
    // The first one is the backup until it goes.
    for (const manifest of entry.manifests.toReversed()) {
      const refused = await this.#refusal(manifest);
      if (refused !== undefined) return { kind: 'kept', reason: refused };
    }
    const reasons: string[] = [];
    for (const artifact of [...entry.files.values(), ...entry.proofs.values()]) {
      const refused = await this.#refusal(artifact);
      if (refused !== undefined) reasons.push(refused);
    }
    // Many may go one after the other, and a list takes many requests.
    const rest = survey.entries.filter((each) => each !== entry);
    const [reason] = reasons;
    if (reason !== undefined) return { kind: 'partly', reason };
    if (known !== undefined)
      this.#surveys.set(name, { ...known, survey: Promise.resolve({ ...survey, entries: rest }) });
    return { kind: 'removed' };
  }

  pathFor(path: string): string {
    const artifact = this.#paths.get(path);
    if (artifact === undefined) return `${this.uri}/${path}`;
    const { serverUrl, repository } = this.#place;
    return `${serverUrl}/${repository}/actions/runs/${artifact.runId}/artifacts/${artifact.id}`;
  }

  commandToRead(path: string): readonly string[] {
    const artifact = this.#paths.get(path);
    if (artifact === undefined) throw new Error(`${path} was neither stored nor listed`);
    const { host } = new URL(this.#place.serverUrl);
    return [
      ...['gh', 'api', ...(host === 'github.com' ? [] : ['--hostname', host])],
      `/repos/${this.#place.repository}/actions/artifacts/${artifact.id}/zip`,
    ];
  }

  /** The spool is judged when a dump begins. */
  async freeBytes(): Promise<undefined> {
    return undefined;
  }

  async now(): Promise<Date> {
    if (this.#api.clockAhead === undefined) await this.#api.page({}, 1);
    return new Date(Date.now() + (this.#api.clockAhead ?? 0));
  }

  /** What the last dump of this name took and a tenth more; of the first one nobody knows, and it may well be small. */
  async #needed(name: string, expected: number): Promise<number> {
    const dumps = (await this.#survey(name)).entries.flatMap(({ manifests, files }) =>
      manifests.length === 0
        ? []
        : [...files].flatMap(([file, { bytes }]) => (/^database\./.test(file) ? [bytes] : [])),
    );
    const last = dumps.at(-1);
    return last === undefined ? expected / smallestPart : Math.min(expected, last * 1.1);
  }

  async #survey(name: string): Promise<ArtifactSurvey> {
    const known = this.#surveys.get(name);
    if (known !== undefined && known.until > Date.now()) return known.survey;
    const survey = this.#lister.survey(name).then((found) => {
      for (const entry of found.entries) {
        this.#manifests.set(`${name}/${entry.id}`, entry.manifests.length);
        for (const [file, artifact] of filesOf(entry)) this.#paths.set(`${name}/${entry.id}/${file}`, artifact);
      }
      return found;
    });
    this.#surveys.set(name, { until: Date.now() + surveyMs, survey });
    return survey.catch((error: unknown) => {
      this.#surveys.delete(name);
      throw error;
    });
  }

  async #find(path: string, version: number): Promise<StoredArtifact | undefined> {
    const [name = '', id = '', ...rest] = path.split('/');
    if (name === recordsFolder) {
      if (!this.#paths.has(path)) await this.records();
      return version === 0 ? this.#paths.get(path) : undefined;
    }
    if (!namePattern.test(name) || !idPattern.test(id)) return undefined;
    const entry = (await this.#survey(name)).entries.find((each) => each.id === id);
    if (entry === undefined) return undefined;
    const file = rest.join('/');
    if (file === 'manifest.json') return entry.manifests[version];
    return version === 0 ? filesOf(entry).get(file) : undefined;
  }

  /** Artifacts never change: what was read once is not read again. */
  #content(artifact: StoredArtifact, api: ArtifactApi): Promise<Buffer | undefined> {
    const known = this.#contents.get(artifact.id);
    if (known !== undefined) return known;
    const content = api
      .download(artifact)
      .then((bytes) => (bytes === undefined ? undefined : buffer(Readable.from(bytes, { objectMode: false }))));
    return this.#keep(artifact, content);
  }

  #small(artifact: StoredArtifact, api: ArtifactApi): Promise<Buffer | undefined> {
    return this.#contents.get(artifact.id) ?? this.#keep(artifact, api.small(artifact));
  }

  #keep(artifact: StoredArtifact, content: Promise<Buffer | undefined>): Promise<Buffer | undefined> {
    if (artifact.bytes > largestKept || this.#keptBytes + artifact.bytes > mostKept) return content;
    this.#contents.set(artifact.id, content);
    this.#keptBytes += artifact.bytes;
    const forget = (): void => {
      if (this.#contents.delete(artifact.id)) this.#keptBytes -= artifact.bytes;
    };
    content.then((bytes) => bytes ?? forget(), forget);
    return content;
  }

  #apiUntil(signal: AbortSignal | undefined): ArtifactApi {
    return new ArtifactApi(this.#place, this.#options.token, { signal, idleMs: this.#idleMs });
  }

  #listerOf(api: ArtifactApi): ArtifactLister {
    return new ArtifactLister(api, this.#own, (artifact) => this.#small(artifact, api));
  }

  /** Why GitHub did not let it go; undefined when it is gone. */
  async #refusal(artifact: StoredArtifact): Promise<string | undefined> {
    try {
      await this.#delete(artifact, this.#api, this.#signal);
      return undefined;
    } catch (error) {
      if (!(error instanceof Failure) || error.exit !== 'storeCredentials') throw error;
      return `github-token needs the permission ${deleting.permission}`;
    }
  }

  /** A run may delete its own artifacts without any permission. */
  async #delete(artifact: StoredArtifact, api: ArtifactApi, signal: AbortSignal | undefined): Promise<void> {
    const { runId, writable } = this.#place;
    if (writable && String(artifact.runId) === runId) await deleteOwn(artifact, signal);
    else await api.remove(artifact.id);
    this.#own.uploaded.delete(artifact.id);
    this.#own.removed.add(artifact.id);
  }
}

async function deleteOwn({ name }: StoredArtifact, signal: AbortSignal | undefined): Promise<void> {
  const client = await artifactClient();
  await orAborted(client.deleteArtifact(name), signal).catch((error: unknown) => {
    if ((error as Error | undefined)?.name !== 'ArtifactNotFoundError') throw deletionFailure(error, name);
  });
}

/** Backups without a manifest of which nothing is younger than `before`. */
function leftoversIn({ entries, unclear }: ArtifactSurvey, before: Date): ArtifactEntry[] {
  return entries.filter(
    ({ files, manifests }) =>
      manifests.length === 0 &&
      [...files.values()].every(({ createdAt, runId }) => createdAt < before && !unclear.has(runId)),
  );
}

/** Whether it has come to an end, of either kind, within the time. */
async function settles(work: Promise<unknown>, ms: number): Promise<boolean> {
  const settled = work.then(
    () => true,
    () => true,
  );
  return Promise.race([settled, sleep(ms, false, { ref: false })]);
}

function filesOf({ files, manifests, proofs }: ArtifactEntry): Map<string, StoredArtifact> {
  const [manifest] = manifests;
  return new Map([...files, ...proofs, ...(manifest === undefined ? [] : [['manifest.json', manifest] as const])]);
}
