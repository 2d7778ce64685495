import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { type ArchiveText, ArchiveTextReader, UnreadableArchiveText } from '../../src/postgres/archive-text.ts';

interface Part {
  readonly text: (id: number) => string;
  readonly rows?: number;
  readonly inserted?: { readonly rows: number; readonly skips: boolean };
  readonly sequence?: { readonly value: string; readonly called: boolean };
  readonly largeObjects?: number;
}

const header = `--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\n-- Dumped from database version 15.20\n
SET statement_timeout = 0;\nSET standard_conforming_strings = on;\nSELECT pg_catalog.set_config('search_path', '', false);\n\n`;
const trailer = `-- Completed on 2026-11-21\n\n--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict abc\n\n`;

const entry = (id: number, name: string, body: string): string =>
  `--\n-- TOC entry ${id} (class 0 OID ${id + 1000})\n-- Data for Name: ${name.replace(/[\r\n]/g, ' ')}; Type: TABLE DATA; Schema: public; Owner: o\n-- Data Pos: 12\n--\n\n${body}\n\n`;

const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;

/** As COPY writes it: a backslash is doubled and a line break is not one any more. */
const escaped = (value: string): string =>
  value.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('\r', '\\r').replaceAll('\t', '\\t');

const dangerous = [
  ...[
    '\\.',
    '.',
    '',
    '\\',
    '\\N',
    'COPY public.x (a) FROM stdin;',
    '-- TOC entry 7 (class 0 OID 5)',
    "it's",
    '"',
    ';',
    "E'",
  ],
  ...[
    'a\n\\.\nb',
    '\n',
    '\\.\n',
    '-- PostgreSQL database dump complete',
    "SELECT pg_catalog.setval('x', 5, true);",
    'ä\u0000',
    '🐘',
  ],
];
const value = fc.oneof(
  fc.constantFrom(...dangerous),
  fc.string({ unit: 'binary', maxLength: 12 }),
  fc.constant('y'.repeat(5000)),
);
const name = fc.oneof(
  fc.constantFrom(...dangerous.filter((text) => text !== ''), 'users'),
  fc.string({ minLength: 1, maxLength: 8 }),
);

const tablePart: fc.Arbitrary<Part> = fc
  .record({
    name,
    columns: fc.array(name, { maxLength: 3 }),
    rows: fc.array(fc.array(value, { maxLength: 3 }), { maxLength: 12 }),
  })
  .map(({ name, columns, rows }) => ({
    rows: rows.length,
    text: (id) => {
      const list = columns.length === 0 ? '' : `(${columns.map(quoted).join(', ')})`;
      const lines = rows.map((row) => `${row.map(escaped).join('\t')}\n`).join('');
      return entry(id, name, `COPY public.${quoted(name)} ${list} FROM stdin;\n${lines}\\.\n`);
    },
  }));
