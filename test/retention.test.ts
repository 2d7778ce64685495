import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { Backup } from '../src/catalog.ts';
import { Failure } from '../src/failure.ts';
import { Inputs } from '../src/inputs.ts';
import type { Manifest } from '../src/manifest.ts';
import type { KeyUse } from '../src/opening.ts';
import { planRetention, type RetentionFacts, type RetentionPlan, type RetentionPolicy } from '../src/retention.ts';
import { readRetention } from '../src/retention-inputs.ts';

const hour = 3_600_000;
const day = 24 * hour;

const none: RetentionPolicy = {
  ...{ last: undefined, within: undefined, daily: undefined, weekly: undefined, monthly: undefined, yearly: undefined },
  labels: new Map(),
};

interface Made {
  readonly series?: string;
  readonly label?: string;
  readonly database?: string | null;
  readonly recipients?: readonly string[];
}

function made(
  at: string | number,
  { series = 'full', label = 'scheduled', database = 'db', recipients = [] }: Made = {},
): Backup {
  const createdAt = new Date(at).toISOString();
  const stamp = createdAt.replace(/[-:]/g, '').replace(/\.\d+/, '');
  const id = `${stamp}-${(made.count++).toString(16).padStart(6, '0')}`;
  const encryption = recipients.length === 0 ? null : { type: 'age', recipients };
  const manifest = { id, name: 'shop', label, series, createdAt, database: { id: database }, files: [{ encryption }] };
  return { manifest: manifest as unknown as Manifest, manifestSha256: '', tampering: [], proofs: [] };
}
made.count = 0;

function plan(policy: Partial<RetentionPolicy>, backups: readonly Backup[], facts: Partial<RetentionFacts> = {}) {
  const newest = Math.max(...backups.map(({ manifest }) => Date.parse(manifest.createdAt)));
  const all = {
    backups,
    proven: new Set<string>(),
    opened: [],
    now: new Date(newest + hour),
    criticalAfterMs: undefined,
    ...facts,
  };
  return planRetention({ ...none, ...policy }, all);
}

/** `2026-11-20 newest, keep-daily 7: 2026-11-20` of each that stays, newest first. */
function kept({ decisions }: RetentionPlan): string[] {
  return decisions
    .filter(({ keptBy }) => keptBy.length > 0)
    .map(({ backup, keptBy }) => `${backup.manifest.createdAt.slice(0, 10)} ${keptBy.join(', ')}`);
}

function days({ decisions }: RetentionPlan): string[] {
  return decisions
    .filter(({ keptBy }) => keptBy.length > 0)
    .map(({ backup }) => backup.manifest.createdAt.slice(0, 10));
}

/** One a night at 02:00 UTC, oldest first. */
function nightly(from: string, count: number, more: Made = {}): Backup[] {
  const start = Date.parse(`${from}T02:00:00Z`);
  return Array.from({ length: count }, (_, night) => made(start + night * day, more));
}

