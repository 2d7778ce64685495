// node scripts/test.ts [--name=PATTERN] [PART-OF-A-PATH …]
// Runs the tests with node's own runner and is stricter than it: a skipped test fails the run unless this kind of machine
// cannot run it at all, and so does a file without tests.
import { globSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';

const root = join(import.meta.dirname, '..');
const testMs = 180_000;
const fileMs = 480_000;
/**
 * Runs in the process of every file. The runner would wait for ever for a file whose tests are over while a server or a
 * timer of theirs is not.
 */
const watchdog = `setTimeout(() => {
  console.error('still alive after ${fileMs / 1000} s, because of', process.getActiveResourcesInfo().join(', '), process.argv[1]);
  process.exit(1);
}, ${fileMs}).unref();`;
/** A skip with this reason is no failure: the machine lacks what no set-up can give it. */
const excuse = 'not on this platform:';

interface Skipped {
  readonly where: string;
  readonly name: string;
  readonly reason: string;
}

forgetSurroundings();
const args = process.argv.slice(2);
const names = args.filter((arg) => arg.startsWith('--name=')).map((arg) => arg.slice('--name='.length));
const parts = args.filter((arg) => !arg.startsWith('-'));
const unknown = args.filter((arg) => arg.startsWith('-') && !arg.startsWith('--name='));
const files = globSync('test/**/*.test.ts', { cwd: root })
  .filter((file) => parts.length === 0 || parts.some((part) => file.includes(part)))
  .sort();
if (unknown.length > 0 || files.length === 0) {
  console.error(unknown.length > 0 ? `unknown option ${unknown.join(' ')}` : `no test file matches ${parts.join(' ')}`);
  process.exit(1);
}

const stopping = new AbortController();
let interrupted: number | undefined;
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const) {
  process.once(signal, () => {
    interrupted = code;
    stopping.abort();
    // Whoever asks a second time, or waits ten seconds, means it.
    process.once(signal, () => process.exit(code));
    setTimeout(() => process.exit(code), 10_000).unref();
  });
}

const skipped: Skipped[] = [];
const empty: string[] = [];
let ran = 0;
let failed = false;
const events = run({
  cwd: root,
  files: files.map((file) => join(root, file)),
  concurrency: Math.min(4, Math.max(2, availableParallelism())),
  execArgv: [`--test-timeout=${testMs}`, `--import=data:text/javascript,${encodeURIComponent(watchdog)}`],
  signal: stopping.signal,
  ...(names.length === 0 ? {} : { testNamePatterns: names }),
});
events.on('test:fail', (event) => {
  failed ||= event.todo === undefined;
});
for (const outcome of ['test:pass', 'test:fail'] as const) {
  events.on(outcome, ({ name, file, line, skip, todo, details }) => {
    const path = relative(root, file ?? '');
    if (name === file) {
      // The runner's own entry for a file that ended without having run a test.
      if (outcome === 'test:pass') empty.push(path);
    } else if (skip !== undefined || todo !== undefined) {
      const given = skip ?? todo;
      const reason = typeof given === 'string' && given !== '' ? given : 'no reason given';
      skipped.push({ where: `${path}:${line ?? 1}`, name, reason: skip === undefined ? `to do: ${reason}` : reason });
    } else if (details.type !== 'suite') ran += 1;
  });
}
const report = events.compose(spec);
report.pipe(process.stdout);
await new Promise<void>((resolve) => report.once('end', resolve));

const complaints =
  interrupted !== undefined
    ? ['interrupted']
    : [
        ...section(
          'skipped, which fails this run',
          skipped.filter(({ reason }) => !reason.startsWith(excuse)),
        ),
        ...(names.length === 0 && empty.length > 0
          ? ['without a single test:', ...empty.map((file) => `  ${file}`)]
          : []),
        ...(ran === 0 ? ['not one test ran'] : []),
      ];
const excused = section(
  'skipped, because this machine cannot run them',
  skipped.filter(({ reason }) => reason.startsWith(excuse)),
);
for (const line of [...excused, ...complaints]) console.log(line);
process.exitCode = interrupted ?? (failed || complaints.length > 0 ? 1 : 0);

function section(title: string, tests: readonly Skipped[]): string[] {
  if (tests.length === 0) return [];
  return [
    `\n${tests.length} ${title}:`,
    ...tests.map(({ where, name, reason }) => `  ${name} (${where})\n    ${reason}`),
  ];
}

/** What libpq, AWS clients and actions would pick up from the shell or the CI job that runs the tests. */
function forgetSurroundings(): void {
  for (const name of Object.keys(process.env)) {
    if (
      /^(PG|AWS_|GITHUB_|ACTIONS_|RUNNER_|INPUT_|STATE_|PGASSAY_(?!TEST_)|npm_)|_URL$|^NODE_TEST_CONTEXT$/i.test(name)
    ) {
      delete process.env[name];
    }
  }
}
