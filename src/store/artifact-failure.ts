import { Failure, type Stage } from '../failure.ts';
import { formatSeconds } from '../numbers.ts';

/** What was asked of GitHub, in the words of an error. */
export interface ArtifactQuestion {
  readonly stage: Stage;
  /** `read the artifacts of` */
  readonly verb: string;
  /** `actions: read` */
  readonly permission: string;
}

export const listing: ArtifactQuestion = {
  stage: 'locate',
  verb: 'list the artifacts of',
  permission: 'actions: read',
};
export const downloading: ArtifactQuestion = {
  stage: 'download',
  verb: 'download an artifact of',
  permission: 'actions: read',
};
export const checking: ArtifactQuestion = {
  stage: 'upload',
  verb: 'look at the artifact it stored in',
  permission: 'actions: read',
};
export const deleting: ArtifactQuestion = {
  stage: 'prune',
  verb: 'delete an artifact of',
  permission: 'actions: write',
};

function permissions(permission: string): string {
  return `give the job\n  permissions:\n    ${permission}\na token of a person needs the same right of the repository`;
}

export function noToken(repository: string): Failure {
  return new Failure('locate', 'storeCredentials', `there is no token to read the artifacts of ${repository} with`, {
    hint: `leave github-token out to use the job's own, or set GITHUB_TOKEN on the command line; ${permissions('actions: read')}`,
  });
}

export function notWritable(repository: string): Failure {
  return new Failure(
    'upload',
    'storeCredentials',
    `artifacts can be added to ${repository} only by a step that uses the action in a run of GitHub Actions`,
    {
      hint: 'what is there can be read from anywhere; to write from the command line or a run: step, use a bucket or a folder',
    },
  );
}

/** What an answer other than the one asked for means. */
export function refusal(
  { stage, verb, permission }: ArtifactQuestion,
  repository: string,
  { status, headers }: Pick<Response, 'status' | 'headers'>,
  message: string,
): Failure {
  const fail = (exit: 'store' | 'storeCredentials', text: string, hint: string, transient = false): Failure =>
    new Failure(stage, exit, text, { hint, transient });
  const wait = headers.get('retry-after') ?? resetIn(headers.get('x-ratelimit-reset'));
  const spent = headers.get('x-ratelimit-remaining') === '0' || headers.has('retry-after');
  if (status === 429 || (status === 403 && (spent || /rate limit|abuse detection/i.test(message)))) {
    const passes = wait === undefined ? '' : `, which passes in ${formatSeconds(Number(wait))}`;
    return fail('store', `GitHub's API has a limit of requests${passes}`, 'run it again later', true);
  }
  if (status === 401)
    return fail(
      'storeCredentials',
      'GitHub does not know the token of github-token (401)',
      "leave github-token out to use the job's own; on the command line, set GITHUB_TOKEN again",
    );
  if (status === 403)
    return fail(
      'storeCredentials',
      `the token of github-token may not ${verb} ${repository} (403)`,
      permissions(permission),
    );
  if (status === 404)
    return fail(
      'storeCredentials',
      `for the token of github-token there is no repository ${repository} with artifacts (404)`,
      `check GITHUB_REPOSITORY; ${permissions(permission)}`,
    );
  return fail(
    'store',
    `GitHub could not ${verb} ${repository} (${status})`,
    'run it again; githubstatus.com tells about outages',
    status >= 500,
  );
}

export function unreachable({ stage, verb }: ArtifactQuestion, repository: string, error: unknown): Failure {
  return new Failure(stage, 'store', `GitHub could not be reached to ${verb} ${repository} (${codeOf(error)})`, {
    hint: 'check the network; githubstatus.com tells about outages',
    cause: error,
    transient: true,
  });
}

export function expired(artifact: string): Failure {
  return new Failure(
    'download',
    'store',
    `the artifact ${artifact} has expired, and GitHub has deleted what was in it`,
    {
      hint: 'use a younger backup (pgassay list); artifacts are kept for the days that the repository allows',
    },
  );
}

/** What the upload of an artifact failed with; the client tells it in sentences only. */
export function uploadFailure(error: unknown, artifact: string): Failure {
  if (error instanceof Failure) return error;
  const text = (error as Error | undefined)?.message ?? '';
  const fail = (exit: 'store' | 'storeCredentials' | 'exists', message: string, hint: string, transient = false) =>
    new Failure('upload', exit, message, { hint, cause: error, transient });
  if (/storage quota has been hit|insufficient usage/i.test(text))
    return fail(
      'store',
      'the storage that the account has for artifacts is used up',
      'uploads stay blocked until the month is over, even if artifacts are deleted: raise the budget in the billing settings, or use a bucket; nothing was published',
    );
  if (/\(409\)/.test(text))
    return fail(
      'exists',
      `this run already has an artifact ${artifact}, and artifacts are never replaced`,
      'start a new run',
    );
  if (/\(40[13]\)/.test(text))
    return fail(
      'storeCredentials',
      'GitHub refused the token that the runner gave this job for artifacts',
      'it ends with the job: a job that runs for very long has to be split; otherwise run it again',
    );
  if (/progress stalled/i.test(text))
    return fail(
      'store',
      `the upload of ${artifact} stood still for minutes`,
      'run it again; on your own runner check the network',
      true,
    );
  const status = (error as { statusCode?: number } | undefined)?.statusCode ?? /\((\d{3})\)/.exec(text)?.[1];
  return fail(
    'store',
    `the artifact ${artifact} could not be uploaded (${status ?? codeOf(error)})`,
    'run it again; githubstatus.com tells about outages, and on your own runner it must be able to reach *.blob.core.windows.net',
    true,
  );
}

/** What the deletion of an artifact of this run failed with. */
export function deletionFailure(error: unknown, artifact: string): Failure {
  if (error instanceof Failure) return error;
  const status = /\((\d{3})\)/.exec((error as Error | undefined)?.message ?? '')?.[1];
  const refused = status === '401' || status === '403';
  return new Failure(
    'prune',
    refused ? 'storeCredentials' : 'store',
    `the artifact ${artifact} of this run could not be deleted (${status ?? codeOf(error)})`,
    { hint: 'run it again; githubstatus.com tells about outages', cause: error, transient: !refused },
  );
}

/** Seconds, from the moment that a rate limit's header names. */
function resetIn(reset: string | null): string | undefined {
  if (reset === null || !/^\d{1,12}$/.test(reset)) return undefined;
  return String(Math.max(0, Math.ceil(Number(reset) - Date.now() / 1000)));
}

function codeOf(error: unknown): string {
  const { code, cause, message } = (error ?? {}) as {
    readonly code?: unknown;
    readonly cause?: { readonly code?: unknown };
    readonly message?: unknown;
  };
  const known = [cause?.code, code, /\b(E[A-Z]{4,20})\b/.exec(String(message))?.[1]];
  return (known.find((each) => typeof each === 'string' && /^[A-Z_0-9]{2,40}$/.test(each)) as string) ?? 'network';
}
