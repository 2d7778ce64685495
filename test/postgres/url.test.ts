import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  type ConnectionTarget,
  parseDatabaseUrl,
  publicWordsOf,
  secretsOf,
  type UrlContext,
} from '../../src/postgres/url.ts';
import { Secrets } from '../../src/secrets.ts';

const input = 'database-url';
const password = 'S3cr3tZeta';
const place = `backup:${password}@db.example.com`;

function accepted(text: string, context: Partial<UrlContext> = {}): ConnectionTarget {
  const { target, problems } = parseDatabaseUrl(text, { input, ...context });
  assert.ok(target !== undefined, `${text}: ${JSON.stringify(problems)}`);
  return target;
}

/** Every problem's message and hint, in order; fails when one of them repeats a piece of `secret`. */
function refused(text: string, secret = password, context: Partial<UrlContext> = {}): string[] {
  const { target, problems } = parseDatabaseUrl(text, { input, ...context });
  assert.equal(target, undefined, `${text} was accepted`);
  const all = problems.map((problem) => `${problem.input}: ${problem.message}; ${problem.hint ?? ''}`);
  for (const fragment of fragments(secret)) assert.ok(!all.join('\n').includes(fragment), `${all} holds "${fragment}"`);
  return all;
}

function fragments(secret: string): string[] {
  return Array.from({ length: Math.max(0, secret.length - 3) }, (_, i) => secret.slice(i, i + 4));
}

function only(text: string, pattern: RegExp, secret = password): void {
  const all = refused(text, secret);
  assert.equal(all.length, 1, all.join('\n'));
  assert.match(all[0] ?? '', pattern);
}

describe('a good URL', () => {
  test('gives every part, with defaults for the rest', () => {
    assert.deepEqual(accepted(`postgres://${place}:6000/shop?sslmode=verify-full`), {
      hosts: [{ host: 'db.example.com', port: 6000 }],
      user: 'backup',
      password,
      database: 'shop',
      sslMode: 'verify-full',
      tls: {},
      channelBinding: 'prefer',
      connectTimeoutSeconds: 15,
      targetSessionAttrs: 'any',
      options: undefined,
      poolerHint: undefined,
      notices: [],
    });
  });

  test('takes the settings that mean something to a connection', () => {
    const target = accepted(
      `postgres://${place}/shop?sslmode=require&channel_binding=require&connect_timeout=60&target_session_attrs=prefer-standby`,
    );
    assert.equal(target.channelBinding, 'require');
    assert.equal(target.connectTimeoutSeconds, 60);
    assert.equal(target.targetSessionAttrs, 'prefer-standby');
  });

  test('lets routing options through and leaves others out', () => {
    const neon = accepted(`postgres://${place}/shop?sslmode=require&options=endpoint%3Dep-cool-1`);
    assert.equal(neon.options, 'endpoint=ep-cool-1');
    assert.deepEqual(neon.notices, []);
    const mixed = accepted(`postgres://${place}/shop?sslmode=require&options=project%3Dx%20-c%20search_path%3Dy`);
    assert.equal(mixed.options, 'project=x');
    assert.match(mixed.notices.join(), /left out of the URL: options, except/);
    assert.equal(accepted(`postgres://${place}/shop?sslmode=require&options=-csearch_path%3Dx`).options, undefined);
  });

  test('takes sslrootcert=system as verify-full with the public authorities', () => {
    const target = accepted(`postgres://${place}/shop?sslrootcert=system`);
    assert.equal(target.sslMode, 'verify-full');
    assert.deepEqual(target.tls, {});
    only(`postgres://${place}/shop?sslrootcert=system&sslmode=require`, /sslrootcert=system needs sslmode=verify-full/);
    only(`postgres://${place}/shop?sslrootcert=/etc/ca.pem&sslmode=require`, /refused in the URL.*tls-ca/);
  });

  test('reports independent problems together', () => {
    const all = refused('postgres://backup:%ZZ@db.example.com:0?sslmode=bogus&ssl=1&bogus=1', '%ZZ');
    for (const pattern of [
      /bad percent-encoding in the password/,
      /port/,
      /no database name/,
      /sslmode has a value that does not exist/,
      /ssl is only known as ssl=true/,
    ]) {
      assert.equal(all.filter((one) => pattern.test(one)).length, 1, `${pattern} in ${all.join('\n')}`);
    }
  });
});

