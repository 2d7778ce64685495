import { type Failure, inputFailure, type Problem } from './failure.ts';
import { parseDuration } from './numbers.ts';

/** Where an edge gets the text of an input from; undefined or empty: not given. */
export type ReadInput = (name: string) => string | undefined;

/**
 * Reads inputs by their public names and gathers every problem, so that a user sees all of them at once. A reader that
 * finds a problem returns a harmless value; `finish` throws before anybody uses it.
 */
export class Inputs {
  readonly problems: Problem[] = [];
  readonly #read: ReadInput;

  constructor(read: ReadInput) {
    this.#read = read;
  }

  /** Trimmed; undefined when it was not given. */
  optional(name: string): string | undefined {
    const value = this.#read(name)?.trim();
    return value === undefined || value === '' ? undefined : value;
  }

  /** As it was given, line breaks and spaces included: for secrets and PEM texts. */
  raw(name: string): string | undefined {
    const value = this.#read(name);
    return value === undefined || value.trim() === '' ? undefined : value;
  }

  required(name: string, hint: string): string {
    const value = this.optional(name);
    if (value !== undefined) return value;
    this.problem(name, 'is required and was empty', hint);
    return '';
  }

  choice<const T extends string>(name: string, choices: readonly T[], fallback: NoInfer<T>): T {
    const value = this.optional(name) ?? fallback;
    const found = choices.find((choice) => choice === value);
    if (found === undefined) this.problem(name, `${value} is not one of ${choices.join(', ')}`);
    return found ?? fallback;
  }

  /** YAML 1.2's core schema and nothing else: `yes` and `1` are questions, not answers. */
  flag(name: string, fallback: boolean): boolean {
    const value = this.optional(name);
    if (value === undefined) return fallback;
    if (/^(?:true|True|TRUE)$/.test(value)) return true;
    if (/^(?:false|False|FALSE)$/.test(value)) return false;
    this.problem(name, `${value} is neither true nor false`);
    return fallback;
  }

  integer(name: string, fallback: number, least: number, most: number): number {
    const text = this.optional(name);
    if (text === undefined) return fallback;
    const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= least && value <= most) return value;
    this.problem(name, `${text} is not a whole number from ${least} to ${most}`);
    return fallback;
  }

  /** Milliseconds. A number needs its unit: `10` is ten of what. */
  duration(name: string, fallback: string, most: string): number {
    const text = this.optional(name) ?? fallback;
    const value = parseDuration(text);
    if (value === undefined) this.problem(name, `${text} is not a duration`, 'write a number and a unit: 90s, 5m, 2h');
    else if (value === 0) this.problem(name, `${text} is no time at all`, 'leave it empty for the default');
    else if (value > (parseDuration(most) ?? 0)) this.problem(name, `${text} is more than ${most}`);
    else return value;
    return parseDuration(fallback) ?? 0;
  }

  /** One item a line; blank lines and lines that begin with # do not count. */
  lines(name: string): string[] {
    return (this.#read(name) ?? '')
      .split(/\r?\n/)
      .map((line) => line.trim())
      .filter((line) => line !== '' && !line.startsWith('#'));
  }

  /** Lines that end up on a command line's side: a leading `-` would be an option there. */
  patterns(name: string): string[] {
    const lines = this.lines(name);
    for (const line of lines)
      if (line.startsWith('-'))
        this.problem(name, `the pattern ${line} begins with a hyphen`, 'quote the name: "-name"');
    return lines;
  }

  matching(name: string, fallback: string | undefined, pattern: RegExp, rule: string): string {
    const value = fallback === undefined ? this.required(name, rule) : (this.optional(name) ?? fallback);
    if (value !== '' && !pattern.test(value)) this.problem(name, `${value} is not allowed: ${rule}`);
    return value;
  }

  problem(input: string, message: string, hint?: string): void {
    this.problems.push({ input, message, hint });
  }

  add(problems: readonly Problem[]): void {
    this.problems.push(...problems);
  }

  /** Throws one `Failure` with every problem found so far. */
  finish(): void {
    const failure = this.failure();
    if (failure !== undefined) throw failure;
  }

  failure(): Failure | undefined {
    const [first, ...rest] = this.problems;
    return first === undefined ? undefined : inputFailure([first, ...rest]);
  }
}

/** The known word that `word` is a slip of: at most two letters added, dropped or changed. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  return known.find((each) => distance(each, word) <= 2);
}

function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const changed = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min((next[j - 1] ?? 0) + 1, (row[j] ?? 0) + 1, changed));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
