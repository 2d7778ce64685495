import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chownSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import pg from 'pg';
import { Failure } from '../../src/failure.ts';
import { type ConnectOptions, connect, type Session } from '../../src/postgres/connect.ts';
import { type ConnectionTarget, parseDatabaseUrl, type UrlContext } from '../../src/postgres/url.ts';
import { PgBouncer } from '../support/pgbouncer.ts';
import { Cluster, freePort, ownFolder, unprivileged } from '../support/postgres.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';

const options: ConnectOptions = { applicationName: 'pgassay test' };

function parse(url: string, context: Partial<UrlContext> = {}): ConnectionTarget {
  const { target, problems } = parseDatabaseUrl(url, { input: 'database-url', ...context });
  assert.ok(target !== undefined, JSON.stringify(problems));
  return target;
}

async function use<T>(session: Promise<Session>, work: (session: Session) => Promise<T>): Promise<T> {
  const open = await session;
  try {
    return await work(open);
  } finally {
    await open.close();
  }
}

/** The failure of connecting, which never repeats the password. */
async function failing(target: ConnectionTarget, more: Partial<ConnectOptions> = {}): Promise<Failure> {
  const session = connect(target, { ...options, ...more });
  const error = await session.then(
    async (open) => {
      await open.close();
      return undefined;
    },
    (raised: unknown) => raised,
  );
  assert.ok(error instanceof Failure, `connecting succeeded, or raised ${String(error)}`);
  assert.equal(error.stage, 'connect');
  const text = `${error.message} ${error.hint} ${String(error.cause)}`;
  if (target.password !== undefined && target.password.length >= 4) assert.ok(!text.includes(target.password), text);
  return error;
}

