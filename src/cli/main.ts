import { cancelOnSignals, exitEvenIfBusy, machineOf } from '../environment.ts';
import { cancelled, Failure } from '../failure.ts';
import { secretsOf } from '../postgres/url.ts';
import { release } from '../release.ts';
import { Secrets } from '../secrets.ts';
import { describeDefect, failureOf } from '../unexpected.ts';
import { assayCommand } from './assay.ts';
import { backupCommand } from './backup.ts';
import type { Command, Terminal } from './command.ts';
import { fetchCommand } from './fetch.ts';
import { commandHelp, generalHelp, parseFlags } from './flags.ts';
import { healthCommand } from './health.ts';
import { keygenCommand } from './keygen.ts';
import { listCommand, showCommand } from './list.ts';
import { pruneCommand } from './prune.ts';
import { reportCommand } from './report.ts';
import { restoreCommand } from './restore.ts';
import { restoreTestCommand } from './restore-test.ts';
import { rowsCommand } from './rows.ts';
import { harmless, terminalLog } from './terminal.ts';
import { verifyCommand } from './verify.ts';

const commands: readonly Command[] = [
  assayCommand,
  backupCommand,
  listCommand,
  showCommand,
  verifyCommand,
  fetchCommand,
  restoreTestCommand,
  restoreCommand,
  rowsCommand,
  healthCommand,
  pruneCommand,
  reportCommand,
  keygenCommand,
];

/** The command line: `pgassay <command> …`. Results go to stdout, everything else to stderr; sets the exit status. */
export async function runCli(): Promise<void> {
  const [word, ...rest] = process.argv.slice(2);
  const command = commands.find((each) => each.name === word);
  if (word === '--version') return say(release);
  if (word === undefined || word === '--help' || word === 'help' || word === '-h') return say(generalHelp(commands));
  const secrets = new Secrets();
  // Whatever looks like a URL may hold a password, wherever somebody put it.
  for (const argument of process.argv.slice(2))
    if (/:\/\/.*@/s.test(argument) && !/^(?:--[\w-]+=)?(?:file|s3):/.test(argument))
      for (const secret of secretsOf(argument)) secrets.add(secret);
  const signal = cancelOnSignals(() => cancelled('dump'));
  try {
    if (command === undefined)
      throw new Failure('input', 'badInput', `there is no command ${word}`, {
        hint: `the commands are ${commands.map((each) => each.name).join(', ')}; pgassay <command> --help tells more`,
      });
    if (rest.includes('--help') || rest.includes('-h')) return say(commandHelp(command));
    const flags = parseFlags(command, rest, process.env);
    const log = terminalLog(secrets, process.stderr);
    for (const warning of flags.warnings) log.warn(warning);
    const terminal: Terminal = {
      flags,
      log,
      secrets,
      signal,
      machine: machineOf(process.env),
      variables: process.env,
      json: flags.json,
      screen: process.stdout.isTTY === true,
      print: (text) => process.stdout.write(`${harmless(secrets.redact(text))}\n`),
    };
    await command.run(terminal);
    log.close();
  } catch (error) {
    const failure = failureOf(error, signal);
    const text = failure === undefined ? describeDefect(error) : describeFailure(failure);
    process.stderr.write(`${harmless(secrets.redact(text))}\n`);
    process.exitCode = failure?.exitCode ?? 1;
  } finally {
    exitEvenIfBusy();
  }
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function describeFailure({ stage, message, hint }: Failure): string {
  const indented = hint?.replaceAll('\n', '\n      ');
  return `${stage}: ${message}${indented === undefined ? '' : `\nhint: ${indented}`}`;
}
