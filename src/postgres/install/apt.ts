import { appendFile, copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { getCACertificates } from 'node:tls';
import { Failure } from '../../failure.ts';
import type { Output } from '../../program.ts';
import { pgdgFingerprint, pgdgKey } from './pgdg-key.ts';
import { cannotInstall, complaint, manage, type Order, type Unpacked, withoutCredentials } from './unpacked.ts';

const aptGet = '/usr/bin/apt-get';
const aptCache = '/usr/bin/apt-cache';
const dpkgDeb = '/usr/bin/dpkg-deb';
const systemCertificates = '/etc/ssl/certs/ca-certificates.crt';

/** A private apt: its own lists, cache, sources and keys, and the machine's package state to read only. */
interface Apt {
  readonly folder: string;
  readonly env: Readonly<Record<string, string>>;
  /** Where packages are from, as a person would say it. */
  readonly source: string;
  readonly ownKey: boolean;
  readonly signal: AbortSignal | undefined;
}

/**
 * Downloads PostgreSQL's packages, and those libraries they need that the machine lacks, with apt's own signature
 * checks, and unpacks them into `<work>/tree`. Needs no root, reads the machine's package state and changes nothing of it.
 */
export async function unpackWithApt(order: Order, work: string): Promise<Unpacked> {
  // Package sources cannot quote the path of a key.
  const quotable = /^[\w/.+@-]+$/.test(work);
  const folder = quotable ? join(work, 'apt') : await mkdtemp('/tmp/pgassay-apt-');
  try {
    return await unpack(order, folder, join(work, 'tree'));
  } finally {
    if (!quotable) await rm(folder, { recursive: true, force: true });
  }
}

async function unpack(order: Order, folder: string, tree: string): Promise<Unpacked> {
  const repository = parseRepository(order.packages.repository) ?? (await pgdg());
  const apt = await privateApt(order, folder, repository);

  order.log.progress(`reading the package lists of ${apt.source}`);
  const update = await aptRun(apt, ['update'], 10);
  if (update.code !== 0 || !(await hasLists(apt))) throw updateFailure(apt, update);

  const client = `postgresql-client-${order.major}`;
  const names = [client, ...(order.serverPrograms ? [`postgresql-${order.major}`] : []), 'libpq5'];
  const wanted = await newestOf(apt, names, repository);
  order.log.progress(`downloading ${wanted.join(', ')}`);
  let download = await fetchPackages(apt, wanted);
  if (download.code !== 0 && lacksDependencies(download)) {
    order.log.progress("reading the distribution's own package lists too, for what PostgreSQL's packages depend on");
    await addDistribution(apt, order.packages.distribution ?? '/etc/apt', repository.uri);
    await aptRun(apt, ['update'], 10);
    download = await fetchPackages(apt, wanted);
  }
  if (download.code !== 0) throw downloadFailure(apt, download, client);

  const archives = join(folder, 'cache/archives');
  const packages = (await readdir(archives)).filter((name) => name.endsWith('.deb') && isNeeded(name));
  const named = packages.find((name) => name.startsWith(`${client}_`));
  if (named === undefined) throw cannotInstall(`${apt.source} gave no ${client}`);
  order.log.progress(`unpacking ${packages.length} packages`);
  await mkdir(tree, { mode: 0o755 });
  for (const name of packages) {
    const output = await dpkg(apt, ['-x', join(archives, name), tree]);
    if (output.code !== 0) throw disk(output) ?? cannotInstall(`could not unpack ${name}: ${complaint(output)}`);
  }
  const version = await dpkg(apt, ['-f', join(archives, named), 'Version']);
  return { tree, packageVersion: version.stdout.trim(), source: apt.source };
}

/** A C library of another build than the running loader crashes every program, and the machine always has one. */
function isNeeded(name: string): boolean {
  if (/^(libc6|libc-bin|libc-dev)/.test(name)) return false;
  return /^(postgresql-|lib)/.test(name);
}

interface Repository {
  readonly uri: string;
  /** Suite and components. */
  readonly rest: string;
}

async function pgdg(): Promise<Repository> {
  const release = await readFile('/etc/os-release', 'utf8').catch(() => '');
  const field = (name: string): string | undefined => new RegExp(`^${name}="?([\\w.-]+)"?$`, 'm').exec(release)?.[1];
  const codename = field('UBUNTU_CODENAME') ?? field('VERSION_CODENAME');
  if (codename === undefined) {
    throw cannotInstall('/etc/os-release names no VERSION_CODENAME, so the repository for this system is unknown', {
      hints: ['set PGASSAY_APT_REPOSITORY, for example: https://apt.postgresql.org/pub/repos/apt bookworm-pgdg main'],
    });
  }
  return { uri: 'https://apt.postgresql.org/pub/repos/apt', rest: `${codename}-pgdg main` };
}

/** `uri suite component…`, as in a sources.list line. Options are refused: `trusted=yes` would turn the signature check off. */
function parseRepository(text: string | undefined): Repository | undefined {
  if (text === undefined) return undefined;
  const match = /^(?:deb +)?((?:https?|file|copy):[^\s[\]]+) +([^\s[\]]+(?: +[^\s[\]]+)*)$/.exec(text.trim());
  const [, uri, rest] = match ?? [];
  if (uri === undefined || rest === undefined) {
    throw new Failure('input', 'badInput', 'PGASSAY_APT_REPOSITORY is not a package source', {
      hint: 'write address, suite and components, without options: http://mirror.internal/pgdg bookworm-pgdg main',
    });
  }
  // apt uses packages of file: where they are; copy: puts them beside the others.
  return { uri: uri.replace(/^file:/, 'copy:'), rest };
}

async function privateApt(order: Order, folder: string, repository: Repository): Promise<Apt> {
  const arch = await dpkgArchitecture(order);
  for (const name of ['lists/partial', 'cache/archives/partial', 'etc/empty', 'etc/sources', 'log', 'tmp']) {
    await mkdir(join(folder, name), { recursive: true });
  }
  const { keyFile } = order.packages;
  const key = keyFile === undefined ? Buffer.from(pgdgKey) : await readKey(keyFile);
  const keyPath = join(folder, key.includes('-----BEGIN PGP') ? 'key.asc' : 'key.gpg');
  await writeFile(keyPath, key);
  await writeFile(
    join(folder, 'etc/sources/pgassay.list'),
    `deb [arch=${arch} signed-by=${keyPath}] ${repository.uri} ${repository.rest}\n`,
    { mode: 0o600 },
  );
  await writeFile(join(folder, 'apt.conf'), await configuration(order, folder), { mode: 0o600 });
  return {
    folder,
    env: {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      LC_ALL: 'C',
      HOME: folder,
      TMPDIR: join(folder, 'tmp'),
      DEBIAN_FRONTEND: 'noninteractive',
      APT_CONFIG: join(folder, 'apt.conf'),
      ...order.packages.proxies,
    },
    source: /^https:\/\/apt\.postgresql\.org\//.test(repository.uri)
      ? 'apt.postgresql.org'
      : withoutCredentials(repository.uri.replace(/^copy:/, 'file:')),
    ownKey: keyFile !== undefined,
    signal: order.signal,
  };
}

/**
 * apt reads APT_CONFIG first and then only the folders it names, so nothing of the machine's apt.conf.d takes part
 * (Docker's images delete the system's cache in a hook there) except the ways through the network, copied here.
 */
async function configuration(order: Order, folder: string): Promise<string> {
  const certificates = await ownCertificates(folder);
  return [
    `Dir::State "${folder}";`,
    `Dir::State::lists "${folder}/lists";`,
    'Dir::State::status "/var/lib/dpkg/status";',
    `Dir::Cache "${folder}/cache";`,
    `Dir::Log "${folder}/log";`,
    `Dir::Etc "${folder}/etc";`,
    'Dir::Etc::sourcelist "/dev/null";',
    `Dir::Etc::sourceparts "${folder}/etc/sources";`,
    'Dir::Etc::main "/dev/null";',
    `Dir::Etc::parts "${folder}/etc/empty";`,
    'Dir::Etc::preferences "/dev/null";',
    `Dir::Etc::preferencesparts "${folder}/etc/empty";`,
    'Dir::Etc::trusted "/dev/null";',
    `Dir::Etc::trustedparts "${folder}/etc/empty";`,
    'APT::Sandbox::User "root";',
    'APT::Update::Error-Mode "any";',
    'APT::Install-Recommends "false";',
    'Debug::NoLocking "true";',
    'Acquire::Languages "none";',
    'Acquire::Retries "3";',
    'Acquire::http::Timeout "30";',
    'Acquire::https::Timeout "30";',
    ...(await machineNetwork(order)),
    ...(certificates === undefined ? [] : [`Acquire::https::CAInfo "${certificates}";`]),
    '',
  ].join('\n');
}

async function machineNetwork(order: Order): Promise<string[]> {
  return (await machineSettings(order.signal)).filter((line) => /^Acquire::(https?::|Force)/.test(line));
}

async function machineSettings(signal: AbortSignal | undefined): Promise<string[]> {
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' };
  const dump = await manage({ path: '/usr/bin/apt-config', args: ['dump', 'Acquire'], env }, 1, signal);
  return dump.stdout.split('\n');
}

/** Slim images have no certificates, and NODE_EXTRA_CA_CERTS names those of a company's proxy: apt gets what Node trusts. */
async function ownCertificates(folder: string): Promise<string | undefined> {
  const extra = getCACertificates('extra');
  const system = await readFile(systemCertificates, 'utf8').catch(() => undefined);
  if (system !== undefined && extra.length === 0) return undefined;
  const path = join(folder, 'certificates.pem');
  await writeFile(path, [system ?? getCACertificates('bundled').join('\n'), ...extra].join('\n'));
  return path;
}

async function readKey(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    throw new Failure('input', 'badInput', `PGASSAY_APT_KEY: cannot read ${path}`, {
      cause,
      hint: "give the path of the public key your mirror is signed with, or leave it empty for PostgreSQL's own",
    });
  }
}

