import { randomBytes } from 'node:crypto';
import { statfs } from 'node:fs/promises';
import type { CheckedArchive } from './checked-archive.ts';
import type { Log } from './log.ts';
import { formatBytes } from './numbers.ts';
import type { Toc } from './postgres/archive-toc.ts';
import type { Session } from './postgres/connect.ts';
import { leftovers, nameWith, readWrites, swapDatabases, swapObstacle, swapped } from './postgres/database-swap.ts';
import { isDatabaseError } from './postgres/messages.ts';
import { displayWord, sqlWord } from './postgres/names.ts';
import type { Target } from './postgres/target.ts';
import { type DatabaseIdentity, dropDatabase } from './postgres/target-database.ts';
import type { ConnectionTarget } from './postgres/url.ts';
import { reachOf } from './reach.ts';

/** Names for the database that is restored beside the target, and for the target once that has taken its place. */
export interface BesideNames {
  readonly fresh: string;
  readonly aside: string;
}

/**
 * Whether the backup can be restored beside the target and take its place: names when it can. Says which way it goes, and
 * what earlier runs have left. `session` is in the target.
 */
export async function planBeside(
  session: Session,
  {
    target,
    toc,
    archive,
    bytes,
    safe,
    log,
  }: {
    readonly target: ConnectionTarget;
    /** The target's. */
    readonly toc: Toc;
    readonly archive: CheckedArchive;
    /** How large the source was. */
    readonly bytes: number;
    /** A safety backup holds what the target is now. */
    readonly safe: boolean;
    readonly log: Log;
  },
): Promise<BesideNames | undefined> {
  const name = displayWord(target.database);
  const drop = (names: readonly string[]): string =>
    names.map((each) => `\n  DROP DATABASE ${sqlWord(each)};`).join('');
  const { unfinished, replaced } = await leftovers(session, target.database);
  if (unfinished.length > 0)
    log.warn(
      `left unfinished by restores of ${name} that were killed; ${name} was not touched by them:${drop(unfinished)}`,
    );
  if (replaced.length > 0) log.notice(`kept by earlier restores of ${name}, as it was before them:${drop(replaced)}`);
  const obstacle = (await swapObstacle(session, toc, archive.toc)) ?? (await shortage(session, target, bytes));
  if (obstacle !== undefined) {
    log.notice(`${name} is not replaced by a database restored beside it with several jobs: ${obstacle}`);
    return undefined;
  }
  const names = {
    fresh: nameWith(target.database, `_pgassay_${randomBytes(3).toString('hex')}`),
    aside: nameWith(target.database, `_before_${new Date().toISOString().replace(/\D/g, '').slice(0, 14)}`),
  };
  log.notice(
    `the backup is restored beside ${name}, as ${displayWord(names.fresh)}, with several jobs, and compared; then it takes its place in one step, and what ${name} is now is ${safe ? 'dropped, as a safety backup holds it (and kept, if rows are written there meanwhile)' : `kept as ${displayWord(names.aside)}`}. Until then, and if it fails, ${name} is as it was. This needs about ${formatBytes(bytes)} more of disk`,
  );
  return names;
}

/** Only a server on this machine can be asked for its free space, by whoever may know where its files are. */
async function shortage(session: Session, target: ConnectionTarget, bytes: number): Promise<string | undefined> {
  if (!target.hosts.every(({ host }) => host.startsWith('/') || reachOf(host) === 'loopback')) return undefined;
  try {
    const [row] = await session.query<{ folder: string }>(`SELECT current_setting('data_directory') AS folder`);
    const { bavail, bsize } = await statfs(row?.folder ?? '');
    return bavail * bsize > bytes * 1.1
      ? undefined
      : `its disk has ${formatBytes(bavail * bsize)} left, and it needs ${formatBytes(bytes)}`;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (isDatabaseError(error) || code === 'ENOENT' || code === 'EACCES' || code === 'ENOTDIR') return undefined;
    throw error;
  }
}

/**
 * The restored database takes the target's name; what had it is dropped when a safety backup holds it and nobody has
 * written there since, else kept under another name. Throws a `Failure`; nothing is renamed then.
 */
export async function takePlace(
  target: Target,
  fresh: DatabaseIdentity,
  {
    aside,
    safe,
    writes,
    log,
  }: {
    readonly aside: string;
    readonly safe: boolean;
    /** From before the safety backup. */
    readonly writes: string;
    readonly log: Log;
  },
): Promise<void> {
  const old = target.identity;
  const name = displayWord(old.name);
  const byHand = `what it was before is ${displayWord(aside)}, until you drop it:\n  DROP DATABASE ${sqlWord(aside)};`;
  const written = safe && !(await isAt(target, writes));
  const session = await target.maintenance();
  try {
    await swapDatabases(session, { old, fresh, aside });
    if (!safe) return log.notice(`${name} is the restored database now; ${byHand}`);
    if (written)
      return log.warn(
        `${name} is the restored database now; rows were written to it after the safety backup had begun, so ${byHand}`,
      );
    await dropDatabase(session, { ...old, name: aside });
    log.info(`${name} is the restored database now; what it was before was dropped`);
  } catch (error) {
    if (!(await swapped(session, { old, fresh }).catch(() => false))) throw error;
    log.warn(`${name} is the restored database now, but the old one could not be dropped; ${byHand}`);
  } finally {
    await target.close(session);
  }
}

async function isAt(target: Target, writes: string): Promise<boolean> {
  const session = await target.reopen();
  try {
    return (await readWrites(session)) === writes;
  } finally {
    await target.close(session);
  }
}
