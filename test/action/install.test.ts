import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { runAction } from '../support/action.ts';
import { type AptRepository, realPackages, realPostgres, startAptRepository } from '../support/apt-repository.ts';
import { Cluster } from '../support/postgres.ts';

const root = join(import.meta.dirname, '../..');

describe('a server whose version the machine has no programs of', () => {
  let cluster: Cluster;
  let repository: AptRepository;
  let store: string;

  before(async () => {
    const real = await realPostgres();
    cluster = await Cluster.start({ major: real.major });
    await cluster.createDatabase('shop');
    await cluster.query('shop', 'CREATE TABLE items AS SELECT generate_series(1, 1000) AS id');
    repository = await startAptRepository(realPackages(real));
    store = await mkdtemp(join(tmpdir(), 'pgassay-store-'));
  });
  after(async () => {
    await cluster?.stop();
    await repository?.close();
    await rm(store, { recursive: true, force: true });
  });

  const back = (extra: Record<string, string>, env: Record<string, string>) =>
    runAction(root, {
      inputs: { store: `file://${store}`, name: 'shop', 'database-url': cluster.url('shop'), retries: '0', ...extra },
      env,
    });

  test('is backed up with signed packages, unpacked into the tool cache', async () => {
    const result = await back({}, { PGASSAY_APT_REPOSITORY: repository.source, PGASSAY_APT_KEY: repository.keyFile });
    assert.equal(result.exitCode, 0, result.log);
    assert.equal(result.outputs.rows, '1000');
    assert.equal(result.outputs['server-version']?.split('.')[0], String(cluster.major));
    if (existsSync(`/usr/lib/postgresql/${cluster.major}/bin/pg_dump`)) return;
    assert.match(result.log, new RegExp(`installing PostgreSQL ${cluster.major} client`));
    assert.ok(
      repository.requests.some((path) => path.endsWith('.deb')),
      'no package was fetched',
    );
  });

  test('is refused before anything starts when nothing may be installed', async () => {
    if (existsSync(`/usr/lib/postgresql/${cluster.major}/bin/pg_dump`)) return;
    const before = repository.requests.length;
    const result = await back({ 'install-client': 'false', name: 'refused' }, {});
    assert.equal(result.exitCode, 13, result.log);
    assert.match(result.log, new RegExp(`client: .*${cluster.major}\\.`));
    assert.match(result.log, /hint: .*install-client/s);
    assert.equal(repository.requests.length, before);
    assert.equal(existsSync(join(store, 'refused')), false);
  });
});
