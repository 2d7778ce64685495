import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  type AlertKind,
  type AlertState,
  afterFailure,
  afterPass,
  digestsOf,
  type Failed,
  keyIn,
  keyOf,
  markOf,
  type NotifyOn,
  type Passed,
  type Section,
  stateIn,
} from '../../src/alert-state.ts';
import { failed, found, passed, runOf, work } from '../support/alerts.ts';

const monday = new Date('2026-11-16T02:00:00Z');
const hours = (count: number): Date => new Date(monday.getTime() + count * 60 * 60 * 1000);
const older = '20261110T020004Z-aaaaaa';
const tested = '20261115T020004Z-bbbbbb';
const newer = '20261116T020004Z-cccccc';

function fail(
  before: Section | undefined,
  report: Failed,
  {
    run = '1',
    at = monday,
    kind = 'restore-test',
    notifyOn = 'change',
  }: { run?: string; at?: Date; kind?: AlertKind; notifyOn?: NotifyOn } = {},
) {
  const wrong = digestsOf(report, true);
  return afterFailure(before, { kind, report, run: runOf(run, at), headline: 'it failed', wrong, now: at, notifyOn });
}

function pass(section: Section, report: Passed, began = hours(24)): Section | undefined {
  return afterPass(section, report, runOf('9', began));
}

describe('a failure is cleared', () => {
  const { section: untaken } = fail(undefined, failed(), { kind: 'backup' });
  const { section: asLatest } = fail(undefined, found(tested, true));
  const { section: asGiven } = fail(undefined, found(tested, false));

  test('of the work itself, by any pass that began after it', () => {
    assert.equal(pass(untaken, passed()), undefined);
    assert.equal(pass(untaken, passed({ subject: { of: 'backup', id: older, latest: false } })), undefined);
  });

  test('by no pass of a run that was under way when it failed', () => {
    const began = new Date(monday.getTime() - 1);
    assert.deepEqual(pass(untaken, passed(), began), untaken);
    assert.deepEqual(pass(asLatest, passed({ subject: { of: 'backup', id: tested, latest: true } }), began), asLatest);
  });

  test('of a backup, by a pass of the same backup, however it was chosen', () => {
    for (const section of [asLatest, asGiven])
      for (const latest of [true, false])
        assert.equal(pass(section, passed({ subject: { of: 'backup', id: tested, latest } })), undefined);
  });

  test('of the latest backup, by a newer latest; of one that was given, not', () => {
    const next = passed({ subject: { of: 'backup', id: newer, latest: true } });
    assert.equal(pass(asLatest, next), undefined);
    assert.deepEqual(pass(asGiven, next), asGiven);
  });

  test('by no random test of another backup, newer or older, and by no pass of the work itself', () => {
    for (const id of [older, newer])
      assert.deepEqual(pass(asLatest, passed({ subject: { of: 'backup', id, latest: false } })), asLatest);
    assert.deepEqual(pass(asLatest, passed({ subject: { of: 'backup', id: older, latest: true } })), asLatest);
    assert.deepEqual(pass(asLatest, passed()), asLatest);
  });

  test('of a backup, when a pass knows that it is gone', () => {
    const other = { of: 'backup', id: older, latest: false } as const;
    assert.equal(pass(asGiven, passed({ subject: other, stored: [older, newer] })), undefined);
    assert.deepEqual(pass(asGiven, passed({ subject: other, stored: [older, tested] })), asGiven);
  });

  test('one by one: what has not passed keeps the section', () => {
    const { section } = fail(asGiven, found(newer, false), { run: '2', at: hours(1) });
    const left = pass(section, passed({ subject: { of: 'backup', id: newer, latest: false } }));
    assert.deepEqual(
      left?.failing.map(({ subject }) => subject),
      [{ of: 'backup', id: tested, latest: false }],
    );
  });
});

