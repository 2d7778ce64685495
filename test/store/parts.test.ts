import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { mostPartsAt, partBytes } from '../../src/store/s3-upload.ts';

const MiB = 1024 ** 2;

describe('I-18: the parts of an upload', () => {
  test('are 8 MiB, and larger only where there would be too many', () => {
    for (const expected of [0, 1, 1e6, 50e9]) assert.equal(partBytes(expected, 10_000), 8 * MiB);
    assert.equal(partBytes(1024 ** 4, 10_000), 158 * MiB);
  });

  test('hold half as much again as is expected, and stay below 5 GiB', () => {
    for (const most of [1000, 10_000])
      for (const expected of [1e9, 1e11, 1e12, 3e12]) {
        const part = partBytes(expected, most);
        assert.ok(part * most >= expected * 1.5 && part < 5 * 1024 ** 3 && part % MiB === 0);
      }
  });

  test('are 10,000 at most, and 1,000 at Scaleway', () => {
    assert.equal(mostPartsAt(undefined), 10_000);
    assert.equal(mostPartsAt('https://s3.example.com'), 10_000);
    assert.equal(mostPartsAt('https://s3.fr-par.scw.cloud'), 1000);
  });
});
