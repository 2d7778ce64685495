import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { backUp, createShop, errorOf, filesIn, scratch } from '../support/faults.ts';
import { binOf, Cluster, majorsAvailable } from '../support/postgres.ts';

let cluster: Cluster;
before(async () => {
  cluster = await Cluster.start();
  await createShop(cluster, 'shop', 100);
});
after(() => cluster?.stop());

describe('events that a stranger can cause', () => {
  const events = [
    ...['pull_request', 'pull_request_target', 'pull_request_review', 'pull_request_review_comment'],
    ...['issue_comment', 'issues', 'discussion', 'discussion_comment', 'fork', 'watch', 'workflow_run'],
  ];
  for (const event of events) {
    test(`${event} is refused before anybody connects`, async () => {
      const before = (await cluster.log()).length;
      const store = await scratch();
      const result = await backUp(cluster.url('shop'), store, {}, { env: { GITHUB_EVENT_NAME: event } });
      assert.equal(result.exitCode, 2, result.log);
      assert.match(
        errorOf(result),
        new RegExp(`^input: allow-events: this run was started by ${event}, which a stranger`),
      );
      assert.match(errorOf(result), new RegExp(`allow-events: ${event} insists`));
      assert.equal((await cluster.log()).length, before);
      assert.deepEqual(await filesIn(store), []);
    });
  }

  test('allow-events lets in what it names, and nothing else', async () => {
    const env = { GITHUB_EVENT_NAME: 'pull_request_target' };
    const inputs = { 'allow-events': 'issues\npull_request_target' };
    const allowed = await backUp(cluster.url('shop'), await scratch(), inputs, { env });
    assert.equal(allowed.exitCode, 0, allowed.log);
    const other = await backUp(cluster.url('shop'), await scratch(), { 'allow-events': 'pull_request' }, { env });
    assert.equal(other.exitCode, 2, other.log);
  });

  for (const event of ['schedule', 'push', 'workflow_dispatch', 'workflow_call', 'repository_dispatch', 'release'])
    test(`${event} is let in`, async () => {
      const inputs = { 'dry-run': true };
      const result = await backUp(cluster.url('shop'), await scratch(), inputs, { env: { GITHUB_EVENT_NAME: event } });
      assert.equal(result.exitCode, 0, result.log);
    });
});

describe('inputs that are wrong', () => {
  test('every problem is told at once', async () => {
    const result = await backUp('mysql://x', 'not/absolute', {
      ...{ name: '../x', retries: 'many', timeout: '10', census: 'all', mode: 'half', jobs: 2 },
    });
    assert.equal(result.exitCode, 2);
    for (const name of ['database-url', 'store', 'name', 'retries', 'timeout', 'census', 'mode', 'jobs'])
      assert.match(errorOf(result), new RegExp(`^ {2}${name}: `, 'm'));
  });

  for (const [name, meant] of [
    ['tabels', 'tables'],
    ['exclude-table', 'exclude-tables'],
    ['exclude_table_data', 'exclude-table-data'],
    ['database_url', 'database-url'],
    ['retrys', 'retries'],
  ] as const) {
    test(`B52: ${name} is reported, and ${meant} proposed`, async () => {
      const env = { [`INPUT_${name.toUpperCase()}`]: 'x' };
      const result = await backUp(cluster.url('shop'), await scratch(), { 'dry-run': true }, { env });
      assert.equal(result.exitCode, 0, result.log);
      assert.match(result.log, new RegExp(`^Warning: there is no input ${name}; did you mean ${meant}\\?$`, 'm'));
    });
  }
});

describe('F16: programs that do not fit the server', () => {
  const majors = majorsAvailable();
  const skip = majors.includes(15) && majors.includes(17) ? false : 'not on this platform: needs PostgreSQL 15 and 17';

  test('an older client is refused before anything starts', { skip }, async () => {
    const newer = await Cluster.start({ major: 17 });
    try {
      await createShop(newer, 'shop', 100);
      const store = await scratch();
      const given = await backUp(newer.url('shop'), store, { 'client-bin': binOf(15) });
      assert.equal(given.exitCode, 13, given.log);
      assert.match(
        errorOf(given),
        /^client: client-bin \S+ holds PostgreSQL 15\.\d+, but dumping a 17\.\d+ server needs 17\./,
      );
      const none = await backUp(newer.url('shop'), store, { 'install-client': false });
      assert.ok(none.exitCode === 13 || majors.length > 2, none.log);
      assert.doesNotMatch(await newer.log(), /pg_dump/);
      assert.deepEqual(await filesIn(store), []);
      assert.deepEqual([...given.leftovers, ...none.leftovers], []);
      const right = await backUp(newer.url('shop'), store, { 'client-bin': newer.bin });
      assert.equal(right.exitCode, 0, right.log);
    } finally {
      await newer.stop();
    }
  });

  test('a newer client is refused too: its archive would need a newer server', { skip }, async () => {
    const result = await backUp(cluster.url('shop'), await scratch(), { 'client-bin': binOf(17) });
    assert.equal(result.exitCode, 13, result.log);
    assert.match(errorOf(result), /^client: /);
  });

  test('a folder without programs', async () => {
    const result = await backUp(cluster.url('shop'), await scratch(), { 'client-bin': await scratch() });
    assert.equal(result.exitCode, 13, result.log);
    assert.match(errorOf(result), /^client: client-bin \S+ holds no pg_dump/);
  });
});
