// The page, in a real browser: what it shows, on a phone and in the dark, to whoever hears it or has no mouse, with names
// that were chosen to hurt.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import axe from 'axe-core';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import type { PageFacts } from '../../src/page-facts.ts';
import { page } from '../../src/report/page/page.ts';
import { scratch } from '../support/faults.ts';
import { dayMs, factsOf, nightly, now, policy, startBrowser, withoutBrowser } from '../support/page.ts';

const phone = { width: 360, height: 740 };
const desk = { width: 1280, height: 900 };

/** Two months: two nights missed, one backup before a migration, one restore test that failed. */
const sixty = (): PageFacts =>
  factsOf([
    nightly(60, {
      night: (night) => (night === 19 || night === 20 ? 'none' : night === 9 ? { label: 'pre-migration' } : {}),
      tested: (night) => {
        if (night % 7 !== 2) return undefined;
        const findings = [{ object: 'public.orders', expected: '120 331 rows', found: '120 330 rows' }];
        return night === 16 ? { result: 'failed', findings } : {};
      },
    }),
  ]);

/** Three weeks, encrypted to a key that opened the second of those nights last. */
function withKey(): PageFacts {
  const recipient = `age1${'r'.repeat(58)}`;
  const encryption = { type: 'age', recipients: [recipient] } as const;
  const file = { name: 'database.dump.age', bytes: 5000, sha256: '', compression: 'none', encryption };
  const made = nightly(21, { night: () => ({ files: [file] }) });
  const backupId = made.catalog.backups[19]?.manifest.id ?? '';
  const at = new Date(now.getTime() - dayMs).toISOString();
  const facts = factsOf([{ ...made, keyUses: [{ backupId, recipient, at }] }], { retention: policy({ last: 3 }) });
  assert.ok(page(facts).text.includes(`last that the key of ${recipient} opened`));
  return facts;
}

