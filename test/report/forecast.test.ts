// What the page says about days and about what retention will do, against what was done and what is then really done.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type BackupDay, backupDays } from '../../src/backup-days.ts';
import type { Backup } from '../../src/catalog.ts';
import { planRetention, type RetentionPolicy } from '../../src/retention.ts';
import { forecastRetention } from '../../src/retention-forecast.ts';
import { dayMs, factsOf, type NightlyOptions, nightly, now, policy } from '../support/page.ts';

const facts = (backups: readonly Backup[], at = now) => ({
  ...{ backups, proven: new Set<string>(), opened: [], now: at, criticalAfterMs: undefined },
});

describe('forecastRetention', () => {
  const policies: readonly (readonly [string, RetentionPolicy])[] = [
    ['keep-last', policy({ last: 5 })],
    ['keep-within', policy({ within: 10 * dayMs })],
    ['days, weeks and months', policy({ daily: 7, weekly: 4, monthly: 3 })],
    ['labels', policy({ daily: 3, labels: new Map([['pre-migration', 20 * dayMs]]) })],
  ];
  for (const [name, rules] of policies)
    test(`${name}: each backup goes on the day that was foretold`, () => {
      const night: NightlyOptions['night'] = (each) => {
        if (each % 9 === 4) return { label: 'pre-migration' };
        return each === 13 ? { label: 'pre-restore' } : {};
      };
      const { backups } = nightly(40, { night }).catalog;
      const { fates, end } = forecastRetention(rules, facts(backups));
      const [newest] = backups;
      assert.ok(newest !== undefined);
      let present: readonly Backup[] = backups;
      const gone = new Map<string, string>();
      const prune = (at: Date): void => {
        const { decisions } = planRetention(rules, facts(present, at));
        present = decisions.filter(({ keptBy }) => keptBy.length > 0).map(({ backup }) => backup);
        for (const { backup, keptBy } of decisions)
          if (keptBy.length === 0) gone.set(backup.manifest.id, at.toISOString().slice(0, 10));
      };
      prune(now);
      for (let day = 1; day <= 200; day++) {
        const at = new Date(now.getTime() + day * dayMs);
        const taken = new Date(Date.parse(newest.manifest.createdAt) + day * dayMs);
        const id = `${taken.toISOString().slice(0, 19).replace(/[-:]/g, '')}Z-ffffff`;
        present = [...present, { ...newest, manifest: { ...newest.manifest, id, createdAt: taken.toISOString() } }];
        prune(at);
      }
      const foretold = backups.map(({ manifest }) => [
        manifest.id,
        fates.get(manifest.id)?.goes?.toISOString().slice(0, 10),
      ]);
      const horizon = new Date(Math.min(end.getTime(), now.getTime() + 200 * dayMs)).toISOString().slice(0, 10);
      assert.deepEqual(
        foretold.map(([id, day]) => [id, day === undefined || day > horizon ? 'later' : day]),
        backups.map(({ manifest }) => [manifest.id, gone.get(manifest.id) ?? 'later']),
      );
      assert.ok([...gone.values()].length > 20);
    });

  test('2,000 backups are foretold at once, and a pause is told', () => {
    const { backups } = nightly(2000).catalog;
    const began = performance.now();
    const { fates, end } = forecastRetention(policy({ within: 3000 * dayMs, daily: 7 }), facts(backups));
    assert.ok(performance.now() - began < 3000, `${performance.now() - began} ms`);
    assert.equal(fates.size, 2000);
    assert.ok(end > now);
    const late = nightly(5, { night: (night) => (night < 3 ? 'none' : {}) });
    assert.match(factsOf([late]).names[0]?.forecast?.paused ?? '', /the newest backup is 3 d 3 h old/);
  });
});

describe('backupDays', () => {
  const days = (made: ReturnType<typeof nightly>, dueMs = 1.25 * dayMs): readonly BackupDay[] =>
    backupDays(
      {
        ...{ catalog: made.catalog, series: made.catalog.backups, dueMs, now },
        proofs: new Map(
          [...made.proofs].flatMap(([id, [proof]]) => (proof === undefined ? [] : [[id, proof] as const])),
        ),
      },
      366,
    );
  const states = (made: ReturnType<typeof nightly>, dueMs?: number): string[] =>
    days(made, dueMs).map(({ state }) => state);

  test('a night without a backup was missed, unless none was due', () => {
    const made = nightly(6, {
      night: (night) => (night === 2 ? 'none' : {}),
      tested: (night) => (night === 4 ? {} : undefined),
    });
    assert.deepEqual(states(made), ['stored', 'proven', 'stored', 'missed', 'stored', 'stored']);
    const weekly = nightly(15, { night: (night) => (night % 7 === 0 ? {} : 'none'), tested: () => undefined });
    const week = ['none', 'none', 'none', 'none', 'none', 'none', 'stored'];
    assert.deepEqual(states(weekly, 8 * dayMs), ['stored', ...week, ...week]);
  });

  test('days since the newest are missed once the next one is overdue, today too', () => {
    const made = nightly(5, { night: (night) => (night < 2 ? 'none' : {}), tested: () => undefined });
    assert.deepEqual(states(made), ['stored', 'stored', 'stored', 'missed', 'missed']);
    assert.deepEqual(states(made, 3 * dayMs), ['stored', 'stored', 'stored', 'none', 'none']);
  });

  test('what retention deleted is not taken for a missed night', () => {
    const made = nightly(8, { tested: () => undefined });
    const kept = made.catalog.backups.filter((_, at) => at < 2 || at === 5);
    const catalog = { ...made.catalog, backups: kept };
    assert.deepEqual(states({ ...made, catalog }), ['gone', 'stored', 'gone', 'gone', 'gone', 'stored', 'stored']);
  });

  test('a day with nothing but a damaged backup, or one that failed its test, has no good one', () => {
    const made = nightly(3, {
      night: (night) => (night === 1 ? 'none' : {}),
      tested: (night) => (night === 0 ? { result: 'failed' } : undefined),
    });
    const damaged = [
      { kind: 'damaged' as const, name: 'shop', id: '20261120T020400Z-abcdef', reason: 'it is not JSON' },
    ];
    assert.deepEqual(states({ ...made, catalog: { ...made.catalog, damaged } }), ['stored', 'failed', 'failed']);
    assert.deepEqual(days(nightly(0)), []);
  });
});
