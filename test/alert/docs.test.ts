import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { parse } from 'yaml';
import { signatureOf } from '../../src/alert/webhook.ts';
import { channelInputs, readChannels } from '../../src/channel-inputs.ts';
import { Inputs } from '../../src/inputs.ts';
import { messageJson, messageOf } from '../../src/report/message.ts';
import { failed, runOf } from '../support/alerts.ts';
import { scratch } from '../support/faults.ts';

const page = readFileSync(join(import.meta.dirname, '../../docs/alerts.md'), 'utf8');
const examples = [...page.matchAll(/^```yaml\n(.+?)^```$/gms)].map(([, text = '']) => (parse(text) as Example).with);
interface Example {
  readonly with: Readonly<Record<string, string>>;
}

describe('docs/alerts.md', () => {
  test('shows every channel, and what it shows can be read', () => {
    assert.deepEqual(examples.flatMap((given) => Object.keys(given)).sort(), [...channelInputs].sort());
    const secrets: Readonly<Record<string, string>> = {
      'slack-webhook-url': 'https://hooks.slack.com/services/T0/B0/x',
      'ping-url': 'https://hc-ping.com/x',
      'smtp-url': 'smtp://user:password@smtp.example.com:587',
      'webhook-url': 'https://alerts.example.com/in',
    };
    const given = Object.assign({}, ...examples) as Record<string, string>;
    const inputs = new Inputs((name) => secrets[name] ?? given[name]);
    const channels = readChannels(inputs);
    assert.deepEqual(inputs.problems, []);
    assert.ok(Object.values(channels).every((each) => each !== undefined));
    assert.deepEqual(channels.mail?.to.length, 2);
  });

  test('names every field of the JSON document', () => {
    const now = new Date();
    const context = {
      ...({ kind: 'backup', name: 'shop', store: undefined, repository: 'octo/backups', details: true, now } as const),
      ...{ run: runOf('1', now), known: undefined },
    };
    const fields = messageJson(context, failed(), { id: 'x', message: messageOf(context, failed()) });
    const [table = ''] = /\| Field \|[\s\S]+?\n\n/.exec(page) ?? [];
    for (const name of Object.keys(fields)) assert.match(table, new RegExp(`\`${name}\``), name);
  });

  test('its line gives the signature that is sent', async () => {
    const [, line = ''] = /<!-- signature:start -->\s*```bash\n([\s\S]*?)```/.exec(page) ?? [];
    const [cwd, body, secret] = [await scratch(), '{"text":"é\\n$(id)"}', 'a \'secret\' of "mine"'];
    await writeFile(join(cwd, 'body.json'), body);
    const printed = execFileSync('bash', ['--norc', '-ec', line], {
      cwd,
      env: { PATH: '/usr/bin:/bin', WEBHOOK_SECRET: secret },
    });
    assert.equal(printed.toString(), `${signatureOf(body, secret)}\n`);
  });

  test('what it links to is there', () => {
    for (const [, target = ''] of page.matchAll(/\]\((?!https?:|#)([^)#]+)/g))
      assert.ok(existsSync(join(import.meta.dirname, '../../docs', target)), target);
  });
});