function expect(failure: Failure, exit: string, message: RegExp, hint: RegExp | undefined, transient: boolean): void {
  assert.match(failure.message, message);
  assert.match(failure.message, /^[a-z1[/]/, 'starts in lower case');
  if (hint !== undefined) assert.match(failure.hint ?? '', hint);
  assert.equal(failure.exit, exit, failure.message);
  assert.equal(failure.transient, transient, failure.message);
}

/** A server on loopback that does what `handle` says with every connection. */
async function fake(handle: (socket: Socket) => void): Promise<{ url: (query?: string) => string } & AsyncDisposable> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    handle(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: (query = '') => `postgres://app:S3cr3tZeta@127.0.0.1:${port}/shop${query}`,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

function backendMessage(type: string, body: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.write(type);
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

function int32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeInt32BE(value);
  return buffer;
}

const hasIPv6 = Object.values(networkInterfaces()).some((list) => list?.some(({ address }) => address === '::1'));

describe('a server without TLS', () => {
  let cluster: Cluster;
  before(async () => {
    const rules = [
      'local all trusted trust',
      'local all all scram-sha-256',
      'host all trusted 127.0.0.1/32 trust',
      'host all md5er 127.0.0.1/32 md5',
      'host all plain 127.0.0.1/32 password',
      'host all banned 127.0.0.1/32 reject',
      'host all all 127.0.0.1/32 scram-sha-256',
      'host all all ::1/128 scram-sha-256',
    ];
    cluster = await Cluster.start({
      hba: `${rules.join('\n')}\n`,
      conf: {
        listen_addresses: hasIPv6 ? '127.0.0.1,::1' : '127.0.0.1',
        max_connections: '10',
        superuser_reserved_connections: '3',
      },
    });
    await cluster.query(
      'postgres',
      `CREATE ROLE trusted LOGIN; CREATE ROLE app LOGIN PASSWORD 'S3cr3tZeta'; CREATE ROLE plain LOGIN PASSWORD 'S3cr3tZeta';
       CREATE ROLE sleeper NOLOGIN PASSWORD 'S3cr3tZeta'; CREATE ROLE banned LOGIN PASSWORD 'S3cr3tZeta';
       SET password_encryption = 'md5'; CREATE ROLE md5er LOGIN PASSWORD 'S3cr3tZeta'`,
    );
    await cluster.createDatabase('shop');
    await cluster.createDatabase('readonly');
    await cluster.createDatabase('closed');
    await cluster.query('postgres', 'ALTER DATABASE readonly SET default_transaction_read_only = on; ');
    await cluster.query('postgres', 'REVOKE CONNECT ON DATABASE closed FROM PUBLIC');
  });
  after(() => cluster.stop());

  const app = (query = '', database = 'shop'): string => `${cluster.url(database, 'app', 'S3cr3tZeta')}${query}`;

  test('opens a session that says where it is and as what', async () => {
    await use(connect(parse(app()), options), async (session) => {
      assert.deepEqual(session.server, {
        host: '127.0.0.1',
        port: cluster.port,
        address: '127.0.0.1',
        encrypted: false,
      });
      const [row] = await session.query<{ pid: number; name: string; database: string }>(
        "SELECT pg_backend_pid() AS pid, current_setting('application_name') AS name, current_database() AS database",
      );
      assert.deepEqual(row, { pid: session.backendPid, name: 'pgassay test', database: 'shop' });
      assert.deepEqual(await session.query('SELECT $1::int + 1 AS n', [41]), [{ n: 42 }]);
    });
  });

  test('logs in with every password there can be', async () => {
    for (const password of [
      ...[
        'p@ss:w/rd',
        'a?b#c%d&e',
        `q'u"o\\te`,
        ' space around ',
        'two\nlines',
        'é日本🔑',
        '%40',
        '$HOME `id`',
        'tab\there',
      ],
      'x'.repeat(300),
    ]) {
      await cluster.query('postgres', `ALTER ROLE app PASSWORD ${pg.escapeLiteral(password)}`);
      const rows = await use(connect(parse(cluster.url('shop', 'app', password)), options), (session) =>
        session.query('SELECT 1 AS one'),
      );
      assert.deepEqual(rows, [{ one: 1 }], password);
    }
    await cluster.query('postgres', "ALTER ROLE app PASSWORD 'S3cr3tZeta'");
  });

  test('logs in with md5 and with plain passwords', async () => {
    for (const user of ['md5er', 'plain']) {
      await use(connect(parse(cluster.url('shop', user, 'S3cr3tZeta')), options), (session) =>
        session.query('SELECT 1'),
      );
    }
  });

  test('connects through its socket, with a password and without', async () => {
    const folder = encodeURIComponent(cluster.socketDirectory);
    for (const login of ['app:S3cr3tZeta', 'trusted']) {
      await use(
        connect(parse(`postgres://${login}@${folder}:${cluster.port}/shop?sslmode=verify-full`), options),
        async (session) => {
          assert.deepEqual(session.server, {
            host: cluster.socketDirectory,
            port: cluster.port,
            address: undefined,
            encrypted: false,
          });
          assert.deepEqual(await session.query('SELECT inet_client_addr() AS from'), [{ from: null }]);
        },
      );
    }
    const missing = await failing(parse(`postgres://trusted@%2Fnowhere:1/shop`));
    expect(missing, 'connect', /there is no socket for port 1 in \/nowhere/, /server running/, true);
  });

  test('connects over IPv6', {
    skip: hasIPv6 ? false : 'not on this platform: there is no IPv6 loopback',
  }, async () => {
    await use(connect(parse(`postgres://app:S3cr3tZeta@[::1]:${cluster.port}/shop`), options), async ({ server }) => {
      assert.equal(server.address, '::1');
    });
  });

  test('goes on to the next address of a name, and to the next host', async () => {
    const dead = await freePort();
    await use(
      connect(parse(`postgres://app:S3cr3tZeta@127.0.0.1:${dead},localhost:${cluster.port}/shop`), options),
      async ({ server }) => {
        assert.equal(server.host, 'localhost');
        assert.equal(server.port, cluster.port);
        assert.ok(server.address === '127.0.0.1' || server.address === '::1');
      },
    );
    const none = await failing(parse(`postgres://app:S3cr3tZeta@127.0.0.1:${dead},127.0.0.1:1/shop`));
    expect(
      none,
      'connect',
      /none of the 2 hosts can be used\n {2}nothing listens at 127\.0\.0\.1:\d+\n/,
      /running/,
      true,
    );
  });

  test('does not try the next host with a wrong password', async () => {
    const target = parse(`postgres://app:Wr0ngZeta@127.0.0.1:${cluster.port},127.0.0.1:${await freePort()}/shop`);
    expect(
      await failing(target),
      'authentication',
      /does not accept the password of user "app"/,
      /percent-encoded/,
      false,
    );
  });

  test('a pinned session reaches the same server', async () => {
    const dead = await freePort();
    const target = parse(`postgres://app:S3cr3tZeta@127.0.0.1:${dead},127.0.0.1:${cluster.port}/shop`);
    await use(connect(target, options), (first) =>
      use(connect(target, { ...options, pinned: first.server }), async (second) => {
        assert.deepEqual(second.server, first.server);
        assert.notEqual(second.backendPid, first.backendPid);
      }),
    );
  });

  test('target_session_attrs chooses the server', async () => {
    const attrs = (value: string, database = 'shop'): ConnectionTarget =>
      parse(app(`?target_session_attrs=${value}`, database));
    for (const value of ['any', 'primary', 'read-write', 'prefer-standby'])
      await (await connect(attrs(value), options)).close();
    await (await connect(attrs('read-only', 'readonly'), options)).close();
    expect(
      await failing(attrs('standby')),
      'connect',
      /is not a standby server/,
      /target_session_attrs=standby/,
      false,
    );
    expect(await failing(attrs('read-write', 'readonly')), 'connect', /is not a read-write server/, undefined, false);
    expect(await failing(attrs('read-only')), 'connect', /is not a read-only server/, undefined, false);
  });

  test('sslmode=prefer and allow go on without TLS, require does not', async () => {
    for (const mode of ['prefer', 'allow', 'disable']) {
      await use(connect(parse(app(`?sslmode=${mode}`)), options), async ({ server }) =>
        assert.equal(server.encrypted, false),
      );
    }
    for (const mode of ['require', 'verify-ca', 'verify-full']) {
      expect(
        await failing(parse(app(`?sslmode=${mode}`))),
        'connect',
        /does not offer TLS, and sslmode=/,
        /ssl = on/,
        false,
      );
    }
  });

  test('channel_binding=require is refused before any password goes out', async () => {
    for (const user of ['app', 'md5er', 'plain', 'trusted']) {
      const target = parse(`${cluster.url('shop', user, 'S3cr3tZeta')}?channel_binding=require`);
      expect(
        await failing(target),
        'authentication',
        /channel_binding=require, and the server did not use it/,
        /needs TLS/,
        false,
      );
    }
  });

  test('a wrong password, role or database each has its sentence', async () => {
    const wrong = await failing(parse(cluster.url('shop', 'app', 'Wr0ngZeta')));
    expect(
      wrong,
      'authentication',
      /does not accept the password of user "app", or has no such user/,
      /changed/,
      false,
    );
    const nobody = await failing(parse(cluster.url('shop', 'nobody', 'S3cr3tZeta')));
    expect(nobody, 'authentication', /does not accept the password of user "nobody"/, undefined, false);
    const sleeper = await failing(parse(cluster.url('shop', 'sleeper', 'S3cr3tZeta')));
    expect(sleeper, 'authentication', /has no user "sleeper" that may log in/, /LOGIN/, false);
    const banned = await failing(parse(cluster.url('shop', 'banned', 'S3cr3tZeta')));
    expect(banned, 'authentication', /has no rule that lets user "banned" into "shop"/, /pg_hba\.conf/, false);
    const missing = await failing(parse(app('', 'Shop')));
    expect(missing, 'connect', /has no database "Shop"/, /after the last \//, false);
    const closed = await failing(parse(app('', 'closed')));
    expect(
      closed,
      'privilege',
      /user "app" may not connect to database "closed"/,
      /^GRANT CONNECT ON DATABASE "closed" TO "app";$/,
      false,
    );
    const without = await failing(parse(`postgres://app@127.0.0.1:${cluster.port}/shop`));
    expect(without, 'authentication', /asks for a password of user "app", and the URL has none/, undefined, false);
  });

  test('a full server is worth another try', async () => {
    const sessions: Session[] = [];
    try {
      const failure = await (async () => {
        for (let i = 0; i < 10; i += 1) {
          try {
            sessions.push(await connect(parse(app()), options));
          } catch (error) {
            return error as Failure;
          }
        }
        throw new Error('the server never was full');
      })();
      expect(failure, 'connect', /has no connection left/, /max_connections/, true);
    } finally {
      await Promise.all(sessions.map((session) => session.close()));
    }
  });

  test('the environment of this process changes nothing', async () => {
    const strange = {
      PGPASSWORD: 'Wr0ng',
      PGOPTIONS: '-c search_path=evil',
      PGAPPNAME: 'evil',
      PGSSLMODE: 'require',
      PGSSLNEGOTIATION: 'direct',
      PGHOST: 'evil.example',
      PGPORT: '1',
      PGUSER: 'evil',
      PGDATABASE: 'evil',
      PGREPLICATION: 'true',
    };
    const saved = { ...process.env };
    Object.assign(process.env, strange);
    try {
      await use(connect(parse(app()), options), async (session) => {
        assert.deepEqual(await session.query("SELECT current_setting('search_path') AS path"), [
          { path: '"$user", public' },
        ]);
      });
      expect(
        await failing(parse(`postgres://app@127.0.0.1:${cluster.port}/shop`)),
        'authentication',
        /the URL has none/,
        undefined,
        false,
      );
    } finally {
      for (const key of Object.keys(strange)) delete process.env[key];
      Object.assign(process.env, saved);
    }
  });

  test('lost fires when the server ends the session, idle or in the middle of a statement', async () => {
    for (const busy of [false, true]) {
      const session = await connect(parse(app()), options);
      const fired = new Promise<unknown>((resolve) => {
        session.lost.addEventListener('abort', () => resolve(session.lost.reason), { once: true });
      });
      const statement = busy ? session.query('SELECT pg_sleep(30)') : undefined;
      statement?.catch(() => {});
      await cluster.query('postgres', 'SELECT pg_terminate_backend($1)', [session.backendPid]);
      const reason = await fired;
      assert.ok(reason instanceof Failure);
      expect(
        reason,
        'connect',
        /the connection to 127\.0\.0\.1:\d+ was lost: an administrator ended it/,
        /try again/,
        true,
      );
      if (statement !== undefined) await assert.rejects(statement, (error) => error === reason);
      await assert.rejects(session.query('SELECT 1'), (error) => error === reason);
      await session.close();
    }
  });

  test('lost fires when the network breaks, and not when we close', async () => {
    await using proxy = await TcpProxy.start({ host: '127.0.0.1', port: cluster.port });
    const session = await connect(parse(proxy.through(app())), options);
    const fired = new Promise<void>((resolve) =>
      session.lost.addEventListener('abort', () => resolve(), { once: true }),
    );
    proxy.cut();
    await fired;
    assert.match(String(session.lost.reason.message), /the network or the server broke it off/);
    await session.close();

    const quiet = await connect(parse(app()), options);
    await quiet.close();
    await quiet.close();
    assert.equal(quiet.lost.aborted, false);
  });

  test('a pooler accepts our startup, and its refusals have the same sentences', async () => {
    await using pooler = await PgBouncer.start(cluster, { mode: 'session', users: { app: 'S3cr3tZeta' } });
    const through = (user: string, password: string, database: string): ConnectionTarget =>
      parse(`postgres://${user}:${password}@${pooler.host}:${pooler.port}/${database}`);
    await use(connect(through('app', 'S3cr3tZeta', 'shop'), options), async (session) => {
      const [row] = await session.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
      assert.notEqual(row?.pid, session.backendPid, 'the pooler announces a process id of its own');
    });
    const wrong = await failing(through('app', 'Wr0ngZeta', 'shop'));
    expect(wrong, 'authentication', /does not accept the password of user "app"/, undefined, false);
    const nobody = await failing(through('nobody', 'S3cr3tZeta', 'shop'));
    expect(nobody, 'authentication', /or has no such user/, undefined, false);
    const missing = await failing(through('app', 'S3cr3tZeta', 'missing'));
    expect(missing, 'connect', /has no database "missing"/, undefined, false);
    const strange = await failing({ ...through('app', 'S3cr3tZeta', 'shop'), options: 'endpoint=x' });
    expect(strange, 'connect', /refuses a startup parameter/, /not to its pooler/, false);
  });

  test("an error of a statement is the statement's, and the session goes on", async () => {
    await use(connect(parse(app()), options), async (session) => {
      await assert.rejects(session.query('SELECT 1/0'), { code: '22012' });
      assert.deepEqual(await session.query('SELECT 1 AS one'), [{ one: 1 }]);
      assert.equal(session.lost.aborted, false);
    });
  });

  test('close cannot hang: not on a silent network, not on a running statement', async () => {
    await using proxy = await TcpProxy.start({ host: '127.0.0.1', port: cluster.port });
    const silent = await connect(parse(proxy.through(app())), options);
    const busy = await connect(parse(app()), options);
    const statement = busy.query('SELECT pg_sleep(30)');
    statement.catch(() => {});
    proxy.stall();
    const start = Date.now();
    await Promise.all([silent.close(), busy.close()]);
    assert.ok(Date.now() - start < 3500, `${Date.now() - start} ms`);
    await assert.rejects(statement);
  });
});

describe('a server with TLS', () => {
  let cluster: Cluster;
  let folder: string;
  const file = (name: string): string => join(folder, name);
  const pem = (name: string): string => readFileSync(file(name), 'utf8');

  before(async () => {
    folder = await ownFolder('pgassay-tls-');
    mkdirSync(file('ca'));
    const openssl = (...args: string[]): void => void execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
    for (const name of ['root', 'stranger']) {
      openssl(
        ...`req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=${name} -keyout ${name}.key -out ${name}.crt`.split(
          ' ',
        ),
      );
    }
    writeFileSync(file('ca/index.txt'), '');
    writeFileSync(file('ca/serial'), '01\n');
    const section = [
      'database=ca/index.txt',
      'serial=ca/serial',
      'new_certs_dir=ca',
      'default_md=sha256',
      'policy=any',
      'unique_subject=no',
      'copy_extensions=copy',
    ];
    writeFileSync(file('ca.cnf'), `[ca]\ndefault_ca=x\n[x]\n${section.join('\n')}\n[any]\ncommonName=supplied\n`);
    const issue = (name: string, subject: string, names: string, from: string, to: string): void => {
      openssl(
        ...`req -newkey rsa:2048 -nodes -subj /CN=${subject} -addext subjectAltName=${names} -keyout ${name}.key -out ${name}.csr`.split(
          ' ',
        ),
      );
      openssl(
        ...`ca -batch -config ca.cnf -cert root.crt -keyfile root.key -in ${name}.csr -out ${name}.crt -notext -startdate ${from} -enddate ${to}`.split(
          ' ',
        ),
      );
    };
    const [early, late] = ['20200101000000Z', '20990101000000Z'];
    issue('good', 'localhost', 'DNS:localhost,IP:127.0.0.1', early, late);
    issue('other', 'other.example', 'DNS:other.example', early, late);
    issue('expired', 'localhost', 'DNS:localhost,IP:127.0.0.1', early, '20210101000000Z');
    issue('certified', 'certified', 'DNS:x', early, late);
    const { uid, gid } = unprivileged();
    for (const name of ['good', 'other', 'expired', 'root']) {
      if (uid !== undefined && gid !== undefined)
        for (const end of ['crt', 'key']) chownSync(file(`${name}.${end}`), uid, gid);
    }
    const rules = [
      'local all all trust',
      'hostnossl all sslonly 127.0.0.1/32 reject',
      'hostssl all certified 127.0.0.1/32 cert',
      'host all md5er 127.0.0.1/32 md5',
      'host all all 127.0.0.1/32 scram-sha-256',
    ];
    cluster = await Cluster.start({
      hba: `${rules.join('\n')}\n`,
      conf: {
        ssl: 'on',
        ssl_cert_file: file('good.crt'),
        ssl_key_file: file('good.key'),
        ssl_ca_file: file('root.crt'),
      },
    });
    await cluster.query(
      'postgres',
      `CREATE ROLE app LOGIN PASSWORD 'S3cr3tZeta'; CREATE ROLE sslonly LOGIN PASSWORD 'S3cr3tZeta'; CREATE ROLE certified LOGIN;
       SET password_encryption = 'md5'; CREATE ROLE md5er LOGIN PASSWORD 'S3cr3tZeta'`,
    );
  });
  after(async () => {
    await cluster.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  const present = async (name: string): Promise<void> => {
    await cluster.query('postgres', `ALTER SYSTEM SET ssl_cert_file = '${file(`${name}.crt`)}'`);
    await cluster.query('postgres', `ALTER SYSTEM SET ssl_key_file = '${file(`${name}.key`)}'`);
    await cluster.query('postgres', 'SELECT pg_reload_conf()');
    for (let i = 0; i < 50; i += 1) {
      const [row] = await cluster.query<{ file: string }>(
        'postgres',
        "SELECT current_setting('ssl_cert_file') AS file",
      );
      if (row?.file === file(`${name}.crt`)) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error('the server did not reload');
  };
  const url = (query: string, user = 'app'): string => `${cluster.url('postgres', user, 'S3cr3tZeta')}${query}`;
  const usesTls = (session: Session): Promise<{ ssl: boolean }[]> =>
    session.query('SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()');

  test('every mode that asks for TLS gets it, with channel binding', async () => {
    for (const mode of ['prefer', 'require', 'verify-ca', 'verify-full']) {
      const target = parse(url(`?sslmode=${mode}&channel_binding=require`), { tlsCa: pem('root.crt') });
      await use(connect(target, options), async (session) => {
        assert.deepEqual(await usesTls(session), [{ ssl: true }], mode);
        assert.equal(session.server.encrypted, true);
      });
    }
    for (const mode of ['disable', 'allow']) {
      await use(connect(parse(url(`?sslmode=${mode}`)), options), async (session) => {
        assert.deepEqual(await usesTls(session), [{ ssl: false }], mode);
      });
    }
  });

  test('sslmode=allow uses TLS where the server demands it', async () => {
    await use(connect(parse(url('?sslmode=allow', 'sslonly')), options), async (session) => {
      assert.deepEqual(await usesTls(session), [{ ssl: true }]);
    });
    expect(
      await failing(parse(url('?sslmode=disable', 'sslonly'))),
      'authentication',
      /no rule that lets user "sslonly"/,
      /pg_hba/,
      false,
    );
  });

  test('channel_binding=disable logs in without, require refuses what cannot bind', async () => {
    await (await connect(parse(url('?sslmode=require&channel_binding=disable')), options)).close();
    expect(
      await failing(parse(url('?sslmode=require&channel_binding=require', 'md5er'))),
      'authentication',
      /channel_binding=require/,
      undefined,
      false,
    );
  });

  test('verify-full checks name and authority; verify-ca and require with a root the authority only', async () => {
    const trusted = { tlsCa: pem('root.crt') };
    await present('other');
    for (const mode of ['verify-ca', 'require', 'prefer'])
      await (await connect(parse(url(`?sslmode=${mode}`), trusted), options)).close();
    const named = await failing(parse(url('?sslmode=verify-full'), trusted));
    expect(
      named,
      'connect',
      /certificate of .* is not made for "127\.0\.0\.1" but for DNS:other\.example/,
      /host name the certificate is made for/,
      false,
    );
    await present('good');
    await (
      await connect(parse(url('?sslmode=verify-full').replace('127.0.0.1', 'localhost'), trusted), options)
    ).close();
  });

  test('an unknown authority is refused wherever it is verified', async () => {
    const stranger = { tlsCa: pem('stranger.crt') };
    for (const mode of ['prefer', 'require', 'verify-ca', 'verify-full']) {
      expect(
        await failing(parse(url(`?sslmode=${mode}`), stranger)),
        'connect',
        /was not signed by the authority in tls-ca/,
        /tls-ca/,
        false,
      );
    }
    for (const query of ['sslmode=verify-ca', 'sslmode=verify-full', 'sslrootcert=system']) {
      expect(
        await failing(parse(url(`?${query}`))),
        'connect',
        /signed by an authority this machine does not know/,
        /in tls-ca/,
        false,
      );
    }
    await (await connect(parse(url('?sslmode=require')), options)).close();
  });

  test('an expired certificate is refused where it is verified', async () => {
    await present('expired');
    try {
      expect(
        await failing(parse(url('?sslmode=verify-ca'), { tlsCa: pem('root.crt') })),
        'connect',
        /has expired/,
        /renew/,
        false,
      );
      await (await connect(parse(url('?sslmode=require')), options)).close();
    } finally {
      await present('good');
    }
  });

  test('a client certificate logs in, and its absence is said', async () => {
    const certified = `postgres://certified@127.0.0.1:${cluster.port}/postgres?sslmode=verify-full`;
    const context = { tlsCa: pem('root.crt'), tlsClientCert: pem('certified.crt'), tlsClientKey: pem('certified.key') };
    await use(connect(parse(certified, context), options), async (session) => {
      assert.deepEqual(await session.query('SELECT current_user AS me'), [{ me: 'certified' }]);
    });
    const missing = await failing(parse(certified, { tlsCa: pem('root.crt') }));
    expect(missing, 'authentication', /client certificate/, /tls-client-cert/, false);
    const foreign = { tlsCa: pem('root.crt'), tlsClientCert: pem('stranger.crt'), tlsClientKey: pem('stranger.key') };
    expect(await failing(parse(certified, foreign)), 'authentication', /client certificate/, /tls-client-cert/, false);
  });

  test('lost fires through TLS too', async () => {
    const session = await connect(parse(url('?sslmode=require')), options);
    const fired = new Promise<void>((resolve) =>
      session.lost.addEventListener('abort', () => resolve(), { once: true }),
    );
    await cluster.query('postgres', 'SELECT pg_terminate_backend($1)', [session.backendPid]);
    await fired;
    await session.close();
  });
});

describe('what is no server, or a bad one', () => {
  test('nothing but user, database, application_name, client_encoding and routing options is sent at startup', async () => {
    const { promise, resolve } = Promise.withResolvers<string[]>();
    await using server = await fake((socket) => {
      socket.on('data', (data) =>
        resolve(
          data
            .subarray(8)
            .toString()
            .split('\0')
            .filter((word) => word !== ''),
        ),
      );
    });
    const aborter = new AbortController();
    const session = connect(parse(server.url('?sslmode=disable&options=endpoint%3Dep-1')), {
      ...options,
      signal: aborter.signal,
    });
    session.catch(() => {});
    const words = await promise;
    aborter.abort();
    await assert.rejects(session);
    const sent = Object.fromEntries(
      Array.from({ length: words.length / 2 }, (_, i) => [words[2 * i], words[2 * i + 1]]),
    );
    assert.deepEqual(sent, {
      user: 'app',
      database: 'shop',
      application_name: 'pgassay test',
      client_encoding: 'UTF8',
      options: 'endpoint=ep-1',
    });
  });

  test('one that accepts and never answers costs the connect timeout, at every stage', async () => {
    const scram = backendMessage('R', Buffer.concat([int32(10), Buffer.from('SCRAM-SHA-256\0\0')]));
    for (const [query, answer] of [
      ['?connect_timeout=1', undefined],
      ['?connect_timeout=1&sslmode=require', Buffer.from('S')],
      ['?connect_timeout=1&sslmode=disable', scram],
    ] as const) {
      await using server = await fake((socket) => {
        socket.once('data', () => answer !== undefined && socket.write(answer));
      });
      const start = Date.now();
      expect(
        await failing(parse(server.url(query))),
        'connect',
        /no answer from 127\.0\.0\.1:\d+ within 1 s/,
        /firewall/,
        true,
      );
      assert.ok(Date.now() - start < 2000);
    }
  });

  test('a signal ends connecting at once, and a signal that was aborted before starts nothing', async () => {
    await using server = await fake(() => {});
    const reason = new Failure('connect', 'timeLimit', 'time is over');
    const start = Date.now();
    const aborter = new AbortController();
    setTimeout(() => aborter.abort(reason), 50);
    assert.equal(await failing(parse(server.url()), { signal: aborter.signal }), reason);
    const failure = await failing(parse(server.url()), { signal: AbortSignal.abort() });
    assert.equal(failure.exit, 'cancelled');
    assert.ok(Date.now() - start < 1000);
  });

  test('one that hangs up, resets or speaks another protocol has its sentence', async () => {
    for (const [handle, message] of [
      [
        (socket: Socket) => socket.once('data', () => socket.end()),
        /closed the connection without a word|broke the connection off/,
      ],
      [(socket: Socket) => socket.once('data', () => socket.resetAndDestroy()), /broke the connection off/],
    ] as const) {
      for (const mode of ['disable', 'require']) {
        await using server = await fake(handle);
        expect(await failing(parse(server.url(`?sslmode=${mode}`))), 'connect', message, undefined, true);
      }
    }
    await using web = await fake((socket) =>
      socket.once('data', () => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n')),
    );
    expect(
      await failing(parse(web.url('?sslmode=require'))),
      'connect',
      /does not answer like a PostgreSQL server/,
      /port/,
      true,
    );
    await failing(parse(web.url('?sslmode=disable&connect_timeout=1')));
    await using stuffed = await fake((socket) => socket.once('data', () => socket.write('S\x15\x03')));
    expect(await failing(parse(stuffed.url('?sslmode=require'))), 'connect', /does not answer like/, undefined, true);
    await using garbled = await fake((socket) => {
      socket.once('data', () => {
        socket.write('S');
        socket.once('data', () => socket.write('this is no TLS at all'));
      });
    });
    expect(
      await failing(parse(garbled.url('?sslmode=require'))),
      'connect',
      /TLS handshake with .* failed/,
      /TLS 1\.2/,
      false,
    );
  });

  test('one that asks for the plain password does not get it under channel_binding=require', async () => {
    const received: Buffer[] = [];
    await using server = await fake((socket) => {
      socket.on('data', (data) => received.push(data));
      socket.once('data', () => socket.write(backendMessage('R', int32(3))));
    });
    await failing(parse(server.url('?sslmode=disable&channel_binding=require')));
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(received.length, 1, 'only the startup packet arrived');
  });

  test('one that skips its half of SCRAM is called an impostor', async () => {
    const ready = [backendMessage('R', int32(0)), backendMessage('Z', Buffer.from('I'))];
    await using server = await fake((socket) => {
      socket.once('data', () => {
        socket.write(backendMessage('R', Buffer.concat([int32(10), Buffer.from('SCRAM-SHA-256\0\0')])));
        socket.once('data', () => socket.write(Buffer.concat(ready)));
      });
    });
    expect(await failing(parse(server.url('?sslmode=disable'))), 'authentication', /impostor/, undefined, false);
  });

  test('what the server says is withheld when it repeats the password', async () => {
    const fields = 'SFATAL\0VFATAL\0CXX000\0Mcannot parse "x3cr3tZx"\0\0';
    await using server = await fake((socket) => {
      socket.once('data', () => socket.end(backendMessage('E', Buffer.from(fields))));
    });
    const target = parse(server.url('?sslmode=disable'));
    const failure = await failing(target);
    assert.match(failure.message, /its text is withheld, because it may repeat the password/);
    assert.ok(!JSON.stringify([failure.message, String(failure.cause)]).includes('3cr3'));
  });

  test('a server that is starting up is worth another try', async () => {
    const fields = 'SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0';
    await using server = await fake((socket) => {
      socket.once('data', () => socket.end(backendMessage('E', Buffer.from(fields))));
    });
    expect(
      await failing(parse(server.url('?sslmode=disable'))),
      'connect',
      /not accepting connections yet/,
      /a minute/,
      true,
    );
  });

  test('B34: a refused localhost on a runner is explained', async () => {
    const target = parse(`postgres://app:S3cr3tZeta@localhost:${await freePort()}/shop`);
    const onRunner = await failing(target, { onRunner: true });
    expect(
      onRunner,
      'connect',
      /nothing listens at localhost:\d+ \(/,
      /localhost is the runner itself.*services:/s,
      true,
    );
    expect(await failing(target), 'connect', /nothing listens at/, /is the server running/, true);
  });

  test('a name that does not exist', async () => {
    const failure = await failing(parse('postgres://app:S3cr3tZeta@nowhere.invalid/shop?connect_timeout=5'));
    assert.match(failure.message, /there is no host "nowhere\.invalid"|could not be looked up for now/);
    assert.equal(failure.exit, 'connect');
  });
});
