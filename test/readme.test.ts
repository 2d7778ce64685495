import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { loadSampleDatabase } from '../scripts/sample-database.ts';
import { generateKeyPair } from '../src/age.ts';
import { cli, countedRows, program, recordedRows, takeBackup, tryBackup } from './support/backup.ts';
import { filesIn, scratch } from './support/faults.ts';
import { Cluster } from './support/postgres.ts';
import { everything } from './support/rows.ts';
import { S3Server } from './support/s3.ts';
import { keyPair } from './support/signing.ts';

const readme = readFileSync(join(import.meta.dirname, '../README.md'), 'utf8');
const execute = promisify(execFile);

describe('README.md', () => {
  let source: Cluster;
  let target: Cluster;
  before(async () => {
    [source, target] = await Promise.all([Cluster.start(), Cluster.start()]);
    await source.createDatabase('shop');
    await loadSampleDatabase(source.url('shop'));
  });
  after(() => Promise.all([source?.stop(), target?.stop()]));

  test('its lines for recovery with stock tools alone give the database back, on a server that knows nothing of it', async () => {
    const [, lines] = /<!-- stock-recovery:start -->\s*```bash\n([\s\S]*?)```/.exec(readme) ?? [];
    assert.ok(lines !== undefined, 'README.md has no block of stock recovery lines');
    const backup = await takeBackup(source, 'shop');
    await target.createDatabase('shop_restored', 'TEMPLATE template0');
    const { stdout } = await execute('bash', ['-c', `set -o pipefail\n${lines}`], {
      env: {
        PATH: `${target.bin}:${dirname(process.execPath)}:/usr/local/bin:/usr/bin:/bin`,
        BACKUP: backup.folder,
        TARGET_URL: target.url('shop_restored'),
      },
    });
    assert.equal(stdout.match(/: OK$/gm)?.length, backup.manifest.files.length, stdout);
    assert.deepEqual(await countedRows(target, 'shop_restored', backup.census), recordedRows(backup.census));
  });

  test('its lines for a signature check a backup with openssl alone, and fail for one that was changed', async () => {
    const [, lines] = /<!-- stock-signature:start -->\s*```bash\n([\s\S]*?)```/.exec(readme) ?? [];
    assert.ok(lines !== undefined, 'README.md has no block of lines for a signature');
    const [signer, stranger] = await Promise.all([keyPair(), keyPair()]);
    const backup = await takeBackup(source, 'shop', { 'signing-key': signer.privateKey });
    const check = async (key: string): Promise<string> => {
      const env = { PATH: '/usr/local/bin:/usr/bin:/bin', BACKUP: backup.folder, VERIFY_KEY: key };
      return (await execute('bash', ['-ec', `set -o pipefail\n${lines}`], { env })).stdout;
    };
    const said = await check(signer.verify);
    assert.match(said, /^Signature Verified Successfully$/m);
    assert.equal(said.match(/: OK$/gm)?.length, backup.manifest.files.length, said);
    const failing = (says: RegExp) => (error: { readonly stdout?: string }) => says.test(error.stdout ?? '');
    await assert.rejects(check(stranger.verify), failing(/^Signature Verification Failure$/m));
    const path = join(backup.folder, 'manifest.json');
    const whole = readFileSync(path, 'utf8');
    await writeFile(path, whole.replace('"scheduled"', '"schedulee"'));
    await assert.rejects(check(signer.verify), failing(/^Signature Verification Failure$/m));
    await writeFile(path, whole);
    const dump = readFileSync(backup.dump);
    await writeFile(backup.dump, 'another');
    await assert.rejects(check(signer.verify), failing(/^database\.dump: FAILED$/m));
    await writeFile(backup.dump, dump);
    // The other way round: signed again by hand, by a key that is trusted instead.
    const key = join(await scratch(), 'key.pem');
    await writeFile(key, stranger.privateKey, { mode: 0o600 });
    const signed = `cd '${backup.folder}'; openssl pkeyutl -sign -inkey '${key}' -rawin -in manifest.json | base64 -w0 > manifest.sig`;
    await execute('bash', ['-ec', signed]);
    const id = await execute('bash', [
      '-c',
      `openssl pkey -pubin -in '${signer.verify}' -outform DER | tail -c 32 | sha256sum`,
    ]);
    assert.equal(id.stdout.slice(0, 64), backup.manifest.signing?.keyId);
    const shown = await cli(['show', '--store', backup.store, '--verify-key', stranger.verify]);
    assert.match(shown.stdout, new RegExp(`signed +by key ${stranger.id.slice(0, 16)}, checked`), shown.stderr);
  });

  test('its lines for ten deleted rows bring them back, and change nothing else', async () => {
    const [, lines] = /<!-- deleted-rows:start -->\s*```bash\n([\s\S]*?)```/.exec(readme) ?? [];
    assert.ok(lines !== undefined, 'README.md has no block for deleted rows');
    const backup = await takeBackup(source, 'shop', { name: 'shop' });
    await source.createDatabase('shop_live', 'TEMPLATE shop');
    const whole = await everything(source, 'shop_live');
    await source.query('shop_live', 'DELETE FROM shop.customers WHERE id BETWEEN 1005 AND 1014');
    const damaged = await everything(source, 'shop_live');
    const bin = await scratch();
    const program = join(import.meta.dirname, '../dist/cli.js');
    await writeFile(join(bin, 'pgassay'), `#!/bin/sh\nexec '${process.execPath}' '${program}' "$@"\n`, { mode: 0o755 });
    const run = async (script: string): Promise<string> => {
      const env = { PATH: `${bin}:/usr/bin:/bin`, HOME: '/nonexistent', STORE: backup.store };
      const { stdout } = await execute('bash', ['-ec', script], {
        env: { ...env, TARGET_URL: source.url('shop_live') },
      });
      return stdout;
    };
    const tried = await run(lines.replace(/^pgassay rows "\$\{lost\[@\]\}"$/m, ''));
    assert.match(tried, /^shop\.customers +10 +10 +0 +0$/m);
    assert.match(tried, /^ {2}id="1005"$/m);
    assert.deepEqual(await everything(source, 'shop_live'), damaged);
    assert.match(await run(lines), /^\d+ rows of shop\/.* are in shop_live again, as in the backup/m);
    // The deletion itself was noted by a trigger; bringing the rows back was not.
    const noted = Object.entries(damaged).filter(([name]) => name.includes(' audit.events'));
    assert.deepEqual(await everything(source, 'shop_live'), { ...whole, ...Object.fromEntries(noted) });
  });

  test('its lines for one dropped table bring it back with all that belonged to it and pointed at it', async () => {
    const [, lines] = /<!-- dropped-table:start -->\s*```bash\n([\s\S]*?)```/.exec(readme) ?? [];
    assert.ok(lines !== undefined, 'README.md has no block of lines for a dropped table');
    // Line by line: what is made later comes later where nothing decides between two.
    const definitions = async (): Promise<string[]> =>
      (await program(source, 'pg_dump', ['-s', '-d', source.url('shop')]))
        .split('\n')
        .filter((line) => !/^\\(?:un)?restrict /.test(line))
        .sort();
    const backup = await takeBackup(source, 'shop', { name: 'shop' });
    const [rows, before] = [await countedRows(source, 'shop', backup.census), await definitions()];
    await source.query('shop', 'DROP TABLE shop.customers CASCADE');
    assert.notDeepEqual(await definitions(), before);
    const cli = join(import.meta.dirname, '../dist/cli.js');
    const { stdout } = await execute(
      'bash',
      ['-ec', `pgassay() { node '${cli}' "$@"; }\nset -o pipefail\n${lines.replaceAll('public.', 'shop.')}`],
      {
        env: {
          PATH: `${source.bin}:${dirname(process.execPath)}:/usr/local/bin:/usr/bin:/bin`,
          STORE: backup.store,
          TARGET_URL: source.url('shop'),
        },
      },
    );
    assert.match(stdout, /restored into shop in .*: 1 table, [\d ]+ rows, all as recorded/);
    assert.match(stdout, /just now +shop\/\S+ +shop +table shop\.customers +restored: 1 table/);
    assert.deepEqual(await definitions(), before);
    assert.deepEqual(await countedRows(source, 'shop', backup.census), rows);
  });

  test('its lines for an encrypted backup in a bucket give the database back, with aws, age and PostgreSQL alone', async () => {
    const [, lines = ''] = /<!-- stock-encrypted:start -->\s*```bash\n([\s\S]*?)```/.exec(readme) ?? [];
    const key = await generateKeyPair('x25519');
    await using server = await S3Server.start();
    await server.createBucket('backups');
    const taken = await tryBackup(source, 'shop', {
      ...{ store: 's3://backups/prod', 'encrypt-to': key.recipient, 's3-endpoint': server.endpoint },
      ...{ 's3-access-key-id': server.accessKeyId, 's3-secret-access-key': server.secretAccessKey },
    });
    assert.equal(taken.exitCode, 0, taken.log);
    assert.match(
      taken.summary,
      /^set -o pipefail; aws s3 cp s3:\S+\/roles\.sql\.age - .+ \| age -d -i key\.txt \| psql -X /m,
    );
    const address = /s3:\/\/acme-backups\/prod\/shop\/[\dTZ]+-[0-9a-f]{6}/g;
    assert.equal(lines.match(address)?.length, 2);
    const here = lines
      .replaceAll(address, taken.outputs.location ?? '')
      .replaceAll('aws s3 cp', `aws --endpoint-url ${server.endpoint} s3 cp`);
    const folder = await scratch();
    await writeFile(join(folder, 'key.txt'), `${key.identity}\n`);
    await target.createDatabase('shop_decrypted', 'TEMPLATE template0');
    const env = { ...server.env, PATH: `${target.bin}:${process.env.PATH}`, TARGET_URL: target.url('shop_decrypted') };
    await execute('bash', ['-c', `${here}`], { cwd: folder, env });
    const [restored] = await target.query<{ rows: number }>(
      'shop_decrypted',
      'SELECT count(*)::int AS rows FROM shop.customers',
    );
    const [original] = await source.query<{ rows: number }>('shop', 'SELECT count(*)::int AS rows FROM shop.customers');
    assert.deepEqual(restored, original);
  });

  test('its line for a bucket fetches every file of a backup, with aws alone', async () => {
    const [, line = ''] = /<!-- stock-fetch:start -->\s*```bash\n([\s\S]*?)```/.exec(readme) ?? [];
    await using server = await S3Server.start();
    await server.createBucket('backups');
    const taken = await tryBackup(source, 'shop', {
      store: 's3://backups/prod',
      's3-endpoint': server.endpoint,
      's3-access-key-id': server.accessKeyId,
      's3-secret-access-key': server.secretAccessKey,
    });
    assert.equal(taken.exitCode, 0, taken.log);
    const { location = '' } = taken.outputs;
    const address = /s3:\/\/acme-backups\/prod\/shop\/[\dTZ]+-[0-9a-f]{6}/;
    assert.match(line, address);
    const here = line.replace(address, location).replace('aws s3 cp', `aws --endpoint-url ${server.endpoint} s3 cp`);
    const folder = await scratch();
    await execute('bash', ['-c', here], { env: { ...server.env, PATH: process.env.PATH, BACKUP: folder } });
    assert.deepEqual(await filesIn(folder), ['census.json', 'database.dump', 'manifest.json', 'roles.sql']);
    const dump = readFileSync(join(folder, 'database.dump'));
    assert.equal(createHash('sha256').update(dump).digest('hex'), taken.outputs.sha256);
  });
});
