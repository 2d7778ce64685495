import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { BadSelection, entryKey, inTheWay, select, selectAll } from '../../src/postgres/archive-selection.ts';
import type { TocEntry } from '../../src/postgres/archive-toc.ts';

const entry = (dumpId: number, kind: string, tag: string, dependencies: readonly number[] = []): TocEntry => ({
  ...{ dumpId, kind, tag, dependencies, tableOid: 0, oid: dumpId, schema: kind === 'SCHEMA' ? null : 's' },
  ...{
    owner: 'o',
    copyStatement: '',
    definition: kind === 'TABLE' && tag.startsWith('child') ? 'CREATE TABLE x () INHERITS (y)' : '',
  },
});
const nothing = { existing: new Set<string>(), clean: false };
const tagsOf = (entries: readonly TocEntry[]): string[] => entries.map(({ kind, tag }) => `${kind} ${tag}`);

/** Tables, and what hangs on them, each depending on earlier entries only, as in every archive. */
const tocs = fc
  .array(
    fc.record({
      kind: fc.constantFrom(
        ...['TABLE', 'TABLE DATA', 'VIEW', 'TYPE', 'FUNCTION', 'SEQUENCE', 'INDEX', 'FK CONSTRAINT', 'TRIGGER', 'ACL'],
        ...['SCHEMA', 'MATERIALIZED VIEW', 'DEFAULT', 'POLICY', 'TABLE ATTACH', 'SEQUENCE SET', 'EXTENSION'],
      ),
      on: fc.array(fc.nat(200), { maxLength: 3 }),
    }),
    { minLength: 1, maxLength: 60 },
  )
  .map((rows) =>
    rows.map(({ kind, on }, at) =>
      entry(at + 1, kind, `x${at}`, [...new Set(at === 0 ? [] : on.map((each) => (each % at) + 1))]),
    ),
  );

