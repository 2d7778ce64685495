import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { chmod, cp, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';

const execute = promisify(execFile);
const repositoryRoot = join(import.meta.dirname, '../..');

/** A package to build: paths in the package and the file or folder each is copied from, or a program's text. */
export interface TestPackage {
  readonly name: string;
  readonly version: string;
  readonly depends?: string;
  readonly files: Readonly<Record<string, { readonly from: string } | { readonly script: string }>>;
}

/** A PostgreSQL that runs on this machine, as a tree in Debian's layout. */
export interface RealPostgres {
  readonly root: string;
  readonly major: number;
  readonly minor: number;
}

/**
 * Real programs to put into packages: the tree PGASSAY_TEST_POSTGRESQL names, the one the project's set-up unpacks, or
 * the newest the machine has.
 */
export async function realPostgres(): Promise<RealPostgres> {
  const roots = [process.env.PGASSAY_TEST_POSTGRESQL, join(repositoryRoot, '.cache/postgresql-17'), '/'];
  for (const root of roots) {
    if (!root || !existsSync(join(root, 'usr/lib/postgresql'))) continue;
    const majors = readdirSync(join(root, 'usr/lib/postgresql')).map(Number);
    for (const major of majors.toSorted((a, b) => b - a)) {
      const program = join(root, `usr/lib/postgresql/${major}/bin/postgres`);
      if (!existsSync(program)) continue;
      const { stdout } = await execute(program, ['--version']);
      return { root, major, minor: Number(/ \d+\.(\d+)/.exec(stdout)?.[1]) };
    }
  }
  throw new Error('no PostgreSQL server in /usr/lib/postgresql to make packages of: run the set-up');
}

/** `postgresql-client-N`, `postgresql-N` and `libpq5` as apt.postgresql.org splits them. */
export function realPackages({ root, major, minor }: RealPostgres): TestPackage[] {
  const version = `${major}.${minor}-1.pgdg`;
  const bin = `usr/lib/postgresql/${major}/bin`;
  const lib = `usr/lib/postgresql/${major}/lib`;
  const share = `usr/share/postgresql/${major}`;
  const from = (path: string) => ({ [path]: { from: join(root, path) } });
  const programs = (names: readonly string[]) => Object.assign({}, ...names.map((name) => from(`${bin}/${name}`)));
  const multiarch = readdirSync(join(root, 'usr/lib')).find((name) =>
    existsSync(join(root, 'usr/lib', name, 'libpq.so.5')),
  );
  if (multiarch === undefined) throw new Error(`no libpq.so.5 below ${root}usr/lib`);
  const modules = readdirSync(join(root, lib)).filter(
    (name) => /\.so$/.test(name) && !/llvm|perl|python|tcl/.test(name),
  );
  return [
    {
      name: `postgresql-client-${major}`,
      version,
      depends: 'libpq5',
      files: programs(['pg_dump', 'pg_restore', 'pg_dumpall', 'psql']),
    },
    {
      name: `postgresql-${major}`,
      version,
      depends: `postgresql-client-${major}`,
      files: {
        ...programs(['initdb', 'postgres', 'pg_ctl']),
        ...from(share),
        ...Object.assign({}, ...modules.map((name) => from(`${lib}/${name}`))),
      },
    },
    // Newer than any the machine has, as PostgreSQL's own repository always is.
    { name: 'libpq5', version: '99.1-1.pgdg', files: from(`usr/lib/${multiarch}/libpq.so.5`) },
  ];
}

/** A client package whose programs only know their version. */
export function fakeClient(version: string, depends?: string): TestPackage {
  const [major] = version.split('.');
  const program = (name: string) => ({ script: `#!/bin/sh\necho "${name} (PostgreSQL) ${version}"\n` });
  const names = ['pg_dump', 'pg_restore', 'pg_dumpall'];
  return {
    name: `postgresql-client-${major}`,
    version: `${version}-1.pgdg`,
    ...(depends === undefined ? {} : { depends }),
    files: Object.fromEntries(names.map((name) => [`usr/lib/postgresql/${major}/bin/${name}`, program(name)])),
  };
}

/** A signed apt repository on a loopback port. */
export interface AptRepository {
  /** Suite `test-pgdg`, component `main`, as PGASSAY_APT_REPOSITORY takes it. */
  readonly source: string;
  /** The same over the file system. */
  readonly fileSource: string;
  /** The armored public key it is signed with. */
  readonly keyFile: string;
  readonly folder: string;
  /** Every path that was asked for, in order. */
  readonly requests: readonly string[];
  /** Makes a package's file differ from the signed index, at the same size. */
  tamper(name: string): Promise<void>;
  /** Takes every signature away. */
  unsign(): Promise<void>;
  /** Never answers a request whose path ends like this; resolves when one has come. */
  stall(suffix: string): Promise<void>;
  /** Stops answering at all. */
  disconnect(): Promise<void>;
  close(): Promise<void>;
}

/** A key pair of its own in a folder of its own: gpg never sees the user's. */
export class SigningKey {
  readonly home: string;
  readonly publicKey: string;

  private constructor(home: string) {
    this.home = home;
    this.publicKey = join(home, 'public.asc');
  }

  static async create(): Promise<SigningKey> {
    const key = new SigningKey(await mkdtemp(join(tmpdir(), 'pgassay-gpg-')));
    await chmod(key.home, 0o700);
    await key.gpg(['--passphrase', '', '--quick-generate-key', 'pgassay test', 'ed25519', 'sign', 'never']);
    await key.gpg(['--armor', '--output', key.publicKey, '--export']);
    await chmod(key.publicKey, 0o644);
    return key;
  }

  async gpg(args: readonly string[]): Promise<void> {
    await execute('gpg', ['--homedir', this.home, '--batch', '--quiet', '--pinentry-mode', 'loopback', ...args]);
  }

  async destroy(): Promise<void> {
    await execute('gpgconf', ['--homedir', this.home, '--kill', 'all']).catch(() => {});
    await rm(this.home, { recursive: true, force: true });
  }
}

export async function startAptRepository(packages: readonly TestPackage[]): Promise<AptRepository> {
  const folder = await mkdtemp(join(tmpdir(), 'pgassay-apt-repository-'));
  await chmod(folder, 0o755);
  const key = await SigningKey.create();
  const keyFile = join(folder, 'key.asc');
  await cp(key.publicKey, keyFile);
  const { stdout } = await execute('dpkg', ['--print-architecture']);
  const arch = stdout.trim();
  for (const one of packages) await build(folder, one, arch);
  await publish(folder, packages, arch, key);

  const requests: string[] = [];
  const stalls: { suffix: string; reached: () => void }[] = [];
  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url ?? '/');
    requests.push(path);
    const stall = stalls.find(({ suffix }) => path.endsWith(suffix));
    if (stall === undefined) void serve(join(folder, path), response);
    else stall.reached();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const suite = join(folder, 'dists/test-pgdg');
  return {
    source: `http://127.0.0.1:${port}/ test-pgdg main`,
    fileSource: `file:${folder} test-pgdg main`,
    keyFile,
    folder,
    requests,
    async tamper(name) {
      const one = packages.find((candidate) => candidate.name === name);
      if (one === undefined) throw new Error(`no package ${name}`);
      const path = join(folder, fileName(one, arch));
      const bytes = await readFile(path);
      bytes[bytes.length - 100] = (bytes[bytes.length - 100] ?? 0) ^ 1;
      await writeFile(path, bytes);
    },
    async unsign() {
      await rm(join(suite, 'InRelease'), { force: true });
      await rm(join(suite, 'Release.gpg'), { force: true });
    },
    stall: (suffix) => new Promise<void>((reached) => stalls.push({ suffix, reached })),
    disconnect: () => stop(server),
    async close() {
      await stop(server);
      await key.destroy();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function serve(path: string, response: ServerResponse): Promise<void> {
  const bytes = await readFile(path).catch(() => undefined);
  response.writeHead(bytes === undefined ? 404 : 200, { 'content-length': bytes?.length ?? 0 });
  response.end(bytes);
}

async function stop(server: Server): Promise<void> {
  if (!server.listening) return;
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeAllConnections();
  await closed;
}

function fileName({ name, version }: TestPackage, arch: string): string {
  return `pool/main/${name}_${version}_${arch}.deb`;
}

function control({ name, version, depends }: TestPackage, arch: string): string {
  return [
    `Package: ${name}`,
    `Version: ${version}`,
    `Architecture: ${arch}`,
    'Maintainer: pgassay tests <tests@example.org>',
    ...(depends === undefined ? [] : [`Depends: ${depends}`]),
    'Description: PostgreSQL programs for a test',
    '',
  ].join('\n');
}

async function build(folder: string, one: TestPackage, arch: string): Promise<void> {
  const root = await mkdtemp(join(tmpdir(), 'pgassay-deb-'));
  await chmod(root, 0o755);
  await mkdir(join(root, 'DEBIAN'));
  await writeFile(join(root, 'DEBIAN/control'), control(one, arch));
  for (const [path, content] of Object.entries(one.files)) {
    const to = join(root, path);
    await mkdir(dirname(to), { recursive: true });
    if ('script' in content) await writeFile(to, content.script, { mode: 0o755 });
    else await cp(content.from, to, { recursive: true, dereference: true });
  }
  const deb = join(folder, fileName(one, arch));
  await mkdir(dirname(deb), { recursive: true });
  await execute('dpkg-deb', ['-Zgzip', '-z1', '--root-owner-group', '--build', root, deb]);
  await rm(root, { recursive: true, force: true });
}

async function publish(folder: string, packages: readonly TestPackage[], arch: string, key: SigningKey): Promise<void> {
  const stanzas: string[] = [];
  for (const one of packages) {
    const path = join(folder, fileName(one, arch));
    const { size } = await stat(path);
    const digest = sha256(await readFile(path));
    stanzas.push(`${control(one, arch)}Filename: ${fileName(one, arch)}\nSize: ${size}\nSHA256: ${digest}\n`);
  }
  const index = Buffer.from(stanzas.join('\n'));
  const suite = join(folder, 'dists/test-pgdg');
  const indexPath = `main/binary-${arch}/Packages`;
  await mkdir(dirname(join(suite, indexPath)), { recursive: true });
  await writeFile(join(suite, indexPath), index);
  const release = [
    'Origin: pgassay tests',
    'Suite: test-pgdg',
    'Codename: test-pgdg',
    `Date: ${new Date().toUTCString().replace('GMT', 'UTC')}`,
    `Architectures: ${arch}`,
    'Components: main',
    'SHA256:',
    ` ${sha256(index)} ${index.length} ${indexPath}`,
    '',
  ].join('\n');
  await writeFile(join(suite, 'Release'), release);
  await key.gpg(['--armor', '--clearsign', '--output', join(suite, 'InRelease'), join(suite, 'Release')]);
  await key.gpg(['--armor', '--detach-sign', '--output', join(suite, 'Release.gpg'), join(suite, 'Release')]);
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
