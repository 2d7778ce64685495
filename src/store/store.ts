import type { FileHandle } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { Failure } from '../failure.ts';

/**
 * Where backups live. Paths are relative, with `/`, made of names this program chose itself:
 * `<name>/<id>/manifest.json`. Every method throws a `Failure` (stage `upload`, `publish`, `locate` or `download`)
 * whose exit code tells a full disk, missing rights and a missing store apart.
 */
export interface Store {
  /** Canonical, as manifests record it: `file:///srv/backups`. */
  readonly uri: string;
  /** Every name that has a folder here, sorted. */
  names(): Promise<string[]>;
  /** Every backup id under a name, whole or not, oldest first. */
  ids(name: string): Promise<string[]>;
  /** A small file, whole; undefined when it is not there. Files over 256 MiB are refused. */
  read(path: string): Promise<Buffer | undefined>;
  /** A file's bytes as a stream; undefined when it is not there. */
  open(path: string): Promise<StoredFile | undefined>;
  /** The same file opened for reading on this machine's own disk, where that is where it is; the caller closes it. */
  openLocal(path: string): Promise<FileHandle | undefined>;
  /** Size in bytes; undefined when it is not there. */
  size(path: string): Promise<number | undefined>;
  /** Begins a create-only upload: nothing is visible at `path` until `complete`. */
  begin(path: string): Promise<Upload>;
  /** Takes away what an unsuccessful run has put into `<name>/<id>/`, except when a manifest is there. */
  discard(name: string, id: string): Promise<void>;
  /** What stock tools call the file: a path here, an address elsewhere. */
  pathFor(path: string): string;
  /** Bytes that can still be stored; undefined where nobody knows. */
  freeBytes(): Promise<number | undefined>;
  /** The store's clock. */
  now(): Promise<Date>;
}

export interface StoredFile {
  readonly bytes: number;
  readonly stream: Readable;
}

export interface Upload {
  /** Resolves when there is room for more. */
  write(chunk: Buffer): Promise<void>;
  /** Makes the file durable, then visible, and returns the size the store itself reports. Never replaces a file. */
  complete(): Promise<{ readonly bytes: number }>;
  /** Leaves nothing behind. Does nothing after `complete`, and never throws. */
  abort(): Promise<void>;
}

/** Writes a small file whole. */
export async function put(store: Store, path: string, content: Buffer): Promise<void> {
  const upload = await store.begin(path);
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
