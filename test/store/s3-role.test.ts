// aws-role-arn: sessions of a role for the identity of a job, from the first request to the end of a long upload.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { channel } from 'node:diagnostics_channel';
import type { ClientRequest } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { identityOf } from '../../src/environment.ts';
import { Failure } from '../../src/failure.ts';
import { Inputs } from '../../src/inputs.ts';
import type { S3Options } from '../../src/store/s3-address.ts';
import type { Store, Upload } from '../../src/store/store.ts';
import { readStore } from '../../src/store-inputs.ts';
import { runAction } from '../support/action.ts';
import { type CliResult, cli, clientBin } from '../support/backup.ts';
import { createShop, repository, until } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { S3Server } from '../support/s3.ts';
import { type Answer, type Exchange, S3Proxy } from '../support/s3-faults.ts';
import { openS3 } from '../support/s3-store.ts';
import { type Role, type RoleOptions, Sts, stsError, type Trouble } from '../support/sts.ts';

const content = randomBytes(20_000_000);
const half = 10_000_000;
/** So long before the end of a session the SDK asks for the next one. */
const ahead = 300_000;

describe('a role that is assumed with the identity of a job', { concurrency: 8 }, () => {
  let cluster: Cluster;
  let server: S3Server;
  let sts: Sts;
  /** Asks each request for its session. */
  let proxy: S3Proxy;
  before(async () => {
    [cluster, server] = await Promise.all([Cluster.start(), S3Server.start()]);
    [sts, proxy] = await Promise.all([Sts.start(server), S3Proxy.start(server), createShop(cluster, 'shop', 1000)]);
    await server.createBucket('backups');
    proxy.fail('*', { kind: 'function', answer: (exchange) => sts.judge(exchange) }, { times: Infinity });
    process.env.AWS_ENDPOINT_URL_STS = sts.endpoint;
  });
  after(() => Promise.all([cluster?.stop(), server?.stop(), sts?.stop(), proxy?.stop()]));

  /** One file in a folder of the bucket that no other test knows. */
  class Writer {
    readonly role: Role;
    readonly store: Store;
    readonly prefix = randomBytes(6).toString('hex');
    readonly path = 'shop/20261121T020000Z-3f9a1c/database.dump';
    readonly #proxy: S3Proxy;

    constructor(options: RoleOptions, { through = proxy, ...more }: Partial<S3Options> & { through?: S3Proxy } = {}) {
      this.role = sts.role(options);
      this.#proxy = through;
      const { accessKeyId, secretAccessKey, region } = server;
      this.store = openS3(
        { accessKeyId, secretAccessKey, region, endpoint: through.endpoint },
        'backups',
        this.prefix,
        { credentials: undefined, role: { arn: this.role.arn, identity: this.role.identity }, ...more },
      );
    }

    get requests(): Readonly<Exchange>[] {
      return this.#proxy.requests.filter(({ path }) => path.includes(this.prefix));
    }

    async upload(between: () => Promise<void> = async () => {}): Promise<void> {
      const upload = await this.store.begin(this.path, content.length);
      try {
        await this.#write(upload, content.subarray(0, half));
        await between();
        await this.#write(upload, content.subarray(half));
        assert.deepEqual(await upload.complete(), { bytes: content.length });
      } catch (error) {
        await upload.abort();
        throw error;
      }
      assert.ok((await server.get('backups', `${this.prefix}/${this.path}`)).equals(content));
    }

    /** Resolves when nothing is under way and every session so far is one to be replaced, which then is over. */
    async outliveSessions(): Promise<void> {
      await until(() => this.requests.some(({ operation }) => operation === 'UploadPart') || undefined);
      await until(() => this.requests.every(({ status }) => status !== undefined) || undefined);
      const ends = this.role.sessions.map(({ expires }) => expires - ahead);
      await sleep(Math.max(0, Math.max(...ends) - Date.now() + 50));
      for (const session of this.role.sessions) session.revoked = true;
    }

    async #write(upload: Upload, bytes: Buffer): Promise<void> {
      for (let at = 0; at < bytes.length; at += 1_000_000) await upload.write(bytes.subarray(at, at + 1_000_000));
    }
  }

  /** What it is rejected with: exit 31, without a secret in anything that could be printed. */
  async function refusalOf(promise: Promise<unknown>): Promise<Failure> {
    const error = await promise.then(
      () => assert.fail('it went through'),
      (reason: unknown) => reason,
    );
    assert.ok(error instanceof Failure, String((error as Error).stack));
    assert.equal(error.exitCode, 31, error.message);
    requireNoSecret(`${error.message}\n${error.hint}\n${error.stack}`);
    return error;
  }

  function requireNoSecret(text: string): void {
    for (const secret of sts.secrets) assert.ok(!text.includes(secret), `${secret} is in: ${text}`);
  }

  /** Every session was asked for with a token of its own, and nothing was refused. */
  function requireFreshTokens({ role, requests }: Writer): void {
    assert.deepEqual(
      role.requests.map(({ WebIdentityToken }) => WebIdentityToken),
      role.tokens,
    );
    assert.equal(new Set(role.tokens).size, role.tokens.length);
    assert.deepEqual(
      requests.filter(({ status = 0 }) => status >= 400 && status !== 404),
      [],
    );
  }

  test('one session, for a token that is meant for AWS, does a whole upload', async () => {
    const writer = new Writer({});
    await writer.upload();
    const { arn, asked, requests, sessions, tokens } = writer.role;
    assert.deepEqual(asked, ['sts.amazonaws.com']);
    assert.deepEqual(requests, [
      {
        Action: 'AssumeRoleWithWebIdentity',
        Version: '2011-06-15',
        RoleArn: arn,
        RoleSessionName: 'pgassay',
        WebIdentityToken: tokens[0],
      },
    ]);
    assert.deepEqual([...(sessions[0]?.uses ?? [])].sort(), [
      'CompleteMultipartUpload',
      'CreateMultipartUpload',
      'HeadObject',
      'HeadObject',
      ...Array(3).fill('UploadPart'),
    ]);
    requireFreshTokens(writer);
  });

  test('requests that are made at the same time wait for one session', async () => {
    const { store, role } = new Writer({});
    await Promise.all(Array.from({ length: 8 }, () => store.names()));
    assert.equal(role.sessions.length, 1);
  });

  test('a session that ends during an upload is followed by another before any part is refused', async () => {
    const writer = new Writer({ sessionMs: ahead + 1000 });
    await writer.upload(() => writer.outliveSessions());
    const uses = (over: boolean): string[] =>
      writer.role.sessions.filter(({ revoked }) => revoked === over).flatMap((session) => session.uses);
    assert.deepEqual(uses(true), ['CreateMultipartUpload', 'UploadPart']);
    assert.deepEqual(uses(false), ['UploadPart', 'UploadPart', 'HeadObject', 'CompleteMultipartUpload', 'HeadObject']);
    requireFreshTokens(writer);
  });

  test('sessions that last only seconds are enough, each for a token of its own', async () => {
    const writer = new Writer({ sessionMs: 30_000 });
    await writer.upload();
    assert.ok(writer.role.sessions.length >= 2);
    requireFreshTokens(writer);
  });

  for (const [what, refusal] of [
    ['GitHub', { identity: (nth) => (nth > 1 ? { status: 500 } : undefined) }],
    ['STS', { sts: (nth) => (nth > 1 ? stsError(403, 'AccessDenied') : undefined) }],
  ] as const satisfies readonly (readonly [string, RoleOptions])[]) {
    test(`a session that is good for minutes is used on when ${what} gives no other`, async () => {
      const writer = new Writer({ ...refusal, sessionMs: ahead - 1000 });
      await writer.upload();
      const { asked, requests, sessions } = writer.role;
      assert.ok(asked.length >= 2);
      assert.ok(requests.length < writer.requests.length, 'not asked again for each request');
      assert.equal(sessions.length, 1);
    });

    test(`a session that is nearly over is not used on when ${what} gives no other`, async () => {
      const writer = new Writer({ ...refusal, sessionMs: 30_000 });
      const { message } = await refusalOf(writer.upload());
      assert.match(message, what === 'STS' ? /could not be assumed/ : /no identity token/);
      assert.equal(writer.role.sessions.length, 1);
    });
  }

  async function requireNothingLeft({ prefix }: Writer): Promise<void> {
    assert.deepEqual(await server.keys('backups', prefix), []);
    assert.deepEqual(
      (await server.uploads('backups')).filter(({ key }) => key.startsWith(prefix)),
      [],
    );
  }

  /** Each of its requests that was refused because of the session, in order: `UploadPart 2`. */
  const refusedOf = ({ requests }: Writer): string[] =>
    requests
      .filter(({ status }) => status === 400)
      .map(({ operation, query }) => [operation, query.partNumber].filter(Boolean).join(' '));

  test('a session that the store ends before its time is followed by one other, and refused parts are sent again', async () => {
    const writer = new Writer({});
    await writer.upload(async () => {
      await until(() => writer.requests.some(({ operation, status }) => operation === 'UploadPart' && status === 200));
      for (const session of writer.role.sessions) session.revoked = true;
    });
    const [first, second, ...more] = writer.role.sessions;
    assert.deepEqual(more, []);
    assert.notEqual(first?.token, second?.token);
    const refused = refusedOf(writer);
    assert.ok(refused.includes('UploadPart 2'), refused.join());
    assert.equal(new Set(refused).size, refused.length, 'each of them once');
    assert.equal(new Set(writer.role.tokens).size, 2);
  });

  test('parts that are refused at the same time wait for the same new session', async () => {
    await using other = await S3Proxy.start(server);
    const writer = new Writer({}, { through: other });
    const answer = ({ headers }: Readonly<Exchange>): Answer | undefined =>
      headers['x-amz-security-token'] === writer.role.sessions[0]?.token
        ? { status: 400, body: '<Error><Code>ExpiredToken</Code></Error>' }
        : undefined;
    other.fail('UploadPart', { kind: 'function', answer }, { times: Infinity });
    await writer.upload();
    assert.ok(refusedOf(writer).includes('UploadPart 1'));
    assert.equal(writer.role.sessions.length, 2);
  });

  for (const operation of ['CreateMultipartUpload', 'HeadObject', 'CompleteMultipartUpload'] as const)
    test(`${operation} that is refused because of its session is made again with another`, async () => {
      await using other = await S3Proxy.start(server);
      other.fail(operation, { kind: 'status', status: 400, code: 'ExpiredToken' });
      const writer = new Writer({}, { through: other });
      await writer.upload();
      assert.deepEqual(refusedOf(writer), [operation]);
      assert.equal(writer.role.sessions.length, 2);
    });

  test('a store that refuses the new session as well is told, and nothing is left', async () => {
    await using other = await S3Proxy.start(server);
    other.fail('UploadPart', { kind: 'status', status: 400, code: 'ExpiredToken' }, { times: Infinity });
    const writer = new Writer({}, { through: other });
    const failed = await refusalOf(writer.upload());
    assert.match(failed.message, /session token of the store has expired/);
    assert.match(failed.hint ?? '', /so has the new session/);
    assert.ok(refusedOf(writer).filter((part) => part === 'UploadPart 1').length <= 2, 'once more, not for ever');
    await requireNothingLeft(writer);
  });

  test('a session that the store ended is not used on when STS gives no other', async () => {
    await using other = await S3Proxy.start(server);
    other.fail('UploadPart', { kind: 'status', status: 400, code: 'ExpiredToken' });
    const writer = new Writer(
      { sts: (nth) => (nth > 1 ? stsError(403, 'AccessDenied') : undefined) },
      { through: other },
    );
    const { message } = await refusalOf(writer.upload());
    assert.equal(message, `the role ${writer.role.arn} could not be assumed (AccessDenied)`);
    assert.equal(writer.role.sessions.length, 1);
  });

  test('keys that are given have no other session: the first refusal is told, and nothing is left', async () => {
    await using other = await S3Proxy.start(server);
    other.fail('UploadPart', { kind: 'status', status: 400, code: 'ExpiredToken' });
    const { accessKeyId, secretAccessKey } = server;
    const credentials = { accessKeyId, secretAccessKey, sessionToken: undefined };
    const writer = new Writer({}, { credentials, role: undefined, through: other });
    const failed = await refusalOf(writer.upload());
    assert.match(failed.message, /session token of the store has expired/);
    assert.match(failed.hint ?? '', /use aws-role-arn/);
    assert.equal(refusedOf(writer).length, 1);
    await requireNothingLeft(writer);
  });

  for (const [what, trouble, says, hint, times] of [
    ['AccessDenied', [403, 'AccessDenied'], 'AccessDenied', /trust policy: its condition on sub must match/, 1],
    ['an expired token', [400, 'ExpiredTokenException'], 'ExpiredTokenException', /trust policy/, 1],
    ['a claim', [403, 'IDPRejectedClaim'], 'IDPRejectedClaimException', /trust policy/, 1],
    [
      'an issuer it does not know',
      [400, 'InvalidIdentityToken'],
      'InvalidIdentityTokenException',
      /the identity provider https:\/\/token\.actions\.githubusercontent\.com/,
      1,
    ],
    ['everybody, being down', [503, 'ServiceUnavailable'], 'ServiceUnavailable', /run the job again/, 5],
    ['connections', 'reset', 'ECONNRESET', /STS in us-east-1 failed or could not be reached.*s3-region/, 5],
  ] as const)
    test(`STS that refuses ${what} is told with the role, and never with the token`, async () => {
      const answer = (): Trouble => {
        if (trouble === 'reset') return trouble;
        const [status, code] = trouble;
        return stsError(status, code, `not with ${writer.role.tokens.at(-1)}`);
      };
      const writer = new Writer({ sts: answer });
      const failed = await refusalOf(writer.store.names());
      assert.equal(failed.message, `the role ${writer.role.arn} could not be assumed (${says})`);
      assert.match(failed.hint ?? '', hint);
      assert.equal(failed.transient, times > 1);
      assert.equal(writer.role.requests.length, times);
      assert.deepEqual(writer.requests, []);
    });

  test('GitHub that answers 500 twice is asked a third time', async () => {
    const writer = new Writer({ identity: (nth) => (nth <= 2 ? { status: 500, body: 'busy' } : undefined) });
    await writer.upload();
    assert.deepEqual(writer.role.asked, Array(3).fill('sts.amazonaws.com'));
  });

  for (const [what, trouble, says] of [
    ['500', { status: 500, body: '{"message":"busy"}' }, '(500)'],
    ['401', { status: 401 }, '(401)'],
    ['a page', { status: 200, body: '<html>' }, '(200)'],
    ['no token', { status: 200, body: '{"value":null}' }, '(200)'],
    ['an error and a token', { status: 403, body: '{"value":"x"}' }, '(403)'],
    ['a reset', 'reset', '(it could not be reached)'],
  ] as const)
    test(`GitHub that gives ${what} and no identity every time is told`, async () => {
      const { store, role } = new Writer({ identity: () => trouble });
      await assert.rejects(store.names(), {
        exit: 'storeCredentials',
        message: `GitHub gave no identity token ${says}`,
        hint: /run the job again; githubstatus\.com/,
        transient: true,
      });
      assert.equal(role.asked.length, 3);
      assert.deepEqual(role.requests, []);
    });

  test('a job without the permission is told which one it takes, and nobody is asked', async () => {
    const writer = new Writer({});
    const { store, role } = new Writer({}, { role: { arn: writer.role.arn, identity: undefined } });
    await assert.rejects(store.names(), {
      exit: 'storeCredentials',
      message: 'this job may not ask GitHub for an identity token',
      hint: 'add to the job:\n  permissions:\n    id-token: write',
    });
    assert.deepEqual([role.asked, writer.role.asked, writer.role.requests], [[], [], []]);
  });

  test('keys that are given ask nobody but the store', async () => {
    const hosts = new Set<string>();
    const note = (message: unknown): void =>
      void hosts.add((message as { request: ClientRequest }).request.host.replace(/^\[|\]$/g, ''));
    const { accessKeyId, secretAccessKey } = server;
    const credentials = { accessKeyId, secretAccessKey, sessionToken: undefined };
    await using direct = await S3Proxy.start(server);
    channel('http.client.request.start').subscribe(note);
    try {
      const writer = new Writer({}, { credentials, role: undefined, through: direct });
      await writer.upload();
      assert.deepEqual([...hosts], ['127.0.0.1']);
      assert.deepEqual(writer.role.asked, []);
      assert.ok(writer.requests.every(({ headers }) => headers['x-amz-security-token'] === undefined));
    } finally {
      channel('http.client.request.start').unsubscribe(note);
    }
  });

  /** Of a program that stands in a job of this role, on a machine where AWS is at these addresses. */
  const environment = (role: Role): Record<string, string> => ({ ...role.env, AWS_ENDPOINT_URL_S3: proxy.endpoint });
  const list = (role: Role, env: Record<string, string>, prefix = 'nightly'): Promise<CliResult> =>
    cli(
      [
        ...['list', '--store', `s3://backups/${prefix}`, '--s3-path-style', 'true', '--aws-role-arn', role.arn],
        '--json',
      ],
      env,
    );

  test('is all that a job needs to take a backup and to list it, and no secret of it is ever shown', async () => {
    const role = sts.role();
    const result = await runAction(repository, {
      inputs: {
        'database-url': cluster.url('shop'),
        store: 's3://backups/nightly',
        name: 'shop',
        's3-path-style': true,
        'aws-role-arn': role.arn,
        ...clientBin(cluster),
      },
      env: { ...environment(role), RUNNER_DEBUG: '1' },
    });
    assert.equal(result.exitCode, 0, result.log);
    // One for the step, one for what comes after the job.
    assert.deepEqual(role.asked, ['sts.amazonaws.com', 'sts.amazonaws.com']);
    assert.ok(role.sessions[0]?.uses.includes('PutObject'));
    assert.equal((await server.keys('backups', 'nightly/shop/')).length, 4);
    const listed = await list(role, environment(role));
    assert.equal(listed.exitCode, 0, listed.stderr);
    assert.deepEqual(
      (listed.json as { backups: { id: string }[] }).backups.map(({ id }) => id),
      [result.outputs['backup-id']],
    );
    assert.equal(role.sessions.length, 3);
    const shown = [result.rawLog, result.log, result.summary, JSON.stringify([result.outputs, result.exported])];
    requireNoSecret([...shown, listed.stdout, listed.stderr].join('\n'));
    assert.deepEqual(result.droppedOutputs, []);
  });

  test('ends the program with 31 when it cannot be assumed, and says why without a secret', async () => {
    const denied: Role = sts.role({ sts: () => stsError(403, 'AccessDenied', `not ${denied.tokens.at(-1)}`) });
    const down = sts.role({ identity: () => ({ status: 500 }) });
    const without: Role = sts.role();
    const { AWS_ENDPOINT_URL_STS, AWS_ENDPOINT_URL_S3 } = environment(without) as Record<string, string>;
    const outside = { AWS_ENDPOINT_URL_STS, AWS_ENDPOINT_URL_S3 } as Record<string, string>;
    for (const [role, env, says] of [
      [denied, environment(denied), new RegExp(`the role ${denied.arn} could not be assumed \\(AccessDenied\\)`)],
      [down, environment(down), /GitHub gave no identity token \(500\)/],
      [without, outside, /may not ask GitHub for an identity token\n[\s\S]*permissions:\n\s+id-token: write/],
    ] as const) {
      const { exitCode, stdout, stderr } = await list(role, env);
      assert.equal(exitCode, 31, stderr);
      assert.match(stderr, says);
      assert.match(stderr, /hint: /);
      requireNoSecret(stdout + stderr);
    }
  });

  test('is an input that takes the ARN of a role in any partition, and of nothing else', () => {
    const read = (values: Record<string, string>): { role: S3Options['role']; problems: readonly string[] } => {
      const given: Record<string, string> = { store: 's3://backups/nightly', ...values };
      const inputs = new Inputs((name) => given[name]);
      const identity = { url: 'https://token.example', token: 't' };
      const choice = readStore(inputs, identity);
      assert.ok(choice.kind === 's3');
      return { role: choice.options.role, problems: inputs.problems.map(({ message }) => message) };
    };
    for (const arn of [
      'arn:aws:iam::123456789012:role/backups',
      'arn:aws-us-gov:iam::123456789012:role/a/path/back.up+s=@x,y_z-1',
      'arn:aws-cn:iam::123456789012:role/backups',
    ])
      assert.deepEqual(read({ 'aws-role-arn': arn }), {
        role: { arn, identity: { url: 'https://token.example', token: 't' } },
        problems: [],
      });
    for (const arn of [
      'backups',
      'arn:aws:iam::1234:role/backups',
      'arn:aws:iam::123456789012:user/backups',
      'arn:aws:sts::123456789012:assumed-role/backups/me',
    ])
      assert.deepEqual(read({ 'aws-role-arn': arn }).problems, ['is not the ARN of a role']);
    assert.equal(read({}).role, undefined);
  });

  test('needs both variables that the runner gives to a job with the permission', () => {
    const [url, token] = ['https://token.example/?api-version=2.0', 't'];
    assert.deepEqual(identityOf({ ACTIONS_ID_TOKEN_REQUEST_URL: url, ACTIONS_ID_TOKEN_REQUEST_TOKEN: token }), {
      url,
      token,
    });
    assert.equal(identityOf({ ACTIONS_ID_TOKEN_REQUEST_URL: url }), undefined);
    assert.equal(identityOf({ ACTIONS_ID_TOKEN_REQUEST_URL: url, ACTIONS_ID_TOKEN_REQUEST_TOKEN: '' }), undefined);
    assert.equal(identityOf({ ACTIONS_ID_TOKEN_REQUEST_TOKEN: token }), undefined);
  });
});
