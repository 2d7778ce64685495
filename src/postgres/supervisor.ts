import { Failure } from '../failure.ts';
import type { Log } from '../log.ts';
import type { Session } from './connect.ts';
import type { DumpMeter } from './dump.ts';
import { blockedByUs, starvedBy, type Waiting, type Watch, watch } from './watch.ts';

/** pg_dump waits behind somebody who waits for our exporter: let go of everything and start again. */
export class Starved extends Error {
  readonly waiting: Waiting;

  constructor(waiting: Waiting) {
    super(`${waiting.statement} on ${waiting.table}`);
    this.waiting = waiting;
  }
}

export interface Supervision {
  /** A session that asks the server; opened anew when it was lost. */
  readonly openControl: () => Promise<Session>;
  /** Begins the application name of all our sessions; pg_dump's own adds ` pg_dump`. */
  readonly application: string;
  readonly meter: DumpMeter;
  readonly stallMs: number;
  readonly onBlockedDdl: 'warn' | 'abort';
  readonly log: Log;
  /** Ends the dump, once, with a reason. */
  readonly abort: (reason: Failure | Starved) => void;
}

/** How long somebody may wait behind the dump before that is worth a word. */
const blockedSeconds = 30;
/** A server that takes longer to answer a catalog query counts as silent. */
const answerMs = 10_000;

/**
 * Looks at the server while pg_dump runs. Silence alone is no stall: a table of dead rows is silent for as long as its
 * scan takes. So the server is asked, and pg_dump is ended only when its backend is not working.
 */
export class Supervisor {
  readonly #with: Supervision;
  readonly #warned = new Set<string>();
  #control: Session | undefined;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;
  #saidSilent = false;

  constructor(supervision: Supervision) {
    this.#with = supervision;
    this.#plan();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#control?.close();
  }

  /** Often while locks are being taken, seldom once data flows. */
  #plan(): void {
    const { meter, stallMs } = this.#with;
    const pause = Math.min(meter.bytes === 0 ? 500 : 5000, Math.max(stallMs / 2, 100));
    this.#timer = setTimeout(async () => {
      const verdict = await this.#look().catch((error: unknown) => error as Failure);
      if (this.#stopped) return;
      if (verdict !== undefined) this.#with.abort(verdict);
      else this.#plan();
    }, pause);
    this.#timer.unref();
  }

  async #look(): Promise<Failure | Starved | undefined> {
    const { application, onBlockedDdl } = this.#with;
    const state = await this.#ask();
    if (this.#stopped) return undefined;
    if (state !== undefined) {
      const starving = starvedBy(state, `${application} pg_dump`);
      if (starving !== undefined) return new Starved(starving);
      for (const wait of blockedByUs(state)) {
        const told = this.#tell(wait);
        if (told && onBlockedDdl === 'abort') return blockedFailure(wait);
      }
    }
    return this.#judgeSilence(state);
  }

  /** True when this wait has just become long enough to speak of. */
  #tell(wait: Waiting): boolean {
    const key = `${wait.pid} ${wait.table}`;
    if (wait.seconds < blockedSeconds || this.#warned.has(key)) return false;
    this.#warned.add(key);
    this.#with.log.warn(
      `${wait.statement} on ${wait.table} has been waiting ${Math.round(wait.seconds)} s for this dump to end, and queries on that table wait behind it`,
    );
    return true;
  }

  #judgeSilence(state: Watch | undefined): Failure | undefined {
    const { meter, stallMs, application, log } = this.#with;
    const silentMs = Date.now() - meter.lastByteAt;
    // The archive is whole, and the count may take as long as it takes.
    if (meter.waitingFor === 'nobody') return undefined;
    if (silentMs < stallMs) {
      this.#saidSilent = false;
      return undefined;
    }
    const silent = `no byte for ${Math.round(silentMs / 1000)} s`;
    const at = meter.decoder?.table === undefined ? '' : ` (last table: ${meter.decoder.table})`;
    if (meter.waitingFor !== 'server') {
      const who =
        meter.waitingFor === 'store'
          ? 'the store does not take what pg_dump sends'
          : 'pg_restore does not read what pg_dump sends';
      return new Failure(meter.waitingFor === 'store' ? 'upload' : 'validate', 'timeLimit', `${silent}: ${who}${at}`, {
        hint: 'a store that is only slow needs a longer stall-timeout',
        transient: true,
      });
    }
    if (state === undefined)
      return stalled(`${silent}, and the server does not answer on another connection either${at}`);
    const backend = state.sessions.find((session) => session.applicationName === `${application} pg_dump`);
    if (backend === undefined) return stalled(`${silent}, and the server has no session of pg_dump any more${at}`);
    if (backend.state === 'active' && backend.waitEvent !== 'ClientWrite') {
      if (!this.#saidSilent) log.info(`${silent}, but the server is working${at}; waiting`);
      this.#saidSilent = true;
      return undefined;
    }
    if (backend.state === 'active') return stalled(`${silent}: the server has data that does not arrive here${at}`);
    if (backend.seconds * 1000 < stallMs) return undefined;
    return stalled(`${silent}: pg_dump is asking the server for nothing${at}`);
  }

  async #ask(): Promise<Watch | undefined> {
    let late: NodeJS.Timeout | undefined;
    const tooLate = new Promise<undefined>((resolve) => {
      late = setTimeout(resolve, answerMs, undefined);
    });
    const answer = this.#session().then((control) => watch(control, this.#with.application));
    answer.catch(() => {});
    try {
      const state = await Promise.race([answer, tooLate]);
      if (state === undefined) this.#forget();
      return state;
    } catch {
      this.#forget();
      return undefined;
    } finally {
      clearTimeout(late);
    }
  }

  async #session(): Promise<Session> {
    this.#control ??= await this.#with.openControl();
    if (this.#stopped) await this.#control.close();
    return this.#control;
  }

  #forget(): void {
    void this.#control?.close();
    this.#control = undefined;
  }
}

function stalled(message: string): Failure {
  return new Failure('dump', 'timeLimit', message, {
    hint: 'look for a broken network path or an overloaded server; a longer stall-timeout waits longer',
    transient: true,
  });
}

function blockedFailure(wait: Waiting): Failure {
  return new Failure(
    'dump',
    'timeLimit',
    `${wait.statement} on ${wait.table} waited ${Math.round(wait.seconds)} s for this dump, and on-blocked-ddl says to give way`,
    { hint: 'run migrations and backups at different times, or set on-blocked-ddl to warn' },
  );
}
