import { backup, failOfMissed } from '../backup.ts';
import { readBackupConfig } from '../backup-inputs.ts';
import { strayKeys } from '../encryption-inputs.ts';
import { identityOf, readHiding, sourceOf, withPemFiles } from '../environment.ts';
import { Inputs } from '../inputs.ts';
import { formatBytes, formatCount, formatSeconds, formatTime } from '../numbers.ts';
import { publicWordsOf, secretsOf } from '../postgres/url.ts';
import { warnOfPruned } from '../prune.ts';
import { describeEncryption } from '../report/encryption.ts';
import { prunedWords } from '../report/prune.ts';
import { publicWordOf } from '../store/open.ts';
import { answer, type Command } from './command.ts';
import { keepFlags } from './prune.ts';
import {
  encryptFlags,
  hideStoreSecrets,
  placeOf,
  programFlags,
  signingFlag,
  storeFlags,
  tlsFlags,
  writeFlags,
} from './shared-flags.ts';

export const backupCommand: Command = {
  name: 'backup',
  summary: 'Takes one backup: dumps, proves the dump whole, stores it.',
  flags: [
    ...storeFlags.map((flag) =>
      flag.name === 'store' ? { ...flag, many: true, help: `${flag.help} (repeat the flag for several)` } : flag,
    ),
    ...writeFlags,
    {
      name: 'database-url',
      help: 'the database, postgresql://user:password@host/database',
      secret: { variable: 'DATABASE_URL' },
    },
    { name: 'mode', value: 'MODE', help: 'full (default), schema-only or data-only' },
    { name: 'schemas', value: 'PATTERN', many: true, help: 'only these schemas (repeat the flag for more)' },
    { name: 'exclude-schemas', value: 'PATTERN', many: true, help: 'without these schemas' },
    { name: 'tables', value: 'PATTERN', many: true, help: 'only these tables, with their partitions and children' },
    { name: 'exclude-tables', value: 'PATTERN', many: true, help: 'without these tables' },
    { name: 'exclude-table-data', value: 'PATTERN', many: true, help: 'these tables without their rows' },
    { name: 'roles', value: 'true|false', help: 'role definitions too, without passwords (default true)' },
    {
      name: 'compression',
      value: 'METHOD',
      help: 'auto (default: zstd:3 where pg_dump can, else gzip:1), zstd:N, gzip:N, lz4, none',
    },
    { name: 'jobs', value: 'N', help: 'parallel dump connections; only 1 in this release' },
    {
      name: 'census',
      value: 'HOW',
      help: 'rows (default: counted on the server and in the archive), content (digests too), stream',
    },
    { name: 'label', value: 'LABEL', help: 'why this backup exists (default scheduled)' },
    { name: 'allow-empty', help: 'accept a database without tables' },
    { name: 'allow-pooler', help: 'accept a transaction pooler, though its other clients may suffer' },
    { name: 'accept-new-database', help: 'go on under this name with another database than before' },
    {
      name: 'allow-events',
      value: 'EVENT',
      many: true,
      help: "GitHub events a stranger's fork can cause, allowed all the same",
    },
    { name: 'lock-wait-timeout', value: 'TIME', help: 'how long to wait for a locked table (default 60s)' },
    {
      name: 'on-blocked-ddl',
      value: 'WHAT',
      help: 'warn (default) or abort when an ALTER has waited 30 s for the dump',
    },
    { name: 'max-replica-lag', value: 'TIME', help: 'how old a standby may be (default 1h)' },
    { name: 'verify-upload', value: 'HOW', help: 'checksum (default) or read-back: hash the stored bytes again' },
    signingFlag,
    { name: 'dry-run', help: 'check everything, store nothing' },
    ...keepFlags,
    ...encryptFlags,
    ...programFlags,
    { name: 'timeout', value: 'TIME', help: 'for everything, retries included (default 5h)' },
    { name: 'retries', value: 'N', help: 'tries again after a passing fault (default 2)' },
    { name: 'stall-timeout', value: 'TIME', help: 'without a byte from a server that is not working (default 5m)' },
    ...tlsFlags,
  ],
  async run(terminal) {
    const { flags, log, secrets, signal, machine, variables } = terminal;
    const inputs = new Inputs(flags.read);
    inputs.add(strayKeys(variables));
    const read = withPemFiles(flags.read, inputs);
    hideStoreSecrets(terminal);
    const url = flags.read('database-url') ?? '';
    const surroundings = {
      ...{ machine, source: sourceOf(variables), event: undefined },
      ...{ identity: identityOf(variables), artifacts: placeOf(terminal) },
    };
    const config = readHiding(secrets, url, () => readBackupConfig(read, surroundings, inputs.problems));
    for (const secret of secretsOf(url, config.target)) secrets.add(secret);
    for (const word of [...publicWordsOf(config.target), config.name, config.label, ...config.stores.map(publicWordOf)])
      secrets.spare(word);
    for (const notice of config.target.notices) log.notice(notice);
    const result = await backup(config, { log, signal });
    if (result.kind === 'dry-run') {
      const { tables, server, client } = result;
      answer(
        terminal,
        { dryRun: true, tables, server, client },
        `everything ${result.missed.length === 0 ? 'is' : 'else is'} in place: ${formatCount(result.tables, 'table')}, PostgreSQL ${result.server}, pg_dump ${result.client}; nothing was stored`,
      );
      return failOfMissed(result);
    }
    const { manifest, stored, missed } = result;
    for (const warning of result.warnings) log.warn(`pg_dump: ${warning}`);
    for (const { pruned } of stored) if (pruned !== undefined) warnOfPruned(pruned, log);
    const { totals, timings, database } = manifest;
    answer(
      terminal,
      {
        backup: manifest,
        stored: stored.map(({ location, restoreCommand, pruned }) => {
          return { location, restoreCommand, pruned: (pruned?.removed ?? []).map(({ id }) => id) };
        }),
        missed: missed.map(({ uri, failure }) => ({ store: uri, reason: failure.message })),
      },
      [
        `backup ${manifest.name}/${manifest.id} is whole and stored`,
        `  ${formatCount(totals.tables, 'table')}, ${formatCount(totals.rows, 'row')}, ${formatBytes(database.sizeBytes)} → ${formatBytes(manifest.files[0]?.bytes ?? 0)} in ${formatSeconds(timings.total ?? 0)}`,
        `  encrypted ${describeEncryption(manifest)}`,
        ...stored.flatMap(({ location, restoreCommand, expiresAt, pruned }) => [
          `  ${location}${expiresAt === undefined ? '' : `, which its store deletes on ${formatTime(expiresAt)}`}`,
          `  restore: ${restoreCommand}`,
          ...(pruned === undefined ? [] : [`  retention: ${prunedWords(pruned)}`]),
        ]),
      ].join('\n'),
    );
    failOfMissed(result);
  },
};
