import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { type Channels, readChannels, secretsOfChannels } from '../../src/channel-inputs.ts';
import { Inputs, type ReadInput } from '../../src/inputs.ts';
import { Secrets } from '../../src/secrets.ts';

type Given = Readonly<Record<string, string>>;
const reading =
  (given: Given): ReadInput =>
  (name) =>
    given[name];

function read(given: Given): { readonly channels: Channels; readonly problems: string[] } {
  const inputs = new Inputs(reading(given));
  const channels = readChannels(inputs);
  return { channels, problems: inputs.problems.map(({ input, message, hint }) => `${input}: ${message}; ${hint}`) };
}

const mail = { 'email-from': 'a@acme.example', 'email-to': 'b@acme.example' };

describe('the channels’ inputs', () => {
  test('that are all empty are no channels and no problems', () => {
    const { channels, problems } = read({ 'slack-webhook-url': '', 'email-to': ' \n# nobody\n' });
    assert.deepEqual(channels, { slack: undefined, webhook: undefined, mail: undefined, ping: undefined });
    assert.deepEqual(problems, []);
  });

  test('a URL of http or https is taken, in the clear only where nobody is on the way', () => {
    for (const url of [
      'https://hooks.slack.com/services/T/B/x',
      'http://localhost:8080/x',
      'http://10.1.2.3/x',
      'http://hooks/x',
    ])
      assert.equal(read({ 'slack-webhook-url': ` ${url}\n` }).channels.slack?.url.href, url);
    for (const [url, problem] of [
      ['hooks.slack.com/services/T/B/x', 'is not a URL'],
      ['https://', 'is not a URL'],
      ['https://hooks.slack.com/serv ices', 'is not a URL'],
      ['ftp://hooks.slack.com/x', 'has another scheme than https'],
      ['http://hooks.slack.com/x', 'is http to a public host'],
      ['http://hooks.internal/x', 'is http to a public host'],
      ['http://169.254.169.254/latest', 'is a link-local address'],
      ['https://metadata.google.internal/x', 'is a link-local address'],
      ['https://hooks.slack.com/x#y', 'has a # in it'],
      ['https://a%zz@hooks.slack.com/x', 'has a % that begins no code'],
    ] as const) {
      for (const name of ['slack-webhook-url', 'webhook-url', 'ping-url']) {
        const { problems } = read({ [name]: url });
        assert.equal(problems.length, 1, url);
        assert.ok(problems[0]?.startsWith(`${name}: ${problem}`), `${url}: ${problems[0]}`);
      }
    }
  });

  test('a mail server is taken with its login, and TLS is required wherever there is one', () => {
    const server = (url: string): unknown => read({ ...mail, 'smtp-url': url }).channels.mail?.server;
    const login = { user: 'me@acme.example', password: 'p@ss/#:%' };
    const host = 'smtp.acme.example';
    const given = 'me%40acme.example:p%40ss%2F%23:%25';
    assert.deepEqual(server(`smtp://${given}@${host}`), { host, port: 587, secure: false, requireTls: true, login });
    assert.deepEqual(server(`smtps://${given}@${host}/`), { host, port: 465, secure: true, requireTls: true, login });
    const bare = { secure: false, login: undefined };
    assert.deepEqual(server(`smtp://${host}:25`), { ...bare, host, port: 25, requireTls: true });
    assert.deepEqual(server('smtp://10.0.0.5:25'), { ...bare, host: '10.0.0.5', port: 25, requireTls: false });
    assert.deepEqual(server('smtp://[::1]'), { ...bare, host: '::1', port: 587, requireTls: false });
    assert.equal((server('smtp://u:p@localhost') as { requireTls: boolean }).requireTls, true);
    for (const [url, problem] of [
      ['smtp.acme.example', 'is not a URL with a host'],
      ['smtp://', 'is not a URL with a host'],
      ['http://smtp.acme.example', 'has another scheme than smtp or smtps'],
      ['smtp://u:pa/ss@smtp.acme.example', 'is not a URL'],
      ['smtp://smtp.acme.example/?tls.rejectUnauthorized=false', 'has something after the host'],
      ['smtp://u:p@smtp.acme.example:465', 'is smtp:// with port 465'],
      ['smtp://u@smtp.acme.example', 'has a user without a password'],
      ['smtp://u:p%zz@smtp.acme.example', 'has a % that begins no code'],
      ['smtp://169.254.169.254', 'is a link-local address'],
    ] as const) {
      const { problems, channels } = read({ ...mail, 'smtp-url': url });
      assert.ok(problems[0]?.startsWith(`smtp-url: ${problem}`), `${url}: ${problems[0]}`);
      assert.equal(channels.mail, undefined);
    }
  });

  test('addresses are taken with names, and none that would be a header or two', () => {
    const given = { 'smtp-url': 'smtp://localhost', 'email-from': 'Backups of Acme <b@acme.example>' };
    const { channels } = read({ ...given, 'email-to': 'a@acme.example, Ops <o@acme.example>\n# x\na@acme.example' });
    assert.deepEqual(channels.mail?.from, { name: 'Backups of Acme', address: 'b@acme.example' });
    assert.deepEqual(channels.mail?.to, [
      { name: '', address: 'a@acme.example' },
      { name: 'Ops', address: 'o@acme.example' },
    ]);
    for (const wrong of [
      'acme',
      'a@b@c',
      '<a@b> <c@d>',
      'a b@acme.example',
      'x\u0000@acme.example',
      'a\u2028@b',
      '"a"@b',
    ])
      assert.match(read({ ...given, 'email-to': wrong }).problems.join(), /^email-to: .* is no mail address/s, wrong);
    const forged = 'Ops\r\nBcc: eve@evil.example\r\n <a@acme.example>';
    assert.match(read({ ...given, 'email-from': forged, ...{ 'email-to': 'a@b' } }).problems.join(), /^email-from: /);
    const many = Array.from({ length: 51 }, (_, index) => `u${index}@acme.example`).join('\n');
    assert.match(read({ ...given, 'email-to': many }).problems.join(), /names 51 addresses; 50 are the most/);
  });

  test('that need one another say so', () => {
    const problems = (given: Given): string[] => read(given).problems.map((each) => each.replace(/;.*/, ''));
    assert.deepEqual(problems(mail), [
      'email-from: is given without smtp-url, so no mail is sent',
      'email-to: is given without smtp-url, so no mail is sent',
    ]);
    assert.deepEqual(problems({ 'smtp-url': 'smtp://localhost' }), [
      'email-from: is required with smtp-url and was empty',
      'email-to: is required with smtp-url and was empty',
    ]);
    assert.deepEqual(problems({ 'webhook-secret': 'x' }), [
      'webhook-secret: is given without webhook-url, so nothing is signed with it',
    ]);
  });

  test('are hidden: whole, and each piece that is a key; hosts and words stay', () => {
    const secrets = new Secrets();
    const key = 'AbCdEfGhIjKlMnOpQrStUvWx';
    const given = {
      'slack-webhook-url': `https://hooks.slack.com/services/T0123/B0123/${key}`,
      'webhook-url': 'https://user:pa55word@hooks.acme.example/webhooks/in?token=t0ken-42&of=shop',
      'webhook-secret': 'sign-with-this',
      'ping-url': 'https://hc-ping.com/5f0a9ad2-2f6c-4b11-9f5a-0a6c2c6b3f10',
      'smtp-url': 'smtp://me%40acme.example:p%40ss%2Fword@smtp.acme.example:587',
    };
    for (const secret of secretsOfChannels(reading(given))) secrets.add(secret);
    const hidden = [key, 'pa55word', 't0ken-42', 'sign-with-this', '5f0a9ad2-2f6c-4b11-9f5a-0a6c2c6b3f10'];
    for (const text of [...hidden, ...Object.values(given), 'p@ss/word', 'p%40ss%2Fword', `B0123/${key}`])
      assert.doesNotMatch(secrets.redact(text), /[A-Za-z0-9]{6}(?<!B0123|T0123)/, text);
    for (const word of [
      'services',
      'webhooks',
      'shop',
      'hooks.slack.com',
      'hc-ping.com',
      'smtp.acme.example',
      'me@acme.example',
    ])
      assert.equal(secrets.redact(word), word);
  });

  test('are hidden too where they are no URL', () => {
    const secrets = new Secrets();
    const key = 'AbCdEfGhIjKlMnOpQrStUvWx';
    const given = { 'slack-webhook-url': `hooks slack.com/services/T0/B0/${key}`, 'ping-url': `hc-ping.com/${key}9` };
    for (const secret of secretsOfChannels(reading(given))) secrets.add(secret);
    assert.equal(secrets.redact(`${key} ${key}9`).includes(key), false);
  });

  test('never show a piece of a URL in a problem', () => {
    const piece = fc.stringMatching(/^[A-Za-z0-9]{8,20}$/);
    const inputs = ['slack-webhook-url', 'webhook-url', 'ping-url', 'smtp-url'];
    const rubbish = fc.string({ unit: fc.constantFrom(...'/@:?#%[] \t<>é'), maxLength: 6 });
    fc.assert(
      fc.property(
        fc.constantFrom(...inputs),
        fc.constantFrom('https://', 'http://', 'smtp://', 'smtps://', '', 'x://'),
        fc.array(fc.tuple(piece, rubbish), { minLength: 1, maxLength: 5 }),
        (name, scheme, parts) => {
          const value = scheme + parts.flat().join('');
          const { problems } = read({ ...mail, [name]: value });
          for (const [secret] of parts) for (const text of problems) assert.ok(!text.includes(secret), text);
        },
      ),
    );
  });
});
