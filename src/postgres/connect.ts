import { lookup } from 'node:dns/promises';
import type { EventEmitter } from 'node:events';
import { isIP, Socket } from 'node:net';
import pg from 'pg';
import { cancelled, Failure } from '../failure.ts';
import type { Attempt, Refusal } from './attempt.ts';
import { ConnectTimeout, connectionLost, LoginStopped, refusalOf } from './connect-failure.ts';
import { tlsOptions } from './tls.ts';
import { type ConnectionTarget, describePlace, type Place } from './url.ts';

/** The server a session reached, so that other sessions and child programs reach that very one. */
export interface PinnedServer extends Place {
  /** The IP address behind the name; undefined for a socket. */
  readonly address: string | undefined;
  /** Whether TLS was spoken: the modes that leave it open are settled by the first session. */
  readonly encrypted?: boolean;
}

export interface Session {
  readonly client: pg.Client;
  readonly server: PinnedServer;
  /** The process id the server announced (BackendKeyData); behind a pooler not that of the backend. 0 when it sent none. */
  readonly backendPid: number;
  /** The rows of one statement. Throws pg's error, or the `lost` failure when the connection is gone. */
  query<T>(text: string, values?: unknown[]): Promise<T[]>;
  /** Never throws, and takes two seconds at most: a running statement is given up. Harmless when repeated. */
  close(): Promise<void>;
  /** Aborted with a transient Failure when the connection ends although nobody closed it. */
  readonly lost: AbortSignal;
}

export interface ConnectOptions {
  readonly applicationName: string;
  readonly signal?: AbortSignal | undefined;
  /** Go to this server only. */
  readonly pinned?: PinnedServer | undefined;
  /** True on a CI runner: hints then explain what localhost is. */
  readonly onRunner?: boolean | undefined;
}

const keepAliveAfterMs = 30_000;
const closeWithinMs = 2000;

/**
 * Opens a session on the first host, and its first address, that answers and fits `targetSessionAttrs`, with libpq's
 * meaning of every `sslMode`. Sends nothing but user, database, application_name, client_encoding and the routing
 * options at startup, and sets nothing. Throws one Failure of the stage `connect`.
 */
export async function connect(target: ConnectionTarget, options: ConnectOptions): Promise<Session> {
  const { pinned } = options;
  const refusals: Refusal[] = [];
  const wishes = pinned === undefined ? wishesOf(target) : (['any'] as const);
  for (const wish of wishes) {
    refusals.length = 0;
    for (const place of pinned === undefined ? target.hosts : [pinned]) {
      const found = await connectTo(place, target, options, wish);
      if ('session' in found) return found.session;
      refusals.push(found.refusal);
      if (!found.refusal.tryNext) throw found.refusal.failure;
    }
  }
  throw summary(refusals, target);
}

type Wish = Exclude<ConnectionTarget['targetSessionAttrs'], 'prefer-standby'>;

function wishesOf({ targetSessionAttrs }: ConnectionTarget): readonly Wish[] {
  return targetSessionAttrs === 'prefer-standby' ? ['standby', 'any'] : [targetSessionAttrs];
}

type Found = { readonly session: Session } | { readonly refusal: Refusal };

/** Tries every address of one host. Of several refusals the one that says most is kept. */
async function connectTo(place: Place, target: ConnectionTarget, options: ConnectOptions, wish: Wish): Promise<Found> {
  const onRunner = options.onRunner ?? false;
  const attemptAt = (address: string | undefined): Attempt => ({ place, address, target, onRunner });
  let addresses: (string | undefined)[];
  try {
    addresses = await addressesOf(place, target, options);
  } catch (error) {
    return { refusal: refusalOf(error, attemptAt(undefined)) };
  }
  let kept: Refusal | undefined;
  for (const address of addresses) {
    const attempt = attemptAt(address);
    const found = await negotiate(attempt, options);
    const fitting = 'session' in found ? await fit(found.session, wish, attempt, options.signal) : found;
    if ('session' in fitting) return fitting;
    if (!fitting.refusal.tryNext) return fitting;
    if (kept === undefined || kept.unreachable === true || fitting.refusal.unreachable !== true) kept = fitting.refusal;
  }
  return { refusal: kept ?? refusalOf({ code: 'ENOTFOUND' }, attemptAt(undefined)) };
}

async function addressesOf(
  place: Place,
  target: ConnectionTarget,
  { pinned, signal }: ConnectOptions,
): Promise<(string | undefined)[]> {
  if (place.host.startsWith('/')) return [undefined];
  if (pinned?.address !== undefined) return [pinned.address];
  if (isIP(place.host) !== 0) return [place.host];
  const found = await limited(
    lookup(place.host, { all: true, order: 'verbatim' }),
    target.connectTimeoutSeconds,
    signal,
  );
  return found.map(({ address }) => address);
}

