/** Where in a run something went wrong: the first word of every error a user reads. */
export type Stage =
  | 'input'
  | 'connect'
  | 'preflight'
  | 'client'
  | 'snapshot'
  | 'dump'
  | 'validate'
  | 'encrypt'
  | 'upload'
  | 'publish'
  | 'prune'
  | 'locate'
  | 'download'
  | 'decrypt'
  | 'restore'
  | 'verify'
  | 'alert';

/** The process's exit codes: stable, documented in the README, one test each. */
export const exitCodes = {
  badInput: 2,
  connect: 10,
  authentication: 11,
  privilege: 12,
  version: 13,
  timeLimit: 14,
  pooler: 15,
  disk: 20,
  store: 30,
  storeCredentials: 31,
  exists: 32,
  verification: 40,
  wrongKey: 41,
  restore: 50,
  differences: 51,
  retention: 60,
  unhealthy: 70,
  cancelled: 130,
} as const;

export type ExitName = keyof typeof exitCodes;

export interface FailureDetails {
  /** What to do about it: whole lines that can be pasted where that is possible. */
  readonly hint?: string | undefined;
  readonly cause?: unknown;
  /** True when the same run may succeed if it is simply tried again (a dropped connection, a server that is starting). */
  readonly transient?: boolean;
}

/**
 * The one error this program reports. The message says what happened in a sentence that starts in lower case,
 * never holds a secret or a row value, and is printed once, at the edge, as `<stage>: <message>`.
 */
export class Failure extends Error {
  override readonly name = 'Failure';
  readonly stage: Stage;
  readonly exit: ExitName;
  readonly hint: string | undefined;
  readonly transient: boolean;

  constructor(stage: Stage, exit: ExitName, message: string, details: FailureDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.stage = stage;
    this.exit = exit;
    this.hint = details.hint;
    this.transient = details.transient ?? false;
  }

  get exitCode(): number {
    return exitCodes[this.exit];
  }
}

/** One thing wrong with one input. Problems are gathered and reported together. */
export interface Problem {
  /** The input's public name, `database-url`. */
  readonly input: string;
  readonly message: string;
  readonly hint?: string | undefined;
  /** Which exit code the problem asks for when it is the only one; bad input otherwise. */
  readonly exit?: ExitName;
}

/** Every problem of every input as one failure, so that nobody has to fix them one run at a time. */
export function inputFailure(problems: readonly [Problem, ...Problem[]]): Failure {
  const [first, ...rest] = problems;
  const exit = rest.length === 0 ? (first.exit ?? 'badInput') : 'badInput';
  if (rest.length === 0) return new Failure('input', exit, `${first.input}: ${first.message}`, { hint: first.hint });
  const lines = problems.map((problem) => `  ${problem.input}: ${problem.message}`);
  const hints = problems.flatMap((problem) =>
    problem.hint === undefined ? [] : [`${problem.input}: ${problem.hint}`],
  );
  return new Failure('input', exit, `${problems.length} problems\n${lines.join('\n')}`, {
    hint: hints.length === 0 ? undefined : hints.join('\n'),
  });
}

export function cancelled(stage: Stage): Failure {
  return new Failure(stage, 'cancelled', 'cancelled; nothing was published', {
    hint: 'run it again when you are ready: a cancelled run leaves nothing that counts as a backup',
  });
}
