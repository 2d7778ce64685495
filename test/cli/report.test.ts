// The command `report`, and the examples that publish its page, through the committed launcher.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { reportCommand } from '../../src/cli/report.ts';
import type { Manifest } from '../../src/manifest.ts';
import { reportInputs } from '../../src/report-inputs.ts';
import { FolderStore } from '../../src/store/folder.ts';
import { type CliResult, cli } from '../support/backup.ts';
import { repository, scratch } from '../support/faults.ts';
import { storePast } from '../support/history.ts';
import { workflowAt } from '../support/workflow.ts';

const dayMs = 86_400_000;
const ago = (days: number): Date => new Date(Date.now() - days * dayMs);

interface Said {
  readonly page: string;
  readonly status: string;
  readonly details: boolean;
  readonly sentence: string;
  readonly names: readonly {
    readonly name: string;
    readonly status: string;
    readonly backups: number;
    readonly latestBackupId: string | null;
    readonly findings: readonly { readonly object: string }[];
  }[];
}

describe('pgassay report', () => {
  let store: FolderStore;
  let stored: Manifest[];
  before(async () => {
    store = new FolderStore(await scratch());
    stored = [];
    for (const days of [3.2, 2.2, 1.2, 0.2]) {
      const tested = days === 1.2 ? ({ at: ago(1), result: 'passed', restoreSeconds: 250 } as const) : undefined;
      stored.push(await storePast(store, ago(days), { bytes: 5000, ...(tested && { tested }) }));
    }
    await storePast(store, ago(4), { name: 'billing' });
  });

  const report = async (args: readonly string[], env: Record<string, string> = {}): Promise<CliResult> =>
    cli(['report', ...(args.includes('--store') ? [] : ['--store', store.uri]), ...args], env);
  const read = (folder: string): Promise<string> => readFile(join(folder, 'index.html'), 'utf8');

  test('writes one page about one name, and says its sentence', async () => {
    const out = join(await scratch(), 'made', 'here');
    const result = await report([
      '--name',
      'shop',
      '--out',
      out,
      '--keep-last',
      '2',
      '--max-restore-time',
      '30m',
      '--json',
    ]);
    assert.equal(result.exitCode, 0, result.stderr);
    const said = result.json as Said;
    assert.equal(said.page, join(out, 'index.html'));
    assert.equal(
      said.sentence,
      'Everything is fine: 1 table, last backup 5 h ago, last proven 24 h ago in 4 min 10 s of the 30 min allowed.',
    );
    assert.deepEqual(said.names, [
      { name: 'shop', status: 'ok', backups: 4, latestBackupId: stored[3]?.id, findings: [] },
    ]);
    assert.deepEqual(await readdir(out), ['index.html']);
    const page = (await read(out)).replaceAll('\u00a0', ' ');
    assert.ok(page.includes(`<h1>${said.sentence}</h1>`));
    for (const { id } of stored) assert.ok(page.includes(id), id);
    assert.match(page, /goes with the next run/);
    assert.match(page, /stays until .*newest, keep-last 2/s);
    assert.doesNotMatch(page, /billing/);
  });

  test('without a name it is about all of them, those in need first, and a second page replaces the first', async () => {
    const out = await scratch();
    for (const round of [1, 2]) {
      const result = await report(['--out', out, '--json']);
      assert.equal(result.exitCode, 0, `round ${round}: ${result.stderr}`);
      const said = result.json as Said;
      assert.deepEqual([said.status, said.sentence], ['critical', 'Recovery is at risk: billing (1 of 2 databases).']);
    }
    const page = await read(out);
    assert.ok(page.indexOf('<h2>billing</h2>') < page.indexOf('<h2>shop</h2>'));
    assert.match(page, /What retention does next is shown when/);
  });

  test('a name and a store without a backup have a page that says so', async () => {
    for (const args of [
      ['--name', 'nowhere'],
      ['--store', `file://${await scratch()}`],
    ]) {
      const out = await scratch();
      const result = await report([...args, '--out', out]);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.match(result.stdout, /^Recovery is at risk: there is no backup\.\n {2}page /);
      assert.match(await read(out), /<h1>Recovery is at risk: there is no backup\.<\/h1>/);
    }
  });

  test('a page of somebody else is not replaced, and a folder that cannot be written to is told', async () => {
    const out = await scratch();
    await writeFile(join(out, 'index.html'), '<h1>mine</h1>');
    const refused = await report(['--out', out]);
    assert.equal(refused.exitCode, 32, refused.stderr);
    assert.match(refused.stderr, /publish: .*index\.html is there, and is no page of pgassay's\nhint: /);
    assert.equal(await read(out), '<h1>mine</h1>');
    const blocked = join(out, 'index.html', 'below');
    const failed = await report(['--out', blocked]);
    assert.equal(failed.exitCode, 20, failed.stderr);
    assert.match(failed.stderr, /cannot be written \(ENOTDIR\)\nhint: /);
  });

  test('every wrong input is told at once, and the flags are the inputs', async () => {
    const wrong = await report([
      '--name',
      '../up',
      '--max-shrink',
      '0',
      '--warn-after',
      'soon',
      '--keep-last',
      '0',
      '--alert-details',
      'yes',
    ]);
    assert.equal(wrong.exitCode, 2);
    for (const input of ['name', 'out', 'max-shrink', 'warn-after', 'keep-last', 'alert-details'])
      assert.match(wrong.stderr, new RegExp(`\\b${input}: `), input);
    const flags = reportCommand.flags.map(({ name }) => name);
    assert.deepEqual(flags.toSorted(), reportInputs.toSorted());
  });

  test('a damaged backup is a finding on the page', async () => {
    const own = new FolderStore(await scratch());
    await storePast(own, ago(0.1));
    const lost = await storePast(own, ago(1.1));
    await rm(join(fileURLToPath(own.uri), 'shop', lost.id, 'database.dump'));
    const out = await scratch();
    const result = await report(['--store', own.uri, '--out', out, '--json']);
    assert.equal((result.json as Said).status, 'critical', result.stderr);
    assert.match(await read(out), new RegExp(`${lost.id}</strong><br>database.dump is missing`));
  });

  describe('in a workflow', () => {
    const workflow = async (
      visibility: string | undefined,
      args: readonly string[],
    ): Promise<CliResult & { out: string }> => {
      const out = await scratch();
      const event = join(out, 'event.json');
      await writeFile(event, JSON.stringify(visibility === undefined ? {} : { repository: { visibility } }));
      const env = {
        GITHUB_ACTIONS: 'true',
        GITHUB_REPOSITORY: 'acme/shop',
        GITHUB_RUN_ID: '1',
        GITHUB_EVENT_PATH: event,
      };
      return { ...(await report(['--name', 'shop', '--out', out, ...args], env)), out };
    };

    test('names and counts are withheld where the repository is public or nobody knows, and shown where it is private', async () => {
      for (const [visibility, shown] of [
        ['public', false],
        [undefined, false],
        ['private', true],
        ['internal', true],
      ] as const) {
        const result = await workflow(visibility, ['--json']);
        assert.equal(result.exitCode, 0, result.stderr);
        assert.equal((result.json as Said).details, shown, visibility);
        const page = await read(result.out);
        assert.equal(page.includes(store.uri), shown, visibility);
        assert.equal(/\d\u00a0kB|1\u00a0table|1 table/.test(page), shown, visibility);
      }
      assert.equal(((await workflow('private', ['--alert-details', 'false', '--json'])).json as Said).details, false);
    });

    test('I-42: a public repository is refused a page with names and counts', async () => {
      for (const [visibility, why] of [
        ['public', /as this repository is public/],
        [undefined, /as nobody can tell whether/],
      ] as const) {
        const result = await workflow(visibility, ['--alert-details', 'true']);
        assert.equal(result.exitCode, 2, result.stderr);
        assert.match(result.stderr, why);
        assert.deepEqual(await readdir(result.out), ['event.json']);
      }
      assert.equal((await workflow('private', ['--alert-details', 'true'])).exitCode, 0);
    });

    for (const [example, shown] of [
      ['report-artifact', true],
      ['report-pages', false],
    ] as const)
      test(`examples/${example}.yml writes the page that it publishes`, async () => {
        const steps = workflowAt(`examples/${example}.yml`).jobs.report?.steps ?? [];
        const step = steps.find(({ run }) => run !== undefined);
        const work = await scratch();
        await symlink(join(repository, 'dist'), join(work, 'dist'));
        const [event, summary] = [join(work, 'event.json'), join(work, 'summary.md')];
        await writeFile(event, JSON.stringify({ repository: { private: true } }));
        // As the runner does it, but for where the store is.
        await promisify(execFile)('bash', ['-e', '-c', step?.run ?? ''], {
          cwd: work,
          env: {
            PATH: `${dirname(process.execPath)}:/usr/bin:/bin`,
            ...{ STORE: store.uri, S3_REGION: '', AWS_ROLE_ARN: '', GITHUB_STEP_SUMMARY: summary },
            ...{ GITHUB_ACTIONS: 'true', GITHUB_REPOSITORY: 'acme/shop', GITHUB_RUN_ID: '1', GITHUB_EVENT_PATH: event },
          },
        });
        assert.match(await readFile(summary, 'utf8'), /^Recovery is at risk: billing \(1 of 2 databases\)\.\n/);
        const published = steps.at(-1)?.with?.path ?? '';
        assert.ok(['page', 'page/index.html'].includes(published), published);
        assert.equal((await read(join(work, 'page'))).includes(store.uri), shown);
      });
  });
});
