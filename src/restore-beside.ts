import { randomBytes } from 'node:crypto';
import { statfs } from 'node:fs/promises';
import type { CheckedArchive } from './checked-archive.ts';
import type { Log } from './log.ts';
import { formatBytes } from './numbers.ts';
import type { Toc } from './postgres/archive-toc.ts';
import type { Session } from './postgres/connect.ts';
import { leftovers, nameWith, swapDatabases, swapObstacle, swapped } from './postgres/database-swap.ts';
import { isDatabaseError } from './postgres/messages.ts';
import { displayWord, sqlWord } from './postgres/names.ts';
import type { Target } from './postgres/target.ts';
import { type DatabaseIdentity, dropDatabase } from './postgres/target-database.ts';
import type { ConnectionTarget } from './postgres/url.ts';
import { awaitStatistics, readTraces } from './postgres/write-traces.ts';
import { reachOf } from './reach.ts';

/** Names for the database that is restored beside the target, and for the target once that has taken its place. */
export interface BesideNames {
  readonly fresh: string;
  readonly aside: string;
}

/** What is known of the target from before it is touched. */
interface Before {
  /** A safety backup holds what it was then. */
  readonly safe: boolean;
  /** Of writing in it, from before that backup; undefined where the server cannot tell. */
  readonly traces: string | undefined;
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
    before,
    log,
  }: {
    readonly target: ConnectionTarget;
    /** The target's. */
    readonly toc: Toc;
    readonly archive: CheckedArchive;
    /** How large the source was. */
    readonly bytes: number;
    readonly before: Before;
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
    `the backup is restored beside ${name}, as ${displayWord(names.fresh)}, with several jobs, and compared; then it takes its place in one step, and what ${name} is now gets the name ${displayWord(names.aside)} and is ${fateOf(before)}. Until then, and if it fails, ${name} is as it was. This needs about ${formatBytes(bytes)} more of disk`,
  );
  return names;
}

/** Why nobody knows whether the safety backup still holds all of it. */
const untold =
  'the server does not tell whether it is written to after the safety backup has begun (track_counts is off for it or for a role, or a table is of a kind that an extension made)';

function fateOf({ safe, traces }: Before): string {
  if (!safe) return 'kept';
  if (traces === undefined) return `kept, as ${untold}`;
  return 'dropped, as a safety backup holds it (kept, if anything is written there meanwhile)';
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
  { aside, before, log }: { readonly aside: string; readonly before: Before; readonly log: Log },
): Promise<void> {
  const old = target.identity;
  const done = `${displayWord(old.name)} is the restored database now`;
  const byHand = `what it was before is ${displayWord(aside)}, until you drop it:\n  DROP DATABASE ${sqlWord(aside)};`;
  const session = await target.maintenance();
  try {
    await swapDatabases(session, { old, fresh, aside });
    if (!before.safe) return log.notice(`${done}; ${byHand}`);
    // Only now is it known that nobody is in it any more, and nobody comes who does not know its new name.
    const now = await tracesUnder(aside, target);
    if (before.traces === undefined || now === undefined) return log.warn(`${done}; ${untold}, so ${byHand}`);
    if (now !== before.traces)
      return log.warn(`${done}; it was written to after the safety backup had begun, so ${byHand}`);
    await dropDatabase(session, { ...old, name: aside }, { force: false });
    log.info(`${done}; what it was before was dropped`);
  } catch (error) {
    if (!(await swapped(session, { old, fresh }).catch(() => false))) throw error;
    log.warn(`${done}, but the old one could not be dropped; ${byHand}`);
  } finally {
    await target.close(session);
  }
}

async function tracesUnder(name: string, target: Target): Promise<string | undefined> {
  const session = await target.reopen(undefined, name);
  try {
    await awaitStatistics(session);
    return await readTraces(session);
  } finally {
    await target.close(session);
  }
}
