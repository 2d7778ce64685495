// npm run bench:restore [-- --gigabytes=1.1 --rounds=5 --majors=15,17]
// A restore test, which starts its own server, against what people do by hand, gunzip | psql, into one set up the same.
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { table } from '../src/report/table.ts';
import { cli, takeBackup } from '../test/support/backup.ts';
import { Cluster, majorsAvailable } from '../test/support/postgres.ts';
import type { TestReport } from '../test/support/restore-test.ts';
import { fill } from './database.ts';
import { measure, median } from './measure.ts';

const { values } = parseArgs({
  options: {
    gigabytes: { type: 'string', default: '1.1' },
    rounds: { type: 'string', default: '5' },
    majors: { type: 'string', default: [majorsAvailable()[0], majorsAvailable().at(-1)].join() },
  },
});
const gigabytes = Number(values.gigabytes);
const rounds = Number(values.rounds);
const folder = await mkdtemp(join(tmpdir(), 'pgassay-bench-'));
/** As pgassay's own throw-away server has it. */
const conf = {
  shared_buffers: '256MB',
  maintenance_work_mem: '256MB',
  max_wal_size: '4GB',
  synchronous_commit: 'off',
  full_page_writes: 'off',
  bgwriter_lru_maxpages: '0',
  wal_level: 'minimal',
  max_wal_senders: '0',
  checkpoint_timeout: '1h',
  autovacuum: 'off',
  jit: 'off',
  max_parallel_workers_per_gather: '0',
};

try {
  for (const major of new Set(values.majors.split(',').map(Number))) await compare(major);
} finally {
  await rm(folder, { recursive: true, force: true });
}

async function compare(major: number): Promise<void> {
  console.error(`bench: PostgreSQL ${major}, ${gigabytes} GB of text …`);
  await using source = await Cluster.start({ major, conf: { shared_buffers: '1GB', fsync: 'off', autovacuum: 'off' } });
  await fill(source, 'shop', gigabytes);
  const backup = await takeBackup(source, 'shop', { store: `file://${folder}/${major}` });
  const env = { PATH: process.env.PATH ?? '/usr/bin:/bin', HOME: folder };
  const plain = join(folder, `${major}.sql.gz`);
  await measure(`'${source.bin}/pg_dump' "$DATABASE_URL" | gzip > '${plain}'`, {
    env: { ...env, DATABASE_URL: source.url('shop') },
  });
  await using scratch = await Cluster.start({ major, conf });
  const recipe: number[] = [];
  const tests: TestReport[] = [];
  for (let round = 0; round <= rounds; round++) {
    await scratch.createDatabase('recipe');
    const { seconds } = await measure(`gunzip -c '${plain}' | '${source.bin}/psql' -q -X -d "$TARGET_URL"`, {
      env: { ...env, TARGET_URL: scratch.url('recipe') },
    });
    await scratch.query('postgres', 'DROP DATABASE recipe');
    const tested = await cli(['restore-test', '--store', backup.store, '--client-bin', source.bin, '--json']);
    if (tested.exitCode !== 0) throw new Error(tested.stderr);
    const report = tested.json as TestReport;
    // The first round warms caches.
    if (round > 0) {
      recipe.push(seconds);
      tests.push(report);
    }
    console.error(`bench: ${round}/${rounds}  psql ${seconds.toFixed(1)} s, pgassay ${JSON.stringify(report.timings)}`);
  }
  const phase = (name: string): number => median(tests.map((each) => each.timings[name] ?? 0));
  const psql = median(recipe);
  const rows = [
    ['gunzip | psql', psql.toFixed(1), '1.00 ×'],
    ['pgassay: download and checksum', phase('download').toFixed(1), ratio(phase('download'), psql)],
    ['pgassay: restore', phase('restore').toFixed(1), ratio(phase('restore'), psql)],
    [
      'pgassay: verify (census: rows)',
      phase('verify').toFixed(1),
      `${ratio(phase('verify'), phase('restore'))} of the restore`,
    ],
    ['pgassay: everything', phase('total').toFixed(1), ratio(phase('total'), psql)],
  ];
  console.log(
    [
      '',
      `PostgreSQL ${major}, ${gigabytes} GB of text, ${cpus().length} × ${cpus()[0]?.model.trim()}; medians of ${rounds}`,
      '',
      table(['way', 's', 'against gunzip | psql'], rows, [1, 2]),
    ].join('\n'),
  );
}

function ratio(of: number, to: number): string {
  return `${(of / to).toFixed(2)} ×`;
}
