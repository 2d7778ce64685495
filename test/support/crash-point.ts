// Loaded with --import into the committed launcher: the process gets PGASSAY_TEST_SIGNAL (else SIGKILL) right before the
// step in the file system that PGASSAY_TEST_CRASH_AT names (`link 4`: the fourth link). Without one it writes all of its
// steps to the file PGASSAY_TEST_STEPS.
import fs, { writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

const crashAt = process.env.PGASSAY_TEST_CRASH_AT;
const signal = process.env.PGASSAY_TEST_SIGNAL ?? 'SIGKILL';
const report = process.env.PGASSAY_TEST_STEPS;
const steps: string[] = [];

type Methods = Record<string, (...args: unknown[]) => unknown>;

function count(owner: Methods, names: readonly string[]): void {
  for (const name of names) {
    const original = owner[name];
    if (original === undefined) continue;
    owner[name] = function step(this: unknown, ...args: unknown[]) {
      const step = `${name} ${steps.filter((each) => each.startsWith(`${name} `)).length + 1}`;
      steps.push(step);
      if (step === crashAt) process.kill(process.pid, signal);
      return original.apply(this, args);
    };
  }
}

if (process.argv[1]?.endsWith('/dist/backup.js')) {
  const handle = await fs.promises.open('/dev/null');
  count(Object.getPrototypeOf(handle) as Methods, ['write', 'writeFile', 'sync', 'close']);
  await handle.close();
  steps.length = 0;
  count(fs.promises as unknown as Methods, [
    ...['mkdir', 'mkdtemp', 'open', 'writeFile', 'link', 'unlink', 'rename', 'rm', 'rmdir'],
  ]);
  syncBuiltinESMExports();
  if (report !== undefined) process.on('exit', () => writeFileSync(report, steps.join('\n')));
}
