// node scripts/demo.ts [--encrypt]
// A real database is backed up while it is written to, by the committed launcher, restored equal, and proven once more
// by a restore test into a throw-away server of its own.
import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { generateKeyPair } from '../src/age.ts';
import { formatNumber } from '../src/numbers.ts';
import { displayName } from '../src/postgres/names.ts';
import { table } from '../src/report/table.ts';
import { runAction } from '../test/support/action.ts';
import { Cluster, majorsAvailable } from '../test/support/postgres.ts';
import { loadSampleDatabase } from './sample-database.ts';
import { startWriters } from './writers.ts';

const root = join(import.meta.dirname, '..');
const started = Date.now();
const folder = await mkdtemp(join(tmpdir(), 'pgassay-demo-'));
const store = `file://${folder}`;
const major = majorsAvailable().at(-1);
const { values } = parseArgs({ options: { encrypt: { type: 'boolean', default: false } } });
const [drill, recovery] = await Promise.all([generateKeyPair('x25519'), generateKeyPair('x25519')]);
/** What opens the backup: the restore test has one key, whoever recovers the other. */
const opens = (identity: string): Record<string, string> =>
  values.encrypt ? { PGASSAY_DECRYPT_IDENTITY: identity } : {};

say(`PostgreSQL ${major}: a throw-away server, socket and loopback only`);
const cluster = await Cluster.start(major === undefined ? {} : { major });
try {
  await cluster.createDatabase('shop');
  await loadSampleDatabase(cluster.url('shop'));
  say('a sample shop: partitions, identities, views, domains, row security, large objects, odd names, extensions …');

  const writers = await startWriters(cluster.url('shop'), 3);
  say('three writers insert, update and delete, and go on while the backup runs');
  const step = await runAction(root, {
    inputs: {
      ...{ store, name: 'shop', 'database-url': cluster.url('shop'), 'client-bin': cluster.bin, census: 'content' },
      ...(values.encrypt ? { 'encrypt-to': `${drill.recipient}\n${recovery.recipient}` } : {}),
    },
    onLine: (line) => console.log(`    ${line}`),
  });
  if (step.exitCode !== 0) throw new Error(`the backup step failed with ${step.exitCode}`);
  // Long enough for every table the writers touch to have moved on visibly.
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const { statements } = await writers.stop();
  say(`the writers stopped after ${formatNumber(statements)} statements`);

  await pgassay(['verify', 'latest', '--store', store, '--client-bin', cluster.bin], opens(recovery.identity));
  const restored = await pgassay(['restore', 'latest', '--store', store, '--client-bin', cluster.bin, '--json'], {
    ...opens(recovery.identity),
    TARGET_URL: cluster.url('shop_restored'),
  });
  await compare(restored);
  const test = ['restore-test', 'latest', '--store', store, '--client-bin', cluster.bin, '--max-restore-time', '5m'];
  await pgassay(test, opens(drill.identity));
  await pgassay(['list', '--store', store]);
  say(`done in ${Math.round((Date.now() - started) / 1000)} s. Yours to paste:`);
  console.log(`\n${await workflow()}`);
} finally {
  await cluster.stop();
  await rm(folder, { recursive: true, force: true });
}

function say(text: string): void {
  console.log(`\n» ${text}`);
}

/** The command line as a user would run it; what it prints is shown, and returned. */
async function pgassay(args: readonly string[], env: Record<string, string> = {}): Promise<string> {
  const secret = Object.keys(env).map((name) => `${name}=… `);
  say(`${secret.join('')}pgassay ${args.join(' ')}`);
  const child = spawn(process.execPath, [join(root, 'dist', 'cli.js'), ...args], {
    env: { PATH: process.env.PATH ?? '', HOME: folder, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  const code = await new Promise((resolve) => child.once('close', resolve));
  if (!args.includes('--json')) console.log(output.trimEnd());
  if (code !== 0) throw new Error(`pgassay ${args[0]} ended with ${code}`);
  return output;
}

interface Compared {
  readonly schema: string;
  readonly name: string;
  readonly recorded: number;
  readonly restored: number;
}

/** Recorded by the backup, counted by the restore, and counted now in the database that went on living. */
async function compare(json: string): Promise<void> {
  const { compared, durationSeconds } = JSON.parse(json) as { compared: Compared[]; durationSeconds: number };
  const rows: string[][] = [];
  let moved = 0;
  for (const each of compared) {
    const name = `"${each.schema.replaceAll('"', '""')}"."${each.name.replaceAll('"', '""')}"`;
    const [live] = (await cluster.query('shop', `SELECT count(*)::int AS count FROM ONLY ${name}`)) as [
      { count: number },
    ];
    if (live.count !== each.recorded) moved++;
    rows.push([displayName(each), ...[each.recorded, each.restored, live.count].map(formatNumber)]);
  }
  console.log(table(['table', 'recorded', 'restored', 'live by now'], rows, [1, 2, 3]));
  const unequal = compared.filter((each) => each.recorded !== each.restored);
  if (unequal.length > 0) throw new Error(`${unequal.length} tables differ`);
  if (moved === 0) throw new Error('the live database has not moved on, so this proves nothing');
  say(
    `restored in ${durationSeconds.toFixed(1)} s: ${compared.length} tables, recorded and restored are equal, digests too; ${moved} tables of the live database have moved on`,
  );
}

/** The README's own example, so that there is one. */
async function workflow(): Promise<string> {
  const readme = await readFile(join(root, 'README.md'), 'utf8');
  const example = /```yaml\n([\s\S]*?)```/.exec(readme)?.[1];
  if (example === undefined) throw new Error('README.md has no workflow to show');
  return example.trimEnd();
}
