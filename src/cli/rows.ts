import { readTarget } from '../backup-inputs.ts';
import { readKeys } from '../encryption-inputs.ts';
import { readHiding, withPemFiles } from '../environment.ts';
import { Inputs } from '../inputs.ts';
import { formatCount, formatNumber, formatSeconds, formatTime } from '../numbers.ts';
import { displayName, displayWord } from '../postgres/names.ts';
import { parseTable, readCondition } from '../postgres/rows-request.ts';
import { publicWordsOf, secretsOf } from '../postgres/url.ts';
import { table } from '../report/table.ts';
import { type BroughtBack, bringBackRows, type RowsRequest, type TableOutcome } from '../rows.ts';
import { answer, type Command, type Terminal } from './command.ts';
import type { Flags } from './flags.ts';
import {
  backupArgument,
  decryptFlags,
  hideStoreSecrets,
  openBackup,
  programFlags,
  readFlags,
  readPrograms,
  storeFlags,
  tlsFlags,
} from './shared-flags.ts';

export const rowsCommand: Command = {
  name: 'rows',
  summary: 'Brings deleted rows back into a live database, without touching anything else in it.',
  argument: backupArgument,
  flags: [
    ...storeFlags,
    ...readFlags,
    { name: 'backup', value: 'BACKUP', help: 'the same as the argument' },
    {
      name: 'table',
      value: 'TABLE',
      many: true,
      help: 'a table that lost rows; its --where follows; repeat both for more',
    },
    { name: 'where', value: 'SQL', many: true, help: 'which of its rows: "id in (1, 2)"; true for all' },
    {
      name: 'target-url',
      help: 'the database that lost them',
      secret: { variable: 'TARGET_URL' },
    },
    {
      name: 'on-conflict',
      value: 'WHAT',
      help: 'where a row is there already: skip it, or update it to what it was (default: stop, and change nothing)',
    },
    { name: 'triggers', value: 'on|off', help: 'must be said where a table has triggers: they may send mails' },
    { name: 'dry-run', help: 'do everything, show the keys of the rows, and roll back' },
    { name: 'show-values', help: 'with --dry-run, on a terminal only: whole rows' },
    { name: 'timeout', value: 'TIME', help: 'give up after this long (default 5h)' },
    ...decryptFlags,
    ...programFlags,
    ...tlsFlags,
  ],
  async run(terminal) {
    const { flags, log, secrets, machine, screen } = terminal;
    hideStoreSecrets(terminal);
    const inputs = new Inputs(flags.read);
    const url = flags.read('target-url') ?? '';
    const { target, showValues, ...config } = readHiding(secrets, url, () => {
      const withPem = new Inputs(withPemFiles(flags.read, inputs));
      const target = readTarget(withPem, 'target-url');
      const config = {
        ...readPrograms(withPem),
        requests: readRequests(flags, withPem),
        keys: readKeys(withPem),
        onConflict: withPem.choice('on-conflict', ['fail', 'skip', 'update'], 'fail'),
        triggers: readTriggers(withPem),
        dryRun: withPem.flag('dry-run', false),
        showValues: withPem.flag('show-values', false),
        timeoutMs: withPem.duration('timeout', '5h', '120h'),
        machine,
      };
      if (config.showValues && !config.dryRun)
        withPem.problem('show-values', 'shows the rows of a dry run only', 'add --dry-run');
      inputs.add(withPem.problems);
      inputs.finish();
      if (target === undefined) throw new Error('a URL without a target and without a problem');
      return { ...config, target };
    });
    for (const secret of secretsOf(url, target)) secrets.add(secret);
    for (const word of publicWordsOf(target)) secrets.spare(word);
    for (const notice of target.notices) log.notice(notice);
    if (showValues && !screen) log.warn('values are shown on a terminal only; these are the keys');
    const { store, backup } = await openBackup({ ...terminal, flags: withBackup(flags) });
    const result = await bringBackRows(
      store,
      backup,
      { ...config, target, showValues: showValues && screen },
      terminal,
    );
    tell(terminal, result, config.dryRun, target.database);
  },
};

