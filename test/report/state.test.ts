import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { NameFacts, PageView } from '../../src/page-facts.ts';
import { statesSentence } from '../../src/report/state.ts';
import { factsOf, nightly } from '../support/page.ts';

const sentence = (names: readonly NameFacts[], view: Partial<PageView> = {}): string => {
  const facts = factsOf(names, view);
  return statesSentence(facts.names, facts);
};
const late = (name: string): NameFacts => nightly(9, { name, night: (night) => (night < 2 ? 'none' : {}) });
const unproven = (name: string): NameFacts => nightly(3, { name, tested: () => undefined });

describe('the state in a sentence', () => {
  test('of one database', () => {
    const proven = 'last proven 2 days ago in 4 min 24 s';
    for (const [names, view, expected] of [
      [nightly(9), {}, `Everything is fine: 48 tables, last backup 3 h ago, ${proven} of the 30 min allowed.`],
      [nightly(9), { details: false }, `Everything is fine: last backup 3 h ago, ${proven} of the 30 min allowed.`],
      [
        nightly(9),
        { targetSeconds: 120 },
        `Worth a look: 1 finding, last backup 3 h ago, ${proven}, longer than the 2 min allowed.`,
      ],
      [
        unproven('shop'),
        {},
        'Backups are taken, but not proven: 48 tables, last backup 3 h ago, no restore test has passed yet.',
      ],
      [late('shop'), {}, `Recovery is at risk: 1 finding, last backup 2 days ago, ${proven} of the 30 min allowed.`],
      [nightly(0), {}, 'Recovery is at risk: there is no backup.'],
    ] as const)
      assert.equal(sentence([names], view), expected);
  });

  test('of several, the worst is said, and of whom', () => {
    const fine = [nightly(9), nightly(9, { name: 'billing' })];
    assert.equal(
      sentence(fine),
      'Everything is fine: 2 databases, the oldest last backup 3 h ago, each of them proven.',
    );
    assert.equal(
      sentence([...fine, unproven('crm')]),
      'Backups are taken, but not every one is proven: no restore test has passed for crm (1 of 3 databases).',
    );
    assert.equal(sentence([...fine, unproven('crm'), late('old')]), 'Recovery is at risk: old (1 of 4 databases).');
    const many = Array.from({ length: 8 }, (_, at) => late(`db${at}`));
    assert.equal(sentence(many), 'Recovery is at risk: db0, db1, db2, db3, db4 and 3 more (8 of 8 databases).');
    assert.equal(sentence([]), 'Recovery is at risk: there is no backup.');
  });
});
