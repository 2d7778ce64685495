// The judgement itself: what a listing, the manifests and GitHub say, turned into findings.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Backup, Catalog } from '../../src/catalog.ts';
import {
  backupsThatCount,
  type Condition,
  type CountedTable,
  comparedWith,
  type HealthFacts,
  type HealthPolicy,
  hintsOf,
  judge,
} from '../../src/health-findings.ts';
import { judgeWorkflow, type WatchedWorkflow, type WorkflowRun } from '../../src/health-workflows.ts';
import type { Manifest } from '../../src/manifest.ts';
import type { Proof } from '../../src/proof.ts';
import { oneDatabase } from '../support/history.ts';

const hour = 3_600_000;
const day = 24 * hour;
const now = new Date('2026-11-21T12:00:00Z');
const hoursAgo = (hours: number): Date => new Date(now.getTime() - hours * hour);

interface Made {
  readonly label?: string;
  readonly series?: string;
  readonly database?: string;
  readonly bytes?: number;
  readonly compression?: string;
  readonly expiresAt?: string;
  readonly runId?: string;
  readonly tables?: number;
  readonly previous?: string;
  readonly tampering?: readonly string[];
}

let made = 0;
function backup(at: Date, over: Made = {}): Backup {
  made += 1;
  const stamp = at
    .toISOString()
    .replace(/[-:]/g, '')
    .replace(/\.\d+Z$/, 'Z');
  const bytes = over.bytes ?? 1_000_000;
  const manifest = {
    ...{ id: `${stamp}-${made.toString(16).padStart(6, '0')}`, name: 'shop', createdAt: at.toISOString() },
    ...{ label: over.label ?? 'scheduled', series: over.series ?? 'full', expiresAt: over.expiresAt ?? null },
    database: { id: over.database ?? oneDatabase, sizeBytes: bytes * 3 },
    store: 'file:///srv/backups',
    source: over.runId === undefined ? null : { runId: over.runId },
    totals: { tables: over.tables ?? 3 },
    previous: over.previous === undefined ? null : { id: over.previous },
    files: [{ name: 'database.dump', bytes, compression: over.compression ?? 'zstd:3', encryption: null }],
  } as unknown as Manifest;
  return { manifest, manifestSha256: '', tampering: over.tampering ?? [], proofs: [] };
}

const catalog = (backups: readonly Backup[], damaged: Catalog['damaged'] = []): Catalog => ({
  ...{ backups, damaged, unfinished: [] },
});
const policy: HealthPolicy = {
  ...{ warnAfterMs: 26 * hour, criticalAfterMs: 30 * hour, minBackups: undefined, maxShrink: 0.5 },
  ...{ maxProofAgeMs: undefined, files: true },
};
const judged = (
  backups: readonly Backup[],
  rules: Partial<HealthPolicy> = {},
  facts: Partial<HealthFacts> = {},
): Condition =>
  judge({ catalog: catalog(backups), proofs: new Map(), tables: undefined, now, ...facts }, { ...policy, ...rules });
const brief = ({ findings }: Condition): string[] => findings.map((each) => `${each.severity} ${each.check}`);
const nights = (count: number, over: Made = {}, newest = 10): Backup[] =>
  Array.from({ length: count }, (_, night) => backup(hoursAgo(newest + 24 * night), over));
const proof = (result: Proof['result'], at: Date): Proof =>
  ({ result, testedAt: at.toISOString(), backupId: '20261101T020000Z-aaaaaa', timings: {} }) as unknown as Proof;

