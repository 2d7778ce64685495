// A backup that is encrypted, from the dump to every way back, through the committed launchers.
import assert from 'node:assert/strict';
import { execFile, execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { chmod, cp, mkdir, readFile, truncate, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Census, Manifest } from '../../src/manifest.ts';
import { type ActionResult, runAction } from '../support/action.ts';
import { type CliResult, cli, clientBin, type Inputs, tryBackup } from '../support/backup.ts';
import { errorOf, filesIn, repository, scratch } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { door } from '../support/restoring.ts';

interface Keys {
  readonly recipient: string;
  readonly identity: string;
}
interface Stored {
  readonly result: ActionResult;
  readonly id: string;
  readonly store: string;
  readonly folder: string;
  readonly manifest: Manifest;
}

/** What nobody may learn from the store. */
const words = ['patients', 'diagnoses', 'clinic', 'nurse_role', 'canary-row-4711', 'count_patients'];
const passphrase = 'correct horse battery staple';

let cluster: Cluster;
let drill: Keys;
let recovery: Keys;
let stranger: Keys;
let stored: Stored;

before(async () => {
  cluster = await Cluster.start();
  await cluster.createDatabase('clinic_db');
  await cluster.query(
    'clinic_db',
    `CREATE ROLE nurse_role;
     CREATE SCHEMA clinic;
     CREATE TABLE clinic.patients (id int PRIMARY KEY, name text);
     INSERT INTO clinic.patients SELECT g, 'canary-row-4711 ' || g FROM generate_series(1, 3000) g;
     CREATE TABLE clinic.diagnoses (id int PRIMARY KEY, pin text);
     INSERT INTO clinic.diagnoses VALUES (1, '480215');
     CREATE TABLE public.plain (id int);
     GRANT SELECT ON clinic.patients TO nurse_role;
     CREATE VIEW clinic.count_patients AS SELECT count(*) FROM clinic.patients`,
  );
  [drill, recovery, stranger] = await Promise.all([keygen(), keygen(), keygen()]);
  stored = await encrypted({ 'verify-upload': 'read-back', census: 'content' });
});
after(() => cluster?.stop());

async function keygen(): Promise<Keys> {
  const made = await cli(['keygen', '--json']);
  assert.equal(made.exitCode, 0, made.stderr);
  return made.json as Keys;
}

const recipients = (): Inputs => ({ 'encrypt-to': `# drill\n${drill.recipient}\n# recovery\n${recovery.recipient}\n` });

async function encrypted(inputs: Inputs = {}): Promise<Stored> {
  const keys = 'encrypt-passphrase' in inputs ? {} : recipients();
  const result = await tryBackup(cluster, 'clinic_db', { name: 'shop', ...keys, ...inputs });
  assert.equal(result.exitCode, 0, result.log);
  const { location = '', 'backup-id': id = '' } = result.outputs;
  const folder = fileURLToPath(location);
  const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8')) as Manifest;
  return { result, id, folder, manifest, store: location.slice(0, -`/shop/${id}`.length) };
}

/** A command on that backup, with a temporary folder of its own to look into afterwards. */
async function ask(
  args: readonly string[],
  of: Pick<Stored, 'store'>,
  env: Readonly<Record<string, string>> = {},
): Promise<CliResult & { readonly left: readonly string[] }> {
  const temporary = await scratch();
  const bin = clientBin(cluster)['client-bin'];
  const flags = bin === undefined || /^(?:list|show|fetch|keygen)$/.test(args[0] ?? '') ? [] : ['--client-bin', bin];
  const result = await cli([...args, '--store', of.store, ...flags], { TMPDIR: temporary, ...env });
  return { ...result, left: await filesIn(temporary) };
}

const withKey = ({ identity }: Keys): Record<string, string> => ({
  PGASSAY_DECRYPT_IDENTITY: `# public key: not needed\n${identity}\n`,
});
const target = (database: string): Record<string, string> => ({ TARGET_URL: cluster.url(database) });

const rowsOf = async (database: string): Promise<number> => {
  const [row] = await cluster.query<{ count: number }>(database, 'SELECT count(*)::int AS count FROM clinic.patients');
  return row?.count ?? -1;
};

/** The commands that read a backup; `out` is a folder for what they write. */
const readers = (out: string): readonly (readonly [args: string[], env: Record<string, string>])[] => [
  [['verify', 'latest'], {}],
  [['show', 'latest'], {}],
  [['fetch', 'latest', '--out', join(out, 'shop.dump')], {}],
  [['restore', 'latest'], target('never_made')],
  [['restore-test', 'latest'], {}],
  [['rows', 'latest', '--table', 'clinic.patients', '--where', 'true', '--on-conflict', 'skip'], target('clinic_db')],
];

describe('an encrypted backup', () => {
  test('is stored as age files, tells to whom, and nothing of what is in it', async () => {
    const { result, folder, manifest } = stored;
    assert.deepEqual(await filesIn(folder), ['census.json.age', 'database.dump.age', 'manifest.json', 'roles.sql.age']);
    const dump = await readFile(join(folder, 'database.dump.age'));
    assert.equal(result.outputs.sha256, createHash('sha256').update(dump).digest('hex'));
    assert.equal(result.outputs['size-bytes'], String(dump.length));
    for (const file of manifest.files) {
      assert.deepEqual(file.encryption, { type: 'age', recipients: [drill.recipient, recovery.recipient] });
      assert.ok(!('plainSha256' in file), file.name);
    }
    assert.match(result.summary, /^Encrypted to 2 recipients · /m);
    assert.match(result.summary, /^set -o pipefail; age -d -i key\.txt \S+\/roles\.sql\.age \| psql /m);
    assert.deepEqual(result.droppedOutputs, []);
  });

  test('comes back with the stock programs alone, by the command that the step gave', async () => {
    const place = await scratch();
    writeFileSync(join(place, 'key.txt'), `${recovery.identity}\n`);
    await cluster.createDatabase('by_hand', 'TEMPLATE template0');
    const command = stored.result.outputs['restore-command'] ?? '';
    assert.match(
      command,
      /^set -o pipefail; age -d -i key\.txt \S+\/database\.dump\.age \| pg_restore -1 --exit-on-error /,
    );
    await promisify(execFile)('bash', ['-c', command], {
      cwd: place,
      env: { PATH: `${cluster.bin}:${process.env.PATH}`, ...target('by_hand') },
    });
    assert.equal(await rowsOf('by_hand'), 3000);
  });

  test('is read by everything that reads, with either key', async () => {
    const out = await scratch();
    const verified = await ask(['verify', 'latest', '--json'], stored, withKey(drill));
    assert.equal(verified.exitCode, 0, verified.stderr);
    assert.equal((verified.json as { recipient: string }).recipient, drill.recipient);

    const shown = await ask(['show', 'latest'], stored, withKey(recovery));
    assert.match(shown.stdout, /^ {2}encrypted to 2 recipients: age1/m);
    assert.match(shown.stdout, /^clinic\.patients +3 000/m);

    const fetched = await ask(['fetch', 'latest', '--out', join(out, 'shop.dump')], stored, withKey(recovery));
    assert.equal(fetched.exitCode, 0, fetched.stderr);
    assert.equal(readFileSync(join(out, 'shop.dump')).toString('latin1', 0, 5), 'PGDMP');

    const listed = await ask(['list', '--json'], stored);
    assert.equal((listed.json as { backups: { encrypted: boolean }[] }).backups[0]?.encrypted, true);

    const restored = await ask(['restore', 'latest'], stored, { ...withKey(drill), ...target('restored') });
    assert.equal(restored.exitCode, 0, restored.stderr);
    assert.equal(await rowsOf('restored'), 3000);

    await cluster.query('restored', 'DELETE FROM clinic.patients WHERE id < 11');
    const rows = ['rows', 'latest', '--table', 'clinic.patients', '--where', 'id < 11'];
    const back = await ask(rows, stored, { ...withKey(recovery), ...target('restored') });
    assert.equal(back.exitCode, 0, back.stderr);
    assert.equal(await rowsOf('restored'), 3000);

    for (const { left } of [verified, shown, fetched, restored, back]) assert.deepEqual(left, []);
  });

  test('passes its restore test, and the proof says whose key opened it', async () => {
    const result = await runAction(join(repository, 'restore-test'), {
      inputs: {
        ...{ store: stored.store, 'decrypt-identity': drill.identity, 'install-client': false },
        ...clientBin(cluster),
      },
    });
    assert.equal(result.exitCode, 0, result.log);
    const proof = JSON.parse(await readFile(fileURLToPath(result.outputs.proof ?? ''), 'utf8'));
    assert.equal(proof.recipient, drill.recipient);
    assert.equal(proof.level, 'content');
    assert.ok(!result.rawLog.replaceAll(/^::add-mask::.*$/gm, '').includes(drill.identity));
    const located = await runAction(join(repository, 'locate'), { inputs: { store: stored.store } });
    assert.equal(located.exitCode, 0, located.log);
    assert.equal(located.outputs['postgres-image'], `postgres:${cluster.major}`);
    assert.match(located.log, /is encrypted, and without a key its extensions are not known/);
  });

  test('verify --sign-proof records that the recovery key still opens it', async () => {
    const verified = await ask(['verify', 'latest', '--sign-proof', '--json'], stored, withKey(recovery));
    assert.equal(verified.exitCode, 0, verified.stderr);
    const { proof } = verified.json as { proof: string };
    const record = JSON.parse(await readFile(fileURLToPath(proof), 'utf8'));
    const manifestBytes = await readFile(join(stored.folder, 'manifest.json'));
    assert.equal(record.format, 'pgassay-opening/1');
    assert.equal(record.recipient, recovery.recipient);
    assert.equal(record.manifestSha256, createHash('sha256').update(manifestBytes).digest('hex'));
    assert.match((await ask(['show', 'latest'], stored, withKey(drill))).stdout, /^ {2}opened {4}just now with age1/m);
    // It is no restore test, and not taken for one.
    const { stdout } = await ask(['list'], stored);
    assert.doesNotMatch(stdout, /pgassay-opening/);
  });

  test('gives its bucket away, and with it no name of a table, schema or role, and no row', async () => {
    const place = await encrypted({ 'exclude-table-data': 'clinic.diagnoses', store: `file://${await scratch()}` });
    const { scope } = place.manifest;
    assert.deepEqual([scope.excludeTableData, scope.tables], [null, []]);
    const failing = ['restore-test', 'latest', '--checks', 'SELECT count(*) > 9999 FROM clinic.patients'];
    const failed = await ask(failing, place, withKey(drill));
    assert.equal(failed.exitCode, 51, failed.stderr);
    const part = ['restore', 'latest', '--tables', 'clinic.patients'];
    const restored = await ask(part, place, { ...withKey(drill), ...target('part') });
    assert.equal(restored.exitCode, 0, restored.stderr);
    await ask(['verify', 'latest', '--sign-proof'], place, withKey(recovery));
    const root = fileURLToPath(place.store);
    const files = await filesIn(root);
    assert.ok(files.some((file) => file.includes('proofs/')) && files.some((file) => file.startsWith('_restores/')));
    for (const file of files) {
      const bytes = (await readFile(join(root, file))).toString('latin1');
      for (const word of words) assert.ok(!bytes.replaceAll('clinic_db', '').includes(word), `${file} tells ${word}`);
      assert.ok(!bytes.includes('PGDMP'), file);
    }
    const listed = await ask(['list', '--json'], place);
    const [entry] = (listed.json as { backups: { proof: { result: string; findings: number } }[] }).backups;
    assert.deepEqual([entry?.proof.result, (entry?.proof.findings ?? 0) > 0], ['failed', true]);
    assert.match((await ask(['list', '--restores'], place)).stdout, /a part, names withheld/);
    // Whoever has a key learns all of it.
    const census = JSON.parse(
      execFileSync('age', ['-d', '-i', await keyFile(drill), join(place.folder, 'census.json.age')], {
        encoding: 'utf8',
      }),
    ) as Census;
    assert.deepEqual(census.scope?.excludeTableData, ['clinic.diagnoses']);
    assert.ok(census.tables.some(({ name }) => name === 'patients'));
  });
});

async function keyFile({ identity }: Keys): Promise<string> {
  const path = join(await scratch(), 'key.txt');
  writeFileSync(path, `${identity}\n`);
  return path;
}

describe('F37: the key', () => {
  test('that is missing is asked for, by the recipients that have it, and nothing is written', async () => {
    const out = await scratch();
    const before = await filesIn(stored.folder);
    for (const [args, env] of readers(out)) {
      const { exitCode, stderr, left } = await ask(args, stored, env);
      assert.equal(exitCode, 41, `${args[0]}: ${stderr}`);
      assert.match(stderr, /^decrypt: shop\/\S+ is encrypted, and there is no key to open it with$/m);
      assert.ok(stderr.includes('hint: give decrypt-identity') && stderr.includes(recovery.recipient), stderr);
      assert.deepEqual(left, []);
    }
    assert.deepEqual(await filesIn(out), []);
    assert.deepEqual(await filesIn(stored.folder), before);
  });

  test('that is somebody else’s opens nothing, whoever reads, and nothing is written but the verdict', async () => {
    const out = await scratch();
    for (const [args, env] of readers(out)) {
      const { exitCode, stderr, left } = await ask(args, stored, { ...withKey(stranger), ...env });
      assert.equal(exitCode, 41, `${args[0]}: ${stderr}`);
      assert.match(stderr, /is not encrypted to the key that was given/);
      assert.deepEqual(left, []);
    }
    assert.deepEqual(await filesIn(out), []);
    const wrongKind = await ask(['verify', 'latest'], stored, { PGASSAY_DECRYPT_PASSPHRASE: passphrase });
    assert.equal(wrongKind.exitCode, 41, wrongKind.stderr);
  });

  test('is a passphrase: the same, with exit 41 for another one', async () => {
    const store = `file://${await scratch()}`;
    const secret = await encrypted({ 'encrypt-passphrase': passphrase, store });
    assert.deepEqual(secret.manifest.files[0]?.encryption, { type: 'age-passphrase', recipients: [] });
    assert.match(secret.result.outputs['restore-command'] ?? '', /; age -d \S+\.age \| pg_restore/);
    const out = join(await scratch(), 'shop.dump');
    const right = await ask(['fetch', 'latest', '--out', out], secret, {
      PGASSAY_DECRYPT_PASSPHRASE: `${passphrase}\n`,
    });
    assert.equal(right.exitCode, 0, right.stderr);
    assert.equal(readFileSync(out).toString('latin1', 0, 5), 'PGDMP');
    const wrong = await ask(['show', 'latest'], secret, { PGASSAY_DECRYPT_PASSPHRASE: `${passphrase}!` });
    assert.equal(wrong.exitCode, 41, wrong.stderr);
    const none = await ask(['show', 'latest'], secret);
    assert.match(none.stderr, /it was encrypted with a passphrase: give decrypt-passphrase/);
  });
});

describe('I-21: what was changed in the store', () => {
  async function spoiled(
    change: (dump: string) => Promise<void>,
    checksumsToo: boolean,
  ): Promise<Pick<Stored, 'store'>> {
    const root = await scratch();
    const folder = join(root, 'shop', stored.id);
    await mkdir(dirname(folder), { recursive: true });
    await cp(stored.folder, folder, { recursive: true });
    const dump = join(folder, 'database.dump.age');
    await change(dump);
    if (checksumsToo) {
      const manifest = structuredClone(stored.manifest) as unknown as {
        files: { name: string; bytes: number; sha256: string }[];
      };
      const bytes = await readFile(dump);
      for (const file of manifest.files.filter(({ name }) => name === 'database.dump.age'))
        Object.assign(file, { bytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') });
      await writeFile(join(folder, 'manifest.json'), JSON.stringify(manifest));
    }
    return { store: `file://${root}` };
  }
  const flipped = async (dump: string): Promise<void> => {
    const bytes = await readFile(dump);
    const at = bytes.length - 2000;
    bytes[at] = (bytes[at] ?? 0) ^ 4;
    await writeFile(dump, bytes);
  };
  const cut = async (dump: string): Promise<void> => truncate(dump, (await readFile(dump)).length - 1000);

  for (const [what, change, checksumsToo, message] of [
    ['one bit flipped', flipped, false, /database\.dump\.age does not have the SHA-256 it was stored with/],
    [
      'one bit flipped, and a checksum that fits',
      flipped,
      true,
      /decrypt: .*database\.dump\.age was changed or cut off/,
    ],
    ['cut off, with a checksum that fits', cut, true, /decrypt: .*database\.dump\.age was changed or cut off/],
  ] as const)
    test(`${what}: exit 40 from whoever reads it, and no plain text is left`, async () => {
      const place = await spoiled(change, checksumsToo);
      const out = await scratch();
      for (const [args, env] of readers(out).filter(([[command]]) => command !== 'show')) {
        const { exitCode, stderr, left } = await ask(args, place, { ...withKey(drill), ...env });
        assert.equal(exitCode, 40, `${args[0]}: ${stderr}`);
        assert.match(stderr, message);
        assert.deepEqual(left, []);
      }
      assert.deepEqual(await filesIn(out), []);
      const databases = await cluster.query<{ name: string }>('postgres', 'SELECT datname AS name FROM pg_database');
      assert.ok(!databases.some(({ name }) => name === 'never_made'));
    });

  test('in plain text in place of an encrypted one is told to whoever brings a key', async () => {
    const plain = await tryBackup(cluster, 'clinic_db', { name: 'shop' });
    const store = plain.outputs.location?.split('/shop/')[0] ?? '';
    const verified = await ask(['verify', 'latest'], { store }, withKey(drill));
    assert.equal(verified.exitCode, 0, verified.stderr);
    assert.match(verified.stderr, /warning: shop\/\S+ is not encrypted, though a key to open it with was given/);
    for (const args of [
      ['show', 'latest'],
      ['fetch', 'latest', '--out', join(await scratch(), 'shop.dump')],
    ])
      assert.match((await ask(args, { store }, withKey(drill))).stderr, /is not encrypted, though a key to open it/);
    const signed = await ask(['verify', 'latest', '--sign-proof'], { store }, withKey(drill));
    assert.equal(signed.exitCode, 2, signed.stderr);
  });
});

describe('a killed run', () => {
  test('leaves no plain text behind: the decrypted archive has no name', async () => {
    const temporary = await scratch();
    const standing = await door(cluster);
    const child = spawn(
      process.execPath,
      [
        ...[join(repository, 'dist', 'cli.js'), 'restore', 'latest', '--store', stored.store],
        ...['--client-bin', standing.bin],
      ],
      {
        env: { PATH: '/usr/bin:/bin', HOME: '/nonexistent', TMPDIR: temporary, ...withKey(drill), ...target('killed') },
        stdio: 'ignore',
      },
    );
    const ended = new Promise((resolve) => child.once('close', resolve));
    await standing.reached();
    child.kill('SIGKILL');
    await ended;
    await standing.open();
    for (const file of await filesIn(temporary)) {
      const bytes = (await readFile(join(temporary, file))).toString('latin1');
      assert.ok(!/PGDMP|canary|patients/.test(bytes), file);
    }
  });
});

describe('a backup job', () => {
  const refused = async (inputs: Inputs, env: Readonly<Record<string, string>> = {}): Promise<ActionResult> => {
    const result = await tryBackup(cluster, 'clinic_db', { name: 'shop', ...inputs }, { env });
    assert.equal(result.exitCode, 2, result.log);
    return result;
  };

  test('refuses a secret key given as a recipient, and the log never shows it', async () => {
    const result = await refused({ 'encrypt-to': `${drill.recipient}\n${stranger.identity}` });
    assert.match(
      errorOf(result),
      /^input: encrypt-to: recipient 2 is a secret key, and a backup job must never have one/,
    );
    assert.ok(result.masks.includes(stranger.identity));
    assert.ok(!result.log.includes(stranger.identity));
    const typed = await cli(['backup', '--encrypt-to', stranger.identity, '--store', stored.store, '--name', 'shop'], {
      DATABASE_URL: cluster.url('clinic_db'),
    });
    assert.equal(typed.exitCode, 2, typed.stderr);
    assert.ok(!typed.stderr.includes(stranger.identity.slice(16)));
  });

  test('refuses to be given what opens backups, as an input or in its environment', async () => {
    for (const variable of ['INPUT_DECRYPT-IDENTITY', 'INPUT_DECRYPT-PASSPHRASE', 'PGASSAY_DECRYPT_IDENTITY']) {
      const result = await refused(recipients(), { [variable]: drill.identity });
      assert.match(errorOf(result), /was given to a backup, which never needs it/);
      assert.ok(!result.log.includes(drill.identity), variable);
    }
    const typed = await cli(['backup', '--store', stored.store, '--name', 'shop'], {
      DATABASE_URL: cluster.url('clinic_db'),
      ...withKey(drill),
    });
    assert.equal(typed.exitCode, 2, typed.stderr);
    assert.match(typed.stderr, /PGASSAY_DECRYPT_IDENTITY: was given to a backup/);
  });

  test('refuses a passphrase that somebody could guess, and to go on in plain text under an encrypted name', async () => {
    const weak = await refused({ 'encrypt-passphrase': 'password1password1' });
    assert.match(errorOf(weak), /encrypt-passphrase: is the same few characters again and again/);
    const dropped = await refused({ store: stored.store, 'encrypt-to': '' });
    assert.match(errorOf(dropped), /^preflight: the backups of shop are encrypted, and this one would not be/);
  });
});

describe('the safety backup of a restore', () => {
  test('is refused in plain text where the restored backup is encrypted, and encrypted to whom it is told', async () => {
    const over = ['restore', 'latest', '--clean', '--confirm', 'over'];
    const place = await encrypted({ store: `file://${await scratch()}` });
    const first = await ask(['restore', 'latest'], place, { ...withKey(drill), ...target('over') });
    assert.equal(first.exitCode, 0, first.stderr);
    const plain = await ask(over, place, { ...withKey(drill), ...target('over') });
    assert.equal(plain.exitCode, 2, plain.stderr);
    assert.match(plain.stderr, /is encrypted, and the safety backup of the target would not be/);
    const safe = await ask([...over, '--encrypt-to', recovery.recipient, '--json'], place, {
      ...withKey(drill),
      ...target('over'),
    });
    assert.equal(safe.exitCode, 0, safe.stderr);
    const { safetyBackupId } = safe.json as { safetyBackupId: string };
    const folder = join(fileURLToPath(place.store), 'shop', safetyBackupId);
    const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8')) as Manifest;
    assert.deepEqual(manifest.files[0]?.encryption?.recipients, [recovery.recipient]);
    assert.equal(manifest.label, 'pre-restore');
    assert.equal(await rowsOf('over'), 3000);
  });
});

describe('pgassay keygen', () => {
  test('prints a file that age reads, and where to put which half', async () => {
    const { exitCode, stdout, stderr } = await cli(['keygen']);
    assert.equal(exitCode, 0, stderr);
    const file = join(await scratch(), 'key.txt');
    writeFileSync(file, stdout);
    const [, recipient] = /^# public key: (age1\S+)$/m.exec(stdout) ?? [];
    assert.equal(execFileSync('age-keygen', ['-y', file], { encoding: 'utf8' }).trim(), recipient);
    assert.match(stderr, /encrypt-to of the backup job/);
    assert.match(stderr, /decrypt-identity of restore tests, or offline for recovery\. Never in the backup job/);
    assert.ok(!stderr.includes('AGE-SECRET-KEY-1'));
    for (const [mode, warned] of [
      [0o600, false],
      [0o644, true],
    ] as const) {
      await chmod(file, mode);
      const output = openSync(file, 'w');
      const { stderr: said } = spawnSync(process.execPath, [join(repository, 'dist', 'cli.js'), 'keygen'], {
        stdio: ['ignore', output, 'pipe'],
        encoding: 'utf8',
      });
      closeSync(output);
      assert.equal(/^warning: other users of this machine may read that file: chmod 600 it$/m.test(said), warned, said);
    }
    const hybrid = (await cli(['keygen', '--post-quantum', '--json'])).json as Keys;
    assert.match(hybrid.recipient, /^age1pq1[0-9a-z]{1900,}$/);
    assert.match(hybrid.identity, /^AGE-SECRET-KEY-PQ-1/);
  });
});
