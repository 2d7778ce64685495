import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { type ActionOptions, type ActionResult, runAction } from '../support/action.ts';
import { clientBin, type Inputs, takeBackup, tryBackup } from '../support/backup.ts';
import {
  type Certificate,
  HttpReceiver,
  MailReceiver,
  mailPassword,
  newCertificate,
  readMail,
} from '../support/channels.ts';
import { errorOf, programBelow, repository, scratch, startBackup, until, wrapped } from '../support/faults.ts';
import { GitHubServer } from '../support/github.ts';
import { Cluster } from '../support/postgres.ts';

const password = 'Tr0ub4dor&3';
const token = 'AbCdEfGhIjKlMnOpQrStUvWx';
const check = '5f0a9ad2-2f6c-4b11-9f5a-0a6c2c6b3f10';

describe('a scheduled backup with channels, as the runner starts it', () => {
  let cluster: Cluster;
  let github: GitHubServer;
  let certificate: Certificate;
  let http: HttpReceiver;
  let mail: MailReceiver;
  let store: string;
  before(async () => {
    certificate = await newCertificate();
    [cluster, github, http, mail] = await Promise.all([
      ...([Cluster.start(), GitHubServer.start(), HttpReceiver.start()] as const),
      MailReceiver.start({ certificate }),
    ]);
    await cluster.createDatabase('shop');
    await cluster.query(
      'shop',
      `CREATE TABLE "<!channel> \`x" (id int); INSERT INTO "<!channel> \`x" VALUES (1);
       CREATE ROLE stranger LOGIN PASSWORD '${password}'`,
    );
  });
  after(() => Promise.all([cluster?.stop(), ...[github, http, mail].map((server) => server?.[Symbol.asyncDispose]())]));
  beforeEach(async () => {
    github.fault = () => undefined;
    http.reset();
    mail.mails.length = 0;
    store = `file://${await scratch()}`;
  });

  const slack = (): Inputs => ({ 'slack-webhook-url': `${http.url}/services/T0/B0/${token}` });
  const channels = (): Inputs => ({
    ...slack(),
    ...{ 'webhook-url': `${http.url}/hook?key=${token}`, 'webhook-secret': 'sign with this' },
    ...{ 'smtp-url': mail.url(), 'email-from': 'backups@acme.example', 'email-to': 'ops@acme.example' },
    'ping-url': `${http.url}/ping/${check}`,
  });
  const unreadable = (): Inputs => ({
    'database-url': cluster.url('shop').replace(/\/\/[^@/]*@?/, `//stranger:${encodeURIComponent(password)}@`),
  });
  const step = (runId: string, options: Omit<ActionOptions, 'inputs'> = {}): Omit<ActionOptions, 'inputs'> => ({
    ...{ token: github.step.token, ...options },
    env: { ...github.step.env, NODE_EXTRA_CA_CERTS: certificate.path, GITHUB_RUN_ID: runId, ...options.env },
  });
  const run = (runId: string, inputs: Inputs, options?: Omit<ActionOptions, 'inputs'>): Promise<ActionResult> =>
    tryBackup(cluster, 'shop', { store, name: 'shop', retries: 0, ...inputs }, step(runId, options));
  const warningsOf = ({ annotations }: ActionResult): string[] =>
    annotations.filter(({ level }) => level === 'warning').map(({ message }) => message);

  /** Paths that were asked for, in order of their kind, and what was mailed; then everything is forgotten. */
  function arrived(): {
    readonly pings: string[];
    readonly slack: string[];
    readonly hook: string[];
    readonly mails: string[];
  } {
    const bodies = (path: string): string[] =>
      http.requests.filter((request) => request.path.startsWith(path)).map(({ body }) => JSON.parse(body).text);
    const found = {
      pings: http.requests
        .filter(({ method }) => method === 'GET')
        .map(({ path }) => path.replace(`/ping/${check}`, '.')),
      slack: bodies('/services/'),
      hook: bodies('/hook'),
      mails: mail.mails.map(({ raw }) => readMail(raw).text),
    };
    http.reset();
    mail.mails.length = 0;
    return found;
  }

  test('fails, is started again, fails again, passes, passes again: everybody is told what is new, the switch all', async () => {
    const results: ActionResult[] = [];
    const texts: string[] = [];
    const end = async (...args: Parameters<typeof run>): Promise<ReturnType<typeof arrived>> => {
      const result = await run(...args);
      results.push(result);
      assert.deepEqual(warningsOf(result), [], result.log);
      const all = arrived();
      texts.push(...all.slack, ...all.hook, ...all.mails);
      return all;
    };
    const counts = ({ slack, hook, mails }: ReturnType<typeof arrived>): number[] =>
      [slack, hook, mails].map((of) => of.length);
    const first = await end('100', { ...channels(), ...unreadable() });
    assert.deepEqual(counts(first), [1, 1, 1]);
    assert.deepEqual(first.pings, ['./start', './fail']);
    assert.match(first.slack[0] ?? '', /^\*shop: backup failed: the role may not read everything\*\n/);
    assert.match(first.slack[0] ?? '', /```\npreflight: role .*stranger.*\n[\s\S]*```/);
    assert.match(first.slack[0] ?? '', /\/runs\/100\|run 100>.*\|issue #1>/);
    assert.match(first.mails[0] ?? '', /&lt;!channel|<!channel> `x/);
    assert.doesNotMatch(first.slack[0] ?? '', /<!|`x/);

    const again = await end('100', { ...channels(), ...unreadable() }, { env: { GITHUB_RUN_ATTEMPT: '2' } });
    assert.deepEqual(
      [counts(again), again.pings],
      [
        [0, 0, 0],
        ['./start', './fail'],
      ],
    );

    const second = await end('101', { ...channels(), ...unreadable() });
    assert.deepEqual(counts(second), [1, 1, 1]);
    assert.match(second.mails[0] ?? '', / · since 20\d\d-.* UTC · 2 failed runs · /);

    const third = await end('102', channels());
    assert.deepEqual(
      [counts(third), third.pings],
      [
        [1, 1, 1],
        ['./start', '.'],
      ],
    );
    assert.match(third.slack[0] ?? '', /^\*shop: backups work again\*\n[\s\S]*\*Before that\.\* 2 failed runs since/);

    const fourth = await end('103', channels());
    assert.deepEqual(
      [counts(fourth), fourth.pings],
      [
        [0, 0, 0],
        ['./start', '.'],
      ],
    );

    assert.deepEqual(
      results.map(({ exitCode }) => exitCode),
      [12, 12, 12, 0, 0],
    );
    for (const { log, outputs, droppedOutputs, summary, masks } of results) {
      texts.push(log, summary, JSON.stringify(outputs));
      assert.deepEqual(droppedOutputs, []);
      assert.ok(masks.includes(`${http.url}/services/T0/B0/${token}`));
    }
    for (const text of texts)
      for (const secret of [password, encodeURIComponent(password), token, check, mailPassword, 'sign with this'])
        assert.ok(!text.includes(secret), text);
  });

  test('whose channels all refuse ends as it would have, with a warning for each', async () => {
    http.answer = () => ({ status: 404, text: 'no_service' });
    const refusing = {
      ...channels(),
      'smtp-url': mail.url('smtp', 'another'),
      'notify-on': 'always',
      'alert-issue': false,
    };
    const [passing, failing] = await Promise.all([
      run('200', refusing),
      run('201', { ...refusing, ...unreadable(), name: 'other' }),
    ]);
    assert.equal(passing.exitCode, 0, passing.log);
    assert.match(passing.outputs['backup-id'] ?? '', /Z-/);
    assert.equal(failing.exitCode, 12);
    assert.match(errorOf(failing), /^preflight: role/);
    for (const result of [passing, failing])
      assert.deepEqual(
        warningsOf(result)
          .map((line) => line.slice(0, line.indexOf(':')))
          .sort(),
        ['ping-url', 'slack-webhook-url', 'smtp-url', 'webhook-url'],
      );
  });

  test('without an issue to ask: each failure is told, and no pass; so it is when it was started by hand', async () => {
    github.fault = () => ({ status: 403, message: 'Resource not accessible by integration' });
    const failing = { ...slack(), ...unreadable() };
    await Promise.all([
      run('300', failing),
      run('301', { ...failing, 'github-token': '' }),
      run('302', failing, { env: { GITHUB_EVENT_NAME: 'workflow_dispatch' } }),
    ]);
    assert.deepEqual(
      arrived()
        .slack.map((text) => /\/runs\/(\d+)\|run \d+>$/.exec(text)?.[1])
        .sort(),
      ['300', '301', '302'],
    );
    const passing = await run('303', slack());
    assert.equal(passing.exitCode, 0);
    assert.deepEqual(arrived().slack, []);
  });

  test('that is a dry run, or is cancelled, is not what the switch waits for', async () => {
    const dry = await run('400', { ...channels(), 'dry-run': true });
    assert.equal(dry.exitCode, 0, dry.log);
    assert.deepEqual(http.requests, []);
    const slow = { ...channels(), 'client-bin': await wrapped(cluster, { pg_dump: 'sleep 60' }) };
    const dumping = await startBackup(cluster.url('shop'), await scratch(), slow, step('401'));
    await programBelow(dumping.pid, 'sleep');
    process.kill(dumping.pid, 'SIGINT');
    assert.equal((await dumping.done).exitCode, 130);
    assert.deepEqual(arrived(), { pings: ['./start'], slack: [], hook: [], mails: [] });
  });

  test('that is cancelled while a channel is silent ends at once', async () => {
    http.answer = () => 'silence';
    const inputs = { ...slack(), ...clientBin(cluster), 'alert-issue': false };
    const telling = await startBackup(cluster.url('missing'), await scratch(), inputs, step('500'));
    await until(() => http.requests.length > 0 || undefined);
    const began = Date.now();
    process.kill(telling.pid, 'SIGINT');
    assert.equal((await telling.done).exitCode, 10);
    assert.ok(Date.now() - began < 5_000, `${Date.now() - began} ms`);
  });

  test('with a wrong channel is refused with all that is wrong, shows none of it, and the others are told', async () => {
    const wrong = {
      'webhook-url': `hooks.acme.example/${token}`,
      'email-to': 'ops',
      'ping-url': `http://hc-ping.com/${check}`,
    };
    const result = await run('600', { ...slack(), ...wrong, jobs: 3, 'alert-issue': false });
    assert.equal(result.exitCode, 2);
    for (const name of ['webhook-url', 'email-to', 'ping-url', 'jobs'])
      assert.match(errorOf(result), new RegExp(`^ {2}${name}: `, 'm'));
    assert.match(arrived().slack[0] ?? '', /^\*shop: backup failed: an input is wrong\*/);
    assert.ok(!result.log.includes(token) && !result.log.includes(check), result.log);
  });

  test('of a public repository withholds message, names and store', async () => {
    const event = { repository: { private: false, visibility: 'public' } };
    await run('700', { ...slack(), ...unreadable(), name: 'open', 'alert-issue': false }, { event });
    const [text = ''] = arrived().slack;
    assert.match(text, /^\*open: backup failed: the role may not read everything\*/);
    for (const word of ['stranger', 'channel', 'file:///', 'GRANT SELECT']) assert.ok(!text.includes(word), text);
    assert.match(text, /The log of the run has them/);
  });

  test('prune has the same channels', async () => {
    const inputs = { ...channels(), store, name: 'shop', 'alert-issue': false };
    const result = await runAction(join(repository, 'prune'), { ...step('800'), inputs });
    assert.equal(result.exitCode, 2, result.log);
    const { pings, slack, hook, mails } = arrived();
    assert.deepEqual(pings, ['./start', './fail'], result.log);
    assert.deepEqual([slack.length, hook.length, mails.length], [1, 1, 1]);
    for (const text of [...slack, ...hook, ...mails]) assert.match(text, /^\*?shop: prune failed: an input is wrong/);
  });

  test('I-42: a restore test that fails on a row has the same, and none of them shows the row', async () => {
    await cluster.createDatabase('source');
    await cluster.query(
      'source',
      `CREATE FUNCTION fine(v text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
         IF current_database() <> 'source' THEN RAISE EXCEPTION 'bad address % of customer', v; END IF; RETURN true; END $$;
       CREATE TABLE people (id int, mail text CHECK (fine(mail)));
       INSERT INTO people VALUES (1, 'canary4711@acme.example')`,
    );
    await takeBackup(cluster, 'source', { store, name: 'shop' });
    const inputs = { ...channels(), ...clientBin(cluster), store, 'install-client': false };
    const result = await runAction(join(repository, 'restore-test'), { ...step('801'), inputs });
    assert.equal(result.exitCode, 51, result.log);
    const all = http.requests.map(({ path, body }) => `${path} ${body}`).concat(mail.mails.map(({ raw }) => raw));
    const { pings, slack, hook, mails } = arrived();
    assert.deepEqual(pings, ['./start', './fail']);
    for (const [text = ''] of [slack, hook, mails]) {
      assert.match(text, /^\*?shop: restore test failed: \d findings? in backup of /);
      assert.match(text, /public\.people: expected 1 row, found 0 rows/);
    }
    for (const text of [...all, ...mails]) assert.doesNotMatch(text, /canary/i);
  });
});