describe('retention, rule by rule', () => {
  test('keep-last', () => {
    assert.deepEqual(kept(plan({ last: 2 }, nightly('2026-11-10', 5))), [
      '2026-11-14 newest, keep-last 2',
      '2026-11-13 keep-last 2',
    ]);
  });

  test('I-30: keep-within counts from the newest, and keeps the one that its window began with', () => {
    const backups = [...nightly('2026-11-01', 5), ...nightly('2026-11-10', 3)];
    assert.deepEqual(kept(plan({ within: 5 * day }, backups)), [
      '2026-11-12 newest, keep-within 5 d',
      '2026-11-11 keep-within 5 d',
      '2026-11-10 keep-within 5 d',
      '2026-11-05 keep-within 5 d: how it began',
    ]);
  });

  test('keep-daily keeps the last of a day, and does not count days without one', () => {
    const backups = ['2026-11-10T02:00Z', '2026-11-10T20:00Z', '2026-11-14T23:59:59Z', '2026-11-15T00:00Z'].map((at) =>
      made(at),
    );
    assert.deepEqual(
      plan({ daily: 3 }, backups)
        .decisions.filter(({ keptBy }) => keptBy.length > 0)
        .map(({ backup }) => backup.manifest.createdAt.slice(0, 16)),
      ['2026-11-15T00:00', '2026-11-14T23:59', '2026-11-10T20:00'],
    );
  });

  test('weeks begin on Monday, months and years in January, all in UTC', () => {
    // Sunday, Monday; the last days of a leap February and of a year.
    const backups = [
      '2028-02-28T12:00Z',
      '2028-02-29T12:00Z',
      '2028-03-01T12:00Z',
      '2028-12-31T23:59Z',
      '2029-01-01T00:00Z',
    ].map((at) => made(at));
    assert.deepEqual(days(plan({ weekly: 2 }, backups)), ['2029-01-01', '2028-12-31']);
    assert.deepEqual(kept(plan({ monthly: 9 }, backups)), [
      '2029-01-01 newest, keep-monthly 9: 2029-01',
      '2028-12-31 keep-monthly 9: 2028-12',
      '2028-03-01 keep-monthly 9: 2028-03',
      '2028-02-29 keep-monthly 9: 2028-02',
    ]);
    assert.deepEqual(days(plan({ yearly: 5 }, backups)), ['2029-01-01', '2028-12-31']);
  });

  test('any rule is enough, and each says that it keeps', () => {
    const backups = nightly('2026-01-01', 365);
    const result = plan({ daily: 7, weekly: 4, monthly: 12, yearly: 2 }, backups);
    const [first] = kept(result);
    assert.equal(
      first,
      '2026-12-31 newest, keep-daily 7: 2026-12-31, keep-weekly 4: week of 2026-12-28, keep-monthly 12: 2026-12, keep-yearly 2: 2026',
    );
    // Seven days with a Sunday among them, two more Sundays, eleven more ends of months.
    assert.equal(kept(result).length, 7 + 2 + 11);
  });

  test('labels have windows of their own and count by themselves', () => {
    const backups = [
      ...nightly('2026-08-01', 110),
      made('2026-08-02T12:00Z', { label: 'pre-migration' }),
      made('2026-11-01T12:00Z', { label: 'pre-migration' }),
      made('2026-11-02T12:00Z', { label: 'pre-migration' }),
      made('2026-06-01T12:00Z', { label: 'by-hand' }),
    ];
    const result = plan({ last: 1, labels: new Map([['pre-migration', 90 * day]]) }, backups);
    assert.deepEqual(kept(result), [
      '2026-11-18 newest, keep-last 1',
      '2026-11-02 keep-labels pre-migration=90 d, keep-last 1',
      '2026-11-01 keep-labels pre-migration=90 d',
      '2026-06-01 keep-last 1',
    ]);
    const onlyLabels = plan({ labels: new Map([['pre-migration', 90 * day]]) }, backups);
    assert.equal(kept(onlyLabels).length, 110 + 2 + 1, 'labels that no rule speaks of stay');
  });

  test('safety backups stay for 30 days, or as long as keep-labels says, and nothing else speaks of them', () => {
    const backups = [
      ...nightly('2026-11-10', 3),
      made('2026-10-01T12:00Z', { label: 'pre-restore' }),
      made('2026-11-11T12:00Z', { label: 'pre-restore' }),
    ];
    const proven = new Set([backups[3]?.manifest.id ?? '']);
    assert.deepEqual(kept(plan({ last: 1 }, backups, { proven })), [
      '2026-11-12 newest, keep-last 1',
      '2026-11-11 keep-labels pre-restore=30 d',
    ]);
    assert.deepEqual(days(plan({ last: 1, labels: new Map([['pre-restore', 60 * day]]) }, backups)), [
      '2026-11-12',
      '2026-11-11',
      '2026-10-01',
    ]);
    const alone = plan({ last: 1 }, [made('2026-11-12T12:00Z', { label: 'pre-restore' })], {
      now: new Date('2027-03-01'),
    });
    assert.deepEqual(kept(alone), []);
  });
});