describe('the age of the newest backup', () => {
  test('is well up to warn-after, a warning up to critical-after, then critical', () => {
    for (const [hours, expected] of [
      [25.9, []],
      [26, []],
      [26.1, ['warning age']],
      [30, ['warning age']],
      [30.1, ['critical age']],
    ] as const)
      assert.deepEqual(brief(judged([backup(hoursAgo(hours))])), expected, `${hours} h`);
    assert.deepEqual(brief(judged([])), ['critical age']);
    assert.deepEqual(brief(judged([backup(hoursAgo(25))], { criticalAfterMs: 24 * hour })), ['critical age']);
  });

  test('stays quiet for a year of nights that are up to 15 or 45 minutes late, judged every hour', () => {
    for (const minutes of [15, 45])
      assert.deepEqual(
        year((random) => random * minutes),
        { warnings: 0, critical: 0 },
      );
  });

  test('and nearly so when they are late by that on average, which is by hours now and then', () => {
    const late = (minutes: number) => year((random) => -Math.log(1 - random) * minutes);
    assert.deepEqual(late(15), { warnings: 0, critical: 0 });
    const { warnings, critical } = late(45);
    assert.ok(warnings > 0 && warnings <= 15, `${warnings} nights with a warning`);
    assert.ok(critical <= 2, `${critical} hours`);
  });

  test('a night that is left out is critical on its day, and well again after the next', () => {
    const result = year((random) => random * 45, 100);
    assert.ok(result.critical >= 18 && result.critical <= 21, `${result.critical} hours`);
  });

  test('counts whole databases only, no safety backup, nothing of the future, nothing that expired', () => {
    const old = backup(hoursAgo(40));
    for (const over of [{ label: 'pre-restore' }, { series: 'schema-only' }, { expiresAt: hoursAgo(1).toISOString() }])
      assert.deepEqual(brief(judged([backup(hoursAgo(2), over), old])), ['critical age'], JSON.stringify(over));
    assert.deepEqual(brief(judged([backup(hoursAgo(-1)), old])), ['critical age', 'critical future']);
    assert.deepEqual(brief(judged([backup(hoursAgo(2), { series: 'partial-1' })])), []);
    assert.deepEqual(brief(judged([backup(hoursAgo(2), { label: 'pre-migration' }), old])), []);
  });

  test('a finding says the same for as long as the same is wrong', () => {
    const of = backup(hoursAgo(40));
    const [first] = judged([of]).findings;
    const [later] = judged([of], {}, { now: new Date(now.getTime() + 6 * hour) }).findings;
    assert.notEqual(first?.ago, later?.ago);
    assert.deepEqual({ ...first, ago: '' }, { ...later, ago: '' });
  });
});

/** Nights with a warning and critical hours, in a year of nightly backups that are so many minutes late; one may be left out. */
function year(late: (random: number) => number, without?: number): { warnings: number; critical: number } {
  // The same numbers in every run: Lehmer's generator.
  let seed = 42;
  const random = (): number => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed / 2_147_483_647;
  };
  const start = Date.parse('2026-01-01T02:00:00Z');
  const taken = Array.from({ length: 366 }, (_, night) => start + night * day + late(random()) * 60_000);
  const all = taken.filter((_, night) => night !== without).map((time) => backup(new Date(time)));
  const result = { warnings: 0, critical: 0 };
  const notOk = new Set<number>();
  for (let hours = 24, there = 0; hours < 365 * 24; hours++) {
    const at = new Date(start + hours * hour);
    while (Date.parse(all[there]?.manifest.createdAt ?? '') <= at.getTime()) there += 1;
    const { status } = judged(all.slice(Math.max(0, there - 8), there), {}, { now: at });
    if (status === 'critical') result.critical += 1;
    if (status === 'warning') notOk.add(Math.floor(hours / 24));
  }
  return { ...result, warnings: notOk.size };
}

