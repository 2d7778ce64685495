import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import type { IdentityService } from '../../src/store/s3-address.ts';
import type { Answer, Exchange } from './s3-faults.ts';

/** An answer other than the good one; undefined for that. */
export type Trouble = Answer | 'reset' | undefined;

export interface RoleOptions {
  /** How long a session of the role lasts; an hour. */
  readonly sessionMs?: number;
  /** What GitHub says to the nth request for an identity token, counted from 1. */
  readonly identity?: (nth: number) => Trouble;
  /** What STS says to the nth request for a session of this role, counted from 1. */
  readonly sts?: (nth: number) => Trouble;
}

/** A role, the job that may assume it, and what happened. */
export interface Role {
  readonly arn: string;
  /** Where this job asks for its identity tokens. */
  readonly identity: IdentityService;
  /** For a program that runs in this job. */
  readonly env: Readonly<Record<string, string>>;
  /** The audience of each request for an identity token, refused ones included. */
  readonly asked: readonly (string | null)[];
  /** Every identity token that was given out. */
  readonly tokens: readonly string[];
  /** The form of each request for a session, refused ones included. */
  readonly requests: readonly Readonly<Record<string, string>>[];
  readonly sessions: readonly Session[];
}

export interface Session {
  readonly token: string;
  readonly expires: number;
  /** Set by a test: the store refuses it from now on, whatever its end. */
  revoked: boolean;
  /** What it was used for, in order: the operations of S3. */
  readonly uses: string[];
}

type Writable<T> = { -readonly [Name in keyof T]: T[Name] extends readonly (infer Each)[] ? Each[] : T[Name] };

/**
 * On loopback: the service that gives GitHub's jobs their identity tokens, and AWS STS, which gives sessions for them
 * (AssumeRoleWithWebIdentity and nothing else). A session is the key pair of a real S3 server with a session token, which
 * that server does not look at; `judge` does.
 */
export class Sts implements AsyncDisposable {
  readonly endpoint: string;
  readonly #server: Server;
  readonly #keys: Readonly<Record<'accessKeyId' | 'secretAccessKey', string>>;
  readonly #roles: { readonly role: Writable<Role>; readonly options: RoleOptions }[] = [];

