import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { cp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type ActionOptions, type ActionResult, runAction } from '../support/action.ts';
import { cli, clientBin, type Taken, takeBackup } from '../support/backup.ts';
import { errorOf, repository } from '../support/faults.ts';
import { GitHubServer } from '../support/github.ts';
import { Cluster } from '../support/postgres.ts';
import { dumpOf, forged } from '../support/restore-test.ts';

describe('the step pgassay/pgassay/restore-test', () => {
  let cluster: Cluster;
  let backup: Taken;
  before(async () => {
    cluster = await Cluster.start();
    await cluster.createDatabase('shop');
    await cluster.query(
      'shop',
      `CREATE TABLE customers AS SELECT g id, 'c' || g AS name FROM generate_series(1, 500) g;
       CREATE TABLE "<b>@octo</b> | ::error::x" AS SELECT 1 x; ALTER TABLE customers ADD PRIMARY KEY (id)`,
    );
    backup = await takeBackup(cluster, 'shop', { census: 'content' });
  });
  after(() => cluster.stop());

  const step = (inputs: ActionOptions['inputs'], options: Omit<ActionOptions, 'inputs'> = {}): Promise<ActionResult> =>
    runAction(join(repository, 'restore-test'), {
      ...options,
      inputs: { ...clientBin(cluster), 'install-client': false, ...inputs },
    });

  test('passes: outputs, a summary that begins with the verdict, a proof that list and show tell of', async () => {
    const result = await step({ store: backup.store });
    assert.equal(result.exitCode, 0, result.log);
    const { outputs } = result;
    assert.equal(outputs.result, 'passed');
    assert.equal(outputs['backup-id'], backup.id);
    assert.equal(outputs.findings, '[]');
    assert.equal(readFileSync(outputs['findings-file'] ?? '', 'utf8'), '[]\n');
    assert.ok(Number(outputs['restore-seconds']) >= 0 && Number(outputs['total-seconds']) > 0);
    assert.match(
      outputs.proof ?? '',
      new RegExp(`^${backup.store}/assayed/${backup.id}/proofs/\\d{8}T\\d{6}Z\\.json$`),
    );
    assert.deepEqual(result.droppedOutputs, []);
    assert.match(result.summary, /^### assayed: the backup of .* UTC \(just now\) restores\n\n2 tables, 501 rows · /);
    assert.match(result.summary, /the rows of every table and the digest of their values/);
    assert.deepEqual(result.orphans, []);
    assert.deepEqual(
      result.leftovers.filter((name) => !name.startsWith('pgassay-findings-')),
      [],
    );
    const listed = await cli(['list', '--store', backup.store, '--json']);
    const [entry] = (listed.json as { backups: { proof: { result: string; level: string; findings: number } }[] })
      .backups;
    assert.equal(entry?.proof.result, 'passed');
    assert.equal(entry?.proof.level, 'content');
    const shown = await cli(['show', 'latest', '--store', backup.store]);
    assert.match(shown.stdout, /^ {2}tested {4}passed just now, /m);
    const table = await cli(['list', '--store', backup.store]);
    assert.match(table.stdout, /passed just now, /);
    assert.doesNotMatch(result.summary, /Earlier restore tests/);
    assert.match(
      (await step({ store: backup.store })).summary,
      /Earlier restore tests[\s\S]+\| just now \| `\S+` \| passed \|/,
    );
    assert.match(backup.result.summary, /never proven by a restore test/);
    const next = await takeBackup(cluster, 'shop', { store: backup.store });
    assert.match(next.result.summary, /last proven restore: just now \(0\.\d s\)/);
    await rm(next.folder, { recursive: true });
  });

  test('fails: every finding in the outputs, the summary and the log, and no name breaks out of them', async () => {
    await cluster.createDatabase('less');
    await cluster.query(
      'less',
      `CREATE TABLE customers AS SELECT g id, 'c' || g AS name FROM generate_series(1, 499) g;
       CREATE TABLE "<b>@octo</b> | ::error::x" (x int); ALTER TABLE customers ADD PRIMARY KEY (id)`,
    );
    const wrong = await forged(backup, { dump: await dumpOf(cluster, 'less') });
    const result = await step({ store: wrong.store, backup: wrong.id });
    assert.equal(result.exitCode, 51, result.log);
    assert.equal(result.outputs.result, 'failed');
    const findings = JSON.parse(result.outputs.findings ?? '') as unknown[];
    assert.deepEqual(findings, [
      { object: 'public."<b>@octo</b> | ::error::x"', expected: '1 row', found: '0 rows' },
      { object: 'public.customers', expected: '500 rows', found: '499 rows' },
    ]);
    assert.deepEqual(JSON.parse(readFileSync(result.outputs['findings-file'] ?? '', 'utf8')), findings);
    assert.match(errorOf(result), /^verify: assayed\/\S+ did not pass its restore test: 2 findings/);
    assert.match(result.summary, /^### assayed: the backup of .* did not pass its restore test\n/);
    assert.ok(result.summary.includes('| `public.customers` | `500 rows` | `499 rows` |'), result.summary);
    assert.ok(result.summary.includes('| `public."<b>@octo</b> ¦ ::error::x"` | `1 row` | `0 rows` |'));
    assert.equal(result.annotations.filter(({ level }) => level === 'error').length, 1);
  });

  test('where the repository is public, the summary holds no name and no count', async () => {
    const shop = await forged(backup, { dump: await dumpOf(cluster, 'less') });
    const result = await step(
      { store: shop.store },
      { event: { repository: { private: false, visibility: 'public' } } },
    );
    assert.equal(result.exitCode, 51, result.log);
    assert.doesNotMatch(result.summary, /customers|499|2 findings|pgassay-test-/);
    assert.match(result.summary, /is withheld here/);
    assert.equal(JSON.parse(result.outputs.findings ?? '').length, 2);
  });

  test('no such backup: failed, with an error of its own, and no proof', async () => {
    const result = await step({ store: backup.store, backup: '19990101' });
    assert.equal(result.exitCode, 2, result.log);
    assert.equal(result.outputs.result, 'failed');
    const [finding] = JSON.parse(result.outputs.findings ?? '') as {
      object: string;
      expected: string;
      found: string;
    }[];
    assert.deepEqual(finding, { object: 'stage locate', expected: 'a verdict', found: 'there is no backup 19990101' });
  });

  test('random:1h finds the one there is, before: finds none that old', async () => {
    const result = await step({ store: backup.store, backup: 'random:1h' });
    assert.equal(result.exitCode, 0, result.log);
    assert.equal(result.outputs['backup-id'], backup.id);
    const none = await step({ store: backup.store, backup: 'before:2001-01-01T00:00:00Z' });
    assert.equal(none.exitCode, 2);
    assert.match(errorOf(none), /no backup is from 2001-01-01T00:00:00\.000Z or earlier/);
  });

  test('cancelled: the server and every folder are gone within seconds, and no proof is written', async () => {
    const before = readFileSync(join(backup.folder, 'manifest.json'), 'utf8');
    let cancelled = 0;
    const result = await step(
      { store: backup.store, checks: 'SELECT pg_sleep(60) IS NULL' },
      {
        onLine: (line, running) => {
          if (!line.includes('Restore') || cancelled > 0) return;
          cancelled = Date.now();
          setTimeout(() => running.cancel(), 1500);
        },
      },
    );
    assert.equal(result.exitCode, 130, result.log);
    assert.ok(Date.now() - cancelled < 9000);
    assert.match(errorOf(result), /^restore: cancelled/);
    assert.deepEqual(result.orphans, []);
    assert.deepEqual(
      result.leftovers.filter((name) => !name.startsWith('pgassay-findings-')),
      [],
    );
    assert.equal(readFileSync(join(backup.folder, 'manifest.json'), 'utf8'), before);
  });

  test('failed, failed again, passed for another, passed: one issue, opened, commented and closed', async () => {
    await using github = await GitHubServer.start();
    const wrong = await forged(backup, { dump: await dumpOf(cluster, 'less') });
    const run = (id: string, inputs: ActionOptions['inputs'] = {}): Promise<ActionResult> =>
      step(
        { store: wrong.store, ...inputs },
        { token: github.step.token, env: { ...github.step.env, GITHUB_RUN_ID: id } },
      );

    const first = await run('200');
    assert.equal(first.exitCode, 51, first.log);
    const [issue] = await github.issues();
    assert.equal(issue?.state, 'open');
    assert.equal(first.outputs['issue-number'], String(issue.number));
    assert.match(issue.title, /^assayed: restore test failed: 2 findings in backup of \d{4}-\d\d-\d\d \d\d:\d\d UTC$/);
    assert.match(issue.body, /\| `public\.customers` \| `500 rows` \| `499 rows` \|/);
    assert.match(issue.body, /is not proof of recovery/);
    assert.match(issue.body, /pgassay restore-test \S+ --store/);

    assert.equal((await run('201')).exitCode, 51);
    const comments = await github.comments(issue.number);
    assert.equal(comments.length, 1);
    assert.match(comments[0]?.body ?? '', /Nothing changed since the last failure/);

    // Another, good backup in the same store: a test of it by its id says nothing about the failed one.
    const good = join(wrong.folder, '..', '20200101T000000Z-aaaaaa');
    await cp(backup.folder, good, { recursive: true });
    const path = join(good, 'manifest.json');
    const manifest = JSON.parse(await readFile(path, 'utf8'));
    await writeFile(
      path,
      JSON.stringify({ ...manifest, id: '20200101T000000Z-aaaaaa', createdAt: '2020-01-01T00:00:00.000Z' }),
    );
    const other = await run('202', { backup: '20200101' });
    assert.equal(other.exitCode, 0, other.log);
    assert.equal((await github.issues())[0]?.state, 'open');

    // The very backup that failed is whole again.
    await cp(join(backup.folder, 'database.dump'), join(wrong.folder, 'database.dump'));
    await cp(join(backup.folder, 'manifest.json'), join(wrong.folder, 'manifest.json'));
    const passed = await run('203');
    assert.equal(passed.exitCode, 0, passed.log);
    const all = await github.issues();
    assert.equal(all.length, 1);
    assert.equal(all[0]?.state, 'closed');
    assert.match((await github.comments(issue.number)).at(-1)?.body ?? '', /passed[\s\S]+this issue is closed/);
  });
});