describe('retention never', () => {
  test('I-23: deletes the newest backup, nor the newest that a restore test passed', () => {
    const backups = nightly('2026-01-01', 100);
    const proven = new Set([backups[3]?.manifest.id ?? '', backups[2]?.manifest.id ?? '']);
    assert.deepEqual(kept(plan({ last: 1 }, backups, { proven })), [
      '2026-04-10 newest, keep-last 1',
      '2026-01-04 newest that a restore test passed',
    ]);
  });

  describe('deletes the backup that a key opened last', () => {
    const [drill, recovery, former] = ['d', 'r', 'f'].map((letter) => `age1${letter.repeat(58)}`) as [
      string,
      string,
      string,
    ];
    const use = (backup: Backup | undefined, recipient: string, at: string): KeyUse => ({
      ...{ backupId: backup?.manifest.id ?? '', recipient, at: `${at}T04:00:00.000Z` },
    });
    const backups = nightly('2026-11-01', 12, { recipients: [drill, recovery] });

    test('neither for a restore test nor for verify --sign-proof, however old the backup was by then', () => {
      const opened = [
        ...[0, 3, 9].map((at) => use(backups[at], drill, `2026-11-${String(at + 1).padStart(2, '0')}`)),
        use(backups[7], recovery, '2026-11-08'),
        use(backups[2], recovery, '2026-11-11'),
      ];
      assert.deepEqual(kept(plan({ last: 1 }, backups, { opened })), [
        '2026-11-12 newest, keep-last 1',
        `2026-11-10 last that the key of ${drill} opened`,
        `2026-11-03 last that the key of ${recovery} opened`,
      ]);
      const hybrid = `age1pq1${'q'.repeat(1950)}`;
      const long = nightly('2026-11-01', 2, { recipients: [hybrid] });
      assert.deepEqual(kept(plan({ last: 1 }, long, { opened: [use(long[0], hybrid, '2026-11-01')] })), [
        '2026-11-02 newest, keep-last 1',
        `2026-11-01 last that the key of age1pq1${'q'.repeat(17)}…${'q'.repeat(12)} opened`,
      ]);
    });

    test('for a passphrase, and in each series and database for itself', () => {
      const others = nightly('2026-10-01', 3, { recipients: [drill], database: 'another' });
      const opened = [use(others[0], drill, '2026-10-01'), use(backups[4], drill, '2026-11-05')];
      assert.deepEqual(days(plan({ last: 1 }, [...backups, ...others], { opened })), [
        ...['2026-11-12', '2026-11-05', '2026-10-03', '2026-10-01'],
      ]);
      const locked = nightly('2026-11-01', 3).map((each) => ({
        ...each,
        manifest: { ...each.manifest, files: [{ encryption: { type: 'age-passphrase', recipients: [] } }] },
      })) as unknown as Backup[];
      assert.deepEqual(kept(plan({ last: 1 }, locked, { opened: [use(locked[0], 'passphrase', '2026-11-01')] })), [
        '2026-11-03 newest, keep-last 1',
        '2026-11-01 last that the passphrase opened',
      ]);
    });

    test('but for a key that no backup which stays needs, a safety backup, or a record of the future', () => {
      const safety = made('2026-10-01T12:00Z', { label: 'pre-restore', recipients: [drill] });
      const old = made('2026-10-02T12:00Z', { recipients: [former] });
      const opened = [
        use(old, former, '2026-10-03'),
        use(safety, drill, '2026-11-12'),
        use(backups[1], drill, '2027-11-12'),
        use(backups[3], drill, '2026-11-04'),
      ];
      assert.deepEqual(days(plan({ last: 1 }, [safety, old, ...backups], { opened })), ['2026-11-12', '2026-11-04']);
    });
  });

  test('I-26: mixes series or databases', () => {
    const backups = [
      ...nightly('2026-11-01', 3),
      ...nightly('2026-10-01', 3, { series: 'schema-only' }),
      ...nightly('2026-09-01', 3, { database: 'another' }),
      ...nightly('2026-08-01', 3, { database: null }),
    ];
    assert.deepEqual(days(plan({ last: 1 }, backups)), ['2026-11-03', '2026-10-03', '2026-09-03', '2026-08-03']);
  });

  test('I-28, F29: lets a backup dated in the future push others out, or go', () => {
    const backups = nightly('2026-11-01', 10);
    const wrong = [made('2027-11-01T02:00Z'), made('2031-01-01T02:00Z')];
    const now = new Date('2026-11-10T03:00Z');
    const result = plan({ last: 3 }, [...wrong, ...backups], { now });
    assert.deepEqual(kept(result), [
      '2031-01-01 dated in the future',
      '2027-11-01 dated in the future',
      ...kept(plan({ last: 3 }, backups, { now })),
    ]);
  });

  test('acts on a policy without rules', () => {
    assert.throws(() => plan({}, nightly('2026-11-01', 3)), /without rules/);
  });

  test('acts when the newest backup is too old', () => {
    const backups = [...nightly('2026-11-01', 10), made('2026-11-12T02:00Z', { label: 'pre-restore' })];
    const at = (now: string) => plan({ last: 1 }, backups, { now: new Date(now), criticalAfterMs: 30 * hour }).paused;
    assert.equal(at('2026-11-11T07:59:00Z'), undefined);
    assert.equal(at('2026-11-11T08:01:00Z'), 'the newest backup is 30 h 1 min old, and one is due every 30 h');
    assert.equal(plan({ last: 1 }, backups, { now: new Date('2036-01-01') }).paused, undefined, 'unless nobody asked');
  });
});

