import { actorOf, identityOf, readHiding, sourceOf, withPemFiles } from '../environment.ts';
import { Inputs } from '../inputs.ts';
import { locate } from '../locate.ts';
import { displayWord } from '../postgres/names.ts';
import { publicWordsOf, secretsOf } from '../postgres/url.ts';
import { restoreText } from '../report/restore.ts';
import { restore } from '../restore.ts';
import { readRestore } from '../restore-inputs.ts';
import { openStore } from '../store/open.ts';
import { answer, type Command } from './command.ts';
import {
  backupArgument,
  decryptFlags,
  encryptFlags,
  hideStoreSecrets,
  placeOf,
  programFlags,
  readFlags,
  signingFlag,
  storeFlags,
  tlsFlags,
  writeFlags,
} from './shared-flags.ts';

export const restoreCommand: Command = {
  name: 'restore',
  summary: 'Restores a backup, or tables of it, then counts every table that was restored.',
  argument: backupArgument,
  flags: [
    ...storeFlags,
    ...readFlags,
    ...writeFlags,
    {
      name: 'target-url',
      help: 'the database to restore into; created when it does not exist',
      secret: { variable: 'TARGET_URL' },
    },
    { name: 'max-age', value: 'TIME', help: 'refuse a backup that is older' },
    { name: 'tables', value: 'PATTERN', many: true, help: 'only these tables, with all that belongs to them' },
    { name: 'schemas', value: 'PATTERN', many: true, help: 'only what is in these schemas' },
    { name: 'mode', value: 'MODE', help: 'full (default), schema-only, or data-only: rows into tables that are there' },
    { name: 'clean', help: 'what the target has of it is dropped first; needs --confirm' },
    {
      name: 'safety-backup',
      value: 'true|false',
      help: 'back the target up first when something is dropped (default true)',
    },
    { ...signingFlag, help: 'an Ed25519 private key in PEM, which signs the safety backup' },
    { name: 'confirm', value: 'DATABASE', help: "the target database's name, typed, where it is not empty" },
    { name: 'jobs', value: 'N', help: 'parallel connections (default: processors; 1 restores in one transaction)' },
    { name: 'owners', value: 'WHAT', help: 'auto (default: kept where this role may), keep or drop' },
    { name: 'accept-client-risk', help: 'no warning of a pg_restore that a crafted archive could take over' },
    { name: 'timeout', value: 'TIME', help: 'for everything, retries included (default 5h)' },
    {
      name: 'retries',
      value: 'N',
      help: 'tries again after a passing fault, while the target is as it was (default 2)',
    },
    { name: 'stall-timeout', value: 'TIME', help: 'without a byte from the store (default 5m)' },
    ...encryptFlags,
    ...decryptFlags,
    ...programFlags,
    ...tlsFlags,
  ],
  async run(terminal) {
    const { flags, log, secrets, signal, machine, variables } = terminal;
    hideStoreSecrets(terminal);
    const inputs = new Inputs(flags.read);
    const url = flags.read('target-url') ?? '';
    const { config, idleMs, name, selector } = readHiding(secrets, url, () => {
      const read = withPemFiles((input) => (input === 'backup' ? flags.argument : flags.read(input)), inputs);
      return readRestore(
        read,
        {
          ...{ machine, source: sourceOf(variables), actor: actorOf(variables) },
          ...{ identity: identityOf(variables), artifacts: placeOf(terminal) },
        },
        inputs.problems,
      );
    });
    const { target } = config;
    for (const secret of secretsOf(url, target)) secrets.add(secret);
    for (const word of publicWordsOf(target)) secrets.spare(word);
    for (const notice of target.notices) log.notice(notice);
    const opened = openStore(config.store, { signal, idleMs });
    const { backup } = await locate(opened, { name, selector, trust: config.trust }, log);
    const result = await restore(opened, backup, config, { log, signal });
    const { manifest, compared } = result;
    answer(
      terminal,
      {
        backupId: manifest.id,
        name: manifest.name,
        database: target.database,
        tables: result.tables,
        rows: result.rows,
        durationSeconds: result.seconds,
        createdDatabase: result.createdDatabase,
        createdRoles: result.createdRoles,
        safetyBackupId: result.safetyBackup?.id ?? null,
        compared: compared.map(({ schema, name, recorded, found }) => ({
          schema,
          name,
          recorded,
          restored: found ?? null,
        })),
      },
      restoreText({ ...result, database: displayWord(target.database) }),
    );
  },
};
