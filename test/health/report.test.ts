// What is said of a judgement, where a test through the launcher would need hundreds of names.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { HealthFinding } from '../../src/health-findings.ts';
import { failureOfHealth } from '../../src/health-inputs.ts';
import {
  cutDocument,
  type Health,
  type HealthDocument,
  healthDocument,
  healthSummary,
} from '../../src/report/health.ts';

const finding = (object: string, severity: HealthFinding['severity'] = 'critical'): HealthFinding => ({
  ...{ check: 'tables', severity, object, expected: 'a table with 9 rows', found: 'no such table', hint: 'look' },
});

/** So many names, the last one critical, with so many findings each. */
function store(names: number, findings: number): Health {
  return {
    ...{ status: 'critical', checkedAt: new Date('2026-11-21T12:00:00Z'), store: 's3://acme-backups/prod' },
    ...{ findings: [finding('workflow nightly.yml')], notes: [] },
    names: Array.from({ length: names }, (_, at) => {
      const severity = at === names - 1 ? 'critical' : 'warning';
      return {
        ...{ name: `name${at}`, status: severity, damaged: 0, series: [], newest: undefined, proven: undefined },
        ...{ totalBytes: 0, findings: Array.from({ length: findings }, (_, n) => finding(`public.t${n}`, severity)) },
      };
    }),
  };
}

describe('the output report', () => {
  test('is whole where it fits, else loses findings first, and names that are well before those that are not', () => {
    const whole = healthDocument(store(2, 2));
    assert.deepEqual(JSON.parse(cutDocument(whole, 60_000)), JSON.parse(JSON.stringify(whole)));
    for (const [names, findings] of [
      [1, 2_000],
      [100, 20],
      [2_000, 20],
    ] as const) {
      const text = cutDocument(healthDocument(store(names, findings)), 60_000);
      assert.ok(Buffer.byteLength(text) <= 60_000);
      const { status, names: kept, leftOut } = JSON.parse(text) as HealthDocument;
      assert.equal(status, 'critical');
      assert.equal(kept[0]?.name, `name${names - 1}`);
      const left = kept.reduce((sum, each) => sum + each.findings.length, 1);
      assert.deepEqual(leftOut, { findings: names * findings + 1 - left, names: names - kept.length });
      if (names <= 100) assert.equal(kept.length, names);
    }
  });
});

describe('the summary and the error', () => {
  test('of thousands of findings show the critical ones first, and say how many they leave out', () => {
    const health = store(500, 20);
    const summary = healthSummary(health, true);
    assert.ok(Buffer.byteLength(summary) < 200_000);
    assert.match(summary, /^### Backups of name499 are in a critical state: tables\n/);
    assert.match(summary.split('\n').find((line) => line.startsWith('| `')) ?? '', /^\| `name499` \| critical/);
    assert.match(summary, /And 9 901 findings more/);
    const message = failureOfHealth(health, 'critical')?.message ?? '';
    assert.match(message, /^21 things about the backups are critical\n {2}workflow nightly\.yml: /);
    assert.match(message, /and 11 more$/);
  });

  test('show what a database calls its tables as nothing but text', () => {
    const health = { ...store(1, 0), names: [], findings: [finding('public."<b>|[x](https://evil.example) `@all`"')] };
    const row = healthSummary(health, true)
      .split('\n')
      .find((line) => line.includes('evil'));
    assert.match(row ?? '', /\| ``public\."<b>¦\[x\]\(https:\/\/evil\.example\) `@all`"`` \|/);
  });
});
