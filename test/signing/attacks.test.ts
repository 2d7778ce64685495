// Somebody may write to the store, and has no key: nothing he does makes another backup be taken for ours.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { cp, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { readBackup } from '../../src/catalog.ts';
import type { Manifest } from '../../src/manifest.ts';
import type { Proof } from '../../src/proof.ts';
import { lastProofs, newestPassed, newestProof, readProofs, writeProof } from '../../src/proofs.ts';
import { parseSigningKey, parseVerifyKeys, signatureOf, type VerifyKey } from '../../src/signing.ts';
import { openStore } from '../../src/store/open.ts';
import { noSignatures } from '../../src/trust.ts';
import { runAction } from '../support/action.ts';
import { type CliResult, cli, clientBin, type Taken, takeBackup, tryBackup } from '../support/backup.ts';
import { createShop, errorOf, filesIn, repository, scratch } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { type Keys, keyPair } from '../support/signing.ts';

let cluster: Cluster;
/** Whose key signs, whose does from some day on, who tests, and who has no business here. */
let signer: Keys;
let successor: Keys;
let tester: Keys;
let attacker: Keys;
/** Where the three backups were written, and a copy of them from which each test starts anew. */
let root: string;
let pristine: string;
let backups: readonly [Taken, Taken, Taken];

const folderOf = ({ id }: Taken): string => join(root, 'shop', id);
const inStore = (): string[] => ['--store', `file://${root}`];
const programs = (): string[] => Object.entries(clientBin(cluster)).flatMap(([name, value]) => [`--${name}`, value]);

before(async () => {
  [signer, successor, tester, attacker] = await Promise.all([keyPair(), keyPair(), keyPair(), keyPair()]);
  cluster = await Cluster.start();
  await createShop(cluster, 'shop', 500);
  [root, pristine] = [await scratch(), await scratch()];
  const take = (): Promise<Taken> =>
    takeBackup(cluster, 'shop', { name: 'shop', store: `file://${root}`, 'signing-key': signer.privateKey });
  backups = [await take(), await take(), await take()];
  await cp(root, pristine, { recursive: true });
});
after(() => cluster?.stop());

async function anew(): Promise<void> {
  await rm(root, { recursive: true });
  await cp(pristine, root, { recursive: true });
}

const ask = (command: string, ...args: string[]): Promise<CliResult> =>
  cli([command, ...args, ...inStore(), '--verify-key', signer.verify]);

async function listed(...flags: string[]): Promise<{ readonly ids: string[]; readonly said: string }> {
  const result = await cli(['list', ...inStore(), '--json', ...flags]);
  assert.equal(result.exitCode, 0, result.stderr);
  const { backups: found } = result.json as { backups: { id: string }[] };
  return { ids: found.map(({ id }) => id), said: result.stderr };
}

/** A manifest of the attacker's own making, with a signature of his own. */
async function forge(folder: string, change: (manifest: Record<string, unknown>) => void): Promise<void> {
  const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8')) as Record<string, unknown>;
  change(manifest);
  const bytes = Buffer.from(`${JSON.stringify(manifest, null, 2)}\n`);
  await writeFile(join(folder, 'manifest.json'), bytes);
  await sign(folder, attacker);
}

async function sign(folder: string, { privateKey }: Keys): Promise<void> {
  const parsed = parseSigningKey(privateKey);
  assert.ok('key' in parsed);
  await writeFile(join(folder, 'manifest.sig'), signatureOf(await readFile(join(folder, 'manifest.json')), parsed.key));
}

