import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatAge, formatBytes, formatCount, formatNumber, formatSeconds, formatTime } from '../src/numbers.ts';

const each = <T>(format: (value: T) => string, cases: readonly (readonly [T, string])[]): void => {
  for (const [value, text] of cases) assert.equal(format(value), text);
};

test('bytes are decimal, with at most one digit after the point and never a thousand of a unit', () => {
  each(formatBytes, [
    ...([
      [0, '0 B'],
      [1, '1 B'],
      [999, '999 B'],
      [1000, '1 kB'],
      [1499, '1.5 kB'],
      [99_949, '99.9 kB'],
      [99_950, '100 kB'],
    ] as const),
    ...([
      [999_499, '999 kB'],
      [999_500, '1 MB'],
      [411_000_000, '411 MB'],
      [1_240_000_000, '1.2 GB'],
      [5e12, '5 TB'],
      [3e15, '3 PB'],
      [2e18, '2000 PB'],
    ] as const),
  ]);
});

test('numbers have a gap between thousands, and counts a noun', () => {
  each(formatNumber, [
    [0, '0'],
    [999, '999'],
    [1000, '1 000'],
    [9_430_112, '9 430 112'],
    [-1234, '-1 234'],
    [1.6, '2'],
  ]);
  assert.equal(formatCount(1, 'table'), '1 table');
  assert.equal(formatCount(0, 'table'), '0 tables');
  assert.equal(formatCount(10_000, 'row'), '10 000 rows');
});

test('durations have two units at most', () => {
  each(formatSeconds, [
    ...([
      [0, '0 s'],
      [0.04, '0 s'],
      [0.44, '0.4 s'],
      [6, '6 s'],
      [9.94, '9.9 s'],
      [9.96, '10 s'],
      [59.4, '59 s'],
      [59.6, '1 min'],
      [60, '1 min'],
    ] as const),
    ...([
      [250, '4 min 10 s'],
      [3599, '59 min 59 s'],
      [3600, '1 h'],
      [11_100, '3 h 5 min'],
      [172_799, '47 h 59 min'],
      [187_200, '2 d 4 h'],
    ] as const),
  ]);
});

test('times are UTC to the second, and ages are told from now', () => {
  assert.equal(formatTime('2026-11-21T02:00:04.999Z'), '2026-11-21 02:00:04 UTC');
  assert.equal(formatTime(new Date('2026-11-21T02:00:04+02:00')), '2026-11-21 00:00:04 UTC');
  const now = new Date('2026-11-21T12:00:00Z');
  for (const [time, text] of [
    ['2026-11-21T11:59:30Z', 'just now'],
    ['2026-11-21T11:57:00Z', '3 min ago'],
    ['2026-11-21T09:00:00Z', '3 h ago'],
    ['2026-11-19T13:00:00Z', '47 h ago'],
    ['2026-11-01T12:00:00Z', '20 days ago'],
    ['2026-11-21T12:10:00Z', 'in 10 min'],
  ] as const)
    assert.equal(formatAge(time, now), text);
});
