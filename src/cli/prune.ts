import { identityOf, inputsOf } from '../environment.ts';
import { prune, warnOfPruned } from '../prune.ts';
import { failureOfPruned, readPruneConfig } from '../prune-inputs.ts';
import { pruneText } from '../report/prune.ts';
import { openStore } from '../store/open.ts';
import { answer, type Command, type Flag } from './command.ts';
import { hideStoreSecrets, placeOf, proofVerifyFlag, storeFlags } from './shared-flags.ts';

/** What stays; any rule is enough. */
export const keepFlags: readonly Flag[] = [
  { name: 'keep-last', value: 'N', help: 'the newest N backups of a label' },
  { name: 'keep-within', value: 'TIME', help: 'all that are so much older than the newest at most, 30d' },
  { name: 'keep-daily', value: 'N', help: 'the last one of each of the N latest days that have one, in UTC' },
  { name: 'keep-weekly', value: 'N', help: 'the same for weeks, which begin on Monday' },
  { name: 'keep-monthly', value: 'N', help: 'the same for months' },
  { name: 'keep-yearly', value: 'N', help: 'the same for years' },
  { name: 'keep-labels', value: 'LABEL=TIME', many: true, help: 'backups of a label for so long: pre-migration=90d' },
];

export const pruneCommand: Command = {
  name: 'prune',
  summary: 'Deletes the backups of a name that no rule keeps.',
  flags: [
    ...storeFlags,
    ...keepFlags,
    { name: 'dry-run', help: 'say what would go and why the rest stays; delete nothing' },
    { name: 'critical-after', value: 'TIME', help: 'delete nothing when the newest backup is older (default 30h)' },
    proofVerifyFlag,
  ],
  async run(terminal) {
    const inputs = inputsOf(terminal.flags.read);
    hideStoreSecrets(terminal);
    const config = readPruneConfig(inputs, identityOf(terminal.variables), placeOf(terminal));
    const store = openStore(config.store, { signal: terminal.signal });
    const pruned = await prune({ ...config, store }, terminal);
    warnOfPruned(pruned, terminal.log);
    const { name, dryRun, paused, damaged } = pruned;
    answer(
      terminal,
      {
        ...{ name, dryRun, paused: paused ?? null },
        kept: pruned.kept.map(({ manifest, reasons, refused }) => ({ id: manifest.id, reasons, refused })),
        pruned: pruned.removed.map((each) => each.id),
        damaged: damaged.map(({ id, reason, untrusted = false }) => ({ id, reason, untrusted })),
      },
      pruneText(pruned),
    );
    const failure = failureOfPruned(pruned);
    if (failure !== undefined) throw failure;
  },
};
