import { setTimeout as sleep } from 'node:timers/promises';
import { keyIn } from '../alert-state.ts';
import { type GitHub, GitHubError, record, textOf } from './github.ts';

/** An open issue that carries our mark and that we, or another workflow of this repository, wrote. */
export interface Issue {
  readonly number: number;
  readonly url: string;
  readonly body: string;
}

export interface Draft {
  readonly title: string;
  readonly body: string;
  readonly labels: readonly string[];
  readonly assignees: readonly string[];
}

/** GitHub's words for a change of an issue. */
export interface Edit {
  readonly title?: string;
  readonly body: string;
  readonly state: 'open' | 'closed';
  readonly state_reason?: 'completed';
}

/** What was found: ours, lowest number first, and issues with our mark by somebody we are not. */
export interface Found {
  readonly ours: readonly Issue[];
  readonly foreign: readonly { readonly number: number; readonly author: string }[];
}

/**
 * Who GITHUB_TOKEN acts as, in every repository. Only a workflow of the repository itself has such a token, and nobody can
 * register a name with brackets in it.
 */
const actionsBot = 'github-actions[bot]';

/** More than a thousand open issues with our label are not ours to sort. */
const issuePages = 10;
const commentPages = 10;
/** A run can be started again for 30 days. */
const runLifeMs = 31 * 24 * 60 * 60 * 1000;

/**
 * The issues of one repository that are ours. A mark is text that anybody who may open an issue can copy, and an issue's
 * author can edit it whenever he likes; so an issue counts only when its author is the token's own user or
 * `github-actions[bot]`.
 */
export class Issues {
  readonly #github: GitHub;
  readonly #label: string;
  /** Lists may lag behind what was just created. */
  readonly #settleMs: number;
  #self: Promise<string | undefined> | undefined;

  constructor(github: GitHub, label: string, settleMs: number) {
    this.#github = github;
    this.#label = label;
    this.#settleMs = settleMs;
  }

