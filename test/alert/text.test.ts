import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { type AlertState, afterFailure, alertKinds, digestsOf, type Failed, stateIn } from '../../src/alert-state.ts';
import {
  failedComment,
  failedSection,
  headline,
  type IssueContext,
  issueBody,
  issueTitle,
  passedSection,
  sectionsIn,
} from '../../src/report/issue.ts';
import { code, cut } from '../../src/report/markdown.ts';
import { failed, found, passed, runOf } from '../support/alerts.ts';

const now = new Date('2026-11-21T02:00:34Z');
const run = runOf('4711', now);
const id = '20261120T020004Z-3f9a1c';

function context(over: Partial<IssueContext> = {}): IssueContext {
  const store = 's3://acme-backups/prod';
  return {
    kind: 'restore-test',
    name: 'shop',
    run,
    store,
    storeFlags: `--store ${store}`,
    details: true,
    now,
    ...over,
  };
}

function sectionOf(report: Failed, details = true) {
  const headlined = headline('restore-test', report, details);
  const wrong = digestsOf(report, details);
  return afterFailure(undefined, {
    kind: 'restore-test',
    report,
    run,
    headline: headlined,
    wrong,
    now,
    notifyOn: 'change',
  }).section;
}

function bodyOf(report: Failed, over: Partial<IssueContext> = {}): string {
  const section = sectionOf(report, over.details ?? true);
  const state = { 'restore-test': section };
  return issueBody('0'.repeat(32), state, { 'restore-test': failedSection(context(over), report, section) });
}