describe('what is damaged', () => {
  test('is critical, by listing, by reading, and by what somebody did later', () => {
    const fine = backup(hoursAgo(2));
    const damaged = [
      { kind: 'damaged', name: 'shop', id: 'a', reason: 'database.dump is missing', file: 'database.dump' },
      { kind: 'damaged', name: 'shop', id: 'b', reason: 'manifest.json is not JSON' },
    ] as const;
    const all = judged([fine], {}, { catalog: catalog([fine], damaged) });
    assert.deepEqual(brief(all), ['critical damage', 'critical damage']);
    const manifests = judged([fine], { files: false }, { catalog: catalog([fine], damaged) });
    assert.deepEqual(
      manifests.findings.map(({ object }) => object),
      ['backup b'],
    );
    assert.deepEqual(brief(judged([fine], {}, { damage: [{ id: 'c', reason: 'other bytes' }] })), ['critical damage']);
    assert.deepEqual(brief(judged([backup(hoursAgo(2), { tampering: ['manifest.json was overwritten'] })])), [
      'critical damage',
    ]);
  });

  test('is a backup that nobody trusted wrote, and one whose manifest is not the one that was followed', () => {
    const [newest, before] = nights(2);
    assert.ok(newest !== undefined && before !== undefined);
    const untrusted = { kind: 'damaged', name: 'shop', id: 'c', reason: 'it is not signed', untrusted: true } as const;
    const [first] = judged([newest], {}, { catalog: catalog([newest], [untrusted]) }).findings;
    assert.deepEqual(
      [first?.expected, first?.found],
      ['signed by a key of verify-key, for this place', 'it is not signed'],
    );
    const follows = (manifestSha256: string): Backup => ({
      ...newest,
      manifest: { ...newest.manifest, previous: { id: before.manifest.id, manifestSha256 } },
    });
    const was = { ...before, manifestSha256: 'a'.repeat(64) };
    assert.deepEqual(brief(judged([follows(was.manifestSha256), was])), []);
    const [gap] = judged([follows('b'.repeat(64)), was]).findings;
    assert.deepEqual([gap?.severity, gap?.object], ['critical', `backup ${before.manifest.id}`]);
    // Retention, or somebody: no listing can tell.
    assert.deepEqual(brief(judged([follows(was.manifestSha256)])), []);
  });

  test('too few backups are critical', () => {
    assert.deepEqual(brief(judged(nights(3), { minBackups: 4 })), ['critical count']);
    assert.deepEqual(brief(judged(nights(4), { minBackups: 4 })), []);
  });

  test('a newest backup that the store deletes before the next is overdue is a warning', () => {
    const expires = (hours: number): Made => ({ expiresAt: hoursAgo(-hours).toISOString() });
    assert.deepEqual(brief(judged([backup(hoursAgo(2), expires(29))])), ['warning expiry']);
    assert.deepEqual(brief(judged([backup(hoursAgo(2), expires(31))])), []);
  });
});

describe('the size', () => {
  test('is compared with the median of the seven before', () => {
    const small = backup(hoursAgo(2), { bytes: 490_000 });
    const before = nights(8, {}, 26);
    assert.deepEqual(brief(judged([small, ...before])), ['critical size']);
    assert.deepEqual(brief(judged([backup(hoursAgo(2), { bytes: 510_000 }), ...before])), []);
    assert.deepEqual(brief(judged([small, ...before], { maxShrink: 0.6 })), []);
    // One that was small before is not the measure, nor is one that was large.
    const [first, ...rest] = before;
    assert.ok(first !== undefined);
    assert.deepEqual(brief(judged([backup(hoursAgo(2)), backup(hoursAgo(26), { bytes: 9e9 }), ...rest])), []);
    assert.deepEqual(brief(judged([small, backup(hoursAgo(26), { bytes: 490_000 }), ...rest])), ['critical size']);
    assert.deepEqual(brief(judged([small])), []);
  });

  test('hourly backups do not get used to a loss before a check every six hours looks', () => {
    const hourly = Array.from({ length: 48 }, (_, n) => backup(hoursAgo(n), { bytes: n < 6 ? 100_000 : 1_000_000 }));
    assert.deepEqual(brief(judged(hourly)), ['critical size']);
    assert.equal(comparedWith(hourly)[0], hourly[20]);
  });

  test('another compression is no loss, and hides none', () => {
    const before = nights(7, { compression: 'none', bytes: 5_000_000 }, 26);
    const other = (bytes: number): Backup => {
      const made = backup(hoursAgo(2), { compression: 'zstd:3', bytes: 500_000 });
      return { ...made, manifest: { ...made.manifest, database: { ...made.manifest.database, sizeBytes: bytes } } };
    };
    assert.deepEqual(brief(judged([other(15_000_000), ...before])), []);
    assert.deepEqual(brief(judged([other(1_500_000), ...before])), ['critical size']);
  });

  test('another database under the same name is not compared', () => {
    assert.deepEqual(
      brief(judged([backup(hoursAgo(2), { bytes: 10, database: 'f'.repeat(64) }), ...nights(7, {}, 26)])),
      [],
    );
  });
});

