// node scripts/setup.mjs demo|test
// Sees to it that this machine has what `npm run demo` and `npm test` need, and installs what is missing: npm packages,
// PostgreSQL, and for the tests a few real servers and tools. Plain JavaScript for any Node since 18, without packages.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { unpackDebian } from './debian-root.mjs';
import { installWithApt, installWithBrew } from './system-packages.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const majors = [14, 15, 16, 17, 18];

/** GitHub's runners have Chrome. */
const browser = programPath('google-chrome') === undefined ? ['chromium'] : ['google-chrome'];

/** Programs the tests run for real, why, and where they come from. */
const tools = [
  { programs: ['radosgw', 'ceph-mon', 'ceph-osd'], why: 'a real S3 server', apt: ['radosgw', 'ceph-mon', 'ceph-osd'] },
  { programs: ['pgbouncer'], why: 'a real connection pooler', apt: ['pgbouncer'], brew: 'pgbouncer' },
  { programs: ['aws'], why: 'to fetch backups as users would', apt: ['awscli'], brew: 'awscli' },
  { programs: ['age'], why: 'to open encrypted backups as users would', apt: ['age'], brew: 'age' },
  { programs: ['jq'], why: "for the README's recovery lines", apt: ['jq'], brew: 'jq' },
  { programs: ['python3'], why: 'to ask libpq itself how it reads a URL', apt: ['python3'], linuxOnly: true },
  { programs: browser, why: 'a real browser, for the page', apt: ['chromium'] },
  { programs: ['openssl'], why: 'to make certificates', apt: ['openssl'], brew: 'openssl' },
  { programs: ['gpg', 'gpgconf'], why: 'to sign a package repository', apt: ['gnupg'], linuxOnly: true },
];
const postgresql = {
  programs: ['postgres', 'pg_dump'],
  why: 'PostgreSQL, server and client',
  apt: [],
  brew: 'postgresql@17',
};
const patchelf = { programs: ['patchelf'], why: 'to unpack a second PostgreSQL', apt: ['patchelf'] };

const purpose = process.argv[2];
if (purpose !== 'demo' && purpose !== 'test') {
  console.error('usage: node scripts/setup.mjs demo|test');
  process.exit(2);
}

try {
  installNpmPackages();
  const manager = ['apt-get', 'brew'].find((name) => programPath(name) !== undefined);
  const wanted = missing(purpose, manager);
  if (wanted.length > 0) installSystemPackages(wanted, manager);
  if (purpose === 'test') provideSecondMajor(manager);
} catch (error) {
  console.error(`setup: ${error.message}`);
  process.exit(1);
}

/** `npm ci` when the lock file is newer than what is installed, then a look at the node the scripts run on. */
function installNpmPackages() {
  const installed = join(root, 'node_modules', '.package-lock.json');
  const fresh =
    existsSync(installed) && statSync(installed).mtimeMs >= statSync(join(root, 'package-lock.json')).mtimeMs;
  if (!fresh) {
    const done = started('npm packages', existsSync(installed) ? 'the lock file has changed' : 'none are here yet');
    must(
      spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], { cwd: root, encoding: 'utf8' }),
      'npm ci',
    );
    done();
  }
  const node = join(root, 'node_modules', '.bin', 'node');
  const works = () => spawnSync(node, ['--version'], { encoding: 'utf8' }).stdout?.startsWith('v24.') === true;
  if (works()) return;
  const done = started('Node 24', 'the version the action runs on');
  must(spawnSync('npm', ['rebuild', 'node', '--loglevel=error'], { cwd: root, encoding: 'utf8' }), 'npm rebuild node');
  if (!works()) {
    throw new Error(`${node} does not run: the install script of the npm package "node" was skipped (ignore-scripts?)`);
  }
  done();
}

/** Which of these are not here. */
function missing(purpose, manager) {
  const wanted = [];
  if (systemMajors().length === 0) wanted.push(postgresql);
  if (purpose === 'demo') return wanted;
  for (const tool of tools) {
    if (tool.programs.every((name) => programPath(name) !== undefined)) continue;
    if (manager === 'brew' && tool.brew === undefined) {
      if (!tool.linuxOnly) console.log(`setup: not on this platform: ${tool.programs.join(', ')} (${tool.why})`);
      continue;
    }
    wanted.push(tool);
  }
  const debian = release().ID === 'debian';
  if (debian && secondMajor() !== undefined && programPath('patchelf') === undefined) wanted.push(patchelf);
  return wanted;
}

function installSystemPackages(wanted, manager) {
  const list = wanted.map(({ programs, why }) => `  ${programs.join(', ').padEnd(28)}  ${why}`).join('\n');
  if (manager === undefined) {
    throw new Error(
      `missing on this machine, which has neither apt nor Homebrew:\n${list}\n` +
        'Please install them with your package manager and run this again.',
    );
  }
  console.log(`setup: missing on this machine:\n${list}`);
  const done = started('them', `with ${manager}`);
  if (manager === 'brew') installWithBrew(wanted.map(({ brew }) => brew));
  else installWithApt({ packages: wanted.flatMap(({ apt }) => apt), postgresql: wanted.includes(postgresql) });
  if (systemMajors().length === 0) throw new Error('the packages hold no complete PostgreSQL 14 to 18');
  done();
}

