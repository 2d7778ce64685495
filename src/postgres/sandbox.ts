import { randomBytes } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isDatabaseError } from './messages.ts';
import type { ScratchServer } from './scratch-server.ts';

/**
 * Whether the server's own user may read what only this user may: then whatever runs there reads our environment too.
 * `folder` is a private one. A server on another machine or in a container finds no such file, or may not open it.
 */
export async function readsOurFiles(server: ScratchServer, folder: string): Promise<boolean> {
  const path = join(folder, `sandbox-${randomBytes(6).toString('hex')}`);
  const token = randomBytes(24).toString('hex');
  await writeFile(path, token, { mode: 0o600, flag: 'wx' });
  const session = await server.connect();
  try {
    const [row] = await session.query<{ text: string | null }>(
      'SELECT pg_catalog.pg_read_file($1, 0, 100, true) AS text',
      [path],
    );
    return row?.text === token;
  } catch (error) {
    if (!isDatabaseError(error)) throw error;
    return false;
  } finally {
    await server.close(session);
    await rm(path, { force: true });
  }
}
