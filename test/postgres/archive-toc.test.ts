import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';
import { loadSampleDatabase } from '../../scripts/sample-database.ts';
import { NotAnArchive, type Toc, type TocEntry, TocReader } from '../../src/postgres/archive-toc.ts';
import { program } from '../support/backup.ts';
import { scratch } from '../support/faults.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';

/** The archive's beginning in pieces, until the table of contents is there or the bytes are used up. */
function read(bytes: Uint8Array, sizes: readonly number[]): Toc | undefined {
  const reader = new TocReader();
  for (let at = 0, turn = 0; at < bytes.length && reader.toc === undefined; turn++) {
    const size = sizes[turn % sizes.length] ?? 1;
    reader.push(bytes.subarray(at, at + size));
    at += size;
  }
  return reader.toc;
}

/** What `pg_restore --list --verbose` prints of an entry. Names are printed with their line breaks folded. */
function line(entry: TocEntry): string {
  const { dumpId, tableOid, oid, kind, schema, tag, owner } = entry;
  return `${dumpId}; ${tableOid} ${oid} ${kind} ${schema ?? '-'} ${tag} ${owner}`.replace(/[\r\n]/g, ' ');
}

function listed(output: string): { readonly lines: string[]; readonly dependencies: Map<string, string> } {
  const lines: string[] = [];
  const dependencies = new Map<string, string>();
  for (const text of output.split('\n')) {
    const depends = /^;\tdepends on: (.*)$/.exec(text)?.[1];
    if (depends !== undefined) dependencies.set(lines.at(-1) ?? '', depends);
    else if (/^\d+; /.test(text)) lines.push(text);
  }
  const kept = (text: string): boolean => !/^\d+; \d+ \d+ (?:ENCODING|STDSTRINGS|SEARCHPATH) /.test(text);
  return { lines: lines.filter(kept), dependencies };
}