/** Plain text or TLS, in the order `sslMode` asks for. */
async function negotiate(attempt: Attempt, options: ConnectOptions): Promise<Found> {
  const { target, place } = attempt;
  const settled = options.pinned?.encrypted;
  const mode = place.host.startsWith('/') ? 'disable' : target.sslMode;
  const open = async (tls: boolean): Promise<Found> => {
    try {
      return { session: await openSession(attempt, options, tls) };
    } catch (error) {
      return { refusal: refusalOf(error, attempt) };
    }
  };
  switch (mode) {
    case 'disable':
      return open(false);
    case 'allow': {
      if (settled !== undefined) return open(settled);
      const plain = await open(false);
      return 'refusal' in plain && plain.refusal.tls === 'demanded' ? open(true) : plain;
    }
    case 'prefer': {
      if (settled !== undefined) return open(settled);
      const encrypted = await open(true);
      return 'refusal' in encrypted && encrypted.refusal.tls === 'unavailable' ? open(false) : encrypted;
    }
    default:
      return open(true);
  }
}

/** Closes a session whose server is not of the wanted kind. */
async function fit(session: Session, wish: Wish, attempt: Attempt, signal?: AbortSignal): Promise<Found> {
  if (wish === 'any') return { session };
  try {
    const [state] = await limited(
      session.query<{ standby: boolean; readOnly: boolean }>(
        `SELECT pg_catalog.pg_is_in_recovery() AS standby,
                pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool AS "readOnly"`,
      ),
      attempt.target.connectTimeoutSeconds,
      signal,
    );
    const fits = {
      'read-write': state?.readOnly === false,
      'read-only': state?.readOnly === true,
      primary: state?.standby === false,
      standby: state?.standby === true,
    };
    if (fits[wish]) return { session };
    await session.close();
    const failure = new Failure('connect', 'connect', `${describePlace(attempt.place)} is not a ${wish} server`, {
      hint: `target_session_attrs=${wish} in the URL asks for one`,
    });
    return { refusal: { failure, tryNext: true } };
  } catch (error) {
    await session.close();
    return { refusal: refusalOf(error, attempt) };
  }
}

function summary(refusals: readonly Refusal[], target: ConnectionTarget): Failure {
  const failures = refusals.map(({ failure }) => failure);
  const [first] = failures;
  if (first !== undefined && failures.length === 1) return first;
  const lines = failures.map((failure) => `  ${failure.message}`);
  return new Failure(
    'connect',
    'connect',
    `none of the ${target.hosts.length} hosts can be used\n${lines.join('\n')}`,
    {
      hint: failures.find((failure) => failure.hint !== undefined)?.hint,
      transient: failures.some((failure) => failure.transient),
    },
  );
}

