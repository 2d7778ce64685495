import { type ChildProcess, spawn } from 'node:child_process';
import { Readable, type Writable } from 'node:stream';

/** A program to run: never through a shell, never with our own environment. */
export interface Command {
  /** Absolute path. */
  readonly path: string;
  readonly args: readonly string[];
  /** The child's whole environment. */
  readonly env: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Open file descriptors handed down as 3, 4, … */
  readonly inherit?: readonly number[];
  /** An open file descriptor for its standard output; `Running.stdout` is empty then. */
  readonly stdout?: number | 'pipe';
}

/** How a program ended. `code` is null when a signal ended it. */
export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The last lines of standard error, at most 64 KiB. */
  readonly stderr: string;
}

export interface Running {
  readonly pid: number;
  readonly stdin: Writable;
  readonly stdout: Readable;
  /** Settles when the process has ended and its pipes are drained; rejects when it could not be started. */
  readonly exited: Promise<Exit>;
  /** Calls `listener` with every whole line of standard error. */
  onStderrLine(listener: (line: string) => void): void;
  /** SIGTERM to the process group, SIGKILL two seconds later; resolves once it is gone. */
  stop(): Promise<Exit>;
}

const keptStderr = 64 * 1024;
/** pg_dump's SIGTERM handler waits on the network and can hang for ever on a dead one, so mercy is short. */
const termToKillMs = 2000;

/** Starts `command` in a process group of its own with all three standard streams as pipes. */
export function start(command: Command): Running {
  const child = spawn(command.path, command.args, {
    env: { ...command.env },
    cwd: command.cwd,
    detached: true,
    shell: false,
    stdio: ['pipe', command.stdout ?? 'pipe', 'pipe', ...(command.inherit ?? [])],
  }) as ChildProcess & { stdin: Writable; stdout: Readable | null; stderr: Readable };
  const stdout = child.stdout ?? Readable.from([]);

  const listeners: ((line: string) => void)[] = [];
  let tail = '';
  let partial = '';
  child.stderr.setEncoding('utf8');
  child.stderr.on('data', (text: string) => {
    tail = (tail + text).slice(-keptStderr);
    const lines = (partial + text).split('\n');
    partial = (lines.pop() ?? '').slice(-keptStderr);
    for (const line of lines) for (const listener of listeners) listener(line);
  });

  const exited = new Promise<Exit>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      if (partial !== '') for (const listener of listeners) listener(partial);
      resolve({ code, signal, stderr: tail });
    });
  });
  exited.catch(() => {});
  // A reader that ends early breaks the pipe; the exit status tells the story, not EPIPE.
  child.stdin.on('error', () => {});

  let stopping: Promise<Exit> | undefined;
  const stop = async (): Promise<Exit> => {
    killGroup(child, 'SIGTERM');
    const timer = setTimeout(() => {
      killGroup(child, 'SIGKILL');
      // Nobody reads what a killed program left in its pipes, and an undrained pipe delays 'close' for ever.
      stdout.destroy();
    }, termToKillMs);
    stdout.resume();
    try {
      return await exited;
    } finally {
      clearTimeout(timer);
    }
  };

  return {
    pid: child.pid ?? -1,
    stdin: child.stdin,
    stdout,
    exited,
    onStderrLine: (listener) => void listeners.push(listener),
    stop: () => {
      stopping ??= stop();
      return stopping;
    },
  };
}

function killGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    child.kill(signal);
  }
}

/** A short command's result. */
export interface Output extends Exit {
  readonly stdout: string;
}

/** A short command printed more than its caller expected; nothing of it is used. */
export class TooMuchOutput extends Error {}

const mostOutput = 256 * 1024 * 1024;

/**
 * Runs a short command to its end and returns what it printed; a non-zero exit is the caller's to judge. Throws the
 * start error (ENOENT, EACCES), {@link TooMuchOutput} beyond 256 MiB, and after `timeoutMs` or on `signal` the abort
 * reason.
 */
export async function run(
  command: Command,
  { timeoutMs = 60_000, signal }: { readonly timeoutMs?: number; readonly signal?: AbortSignal } = {},
): Promise<Output> {
  signal?.throwIfAborted();
  const limits = AbortSignal.any([AbortSignal.timeout(timeoutMs), ...(signal === undefined ? [] : [signal])]);
  const running = start(command);
  const onAbort = (): void => void running.stop().catch(() => {});
  limits.addEventListener('abort', onAbort, { once: true });
  try {
    running.stdin.end();
    const chunks: Buffer[] = [];
    let kept = 0;
    for await (const chunk of running.stdout as AsyncIterable<Buffer>) {
      kept += chunk.length;
      if (kept > mostOutput) {
        await running.stop();
        throw new TooMuchOutput(`${command.path} printed more than ${mostOutput} bytes`);
      }
      chunks.push(chunk);
    }
    const exit = await running.exited;
    limits.throwIfAborted();
    return { ...exit, stdout: Buffer.concat(chunks).toString('utf8') };
  } finally {
    limits.removeEventListener('abort', onAbort);
  }
}
