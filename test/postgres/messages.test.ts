import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { isDatabaseError, readReports, reduceMessage, sqlState } from '../../src/postgres/messages.ts';
import { program } from '../support/backup.ts';
import { scratch } from '../support/faults.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';

const isName = (word: string): boolean => ['users', 'public.users', 'email', 'users_pkey'].includes(word);

describe('I-42: a message of the server', () => {
  test('keeps its fixed words and the names that are known', () => {
    for (const [message, reduced] of [
      ['permission denied for table users', 'permission denied for table users'],
      ['ERROR:  relation "users" already exists', 'relation "users" already exists'],
      ['relation "public.users" does not exist', 'relation "public.users" does not exist'],
      [
        'duplicate key value violates unique constraint "users_pkey"',
        'duplicate key value violates unique constraint "users_pkey"',
      ],
      [
        'null value in column "email" of relation "users" violates not-null constraint',
        'null value in column "email" of relation "users" violates not-null constraint',
      ],
      ['canceling statement due to lock timeout', 'canceling statement due to lock timeout'],
      ['could not extend file "base/5/1": No space left on device', 'could not extend file "…": …'],
    ] as const)
      assert.equal(reduceMessage(message, isName), reduced);
  });

  test('loses every word in it that is no known name and no number of the server itself', () => {
    for (const [message, reduced] of [
      ['invalid input syntax for type integer: "canary"', 'invalid input syntax for type integer: "…"'],
      ['value "canary" is out of range for type integer', 'value "…" is out of range for type integer'],
      [
        'new row for relation "users" violates check constraint "canary"',
        'new row for relation "users" violates check constraint "…"',
      ],
      ['value too long for type character varying(5)', 'value too long for type character varying(5)'],
      ['invalid memory alloc request size 1073741824', 'invalid memory alloc request size 1073741824'],
      ['invalid byte sequence for encoding "UTF8": 0xca 0x4e', 'invalid byte sequence for encoding "…": …'],
      ['permission denied for table canary', 'permission denied for table …'],
    ] as const)
      assert.equal(reduceMessage(message, isName), reduced);
    assert.doesNotMatch(reduceMessage('invalid input syntax for type integer: "canary\nof two lines"'), /canary|lines/);
  });

  test('shows nothing of a value with quotes, brackets, names or messages in it', () => {
    // The server does not escape quotes in the values it repeats.
    const value = fc
      .array(
        fc.constantFrom(
          'canary',
          '"',
          '"',
          "'",
          '(',
          ')',
          ' ',
          'users',
          '"users"',
          ': ',
          'ERROR:  ',
          'relation ',
          '""',
        ),
        { maxLength: 12 },
      )
      .map((pieces) => `${pieces.join('')}canary`);
    fc.assert(
      fc.property(value, (text) => {
        for (const message of [
          `invalid input syntax for type integer: "${text}"`,
          `invalid input value for enum mood: "${text}"`,
          `ERROR:  date/time field value out of range: "${text}"`,
          `malformed array literal: "${text}"`,
          `value "${text}" is out of range for type integer`,
          `invalid value "${text}" for "YYYY"`,
        ]) {
          assert.doesNotMatch(reduceMessage(message, isName), /canary/, message);
          for (const report of readReports(
            `pg_restore: error: COPY failed for table "users": ERROR:  ${message}\nCONTEXT:  COPY users, line 1: "${text}"\n`,
            isName,
          ))
            assert.doesNotMatch(report.message, /canary/, message);
        }
      }),
      { numRuns: 2000 },
    );
  });

  test('of a kind that PostgreSQL has not is withheld altogether', () => {
    for (const message of [
      ...['canary 4711', 'ERROR:  Kunde canary ist gesperrt', 'ada@example.com is no customer', ''],
      ...[
        'invalid card number 4111 1111 1111 1111',
        'relation of canary to x',
        'could not accept canary',
        'permission denied for canary',
      ],
      ...[
        'duplicate key value (canary) is there',
        'duplicate key value violates unique constraint "users_pkey" canary',
      ],
    ])
      assert.match(reduceMessage(message), /^an error of the database's own code \(its text is withheld/);
  });
});

test('a database error is known by its SQLSTATE', () => {
  const error = Object.assign(new Error('x'), { code: '42P01' });
  assert.equal(isDatabaseError(error), true);
  assert.equal(sqlState(error), '42P01');
  for (const other of [
    new Error('x'),
    Object.assign(new Error('x'), { code: 'ECONNRESET' }),
    'x',
    undefined,
    { code: '42P01' },
  ])
    assert.equal(sqlState(other), undefined);
});

/** One table each that cannot be restored; every row of it says canary. */
const failing: Readonly<Record<string, string>> = {
  duplicate: `CREATE TABLE duplicate (v text); INSERT INTO duplicate VALUES ('canary'), ('canary'); CREATE RULE r AS ON UPDATE TO duplicate DO ALSO NOTHING`,
  checked: `CREATE FUNCTION fine(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
    CREATE TABLE checked (v text CHECK (public.fine(v))); INSERT INTO checked VALUES ('canary');
    CREATE OR REPLACE FUNCTION fine(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false'`,
  cast_: `CREATE FUNCTION number(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
    CREATE TABLE cast_ (v text CHECK (public.number(v))); INSERT INTO cast_ VALUES ('say "hello" canary'), ('ca"users"nary');
    CREATE OR REPLACE FUNCTION number(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1::int > 0'`,
  raised: `CREATE FUNCTION raising(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
    CREATE TABLE raised (v text CHECK (public.raising(v))); INSERT INTO raised VALUES ('canary');
    CREATE OR REPLACE FUNCTION raising(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN RAISE EXCEPTION E'invalid e-mail address % for column %', $1, $1 USING DETAIL = $1, HINT = $1; END $$`,
  asserted: `CREATE FUNCTION asserting(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
    CREATE TABLE asserted (v text CHECK (public.asserting(v))); INSERT INTO asserted VALUES ('canary');
    CREATE OR REPLACE FUNCTION asserting(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN ASSERT false, 'could not accept ' || $1; RETURN true; END $$`,
};

for (const major of majorsAvailable()) {
  describe(`I-42: what PostgreSQL ${major}'s pg_restore reports about rows it cannot restore`, () => {
    let cluster: Cluster;
    before(async () => {
      cluster = await Cluster.start({ major });
    });
    after(() => cluster.stop());

    for (const [name, sql] of Object.entries(failing)) {
      test(`names the entry, and no value: ${name}`, async () => {
        await cluster.createDatabase(name);
        await cluster.query(name, sql);
        const dump = join(await scratch(), 'dump');
        await program(cluster, 'pg_dump', ['-Fc', '-f', dump, cluster.url(name)]);
        await cluster.createDatabase(`${name}_2`);
        if (name === 'duplicate') await cluster.query(`${name}_2`, 'CREATE TABLE duplicate (v text PRIMARY KEY)');
        const args = name === 'duplicate' ? ['--data-only'] : [];
        const { stderr } = await promisify(execFile)(
          join(cluster.bin, 'pg_restore'),
          [...args, '--exit-on-error', '-d', cluster.url(`${name}_2`), dump],
          { env: { LC_ALL: 'C' } },
        ).catch((error: { stderr: string }) => error);
        assert.match(stderr, /canary/, 'the server says it');
        const reports = readReports(stderr, (word) => word === name || word === 'users');
        const [error] = reports.filter(({ severity }) => severity === 'error');
        assert.ok(error !== undefined, stderr);
        assert.match(`${error.entry} ${error.message}`, new RegExp(name));
        for (const report of reports) assert.doesNotMatch(`${report.message} ${report.entry}`, /canary|hello/);
      });
    }
  });
}