async function dpkgArchitecture(order: Order): Promise<string> {
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' };
  const output = await manage({ path: '/usr/bin/dpkg', args: ['--print-architecture'], env }, 1, order.signal);
  return output.stdout.trim();
}

function dpkg(apt: Apt, args: readonly string[]): Promise<Output> {
  return manage({ path: dpkgDeb, args, env: apt.env }, 5, apt.signal);
}

function aptRun(apt: Apt, args: readonly string[], minutes: number): Promise<Output> {
  return manage({ path: aptGet, args: ['-q', '-y', ...args], env: apt.env, cwd: apt.folder }, minutes, apt.signal);
}

/** `name=version` of the newest each package has in the repository; the machine may have others installed, newer ones too. */
async function newestOf(apt: Apt, names: readonly string[], repository: Repository): Promise<string[]> {
  const table = await manage({ path: aptCache, args: ['madison', ...names], env: apt.env }, 1, apt.signal);
  return names.map((name) => {
    const rows = table.stdout.split('\n').map((row) => row.split('|').map((cell) => cell.trim()));
    const version = rows.find(([first]) => first === name)?.[1];
    if (version !== undefined) return `${name}=${version}`;
    const [suite = ''] = repository.rest.split(' ');
    throw cannotInstall(`${apt.source} has no ${name} for ${suite}`, {
      hints: ['use a runner of a release that PostgreSQL builds packages for'],
    });
  });
}

