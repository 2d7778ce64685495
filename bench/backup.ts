// npm run bench [-- --gigabytes=1.1 --rounds=5 --majors=15,17 --only=pgassay]
// A backup to a real S3 server, against what people use today: the same database, server and machine, in the same run.
// Every round runs each way once, so that whatever else the machine does falls on all of them; medians are compared.
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, connect, createServer } from 'node:net';
import { cpus, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { generateKeyPair } from '../src/age.ts';
import { table } from '../src/report/table.ts';
import { Cluster, majorsAvailable } from '../test/support/postgres.ts';
import { S3Server } from '../test/support/s3.ts';
import { fill } from './database.ts';
import { type Measured, measure, median } from './measure.ts';

const { values } = parseArgs({
  options: {
    gigabytes: { type: 'string', default: '1.1' },
    rounds: { type: 'string', default: '5' },
    majors: { type: 'string', default: [majorsAvailable()[0], majorsAvailable().at(-1)].join() },
    /** Part of the name of the ways to run. */
    only: { type: 'string', default: '' },
  },
});
const gigabytes = Number(values.gigabytes);
const rounds = Number(values.rounds);
const root = join(import.meta.dirname, '..');
const cli = `'${process.execPath}' '${join(root, 'dist', 'cli.js')}'`;
const bare = { PATH: process.env.PATH ?? '/usr/bin:/bin', HOME: process.env.HOME ?? '/nonexistent' };
const folder = await mkdtemp(join(tmpdir(), 'pgassay-bench-'));
const { recipient } = await generateKeyPair('x25519');

interface Way {
  readonly name: string;
  readonly command: string;
  /** Among the arguments of the process whose memory is of interest. */
  readonly of?: string;
}

const clusters: Cluster[] = [];
try {
  for (const major of new Set(values.majors.split(',').map(Number))) {
    console.error(`bench: PostgreSQL ${major}, ${gigabytes} GB of text …`);
    const cluster = await Cluster.start({
      major,
      conf: { shared_buffers: '2GB', max_wal_size: '4GB', fsync: 'off', autovacuum: 'off' },
    });
    clusters.push(cluster);
    await fill(cluster, 'shop', gigabytes);
    await compare(cluster);
    await cluster.stop();
  }
} finally {
  await Promise.all(clusters.map((cluster) => cluster.stop()));
  await rm(folder, { recursive: true, force: true });
}

async function compare(cluster: Cluster): Promise<void> {
  const first = await startToFirstQuery(cluster);
  const modern = cluster.major >= 16;
  const aws = 'aws --endpoint-url "$S3" s3 cp --only-show-errors';
  const pgassay = (census: string): string =>
    `${cli} backup --store s3://bench/p --s3-endpoint "$S3" --name shop --census ${census} --client-bin '${cluster.bin}'`;
  const encrypted = `${pgassay('rows')} --encrypt-to ${recipient}`;
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
    { name: 'pgassay backup (rows, encrypted)', command: encrypted, of: 'dist/cli.js' },
  ].filter((way) => way.name.includes(values.only));
  const runs = new Map<Way, Measured[]>(ways.map((way) => [way, []]));
  for (let round = 0; round <= rounds; round++)
    for (const way of ways) {
      // A new one every time: it holds everything in memory.
      await using server = await S3Server.start({ gibibytes: Math.ceil(2 * gigabytes) });
      await server.createBucket('bench');
      const env = { ...bare, ...server.env, S3: server.endpoint, DATABASE_URL: cluster.url('shop') };
      const measured = await measure(way.command, { env, ...(way.of === undefined ? {} : { of: way.of }) });
      // The first round warms caches, for all of them.
      if (round > 0) runs.get(way)?.push(measured);
      console.error(`bench: ${round}/${rounds}  ${measured.seconds.toFixed(1)} s  ${way.name}`);
    }
  const [recipe = [], pipe = []] = values.only === '' ? runs.values() : [];
  const seconds = (measured: readonly Measured[]): number => median(measured.map((each) => each.seconds));
  const rows = ways.map((way) => {
    const measured = runs.get(way) ?? [];
    const peak = Math.max(...measured.map((each) => each.peakMiB));
    return [
      way.name,
      seconds(measured).toFixed(1),
      median(measured.map((each) => each.cpuSeconds)).toFixed(1),
      ratio(seconds(recipe), seconds(measured)),
      ratio(seconds(measured), seconds(pipe)),
      peak === 0 ? '' : `${Math.round(peak)} MiB`,
    ];
  });
  const [{ size = '' } = {}] = await cluster.query<{ size: string }>(
    'shop',
    `SELECT pg_size_pretty(pg_database_size('shop')) AS size`,
  );
  console.log(
    [
      '',
      `PostgreSQL ${cluster.major} server and programs, database of ${size}, ${gigabytes} GB; ${cpus().length} × ${cpus()[0]?.model.trim()}, ${Math.round(totalmem() / 1024 ** 3)} GiB, Node ${process.version}; medians of ${rounds}`,
      `pgassay's first query came ${first.toFixed(2)} s after its start`,
      '',
      table(['way', 's', 'CPU s', 'faster than the recipe', 'time / bare pipe', 'peak memory'], rows, [1, 2, 3, 4, 5]),
    ].join('\n'),
  );
}

function ratio(of: number, to: number): string {
  return Number.isNaN(of / to) ? '' : `${(of / to).toFixed(2)} ×`;
}

/** Seconds, the median of five, seen by somebody between pgassay and the server. */
async function startToFirstQuery(cluster: Cluster): Promise<number> {
  const measured: number[] = [];
  let started = 0;
  let first = true;
  const watcher = createServer((client) => {
    const upstream = connect(cluster.port, cluster.host);
    client.on('data', (chunk) => {
      // A simple query or the first step of a prepared one; what comes before is about the password.
      if (first && /^[QP]/.test(chunk.toString('latin1', 0, 1))) {
        measured.push((performance.now() - started) / 1000);
        first = false;
      }
    });
    client
      .on('error', () => {})
      .pipe(upstream.on('error', () => {}))
      .pipe(client);
  });
  watcher.listen(0, '127.0.0.1');
  await once(watcher, 'listening');
  const { port } = watcher.address() as AddressInfo;
  const url = cluster.url('shop').replace(`:${cluster.port}/`, `:${port}/`);
  for (let round = 0; round < 5; round++) {
    started = performance.now();
    first = true;
    const command = `${cli} backup --dry-run --store 'file://${folder}' --name shop --client-bin '${cluster.bin}'`;
    await measure(command, { env: { ...bare, DATABASE_URL: url } });
  }
  watcher.close();
  return median(measured);
}
