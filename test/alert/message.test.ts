import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { alertKinds, type Failed, type Report } from '../../src/alert-state.ts';
import { exitCodes } from '../../src/failure.ts';
import {
  type KnownOfRun,
  type MessageContext,
  messageJson,
  messageOf,
  plainText,
  slackText,
} from '../../src/report/message.ts';
import { isTold } from '../../src/tell-channels.ts';
import { failed, found, passed, runOf } from '../support/alerts.ts';

const now = new Date('2026-11-21T02:00:34Z');
const id = '20261120T020004Z-3f9a1c';
const issue = { number: 7, url: 'https://github.com/octo/backups/issues/7' };
const known: KnownOfRun = { news: true, since: '2026-11-20T02:00:31.000Z', runs: 2, issue };

function context(over: Partial<MessageContext> = {}): MessageContext {
  return {
    ...{ kind: 'restore-test', name: 'shop', store: 's3://acme-backups/prod', repository: 'octo/backups' },
    ...{ details: true, now, run: runOf('4711', now), known: undefined },
    ...over,
  };
}

const plain = (report: Report, over: Partial<MessageContext> = {}): string =>
  plainText(messageOf(context(over), report));
const slack = (report: Report, over: Partial<MessageContext> = {}): string =>
  slackText(messageOf(context(over), report));

describe('a message', () => {
  test('of a restore test that failed names what was expected and found', () => {
    assert.equal(
      plain(found(id, true, ['public.users', 'public.orders']), { known }),
      [
        'shop: restore test failed: 2 findings in backup of 2026-11-20 02:00 UTC',
        '',
        '2026-11-21 02:00:34 UTC · since 2026-11-20 02:00:31 UTC · 2 failed runs · repository octo/backups · workflow backup · store s3://acme-backups/prod',
        '',
        '  public.users: expected 12 rows, found 11 rows',
        '  public.orders: expected 12 rows, found 11 rows',
        '',
        'What it means: The backup of 2026-11-20 02:00 UTC is not proof of recovery. Do not count on it; others are neither better nor worse for this.',
        '',
        'What to do: Read the findings: each names an object, what the backup recorded and what came back. Then run the failed job again.',
        '',
        'run 4711: https://github.com/octo/backups/actions/runs/4711',
        'issue #7: https://github.com/octo/backups/issues/7',
        '',
      ].join('\n'),
    );
  });

  test('of the run that ended it says for how long it had failed', () => {
    const report = passed({
      subject: { of: 'backup', id, latest: true },
      backup: { id, createdAt: now.toISOString() },
    });
    assert.equal(
      plain(report, { known }),
      [
        'shop: restore test passed again',
        '',
        `2026-11-21 02:00:34 UTC · backup ${id} · took 6.2 s · repository octo/backups · workflow backup · store s3://acme-backups/prod`,
        '',
        'Before that: 2 failed runs since 2026-11-20 02:00:31 UTC, for 24 h.',
        '',
        'run 4711: https://github.com/octo/backups/actions/runs/4711',
        'issue #7: https://github.com/octo/backups/issues/7',
        '',
      ].join('\n'),
    );
    assert.match(plain(report), /^shop: restore test passed\n/);
    const other = plain(report, { known: { ...known, news: false } });
    assert.match(other, /^shop: restore test passed\n[\s\S]*Still open: What failed before is something else/);
  });

  test('shows no message, name, count or store where details are withheld', () => {
    const report = { ...found(id, true), ...{ error: failed().error } };
    const over = { details: false, known };
    const message = messageOf(context(over), report);
    const json = JSON.stringify(messageJson(context(over), report, { id: 'x', message }));
    for (const text of [plainText(message), slackText(message), json]) {
      for (const word of ['public.users', '12 rows', 'does not answer', 'wake it up', 's3://', '1 finding'])
        assert.ok(!text.includes(word), `${word}: ${text}`);
      assert.match(text, /shop: restore test failed: (backup of|the proof failed|the database cannot)/);
      assert.match(text, /The log of the run has them/);
    }
  });

  test('for every kind and every exit says what it means and what to do', () => {
    for (const kind of alertKinds)
      for (const exit of [...(Object.keys(exitCodes) as (keyof typeof exitCodes)[]), 'defect' as const]) {
        const error = { stage: undefined, exit, message: 'm', hint: undefined };
        const text = plain(failed({ error }), { kind });
        assert.match(text, /^What it means: .{20,}$/m);
        assert.match(text, /^What to do: .{20,}$/m);
      }
  });

  test('holds ten findings, and stays short whatever they are', () => {
    const objects = Array.from({ length: 3_000 }, (_, index) => `public."${'<&`'.repeat(400)}${index}"`);
    const long = { ...found(id, true, objects), error: { ...failed().error, message: '&'.repeat(9_000) } } as Failed;
    assert.match(plain(long), /and 2 990 more findings/);
    assert.ok(slack(long).length < 40_000, `${slack(long).length}`);
  });

  test('in Slack calls nobody, links nothing but run and issue, and keeps others’ words in their code', () => {
    const hostile = fc.string({
      unit: fc.constantFrom(
        '`',
        '```',
        '<!channel>',
        '<@U1>',
        '<https://evil.example|x>',
        '*',
        '&lt;',
        '\n',
        'a',
        '\u202e',
        '|',
        '>',
      ),
      maxLength: 12,
    });
    fc.assert(
      fc.property(hostile, hostile, (one, two) => {
        const error = { stage: 'connect', exit: 'connect', message: one, hint: two } as const;
        const findings = [{ object: two, expected: one, found: two }];
        const run = { ...runOf('4711', now), workflow: one };
        const over = { run, store: two, name: one, repository: two, known };
        const text = slack(failed({ error, findings }), over);
        assert.deepEqual(text.match(/<[^>]*>/g), [
          '<https://github.com/octo/backups/actions/runs/4711|run 4711>',
          '<https://github.com/octo/backups/issues/7|issue #7>',
        ]);
        assert.equal(text.match(/```/g)?.length, 2);
        assert.doesNotMatch(text, /\u202e/);
        assert.doesNotMatch(plain(failed({ error, findings }), over), /\u202e|\r/);
      }),
    );
  });
});

describe('notify-on', () => {
  const again: KnownOfRun = { ...known, news: false };
  const told = (on: 'change' | 'failure' | 'always', report: Report, of?: KnownOfRun): boolean =>
    isTold(on, report, of);

  test('change: what the issue calls new, and every failure where there is none to ask', () => {
    assert.deepEqual(
      [known, again, undefined].map((of) => told('change', failed(), of)),
      [true, false, true],
    );
    assert.deepEqual(
      [known, again, undefined].map((of) => told('change', passed(), of)),
      [true, false, false],
    );
  });

  test('failure: failures and no pass; always: every run', () => {
    assert.deepEqual(
      [known, again, undefined].map((of) => told('failure', failed(), of)),
      [true, false, true],
    );
    assert.deepEqual(
      [known, again, undefined].map((of) => told('failure', passed(), of)),
      [false, false, false],
    );
    for (const each of [known, again, undefined])
      for (const report of [failed(), passed()]) assert.equal(told('always', report, each), true);
  });
});