describe('a signed backup', () => {
  test('has its signature beside it, names the key, and follows the one before', async () => {
    const [first, second, third] = backups;
    assert.deepEqual(await filesIn(first.folder), [
      'census.json',
      'database.dump',
      'manifest.json',
      'manifest.sig',
      'roles.sql',
    ]);
    assert.deepEqual(first.manifest.signing, { keyId: signer.id });
    const digest = createHash('sha256')
      .update(await readFile(join(first.folder, 'manifest.json')))
      .digest('hex');
    assert.deepEqual(second.manifest.previous, { id: first.id, manifestSha256: digest });
    assert.equal(third.manifest.previous?.id, second.id);
    assert.ok(!first.result.rawLog.replaceAll(/^::add-mask::.*$/gm, '').includes(keyLine(signer)));
    assert.ok(first.result.masks.includes(keyLine(signer)));
    assert.match(first.result.summary, /· signed ·/);
  });

  test('is read with the public half, and as before without', async () => {
    await anew();
    const ids = backups.map(({ id }) => id).toReversed();
    assert.deepEqual((await listed('--verify-key', signer.verify)).ids, ids);
    assert.deepEqual((await listed()).ids, ids);
    const verified = await ask('verify');
    assert.equal(verified.exitCode, 0, verified.stderr);
    assert.match(verified.stdout, new RegExp(`signed by key ${signer.id.slice(0, 16)}`));
    assert.match((await ask('show')).stdout, new RegExp(`signed +by key ${signer.id.slice(0, 16)}, checked`));
    assert.match((await cli(['show', ...inStore()])).stdout, /signed +says key \w+; --verify-key checks it/);
    const inline = await runAction(join(repository, 'locate'), {
      inputs: { store: `file://${root}`, 'verify-key': signer.publicKey },
    });
    assert.equal(inline.exitCode, 0, inline.log);
    assert.equal(inline.outputs['backup-id'], ids[0]);
  });
});

/** The line of a private key that nobody may see. */
function keyLine({ privateKey }: Keys): string {
  return privateKey.split('\n')[1] ?? assert.fail();
}

