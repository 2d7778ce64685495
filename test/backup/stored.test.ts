import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { loadSampleDatabase } from '../../scripts/sample-database.ts';
import { runAction } from '../support/action.ts';
import {
  cli,
  clientBin,
  countedRows,
  nameOf,
  recordedRows,
  restoreWithStockTools,
  restoreWithUs,
  type Taken,
  takeBackup,
  taken,
} from '../support/backup.ts';
import { repository, scratch } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';

describe('a backup taken with nothing but a URL, a folder and a name', () => {
  let cluster: Cluster;
  let backup: Taken;
  let store: string;

  before(async () => {
    cluster = await Cluster.start();
    await cluster.createDatabase('shop');
    await loadSampleDatabase(cluster.url('shop'));
    store = join(await scratch(), 'backups');
    const result = await runAction(repository, {
      inputs: { 'database-url': cluster.url('shop'), store: `file://${store}`, name: 'shop', ...clientBin(cluster) },
    });
    assert.equal(result.exitCode, 0, result.log);
    backup = await taken(result);
  });
  after(() => cluster.stop());

  test('is restored by plain pg_restore, every table as the census counted it', async () => {
    const database = await restoreWithStockTools(cluster, backup.dump);
    const recorded = recordedRows(backup.census);
    assert.ok(Object.keys(recorded).length > 20);
    assert.deepEqual(await countedRows(cluster, database, backup.census), recorded);
    assert.deepEqual(await countedRows(cluster, 'shop', backup.census), recorded);
    for (const table of backup.census.tables) assert.equal(table.archiveRows, table.rows, nameOf(table));
    const { stdout } = await cli(['show', backup.id, '--store', backup.store, '--json']);
    assert.deepEqual(JSON.parse(stdout), {
      manifest: backup.manifest,
      census: backup.census,
      proofs: [],
      openings: [],
    });
  });

  test('records sequences where the archive puts them, extensions, roles and large objects', async () => {
    const { census } = backup;
    const database = await restoreWithStockTools(cluster, backup.dump);
    assert.ok(census.sequences.length > 3);
    for (const sequence of census.sequences) {
      const [row] = await cluster.query(
        database,
        `SELECT last_value::text AS value, is_called AS called FROM "${sequence.schema}"."${sequence.name}"`,
      );
      assert.deepEqual(row, { value: sequence.value, called: sequence.called }, nameOf(sequence));
    }
    const live = await cluster.query<{ n: number }>('shop', 'SELECT count(*)::int AS n FROM pg_largeobject_metadata');
    assert.equal(census.largeObjects, live[0]?.n);
    assert.ok((census.largeObjects ?? 0) > 0);
    assert.deepEqual(
      census.extensions,
      await cluster.query(
        'shop',
        `SELECT extname AS name, extversion AS version, nspname AS schema FROM pg_extension
         JOIN pg_namespace n ON n.oid = extnamespace ORDER BY 1`,
      ),
    );
    assert.ok(census.roles.includes('postgres'));
    assert.ok(census.contents.some((entry) => entry.kind === 'TABLE DATA'));
  });

  test('sets every output of action.yml, each true', async () => {
    const { outputs, manifest, result } = backup;
    assert.deepEqual(Object.keys(outputs).sort(), [
      'backup-id',
      'database-bytes',
      'duration-seconds',
      'failed-stores',
      'location',
      'pruned',
      'restore-command',
      'rows',
      'server-version',
      'sha256',
      'size-bytes',
      'tables',
    ]);
    assert.deepEqual(result.droppedOutputs, []);
    const dump = await readFile(backup.dump);
    assert.equal(outputs.sha256, createHash('sha256').update(dump).digest('hex'));
    assert.equal(outputs['size-bytes'], String(dump.length));
    assert.match(outputs['backup-id'] ?? '', /^\d{8}T\d{6}Z-[0-9a-f]{6}$/);
    assert.equal(outputs.location, `file://${store}/shop/${backup.id}`);
    assert.equal(outputs.tables, String(backup.census.tables.length));
    const rows = Object.values(recordedRows(backup.census)).reduce((sum, count) => sum + count, 0);
    assert.equal(outputs.rows, String(rows));
    const [server] = await cluster.query<{ version: string }>('shop', 'SHOW server_version_num');
    assert.ok(server !== undefined);
    assert.match(outputs['server-version'] ?? '', new RegExp(`^${cluster.major}\\.\\d+$`));
    assert.ok(Number(outputs['database-bytes']) > dump.length);
    assert.ok(Number(outputs['duration-seconds']) > 0);
    assert.equal(outputs.pruned, '[]');
    assert.match(outputs['restore-command'] ?? '', /^pg_restore .*database\.dump/);
    assert.equal(manifest.totals.rows, rows);
  });

  test('has a restore-command that works as it is', async () => {
    const database = 'by_command';
    await cluster.createDatabase(database, 'TEMPLATE template0');
    const command = backup.outputs['restore-command'] ?? '';
    execFileSync('/bin/sh', ['-c', command], {
      env: { PATH: `${cluster.bin}:/usr/bin:/bin`, TARGET_URL: cluster.url(database) },
    });
    assert.deepEqual(await countedRows(cluster, database, backup.census), recordedRows(backup.census));
  });

  test('has a manifest that says everything the contract promises', async () => {
    const { manifest, id } = backup;
    assert.deepEqual(Object.keys(manifest).sort(), [
      ...['createdAt', 'database', 'expiresAt', 'files', 'finishedAt', 'format', 'id', 'label', 'name', 'previous'],
      ...['scope', 'selfContained', 'series', 'signing', 'source', 'store', 'timings', 'tools', 'totals', 'warnings'],
    ]);
    assert.equal(manifest.format, 'pgassay/1');
    assert.equal(manifest.id, id);
    assert.equal(manifest.label, 'scheduled');
    assert.equal(manifest.series, 'full');
    assert.equal(manifest.selfContained, true);
    assert.equal(manifest.previous, null);
    assert.equal(manifest.signing, null);
    assert.equal(manifest.expiresAt, null);
    assert.equal(manifest.store, `file://${store}`);
    assert.ok(Date.parse(manifest.createdAt) <= Date.parse(manifest.finishedAt));
    assert.match(manifest.database.id ?? '', /^[0-9a-f]{64}$/);
    assert.equal(manifest.database.name, 'shop');
    assert.equal(manifest.database.encoding, 'UTF8');
    assert.deepEqual(manifest.source, {
      repository: 'octo/backups',
      workflow: 'backup',
      runId: '4711',
      runAttempt: '1',
      runUrl: 'https://github.com/octo/backups/actions/runs/4711',
      sha: '0123456789abcdef0123456789abcdef01234567',
    });
    const files = Object.fromEntries(manifest.files.map((file) => [file.name, file]));
    assert.deepEqual(Object.keys(files), ['database.dump', 'roles.sql', 'census.json']);
    assert.deepEqual((await readdir(backup.folder)).sort(), [...Object.keys(files), 'manifest.json'].sort());
    for (const [name, file] of Object.entries(files)) {
      const bytes = await readFile(join(backup.folder, name));
      assert.equal(file.bytes, bytes.length);
      assert.equal(file.sha256, createHash('sha256').update(bytes).digest('hex'));
      assert.equal(file.plainSha256, file.sha256);
      assert.equal(file.encryption, null);
    }
    assert.ok(manifest.timings.total !== undefined && manifest.timings.total > 0);
    const text = await readFile(join(backup.folder, 'manifest.json'), 'utf8');
    assert.ok(!text.includes(cluster.host), 'no host name in a manifest');
  });

  test('leaves no process, no file and no session behind, and one folder with the backup', async () => {
    const { result } = backup;
    assert.deepEqual(result.orphans, []);
    assert.deepEqual(result.leftovers, []);
    assert.deepEqual(await readdir(join(store, 'shop')), [backup.id]);
    assert.deepEqual(
      await cluster.query('shop', `SELECT 1 FROM pg_stat_activity WHERE application_name ~ 'pgassay'`),
      [],
    );
  });

  test('masks the password and the URL, but no host, user, database or name', () => {
    const { masks, rawLog } = backup.result;
    assert.ok(masks.includes(cluster.password));
    assert.ok(masks.includes(encodeURIComponent(cluster.password)));
    assert.ok(masks.includes(cluster.url('shop')));
    for (const word of [
      cluster.host,
      String(cluster.port),
      'postgres',
      'shop',
      'assayed',
      'scheduled',
      backup.id,
      store,
    ])
      assert.ok(!masks.some((mask) => word.includes(mask)), `${word} would be hidden`);
    const said = rawLog.replace(/^::add-mask::.*$/gm, '');
    assert.ok(!said.includes(cluster.password));
    assert.ok(!said.includes(encodeURIComponent(cluster.password)));
  });

  test('writes a log and a summary that a person can use', () => {
    const { log, summary, annotations } = backup.result;
    assert.match(log, /shop: PostgreSQL \d+\.\d+, [\d.]+ MB, \d+ tables; pg_dump \d+\.\d+ from .*, (?:gzip:1|zstd:3)/);
    assert.match(log, /##\[group\]Dump\n[\s\S]*dump [\d.]+ MB · [\d.]+ MB\/s[\s\S]*##\[endgroup\]/);
    assert.match(log, /backup shop\/\d{8}T\d{6}Z-[0-9a-f]{6} is whole and stored: \d+ tables, [\d ]+ rows, /);
    assert.deepEqual(
      annotations.filter(({ level }) => level === 'error'),
      [],
    );
    assert.match(summary, /^### Backup of shop is whole and stored\n/);
    assert.ok(summary.includes(backup.outputs['restore-command'] ?? '-'));
    assert.ok(summary.includes(backup.outputs.sha256 ?? '-'));
    assert.ok(!`${summary}${log}`.includes('\u001b'));
  });

  test('is listed, verified, fetched byte for byte and restored by the command line', async () => {
    const flags = ['--store', backup.store, '--json'];
    const list = await cli(['list', ...flags]);
    assert.deepEqual(
      (list.json as { backups: { id: string }[] }).backups.map(({ id }) => id),
      [backup.id],
    );
    const bin = clientBin(cluster)['client-bin'];
    const verified = await cli(['verify', 'latest', ...flags, ...(bin === undefined ? [] : ['--client-bin', bin])]);
    assert.equal(verified.exitCode, 0, verified.stderr);
    const out = join(await scratch(), 'fetched.dump');
    const fetched = await cli(['fetch', backup.id.slice(0, 12), ...flags, '--out', out]);
    assert.equal(fetched.exitCode, 0, fetched.stderr);
    assert.deepEqual(await readFile(out), await readFile(backup.dump));
    const report = await restoreWithUs(cluster, backup, 'by_pgassay');
    assert.deepEqual(
      Object.fromEntries(report.compared.map((table) => [nameOf(table), table.restored])),
      Object.fromEntries(backup.census.tables.map((table) => [nameOf(table), table.rows])),
    );
  });

  test('is taken by the command line too, from flags and DATABASE_URL, and leaves nothing behind', async () => {
    const [folder, temporary] = [await scratch(), await scratch()];
    const bin = clientBin(cluster)['client-bin'];
    const { exitCode, json, stderr } = await cli(
      [
        ...['backup', '--store', `file://${folder}`, '--name', 'shop', '--label', 'by-hand', '--json'],
        ...['--exclude-table-data', 'audit.*', '--exclude-table-data', 'shop.orders'],
        ...(bin === undefined ? [] : ['--client-bin', bin]),
      ],
      { DATABASE_URL: cluster.url('shop'), RUNNER_TEMP: temporary },
    );
    assert.equal(exitCode, 0, stderr);
    const { backup: manifest, stored } = json as { backup: Taken['manifest']; stored: { location: string }[] };
    const location = stored[0]?.location ?? '';
    assert.equal(manifest.label, 'by-hand');
    assert.equal(manifest.source, null);
    assert.deepEqual(manifest.scope.excludeTableData, ['audit.*', 'shop.orders']);
    assert.deepEqual(await readdir(temporary), []);
    assert.deepEqual(
      JSON.parse(await readFile(join(location.slice('file://'.length), 'manifest.json'), 'utf8')),
      manifest,
    );
    assert.ok(!stderr.includes(cluster.password) && !stderr.includes(encodeURIComponent(cluster.password)));
  });

  test('is followed by one that names it as the previous, under a later id', async () => {
    const next = await takeBackup(cluster, 'shop', { store: backup.store, name: 'shop', label: 'pre-migration' });
    const bytes = await readFile(join(backup.folder, 'manifest.json'));
    assert.deepEqual(next.manifest.previous, {
      id: backup.id,
      manifestSha256: createHash('sha256').update(bytes).digest('hex'),
    });
    assert.ok(next.id > backup.id);
    assert.equal(next.manifest.label, 'pre-migration');
    assert.equal(next.manifest.database.id, backup.manifest.database.id);
  });
});
