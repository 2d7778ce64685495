import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { nameOf, takeBackup, tryBackup } from '../support/backup.ts';
import { errorOf, scratch, wrapped } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';

const options = '"$REAL" "$@"';
/** `$@` without the snapshot, so that pg_dump sees what was committed meanwhile. */
const withoutSnapshot = `for word do shift; case "$word" in --snapshot=*) ;; *) set -- "$@" "$word";; esac; done; exec ${options}`;

/** A pg_dump that exits 0 with a readable archive that is not the snapshot, and what has to be said about it. */
const liars: readonly (readonly [what: string, script: string, sql: string, said: RegExp])[] = [
  [
    'more rows than the snapshot',
    withoutSnapshot,
    'INSERT INTO items VALUES (0)',
    /public\.items: expected 100 rows, found 101 rows/,
  ],
  [
    'fewer rows than the snapshot',
    withoutSnapshot,
    'DELETE FROM items WHERE id = 1',
    /public\.items: expected 100 rows, found 99 rows/,
  ],
  ['no rows at all', withoutSnapshot, 'DELETE FROM items', /public\.items: expected 100 rows, found 0 rows/],
  [
    'a table without its rows',
    `${options} --exclude-table-data=items`,
    '',
    /public\.items: expected 100 rows, found no rows section in the archive/,
  ],
  [
    'a table less',
    `${options} --exclude-table=items`,
    '',
    /public\.items: expected its definition, found no definition in the archive\n {2}public\.items: expected 100 rows, found no rows section/,
  ],
  [
    'a table more',
    withoutSnapshot,
    'CREATE TABLE extra AS SELECT 1 AS id',
    /public\.extra: expected nothing, it is not in the census, found 1 row/,
  ],
  ['no large objects', `${options} --no-blobs`, '', /large objects: expected 2, found 0 in the archive/],
  ['rows only', `${options} --data-only`, '', /public\.items: expected its definition/],
  ['definitions only', `${options} --schema-only`, '', /public\.items: expected 100 rows, found no rows section/],
];

describe('an archive that is whole and readable but not the snapshot', () => {
  let cluster: Cluster;

  before(async () => {
    cluster = await Cluster.start();
  });
  after(() => cluster.stop());

  for (const [at, [what, script, sql, said]] of liars.entries()) {
    test(`is refused: ${what}`, async () => {
      const database = `liar_${at}`;
      await cluster.createDatabase(database);
      await cluster.query(
        database,
        `CREATE TABLE items (id int); INSERT INTO items SELECT generate_series(1, 100); CREATE TABLE others (id int);
         SELECT lo_create(1001), lo_create(1002)`,
      );
      const meanwhile = `PGOPTIONS= '${cluster.bin}/psql' -X -q -c '${sql}'`;
      const bin = await wrapped(cluster, { pg_dump: `${meanwhile}\n${script}` });
      const store = await scratch();
      const result = await tryBackup(cluster, database, { 'client-bin': bin, store: `file://${store}`, retries: 0 });
      assert.equal(result.exitCode, 40, result.log);
      assert.match(errorOf(result), /^validate: the archive is not what the snapshot held: \d+ differences?\n/);
      assert.match(errorOf(result), said);
      assert.deepEqual(result.outputs, {});
      assert.deepEqual(await readdir(store), [], 'nothing is left in the store');
      assert.equal(result.summary, '');
    });
  }

  test('and the same database is backed up when pg_dump tells the truth', async () => {
    const { census } = await takeBackup(cluster, 'liar_3');
    assert.deepEqual(census.tables.map(nameOf), ['public.items', 'public.others']);
  });
});
