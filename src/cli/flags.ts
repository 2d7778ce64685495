import { readFileSync } from 'node:fs';
import { type ParseArgsConfig, parseArgs } from 'node:util';
import { Failure, inputFailure, type Problem } from '../failure.ts';
import type { ReadInput } from '../inputs.ts';
import type { Command, Flag } from './command.ts';

/** A command line, read. */
export interface Flags {
  readonly read: ReadInput;
  /** The flags with a value as they stand on the command line, for those whose order or line breaks matter. */
  readonly given: readonly { readonly name: string; readonly value: string }[];
  readonly argument: string | undefined;
  readonly json: boolean;
  readonly warnings: readonly string[];
}

/**
 * Reads a command's flags, its secrets from the environment or from files. Throws one `Failure` with every problem.
 * A flag without a value after it stands for `true`.
 */
export function parseFlags(
  command: Command,
  args: readonly string[],
  variables: Readonly<Record<string, string | undefined>>,
): Flags {
  const problems: Problem[] = [];
  const warnings: string[] = [];
  const options: NonNullable<ParseArgsConfig['options']> = { json: { type: 'boolean' } };
  for (const flag of command.flags) {
    if (flag.secret !== undefined) options[`${flag.name}-file`] = { type: 'string' };
    options[flag.name] = { type: 'string', multiple: flag.many === true };
  }
  const { values, positionals, given, names } = parse(command, withValues(command, args), options);
  problems.push(...repeated(command, names));
  const texts = new Map<string, string>();
  for (const flag of command.flags) {
    const value = values[flag.name];
    const text = Array.isArray(value) ? value.join('\n') : typeof value === 'string' ? value : undefined;
    const secret =
      flag.secret === undefined ? undefined : readSecret(flag, values[`${flag.name}-file`], text, variables);
    if (secret !== undefined) {
      if (secret.problem !== undefined) problems.push(secret.problem);
      if (secret.warning !== undefined) warnings.push(secret.warning);
      if (secret.text !== undefined) texts.set(flag.name, secret.text);
    } else if (text !== undefined) texts.set(flag.name, text);
    if (flag.refuseEmpty === true && text?.trim() === '')
      problems.push({
        input: flag.name,
        message: 'was given, and is empty',
        hint: `leave out --${flag.name} to do without`,
      });
  }
  const [argument = command.argument?.fallback, ...more] = positionals;
  if (argument !== undefined && /:\/\/[^/@]*:[^@]*@/.test(argument))
    warnings.push('the password in the URL can be seen by every user of this machine; set DATABASE_URL instead');
  if (command.argument === undefined ? argument !== undefined : more.length > 0)
    problems.push({
      input: command.name,
      message: 'there is one argument too many; a URL is never an argument, and every flag begins with --',
    });
  if (command.argument !== undefined && argument === undefined)
    problems.push({ input: command.argument.name, message: `is missing: ${command.argument.help}` });
  const [first, ...rest] = problems;
  if (first !== undefined) throw inputFailure([first, ...rest]);
  return { read: (name) => texts.get(name), given, argument, json: values.json === true, warnings };
}

/** Of two values for one flag, one would be forgotten without a word. */
function repeated({ flags }: Command, names: readonly string[]): Problem[] {
  const many = new Set(flags.filter((flag) => flag.many).map((flag) => flag.name));
  const twice = new Set(names.filter((name, at) => names.indexOf(name) < at && !many.has(name)));
  return [...twice].map((name) => ({
    input: name,
    message: 'was given more than once, and only one of them would count',
    hint: `give --${name} once`,
  }));
}

interface Secret {
  readonly text?: string | undefined;
  readonly problem?: Problem;
  readonly warning?: string;
}

