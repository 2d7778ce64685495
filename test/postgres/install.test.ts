import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmod,
  chown,
  constants,
  copyFile,
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { Failure } from '../../src/failure.ts';
import type { Log } from '../../src/log.ts';
import { silent } from '../../src/log.ts';
import { findPrograms } from '../../src/postgres/client.ts';
import { pgdgFingerprint } from '../../src/postgres/install/pgdg-key.ts';
import { type Installation, install } from '../../src/postgres/install.ts';
import type { Place } from '../../src/postgres/programs.ts';
import { formatVersion } from '../../src/postgres/version.ts';
import {
  type AptRepository,
  fakeClient,
  type RealPostgres,
  realPackages,
  realPostgres,
  SigningKey,
  startAptRepository,
  type TestPackage,
} from '../support/apt-repository.ts';

const execute = promisify(execFile);
const isRoot = process.getuid?.() === 0;
const nobody = 65534;

let folder: string;
let real: RealPostgres;
let packages: TestPackage[];
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pgassay-install-'));
  await chmod(folder, 0o755);
  real = await realPostgres();
  packages = realPackages(real);
  // Another user may have no way into the folder of this repository.
  await cp(join(import.meta.dirname, '../../src'), join(folder, 'src'), { recursive: true });
  await copyFile(process.execPath, join(folder, 'node'), constants.COPYFILE_FICLONE);
  await chmod(join(folder, 'node'), 0o755);
});
after(() => rm(folder, { recursive: true, force: true }));

let count = 0;
/** An empty tool cache that anybody may write to. */
async function toolCache(): Promise<string> {
  const path = join(folder, `tool-cache-${++count}`);
  await mkdir(path);
  await chmod(path, 0o777);
  return path;
}

async function withRepository(contents: readonly TestPackage[], work: (repository: AptRepository) => Promise<void>) {
  const repository = await startAptRepository(contents);
  try {
    await work(repository);
  } finally {
    await repository.close();
  }
}

function order(repository: AptRepository, cache: string, changes: Partial<Installation> = {}): Installation {
  return {
    major: real.major,
    atLeastMinor: 0,
    serverPrograms: false,
    toolCache: cache,
    because: 'a test',
    packages: { repository: repository.source, keyFile: repository.keyFile },
    log: silent,
    ...changes,
  };
}

