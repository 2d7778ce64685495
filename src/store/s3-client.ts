import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { S3Client, type S3ClientConfig } from '@aws-sdk/client-s3';
import { fromWebToken } from '@aws-sdk/credential-provider-web-identity';
import { Failure } from '../failure.ts';
import type { IdentityService, S3Options } from './s3-address.ts';
import { factsOf, isExpiredSession, isMissing, type S3Action, s3Failure } from './s3-failure.ts';

/** Parts in flight, a download, and the small questions beside them. */
const sockets = 50;
const attempts = 5;
const connectMs = 10_000;

/** A command of the SDK, whatever its input and output. */
type Send = S3Client['send'];

export interface Tuning {
  /** A socket on which nothing moves for so long is given up, and the request tried again. Milliseconds. */
  readonly idleMs: number;
  /** What a request that it ended is said to have failed of, when that is a `Failure`. */
  readonly signal: AbortSignal | undefined;
}

/**
 * One bucket and the way to it. Every request is retried where that can help (408, 429, 5xx, broken connections), and
 * what remains is thrown as a `Failure` that names the permission, the bucket or the host at fault.
 */
export class S3Bucket {
  readonly name: string;
  readonly options: S3Options;
  readonly #client: S3Client;
  readonly #signal: AbortSignal | undefined;
  #clockAhead: number | undefined;

  constructor(name: string, options: S3Options, { idleMs, signal }: Tuning) {
    this.#signal = signal;
    this.name = name;
    this.options = options;
    const agent = { keepAlive: true, maxSockets: sockets };
    const config: S3ClientConfig = {
      region: options.region,
      forcePathStyle: options.pathStyle,
      maxAttempts: attempts,
      // We send the checksums that we computed, and check what we read against the manifest.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      requestHandler: {
        connectionTimeout: connectMs,
        socketTimeout: idleMs,
        httpAgent: new HttpAgent(agent),
        httpsAgent: new HttpsAgent(agent),
      },
      ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint }),
    };
    const { credentials, role } = options;
    const sessions =
      credentials === undefined && role !== undefined ? new RoleSessions(role, options.region) : undefined;
    if (credentials !== undefined)
      config.credentials = {
        accessKeyId: credentials.accessKeyId,
        secretAccessKey: credentials.secretAccessKey,
        ...(credentials.sessionToken === undefined ? {} : { sessionToken: credentials.sessionToken }),
      };
    else if (sessions !== undefined) config.credentials = sessions.provider;
    this.#client = new S3Client(config);
    if (sessions !== undefined) renew(this.#client, sessions);
    this.#client.middlewareStack.add(
      (next) => async (args) => {
        const result = await next(args);
        const date = Date.parse((result.response as { headers?: Record<string, string> }).headers?.date ?? '');
        if (!Number.isNaN(date)) this.#clockAhead = date - Date.now();
        return result;
      },
      { step: 'deserialize', priority: 'low', name: 'clock' },
    );
  }

  /** Milliseconds that the store's clock was ahead of ours at its last answer; undefined before the first. */
  get clockAhead(): number | undefined {
    return this.#clockAhead;
  }

  /** The SDK's own errors, for those who look at them before they give up. */
  get raw(): Send {
    return this.#client.send.bind(this.#client) as Send;
  }

  failure(error: unknown, action: S3Action): Failure {
    const reason: unknown = this.#signal?.reason;
    if (reason instanceof Failure && (error as Error | undefined)?.name === 'AbortError') return reason;
    return s3Failure(error, { bucket: this.name, options: this.options }, action);
  }

  /** Throws a `Failure`. */
  async ask<T>(action: S3Action, request: (send: Send) => Promise<T>): Promise<T> {
    try {
      return await request(this.raw);
    } catch (error) {
      throw this.failure(error, action);
    }
  }

  /** The same, but undefined when the object is not there. */
  async askFor<T>(action: S3Action, request: (send: Send) => Promise<T>): Promise<T | undefined> {
    try {
      return await request(this.raw);
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw this.failure(error, action);
    }
  }

  close(): void {
    this.#client.destroy();
  }
}

/** What a request was signed with is refused as over: it is sent once more, with another session. */
function renew(client: S3Client, sessions: RoleSessions): void {
  const signedWith = new WeakMap<object, string>();
  client.middlewareStack.add(
    (next, context) => async (args) => {
      const { headers } = args.request as { headers: Record<string, string> };
      signedWith.set(context, headers['x-amz-security-token'] ?? '');
      return next(args);
    },
    { step: 'deserialize', priority: 'low', name: 'session' },
  );
  client.middlewareStack.add(
    (next, context) => async (args) => {
      try {
        return await next(args);
      } catch (error) {
        if (!isExpiredSession(error, context.commandName)) throw error;
        sessions.discard(signedWith.get(context));
        return next(args);
      }
    },
    { step: 'initialize', name: 'renewal' },
  );
}

