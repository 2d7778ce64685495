import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withoutSettings } from '../../src/postgres/roles.ts';
import { program } from '../support/backup.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';

const names = [
  'plain',
  'Odd "name"',
  'semi;colon',
  "it's",
  'ALTER ROLE x SET y',
  'line\nbreak',
  '-- no comment',
  "E'x\\",
  'größe',
];

test('role definitions lose their settings, whatever these hold, and nothing else', async () => {
  for (const major of majorsAvailable()) {
    await using cluster = await Cluster.start({ major });
    const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;
    for (const [at, name] of names.entries())
      await cluster.query(
        'postgres',
        `CREATE ROLE ${quoted(name)} LOGIN CREATEDB CONNECTION LIMIT ${at} PASSWORD 'canary' VALID UNTIL '2030-01-01';
         COMMENT ON ROLE ${quoted(name)} IS 'kept; ALTER ROLE x SET kept = ''kept'';';
         ALTER ROLE ${quoted(name)} SET app.secret = 'canary; CREATE ROLE "canary"; --
canary';
         ALTER ROLE ${quoted(name)} SET search_path = public, "canary'"; ALTER ROLE ${quoted(name)} SET app.backslash = E'canary\\\\'';';
         ALTER ROLE ${quoted(name)} IN DATABASE postgres SET app.secret = 'canary'; GRANT pg_monitor TO ${quoted(name)}`,
      );
    const sql = await program(cluster, 'pg_dumpall', [
      '--roles-only',
      '--no-role-passwords',
      '-d',
      cluster.url('postgres'),
    ]);
    assert.ok((sql.match(/canary/g) ?? []).length >= names.length * 3);
    const clean = withoutSettings(sql);
    assert.doesNotMatch(clean, /canary|\\restrict|\\unrestrict/);
    const statements = (text: string, pattern: RegExp): number => (text.match(pattern) ?? []).length;
    for (const pattern of [
      /^CREATE ROLE /gm,
      /^ALTER ROLE .* WITH /gm,
      /^COMMENT ON ROLE /gm,
      /^GRANT pg_monitor TO /gm,
      /CONNECTION LIMIT/g,
    ])
      assert.equal(statements(clean, pattern), statements(sql, pattern), String(pattern));

    await using other = await Cluster.start({ major });
    await other.query('postgres', clean.replace('CREATE ROLE postgres;', ''));
    const rows = await other.query<{ name: string; comment: string }>(
      'postgres',
      `SELECT rolname AS name, shobj_description(oid, 'pg_authid') AS comment FROM pg_roles WHERE rolname !~ '^pg_' AND rolname <> 'postgres' AND rolcreatedb AND rolconfig IS NULL`,
    );
    assert.deepEqual(rows.map(({ name }) => name).sort(), [...names].sort());
    assert.ok(rows.every(({ comment }) => comment === "kept; ALTER ROLE x SET kept = 'kept';"));
  }
});

test('statements are told apart by quotes, not by semicolons', () => {
  assert.equal(
    withoutSettings("CREATE ROLE a;\nALTER ROLE a SET x TO 'y;z';\nCREATE ROLE b;\n"),
    'CREATE ROLE a;\nCREATE ROLE b;\n',
  );
  assert.equal(withoutSettings('ALTER ROLE a WITH LOGIN;\n'), 'ALTER ROLE a WITH LOGIN;\n');
  assert.equal(withoutSettings('CREATE ROLE "ALTER ROLE a SET x";\n'), 'CREATE ROLE "ALTER ROLE a SET x";\n');
  assert.equal(withoutSettings('-- ALTER ROLE a SET x;\nCREATE ROLE b;\n'), '-- ALTER ROLE a SET x;\nCREATE ROLE b;\n');
  assert.equal(
    withoutSettings('ALTER ROLE "a "" b" IN DATABASE "c;d" SET x TO 1;\nCREATE ROLE e;').trim(),
    'CREATE ROLE e;',
  );
});
