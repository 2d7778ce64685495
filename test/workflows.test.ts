// The workflows that others call, and the examples people copy: GitHub's own parser takes them, every name in them leads
// somewhere, and they do what they say, through the launchers in dist and against real servers.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { parse } from 'yaml';
import { actionFolders, inputsOf } from '../scripts/action-inputs.ts';
import { loadSampleDatabase } from '../scripts/sample-database.ts';
import { alias, aliasOf, filledWorkflow, generatedFiles, isSecret } from '../scripts/workflows.ts';
import { generateKeyPair } from '../src/age.ts';
import { storeSecrets } from '../src/store-inputs.ts';
import { clientBin } from './support/backup.ts';
import { repository, scratch } from './support/faults.ts';
import { GitHubServer } from './support/github.ts';
import { Cluster } from './support/postgres.ts';
import { S3Server } from './support/s3.ts';
import { keyPair } from './support/signing.ts';
import { Sts } from './support/sts.ts';
import {
  oursIn,
  type Place,
  runWorkflow,
  type Workflow,
  type WorkflowJob,
  type WorkflowRun,
  workflowAt,
} from './support/workflow.ts';
import { filledIn, problemsOf } from './support/workflow-parser.ts';

const read = (path: string): string => readFileSync(join(repository, path), 'utf8');
const yamlIn = (folder: string): string[] =>
  readdirSync(join(repository, folder))
    .filter((name) => /\.ya?ml$/.test(name))
    .map((name) => join(folder, name));
const examples = yamlIn('examples');
const files = [...yamlIn('.github/workflows'), ...examples];
const reusable = files.filter((path) => workflowAt(path).on.workflow_call !== undefined);

/** The action a reusable workflow is for: they have one name, and a backup's is the root. */
const folderOf = (path: string): string => path.replace(/^.*\/(.+)\.yml$/, '$1');

interface Action {
  readonly inputs: Readonly<Record<string, { readonly required?: boolean; readonly description: string }>>;
  readonly outputs: Readonly<Record<string, unknown>>;
}
const actionIn = (folder: string): Action => parse(read(join(folder, 'action.yml'))) as Action;

