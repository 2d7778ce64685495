// Builds dist/, the part of this repository that GitHub and npm run: one ESM bundle and the part
// of it that only the artifact store needs, their licences, one launcher per entry.
//
//   node scripts/build.mjs           rebuilds dist/
//   node scripts/build.mjs --check   builds beside it, compares byte for byte, names every file that differs
//
// The same sources give the same bytes on every machine: no source map, no cache, no clock, and the compiled
// JavaScript always lies in build/, because the bundler writes its modules' relative paths into the bundle.

import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const compiled = join(root, 'build');
const fresh = join(compiled, '.dist');
const committed = join(root, 'dist');

const args = process.argv.slice(2);
const check = args[0] === '--check';
if (args.length > (check ? 1 : 0)) stop(`unknown argument ${args[check ? 1 : 0]}; the only one is --check`);

try {
  rmSync(compiled, { recursive: true, force: true });
  bundle();
  if (check) compare();
  else replace();
} finally {
  rmSync(compiled, { recursive: true, force: true });
}

function bundle() {
  run('typescript/bin/tsc', ['-p', 'tsconfig.build.json']);
  ncc(join('build', 'index.js'), fresh);
  // The bundler forgets the licences of one file when it writes those of the next: here everything is in one.
  const whole = join(compiled, 'whole.js');
  writeFileSync(whole, "export * from './index.js';\nexport * as artifact from '@actions/artifact';\n");
  ncc(whole, join(compiled, '.whole'), '--license', 'licenses.txt');
  renameSync(join(compiled, '.whole', 'licenses.txt'), join(fresh, 'licenses.txt'));
  // Git checks text out with one kind of line end; a licence that came with the other would never compare equal.
  const licenses = join(fresh, 'licenses.txt');
  writeFileSync(licenses, readFileSync(licenses, 'utf8').replaceAll('\r\n', '\n'));
  writeFileSync(join(fresh, 'package.json'), '{\n  "type": "module"\n}\n');
  for (const name of readdirSync(join(root, 'src', 'launch')))
    copyFileSync(join(root, 'src', 'launch', name), join(fresh, name));
  for (const name of filesBelow(fresh)) chmodSync(join(fresh, name), name === 'cli.js' ? 0o755 : 0o644);
}

function ncc(entry, folder, ...options) {
  mkdirSync(folder, { recursive: true });
  run('@vercel/ncc/dist/ncc/cli.js', ['build', entry, '-o', folder, ...options, '--no-cache', '-q']);
}

function replace() {
  rmSync(committed, { recursive: true, force: true });
  renameSync(fresh, committed);
  for (const name of filesBelow(committed)) console.log(`dist/${name}  ${statSync(join(committed, name)).size} bytes`);
}

function compare() {
  const built = new Set(filesBelow(fresh));
  const kept = new Set(filesBelow(committed));
  const problems = [];
  for (const name of [...new Set([...built, ...kept])].sort()) {
    if (!kept.has(name)) problems.push(`dist/${name} is missing`);
    else if (!built.has(name)) problems.push(`dist/${name} is not made by the build`);
    else if (!readFileSync(join(fresh, name)).equals(readFileSync(join(committed, name))))
      problems.push(`dist/${name} differs`);
    else if (executable(join(fresh, name)) !== executable(join(committed, name)))
      problems.push(`dist/${name} has another executable bit`);
  }
  if (problems.length === 0) {
    console.log(`dist/ is what the sources build: ${built.size} files, byte for byte`);
    return;
  }
  console.error(`dist/ is not what the sources build:\n${problems.map((line) => `  ${line}`).join('\n')}`);
  console.error('run `npm run build` and commit dist/ with the change');
  process.exitCode = 1;
}

/** Paths of the files below `folder`, relative to it, sorted; none when it does not exist. */
function filesBelow(folder) {
  let entries;
  try {
    entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  } catch (error) {
    if (error.code === 'ENOENT') return [];
    throw error;
  }
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}

function executable(path) {
  return process.platform === 'win32' || (statSync(path).mode & 0o111) !== 0;
}

/** Runs one of the installed packages' programs with this very node; its output is shown, its failure is ours. */
function run(program, programArgs) {
  const { status, error } = spawnSync(process.execPath, [join(root, 'node_modules', program), ...programArgs], {
    cwd: root,
    stdio: 'inherit',
  });
  if (error !== undefined || status !== 0) {
    rmSync(compiled, { recursive: true, force: true });
    stop(`${program} ended with ${error?.message ?? `exit code ${status}`}`);
  }
}

function stop(message) {
  console.error(`build: ${message}`);
  process.exit(1);
}
