import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

export interface Measured {
  readonly seconds: number;
  /** CPU seconds of the command and all its children, user and system. */
  readonly cpuSeconds: number;
  /** Of the process named by `of` at its largest, in MiB; Linux only. */
  readonly peakMiB: number;
}

/** Runs a shell command; throws with its standard error when it does not exit 0. `of` picks a process by its arguments. */
export async function measure(
  command: string,
  { env, of = '' }: { readonly env: Readonly<Record<string, string>>; readonly of?: string },
): Promise<Measured> {
  const started = process.hrtime.bigint();
  const child = spawn('bash', ['-c', `set -eo pipefail; ${command}\ntimes >&3`], {
    env,
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
  });
  const errors: Buffer[] = [];
  const times: Buffer[] = [];
  child.stderr?.on('data', (chunk: Buffer) => errors.push(chunk));
  child.stdio[3]?.on('data', (chunk: Buffer) => times.push(chunk));
  let peakMiB = 0;
  const watch = setInterval(() => {
    if (of !== '') peakMiB = Math.max(peakMiB, largest(child, of));
  }, 50);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  clearInterval(watch);
  if (code !== 0) throw new Error(`${command}\nexited ${code}: ${Buffer.concat(errors).toString().slice(-2000)}`);
  return {
    seconds: Number(process.hrtime.bigint() - started) / 1e9,
    cpuSeconds: cpuOf(Buffer.concat(times).toString()),
    peakMiB,
  };
}

/** What the shell's `times` says: a line for itself, a line for its children, `0m1.234s 0m0.120s`. */
function cpuOf(times: string): number {
  return [...times.matchAll(/(\d+)m([\d.]+)s/g)].reduce(
    (sum, [, minutes, seconds]) => sum + Number(minutes) * 60 + Number(seconds),
    0,
  );
}

/** VmHWM of the processes below `child` that have `of` among their arguments, in MiB. */
function largest(child: ChildProcess, of: string): number {
  let most = 0;
  const group = new Set([child.pid]);
  for (const name of readdirSync('/proc')
    .filter((each) => /^\d+$/.test(each))
    .sort((a, b) => Number(a) - Number(b))) {
    try {
      const status = readFileSync(`/proc/${name}/status`, 'utf8');
      if (!group.has(Number(/^PPid:\s+(\d+)/m.exec(status)?.[1]))) continue;
      group.add(Number(name));
      if (!readFileSync(`/proc/${name}/cmdline`, 'utf8').includes(of)) continue;
      most = Math.max(most, Number(/^VmHWM:\s+(\d+)/m.exec(status)?.[1] ?? 0) / 1024);
    } catch {
      // It has ended since.
    }
  }
  return most;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
