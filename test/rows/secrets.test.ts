import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import type { CliResult, Taken } from '../support/backup.ts';
import { repository } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { backupOf } from '../support/restoring.ts';
import { rows, rowsArguments } from '../support/rows.ts';

const address = 'canary4711@example.com';

let cluster: Cluster;
let backup: Taken;
before(async () => {
  cluster = await Cluster.start();
  backup = await backupOf(
    cluster,
    'shop',
    `CREATE EXTENSION IF NOT EXISTS plpgsql;
     CREATE TABLE known (mail text PRIMARY KEY); INSERT INTO known VALUES ('${address}');
     CREATE TABLE people (id int PRIMARY KEY, mail text, n int, during int4range);
     INSERT INTO people VALUES (1, '${address}', NULL, '[4711,4712)'), (2, '${address}', 4711, '[4711,4713)');`,
  );
  await cluster.query('shop', 'DELETE FROM people; DELETE FROM known');
});
after(() => cluster?.stop());

function requireNoRow(result: CliResult): void {
  assert.doesNotMatch(`${result.stdout}${result.stderr}`, /canary4711|4711/i);
  assert.ok(!result.stderr.includes(cluster.password));
  assert.doesNotMatch(result.stderr, /defect/);
}

const raising = (body: string): string =>
  `CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ${body} RETURN new; END $$;`;
const trigger = (timing: string): string =>
  `CREATE TRIGGER meddle ${timing} INSERT ON people FOR EACH ROW EXECUTE FUNCTION meddle();`;

/** What is done to the target, so that the server has something to say about a row. */
const targets: Record<string, { sql: string; says: RegExp; flags?: readonly string[] }> = {
  'a unique key that is taken': {
    sql: `CREATE UNIQUE INDEX people_mail ON people (mail)`,
    says: /public\.people has rows with the same key already \(people_mail\)/,
  },
  'an exclusion constraint': {
    sql: 'ALTER TABLE people ADD CONSTRAINT apart EXCLUDE USING gist (during WITH &&)',
    says: /public\.people has rows with the same key already \(apart\)/,
  },
  'a NOT NULL': {
    sql: 'ALTER TABLE people ALTER n SET NOT NULL',
    says: /null value in column "n" of relation "people"/,
  },
  'a CHECK': {
    sql: `ALTER TABLE people ADD CONSTRAINT good CHECK (mail !~ 'canary')`,
    says: /new row for relation "people" violates check constraint "good"/,
  },
  'a domain': {
    sql: `CREATE DOMAIN good AS text CHECK (VALUE !~ 'canary'); ALTER TABLE people ALTER mail TYPE good`,
    says: /does not take the rows of public\.people as they are in the backup: value for domain … violates check constraint/,
  },
  'a foreign key': {
    sql: 'ALTER TABLE people ADD CONSTRAINT knows FOREIGN KEY (mail) REFERENCES known',
    says: /rows of public\.people refer to rows of public\.known that are not there \(knows\)/,
  },
  'a foreign key that waits for the end': {
    sql: 'ALTER TABLE people ADD CONSTRAINT knows FOREIGN KEY (mail) REFERENCES known DEFERRABLE INITIALLY DEFERRED',
    says: /rows of public\.people refer to rows of public\.known that are not there \(knows\)/,
  },
  'a type that cannot read it': {
    sql: 'ALTER TABLE people ALTER mail TYPE int USING 0',
    says: /does not take the rows of public\.people .*: invalid input syntax for type integer/,
  },
  'a type that is too short': {
    sql: 'ALTER TABLE people ALTER mail TYPE varchar(5)',
    says: /would cut or round values of public\.people: mail/,
  },
  'a partition that is missing': {
    sql: `ALTER TABLE people RENAME TO old; CREATE TABLE people (id int, mail text, n int, during int4range) PARTITION BY LIST (mail)`,
    says: /public\.people refused the rows: no partition of relation "people" found for row/,
  },
  'an expression of an index': {
    sql: `CREATE FUNCTION fine(v text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE EXCEPTION '%', v; END $$; CREATE INDEX ON people (fine(mail))`,
    says: /public\.people refused the rows: an error of the database's own code/,
  },
  'a generated column': {
    sql: 'ALTER TABLE people ADD half int GENERATED ALWAYS AS (1 / (n - 4711)) STORED',
    says: /public\.people refused the rows: division by zero/,
  },
  'a trigger that raises with it, everywhere': {
    sql: `${raising(`RAISE EXCEPTION 'relation "%" does not exist', new.mail USING DETAIL = new.mail, HINT = new.mail, ERRCODE = '23505',
          COLUMN = new.mail, CONSTRAINT = new.mail, TABLE = new.mail, SCHEMA = new.mail, DATATYPE = new.mail;`)} ${trigger('BEFORE')}`,
    says: /public\.people refused the rows: relation "…" does not exist/,
    flags: ['--triggers', 'on'],
  },
  'a trigger that warns with it': {
    sql: `${raising(`RAISE WARNING '%', new.mail; RAISE NOTICE '%', new.mail; RAISE EXCEPTION '%', new.mail;`)} ${trigger('AFTER')}`,
    says: /public\.people refused the rows: an error of the database's own code/,
    flags: ['--triggers', 'on'],
  },
  'a trigger that changes it': {
    sql: `${raising(`new.mail := 'x' || new.mail;`)} ${trigger('BEFORE')}`,
    says: /2 of the 2 rows of public\.people would not be as in the backup \(mail\): its triggers/,
    flags: ['--triggers', 'on'],
  },
};