/** Each --table with the --where that follows it; taken from the command line itself, since a WHERE may have lines. */
function readRequests(flags: Flags, inputs: Inputs): RowsRequest[] {
  const pairs: { readonly table: string; readonly where: string | undefined }[] = [];
  for (const { name, value } of flags.given) {
    const last = pairs.at(-1);
    if (name === 'table') pairs.push({ table: value, where: undefined });
    else if (name === 'where' && last !== undefined && last.where === undefined)
      pairs.splice(-1, 1, { table: last.table, where: value });
    else if (name === 'where')
      inputs.problem('where', 'stands without a --table before it', 'write --table users --where "id = 1"');
  }
  if (pairs.length === 0)
    inputs.problem('table', 'is required', 'name the table and its rows: --table users --where "id in (1, 2)"');
  return pairs.flatMap(({ table: written, where }) => {
    const table = parseTable(written.trim());
    if ('problem' in table) inputs.problem('table', `${displayWord(written)} ${table.problem}`);
    if (where === undefined) {
      inputs.problem('where', `is missing for ${displayWord(written)}`, '--where true brings back all of its rows');
      return [];
    }
    const condition = readCondition(where);
    if ('problem' in condition)
      inputs.problem('where', `the condition for ${displayWord(written)} ${condition.problem}`);
    return 'problem' in table || 'problem' in condition ? [] : [{ table, condition }];
  });
}

function readTriggers(inputs: Inputs): 'on' | 'off' | undefined {
  return inputs.optional('triggers') === undefined ? undefined : inputs.choice('triggers', ['on', 'off'], 'off');
}

function withBackup(flags: Flags): Flags {
  const named = flags.read('backup');
  if (named === undefined) return flags;
  const inputs = new Inputs(flags.read);
  if (flags.argument !== backupArgument.fallback && flags.argument !== named)
    inputs.problem('backup', 'is given twice, and they differ');
  inputs.finish();
  return { ...flags, argument: named };
}

function tell(terminal: Terminal, { manifest, tables, seconds }: BroughtBack, dryRun: boolean, database: string): void {
  const written = tables.reduce((rows, each) => rows + each.inserted + each.updated, 0);
  const where = `${manifest.name}/${manifest.id} of ${formatTime(manifest.createdAt)}`;
  const verdictOf = (): string => {
    const rows = formatCount(written, 'row');
    if (dryRun) return `a dry run: ${rows} of ${where} would be brought back; ${displayWord(database)} is as it was`;
    if (written === 0) return `nothing was brought back; ${displayWord(database)} is as it was`;
    return `${rows} of ${where} ${written === 1 ? 'is' : 'are'} in ${displayWord(database)} again, as in the backup, in ${formatSeconds(seconds)}`;
  };
  answer(
    terminal,
    {
      backupId: manifest.id,
      name: manifest.name,
      database,
      dryRun,
      tables,
      durationSeconds: seconds,
    },
    [
      table(
        ['table', 'found', 'inserted', 'skipped', 'updated'],
        tables.map((each) => [
          displayName(each),
          ...[each.found, each.inserted, each.skipped, each.updated].map(formatNumber),
        ]),
        [1, 2, 3, 4],
      ),
      '',
      ...tables.flatMap(shownOf),
      verdictOf(),
    ].join('\n'),
  );
}

function shownOf({ shown, found, ...name }: TableOutcome): string[] {
  if (shown === undefined || found === 0) return [];
  if (shown.columns.length === 0) return [`${displayName(name)} has no primary key to show its rows by`, ''];
  const rows = shown.rows.map((row) =>
    shown.columns
      .map((column, at) => `${displayWord(column)}=${row[at] === null ? 'NULL' : JSON.stringify(row[at])}`)
      .join(' '),
  );
  const more = found > rows.length ? [`  and ${formatNumber(found - rows.length)} more`] : [];
  return [`${displayName(name)}:`, ...rows.map((row) => `  ${row}`), ...more, ''];
}