  private constructor(server: Server, keys: Readonly<Record<'accessKeyId' | 'secretAccessKey', string>>) {
    this.endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    this.#server = server;
    this.#keys = keys;
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      this.#serve(request, response).catch(() => response.destroy());
    });
  }

  /** `keys` are what every session consists of. */
  static async start(keys: Readonly<Record<'accessKeyId' | 'secretAccessKey', string>>): Promise<Sts> {
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new Sts(server, keys);
  }

  role(options: RoleOptions = {}): Role {
    const number = this.#roles.length;
    // The runner's own address has a query, too.
    const identity = {
      url: `${this.endpoint}/idtoken/${number}?api-version=2.0`,
      token: `request-${randomBytes(24).toString('base64url')}`,
    };
    const role: Writable<Role> = {
      arn: `arn:aws:iam::123456789012:role/backups/writer-${number}`,
      identity,
      env: {
        AWS_ENDPOINT_URL_STS: this.endpoint,
        ACTIONS_ID_TOKEN_REQUEST_URL: identity.url,
        ACTIONS_ID_TOKEN_REQUEST_TOKEN: identity.token,
      },
      ...{ asked: [], tokens: [], requests: [], sessions: [] },
    };
    this.#roles.push({ role, options });
    return role;
  }

  /** What S3 answers to a request that is not made with a session that is good now; undefined for the others. */
  judge({ headers, operation }: Readonly<Exchange>): Answer | undefined {
    const token = headers['x-amz-security-token'];
    const session = this.#roles.flatMap(({ role }) => role.sessions).find((each) => each.token === token);
    if (session === undefined) return s3Error(403, 'AccessDenied');
    if (session.revoked || session.expires < Date.now()) return s3Error(400, 'ExpiredToken');
    session.uses.push(operation);
    return undefined;
  }

  /** Everything that must never be shown to anybody. */
  get secrets(): string[] {
    return [
      this.#keys.secretAccessKey,
      ...this.#roles.flatMap(({ role }) => [
        role.identity.token,
        ...role.tokens,
        ...role.sessions.map(({ token }) => token),
      ]),
    ];
  }

  async stop(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.endpoint);
    const form = Object.fromEntries(new URLSearchParams(await text(request)));
    const number = /^\/idtoken\/(\d+)$/.exec(url.pathname)?.[1];
    const answer =
      number === undefined ? this.#assume(request, form) : this.#identify(request, url, this.#roles[Number(number)]);
    if (answer === 'reset') {
      request.socket.resetAndDestroy();
      return;
    }
    response.writeHead(answer.status, answer.headers).end(answer.body);
  }

  #identify(
    { method, headers }: IncomingMessage,
    { searchParams }: URL,
    place: { readonly role: Writable<Role>; readonly options: RoleOptions } | undefined,
  ): Answer | 'reset' {
    if (place === undefined || method !== 'GET' || searchParams.get('api-version') !== '2.0') return { status: 404 };
    const { role, options } = place;
    const audience = searchParams.get('audience');
    role.asked.push(audience);
    const trouble = options.identity?.(role.asked.length);
    if (trouble !== undefined) return trouble;
    if (headers.authorization !== `Bearer ${role.identity.token}`) return { status: 401 };
    const claims = {
      aud: audience,
      sub: 'repo:octo/backups:ref:refs/heads/main',
      jti: randomBytes(16).toString('hex'),
    };
    const token = [{ alg: 'RS256', typ: 'JWT' }, claims]
      .map((each) => Buffer.from(JSON.stringify(each)).toString('base64url'))
      .concat(randomBytes(256).toString('base64url'))
      .join('.');
    role.tokens.push(token);
    const headersOut = { 'content-type': 'application/json; charset=utf-8' };
    return { status: 200, headers: headersOut, body: JSON.stringify({ count: token.length, value: token }) };
  }

  #assume({ method, headers }: IncomingMessage, form: Readonly<Record<string, string>>): Answer | 'reset' {
    const place = this.#roles.find(({ role }) => role.arn === form.RoleArn);
    if (method !== 'POST' || form.Action !== 'AssumeRoleWithWebIdentity' || form.Version !== '2011-06-15')
      return stsError(400, 'InvalidAction');
    // The token is all that this request is judged by: it is not signed.
    if (place === undefined || headers.authorization !== undefined) return stsError(403, 'AccessDenied');
    const { role, options } = place;
    role.requests.push(form);
    const trouble = options.sts?.(role.requests.length);
    if (trouble !== undefined) return trouble;
    const last = role.tokens.at(-1);
    if (last === undefined || form.WebIdentityToken !== last) return stsError(400, 'InvalidIdentityToken');
    const session: Session = {
      token: `FwoG${randomBytes(180).toString('base64')}`,
      expires: Date.now() + (options.sessionMs ?? 3_600_000),
      revoked: false,
      uses: [],
    };
    role.sessions.push(session);
    const name = role.arn.slice(role.arn.lastIndexOf('/') + 1);
    return xml(
      200,
      `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <Audience>sts.amazonaws.com</Audience>
    <AssumedRoleUser>
      <AssumedRoleId>AROAEXAMPLEEXAMPLE123:${form.RoleSessionName}</AssumedRoleId>
      <Arn>arn:aws:sts::123456789012:assumed-role/${name}/${form.RoleSessionName}</Arn>
    </AssumedRoleUser>
    <Provider>arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com</Provider>
    <Credentials>
      <AccessKeyId>${this.#keys.accessKeyId}</AccessKeyId>
      <SecretAccessKey>${this.#keys.secretAccessKey}</SecretAccessKey>
      <SessionToken>${session.token}</SessionToken>
      <Expiration>${new Date(session.expires).toISOString()}</Expiration>
    </Credentials>
    <SubjectFromWebIdentityToken>repo:octo/backups:ref:refs/heads/main</SubjectFromWebIdentityToken>
  </AssumeRoleWithWebIdentityResult>
  <ResponseMetadata><RequestId>c6104cbe-af31-11e0-8154-cbc7ccf896c7</RequestId></ResponseMetadata>
</AssumeRoleWithWebIdentityResponse>`,
    );
  }
}

/** A refusal as STS writes it. */
export function stsError(status: number, code: string, message = code): Answer {
  return xml(
    status,
    `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <Error><Type>${status < 500 ? 'Sender' : 'Receiver'}</Type><Code>${code}</Code><Message>${message}</Message></Error>
  <RequestId>c6104cbe-af31-11e0-8154-cbc7ccf896c7</RequestId>
</ErrorResponse>`,
  );
}

function s3Error(status: number, code: string): Answer {
  const body = `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>${code}</Message></Error>`;
  return { status, headers: { 'content-type': 'application/xml' }, body };
}

function xml(status: number, body: string): Answer {
  return { status, headers: { 'content-type': 'text/xml' }, body };
}
