import { randomBytes } from 'node:crypto';
import { link, open, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { Failure } from './failure.ts';
import { fileNames } from './manifest.ts';
import { readSmall, readWhole, type StoredBackup } from './stored-files.ts';

/**
 * Writes a backup's plain archive to `path`, for stock tools. The file appears whole and checked, or not at all, and
 * never replaces one.
 */
export async function fetchArchive(
  from: StoredBackup,
  path: string,
  signal: AbortSignal,
): Promise<{ readonly bytes: number }> {
  // A wrong key is found out before gigabytes are fetched.
  await readSmall(from, fileNames.census);
  const temporary = join(dirname(path), `.${basename(path)}.partial-${randomBytes(4).toString('hex')}`);
  try {
    const file = await open(temporary, 'wx', 0o600);
    let bytes = 0;
    try {
      await readWhole(from, fileNames.dump, signal, async (chunk) => {
        for (let at = 0; at < chunk.length; ) at += (await file.write(chunk, at)).bytesWritten;
        bytes += chunk.length;
      });
      await file.sync();
    } finally {
      await file.close();
    }
    await link(temporary, path);
    return { bytes };
  } catch (error) {
    throw writeFailure(path, error);
  } finally {
    await unlink(temporary).catch(() => {});
  }
}

function writeFailure(path: string, error: unknown): Failure {
  if (error instanceof Failure) return error;
  const code = (error as { code?: string }).code;
  if (code === 'EEXIST')
    return new Failure('download', 'exists', `${path} is already there and is not overwritten`, {
      hint: 'choose another name with --out',
      cause: error,
    });
  if (code === 'ENOSPC') return new Failure('download', 'disk', `no space is left for ${path}`, { cause: error });
  return new Failure('download', 'disk', `${path} cannot be written (${code ?? 'unknown error'})`, {
    hint: 'the folder must exist and be writable',
    cause: error,
  });
}
