import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import pg from 'pg';
import type { ActionResult } from '../support/action.ts';
import { cli, type Taken, taken } from '../support/backup.ts';
import { backUp, errorOf, filesIn, scratch, wrapped } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { parseCommand } from '../support/workflow-commands.ts';

const names = [
  '::add-mask::public',
  '  ::error::indented',
  '##[error]boo',
  '##[add-mask]public',
  'two\n::add-mask::public',
  'two\r::set-output name=rows::7',
  'two\r\n##[error]boo',
  'next\u0085::add-mask::public',
  'line\u2028::add-mask::public',
  '\u001b[31mred\u001b[0m',
  '%0A::add-mask::public',
  'EOF\nrows=7',
  '`code` <b>bold</b> @everyone [link](http://x) | cell',
  '"quoted"',
  'back\\slash',
  '--option',
  'ümlaut',
];
const database = 'shop\n::add-mask::public';

let cluster: Cluster;
before(async () => {
  cluster = await Cluster.start();
  await cluster.createDatabase(database);
  for (const name of names)
    await cluster.query(
      database,
      `CREATE TABLE ${pg.escapeIdentifier(name)} (${pg.escapeIdentifier(name)} int);
       INSERT INTO ${pg.escapeIdentifier(name)} VALUES (1);
       CREATE SEQUENCE ${pg.escapeIdentifier(`${name} seq`)};`,
    );
  await cluster.query(database, `CREATE SCHEMA "::add-mask::schema"; CREATE TABLE "::add-mask::schema".t (a int)`);
});
after(() => cluster?.stop());

const ours =
  /^(?:using |"shop\\n|dump |backup |##\[group\]Dump$|##\[endgroup\]$| {2}pg_restore |no byte|Error: |Warning: |Notice: |hint: )/;

/** No command but our own reached the runner, and no line begins with somebody else's words. */
function requireNoCommand(result: ActionResult, errors: number): void {
  assert.ok(!result.masks.some((mask) => mask === 'public' || mask.startsWith('schema')), result.masks.join());
  const commands = result.rawLog.split('\n').flatMap((line) => parseCommand(line)?.name ?? []);
  assert.deepEqual(
    commands.filter((name) => !['add-mask', 'group', 'endgroup', 'error', 'warning', 'notice'].includes(name)),
    [],
  );
  assert.equal(commands.filter((name) => name === 'error').length, errors);
  for (const line of result.rawLog.split('\n')) if (!line.startsWith('::')) assert.ok(!line.includes('##['), line);
  assert.ok(!result.rawLog.includes('\u001b'));
}

describe('names that look like commands of the runner', () => {
  test('a backup of them: its lines stay its own, its outputs too', async () => {
    const result = await backUp(cluster.url(database), await scratch(), {}, { env: { RUNNER_DEBUG: '1' } });
    assert.equal(result.exitCode, 0, result.log);
    requireNoCommand(result, 0);
    assert.deepEqual(
      result.log.split('\n').filter((line) => line !== '' && !ours.test(line)),
      [],
    );
    assert.equal(result.outputs.rows, String(names.length));
    assert.deepEqual(result.droppedOutputs, []);
    assert.deepEqual(Object.keys(result.exported.env), []);
    const backup: Taken = await taken(result);
    assert.deepEqual(backup.census.tables.map(({ name }) => name).sort(), [...names, 't'].sort());

    const shown = await cli(['show', backup.id, '--store', backup.store]);
    assert.equal(shown.exitCode, 0, shown.stderr);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not be there
    assert.doesNotMatch(shown.stdout, /[\u0000-\u0009\u000b-\u001f\u0085]/);
    assert.doesNotMatch(shown.stdout, /^::|^rows=7/m);

    const restored = await cli(['restore', backup.id, '--store', backup.store], {
      TARGET_URL: cluster.url('again\n::add-mask::public'),
    });
    assert.equal(restored.exitCode, 0, restored.stderr);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what must not be there
    assert.doesNotMatch(restored.stdout + restored.stderr, /[\u0000-\u0009\u000b-\u001f\u0085]/);
    assert.doesNotMatch(restored.stdout + restored.stderr, /^::|^rows=7/m);
  });

  test('an error that names them', async () => {
    const bin = await wrapped(cluster, { pg_dump: 'exec "$REAL" "$@" --schema-only' });
    const result = await backUp(cluster.url(database), await scratch(), { 'client-bin': bin });
    assert.equal(result.exitCode, 40, result.log);
    requireNoCommand(result, 1);
    const lines = errorOf(result).split('\n');
    for (const line of lines.slice(1)) assert.match(line, /^(?: {2}|hint: )/, errorOf(result));
  });

  test('privileges that are missing on them', async () => {
    await cluster.query('postgres', `CREATE ROLE "::add-mask::role" LOGIN PASSWORD 'passw0rd'`);
    const result = await backUp(cluster.url(database, '::add-mask::role', 'passw0rd'), await scratch());
    assert.equal(result.exitCode, 12, result.log);
    requireNoCommand(result, 1);
  });

  test('a lock on one of them', async () => {
    const holder = await cluster.client(database);
    try {
      await holder.query(
        `BEGIN; LOCK TABLE ${pg.escapeIdentifier('two\n::add-mask::public')} IN ACCESS EXCLUSIVE MODE`,
      );
      const result = await backUp(cluster.url(database), await scratch(), { 'lock-wait-timeout': '1s' });
      assert.equal(result.exitCode, 14, result.log);
      requireNoCommand(result, 1);
      assert.match(errorOf(result), /^snapshot: public\."two\\n\S+" stayed locked/);
    } finally {
      await holder.end();
    }
  });

  test('inputs that try it', async () => {
    const result = await backUp(cluster.url(database), await scratch(), {
      name: 'x\n::add-mask::public',
      label: '##[error]boo',
      tables: '::add-mask::public\n##[error]boo(',
      mode: 'full\r::add-mask::public',
    });
    assert.equal(result.exitCode, 2, result.log);
    requireNoCommand(result, 1);
  });

  test('a folder of the store', async () => {
    const store = join(await scratch(), 'two\n::add-mask::public\n##[error]boo\n  ::set-output name=rows::7');
    await cluster.createDatabase('plain');
    await cluster.query('plain', 'CREATE TABLE t (a int); INSERT INTO t VALUES (1)');
    const result = await backUp(cluster.url('plain'), encodeURI(store).replaceAll('#', '%23'));
    assert.equal(result.exitCode, 0, result.log);
    requireNoCommand(result, 0);
    assert.equal(result.outputs.rows, '1');
    assert.ok(result.outputs['restore-command']?.includes(store));
    assert.equal((await filesIn(store)).length, 4);
  });

  test('what pg_dump says', async () => {
    const say = `printf 'pg_dump: warning: ::add-mask::public\\n::add-mask::public\\n##[error]boo\\n' >&2`;
    for (const end of ['exec "$REAL" "$@"', 'exit 1']) {
      const bin = await wrapped(cluster, { pg_dump: `${say}\n${end}` });
      const result = await backUp(cluster.url(database), await scratch(), { 'client-bin': bin });
      requireNoCommand(result, end === 'exit 1' ? 1 : 0);
    }
  });
});
