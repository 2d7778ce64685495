/** What a restore asks the target itself, and says about it, before and after it changes anything there. */
import { Failure } from './failure.ts';
import type { Log } from './log.ts';
import { type Machine, type ProgramChoice, programsOfMajor } from './machine.ts';
import { formatCount } from './numbers.ts';
import type { Toc } from './postgres/archive-toc.ts';
import type { Programs } from './postgres/client.ts';
import type { Session } from './postgres/connect.ts';
import { displayWord } from './postgres/names.ts';
import { describeContent, readContents } from './postgres/restored-objects.ts';
import { readServerFacts } from './postgres/server.ts';
import type { Target } from './postgres/target.ts';
import { countOthers, readTransactionEnd } from './postgres/target-checks.ts';
import { endSessions } from './postgres/watch.ts';
import type { Left } from './restore-aftermath.ts';
import { type Choice, listed } from './restore-choice.ts';

/** The target's table of contents, as an archive of it would have it. Throws a `Failure`. */
export async function readTargetContents(
  session: Session,
  database: string,
  {
    choice,
    machine,
    environment,
    log,
    signal,
  }: {
    readonly choice: ProgramChoice;
    readonly machine: Machine;
    readonly environment: (programs: Programs) => Promise<Readonly<Record<string, string>>>;
    readonly log: Log;
    readonly signal: AbortSignal;
  },
): Promise<Toc> {
  const { version } = await readServerFacts(session);
  const programs = await programsOfMajor(version.major, false, choice, machine, { log, signal });
  return readContents(programs, await environment(programs), database, signal).catch((error: unknown) => {
    if (!(error instanceof Failure)) throw error;
    throw new Failure('restore', 'privilege', error.message, {
      hint: `to see what stands in the way, this role has to be able to lock and read every table of ${displayWord(database)}; nothing was changed`,
      cause: error,
    });
  });
}

/** Which way it goes, said before it does. */
export async function announce(
  session: Session,
  database: string,
  { only, clean, occupied, leftOut, redefined }: Choice,
  log: Log,
): Promise<void> {
  if (redefined.length > 0)
    log.warn(`changed since the backup, and put back to what it says, without what was added: ${listed(redefined)}`);
  if (leftOut.length > 0) {
    const lines = leftOut.slice(0, 20).map((entry) => `  ${describeContent(entry)}`);
    if (leftOut.length > 20) lines.push(`  and ${leftOut.length - 20} more`);
    log.warn(`left out, because the target lacks something that they need:\n${lines.join('\n')}`);
  }
  if (only === undefined || !occupied) return;
  const others = await countOthers(session);
  log.notice(
    `${formatCount(only.length, 'item')} of the archive ${clean ? 'replace what is there of them' : 'are added'}, with one job in one transaction: until it ends, and if it fails, ${displayWord(database)} is as it was${
      others === 0 ? '' : `; it waits for ${formatCount(others, 'other session')} that may hold locks there`
    }`,
  );
}

/** Rows alone go in with a transaction of ours, and the server knows what became of it. `application` is our sessions'. */
export async function leaveTransaction(
  target: Target,
  {
    name,
    transaction,
    application,
    withinMs,
  }: {
    readonly name: string;
    readonly transaction: string;
    readonly application: string;
    readonly withinMs: number;
  },
): Promise<Left> {
  let end: 'committed' | 'aborted' | undefined;
  await target.closeAll();
  await target.undo(withinMs, async (session) => {
    await endSessions(session, application).catch(() => {});
    for (let tries = 0; end === undefined && tries < 50; tries++) {
      end = await readTransactionEnd(session, transaction);
      if (end === undefined) await new Promise((resolve) => setTimeout(resolve, 100));
    }
  });
  if (end === 'aborted') return { text: `it was rolled back, ${name} is as it was before`, intact: true };
  if (end === 'committed') return { text: `${name} is restored, and every table was compared`, intact: false };
  return {
    text: `${name} could not be asked: it is as it was before, unless the transaction was committed in its last moment`,
    intact: false,
  };
}

/** Of a pg_restore that ended early in a database that was there before. */
export function rolledBack(
  name: string,
  {
    occupied,
    atomic,
    asked,
    intact,
  }: {
    /** It held something before. */
    readonly occupied: boolean;
    /** One transaction. */
    readonly atomic: boolean;
    /** The server has said that what is there was there before, where that is a question. */
    readonly asked: boolean;
    /** Nothing else of ours is left. */
    readonly intact: boolean;
  },
): Left {
  if (occupied && !asked)
    return {
      text: `${name} could not be asked: it is as it was before, unless the transaction was committed in its last moment`,
      intact: false,
    };
  if (occupied) return { text: `it was rolled back, ${name} is as it was before`, intact };
  if (atomic) return { text: `it was rolled back, ${name} is as empty as before`, intact: intact && asked };
  return {
    text: `${name} now holds part of the backup: empty it, or use another database, before trying again`,
    intact: false,
  };
}

/** What was restored beside a target is dropped, unless it has taken its place in the last moment. */
export async function leaveBeside(
  { name, aside }: { readonly name: string; readonly aside: string },
  beside: Target,
  withinMs: number,
  hasTakenPlace: (session: Session) => Promise<boolean>,
): Promise<Left> {
  const untouched = `${name} is as it was before`;
  if (!beside.created) return { text: untouched, intact: true };
  let taken = false;
  const told = await beside.undo(withinMs, async (session) => {
    taken = await hasTakenPlace(session);
  });
  if (taken)
    return {
      text: `${name} is the restored database, and every table was compared; what it was before may still be there as ${aside}: look whether you need it, then drop it`,
      intact: false,
    };
  return told.intact
    ? { text: untouched, intact: true }
    : { text: `${told.text}; ${untouched}, unless it was renamed to ${aside} in the last moment`, intact: false };
}
