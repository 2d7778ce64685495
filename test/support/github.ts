import { createSign, generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { createEmulator, type Emulator } from 'emulate';

/** A request as it reached the API, in order. */
export interface ApiRequest {
  readonly method: string;
  /** Below the API's address, query included. */
  readonly path: string;
  readonly body: string;
}

/** What happens to a request in place of what it asked for; `lost`: it is done, and its answer is a 502. */
export type Fault =
  | {
      readonly status: number;
      readonly message?: string;
      readonly headers?: Readonly<Record<string, string>>;
      readonly errors?: readonly unknown[];
      /** The whole answer. */
      readonly answer?: unknown;
    }
  | 'reset'
  | 'silence'
  | 'lost'
  | 'not json';

export interface GitHubIssue {
  readonly number: number;
  readonly title: string;
  readonly body: string;
  readonly state: string;
  readonly state_reason: string | null;
  readonly user: { readonly login: string };
  readonly labels: readonly { readonly name: string }[];
  readonly assignees: readonly { readonly login: string }[];
}

export interface GitHubComment {
  readonly id: number;
  readonly body: string;
  readonly user: { readonly login: string };
}

const account = 'octo';
const appId = 15368;

/**
 * GitHub's REST API on loopback: the issues, labels, comments and tokens of `emulate`, behind a proxy that adds what it
 * does not do as GitHub does, and the faults a test asks for. The repository is `octo/backups`.
 */
export class GitHubServer implements AsyncDisposable {
  readonly repository = `${account}/backups`;
  /** For GITHUB_API_URL. */
  readonly url: string;
  /** What a job gets as GITHUB_TOKEN: it acts as `github-actions[bot]`, and may write issues. */
  readonly jobToken: string;
  /** A person with write access, and one who may only do what everybody may. */
  readonly personToken = 'ghp_alice';
  readonly strangerToken = 'ghp_mallory';
  readonly requests: ApiRequest[] = [];
  /** Asked before each request. */
  fault: (request: ApiRequest, nth: number) => Fault | undefined = () => undefined;
  readonly #emulator: Emulator;
  readonly #server: Server;

  private constructor(emulator: Emulator, server: Server, jobToken: string) {
    this.#emulator = emulator;
    this.#server = server;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    this.jobToken = jobToken;
    server.on('request', (request, response) => void this.#serve(request, response));
  }

  static async start({ visibility = 'private' }: { visibility?: 'private' | 'public' } = {}): Promise<GitHubServer> {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    const users = [account, 'alice', 'mallory'];
    const emulator = await createEmulator({
      service: 'github',
      port: 0,
      seed: {
        tokens: {
          ghp_alice: { login: 'alice', scopes: ['repo'] },
          ghp_mallory: { login: 'mallory', scopes: ['repo'] },
          ghp_owner: { login: account, scopes: ['repo'] },
        },
        github: {
          users: users.map((login) => ({ login })),
          repos: [{ owner: account, name: 'backups', private: visibility === 'private' }],
          apps: [
            {
              app_id: appId,
              slug: 'github-actions',
              name: 'GitHub Actions',
              private_key: privateKey.export({ type: 'pkcs1', format: 'pem' }),
              permissions: { issues: 'write', metadata: 'read' },
              installations: [{ installation_id: 1, account, repository_selection: 'all' }],
            },
          ],
        },
      },
    });
    const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
    const now = Math.floor(Date.now() / 1000);
    const claims = `${part({ alg: 'RS256', typ: 'JWT' })}.${part({ iat: now - 10, exp: now + 500, iss: String(appId) })}`;
    const signature = createSign('RSA-SHA256').update(claims).sign(privateKey).toString('base64url');
    const granted = await fetch(`${emulator.url}/app/installations/1/access_tokens`, {
      method: 'POST',
      headers: { authorization: `Bearer ${claims}.${signature}` },
    });
    const { token } = (await granted.json()) as { token: string };
    await fetch(`${emulator.url}/repos/${account}/backups/collaborators/alice`, {
      method: 'PUT',
      headers: { authorization: 'Bearer ghp_owner', 'content-type': 'application/json' },
      body: JSON.stringify({ permission: 'push' }),
    });
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new GitHubServer(emulator, server, token);
  }

  /** For a step: the API, and the token that `${{ github.token }}` gives. */
  get step(): { readonly token: string; readonly env: Readonly<Record<string, string>> } {
    return { token: this.jobToken, env: { GITHUB_API_URL: this.url, GITHUB_GRAPHQL_URL: `${this.url}/graphql` } };
  }

  /** All issues, lowest number first. */
  async issues(): Promise<GitHubIssue[]> {
    const all = (await this.as('ghp_owner', 'GET', '/issues?state=all&per_page=100')) as GitHubIssue[];
    return all.sort((a, b) => a.number - b.number);
  }

  async comments(issue: number): Promise<GitHubComment[]> {
    return (await this.as('ghp_owner', 'GET', `/issues/${issue}/comments?per_page=100`)) as GitHubComment[];
  }

  /** What somebody does to the repository without us: no fault, not recorded. */
  async as(token: string, method: string, path: string, body?: unknown): Promise<unknown> {
    const response = await fetch(`${this.#emulator.url}/repos/${this.repository}${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: body === undefined ? null : JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await this.#emulator.close();
  }

  async #serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await text(incoming);
    const { method = 'GET', url: path = '/' } = incoming;
    const request = { method, path, body };
    this.requests.push(request);
    const fault = this.fault(request, this.requests.length);
    if (fault === 'silence') return;
    if (fault === 'reset') {
      incoming.socket.destroy();
      return;
    }
    if (fault === 'not json') {
      response.writeHead(200, { 'content-type': 'text/html' }).end('<html>maintenance</html>');
      return;
    }
    if (fault !== undefined && fault !== 'lost') {
      const { status, message = 'refused', headers = {}, errors = [], answer = { message, errors } } = fault;
      response.writeHead(status, { 'content-type': 'application/json', ...headers });
      response.end(JSON.stringify(answer));
      return;
    }
    const { status, answer } = await this.#answer(request, incoming.headers.authorization ?? '');
    response.writeHead(fault === 'lost' ? 502 : status, { 'content-type': 'application/json' });
    response.end(fault === 'lost' ? '{}' : answer);
  }

  async #answer(
    { method, path, body }: ApiRequest,
    authorization: string,
  ): Promise<{ status: number; answer: string }> {
    const ofJob = authorization === `Bearer ${this.jobToken}`;
    // An app's token has no user; GraphQL knows what it acts as.
    if (path === '/user' && ofJob)
      return { status: 403, answer: JSON.stringify({ message: 'Resource not accessible by integration' }) };
    if (path === '/graphql' && ofJob)
      return { status: 200, answer: JSON.stringify({ data: { viewer: { login: 'github-actions[bot]' } } }) };
    const written = method === 'GET' || body === '' ? '' : (JSON.parse(body) as { body?: unknown }).body;
    if (typeof written === 'string' && written.length > 65_536)
      return {
        status: 422,
        answer: JSON.stringify({ message: 'Validation Failed', errors: [{ field: 'body', code: 'too_long' }] }),
      };
    const response = await fetch(`${this.#emulator.url}${path}`, {
      method,
      headers: { authorization, 'content-type': 'application/json' },
      body: body === '' ? null : body,
    });
    return { status: response.status, answer: await response.text() };
  }
}