function readSecret(
  flag: Flag,
  file: unknown,
  onCommandLine: string | undefined,
  variables: Readonly<Record<string, string | undefined>>,
): Secret {
  if (typeof file === 'string') {
    try {
      const text = readFileSync(file, 'utf8');
      if (text.trim() !== '') return { text };
      return { problem: { input: `${flag.name}-file`, message: `${file} is empty` } };
    } catch {
      return { problem: { input: `${flag.name}-file`, message: `${file} cannot be read` } };
    }
  }
  if (onCommandLine === undefined)
    return {
      text:
        flag.secret === undefined
          ? undefined
          : variables[flag.secret.variable] ||
            (flag.secret.also === undefined ? undefined : variables[flag.secret.also]),
    };
  const how = `set ${flag.secret?.variable} or use --${flag.name}-file`;
  if (!flag.name.endsWith('-url'))
    return { problem: { input: flag.name, message: 'is never given on the command line', hint: how } };
  const holdsPassword = /:\/\/[^/@]*:[^@]*@/.test(onCommandLine);
  return {
    text: onCommandLine,
    ...(holdsPassword
      ? { warning: `the password in --${flag.name} can be seen by every user of this machine; ${how}` }
      : {}),
  };
}

/** `--dry-run` alone means true: parseArgs would take the next word for its value. */
function withValues(command: Command, args: readonly string[]): string[] {
  const toggles = new Set(
    command.flags
      .filter((flag) => flag.value === undefined && flag.secret === undefined)
      .map((flag) => `--${flag.name}`),
  );
  return args.map((arg) => (toggles.has(arg) ? `${arg}=true` : arg));
}

function parse(
  command: Command,
  args: string[],
  options: NonNullable<ParseArgsConfig['options']>,
): {
  values: Record<string, unknown>;
  positionals: string[];
  given: Flags['given'];
  /** Of every flag, as often as it was given. */
  names: string[];
} {
  try {
    const { values, positionals, tokens } = parseArgs({ args, options, allowPositionals: true, tokens: true });
    const given = tokens.flatMap((token) =>
      token.kind === 'option' && token.value !== undefined ? [{ name: token.name, value: token.value }] : [],
    );
    const names = tokens.flatMap((token) => (token.kind === 'option' ? [token.name] : []));
    return { values, positionals, given, names };
  } catch (error) {
    const text = (error as Error).message.split('. ', 1)[0] ?? '';
    throw new Failure('input', 'badInput', text.charAt(0).toLowerCase() + text.slice(1), {
      hint: `pgassay ${command.name} --help lists the flags`,
      cause: error,
    });
  }
}

export function generalHelp(commands: readonly Command[]): string {
  const width = Math.max(...commands.map((command) => command.name.length));
  return [
    'pgassay: PostgreSQL backups that prove they restore',
    '',
    'usage: pgassay <command> [flags]',
    '',
    ...commands.map((command) => `  ${command.name.padEnd(width)}  ${command.summary}`),
    '',
    'pgassay <command> --help explains a command. Results go to stdout, progress and errors to stderr.',
    'Secrets come from variables (DATABASE_URL, TARGET_URL, PGASSAY_<NAME>) or files (--database-url-file), never from a',
    "flag's value.",
    '',
    'exit status: 0 done, 2 bad input, 10 connect, 11 authentication, 12 privileges, 13 versions, 14 time or locks,',
    '15 pooler, 20 disk, 30 store, 31 store rights, 32 exists, 40 verification, 41 wrong key, 50 restore, 51 a restore',
    'test that found differences, 60 retention refused, 70 health critical, 130 cancelled',
  ].join('\n');
}

export function commandHelp(command: Command): string {
  const argument = command.argument;
  const shown =
    argument === undefined ? '' : argument.fallback === undefined ? ` <${argument.name}>` : ` [${argument.name}]`;
  const rows = command.flags.flatMap((flag): [string, string][] =>
    flag.secret === undefined
      ? [[`--${flag.name}${flag.value === undefined ? '' : ` ${flag.value}`}`, flag.help]]
      : [
          [flag.secret.variable, `${flag.help} (a variable)`],
          [`--${flag.name}-file FILE`, 'the same from a file'],
        ],
  );
  rows.push(['--json', 'print one JSON document on stdout']);
  const width = Math.max(...rows.map(([left]) => left.length));
  return [
    `usage: pgassay ${command.name}${shown} [flags]`,
    '',
    command.summary,
    ...(argument === undefined ? [] : ['', `  <${argument.name}>  ${argument.help}`]),
    '',
    ...rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`),
  ].join('\n');
}
