import { existsSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { noKeys } from '../age.ts';
import { backup } from '../backup.ts';
import { namePattern } from '../backup-id.ts';
import { readBackupConfig } from '../backup-inputs.ts';
import { readBackup } from '../catalog.ts';
import { readHiding, sourceOf, withPemFiles } from '../environment.ts';
import { Failure } from '../failure.ts';
import { foreignDump } from '../foreign-dump.ts';
import { Inputs, type ReadInput } from '../inputs.ts';
import { withPrivateFolder } from '../machine.ts';
import { formatBytes, formatCount, formatSeconds } from '../numbers.ts';
import { displayWord } from '../postgres/names.ts';
import { publicWordsOf, secretsOf } from '../postgres/url.ts';
import { restoreTestText } from '../report/restore-test.ts';
import { type RestoreTestConfig, type RestoreTested, reportOf, restoreTest } from '../restore-test.ts';
import { readRestoreTest } from '../restore-test-inputs.ts';
import { openStore } from '../store/open.ts';
import type { Store } from '../store/store.ts';
import { storedSubject } from '../test-subject.ts';
import { answer, type Command, type Terminal } from './command.ts';
import { documentOf } from './restore-test.ts';
import { programFlags, tlsFlags } from './shared-flags.ts';

export const assayCommand: Command = {
  name: 'assay',
  summary:
    'The whole proof at once: dumps a database, or takes a dump file, restores it into a throw-away server, compares.',
  argument: {
    name: 'what',
    help: 'a URL, postgresql://user@host/database, or a dump that pg_dump wrote, in any of its formats; DATABASE_URL when it is left out',
    fallback: '',
  },
  flags: [
    {
      name: 'database-url',
      help: 'the database, so that its password is no argument',
      secret: { variable: 'DATABASE_URL' },
    },
    { name: 'out', value: 'FOLDER', help: 'keep the proven backup there, as a store of its own' },
    {
      name: 'name',
      value: 'NAME',
      help: 'what it is called in that store (default: the name of the database or file)',
    },
    { name: 'census', value: 'HOW', help: 'rows (default) or content: compare every value by digest too' },
    { name: 'checks', value: 'SQL', many: true, help: 'a query that answers true when all is well (repeat the flag)' },
    { name: 'checks-file', value: 'FILE', help: 'queries separated by ;' },
    { name: 'max-restore-time', value: 'TIME', help: 'a restore that takes longer is a finding' },
    {
      name: 'skip-extensions',
      value: 'NAME',
      many: true,
      help: 'leave these extensions out; the proof does not pass then',
    },
    { name: 'scratch-url', help: 'a server that may be thrown away', secret: { variable: 'PGASSAY_SCRATCH_URL' } },
    { name: 'scratch-privileges', value: 'WHO', help: 'owner (default: restored without rights) or superuser' },
    { name: 'allow-unsandboxed', help: 'superuser also where the archive could read what this user may' },
    { name: 'jobs', value: 'N', help: 'parallel connections of the restore (default: processors)' },
    { name: 'timeout', value: 'TIME', help: 'for each of dump and restore (default 5h)' },
    ...programFlags,
    ...tlsFlags,
  ],
  async run(terminal) {
    const { flags, machine } = terminal;
    const what = flags.argument?.trim() || flags.read('database-url')?.trim() || '';
    if (what === '')
      throw new Failure('input', 'badInput', 'there is nothing to assay', {
        hint: 'name a URL or a dump file: pgassay assay postgresql://user@host/database, or set DATABASE_URL',
      });
    if (!what.includes('://') || existsSync(what)) return assayFile(terminal, what);
    const out = flags.read('out')?.trim();
    if (out) return assay(terminal, what, resolve(out));
    await withPrivateFolder(machine, (folder) => assay(terminal, what, join(folder, 'store')));
  },
};

async function assay(terminal: Terminal, what: string, folder: string): Promise<void> {
  const { flags, signal } = terminal;
  const store = openStore({ kind: 'folder', root: folder }, { signal });
  const tested = await assayDatabase(terminal, store, what);
  const kept = Boolean(flags.read('out')?.trim());
  const report = reportOf(kept ? tested : { ...tested, location: undefined }, store.uri);
  answer(
    terminal,
    { ...documentOf(tested), ...(kept ? { store: store.uri } : { proof: null }) },
    [restoreTestText(report), ...(kept ? [`  kept      ${store.uri}`] : [])].join('\n'),
  );
  if (tested.failure !== undefined) throw tested.failure;
  if (!kept) terminal.log.info('nothing of it was kept; --out FOLDER keeps the backup');
}

async function assayDatabase(terminal: Terminal, store: Store, url: string): Promise<RestoreTested> {
  const { flags, log, secrets, signal, machine, variables } = terminal;
  const inputs = new Inputs(flags.read);
  const config = readHiding(secrets, url, () => {
    const read: ReadInput = (name) => {
      if (name === 'database-url') return url;
      if (name === 'store') return store.uri;
      // The store is new: what it is called there matters to nobody.
      if (name === 'name') return nameFrom(flags.read('name'), /[^/]*$/.exec(url.split('?', 1)[0] ?? '')?.[0] ?? '');
      return ['census', 'timeout', ...commonInputs].includes(name) ? flags.read(name) : undefined;
    };
    const surroundings = { machine, source: sourceOf(variables), event: undefined };
    return readBackupConfig(withPemFiles(read, inputs), surroundings, inputs.problems);
  });
  for (const secret of secretsOf(url, config.target)) secrets.add(secret);
  for (const word of [...publicWordsOf(config.target), config.name]) secrets.spare(word);
  for (const notice of config.target.notices) log.notice(notice);
  const test = readTest(terminal);
  const result = await backup(config, { log, signal });
  if (result.kind !== 'stored') throw new Error('a backup that is no dry run was not stored');
  const { totals, database, timings, files } = result.manifest;
  log.info(
    `dumped ${displayWord(database.name)}: ${formatCount(totals.tables, 'table')}, ${formatCount(totals.rows, 'row')}, ${formatBytes(database.sizeBytes)} → ${formatBytes(files[0]?.bytes ?? 0)} in ${formatSeconds(timings.total ?? 0)}; counted on the server and again in the archive`,
  );
  const entry = await readBackup(store, config.trust, config.name, result.manifest.id);
  if (entry.kind !== 'backup') throw new Error('a stored backup cannot be read back');
  return restoreTest(storedSubject(store, entry.backup, noKeys), test, { log, signal });
}

async function assayFile(terminal: Terminal, path: string): Promise<void> {
  const { flags, log, signal, machine } = terminal;
  if (flags.read('out')?.trim())
    throw new Failure('input', 'badInput', 'out: keeps the backup of a database; a dump file stays where it is');
  const test = readTest(terminal);
  const name = nameFrom(flags.read('name'), basename(path).replace(/\.[a-z]+$/i, ''));
  const subject = await foreignDump(resolve(path), name, test, machine, { log, signal });
  const { totals, database, tools, files } = subject.manifest;
  log.info(
    `${path} is whole: an archive of ${displayWord(database.name)}, PostgreSQL ${database.serverVersion}, by pg_dump ${tools.pgDump}; ${formatCount(totals.tables, 'table')}, ${formatCount(totals.rows, 'row')}, ${formatBytes(files[0]?.bytes ?? 0)}`,
  );
  const tested = await restoreTest(subject, test, { log, signal });
  const unknown =
    '  unknown   what the database held when it was dumped: no file tells; its rows were compared with its own, and the time of the file stands for its own';
  answer(terminal, documentOf(tested), `${restoreTestText(reportOf(tested, path))}\n${unknown}`);
  if (tested.failure !== undefined) throw tested.failure;
}

const commonInputs = ['client-bin', 'install-client', 'tls-ca', 'tls-client-cert', 'tls-client-key'];

function readTest({ flags, secrets, machine, variables, log }: Terminal): RestoreTestConfig {
  const inputs = new Inputs(flags.read);
  const scratchUrl = flags.read('scratch-url') ?? '';
  const wanted = [
    'checks',
    'checks-file',
    'max-restore-time',
    'skip-extensions',
    'jobs',
    'timeout',
    'scratch-url',
    'scratch-privileges',
    'allow-unsandboxed',
  ];
  const { config } = readHiding(secrets, scratchUrl, () => {
    const read: ReadInput = (name) =>
      name === 'store'
        ? 'file:///nonexistent'
        : [...wanted, ...commonInputs].includes(name)
          ? flags.read(name)
          : undefined;
    return readRestoreTest(
      withPemFiles(read, inputs),
      { machine, source: sourceOf(variables), identity: undefined },
      inputs.problems,
    );
  });
  if (config.scratch !== undefined) {
    for (const secret of secretsOf(scratchUrl, config.scratch)) secrets.add(secret);
    for (const word of publicWordsOf(config.scratch)) secrets.spare(word);
    for (const notice of config.scratch.notices) log.notice(notice);
  }
  return config;
}

/** What was asked for, else something like `from` that a store can take. */
function nameFrom(given: string | undefined, from: string): string {
  if (given?.trim()) return given.trim();
  const name = from
    .replace(/%[0-9A-Fa-f]{2}|[^A-Za-z0-9._-]/g, '-')
    .replace(/^[^A-Za-z0-9]+/, '')
    .slice(0, 64);
  return namePattern.test(name) ? name : 'assayed';
}