type RoleSession = Awaited<ReturnType<ReturnType<typeof fromWebToken>>>;

/** A new session is asked for so long before the old one is over. */
const renewMs = 300_000;
/** One that is over so soon is not used any more. */
const uselessMs = 60_000;

/** Sessions of a role, one after the other, for each hour or so of a long dump. Throws a `Failure` that names the role. */
class RoleSessions {
  readonly #role: NonNullable<S3Options['role']>;
  readonly #region: string;
  #current: RoleSession | undefined;
  #pending: Promise<RoleSession> | undefined;
  #askAgain = 0;

  constructor(role: NonNullable<S3Options['role']>, region: string) {
    this.#role = role;
    this.#region = region;
  }

  /** For the SDK, whose own memory of a session could not be told that the store refuses it. */
  readonly provider = Object.assign(() => this.#session(), { memoized: true });

  /** Nobody gets the session with this token any more. */
  discard(token: string | undefined): void {
    if (this.#current?.sessionToken === token) this.#current = undefined;
  }

  #lasts(ms: number): RoleSession | undefined {
    return (this.#current?.expiration?.getTime() ?? 0) - Date.now() > ms ? this.#current : undefined;
  }

  async #session(): Promise<RoleSession> {
    const good = this.#lasts(renewMs);
    if (good !== undefined) return good;
    this.#pending ??= this.#renewed().finally(() => {
      this.#pending = undefined;
    });
    return this.#pending;
  }

  /** What is still good outlives a service that is down for some minutes: it is asked ahead of time. */
  async #renewed(): Promise<RoleSession> {
    const before = this.#lasts(uselessMs);
    if (before !== undefined && Date.now() < this.#askAgain) return before;
    try {
      this.#current = await this.#assume();
      return this.#current;
    } catch (error) {
      const still = this.#lasts(uselessMs);
      if (still === undefined) throw error;
      this.#askAgain = Date.now() + 20_000;
      return still;
    }
  }

  async #assume(): Promise<RoleSession> {
    const token = await identityToken(this.#role.identity);
    try {
      return await fromWebToken({
        roleArn: this.#role.arn,
        roleSessionName: 'pgassay',
        webIdentityToken: token,
        clientConfig: {
          region: this.#region === 'auto' ? 'us-east-1' : this.#region,
          maxAttempts: attempts,
          // By default a service that says nothing is waited for minutes, again and again.
          requestHandler: { connectionTimeout: connectMs, socketTimeout: connectMs },
        },
      })();
    } catch (error) {
      const { name, status, code } = factsOf(error);
      const transient = status === undefined || status === 429 || status >= 500 || name.startsWith('IDPCommunication');
      const hint = transient
        ? `AWS STS in ${this.#region} failed or could not be reached: check s3-region and the network, and run the job again`
        : name.startsWith('InvalidIdentityToken')
          ? 'the account of the role must know the identity provider https://token.actions.githubusercontent.com with the audience sts.amazonaws.com'
          : "check the ARN and the role's trust policy: its condition on sub must match this repository, branch or environment, the one on aud sts.amazonaws.com";
      throw new Failure(
        'upload',
        'storeCredentials',
        `the role ${this.#role.arn} could not be assumed (${status === undefined ? (code ?? name) : name})`,
        { hint, cause: error, transient },
      );
    }
  }
}

/** GitHub's signed statement about this job. Throws a `Failure` that prints the permission it takes. */
async function identityToken(service: IdentityService | undefined): Promise<string> {
  if (service === undefined)
    throw new Failure('upload', 'storeCredentials', 'this job may not ask GitHub for an identity token', {
      hint: 'add to the job:\n  permissions:\n    id-token: write',
    });
  let status: number | undefined;
  for (let attempt = 1; attempt <= 3; attempt++) {
    try {
      const url = new URL(service.url);
      url.searchParams.set('audience', 'sts.amazonaws.com');
      const response = await fetch(url, {
        headers: { authorization: `Bearer ${service.token}` },
        signal: AbortSignal.timeout(connectMs),
      });
      status = response.status;
      const { value } = (await response.json()) as { value?: unknown };
      if (response.ok && typeof value === 'string') return value;
    } catch {
      // Tried again below: the service is asked while a job starts, when it is busiest.
    }
    if (attempt < 3) await new Promise((resolve) => setTimeout(resolve, attempt * 500));
  }
  throw new Failure(
    'upload',
    'storeCredentials',
    `GitHub gave no identity token (${status ?? 'it could not be reached'})`,
    { hint: 'run the job again; githubstatus.com tells about outages', transient: true },
  );
}
