import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { Failure } from '../failure.ts';
import {
  type ArtifactQuestion,
  checking,
  deleting,
  downloading,
  expired,
  listing,
  noToken,
  refusal,
  unreachable,
} from './artifact-failure.ts';
import type { Visibility } from './artifact-permit.ts';
import type { ArtifactPlace } from './artifact-place.ts';

/** An artifact as GitHub's API lists it. */
export interface StoredArtifact {
  readonly id: number;
  readonly name: string;
  readonly bytes: number;
  /** Of the stored bytes, hex; undefined where GitHub has none. */
  readonly sha256: string | undefined;
  readonly createdAt: Date;
  readonly expiresAt: Date | undefined;
  readonly expired: boolean;
  readonly runId: number;
}

export interface ArtifactPage {
  /** Those that a run of this very repository made. */
  readonly artifacts: readonly StoredArtifact[];
  /** How many there are on this page, whoever made them. */
  readonly listed: number;
  readonly total: number;
}

/** What a list has to look into is smaller; bytes. */
const largestSmall = 4 * 1024 * 1024;

/** The most that GitHub gives at once. */
export const pageSize = 100;

const tries = 3;
const firstPauseMs = 300;
/** How often a download that breaks off is taken up again where it broke. */
const resumptions = 5;
/** What was just uploaded may not be known at once to those who are asked for it. */
const settlePausesMs = [100, 400, 1500, 3000];

/** GitHub's REST API for the artifacts of one repository. Throws a `Failure` and nothing else. */
export class ArtifactApi {
  readonly #place: ArtifactPlace;
  readonly #token: string | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #idleMs: number;
  #clockAhead: number | undefined;

  constructor(
    place: ArtifactPlace,
    token: string | undefined,
    { signal, idleMs }: { readonly signal: AbortSignal | undefined; readonly idleMs: number },
  ) {
    this.#place = place;
    this.#token = token;
    this.#signal = signal;
    this.#idleMs = idleMs;
  }

  /** Milliseconds that GitHub's clock was ahead of ours at its last answer; undefined before the first. */
  get clockAhead(): number | undefined {
    return this.#clockAhead;
  }