describe('I-22: refused with verify-key', () => {
  const attacks: readonly (readonly [what: string, attack: (folder: string) => Promise<unknown>, says: RegExp])[] = [
    [
      'one byte of the manifest changed',
      async (folder) => {
        const path = join(folder, 'manifest.json');
        await writeFile(path, (await readFile(path, 'utf8')).replace('"scheduled"', '"schedulee"'));
      },
      /is not trusted: its signature is not by a key of verify-key over what the manifest says now/,
    ],
    [
      'a white space added after the manifest',
      async (folder) => {
        const path = join(folder, 'manifest.json');
        await writeFile(path, `${await readFile(path, 'utf8')} `);
      },
      /is not trusted: its signature is not/,
    ],
    ['the signature removed', (folder) => rm(join(folder, 'manifest.sig')), /is not trusted: it is not signed/],
    ['the signature emptied', (folder) => writeFile(join(folder, 'manifest.sig'), ''), /is not trusted: its signature/],
    [
      'the signature made very long',
      (folder) => writeFile(join(folder, 'manifest.sig'), 'A'.repeat(5000)),
      /is not trusted: its signature is not/,
    ],
    [
      'a manifest of megabytes',
      (folder) => writeFile(join(folder, 'manifest.json'), Buffer.alloc(5_000_000, ' ')),
      /is not trusted: \S+manifest\.json has 5000000 bytes, too many for what it is/,
    ],
    [
      'a folder in place of the signature',
      async (folder) => {
        await rm(join(folder, 'manifest.sig'));
        await mkdir(join(folder, 'manifest.sig'));
      },
      /is not trusted: it is not signed/,
    ],
    [
      'another dump, its digest in the manifest, signed by the attacker under our key’s id',
      async (folder) => {
        const dump = Buffer.from('PGDMP of his own');
        await writeFile(join(folder, 'database.dump'), dump);
        await forge(folder, ({ files }) => {
          Object.assign((files as object[])[0] ?? {}, {
            bytes: dump.length,
            sha256: createHash('sha256').update(dump).digest('hex'),
          });
        });
      },
      /is not trusted: its signature is not/,
    ],
    [
      'a manifest that says it is not signed',
      async (folder) => {
        await forge(folder, (manifest) => {
          manifest.signing = null;
        });
        await rm(join(folder, 'manifest.sig'));
      },
      /is not trusted: it is not signed/,
    ],
    [
      'something that is no JSON, which nobody parses before it is signed',
      (folder) => writeFile(join(folder, 'manifest.json'), '{"format": '),
      /is not trusted: its signature is not/,
    ],
    [
      'the manifest of the backup before it',
      (folder) => cp(join(folderOf(backups[1]), 'manifest.json'), join(folder, 'manifest.json')),
      /is not trusted: its signature is not/,
    ],
    [
      'manifest and signature of the backup before it',
      async (folder) => {
        for (const file of ['manifest.json', 'manifest.sig'])
          await cp(join(folderOf(backups[1]), file), join(folder, file));
      },
      /is not trusted: it belongs to shop\/\S+, not to the folder it is in/,
    ],
  ];

  for (const [what, attack, says] of attacks)
    test(`${what}: by its id exit 40, and it is neither listed nor the latest`, async () => {
      await anew();
      const [, second, third] = backups;
      await attack(folderOf(third));
      const [named, { ids, said }] = await Promise.all([
        ask('verify', third.id),
        listed('--verify-key', signer.verify),
      ]);
      assert.equal(named.exitCode, 40, named.stderr);
      assert.match(named.stderr, says);
      assert.ok(!ids.includes(third.id) && ids[0] === second.id, ids.join());
      assert.match(said, says);
    });

  test('by every command and every action that reads, before anything is fetched or touched', async () => {
    await anew();
    const [, , third] = backups;
    await rm(join(folderOf(third), 'manifest.sig'));
    const out = await scratch();
    const key = ['--verify-key', signer.verify];
    await cluster.createDatabase('untouched');
    const target = { TARGET_URL: cluster.url('untouched') };
    const refusals = await Promise.all([
      cli(['show', third.id, ...inStore(), ...key]),
      cli(['verify', third.id, ...inStore(), ...key]),
      cli(['fetch', third.id, ...inStore(), ...key, '--out', join(out, 'x.dump')]),
      cli(['restore', third.id, ...inStore(), ...key], target),
      cli(['restore-test', third.id, ...inStore(), ...key]),
      cli(['rows', third.id, ...inStore(), ...key, '--table', 'items', '--where', 'true'], target),
    ]);
    for (const { exitCode, stderr } of refusals) {
      assert.equal(exitCode, 40, stderr);
      assert.match(stderr, /^locate: shop\/\S+ is not trusted: it is not signed/m);
    }
    assert.deepEqual(await filesIn(out), []);
    for (const action of ['locate', 'restore', 'restore-test']) {
      const inputs = { store: `file://${root}`, backup: third.id, 'verify-key': signer.publicKey };
      const refused = await runAction(join(repository, action), {
        inputs: { ...inputs, ...(action === 'restore' ? { 'target-url': cluster.url('untouched') } : {}) },
      });
      assert.equal(refused.exitCode, 40, refused.log);
      assert.match(errorOf(refused), /is not trusted: it is not signed/);
    }
    assert.deepEqual(await filesIn(folderOf(third)), await filesIn(third.folder));
    const none = "SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert.deepEqual(await cluster.query('untouched', none), []);
  });

  test('a test of the latest never takes the one before it instead; a restore does, and says so', async () => {
    await anew();
    const [, second, third] = backups;
    await rm(join(folderOf(third), 'manifest.sig'));
    const tested = await ask('restore-test', ...programs());
    assert.equal(tested.exitCode, 40, tested.stderr);
    assert.match(tested.stderr, /^locate: the backup to be tested, shop\/\S+, is not trusted: it is not signed/m);
    assert.match(tested.stderr, new RegExp(`the newest whole one is ${second.id}`));
    const key = ['--verify-key', signer.verify, ...programs()];
    const restored = await cli(['restore', ...inStore(), ...key, '--json'], { TARGET_URL: cluster.url('recovered') });
    assert.equal(restored.exitCode, 0, restored.stderr);
    assert.equal((restored.json as { backupId: string }).backupId, second.id);
    assert.match(restored.stderr, new RegExp(`warning: shop/${third.id} is not trusted: it is not signed`));
  });

  test('when nothing else is there, that is no empty store', async () => {
    await anew();
    for (const each of backups) await rm(join(folderOf(each), 'manifest.sig'));
    assert.deepEqual((await listed('--verify-key', signer.verify)).ids, []);
    const verified = await ask('verify');
    assert.equal(verified.exitCode, 40, verified.stderr);
    assert.match(verified.stderr, /^locate: there is no backup yet; 3 backups here are not trusted/m);
  });
});

