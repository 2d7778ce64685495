import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Failure } from '../../src/failure.ts';
import {
  compareVersions,
  dumpSecurityWarning,
  fitsServer,
  formatVersion,
  oldestFittingMinor,
  parseProgramVersion,
  parseServerVersionNum,
  parseVersion,
  readsArchive,
  requireSupported,
  restoreSecurityWarning,
} from '../../src/postgres/version.ts';

const version = (text: string) => {
  const parsed = parseVersion(text);
  assert.ok(parsed, text);
  return parsed;
};

test('reads server_version_num', () => {
  assert.deepEqual(parseServerVersionNum('170011'), { major: 17, minor: 11 });
  assert.deepEqual(parseServerVersionNum(150020), { major: 15, minor: 20 });
  assert.deepEqual(parseServerVersionNum('180000\n'), { major: 18, minor: 0 });
  assert.deepEqual(parseServerVersionNum('90624'), { major: 9, minor: 6 });
  for (const text of ['', '17', '17.1', 'abc', '-170011']) assert.equal(parseServerVersionNum(text), undefined, text);
});

test('reads what PostgreSQL programs say of themselves', () => {
  const cases: [string, string | undefined][] = [
    ['pg_dump (PostgreSQL) 17.11 (Debian 17.11-0+deb13u1)\n', '17.11'],
    ['pg_restore (PostgreSQL) 16.15 (Ubuntu 16.15-0ubuntu0.24.04.1)', '16.15'],
    ['pg_dumpall (PostgreSQL) 15.20', '15.20'],
    ['pg_dump (PostgreSQL) 14.25 (Homebrew)', '14.25'],
    ['pg_dump (PostgreSQL) 18beta1', '18.0'],
    ['pg_dump (PostgreSQL) 18rc1 (Debian 18~rc1-1.pgdg130+1)', '18.0'],
    ['postgres (PostgreSQL) 19devel', '19.0'],
    ['pg_dump (PostgreSQL) 9.6.24', '9.6'],
    ['pg_dump (Something) 17.1', undefined],
    ['pg_dump: command not found', undefined],
    ['', undefined],
  ];
  for (const [line, expected] of cases) {
    const parsed = parseProgramVersion(line);
    assert.equal(parsed && formatVersion(parsed), expected, line);
  }
});

test('versions are ordered by number, not by text', () => {
  const sorted = ['17.9', '17.11', '9.6', '18.0'].map(version).sort(compareVersions).map(formatVersion);
  assert.deepEqual(sorted, ['9.6', '17.9', '17.11', '18.0']);
});

test("a client fits a server of its own major when its minor is not older, or is past the leak of the server's internals", () => {
  const cases: [client: string, server: string, fits: boolean][] = [
    ['17.11', '17.11', true],
    ['17.12', '17.11', true],
    ['17.10', '17.11', false],
    ['17.12', '17.14', true],
    ['17.11', '17.14', false],
    ['14.25', '14.30', true],
    ['15.18', '15.20', false],
    ['15.20', '15.21', true],
    ['16.15', '16.20', false],
    ['16.16', '16.20', true],
    ['18.6', '18.9', false],
    ['18.7', '18.9', true],
    ['18.7', '17.12', false],
    ['16.16', '17.12', false],
  ];
  for (const [client, server, fits] of cases) {
    assert.equal(fitsServer(version(client), version(server)), fits, `${client} dumps ${server}`);
  }
  assert.equal(oldestFittingMinor(version('17.14')), 12);
  assert.equal(oldestFittingMinor(version('17.4')), 4);
});

test('an archive is read by its own major and later ones', () => {
  assert.equal(readsArchive(version('17.2'), version('17.11')), true);
  assert.equal(readsArchive(version('18.0'), version('17.11')), true);
  assert.equal(readsArchive(version('16.16'), version('17.0')), false);
});

test('known-vulnerable minors are named, with the first safe one', () => {
  for (const [last, safe] of [
    ['14.22', '14.23'],
    ['15.17', '15.18'],
    ['16.13', '16.14'],
    ['17.9', '17.10'],
    ['18.3', '18.4'],
  ] as const) {
    assert.match(dumpSecurityWarning(version(last)) ?? '', new RegExp(`CVE-2026-6477.*${safe}`));
    assert.equal(dumpSecurityWarning(version(safe)), undefined);
  }
  assert.match(restoreSecurityWarning(version('17.11')) ?? '', /CVE-2026-116314.*17\.12/);
  assert.equal(restoreSecurityWarning(version('17.12')), undefined);
});

test('a server outside 14 to 18 is refused with exit 13', () => {
  for (const text of ['14.0', '18.7']) requireSupported(version(text));
  for (const [text, hint] of [
    ['13.23', /upgrade the server/],
    ['9.6', /upgrade the server/],
    ['19.0', /newer release of pgassay/],
  ] as const) {
    assert.throws(
      () => requireSupported(version(text)),
      (error) =>
        error instanceof Failure &&
        error.exitCode === 13 &&
        error.message.includes(text) &&
        hint.test(error.hint ?? ''),
    );
  }
});
