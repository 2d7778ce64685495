import { createHash } from 'node:crypto';
import { type FileHandle, mkdtemp, open, rename, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '../failure.ts';
import { formatBytes } from '../numbers.ts';
import type { ArtifactApi, StoredArtifact } from './artifact-api.ts';
import { uploadFailure } from './artifact-failure.ts';
import { nthName } from './artifact-names.ts';
import { requireKept } from './artifact-permit.ts';
import type { Upload } from './store.ts';

/** Many backups of one name in one run: a matrix, a restore with its safety backup. */
const mostOfAName = 500;

/** GitHub's own client for the run's artifacts. It is as large as all the rest, and most runs use another store: it is loaded when it is needed. */
export async function artifactClient() {
  const { DefaultArtifactClient } = await import('@actions/artifact');
  return new DefaultArtifactClient();
}

export interface UploadOrder {
  readonly artifact: string;
  /** Many have this name: the next free one is taken. */
  readonly shared: boolean;
  readonly api: ArtifactApi;
  readonly temporary: string;
  /** `keep-within`, milliseconds. */
  readonly keepMs: number | undefined;
  readonly signal: AbortSignal | undefined;
  /** Told of the upload when it begins; it may go on after this process was told to stop. */
  readonly sending: (work: Promise<unknown>) => void;
  /** Told when it is there. */
  readonly stored: (artifact: StoredArtifact) => void;
}

/** Throws a `Failure` that says how much is needed where, and how much is there. */
export async function requireSpoolSpace(temporary: string, needed: number): Promise<void> {
  const { bavail, bsize } = await statfs(temporary);
  const free = bavail * bsize;
  if (free >= needed) return;
  throw new Failure(
    'preflight',
    'disk',
    `a dump for the artifact store is first written to this machine's disk: it needs about ${formatBytes(needed)} in ${temporary}, which has ${formatBytes(free)} free`,
    { hint: 'use a runner with a larger disk, or a bucket, to which dumps are streamed' },
  );
}

/**
 * What is written lies in a private folder until it is complete: an artifact is made of whatever has come when its input
 * ends, so half a dump must never be its input.
 */
export class ArtifactUpload implements Upload {
  readonly #order: UploadOrder;
  readonly #folder: string;
  readonly #file: FileHandle;
  readonly #hash = createHash('sha256');
  #path: string;
  #bytes = 0;
  #open = true;

  private constructor(order: UploadOrder, folder: string, path: string, file: FileHandle) {
    this.#order = order;
    this.#folder = folder;
    this.#path = path;
    this.#file = file;
  }

  static async begin(order: UploadOrder): Promise<ArtifactUpload> {
    try {
      const folder = await mkdtemp(join(order.temporary, 'pgassay-artifact-'));
      const path = join(folder, order.artifact);
      return new ArtifactUpload(order, folder, path, await open(path, 'wx', 0o600));
    } catch (error) {
      throw spoolFailure(error, order.temporary);
    }
  }

  async write(chunk: Buffer): Promise<void> {
    try {
      for (let at = 0; at < chunk.length; ) at += (await this.#file.write(chunk, at)).bytesWritten;
    } catch (error) {
      throw spoolFailure(error, this.#order.temporary);
    }
    this.#hash.update(chunk);
    this.#bytes += chunk.length;
  }

  async complete(): Promise<{ readonly bytes: number; readonly expiresAt: Date | undefined }> {
    const { api, signal, stored, keepMs } = this.#order;
    const began = new Date();
    const sha256 = this.#hash.digest('hex');
    await this.#close();
    const { id } = await this.#send(sha256);
    const artifact = await api.stored(id);
    if (artifact.bytes !== this.#bytes || (artifact.sha256 ?? (await readBack(api, artifact))) !== sha256)
      throw changed(artifact.name);
    stored(artifact);
    await this.abort();
    signal?.throwIfAborted();
    requireKept(artifact.expiresAt, keepMs, began);
    return { bytes: artifact.bytes, expiresAt: artifact.expiresAt };
  }

  async abort(): Promise<void> {
    await this.#close().catch(() => {});
    await rm(this.#folder, { recursive: true, force: true }).catch(() => {});
  }

  /** The client calls an artifact as the file is called. Of a name that is taken it says so before a byte is sent. */
  async #send(sha256: string): Promise<{ readonly id: number }> {
    const { artifact, shared, signal, sending } = this.#order;
    const client = await artifactClient();
    for (let nth = 1; ; nth++) {
      const name = nthName(artifact, nth);
      try {
        await this.#call(name);
        const work = client.uploadArtifact(name, [this.#path], this.#folder, { skipArchive: true });
        sending(work);
        const sent = await orAborted(work, signal);
        if (sent.id === undefined || sent.size !== this.#bytes || sent.digest !== sha256) throw changed(name);
        return { id: sent.id };
      } catch (error) {
        const failure = uploadFailure(error, name);
        if (!shared || failure.exit !== 'exists' || nth === mostOfAName) throw failure;
      }
    }
  }

  async #call(name: string): Promise<void> {
    const path = join(this.#folder, name);
    if (path !== this.#path) await rename(this.#path, path);
    this.#path = path;
  }

  async #close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#file.close();
  }
}

/** GitHub's client cannot be stopped: it is left to itself, and to the end of the process. */
export async function orAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) onAbort();
  work.catch(() => {});
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** SHA-256 of what GitHub has, where it does not say so itself. */
async function readBack(api: ArtifactApi, artifact: StoredArtifact): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of (await api.download(artifact)) ?? []) hash.update(chunk);
  return hash.digest('hex');
}

function changed(artifact: string): Failure {
  return new Failure('upload', 'store', `what GitHub stored as ${artifact} is not what was sent`, {
    hint: 'run it again; nothing was published',
    transient: true,
  });
}

function spoolFailure(error: unknown, temporary: string): Failure {
  const { code } = error as { readonly code?: string };
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return new Failure('upload', 'disk', `no space is left in ${temporary}, where a dump lies before it is uploaded`, {
      hint: 'use a runner with a larger disk, or a bucket, to which dumps are streamed; nothing was published',
      cause: error,
    });
  return new Failure('upload', 'disk', `a dump cannot be written to ${temporary} (${code ?? 'unknown error'})`, {
    hint: 'RUNNER_TEMP, or else TMPDIR, must be a folder that this user may write to; nothing was published',
    cause: error,
  });
}
