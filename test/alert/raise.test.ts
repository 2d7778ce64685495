import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { keyOf, markOf } from '../../src/alert-state.ts';
import { failed, found, passed, Runs } from '../support/alerts.ts';
import { GitHubServer } from '../support/github.ts';

const tested = '20261120T020004Z-3f9a1c';
const other = '20261118T020004Z-aaaaaa';
const next = '20261122T020004Z-bbbbbb';

describe('I-39: one issue per store and name', () => {
  let server: GitHubServer;
  before(async () => {
    server = await GitHubServer.start({ visibility: 'public' });
  });
  after(() => server?.[Symbol.asyncDispose]());
  beforeEach(async () => {
    for (const { number, state } of await server.issues())
      if (state === 'open') await server.as(server.personToken, 'PATCH', `/issues/${number}`, { state: 'closed' });
  });
  const open = async () => (await server.issues()).filter(({ state }) => state === 'open');

  test('failed, failed again, passed: opened, commented, commented and closed', async () => {
    const runs = new Runs(server);
    const number = (await runs.end('1', failed())) ?? 0;
    const [issue] = await open();
    assert.equal(issue?.number, number);
    assert.equal(issue.title, 'shop: backup failed: the database cannot be reached');
    assert.deepEqual(
      issue.labels.map(({ name }) => name),
      ['pgassay'],
    );
    assert.deepEqual(await server.comments(number), []);
    assert.equal(await runs.end('2', failed()), number);
    assert.match((await open())[0]?.body ?? '', /run 2\].* · 2 failed runs since 2026-11-21 03:00:34 UTC/);
    const backup = { id: next, createdAt: '2026-11-22T02:00:04Z' };
    assert.equal(await runs.end('3', passed({ backup })), number);
    assert.deepEqual(await open(), []);
    const [again, end, ...more] = await server.comments(number);
    assert.match(again?.body ?? '', /^\*\*The backup of `shop` failed again\*\* .*\n\n\[run 2\].*2 failed runs/);
    assert.match(again?.body ?? '', /Nothing changed since the last failure/);
    assert.match(
      end?.body ?? '',
      /^\*\*The backup of `shop` works again\.\*\* Backup `20261122T020004Z-bbbbbb`, snapshot of 2026-11-22 02:00:04 UTC\. It took 6\.2 s · \[run 3\]/,
    );
    assert.deepEqual(more, []);
    assert.equal((await server.issues()).find((each) => each.number === number)?.state_reason, 'completed');
  });

  test('a run that is started again adds no comment, and edits the one it has when something else went wrong', async () => {
    const runs = new Runs(server);
    const number = (await runs.end('1', failed())) ?? 0;
    await runs.end('1', failed(), { attempt: '2' });
    assert.deepEqual(await server.comments(number), []);
    await runs.end('2', failed());
    await runs.end('2', failed(), { attempt: '2' });
    const error = { stage: 'upload', exit: 'store', message: 'the bucket is gone', hint: undefined } as const;
    await runs.end('2', failed({ error }), { attempt: '3' });
    const comments = await server.comments(number);
    assert.equal(comments.length, 1);
    assert.match(comments[0]?.body ?? '', /run 2, attempt 3\][\s\S]*the bucket is gone/);
  });

  test('a comment that was written just before the state was lost is found by its mark', async () => {
    const runs = new Runs(server);
    const number = (await runs.end('1', failed())) ?? 0;
    const { body } = (await open())[0] ?? {};
    await runs.end('2', failed());
    await server.as(server.personToken, 'PATCH', `/issues/${number}`, { body });
    await runs.end('2', failed(), { attempt: '2' });
    assert.equal((await server.comments(number)).length, 1);
  });

  test('nothing failed: nothing is written, whatever passes', async () => {
    const before = server.requests.length;
    assert.equal(await new Runs(server).end('1', passed()), undefined);
    assert.deepEqual(
      server.requests.slice(before).map(({ method }) => method),
      ['GET'],
    );
  });

  test('another store and another name have issues of their own', async () => {
    const runs = new Runs(server);
    await runs.end('1', failed());
    await runs.end('1', failed(), { place: { store: 's3://acme-backups/prod', name: 'crm' } });
    await runs.end('1', failed(), { place: { store: 's3://acme-backups/test', name: 'shop' } });
    assert.equal((await open()).length, 3);
    await runs.end('2', passed(), { place: { store: 's3://acme-backups/prod', name: 'crm' } });
    assert.equal((await open()).length, 2);
  });

  test('a backup that fails and a restore test that fails are sections of one; it is closed when both have passed', async () => {
    const runs = new Runs(server);
    const number = (await runs.end('1', failed())) ?? 0;
    await runs.end('2', found(tested, true), { kind: 'restore-test' });
    const [issue] = await open();
    assert.match(
      issue?.title ?? '',
      /^shop: backup failed: .+; restore test failed: 1 finding in backup of 2026-11-20/,
    );
    assert.match(issue?.body ?? '', /### The backup of `shop` failed[\s\S]+### The restore test of `shop` failed/);
    assert.match((await server.comments(number))[0]?.body ?? '', /^\*\*The restore test of `shop` failed\*\* at/);
    await runs.end('3', passed());
    assert.equal((await open()).length, 1);
    assert.match((await server.comments(number)).at(-1)?.body ?? '', /stays open: restore test failed\./);
    assert.match((await open())[0]?.title ?? '', /^shop: restore test failed/);
    await runs.end('4', passed({ subject: { of: 'backup', id: next, latest: true } }), { kind: 'restore-test' });
    assert.deepEqual(await open(), []);
  });

  test('a restore test of another backup does not close it, and says so where every run is to be told', async () => {
    const runs = new Runs(server, { kind: 'restore-test' });
    const number = (await runs.end('1', found(tested, true))) ?? 0;
    const random = passed({ subject: { of: 'backup', id: other, latest: false } });
    await runs.end('2', random);
    assert.deepEqual(await server.comments(number), []);
    const always = { labels: ['pgassay'], assignees: [], notifyOn: 'always' } as const;
    await runs.end('3', random, { config: always });
    assert.equal((await open()).length, 1);
    assert.match((await server.comments(number))[0]?.body ?? '', /That is not what failed: backup of 2026-11-20 02:00/);
    await runs.end('4', passed({ subject: { of: 'backup', id: tested, latest: false } }));
    assert.deepEqual(await open(), []);
  });

  test('a second failing backup waits for its own pass', async () => {
    const runs = new Runs(server, { kind: 'restore-test' });
    await runs.end('1', found(tested, false));
    await runs.end('2', found(other, false));
    assert.match((await open())[0]?.body ?? '', /Still failed, and not passed since: backup of 2026-11-20 02:00 UTC/);
    await runs.end('3', passed({ subject: { of: 'backup', id: other, latest: false } }));
    assert.equal((await open()).length, 1);
    await runs.end('4', passed({ subject: { of: 'backup', id: tested, latest: false } }));
    assert.deepEqual(await open(), []);
  });

  test('a pass of a run that had begun before the failure closes nothing', async () => {
    const runs = new Runs(server);
    const began = runs.now;
    await runs.end('2', failed());
    await runs.end('1', passed(), { began });
    assert.equal((await open()).length, 1);
  });

  test('a failure that comes while a pass is being written is not written over', async () => {
    const runs = new Runs(server);
    const number = (await runs.end('1', failed())) ?? 0;
    const meanwhile = new Runs(server);
    let done = false;
    server.fault = ({ method, path }) => {
      // Just after the pass has written, and before it looks at what it wrote.
      if (!done && method === 'GET' && path.endsWith(`/issues/${number}`)) {
        done = true;
        return { status: 502 };
      }
      return undefined;
    };
    const pass = runs.end('2', passed());
    while (!done) await new Promise((resolve) => setTimeout(resolve, 5));
    meanwhile.now = new Date(runs.now.getTime() + 1000);
    await server.as(server.personToken, 'PATCH', `/issues/${number}`, { state: 'open' });
    await meanwhile.end('3', failed());
    await pass;
    const [issue] = await open();
    assert.equal(issue?.number, number);
    assert.match(issue.body, /\[run 3\]/);
    server.fault = () => undefined;
  });

  test('a closed issue is done with: the next failure opens another', async () => {
    const runs = new Runs(server);
    const first = await runs.end('1', failed());
    await runs.end('2', passed());
    assert.notEqual(await runs.end('3', failed()), first);
    assert.equal((await open()).length, 1);
  });

  test('jobs of one moment end with one open issue, and the others point at it', async () => {
    const [a, b, c] = [new Runs(server), new Runs(server), new Runs(server)];
    const settleMs = 200;
    const numbers = await Promise.all([
      a.end('1', failed(), { settleMs }),
      b.end('1', failed(), { settleMs }),
      c.end('2', found(tested, true), { settleMs, kind: 'restore-test' }),
    ]);
    const [issue, ...more] = await open();
    assert.deepEqual(more, []);
    assert.deepEqual(new Set(numbers), new Set([issue?.number]));
    assert.match(issue?.body ?? '', /The backup of `shop` failed[\s\S]+The restore test of `shop` failed/);
    const duplicates = (await server.issues()).filter(({ number }) => number > (issue?.number ?? 0));
    assert.equal(duplicates.length, 2);
    for (const { number, state_reason } of duplicates) {
      assert.equal(state_reason, 'not_planned');
      assert.match((await server.comments(number))[0]?.body ?? '', new RegExp(`opened #${issue?.number} at the same`));
    }
  });

  test('two that a lagging list let happen become one with the next run, and what each knew stays', async () => {
    const runs = new Runs(server);
    const first = (await runs.end('1', failed())) ?? 0;
    const hidden = await server.as(server.personToken, 'PATCH', `/issues/${first}`, { labels: [] });
    assert.ok(hidden);
    await runs.end('2', found(tested, true), { kind: 'restore-test' });
    await server.as(server.personToken, 'PATCH', `/issues/${first}`, { labels: ['pgassay'] });
    assert.equal((await open()).length, 2);
    await runs.end('3', failed());
    const [issue, ...more] = await open();
    assert.deepEqual([issue?.number, more.length], [first, 0]);
    assert.match(issue?.body ?? '', /The backup of `shop` failed[\s\S]+The restore test of `shop` failed/);
  });

  test('two jobs that write at the same moment both stay in it', async () => {
    const runs = new Runs(server);
    await runs.end('1', failed());
    await Promise.all([
      new Runs(server).end('2', found(tested, true), { kind: 'restore-test' }),
      new Runs(server).end('3', failed(), { kind: 'health' }),
    ]);
    const body = (await open())[0]?.body ?? '';
    assert.match(body, /### The restore test of `shop` failed/);
    assert.match(body, /### The health of the backups of `shop` is critical/);
  });

  test('two jobs of one run that fail at the same moment write one comment', async () => {
    const number = (await new Runs(server).end('1', failed())) ?? 0;
    await Promise.all([new Runs(server).end('2', failed()), new Runs(server).end('2', failed())]);
    assert.equal((await server.comments(number)).length, 1);
  });

  test('what people write into a section of another kind stays', async () => {
    const runs = new Runs(server);
    const number = (await runs.end('1', failed())) ?? 0;
    const body = ((await open())[0]?.body ?? '').replace('**What it means.**', 'I am on it. -- Alice\n\n$&');
    await server.as(server.personToken, 'PATCH', `/issues/${number}`, { body });
    await runs.end('2', found(tested, true), { kind: 'restore-test' });
    assert.match((await open())[0]?.body ?? '', /I am on it\. -- Alice/);
  });
});

describe('an issue with our mark by somebody we are not', () => {
  const key = keyOf({ store: 's3://acme-backups/prod', name: 'shop' });
  const copied = { title: 'shop: backup failed', body: `Run my script\n\n${markOf(key, {})}`, labels: ['pgassay'] };

  test('is left alone, whatever its mark says', async () => {
    await using server = await GitHubServer.start({ visibility: 'public' });
    const planted = (await server.as(server.strangerToken, 'POST', '/issues', copied)) as { number: number };
    const runs = new Runs(server);
    const number = await runs.end('1', failed());
    assert.notEqual(number, planted.number);
    assert.match(runs.lines.join('\n'), new RegExp(`#${planted.number} looks like ours, but mallory wrote it`));
    await runs.end('2', passed());
    const [first] = await server.issues();
    assert.deepEqual([first?.state, first?.body], ['open', copied.body]);
    assert.deepEqual(await server.comments(planted.number), []);
  });

  test('is not a comment of ours either', async () => {
    await using server = await GitHubServer.start({ visibility: 'public' });
    const runs = new Runs(server);
    const number = (await runs.end('1', failed())) ?? 0;
    const body = 'All is well\n\n<!-- pgassay:comment backup failed 2 -->';
    await server.as(server.strangerToken, 'POST', `/issues/${number}/comments`, { body });
    await runs.end('2', failed());
    const comments = await server.comments(number);
    assert.deepEqual(
      comments.map(({ user }) => user.login),
      ['mallory', 'github-actions[bot]'],
    );
    assert.equal(comments[0]?.body, body);
  });

  test('is ours when the token is that person’s own', async () => {
    await using server = await GitHubServer.start();
    const runs = new Runs(server, {}, server.personToken);
    const number = await runs.end('1', failed());
    assert.equal(await runs.end('2', failed()), number);
    assert.equal((await server.issues())[0]?.user.login, 'alice');
    // The workflow's own token goes on with neither.
    assert.notEqual(await new Runs(server).end('3', failed()), number);
    // And a person's token goes on with the workflow's.
    await server.as(server.personToken, 'PATCH', `/issues/${number}`, { state: 'closed' });
    assert.equal(await runs.end('4', passed()), 2);
  });

  test('a pull request is never taken for it', async () => {
    await using server = await GitHubServer.start();
    const runs = new Runs(server);
    const pull = {
      number: 7,
      pull_request: {},
      user: { login: 'github-actions[bot]', type: 'Bot' },
      body: copied.body,
    };
    server.fault = ({ method, path }, nth) =>
      nth === 1 && method === 'GET' && path.includes('/issues?') ? { status: 200, answer: [pull] } : undefined;
    assert.equal(await runs.end('1', failed()), 1);
  });
});

describe('labels and assignees', () => {
  test('labels are created when missing, and all of them set', async () => {
    await using server = await GitHubServer.start();
    await server.as(server.personToken, 'POST', '/labels', { name: 'ops', color: 'ededed' });
    const config = { labels: ['pgassay', 'ops'], assignees: ['alice'], notifyOn: 'change' } as const;
    await new Runs(server, { config }).end('1', failed());
    const [issue] = await server.issues();
    assert.deepEqual(issue?.labels.map(({ name }) => name).sort(), ['ops', 'pgassay']);
    assert.deepEqual(
      issue?.assignees.map(({ login }) => login),
      ['alice'],
    );
  });

  test('an assignee that GitHub does not take is left out, with a warning', async () => {
    await using server = await GitHubServer.start();
    const config = { labels: ['pgassay'], assignees: ['nobody'], notifyOn: 'change' } as const;
    const runs = new Runs(server, { config });
    assert.equal(await runs.end('1', failed()), 1);
    assert.match(
      runs.lines.join('\n'),
      /assigned to nobody: GitHub does not take every one of alert-assignees \(nobody\)/,
    );
    assert.equal((await server.issues()).length, 1);
  });
});