describe('a backup in another place than it was signed for', () => {
  test('under another id or another name is refused: a replay, a foreign database', async () => {
    await anew();
    const [first, , third] = backups;
    const replayed = '20991231T000000Z-abcdef';
    await cp(folderOf(first), join(root, 'shop', replayed), { recursive: true });
    await mkdir(join(root, 'till'));
    await rename(folderOf(first), join(root, 'till', first.id));
    for (const [name, id] of [
      ['shop', replayed],
      ['till', first.id],
    ] as const) {
      const moved = await ask('verify', id, '--name', name);
      assert.equal(moved.exitCode, 40, moved.stderr);
      assert.match(moved.stderr, /is not trusted: it belongs to shop\/\S+, not to the folder it is in/);
    }
    // Not even with leave to have been moved: that is about stores.
    const accepted = await ask('verify', replayed, '--name', 'shop', '--accept-moved');
    assert.equal(accepted.exitCode, 40, accepted.stderr);
    const { ids, said } = await listed('--verify-key', signer.verify, '--name', 'shop');
    assert.equal(ids[0], third.id);
    assert.match(said, /follows \S+, which is not here/);
  });

  test('in another store is refused until accept-moved; without verify-key nobody asks', async () => {
    await anew();
    const copy = await scratch();
    await cp(root, copy, { recursive: true });
    const at = (...args: string[]): Promise<CliResult> => cli([...args, '--store', `file://${copy}`]);
    const key = ['--verify-key', signer.verify];
    const refused = await at('verify', backups[2].id, ...key);
    assert.equal(refused.exitCode, 40, refused.stderr);
    assert.match(refused.stderr, new RegExp(`is not trusted: it was written to file://${root}, and this is file://`));
    const verified = await at('verify', ...key, '--accept-moved');
    assert.equal(verified.exitCode, 0, verified.stderr);
    const unasked = await at('verify');
    assert.equal(unasked.exitCode, 0);
    assert.match(
      unasked.stderr,
      /^note: shop\/\S+ says that it is signed, and without verify-key nobody looks by whom/m,
    );
    const inputs = { store: `file://${copy}`, 'verify-key': signer.publicKey, ...clientBin(cluster) };
    const recover = (accept: boolean) =>
      runAction(join(repository, 'restore'), {
        inputs: { ...inputs, 'accept-moved': accept, 'target-url': cluster.url('from_a_copy') },
      });
    const stopped = await recover(false);
    assert.equal(stopped.exitCode, 40, stopped.log);
    const restored = await recover(true);
    assert.equal(restored.exitCode, 0, restored.log);
  });
});

describe('backups that somebody deleted', () => {
  test('leave a gap in the chain, which list, show and verify tell of', async () => {
    await anew();
    const [first, second, third] = backups;
    await rm(folderOf(second), { recursive: true });
    const { ids, said } = await listed('--verify-key', signer.verify);
    assert.deepEqual(ids, [third.id, first.id]);
    const gap = `follows ${second.id}, which is not here: retention or somebody deleted it`;
    assert.ok(said.includes(`note: shop/${third.id} ${gap}`), said);
    assert.match((await ask('show')).stdout, new RegExp(`chain +${gap}`));
    assert.ok((await ask('verify')).stderr.includes(gap));
  });
});

