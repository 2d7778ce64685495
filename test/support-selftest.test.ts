import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import pg from 'pg';
import { loadSampleDatabase } from '../scripts/sample-database.ts';
import { startWriters } from '../scripts/writers.ts';
import { runAction } from './support/action.ts';
import { PgBouncer } from './support/pgbouncer.ts';
import { binOf, Cluster, majorsAvailable } from './support/postgres.ts';
import { TcpProxy } from './support/tcp-proxy.ts';

describe('a cluster', () => {
  for (const major of majorsAvailable()) {
    test(`of major ${major} serves its own programs and leaves nothing behind`, async () => {
      const cluster = await Cluster.start({ major, conf: { application_name: "it's" }, tls: true });
      await cluster.createDatabase('größe "x"');
      const [row] = await cluster.query('größe "x"', 'SELECT current_database() AS name, $1::int AS n', [7]);
      assert.deepEqual(row, { name: 'größe "x"', n: 7 });
      const { stdout } = await promisify(execFile)(
        join(binOf(major), 'psql'),
        ['-Atc', 'SHOW server_version_num', `${cluster.url('größe "x"')}?sslmode=verify-full`],
        { env: { PGSSLROOTCERT: cluster.certificate } },
      );
      assert.equal(Math.floor(Number(stdout) / 10_000), major);
      await cluster.stop();
      await cluster.stop();
      assert.ok(!existsSync(cluster.directory));
    });
  }

  test('dies with a test that is killed', async () => {
    const program = `
      import { Cluster } from ${JSON.stringify(import.meta.resolve('./support/postgres.ts'))};
      const cluster = await Cluster.start();
      console.log(cluster.directory);
      setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [directory] = (
      await new Promise<string>((resolve) => child.stdout.once('data', (d) => resolve(`${d}`)))
    ).split('\n');
    assert.ok(directory !== undefined && existsSync(directory));
    child.kill('SIGKILL');
    for (let i = 0; i < 100 && existsSync(directory); i += 1) await sleep(100);
    assert.ok(!existsSync(directory));
  });

  test('that is not installed is named', async () => {
    await assert.rejects(Cluster.start({ major: 9 }), /PostgreSQL 9 is not on this machine/);
  });
});

describe('between client and server', () => {
  let cluster: Cluster;
  before(async () => {
    cluster = await Cluster.start();
  });
  after(() => cluster.stop());

  test('the proxy relays, stalls, resumes and cuts', async () => {
    await using proxy = await TcpProxy.start(cluster);
    const client = new pg.Client(proxy.through(cluster.url('postgres')));
    const broken = new Promise<Error>((resolve) => client.on('error', resolve));
    await client.connect();
    assert.equal((await client.query('SELECT 1 AS n')).rows[0].n, 1);
    assert.ok(proxy.bytes.up > 0 && proxy.bytes.down > 0);

    proxy.stall();
    const answer = client.query("SELECT repeat('x', 5000000) AS text");
    assert.equal(await Promise.race([answer, sleep(300, 'silence')]), 'silence');
    proxy.resume();
    assert.equal((await answer).rows[0].text.length, 5_000_000);

    const lost = assert.rejects(client.query('SELECT pg_sleep(60)'));
    await sleep(50);
    proxy.cut();
    await lost;
    assert.match(String(await broken), /ECONNRESET|terminated/);
    assert.equal(proxy.accepted, 1);
  });

  for (const mode of ['transaction', 'session'] as const) {
    test(`pgbouncer pools by ${mode}`, async () => {
      await using pooler = await PgBouncer.start(cluster, { mode, settings: { default_pool_size: '1' } });
      const [one, two] = [new pg.Client(pooler.url('postgres')), new pg.Client(pooler.url('postgres'))];
      await one.connect();
      const pid = async (client: pg.Client): Promise<number> =>
        (await client.query('SELECT pg_backend_pid() AS pid')).rows[0].pid;
      const first = await pid(one);
      const second = two.connect().then(() => pid(two));
      if (mode === 'session') {
        assert.equal(
          await Promise.race([second, sleep(200, 'waits for the only server')]),
          'waits for the only server',
        );
        await one.end();
      }
      assert.equal(await second, first);
      await Promise.all([one, two].map((client) => client.end()));
    });
  }
});

describe('an action run as the runner does', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'pgassay-toy-'));
    await mkdir(join(folder, 'dist'));
    await writeFile(
      join(folder, 'action.yml'),
      `name: toy
inputs:
  database-url: { description: where }
  how many: { description: n, default: 3 }
  token: { description: t, default: "\${{ github.token }}" }
runs: { using: node24, main: dist/main.mjs, post: dist/post.mjs }
`,
    );
    await writeFile(
      join(folder, 'dist', 'main.mjs'),
      `import { appendFileSync, writeFileSync } from 'node:fs';
import { spawn } from 'node:child_process';
const e = process.env;
console.log('::add-mask::' + e['INPUT_DATABASE-URL'].replace(/\\n/g, '%0A'));
console.log('  saw ' + e['INPUT_DATABASE-URL'].split('\\n')[1] + ' ' + e.INPUT_HOW_MANY + ' [' + e.INPUT_TOKEN + '] ' + (e.SECRET_OF_DEVELOPER ?? 'clean'));
console.error('::error title=Oh%2C no::bad: line-two%0Aand more');
console.log('::unknown::stays');
appendFileSync(e.GITHUB_OUTPUT, 'plain=1\\nleak<<X\\na line-two b\\nX\\n');
appendFileSync(e.GITHUB_STATE, 'started=yes\\n');
appendFileSync(e.GITHUB_STEP_SUMMARY, '# line-two\\n');
writeFileSync(e.RUNNER_TEMP + '/left', '');
spawn('sleep', ['300'], { detached: true, stdio: 'ignore' }).unref();
if (e.WAIT) { process.on('SIGINT', () => { console.log('stopping'); process.exit(130); }); console.log('waiting'); setInterval(() => {}, 1000); }
else process.exitCode = 7;
`,
    );
    await writeFile(join(folder, 'dist', 'post.mjs'), `console.log('post ' + process.env.STATE_started);\n`);
  });
  after(() => rm(folder, { recursive: true, force: true }));

  test('gets its inputs, and its log, outputs and summary pass the masks', async () => {
    process.env.SECRET_OF_DEVELOPER = 'dirty';
    const run = await runAction(folder, { inputs: { 'database-url': 'line-one\nline-two' }, token: 'ghs_1' });
    assert.equal(run.exitCode, 7);
    assert.match(run.log, /^ {2}saw \*\*\* 3 \[\*\*\*\] clean$/m);
    assert.match(run.log, /^Error: bad: \*\*\*\nand more$/m);
    assert.match(run.log, /^::unknown::stays$/m);
    assert.match(run.rawLog, /line-two/);
    assert.deepEqual(run.outputs, { plain: '1' });
    assert.deepEqual(run.droppedOutputs, ['leak']);
    assert.equal(run.summary, '# ***\n');
    assert.deepEqual(run.annotations, [
      { level: 'error', message: 'bad: ***\nand more', properties: { title: 'Oh, no' } },
    ]);
    assert.equal(run.phases.post?.log, 'post yes\n');
    assert.deepEqual(run.leftovers, ['left']);
    if (process.platform === 'linux') assert.deepEqual(run.orphans, ['sleep 300']);
  });

  test('can be cancelled at a line of its log', async () => {
    const run = await runAction(folder, {
      inputs: { 'database-url': 'x\ny' },
      env: { WAIT: '1' },
      onLine: (line, step) => line === 'waiting' && step.cancel(),
    });
    assert.equal(run.exitCode, 130);
    assert.match(run.log, /stopping/);
    assert.equal(run.phases.post?.exitCode, 0);
  });

  test('refuses an input that action.yml does not know', async () => {
    await assert.rejects(runAction(folder, { inputs: { databaseurl: 'x' } }), /Unexpected input\(s\) 'databaseurl'/);
  });
});

describe('the sample database', () => {
  for (const major of majorsAvailable()) {
    test(`loads into ${major} and is written to without a pause`, async () => {
      await using cluster = await Cluster.start({ major });
      await cluster.createDatabase('shop');
      await loadSampleDatabase(cluster.url('shop'), { eventTrigger: true });
      const [orders] = await cluster.query('shop', 'SELECT count(*)::int AS n FROM shop.orders');
      assert.equal(orders?.n, 64_002);
      const sum = async (): Promise<string> =>
        (await cluster.query('shop', 'SELECT sum(balance) AS sum FROM shop.customers'))[0]?.sum;
      const before = await sum();
      const writers = await startWriters(cluster.url('shop'), 4);
      await sleep(1000);
      const { statements } = await writers.stop();
      assert.ok(statements > 100, `${statements} statements`);
      assert.equal(await sum(), before);
    });
  }
});
