import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { pgdgFingerprint, pgdgKey } from '../../src/postgres/install/pgdg-key.ts';
import { packageAccess, packageManager } from '../../src/postgres/install.ts';

const execute = promisify(execFile);

test("the pinned key is the PostgreSQL project's", async () => {
  const home = await mkdtemp(join(tmpdir(), 'pgassay-gpg-'));
  try {
    await chmod(home, 0o700);
    await writeFile(join(home, 'key.asc'), pgdgKey);
    const { stdout } = await execute('gpg', ['--homedir', home, '--show-keys', '--with-colons', join(home, 'key.asc')]);
    const fingerprints = [...stdout.matchAll(/^fpr:+([0-9A-F]{40}):/gm)].map((match) => match[1]);
    assert.deepEqual(fingerprints, [pgdgFingerprint]);
    assert.equal(pgdgFingerprint, 'B97B0AFCAA1A47F044F244A07FCC7D46ACCC4CF8');
  } finally {
    await rm(home, { recursive: true, force: true });
  }
});

test('the edge hands on proxies in either spelling, the mirror and its key', () => {
  const environment = {
    HTTPS_PROXY: 'http://p:1',
    no_proxy: 'a',
    NO_PROXY: 'b',
    PGASSAY_APT_REPOSITORY: '',
    PGASSAY_APT_KEY: '/k',
  };
  assert.deepEqual(packageAccess(environment), {
    proxies: { https_proxy: 'http://p:1', no_proxy: 'a' },
    repository: undefined,
    keyFile: '/k',
  });
});

test('the package manager is the one the machine has, and having none is said in a sentence', async () => {
  const having =
    (...paths: string[]) =>
    async (path: string) =>
      paths.includes(path);
  assert.deepEqual(await packageManager('linux', having('/usr/bin/apt-get', '/usr/bin/dpkg-deb')), { kind: 'apt' });
  assert.deepEqual(await packageManager('linux', having('/sbin/apk')), { kind: 'apk', path: '/sbin/apk' });
  assert.deepEqual(await packageManager('darwin', having('/opt/homebrew/bin/brew')), {
    kind: 'homebrew',
    path: '/opt/homebrew/bin/brew',
  });
  const none = await packageManager('linux', having('/usr/bin/dnf'));
  assert.ok(none.kind === 'none');
  assert.match(none.says, /none of apt, apk and Homebrew/);
  const windows = await packageManager('win32', having());
  assert.ok(windows.kind === 'none');
  assert.match(windows.says, /Windows/);
});
