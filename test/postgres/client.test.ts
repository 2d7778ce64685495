import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Failure } from '../../src/failure.ts';
import { silent } from '../../src/log.ts';
import { type ClientOptions, findPrograms, type Need } from '../../src/postgres/client.ts';
import type { Place } from '../../src/postgres/programs.ts';
import { formatVersion, parseVersion } from '../../src/postgres/version.ts';

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pgassay-client-'));
});
after(() => rm(folder, { recursive: true, force: true }));

const names = ['pg_dump', 'pg_restore', 'pg_dumpall'];

/** A folder with programs that only say their version. */
async function programs(name: string, version: string, which = names): Promise<string> {
  const bin = join(folder, name);
  await mkdir(bin, { recursive: true });
  for (const program of which) {
    const path = join(bin, program);
    await writeFile(path, `#!/bin/sh\necho "${program} (PostgreSQL) ${version}"\n`);
    await chmod(path, 0o755);
  }
  return bin;
}

const place = (bin: string): Place => ({ bin, libraryPath: undefined, origin: `the test's ${bin}` });

function find(use: Need['use'], server: string, options: Partial<ClientOptions> = {}) {
  const version = parseVersion(server);
  assert.ok(version);
  const toolCache = join(folder, 'empty-tool-cache');
  return findPrograms(
    { server: version, use },
    { install: false, toolCache, path: '', places: [], log: silent, ...options },
  );
}

