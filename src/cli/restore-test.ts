import { identityOf, readHiding, sourceOf, withPemFiles } from '../environment.ts';
import { Inputs } from '../inputs.ts';
import { locate } from '../locate.ts';
import { publicWordsOf, secretsOf } from '../postgres/url.ts';
import { restoreSeconds } from '../proof.ts';
import { restoreTestText } from '../report/restore-test.ts';
import { type RestoreTested, reportOf, restoreTest } from '../restore-test.ts';
import { readRestoreTest } from '../restore-test-inputs.ts';
import { openStore } from '../store/open.ts';
import { warnUnneeded } from '../stored-files.ts';
import { storedSubject } from '../test-subject.ts';
import { answer, type Command } from './command.ts';
import {
  backupArgument,
  decryptFlags,
  hideStoreSecrets,
  placeOf,
  programFlags,
  proofKeyFlag,
  storeFlags,
  tlsFlags,
} from './shared-flags.ts';

export const restoreTestCommand: Command = {
  name: 'restore-test',
  summary: 'Restores a backup into a database that is thrown away, and proves it equal to what was backed up.',
  argument: backupArgument,
  flags: [
    ...storeFlags,
    {
      name: 'scratch-url',
      help: 'the superuser of a server that may be thrown away (default: one is started here)',
      secret: { variable: 'PGASSAY_SCRATCH_URL' },
    },
    {
      name: 'scratch-privileges',
      value: 'WHO',
      help: 'owner (default: the archive is restored without rights) or superuser',
    },
    { name: 'allow-unsandboxed', help: 'superuser also where the archive could read what this user may' },
    { name: 'checks', value: 'SQL', many: true, help: 'a query that answers true when all is well (repeat the flag)' },
    { name: 'checks-file', value: 'FILE', help: 'queries separated by ;' },
    { name: 'census', value: 'HOW', help: 'auto (default: as the backup recorded), rows or content' },
    { name: 'jobs', value: 'N', help: 'parallel connections (default: processors)' },
    { name: 'max-restore-time', value: 'TIME', help: 'a download and restore that take longer are a finding' },
    {
      name: 'skip-extensions',
      value: 'NAME',
      many: true,
      help: 'leave these extensions out, with what depends on them; the test does not pass',
    },
    proofKeyFlag,
    { name: 'timeout', value: 'TIME', help: 'for everything, retries included (default 5h)' },
    { name: 'retries', value: 'N', help: 'tries again after a passing fault (default 2)' },
    { name: 'stall-timeout', value: 'TIME', help: 'without a byte from the store (default 5m)' },
    ...decryptFlags,
    ...programFlags,
    ...tlsFlags,
  ],
  async run(terminal) {
    const { flags, log, secrets, signal, machine, variables } = terminal;
    hideStoreSecrets(terminal);
    const inputs = new Inputs(flags.read);
    const url = flags.read('scratch-url') ?? '';
    const { config, store, keys, idleMs, name, selector, trust } = readHiding(secrets, url, () => {
      const read = withPemFiles((input) => (input === 'backup' ? flags.argument : flags.read(input)), inputs);
      const surroundings = {
        machine,
        source: sourceOf(variables),
        identity: identityOf(variables),
        artifacts: placeOf(terminal),
      };
      return readRestoreTest(read, surroundings, inputs.problems);
    });
    if (config.scratch !== undefined) {
      for (const secret of secretsOf(url, config.scratch)) secrets.add(secret);
      for (const word of publicWordsOf(config.scratch)) secrets.spare(word);
      for (const notice of config.scratch.notices) log.notice(notice);
    }
    const opened = openStore(store, { signal, idleMs });
    const { backup } = await locate(opened, { name, selector, trust, strict: true }, log);
    warnUnneeded(backup.manifest, keys, log);
    const tested = await restoreTest(storedSubject(opened, backup, keys), config, { log, signal });
    answer(terminal, documentOf(tested), restoreTestText(reportOf(tested, opened.uri)));
    if (tested.failure !== undefined) throw tested.failure;
  },
};

/** What `--json` prints of a restore test. */
export function documentOf({ manifest, proof, location }: RestoreTested): Readonly<Record<string, unknown>> {
  return {
    result: proof.result,
    backupId: manifest.id,
    name: manifest.name,
    restoreSeconds: restoreSeconds(proof.timings),
    totalSeconds: proof.timings.total ?? 0,
    level: proof.level,
    findings: proof.findings,
    leftOut: proof.leftOut,
    notes: proof.notes,
    timings: proof.timings,
    proof: location ?? null,
  };
}
