import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { insertedBy, ScriptCutOff, scriptParts } from '../../src/postgres/sql-script.ts';

async function read(text: string, sizes: readonly number[] = [1 << 20]): Promise<string[]> {
  const bytes = Buffer.from(text);
  async function* chunks(): AsyncGenerator<Buffer> {
    for (let at = 0, turn = 0; at < bytes.length; turn++) {
      const size = sizes[turn % sizes.length] ?? 1;
      yield bytes.subarray(at, at + size);
      at += size;
    }
  }
  const parts: string[] = [];
  for await (const part of scriptParts(chunks())) {
    if (part.kind !== 'rows') parts.push(`${part.kind} ${part.text}`);
    else {
      let rows = '';
      for await (const piece of part.rows) rows += piece.toString('latin1');
      parts.push(`rows ${Buffer.from(rows, 'latin1').toString()}`);
    }
  }
  return parts;
}

const script = `--
-- PostgreSQL database dump
--
\\restrict abc
SET x = 'a;b\\'; SELECT E'it\\'s; \\\\'; SELECT "odd;""name" FROM t; /* a; comment */
CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $body$ SELECT ';' -- ;
$body$;
CREATE FUNCTION g() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;
CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2);
COPY public.t (id, "größe;") FROM stdin;
1	a;b
2	\\\\.
\\N	-- no comment
\\.


COPY public.empty (id) FROM stdin;
\\.
SELECT 'größe', $1;
-- PostgreSQL database dump complete
`;
const parts = [
  'comment --',
  'comment -- PostgreSQL database dump',
  'comment --',
  'command \\restrict abc',
  "statement SET x = 'a;b\\';",
  "statement SELECT E'it\\'s; \\\\';",
  'statement SELECT "odd;""name" FROM t;',
  'comment /* a; comment */',
  "statement CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $body$ SELECT ';' -- ;\n$body$;",
  'statement CREATE FUNCTION g() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;',
  'statement CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2);',
  'statement COPY public.t (id, "größe;") FROM stdin;',
  'rows 1\ta;b\n2\t\\\\.\n\\N\t-- no comment\n',
  'statement COPY public.empty (id) FROM stdin;',
  'rows ',
  "statement SELECT 'größe', $1;",
  'comment -- PostgreSQL database dump complete',
];

describe('a plain dump is split as psql would', () => {
  test('into statements, rows, commands and comments, whatever is quoted in them', async () => {
    assert.deepEqual(await read(script), parts);
  });

  test('wherever it is cut into chunks', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 8 }), async (sizes) => {
        assert.deepEqual(await read(script, sizes), parts);
      }),
      { numRuns: 60 },
    );
  });

  test('cut off anywhere, it is not whole: either it says so, or its last line is missing', async () => {
    for (let end = 0; end < script.length - 1; end++) {
      const cut = script.slice(0, end);
      const found = await read(cut).catch((error: unknown) => {
        assert.ok(error instanceof ScriptCutOff, String(error));
        return ['cut off'];
      });
      assert.notEqual(found.at(-1), parts.at(-1), `at ${end}`);
    }
  });
});

describe('the rows of an INSERT', () => {
  for (const [statement, inserted] of [
    ["INSERT INTO public.t VALUES (1, 'a), (b; ''', ARRAY[(1)]);", { rows: 1, skips: false }],
    [
      'INSERT INTO public.t (a, "values (") OVERRIDING SYSTEM VALUE VALUES (1, 2), (3, (4));',
      { rows: 2, skips: false },
    ],
    ["INSERT INTO public.t VALUES\n\t(1, E'\\'(;'),\n\t(2, NULL)\nON CONFLICT DO NOTHING;", { rows: 2, skips: true }],
    ['INSERT INTO t VALUES (1) ON CONFLICT (a) DO NOTHING;', { rows: 1, skips: true }],
    ['INSERT INTO public.none DEFAULT VALUES;', { rows: 1, skips: false }],
    ['INSERT INTO public.t SELECT * FROM u;', undefined],
    ['SELECT (1) FROM (VALUES (1), (2)) v;', undefined],
  ] as const)
    test(statement.replace(/\s+/g, ' '), () => {
      assert.deepEqual(insertedBy(statement), inserted);
    });
});
