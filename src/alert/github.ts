import { setTimeout as sleep } from 'node:timers/promises';

/** Where a repository's API is, and who asks. Of the token nothing is ever printed. */
export interface GitHubAccess {
  /** `https://api.github.com`, or a GitHub Enterprise Server's. */
  readonly apiUrl: string;
  readonly graphqlUrl: string;
  /** `owner/name` */
  readonly repository: string;
  readonly token: string;
}

/** What kept GitHub from doing what it was asked. */
export type Trouble =
  | { readonly kind: 'refused'; readonly status: 401 | 403 | 404 | 410 }
  | { readonly kind: 'archived' }
  /** `fields` are the names GitHub gives of what it did not like; its sentences may repeat what it was sent. */
  | { readonly kind: 'invalid'; readonly fields: readonly string[] }
  | { readonly kind: 'rate-limit'; readonly waitSeconds: number | undefined }
  | { readonly kind: 'server'; readonly status: number }
  | { readonly kind: 'unreachable'; readonly code: string }
  | { readonly kind: 'silent'; readonly seconds: number }
  | { readonly kind: 'unreadable' };

export class GitHubError extends Error {
  override readonly name = 'GitHubError';
  readonly trouble: Trouble;

  constructor(trouble: Trouble, cause?: unknown) {
    super(`GitHub: ${trouble.kind}`, cause === undefined ? undefined : { cause });
    this.trouble = trouble;
  }
}

type Method = 'GET' | 'POST' | 'PATCH' | 'DELETE';

/** Each request by itself, the reading of its answer included. */
const requestMs = 10_000;
/** Tries, the first one included. */
const tries = 3;
/** A rate limit that passes sooner is waited for. */
const patienceSeconds = 5;
const firstPauseMs = 500;

/**
 * GitHub's REST API for one repository. Whatever it does ends with `signal`, and throws a `GitHubError` and nothing else.
 * Requests that change nothing, or the same thing twice, are tried again; a POST only when GitHub said that it did nothing.
 */
export class GitHub {
  readonly #access: GitHubAccess;
  readonly #signal: AbortSignal;

  constructor(access: GitHubAccess, signal: AbortSignal) {
    this.#access = access;
    this.#signal = signal;
  }

  /** `path` is below the repository: `/issues`; empty for the repository itself. */
  repository(method: Method, path: string, body?: unknown): Promise<unknown> {
    return this.#ask(method, `${this.#base}/repos/${this.#access.repository}${path}`, body);
  }

  /** Every item of a list, 100 a page, `most` pages. */
  async list(path: string, most: number): Promise<unknown[]> {
    const items: unknown[] = [];
    for (let page = 1; page <= most; page++) {
      const answer = await this.repository('GET', `${path}${path.includes('?') ? '&' : '?'}per_page=100&page=${page}`);
      if (!Array.isArray(answer)) throw new GitHubError({ kind: 'unreadable' });
      items.push(...answer);
      if (answer.length < 100) break;
    }
    return items;
  }

  /**
   * The login that the token acts as; undefined when GitHub does not say. A token of a person has `/user`; one of an app,
   * which GITHUB_TOKEN is, is refused there and has GraphQL's `viewer`.
   */
  async login(): Promise<string | undefined> {
    try {
      return textOf(await this.#ask('GET', `${this.#base}/user`), 'login');
    } catch (error) {
      if (!(error instanceof GitHubError) || error.trouble.kind !== 'refused') throw error;
    }
    try {
      const answer = await this.#ask('POST', this.#access.graphqlUrl, { query: '{ viewer { login } }' });
      return textOf(record(record(answer).data).viewer, 'login');
    } catch (error) {
      if (error instanceof GitHubError) return undefined;
      throw error;
    }
  }

  get #base(): string {
    return this.#access.apiUrl.replace(/\/+$/, '');
  }