describe('retention over any history', () => {
  const start = Date.parse('2027-10-01T00:00:00Z');
  const label = fc.constantFrom('scheduled', 'scheduled', 'pre-migration', 'pre-restore');
  const history = fc
    .array(
      fc.record({
        at: fc.integer({ min: 0, max: 700 * 24 }),
        label,
        series: fc.constantFrom('full', 'schema-only'),
        database: fc.constantFrom('a', 'b', null),
        recipients: fc.subarray(['age1drill', 'age1recovery']),
        proven: fc.boolean(),
        openedBy: fc.option(fc.constantFrom('age1drill', 'age1recovery'), { nil: undefined }),
        openedAfter: fc.integer({ min: 0, max: 700 * 24 }),
      }),
      { minLength: 1, maxLength: 60 },
    )
    .map((list) =>
      list.map(({ at, proven, openedBy, openedAfter, ...more }) => {
        const backup = made(start + at * hour, more);
        const opened = new Date(start + (at + openedAfter) * hour).toISOString();
        const use = openedBy && { backupId: backup.manifest.id, recipient: openedBy, at: opened };
        return { backup, proven, use };
      }),
    );
  const count = fc.option(fc.integer({ min: 1, max: 9 }), { nil: undefined });
  const rules = fc.record({
    ...{ last: count, daily: count, weekly: count, monthly: count, yearly: count },
    within: fc.option(
      fc.integer({ min: 1, max: 90 * 24 }).map((hours) => hours * hour),
      { nil: undefined },
    ),
    labels: fc.constantFrom(new Map(), new Map([['pre-migration', 90 * day]])),
  });
  const policy = rules.filter((each) => Object.values(each).some((rule) => (rule instanceof Map ? rule.size : rule)));
  /** The clock is right, fast by a year, or slow by one. */
  const skew = fc.constantFrom(0, 365 * day, -365 * day);

  const staysOf = ({ decisions }: RetentionPlan): Backup[] =>
    decisions.filter(({ keptBy }) => keptBy.length > 0).map(({ backup }) => backup);

  interface Past {
    readonly backup: Backup;
    readonly proven: boolean;
    readonly use: KeyUse | undefined;
  }

  function facts(list: readonly Past[], skewMs: number): RetentionFacts {
    const backups = list.map((each) => each.backup);
    const newest = Math.max(...backups.map(({ manifest }) => Date.parse(manifest.createdAt)));
    const proven = new Set(list.filter((each) => each.proven).map(({ backup }) => backup.manifest.id));
    const opened = list.flatMap(({ use }) => use ?? []);
    return { backups, proven, opened, now: new Date(newest + hour + skewMs), criticalAfterMs: undefined };
  }

  test('F29: the newest and the newest proven of each series and database stay, whatever the clock and the policy', () => {
    fc.assert(
      fc.property(history, policy, skew, (list, rule, skewMs) => {
        const given = facts(list, skewMs);
        const latest = given.now.getTime() + 5 * 60_000;
        const stays = new Set(staysOf(planRetention(rule, given)));
        const regular = list.filter(({ backup }) => backup.manifest.label !== 'pre-restore');
        for (const group of Map.groupBy(
          regular,
          ({ backup: { manifest } }) => `${manifest.series} ${manifest.database.id}`,
        ).values()) {
          const sorted = group.toSorted(
            (a, b) =>
              Date.parse(b.backup.manifest.createdAt) - Date.parse(a.backup.manifest.createdAt) ||
              (a.backup.manifest.id < b.backup.manifest.id ? 1 : -1),
          );
          const [newest] = sorted;
          const proven = sorted.find((each) => each.proven);
          if (newest !== undefined) assert.ok(stays.has(newest.backup), 'the newest');
          // A clock that is slow makes the newest ones future ones: then an older proven one stays too.
          if (proven !== undefined) assert.ok(stays.has(proven.backup), 'the newest proven');
          for (const key of newest?.backup.manifest.files[0]?.encryption?.recipients ?? []) {
            const uses = group.flatMap(({ use }) =>
              use?.recipient === key && Date.parse(use.at) <= latest ? use : [],
            );
            const last = uses.sort((a, b) => Date.parse(b.at) - Date.parse(a.at))[0];
            const times = [...stays].flatMap(({ manifest }) => uses.filter(({ backupId }) => backupId === manifest.id));
            if (last !== undefined)
              assert.ok(
                times.some(({ at }) => at === last.at),
                'the last that a key opened',
              );
          }
        }
      }),
      { numRuns: 400 },
    );
  });

  test('a second run finds nothing to do, and a rule more never deletes more', () => {
    fc.assert(
      fc.property(history, policy, policy, (list, rule, more) => {
        const given = facts(list, 0);
        const once = staysOf(planRetention(rule, given));
        assert.deepEqual(staysOf(planRetention(rule, { ...given, backups: once })), once);
        const both = { ...rule };
        for (const key of ['last', 'within', 'daily', 'weekly', 'monthly', 'yearly'] as const)
          Object.assign(both, { [key]: rule[key] ?? more[key] });
        if (rule.labels.size === 0 && Object.values(rule).filter((each) => typeof each === 'number').length > 0) {
          const wider = new Set(staysOf(planRetention(both, given)));
          for (const backup of once) assert.ok(wider.has(backup));
        }
      }),
      { numRuns: 400 },
    );
  });

  test('F31: 10,000 backups are planned in less than a second', () => {
    const backups = Array.from({ length: 10_000 }, (_, n) => made(start + n * hour));
    const began = performance.now();
    const { decisions } = plan({ daily: 30, weekly: 8, monthly: 24, yearly: 5, within: 3 * day }, backups);
    assert.ok(performance.now() - began < 1000);
    assert.equal(decisions.length, 10_000);
  });
});