describe('sslmode', () => {
  const modeOf = (host: string): string => accepted(`postgres://backup:${password}@${host}/shop`).sslMode;

  test('is prefer where nobody else listens and require everywhere else', () => {
    for (const host of [
      ...['localhost', 'LOCALHOST', 'db.localhost', '127.0.0.1', '127.9.9.9', '[::1]', '%2Fvar%2Frun%2Fpostgresql'],
      ...[
        '10.1.2.3',
        '172.16.0.1',
        '172.31.255.255',
        '192.168.1.1',
        '169.254.1.1',
        '100.64.0.1',
        '[fd12::1]',
        '[fe80::1]',
      ],
      ...['postgres', 'my_db', 'db.internal', 'host.docker.internal', 'nas.local', '[::ffff:10.0.0.1]'],
    ]) {
      assert.equal(modeOf(host), 'prefer', host);
    }
    for (const host of [
      ...['db.example.com', '8.8.8.8', '172.32.0.1', '100.128.0.1', '[2001:db8::1]', '[::ffff:8.8.8.8]'],
      ...['134744072', '0x08080808', 'internal.example.com', 'localhost.example.com', 'localhost,db.example.com'],
    ]) {
      assert.equal(modeOf(host), 'require', host);
    }
  });

  test('says how to verify when it was left open to a public host, and only then', () => {
    const notices = (query: string, host = 'db.example.com'): string =>
      accepted(`postgres://backup:${password}@${host}/shop${query}`).notices.join('\n');
    assert.match(
      notices(''),
      /no sslmode: the connection is encrypted, but the server is not verified.*sslmode=verify-full.*tls-ca/,
    );
    assert.equal(notices('?sslmode=require'), '');
    assert.equal(notices('', '10.0.0.1'), '');
    assert.match(notices('?sslmode=prefer'), /lets anybody between here and the server switch encryption off/);
  });
});