  async #ask(method: Method, url: string, body?: unknown): Promise<unknown> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#once(method, url, body);
      } catch (error) {
        if (!(error instanceof GitHubError) || attempt === tries || this.#signal.aborted) throw error;
        const pause = pauseMs(error.trouble, method, attempt);
        if (pause === undefined) throw error;
        await sleep(pause, undefined, { signal: this.#signal }).catch(() => {
          throw error;
        });
      }
    }
  }

  async #once(method: Method, url: string, body: unknown): Promise<unknown> {
    const timeout = AbortSignal.timeout(requestMs);
    try {
      const response = await fetch(url, {
        method,
        headers: {
          accept: 'application/vnd.github+json',
          authorization: `Bearer ${this.#access.token}`,
          'user-agent': 'pgassay',
          'x-github-api-version': '2022-11-28',
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        body: body === undefined ? null : JSON.stringify(body),
        signal: AbortSignal.any([this.#signal, timeout]),
      });
      const text = await response.text();
      if (response.ok) return text === '' ? undefined : parsed(text);
      throw new GitHubError(troubleOf(response, text));
    } catch (error) {
      if (error instanceof GitHubError) throw error;
      if (timeout.aborted || this.#signal.aborted)
        throw new GitHubError({ kind: 'silent', seconds: requestMs / 1000 }, error);
      throw new GitHubError({ kind: 'unreachable', code: codeOf(error) }, error);
    }
  }
}

/** How long to wait before the next try; undefined: another one would not help, or could do the same thing twice. */
function pauseMs(trouble: Trouble, method: Method, attempt: number): number | undefined {
  const pause = firstPauseMs * 3 ** (attempt - 1);
  if (trouble.kind === 'rate-limit')
    return trouble.waitSeconds !== undefined && trouble.waitSeconds <= patienceSeconds
      ? Math.max(trouble.waitSeconds * 1000, pause)
      : undefined;
  if (trouble.kind === 'unreachable' && trouble.code === 'ECONNREFUSED') return pause;
  if (method === 'POST') return undefined;
  return trouble.kind === 'server' || trouble.kind === 'unreachable' ? pause : undefined;
}

function troubleOf({ status, headers }: Response, text: string): Trouble {
  const message = textOf(parsedOr(text), 'message') ?? '';
  // A primary limit says how much is left, a secondary one how long to wait, or only so in words; either may be a 403.
  const after = headers.get('retry-after');
  const spent = headers.get('x-ratelimit-remaining') === '0';
  if (status === 429 || (status === 403 && (after !== null || spent || /rate limit|abuse detection/i.test(message))))
    return { kind: 'rate-limit', waitSeconds: waitOf(after, spent ? headers.get('x-ratelimit-reset') : null) };
  if (status === 403 && /archived/i.test(message)) return { kind: 'archived' };
  if (status === 401 || status === 403 || status === 404 || status === 410) return { kind: 'refused', status };
  if (status >= 500) return { kind: 'server', status };
  if (status === 422) return { kind: 'invalid', fields: fieldsOf(parsedOr(text)) };
  return { kind: 'server', status };
}

function waitOf(after: string | null, reset: string | null): number | undefined {
  if (after !== null && /^\d{1,6}$/.test(after)) return Number(after);
  if (reset !== null && /^\d{1,12}$/.test(reset)) return Math.max(0, Math.ceil(Number(reset) - Date.now() / 1000));
  return undefined;
}

function fieldsOf(answer: unknown): string[] {
  const { errors } = record(answer);
  if (!Array.isArray(errors)) return [];
  const fields = errors.map((each) => textOf(each, 'field')).filter((field) => field !== undefined);
  return [...new Set(fields.filter((field) => /^[a-z_]{1,30}$/.test(field)))];
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new GitHubError({ kind: 'unreadable' }, error);
  }
}

function parsedOr(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function codeOf(error: unknown): string {
  const { code, cause } = (error ?? {}) as { readonly code?: unknown; readonly cause?: { readonly code?: unknown } };
  return (
    ([cause?.code, code].find((each) => typeof each === 'string' && /^[A-Z_0-9]{2,40}$/.test(each)) as string) ??
    'network'
  );
}

/** A JSON object's members; none for anything else. */
export function record(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

/** A member that is text; undefined when there is none. */
export function textOf(value: unknown, member: string): string | undefined {
  const text = record(value)[member];
  return typeof text === 'string' ? text : undefined;
}
