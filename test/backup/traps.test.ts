import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { restoreWithUs, type Taken, takeBackup } from '../support/backup.ts';
import { Cluster } from '../support/postgres.ts';

/** Says so in the server's log when it is called, then does what the real one does. */
const trap = (signature: string, returns: string, body: string): string => `
  CREATE FUNCTION public.${signature} RETURNS ${returns} LANGUAGE plpgsql AS $f$
  BEGIN RAISE LOG 'TRAP ${signature.replaceAll("'", '')}'; ${body} END $f$;`;

const functions: readonly (readonly [string, string, string])[] = [
  ['hashtextextended(text, int)', 'bigint', 'RETURN 1;'],
  ['hashtextextended(text, bigint)', 'bigint', 'RETURN 1;'],
  ['format(text, int)', 'text', "RETURN 'x';"],
  ['format(text, text)', 'text', "RETURN 'x';"],
  ['num_nulls(int)', 'int', 'RETURN 0;'],
  ['num_nulls(text)', 'int', 'RETURN 0;'],
  ['pg_backend_pid()', 'int', 'RETURN pg_catalog.pg_backend_pid();'],
  ['pg_export_snapshot()', 'text', 'RETURN pg_catalog.pg_export_snapshot();'],
  ['clock_timestamp()', 'timestamptz', 'RETURN pg_catalog.clock_timestamp();'],
  ['current_setting(text)', 'text', 'RETURN pg_catalog.current_setting($1);'],
  ['set_config(text, text, boolean)', 'text', 'RETURN pg_catalog.set_config($1, $2, $3);'],
  ['pg_is_in_recovery()', 'boolean', 'RETURN false;'],
  ['pg_table_is_visible(oid)', 'boolean', 'RETURN true;'],
  ['array_position(oid[], oid)', 'int', 'RETURN 1;'],
  ['has_table_privilege(oid, text)', 'boolean', 'RETURN true;'],
  ['pg_database_size(oid)', 'bigint', 'RETURN 1;'],
  ['pg_encoding_to_char(int)', 'name', "RETURN 'UTF8';"],
  ['to_jsonb(pg_catalog.pg_database)', 'jsonb', "RETURN '{}';"],
];
const operators: readonly (readonly [string, string, string, string])[] = [
  ['=', 'oid', 'oid', 'oideq'],
  ['=', 'name', 'name', 'nameeq'],
  ['=', 'int', 'int', 'int4eq'],
  ['=', 'bigint', 'int', 'int84eq'],
  ['=', 'text', 'text', 'texteq'],
  ['=', '"char"', '"char"', 'chareq'],
  ['<>', 'name', 'text', 'namenetext'],
  ['<>', 'name', 'name', 'namene'],
  ['!~', 'name', 'text', 'nameregexne'],
  ['~', 'text', 'text', 'textregexeq'],
  ['*', 'bigint', 'bigint', 'int8mul'],
  ['-', 'bigint', 'int', 'int84mi'],
];

const traps = [
  'GRANT CREATE ON SCHEMA public TO mallory; SET ROLE mallory;',
  ...functions.map(([signature, returns, body]) => trap(signature, returns, body)),
  `CREATE FUNCTION public.counting(bigint) RETURNS bigint LANGUAGE plpgsql AS $f$ BEGIN RAISE LOG 'TRAP count'; RETURN $1 + 1; END $f$;
   CREATE AGGREGATE public.count(*) (SFUNC = public.counting, STYPE = bigint, INITCOND = '0');
   CREATE FUNCTION public.summing(numeric, bigint) RETURNS numeric LANGUAGE plpgsql AS $f$ BEGIN RAISE LOG 'TRAP sum'; RETURN 0; END $f$;
   CREATE AGGREGATE public.sum(bigint) (SFUNC = public.summing, STYPE = numeric, INITCOND = '0');`,
  ...operators.map(
    ([operator, left, right, real], at) =>
      `${trap(`op_${at}(${left}, ${right})`, real.endsWith('mul') || real.endsWith('mi') ? 'bigint' : 'boolean', `RETURN pg_catalog.${real}($1, $2);`)}
       CREATE OPERATOR public.${operator} (LEFTARG = ${left}, RIGHTARG = ${right}, FUNCTION = public.op_${at});`,
  ),
  // Casts belong to no schema: an empty search path does not keep them away.
  `CREATE TYPE public.part AS (a int, b text);
   CREATE TYPE public.mood AS ENUM ('glad');
   CREATE TABLE public.secrets (id int, note text, part public.part, mood public.mood);
   INSERT INTO public.secrets VALUES (1, 'one', (1, 'x'), 'glad'), (2, NULL, NULL, NULL);`,
  ...['secrets', 'part', 'mood'].map(
    (type) =>
      `${trap(`cast_${type}(public.${type})`, 'text', "RETURN 'x';")}
       CREATE CAST (public.${type} AS text) WITH FUNCTION public.cast_${type}(public.${type}) AS IMPLICIT;`,
  ),
  // Planning a query evaluates constant parts of indexes and statistics.
  `${trap('planned(int)', 'boolean', 'RETURN true;').replace('LANGUAGE plpgsql', 'LANGUAGE plpgsql IMMUTABLE')}
   CREATE INDEX ON public.secrets (id) WHERE public.planned(1);
   CREATE INDEX ON public.secrets ((public.planned(2)), id);
   CREATE STATISTICS public.planning ON (id % 3), (public.planned(3) AND id > 1) FROM public.secrets;`,
  'RESET ROLE;',
  // Tables of the backup role's own: with types of hers, and with her function where planning would evaluate it.
  `CREATE SCHEMA own; CREATE TABLE own.mine (part public.part, mood public.mood, note text);
   INSERT INTO own.mine VALUES ((1, 'x'), 'glad', 'n');
   CREATE TABLE own.partly (id int); CREATE INDEX ON own.partly (id) WHERE public.planned(4);
   CREATE TABLE own.computed (id int); CREATE INDEX ON own.computed ((public.planned(5)), id);
   CREATE TABLE own.described (id int); CREATE STATISTICS own.planning ON (public.planned(6) AND id > 1), (id % 3) FROM own.described;`,
  'ALTER DATABASE trapped SET search_path = public, pg_catalog;',
];

