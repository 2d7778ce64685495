import { availableParallelism } from 'node:os';
import { readTarget } from '../backup-inputs.ts';
import { readHiding, withPemFiles } from '../environment.ts';
import { Inputs } from '../inputs.ts';
import { formatCount, formatNumber, formatSeconds } from '../numbers.ts';
import { displayWord } from '../postgres/names.ts';
import { publicWordsOf, secretsOf } from '../postgres/url.ts';
import { table } from '../report/table.ts';
import { type Restored, restore } from '../restore.ts';
import { answer, type Command } from './command.ts';
import { backupArgument, openBackup, programFlags, readPrograms, storeFlags, tlsFlags } from './shared-flags.ts';

export const restoreCommand: Command = {
  name: 'restore',
  summary: 'Restores a backup into an empty or a new database, then counts every table.',
  argument: backupArgument,
  flags: [
    ...storeFlags,
    {
      name: 'target-url',
      help: 'the database to restore into; created when it does not exist',
      secret: { variable: 'TARGET_URL' },
    },
    { name: 'jobs', value: 'N', help: 'parallel connections (default: processors; 1 restores in one transaction)' },
    { name: 'owners', value: 'WHAT', help: 'auto (default: kept where this role may), keep or drop' },
    { name: 'timeout', value: 'TIME', help: 'give up after this long (default 5h)' },
    ...programFlags,
    ...tlsFlags,
  ],
  async run(terminal) {
    const { flags, log, secrets, machine } = terminal;
    const inputs = new Inputs(flags.read);
    const url = flags.read('target-url') ?? '';
    const { target, ...config } = readHiding(secrets, url, () => {
      const withPem = new Inputs(withPemFiles(flags.read, inputs));
      const target = readTarget(withPem, 'target-url');
      const config = {
        ...readPrograms(withPem),
        jobs: withPem.integer('jobs', Math.min(16, availableParallelism()), 1, 64),
        owners: withPem.choice('owners', ['auto', 'keep', 'drop'], 'auto'),
        timeoutMs: withPem.duration('timeout', '5h', '120h'),
        machine,
      };
      inputs.add(withPem.problems);
      inputs.finish();
      if (target === undefined) throw new Error('a URL without a target and without a problem');
      return { ...config, target };
    });
    for (const secret of secretsOf(url, target)) secrets.add(secret);
    for (const word of publicWordsOf(target)) secrets.spare(word);
    for (const notice of target.notices) log.notice(notice);
    const { store, backup } = await openBackup(terminal);
    const result = await restore(store, backup, { ...config, target }, terminal);
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
        compared: compared.map(({ schema, name, recorded, found }) => ({
          schema,
          name,
          recorded,
          restored: found ?? null,
        })),
      },
      [
        table(
          ['table', 'recorded', 'restored'],
          compared.map((each) => [
            each.object,
            formatNumber(each.recorded),
            each.found === undefined ? 'not counted' : formatNumber(each.found),
          ]),
          [1, 2],
        ),
        '',
        `${manifest.name}/${manifest.id} restored into ${displayWord(target.database)} in ${formatSeconds(result.seconds)}: ${formatCount(result.tables, 'table')}, ${formatCount(result.rows, 'row')}, ${verdictOf(result)}`,
        'run ANALYZE there before traffic returns: statistics are not part of a dump',
      ].join('\n'),
    );
  },
};

function verdictOf({ uncounted }: Restored): string {
  return uncounted === 0 ? 'all as recorded' : `as recorded but for ${formatCount(uncounted, 'table')} not counted`;
}
