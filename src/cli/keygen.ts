import { fstatSync } from 'node:fs';
import { generateKeyPair } from '../age.ts';
import { Inputs } from '../inputs.ts';
import { answer, type Command } from './command.ts';

export const keygenCommand: Command = {
  name: 'keygen',
  summary: 'Prints a new pair of keys for encrypted backups, and where to put which half.',
  flags: [
    {
      name: 'post-quantum',
      help: 'a hybrid pair, age1pq1…, against computers that do not exist yet; the age program opens it from 1.3 on',
    },
  ],
  async run(terminal) {
    const inputs = new Inputs(terminal.flags.read);
    const kind = inputs.flag('post-quantum', false) ? 'post-quantum' : 'x25519';
    inputs.finish();
    const { recipient, identity } = await generateKeyPair(kind);
    const { log } = terminal;
    log.info('This is the file of a secret key, as age reads it. It is not kept anywhere: pgassay keygen > key.txt');
    log.info(`  public   age1…            encrypt-to of the backup job. It opens nothing, and may be seen by anybody.`);
    log.info(
      `  secret   AGE-SECRET-KEY-… decrypt-identity of restore tests, or offline for recovery. Never in the backup job.`,
    );
    log.info(
      'Make two pairs: one to drill with, in an environment that only the restore test may use, and one to recover',
    );
    log.info(
      'with, offline, in two places. Without a secret key nobody opens a backup, ever. docs/keys.md has the rest.',
    );
    if (othersRead(process.stdout.fd)) log.warn('other users of this machine may read that file: chmod 600 it');
    answer(
      terminal,
      { recipient, identity },
      [`# created: ${new Date().toISOString()}`, `# public key: ${recipient}`, identity].join('\n'),
    );
  },
};

/** A file that a shell made has the rights of its umask. */
function othersRead(output: number): boolean {
  const file = fstatSync(output);
  return file.isFile() && (file.mode & 0o077) !== 0;
}
