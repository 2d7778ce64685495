import { accessSync, constants, readFileSync } from 'node:fs';
import { homedir, tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { Inputs, type ReadInput } from './inputs.ts';
import type { Machine } from './machine.ts';
import type { Source } from './manifest.ts';
import { packageAccess } from './postgres/install.ts';
import { secretsOf } from './postgres/url.ts';
import type { Secrets } from './secrets.ts';
import { keyInputs } from './signing-inputs.ts';
import type { ArtifactPlace } from './store/artifact-place.ts';
import type { IdentityService } from './store/s3-address.ts';

type Variables = Readonly<Record<string, string | undefined>>;

/** Reads the machine out of an edge's environment; nothing below the edges does. */
export function machineOf(variables: Variables): Machine {
  return {
    temporary: variables.RUNNER_TEMP || tmpdir(),
    toolCache: variables.RUNNER_TOOL_CACHE || join(variables.XDG_CACHE_HOME || cacheHome(), 'pgassay'),
    path: variables.PATH ?? '',
    onRunner: variables.GITHUB_ACTIONS === 'true',
    packages: packageAccess(variables),
  };
}

/** A server that root starts runs as another user, who has no way into root's home. */
function cacheHome(): string {
  return process.getuid?.() === 0 ? '/var/cache' : join(homedir(), '.cache');
}

/** The run on GitHub; null elsewhere. */
export function sourceOf(variables: Variables): Source | null {
  const { GITHUB_REPOSITORY: repository, GITHUB_RUN_ID: runId } = variables;
  if (variables.GITHUB_ACTIONS !== 'true' || !repository || !runId) return null;
  return {
    repository,
    workflow: variables.GITHUB_WORKFLOW ?? '',
    runId,
    runAttempt: variables.GITHUB_RUN_ATTEMPT ?? '1',
    runUrl: `${variables.GITHUB_SERVER_URL ?? 'https://github.com'}/${repository}/actions/runs/${runId}`,
    sha: variables.GITHUB_SHA ?? '',
  };
}

/** Who started this: the person on GitHub, else the user of this machine. */
export function actorOf(variables: Variables): string {
  if (variables.GITHUB_ACTOR) return variables.GITHUB_ACTOR;
  try {
    return userInfo().username;
  } catch {
    return 'unknown';
  }
}

/** Where the runner lets a job with `id-token: write` ask for a token. */
export function identityOf(variables: Variables): IdentityService | undefined {
  const { ACTIONS_ID_TOKEN_REQUEST_URL: url, ACTIONS_ID_TOKEN_REQUEST_TOKEN: token } = variables;
  return url && token ? { url, token } : undefined;
}

/** The repository whose artifacts `store: artifact` means; undefined where nothing says which. */
export function artifactPlaceOf(variables: Variables, temporary: string): ArtifactPlace | undefined {
  const { GITHUB_REPOSITORY: repository = '', GITHUB_RETENTION_DAYS: days = '' } = variables;
  const serverUrl = variables.GITHUB_SERVER_URL || 'https://github.com';
  if (!/^[\w.-]+\/[\w.-]+$/.test(repository) || !URL.canParse(serverUrl)) return undefined;
  return {
    apiUrl: variables.GITHUB_API_URL || 'https://api.github.com',
    ...{ serverUrl, repository, temporary },
    runId: variables.GITHUB_ACTIONS === 'true' ? variables.GITHUB_RUN_ID : undefined,
    writable: Boolean(variables.ACTIONS_RUNTIME_TOKEN && variables.ACTIONS_RESULTS_URL),
    mostDays: /^[1-9]\d{0,3}$/.test(days) ? Number(days) : undefined,
  };
}

const pemInputs = ['tls-ca', 'tls-client-cert', 'tls-client-key', ...keyInputs];

/** Inputs that are PEM text or the path of a file: the rest of the program sees the text. */
export function withPemFiles(read: ReadInput, inputs: Inputs): ReadInput {
  const texts = new Map<string, string>();
  for (const name of pemInputs) {
    const value = read(name);
    if (value === undefined || value.trim() === '') continue;
    if (value.includes('-----BEGIN ')) texts.set(name, value);
    else {
      try {
        accessSync(value.trim(), constants.R_OK);
        const text = readFileSync(value.trim(), 'utf8');
        // Taken for no key at all, it would switch off what it was meant to switch on.
        if (text.trim() === '') inputs.problem(name, 'is the path of an empty file');
        texts.set(name, text);
      } catch {
        inputs.problem(name, 'is neither PEM text nor the path of a file that can be read', pemHint(value.trim()));
      }
    }
  }
  return (name) => (pemInputs.includes(name) ? texts.get(name) : read(name));
}

/** All inputs, with the texts of the PEM files among them. */
export function inputsOf(read: ReadInput): Inputs {
  const files = new Inputs(read);
  const inputs = new Inputs(withPemFiles(read, files));
  inputs.add(files.problems);
  return inputs;
}

/** For a key without its first and last line, or in base64 once more. */
function pemHint(value: string): string | undefined {
  return /^[A-Za-z0-9+/\s]{40,}={0,2}$/.test(value) && !value.startsWith('/')
    ? 'that looks like base64: store the text as the file has it, from its line -----BEGIN to its line -----END'
    : undefined;
}

/**
 * Reads a URL's configuration. Of a URL that cannot be read every piece may be a secret and is hidden; of a good one
 * that would hide whatever public word a piece of the password happens to equal.
 */
export function readHiding<T>(secrets: Secrets, url: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    for (const secret of secretsOf(url)) secrets.add(secret);
    throw error;
  }
}

/** Aborts on SIGINT or SIGTERM, and ends the process if what it does then takes too long for the runner's patience. */
export function cancelOnSignals(reason: () => Error): AbortSignal {
  const controller = new AbortController();
  const cancel = (): void => {
    if (controller.signal.aborted) return;
    controller.abort(reason());
    setTimeout(() => process.exit(130), 6500).unref();
  };
  process.on('SIGINT', cancel);
  process.on('SIGTERM', cancel);
  return controller.signal;
}

/** All is said: a write that hangs on a dead disk must not keep the process. Does nothing when it can end by itself. */
export function exitEvenIfBusy(): void {
  setTimeout(() => process.exit(), 5000).unref();
}
