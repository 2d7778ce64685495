import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { parseTable, readCondition, tablesNamed } from '../../src/postgres/rows-request.ts';
import type { Taken } from '../support/backup.ts';
import { Cluster } from '../support/postgres.ts';
import { backupOf } from '../support/restoring.ts';
import { counts, everything, rows } from '../support/rows.ts';

describe('a condition is one expression', () => {
  const refused: Record<string, RegExp> = {
    '1=1); DROP TABLE x; --': /\) that closes nothing/,
    '1=1; DROP TABLE x': /semicolon/,
    '1=1) OR (1=1': /\) that closes nothing/,
    '(id = 1': /lacks a \)/,
    '(id = 1]': /\] that closes nothing/,
    'a[1 = 2': /lacks a \]/,
    "name = 'x": /has a ' without its partner/,
    "name = 'it''s": /has a ' without its partner/,
    "name = E'x\\'": /has a ' without its partner/,
    "name = E'x' \n 'y\\''": /continues an E'…' string/,
    '"name = 1': /has a " without its partner/,
    'id = 1 /* /* */': /comment without its end/,
    'name = $a$ x $b$': /dollar-quoted string without its end/,
    '': /is empty/,
    ' -- nothing\n /* at all */ ': /is empty/,
  };
  for (const [text, problem] of Object.entries(refused))
    test(`refused: ${JSON.stringify(text)}`, () => {
      const found = readCondition(text);
      assert.ok('problem' in found, text);
      assert.match(found.problem, problem);
    });

  for (const text of [
    "note = '1=1); DROP TABLE x; --'",
    'note = \'it\'\'s\' AND "odd;)""" = 1',
    "note = E'\\'; (' AND x = U&'\\0041'",
    'note = $$;)$$ OR note = $tag$ $$ ; ) $tag$ AND price$1 > 2',
    'id in (1, 2) -- not ) closed; at all',
    'id = /* ; ) /* nested ( */ */ 1',
    'tags[1] = ANY (ARRAY[1, 2]) AND (p).b[1:2] IS NULL',
    "date'2026-01-01' < day AND x ~ '\\(' AND e'a' = n'b'",
  ])
    test(`taken: ${JSON.stringify(text)}`, () =>
      assert.deepEqual((readCondition(text) as { text: string }).text, text));

  test('its identifiers are known, its strings are not among them', () => {
    const found = readCondition(`"Odd" = 'secret' AND Name = $$hidden$$ AND t.id = E'x' -- comment`);
    assert.deepEqual('names' in found && [...found.names].sort(), ['AND', 'Name', 'Odd', 'and', 'id', 'name', 't']);
  });
});

describe('a written table', () => {
  const tables = [
    ...[
      { schema: 'public', name: 'users' },
      { schema: 'public', name: 'Users' },
      { schema: 'old', name: 'users' },
    ],
    ...[
      { schema: 'a.b', name: 'c"d' },
      { schema: 'public', name: 'Größe' },
      { schema: 'public', name: 'only' },
    ],
  ];
  for (const [text, expected] of [
    ['users', ['public.users', 'old.users']],
    ['USERS', ['public.users', 'old.users']],
    ['Users', ['public.Users']],
    ['"Users"', ['public.Users']],
    ['public.users', ['public.users']],
    ['OLD.USERS', ['old.users']],
    ['"OLD".users', []],
    ['"a.b"."c""d"', ['a.b.c"d']],
    ['größe', []],
    ['Größe', ['public.Größe']],
    ['a.b.c', undefined],
    ['', undefined],
    ['users.', undefined],
    ['.users', undefined],
    ['"users', undefined],
    ['""', undefined],
  ] as const)
    test(JSON.stringify(text), () => {
      const written = parseTable(text);
      if ('problem' in written) assert.equal(expected, undefined);
      else
        assert.deepEqual(
          tablesNamed(written, tables).map((each) => `${each.schema}.${each.name}`),
          expected,
        );
    });
});

