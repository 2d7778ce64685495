import type { Backup } from './catalog.ts';
import { Failure } from './failure.ts';
import type { Log } from './log.ts';
import { formatSeconds } from './numbers.ts';
import type { Store, Upload } from './store/store.ts';

/** One of the stores that a backup goes to, and how far it has come there. */
export class Destination {
  readonly store: Store;
  /** The newest backup of the name there. */
  previous: Backup | undefined;
  /** The archive's upload, as long as it is not complete. */
  upload: Upload | undefined;
  /** When the store deletes the archive by itself; undefined where it never does. */
  expiresAt: Date | undefined;
  /** It is a backup there, and stays. */
  published = false;
  /** Why this backup is not there, and will not be. */
  failure: Failure | undefined;

  constructor(store: Store) {
    this.store = store;
  }
}

/** A store that does not have the backup, which others have. */
export interface MissedStore {
  /** The store's address. */
  readonly uri: string;
  readonly failure: Failure;
}

/**
 * All stores of one backup. One that fails is given up, with a warning, and the others go on: an outage of one must not
 * cost the copy in the other. What fails in all of them fails the run.
 */
export class Destinations {
  readonly #all: readonly Destination[];
  readonly #log: Log;
  readonly #signal: AbortSignal;

  constructor(stores: readonly Store[], { log, signal }: { readonly log: Log; readonly signal: AbortSignal }) {
    this.#all = stores.map((store) => new Destination(store));
    this.#log = log;
    this.#signal = signal;
  }

  /** Those that have not failed, in the order they were given. */
  get open(): readonly Destination[] {
    return this.#all.filter(({ failure }) => failure === undefined);
  }

  get missed(): readonly MissedStore[] {
    return this.#all.flatMap(({ store: { uri }, failure }) => (failure === undefined ? [] : [{ uri, failure }]));
  }

  /**
   * Does the same at every store that has not failed, at the same time, and waits for the slowest. Throws a `Failure` when
   * none is left, and what is no store's fault: a cancelled run, a wrong input. `again`: the whole run may be tried once
   * more, so what may pass is thrown too, and no store is given up for it.
   */
  async each<T>(
    work: (destination: Destination) => Promise<T>,
    { again = false }: { readonly again?: boolean } = {},
  ): Promise<T[]> {
    const tried = this.open;
    const results = await Promise.allSettled(tried.map(work));
    const failures = results.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : []));
    if (failures.length === 0)
      return results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    this.#signal.throwIfAborted();
    const everybodys = failures.find((error) => !(error instanceof Failure) || error.exit === 'badInput');
    if (everybodys !== undefined) throw everybodys;
    const own = failures.filter((error) => error instanceof Failure);
    // One that may pass is worth another try of everything.
    const [first] = [...own.filter(({ transient }) => transient), ...own];
    if (first !== undefined && (own.length === tried.length || (again && first.transient))) throw first;
    return results.flatMap((result, at) => {
      if (result.status === 'fulfilled') return [result.value];
      const destination = tried[at];
      if (destination !== undefined) this.#giveUp(destination, result.reason as Failure);
      return [];
    });
  }

  /** Gives up every upload that is not complete. */
  async abort(): Promise<void> {
    await Promise.all(this.#all.map(({ upload }) => upload?.abort()));
  }

  /** Takes away what this run has put into `<name>/<id>/` where it was not published. Never throws. */
  async discard(name: string, id: string): Promise<void> {
    const unpublished = this.#all.filter(({ published }) => !published);
    await Promise.all(
      unpublished.map(({ store }) =>
        store
          .discard(name, id)
          .catch((error: unknown) => this.#log.warn(`cleaning up ${store.uri} failed: ${(error as Error).message}`)),
      ),
    );
  }

  /** What ended the run before they were done. */
  giveUpUnpublished(failure: Failure): void {
    for (const destination of this.open) if (!destination.published) this.#giveUp(destination, failure);
  }

  #giveUp(destination: Destination, failure: Failure): void {
    destination.failure = failure;
    // Its spool, its parts and their memory are the others' now.
    void destination.upload?.abort();
    const others = this.open.map(({ store }) => store.uri).join(', ');
    this.#log.warn(`${destination.store.uri} will not have this backup: ${failure.message}; going on with ${others}`);
  }
}

/**
 * Writes what it is given to every store that has not failed. Resolves when the slowest has room for more; one that has
 * none for `patienceMs` has failed, unless it is the only one.
 */
export class FanOut implements Pick<Upload, 'write'> {
  readonly #destinations: Destinations;
  readonly #patienceMs: number;

  constructor(destinations: Destinations, patienceMs: number) {
    this.#destinations = destinations;
    this.#patienceMs = patienceMs;
  }

  async write(chunk: Buffer): Promise<void> {
    const alone = this.#destinations.open.length === 1;
    await this.#destinations.each(async ({ upload }) => {
      if (upload === undefined) return;
      const written = upload.write(chunk);
      await (alone ? written : within(this.#patienceMs, written));
    });
  }
}

async function within(ms: number, work: Promise<void>): Promise<void> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    const silent = `it took nothing for ${formatSeconds(ms / 1000)}`;
    reject(
      new Failure('upload', 'timeLimit', silent, { hint: 'a store that is only slow needs a longer stall-timeout' }),
    );
  }, ms);
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** How a run ends whose backup is not in all of its stores; `stored` are its locations, none of them in a dry run. */
export function failureOfMissed(
  [first, ...others]: readonly [MissedStore, ...MissedStore[]],
  stored: readonly string[],
): Failure {
  const { stage, exit } = first.failure;
  const missed = [first, ...others];
  const lines = missed.map(({ uri, failure }) => `  ${uri}: ${failure.message}`);
  const which = missed.length === 1 ? 'one of the stores' : `${missed.length} of the stores`;
  const what =
    stored.length === 0
      ? `${which} cannot be used`
      : `the backup is whole and stored, but not in ${which}\n${stored.map((location) => `  ${location}: stored`).join('\n')}`;
  const hints = new Set(missed.flatMap(({ failure: { hint } }) => hint ?? []));
  return new Failure(stage, exit, `${what}\n${lines.join('\n')}`, {
    hint: [
      ...hints,
      ...(stored.length === 0 ? [] : ['what is stored stays, and the next run tries every store again']),
    ].join('\n'),
  });
}
