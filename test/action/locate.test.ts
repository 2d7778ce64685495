import assert from 'node:assert/strict';
import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { serviceImage } from '../../src/postgres/extension-images.ts';
import { type ActionResult, runAction } from '../support/action.ts';
import { type Inputs, type Taken, takeBackup } from '../support/backup.ts';
import { errorOf, filesIn, repository, scratch } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { forged } from '../support/restore-test.ts';

const locate = (inputs: Inputs): Promise<ActionResult> => runAction(join(repository, 'locate'), { inputs });

describe('the step pgassay/pgassay/locate', () => {
  let cluster: Cluster;
  let backup: Taken;
  before(async () => {
    cluster = await Cluster.start();
    await cluster.createDatabase('shop');
    await cluster.query('shop', 'CREATE TABLE customers AS SELECT 1 id; CREATE EXTENSION IF NOT EXISTS pg_trgm');
    backup = await takeBackup(cluster, 'shop');
  });
  after(() => cluster.stop());

  test('finds the backup, names the image of its major, and writes nothing', async () => {
    const files = await filesIn(backup.folder);
    const result = await locate({ store: backup.store });
    assert.equal(result.exitCode, 0, result.log);
    assert.deepEqual(result.outputs, {
      backup: 'latest',
      'backup-id': backup.id,
      name: 'assayed',
      'postgres-major': String(cluster.major),
      'postgres-image': `postgres:${cluster.major}`,
    });
    assert.deepEqual(await filesIn(backup.folder), files);
    assert.deepEqual([result.leftovers, result.orphans, result.droppedOutputs], [[], [], []]);
  });

  test('draws a random backup once: what it hands on is the id', async () => {
    const result = await locate({ store: backup.store, backup: 'random:1d' });
    assert.equal(result.outputs.backup, backup.id, result.log);
  });

  test('an extension that has an image of its own gets that image', async () => {
    const with_ = (...names: string[]) =>
      forged(backup, {
        census: (census) => ({
          ...census,
          extensions: names.map((name) => ({ name, version: '1.0', schema: 'public' })),
        }),
      });
    const vector = await locate({ store: (await with_('pg_trgm', 'vector')).store });
    assert.equal(vector.outputs['postgres-image'], `pgvector/pgvector:pg${cluster.major}`, vector.log);
    assert.deepEqual(vector.annotations, []);
    const both = await locate({ store: (await with_('vector', 'postgis', 'postgis_raster')).store });
    assert.equal(both.outputs['postgres-image'], `postgis/postgis:${cluster.major}-3.5`);
    assert.match(
      both.annotations[0]?.message ?? '',
      /have vector with the rest: postgis\/\S+ has not; look at pgvector/,
    );
  });

  test('no backup, a damaged newest one, or a wrong input: it fails, and says why', async () => {
    const none = await locate({ store: `file://${await scratch()}`, name: 'shop' });
    assert.equal(none.exitCode, 2, none.log);
    const wrong = await locate({ store: backup.store, backup: 'random:never' });
    assert.equal(wrong.exitCode, 2);
    assert.match(errorOf(wrong), /backup/);
    const root = await scratch();
    await cp(backup.folder, join(root, 'assayed', backup.id), { recursive: true });
    const census = join(root, 'assayed', backup.id, 'census.json');
    await writeFile(census, (await readFile(census, 'utf8')).replace('"rows"', '"rowz"'));
    const damaged = await locate({ store: `file://${root}` });
    assert.equal(damaged.exitCode, 40, damaged.log);
  });
});

test('one image for several extensions: the one that has most of them, and what it lacks is told', () => {
  assert.deepEqual(serviceImage([], 17), { image: 'postgres:17', without: [] });
  assert.deepEqual(serviceImage(['plpgsql', 'pg_trgm'], 14), { image: 'postgres:14', without: [] });
  assert.deepEqual(serviceImage(['timescaledb'], 16), { image: 'timescale/timescaledb:latest-pg16', without: [] });
  assert.deepEqual(serviceImage(['postgis', 'postgis_topology', 'vector'], 18), {
    image: 'postgis/postgis:18-3.5',
    without: ['vector'],
  });
  // Only the project is known here, and no tag: the official image, and a word about it.
  assert.deepEqual(serviceImage(['citus'], 17), { image: 'postgres:17', without: ['citus'] });
});
