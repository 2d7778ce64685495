import { GitHub } from '../alert/github.ts';
import { identityOf, inputsOf, sourceOf } from '../environment.ts';
import { Failure } from '../failure.ts';
import { writePage } from '../page.ts';
import type { NameState } from '../page-facts.ts';
import { statesSentence } from '../report/state.ts';
import { type ReportConfig, readReportConfig } from '../report-inputs.ts';
import { openStore } from '../store/open.ts';
import { type Visibility, visibilityOf, visibilityOfEvent } from '../visibility.ts';
import { answer, type Command, type Terminal } from './command.ts';
import { keepFlags } from './prune.ts';
import { hideStoreSecrets, judgementFlags, placeOf, storeFlags } from './shared-flags.ts';

export const reportCommand: Command = {
  name: 'report',
  summary:
    'Writes a page about the backups of a store: their state, days, trends, restore tests, and what becomes of each.',
  flags: [
    ...storeFlags.map((flag) =>
      flag.name === 'name' ? { ...flag, help: "which database's backups; all of them when it is left out" } : flag,
    ),
    { name: 'out', value: 'FOLDER', help: 'where index.html goes; one that is no page of ours is never replaced' },
    {
      name: 'max-restore-time',
      value: 'TIME',
      help: 'how long a recovery may take (default: as restore tests were told)',
    },
    ...judgementFlags,
    ...keepFlags.map((flag) =>
      flag.name === 'keep-last'
        ? { ...flag, help: `${flag.help}; with the keep-* of the backup step the page says when each backup goes` }
        : flag,
    ),
    {
      name: 'alert-details',
      value: 'auto|true|false',
      help: "show names out of the database, counts, sizes and the store (default auto: not in a public repository's workflow)",
    },
  ],
  async run(terminal) {
    const inputs = inputsOf(terminal.flags.read);
    hideStoreSecrets(terminal);
    const token = terminal.flags.read('github-token')?.trim();
    if (token) terminal.secrets.add(token);
    const config = readReportConfig(inputs, identityOf(terminal.variables), placeOf(terminal));
    const details = await mayShow(config, terminal, token);
    const store = openStore(config.store, { signal: terminal.signal });
    const { path, facts } = await writePage({ ...config, details, store });
    const sentence = statesSentence(facts.names, facts);
    answer(
      terminal,
      {
        ...{ page: path, status: facts.status, details, sentence },
        names: facts.names.map(({ name, condition, backups }: NameState) => ({
          ...{ name, status: condition.status, backups: backups.length },
          latestBackupId: condition.newest?.manifest.id ?? null,
          findings: details ? condition.findings : condition.findings.map(({ severity, hint }) => ({ severity, hint })),
        })),
      },
      `${sentence}\n  page  ${path}${details ? '' : '\n  names, counts, sizes and the store are withheld in it'}`,
    );
  },
};

/** A page that a workflow of a public repository writes ends up where anybody reads it: an artifact, or Pages. */
async function mayShow({ details }: ReportConfig, terminal: Terminal, token: string | undefined): Promise<boolean> {
  if (details === false || sourceOf(terminal.variables) === null) return details !== false;
  const visibility = await visibilityHere(terminal, token);
  if (visibility === 'private') return true;
  if (details === 'auto') return false;
  const why =
    visibility === 'public' ? 'this repository is public' : 'nobody can tell whether this repository is public';
  throw new Failure('input', 'badInput', `alert-details: true would publish names and counts, as ${why}`, {
    hint: `anybody can read artifacts and Pages of a public repository; leave alert-details at auto${visibility === 'public' ? '' : ', or set PGASSAY_GITHUB_TOKEN to ask GitHub'}`,
  });
}

async function visibilityHere({ variables, signal }: Terminal, token: string | undefined): Promise<Visibility> {
  const told = visibilityOfEvent(variables.GITHUB_EVENT_PATH);
  const repository = sourceOf(variables)?.repository;
  if (told !== 'unknown' || repository === undefined || !token || !/^[\x21-\x7e]+$/.test(token)) return told;
  const apiUrl = variables.GITHUB_API_URL || 'https://api.github.com';
  try {
    const github = new GitHub({ apiUrl, graphqlUrl: `${apiUrl}/graphql`, repository, token }, signal);
    return visibilityOf(await github.repository('GET', ''));
  } catch {
    // Not being told is an answer too, the careful one.
    return 'unknown';
  }
}
