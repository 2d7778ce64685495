import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, test } from 'node:test';
import type { Backup, Catalog } from '../../src/catalog.ts';
import { describeGap, findGaps } from '../../src/chain.ts';
import { tellGaps } from '../../src/locate.ts';
import { type Log, silent } from '../../src/log.ts';
import type { Manifest } from '../../src/manifest.ts';

const idOf = (n: number): string => `202611${String(n).padStart(2, '0')}T020000Z-aaaaaa`;
const digestOf = (n: number): string => createHash('sha256').update(String(n)).digest('hex');

/** Backup `n`, which follows `previous`. */
function made(n: number, previous: number | null = n - 1, name = 'shop'): Backup {
  const manifest = {
    id: idOf(n),
    name,
    previous: previous === null ? null : { id: idOf(previous), manifestSha256: digestOf(previous) },
  };
  return { manifest: manifest as Manifest, manifestSha256: digestOf(n), tampering: [], proofs: [] };
}

function catalog(backups: readonly Backup[], more: Partial<Catalog> = {}): Catalog {
  return { backups: backups.toReversed(), damaged: [], unfinished: [], ...more };
}

describe('the chain of backups', () => {
  test('is whole from the first one on', () => {
    assert.deepEqual(findGaps(catalog([made(1, null), made(2), made(3)])), []);
    assert.deepEqual(findGaps(catalog([])), []);
    // Two runs at once follow the same one.
    assert.deepEqual(findGaps(catalog([made(1, null), made(2), made(3, 1), made(4, 3)])), []);
  });

  test('has a gap where one was deleted, oldest first, whoever did it', () => {
    assert.deepEqual(findGaps(catalog([made(3), made(5), made(6), made(9)])), [
      { name: 'shop', id: idOf(3), previous: idOf(2), kind: 'missing' },
      { name: 'shop', id: idOf(5), previous: idOf(4), kind: 'missing' },
      { name: 'shop', id: idOf(9), previous: idOf(8), kind: 'missing' },
    ]);
  });

  test('tells one that cannot be used, and one that is not the one that was followed', () => {
    const broken = { kind: 'damaged', name: 'shop', id: idOf(2), reason: 'it is not signed', untrusted: true } as const;
    const unfinished = { kind: 'unfinished', name: 'shop', id: idOf(4) } as const;
    const replaced = { ...made(6), manifestSha256: digestOf(66) };
    const gaps = findGaps(
      catalog([made(1, null), made(3), made(5), replaced, made(7)], { damaged: [broken], unfinished: [unfinished] }),
    );
    assert.deepEqual(
      gaps.map(({ id, kind }) => [id, kind]),
      [
        [idOf(3), 'unusable'],
        [idOf(5), 'unusable'],
        [idOf(7), 'another'],
      ],
    );
    assert.equal(
      describeGap(gaps[2] ?? assert.fail()),
      `follows ${idOf(6)}, which is here with another manifest than the one it followed`,
    );
  });

  test('is told of as a note where retention explains it, of the newest few; as a warning where nothing does', () => {
    const said: string[] = [];
    const log: Log = { ...silent, notice: (text) => said.push(text), warn: (text) => said.push(`warning: ${text}`) };
    const replaced = { ...made(12), manifestSha256: digestOf(66) };
    tellGaps(findGaps(catalog([made(2), made(4), made(6), made(8), made(10), replaced, made(13)])), log);
    assert.deepEqual(said, [
      ...[8, 10, 12].map((n) => `shop/${idOf(n)} ${describeGap({ previous: idOf(n - 1), kind: 'missing' })}`),
      `warning: shop/${idOf(13)} ${describeGap({ previous: idOf(12), kind: 'another' })}`,
      'and 3 older backups before them; show <id> tells of one',
    ]);
  });

  test('is each name’s own', () => {
    assert.deepEqual(
      findGaps(catalog([made(1, null), made(1, null, 'till'), made(2, 1, 'till'), made(3, 2)])).map(({ id }) => id),
      [idOf(3)],
    );
  });
});