/** `--reinstall`: a package that the machine has in this very version is wanted in the tree all the same. */
function fetchPackages(apt: Apt, packages: readonly string[]): Promise<Output> {
  const options = ['--download-only', '--no-install-recommends', '--fix-broken', '--reinstall'];
  const freedoms = ['--allow-downgrades', '--allow-change-held-packages'];
  return aptRun(apt, ['install', ...options, ...freedoms, ...packages], 20);
}

async function hasLists(apt: Apt): Promise<boolean> {
  return (await readdir(join(apt.folder, 'lists'))).some(
    (name) => name.endsWith('_Packages') || /_Packages\./.test(name),
  );
}

/** Adds the machine's own sources, except entries for the very repository: apt refuses one source with two keys. */
async function addDistribution(apt: Apt, folder: string, uri: string): Promise<void> {
  const address = uri.replace(/\/+$/, '').replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  const sameRepository = new RegExp(`apt\\.postgresql\\.org|${address}/?(\\s|$)`);
  const parts = await readdir(join(folder, 'sources.list.d')).catch((): string[] => []);
  const files = [join(folder, 'sources.list'), ...parts.map((name) => join(folder, 'sources.list.d', name))];
  for (const file of files) {
    if (!/\.(list|sources)$/.test(file)) continue;
    const text = await readFile(file, 'utf8').catch(() => '');
    if (text === '' || sameRepository.test(text)) continue;
    await copyFile(file, join(apt.folder, 'etc/sources', `machine-${basename(file)}`));
  }
  const settings = [
    `Dir::Etc::trusted "${folder}/trusted.gpg";`,
    `Dir::Etc::trustedparts "${folder}/trusted.gpg.d";`,
    ...(await machineSettings(apt.signal)).filter((line) => /^Acquire::Check-(Valid-Until|Date) /.test(line)),
    '',
  ];
  await appendFile(join(apt.folder, 'apt.conf'), settings.join('\n'));
}

