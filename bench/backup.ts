// npm run bench [-- --gigabytes=1 --rounds=5]
// A backup to a real S3 server, against what people use today: the same database, server and machine, in the same run.
// Every round runs each way once, so that whatever else the machine does falls on all of them; medians are compared.
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { cpus, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { table } from '../src/report/table.ts';
import { Cluster, majorsAvailable } from '../test/support/postgres.ts';
import { S3Server } from '../test/support/s3.ts';
import { fill } from './database.ts';
import { type Measured, measure, median } from './measure.ts';

const { values } = parseArgs({
  options: { gigabytes: { type: 'string', default: '1' }, rounds: { type: 'string', default: '5' } },
});
const gigabytes = Number(values.gigabytes);
const rounds = Number(values.rounds);
const root = join(import.meta.dirname, '..');
const folder = await mkdtemp(join(tmpdir(), 'pgassay-bench-'));

interface Way {
  readonly name: string;
  readonly command: string;
  /** Among the arguments of the process whose memory is of interest. */
  readonly of?: string;
}

const server = await S3Server.start();
const clusters: Cluster[] = [];
try {
  await server.createBucket('bench');
  for (const major of [...new Set([majorsAvailable()[0], majorsAvailable().at(-1)])]) {
    if (major === undefined) continue;
    console.error(`bench: PostgreSQL ${major}, ${gigabytes} GB of text …`);
    const cluster = await Cluster.start({
      major,
      conf: { shared_buffers: '256MB', max_wal_size: '4GB', fsync: 'off', autovacuum: 'off' },
    });
    clusters.push(cluster);
    await fill(cluster, 'shop', gigabytes);
    await compare(cluster);
    await cluster.stop();
  }
} finally {
  await Promise.all([...clusters.map((cluster) => cluster.stop()), server.stop()]);
  await rm(folder, { recursive: true, force: true });
}

async function compare(cluster: Cluster): Promise<void> {
  const aws = `aws --endpoint-url ${server.endpoint} s3 cp --only-show-errors`;
  const modern = cluster.major >= 16;
  const pgassay = (census: string): string =>
    `'${process.execPath}' '${join(root, 'dist', 'cli.js')}' backup --store s3://bench/p --s3-endpoint ${server.endpoint} --name ${census} --census ${census} --client-bin '${cluster.bin}'`;
  const ways: Way[] = [
    {
      name: 'pg_dump | gzip > file, then aws s3 cp',
      command: `'${cluster.bin}/pg_dump' "$DATABASE_URL" | gzip > ${folder}/dump.gz; ${aws} ${folder}/dump.gz s3://bench/recipe.gz`,
    },
    {
      name: `pg_dump -Fc ${modern ? '--compress=zstd:3' : '-Z1'} | aws s3 cp -`,
      command: `'${cluster.bin}/pg_dump' -Fc ${modern ? '--compress=zstd:3' : '-Z1'} "$DATABASE_URL" | ${aws} - s3://bench/pipe.dump`,
    },
    { name: 'pgassay backup (rows)', command: pgassay('rows'), of: 'dist/cli.js' },
    { name: 'pgassay backup (stream)', command: pgassay('stream'), of: 'dist/cli.js' },
  ];
  const env = {
    ...server.env,
    PATH: process.env.PATH ?? '/usr/bin:/bin',
    HOME: process.env.HOME ?? '/nonexistent',
    DATABASE_URL: cluster.url('shop'),
  };
  const runs = new Map<Way, Measured[]>(ways.map((way) => [way, []]));
  for (let round = 0; round <= rounds; round++)
    for (const way of ways) {
      const measured = await measure(way.command, { env, ...(way.of === undefined ? {} : { of: way.of }) });
      // The first round warms caches, for all of them.
      if (round > 0) runs.get(way)?.push(measured);
      console.error(`bench: ${round}/${rounds}  ${measured.seconds.toFixed(1)} s  ${way.name}`);
      await clear();
    }
  const [recipe = [], pipe = []] = ways.map((way) => runs.get(way) ?? []);
  const seconds = (measured: readonly Measured[]): number => median(measured.map((each) => each.seconds));
  const rows = ways.map((way) => {
    const measured = runs.get(way) ?? [];
    const peak = Math.max(...measured.map((each) => each.peakMiB));
    return [
      way.name,
      seconds(measured).toFixed(1),
      median(measured.map((each) => each.cpuSeconds)).toFixed(1),
      `${(seconds(recipe) / seconds(measured)).toFixed(2)} ×`,
      (seconds(measured) / seconds(pipe)).toFixed(2),
      peak === 0 ? '' : `${Math.round(peak)} MiB`,
    ];
  });
  const [{ size = '' } = {}] = await cluster.query<{ size: string }>(
    'shop',
    `SELECT pg_size_pretty(pg_database_size('shop')) AS size`,
  );
  const { size: gzipped } = await stat(join(folder, 'dump.gz'));
  console.log(
    [
      '',
      `PostgreSQL ${cluster.major} server and programs, database of ${size} (${(gzipped / 1e6).toFixed(0)} MB gzipped), ${cpus().length} × ${cpus()[0]?.model.trim()}, ${Math.round(totalmem() / 1024 ** 3)} GiB, Node ${process.version}, median of ${rounds}`,
      '',
      table(['way', 's', 'CPU s', 'faster than the recipe', 'time / bare pipe', 'peak memory'], rows, [1, 2, 3, 4, 5]),
    ].join('\n'),
  );
}

/** The server holds everything in memory. */
async function clear(): Promise<void> {
  for (const key of await server.keys('bench')) await server.delete('bench', key);
}