describe('keys change', () => {
  test('while both public halves are given, backups of both count; afterwards the new ones only', async () => {
    await anew();
    const both = join(await scratch(), 'both.pem');
    await writeFile(both, `# until this year\n${signer.publicKey}# from this year on\n${successor.publicKey}`);
    const fourth = await takeBackup(cluster, 'shop', {
      ...{ name: 'shop', store: `file://${root}` },
      ...{ 'signing-key': successor.privateKey, 'verify-key': both },
    });
    assert.equal(fourth.manifest.previous?.id, backups[2].id);
    assert.deepEqual(fourth.manifest.signing, { keyId: successor.id });
    const old = backups.map(({ id }) => id).toReversed();
    assert.deepEqual((await listed('--verify-key', both)).ids, [fourth.id, ...old]);
    assert.deepEqual((await listed('--verify-key', successor.verify)).ids, [fourth.id]);
    assert.deepEqual((await listed('--verify-key', signer.verify)).ids, old);
  });

  test('a backup whose own verify-key would refuse it is not taken', async () => {
    const refused = await tryBackup(cluster, 'shop', {
      ...{ store: `file://${root}`, name: 'shop' },
      ...{ 'signing-key': successor.privateKey, 'verify-key': signer.publicKey },
    });
    assert.equal(refused.exitCode, 2, refused.log);
    assert.match(errorOf(refused), /verify-key: does not hold the public half of signing-key/);
    // A secret that this job may not read is empty.
    const unsigned = await tryBackup(cluster, 'shop', {
      ...{ store: `file://${root}`, name: 'shop' },
      ...{ 'signing-key': '', 'verify-key': signer.publicKey },
    });
    assert.equal(unsigned.exitCode, 2, unsigned.log);
    assert.match(errorOf(unsigned), /signing-key: is empty, and with verify-key a backup that nobody signed/);
  });
});

describe('a backup job that knows whom to trust', () => {
  test('does not follow what an attacker put there, and says so', async () => {
    await anew();
    // A moment younger than our newest, with another database's identity, which would stop the job.
    const planted = backups[2].id.replace(/[0-9a-f]{6}$/, 'ffffff');
    await cp(folderOf(backups[2]), join(root, 'shop', planted), { recursive: true });
    await forge(join(root, 'shop', planted), (manifest) => {
      manifest.id = planted;
      (manifest.database as Record<string, unknown>).id = 'f'.repeat(64);
    });
    const given = { name: 'shop', store: `file://${root}`, 'signing-key': signer.privateKey };
    const misled = await tryBackup(cluster, 'shop', given);
    assert.equal(misled.exitCode, 2, misled.log);
    assert.match(errorOf(misled), /holds backups of another database/);
    const taken = await takeBackup(cluster, 'shop', { ...given, 'verify-key': signer.publicKey });
    assert.equal(taken.manifest.previous?.id, backups[2].id);
    assert.match(taken.result.log, new RegExp(`Warning: shop/${planted} is not trusted: its signature`));
  });
});

describe('keys given by mistake', () => {
  const base = { name: 'shop', 'database-url': 'postgresql://u:secret@127.0.0.1:9/shop', retries: 0 };

  test('are refused before anybody connects, each in its own words', async () => {
    const store = `file://${await scratch()}`;
    const both = await runAction(repository, {
      inputs: { ...base, store, 'signing-key': signer.publicKey, 'verify-key': attacker.privateKey },
    });
    assert.equal(both.exitCode, 2, both.log);
    assert.match(both.log, /signing-key: is a public key, which cannot sign/);
    assert.match(both.log, /verify-key: holds a private key, and whoever reads that can sign/);
    assert.ok(both.masks.includes(keyLine(attacker)));
    const nothing = await runAction(repository, { inputs: { ...base, store, 'signing-key': '/nonexistent/key.pem' } });
    assert.equal(nothing.exitCode, 2, nothing.log);
    assert.match(errorOf(nothing), /signing-key: is neither PEM text nor the path of a file that can be read/);
    const half = await runAction(repository, { inputs: { ...base, store, 'signing-key': keyLine(signer) } });
    assert.equal(half.exitCode, 2, half.log);
    assert.ok(half.masks.includes(keyLine(signer)) && !half.log.includes(keyLine(signer)));
    const flag = await cli(['backup', `--signing-key=${signer.privateKey}`]);
    assert.match(flag.stderr, /signing-key: is never given on the command line[\s\S]*PGASSAY_SIGNING_KEY/);
  });

  test('the tester’s own key is not the one that signs backups', async () => {
    const tested = await runAction(join(repository, 'restore-test'), {
      inputs: { store: `file://${root}`, 'proof-key': signer.privateKey, 'verify-key': signer.publicKey },
    });
    assert.equal(tested.exitCode, 2, tested.log);
    assert.match(errorOf(tested), /proof-key: is the key that signs backups/);
  });
});