describe('what the keep inputs may say', () => {
  const read = (given: Record<string, string>): RetentionPolicy | undefined => {
    const inputs = new Inputs((name) => given[name]);
    const policy = readRetention(inputs);
    inputs.finish();
    return policy;
  };

  test('nothing given is no policy: nothing is deleted', () => {
    assert.equal(read({}), undefined);
    assert.equal(read({ 'keep-last': ' ', 'keep-labels': '# none yet\n' }), undefined);
  });

  test('numbers, durations and labels', () => {
    assert.deepEqual(
      read({ 'keep-last': '3', 'keep-within': '30d', 'keep-labels': 'pre-migration=90d\n\nby-hand = 12h' }),
      {
        ...none,
        last: 3,
        within: 30 * day,
        labels: new Map([
          ['pre-migration', 90 * day],
          ['by-hand', 12 * hour],
        ]),
      },
    );
  });

  for (const value of ['0', '-1', '1.5', 'abc', '7d', '1e9', '1000000000', '٣'])
    test(`B39: keep-daily: ${value}`, () => {
      assert.throws(
        () => read({ 'keep-daily': value }),
        (error) =>
          error instanceof Failure &&
          error.exitCode === 2 &&
          error.message === `keep-daily: ${value} is not a whole number from 1 to 100000`,
      );
    });

  for (const [value, says] of [
    ['7', 'is not a duration'],
    ['0d', 'is no time at all'],
    ['-1d', 'is not a duration'],
    ['999999999d', 'is more than anybody waits'],
  ] as const)
    test(`B39: keep-within: ${value}`, () => {
      assert.throws(() => read({ 'keep-within': value }), new RegExp(`keep-within: ${value} ${says}`));
    });

  for (const value of ['pre-migration', '=90d', 'a=b', 'a=0d', 'a=1d\na=2d', '../x=1d'])
    test(`keep-labels: ${JSON.stringify(value)}`, () => {
      assert.throws(() => read({ 'keep-labels': value }), Failure);
    });
});
