// The house's own rules: what the Marketplace accepts, what the README promises, what the workflows may do, which folder
// may import what. Each test fails when the thing it is named after breaks.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { describe, test } from 'node:test';
import { parse } from 'yaml';
import { actionFolders, inputsOf } from '../scripts/action-inputs.ts';
import { documentedFolders, filled } from '../scripts/docs.ts';
import { exitCodes } from '../src/failure.ts';

const root = join(import.meta.dirname, '..');
const read = (path: string): string => readFileSync(join(root, path), 'utf8');

for (const folder of actionFolders)
  describe(join(folder, 'action.yml'), () => {
    const text = read(join(folder, 'action.yml'));
    const action = parse(text) as {
      name: string;
      description: string;
      author: string;
      branding: { icon: string; color: string };
      inputs: Record<string, { description: string; default?: string; required?: boolean }>;
      outputs: Record<string, { description: string }>;
      runs: { using: string; main: string; post?: string };
    };

    test('the Marketplace accepts its description, name and branding', () => {
      assert.ok(action.description.length <= 125, `${action.description.length} characters; 125 are allowed`);
      assert.ok(action.description.length >= 40, 'a description says something');
      assert.ok(action.name.length > 0 && action.author.length > 0);
      assert.ok(
        ['white', 'black', 'yellow', 'blue', 'green', 'orange', 'red', 'purple'].includes(action.branding.color),
      );
      assert.match(action.branding.icon, /^[a-z-]+$/);
    });

    test('every input says its unit, its default and what empty means', () => {
      for (const input of inputsOf(text)) {
        assert.match(input.name, /^[a-z][a-z0-9]*(-[a-z]+)*$/);
        if (/^\d+(ms|s|m|h|d)$/.test(input.fallback ?? '')) assert.match(input.text, /number with a unit/, input.name);
        else if (/^\d+$/.test(input.fallback ?? '')) assert.match(input.text, /number|How many/i, input.name);
        else if (/^(true|false)$/.test(input.fallback ?? '')) {
          assert.match(input.text, /`true` .*`false`/s, `${input.name} says what true and what false does`);
        }
        // An expression is evaluated by the runner only where the input is left out.
        if (input.fallback?.startsWith('${{') === false)
          assert.equal(input.empty, 'Empty means the default.', input.name);
        if (input.required) assert.equal(input.empty, 'Empty is an error.', input.name);
      }
      for (const [name, { description }] of Object.entries(action.outputs)) assert.ok(description.length > 10, name);
    });

    test('the launchers it names are in dist, as they are in src/launch, and start what the bundle exports', () => {
      assert.equal(action.runs.using, 'node24');
      const bundle = read('dist/index.js');
      const launchers = readdirSync(join(root, 'src/launch'));
      const { main, post } = action.runs;
      for (const named of [main, ...(post === undefined ? [] : [post]), join(relative(folder, '.'), 'dist/cli.js')]) {
        const path = join(folder, named);
        const name = path.replace(/^dist\//, '');
        assert.ok(launchers.includes(name), `src/launch/${name}`);
        const launcher = read(path);
        assert.equal(launcher, read(`src/launch/${name}`), `${path} is stale: npm run build`);
        const [, imported, called] =
          /import \{ (\w+) \} from '\.\/index\.js';\n+await (\w+)\(\);\n$/.exec(launcher) ?? [];
        assert.ok(imported !== undefined && imported === called, `${path} imports and awaits one function`);
        const exported = [...bundle.matchAll(/^export \{(.+)\};$/gm)].flatMap(([, list]) => (list ?? '').split(','));
        assert.ok(
          exported.some((item) => item.trim() === imported || item.trim().endsWith(` as ${imported}`)),
          `dist/index.js exports ${imported}`,
        );
      }
      assert.deepEqual(parse(read('dist/package.json')), { type: 'module' });
      assert.ok(existsSync(join(root, 'dist/licenses.txt')));
    });
  });

describe('what an action.yml says of an input', () => {
  test('a description that keeps something back, or lies about the default, is refused', () => {
    const declared = (lines: string): string => `inputs:\n  speed:\n${lines}`;
    const good = declared('    description: "How fast. Default: `3`. Empty means the default."\n    default: "3"');
    assert.deepEqual(inputsOf(good), [
      { name: 'speed', text: 'How fast.', fallback: '3', empty: 'Empty means the default.', required: false },
    ]);
    for (const [wrong, message] of [
      [good.replace('`3`', '`4`'), /speed: its description says `4`, but it declares 3/],
      [good.replace('    default: "3"', ''), /speed: its description says `3`, but it declares none/],
      [good.replace('default: "3"', 'default: 3'), /speed: its default must be a quoted string/],
      [good.replace(' Empty means the default.', ''), /speed: its description must end with/],
      [good.replace('Default: `3`. ', ''), /speed: its description must end with/],
      [declared('    default: "3"'), /speed: has no description/],
      [`${good}\n    required: true`, /speed: its description says `3`/],
    ] as const) {
      assert.throws(() => inputsOf(wrong), message);
    }
  });
});

describe('package.json', () => {
  const manifest = JSON.parse(read('package.json'));

  test('every dependency is pinned to one exact version', () => {
    const versions = Object.entries({ ...manifest.dependencies, ...manifest.devDependencies });
    assert.ok(versions.length > 0);
    for (const [name, version] of versions) assert.match(String(version), /^\d+\.\d+\.\d+$/, name);
  });

  test('every dependency has its reason in docs/architecture.md', () => {
    const reasons = read('docs/architecture.md');
    for (const name of Object.keys({ ...manifest.dependencies, ...manifest.devDependencies })) {
      assert.ok(reasons.includes(`| \`${name}\` |`), `${name} has no reason`);
    }
  });

  test('its program is the launcher, executable, with a shebang', () => {
    assert.deepEqual(manifest.bin, { pgassay: 'dist/cli.js' });
    assert.ok(read('dist/cli.js').startsWith('#!/usr/bin/env node\n'));
    if (process.platform !== 'win32') assert.equal(statSync(join(root, 'dist/cli.js')).mode & 0o111, 0o111);
  });
});

describe('README.md', () => {
  const readme = read('README.md');
  const action = read('action.yml');

  test('its tables agree with action.yml and the exit codes', () => {
    const { status, stderr } = spawnSync(process.execPath, ['scripts/docs.ts', '--check'], {
      cwd: root,
      encoding: 'utf8',
    });
    assert.equal(status, 0, stderr);
  });

  test('a new input, another default, another output, each makes its tables stale', () => {
    assert.equal(filled(readme, action), readme);
    for (const changed of [
      action.replace('Default: `60s`.', 'Default: `61s`.').replace("default: '60s'", "default: '61s'"),
      action.replace('  mode:\n', '  moda:\n'),
      action.replace('  backup-id:\n', '  backup-name:\n'),
    ]) {
      assert.notEqual(changed, action);
      assert.notEqual(filled(readme, changed), readme);
    }
    for (const code of Object.values(exitCodes)) assert.match(readme, new RegExp(`^\\| ${code} \\| .+ \\|$`, 'm'));
    assert.throws(() => filled(readme.replace('<!-- inputs:end -->', ''), action), /needs exactly one/);
  });

  test('docs/reliability.md names tests that exist', () => {
    const rows = [...read('docs/reliability.md').matchAll(/^\| ((?:F|I-)\d.*?) \|.*\| (`.+`) \|$/gm)];
    assert.ok(rows.length > 20);
    for (const [, row = '', files = ''] of rows)
      for (const [, file = ''] of files.matchAll(/`([\w/-]+)`/g))
        assert.ok(existsSync(join(root, 'test', `${file}.test.ts`)), `${row}: test/${file}.test.ts`);
  });

  test('workflows use inputs that exist, and give the required ones', () => {
    const found = documentedFolders.flatMap((folder) => workflowSteps(read(join(folder, 'README.md'))));
    for (const folder of documentedFolders) {
      const inputs = inputsOf(read(join(folder, 'action.yml')));
      const uses = `${join('pgassay/pgassay', folder)}@`;
      const steps = found.filter((step) => step.uses?.startsWith(uses));
      assert.ok(steps.length >= 1, `examples of ${uses} were found`);
      for (const { with: given = {} } of steps) {
        for (const name of Object.keys(given))
          assert.ok(
            inputs.some((input) => input.name === name),
            name,
          );
        for (const { name, required } of inputs) assert.ok(!required || name in given, `${name} is missing`);
      }
    }
  });

  test('what it links to is there', () => {
    for (const page of [
      'README.md',
      ...documentedFolders.slice(1).map((folder) => join(folder, 'README.md')),
      'CONTRIBUTING.md',
      'SECURITY.md',
      'docs/architecture.md',
      'docs/signing.md',
      'docs/unproven.md',
      'docs/workflows.md',
    ]) {
      for (const [, target = ''] of read(page).matchAll(/\]\((?!https?:|#)([^)#]+)/g)) {
        assert.ok(existsSync(join(root, dirname(page), target)), `${page} links to ${target}`);
      }
    }
  });
});

describe('the workflows', () => {
  const folder = join(root, '.github/workflows');
  const files = readdirSync(folder).filter((name) => /\.ya?ml$/.test(name));
  const workflows = files.map((name) => {
    const text = readFileSync(join(folder, name), 'utf8');
    return { name, text, workflow: parse(text) as Workflow };
  });

  test('grant nothing at the top; one that is called has what its caller grants', () => {
    assert.ok(files.includes('ci.yml'));
    for (const { name, workflow } of workflows) {
      const called = Object.keys(workflow.on).join() === 'workflow_call';
      assert.deepEqual(workflow.permissions, called ? undefined : {}, name);
    }
  });

  test('pin whatever they use to a commit or a digest, with the version beside it', () => {
    for (const { name, text } of workflows) {
      const uses = [...text.matchAll(/^\s*(?:- )?uses: (.+)$/gm)].map(([, value = '']) => value);
      assert.ok(uses.length > 0, name);
      for (const value of uses) {
        const pinned =
          /^[\w.-]+\/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/.test(value) ||
          /^docker:\/\/[\w./-]+:[\w.]+@sha256:[0-9a-f]{64}$/.test(value) ||
          /^(\.\/|\$\/\S)/.test(value);
        assert.ok(pinned, `${name}: ${value}`);
      }
      // What a caller or the backup chooses is theirs; whatever is written here itself is pinned.
      for (const [, image = ''] of text.matchAll(/^\s*image: (.+?)(?: # .*)?$/gm)) {
        const [, expression] = /^\$\{\{ (.+) \}\}$/.exec(image) ?? [];
        const written = expression === undefined ? [image] : [...expression.matchAll(/'([^']+)'/g)].map(([, it]) => it);
        for (const each of written) assert.match(each ?? '', /@sha256:[0-9a-f]{64}$/, name);
      }
    }
  });

  test('and the examples use one version of each action and each image', () => {
    const examples = readdirSync(join(root, 'examples')).map((name) => read(join('examples', name)));
    const pinned = [...workflows.map(({ text }) => text), ...examples].flatMap((text) =>
      [...text.matchAll(/([\w./-]+?)(?::[\w.]+)?@((?:sha256:)?[0-9a-f]{40,})/g)].map(
        ([, name, at]) => [name, at] as const,
      ),
    );
    const versions = Map.groupBy(pinned, ([name]) => name);
    assert.ok(versions.has('actions/checkout') && versions.has('postgres'));
    for (const [name, uses] of versions) assert.equal(new Set(uses.map(([, at]) => at)).size, 1, name);
  });

  test('leave no credentials in the checkout, have a time limit, and never run a stranger’s code with rights', () => {
    for (const { name, text, workflow } of workflows) {
      assert.doesNotMatch(text, /secrets: inherit/, name);
      for (const event of ['pull_request_target', 'workflow_run'])
        assert.ok(!(event in workflow.on), `${name}: ${event}`);
      for (const [id, job] of Object.entries(workflow.jobs)) {
        const limit = job['timeout-minutes'];
        const asked = limit === `\${{ inputs.timeout-minutes }}`;
        if (job.uses === undefined && !asked) assert.equal(typeof limit, 'number', `${name}: ${id}`);
        for (const step of job.steps ?? []) {
          if (!step.uses?.startsWith('actions/checkout@')) continue;
          assert.equal(step.with?.['persist-credentials'], false, `${name}: ${id}`);
        }
      }
    }
  });

  test('the gate waits for every other job and wants each of them green', () => {
    const { jobs } = parse(read('.github/workflows/ci.yml')) as Workflow;
    const others = Object.keys(jobs).filter((id) => id !== 'gate');
    assert.deepEqual([...(jobs.gate?.needs ?? [])].sort(), others.sort());
    assert.equal(jobs.gate?.if, 'always()');
    const wanted = others.map(() => 'success').join(' ');
    assert.ok(jobs.gate?.steps?.some(({ run }) => run?.includes(`"$RESULTS" = '${wanted}'`)));
  });
});

describe('imports', () => {
  test('lint refuses each import that would turn an arrow round, and no other', { timeout: 60_000 }, () => {
    const refused: readonly (readonly [from: string, what: string])[] = [
      ['src/cli.ts', '@actions/core'],
      ['src/postgres/server.ts', '@actions/core'],
      ['src/store/folder.ts', 'pg'],
      ['src/backup.ts', 'pg'],
      ['src/backup.ts', 'pg/lib/client.js'],
      ['src/action/backup.ts', 'pg'],
      ['src/postgres/server.ts', '@actions/exec'],
      ['src/action/backup.ts', '@actions/exec'],
      ['src/store/folder.ts', '@aws-sdk/client-s3'],
      ['src/store/folder.ts', '@actions/artifact'],
      ['src/store/s3.ts', '@actions/artifact'],
      ['src/backup.ts', 'age-encryption'],
      ['src/store/s3.ts', 'age-encryption'],
      ['src/postgres/dump.ts', '../store/folder.ts'],
      ['src/postgres/dump.ts', '../stream/tee.ts'],
      ['src/postgres/install/apt.ts', '../../store/folder.ts'],
      ['src/postgres/dump.ts', '../backup.ts'],
      ['src/store/folder.ts', '../postgres/dump.ts'],
      ['src/store/s3.ts', '../report/summary.ts'],
      ['src/stream/tee.ts', '../postgres/dump.ts'],
      ['src/stream/tee.ts', '../action/run.ts'],
      ['src/report/summary.ts', '../store/folder.ts'],
      ['src/report/summary.ts', 'node:fs'],
      ['src/alert/issues.ts', '../store/folder.ts'],
      ['src/alert/issues.ts', '../report/issue.ts'],
      ['src/report/issue.ts', '../alert/github.ts'],
      ['src/alert-state.ts', './alert/issues.ts'],
      ['src/postgres/dump.ts', '../cli.ts'],
      ['src/backup.ts', './action/backup.ts'],
      ['src/backup.ts', './cli.ts'],
      ['src/action/backup.ts', '../cli.ts'],
      ['src/manifest.ts', './postgres/dump.ts'],
      ['src/manifest.ts', 'node:fs/promises'],
      ['src/plan.ts', './program.ts'],
      ['src/retention.ts', './store/folder.ts'],
      ['src/failure.ts', './postgres/dump.ts'],
    ];
    const allowed: readonly (readonly [from: string, what: string])[] = [
      ['src/action/run.ts', '@actions/core'],
      ['src/postgres/connect.ts', 'pg'],
      ['src/age.ts', 'age-encryption'],
      ['src/postgres/install.ts', '@actions/exec'],
      ['src/postgres/install/apt.ts', '@actions/exec'],
      ['src/store/s3.ts', '@aws-sdk/client-s3'],
      ['src/store/artifact.ts', '@actions/artifact'],
      ['src/postgres/dump.ts', '../failure.ts'],
      ['src/postgres/dump.ts', '../program.ts'],
      ['src/backup.ts', './postgres/dump.ts'],
      ['src/backup.ts', './store/folder.ts'],
      ['src/backup.ts', './log.ts'],
      ['src/raise-alert.ts', './alert/issues.ts'],
      ['src/raise-alert.ts', './report/issue.ts'],
      ['src/alert/issues.ts', '../alert-state.ts'],
      ['src/action/backup.ts', '../backup.ts'],
      ['src/index.ts', './action/backup.ts'],
      ['src/index.ts', './cli.ts'],
      ['src/cli.ts', './restore.ts'],
      ['src/manifest.ts', './failure.ts'],
      ['src/manifest.ts', 'node:crypto'],
      ['src/report/summary.ts', '../manifest.ts'],
      ['src/store/folder.ts', './store.ts'],
      ['test/backup.test.ts', 'pg'],
    ];
    assert.deepEqual(
      lintImports([...refused, ...allowed]),
      refused.map(([from, what]) => `${from} imports ${what}`).sort(),
    );
  });

  test('a type-only import and a re-export count too', () => {
    const lines = ["import type { X } from '../store/folder.ts';", "export { y } from '../report/summary.ts';"];
    const found = lint({ 'src/postgres/dump.ts': `${lines.join('\n')}\nexport type Z = X;\n` });
    assert.deepEqual(
      found.filter(({ category }) => category.endsWith('/noRestrictedImports')).map(({ line }) => line),
      [1, 2],
    );
  });

  test('a circle is refused', () => {
    const found = lint({
      'src/postgres/one.ts': "import { two } from './two.ts';\nexport const one = (): unknown => two;\n",
      'src/postgres/two.ts': "import { one } from './one.ts';\nexport const two = (): unknown => one;\n",
    });
    assert.ok(
      found.some(({ category }) => category.endsWith('/noImportCycles')),
      JSON.stringify(found),
    );
  });
});

/** The steps of every workflow, or piece of one, on a page. */
function workflowSteps(page: string): Step[] {
  return [...page.matchAll(/^(> )?```yaml\n(.+?)^(> )?```$/gms)].flatMap(([, , block = '']) => [
    ...stepsIn(parse(block.replaceAll(/^> ?/gm, ''))),
  ]);
}

interface Step {
  readonly uses?: string;
  readonly run?: string;
  readonly with?: Readonly<Record<string, unknown>>;
}

interface Workflow {
  readonly on: Readonly<Record<string, unknown>>;
  readonly permissions?: unknown;
  readonly jobs: Readonly<
    Record<
      string,
      {
        readonly if?: string;
        readonly uses?: string;
        readonly needs?: readonly string[];
        readonly steps?: readonly Step[];
        readonly 'timeout-minutes'?: number | string;
      }
    >
  >;
}

/** The steps in a piece of YAML that is a workflow or a bare list of steps. */
function* stepsIn(yaml: unknown): Generator<Step> {
  if (Array.isArray(yaml)) return yield* yaml as Step[];
  yield* (yaml as { steps?: Step[] }).steps ?? [];
  for (const { steps } of Object.values((yaml as Workflow).jobs ?? {})) yield* steps ?? [];
}

/** Which of the imports `biome.json` refuses, as `FILE imports WHAT`, sorted. */
function lintImports(imports: readonly (readonly [from: string, what: string])[]): string[] {
  const files = Map.groupBy(imports, ([from]) => from);
  const sources = [...files].map(([from, list]) => [
    from,
    list.map(([, what], index) => `import * as m${index} from '${what}';\nconsole.log(m${index});\n`).join(''),
  ]);
  return lint(Object.fromEntries(sources))
    .filter(({ category }) => category.endsWith('/noRestrictedImports'))
    .map(({ path, line }) => `${path} imports ${files.get(path)?.[(line - 1) / 2]?.[1]}`)
    .sort();
}

interface Finding {
  readonly category: string;
  readonly path: string;
  readonly line: number;
}

/** What our biome.json says of `sources`, laid out in a folder of their own. */
function lint(sources: Readonly<Record<string, string>>): Finding[] {
  const folder = mkdtempSync(join(tmpdir(), 'pgassay-lint-'));
  try {
    for (const [path, text] of Object.entries({
      ...sources,
      'biome.json': read('biome.json'),
      '.gitignore': 'node_modules/\n',
    })) {
      mkdirSync(dirname(join(folder, path)), { recursive: true });
      writeFileSync(join(folder, path), text);
    }
    const biome = join(root, 'node_modules/@biomejs/biome/bin/biome');
    const { stdout, stderr } = spawnSync(
      process.execPath,
      [biome, 'lint', '--reporter=json', '--max-diagnostics=1000', '.'],
      { cwd: folder, encoding: 'utf8' },
    );
    assert.ok(stdout.startsWith('{'), stderr);
    const { diagnostics } = JSON.parse(stdout) as {
      diagnostics: { category: string; location: { path: string; start?: { line: number } } }[];
    };
    return diagnostics.map(({ category, location }) => ({
      category,
      path: location.path,
      line: location.start?.line ?? 0,
    }));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
