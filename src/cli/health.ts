import { identityOf, inputsOf, sourceOf } from '../environment.ts';
import { health } from '../health.ts';
import { failureOfHealth, readHealthConfig } from '../health-inputs.ts';
import { writeMetrics } from '../metrics-file.ts';
import { healthDocument, healthText } from '../report/health.ts';
import { openMetrics } from '../report/metrics.ts';
import { openStore } from '../store/open.ts';
import { answer, type Command } from './command.ts';
import { hideStoreSecrets, judgementFlags, placeOf, storeFlags } from './shared-flags.ts';

export const healthCommand: Command = {
  name: 'health',
  summary: 'Judges the backups of a store: age, size, count, damage, restore tests, workflows. Changes nothing.',
  flags: [
    ...storeFlags.filter(({ name }) => name !== 'name' && name !== 'github-token'),
    { name: 'names', value: 'NAME', many: true, help: 'must have backups; without any, all that are there are judged' },
    ...judgementFlags,
    { name: 'integrity', value: 'HOW', help: 'none, sizes of all files (default), or full: every byte is read' },
    {
      name: 'workflows',
      value: 'FILE',
      many: true,
      help: 'backup.yml or owner/repo/backup.yml: enabled, and its runs left backups',
    },
    {
      name: 'github-token',
      help: 'a token that may read their actions, and artifacts (or GITHUB_TOKEN)',
      secret: { variable: 'PGASSAY_GITHUB_TOKEN', also: 'GITHUB_TOKEN' },
    },
    { name: 'fail-on', value: 'STATUS', help: 'exit 70 on critical (default), warning or never' },
    { name: 'metrics-file', value: 'FILE', help: 'write OpenMetrics text for Prometheus and the like' },
    { name: 'metrics', value: 'FILE', help: 'the same' },
  ],
  async run(terminal) {
    const { flags, log, secrets, signal, variables } = terminal;
    const inputs = inputsOf(
      (name) => flags.read(name) ?? (name === 'metrics-file' ? flags.read('metrics') : undefined),
    );
    hideStoreSecrets(terminal);
    const token = inputs.optional('github-token');
    if (token !== undefined) secrets.add(token);
    const repository = sourceOf(variables)?.repository ?? variables.GITHUB_REPOSITORY;
    if (inputs.lines('workflows').length > 0 && token === undefined)
      inputs.problem(
        'workflows',
        'GitHub tells nobody without a token',
        'set PGASSAY_GITHUB_TOKEN or use --github-token-file',
      );
    const config = readHealthConfig(inputs, {
      identity: identityOf(variables),
      artifacts: placeOf(terminal),
      repository,
    });
    const apiUrl = variables.GITHUB_API_URL || 'https://api.github.com';
    const judged = await health(
      {
        ...config,
        store: openStore(config.store, { signal }),
        github: token === undefined ? undefined : { apiUrl, graphqlUrl: `${apiUrl}/graphql`, token },
      },
      { log, signal, now: () => new Date() },
    );
    answer(terminal, healthDocument(judged), healthText(judged));
    if (config.metricsFile !== undefined) await writeMetrics(config.metricsFile, openMetrics(judged, judged.checkedAt));
    const failure = failureOfHealth(judged, config.failOn);
    if (failure !== undefined) throw failure;
  },
};
