import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import pg from 'pg';
import { childEnvironment } from '../../src/postgres/child-environment.ts';
import { connect, type PinnedServer } from '../../src/postgres/connect.ts';
import { type ConnectionTarget, parseDatabaseUrl, type UrlContext } from '../../src/postgres/url.ts';
import { run } from '../../src/program.ts';
import { Cluster, freePort } from '../support/postgres.ts';

const applicationName = 'pgassay test';

function parse(url: string, context: Partial<UrlContext> = {}): ConnectionTarget {
  const { target, problems } = parseDatabaseUrl(url, { input: 'database-url', ...context });
  assert.ok(target !== undefined, JSON.stringify(problems));
  return target;
}

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pgassay-child-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** The environment of a child after a session of our own has pinned the server. */
async function pinnedEnvironment(target: ConnectionTarget): Promise<Record<string, string>> {
  const session = await connect(target, { applicationName });
  try {
    return await childEnvironment(target, session.server, folder, { applicationName });
  } finally {
    await session.close();
  }
}

async function psql(cluster: Cluster, env: Record<string, string>, sql: string): Promise<string> {
  const output = await run({ path: join(cluster.bin, 'psql'), args: ['-X', '-w', '-A', '-t', '-c', sql], env });
  assert.equal(output.stderr, '');
  assert.equal(output.code, 0);
  return output.stdout.trim();
}

async function filesIn(directory: string): Promise<string[]> {
  return (await readdir(directory)).sort();
}