describe('every workflow and every example', () => {
  test('is taken by GitHub’s own parser', async () => {
    assert.ok(examples.length >= 4 && reusable.length >= 2);
    for (const path of files) assert.deepEqual(await problemsOf(path, read(path)), [], path);
    const nightly = read('examples/nightly-backup.yml');
    for (const [wrong, message] of [
      [nightly.replace('    uses:', '    use:'), /Unexpected value 'use'|Required property/],
      [nightly.replace('secrets.DATABASE_URL', 'secretz.DATABASE_URL'), /Unrecognized named-value: 'secretz'/],
      [nightly.replace("cron: '23", "cron: '61"), /cron/i],
    ] as const)
      assert.match((await problemsOf('nightly-backup.yml', wrong)).join('\n'), message);
  });

  test('names only actions, workflows, inputs, secrets and outputs that exist, and gives the required ones', () => {
    for (const path of files) assert.deepEqual(unresolved(parse(read(path)) as Workflow), [], path);
  });

  test('would be found out if it named anything else', () => {
    const wrong = (path: string, from: string | RegExp, to: string): string => {
      const text = read(path);
      const changed = text.replace(from, to);
      assert.notEqual(changed, text, `${path}: ${from}`);
      return unresolved(parse(changed) as Workflow).join('\n');
    };
    assert.match(wrong('examples/nightly-backup.yml', 'backup.yml@', 'backups.yml@'), /backups\.yml does not exist/);
    assert.match(
      wrong('examples/nightly-backup.yml', 'name: shop', 'nam: shop'),
      /input nam .*[\s\S]*input name is missing/,
    );
    assert.match(
      wrong('examples/nightly-backup.yml', 'database-url:', 'database_url:'),
      /secret database_url[\s\S]*secret database-url is missing/,
    );
    assert.match(
      wrong('examples/pre-migration-gate.yml', 'outputs.rows', 'outputs.row'),
      /needs\.backup\.outputs\.row /,
    );
    assert.match(
      wrong('examples/pre-migration-gate.yml', 'needs: backup', 'needs: []'),
      /needs\.backup\.outputs\.backup-id /,
    );
    assert.match(
      wrong('examples/fleet.yml', 'matrix.database }}\n          database', 'matrix.db }}\n          database'),
      /matrix\.db /,
    );
    assert.match(
      wrong('examples/fleet.yml', 'database-url:', 'database_url:'),
      /input database_url[\s\S]*input database-url is missing/,
    );
    assert.match(
      wrong('.github/workflows/restore-test.yml', 'inputs.checks-file !=', 'inputs.check-file !='),
      /inputs\.check-file /,
    );
    assert.match(
      wrong('.github/workflows/restore-test.yml', 'jobs.test.outputs.proof', 'jobs.test.outputs.prove'),
      /jobs\.test\.outputs\.prove /,
    );
    assert.match(
      wrong('.github/workflows/restore-test.yml', 'steps.test.outputs.proof', 'steps.test.outputs.prove'),
      /steps\.test\.outputs\.prove /,
    );
    assert.match(
      wrong('.github/workflows/backup.yml', 'secrets.database-url', 'secrets.database_url'),
      /secrets\.database_url /,
    );
    assert.match(
      wrong('.github/workflows/nightly.yml', 'services.scratch.ports', 'services.scratches.ports'),
      /job\.services\.scratches /,
    );
  });

  test('puts no expression into a script, where it would be code, and inherits no secrets', () => {
    for (const path of files) {
      const { jobs } = workflowAt(path);
      for (const [id, job] of Object.entries(jobs)) {
        assert.notEqual(job.secrets, 'inherit', `${path}: ${id}`);
        for (const { run = '' } of job.steps ?? []) assert.doesNotMatch(run, /\$\{\{/, `${path}: ${id}`);
      }
      assert.doesNotMatch(read(path), /\$\{\{[^}]*(secrets\[|toJSON\(secrets)/, path);
    }
  });
});

describe('each example', () => {
  test('grants nothing at the top, names every grant’s reason, and waits for its turn', () => {
    for (const path of examples) {
      const { permissions, concurrency, jobs, on } = workflowAt(path);
      assert.deepEqual(permissions, {}, path);
      assert.equal(concurrency?.['cancel-in-progress'], false, path);
      for (const { cron, timezone } of on.schedule ?? []) {
        assert.doesNotMatch(cron, /^(0|15|30|45|\*)/, `${path} starts when everybody does`);
        assert.ok(timezone !== undefined, path);
      }
      for (const [id, job] of Object.entries(jobs)) {
        assert.ok(job.permissions !== undefined, `${path}: ${id}`);
        const used = [job, ...(job.steps ?? [])].find(({ uses }) => uses?.startsWith('pgassay/'));
        const given = used?.with;
        if (given === undefined) continue;
        // Somebody watches a recovery: it tells nobody else.
        if (!used?.uses?.startsWith('pgassay/pgassay/restore@'))
          assert.equal(job.permissions.issues, 'write', `${path}: ${id} can open no issue`);
        assert.equal(job.permissions['id-token'], given['aws-role-arn'] && 'write', `${path}: ${id}`);
      }
      for (const [line] of read(path).matchAll(/^ +[\w-]+: (?:write|read)\b.*$/gm)) assert.match(line, / # .+/, path);
      assert.match(read(path), /CHANGE/);
    }
  });

  test('pins whatever is not ours to a commit, as our own workflows do', () => {
    for (const path of examples)
      for (const [, uses = ''] of read(path).matchAll(/^\s*(?:- )?uses: (.+)$/gm))
        assert.match(uses, /^pgassay\/pgassay(\/\S+)?@v1 # CHANGE|^[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/, path);
  });

  test('is in the table of docs/workflows.md', () => {
    for (const path of examples) assert.ok(read('docs/workflows.md').includes(`(../${path})`), path);
  });
});

describe('the reusable workflows', () => {
  for (const path of reusable)
    describe(path, () => {
      const workflow = workflowAt(path);
      const call = workflow.on.workflow_call;
      assert.ok(call !== undefined);
      const folder = folderOf(path);
      const inputs = inputsOf(read(join(folder, 'action.yml')));

      test('takes every input of its action, as an input or as a named secret, and hands each of them over', () => {
        const { inputs: own, secrets } = call;
        const extra = ['runs-on', 'environment', 'timeout-minutes', 'postgres-image'].filter((name) => name in own);
        assert.deepEqual(
          [...Object.keys(own), ...Object.keys(secrets)].sort(),
          [...inputs.map(({ name }) => name), ...extra].sort(),
        );
        assert.ok(extra.length >= 3);
        const steps = Object.values(workflow.jobs).flatMap((job) => job.steps ?? []);
        const step = steps.find(({ uses }) => uses === `$/${folder}`);
        assert.deepEqual(Object.keys(step?.with ?? {}).sort(), inputs.map(({ name }) => name).sort());
        for (const { name, fallback, required } of inputs) {
          const from = name in secrets ? 'secrets' : 'inputs';
          assert.match(step?.with?.[name] ?? '', new RegExp(`\\b${from}\\.${name}\\b`), name);
          if (from === 'inputs') assert.equal(own[name]?.default, fallback, name);
          assert.equal((own[name] ?? secrets[name])?.required ?? false, required, name);
        }
      });

      test('keeps what is masked under secrets, and maps every output another job can use', () => {
        for (const input of inputs) assert.equal(input.name in call.secrets, isSecret(input), input.name);
        for (const name of [...storeSecrets, 'github-token']) assert.ok(name in call.secrets, name);
        assert.equal('tls-client-key' in call.secrets, 'tls-client-key' in actionIn(folder).inputs);
        // The public half of a pair is no secret.
        for (const name of Object.keys(call.inputs).filter((each) => !each.endsWith('verify-key')))
          assert.doesNotMatch(name, /(^|-)(url|token|passphrase|identity)$|[^k]key$/);
        const mapped = Object.keys(actionIn(folder).outputs).filter((name) => name !== 'findings-file');
        assert.deepEqual(Object.keys(call.outputs), mapped);
      });

      test('runs on a label, or on a JSON array of them', () => {
        for (const job of Object.values(workflow.jobs)) {
          const on = (value: string): unknown => filledIn(job['runs-on'] ?? '', { inputs: { 'runs-on': value } });
          assert.equal(on('ubuntu-24.04-arm'), 'ubuntu-24.04-arm');
          assert.deepEqual(on('["self-hosted", "linux"]'), ['self-hosted', 'linux']);
        }
      });

      test('asks for no permission of its own: a called job may not have more than its caller grants', () => {
        assert.doesNotMatch(read(path), /^\s*permissions:/m);
        assert.deepEqual(Object.keys(workflow.on), ['workflow_call']);
      });
    });

  test('and the folder that stands for the root are written from the action.yml files, and a change there shows', () => {
    for (const { path, before, after } of generatedFiles()) assert.equal(before, after, `${path}: npm run docs`);
    const backup = read('.github/workflows/backup.yml');
    const root = read('action.yml');
    assert.equal(
      filledWorkflow(backup, () => root),
      backup,
    );
    for (const changed of [
      root.replace('  mode:\n', '  moda:\n'),
      root.replaceAll('60s', '61s'),
      root.replace('  backup-id:\n', '  backup-name:\n'),
      root.replace('Empty means every schema.', 'Empty means all of them.'),
    ]) {
      assert.notEqual(changed, root);
      assert.notEqual(
        filledWorkflow(backup, () => changed),
        backup,
      );
      assert.notEqual(aliasOf(changed), read(join(alias, 'action.yml')));
    }
    assert.throws(() => filledWorkflow(backup.replace('# generated to here', '#'), () => root), /generated parts/);
  });
});

describe('the examples, run', { timeout: 300_000 }, () => {
  let source: Cluster;
  let container: Cluster;
  let store: S3Server;
  let sts: Sts;
  let place: Place;
  let recoveryIdentity: string;
  before(async () => {
    [source, container, store] = await Promise.all([
      Cluster.start(),
      Cluster.start({ hba: 'local all all trust\nhost all all 127.0.0.1/32 trust\n' }),
      S3Server.start(),
    ]);
    sts = await Sts.start(store);
    const role = sts.role();
    const [drill, recovery] = await Promise.all([generateKeyPair('x25519'), generateKeyPair('x25519')]);
    recoveryIdentity = recovery.identity;
    await store.createBucket('acme-backups');
    for (const name of ['shop', 'billing', 'crm']) {
      await source.createDatabase(name);
      await source.query(
        name,
        `CREATE TABLE customers (id int PRIMARY KEY, name text);
         INSERT INTO customers SELECT g, '${name} ' || g FROM generate_series(1, 1500) g;
         CREATE TABLE orders (id int PRIMARY KEY, customer_id int REFERENCES customers, created_at timestamptz DEFAULT now());
         INSERT INTO orders SELECT g, 1 + g % 1500 FROM generate_series(1, 300) g`,
      );
    }
    place = {
      secrets: {
        ...{ DATABASE_URL: source.url('shop'), MIGRATION_DATABASE_URL: source.url('shop') },
        DRILL_IDENTITY: drill.identity,
      },
      environments: Object.fromEntries(
        ['shop', 'billing', 'crm'].map((name) => [`backup-${name}`, { DATABASE_URL: source.url(name) }]),
      ),
      services: { postgres: container.port },
      // AWS is at these addresses.
      env: { AWS_ENDPOINT_URL_S3: store.endpoint, AWS_EC2_METADATA_DISABLED: 'true' },
      identity: role.env,
      instead: {
        ...{ 's3-path-style': 'true', 'aws-role-arn': role.arn },
        ...{ 'alert-issue': 'false', 'install-client': 'false', ...clientBin(source) },
        'encrypt-to': `${drill.recipient}\n${recovery.recipient}`,
      },
    };
  });
  after(() => Promise.all([source?.stop(), container?.stop(), store?.stop(), sts?.stop()]));

  const transactions = async (): Promise<number> => {
    const [row] = await container.query<{ id: string }>('postgres', 'SELECT pg_current_xact_id()::text AS id');
    return Number(row?.id);
  };

  test('nightly backup, then the weekly restore test of it in the service container that fits', async () => {
    const backup = await runWorkflow('examples/nightly-backup.yml', place);
    assert.equal(backup.jobs.backup?.result, 'success', logOf(backup));
    const outputs = backup.jobs.backup?.outputs ?? {};
    assert.match(outputs.location ?? '', /^s3:\/\/acme-backups\/prod\/shop\/\d{8}T/);
    assert.equal(outputs.rows, '1800');
    assert.match(outputs['restore-command'] ?? '', / \| age -d -i key\.txt \| pg_restore /);

    const used = await transactions();
    const tested = await runWorkflow('examples/weekly-restore-test.yml', place);
    assert.deepEqual(
      resultsOf(tested),
      {
        'restore-test': 'success',
        'restore-test / locate': 'success',
        'restore-test / test': 'success',
      },
      logOf(tested),
    );
    assert.equal(tested.jobs['restore-test / test']?.images.postgres, `postgres:${source.major}`);
    const { result, 'backup-id': id, proof, findings } = tested.jobs['restore-test']?.outputs ?? {};
    assert.deepEqual({ result, id, findings }, { result: 'passed', id: outputs['backup-id'], findings: '[]' });
    assert.match(proof ?? '', /\/proofs\//);
    const [locate, test] = tested.steps;
    assert.equal(locate?.action, 'locate');
    assert.equal(test?.action, 'restore-test');
    // In the container, which is as empty as before.
    assert.ok((await transactions()) > used + 10);
    assert.deepEqual(await container.query('postgres', 'SELECT datname FROM pg_database WHERE oid > 16383'), []);
  });

  test('health, of the backup that the nightly workflow took and the weekly one tested', async () => {
    await using github = await GitHubServer.start();
    github.fault = ({ path }) => {
      if (path.includes('/runs?'))
        return { status: 200, answer: { workflow_runs: [{ id: 1, created_at: new Date().toISOString() }] } };
      if (path.includes('/contents/')) return { status: 200, answer: [{ name: 'nightly-backup.yml' }] };
      return path.endsWith('/actions/workflows/nightly-backup.yml')
        ? { status: 200, answer: { state: 'active' } }
        : undefined;
    };
    const judged = await runWorkflow('examples/backup-health.yml', {
      ...place,
      token: github.step.token,
      env: { ...place.env, ...github.step.env },
    });
    assert.deepEqual(resultsOf(judged), { health: 'success', 'health / health': 'success' }, logOf(judged));
    const { status, report = '' } = judged.jobs.health?.outputs ?? {};
    assert.equal(status, 'ok', report);
    assert.deepEqual(
      (JSON.parse(report) as { names: { name: string; proof: object | null }[] }).names.map(({ name, proof }) => [
        name,
        proof !== null,
      ]),
      [['shop', true]],
    );
    assert.deepEqual(
      github.requests.map(({ path }) => path.split('?')[0]),
      [
        '/repos/octo/backups/actions/workflows/nightly-backup.yml',
        '/repos/octo/backups',
        '/repos/octo/backups/contents/.github/workflows',
        '/repos/octo/backups/actions/workflows/nightly-backup.yml/runs',
      ],
    );
  });

  test('a restore test that finds nothing to test fails, in the job that opens the issue', async () => {
    await using github = await GitHubServer.start();
    const { 'alert-issue': _, ...instead } = place.instead ?? {};
    const tested = await runWorkflow('examples/weekly-restore-test.yml', {
      ...place,
      instead: { ...instead, store: 's3://acme-backups/nothing-here' },
      token: github.step.token,
      env: { ...place.env, ...github.step.env },
    });
    assert.deepEqual(resultsOf(tested), {
      'restore-test': 'failure',
      'restore-test / locate': 'failure',
      'restore-test / test': 'failure',
    });
    assert.equal(tested.jobs['restore-test']?.outputs.result, 'failed');
    assert.match(tested.jobs['restore-test / test']?.images.postgres ?? '', /^postgres:18\.\d+@sha256:[0-9a-f]{64}$/);
    const issues = await github.issues();
    assert.equal(issues.length, 1, logOf(tested));
    assert.match(issues[0]?.title ?? '', /restore test failed/);
  });

  test('with an image that is named, nothing is located, and what is random is drawn by the test', async () => {
    const called = {
      inputs: { store: 's3://acme-backups/prod', backup: 'random:7d', 'postgres-image': 'ghcr.io/acme/postgres:17' },
      secrets: { 'decrypt-identity': place.secrets?.DRILL_IDENTITY ?? '' },
      permissions: { 'id-token': 'write' },
    };
    const tested = await runWorkflow('.github/workflows/restore-test.yml', place, called);
    assert.deepEqual(resultsOf(tested), { locate: 'skipped', test: 'success' }, logOf(tested));
    assert.equal(tested.jobs.test?.images.postgres, 'ghcr.io/acme/postgres:17');
    assert.equal(tested.outputs.result, 'passed');
  });

  test('a server of somebody’s own, as the secret scratch-url, is used in place of the container', async () => {
    const tested = await runWorkflow(
      '.github/workflows/restore-test.yml',
      { ...place, services: { postgres: 1 }, instead: { ...place.instead, 'aws-role-arn': '' } },
      {
        inputs: { store: 's3://acme-backups/prod', 'aws-role-arn': '' },
        // Keys, for a job that was granted no identity.
        secrets: {
          ...{ 's3-access-key-id': store.accessKeyId, 's3-secret-access-key': store.secretAccessKey },
          'scratch-url': container.url('postgres'),
          'decrypt-identity': place.secrets?.DRILL_IDENTITY ?? '',
        },
      },
    );
    assert.equal(tested.outputs.result, 'passed', logOf(tested));
    await assert.rejects(
      runWorkflow('.github/workflows/restore-test.yml', place, { inputs: { 'scratch-url': 'x' }, secrets: {} }),
      /input scratch-url is not declared/,
    );
  });

  test('no migration without a backup: it starts after one, with the way back, and not when there is none', async () => {
    const passed = await runWorkflow('examples/pre-migration-gate.yml', { ...place, event: 'push' });
    assert.deepEqual(
      resultsOf(passed),
      { backup: 'success', 'backup / backup': 'success', migrate: 'success' },
      logOf(passed),
    );
    const migrated = passed.steps.filter(({ job }) => job === 'migrate').map(({ step }) => step.name);
    assert.deepEqual(migrated.slice(1), ['The way back', 'Migrate']);
    assert.match(passed.jobs.backup?.outputs['restore-command'] ?? '', /pg_restore/);

    const refused = await runWorkflow('examples/pre-migration-gate.yml', {
      ...place,
      event: 'push',
      secrets: { ...place.secrets, DATABASE_URL: source.url('shop', 'postgres', 'not-the-password') },
    });
    assert.deepEqual(resultsOf(refused), { backup: 'failure', 'backup / backup': 'failure', migrate: 'skipped' });
    assert.ok(!refused.steps.some(({ job }) => job === 'migrate'));
  });

  test('an example whose keys were left as they are fails before anything is dumped, and says which line', async () => {
    const { 'encrypt-to': _, ...instead } = place.instead ?? {};
    const untouched = await runWorkflow('examples/nightly-backup.yml', { ...place, instead });
    assert.deepEqual(resultsOf(untouched), { backup: 'failure', 'backup / backup': 'failure' });
    assert.match(logOf(untouched), /encrypt-to: recipient 1 is no recipient of age/);
  });

  test('one-click recovery: a new database needs nothing typed, one that holds something needs its name', async () => {
    const recovery = (database: string, typed: Record<string, unknown>): ReturnType<typeof runWorkflow> =>
      runWorkflow('examples/one-click-recovery.yml', {
        ...place,
        event: 'workflow_dispatch',
        typed,
        environments: {
          recovery: { RECOVERY_DATABASE_URL: source.url(database), RECOVERY_IDENTITY: recoveryIdentity },
        },
      });
    await runWorkflow('examples/nightly-backup.yml', place);
    const fresh = await recovery('shop_again', {});
    assert.deepEqual(resultsOf(fresh), { restore: 'success' }, logOf(fresh));
    assert.equal((await source.query('shop_again', 'SELECT FROM customers')).length, 1500);

    await source.query('shop_again', 'DROP TABLE orders; DELETE FROM customers WHERE id = 1');
    const untyped = await recovery('shop_again', { tables: 'public.orders' });
    assert.deepEqual(resultsOf(untyped), { restore: 'failure' });
    assert.match(logOf(untyped), /confirm/);
    await source.query('shop_again', `INSERT INTO customers VALUES (1, 'shop 1')`);
    const typed = await recovery('shop_again', { tables: 'public.orders', confirm: 'shop_again' });
    assert.deepEqual(resultsOf(typed), { restore: 'success' }, logOf(typed));
    assert.equal((await source.query('shop_again', 'SELECT FROM orders')).length, 300);
  });

  test('a fleet: each database from the secret of its own environment, under its own name', async () => {
    const fleet = await runWorkflow('examples/fleet.yml', { ...place, secrets: {} });
    const names = Object.keys(fleet.jobs);
    assert.deepEqual(names, ['backup (shop)', 'backup (billing)', 'backup (crm)'], logOf(fleet));
    for (const { job, result } of fleet.steps) {
      const [, name = ''] = /\((.+)\)/.exec(job) ?? [];
      assert.equal(result?.exitCode, 0, result?.log);
      assert.match(result?.outputs.location ?? '', new RegExp(`^s3://acme-backups/fleet/${name}/`));
      assert.equal(fleet.jobs[job]?.environment, `backup-${name}`);
    }
  });

  test('a backup that is signed, and its digest and name handed to actions/attest', async () => {
    const pair = await keyPair();
    const run = await runWorkflow('examples/attested-backup.yml', {
      ...place,
      vars: { BACKUP_VERIFY_KEY: pair.publicKey },
      environments: { backup: { BACKUP_SIGNING_KEY: pair.privateKey } },
    });
    assert.deepEqual(resultsOf(run), { backup: 'success' }, logOf(run));
    const [backup, attest] = run.steps;
    const outputs = backup?.result?.outputs ?? {};
    const folder = outputs.location?.replace('s3://acme-backups/', '');
    const dump = await store.get('acme-backups', `${folder}/database.dump.age`);
    assert.deepEqual(attest?.given, {
      'subject-name': `shop/${outputs['backup-id']}/database.dump.age`,
      'subject-digest': `sha256:${createHash('sha256').update(dump).digest('hex')}`,
    });
    assert.equal((await store.get('acme-backups', `${folder}/manifest.sig`)).length, 89);
  });

  test('retention, which deletes what no rule keeps and leaves the newest', async () => {
    const called = {
      inputs: { store: 's3://acme-backups/prod', name: 'shop' },
      secrets: { 'database-url': source.url('shop') },
      permissions: { 'id-token': 'write' },
    };
    const taken: string[] = [];
    for (const _ of ['older', 'newer']) {
      const { outputs } = await runWorkflow('.github/workflows/backup.yml', place, called);
      taken.push(outputs['backup-id'] ?? '');
    }
    const [older = '', newer = ''] = taken;
    const run = await runWorkflow('examples/prune.yml', place);
    assert.deepEqual(resultsOf(run), { prune: 'success' }, logOf(run));
    const { pruned = '', kept = '' } = run.steps[0]?.result?.outputs ?? {};
    assert.ok((JSON.parse(pruned) as string[]).includes(older), logOf(run));
    assert.equal((JSON.parse(kept) as string[])[0], newer);
    const left = (await store.keys('acme-backups')).filter((key) => key.startsWith('prod/shop/'));
    assert.ok(!left.some((key) => key.includes(older)) && left.includes(`prod/shop/${newer}/manifest.json`));
  });

  test('our own nightly run: a sample database, tested in a service container and in a server of the step’s own', async () => {
    await source.createDatabase('sample');
    await loadSampleDatabase(source.url('sample'));
    // The workflow's password is its own; here every user of this port is let in.
    const nightly = await runWorkflow('.github/workflows/nightly.yml', {
      services: { source: source.port, scratch: container.port },
      temp: await scratch(),
      instead: {
        ...clientBin(source),
        'install-client': 'false',
        'alert-issue': 'false',
        'database-url': source.url('sample'),
      },
    });
    assert.deepEqual(
      resultsOf(nightly),
      { sample: 'success', backup: 'skipped', 'restore-test': 'skipped' },
      logOf(nightly),
    );
    const proofs = nightly.steps.map(({ result }) => result?.outputs.result).filter((each) => each !== undefined);
    assert.deepEqual(proofs, ['passed', 'passed']);
  });
});

function resultsOf({ jobs }: WorkflowRun): Record<string, string> {
  return Object.fromEntries(Object.entries(jobs).map(([id, { result }]) => [id, result]));
}

function logOf({ steps }: WorkflowRun): string {
  return steps.map(({ result }) => result?.log ?? '').join('\n');
}

/** Every name in a workflow that leads nowhere, and every required one that is not given. */
function unresolved(workflow: Workflow): string[] {
  const found: string[] = [];
  const { workflow_call: call, workflow_dispatch: typed } = workflow.on;
  const inputs = { ...call?.inputs, ...typed?.inputs };
  for (const [name, { value }] of Object.entries(call?.outputs ?? {}))
    for (const [whole, job = '', output = ''] of value.matchAll(/\bjobs\.([\w-]+)\.outputs\.([\w-]+)/g))
      if (!outputsOf(workflow.jobs[job]).has(output)) found.push(`output ${name}: ${whole} is nothing`);
  for (const [id, job] of Object.entries(workflow.jobs)) {
    if (job.uses !== undefined) {
      const named = oursIn(job.uses);
      if (named?.kind !== 'workflow' || !files.includes(named.path)) found.push(`${id}: ${named?.path} does not exist`);
      else {
        const target = workflowAt(named.path).on.workflow_call;
        found.push(...mismatches(`${id}: input`, job.with, target?.inputs ?? {}));
        found.push(...mismatches(`${id}: secret`, job.secrets, target?.secrets ?? {}));
      }
    }
    for (const step of job.steps ?? []) {
      const named = step.uses === undefined ? undefined : oursIn(step.uses);
      if (named === undefined) continue;
      if (!actionFolders.includes(named.path)) found.push(`${id}: ${named.path} does not exist`);
      else found.push(...mismatches(`${id}: input`, step.with, actionIn(named.path).inputs));
    }
    const needs = typeof job.needs === 'string' ? [job.needs] : (job.needs ?? []);
    const text = JSON.stringify(job);
    const expressions = [...text.matchAll(/\$\{\{.*?\}\}|"if":"[^"]*"/g)].map(([each]) => each).join('\n');
    const known = {
      'inputs\\.([\\w-]+)': (name: string) => Object.hasOwn(inputs, name),
      'secrets\\.([\\w-]+)': (name: string) => call === undefined || name in call.secrets,
      'matrix\\.([\\w-]+)': (name: string) => name in (job.strategy?.matrix ?? {}),
      'job\\.services\\.([\\w-]+)': (name: string) => name in (job.services ?? {}),
      'needs\\.([\\w-]+)\\.outputs\\.([\\w-]+)': (need: string, output: string) =>
        needs.includes(need) && outputsOf(workflow.jobs[need]).has(output),
      'steps\\.([\\w-]+)\\.outputs\\.([\\w-]+)': (step: string, output: string) => {
        const uses = job.steps?.find(({ id: other }) => other === step)?.uses ?? '';
        return Object.hasOwn(actionIn(oursIn(uses)?.path ?? '.').outputs, output);
      },
    };
    for (const [pattern, holds] of Object.entries(known))
      for (const [whole, ...names] of expressions.matchAll(new RegExp(`\\b${pattern}`, 'g')))
        if (!holds(names[0] ?? '', names[1] ?? '')) found.push(`${id}: ${whole} is nothing`);
  }
  return found;
}

function outputsOf(job: WorkflowJob | undefined): Set<string> {
  const named = job?.uses === undefined ? undefined : oursIn(job.uses);
  if (named?.kind !== 'workflow') return new Set(Object.keys(job?.outputs ?? {}));
  return files.includes(named.path)
    ? new Set(Object.keys(workflowAt(named.path).on.workflow_call?.outputs ?? {}))
    : new Set();
}

function mismatches(
  what: string,
  given: Readonly<Record<string, unknown>> = {},
  declared: Readonly<Record<string, { readonly required?: boolean }>>,
): string[] {
  return [
    ...Object.keys(given)
      .filter((name) => !Object.hasOwn(declared, name))
      .map((name) => `${what} ${name} does not exist`),
    ...Object.entries(declared)
      .filter(([name, { required }]) => required === true && !Object.hasOwn(given, name))
      .map(([name]) => `${what} ${name} is missing`),
  ];
}