describe('tables', () => {
  const tables = (newest: readonly CountedTable[], before: readonly CountedTable[]): Condition =>
    judged([backup(hoursAgo(2))], {}, { tables: { newest, before } });
  const table = (name: string, rows: number | undefined = 5): CountedTable => ({ name, rows, partition: false });
  const partition = (name: string): CountedTable => ({ name, rows: 5, partition: true });

  test('one with rows that is gone is critical, an empty one a warning, a new one nothing', () => {
    assert.deepEqual(brief(tables([table('a')], [table('a'), table('b')])), ['critical tables']);
    assert.deepEqual(brief(tables([table('a')], [table('a'), table('b', 0)])), ['warning tables']);
    assert.deepEqual(brief(tables([table('a'), table('c')], [table('a')])), []);
    const root = { name: 'root', rows: undefined, partition: false };
    assert.deepEqual(brief(tables([table('a')], [table('a'), root, partition('p')])), [
      'critical tables',
      'warning tables',
    ]);
  });

  test('partitions may come and go, but not get fewer', () => {
    const before = [partition('m1'), partition('m2'), partition('m3')];
    assert.deepEqual(brief(tables([partition('m2'), partition('m3'), partition('m4')], before)), []);
    assert.deepEqual(brief(tables([partition('m3')], before)), ['warning tables']);
  });

  test('where a key is needed to read their names, fewer of them are critical', () => {
    const before = nights(2, { tables: 5 }, 26);
    assert.deepEqual(brief(judged([backup(hoursAgo(2), { tables: 4 }), ...before])), ['critical tables']);
    assert.deepEqual(brief(judged([backup(hoursAgo(2), { tables: 6 }), ...before])), []);
  });

  test('a hundred that are gone are a few findings', () => {
    const many = Array.from({ length: 100 }, (_, at) => table(`t${at}`));
    const { findings } = tables([], many);
    assert.equal(findings.length, 21);
    assert.equal(findings.at(-1)?.found, '80 more tables gone');
  });
});

describe('restore tests', () => {
  /** One of each backup, of the newest first. */
  const tested = (proofs: readonly Proof[], maxProofAgeMs?: number): string[] => {
    const backups = nights(3, {}, 2);
    const byId = new Map(proofs.map((each, at) => [backups[at]?.manifest.id ?? '', each]));
    return brief(judged(backups, { maxProofAgeMs }, { proofs: byId }));
  };

  test('one must have passed within max-proof-age, and the last must not have failed', () => {
    assert.deepEqual(tested([]), []);
    assert.deepEqual(tested([], 8 * day), ['critical restore test']);
    assert.deepEqual(tested([proof('passed', hoursAgo(7 * 24))], 8 * day), []);
    assert.deepEqual(tested([proof('passed', hoursAgo(9 * 24))], 8 * day), ['critical restore test']);
    assert.deepEqual(tested([proof('failed', hoursAgo(3)), proof('passed', hoursAgo(20))], 8 * day), [
      'critical restore test',
    ]);
    assert.deepEqual(tested([proof('passed', hoursAgo(3)), proof('failed', hoursAgo(20))], 8 * day), []);
    assert.deepEqual(tested([proof('failed', hoursAgo(20)), proof('passed', hoursAgo(3))], 8 * day), []);
  });

  test('one dated in the future proves nothing', () => {
    assert.deepEqual(tested([proof('passed', hoursAgo(-2))], 8 * day), ['critical future', 'critical restore test']);
  });
});