  /** One page of all artifacts, newest first, or of those with a name, or of one run's. */
  async page(of: { readonly name?: string; readonly runId?: number }, page: number): Promise<ArtifactPage> {
    const query = new URLSearchParams({ per_page: String(pageSize), page: String(page) });
    if (of.name !== undefined) query.set('name', of.name);
    const runs = of.runId === undefined ? '' : `/runs/${of.runId}`;
    const response = await this.#ask(listing, 'GET', `/actions${runs}/artifacts?${query}`);
    const { artifacts, total_count: total } = record(await this.#json(listing, response));
    if (!Array.isArray(artifacts) || !Number.isSafeInteger(total)) throw unreadable(listing);
    const ours = artifacts.map(parseArtifact).filter((each) => each !== undefined);
    return { artifacts: ours, listed: artifacts.length, total: total as number };
  }

  /** What GitHub says of an artifact that was just uploaded. */
  async stored(id: number): Promise<StoredArtifact> {
    for (let attempt = 0; ; attempt++) {
      const response = await this.#ask(checking, 'GET', `/actions/artifacts/${id}`, [404]);
      if (response.status !== 404) {
        const artifact = parseArtifact(await this.#json(checking, response));
        if (artifact === undefined) throw unreadable(checking);
        return artifact;
      }
      await response.body?.cancel();
      const pause = settlePausesMs[attempt];
      if (pause === undefined) throw refusal(checking, this.#place.repository, response, '');
      await pauseFor(pause, this.#signal);
    }
  }

  /** Resolves, too, when it is not there. */
  async remove(id: number): Promise<void> {
    const response = await this.#ask(deleting, 'DELETE', `/actions/artifacts/${id}`, [404, 410]);
    await response.body?.cancel();
  }

  async visibility(): Promise<Visibility> {
    try {
      const response = await this.#ask(listing, 'GET', '');
      const { visibility, private: hidden } = record(await this.#json(listing, response));
      if (visibility === 'public' || hidden === false) return 'public';
      return visibility === 'private' || visibility === 'internal' || hidden === true ? 'private' : 'unknown';
    } catch (error) {
      if (this.#signal?.aborted === true) throw error;
      return 'unknown';
    }
  }

  /**
   * An artifact's bytes, taken up again where the connection breaks; undefined when it is not there. Size and SHA-256 are
   * checked at the end.
   */
  async download(artifact: StoredArtifact): Promise<AsyncGenerator<Buffer> | undefined> {
    const first = await this.#body(artifact, 0);
    if (first === 'expired') throw expired(artifact.name);
    return first === 'gone' ? undefined : this.#read(artifact, first);
  }

  /** The same in one piece. Undefined, too, when it has expired, is too large, or is not what GitHub says it has. */
  async small(artifact: StoredArtifact): Promise<Buffer | undefined> {
    if (artifact.bytes > largestSmall) return undefined;
    const first = await this.#body(artifact, 0);
    if (typeof first === 'string') return undefined;
    try {
      return await buffer(Readable.from(this.#read(artifact, first), { objectMode: false }));
    } catch (error) {
      if (error instanceof Failure && error.exit === 'verification') return undefined;
      throw error;
    }
  }

  async *#read(artifact: StoredArtifact, first: Response): AsyncGenerator<Buffer> {
    const { name, bytes, sha256 } = artifact;
    const hash = createHash('sha256');
    let at = 0;
    let response: Response | undefined = first;
    if (bytes === 0) await first.body?.cancel();
    for (let broken = 0; at < bytes; broken++) {
      try {
        const found: Response | 'gone' | 'expired' = response ?? (await this.#body(artifact, at));
        if (typeof found === 'string') throw expired(name);
        for await (const chunk of this.#chunks(found)) {
          at += chunk.length;
          if (at > bytes) throw notAsListed(name);
          hash.update(chunk);
          yield chunk;
        }
        if (at < bytes && broken >= resumptions) throw Object.assign(new Error('cut off'), { code: 'ECONNRESET' });
      } catch (error) {
        if (error instanceof Failure) throw error;
        if (this.#signal?.aborted === true) throw this.#signal.reason;
        if (broken >= resumptions) throw unreachable(downloading, this.#place.repository, error);
      }
      response = undefined;
      if (at < bytes) await pauseFor(200 * 2 ** broken, this.#signal);
    }
    if (sha256 !== undefined && hash.digest('hex') !== sha256) throw notAsListed(name);
  }

  /** The chunks of an answer; a connection on which nothing moves is given up. */
  async *#chunks(response: Response): AsyncGenerator<Buffer> {
    const reader = response.body?.getReader();
    if (reader === undefined) return;
    let timer: NodeJS.Timeout | undefined;
    try {
      for (;;) {
        const { promise: silence, reject } = Promise.withResolvers<never>();
        timer = setTimeout(() => reject(Object.assign(new Error('silence'), { code: 'ETIMEDOUT' })), this.#idleMs);
        const { done, value } = await Promise.race([reader.read(), silence]);
        clearTimeout(timer);
        if (done) return;
        yield Buffer.from(value.buffer, value.byteOffset, value.byteLength);
      }
    } finally {
      clearTimeout(timer);
      await reader.cancel().catch(() => {});
    }
  }

  /** The answer with an artifact's bytes from `start` on. GitHub sends there with an address that is good for a minute. */
  async #body({ id, name }: StoredArtifact, start: number): Promise<Response | 'gone' | 'expired'> {
    const found = await this.#ask(downloading, 'GET', `/actions/artifacts/${id}/zip`, [302, 404, 410]);
    await found.body?.cancel();
    if (found.status === 410) return 'expired';
    if (found.status === 404) return 'gone';
    const location = found.headers.get('location');
    if (location === null) throw unreadable(downloading);
    const headers: Record<string, string> = start === 0 ? {} : { range: `bytes=${start}-` };
    const response = await this.#fetch(downloading, location, { headers });
    if (response.status === (start === 0 ? 200 : 206)) return response;
    await response.body?.cancel();
    if (response.status === 404) return 'gone';
    throw new Failure('download', 'store', `GitHub's storage answered ${response.status} for the artifact ${name}`, {
      hint: 'run it again; githubstatus.com tells about outages',
      transient: true,
    });
  }

  /** `path` is below the repository. Statuses in `known` are answers too. */
  async #ask(
    question: ArtifactQuestion,
    method: 'GET' | 'DELETE',
    path: string,
    known: readonly number[] = [],
  ): Promise<Response> {
    const { apiUrl, repository } = this.#place;
    if (this.#token === undefined) throw noToken(repository);
    const url = `${apiUrl.replace(/\/+$/, '')}/repos/${repository}${path}`;
    const init: RequestInit = {
      method,
      redirect: 'manual',
      headers: {
        accept: 'application/vnd.github+json',
        authorization: `Bearer ${this.#token}`,
        'user-agent': 'pgassay',
        'x-github-api-version': '2022-11-28',
      },
    };
    for (let attempt = 1; ; attempt++) {
      const answer = await this.#fetch(question, url, init).catch((error: Failure) => error);
      if (!(answer instanceof Failure)) {
        const date = Date.parse(answer.headers.get('date') ?? '');
        if (!Number.isNaN(date)) this.#clockAhead = date - Date.now();
        if (answer.ok || known.includes(answer.status)) return answer;
      }
      const failure =
        answer instanceof Failure ? answer : refusal(question, repository, answer, await messageOf(answer));
      if (!failure.transient || attempt === tries) throw failure;
      await pauseFor(firstPauseMs * 3 ** (attempt - 1), this.#signal);
    }
  }

  async #fetch(question: ArtifactQuestion, url: string, init: RequestInit): Promise<Response> {
    const signal = this.#signal;
    // Until the headers are there; `#chunks` watches over what comes after them.
    const silence = new AbortController();
    const timer = setTimeout(() => silence.abort(), Math.min(this.#idleMs, 30_000));
    try {
      const signals = signal === undefined ? [silence.signal] : [silence.signal, signal];
      return await fetch(url, { ...init, signal: AbortSignal.any(signals) });
    } catch (error) {
      if (signal?.reason instanceof Failure) throw signal.reason;
      throw unreachable(question, this.#place.repository, error);
    } finally {
      clearTimeout(timer);
    }
  }

  async #json(question: ArtifactQuestion, response: Response): Promise<unknown> {
    try {
      return await response.json();
    } catch (error) {
      if (this.#signal?.aborted === true) throw this.#signal.reason;
      throw unreadable(question, error);
    }
  }
}

/** Throws what the signal was aborted with. */
async function pauseFor(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await sleep(ms, undefined, signal === undefined ? {} : { signal }).catch(() => signal?.throwIfAborted());
}

/** Undefined for one that a run of a fork made: anybody can start such a run, and add artifacts of any name. */
function parseArtifact(value: unknown): StoredArtifact | undefined {
  const artifact = record(value);
  const { id, name, size_in_bytes: bytes } = artifact;
  const run = record(artifact.workflow_run);
  if (!Number.isSafeInteger(id) || typeof name !== 'string' || !Number.isSafeInteger(bytes)) return undefined;
  if (!Number.isSafeInteger(run.id) || run.repository_id === undefined) return undefined;
  if (run.head_repository_id !== run.repository_id) return undefined;
  const createdAt = new Date(String(artifact.created_at));
  if (Number.isNaN(createdAt.getTime())) return undefined;
  const expiresAt = new Date(String(artifact.expires_at));
  return {
    ...{ id: id as number, name, bytes: bytes as number, createdAt, runId: run.id as number },
    sha256: /^sha256:([0-9a-f]{64})$/.exec(String(artifact.digest))?.[1],
    expiresAt: Number.isNaN(expiresAt.getTime()) ? undefined : expiresAt,
    expired: artifact.expired !== false,
  };
}

function notAsListed(artifact: string): Failure {
  return new Failure(
    'download',
    'verification',
    `what GitHub gave of the artifact ${artifact} is not what it says it has`,
    { hint: 'use another backup (pgassay list), and report it to GitHub' },
  );
}

async function messageOf(response: Response): Promise<string> {
  try {
    return String(record(await response.json()).message ?? '');
  } catch {
    return '';
  }
}

function unreadable({ stage, verb }: ArtifactQuestion, cause?: unknown): Failure {
  return new Failure(stage, 'store', `GitHub's answer when asked to ${verb} a repository cannot be read`, {
    hint: 'run it again; githubstatus.com tells about outages',
    cause,
    transient: true,
  });
}

function record(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}