function said(output: Output): string {
  return `${output.stdout}\n${output.stderr}`;
}

function lacksDependencies(output: Output): boolean {
  return /unmet dependencies|not installable|held broken packages|not going to be installed/i.test(said(output));
}

function disk(output: Output): Failure | undefined {
  if (!/No space left on device|enough free space/i.test(said(output))) return undefined;
  return new Failure('client', 'disk', `no room in the tool cache to install PostgreSQL: ${complaint(output)}`, {
    hint: 'free some 300 MB, or install PostgreSQL on the machine before this step',
  });
}

function updateFailure(apt: Apt, output: Output): Failure {
  const full = disk(output);
  if (full !== undefined) return full;
  if (
    /is not signed|NO_PUBKEY|BADSIG|EXPKEYSIG|REVKEYSIG|GPG error|OpenPGP signature|Clearsigned file/i.test(
      said(output),
    )
  ) {
    const key = apt.ownKey ? 'the key in PGASSAY_APT_KEY' : `the PostgreSQL project's key (${pgdgFingerprint})`;
    return cannotInstall(`${apt.source} is not signed by ${key}, so nothing was installed`, {
      hints: [
        'somebody between this machine and the repository may be changing it; a mirror signed by its own key needs PGASSAY_APT_KEY',
      ],
      cause: new Error(complaint(output)),
    });
  }
  return unreachable(apt, output);
}

function unreachable(apt: Apt, output: Output): Failure {
  const why =
    /^(?:[EW]: )?(?:Failed to fetch \S+ +|.*?Err:\d+ .*\n\s*)(.+)$/m.exec(said(output))?.[1] ?? complaint(output);
  return cannotInstall(`could not fetch packages from ${apt.source}: ${withoutCredentials(why.trim())}`, {
    hints: ['check the network; behind a proxy set https_proxy; for a mirror set PGASSAY_APT_REPOSITORY'],
    transient: true,
  });
}

function downloadFailure(apt: Apt, output: Output, client: string): Failure {
  const full = disk(output);
  if (full !== undefined) return full;
  const text = said(output);
  if (/Hash Sum mismatch|File has unexpected size|unauthenticated/i.test(text)) {
    const message = `a package of ${apt.source} is not the one its signed index names, so nothing was installed`;
    return cannotInstall(message, {
      hints: [
        'a mirror in the middle of an update clears in minutes; if it stays, something on the way changes the packages',
      ],
      cause: new Error(complaint(output)),
    });
  }
  if (lacksDependencies(output)) {
    return cannotInstall(`what ${client} depends on cannot be had on this machine: ${dependency(text)}`, {
      hints: ["check that the distribution's own package sources work (apt-get update)"],
    });
  }
  return unreachable(apt, output);
}

function dependency(text: string): string {
  const own = /^ (?:postgresql-\S+|libpq5) : (Depends: .+)$/m.exec(text) ?? /(Depends: .+)/.exec(text);
  return own?.[1]?.trim() ?? 'unmet dependencies';
}
