import { randomBytes } from 'node:crypto';
import { rename, rm, writeFile } from 'node:fs/promises';
import { Failure } from './failure.ts';

/** Replaces the file in one step: an agent that reads it meanwhile sees the old one or the new one. Throws a `Failure`. */
export async function writeMetrics(path: string, text: string): Promise<void> {
  const temporary = `${path}.${randomBytes(4).toString('hex')}`;
  try {
    await writeFile(temporary, text, { mode: 0o644 });
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    const code = (error as NodeJS.ErrnoException).code ?? 'an error';
    throw new Failure('verify', 'disk', `the metrics could not be written to ${path} (${code})`, {
      hint: 'the folder of metrics-file must exist, and be writable by the user that this runs as',
      cause: error,
    });
  }
}
