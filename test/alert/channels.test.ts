import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import tls from 'node:tls';
import { readChannels } from '../../src/channel-inputs.ts';
import { Inputs } from '../../src/inputs.ts';
import type { Log } from '../../src/log.ts';
import type { MessageContext } from '../../src/report/message.ts';
import { tellChannels, tellSwitch } from '../../src/tell-channels.ts';
import { failed, found, runOf } from '../support/alerts.ts';
import {
  type Answer,
  type Certificate,
  HttpReceiver,
  MailReceiver,
  mailPassword,
  mailUser,
  newCertificate,
  readMail,
} from '../support/channels.ts';

const now = new Date('2026-11-21T02:00:34Z');
const context: MessageContext = {
  ...{ kind: 'backup', name: 'shop', store: 's3://acme-backups/prod', repository: 'octo/backups', details: true, now },
  ...{ run: runOf('4711', now), known: undefined },
};
const token = 'AbCdEfGhIjKlMnOpQrStUvWx';
const slackPath = `/services/T0123/B0123/${token}`;
const wholeTrust = tls.getCACertificates('default');

describe('a message', () => {
  let certificate: Certificate;
  let http: HttpReceiver;
  before(async () => {
    [certificate, http] = await Promise.all([newCertificate(), HttpReceiver.start()]);
  });
  after(async () => {
    tls.setDefaultCACertificates(wholeTrust);
    await http?.[Symbol.asyncDispose]();
  });
  beforeEach(() => {
    http.reset();
    tls.setDefaultCACertificates([...wholeTrust, certificate.cert]);
  });

  /** What the log says of a failed run that the channels of `inputs` were told of. */
  async function tell(
    inputs: Readonly<Record<string, string>>,
    { report = failed(), over = {}, stop = new AbortController().signal } = {},
  ): Promise<{ readonly lines: string[]; readonly warnings: string[] }> {
    const reader = new Inputs((name) => inputs[name]);
    const channels = readChannels(reader);
    assert.deepEqual(reader.problems, []);
    const { log, lines, warnings } = listening();
    await tellChannels(channels, { ...context, ...over }, report, { log, stop });
    if (channels.ping !== undefined) await tellSwitch(channels.ping, 'fail', { log, stop });
    const all = lines.join('\n');
    for (const secret of [token, slackPath, mailPassword, encodeURIComponent(mailPassword)])
      assert.ok(!all.includes(secret), all);
    return { lines, warnings };
  }
  const slack = () => ({ 'slack-webhook-url': `${http.url}${slackPath}` });
  const warningOf = async (answer: Answer, inputs: Readonly<Record<string, string>> = slack()): Promise<string> => {
    http.answer = () => answer;
    const { warnings } = await tell(inputs);
    assert.equal(warnings.length, 1, warnings.join('\n'));
    return warnings[0] ?? '';
  };

  describe('to Slack', () => {
    test('says what, since when, what it means and what to do, and links run and issue', async () => {
      const known = { news: true, since: '2026-11-20T02:00:31.000Z', runs: 2 };
      const issue = { number: 7, url: 'https://github.com/octo/backups/issues/7' };
      const { lines } = await tell(slack(), { over: { known: { ...known, issue } } });
      assert.deepEqual(lines, ['told 127.0.0.1']);
      const [{ method, path, body, headers } = assert.fail()] = http.requests;
      assert.deepEqual([method, path, headers['content-type']], ['POST', slackPath, 'application/json']);
      const { text, ...settings } = JSON.parse(body);
      assert.deepEqual(settings, { mrkdwn: true, unfurl_links: false, unfurl_media: false });
      assert.equal(
        text,
        [
          '*shop: backup failed: the database cannot be reached*',
          '2026-11-21 02:00:34 UTC · since 2026-11-20 02:00:31 UTC · 2 failed runs · repository `octo/backups` · workflow `backup` · store `s3://acme-backups/prod`',
          '```\nconnect: the server does not answer\nhint: wake it up\n```',
          '*What it means.* This run stored no backup. Every backup from before is untouched. Until one succeeds, what was written to the database since the newest of them exists nowhere else.',
          '*What to do.* See whether the server is up, and lets in the network that the job runs in: firewall, allow-list, TLS. Then run the failed job again.',
          '<https://github.com/octo/backups/actions/runs/4711|run 4711> · <https://github.com/octo/backups/issues/7|issue #7>',
        ].join('\n'),
      );
    });

    test('that it does not take: each of its answers in a sentence', async () => {
      for (const [status, text, said] of [
        [400, 'invalid_payload', /127\.0\.0\.1 answered 400 \(invalid_payload\)\. It did not take the message/],
        [403, 'action_prohibited', /answered 403 \(action_prohibited\)\. It does not let this address in: make a new/],
        [404, 'no_service', /answered 404 \(no_service\)\. The address is not there any more: make a new one/],
        [410, 'channel_is_archived', /answered 410 \(channel_is_archived\)\. The channel is archived/],
        [404, `<html>${token}</html>`, /answered 404\. The address/],
        [429, '', /takes no more for now \(429\), for another 3600 s/],
      ] as const) {
        const warning = await warningOf({ status, text, headers: status === 429 ? { 'retry-after': '3600' } : {} });
        assert.match(warning, /^slack-webhook-url: the message did not arrive: /);
        assert.match(warning, said);
        assert.match(warning, /; the result of this run is not changed by that$/);
        assert.equal(http.requests.length, 1);
        http.reset();
      }
    });

    test('is sent again where that may help: a short limit, a stumble, a connection that breaks', async () => {
      const answers: Answer[] = [{ status: 429, headers: { 'retry-after': '1' } }, 'reset'];
      http.answer = () => answers.shift() ?? { status: 200, text: 'ok' };
      assert.deepEqual((await tell(slack())).lines, ['told 127.0.0.1']);
      assert.equal(http.requests.length, 3);
      http.reset();
      assert.match(await warningOf({ status: 503, text: 'overloaded' }), /127\.0\.0\.1 answered 503, three times/);
      assert.equal(http.requests.length, 3);
    });

    test('is never sent to where a redirect points', async () => {
      await using elsewhere = await HttpReceiver.start();
      for (const status of [301, 302, 307, 308]) {
        const warning = await warningOf({ status, headers: { location: `${elsewhere.url}${slackPath}` } });
        assert.match(warning, new RegExp(`answered ${status} and names another address, which is not followed`));
      }
      assert.equal(elsewhere.requests.length, 0);
    });

    test('over TLS that nobody can trust is not sent', async () => {
      await using secure = await HttpReceiver.start(certificate);
      const inputs = { 'slack-webhook-url': `${secure.url}${slackPath}` };
      assert.deepEqual((await tell(inputs)).warnings, []);
      tls.setDefaultCACertificates(wholeTrust);
      await using stranger = await HttpReceiver.start(certificate);
      const { warnings } = await tell({ 'slack-webhook-url': `${stranger.url}${slackPath}` });
      assert.match(warnings[0] ?? '', /the certificate of 127\.0\.0\.1 cannot be trusted \(\w+\).*NODE_EXTRA_CA_CERTS/);
      assert.equal(stranger.requests.length, 0);
    });
  });

  describe('to a webhook', () => {
    test('is JSON, and signed: the HMAC of the very bytes that came', async () => {
      const secret = 'a secret of 24 letters é';
      const inputs = { 'webhook-url': `${http.url.replace('//', '//me:s%40crt@')}/in?key=${token}` };
      await tell({ ...inputs, 'webhook-secret': secret }, { report: found('20261120T020004Z-3f9a1c', true) });
      await tell(inputs);
      const [signed = assert.fail(), unsigned = assert.fail()] = http.requests;
      assert.equal(signed.path, `/in?key=${token}`);
      assert.equal(signed.headers.authorization, `Basic ${Buffer.from('me:s@crt').toString('base64')}`);
      const hmac = createHmac('sha256', Buffer.from(secret)).update(Buffer.from(signed.body)).digest('hex');
      assert.equal(signed.headers['x-pgassay-signature-256'], `sha256=${hmac}`);
      assert.equal(unsigned.headers['x-pgassay-signature-256'], undefined);
      const { id, text, ...rest } = JSON.parse(signed.body);
      assert.match(id, /^[0-9a-f-]{36}$/);
      assert.match(text, /^shop: backup failed: 1 finding in backup of 2026-11-20 02:00 UTC\n\n/);
      assert.deepEqual(rest, {
        ...{ format: 'pgassay-alert/1', sentAt: '2026-11-21T02:00:34.000Z', kind: 'backup', outcome: 'failed' },
        ...{ name: 'shop', store: 's3://acme-backups/prod' },
        ...{ title: 'shop: backup failed: 1 finding in backup of 2026-11-20 02:00 UTC', error: null },
        findings: [{ object: 'public.users', expected: '12 rows', found: '11 rows' }],
        ...{ findingsTotal: 1, backupId: '20261120T020004Z-3f9a1c' },
        ...{ news: null, since: null, failedRuns: null, issue: null },
        run: {
          ...{ id: '4711', attempt: '1', url: 'https://github.com/octo/backups/actions/runs/4711' },
          ...{ workflow: 'backup', repository: 'octo/backups' },
        },
      });
      const { error, findings } = JSON.parse(unsigned.body);
      assert.deepEqual(findings, []);
      const message = 'the server does not answer';
      assert.deepEqual(error, { stage: 'connect', exit: 'connect', message, hint: 'wake it up' });
    });
  });

  describe('by mail', () => {
    const mail = { 'email-from': 'Backups <backups@acme.example>', 'email-to': 'ops@acme.example\ndba@acme.example' };

    test('arrives over STARTTLS or TLS, after a login, as plain text that says all', async () => {
      for (const secure of [false, true]) {
        await using server = await MailReceiver.start({ certificate, secure });
        const { lines } = await tell({ ...mail, 'smtp-url': server.url(secure ? 'smtps' : 'smtp') });
        assert.deepEqual(lines, ['mailed 2 recipients through 127.0.0.1']);
        const [got = assert.fail()] = server.mails;
        assert.deepEqual(
          [got.from, got.to, got.secure, got.user],
          ['backups@acme.example', ['ops@acme.example', 'dba@acme.example'], true, mailUser],
        );
        const { headers, text } = readMail(got.raw);
        assert.equal(headers.subject, 'shop: backup failed: the database cannot be reached');
        assert.equal(headers.from, 'Backups <backups@acme.example>');
        assert.equal(headers['auto-submitted'], 'auto-generated');
        assert.match(headers['content-type'] ?? '', /^text\/plain; charset=utf-8/);
        assert.match(text, /^ {2}connect: the server does not answer\r?\n\r?\n? {2}hint: wake it up$/m);
        assert.match(text, /^run 4711: https:\/\/github\.com\/octo\/backups\/actions\/runs\/4711$/m);
      }
    });

    test('is not sent in the clear, and neither is the password, where STARTTLS is not offered', async () => {
      await using server = await MailReceiver.start({ certificate, plain: true });
      const { warnings } = await tell({ ...mail, 'smtp-url': server.url() });
      assert.match(
        warnings.join('\n'),
        /^smtp-url: .* 127\.0\.0\.1 does not offer STARTTLS, and nothing is sent in the/,
      );
      assert.deepEqual([server.mails, server.passwords], [[], []]);
      // A server of one's own network that wants no login may do without.
      const { lines } = await tell({ ...mail, 'smtp-url': `smtp://127.0.0.1:${server.port}` });
      assert.deepEqual(lines, ['mailed 2 recipients through 127.0.0.1']);
      assert.equal(server.mails[0]?.secure, false);
    });

    test('is not sent where the certificate is a stranger’s', async () => {
      tls.setDefaultCACertificates(wholeTrust);
      for (const secure of [false, true]) {
        await using server = await MailReceiver.start({ certificate, secure });
        const { warnings } = await tell({ ...mail, 'smtp-url': server.url(secure ? 'smtps' : 'smtp') });
        assert.match(warnings.join('\n'), /the certificate of 127\.0\.0\.1 cannot be trusted \(\w+\)/);
        assert.deepEqual([server.mails, server.passwords], [[], []]);
      }
    });

    test('is refused: login, sender, some recipients, all of them', async () => {
      const refused = ['ops@acme.example'];
      await using server = await MailReceiver.start({ certificate, refused, foreign: ['else@acme.example'] });
      const warn = async (over: Readonly<Record<string, string>>): Promise<string> =>
        (await tell({ ...mail, 'smtp-url': server.url(), ...over })).warnings.join('\n');
      const login = await warn({ 'smtp-url': server.url('smtp', 'the wrong one') });
      assert.match(login, /127\.0\.0\.1 refused the login \(535\); see user and password of smtp-url/);
      assert.doesNotMatch(login, /the wrong one|Invalid/);
      assert.match(await warn({ 'email-from': 'else@acme.example' }), /refused the sender; .* \(550\)/);
      assert.match(await warn({ 'email-to': 'ops@acme.example' }), /refused every address of email-to \(550\)/);
      assert.equal(server.mails.length, 0);
      assert.match(await warn({}), /^email-to: 127\.0\.0\.1 did not take 1 recipient of 2; the others were mailed$/);
      assert.deepEqual(server.mails[0]?.to, ['dba@acme.example']);
    });

    test('has the headers that we gave it, and no other, whatever names say', async () => {
      await using server = await MailReceiver.start({ certificate });
      const name = 'shop\r\nBcc: eve@evil.example\r\n\r\n.\r\nMAIL FROM:<eve@evil.example>';
      await tell({ ...mail, 'smtp-url': server.url() }, { over: { name, repository: name, store: name } });
      const [got = assert.fail()] = server.mails;
      assert.deepEqual(got.to, ['ops@acme.example', 'dba@acme.example']);
      const { headers } = readMail(got.raw);
      assert.deepEqual(Object.keys(headers).sort(), [
        ...['auto-submitted', 'content-transfer-encoding', 'content-type', 'date', 'from', 'message-id'],
        ...['mime-version', 'subject', 'to'],
      ]);
      assert.match(headers.subject ?? '', /^shop Bcc: eve@evil\.example \. MAIL FROM/);
      assert.equal(server.mails.length, 1);
    });
  });

  describe('to a dead-man’s switch', () => {
    test('is a GET, at the address or below it, with the query where it was', async () => {
      const { log, lines } = listening();
      const at = `${http.url}/ping/${token}?rid=1`;
      const { ping = assert.fail() } = readChannels(new Inputs((name) => (name === 'ping-url' ? at : undefined)));
      for (const event of ['start', 'success', 'fail'] as const)
        await tellSwitch(ping, event, { log, stop: new AbortController().signal });
      assert.deepEqual(
        http.requests.map(({ method, path, body }) => `${method} ${path} ${body}`),
        [`GET /ping/${token}/start?rid=1 `, `GET /ping/${token}?rid=1 `, `GET /ping/${token}/fail?rid=1 `],
      );
      assert.deepEqual(lines, ['pinged 127.0.0.1: start', 'pinged 127.0.0.1: success', 'pinged 127.0.0.1: fail']);
    });

    test('that it does not know is no success, though healthchecks.io says 200', async () => {
      const warning = await warningOf({ status: 200, text: 'OK (not found)' }, { 'ping-url': `${http.url}/${token}` });
      assert.match(warning, /^ping-url: .*knows no such check; copy its ping URL again/);
    });
  });

  test('does not wait for channels that hang, and the others have theirs', { timeout: 40_000 }, async () => {
    await using server = await MailReceiver.start({ certificate });
    await using silent = await HttpReceiver.start();
    await using dripping = await HttpReceiver.start();
    silent.answer = () => 'silence';
    dripping.answer = () => 'drip';
    const began = Date.now();
    const mail = { 'email-from': 'a@acme.example', 'email-to': 'b@acme.example' };
    const good = { ...mail, 'smtp-url': server.url() };
    // What listens there speaks no SMTP, and waits for a request as the client waits for a greeting.
    const deaf = { ...mail, 'smtp-url': `smtp://127.0.0.1:${new URL(silent.url).port}` };
    const hanging = { 'slack-webhook-url': `${silent.url}${slackPath}`, 'webhook-url': `${dripping.url}/${token}` };
    const [one, other] = await Promise.all([tell({ ...good, ...hanging }), tell(deaf)]);
    const took = Date.now() - began;
    assert.ok(took > 5_000 && took < 20_000, `${took} ms`);
    assert.equal(server.mails.length, 1);
    assert.deepEqual(
      [...one.warnings, ...other.warnings].map((line) => line.replace(/;.*$/, '')).sort(),
      ['slack-webhook-url', 'smtp-url', 'webhook-url'].map(
        (input) => `${input}: the message did not arrive: 127.0.0.1 did not answer in time`,
      ),
    );
    const stop = new AbortController();
    setTimeout(() => stop.abort(), 200);
    const again = Date.now();
    await tell({ ...deaf, ...hanging }, { stop: stop.signal });
    assert.ok(Date.now() - again < 3_000, `${Date.now() - again} ms`);
  });

  test('that nobody takes leaves a warning for each, and no more', async () => {
    const closed = await HttpReceiver.start();
    await closed[Symbol.asyncDispose]();
    const { port } = new URL(closed.url);
    const { warnings, lines } = await tell({
      ...{ 'slack-webhook-url': `${closed.url}${slackPath}`, 'webhook-url': `${closed.url}/${token}` },
      ...{ 'ping-url': `${closed.url}/${token}`, 'smtp-url': `smtp://127.0.0.1:${port}` },
      ...{ 'email-from': 'a@acme.example', 'email-to': 'b@acme.example' },
    });
    assert.equal(warnings.length, 4);
    assert.deepEqual(lines, warnings);
    for (const warning of warnings) assert.match(warning, /127\.0\.0\.1 cannot be reached \(ECONNREFUSED\)/);
  });
});

test('nodemailer has one home, and is not run before there is a mail to send', () => {
  const src = join(import.meta.dirname, '../../src');
  const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
  const lines = files.flatMap((name) =>
    readFileSync(join(src, name), 'utf8')
      .split('\n')
      .filter((line) => /'nodemailer/.test(line))
      .map((line) => [name, line.trim()]),
  );
  assert.equal(lines.length, 1);
  assert.equal(lines[0]?.[0], join('alert', 'mail.ts'));
  assert.match(lines[0]?.[1] ?? '', /= await import\(\/\* webpackMode: "eager" \*\/ 'nodemailer'\);$/);
});

function listening(): { readonly log: Log; readonly lines: string[]; readonly warnings: string[] } {
  const lines: string[] = [];
  const warnings: string[] = [];
  const take = (message: string): void => void lines.push(message);
  const warn = (message: string): void => {
    take(message);
    warnings.push(message);
  };
  return {
    ...{ lines, warnings },
    log: { info: take, notice: take, warn, progress: take, group: (_title, work) => work() },
  };
}