test('a safety backup of what a signed backup replaces is signed as well, or the restore is refused', async () => {
  await anew();
  await cluster.createDatabase('live', 'TEMPLATE shop');
  await cluster.query('live', 'DELETE FROM items WHERE id > 10');
  const rows = async (): Promise<number> => (await cluster.query('live', 'SELECT FROM items')).length;
  const recover = (env: Record<string, string>, ...flags: string[]): Promise<CliResult> =>
    cli(
      [
        ...['restore', backups[2].id, ...inStore(), '--verify-key', signer.verify, ...programs()],
        ...['--tables', 'items', '--clean', '--confirm', 'live', '--json', ...flags],
      ],
      { TARGET_URL: cluster.url('live'), ...env },
    );
  const refused = await recover({});
  assert.equal(refused.exitCode, 2, refused.stderr);
  assert.match(
    refused.stderr,
    /^input: signing-key: shop\/\S+ is signed, and the safety backup beside it would not be/m,
  );
  assert.equal(await rows(), 10);
  const restored = await recover({ PGASSAY_SIGNING_KEY: signer.privateKey });
  assert.equal(restored.exitCode, 0, restored.stderr);
  assert.equal(await rows(), 500);
  const { safetyBackupId } = restored.json as { safetyBackupId: string };
  const safety = await ask('verify', safetyBackupId, ...programs());
  assert.equal(safety.exitCode, 0, safety.stderr);
  const without = await recover({}, '--safety-backup', 'false');
  assert.equal(without.exitCode, 0, without.stderr);
});

