import { Failure, type FailureDetails } from '../../failure.ts';
import type { Log } from '../../log.ts';
import { type Command, type Output, run } from '../../program.ts';

/** What to put into a tree, and what the package manager may need for it. */
export interface Order {
  readonly major: number;
  readonly serverPrograms: boolean;
  readonly packages: PackageAccess;
  readonly log: Log;
  readonly signal: AbortSignal | undefined;
}

/** How package sources are reached: what the edge reads from the environment with `packageAccess`. */
export interface PackageAccess {
  /** `http_proxy`, `https_proxy` and `no_proxy`, for the package manager. */
  readonly proxies?: Readonly<Record<string, string>>;
  /** A mirror of apt.postgresql.org: `http://mirror.internal/pgdg bookworm-pgdg main`. */
  readonly repository?: string | undefined;
  /** Path of the key the mirror is signed with; PostgreSQL's own unless given. */
  readonly keyFile?: string | undefined;
  /** Where the distribution's own sources and keys are: `/etc/apt`. */
  readonly distribution?: string | undefined;
}

/** Packages in a private tree that nothing uses yet. */
export interface Unpacked {
  readonly tree: string;
  /** The whole version of the package, `17.12-1.pgdg120+1`. */
  readonly packageVersion: string;
  /** Where it is from, as a person would say it: `apt.postgresql.org`. */
  readonly source: string;
}

/** Why nothing could be installed, with the way out that is always open. */
export function cannotInstall(
  message: string,
  details: FailureDetails & { readonly hints?: readonly string[] } = {},
): Failure {
  const { hints = [], ...rest } = details;
  const always =
    'install PostgreSQL on the machine before this step (client-bin names its folder where that is an unusual one)';
  const lines = hints.length === 0 ? [always] : [...hints, `or ${always}`];
  return new Failure('client', 'version', message, { ...rest, hint: lines.join('\n') });
}

/** Runs a package manager to its end. Throws the abort reason, or a Failure when it cannot start or takes too long. */
export async function manage(command: Command, minutes: number, signal: AbortSignal | undefined): Promise<Output> {
  try {
    return await run(command, { timeoutMs: minutes * 60_000, ...(signal === undefined ? {} : { signal }) });
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof Error && error.name === 'TimeoutError') {
      throw cannotInstall(`${command.path} was stopped after ${minutes} minutes`, { cause: error, transient: true });
    }
    throw cannotInstall(`${command.path} could not be started`, { cause: error });
  }
}

/** The last lines that say what went wrong, without the credentials a proxy's or mirror's address may hold. */
export function complaint(output: Output): string {
  const lines = `${output.stdout}\n${output.stderr}`
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
  const errors = lines.filter((line) => /^(E:|ERROR|Error|error:|fatal)/.test(line));
  const said = (errors.length > 0 ? errors : lines).slice(-3).join(' ');
  return withoutCredentials(said === '' ? `it ended with ${output.code ?? output.signal}` : said);
}

export function withoutCredentials(text: string): string {
  return text.replace(/\/\/[^/@\s]+@/g, '//***@');
}