/** `work`, or ConnectTimeout, or what `signal` was aborted with, whichever comes first. */
async function limited<T>(work: Promise<T>, seconds: number, signal: AbortSignal | undefined): Promise<T> {
  const { promise: ended, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal?.reason instanceof Failure ? signal.reason : cancelled('connect'));
  const timer = setTimeout(() => reject(new ConnectTimeout()), seconds * 1000);
  signal?.addEventListener('abort', onAbort, { once: true });
  if (signal?.aborted === true) onAbort();
  try {
    return await Promise.race([work, ended]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
  }
}

/** The parts of pg's client that its types leave out. */
interface Inside {
  readonly connection: EventEmitter & { readonly stream: Socket };
  readonly processID: number | null;
}

class StartupClient extends pg.Client {
  readonly #startup: Readonly<Record<string, string>>;

  constructor(config: pg.ClientConfig, startup: Readonly<Record<string, string>>) {
    super(config);
    this.#startup = startup;
  }

  /** All that is sent at startup (pg adds client_encoding): PgBouncer refuses anything it does not know. */
  getStartupConf(): Readonly<Record<string, string>> {
    return this.#startup;
  }
}

async function openSession(attempt: Attempt, options: ConnectOptions, tls: boolean): Promise<Session> {
  const { place, address, target } = attempt;
  const socket = new Socket();
  const client = new StartupClient(
    {
      user: target.user,
      database: target.database,
      host: place.host,
      port: place.port,
      // A function, because pg would look for an absent password in the environment and in ~/.pgpass.
      password: () => {
        if (target.password !== undefined) return target.password;
        throw new LoginStopped(`the server asks for a password of user "${target.user}", and the URL has none`);
      },
      ssl: tls ? tlsOptions(target.sslMode, target.tls) : false,
      sslnegotiation: 'postgres',
      // libpq knows no limit; this one is about a second of work.
      scramMaxIterations: 2_000_000,
      enableChannelBinding: tls && target.channelBinding !== 'disable',
      keepAlive: true,
      keepAliveInitialDelayMillis: keepAliveAfterMs,
      stream: () => towards(socket, address),
    } as pg.ClientConfig,
    {
      user: target.user,
      database: target.database,
      application_name: options.applicationName,
      ...(target.options === undefined ? {} : { options: target.options }),
    },
  );
  const inside = client as unknown as Inside;
  const kill = (): void => {
    inside.connection.stream.destroy();
    socket.destroy();
  };

  const lost = new AbortController();
  let state: 'connecting' | 'open' | 'closed' = 'connecting';
  const onLost = (error: unknown): void => {
    if (state !== 'open' || lost.signal.aborted) return;
    lost.abort(connectionLost(error, place));
    kill();
  };
  client.on('error', onLost);
  client.on('end', () => onLost(undefined));

  const login = watchLogin(inside.connection, target);
  const connecting = client.connect();
  connecting.catch(() => {});
  try {
    await limited(Promise.race([connecting, login.stopped]), target.connectTimeoutSeconds, options.signal);
    login.check();
  } catch (error) {
    state = 'closed';
    kill();
    throw error;
  }
  state = 'open';

  const query = async <T>(text: string, values?: unknown[]): Promise<T[]> => {
    lost.signal.throwIfAborted();
    try {
      const result = await client.query(text, values);
      return result.rows as T[];
    } catch (error) {
      if (state === 'open' && endsConnection(error)) onLost(error);
      lost.signal.throwIfAborted();
      throw error;
    }
  };
  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    state = 'closed';
    const timer = setTimeout(kill, closeWithinMs);
    await client.end().catch(() => {});
    clearTimeout(timer);
    kill();
  };
  return {
    client,
    server: { host: place.host, port: place.port, address, encrypted: tls },
    backendPid: inside.processID ?? 0,
    query,
    close: () => {
      closing ??= close();
      return closing;
    },
    lost: lost.signal,
  };
}

/** Makes pg's `connect(port, name)` go to `address`, while it goes on to believe in the name it verifies. */
function towards(socket: Socket, address: string | undefined): Socket {
  if (address === undefined) return socket;
  const original = socket.connect.bind(socket) as (options: object) => Socket;
  socket.connect = ((port: number) => original({ port, host: address, autoSelectFamily: false })) as Socket['connect'];
  return socket;
}

/**
 * Watches the messages of the login, because pg sends a password to whoever asks and believes a server that skips its
 * own proof. Its listeners come before pg's, so nothing is sent once `stopped` has been decided.
 */
function watchLogin(
  connection: Inside['connection'],
  target: ConnectionTarget,
): { readonly stopped: Promise<never>; readonly check: () => void } {
  const { promise: stopped, reject } = Promise.withResolvers<never>();
  stopped.catch(() => {});
  let scram: 'none' | 'started' | 'proven' = 'none';
  const bound = target.channelBinding === 'require';
  const unbound = new LoginStopped(
    'the URL says channel_binding=require, and the server did not use it',
    'channel binding needs TLS and a scram-sha-256 password; poolers and proxies often cannot do it',
  );
  const stop = (): void => {
    connection.stream.destroy();
    reject(unbound);
  };
  if (bound) {
    connection.prependListener('authenticationCleartextPassword', stop);
    connection.prependListener('authenticationMD5Password', stop);
  }
  connection.prependListener('authenticationSASL', ({ mechanisms }: { readonly mechanisms: readonly string[] }) => {
    scram = 'started';
    if (bound && !mechanisms.includes('SCRAM-SHA-256-PLUS')) stop();
  });
  connection.on('authenticationSASLFinal', () => {
    scram = 'proven';
  });
  return {
    stopped,
    check: () => {
      if (bound && scram !== 'proven') throw unbound;
      if (scram === 'started') {
        throw new LoginStopped('the server skipped the proof that it knows the password: it may be an impostor');
      }
    },
  };
}

/** FATAL codes and errors that are no answer of the server at all. */
function endsConnection(error: unknown): boolean {
  const { code, severity } = error as { code?: unknown; severity?: unknown };
  if (severity === 'FATAL' || severity === 'PANIC') return true;
  return typeof code !== 'string' || !/^[0-9A-Z]{5}$/.test(code) || /^E[A-Z]{4}$/.test(code);
}
