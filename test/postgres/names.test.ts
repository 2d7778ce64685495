import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { displayList, displayName, nameKey, quoteQualified, sqlName, sqlWord } from '../../src/postgres/names.ts';
import { Cluster } from '../support/postgres.ts';

test('a name for a statement is one line of SQL that means that very name', async () => {
  await using cluster = await Cluster.start();
  const client = await cluster.client('postgres');
  const keywords = await client.query<{ word: string }>('SELECT word FROM pg_get_keywords()');
  const word = fc
    .string({ unit: 'binary', minLength: 1, maxLength: 15 })
    .filter((text) => !text.includes('\u0000') && Buffer.byteLength(text) < 60 && text.isWellFormed());
  const names = [
    ...keywords.rows.map((row) => row.word),
    ...['new\nline', 'tab\t"quote"', 'back\\slash\n', '\u2028', 'Ä', 'a b', '1a', 'a$b', 'U&"x"', '🐘\r', "it's"],
    ...fc.sample(word, { numRuns: 300, seed: 7 }),
  ];
  await client.query('BEGIN');
  for (const name of names) {
    const text = sqlWord(name);
    assert.doesNotMatch(text, /\p{Cc}/u);
    await client.query('SAVEPOINT s');
    await client.query(`CREATE TABLE ${text} ()`);
    const { rows } = await client.query('SELECT 1 FROM pg_class WHERE relname = $1 AND relnamespace = 2200', [name]);
    assert.equal(rows.length, 1, text);
    await client.query(`DROP TABLE ${sqlName({ schema: 'public', name })}; ROLLBACK TO s`);
  }
  await client.end();
});

test('a name for people fits on a line, and quotes are where SQL needs them', () => {
  assert.equal(displayName({ schema: 'public', name: 'users' }), 'public.users');
  assert.equal(displayName({ schema: 'Sales', name: 'a"b' }), '"Sales"."a""b"');
  assert.equal(displayName({ schema: 'a', name: 'x\n::error::y' }), 'a."x\\n::error::y"');
  assert.equal(quoteQualified({ schema: 'a', name: 'b"c' }), '"a"."b""c"');
  assert.notEqual(nameKey({ schema: 'a.b', name: 'c' }), nameKey({ schema: 'a', name: 'b.c' }));
  const many = Array.from({ length: 12 }, (_, at) => ({ schema: 's', name: `t${at}` }));
  assert.equal(displayList(many, 2), 's.t0, s.t1 and 10 more');
  assert.equal(displayList(many.slice(0, 2), 2), 's.t0, s.t1');
});
