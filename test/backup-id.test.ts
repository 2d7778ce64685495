import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { idPattern, namePattern, newId, timeOfId } from '../src/backup-id.ts';

const now = new Date('2026-11-21T02:00:04.567Z');

describe('a new id', () => {
  test('is the time and six random digits', () => {
    assert.match(newId(now, []), /^20261121T020004Z-[0-9a-f]{6}$/);
    assert.equal(new Set(Array.from({ length: 50 }, () => newId(now, []))).size > 45, true);
  });

  test('I-28: sorts after every id there is: of this second, of a clock a few minutes ahead', () => {
    assert.match(newId(now, ['20261121T020004Z-ffffff']), /^20261121T020005Z-/);
    assert.match(newId(now, ['20261121T020004Z-ffffff', '20261121T020009Z-000000']), /^20261121T020010Z-/);
    assert.match(newId(now, ['20261121T020500Z-ffffff']), /^20261121T020501Z-/);
    assert.match(newId(now, ['20261121T020504Z-ffffff']), /^20261121T020505Z-/);
  });

  test('is not pushed into the future by an id from a clock that was wrong', () => {
    assert.match(newId(now, ['20261121T020505Z-ffffff']), /^20261121T020004Z-/);
    assert.match(newId(now, ['20991231T235959Z-ffffff', '20261120T000000Z-000000']), /^20261121T020004Z-/);
  });

  test('takes no notice of what is no id', () => {
    assert.match(
      newId(now, ['', 'latest', '20261121T020009Z', '20261399T999999Z-000000', '20261121T020009Z-00000G']),
      /^20261121T020004Z-/,
    );
  });

  test('is an id, later than all but the future ones, whatever the clock and the store say', () => {
    const time = fc.date({ min: new Date('1990-01-01'), max: new Date('2090-01-01'), noInvalidDate: true });
    fc.assert(
      fc.property(
        time,
        fc.array(time, { maxLength: 20 }),
        fc.array(fc.integer({ min: -400, max: 400 }), { maxLength: 10 }),
        (clock, others, near) => {
          const ids = [...others, ...near.map((seconds) => new Date(clock.getTime() + seconds * 1000))].map((each) =>
            newId(each, []),
          );
          const id = newId(clock, ids);
          assert.match(id, idPattern);
          const made = timeOfId(id) ?? 0;
          assert.ok(made >= Math.floor(clock.getTime() / 1000) * 1000);
          assert.ok(made <= clock.getTime() + 301_000);
          for (const other of ids)
            if ((timeOfId(other) ?? 0) <= clock.getTime() + 300_000) assert.ok(id > other, `${id} ${other}`);
        },
      ),
      { numRuns: 500 },
    );
  });
});

test('an id tells its time; other texts tell none', () => {
  assert.equal(timeOfId('20261121T020004Z-3f9a1c'), Date.parse('2026-11-21T02:00:04Z'));
  assert.equal(timeOfId('20240229T235959Z-000000'), Date.parse('2024-02-29T23:59:59Z'));
  for (const text of [
    '20261321T020004Z-3f9a1c',
    '20261121T250004Z-3f9a1c',
    '20261121T020004Z',
    '20261121T020004Z-3f9a1c ',
    'x',
  ])
    assert.equal(timeOfId(text), undefined, text);
});

test('names are folders that are safe everywhere', () => {
  for (const name of ['a', 'Shop-1', '0', 'a.b_c-d', 'x'.repeat(64)]) assert.match(name, namePattern);
  for (const name of ['', '.', '..', '.a', '-a', '_state', 'a/b', 'a\\b', 'a b', 'ä', 'a\n', 'x'.repeat(65), 'a\u0000'])
    assert.doesNotMatch(name, namePattern);
});