describe('I-42: rows that the target refuses', () => {
  let number = 0;
  for (const [what, { sql, says, flags = [] }] of Object.entries(targets))
    test(`${what}: what is at fault is named, the value is not`, async () => {
      number += 1;
      const database = `target_${number}`;
      await cluster.createDatabase(database, 'TEMPLATE shop');
      await cluster.query(database, sql);
      for (const more of [[], ['--json'], ['--dry-run']]) {
        const result = await rows(cluster, backup, database, [
          '--table',
          'people',
          '--where',
          'true',
          ...flags,
          ...more,
        ]);
        requireNoRow(result);
        assert.equal(result.exitCode, 50, result.stderr);
        assert.match(result.stderr, says);
      }
      assert.deepEqual(await cluster.query(database, 'SELECT FROM people'), []);
    });
});

describe('I-42: a dry run', () => {
  test('prints keys and counts; values neither into a pipe nor into JSON', async () => {
    for (const more of [[], ['--json'], ['--show-values'], ['--json', '--show-values']]) {
      const result = await rows(cluster, backup, 'shop', [
        '--table',
        'people',
        '--where',
        'true',
        '--dry-run',
        ...more,
      ]);
      assert.equal(result.exitCode, 0, result.stderr);
      requireNoRow(result);
      assert.match(result.stdout, more.includes('--json') ? /"id"\s*\],\s*"rows": \[\s*\[\s*"1"/ : /^ {2}id="1"$/m);
    }
  });

  test('shows whole rows to somebody at a terminal who asked for them', {
    skip: process.platform !== 'linux',
  }, async () => {
    const onTerminal = async (...more: string[]): Promise<string> => {
      const words = [
        ...[process.execPath, join(repository, 'dist', 'cli.js'), ...rowsArguments(cluster, backup)],
        ...['--table', 'people', '--where', 'true', '--dry-run', ...more],
      ];
      const line = words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(' ');
      const { stdout } = await promisify(execFile)('script', ['-qec', line, '/dev/null'], {
        env: {
          PATH: '/usr/bin:/bin',
          HOME: '/nonexistent',
          LANG: 'C.UTF-8',
          SHELL: '/bin/sh',
          TARGET_URL: cluster.url('shop'),
        },
      });
      return stdout;
    };
    assert.match(
      await onTerminal('--show-values'),
      / {2}id="1" mail="canary4711@example\.com" n=NULL during="\[4711,4712\)"/,
    );
    const keys = await onTerminal();
    assert.match(keys, / {2}id="1"/);
    assert.doesNotMatch(keys, /canary/);
  });
});
