import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import type { ActionOptions, ActionResult } from '../support/action.ts';
import { clientBin, type Inputs, tryBackup } from '../support/backup.ts';
import { errorOf, programBelow, scratch, startBackup, until, wrapped } from '../support/faults.ts';
import { type Fault, GitHubServer } from '../support/github.ts';
import { Cluster } from '../support/postgres.ts';

const password = 'Tr0ub4dor&3';

describe('a scheduled backup, as the runner starts it', () => {
  let cluster: Cluster;
  let server: GitHubServer;
  let store: string;
  before(async () => {
    [cluster, server] = await Promise.all([Cluster.start(), GitHubServer.start()]);
    await cluster.createDatabase('shop');
    await cluster.query(
      'shop',
      `CREATE TABLE "<!-- @everyone [x](https://evil.example) -->" (id int);
       INSERT INTO "<!-- @everyone [x](https://evil.example) -->" VALUES (1), (2);
       CREATE ROLE stranger LOGIN PASSWORD '${password}'`,
    );
  });
  after(() => Promise.all([cluster?.stop(), server?.[Symbol.asyncDispose]()]));
  beforeEach(async () => {
    server.fault = () => undefined;
    server.requests.length = 0;
    store = `file://${await scratch()}`;
  });

  function run(runId: string, inputs: Inputs = {}, options: Omit<ActionOptions, 'inputs'> = {}): Promise<ActionResult> {
    const { token, env } = server.step;
    return tryBackup(
      cluster,
      'shop',
      { store, name: 'shop', retries: 0, ...inputs },
      { token, ...options, env: { ...env, GITHUB_RUN_ID: runId, ...options.env } },
    );
  }
  const unreadable = (): Inputs => ({
    'database-url': cluster.url('shop').replace(/\/\/[^@/]*@?/, `//stranger:${encodeURIComponent(password)}@`),
  });
  const warningsOf = ({ annotations }: ActionResult): string[] =>
    annotations.filter(({ level }) => level === 'warning').map(({ message }) => message);
  const numberOf = async (): Promise<number> => (await server.issues()).length;

  test('fails, is started again, fails again, then passes: one issue, opened, commented and closed', async () => {
    const before = await numberOf();
    const first = await run('100', unreadable());
    assert.equal(first.exitCode, 12, first.log);
    const issue = (await server.issues()).at(-1);
    assert.equal(issue?.state, 'open');
    assert.equal(issue.title, 'shop: backup failed: the role may not read everything');
    assert.equal(issue.user.login, 'github-actions[bot]');
    assert.match(issue.body, /```text\npreflight: role .*stranger[\s\S]+GRANT SELECT[\s\S]+```/);
    assert.match(issue.body, /stage preflight, exit code 12/);
    assert.match(issue.body, /\(https:\/\/github\.com\/octo\/backups\/actions\/runs\/100\)/);
    assert.ok(!issue.body.includes('<!-- @everyone'), 'a table cannot pass for a mark');

    await run('100', unreadable(), { env: { GITHUB_RUN_ATTEMPT: '2' } });
    assert.deepEqual(await server.comments(issue.number), []);

    const second = await run('101', unreadable());
    assert.equal(second.exitCode, 12);
    assert.match((await server.comments(issue.number))[0]?.body ?? '', /failed again[\s\S]+2 failed runs since/);

    const third = await run('102');
    assert.equal(third.exitCode, 0, third.log);
    const comments = await server.comments(issue.number);
    assert.equal(comments.length, 2);
    assert.match(comments[1]?.body ?? '', new RegExp(`works again.*\`${third.outputs['backup-id']}\`.*It took`));
    assert.equal((await server.issues()).at(-1)?.state, 'closed');
    assert.equal(await numberOf(), before + 1);

    await run('103');
    assert.equal((await server.comments(issue.number)).length, 2);
    for (const result of [first, second, third]) {
      assert.deepEqual(warningsOf(result), []);
      assert.ok(!result.log.includes(server.jobToken));
      assert.ok(result.masks.includes(server.jobToken));
      assert.ok(!JSON.stringify([result.outputs, result.summary]).includes(server.jobToken));
    }
    for (const text of [issue.body, ...comments.map(({ body }) => body)])
      for (const secret of [password, encodeURIComponent(password), server.jobToken]) assert.ok(!text.includes(secret));
  });

  test('two jobs of one run that fail at once leave one open issue', async () => {
    const inputs = { ...unreadable(), name: 'twice' };
    await Promise.all([run('200', inputs), run('200', inputs)]);
    const open = (await server.issues()).filter(({ state, title }) => state === 'open' && title.startsWith('twice: '));
    assert.equal(open.length, 1);
    assert.deepEqual(await server.comments(open[0]?.number ?? 0), []);
  });

  test('a missing secret is told too, as long as store and name can be read', async () => {
    const before = await numberOf();
    const result = await run('300', { 'database-url': '', name: 'empty', 'alert-issue': 'auto' });
    assert.equal(result.exitCode, 2);
    const issue = (await server.issues()).at(-1);
    assert.equal(issue?.title, 'empty: backup failed: an input is wrong');
    assert.match(issue.body, /input: database-url/);
    const nameless = await run('301', { 'database-url': '', name: '-' });
    assert.match(warningsOf(nameless).join('\n'), /needs a store and a name that can be read/);
    assert.equal(await numberOf(), before + 1);
  });

  test('tells nothing when it was started by hand, or is not to; tells when it is to', async () => {
    const before = await numberOf();
    const byHand = { env: { GITHUB_EVENT_NAME: 'workflow_dispatch' } };
    await run('400', { ...unreadable(), name: 'manual' }, byHand);
    await run('401', { ...unreadable(), name: 'manual', 'alert-issue': false });
    const silent = await run('402', { ...unreadable(), name: 'manual', 'github-token': '' });
    assert.match(silent.log, /no issue is opened: github-token is empty/);
    assert.equal(server.requests.length, 0);
    await run('403', { ...unreadable(), name: 'manual', 'alert-issue': true }, byHand);
    assert.equal(await numberOf(), before + 1);
  });

  test('F34: without the permission it ends as it would have, and the warning has the YAML', async () => {
    server.fault = () => ({ status: 403, message: 'Resource not accessible by integration' });
    const failing = await run('500', unreadable());
    assert.equal(failing.exitCode, 12);
    assert.match(errorOf(failing), /^preflight: role/);
    assert.match(warningsOf(failing).join('\n'), /\npermissions:\n {2}issues: write\n/);
    const passing = await run('501');
    assert.equal(passing.exitCode, 0);
    assert.match(passing.outputs['backup-id'] ?? '', /Z-/);
    assert.match(warningsOf(passing).join('\n'), /issues: write/);
  });

  test('F34: whatever else GitHub does, the run ends with its own exit code', async () => {
    const faults: Fault[] = [{ status: 404 }, { status: 410 }, { status: 422 }, { status: 429 }, 'reset', 'not json'];
    for (const fault of faults) {
      server.fault = () => fault;
      const result = await run('510', unreadable());
      assert.equal(result.exitCode, 12, JSON.stringify(fault));
      assert.equal(warningsOf(result).length, 1, result.log);
    }
  });

  test('F34: an API that never answers costs half a minute at most', async () => {
    server.fault = () => 'silence';
    const began = Date.now();
    const result = await run('520', unreadable());
    assert.equal(result.exitCode, 12);
    assert.match(warningsOf(result).join('\n'), /GitHub did not answer in time/);
    assert.ok(Date.now() - began < 40_000, `${Date.now() - began} ms`);
  });

  test('a cancelled run tells nothing, and one that is cancelled while it tells ends at once', async () => {
    const { token, env } = server.step;
    const before = await numberOf();
    const slow = { 'client-bin': await wrapped(cluster, { pg_dump: 'sleep 60' }) };
    const dumping = await startBackup(cluster.url('shop'), await scratch(), slow, { token, env });
    await programBelow(dumping.pid, 'sleep');
    process.kill(dumping.pid, 'SIGINT');
    assert.equal((await dumping.done).exitCode, 130);
    assert.equal(await numberOf(), before);

    server.fault = () => 'silence';
    server.requests.length = 0;
    const missing = cluster.url('shop').replace(/\/shop/, '/missing');
    const telling = await startBackup(missing, await scratch(), clientBin(cluster), { token, env });
    await until(() => server.requests.length > 0 || undefined);
    const began = Date.now();
    process.kill(telling.pid, 'SIGINT');
    assert.equal((await telling.done).exitCode, 10);
    assert.ok(Date.now() - began < 4_000, `${Date.now() - began} ms`);
  });

  test('wrong alert inputs are told with all the others; a label that is too long is left out', async () => {
    const wrong = await run('600', { 'alert-details': 'maybe', 'notify-on': 'never', jobs: 3, 'alert-issue': false });
    assert.equal(wrong.exitCode, 2);
    for (const name of ['alert-details', 'notify-on', 'jobs']) assert.match(errorOf(wrong), new RegExp(`  ${name}: `));
    const long = await run('601', { ...unreadable(), name: 'long', 'alert-labels': `${'x'.repeat(51)}, ops` });
    assert.equal(long.exitCode, 12);
    assert.match(warningsOf(long).join('\n'), /a label has at most 50 characters/);
    assert.deepEqual(
      (await server.issues()).at(-1)?.labels.map(({ name }) => name),
      ['ops'],
    );
    const token = await run('602', { 'github-token': 'ghp_one\nghp_two' });
    assert.equal(token.exitCode, 2);
    assert.ok(!token.log.includes('ghp_one'));
  });

  describe('of a public repository', () => {
    const publicly = { event: { repository: { private: false, visibility: 'public' } } };

    test('withholds names, counts and the store in the issue, unless they are asked for', async () => {
      await run('700', { ...unreadable(), name: 'hidden' }, publicly);
      const hidden = (await server.issues()).at(-1);
      assert.equal(hidden?.title, 'hidden: backup failed: the role may not read everything');
      for (const word of ['stranger', 'everyone', '1 table', 'file:///', 'GRANT SELECT'])
        assert.ok(!hidden.body.includes(word), word);
      assert.match(hidden.body, /`alert-details: true` shows them/);
      await run('701', { ...unreadable(), name: 'shown', 'alert-details': true }, publicly);
      assert.match((await server.issues()).at(-1)?.body ?? '', /stranger/);
    });

    test('withholds them in the job summary too', async () => {
      const hidden = await run('710', { name: 'hidden' }, publicly);
      assert.equal(hidden.exitCode, 0, hidden.log);
      assert.match(hidden.summary, /Backup of hidden is whole and stored/);
      assert.match(hidden.summary, /`alert-details: true` shows them/);
      assert.doesNotMatch(hidden.summary, /2 rows|1 table|\bkB\b|\bMB\b|bytes/);
      const shown = await run('711', { name: 'hidden', 'alert-details': true }, publicly);
      assert.match(shown.summary, /1 table, 2 rows/);
    });

    test('is asked about where the event does not say, and counts as public when nobody does', async () => {
      const silent = { event: { schedule: '23 2 * * *' } };
      assert.match((await run('720', {}, silent)).summary, /1 table, 2 rows/);
      assert.ok(server.requests.some(({ path }) => path === '/repos/octo/backups'));
      server.fault = ({ path }) => (path === '/repos/octo/backups' ? { status: 404 } : undefined);
      assert.doesNotMatch((await run('721', {}, silent)).summary, /2 rows/);
      assert.match((await run('722')).summary, /1 table, 2 rows/);
    });
  });
});