describe('what the server makes of a condition', () => {
  let cluster: Cluster;
  let backup: Taken;
  let untouched: Record<string, string>;
  before(async () => {
    cluster = await Cluster.start();
    backup = await backupOf(
      cluster,
      'shop',
      `CREATE TABLE users (id int PRIMARY KEY, mail text, twice int GENERATED ALWAYS AS (id * 2) STORED);
       INSERT INTO users VALUES (1, 'canary4711@example.com'), (2, ';'), (3, '1=1); --');
       CREATE TABLE x (id int);
       CREATE FUNCTION public.writes(v text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.x VALUES (1); RETURN true; END $$;
       CREATE FUNCTION public.raises(v text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
         RAISE EXCEPTION 'column % does not exist', v USING HINT = v, DETAIL = v, COLUMN = v, TABLE = v, CONSTRAINT = v; END $$;
       CREATE FUNCTION public.escapes(v text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
         PERFORM set_config('transaction_read_only', 'off', false); INSERT INTO public.x VALUES (1); RETURN true; END $$;
       CREATE FUNCTION public."=>>"(a int, b int) RETURNS bool LANGUAGE sql AS 'SELECT true';`,
    );
    await cluster.query('shop', 'DELETE FROM users');
    untouched = await everything(cluster, 'shop');
  });
  after(() => cluster.stop());

  for (const [where, message] of [
    [
      'id',
      /the condition for public\.users cannot be used: argument of (?:WHERE|AND) must be type boolean, not type integer \(at its character 1\)$/m,
    ],
    [
      'idd = 1',
      /column "idd" does not exist \(at its character 1\)\nhint: .*over the columns of the backup: id, mail;/,
    ],
    ['mail = 1', /operator does not exist: … \(at its character 6\)/],
    ['id = 1 ORDER BY id', /syntax error at or near "ORDER" \(at its character 8\)/],
    ['id IN (SELECT id FROM users)', /relation "users" does not exist.*\nhint: .*need their schema, public\.users/],
    ['twice = 2', /column "twice" does not exist/],
    ['count(*) > 1', /aggregate functions are not allowed in WHERE/],
    ['public.writes(mail)', /cannot execute INSERT in a read-only transaction/],
    ['public.escapes(mail)', /the condition for public\.users cannot be used: /],
    ['public.raises(mail)', /an error of the database's own code|column … does not exist/],
    ['mail::int > 1', /invalid input syntax for type integer/],
    ['1 / (id - 1) > 0', /division by zero/],
    ['mail ~ mail', /invalid regular expression/],
    ['(SELECT true FROM (SELECT 1) d, (DELETE FROM public.x RETURNING true) e)', /syntax error at or near/],
  ] as const)
    test(`${where}: exit 2, nothing changed, no value told`, async () => {
      const result = await rows(cluster, backup, 'shop', ['--table', 'users', '--where', where]);
      assert.equal(result.exitCode, 2, result.stderr);
      assert.match(result.stderr, message);
      assert.deepEqual(await everything(cluster, 'shop'), untouched);
      assert.doesNotMatch(`${result.stdout}${result.stderr}`, /canary4711/i);
    });

  test('quotes, comments, line breaks and another table by its full name', async () => {
    const where = `mail IN (';', '1=1); --') -- );
      AND users.id IN (SELECT 2 UNION SELECT 3 WHERE NOT EXISTS (SELECT FROM public.x)) /* ; */`;
    const result = await rows(cluster, backup, 'shop', ['--table', 'users', `--where=${where}`, '--json']);
    assert.equal(result.exitCode, 0, result.stderr);
    assert.deepEqual(counts(result), ['public.users 2 2 0 0']);
    await cluster.query('shop', 'DELETE FROM users');
  });

  test("somebody's operator in public does not stand in for PostgreSQL's own; a type's own does", async () => {
    const taken = await backupOf(
      cluster,
      'operators',
      `CREATE TABLE t (id varchar(5) PRIMARY KEY); INSERT INTO t VALUES ('a'), ('b');
       CREATE FUNCTION public.always(varchar, varchar) RETURNS bool LANGUAGE sql AS 'SELECT true';
       CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = public.always);`,
      { name: 'operators' },
    );
    await cluster.query('operators', 'DELETE FROM t');
    const result = await rows(cluster, taken, 'operators', ['--table', 't', '--where', `id = 'a'::varchar`, '--json']);
    assert.deepEqual(counts(result), ['public.t 1 1 0 0'], result.stderr);
    const update = await rows(cluster, taken, 'operators', [
      '--table',
      't',
      '--where',
      'true',
      '--on-conflict',
      'update',
      '--json',
    ]);
    assert.deepEqual(counts(update), ['public.t 2 1 1 0'], update.stderr);
  });

  test("an extension's type is compared as its own operators do, in conditions and in keys", async (context) => {
    const available = `SELECT FROM pg_available_extensions WHERE name = 'citext'`;
    if ((await cluster.query('postgres', available)).length === 0) return context.skip('no citext here');
    const taken = await backupOf(
      cluster,
      'extended',
      `CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE TABLE t (mail ext.citext PRIMARY KEY, others ext.citext[], n int);
       INSERT INTO t VALUES ('Ada@x', '{A,b}', 1), ('bob@x', '{C}', 2)`,
      { name: 'extended' },
    );
    const whole = await everything(cluster, 'extended');
    await cluster.query('extended', 'DELETE FROM t WHERE n = 1; UPDATE t SET n = 7, others = NULL');
    const where = `mail = 'ADA@X' AND others && '{a}' OR mail IN ('BOB@x')`;
    const result = await rows(cluster, taken, 'extended', [
      ...['--table', 't', '--where', where, '--on-conflict', 'update', '--json'],
    ]);
    assert.deepEqual(counts(result), ['public.t 2 1 0 1'], result.stderr);
    assert.deepEqual(await everything(cluster, 'extended'), whole);
  });
});
