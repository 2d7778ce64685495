import { type FileHandle, open, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from './failure.ts';
import { fileNames, type Manifest } from './manifest.ts';
import { NotAnArchive, type Toc, TocReader } from './postgres/archive-toc.ts';
import type { Store } from './store/store.ts';
import { checkStream, fileOf, readWhole } from './verify.ts';

/** An archive on this machine's disk whose every byte has been checked, open for reading. */
export interface CheckedArchive {
  readonly file: FileHandle;
  /** Its name, where it has one. */
  readonly path: string | undefined;
  readonly toc: Toc;
}

/**
 * What was hashed is what is read: the descriptor stays open, and a copy, made in `folder` where the store is elsewhere,
 * loses its name at once. Throws a `Failure` (exit 40) when the bytes are not those that were stored.
 */
export async function checkedArchive(
  store: Store,
  manifest: Manifest,
  folder: string,
  signal: AbortSignal,
): Promise<CheckedArchive> {
  const entry = fileOf(manifest, fileNames.dump);
  const path = `${manifest.name}/${manifest.id}/${entry.name}`;
  const reader = new TocReader();
  let unreadable: NotAnArchive | undefined;
  const look = (chunk: Buffer): void => {
    if (unreadable !== undefined) return;
    try {
      reader.push(chunk);
    } catch (error) {
      // A changed byte shows in the checksum too, which says more: read on to the end for it.
      if (!(error instanceof NotAnArchive)) throw error;
      unreadable = error;
    }
  };
  const tocOf = (): Toc => {
    if (reader.toc?.format === 'custom') return reader.toc;
    throw new Failure(
      'verify',
      'verification',
      `${manifest.name}/${manifest.id}: ${entry.name} is no archive that this program can read`,
      { hint: 'this backup cannot be trusted; use an older one (pgassay list)', cause: unreadable },
    );
  };
  const local = await store.openLocal(path);
  if (local !== undefined) {
    try {
      const stream = local.createReadStream({ start: 0, autoClose: false });
      await checkStream(stream, manifest, entry, signal, async (chunk) => look(chunk));
      return { file: local, path: store.pathFor(path), toc: tocOf() };
    } catch (error) {
      await local.close();
      throw error;
    }
  }
  const copy = join(folder, entry.name);
  const file = await open(copy, 'wx+', 0o600);
  try {
    await readWhole(store, manifest, entry, signal, async (chunk) => {
      look(chunk);
      for (let at = 0; at < chunk.length; ) at += (await file.write(chunk, at)).bytesWritten;
    });
    if (process.platform === 'linux') await unlink(copy);
    return { file, path: process.platform === 'linux' ? undefined : copy, toc: tocOf() };
  } catch (error) {
    await file.close();
    throw error;
  }
}