  /** Open issues with our label and the mark of `key`. */
  async find(key: string): Promise<Found> {
    const marked = (await openIssues(this.#github, this.#label)).flatMap((item) => {
      const issue = issueOf(item);
      return issue === undefined || keyIn(issue.body) !== key ? [] : [{ issue, author: authorOf(item) }];
    });
    const ours: Issue[] = [];
    const foreign: { number: number; author: string }[] = [];
    for (const { issue, author } of marked)
      if (await this.#isOurs(author)) ours.push(issue);
      else foreign.push({ number: issue.number, author });
    return { ours: ours.sort((a, b) => a.number - b.number), foreign };
  }

  /**
   * Opens an issue, and looks again: another job may have opened one at the same moment. Resolves with the one that
   * stays, the lowest; when that is not the new one, the new one is closed with `duplicate`'s words. `refused` is what
   * GitHub did not take and what was left out for it.
   */
  async open(
    key: string,
    draft: Draft,
    duplicate: (of: number) => string,
  ): Promise<{ readonly issue: Issue; readonly created: boolean; readonly refused: readonly 'assignees'[] }> {
    for (const label of draft.labels) await this.#createLabel(label);
    const { item, refused } = await this.#create(key, draft);
    const issue = issueOf(item);
    if (issue === undefined) throw new GitHubError({ kind: 'unreadable' });
    this.#self = Promise.resolve(authorOf(item));
    await this.#requireLabel(item, issue.number);
    await sleep(this.#settleMs);
    const [lowest = issue] = (await this.find(key)).ours;
    if (lowest.number >= issue.number) return { issue, created: true, refused };
    await this.closeDuplicate(issue.number, duplicate(lowest.number));
    return { issue: lowest, created: false, refused };
  }

  async closeDuplicate(number: number, text: string): Promise<void> {
    await this.#github.repository('POST', `/issues/${number}/comments`, { body: text });
    await this.#github.repository('PATCH', `/issues/${number}`, { state: 'closed', state_reason: 'not_planned' });
  }

  async read(number: number): Promise<Issue> {
    const issue = issueOf(await this.#github.repository('GET', `/issues/${number}`));
    if (issue === undefined) throw new GitHubError({ kind: 'unreadable' });
    return issue;
  }

  async edit(number: number, change: Edit): Promise<void> {
    await this.#github.repository('PATCH', `/issues/${number}`, change);
  }

  /**
   * Writes the one comment that carries `mark` (a line of its own, hidden): edits it when it is there. Of two jobs that
   * write it at the same moment, the later takes its own away again.
   */
  async comment(number: number, mark: string, text: string, now: Date): Promise<void> {
    const body = `${text}\n\n${mark}`;
    const [first] = await this.#comments(number, mark, now);
    if (first !== undefined) {
      await this.#github.repository('PATCH', `/issues/comments/${first}`, { body });
      return;
    }
    const posted = await this.#post(number, mark, body, now);
    const [lowest = posted] = await this.#comments(number, mark, now);
    if (lowest < posted) await this.#github.repository('DELETE', `/issues/comments/${posted}`);
  }

  /** An answer that was lost does not mean that nothing was written. */
  async #post(number: number, mark: string, body: string, now: Date): Promise<number> {
    const post = async (): Promise<number> => {
      const { id } = record(await this.#github.repository('POST', `/issues/${number}/comments`, { body }));
      if (typeof id !== 'number') throw new GitHubError({ kind: 'unreadable' });
      return id;
    };
    try {
      return await post();
    } catch (error) {
      if (!mayHaveHappened(error)) throw error;
      const [written] = await this.#comments(number, mark, now);
      return written ?? (await post());
    }
  }

  async #comments(number: number, mark: string, now: Date): Promise<number[]> {
    const since = new Date(now.getTime() - runLifeMs).toISOString().slice(0, 19);
    const ids: number[] = [];
    for (const item of await this.#github.list(`/issues/${number}/comments?since=${since}Z`, commentPages)) {
      const { id } = record(item);
      const lines = (textOf(item, 'body') ?? '').trimEnd().split(/\r?\n/);
      if (typeof id === 'number' && lines.at(-1) === mark && (await this.#isOurs(authorOf(item)))) ids.push(id);
    }
    return ids.sort((a, b) => a - b);
  }

  async #create(
    key: string,
    { title, body, labels, assignees }: Draft,
  ): Promise<{ readonly item: unknown; readonly refused: readonly 'assignees'[] }> {
    const post = (people: readonly string[]): Promise<unknown> =>
      this.#github.repository('POST', '/issues', { title, body, labels, assignees: people });
    try {
      return { item: await post(assignees), refused: [] };
    } catch (error) {
      if (error instanceof GitHubError && error.trouble.kind === 'invalid' && assignees.length > 0)
        return { item: await post([]), refused: ['assignees'] };
      if (!mayHaveHappened(error)) throw error;
      await sleep(this.#settleMs);
      const written = (await this.find(key)).ours.find((issue) => issue.body.trim() === body.trim());
      if (written !== undefined)
        return { item: await this.#github.repository('GET', `/issues/${written.number}`), refused: [] };
      return { item: await post(assignees), refused: [] };
    }
  }

  /** A label that is there already is refused as invalid; whatever else is wrong shows when the issue is opened. */
  async #createLabel(name: string): Promise<void> {
    try {
      const look = { name, color: 'b60205', description: 'Backups that need somebody: opened and closed by pgassay' };
      await this.#github.repository('POST', '/labels', look);
    } catch (error) {
      if (!(error instanceof GitHubError) || error.trouble.kind !== 'invalid') throw error;
    }
  }

  /** GitHub silently drops labels that the token may not set, and without ours the issue is never found again. */
  async #requireLabel(item: unknown, number: number): Promise<void> {
    const { labels } = record(item);
    const names = Array.isArray(labels) ? labels.map((label) => textOf(label, 'name')) : [];
    if (names.some((name) => name?.toLowerCase() === this.#label.toLowerCase())) return;
    await this.#github.repository('POST', `/issues/${number}/labels`, { labels: [this.#label] });
  }

  async #isOurs(author: string): Promise<boolean> {
    if (author === actionsBot) return true;
    this.#self ??= this.#github.login();
    return author !== '' && author === (await this.#self);
  }
}

/** The keys of all open issues that carry a mark, whoever wrote them. */
export async function markedIssues(github: GitHub, label: string): Promise<Set<string>> {
  const issues = await openIssues(github, label);
  return new Set(issues.flatMap((item) => keyIn(issueOf(item)?.body ?? '') ?? []));
}

async function openIssues(github: GitHub, label: string): Promise<unknown[]> {
  const query = `?state=open&labels=${encodeURIComponent(label)}&sort=created&direction=asc`;
  const items = await github.list(`/issues${query}`, issuePages);
  // The list has pull requests in it too.
  return items.filter((item) => record(item).pull_request === undefined);
}

function mayHaveHappened(error: unknown): boolean {
  return error instanceof GitHubError && ['server', 'unreachable', 'silent', 'unreadable'].includes(error.trouble.kind);
}

function issueOf(item: unknown): Issue | undefined {
  const { number } = record(item);
  if (typeof number !== 'number') return undefined;
  return { number, url: textOf(item, 'html_url') ?? '', body: textOf(item, 'body') ?? '' };
}

function authorOf(item: unknown): string {
  return textOf(record(item).user, 'login') ?? '';
}