/** The failure of exit 13 whose message matches. */
async function refused(work: Promise<unknown>, ...patterns: RegExp[]): Promise<Failure> {
  const error = await work.then(
    () => assert.fail('not refused'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof Failure, String(error));
  assert.equal(error.stage, 'client');
  assert.equal(error.exitCode, 13);
  for (const pattern of patterns) assert.match(error.message, pattern);
  return error;
}

test('a dump takes the highest minor of the server’s own major', async () => {
  const places = [
    place(await programs('a/16', '16.16')),
    place(await programs('a/17-old', '17.11')),
    place(await programs('a/17-new', '17.12')),
    place(await programs('a/18', '18.7')),
  ];
  const found = await find('dump', '17.11', { places });
  assert.equal(formatVersion(found.version), '17.12');
  assert.equal(found.pgDump, join(folder, 'a/17-new/pg_dump'));
  assert.equal(found.pgRestore, join(folder, 'a/17-new/pg_restore'));
  assert.equal(found.pgDumpall, join(folder, 'a/17-new/pg_dumpall'));
  assert.equal(found.psql, undefined);
  assert.equal(found.libraryPath, undefined);
});

test('a minor that is too old for the server is refused, and the refusal says what was found where and what to do', async () => {
  const places = [place(await programs('b/16', '16.15')), place(await programs('b/18', '18.3'))];
  const error = await refused(
    find('dump', '18.6', { places }),
    /dumping a 18\.6 server/,
    /16\.15 in .*b\/16/,
    /18\.3 in .*b\/18/,
  );
  assert.match(error.hint ?? '', /install-client: true/);
  assert.match(error.hint ?? '', /apt-get install postgresql-client-18 /);
  assert.match(error.hint ?? '', /client-bin/);
});

test('a machine without any programs says so', async () => {
  await refused(find('dump', '17.11'), /found none at all/);
});

test('an archive is read by its own major first, then by the nearest later one', async () => {
  const places = [
    place(await programs('c/16', '16.16')),
    place(await programs('c/17', '17.9')),
    place(await programs('c/18', '18.7')),
  ];
  assert.equal(formatVersion((await find('restore', '17.12', { places })).version), '17.9');
  assert.equal(formatVersion((await find('restore', '15.1', { places })).version), '16.16');
  assert.equal(formatVersion((await find('restore', '9.6', { places })).version), '16.16');
  await refused(find('restore', '19.0', { places }), /server is PostgreSQL 19\.0/);
});

test('a set that lacks a program, mixes versions or does not start is not used', async () => {
  const lacking = await programs('d/lacking', '17.12', ['pg_dump', 'pg_restore']);
  const mixed = await programs('d/mixed', '17.12');
  await programs('d/mixed', '17.11', ['pg_restore']);
  const broken = await programs('d/broken', '17.12');
  await writeFile(
    join(broken, 'pg_dump'),
    '#!/bin/sh\necho "libpq.so.5: cannot open shared object file" >&2\nexit 127\n',
  );
  const places = [place(lacking), place(mixed), place(broken)];
  await refused(
    find('dump', '17.11', { places }),
    /d\/lacking \(pg_dumpall is missing\)/,
    /d\/mixed \(pg_dump is 17\.12 but pg_restore is 17\.11\)/,
    /d\/broken \(pg_dump does not start \(libpq\.so\.5: cannot open/,
  );
});

test('server programs are asked for only where they are needed', async () => {
  const client = await programs('e/client', '17.12');
  const server = await programs('e/server', '17.12', [...names, 'initdb', 'postgres', 'pg_ctl']);
  const places = [place(client), place(server)];
  assert.equal((await find('restore', '17.12', { places })).bin, client);
  assert.equal((await find('restore', '17.12', { places, serverPrograms: true })).bin, server);
  await refused(find('restore', '17.12', { places: [place(client)], serverPrograms: true }), /initdb is missing/);
});

test("Debian's pg_wrapper on PATH is skipped, because it starts a version of its own choice", async () => {
  const share = await programs('f/share', '17.12', ['pg_wrapper']);
  const bin = join(folder, 'f/bin');
  await mkdir(bin);
  for (const name of names) await symlink(join(share, 'pg_wrapper'), join(bin, name));
  await refused(find('dump', '17.12', { path: bin }), /found none at all/);
  const real = await programs('f/real', '17.12');
  assert.equal((await find('dump', '17.12', { path: `${bin}:${real}` })).bin, real);
});

test('relative and empty entries of PATH are never looked into', async () => {
  await programs('g', '17.12');
  const previous = process.cwd();
  process.chdir(folder);
  try {
    await refused(find('dump', '17.12', { path: 'g::./g:.' }), /found none at all/);
  } finally {
    process.chdir(previous);
  }
});

test('client-bin is the only place that is looked at, and a misfit names both versions', async () => {
  const other = await programs('h/16', '16.16');
  const right = await programs('h/17', '17.12');
  const options = { places: [place(right)], path: right, install: true };
  assert.equal((await find('dump', '17.11', { ...options, clientBin: right })).bin, right);
  await refused(
    find('dump', '17.11', { ...options, clientBin: other }),
    /holds PostgreSQL 16\.16.* 17\.11 server needs 17\.11/,
  );
  await refused(find('dump', '17.11', { ...options, clientBin: join(folder, 'nowhere') }), /holds no pg_dump/);
});

test('a server of an unsupported major is refused before anything is looked for', async () => {
  await refused(find('dump', '13.23'), /PostgreSQL 13\.23/);
});

test('a cancelled search throws the reason', async () => {
  const reason = new Error('cancelled');
  const places = [place(await programs('i', '17.12'))];
  await assert.rejects(find('dump', '17.12', { places, signal: AbortSignal.abort(reason) }), reason);
});

for (const major of [14, 15, 16, 17, 18]) {
  const bin = `/usr/lib/postgresql/${major}/bin`;
  if (!existsSync(`${bin}/pg_dump`)) continue;
  test(`this machine's PostgreSQL ${major} is found for a server of its major`, async () => {
    const version = parseVersion(`${major}.0`);
    assert.ok(version);
    const path = process.env.PATH ?? '';
    const toolCache = join(folder, 'empty-tool-cache');
    const found = await findPrograms(
      { server: version, use: 'dump' },
      { install: false, toolCache, path, log: silent },
    );
    assert.equal(found.bin, bin);
    assert.equal(found.pgDump, `${bin}/pg_dump`);
    assert.equal(found.psql, `${bin}/psql`);
    assert.match(found.origin, /^Debian's/);
  });
}
