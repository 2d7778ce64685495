// Unpacks Debian packages of another release into a folder and makes their programs run from there, with that release's
// own C library. The machine's package database, sources and caches stay as they are, and no rights are needed.
// Needs: apt, dpkg-deb, patchelf, and Debian's archive key, which apt checks every signature against.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
const machines = {
  x64: { triplet: 'x86_64-linux-gnu', loader: 'ld-linux-x86-64.so.2' },
  arm64: { triplet: 'aarch64-linux-gnu', loader: 'ld-linux-aarch64.so.1' },
};

/**
 * Unpacks `packages` and all they depend on from Debian's `suite` into `folder`, which is replaced. It appears whole or not
 * at all. Throws with apt's own words when a package cannot be had. The result works at `folder` only: paths are built in.
 */
export function unpackDebian({ suite, folder, packages }) {
  const machine = machines[process.arch];
  if (machine === undefined) throw new Error(`no Debian packages are known for ${process.arch}`);
  if (!existsSync(keyring)) throw new Error(`${keyring} is missing: apt-get install debian-archive-keyring`);
  const building = `${folder}.partial`;
  const state = mkdtempSync(join(tmpdir(), 'pgassay-apt-'));
  try {
    rmSync(building, { recursive: true, force: true });
    mkdirSync(building, { recursive: true });
    for (const archive of download(state, suite, packages)) run('dpkg-deb', ['-x', archive, building]);
    for (const place of ['doc', 'man', 'locale', 'info']) {
      rmSync(join(building, 'usr/share', place), { recursive: true, force: true });
    }
    makeRelocated(building, folder, machine);
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(dirname(folder), { recursive: true });
    renameSync(building, folder);
  } finally {
    rmSync(state, { recursive: true, force: true });
    rmSync(building, { recursive: true, force: true });
  }
}

/** The packages' files, fetched by an apt of our own that thinks nothing is installed. */
function download(state, suite, packages) {
  for (const path of ['lists/partial', 'cache/archives/partial', 'none'])
    mkdirSync(join(state, path), { recursive: true });
  writeFileSync(join(state, 'status'), '');
  writeFileSync(join(state, 'sources.list'), `deb [signed-by=${keyring}] ${mirror()} ${suite} main\n`);
  // On the command line, where nothing of the machine's configuration (which may hold its proxy) can win over it.
  const options = {
    'Dir::State': state,
    'Dir::State::lists': join(state, 'lists'),
    'Dir::State::status': join(state, 'status'),
    'Dir::Cache': join(state, 'cache'),
    'Dir::Cache::archives': join(state, 'cache/archives'),
    'Dir::Etc::sourcelist': join(state, 'sources.list'),
    'Dir::Etc::sourceparts': join(state, 'none'),
    'Dir::Etc::preferences': join(state, 'none/preferences'),
    'Dir::Etc::preferencesparts': join(state, 'none'),
    'Dir::Log': state,
    'APT::Default-Release': '',
    'APT::Install-Recommends': 'false',
    'APT::Sandbox::User': '',
    'Acquire::Languages': 'none',
    'Acquire::Retries': '3',
    'Debug::NoLocking': 'true',
    // A release that is no longer updated has an expired, though still signed, index.
    'Acquire::Check-Valid-Until': 'false',
  };
  const args = Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
  run('apt-get', [...args, '-qq', 'update']);
  run('apt-get', [...args, '-qq', '-y', '--download-only', 'install', ...packages]);
  const archives = join(state, 'cache/archives');
  return readdirSync(archives)
    .filter((name) => name.endsWith('.deb'))
    .map((name) => join(archives, name));
}

/** Where this machine gets Debian from, whatever that is. */
function mirror() {
  const wanted = ['Origin: Debian', 'Label: Debian', 'Component: main', 'Created-By: Packages'];
  const [uri] = run('apt-get', ['indextargets', '--format', '$(REPO_URI)', ...wanted]).split('\n');
  if (!uri)
    throw new Error('no Debian mirror in the sources of apt: apt-get update, then look at /etc/apt/sources.list.d');
  return uri;
}

/** Points every program in `building` at the loader and the libraries it will find in `folder`. */
function makeRelocated(building, folder, { triplet, loader }) {
  const places = [`usr/lib/${triplet}`, `lib/${triplet}`, 'usr/lib64', 'lib64', 'usr/lib', 'lib'];
  const home = places.find((place) => existsSync(join(building, place, loader)));
  if (home === undefined) throw new Error(`no ${loader} among the packages`);
  const libraries = [`usr/lib/${triplet}`, `lib/${triplet}`].map((place) => join(folder, place)).join(':');
  const majors = join(building, 'usr/lib/postgresql');
  const programs = [
    'usr/bin',
    'usr/sbin',
    ...(existsSync(majors) ? readdirSync(majors).map((major) => `usr/lib/postgresql/${major}/bin`) : []),
  ];
  for (const file of programs.flatMap((place) => filesIn(join(building, place)))) {
    if (asks(file, '--print-interpreter') === '') continue;
    run('patchelf', ['--set-interpreter', join(folder, home, loader), '--force-rpath', '--set-rpath', libraries, file]);
  }
  // A library with a search path of its own would look in the machine's folders, past the program's.
  const shared = filesIn(join(building, 'usr/lib')).filter((file) => /\.so(\.|$)/.test(file));
  for (const file of shared) {
    if (asks(file, '--print-rpath') === '') continue;
    run('patchelf', ['--force-rpath', '--set-rpath', libraries, file]);
  }
}

function filesIn(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return filesIn(path);
    return entry.isFile() ? [path] : [];
  });
}

/** What patchelf answers; empty for what is no program or library, or has no such thing. */
function asks(file, question) {
  try {
    return run('patchelf', [question, file]).trim();
  } catch {
    return '';
  }
}

function run(program, args) {
  try {
    return execFileSync(program, args, {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, LC_ALL: 'C' },
    });
  } catch (error) {
    const said = String(error.stderr ?? '').trim();
    throw new Error(`${program} ${args.filter((arg) => !/^-o$|::/.test(arg)).join(' ')}: ${said || error.message}`);
  }
}
