import { fstatSync } from 'node:fs';
import { generateKeyPair } from '../age.ts';
import { Failure } from '../failure.ts';
import { Inputs } from '../inputs.ts';
import { answer, type Command, type Terminal } from './command.ts';
import { signingKeys } from './keygen-signing.ts';

export const keygenCommand: Command = {
  name: 'keygen',
  summary: 'Makes a pair of keys, and says where to put which half. Nothing is written anywhere.',
  flags: [
    {
      name: 'post-quantum',
      help: 'a hybrid pair, age1pq1…, against computers that do not exist yet; the age program opens it from 1.3 on',
    },
    { name: 'signing', help: 'Ed25519 instead: what signs backups, or the proofs of restore tests' },
  ],
  async run(terminal) {
    const inputs = new Inputs(terminal.flags.read);
    const kind = inputs.flag('post-quantum', false) ? 'post-quantum' : 'x25519';
    const signing = inputs.flag('signing', false);
    inputs.finish();
    if (signing && kind === 'post-quantum')
      throw new Failure('input', 'badInput', 'post-quantum pairs encrypt, and signing asks for one that signs', {
        hint: 'make them one after the other',
      });
    if (othersRead(process.stdout.fd))
      terminal.log.warn('other users of this machine may read that file: chmod 600 it');
    if (signing) {
      const { document, text } = signingKeys();
      answer(terminal, document, text);
    } else await makeEncryptionKeys(terminal, kind);
  },
};

async function makeEncryptionKeys(terminal: Terminal, kind: 'x25519' | 'post-quantum'): Promise<void> {
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
  answer(
    terminal,
    { recipient, identity },
    [`# created: ${new Date().toISOString()}`, `# public key: ${recipient}`, identity].join('\n'),
  );
}

/** A file that a shell made has the rights of its umask. */
function othersRead(output: number): boolean {
  const file = fstatSync(output);
  return file.isFile() && (file.mode & 0o077) !== 0;
}
