import { type FileHandle, open, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from './failure.ts';
import { fileNames } from './manifest.ts';
import { NotAnArchive, type Toc, TocReader } from './postgres/archive-toc.ts';
import { checkStream, fileOf, readWhole, type StoredBackup } from './stored-files.ts';

/** An archive on this machine's disk whose every byte has been checked, open for reading. */
export interface CheckedArchive {
  readonly file: FileHandle;
  /** Its name, where it has one. */
  readonly path: string | undefined;
  readonly toc: Toc;
  /** Whose identity opened it, or `passphrase`; null where it is not encrypted. */
  readonly recipient: string | null;
}

/**
 * What was hashed is what is read: the descriptor stays open, and a copy, made in `folder` where the store is elsewhere
 * or the archive encrypted, has lost its name before the first byte: however this process ends, it is gone. Throws a
 * `Failure` (exit 40) when the bytes are not those that were stored, or 41 when no key opens them.
 */
export async function checkedArchive(from: StoredBackup, folder: string, signal: AbortSignal): Promise<CheckedArchive> {
  const { store, manifest } = from;
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
  const local = entry.encryption === null ? await store.openLocal(path) : undefined;
  if (local !== undefined) {
    try {
      const stream = local.createReadStream({ start: 0, autoClose: false });
      await checkStream(stream, manifest, entry, signal, async (chunk) => look(chunk));
      return { file: local, path: store.pathFor(path), toc: tocOf(), recipient: null };
    } catch (error) {
      await local.close();
      throw error;
    }
  }
  const copy = join(folder, fileNames.dump);
  const file = await open(copy, 'wx+', 0o600);
  try {
    const nameless = process.platform === 'linux';
    if (nameless) await unlink(copy);
    const { recipient } = await readWhole(from, fileNames.dump, signal, async (chunk) => {
      look(chunk);
      for (let at = 0; at < chunk.length; ) at += (await file.write(chunk, at)).bytesWritten;
    });
    return { file, path: nameless ? undefined : copy, toc: tocOf(), recipient };
  } catch (error) {
    await file.close();
    throw error;
  }
}