describe('a proof', () => {
  /** As health and prune will ask: a proof that none of these signed does not count. */
  async function proofsOf(taken: Taken, keys: readonly VerifyKey[]): Promise<(Proof | undefined)[]> {
    const store = openStore({ kind: 'folder', root });
    const entry = await readBackup(store, noSignatures, 'shop', taken.id);
    assert.ok(entry.kind === 'backup');
    const { backup } = entry;
    const all = await readProofs(store, backup, keys);
    const newest = await newestProof(store, backup, keys);
    assert.deepEqual(all[0], newest);
    assert.deepEqual(await lastProofs(store, [backup], { keys }), all);
    const passed = await newestPassed(store, [backup], { keys });
    assert.deepEqual(passed, newest?.result === 'passed' ? newest : undefined);
    return all;
  }

  test('counts when the tester signed it; one that was faked, changed, copied or dated later does not', async () => {
    await anew();
    const parsed = parseVerifyKeys(tester.publicKey);
    assert.ok('keys' in parsed);
    const { keys } = parsed;
    const [, second, third] = backups;
    const tested = await runAction(join(repository, 'restore-test'), {
      inputs: {
        ...{ store: `file://${root}`, 'verify-key': signer.publicKey, 'proof-key': tester.privateKey },
        ...clientBin(cluster),
      },
    });
    assert.equal(tested.exitCode, 0, tested.log);
    const { proof: uri = '' } = tested.outputs;
    const path = new URL(uri).pathname;
    const [file = ''] = /\d{8}T\d{6}Z\.json$/.exec(path) ?? [];
    assert.ok(tested.masks.includes(keyLine(tester)));
    assert.deepEqual(await filesIn(join(folderOf(third), 'proofs')), [file, `${file}.sig`]);
    const [proof, ...others] = await proofsOf(third, keys);
    assert.deepEqual([proof?.result, proof?.backupId, others.length], ['passed', third.id, 0]);
    assert.equal((await listed('--verify-key', signer.verify)).ids[0], third.id);

    // Dated later: the same bytes, well signed, under a newer name.
    const proofs = join(folderOf(third), 'proofs');
    for (const end of ['', '.sig']) await cp(`${path}${end}`, join(proofs, `20991231T000000Z.json${end}`));
    assert.equal((await proofsOf(third, keys)).length, 1);
    assert.equal((await proofsOf(third, [])).length, 1);
    // Copied to a backup that was never tested.
    await cp(proofs, join(folderOf(second), 'proofs'), { recursive: true });
    assert.deepEqual(await proofsOf(second, keys), []);
    // Faked for it, without a signature and with another's.
    const { manifest } = second;
    const text = await readFile(join(folderOf(second), 'manifest.json'));
    const faked = Buffer.from(
      JSON.stringify({
        ...proof,
        ...{ backupId: manifest.id, manifestSha256: createHash('sha256').update(text).digest('hex') },
        testedAt: '2098-12-31T00:00:00.000Z',
      }),
    );
    const fake = join(folderOf(second), 'proofs', '20981231T000000Z.json');
    await writeFile(fake, faked);
    assert.equal((await proofsOf(second, [])).length, 1);
    assert.deepEqual(await proofsOf(second, keys), []);
    const his = parseSigningKey(attacker.privateKey);
    assert.ok('key' in his);
    await writeFile(`${fake}.sig`, signatureOf(faked, his.key));
    assert.deepEqual(await proofsOf(second, keys), []);
    // Changed: it says something else than what was signed.
    await writeFile(path, (await readFile(path, 'utf8')).replace('"level": "rows"', '"level": "content"'));
    assert.deepEqual(await proofsOf(third, keys), []);
  });

  test('of a moment that has one already gets the next name, signature and all', async () => {
    await anew();
    const [first] = backups;
    const store = openStore({ kind: 'folder', root });
    const parsed = parseSigningKey(tester.privateKey);
    const pub = parseVerifyKeys(tester.publicKey);
    assert.ok('key' in parsed && 'keys' in pub);
    const bytes = await readFile(join(folderOf(first), 'manifest.json'));
    const proof = proofOf(first.manifest, createHash('sha256').update(bytes).digest('hex'));
    const folder = join(folderOf(first), 'proofs');
    await mkdir(folder, { recursive: true });
    // Somebody was there before.
    await writeFile(join(folder, '20261121T030000Z.json.sig'), 'his');
    await writeProof(store, proof, parsed.key);
    await writeProof(store, proof, undefined);
    assert.deepEqual(await filesIn(folder), [
      '20261121T030000Z-2.json',
      '20261121T030000Z-2.json.sig',
      '20261121T030000Z.json',
      '20261121T030000Z.json.sig',
    ]);
    assert.equal((await proofsOf(first, pub.keys)).length, 1);
    assert.equal((await proofsOf(first, [])).length, 2);
  });
});

function proofOf({ id, name }: Manifest, manifestSha256: string): Proof {
  return {
    ...{ format: 'pgassay-proof/1', backupId: id, name, manifestSha256, testedAt: '2026-11-21T03:00:00.000Z' },
    ...{ result: 'passed', level: 'rows', findings: [], findingsLeftOut: 0, leftOut: [], notes: [], timings: {} },
    ...{ maxRestoreSeconds: null, server: '15.20', recipient: null, runUrl: null },
    tools: { pgRestore: '15.20', pgassay: '0.1.0' },
  };
}
