import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { cli } from '../support/backup.ts';
import { backUp, createShop, descendants, filesIn, processes, repository, scratch, until } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';

const hook = join(repository, 'test', 'support', 'crash-point.ts');

let cluster: Cluster;
before(async () => {
  cluster = await Cluster.start();
  await createShop(cluster, 'shop', 3000);
});
after(() => cluster?.stop());

interface Crashed {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** The launcher without its post step, killed after `afterMs` where that is given. */
async function run(store: string, env: Record<string, string> = {}, afterMs?: number): Promise<Crashed> {
  const temporary = await scratch();
  const child = spawn(process.execPath, [join(repository, 'dist', 'backup.js')], {
    env: {
      PATH: '/usr/bin:/bin',
      RUNNER_TEMP: temporary,
      'INPUT_DATABASE-URL': cluster.url('shop'),
      INPUT_STORE: `file://${store}`,
      INPUT_NAME: 'shop',
      INPUT_RETRIES: '0',
      ...env,
    },
    stdio: 'ignore',
  });
  const children: number[] = [];
  if (afterMs !== undefined)
    setTimeout(() => {
      children.push(...descendants(child.pid ?? -1).map(({ pid }) => pid));
      child.kill('SIGKILL');
    }, afterMs);
  const ended = await new Promise<Crashed>((resolve) =>
    child.once('close', (code, signal) => resolve({ code, signal })),
  );
  // Its programs lose their pipes and end by themselves.
  await until(() => !processes().some(({ pid }) => children.includes(pid)) || undefined, 10);
  return ended;
}

interface Listed {
  readonly backups: readonly { readonly id: string }[];
}

async function list(store: string): Promise<string[]> {
  const result = await cli(['list', '--store', `file://${store}`, '--json']);
  assert.equal(result.exitCode, 0, result.stderr);
  assert.doesNotMatch(result.stderr, /damaged/);
  return (result.json as Listed).backups.map(({ id }) => id);
}

/** Whatever is listed is whole; nothing that was listed is lost. */
async function requireSound(store: string, known: Set<string>, where: string): Promise<void> {
  const listed = await list(store);
  for (const id of known) assert.ok(listed.includes(id), `${id} is lost after a crash ${where}`);
  for (const id of listed) {
    if (known.has(id)) continue;
    const verified = await cli(['verify', id, '--store', `file://${store}`]);
    assert.equal(verified.exitCode, 0, `after a crash ${where}: ${verified.stderr}`);
    known.add(id);
  }
}

describe('F27: the process is killed', () => {
  test('right before each of its steps in the file system', async () => {
    const counted = join(await scratch(), 'steps');
    // The first run of a store makes its folders, which takes more steps than every later one.
    const clean = await scratch();
    assert.equal((await run(clean)).code, 0);
    const whole = await run(clean, { NODE_OPTIONS: `--import ${hook}`, PGASSAY_TEST_STEPS: counted });
    assert.equal(whole.code, 0);
    const steps = (await readFile(counted, 'utf8')).split('\n');
    assert.equal(steps.filter((step) => step.startsWith('link ')).length, 4, steps.join(' '));
    assert.ok(steps.length >= 40, steps.join(' '));

    const store = await scratch();
    assert.equal((await run(store)).code, 0);
    const known = new Set<string>();
    let survived = 0;
    const moments = [...steps];
    const lanes = [0, 1].map(async () => {
      for (let step = moments.shift(); step !== undefined; step = moments.shift()) {
        const ended = await run(store, { NODE_OPTIONS: `--import ${hook}`, PGASSAY_TEST_CRASH_AT: step });
        // Chunks come as they like, so the last write may not be reached.
        if (ended.signal === null && step.startsWith('write ')) survived += 1;
        else assert.equal(ended.signal, 'SIGKILL', `before ${step}`);
      }
    });
    await Promise.all(lanes);
    assert.ok(survived < steps.length / 4, `${survived} of ${steps.length}`);
    await requireSound(store, known, 'in the file system');

    const next = await backUp(cluster.url('shop'), store);
    assert.equal(next.exitCode, 0, next.log);
    assert.equal((await list(store))[0], next.outputs['backup-id']);
  });

  test('at 20 moments spread over a run', async () => {
    const store = await scratch();
    const started = Date.now();
    assert.equal((await run(store)).code, 0);
    const normalMs = Date.now() - started;
    const known = new Set(await list(store));
    assert.equal(known.size, 1);
    let killed = 0;
    for (let moment = 1; killed < 20; moment++) {
      assert.ok(moment < 100, `only ${killed} runs of 100 were killed`);
      // Evenly spread however many it takes.
      const { signal } = await run(store, {}, normalMs * ((moment * 0.618) % 1));
      if (signal === 'SIGKILL') killed += 1;
    }
    await requireSound(store, known, 'in time');
    const next = await backUp(cluster.url('shop'), store);
    assert.equal(next.exitCode, 0, next.log);
  });

  test("the job's post step takes away what a killed run left", async () => {
    const store = await scratch();
    const first = await backUp(cluster.url('shop'), store);
    const before = await filesIn(store);
    for (const step of ['write 1', 'link 1', 'unlink 1', 'link 3', 'unlink 3', 'link 4', 'unlink 4']) {
      const env = { NODE_OPTIONS: `--import ${hook}`, PGASSAY_TEST_CRASH_AT: step };
      const result = await backUp(cluster.url('shop'), store, {}, { env });
      assert.equal(result.exitCode, 137, `${step}: ${result.log}`);
      assert.equal(result.phases.post?.exitCode, 0);
      assert.deepEqual(result.leftovers, [], step);
      const left = (await filesIn(store)).filter((file) => !before.includes(file));
      // The fourth link publishes the manifest: from then on it is a backup, which nobody may take away.
      if (step === 'unlink 4') {
        assert.deepEqual(
          left.map((file) => file.split('/')[2]),
          ['census.json', 'database.dump', 'manifest.json', 'roles.sql'],
        );
        await requireSound(store, new Set([first.outputs['backup-id'] ?? '']), 'after publishing');
      } else assert.deepEqual(left, [], step);
    }
  });
});