describe('0.14: a role that owns a table cannot run its code as the role that takes the backup', () => {
  let cluster: Cluster;
  let backup: Taken;

  before(async () => {
    cluster = await Cluster.start();
    await cluster.query('postgres', 'CREATE ROLE mallory');
    await cluster.createDatabase('trapped');
    await cluster.query('trapped', traps.join('\n'));
    backup = await takeBackup(cluster, 'trapped', { census: 'content' });
  });
  after(() => cluster.stop());

  /** What fired in a session of ours; pg_restore's may: it builds indexes anew in a database that is its own. */
  async function fired(): Promise<string[]> {
    const lines = (await cluster.log()).split('\n').filter((line) => line.includes('TRAP '));
    return lines.filter((line) => / pgassay (?!\w+ pg_restore)/.test(line));
  }

  test('nothing that overloads a function, an aggregate or an operator of pg_catalog is called, no cast, no plan', async () => {
    assert.deepEqual(await fired(), []);
    assert.equal(backup.manifest.totals.rows, 3);
  });

  test('nor when rows are only counted', async () => {
    await takeBackup(cluster, 'trapped');
    assert.deepEqual(await fired(), []);
  });

  test('nor when the scope has patterns for the server to match', async () => {
    await takeBackup(cluster, 'trapped', { census: 'content', tables: 'secret*\npublic.sec*' });
    await takeBackup(cluster, 'trapped', { schemas: 'pub*' });
    assert.deepEqual(await fired(), []);
  });

  test('nor when privileges are looked into first', async () => {
    await cluster.query('postgres', `CREATE ROLE reader LOGIN PASSWORD 'long enough' IN ROLE pg_read_all_data`);
    const url = cluster.url('trapped', 'reader', 'long enough');
    const { manifest } = await takeBackup(cluster, 'trapped', { 'database-url': url, census: 'content' });
    assert.equal(manifest.totals.rows, 3);
    assert.deepEqual(await fired(), []);
  });

  test('nor when the restored database is compared', async () => {
    const report = await restoreWithUs(cluster, backup, 'compared');
    assert.equal(report.rows, 3);
    assert.deepEqual(await fired(), []);
  });

  test('the traps themselves do work', async () => {
    await cluster.query(
      'trapped',
      `SELECT count(*), sum(hashtextextended(s::text, 0)) FROM secrets s;
       SELECT pg_backend_pid(), num_nulls(1), format('%s', 1), current_setting('server_version'), secrets.part::text, mood::text FROM secrets;
       SELECT note FROM secrets WHERE id = 1;
       SELECT count(*) FROM pg_class c WHERE c.oid = 1::oid AND c.relname = 'x'::name`,
    );
    const all = new Set((await cluster.log()).match(/(?<=LOG: {2})TRAP \w+/g));
    for (const name of [
      'count',
      'sum',
      'cast_secrets',
      'cast_part',
      'cast_mood',
      'pg_backend_pid',
      'hashtextextended',
      'op_0',
      'format',
      'planned',
    ])
      assert.ok(all.has(`TRAP ${name}`), `${name} did not fire: ${[...all].join(', ')}`);
  });
});