describe('a workflow', () => {
  const run = (id: number, at: Date, conclusion: string | null = 'success'): WorkflowRun => ({
    ...{ id: String(id), createdAt: at.toISOString(), conclusion },
  });
  const watched = (over: Partial<WatchedWorkflow>): WatchedWorkflow => ({
    ...{ workflow: 'nightly.yml', state: 'active', onDefaultBranch: true, runs: [] },
    ...over,
  });
  const found = (of: Partial<WatchedWorkflow>, names: readonly (readonly Backup[])[]): string[] =>
    judgeWorkflow(watched(of), names, { now, criticalAfterMs: 30 * hour }).map(
      ({ severity, object, found: what }) => `${severity} ${object}: ${what}`,
    );
  /** Newest first, each naming the one before it and the run that took it. */
  const chain = (count: number): Backup[] => {
    const all: Backup[] = [];
    for (let n = count - 1; n >= 0; n--) {
      const previous = all[0]?.manifest.id;
      all.unshift(
        backup(hoursAgo(10 + 24 * n - 0.1), {
          runId: String(100 - n),
          ...(previous === undefined ? {} : { previous }),
        }),
      );
    }
    return all;
  };
  const runsOf = (count: number): WorkflowRun[] =>
    Array.from({ length: count }, (_, n) => run(100 - n, hoursAgo(10 + 24 * n)));

  test('that is enabled, on the default branch, and whose runs left backups is well', () => {
    assert.deepEqual(found({ runs: runsOf(5) }, [chain(5)]), []);
    assert.deepEqual(found({ runs: runsOf(5), onDefaultBranch: undefined }, [chain(5)]), []);
  });

  test('that is gone, disabled, elsewhere or has not run is critical', () => {
    const runs = runsOf(2);
    assert.deepEqual(found({ state: undefined }, [chain(2)]), ['critical workflow nightly.yml: there is none']);
    assert.deepEqual(found({ runs, state: 'disabled_inactivity' }, [chain(2)]), [
      'critical workflow nightly.yml: disabled_inactivity',
    ]);
    assert.match(found({ runs, onDefaultBranch: false }, [chain(2)]).join(), /another one only/);
    assert.match(found({}, [chain(2)]).join(), /none on the default branch/);
    assert.match(found({ runs: [run(7, hoursAgo(31), 'failure')] }, [chain(2)]).join(), /none since 2026-11-20/);
  });

  test('that GitHub does not tell about is a warning', () => {
    const trouble = { what: 'GitHub answered 503', hint: 'later' };
    assert.deepEqual(found({ state: undefined, trouble }, [chain(2)]), [
      'warning workflow nightly.yml: GitHub answered 503',
    ]);
  });

  test('whose last green run left no backup is critical, until a later one leaves one', () => {
    const [, ...older] = chain(5);
    assert.deepEqual(found({ runs: runsOf(5) }, [older]), [
      'critical run 100 of nightly.yml: none in this store from 2026-11-21 02:00:00 UTC',
    ]);
    assert.deepEqual(found({ runs: runsOf(5) }, [older, chain(5).map((each) => each)]), []);
    // Between two backups of which the later names the earlier there was none.
    const all = chain(5);
    const runs = [...runsOf(1), run(7, hoursAgo(20)), ...runsOf(5).slice(1)];
    assert.deepEqual(found({ runs }, [all]), [
      'warning run 7 of nightly.yml: none in this store from 2026-11-20 16:00:00 UTC',
    ]);
    // Red runs say so themselves.
    assert.deepEqual(found({ runs: [...runsOf(1), run(7, hoursAgo(20), 'failure')] }, [all]), []);
    assert.deepEqual(found({ runs: [run(8, hoursAgo(1), null), ...runsOf(1)] }, [all]), []);
  });

  test('whose backups retention deleted since is well, and so is what was before the first', () => {
    const all = chain(9);
    const kept = all.filter((_, n) => n === 0 || n === 3 || n === 7);
    assert.deepEqual(found({ runs: runsOf(12) }, [kept]), []);
  });

  test('of a store without a backup: every green run left none, told in a few findings', () => {
    const lines = found({ runs: runsOf(30) }, []);
    assert.equal(lines.length, 6);
    assert.match(lines.at(-1) ?? '', /critical .*25 more runs without one/);
  });
});