describe('a failure is told', () => {
  const { section } = fail(undefined, failed(), { kind: 'backup' });
  const other = failed({ error: { stage: 'upload', exit: 'store', message: 'the store failed', hint: undefined } });

  test('again with every run that fails again, and not with the same run started again', () => {
    for (const kind of ['backup', 'restore-test', 'prune'] as const)
      assert.equal(fail(section, failed(), { run: '2', at: hours(1), kind }).tell, true, kind);
    const again = fail(section, failed(), { run: '1', at: hours(1), kind: 'backup' });
    assert.equal(again.tell, false);
    assert.equal(again.section.runs, 1);
    assert.equal(fail(section, other, { run: '1', at: hours(1), kind: 'backup' }).tell, true);
  });

  test('health: when the judgement changed, and once a day', () => {
    const judged = (at: Date, report = failed(), notifyOn: NotifyOn = 'change') =>
      fail(section, report, { run: '2', at, kind: 'health', notifyOn }).tell;
    assert.equal(judged(hours(6)), false);
    assert.equal(judged(hours(6), other), true);
    assert.equal(judged(hours(23)), true);
    assert.equal(judged(hours(6), failed(), 'failure'), true);
    assert.equal(judged(hours(6), failed(), 'always'), true);
  });

  test('with what is new, gone and as before', () => {
    const first = fail(undefined, found(tested, true, ['a', 'b', 'c']));
    assert.deepEqual(first.news.fresh.length, 3);
    const { news } = fail(first.section, found(tested, true, ['b', 'c', 'd']), { run: '2' });
    assert.deepEqual([news.fresh.length, news.gone, news.same], [1, 1, 2]);
  });
});

describe('the mark of an issue', () => {
  const key = keyOf({ store: 's3://acme-backups/prod', name: 'shop' });
  const state: AlertState = { backup: fail(undefined, failed(), { kind: 'backup' }).section };

  test('brings its state back, also from a body that somebody edited above it', () => {
    assert.deepEqual(stateIn(`anything\n\n${markOf(key, state)}`), state);
    assert.deepEqual(stateIn(`a\r\nb\r\n${markOf(key, state)}\r\n`), state);
    assert.equal(keyIn(markOf(key, state)), key);
  });

  test('gives nothing away: no store, no name, no message', () => {
    const text = markOf(key, state);
    for (const word of ['acme', 'shop', 'answer']) assert.ok(!text.includes(word));
    const decoded = JSON.stringify(stateIn(text));
    for (const word of ['acme', 'shop', 'answer']) assert.ok(!decoded.includes(word), decoded);
  });

  test('counts in the last line only', () => {
    assert.equal(keyIn(`${markOf(key, state)}\nmore`), undefined);
    assert.equal(keyIn(`text ${markOf(key, state)}`), undefined);
  });

  test('is another one for another store or name', () => {
    const keys = ['a/b', 'a'].flatMap((store) => ['b', 'b/c'].map((name) => keyOf({ store, name })));
    assert.equal(new Set(keys).size, 4);
  });

  test('with a state that is none reads as an empty one', () => {
    const bad = (value: unknown): string =>
      `<!-- pgassay:1 ${key} ${Buffer.from(JSON.stringify(value)).toString('base64url')} -->`;
    for (const value of [
      null,
      1,
      [],
      { backup: 1 },
      { backup: { ...state.backup, failing: [] } },
      { backup: { ...state.backup, since: 'x' } },
    ])
      assert.deepEqual(stateIn(bad(value)), {});
    fc.assert(fc.property(fc.jsonValue(), (value) => void stateIn(bad({ backup: value, health: value }))));
    fc.assert(fc.property(fc.string(), (text) => void stateIn(text)));
  });

  test('holds one digest for all findings where details are withheld: a list of likely names gives none away', () => {
    assert.equal(digestsOf(found(tested, true, ['a', 'b', 'c']), false).length, 1);
    assert.equal(digestsOf(found(tested, true, ['a', 'b', 'c']), true).length, 3);
    assert.deepEqual(work, { of: 'name' });
  });
});