describe('bad input', () => {
  test('B1: empty', () => {
    for (const text of ['', ' ', '\n']) only(text, /database-url: is empty; .*forked pull requests/s);
  });

  test('B2: spaces and newlines around it are ignored, with a notice', () => {
    for (const [before, after] of [
      [' ', ''],
      ['', '\n'],
      ['\t', '\r\n'],
      ['\ufeff', ' '],
      ['\u200b', '\u00a0'],
    ]) {
      const target = accepted(`${before}postgres://${place}/shop?sslmode=require${after}`);
      assert.equal(target.database, 'shop');
      assert.deepEqual(target.notices, ['spaces or line breaks around the URL were ignored']);
    }
    only(`postgres://backup:${password.slice(0, 4)}\n${password.slice(4)}@h/shop`, /line break/);
  });

  test('B3: surrounding quotes', () => {
    for (const quote of ['"', "'", '`', '\u201c'])
      only(`${quote}postgres://${place}/shop${quote}`, /remove the quotes/);
  });

  test('B4: NAME=postgres://…', () => {
    for (const before of ['DATABASE_URL=', 'export DATABASE_URL=', 'DATABASE_URL="', 'DATABASE_URL: ']) {
      only(`${before}postgres://${place}/shop`, /starts with a variable name; paste only the value/);
    }
  });

  test('B5: a psql command', () => {
    only(`psql postgres://${place}/shop`, /is a command, not a URL; paste only the URL/);
    only(`psql 'postgres://${place}/shop'`, /remove the quotes|command/);
  });

  test('B6: POSTGRES:// in upper case', () => {
    for (const scheme of ['POSTGRES', 'Postgresql'])
      only(`${scheme}://${place}/shop`, /write postgres:\/\/ in lower case/);
  });

  test('B7: a +driver', () => {
    for (const driver of ['asyncpg', 'psycopg', 'psycopg2']) {
      only(`postgresql+${driver}://${place}/shop`, /names a driver after the \+.*drop it/);
    }
  });

  test('B8: a JDBC URL', () => {
    only(`jdbc:postgresql://db.example.com/shop?user=backup&password=${password}`, /is a JDBC URL/);
  });

  test('B9: a Prisma Accelerate URL', () => {
    for (const scheme of ['prisma', 'prisma+postgres']) {
      only(
        `${scheme}://accelerate.prisma-data.net/?api_key=${password}`,
        /Accelerate cannot be dumped; use the database's direct URL/,
      );
    }
  });

  test('B10: another kind of URL', () => {
    for (const scheme of ['mysql', 'https', 'mongodb+srv']) {
      only(
        `${scheme}://${place}/shop`,
        new RegExp(`starts with ${scheme.replace('+', '\\+')}://, which is not PostgreSQL`),
      );
    }
    only(`${password}://h/d`, /does not start with postgres:\/\//);
    only(password, /does not start with postgres:\/\//);
    only(`backup:${password}@h/d`, /does not start with postgres:\/\//);
    only(`postgres:/${place}/d`, /two slashes/);
  });

  test('B11: an expression that was not expanded', () => {
    const open = '$'.concat('{');
    const texts = [
      `${open}{ secrets.DATABASE_URL }}`,
      `postgres://u:${open}{ secrets.PASSWORD }}@h/d`,
      '$DATABASE_URL',
      `${open}DATABASE_URL}`,
    ];
    for (const text of [...texts, '%DATABASE_URL%', 'secrets.DATABASE_URL']) only(text, /was not expanded/);
  });

  test('B12: a placeholder', () => {
    for (const text of [
      'postgresql://postgres:[YOUR-PASSWORD]@db.abc.supabase.co:5432/postgres',
      'postgresql://postgres.[YOUR-PROJECT-REF]:x@aws-0-eu.pooler.supabase.com:5432/postgres',
      'postgres://u:<password>@h/d',
      'postgres://u:<db_password>@h/d',
    ]) {
      only(text, /still holds a placeholder.*replace/);
    }
    assert.equal(accepted('postgres://u:[x]y@h/d').password, '[x]y');
  });

  test('B13: an @ in the password', () => {
    only('postgres://backup:S3cr3t@Zeta@db.example.com/shop', /more than one @.*@ is %40/, 'S3cr3t@Zeta');
    only('postgres://backup:S3cr3t@Zeta?Omega=x@db.example.com/shop', /more than one @/, 'S3cr3t@Zeta?Omega=x');
  });

  test('B14: a / in the password', () => {
    only('postgres://backup:S3cr/3tZeta@db.example.com/shop', /has a \/ before its @.*\/ is %2F/, 'S3cr/3tZeta');
    only('postgres://backup:1234/3tZeta?Omega@db.example.com/shop', /has a \/ before its @/, '1234/3tZeta?Omega');
  });

  test('B15: # and ? in the password are part of it, as for libpq', () => {
    assert.equal(accepted('postgres://backup:S3#cr?3t@db.example.com/shop').password, 'S3#cr?3t');
  });

  test('B16: a bad percent-encoding', () => {
    for (const secret of ['S3cr3t%ZZ', '100%', 'S3cr3t%4']) {
      only(`postgres://backup:${secret}@h/shop`, /bad percent-encoding in the password.*a % itself as %25/, secret);
    }
    only('postgres://u:p@h/sh%op', /bad percent-encoding in the database name/);
    only('postgres://u%:p@h/d', /bad percent-encoding in the user name/);
    only('postgres://u:p@h%/d', /bad percent-encoding in the host/);
    only('postgres://u:p@h/d?sslmode=%', /bad percent-encoding in the value of a parameter/);
    only('postgres://u:S3cr3t%FF@h/d', /not UTF-8/, 'S3cr3t%FF');
  });

  test('B17: a space', () => {
    only('postgres://backup:S3cr3t Zeta@h/shop', /has a space inside.*%20/, 'S3cr3t Zeta');
  });

  test('B18: %00', () => {
    only(`postgres://backup:${password}%00@h/shop`, /%00 in the password/);
  });

  test('B19: no host', () => {
    only(`postgres://backup:${password}@/shop`, /has no host/);
    assert.deepEqual(
      refused('postgres://').map((one) => /: has no (\w+)/.exec(one)?.[1]),
      ['user', 'database', 'host'],
    );
    only(`postgres://backup:${password}@h1,,h2/shop`, /a comma too many/);
  });

  test('B20: no database, and none is guessed', () => {
    only(`postgres://${place}`, /has no database name/);
    only(`postgres://${place}/`, /has no database name/);
    only(`postgres://${place}/?sslmode=require`, /has no database name/);
  });

  test('B21: no password, unless something else can authenticate', () => {
    for (const text of ['postgres://backup@db.example.com/shop', 'postgres://backup:@10.0.0.1/shop'])
      only(text, /has no password/);
    for (const host of ['localhost', '127.0.0.1', '[::1]', '%2Frun%2Fpostgresql']) {
      assert.equal(accepted(`postgres://backup@${host}/shop`).password, undefined);
    }
    const folder = mkdtempSync(join(tmpdir(), 'pgassay-url-'));
    try {
      const [key, cert, other] = ['a.key', 'a.crt', 'b.key'].map((name) => join(folder, name)) as [
        string,
        string,
        string,
      ];
      execFileSync(
        'openssl',
        [...'req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=x -keyout'.split(' '), key, '-out', cert],
        { stdio: 'ignore' },
      );
      execFileSync('openssl', ['genpkey', '-algorithm', 'ED25519', '-out', other]);
      const pem = (path: string): string => readFileSync(path, 'utf8');
      const url = 'postgres://backup@db.example.com/shop?sslmode=require';
      assert.equal(accepted(url, { tlsClientCert: pem(cert), tlsClientKey: pem(key) }).tls.key, pem(key));
      assert.equal(
        accepted(`${url}`, { tlsCa: pem(cert), tlsClientCert: pem(cert), tlsClientKey: pem(key) }).tls.rootCert,
        pem(cert),
      );
      const wrong = (context: Partial<UrlContext>, pattern: RegExp): void => {
        assert.match(refused(`postgres://${place}/shop`, password, context).join('\n'), pattern);
      };
      wrong({ tlsClientCert: pem(cert) }, /^tls-client-key: is empty/);
      wrong({ tlsClientKey: pem(key) }, /^tls-client-cert: is empty/);
      wrong(
        { tlsClientCert: pem(cert), tlsClientKey: pem(other) },
        /^tls-client-key: does not belong to the certificate/,
      );
      wrong({ tlsClientCert: pem(cert), tlsClientKey: 'x' }, /^tls-client-key: is not a PEM private key/);
      wrong({ tlsCa: '/etc/ca.pem' }, /^tls-ca: is not a list of PEM certificates/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test('B22: a port that is none', () => {
    for (const port of ['abc', '0', '70000', '-1', '5432x', '54 32'.replace(' ', '%20')]) {
      only(`postgres://backup:${password}@h:${port}/shop`, /port that is not a number from 1 to 65535/);
    }
    assert.match(refused(`postgres://h:${password}/shop`).join('\n'), /if a password stands in its place/);
  });

  test('B23: several hosts, each with its port', () => {
    const hosts = (text: string): unknown =>
      accepted(`postgres://u:p@${text}/d`).hosts.map(({ host, port }) => `${host} ${port}`);
    assert.deepEqual(hosts('h1:1,h2:2'), ['h1 1', 'h2 2']);
    assert.deepEqual(hosts('h1,h2:2'), ['h1 5432', 'h2 2']);
    assert.deepEqual(hosts('h1:1,h2'), ['h1 1', 'h2 5432']);
    assert.deepEqual(hosts('[::1]:1,[fd00::2],h3:'), ['::1 1', 'fd00::2 5432', 'h3 5432']);
  });

  test('B24: socket folders', () => {
    const socket = { host: '/var/run/postgresql', port: 5433 };
    assert.deepEqual(accepted('postgres://u@%2Fvar%2Frun%2Fpostgresql:5433/d').hosts, [socket]);
    assert.deepEqual(accepted('postgres://u@:5433/d?host=/var/run/postgresql').hosts, [socket]);
    assert.deepEqual(accepted('postgres://u@/d?host=/var/run/postgresql&port=5433').hosts, [socket]);
    only('postgres://u@/d?host=/a,/b', /one socket folder/);
  });

  test('B25: IPv6 with and without brackets', () => {
    assert.deepEqual(accepted('postgres://u:p@[2001:db8::1]:6000/d').hosts, [{ host: '2001:db8::1', port: 6000 }]);
    assert.deepEqual(accepted('postgres://u:p@[fe80::1%25eth0]/d').hosts, [{ host: 'fe80::1%eth0', port: 5432 }]);
    for (const host of ['::1', '2001:db8::1', '2001:db8::1:5432', '[::1', '::1]', '[]', '[::1]x']) {
      only(`postgres://backup:${password}@${host}/shop`, /IPv6 address that is not written in brackets/);
    }
  });

  test('B26: settings of ORMs are left out with a notice; pgbouncer=true is a pooler', () => {
    const target = accepted(
      `postgres://${place}/shop?schema=public&connection_limit=5&pool_timeout=0&sslmode=require&application_name=x`,
    );
    assert.deepEqual(target.notices, [
      'left out of the URL, because a backup has no use for it: schema, connection_limit, pool_timeout, application_name',
    ]);
    assert.match(accepted(`postgres://${place}/shop?pgbouncer=true`).poolerHint?.reason ?? '', /pgbouncer=true/);
    assert.equal(accepted(`postgres://${place}/shop?pgbouncer=false`).poolerHint, undefined);
  });

  test('B27: ssl=true is sslmode=require, anything else is refused', () => {
    assert.equal(accepted('postgres://u:p@localhost/d?ssl=true').sslMode, 'require');
    assert.equal(accepted('postgres://u:p@localhost/d?ssl=true&sslmode=verify-full').sslMode, 'verify-full');
    for (const value of ['0', 'false', 'no-verify', '1']) only(`postgres://u:p@h/d?ssl=${value}`, /use sslmode=/);
    only('postgres://u:p@h/d?ssl=true&sslmode=prefer', /contradict/);
  });

  test('B28: sslmode that is none, disable in the open, anything twice', () => {
    only(`postgres://${place}/shop?sslmode=bogus`, /sslmode has a value that does not exist; use one of disable, /);
    only(`postgres://${place}/shop?sslmode=no-verify`, /use sslmode=require/);
    only(`postgres://${place}/shop?sslmode=disable`, /sslmode=disable, but the host is not in a private network/);
    assert.equal(accepted('postgres://u:p@10.0.0.1/d?sslmode=disable').sslMode, 'disable');
    only(`postgres://${place}/shop?sslmode=require&sslmode=require`, /the parameter sslmode is given twice/);
  });

  test('B29: parameters that would lead elsewhere', () => {
    for (const key of [
      'user',
      'password',
      'host',
      'hostaddr',
      'port',
      'dbname',
      'service',
      'passfile',
      'sslkey',
      'sslcert',
      'require_auth',
    ]) {
      only(`postgres://${place}/shop?${key}=${password}`, new RegExp(`the parameter ${key} is refused in the URL`));
    }
    only(`postgres://${place}/shop?host=/var/run`, /the parameter host is refused/);
    only(`postgres://${place}/shop?bogus=1`, /the parameter bogus is not known/);
    only(`postgres://${place}/shop?SSLMODE=require`, /spelled almost like sslmode/);
    only(`postgres://${place}/shop?__proto__=1`, /not known/);
    only(`postgres://${place}/shop?constructor=1`, /constructor is not known/);
  });

  test('B30: text after the database name', () => {
    only(`postgres://${place}/shop/extra`, /unexpected text after the database name/);
    only(`postgres://${place}/shop/`, /unexpected text after the database name/);
    only(`postgres://${place}/shop#frag`, /has text after a #/);
    only(`postgres://${place}/shop?sslmode=require#frag`, /has text after a #/);
    assert.equal(accepted(`postgres://${place}/sh%2Fop%23`).database, 'sh/op#');
  });

  test('B31: a keyword string', () => {
    for (const text of [`host=h dbname=shop user=u password=${password}`, `dbname=shop password='${password}'x`]) {
      only(text, /is a keyword string.*use a URL/);
    }
  });

  test('B32: hosts that are poolers by their name', () => {
    const hint = (url: string): unknown => accepted(`postgres://u:p@${url}?sslmode=require`).poolerHint;
    assert.deepEqual(hint('ep-cool-1-pooler.eu-central-1.aws.neon.tech/shop'), {
      reason: 'ep-cool-1-pooler.eu-central-1.aws.neon.tech is a transaction pooler by its name',
      direct: 'use the direct host ep-cool-1.eu-central-1.aws.neon.tech',
    });
    assert.match(
      JSON.stringify(hint('aws-0-eu.pooler.supabase.com:6543/postgres')),
      /use its session pooler, aws-0-eu.pooler.supabase.com:5432/,
    );
    assert.equal(hint('aws-0-eu.pooler.supabase.com:5432/postgres'), undefined);
    assert.equal(hint('ep-cool-1.eu-central-1.aws.neon.tech/shop'), undefined);
  });

  test('B33: Supabase direct hosts get the IPv6 notice', () => {
    const { notices } = accepted('postgres://postgres:p@db.abcdef.supabase.co/postgres?sslmode=require');
    assert.match(notices.join(), /IPv6 addresses only.*session pooler.*user postgres\.abcdef/);
  });

  test('B34: what localhost is on a runner is said when connecting fails, not here', () => {
    assert.deepEqual(accepted('postgres://u:p@localhost/d').notices, []);
  });
});

describe('any password', () => {
  test('survives percent-encoding', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', minLength: 1 }), (secret) => {
        fc.pre(!secret.includes('\0'));
        const target = accepted(`postgres://u:${encodeURIComponent(secret)}@h/d`);
        assert.equal(target.password, secret);
      }),
    );
  });

  test('never shows in a problem, however raw it is', () => {
    // Letters that no sentence of ours has in a row, and everything that means something in a URL.
    const unit = fc.constantFrom(...'QXZ7QXZ7@:/?#%&=[], ', '%4', '%00', '%FF', '\n', '"');
    const raw = fc.string({ unit, minLength: 4, maxLength: 24 });
    const around = fc.constantFrom(
      'postgres://u:$@h.example/d',
      'postgres://u:$@h/d?sslmode=x',
      'postgres://u:$',
      '$',
      'u:$@h/d',
      'postgres:$@h',
      'POSTGRES://u:$@h/d',
    );
    fc.assert(
      fc.property(raw, around, (secret, template) => {
        const { problems } = parseDatabaseUrl(
          template.replace('$', () => secret),
          { input },
        );
        const text = JSON.stringify(problems);
        for (const fragment of fragments(secret)) {
          if (/[QXZ7].*[QXZ7]/.test(fragment)) assert.ok(!text.includes(fragment), `${text} holds ${fragment}`);
        }
      }),
      { numRuns: 3000, examples: [['?QQQQ', 'postgres://u:$']] },
    );
  });

  test('is among the secrets, raw and decoded, whether the URL parses or not', () => {
    const url = 'postgres://u:S3%40cr3t@h/d';
    const secrets = secretsOf(` ${url}\n`, accepted(url));
    for (const form of [url, 'S3%40cr3t', 'S3@cr3t']) assert.ok(secrets.includes(form), form);
    for (const [broken, pieces] of [
      ['postgres://u:S3cr@Zeta@h/d', ['S3cr@Zeta', 'S3cr', 'Zeta']],
      ['postgres://u:S3cr/Zeta@h/d', ['S3cr/Zeta', 'S3cr', 'Zeta']],
      ['postgres://u:S3cr%ZZ%40x@h/d', ['S3cr%ZZ%40x', 'S3cr%ZZ@x']],
      ['jdbc:postgresql://h/d?user=u&password=S3cr3t', ['S3cr3t']],
      ['host=h password=S3cr3t dbname=d', ['S3cr3t']],
      ["host=h password='S3cr 3t' dbname=d", ['S3cr 3t']],
      ['postgres://u:S3cr3t', ['S3cr3t']],
    ] as const) {
      for (const piece of pieces) assert.ok(secretsOf(broken).includes(piece), `${piece} of ${broken}`);
    }
    assert.deepEqual(secretsOf(' \n'), []);
  });

  test('is masked in every form, while host, user and database stay readable', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', minLength: 4 }), (secret) => {
        fc.pre(secret.trim().length >= 4 && !/[\0\n\r]/.test(secret) && secret.isWellFormed());
        const url = `postgres://backup:${encodeURIComponent(secret)}@db.example.com/shop`;
        const target = accepted(url);
        const secrets = new Secrets();
        for (const one of secretsOf(url, target)) secrets.add(one);
        for (const word of publicWordsOf(target)) secrets.spare(word);
        if (!publicWordsOf(target).some((word) => word.includes(secret))) {
          assert.equal(secrets.redact(`<${secret}>`), '<***>');
          assert.equal(secrets.redact(`<${encodeURIComponent(secret)}>`), '<***>');
        }
        assert.equal(secrets.redact('db.example.com backup shop'), 'db.example.com backup shop');
      }),
    );
  });
});

describe('libpq', () => {
  const oracle = `
import ctypes, ctypes.util, json, sys
lib = ctypes.CDLL(ctypes.util.find_library('pq') or 'libpq.so.5')
class Option(ctypes.Structure):
    _fields_ = [(n, ctypes.c_char_p) for n in ('keyword', 'envvar', 'compiled', 'val', 'label', 'dispchar')] + [('dispsize', ctypes.c_int)]
lib.PQconninfoParse.restype = ctypes.POINTER(Option)
lib.PQconninfoParse.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p)]
answers = []
for url in json.load(sys.stdin):
    error = ctypes.c_char_p()
    options = lib.PQconninfoParse(url.encode(), ctypes.byref(error))
    found = None
    if options:
        found, i = {}, 0
        while options[i].keyword:
            if options[i].val is not None: found[options[i].keyword.decode()] = options[i].val.decode('utf-8', 'replace')
            i += 1
    answers.append(found)
json.dump(answers, sys.stdout)
`;

  const reference = (urls: readonly string[]): (Record<string, string> | null)[] | undefined => {
    const { status, stdout } = spawnSync('python3', ['-c', oracle], { input: JSON.stringify(urls), encoding: 'utf8' });
    return status === 0 ? (JSON.parse(stdout) as (Record<string, string> | null)[]) : undefined;
  };

  test('reads every URL that we accept exactly as we do', (context) => {
    const name = fc.string({
      unit: fc.constantFrom(...'abZ09-_.~!$()*+;é\'"#?:[]', '%40', '%2F', '%3a', '%20', '%C3%A9'),
      maxLength: 6,
    });
    const host = fc.constantFrom('h', 'db.example.com', '10.0.0.1', '[::1]', '[fd00::1]', '%2Fvar%2Frun', '', 'h%31');
    const port = fc.constantFrom('', ':', ':5433', ':1', ':0', ':x', ':%35');
    const hosts = fc
      .array(
        fc.tuple(host, port).map((pair) => pair.join('')),
        { minLength: 1, maxLength: 3 },
      )
      .map((list) => list.join(','));
    const pair = fc.constantFrom(
      ...[
        'sslmode=require',
        'sslmode=disable',
        'ssl=true',
        'connect_timeout=9',
        'target_session_attrs=primary',
        'channel_binding=disable',
      ],
      ...['host=/tmp', 'port=6000', 'options=endpoint%3Dx', 'application_name=y', '%73slmode=prefer'],
    );
    const url = fc
      .record({
        scheme: fc.constantFrom('postgres', 'postgresql'),
        user: name,
        password: fc.option(name),
        hosts,
        database: fc.option(name),
        query: fc.option(fc.array(pair, { maxLength: 3 })),
      })
      .map(({ scheme, user, password: secret, hosts: authority, database, query }) =>
        [
          `${scheme}://${user}${secret === null ? '' : `:${secret}`}@${authority}`,
          database === null ? '' : `/${database}`,
          query === null ? '' : `?${query.join('&')}`,
        ].join(''),
      );
    const urls = fc.sample(url, { numRuns: 5000, seed: 20261121 });
    const answers = reference(urls);
    if (answers === undefined) return context.skip('not on this platform: python3 and libpq are not both here');
    let compared = 0;
    urls.forEach((text, index) => {
      const { target } = parseDatabaseUrl(text, { input });
      if (target === undefined) return;
      const answer = answers[index];
      assert.ok(answer, `libpq refuses ${text}`);
      compared += 1;
      const ports = (answer.port ?? '').split(',');
      const expected = (answer.host ?? '').split(',').map((one, i) => ({ host: one, port: Number(ports[i] || 5432) }));
      assert.deepEqual(target.hosts, expected, text);
      assert.equal(target.user, answer.user, text);
      assert.equal(target.password, answer.password, text);
      assert.equal(target.database, answer.dbname, text);
      if (/ssl/.test(text.split('?').at(-1) ?? '') && answer.sslmode !== undefined)
        assert.equal(target.sslMode, answer.sslmode, text);
      if (/connect_timeout=9/.test(text)) assert.equal(target.connectTimeoutSeconds, 9);
    });
    assert.ok(compared > 300, `only ${compared} URLs were compared`);
  });
});