async function refused(work: Promise<unknown>, pattern: RegExp, exitCode = 13): Promise<Failure> {
  const error = await work.then(
    () => assert.fail('not refused'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof Failure, String(error));
  assert.equal(error.exitCode, exitCode, error.message);
  assert.match(error.message, pattern);
  assert.ok(error.hint);
  return error;
}

/** Nothing that a later run would use or stumble over. */
async function assertNothingLeft(cache: string): Promise<void> {
  assert.deepEqual(await readdir(join(cache, 'pgassay-postgresql')), []);
}

function recorder(): { log: Log; lines: string[] } {
  const lines: string[] = [];
  const push = (line: string): void => void lines.push(line);
  return { lines, log: { info: push, notice: push, warn: push, progress: push, group: (_title, work) => work() } };
}

/** What apt and dpkg keep about this machine. */
async function machineState(): Promise<string> {
  const hash = createHash('sha256').update(await readFile('/var/lib/dpkg/status'));
  for (const path of [
    '/var/lib/apt/lists',
    '/var/cache/apt',
    '/var/cache/apt/archives',
    '/etc/apt',
    '/etc/apt/sources.list.d',
  ]) {
    hash.update(JSON.stringify(await readdir(path).catch(() => [])));
  }
  return hash.digest('hex');
}

/** Installs in a process of its own, as the user `nobody` when this one is root, and prints the programs as JSON. */
function installElsewhere(installation: Installation) {
  const { log: _log, signal: _signal, ...plain } = installation;
  const script = `
    import { install } from ${JSON.stringify(join(folder, 'src/postgres/install.ts'))};
    import { silent } from ${JSON.stringify(join(folder, 'src/log.ts'))};
    const programs = await install({ ...${JSON.stringify(plain)}, log: silent });
    console.log(JSON.stringify(programs));`;
  return spawn(join(folder, 'node'), ['--input-type=module', '-e', script], {
    env: { PATH: '/usr/bin:/bin', HOME: '/nonexistent' },
    cwd: '/',
    stdio: ['ignore', 'pipe', 'inherit'],
    ...(isRoot ? { uid: nobody, gid: nobody } : {}),
  });
}

describe('installing from an apt repository', () => {
  let repository: AptRepository;
  before(async () => {
    repository = await startAptRepository(packages);
  });
  after(() => repository.close());

  test('an unprivileged user gets programs that run, the machine stays as it was, and the next run needs no network', async () => {
    const cache = await toolCache();
    const before = await machineState();
    const child = installElsewhere(order(repository, cache));
    const printed = (await child.stdout.toArray()).join('');
    const programs = JSON.parse(printed);
    const version = `${real.major}.${real.minor}`;
    const tree = join(cache, 'pgassay-postgresql', `${version}-1.pgdg`, process.arch);
    assert.equal(programs.bin, join(tree, `usr/lib/postgresql/${real.major}/bin`));
    assert.deepEqual(programs.version, { major: real.major, minor: real.minor });
    assert.ok(await readFile(join(programs.libraryPath.split(':')[0], 'libpq.so.5')));
    const { stdout } = await execute(programs.psql, ['--version'], { env: { LD_LIBRARY_PATH: programs.libraryPath } });
    assert.match(stdout, new RegExp(`psql \\(PostgreSQL\\) ${version}`));
    assert.equal(await machineState(), before);
    assert.deepEqual(await readdir(join(cache, 'pgassay-postgresql')), [`${version}-1.pgdg`]);

    const asked = repository.requests.length;
    const again = await install(order(repository, cache, { log: silent }));
    assert.equal(again.bin, programs.bin);
    assert.equal(repository.requests.length, asked);
  });

  test('an unpacked server makes a cluster', async () => {
    const cache = await toolCache();
    const client = await install(order(repository, cache));
    const server = await install(order(repository, cache, { serverPrograms: true }));
    assert.notEqual(server.bin, client.bin);
    assert.ok(server.pgDump.startsWith(server.bin));
    const data = join(folder, 'data');
    await mkdir(data);
    if (isRoot) await chown(data, nobody, nobody);
    const { stdout } = await execute(
      join(server.bin, 'initdb'),
      ['-D', data, '-A', 'trust', '-U', 'postgres', '--no-sync'],
      {
        env: { PATH: '/usr/bin:/bin', LC_ALL: 'C', LD_LIBRARY_PATH: server.libraryPath },
        ...(isRoot ? { uid: nobody, gid: nobody } : {}),
      },
    );
    assert.match(stdout, /Success/);
  });

  test('two runs at once end with the same programs', async () => {
    const cache = await toolCache();
    const both = await Promise.all([install(order(repository, cache)), install(order(repository, cache))]);
    assert.equal(both[0].bin, both[1].bin);
    assert.equal((await readdir(join(cache, 'pgassay-postgresql'))).length, 1);
  });

  test('a broken tree of an earlier run is replaced', async () => {
    const cache = await toolCache();
    const first = await install(order(repository, cache));
    await writeFile(first.pgRestore, 'not a program any more');
    const second = await install(order(repository, cache));
    assert.equal(second.bin, first.bin);
    await execute(second.pgRestore, ['--version'], { env: { LD_LIBRARY_PATH: second.libraryPath } });
    assert.equal((await readdir(join(cache, 'pgassay-postgresql'))).length, 1);
  });

  test('a mirror in the file system and a tool cache with a space in its path work', async () => {
    const cache = join(await toolCache(), 'tool cache');
    const asked = repository.requests.length;
    const programs = await install(
      order(repository, cache, { packages: { repository: repository.fileSource, keyFile: repository.keyFile } }),
    );
    assert.equal(programs.version.major, real.major);
    assert.equal(repository.requests.length, asked);
    await assert.doesNotReject(readdir(programs.bin));
  });

  test('a client older than the server is replaced by a newer minor, and the log says why', async () => {
    const cache = await toolCache();
    const bin = join(folder, 'too-old');
    await mkdir(bin);
    for (const name of ['pg_dump', 'pg_restore', 'pg_dumpall']) {
      await writeFile(join(bin, name), `#!/bin/sh\necho "${name} (PostgreSQL) ${real.major}.1"\n`, { mode: 0o755 });
    }
    const places: Place[] = [{ bin, libraryPath: undefined, origin: 'too old' }];
    const { log, lines } = recorder();
    const access = { repository: repository.source, keyFile: repository.keyFile };
    const need = { server: { major: real.major, minor: real.minor }, use: 'dump' } as const;
    const options = { toolCache: cache, path: '', places, packages: access, log };
    const programs = await findPrograms(need, { ...options, install: true });
    assert.deepEqual(programs.version, need.server);
    const server = formatVersion(need.server);
    const line = new RegExp(
      `^installing PostgreSQL ${real.major} client from http.* \\(server is ${server}, found ${real.major}\\.1\\)$`,
    );
    assert.ok(
      lines.some((one) => line.test(one)),
      lines.join('\n'),
    );

    const later = await findPrograms(need, { ...options, install: false });
    assert.equal(later.bin, programs.bin, 'what was installed is found by the next run');
    await refused(
      findPrograms(need, { ...options, toolCache: await toolCache(), install: false }),
      new RegExp(`dumping a ${server} server needs; found ${real.major}\\.1 in ${bin}`),
    );
  });

  test('a repository that PostgreSQL did not sign is refused, and nothing is left', async () => {
    const cache = await toolCache();
    const pinned = order(repository, cache, { packages: { repository: repository.source } });
    await refused(
      install(pinned),
      new RegExp(`is not signed by the PostgreSQL project's key \\(${pgdgFingerprint}\\)`),
    );
    await assertNothingLeft(cache);
  });

  test('a key that did not sign the repository is refused, and nothing is left', async () => {
    const cache = await toolCache();
    const other = await SigningKey.create();
    try {
      const wrong = order(repository, cache, { packages: { repository: repository.source, keyFile: other.publicKey } });
      await refused(install(wrong), /is not signed by the key in PGASSAY_APT_KEY, so nothing was installed/);
    } finally {
      await other.destroy();
    }
    await assertNothingLeft(cache);
  });

  test('a repository that lags behind the server is named with its version', async () => {
    const cache = await toolCache();
    const wanted = order(repository, cache, { atLeastMinor: real.minor + 1 });
    await refused(
      install(wanted),
      new RegExp(
        `has PostgreSQL ${real.major}\\.${real.minor}, but ${real.major}\\.${real.minor + 1} or later is needed`,
      ),
    );
    await assertNothingLeft(cache);
  });

  test('a major that the repository does not have is named', async () => {
    const cache = await toolCache();
    await refused(install(order(repository, cache, { major: 14 })), /has no postgresql-client-14 for test-pgdg/);
    await assertNothingLeft(cache);
  });

  test('a cancelled install throws the reason and leaves nothing', async () => {
    const cache = await toolCache();
    const controller = new AbortController();
    const reason = new Error('cancelled');
    const { log } = recorder();
    const progress = (line: string): void => {
      if (line.startsWith('downloading')) controller.abort(reason);
    };
    await assert.rejects(
      install(order(repository, cache, { signal: controller.signal, log: { ...log, progress } })),
      reason,
    );
    await assertNothingLeft(cache);
  });

  test('an unreadable key and a source with options are bad input', async () => {
    const cache = await toolCache();
    const { source: address, keyFile } = repository;
    const missing = order(repository, cache, { packages: { repository: address, keyFile: '/nonexistent/key.asc' } });
    await refused(install(missing), /PGASSAY_APT_KEY: cannot read \/nonexistent\/key\.asc/, 2);
    for (const text of [
      `[trusted=yes] ${address}`,
      'http://mirror.example',
      'ftp://a b c',
      `${address}\ndeb http://other b c`,
    ]) {
      await refused(
        install(order(repository, cache, { packages: { repository: text, keyFile } })),
        /PGASSAY_APT_REPOSITORY is not/,
        2,
      );
    }
    await assertNothingLeft(cache);
  });
});

test('a changed package is refused, and nothing is left', async () => {
  await withRepository([fakeClient('17.12'), libpq()], async (repository) => {
    const cache = await toolCache();
    await repository.tamper('postgresql-client-17');
    await refused(
      install(order(repository, cache, { major: 17 })),
      /is not the one its signed index names, so nothing was installed/,
    );
    await assertNothingLeft(cache);
  });
});

test('a repository without signatures is refused', async () => {
  await withRepository([fakeClient('17.12'), libpq()], async (repository) => {
    const cache = await toolCache();
    await repository.unsign();
    await refused(install(order(repository, cache, { major: 17 })), /is not signed by/);
    await assertNothingLeft(cache);
  });
});

test('without a network one sentence says what could not be reached, without the credentials of its address', async () => {
  await withRepository([fakeClient('17.12'), libpq()], async (repository) => {
    const cache = await toolCache();
    await repository.disconnect();
    const address = repository.source.replace('//', '//me:s3cret@');
    const { log, lines } = recorder();
    const offline = order(repository, cache, {
      major: 17,
      log,
      packages: { repository: address, keyFile: repository.keyFile },
    });
    const error = await refused(
      install(offline),
      /^could not fetch packages from http:\/\/\*\*\*@127\.0\.0\.1:\d+\/: .*Connection refused/i,
    );
    assert.equal(error.transient, true);
    assert.match(error.hint ?? '', /https_proxy/);
    assert.doesNotMatch([error.message, error.hint, String(error.cause), ...lines].join('\n'), /s3cret/);
    await assertNothingLeft(cache);
  });
});

test('a killed install leaves nothing that a later run uses', async () => {
  await withRepository([fakeClient('17.12'), libpq()], async (repository) => {
    const cache = await toolCache();
    const reached = repository.stall('.deb');
    const child = installElsewhere(order(repository, cache, { major: 17 }));
    await reached;
    child.kill('SIGKILL');
    await new Promise((resolve) => child.once('exit', resolve));
    const left = await readdir(join(cache, 'pgassay-postgresql'));
    assert.equal(left.length, 1);
    assert.match(left[0] ?? '', /^\.partial-/);
    const need = { server: { major: 17, minor: 12 }, use: 'dump' } as const;
    await refused(
      findPrograms(need, { install: false, toolCache: cache, path: '', places: [], log: silent }),
      /found none at all/,
    );
  });
});

test('what the packages depend on may come from the distribution’s own sources', async () => {
  await withRepository([{ name: 'pgassay-dependency', version: '1.0', files: {} }], async (distribution) => {
    await withRepository([fakeClient('17.12', 'pgassay-dependency'), libpq()], async (repository) => {
      const etc = join(folder, 'etc-apt');
      await mkdir(join(etc, 'trusted.gpg.d'), { recursive: true });
      await cp(distribution.keyFile, join(etc, 'trusted.gpg.d/distribution.asc'));
      await mkdir(join(etc, 'sources.list.d'));
      // The same repository with another key, as a machine that has apt.postgresql.org configured.
      await writeFile(join(etc, 'sources.list.d/pgdg.list'), `deb [signed-by=/etc/other.asc] ${repository.source}\n`);
      await writeFile(join(etc, 'sources.list'), `deb ${distribution.source}\n`);
      const access = { repository: repository.source, keyFile: repository.keyFile, distribution: etc };
      const cache = await toolCache();
      const programs = await install(order(repository, cache, { major: 17, packages: access }));
      assert.equal(formatVersion(programs.version), '17.12');

      await rm(join(etc, 'sources.list'));
      const without = order(repository, await toolCache(), { major: 17, packages: access });
      await refused(install(without), /what postgresql-client-17 depends on cannot be had.*pgassay-dependency/);
    });
  });
});

function libpq(): TestPackage {
  return { name: 'libpq5', version: '99.1-1.pgdg', files: {} };
}
