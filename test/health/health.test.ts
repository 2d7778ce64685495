// Health as the runner and a terminal start it: real stores, GitHub's API on loopback, and what somebody reads afterwards.
import assert from 'node:assert/strict';
import { cp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Manifest } from '../../src/manifest.ts';
import { FolderStore } from '../../src/store/folder.ts';
import { type ActionOptions, type ActionResult, runAction } from '../support/action.ts';
import { cli, type Inputs, takeBackup } from '../support/backup.ts';
import { filesIn, repository, scratch } from '../support/faults.ts';
import { type ApiRequest, type Fault, type GitHubIssue, GitHubServer } from '../support/github.ts';
import { type Past, storeOpening, storePast, storeProof } from '../support/history.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';
import { S3Server } from '../support/s3.ts';
import { S3Proxy } from '../support/s3-faults.ts';
import { openS3 } from '../support/s3-store.ts';
import { keyPair, signingKey } from '../support/signing.ts';

const hour = 3_600_000;
const ago = (hours: number): Date => new Date(Date.now() - hours * hour);

async function folderStore(): Promise<FolderStore> {
  return new FolderStore(await scratch());
}

/** Nightly backups, the newest ten hours old. */
async function nightly(store: FolderStore, nights: number, past: Past = {}): Promise<Manifest[]> {
  const stored: Manifest[] = [];
  for (let night = nights - 1; night >= 0; night--) stored.push(await storePast(store, ago(10 + 24 * night), past));
  return stored;
}

const fileOf = (store: FolderStore, { name, id }: Manifest, file: string): string =>
  join(fileURLToPath(store.uri), name, id, file);

let server: GitHubServer;
let lastRun = 0;
before(async () => {
  server = await GitHubServer.start();
});
after(() => server?.[Symbol.asyncDispose]());
beforeEach(() => {
  server.fault = () => undefined;
  server.requests.length = 0;
});

function step(inputs: Inputs, options: Omit<ActionOptions, 'inputs'> = {}): Promise<ActionResult> {
  const { token, env } = server.step;
  lastRun += 1;
  const all = { ...env, GITHUB_RUN_ID: String(lastRun), ...options.env };
  return runAction(join(repository, 'health'), { token, ...options, inputs, env: all });
}
const alone = (inputs: Inputs): Promise<ActionResult> => step({ 'alert-issue': false, ...inputs });
const issuesOf = async (name: string): Promise<GitHubIssue[]> =>
  (await server.issues()).filter(({ title }) => title.startsWith(`${name}: `));
const reportOf = ({ outputs }: ActionResult): Report => JSON.parse(outputs.report ?? '') as Report;
const checksOf = (result: ActionResult): string[] => {
  const { findings, names } = reportOf(result);
  return [...findings, ...names.flatMap((each) => each.findings)].map((each) => `${each.severity} ${each.check}`);
};
interface Report {
  readonly status: string;
  readonly findings: readonly Finding[];
  readonly names: readonly {
    readonly name: string;
    readonly status: string;
    readonly latest: { readonly id: string; readonly sizeBytes: number };
    readonly proof: { readonly restoreSeconds: number } | null;
    readonly findings: readonly Finding[];
  }[];
}
interface Finding {
  readonly severity: string;
  readonly check: string;
  readonly object: string;
  readonly found: string;
}

