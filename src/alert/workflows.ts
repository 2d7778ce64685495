import type { WatchedWorkflow, WorkflowPlace, WorkflowRun } from '../health-workflows.ts';
import { type GitHub, GitHubError, record, type Trouble, textOf } from './github.ts';

/** Runs of a hundred each. */
const runPages = 3;
const folder = '/contents/.github/workflows';

/** What GitHub knows of a workflow and of its runs since `since`. Throws nothing that GitHub is to blame for. */
export async function watchedWorkflow(
  { workflow, repository, file }: WorkflowPlace,
  since: Date,
  open: (repository: string) => GitHub,
): Promise<WatchedWorkflow> {
  const github = open(repository);
  const unknown = { workflow, state: undefined, onDefaultBranch: undefined, runs: [] };
  try {
    const state = await stateOf(github, file);
    if (state === undefined) return unknown;
    const branch = textOf(await github.repository('GET', ''), 'default_branch');
    return {
      workflow,
      state,
      onDefaultBranch: await isThere(github, file),
      runs: await runsOf(github, file, branch, since),
    };
  } catch (error) {
    if (!(error instanceof GitHubError)) throw error;
    return { ...unknown, trouble: describe(error.trouble, repository) };
  }
}

/** `active`, `disabled_inactivity` …; undefined: the token is shown no such workflow. */
async function stateOf(github: GitHub, file: string): Promise<string | undefined> {
  try {
    return textOf(await github.repository('GET', `/actions/workflows/${file}`), 'state') ?? 'unknown';
  } catch (error) {
    if (error instanceof GitHubError && error.trouble.kind === 'refused' && error.trouble.status === 404)
      return undefined;
    throw error;
  }
}

/** Undefined without the permission to look: a missing file and a missing permission can be the same answer. */
async function isThere(github: GitHub, file: string): Promise<boolean | undefined> {
  try {
    const files = await github.repository('GET', folder);
    return Array.isArray(files) ? files.some((each) => textOf(each, 'name') === file) : undefined;
  } catch (error) {
    if (error instanceof GitHubError && error.trouble.kind === 'refused') return undefined;
    throw error;
  }
}

async function runsOf(github: GitHub, file: string, branch: string | undefined, since: Date): Promise<WorkflowRun[]> {
  const filter = branch === undefined ? '' : `&branch=${encodeURIComponent(branch)}`;
  const runs: WorkflowRun[] = [];
  for (let page = 1; page <= runPages; page++) {
    const query = `?per_page=100&page=${page}&exclude_pull_requests=true${filter}`;
    const { workflow_runs: items } = record(await github.repository('GET', `/actions/workflows/${file}/runs${query}`));
    if (!Array.isArray(items)) throw new GitHubError({ kind: 'unreadable' });
    runs.push(...items.flatMap((item) => runOf(item) ?? []));
    if (items.length < 100 || (runs.at(-1)?.createdAt ?? '') < since.toISOString()) break;
  }
  return runs.toSorted((a, b) => (a.createdAt < b.createdAt ? 1 : -1));
}

function runOf(item: unknown): WorkflowRun | undefined {
  const { id, created_at: createdAt, conclusion } = record(item);
  if (typeof id !== 'number' || typeof createdAt !== 'string' || Number.isNaN(Date.parse(createdAt))) return undefined;
  return { id: String(id), createdAt, conclusion: typeof conclusion === 'string' ? conclusion : null };
}

const permission = 'give the job, beside the permissions it has,\npermissions:\n  actions: read';

function describe(trouble: Trouble, repository: string): NonNullable<WatchedWorkflow['trouble']> {
  const later = 'the next run asks again';
  switch (trouble.kind) {
    case 'refused':
      return {
        what: `GitHub refuses to tell about ${repository} (${trouble.status})`,
        hint: `${permission}\nof another repository, github-token must be a token that may read its actions`,
      };
    case 'rate-limit':
      return { what: "GitHub's rate limit for this token is used up", hint: later };
    case 'server':
      return { what: `GitHub answered ${trouble.status}`, hint: later };
    case 'unreachable':
      return { what: `GitHub cannot be reached (${trouble.code})`, hint: later };
    case 'silent':
      return { what: 'GitHub did not answer in time', hint: later };
    default:
      return { what: "GitHub's answer cannot be read", hint: 'is GITHUB_API_URL the API of GitHub?' };
  }
}
