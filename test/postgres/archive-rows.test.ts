import assert from 'node:assert/strict';
import { chmod, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { columnsOfRows, readArchiveRows } from '../../src/postgres/archive-rows.ts';
import { ArchiveTextReader } from '../../src/postgres/archive-text.ts';
import type { TocEntry } from '../../src/postgres/archive-toc.ts';
import type { Programs } from '../../src/postgres/programs.ts';
import { scratch } from '../support/faults.ts';

const tables: Record<number, string[]> = {
  7: ['1\tone', '\\\\.', '2\t\\N', 'COPY public.x (a) FROM stdin;', '', '\\\\.\\n', '-- TOC entry 9 (class 0 OID 0)'],
  8: [],
  9: ['a long row '.repeat(30), 'é', '\\\\'],
};
const text = [
  "--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\nSELECT pg_catalog.set_config('search_path', '', false);\n\n",
  ...Object.entries(tables).map(
    ([entry, lines]) =>
      `--\n-- TOC entry ${entry} (class 1259 OID 16389)\n-- Dependencies: 1\n-- Data for Name: t; Type: TABLE DATA\n--\n\nCOPY public.t (a, "b;\n") FROM stdin;\n${lines.map((line) => `${line}\n`).join('')}\\.\n\n\n`,
  ),
  '-- Completed on 2026-11-21\n\n--\n-- PostgreSQL database dump complete\n--\n\n',
].join('');
const bytes = Buffer.from(text);

function joined(lines: readonly string[]): string {
  return lines.map((line) => `${line}\n`).join('');
}

describe('the rows of an archive, handed over', () => {
  test('are the same wherever the text is cut', () => {
    for (let first = 0; first < bytes.length; first += 1)
      for (const second of [1, 2, 3, 50]) {
        const got = new Map<number, string>();
        const reader = new ArchiveTextReader((entry, rows) => {
          got.set(entry, (got.get(entry) ?? '') + rows.toString('latin1'));
          rows.fill(0x21);
        });
        for (const piece of [
          [0, first],
          [first, first + second],
          [first + second, bytes.length],
        ])
          reader.push(Buffer.from(bytes.subarray(...piece)));
        const { rows, complete } = reader.end();
        assert.ok(complete);
        for (const [entry, lines] of Object.entries(tables)) {
          assert.equal(
            Buffer.from(got.get(Number(entry)) ?? '', 'latin1').toString(),
            joined(lines),
            `cut at ${first}, ${second}`,
          );
          assert.equal(rows.get(Number(entry)), lines.length);
        }
      }
  });

  test('come in pieces of whole lines, none of two tables, however the program writes', async () => {
    const folder = await scratch();
    const program = join(folder, 'pg_restore');
    await writeFile(join(folder, 'text'), bytes);
    for (const block of [1, 3, 17, 4096])
      for (const least of [1, 40, 100_000]) {
        await writeFile(program, `#!/bin/sh\ndd if='${folder}/text' bs=${block} 2>/dev/null\n`);
        await chmod(program, 0o755);
        const file = await open(join(folder, 'text'));
        const got = new Map<number, Buffer[]>();
        const rows = await readArchiveRows(
          {
            programs: { pgRestore: program } as Programs,
            folder,
            archive: { file, path: undefined },
            entries: [7, 8, 9],
          },
          least,
          async (entry, lines) => {
            assert.equal(lines.at(-1), 0x0a);
            got.set(entry, [...(got.get(entry) ?? []), Buffer.from(lines)]);
          },
          new AbortController().signal,
        );
        await file.close();
        for (const [entry, lines] of Object.entries(tables)) {
          assert.equal(Buffer.concat(got.get(Number(entry)) ?? []).toString(), joined(lines));
          assert.equal(rows.get(Number(entry)), lines.length);
        }
      }
  });

  for (const [what, script] of [
    ['a program that fails', 'echo "pg_restore: error: could not read from input file: end of file" >&2; exit 1'],
    ['a program that stops in the middle of a table', `head -c 400 "$HERE/text"`],
    ['a program that stops between tables', `head -c ${text.indexOf('-- TOC entry 9 (class 1259') - 4} "$HERE/text"`],
    ['a program that is killed', `head -c 400 "$HERE/text"; kill -9 $$`],
  ] as const)
    test(`${what} is an archive that cannot be read: exit 40`, async () => {
      const folder = await scratch();
      const program = join(folder, 'pg_restore');
      await writeFile(join(folder, 'text'), bytes);
      await writeFile(program, `#!/bin/sh\nHERE='${folder}'\n${script}\n`, { mode: 0o755 });
      const file = await open(join(folder, 'text'));
      const reading = readArchiveRows(
        { programs: { pgRestore: program } as Programs, folder, archive: { file, path: undefined }, entries: [7] },
        100,
        async () => {},
        new AbortController().signal,
      );
      await assert.rejects(reading, (error: { exitCode?: number }) => error.exitCode === 40);
      await file.close();
    });
});

test('the columns of rows, as their COPY names them', () => {
  for (const [statement, columns] of [
    ['COPY public.users (id, mail) FROM stdin;\n', ['id', 'mail']],
    [
      'COPY "S.""1"."T (a) FROM stdin;" ("a, b", "c""d", e$1, "new\nline)", é) FROM stdin;\n',
      ['a, b', 'c"d', 'e$1', 'new\nline)', 'é'],
    ],
    ['COPY public.none  FROM stdin;\n', undefined],
    ['COPY public.none FROM stdin;\n', undefined],
    ['', undefined],
  ] as const)
    assert.deepEqual(columnsOfRows({ copyStatement: statement } as TocEntry), columns);
});
