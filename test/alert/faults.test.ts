import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { bounded } from '../../src/action/alert.ts';
import { GitHubError } from '../../src/alert/github.ts';
import { describeTrouble } from '../../src/raise-alert.ts';
import { failed, passed, Runs } from '../support/alerts.ts';
import { type ApiRequest, type Fault, GitHubServer } from '../support/github.ts';

/** What a user reads when every request, or those that `which` names, ends so. */
async function sentence(server: GitHubServer, fault: Fault, which: (request: ApiRequest) => boolean = () => true) {
  server.fault = (request) => (which(request) ? fault : undefined);
  let text = '';
  await assert.rejects(new Runs(server).end('1', failed()), (error) => {
    assert.ok(error instanceof GitHubError, String(error));
    text = describeTrouble(error, server.repository);
    return true;
  });
  return text;
}

describe('F34: GitHub refuses, and the sentence says what to do', () => {
  const writes = ({ method }: ApiRequest): boolean => method !== 'GET';

  test('401: the token', async () => {
    await using server = await GitHubServer.start();
    assert.match(await sentence(server, { status: 401 }), /does not know the token of github-token \(401\)/);
  });

  test('403 and 404, at reading and at writing: the permission to add, as YAML', async () => {
    await using server = await GitHubServer.start();
    const message = 'Resource not accessible by integration';
    for (const which of [undefined, writes]) {
      const text = await sentence(server, { status: 403, message }, which);
      assert.match(text, /may not write issues in octo\/backups \(403\)[\s\S]+\npermissions:\n {2}issues: write\n/);
      assert.match(await sentence(server, { status: 404 }, which), /\(404\)[\s\S]+\npermissions:\n {2}issues: write\n/);
    }
    const archived = { status: 403, message: 'Repository was archived so is read-only.' };
    assert.match(await sentence(server, archived, writes), /octo\/backups is archived/);
  });

  test('410: issues are turned off', async () => {
    await using server = await GitHubServer.start();
    assert.match(
      await sentence(server, { status: 410 }),
      /issues are turned off in octo\/backups \(410\); turn them on/,
    );
  });

  test('422: the fields, and none of what GitHub repeats', async () => {
    await using server = await GitHubServer.start();
    const errors = [{ resource: 'Issue', field: 'title', code: 'invalid', value: 'secret' }, { field: '<b>' }, 'x'];
    const fault = { status: 422, message: 'Validation Failed: secret', errors };
    const text = await sentence(server, fault, ({ method, path }) => method === 'POST' && path.endsWith('/issues'));
    assert.match(text, /did not accept it \(422, because of title\); see alert-labels/);
    assert.doesNotMatch(text, /secret|<b>/);
  });

  test('an answer that is no JSON, a connection that is reset', async () => {
    await using server = await GitHubServer.start();
    assert.match(await sentence(server, 'not json'), /answer cannot be read/);
    assert.match(await sentence(server, 'reset'), /GitHub cannot be reached \([A-Z_]+\)/);
  });
});

describe('F34: GitHub asks to wait, or stumbles', () => {
  test('a rate limit that passes soon is waited for', async () => {
    await using server = await GitHubServer.start();
    const limits: Fault[] = [
      { status: 429, headers: { 'retry-after': '1' } },
      { status: 403, message: 'You have exceeded a secondary rate limit', headers: { 'retry-after': '0' } },
    ];
    server.fault = ({ method, path }) => (method === 'POST' && path.endsWith('/issues') ? limits.shift() : undefined);
    assert.equal(await new Runs(server).end('1', failed()), 1);
    assert.equal((await server.issues()).length, 1);
  });

  test('one that does not is told', async () => {
    await using server = await GitHubServer.start();
    const hour = String(Math.floor(Date.now() / 1000) + 3600);
    const spent = { 'x-ratelimit-remaining': '0', 'x-ratelimit-reset': hour };
    assert.match(await sentence(server, { status: 403, headers: spent }), /rate limit .* used up for another 3\d{3} s/);
    assert.match(await sentence(server, { status: 429, headers: { 'retry-after': '60' } }), /for another 60 s/);
    const words = { status: 403, message: 'You have triggered an abuse detection mechanism' };
    assert.match(await sentence(server, words), /rate limit for this token is used up;/);
  });

  test('a 502 is tried again; one that stays is told', async () => {
    await using server = await GitHubServer.start();
    const seen = new Set<string>();
    // The first request of each kind.
    server.fault = ({ method, path }) => {
      const kind = `${method} ${path.replace(/\d+/g, '')}`;
      if (method === 'POST' || seen.has(kind)) return undefined;
      seen.add(kind);
      return { status: 502 };
    };
    const runs = new Runs(server);
    await runs.end('1', failed());
    await runs.end('2', failed());
    await runs.end('3', passed());
    assert.deepEqual(
      (await server.issues()).map(({ state }) => state),
      ['closed'],
    );
    assert.equal((await server.comments(1)).length, 2);
    assert.match(await sentence(server, { status: 503 }), /GitHub answered 503; the next run tries again/);
  });

  test('what was written although the answer was lost is not written twice', async () => {
    await using server = await GitHubServer.start();
    const seen = new Set<string>();
    server.fault = ({ method, path }) => {
      if (method !== 'POST' || seen.has(path)) return undefined;
      seen.add(path);
      return path.endsWith('/labels') ? undefined : 'lost';
    };
    const runs = new Runs(server);
    assert.equal(await runs.end('1', failed()), 1);
    await runs.end('2', failed());
    assert.equal((await server.issues()).length, 1);
    assert.equal((await server.comments(1)).length, 1);
  });

  test('an issue whose label GitHub silently dropped gets it, or it would never be found again', async () => {
    await using server = await GitHubServer.start();
    const runs = new Runs(server);
    const dropped = {
      number: 1,
      html_url: '',
      body: '',
      labels: [],
      user: { login: 'github-actions[bot]', type: 'Bot' },
    };
    server.fault = ({ method, path }) =>
      method === 'POST' && path.endsWith('/issues') ? { status: 201, answer: dropped } : undefined;
    await assert.rejects(runs.end('1', failed()));
    assert.match(JSON.stringify(server.requests.at(-1)), /POST.*issues\/1\/labels.*pgassay/);
  });
});

describe('F34: an alert that does not end', () => {
  const never = (stop: AbortSignal): Promise<never> =>
    new Promise((_, reject) => stop.addEventListener('abort', () => reject(new Error('stopped'))));
  const silent = (error: unknown): boolean => error instanceof GitHubError && error.trouble.kind === 'silent';

  test('is given up after half a minute', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    let ended = false;
    const alert = bounded(new AbortController().signal, never).finally(() => {
      ended = true;
    });
    const refused = assert.rejects(alert, silent);
    t.mock.timers.tick(29_999);
    await Promise.resolve();
    assert.equal(ended, false);
    t.mock.timers.tick(1);
    await refused;
  });

  test('is given up two seconds after the run is cancelled', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const cancel = new AbortController();
    const refused = assert.rejects(bounded(cancel.signal, never), silent);
    t.mock.timers.tick(10_000);
    cancel.abort();
    t.mock.timers.tick(2_000);
    await refused;
  });
});
