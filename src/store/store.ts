import type { FileHandle } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { Failure } from '../failure.ts';

/** Manifests, censuses and role definitions; a file that is larger is none of them. Bytes. */
export const largestRead = 256 * 1024 * 1024;

/** The one folder inside a backup's; its files are listed with the backup's, as `proofs/<file>`. */
export const proofsFolder = 'proofs';

/** Where restores are recorded; no backup's name begins so. */
export const recordsFolder = '_restores';

/**
 * Where backups live. Paths are relative, with `/`, made of names this program chose itself:
 * `<name>/<id>/manifest.json`. Every method throws a `Failure` (stage `upload`, `publish`, `locate` or `download`)
 * whose exit code tells a full disk, missing rights and a missing store apart.
 */
export interface Store {
  /** Canonical, as manifests record it: `file:///srv/backups`, `s3://bucket/prefix`, `artifact://github.com/owner/name`. */
  readonly uri: string;
  /** Every name that has a folder here, sorted. */
  names(): Promise<string[]>;
  /** Every backup id under a name, whole or not, oldest first. */
  ids(name: string): Promise<string[]>;
  /** The files of every backup under a name, with their sizes, its proofs too; or of one backup only. Oldest first. */
  files(name: string, id?: string): Promise<ReadonlyMap<string, ReadonlyMap<string, number>>>;
  /** Names of the files in the folder of records, sorted. */
  records(): Promise<string[]>;
  /**
   * A small file, whole; undefined when it is not there. Files over `largest` bytes, 256 MiB unless told, are refused
   * (exit 40). Where the store keeps versions, the first that was ever written counts, as of the last `files`;
   * `version` 1 is the one after that.
   */
  read(path: string, version?: number, largest?: number): Promise<Buffer | undefined>;
  /** What the last `files` saw happen to a file after it was written. */
  history(path: string): History;
  /** A file's bytes as a stream; undefined when it is not there. */
  open(path: string): Promise<StoredFile | undefined>;
  /** The same file opened for reading on this machine's own disk, where that is where it is; the caller closes it. */
  openLocal(path: string): Promise<FileHandle | undefined>;
  /**
   * Begins a create-only upload: nothing is visible at `path` until `complete`. `expected` is a guess of its size in
   * bytes, from which parts are sized; what comes may be larger.
   */
  begin(path: string, expected: number): Promise<Upload>;
  /** Takes away what an unsuccessful run has put into `<name>/<id>/`, except when a manifest is there. */
  discard(name: string, id: string): Promise<void>;
  /**
   * Takes away what runs under this name left unfinished, when nothing of it has changed since `before`: uploads that were
   * never completed, and files of a backup that has no manifest in any version. Returns the ids, oldest first.
   */
  sweep(name: string, before: Date): Promise<string[]>;
  /**
   * Deletes a backup: its manifest first, every version of it, so that whatever comes after, it is no backup any more. Of
   * its other files only those that this program writes go. What the store refuses is an answer, not an error.
   */
  remove(name: string, id: string): Promise<Removal>;
  /** What stock tools call the file: a path here, an address elsewhere. */
  pathFor(path: string): string;
  /** The words of a shell command that writes the file to its standard output; undefined where the path itself will do. */
  commandToRead(path: string): readonly string[] | undefined;
  /** Bytes that can still be stored; undefined where nobody knows. */
  freeBytes(): Promise<number | undefined>;
  /** The store's clock. */
  now(): Promise<Date>;
  /** Judges, before anything is dumped, whether such a backup may be stored here. */
  admit(backup: BackupTraits): Promise<void>;
}

/** How a store is to be used. */
export interface StoreUse {
  /** Ends whatever the store is doing, but for cleaning up. */
  readonly signal?: AbortSignal | undefined;
  /** A connection on which nothing moves for so long is given up. Milliseconds; a minute unless told. */
  readonly idleMs?: number | undefined;
}

/** What a store may refuse a backup for. */
export interface BackupTraits {
  readonly encrypted: boolean;
  /** `keep-within`: it must be there for at least so long, milliseconds. */
  readonly keepMs: number | undefined;
}

/** Of a file in a store that keeps versions; `deleted` is hidden by a marker, and still there. */
export type History = 'as written' | 'overwritten' | 'deleted';

/** What became of a backup that was to be deleted. */
export type Removal =
  | { readonly kind: 'removed' }
  /** Nothing of it was deleted; `reason` is a clause. */
  | { readonly kind: 'kept'; readonly reason: string }
  /** It is no backup any more, and files of it are still there. */
  | { readonly kind: 'partly'; readonly reason: string };

/** The files of a backup after its manifest, and of its proofs: nothing else in a folder is ever deleted. */
export const ownFile =
  /^(?:(?:database|roles|census)\.[a-z]+(?:\.age)?|manifest\.sig|proofs\/[\dTZ-]+\.json(?:\.sig)?)$/;

export interface StoredFile {
  readonly bytes: number;
  readonly stream: Readable;
}

export interface Upload {
  /** Resolves when there is room for more. */
  write(chunk: Buffer): Promise<void>;
  /**
   * Makes the file durable, then visible, and returns the size the store itself reports, and when the store will delete
   * the file by itself, where it does. Never replaces a file.
   */
  complete(): Promise<{ readonly bytes: number; readonly expiresAt?: Date | undefined }>;
  /** Leaves nothing behind. Does nothing after `complete`, and never throws. */
  abort(): Promise<void>;
}

/** Writes a small file whole. */
export async function put(store: Store, path: string, content: Buffer): Promise<void> {
  const upload = await store.begin(path, content.length);
  try {
    await upload.write(content);
    const { bytes } = await upload.complete();
    if (bytes !== content.length)
      throw new Failure('upload', 'store', `the store has ${bytes} of the ${content.length} bytes of ${path}`);
  } catch (error) {
    await upload.abort();
    throw error;
  }
}

/**
 * The same under a name that is free: `x.json`, else `x-2.json` and so on, up to 10, for two that are of one second.
 * Returns the path.
 */
export async function putNext(store: Store, path: string, content: Buffer): Promise<string> {
  for (let more = 1; ; more++) {
    const free = more === 1 ? path : path.replace(/\.json$/, `-${more}.json`);
    try {
      await put(store, free, content);
      return free;
    } catch (error) {
      if (!(error instanceof Failure) || error.exit !== 'exists' || more === 10) throw error;
    }
  }
}