describe('a selection of an archive', () => {
  test('holds everything that what it holds needs, or the target has it', () => {
    fc.assert(
      fc.property(tocs, fc.nat(60), fc.boolean(), fc.infiniteStream(fc.boolean()), (toc, at, clean, there) => {
        const tables = toc.filter((each) => each.kind === 'TABLE');
        const seed = tables[at % Math.max(1, tables.length)];
        if (seed === undefined) return;
        const existing = new Set(toc.filter(() => there.next().value).map(entryKey));
        try {
          const { entries, leftOut } = select(toc, { tables: [seed.tag], schemas: [] }, { existing, clean });
          const ids = new Set(entries.map((each) => each.dumpId));
          for (const each of entries)
            for (const id of each.dependencies) {
              const need = toc.find((other) => other.dumpId === id);
              assert.ok(
                need === undefined || ids.has(id) || existing.has(entryKey(need)),
                `${each.dumpId} needs ${id}`,
              );
            }
          assert.equal(ids.size, entries.length);
          for (const each of leftOut) assert.ok(!ids.has(each.dumpId));
          if (!clean) for (const each of entries) assert.ok(!existing.has(entryKey(each)) || isPart(each));
        } catch (error) {
          assert.ok(error instanceof BadSelection, String(error));
        }
      }),
      { numRuns: 2000 },
    );
  });

  /** Rows, grants and the like go wherever their object goes. */
  const isPart = ({ kind }: TocEntry): boolean => ['TABLE DATA', 'ACL', 'DEFAULT', 'SEQUENCE SET'].includes(kind);

  test('brings no table that was not asked for, but children', () => {
    const toc = [
      entry(1, 'SCHEMA', 's'),
      entry(2, 'TABLE', 'base', [1]),
      entry(3, 'TABLE', 'child', [1, 2]),
      entry(4, 'TABLE', 'other', [1, 2]),
      entry(5, 'VIEW', 'both', [2, 4]),
      entry(6, 'FK CONSTRAINT', 'other fk', [2, 4]),
      entry(7, 'TABLE DATA', 'child', [3]),
    ];
    const { entries, leftOut } = select(toc, { tables: ['s.base'], schemas: [] }, nothing);
    assert.deepEqual(tagsOf(entries), ['SCHEMA s', 'TABLE base', 'TABLE child', 'TABLE DATA child']);
    assert.deepEqual(tagsOf(leftOut), ['VIEW both', 'FK CONSTRAINT other fk']);
    const existing = new Set([entryKey({ kind: 'TABLE', schema: 's', tag: 'other' })]);
    const more = select(toc, { tables: ['s.base'], schemas: [] }, { existing, clean: false });
    assert.deepEqual(tagsOf(more.entries).slice(-3), ['VIEW both', 'FK CONSTRAINT other fk', 'TABLE DATA child']);
  });

  test('of a view that is written in two halves takes both, or none', () => {
    const toc = [
      entry(1, 'TABLE', 't'),
      entry(2, 'VIEW', 'v'),
      entry(3, 'CONSTRAINT', 't t_pkey', [1]),
      entry(4, 'RULE', 'v _RETURN', [2, 1, 3]),
    ];
    const { entries } = select(toc, { tables: ['t'], schemas: [] }, nothing);
    assert.deepEqual(tagsOf(entries), ['TABLE t', 'VIEW v', 'CONSTRAINT t t_pkey', 'RULE v _RETURN']);
  });

  test('refuses a table whose parent is nowhere, an unknown name and one that is in several schemas', () => {
    const toc = [
      entry(1, 'TABLE', 'base'),
      entry(2, 'TABLE', 'child', [1]),
      { ...entry(3, 'TABLE', 'base'), schema: 'z' },
    ];
    const tables =
      (...patterns: string[]) =>
      () =>
        select(toc, { tables: patterns, schemas: [] }, nothing);
    assert.throws(tables('child'), /TABLE s\.child needs TABLE s\.base, which is neither in the target nor/);
    assert.throws(tables('nobody'), /the backup has no table nobody/);
    assert.throws(tables('base'), /base is in several schemas \(s, z\): write schema\.table/);
    assert.throws(tables('s.('), BadSelection);
  });

  test('of everything leaves schemas and extensions that are there, and what is said about them, alone', () => {
    const toc = [
      entry(1, 'SCHEMA', 's'),
      entry(2, 'EXTENSION', 'citext'),
      entry(3, 'COMMENT', 'EXTENSION citext', [2]),
      entry(4, 'TABLE', 't', [1]),
      entry(5, 'COMMENT', 'TABLE t', [4]),
      entry(6, 'DATABASE', 'shop'),
      entry(7, 'TABLE DATA', 'citext_settings', [2]),
      entry(8, 'TABLE DATA', 't', [4]),
    ];
    const existing = new Set(toc.slice(0, 2).map(entryKey));
    assert.deepEqual(tagsOf(selectAll(toc, existing).entries), ['TABLE t', 'COMMENT TABLE t', 'TABLE DATA t']);
  });
});

describe('what is in the way of a restore', () => {
  const target = [
    entry(1, 'TABLE', 't'),
    entry(2, 'VIEW', 'v', [1]),
    entry(3, 'VIEW', 'w', [2]),
    entry(4, 'ACL', 'TABLE t', [1]),
    entry(5, 'INDEX', 'i', [1]),
    entry(6, 'TABLE', 'bystander'),
    entry(7, 'TABLE', 'later'),
  ];
  const ways = (entries: readonly TocEntry[], clean: boolean): string[] =>
    inTheWay(target, entries, { clean }).map((each) => `${each.entry.tag}: ${each.why}`);

  test('everything that depends on what is dropped and does not come back, over any number of steps', () => {
    assert.deepEqual(ways([entry(1, 'TABLE', 't')], true), [
      'v: depends on what is dropped',
      'w: depends on what is dropped',
      'i: depends on what is dropped',
    ]);
    assert.deepEqual(ways(target.slice(0, 5), true), []);
  });

  test('a name that something else has', () => {
    assert.deepEqual(ways([entry(1, 'VIEW', 'later')], false), ['later: has the name of something else']);
    assert.deepEqual(ways([entry(1, 'TABLE', 'new')], false), []);
  });
});