const insertsPart: fc.Arbitrary<Part> = fc
  .record({ name, inserts: fc.array(fc.array(value, { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 4 }) })
  .map(({ name, inserts }) => ({
    inserted: { rows: inserts.flat().length, skips: false },
    text: (id) => {
      const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`;
      const tuples = (values: readonly string[]): string => values.map((each) => `\n\t(1, ${literal(each)})`).join(',');
      return entry(
        id,
        name,
        inserts.map((rows) => `INSERT INTO public.${quoted(name)} VALUES${tuples(rows)};\n`).join(''),
      );
    },
  }));
const sequencePart: fc.Arbitrary<Part> = fc
  .record({ name, value: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(String), called: fc.boolean() })
  .map(({ name, ...sequence }) => ({
    sequence,
    text: (id) =>
      entry(
        id,
        name,
        `SELECT pg_catalog.setval('public.${quoted(name).replaceAll("'", "''")}', ${sequence.value}, ${sequence.called});\n`,
      ),
  }));
const objectPart: fc.Arbitrary<Part> = fc
  .record({ bytes: fc.uint8Array({ maxLength: 40 }), comment: value })
  .map(({ bytes, comment }) => ({
    largeObjects: 1,
    text: (id) =>
      entry(id, String(id), `COMMENT ON LARGE OBJECT 5 IS '${comment.replaceAll("'", "''")}';\n`) +
      `BEGIN;\n\nSELECT pg_catalog.lo_open('${id}', 131072);\nSELECT pg_catalog.lowrite(0, '\\x${Buffer.from(bytes).toString('hex')}');\nSELECT pg_catalog.lowrite(0, E'\\\\000\\'\\\\;');\nSELECT pg_catalog.lo_close(0);\n\nCOMMIT;\n\n`,
  }));
const parts = fc.array(fc.oneof(tablePart, insertsPart, sequencePart, objectPart), { maxLength: 8 });

/** In the same memory again and again, as a pipe is read. */
function read(text: Buffer, sizes: readonly number[]): ArchiveText {
  const reader = new ArchiveTextReader();
  const memory = Buffer.alloc(Math.max(...sizes) + 3);
  for (let at = 0, turn = 0; at < text.length; turn++) {
    const size = sizes[turn % sizes.length] ?? 1;
    const from = turn % 4;
    const copied = text.copy(memory, from, at, at + size);
    reader.push(memory.subarray(from, from + copied));
    memory.fill('\n');
    at += size;
  }
  return reader.end();
}

function build(list: readonly Part[]): { readonly text: Buffer; readonly expected: ArchiveText } {
  const ids = list.map((_, at) => 3000 + 7 * at);
  const of = <T>(pick: (part: Part) => T | undefined): Map<number, T> =>
    new Map(list.flatMap((part, at) => (pick(part) === undefined ? [] : [[ids[at] ?? 0, pick(part) as T]])));
  return {
    text: Buffer.from(header + list.map((part, at) => part.text(ids[at] ?? 0)).join('') + trailer),
    expected: {
      rows: of((part) => part.rows),
      inserted: of((part) => part.inserted),
      sequences: of((part) => part.sequence),
      largeObjects: list.filter((part) => part.largeObjects !== undefined).length,
      complete: true,
    },
  };
}

describe("the text that pg_restore decodes from an archive's data", () => {
  test('has as many rows, sequences and large objects as were put in, whatever they hold and however the bytes arrive', () => {
    const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 3000 })), {
      minLength: 1,
      maxLength: 9,
    });
    fc.assert(
      fc.property(parts, sizes, (list, pieces) => {
        const { text, expected } = build(list);
        assert.deepEqual(read(text, pieces), expected);
      }),
      { numRuns: 1500 },
    );
  });

  test('is read the same byte by byte', () => {
    fc.assert(
      fc.property(parts, (list) => {
        const { text, expected } = build(list);
        assert.deepEqual(read(text, [1]), expected);
      }),
      { numRuns: 150 },
    );
  });

  test('F17: cut off anywhere, is never taken for a whole one', () => {
    fc.assert(
      fc.property(parts, fc.double({ min: 0, max: 1, noNaN: true }), (list, share) => {
        const { text } = build(list);
        const complete = text.lastIndexOf('-- PostgreSQL database dump complete');
        const cut = text.subarray(0, Math.floor(share * complete));
        try {
          assert.equal(read(cut, [100]).complete, false);
        } catch (error) {
          assert.ok(error instanceof UnreadableArchiveText, String(error));
        }
      }),
      { numRuns: 500 },
    );
  });

  test('a row that ends exactly where a chunk does, and an end marker in two pieces, count once', () => {
    const copy = (rows: string): Buffer =>
      Buffer.from(`${entry(5, 't', `COPY public.t (a) FROM stdin;\n${rows}\\.\n`)}${trailer}`);
    for (const [rows, count] of [
      ...([
        ['', 0],
        ['\n', 1],
        ['\n\n\n', 3],
        ['\\\\.\n', 1],
        ['x\\.\n', 1],
        ['\\\\.\n\\\\.\n', 2],
        ['.\n', 1],
        ['\\N\n', 1],
      ] as const),
      [`${'x'.repeat(100_000)}\n`.repeat(3), 3] as const,
    ]) {
      const text = copy(rows);
      for (const size of text.length > 1000 ? [1, 65_535, 65_536] : Array.from({ length: 60 }, (_, at) => at + 1))
        assert.equal(
          read(text, [size]).rows.get(5),
          count,
          `${JSON.stringify(rows.slice(0, 20))} in pieces of ${size}`,
        );
    }
  });

  test('two COPYs in one entry, a COPY from elsewhere and an endless statement are refused', () => {
    const refused = (body: string): void =>
      assert.throws(() => read(Buffer.from(body), [1 << 20]), UnreadableArchiveText);
    refused(entry(5, 't', 'COPY public.t (a) FROM stdin;\n1\n\\.\nCOPY public.t (a) FROM stdin;\n1\n\\.\n'));
    refused(entry(5, 't', "COPY public.t (a) FROM PROGRAM 'rm -rf /';\n"));
    refused(entry(5, 's', "SELECT pg_catalog.setval('s', 1 + 1, true);\n"));
    refused(`SELECT '${'x'.repeat(17 * 1024 * 1024)}`);
  });

  test('one table of any size needs no more memory than a small one', () => {
    const reader = new ArchiveTextReader();
    reader.push(Buffer.from(`${header}--\n-- TOC entry 9 (class 0 OID 1)\n--\n\nCOPY public.t (a) FROM stdin;\n`));
    const rows = Buffer.from('some value\tand another\n'.repeat(20_000));
    const before = process.memoryUsage().rss;
    for (let turn = 0; turn < 300; turn++) reader.push(rows);
    // One value of 100 MB, which never holds a line break.
    for (let turn = 0; turn < 200; turn++) reader.push(Buffer.alloc(512 * 1024, 'z'));
    reader.push(Buffer.from(`\n\\.\n${trailer}`));
    assert.equal(reader.end().rows.get(9), 6_000_001);
    assert.ok(process.memoryUsage().rss - before < 200 * 1024 * 1024);
  });
});