describe('a child program', () => {
  let cluster: Cluster;
  before(async () => {
    cluster = await Cluster.start({
      tls: true,
      hba: 'local all all scram-sha-256\nhostssl all sslonly 127.0.0.1/32 scram-sha-256\nhostnossl all sslonly 127.0.0.1/32 reject\nhost all all 127.0.0.1/32 scram-sha-256\n',
    });
    await cluster.query(
      'postgres',
      "CREATE ROLE app LOGIN PASSWORD 'S3cr3tZeta'; CREATE ROLE sslonly LOGIN PASSWORD 'S3cr3tZeta'",
    );
    await cluster.query(
      'postgres',
      `CREATE ROLE "*" LOGIN PASSWORD 'S3cr3tZeta'; CREATE ROLE "a:b\\c" LOGIN PASSWORD 'S3cr3tZeta'`,
    );
  });
  after(() => cluster.stop());

  test('logs in with every password there can be, psql and pg_dump alike', async () => {
    for (const password of [
      ...[
        'p@ss:w/rd',
        'a?b#c%d&e',
        `q'u"o\\te\\`,
        ' space around ',
        '#comment',
        'é日本🔑',
        '*',
        '\\:',
        '$HOME `id`',
        'tab\there',
      ],
      ...['two\nlines', 'return\r', 'in\rside', '\n', 'x'.repeat(500)],
    ]) {
      await cluster.query('postgres', `ALTER ROLE app PASSWORD ${pg.escapeLiteral(password)}`);
      const env = await pinnedEnvironment(parse(cluster.url('postgres', 'app', password)));
      assert.equal(await psql(cluster, env, 'SELECT current_user'), 'app', JSON.stringify(password));
      const dump = await run({ path: join(cluster.bin, 'pg_dump'), args: ['-s', '-w'], env });
      assert.equal(dump.code, 0, dump.stderr);
      assert.equal('PGPASSWORD' in env, /\n|\r$/.test(password), 'only what a line cannot hold goes by environment');
    }
    await cluster.query('postgres', "ALTER ROLE app PASSWORD 'S3cr3tZeta'");
  });

  test('logs in as a user whose name means something in a password file', async () => {
    for (const user of ['*', 'a:b\\c']) {
      const env = await pinnedEnvironment(parse(cluster.url('postgres', user, 'S3cr3tZeta')));
      assert.equal(await psql(cluster, env, 'SELECT current_user'), user);
    }
  });

  test('gets an environment that holds nothing else, files of mode 0600 and no password', async () => {
    const target = parse(cluster.url('postgres', 'app', 'S3cr3tZeta'));
    const env = await childEnvironment(
      { ...target, options: 'endpoint=ep-1' },
      { host: 'db.example.com', port: 6000, address: '192.0.2.7', encrypted: true },
      folder,
      { applicationName, libraryPath: '/opt/lib' },
    );
    const { PGPASSFILE = '', LD_LIBRARY_PATH, DYLD_LIBRARY_PATH, ...rest } = env;
    assert.equal(LD_LIBRARY_PATH ?? DYLD_LIBRARY_PATH, '/opt/lib');
    const absent = join(folder, 'absent');
    assert.deepEqual(rest, {
      PATH: '/usr/bin:/bin',
      HOME: folder,
      LC_ALL: 'C',
      PGHOST: 'db.example.com',
      PGHOSTADDR: '192.0.2.7',
      PGPORT: '6000',
      PGUSER: 'app',
      PGDATABASE: 'postgres',
      PGSSLMODE: 'require',
      PGSSLROOTCERT: absent,
      PGSSLCERT: absent,
      PGSSLKEY: absent,
      PGSSLCRL: absent,
      PGCHANNELBINDING: 'prefer',
      PGGSSENCMODE: 'disable',
      PGAPPNAME: applicationName,
      PGCONNECT_TIMEOUT: '15',
      PGOPTIONS: 'endpoint=ep-1',
      PGSERVICEFILE: absent,
      PGSYSCONFDIR: folder,
    });
    assert.equal(await readFile(PGPASSFILE, 'utf8'), 'db.example.com:6000:*:app:S3cr3tZeta\n');
    const files = await filesIn(folder);
    assert.equal(files.length, 1, 'nothing else was written');
    for (const file of files) assert.equal((await stat(join(folder, file))).mode & 0o777, 0o600);
    assert.ok(!JSON.stringify(env).includes('S3cr3tZeta'));
  });

  test('reaches the pinned address, whatever the name says', async () => {
    const target = parse(`postgres://app:S3cr3tZeta@nowhere.invalid:${cluster.port}/postgres`);
    const server: PinnedServer = { host: 'nowhere.invalid', port: cluster.port, address: '127.0.0.1' };
    const env = await childEnvironment(target, server, folder, { applicationName });
    assert.equal(await psql(cluster, env, "SELECT current_setting('application_name')"), applicationName);
  });

  test('reaches the second host when the first one was dead', async () => {
    const env = await pinnedEnvironment(
      parse(`postgres://app:S3cr3tZeta@127.0.0.1:${await freePort()},localhost:${cluster.port}/postgres`),
    );
    assert.equal(env.PGHOST, 'localhost');
    assert.equal(await psql(cluster, env, 'SELECT 1'), '1');
  });

  test('uses the socket, without TLS', async () => {
    const socket = encodeURIComponent(cluster.socketDirectory);
    const env = await pinnedEnvironment(
      parse(`postgres://app:S3cr3tZeta@${socket}:${cluster.port}/postgres?sslmode=require`),
    );
    assert.equal(env.PGHOSTADDR, undefined);
    assert.equal(await psql(cluster, env, 'SELECT inet_client_addr() IS NULL'), 't');
    // libpq looks for "localhost" when the folder is the one it was built with.
    const lines = (await readFile(env.PGPASSFILE ?? '', 'utf8')).split('\n');
    assert.deepEqual(
      lines.map((line) => line.split(':')[0]),
      [cluster.socketDirectory, 'localhost', ''],
    );
  });

  test('speaks TLS when our session did, and never falls back', async () => {
    const encrypted = 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()';
    const prefer = await pinnedEnvironment(parse(cluster.url('postgres', 'app', 'S3cr3tZeta')));
    assert.equal(prefer.PGSSLMODE, 'require');
    assert.equal(await psql(cluster, prefer, encrypted), 't');
    const allow = await pinnedEnvironment(parse(`${cluster.url('postgres', 'app', 'S3cr3tZeta')}?sslmode=allow`));
    assert.equal(allow.PGSSLMODE, 'disable');
    const demanded = await pinnedEnvironment(
      parse(`${cluster.url('postgres', 'sslonly', 'S3cr3tZeta')}?sslmode=allow`),
    );
    assert.equal(await psql(cluster, demanded, encrypted), 't');
  });

  test('verifies with tls-ca, and with channel binding', async () => {
    const tlsCa = await readFile(cluster.certificate ?? '', 'utf8');
    for (const mode of ['require', 'verify-ca', 'verify-full']) {
      const url = `${cluster.url('postgres', 'app', 'S3cr3tZeta')}?channel_binding=require&sslmode=${mode}`;
      const env = await pinnedEnvironment(parse(url.replace('127.0.0.1', 'localhost'), { tlsCa }));
      assert.equal(env.PGSSLMODE, mode);
      assert.equal(await psql(cluster, env, 'SELECT 1'), '1');
    }
  });

  test('refuses a stranger under verify-full, with tls-ca or the default authorities', async () => {
    const target = parse(`${cluster.url('postgres', 'app', 'S3cr3tZeta')}?sslmode=verify-full`);
    const server: PinnedServer = { host: '127.0.0.1', port: cluster.port, address: '127.0.0.1' };
    const env = await childEnvironment(target, server, folder, { applicationName });
    const bundle = await readFile(env.PGSSLROOTCERT ?? '', 'utf8');
    assert.ok(bundle.split('BEGIN CERTIFICATE').length > 100, 'the default authorities are written to a file');
    const output = await run({ path: join(cluster.bin, 'psql'), args: ['-X', '-w', '-c', 'SELECT 1'], env });
    assert.equal(output.code, 2);
    assert.match(output.stderr, /certificate verify failed/);
  });

  test('several calls may share a folder', async () => {
    const [one, two] = await Promise.all(
      ['app', 'sslonly'].map((user) => pinnedEnvironment(parse(cluster.url('postgres', user, 'S3cr3tZeta')))),
    );
    assert.equal(await psql(cluster, one ?? {}, 'SELECT current_user'), 'app');
    assert.equal(await psql(cluster, two ?? {}, 'SELECT current_user'), 'sslonly');
  });
});