/** 17 beside the machine's own, or 15 where its own is 17; undefined when both are here. */
function secondMajor() {
  const here = [...systemMajors(), ...unpackedMajors()];
  const others = here.filter((major) => major !== 17);
  if (!here.includes(17)) return 17;
  return others.length === 0 ? 15 : undefined;
}

function provideSecondMajor(manager) {
  const major = secondMajor();
  if (major === undefined) return;
  const done = started(`PostgreSQL ${major}`, 'a second major for the tests');
  if (manager === 'brew') {
    installWithBrew([`postgresql@${major}`]);
  } else if (release().ID === 'debian') {
    const folder = unpackFolder(major);
    unpackDebian({ suite: major === 17 ? 'trixie' : 'bookworm', folder, packages: [`postgresql-${major}`] });
  } else if (manager === 'apt-get' && offered(`postgresql-${major}`)) {
    installWithApt({ packages: [`postgresql-${major}`, `postgresql-client-${major}`], postgresql: false });
  } else {
    console.log('setup:   this machine has no source for it: tests across majors will say so');
    return;
  }
  if (secondMajor() !== undefined) throw new Error(`PostgreSQL ${major} was installed, but does not run`);
  done();
}

/**
 * `.cache/postgresql-N`. The servers run as another user when we are root, who may have no way into our folder:
 * then it is a link to a place that everybody can read.
 */
function unpackFolder(major) {
  const folder = join(root, '.cache', `postgresql-${major}`);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(join(root, '.cache'), { recursive: true });
  let closed = false;
  for (let path = dirname(folder); path !== dirname(path); path = dirname(path)) {
    if ((statSync(path).mode & 0o001) === 0) closed = true;
  }
  if (!closed || process.getuid?.() !== 0) return folder;
  const open = `/var/cache/pgassay/postgresql-${major}`;
  symlinkSync(open, folder);
  return open;
}

/** Majors whose server and client programs are here as packages, a client not older than its server. */
function systemMajors() {
  const brewed = (prefix) => majors.map((major) => [major, `${prefix}/opt/postgresql@${major}/bin`]);
  const places = [
    ...majors.map((major) => [major, `/usr/lib/postgresql/${major}/bin`]),
    ...brewed('/opt/homebrew'),
    ...brewed('/usr/local'),
  ];
  const found = places.filter(([, bin]) => complete(bin)).map(([major]) => major);
  if (found.length > 0 || purpose === 'test') return found;
  // A PostgreSQL of somebody's own making will do for the demo.
  const config = programPath('pg_config');
  if (config === undefined) return [];
  const bin = spawnSync(config, ['--bindir'], { encoding: 'utf8' }).stdout?.trim() ?? '';
  const major = complete(bin) ? version(join(bin, 'postgres'))?.[0] : undefined;
  return majors.includes(major) ? [major] : [];
}

function unpackedMajors() {
  return majors.filter((major) =>
    complete(join(root, '.cache', `postgresql-${major}`, `usr/lib/postgresql/${major}/bin`)),
  );
}

function complete(bin) {
  if (!['postgres', 'initdb', 'pg_dump', 'pg_restore', 'psql'].every((name) => existsSync(join(bin, name))))
    return false;
  const [server, client] = [version(join(bin, 'postgres')), version(join(bin, 'pg_dump'))];
  return server !== undefined && client !== undefined && (client[1] >= server[1] || Number.isNaN(server[1]));
}

/** [major, minor], or undefined for what does not run. */
function version(program) {
  const text = spawnSync(program, ['--version'], { encoding: 'utf8' }).stdout ?? '';
  const match = /\(PostgreSQL\) (\d+)(?:\.(\d+))?/.exec(text);
  return match === null ? undefined : [Number(match[1]), Number(match[2])];
}

function programPath(name) {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];
  return folders
    .filter((folder) => folder.startsWith('/'))
    .map((folder) => join(folder, name))
    .find((path) => existsSync(path));
}

function offered(name) {
  const { stdout } = spawnSync('apt-cache', ['policy', name], {
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C' },
  });
  return /Candidate: \d/.test(stdout ?? '');
}

/** /etc/os-release as a record; empty elsewhere. */
function release() {
  if (!existsSync('/etc/os-release')) return {};
  const lines = readFileSync('/etc/os-release', 'utf8').split('\n');
  return Object.fromEntries(
    lines.map((line) => /^(\w+)="?(.*?)"?$/.exec(line)).flatMap((match) => (match ? [[match[1], match[2]]] : [])),
  );
}

function started(what, why) {
  console.log(`setup: installing ${what} (${why}) …`);
  const from = Date.now();
  return () => console.log(`setup:   done in ${((Date.now() - from) / 1000).toFixed(1)} s`);
}

function must(result, name) {
  if (result.error !== undefined) throw new Error(`${name}: ${result.error.message}`);
  if (result.status === 0) return;
  // npm says what is wrong first and explains its options last.
  const said = `${result.stderr}${result.stdout}`.trim().split('\n').slice(0, 20);
  throw new Error(`${name} failed:\n${said.join('\n')}`);
}