test('several hints say what each is about, once', () => {
  const finding = (object: string, hint: string) => ({ object, hint });
  assert.equal(hintsOf([finding('a', 'x'), finding('b', 'x')], 5), 'x');
  assert.equal(hintsOf([finding('a', 'x'), finding('b', 'x'), finding('c', 'y')], 5), 'a: x\nc: y');
});

test('ten thousand backups are judged in less than a second', () => {
  const all = Array.from({ length: 10_000 }, (_, n) => backup(hoursAgo(n)));
  const began = performance.now();
  judged(all);
  assert.equal(backupsThatCount(catalog(all), now).length, 10_000);
  assert.ok(performance.now() - began < 1_000);
});

describe('keys that open backups', () => {
  const [drill, recovery] = [`age1${'d'.repeat(58)}`, `age1${'r'.repeat(58)}`];
  const rules = { maxKeyAgeMs: 100 * day };
  const encrypted = (type: 'age' | 'age-passphrase', recipients: readonly string[]): Backup => {
    const one = backup(hoursAgo(2));
    const files = one.manifest.files.map((file) => ({ ...file, encryption: { type, recipients } }));
    return { ...one, manifest: { ...one.manifest, files } };
  };
  const opened = (recipient: string, days: number) => ({ recipient, at: hoursAgo(24 * days).toISOString() });
  const wrong = (newest: Backup, uses: readonly ReturnType<typeof opened>[], backupId = newest.manifest.id): string[] =>
    judged([newest], rules, { keyUses: uses.map((use) => ({ ...use, backupId })) }).findings.map(
      ({ severity, object }) => `${severity} ${object}`,
    );

  test('are judged one by one', () => {
    const newest = encrypted('age', [drill, recovery]);
    const tested = opened(drill, 1);
    assert.deepEqual(wrong(newest, [tested, opened(recovery, 99)]), []);
    assert.deepEqual(wrong(newest, [tested, opened(recovery, 101)]), [`critical the secret key of ${recovery}`]);
    assert.deepEqual(wrong(newest, [opened(recovery, 1), opened(recovery, 200)]), [
      `critical the secret key of ${drill}`,
    ]);
    // Artifacts have no place for such a record, and the way on is another.
    const inArtifacts = { ...newest, manifest: { ...newest.manifest, store: 'artifact://github.com/octo/backups' } };
    const hintFor = (each: Backup): string =>
      judged([each], rules, { keyUses: [{ ...tested, backupId: each.manifest.id }] }).findings[0]?.hint ?? '';
    assert.match(
      hintFor(newest),
      /^whoever holds it runs pgassay verify latest --sign-proof with it; a key that is lost/,
    );
    assert.match(
      hintFor(inArtifacts),
      /^give it to a restore test \(decrypt-identity\), which is what counts in artifacts; if it/,
    );
    // A clock that runs ahead proves nothing, nor does a backup that does not count; nobody asks without the input.
    assert.equal(wrong(newest, [tested, opened(recovery, -2)]).length, 1);
    assert.equal(wrong(newest, [tested, opened(recovery, 1)], 'another').length, 2);
    assert.deepEqual(brief(judged([newest])), []);
  });

  test('a passphrase is one too, and a backup that is not encrypted has none', () => {
    const newest = encrypted('age-passphrase', []);
    assert.deepEqual(wrong(newest, [opened('passphrase', 1)]), []);
    assert.deepEqual(wrong(newest, []), ['critical the passphrase']);
    assert.deepEqual(brief(judged([backup(hoursAgo(2))], rules)), ['critical keys']);
  });
});