for (const major of majorsAvailable()) {
  describe(`the table of contents of PostgreSQL ${major}'s archives`, () => {
    let cluster: Cluster;
    const dumps = new Map<string, string>();

    before(async () => {
      cluster = await Cluster.start({ major });
      await cluster.createDatabase('shop "größe"');
      await loadSampleDatabase(cluster.url('shop "größe"'));
      await cluster.query(
        'shop "größe"',
        `CREATE TABLE "line\nbreak\r" ("🐘" int); COMMENT ON TABLE "line\nbreak\r" IS 'a\nb'; CREATE ROLE "odd owner é";
         ALTER TABLE "line\nbreak\r" OWNER TO "odd owner é"; GRANT SELECT ON "line\nbreak\r" TO PUBLIC`,
      );
      await cluster.createDatabase('latin', `TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'`);
      await cluster.query('latin', 'CREATE TABLE "größe" (id int)');
      const folder = await scratch();
      for (const [name, args] of Object.entries({
        ...{
          none: ['-Z0'],
          gzip: ['-Z1'],
          ...(major >= 16 ? { zstd: ['--compress=zstd'], lz4: ['--compress=lz4'] } : {}),
        },
        'schema-only': ['-s'],
      })) {
        dumps.set(name, join(folder, name));
        await program(cluster, 'pg_dump', ['-Fc', ...args, '-f', join(folder, name), cluster.url('shop "größe"')]);
      }
      dumps.set('latin', join(folder, 'latin'));
      await program(cluster, 'pg_dump', ['-Fc', '-f', join(folder, 'latin'), cluster.url('latin')]);
    });
    after(() => cluster.stop());

    test('is what pg_restore --list prints, entry by entry, with every dependency', async () => {
      for (const [name, path] of dumps) {
        const toc = read(await readFile(path), [65_536]);
        assert.ok(toc !== undefined, name);
        const output = await program(cluster, 'pg_restore', ['-l', '-v', path]);
        const { lines, dependencies } = listed(output);
        if (name === 'latin') continue; // --list prints Latin-1 bytes
        assert.deepEqual(toc.entries.map(line), lines, name);
        for (const entry of toc.entries)
          assert.equal(entry.dependencies.join(' '), dependencies.get(line(entry)) ?? '', line(entry));
        const head = (label: string): string | undefined => new RegExp(`^; +${label}: (.*)$`, 'm').exec(output)?.[1];
        assert.equal(toc.databaseName, head('dbname'));
        assert.equal(`${toc.archiveVersion}-0`, head('Dump Version'));
        assert.equal(toc.serverVersion, head('Dumped from database version'));
        assert.equal(toc.dumpVersion, head('Dumped by pg_dump version'));
        const compression = { '0': 'none', none: 'none', '-1': 'gzip', '1': 'gzip' }[head('Compression') ?? ''];
        assert.equal(toc.compression, compression ?? head('Compression'));
      }
    });

    test('has names with line breaks, in any encoding, and definitions whole', async () => {
      const toc = read(await readFile(dumps.get('none') ?? ''), [999]);
      const entry = toc?.entries.find(({ kind, tag }) => kind === 'TABLE' && tag === 'line\nbreak\r');
      assert.equal(entry?.owner, 'odd owner é');
      assert.ok(entry?.definition.includes('"🐘" integer'));
      const latin = read(await readFile(dumps.get('latin') ?? ''), [7]);
      assert.ok(latin?.entries.some(({ kind, tag }) => kind === 'TABLE' && tag === 'größe'));
    });

    test('is the same however the bytes arrive, and never there before its last byte', async () => {
      const bytes = await readFile(dumps.get('schema-only') ?? '');
      const whole = read(bytes, [bytes.length]);
      assert.ok(whole !== undefined);
      assert.deepEqual(read(bytes, [1]), whole);
      fc.assert(
        fc.property(fc.array(fc.integer({ min: 1, max: 9000 }), { minLength: 1, maxLength: 20 }), (sizes) => {
          assert.deepEqual(read(bytes, sizes), whole);
        }),
        { numRuns: 30 },
      );
      const reader = new TocReader();
      let length = 0;
      while (reader.toc === undefined) reader.push(bytes.subarray(length, ++length));
      assert.equal(read(bytes.subarray(0, length - 1), [4096]), undefined);
      fc.assert(
        fc.property(fc.nat(length - 1), (short) => assert.equal(read(bytes.subarray(0, short), [4096]), undefined)),
        { numRuns: 100 },
      );
    });

    test('F18: damaged bytes are refused, or read as something else, but never hang or throw anything else', async () => {
      const bytes = await readFile(dumps.get('schema-only') ?? '');
      const damage = (at: number, bit: number): void => {
        const copy = Buffer.from(bytes);
        copy[at] = (copy[at] ?? 0) ^ (1 << bit);
        try {
          read(copy, [65_536]);
        } catch (error) {
          assert.ok(error instanceof NotAnArchive, `byte ${at}, bit ${bit}: ${error}`);
        }
      };
      for (let at = 0; at < 80; at++) for (let bit = 0; bit < 8; bit++) damage(at, bit);
      fc.assert(fc.property(fc.nat(bytes.length - 1), fc.nat(7), damage), { numRuns: 300 });
    });
  });
}

describe('bytes that are no archive', () => {
  test('B51: are refused by their first bytes, whatever they are', () => {
    for (const text of [
      ...[
        '-- PostgreSQL database dump\n',
        '<html><body>404</body></html>',
        'age-encryption.org/v1\n',
        'PK\u0003\u0004xxxx',
      ],
      ...['PGDMQ', 'PGDMP\u0001\u0000\u0000\u0004\u0008\u0001', 'PGDMP\u0001\u0013\u0000\u0004\u0008\u0001'],
      'PGDMP\u0001\u000e\u0000\u0004\u0008\u0002xxxxxxxxxxxxx',
      'PGDMP\u0001\u000e\u0000\u0084\u0008\u0001xxxxxxxxxxxxx',
      'PGDMP\u0001\u000e\u0000\u0000\u0008\u0001xxxxxxxxxxxxx',
    ])
      assert.throws(() => read(Buffer.from(text, 'latin1'), [3]), NotAnArchive, text);
  });

  test('are never taken for one: random bytes and random bytes after a right beginning', () => {
    const safe = (bytes: Uint8Array): void => {
      try {
        read(bytes, [17]);
      } catch (error) {
        assert.ok(error instanceof NotAnArchive, String(error));
      }
    };
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), safe), { numRuns: 500 });
    const beginning = Buffer.from('PGDMP\u0001\u000e\u0000', 'latin1');
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (rest) => safe(Buffer.concat([beginning, rest]))),
      { numRuns: 1000 },
    );
  });

  test('with fewer bytes than a beginning needs are not judged yet', () => {
    for (const text of ['', 'P', 'PGDM']) assert.equal(read(Buffer.from(text), [1]), undefined);
  });
});
