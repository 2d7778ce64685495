import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Backup, type Catalog, parseSelector, select } from '../src/catalog.ts';
import { Failure } from '../src/failure.ts';
import type { Manifest } from '../src/manifest.ts';

const now = new Date('2026-11-21T12:00:00Z');

function made(at: string, hex: string, more: Partial<Pick<Manifest, 'series' | 'label' | 'createdAt'>> = {}): Backup {
  const stamp = new Date(at).toISOString().replace(/[-:]/g, '').replace('.000', '');
  const manifest = {
    id: `${stamp}-${hex}`,
    name: 'shop',
    label: 'scheduled',
    series: 'full',
    createdAt: new Date(at).toISOString(),
    ...more,
  };
  return { manifest: manifest as Manifest, manifestSha256: '', tampering: [], proofs: [] };
}

function catalog(...backups: Backup[]): Catalog {
  return { backups: backups.toSorted((a, b) => (a.manifest.id < b.manifest.id ? 1 : -1)), damaged: [], unfinished: [] };
}

function pick(list: Catalog, text: string): string {
  const parsed = parseSelector(text);
  if ('problem' in parsed) throw new Error(parsed.problem);
  return select(list, parsed.selector, now).manifest.id.slice(-6);
}

const monday = made('2026-11-16T02:00:00Z', 'aaaaaa');
const tuesday = made('2026-11-17T02:00:00Z', 'bbbbbb', { label: 'pre-migration' });
const friday = made('2026-11-20T02:00:00Z', 'cccccc');

describe('which backup is meant', () => {
  test('latest is the newest, by label and by time too', () => {
    const list = catalog(monday, tuesday, friday);
    assert.equal(pick(list, 'latest'), 'cccccc');
    assert.equal(pick(list, 'label:pre-migration'), 'bbbbbb');
    assert.equal(pick(list, 'before:2026-11-17T02:00:00Z'), 'bbbbbb');
    assert.equal(pick(list, 'before:2026-11-17T01:59:59Z'), 'aaaaaa');
    assert.equal(pick(list, 'before:2026-11-17T04:00:00+02:00'), 'bbbbbb');
  });

  test('before: goes by the time of the snapshot, not by the id', () => {
    const late = made('2026-11-18T02:00:00Z', 'dddddd', { createdAt: '2026-11-15T00:00:00Z' });
    assert.equal(pick(catalog(monday, late), 'before:2026-11-15T12:00:00Z'), 'dddddd');
  });

  test('an id, or the unambiguous beginning of one', () => {
    const list = catalog(monday, tuesday, friday);
    assert.equal(pick(list, '20261117T020000Z-bbbbbb'), 'bbbbbb');
    assert.equal(pick(list, '20261120'), 'cccccc');
    assert.throws(
      () => pick(list, '202611'),
      (error) => error instanceof Failure && /is the beginning of 3 ids/.test(error.message) && error.exitCode === 2,
    );
    assert.throws(
      () => pick(list, '20261119'),
      (error) =>
        error instanceof Failure &&
        /there is no backup 20261119/.test(error.message) &&
        (error.hint ?? '').includes('20261120T020000Z-cccccc'),
    );
  });

  test('backups dated in the future are picked by id only; five minutes are forgiven', () => {
    const soon = made('2026-11-21T12:04:00Z', 'eeeeee');
    const wrong = made('2027-11-21T00:00:00Z', 'ffffff');
    const disguised = made('2027-11-21T00:00:01Z', '111111', { createdAt: '2026-11-21T00:00:00Z' });
    const snapshot = made('2026-11-21T11:00:00Z', '222222', { createdAt: '2026-11-21T12:06:00Z' });
    assert.equal(pick(catalog(friday, wrong, disguised, snapshot), 'latest'), 'cccccc');
    assert.equal(pick(catalog(friday, wrong, soon), 'latest'), 'eeeeee');
    assert.equal(pick(catalog(friday, wrong), 'before:2028-01-01T00:00:00Z'), 'cccccc');
    assert.equal(pick(catalog(friday, wrong), '2027'), 'ffffff');
    assert.throws(() => pick(catalog(wrong), 'latest'), Failure);
  });

  test('safety backups are picked by id or by their label only', () => {
    const safety = made('2026-11-21T02:00:00Z', 'eeeeee', { label: 'pre-restore' });
    assert.equal(pick(catalog(friday, safety), 'latest'), 'cccccc');
    assert.equal(pick(catalog(friday, safety), 'before:2026-11-22T00:00:00Z'), 'cccccc');
    assert.equal(pick(catalog(friday, safety), 'label:pre-restore'), 'eeeeee');
    assert.equal(pick(catalog(friday, safety), '20261121'), 'eeeeee');
  });

  test('series never mix: full is meant, or the only one there is', () => {
    const partial = made('2026-11-21T02:00:00Z', 'eeeeee', { series: 'partial-12345678' });
    const schema = made('2026-11-21T03:00:00Z', 'ffffff', { series: 'schema-only' });
    assert.equal(pick(catalog(friday, partial, schema), 'latest'), 'cccccc');
    assert.equal(pick(catalog(partial), 'latest'), 'eeeeee');
    assert.throws(() => pick(catalog(partial, schema), 'latest'), /there is no backup yet/);
    assert.equal(pick(catalog(partial, schema), '20261121T03'), 'ffffff');
  });

  test('B49: nothing that fits lists what there is, damaged and unfinished ones too', () => {
    const list: Catalog = {
      backups: [friday],
      damaged: [{ kind: 'damaged', name: 'shop', id: '20261118T020000Z-dddddd', reason: 'database.dump is missing' }],
      unfinished: [{ kind: 'unfinished', name: 'shop', id: '20261119T020000Z-eeeeee' }],
    };
    const refusal = (text: string): Failure => {
      try {
        pick(list, text);
      } catch (error) {
        if (error instanceof Failure) return error;
      }
      return assert.fail(`${text} was found`);
    };
    const none = refusal('label:nosuch');
    assert.equal(none.exitCode, 2);
    assert.equal(none.message, 'no backup has the label nosuch');
    for (const line of [
      'shop/20261120T020000Z-cccccc',
      'damaged: 20261118T020000Z-dddddd (database.dump is missing)',
      'without a manifest: 20261119T020000Z-eeeeee',
    ])
      assert.ok(none.hint?.includes(line), none.hint);
    assert.equal(refusal('20261118').exitCode, 40);
    assert.match(refusal('20261118').message, /is damaged: database\.dump is missing/);
    assert.match(
      refusal('before:2020-01-01T00:00:00Z').message,
      /no backup is from 2020-01-01T00:00:00\.000Z or earlier/,
    );
    assert.throws(
      () => select({ backups: [], damaged: [], unfinished: [] }, { by: 'latest' }, now),
      /there is no backup yet/,
    );
  });

  test('a text that names none is a problem', () => {
    for (const text of [
      'newest',
      'before:yesterday',
      'before:',
      'label:',
      '../x',
      '2026-11-21',
      'LATEST',
      '',
      '20261121T020004Z-3F',
    ])
      assert.ok('problem' in parseSelector(text), text);
  });
});