/** What GitHub would still read as markup: everything outside of code spans and fences. */
function outsideCode(markdown: string): string {
  return markdown.replace(/^(`{3,})\w*\n[\s\S]*?\n\1$/gm, '').replace(/(?<!`)(`+)(?!`)([\s\S]*?[^`])\1(?!`)/g, '');
}

const nasty = [
  '@everyone',
  '](http://evil.example)',
  'https://evil.example/#1',
  '<!-- pgassay:1 00 -->',
  '\n<!-- pgassay:end restore-test -->\n',
  '--> <script>alert(1)</script>',
  '``` \n# heading',
  '\n```\n# heading\n',
  '| a | b |',
  '`x` ``y`` #12 octo/backups#3',
  '::error::gotcha',
  '![x](https://evil.example/x.png)',
  '\u202Egnp.exe',
];
const anyName = fc.oneof(fc.string({ unit: 'binary', maxLength: 400 }), fc.constantFrom(...nasty));

describe('names out of a database', () => {
  test('make no markup, mention, link or mark, in no text of an issue', () => {
    fc.assert(
      fc.property(fc.array(anyName, { minLength: 1, maxLength: 6 }), fc.boolean(), (names, asError) => {
        const message = names.join(' ');
        const error = { stage: 'verify', exit: 'verification', message, hint: message } as const;
        const report = { ...found(id, true, names), error: asError ? error : undefined };
        const change = afterFailure(undefined, {
          ...{
            kind: 'restore-test',
            report,
            run,
            headline: '',
            wrong: digestsOf(report, true),
            now,
            notifyOn: 'change',
          },
        });
        const clean = bodyOf(found(id, true, ['x'])).split('\n');
        const body = bodyOf(report);
        for (const text of [body, failedComment(context(), report, change)]) {
          const rest = outsideCode(text);
          for (const word of ['@everyone', 'evil.example', '<script', 'heading', '#12', '![', '\u202e'])
            assert.ok(!rest.includes(word), `${word} in ${rest}`);
        }
        const marks = (lines: string[]): string[] => lines.filter((line) => line.startsWith('<!--')).slice(0, -1);
        assert.deepEqual(marks(body.split('\n')), marks(clean));
        assert.deepEqual(stateIn(body)['restore-test']?.failing.length, 1);
        assert.equal(Object.keys(sectionsIn(body)).length, 1);
      }),
    );
  });

  test('stay in their cell, and in their one line of code', () => {
    fc.assert(
      fc.property(anyName, (name) => {
        const cell = code(name);
        assert.doesNotMatch(cell, /[\r\n|]/);
        const [, fence = '', inner = ''] = /^(`+)([\s\S]*)\1$/.exec(cell) ?? [];
        assert.ok(fence !== '' && !new RegExp(`(?<!\`)${fence}(?!\`)`).test(inner), cell);
      }),
    );
  });
});

describe('the body of an issue', () => {
  const report = found(
    id,
    true,
    Array.from({ length: 5000 }, (_, index) => `public.${'t'.repeat(40)}${index}`),
  );
  const error = {
    stage: 'verify',
    exit: 'verification',
    message: '長',
    hint: 'h'.repeat(50_000),
  } as const;

  test('is below what GitHub takes with everything failing at length, and its table ends with a whole row', () => {
    const whole = { ...report, error: { ...error, message: 'm'.repeat(50_000) } };
    const one = sectionOf(whole);
    const ids = Array.from({ length: 20 }, (_, index) => `202611${10 + index}T020004Z-3f9a1c`);
    const failing = ids.map((each) => ({ subject: { of: 'backup', id: each, latest: false }, at: one.since }) as const);
    const section = { ...one, failing };
    const state: AlertState = Object.fromEntries(alertKinds.map((kind) => [kind, section]));
    const texts = Object.fromEntries(
      alertKinds.map((kind) => [kind, failedSection(context({ kind }), whole, section)]),
    );
    const body = issueBody('0'.repeat(32), state, texts);
    assert.ok(body.length < 65_536, `${body.length} characters`);
    assert.deepEqual(Object.keys(stateIn(body)), [...alertKinds]);
    assert.deepEqual(sectionsIn(body), texts);
    const rows = (texts['restore-test'] ?? '').split('\n').filter((line) => line.startsWith('| '));
    assert.ok(rows.length > 3);
    for (const row of rows) assert.match(row, /^\|.*\|.*\|.*\|$/);
    assert.match(body, /And \d[ \d]* findings more; the log of the run has all of them/);
    assert.ok(Buffer.byteLength(issueTitle('n'.repeat(64), state)) <= 240);
  });

  test('is below it too when somebody wrote a novel into it', () => {
    const section = sectionOf(report);
    const state: AlertState = Object.fromEntries(alertKinds.map((kind) => [kind, section]));
    const texts = Object.fromEntries(alertKinds.map((kind) => [kind, `### Mine\n\nText\n\n${'word '.repeat(20_000)}`]));
    assert.ok(issueBody('0'.repeat(32), state, texts).length < 65_536);
  });

  test('says what was expected and found, what it means, what to do, and how to see it on a machine of one’s own', () => {
    const body = bodyOf(found(id, true, ['public.users']));
    assert.match(body, /^\| `public\.users` \| `12 rows` \| `11 rows` \|$/m);
    assert.match(body, /backup of 2026-11-20 02:00 UTC is not proof of recovery/);
    assert.match(body, /\[run 4711\]\(https:\/\/github\.com\/octo\/backups\/actions\/runs\/4711\)/);
    assert.match(body, /^1\. .+\n2\. .+\n3\. .+$/m);
    assert.match(body, new RegExp(`^pgassay restore-test ${id} --store s3://acme-backups/prod --name shop$`, 'm'));
  });

  test('says how to reach artifacts from there, and how to bring a key', () => {
    const at = { store: 'artifact://github.com/octo/backups', storeFlags: '--store artifact' };
    const body = bodyOf(found(id, true), at);
    assert.match(
      body,
      /^```sh\nexport GITHUB_TOKEN=… GITHUB_REPOSITORY=octo\/backups\npgassay list --store artifact /m,
    );
    assert.match(
      body,
      new RegExp(`^# .*--decrypt-identity-file key.txt\npgassay restore-test ${id} --store artifact `, 'm'),
    );
    assert.match(bodyOf(found(id, true), { ...at, details: false }), /^export GITHUB_TOKEN=… GITHUB_REPOSITORY='…'$/m);
    const report = failed();
    const backup = failedSection(context({ ...at, kind: 'backup' }), report, sectionOf(report));
    assert.doesNotMatch(backup, /pgassay backup|DATABASE_URL/);
    assert.match(backup, /^pgassay list --store artifact --name shop {3}#/m);
    assert.doesNotMatch(bodyOf(found(id, true)), /GITHUB_TOKEN/);
  });

  test('keeps what had failed under what passed', () => {
    const text = failedSection(context(), found(id, true), sectionOf(found(id, true)));
    const after = passedSection(context(), passed({ subject: { of: 'backup', id, latest: true } }), text);
    assert.match(after, /^### The restore test of `shop` passed\n\nBackup `20261120T020004Z-3f9a1c`\. It took 6\.2 s/);
    assert.ok(after.includes(text));
  });
});

describe('the title', () => {
  test('says what failed', () => {
    const state = (report: Failed, details: boolean): AlertState => ({ 'restore-test': sectionOf(report, details) });
    assert.equal(
      issueTitle('shop', state(found(id, true, ['a', 'b']), true)),
      'shop: restore test failed: 2 findings in backup of 2026-11-20 02:00 UTC',
    );
    assert.equal(
      issueTitle('shop', state(found(id, true, ['a', 'b']), false)),
      'shop: restore test failed: backup of 2026-11-20 02:00 UTC',
    );
    assert.equal(headline('backup', failed(), true), 'backup failed: the database cannot be reached');
  });
});

describe('with details withheld', () => {
  test('no name, count, message, store or hint is in any text', () => {
    const error = {
      stage: 'verify',
      exit: 'verification',
      message: 'public.users has 11 rows',
      hint: 'see 12',
    } as const;
    const report = { ...found(id, true, ['public.users', 'public.orders']), error };
    const section = sectionOf(report, false);
    const change = afterFailure(section, {
      ...{ kind: 'restore-test', report, run: runOf('4712', now), headline: '', wrong: ['0'.repeat(12)], now },
      notifyOn: 'change',
    });
    const told = context({ details: false });
    for (const text of [bodyOf(report, { details: false }), failedComment(told, report, change)]) {
      for (const word of ['users', 'orders', 'rows', '2 findings', 'acme', 'see 12'])
        assert.ok(!text.includes(word), `${word} in ${text}`);
      assert.match(text, /`alert-details: true` shows them/);
    }
  });
});

test('a text that is cut keeps whole characters', () => {
  assert.equal(cut('abc', 3), 'abc');
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.integer({ min: 3, max: 40 }), (text, bytes) => {
      const short = cut(text, bytes);
      assert.ok(Buffer.byteLength(short) <= bytes);
      assert.ok(text.isWellFormed() === false || short.isWellFormed());
    }),
  );
});