describe('a store that is well', () => {
  test('is told in outputs, summary, log and metrics, and opens no issue', async () => {
    const store = await folderStore();
    const stored = await nightly(store, 4);
    const newest = stored[3] as Manifest;
    await storeProof(store, newest, { at: ago(5), result: 'passed', restoreSeconds: 42 });
    const metrics = join(await scratch(), 'pgassay.prom');
    const before = await filesIn(fileURLToPath(store.uri));
    const result = await step({ store: store.uri, 'max-proof-age': '8d', 'metrics-file': metrics, 'min-backups': 4 });
    assert.equal(result.exitCode, 0, result.log);
    const { status, backups, 'latest-backup-id': id, 'age-hours': age, 'issue-number': issue } = result.outputs;
    assert.deepEqual({ status, backups, id, issue }, { status: 'ok', backups: '4', id: newest.id, issue: '' });
    assert.match(age ?? '', /^10(\.0\d)?$/);
    assert.equal(result.outputs['total-bytes'], String(4 * newest.files.reduce((sum, { bytes }) => sum + bytes, 0)));
    assert.equal(reportOf(result).names[0]?.proof?.restoreSeconds, 42);
    assert.match(result.log, /shop: ok: newest 10 h ago \(\d+ B\), 4 backups, proven 5 h ago in 42 s/);
    assert.match(result.summary, /^### Backups of shop are as they should be\n\nNewest 10 h ago/);
    assert.match(result.summary, /xychart-beta/);
    assert.deepEqual(await server.issues(), []);
    assert.deepEqual(await filesIn(fileURLToPath(store.uri)), before);
    const text = await readFile(metrics, 'utf8');
    assert.match(text, /^pgassay_status\{name="shop"\} 0$/m);
    assert.match(text, /^pgassay_backup_age_seconds\{name="shop"\} 36\d\d\d$/m);
    assert.match(text, /^# UNIT pgassay_backup_size_bytes bytes$/m);
    assert.match(text, /^pgassay_restore_seconds\{name="shop"\} 42$/m);
    assert.match(text, /^pgassay_store_up 1$/m);
    assertOpenMetrics(text);
  });

  test('fail-on: a warning fails nothing, or the step, and opens no issue either way', async () => {
    const store = await folderStore();
    await storePast(store, ago(27), { name: 'late' });
    const passed = await step({ store: store.uri });
    assert.deepEqual([passed.exitCode, passed.outputs.status], [0, 'warning'], passed.log);
    assert.match(passed.summary, /### Backups of late are worth a look: age/);
    const failed = await step({ store: store.uri, 'fail-on': 'warning' });
    assert.equal(failed.exitCode, 70, failed.log);
    const never = await alone({ store: store.uri, 'critical-after': '26h', 'fail-on': 'never' });
    assert.deepEqual([never.exitCode, never.outputs.status], [0, 'critical']);
    assert.deepEqual(await issuesOf('late'), []);
  });
});

describe('what turns health critical opens one issue, and what mends it closes it', { concurrency: true }, () => {
  interface Case {
    readonly what: string;
    readonly check: string;
    readonly inputs?: Inputs;
    /** Stores backups of `name`, breaks them, and returns what mends it. */
    readonly break: (store: FolderStore, name: string) => Promise<() => Promise<unknown>>;
  }
  const again =
    (store: FolderStore, name: string, past: Past = {}) =>
    () =>
      storePast(store, ago(0.1), { name, ...past });
  const cases: readonly Case[] = [
    {
      ...{ what: 'no backup was taken', check: 'age' },
      break: async (store, name) => {
        await storePast(store, ago(40), { name });
        return again(store, name);
      },
    },
    {
      ...{ what: 'the database shrank', check: 'size' },
      break: async (store, name) => {
        for (const hours of [58, 34]) await storePast(store, ago(hours), { name, bytes: 5_000 });
        await storePast(store, ago(10), { name, bytes: 50 });
        return again(store, name, { bytes: 5_000 });
      },
    },
    {
      ...{ what: 'a table is gone', check: 'tables' },
      break: async (store, name) => {
        const tables = { users: 50, orders: 60 };
        await storePast(store, ago(34), { name, tables });
        await storePast(store, ago(10), { name, tables: { users: 50 } });
        return again(store, name, { tables });
      },
    },
    {
      ...{ what: 'a file is lost', check: 'damage' },
      break: async (store, name) => {
        const [old] = await nightly(store, 2, { name });
        const path = fileOf(store, old as Manifest, 'database.dump');
        const content = await readFile(path);
        await rm(path);
        return () => writeFile(path, content);
      },
    },
    {
      ...{ what: 'restore tests are skipped', check: 'restore test', inputs: { 'max-proof-age': '8d' } },
      break: async (store, name) => {
        const [old, newest] = await nightly(store, 10, { name });
        await storeProof(store, old as Manifest, { at: ago(9 * 24), result: 'passed' });
        return () => storeProof(store, newest as Manifest, { at: ago(1), result: 'passed' });
      },
    },
  ];
  for (const [at, each] of cases.entries())
    test(each.what, async () => {
      const name = `case${at}`;
      const store = await folderStore();
      const mend = await each.break(store, name);
      const inputs = { store: store.uri, names: name, ...each.inputs };
      const red = await step(inputs);
      assert.deepEqual([red.exitCode, red.outputs.status], [70, 'critical'], red.log);
      assert.deepEqual(checksOf(red), [`critical ${each.check}`]);
      const [issue, ...more] = await issuesOf(name);
      assert.deepEqual([issue?.state, more.length], ['open', 0], red.log);
      assert.equal(issue?.title, `${name}: health is critical: 1 finding`);
      assert.equal(red.outputs['issue-number'], String(issue?.number));
      assert.match(issue?.body ?? '', /hint: .+/);
      // Six hours later the same is wrong: nobody needs to hear it again.
      assert.equal((await step(inputs)).exitCode, 70);
      assert.deepEqual(await server.comments(issue?.number ?? 0), []);
      await mend();
      const green = await step(inputs);
      assert.deepEqual([green.exitCode, green.outputs.status], [0, 'ok'], green.log);
      const after = await issuesOf(name);
      assert.deepEqual(
        after.map(({ state }) => state),
        ['closed'],
      );
      assert.match((await server.comments(issue?.number ?? 0))[0]?.body ?? '', /healthy again/);
    });
});

describe('the workflow that takes the backups', () => {
  /** GitHub's answers about `nightly.yml`. */
  const workflows =
    (state: string | undefined, runs: readonly object[], more: (path: string) => Fault | undefined = () => undefined) =>
    ({ path }: ApiRequest): Fault | undefined => {
      const told = more(path);
      if (told !== undefined) return told;
      if (path.includes('/runs?')) return { status: 200, answer: { total_count: runs.length, workflow_runs: runs } };
      if (path.includes('/actions/workflows/'))
        return state === undefined ? { status: 404 } : { status: 200, answer: { name: 'Nightly', state } };
      if (path.includes('/contents/')) return { status: 200, answer: [{ name: 'nightly.yml' }] };
      return undefined;
    };
  const run = (id: number, at: Date, conclusion = 'success'): object => ({
    ...{
      id,
      created_at: at.toISOString().replace(/\.\d+Z/, 'Z'),
      conclusion,
      status: 'completed',
      head_branch: 'main',
    },
  });
  const source = (runId: string): Past => ({
    more: {
      source: {
        ...{ repository: 'octo/backups', workflow: 'Nightly', runId, runAttempt: '1', runUrl: '', sha: '' },
      },
    },
  });

  test('disabled for inactivity: critical at once, in the one issue of the one name; enabled: closed', async () => {
    const store = await folderStore();
    await storePast(store, ago(10), { name: 'watched', ...source('900') });
    const inputs = { store: store.uri, workflows: 'nightly.yml' };
    server.fault = workflows('disabled_inactivity', [run(900, ago(10.1))]);
    const red = await step(inputs);
    assert.equal(red.exitCode, 70, red.log);
    assert.match(
      red.log,
      /workflow nightly\.yml: expected enabled, found disabled_inactivity\n.*gh workflow enable nightly\.yml/,
    );
    assert.deepEqual(
      (await issuesOf('watched')).map(({ state }) => state),
      ['open'],
    );
    assert.deepEqual(await issuesOf('all names'), []);
    server.fault = workflows('active', [run(900, ago(10.1))]);
    const green = await step(inputs);
    assert.deepEqual([green.exitCode, green.outputs.status], [0, 'ok'], green.log);
    assert.deepEqual(
      (await issuesOf('watched')).map(({ state }) => state),
      ['closed'],
    );
  });

  test('a green run without a backup, a workflow that is gone, and one of several names: one issue for all', async () => {
    const store = await folderStore();
    await storePast(store, ago(10), { name: 'one', ...source('900') });
    await storePast(store, ago(10), { name: 'two', ...source('900') });
    const inputs = { store: store.uri, workflows: 'nightly.yml' };
    server.fault = workflows('active', [run(901, ago(1)), run(900, ago(10.1))]);
    const empty = await step(inputs);
    assert.match(empty.log, /run 901 of nightly\.yml: expected a backup, as it ended well, found none in this store/);
    assert.deepEqual(
      reportOf(empty).names.map(({ status }) => status),
      ['ok', 'ok'],
    );
    server.fault = workflows(undefined, []);
    const gone = await step(inputs);
    assert.deepEqual([gone.exitCode, checksOf(gone)], [70, ['critical workflow']]);
    const [issue, ...more] = await issuesOf('all names');
    assert.deepEqual([issue?.state, more.length], ['open', 0]);
    assert.match(issue?.body ?? '', /The health of the backups of all names is critical/);
    assert.equal((await server.comments(issue?.number ?? 0)).length, 1, 'the judgement changed once');
    server.fault = workflows('active', [run(900, ago(10.1))]);
    assert.equal((await step(inputs)).exitCode, 0);
    assert.deepEqual(
      (await issuesOf('all names')).map(({ state }) => state),
      ['closed'],
    );
    assert.deepEqual([...(await issuesOf('one')), ...(await issuesOf('two'))], []);
  });

  test('GitHub refuses or fails to tell: a warning with the permission, and the verdict on the store stands', async () => {
    const store = await folderStore();
    await storePast(store, ago(10));
    const refused = (path: string): Fault | undefined => (path.includes('/actions/') ? { status: 403 } : undefined);
    server.fault = workflows('active', [], refused);
    const result = await alone({ store: store.uri, workflows: 'nightly.yml\nocto/other/nightly.yml' });
    assert.deepEqual([result.exitCode, checksOf(result)], [0, ['warning workflow', 'warning workflow']], result.log);
    assert.match(result.log, /permissions:\n +actions: read/);
    assert.ok(server.requests.some(({ path }) => path.startsWith('/repos/octo/other/actions/workflows/nightly.yml')));
    const tokenless = await alone({ store: store.uri, workflows: 'nightly.yml', 'github-token': '' });
    assert.match(tokenless.log, /input: github-token: is empty/);
  });
});

describe('several names', () => {
  test('are judged in one run, each with an issue of its own, and one that vanished is missed', async () => {
    const store = await folderStore();
    await storePast(store, ago(10), { name: 'fine' });
    await storePast(store, ago(40), { name: 'stale' });
    const names = 'fine\nstale\nvanished';
    const red = await step({ store: store.uri, names });
    assert.equal(red.exitCode, 70, red.log);
    assert.match(
      red.log,
      /verify: 2 things about the backups are critical\n +stale: newest backup: .*\n +vanished: newest backup: expected one, found there is none/,
    );
    const open = async (): Promise<string[]> =>
      (await server.issues()).flatMap(({ title, state }) => (state === 'open' ? [title.split(':')[0] ?? ''] : []));
    assert.deepEqual(await open(), ['stale', 'vanished']);
    assert.equal(red.outputs['issue-number']?.split(',').length, 2);
    assert.equal(red.outputs['latest-backup-id'], '');
    assert.match(red.summary, /\| `fine` \| ok \| 10 h ago/);
    await storePast(store, ago(1), { name: 'stale' });
    await step({ store: store.uri, names });
    assert.deepEqual(await open(), ['vanished']);
    // Without names nobody misses it, and nobody says that it is well.
    server.requests.length = 0;
    const found = await step({ store: store.uri });
    assert.deepEqual([found.exitCode, found.outputs.backups], [0, '3'], found.log);
    assert.deepEqual(await open(), ['vanished']);
    const asked = server.requests.filter(({ path }) => path.includes('/issues'));
    assert.equal(asked.length, 1, 'one list tells that no name has an issue');
  });

  test('F34: what GitHub refuses is one warning, however many names there are, and changes no verdict', async () => {
    const store = await folderStore();
    for (const name of ['a', 'b', 'c']) await storePast(store, ago(40), { name });
    server.fault = ({ path }) => (path.includes('/issues') ? { status: 403 } : undefined);
    const result = await step({ store: store.uri });
    assert.equal(result.exitCode, 70, result.log);
    const warnings = result.annotations.filter(({ level }) => level === 'warning');
    assert.deepEqual(
      warnings.map(({ message }) => /permissions:\n {2}issues: write/.test(message)),
      [true],
    );
  });

  test('none at all is critical', async () => {
    const store = await folderStore();
    const result = await alone({ store: store.uri });
    assert.deepEqual([result.exitCode, checksOf(result)], [70, ['critical store']], result.log);
    assert.match(result.log, /hint: check the address/);
  });
});

test('of a public repository, names and counts are withheld in issue and summary', async () => {
  const store = await folderStore();
  await storePast(store, ago(34), { name: 'open', tables: { users: 50, salaries: 60 } });
  await storePast(store, ago(10), { name: 'open', tables: { users: 50 } });
  const event = { repository: { private: false, visibility: 'public' } };
  const result = await step({ store: store.uri }, { event });
  assert.equal(result.exitCode, 70);
  const [issue] = await issuesOf('open');
  assert.match(
    result.summary,
    /### Backups of open are in a critical state: tables[\s\S]*\| critical \| tables \| if nobody dropped it/,
  );
  for (const text of [issue?.body ?? '', result.summary])
    for (const word of ['salaries', '60', 'file:///', '2 backups']) assert.ok(!text.includes(word), word);
});

test('a store that cannot be read has its own exit code, is critical, opens one issue, and says so in the metrics', async () => {
  const metrics = join(await scratch(), 'pgassay.prom');
  const root = join(await scratch(), 'a-file');
  await writeFile(root, '');
  const store = `file://${root}`;
  const result = await step({ store, names: 'lost\nfound', 'metrics-file': metrics });
  assert.equal(result.exitCode, 30, result.log);
  assert.equal(result.outputs.status, 'critical');
  assert.match(await readFile(metrics, 'utf8'), /^pgassay_store_up 0$/m);
  const [issue, ...more] = await issuesOf('all names').then((all) => all.filter(({ state }) => state === 'open'));
  assert.match(issue?.title ?? '', /the store failed/);
  assert.equal(more.length, 0);
  await rm(root);
  const fixed = new FolderStore(root);
  for (const name of ['lost', 'found']) await storePast(fixed, ago(1), { name });
  const green = await step({ store, names: 'lost\nfound' });
  assert.equal(green.exitCode, 0, green.log);
  assert.deepEqual(
    (await issuesOf('all names')).filter(({ state }) => state === 'open'),
    [],
  );
});

describe('the inputs', () => {
  test('are all told when they are wrong', async () => {
    const result = await alone({
      ...{ store: 'file:///srv/backups', names: '../x', 'warn-after': '26', 'max-shrink': 'half', 'min-backups': 0 },
      ...{ integrity: 'some', workflows: 'nightly', 'fail-on': 'red', 'max-proof-age': '0d' },
    });
    assert.equal(result.exitCode, 2);
    for (const name of [
      'names',
      'warn-after',
      'max-shrink',
      'min-backups',
      'integrity',
      'workflows',
      'fail-on',
      'max-proof-age',
    ])
      assert.match(result.log, new RegExp(`  ${name}: `), name);
  });
});

describe('with keys', () => {
  test('of verify-key, a newer backup by somebody else is critical and hides nothing', async () => {
    const [ours, theirs] = await Promise.all([keyPair(), keyPair()]);
    const store = await folderStore();
    const signing = signingKey(ours);
    const real = await storePast(store, ago(40), { signing });
    await storePast(store, ago(2), { signing: signingKey(theirs) });
    const result = await alone({ store: store.uri, 'verify-key': ours.publicKey });
    assert.equal(result.exitCode, 70, result.log);
    assert.equal(result.outputs['latest-backup-id'], real.id);
    assert.deepEqual(checksOf(result).sort(), ['critical age', 'critical damage']);
    assert.equal((await alone({ store: store.uri })).exitCode, 0);
  });

  test('of proof-verify-key, a restore test that the tester did not sign does not count', async () => {
    const tester = await keyPair();
    const store = await folderStore();
    const backup = await storePast(store, ago(10));
    await storeProof(store, backup, { at: ago(3), result: 'passed' });
    const inputs = { store: store.uri, 'max-proof-age': '8d', 'proof-verify-key': tester.publicKey };
    assert.deepEqual(checksOf(await alone(inputs)), ['critical restore test']);
    await storeProof(store, backup, { at: ago(2), result: 'passed', signing: signingKey(tester) });
    assert.deepEqual(checksOf(await alone(inputs)), []);
  });
});

describe('max-recovery-key-age', () => {
  const [drill, recovery] = [`age1${'d'.repeat(58)}`, `age1${'r'.repeat(58)}`];
  const past: Past = { recipients: [drill, recovery] };
  /** Health and the page, which say the same. */
  const both = async (store: FolderStore, inputs: Record<string, string>): Promise<string[]> => {
    const all = { 'max-recovery-key-age': '100d', ...inputs };
    const judged = await alone({ store: store.uri, ...all });
    const flags = Object.entries(all).flatMap(([name, value]) => [`--${name}`, value]);
    const out = await scratch();
    const paged = await cli(['report', '--store', store.uri, '--out', out, '--json', ...flags]);
    assert.equal(paged.exitCode, 0, paged.stderr);
    const findings = reportOf(judged).names.flatMap((each) => each.findings);
    const told = (paged.json as Report).names.flatMap((each) => each.findings);
    assert.deepEqual(
      told.map(({ object, found }) => `${object}: ${found}`),
      findings.map(({ object, found }) => `${object}: ${found}`),
    );
    return findings.map(({ check, object }) => `${check} ${object}`);
  };

  test('a record of a key is found behind more than sixty restore tests with another', async () => {
    const store = await folderStore();
    const all = await nightly(store, 70, past);
    for (const [at, manifest] of all.entries())
      await storeProof(store, manifest, { at: ago(24 * (70 - at) - 16), result: 'passed', recipient: drill });
    assert.deepEqual(await both(store, {}), [`keys the secret key of ${recovery}`]);
    await storeOpening(store, all[0] as Manifest, { at: ago(24 * 70 - 20), recipient: recovery });
    assert.deepEqual(await both(store, {}), []);
    assert.deepEqual(await both(store, { 'max-recovery-key-age': '60d' }), [`keys the secret key of ${recovery}`]);
  });

  test('restore tests with different keys on different days count for each, and an old record under a new name for none', async () => {
    const store = await folderStore();
    const [first, second, third] = (await nightly(store, 3, past)) as [Manifest, Manifest, Manifest];
    await storeProof(store, first, { at: ago(50), result: 'passed', recipient: recovery });
    await storeProof(store, second, { at: ago(30), result: 'passed', recipient: drill });
    assert.deepEqual(await both(store, {}), []);
    await storeProof(store, third, { at: ago(2), result: 'failed', recipient: drill });
    const drilled = { 'max-recovery-key-age': '40h' };
    const failed = `restore test restore test of ${third.id}`;
    assert.deepEqual(await both(store, drilled), [failed, `keys the secret key of ${recovery}`]);
    await storeOpening(store, third, { at: ago(45), recipient: recovery });
    const proofs = await readdir(fileOf(store, third, 'proofs'));
    await cp(fileOf(store, third, `proofs/${proofs[0]}`), fileOf(store, third, `proofs/20991231T000000Z.json`));
    assert.deepEqual(await both(store, drilled), [failed, `keys the secret key of ${recovery}`]);
    await storeOpening(store, third, { at: ago(1), recipient: recovery });
    assert.deepEqual(await both(store, drilled), [failed]);
  });

  test('of proof-verify-key, what the tester did not sign does not count', async () => {
    const tester = await keyPair();
    const store = await folderStore();
    const [only] = (await nightly(store, 1, past)) as [Manifest];
    await storeProof(store, only, { at: ago(3), result: 'passed', recipient: drill, signing: signingKey(tester) });
    await storeOpening(store, only, { at: ago(2), recipient: recovery });
    const inputs = { 'proof-verify-key': tester.verify };
    assert.deepEqual(await both(store, inputs), [`keys the secret key of ${recovery}`]);
    await storeOpening(store, only, { at: ago(1), recipient: recovery, signing: signingKey(tester) });
    assert.deepEqual(await both(store, inputs), []);
  });
});

describe('the command health', () => {
  test('prints what is wrong and what to do, or JSON, and exits with 70', async () => {
    const store = await folderStore();
    const [, newest] = await nightly(store, 2);
    const flags = ['health', '--store', store.uri];
    const text = await cli(flags);
    assert.equal(text.exitCode, 0, text.stderr);
    assert.match(text.stdout, /^file:.*: everything is as it should be, 1 name\nshop: ok: newest 10 h ago/);
    // As long as before, with another byte: only who reads it knows.
    await writeFile(fileOf(store, newest as Manifest, 'database.dump'), Buffer.alloc(100, 8));
    assert.equal((await cli(flags)).exitCode, 0);
    const metrics = join(await scratch(), 'm.prom');
    const full = await cli([...flags, '--integrity', 'full', '--json', '--metrics', metrics]);
    assert.equal(full.exitCode, 70, full.stderr);
    assert.match(
      full.stderr,
      /^verify: one thing about the backups is critical\n.*database\.dump does not have the SHA-256/m,
    );
    const { status, names } = full.json as Report;
    assert.deepEqual([status, names[0]?.findings[0]?.object], ['critical', `backup ${newest?.id}`]);
    assert.match(await readFile(metrics, 'utf8'), /^pgassay_status\{name="shop"\} 2$/m);
    await rm(fileOf(store, newest as Manifest, 'database.dump'));
    const none = await cli([...flags, '--integrity', 'none', '--json']);
    assert.equal(none.exitCode, 70, 'the newest that could be restored is too old');
    assert.deepEqual(
      (none.json as Report).names[0]?.findings.map(({ check }) => check),
      ['age'],
    );
    assert.equal(
      (await cli([...flags, '--integrity', 'none', '--critical-after', '40h', '--warn-after', '40h'])).exitCode,
      0,
    );
    const nowhere = await cli([...flags, '--metrics-file', '/nonexistent/m.prom', '--fail-on', 'never']);
    assert.equal(nowhere.exitCode, 20, nowhere.stderr);
  });
});

test('a real database: partitions may come and go; a dropped table is critical, by its name', async () => {
  await using cluster = await Cluster.start({ major: majorsAvailable().at(-1) ?? 0 });
  await cluster.createDatabase('shop');
  await cluster.query(
    'shop',
    `CREATE TABLE "Odd name" AS SELECT 1 AS a;
     CREATE TABLE events (at int) PARTITION BY RANGE (at);
     CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (1) TO (2);
     CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (2) TO (3);
     INSERT INTO events VALUES (1), (2)`,
  );
  const { store } = await takeBackup(cluster, 'shop');
  await cluster.query(
    'shop',
    'DROP TABLE events_1; CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM (3) TO (4)',
  );
  await takeBackup(cluster, 'shop', { store });
  const rolled = await alone({ store });
  assert.deepEqual([rolled.exitCode, checksOf(rolled)], [0, []], rolled.log);
  await cluster.query('shop', 'DROP TABLE "Odd name"');
  await takeBackup(cluster, 'shop', { store });
  const dropped = await alone({ store });
  assert.equal(dropped.exitCode, 70, dropped.log);
  assert.match(
    dropped.log,
    /assayed: public\."Odd name": expected a table with 1 row, as in the backup before, found no such table/,
  );
});

describe('in S3', () => {
  let s3: S3Server;
  before(async () => {
    s3 = await S3Server.start();
    await s3.createBucket('plain');
    await s3.createBucket('versioned', { versioning: true });
  });
  after(() => s3?.stop());
  const inputs = (bucket: string, endpoint: string): Inputs => ({
    ...{ store: `s3://${bucket}/nightly`, 's3-endpoint': endpoint, 's3-access-key-id': s3.accessKeyId },
    's3-secret-access-key': s3.secretAccessKey,
  });

  test('it only reads, with one request for each backup and five more', async () => {
    const store = openS3(s3, 'plain');
    for (let night = 11; night >= 0; night--) await storePast(store, ago(10 + 24 * night));
    const newest = (await storePast(store, ago(0.2))) as Manifest;
    await storeProof(store, newest, { at: ago(0.1), result: 'passed' });
    await using proxy = await S3Proxy.start(s3);
    const result = await alone({ ...inputs('plain', proxy.endpoint), 'max-proof-age': '1d' });
    assert.deepEqual([result.exitCode, result.outputs.backups], [0, '13'], result.log);
    assert.deepEqual(new Set(proxy.requests.map(({ method }) => method)), new Set(['GET']));
    // Two lists, two censuses, a proof.
    assert.equal(proxy.requests.length, 13 + 5, proxy.requests.map(({ operation }) => operation).join());
  });

  test('a manifest that somebody hid is critical, a clock that is off a warning, both by the store', async () => {
    const store = openS3(s3, 'versioned');
    const old = await storePast(store, ago(30));
    await storePast(store, ago(2));
    await using proxy = await S3Proxy.start(s3);
    proxy.skewMs = 7 * 60_000;
    const skewed = await alone(inputs('versioned', proxy.endpoint));
    assert.deepEqual([skewed.exitCode, checksOf(skewed)], [0, ['warning clock']], skewed.log);
    assert.match(skewed.log, /this machine's clock: .*found 7 min behind/);
    await s3.delete('versioned', `nightly/shop/${old.id}/manifest.json`);
    const hidden = await alone(inputs('versioned', s3.endpoint));
    assert.deepEqual([hidden.exitCode, checksOf(hidden)], [70, ['critical damage']], hidden.log);
  });

  test('refused credentials have their own exit code and name the permission', async () => {
    await using proxy = await S3Proxy.start(s3);
    proxy.fail('*', { kind: 'status', status: 403, code: 'AccessDenied' }, { times: Infinity });
    const result = await alone(inputs('plain', proxy.endpoint));
    assert.equal(result.exitCode, 31, result.log);
    assert.match(result.log, /s3:ListBucket/);
    assert.equal(result.outputs.status, 'critical');
  });
});

/** The text format's own rules: families in one piece, each with its type, samples below them, an end. */
function assertOpenMetrics(text: string): void {
  assert.ok(text.endsWith('\n# EOF\n'));
  let family = '';
  const seen = new Set<string>();
  for (const line of text.trimEnd().split('\n').slice(0, -1)) {
    const [, kind, name = ''] = /^# (TYPE|UNIT|HELP) (\w+) \S/.exec(line) ?? [];
    if (kind === 'TYPE') {
      assert.ok(!seen.has(name), `${name} twice`);
      seen.add(name);
      family = name;
    } else if (kind === 'UNIT') assert.ok(family === name && name.endsWith(`_${line.split(' ')[3]}`), line);
    else if (kind === 'HELP') assert.equal(name, family);
    else {
      const [, metric, value = ''] = /^(\w+)(?:\{name="(?:[^"\\\n]|\\.)*"\})? (\S+)$/.exec(line) ?? [];
      assert.ok(metric === family && Number.isFinite(Number(value)), line);
    }
  }
}