describe('the page in Chromium', { skip: withoutBrowser, timeout: 120_000 }, () => {
  let browser: Browser;
  let folder: string;
  before(async () => {
    [browser, folder] = await Promise.all([startBrowser(), scratch()]);
  });
  after(() => browser?.close());

  /** Opens it as a file, and fails the test if the page asks for anything else or breaks its own policy. */
  const open = async (
    facts: PageFacts,
    look: (shown: Page) => Promise<void>,
    options: BrowserContextOptions & { readonly at?: Date } = {},
  ): Promise<void> => {
    const { at = now, ...context } = options;
    const path = join(folder, 'index.html');
    await writeFile(path, page(facts).text);
    const opened = await browser.newContext({ viewport: desk, ...context });
    try {
      const shown = await opened.newPage();
      const trouble: string[] = [];
      shown.on('request', (request) => {
        if (!request.url().startsWith('file:') && request.url() !== 'data:,')
          trouble.push(`asked for ${request.url()}`);
      });
      shown.on('console', (message) => trouble.push(message.text()));
      shown.on('pageerror', (error) => trouble.push(error.message));
      shown.on('dialog', (dialog) => {
        trouble.push(`dialog: ${dialog.message()}`);
        void dialog.dismiss();
      });
      await shown.clock.setFixedTime(at);
      await shown.goto(pathToFileURL(path).href);
      await look(shown);
      assert.deepEqual(trouble, []);
    } finally {
      await opened.close();
    }
  };

  const complaints = async (shown: Page): Promise<string[]> => {
    await shown.evaluate(axe.source);
    const { violations } = (await shown.evaluate('axe.run()')) as axe.AxeResults;
    return violations.map(
      ({ id, nodes }) =>
        `${id}: ${nodes
          .map((node) => node.html)
          .slice(0, 3)
          .join(' ')}`,
    );
  };
  const fits = (shown: Page): Promise<boolean> => shown.evaluate('document.documentElement.scrollWidth <= innerWidth');
  /** As it is shown, without what is folded, its spaces all of one kind. */
  const text = async (shown: Page, selector = 'main'): Promise<string> =>
    String(await shown.evaluate(`document.querySelector('${selector}').innerText`)).replaceAll('\u00a0', ' ');

  const kinds: readonly (readonly [string, () => PageFacts])[] = [
    ['no backup', () => factsOf([nightly(0)])],
    ['one backup', () => factsOf([nightly(1)])],
    ['60 backups', sixty],
    [
      'several databases',
      () => factsOf([nightly(3), nightly(30, { name: 'billing', night: (n) => (n < 2 ? 'none' : {}) })]),
    ],
    ['names and counts withheld', () => factsOf([nightly(20)], { details: false })],
    ['a key that opened an old backup last', withKey],
  ];
  for (const [kind, make] of kinds)
    test(`${kind}: fits a phone, and axe finds nothing, in light and in dark`, async () => {
      const facts = make();
      for (const colorScheme of ['light', 'dark'] as const)
        await open(
          facts,
          async (shown) => {
            assert.ok(await fits(shown), 'something is wider than the screen');
            assert.deepEqual(await complaints(shown), []);
          },
          { colorScheme, viewport: colorScheme === 'dark' ? phone : desk },
        );
    });

  test('2,000 backups fit a phone, are there within seconds, and none is left out', async () => {
    const facts = factsOf([nightly(2000)], { retention: policy({ within: 2000 * dayMs }) });
    const size = Buffer.byteLength(page(facts).text);
    assert.ok(size < 2e6, `${size} bytes`);
    const began = performance.now();
    await open(
      facts,
      async (shown) => {
        assert.ok(await fits(shown), 'something is wider than the screen');
        assert.ok(performance.now() - began < 10_000, `${performance.now() - began} ms`);
        assert.match(await text(shown), /In store\s+2 TB\s+2 000 backups/);
        const rows = await shown.evaluate("document.querySelectorAll('table[aria-label=Backups] tbody tr').length");
        assert.equal(rows, 2000);
      },
      { viewport: phone },
    );
  });

  test('light and dark are two schemes', async () => {
    const papers: string[] = [];
    for (const colorScheme of ['light', 'dark'] as const)
      await open(
        factsOf([nightly(1)]),
        async (shown) => void papers.push(await shown.evaluate('getComputedStyle(document.body).backgroundColor')),
        { colorScheme },
      );
    assert.notEqual(papers[0], papers[1]);
  });

  test('says everything without its script, and folds open by the keyboard alone', async () => {
    await open(
      sixty(),
      async (shown) => {
        assert.equal(
          await text(shown, 'h1'),
          'Everything is fine: 48 tables, last backup 3 h ago, last proven 2 days ago in 4 min 24 s of the 30 min allowed.',
        );
        const said = await text(shown);
        assert.match(said, /Of the last 60 days, 57 have a good backup, 2 were missed\./);
        assert.match(said, /failed 1 finding: public\.orders, expected 120 331 rows, found 120 330 rows/i);
        assert.match(said, /pre-migration/);
        assert.match(said, /stays until 2026-12-05\s+newest, keep-daily 14, keep-weekly 8, keep-monthly 12/);
        const october = shown.locator('summary', { hasText: '2026-10: 31' });
        const inside = shown.locator('text=20261015T020400Z').last();
        assert.equal(await inside.isVisible(), false);
        await october.focus();
        await shown.keyboard.press('Enter');
        assert.equal(await inside.isVisible(), true);
      },
      { javaScriptEnabled: false },
    );
  });

  test('the first thing a Tab reaches skips to the state', async () => {
    await open(sixty(), async (shown) => {
      await shown.keyboard.press('Tab');
      assert.equal(await shown.evaluate('document.activeElement.textContent'), 'Skip to the state');
      await shown.keyboard.press('Enter');
      assert.equal(new URL(shown.url()).hash, '#state');
    });
  });

  test('whoever hears it is told each day, each mark and each chart in words', async () => {
    await open(sixty(), async (shown) => {
      const heard = (await shown.locator('main').ariaSnapshot()).replaceAll('\u00a0', ' ');
      assert.match(heard, /table "November 2026"/);
      assert.match(heard, /cell "2 ?: a backup was due, and none was taken"/);
      assert.match(heard, /cell "5 ?: only backups that failed their restore test or are damaged"/);
      assert.match(heard, /cell "12 ?: a backup that a restore test passed"/);
      assert.match(heard, /img "Stored size of 58 backups, 2026-09-23 to 2026-11-21: first .* MB, last .* MB/);
      assert.match(heard, /img "9 restore tests, 8 passed; the last one took 4 min 24 s of the 30 min allowed"/);
      assert.match(heard, /columnheader "Retention"/);
      assert.match(heard, /link "run that tested 20261119T020400Z-3f9a1e"/);
    });
  });

  test('out of date, it says so by itself', async () => {
    const stale = async (at: Date, visible: boolean): Promise<void> =>
      open(sixty(), async (shown) => assert.equal(await shown.locator('#stale').isVisible(), visible), { at });
    await stale(new Date(now.getTime() + dayMs), false);
    await stale(new Date(now.getTime() + 2 * dayMs), true);
  });

  test('of several, those in need come first and open, and the others fold', async () => {
    const late = nightly(30, { name: 'billing', night: (night) => (night < 2 ? 'none' : {}) });
    await open(factsOf([nightly(3), late, nightly(3, { name: 'crm', tested: () => undefined })]), async (shown) => {
      assert.equal(await text(shown, 'h1'), 'Recovery is at risk: billing (1 of 3 databases).');
      assert.deepEqual(await shown.locator('h2').allInnerTexts(), ['billing', 'shop', 'crm']);
      assert.deepEqual(await shown.locator('details.name[open] h2').allInnerTexts(), ['billing']);
    });
  });

  test('I-42: hostile names and addresses are text, whatever they hold', async () => {
    const evil = `<img src=x onerror="alert(1)"><script>alert(2)</script>"'&amp; \u202e\u0007</style><!--`;
    const findings = [{ object: evil, expected: evil, found: evil }];
    const facts = factsOf([
      nightly(4, {
        night: (night) => ({
          ...{ label: evil, series: night === 3 ? evil : 'full' },
          database: {
            ...{ id: null, name: evil, serverVersion: evil, encoding: 'UTF8', collation: 'C' },
            sizeBytes: 1,
          },
        }),
        tested: (night) => ({ result: night === 0 ? 'failed' : 'passed', findings, runUrl: 'javascript:alert(3)' }),
      }),
    ]);
    const odd = { ...facts, store: `file:///${evil}`, shellStore: `'file:///${evil}'` };
    await open(odd, async (shown) => {
      const said = await text(shown);
      assert.ok(said.includes('<img src=x onerror="alert(1)"><script>alert(2)</script>'));
      for (const unseen of ['\u202e', '\u0007']) assert.ok(!said.includes(unseen));
      assert.equal(await shown.locator('img, main script, main style').count(), 0);
      const links = await shown.evaluate(
        "[...document.querySelectorAll('a')].map((each) => each.getAttribute('href'))",
      );
      assert.deepEqual(links, ['#state']);
      assert.deepEqual(await complaints(shown), []);
    });
  });

  test('withheld, it holds no store, table, size or count out of the database', () => {
    const tested = (): { result: 'failed'; findings: { object: string; expected: string; found: string }[] } => ({
      ...{ result: 'failed' },
      findings: [{ object: 'public.secrets', expected: '12 rows', found: '11 rows' }],
    });
    const facts = factsOf(
      [
        nightly(20, {
          tested,
          night: (night) => (night === 0 ? { totals: { tables: 3, rows: 5, largeObjects: 0 } } : {}),
        }),
      ],
      {
        details: false,
      },
    );
    assert.equal(facts.names[0]?.condition.findings.length, 2);
    const { text: written } = page(facts);
    assert.doesNotMatch(written, /acme|public\.secrets|\d rows|\d [kMG]B|48 tables|github\.com/);
    assert.match(written, /withheld here/);
    assert.match(written, /What to do: /);
  });
});

test('the page restores from artifacts and with a key as a shell does it', () => {
  const encryption = (type: 'age' | 'age-passphrase') => (night: number) => ({
    files: [
      { name: 'database.dump.age', bytes: 5, sha256: '', compression: 'none', encryption: { type, recipients: [] } },
    ],
    id: `2026112${night}T020000Z-3f9a1c`,
  });
  const lines = (facts: PageFacts): string[] =>
    [...page(facts).text.matchAll(/<pre><code>(.*?)<\/code><\/pre>/g)].map(([, line = '']) => line);
  const stored = (store: string, view: Partial<PageFacts> = {}, type: 'age' | 'age-passphrase' = 'age'): string[] =>
    lines({ ...factsOf([nightly(1, { night: encryption(type) })], view), shellStore: store });
  const backup = '20261120T020000Z-3f9a1c';
  const start = 'TARGET_URL=postgresql://…';
  assert.deepEqual(stored('artifact://github.com/octo/backups'), [
    `${start} GITHUB_TOKEN=… GITHUB_REPOSITORY=octo/backups pgassay restore ${backup} --store artifact --name shop --decrypt-identity-file key.txt`,
  ]);
  assert.deepEqual(stored('artifact://acme.ghe.com/octo/backups', {}, 'age-passphrase'), [
    `${start} GITHUB_TOKEN=… GITHUB_REPOSITORY=octo/backups GITHUB_SERVER_URL=https://acme.ghe.com GITHUB_API_URL=https://api.acme.ghe.com pgassay restore ${backup} --store artifact --name shop --decrypt-passphrase-file passphrase.txt`,
  ]);
  const [withheld = ''] = stored('artifact://github.com/octo/backups', { details: false });
  assert.match(withheld, /GITHUB_REPOSITORY=&#39;…&#39; pgassay restore \S+ --store artifact --name shop --decrypt/);
  const [before, newest] = [lines(factsOf([nightly(4)]))[1], lines(factsOf([nightly(4)]))[0]];
  assert.match(
    newest ?? '',
    /^TARGET_URL=postgresql:\/\/… pgassay restore \S+ --store s3:\/\/acme-backups\/prod --name shop$/,
  );
  assert.match(before ?? '', /pgassay restore 20261119T\S+ --store s3:\/\/acme-backups\/prod --name shop$/);
});
