// Our side of age files, against Debian's age on the other side.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { Decrypter, Encrypter } from 'age-encryption';
import {
  beginAge,
  decrypt,
  type Encryption,
  encrypt,
  generateKeyPair,
  type KeyPair,
  noKeys,
  openAge,
} from '../../src/age.ts';
import { NotAgeFile, WrongKey } from '../../src/age-errors.ts';
import { scratch } from '../support/faults.ts';

/** What age encrypts at once. */
const piece = 64 * 1024;
const sizes = [0, 1, piece - 1, piece, piece + 1, 2 * piece, 2 * piece + 1, 200_000];

let folder: string;
let alice: KeyPair;
let bob: KeyPair;
let hybrid: KeyPair;
before(async () => {
  folder = await scratch();
  [alice, bob] = await Promise.all([stockPair('alice'), stockPair('bob')]);
  hybrid = await generateKeyPair('post-quantum');
});

/** A pair that age-keygen made. */
async function stockPair(name: string): Promise<KeyPair> {
  const file = join(folder, `${name}.txt`);
  execFileSync('age-keygen', ['-o', file], { stdio: 'ignore' });
  const [identity = ''] = /^AGE-SECRET-KEY-.+$/m.exec(readFileSync(file, 'utf8')) ?? [];
  return { identity, recipient: execFileSync('age-keygen', ['-y', file], { encoding: 'utf8' }).trim() };
}

const to = (...recipients: string[]): Encryption => ({ to: 'recipients', recipients });
const keys = (...identities: string[]) => ({ ...noKeys, identities });

/** Through the writer in chunks of `chunkBytes`, all of them in the same memory. */
async function streamed(content: Buffer, encryption: Encryption, chunkBytes: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  const writer = await beginAge(encryption, async (chunk) => void pieces.push(Buffer.from(chunk)));
  const memory = Buffer.alloc(chunkBytes);
  for (let at = 0; at < content.length; at += chunkBytes) {
    const length = content.copy(memory, 0, at, at + chunkBytes);
    await writer.write(memory.subarray(0, length));
    memory.fill(0xee);
  }
  await writer.end();
  return Buffer.concat(pieces);
}

function stockDecrypt(file: Buffer, key = 'alice'): Buffer {
  return execFileSync('age', ['-d', '-i', join(folder, `${key}.txt`)], { input: file, maxBuffer: 10 * piece });
}

describe('what we encrypt', () => {
  test('the stock age program opens, at every size around the pieces of the format, streamed or whole', async () => {
    for (const size of sizes)
      for (const chunkBytes of [7001, piece, 150_000]) {
        const content = randomBytes(size);
        const encrypted = await streamed(content, to(alice.recipient), chunkBytes);
        assert.ok(stockDecrypt(encrypted).equals(content), `${size} bytes in chunks of ${chunkBytes}`);
        assert.ok(stockDecrypt(await encrypt(content, to(alice.recipient))).equals(content), `${size} bytes`);
      }
  });

  test('each of its recipients opens, and says which one it was', async () => {
    const content = randomBytes(100_000);
    const file = await streamed(content, to(alice.recipient, bob.recipient), piece);
    for (const key of ['alice', 'bob']) assert.ok(stockDecrypt(file, key).equals(content));
    for (const { identity, recipient } of [alice, bob])
      assert.deepEqual(await decrypt(file, keys(identity)), { recipient, plain: content });
    const stranger = await generateKeyPair('x25519');
    assert.equal((await decrypt(file, keys(stranger.identity, bob.identity))).recipient, bob.recipient);
  });

  test('opens with a post-quantum identity, and with no other', async () => {
    const content = randomBytes(70_000);
    const file = await streamed(content, to(hybrid.recipient), piece);
    assert.deepEqual(await decrypt(file, keys(alice.identity, hybrid.identity)), {
      recipient: hybrid.recipient,
      plain: content,
    });
    await assert.rejects(decrypt(file, keys(alice.identity)), WrongKey);
  });

  // Debian's age is older than post-quantum recipients: the library of age's author stands in for it.
  test('to a post-quantum recipient the reference library opens, and we what it encrypted', async () => {
    const content = randomBytes(2 * piece + 1);
    const opened = new Decrypter();
    opened.addIdentity(hybrid.identity);
    assert.ok(content.equals(await opened.decrypt(await streamed(content, to(hybrid.recipient), piece))));
    const theirs = new Encrypter();
    theirs.addRecipient(hybrid.recipient);
    const { plain } = await decrypt(Buffer.from(await theirs.encrypt(content)), keys(hybrid.identity));
    assert.ok(plain.equals(content));
  });

  test('with a passphrase the stock age program opens, and we what it encrypted', async () => {
    const passphrase = 'correct horse battery staple';
    const content = randomBytes(70_000);
    const [ours, theirs, out] = ['ours.age', 'theirs.age', 'out'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    writeFileSync(ours, await encrypt(content, { to: 'passphrase', passphrase }));
    atTerminal(`age -d -o ${out} ${ours}`, `${passphrase}\n`);
    assert.ok(readFileSync(out).equals(content));
    atTerminal(`age -p -o ${theirs} ${out}`, `${passphrase}\n${passphrase}\n`);
    const opened = await decrypt(readFileSync(theirs), { identities: [alice.identity], passphrase });
    assert.deepEqual(opened, { recipient: 'passphrase', plain: content });
    await assert.rejects(decrypt(readFileSync(ours), { identities: [], passphrase: `${passphrase}!` }), WrongKey);
  });

  test('is taken no faster than its taker takes it: little more than a piece is held', async () => {
    const gate = Promise.withResolvers<void>();
    const writer = await beginAge(to(alice.recipient), () => gate.promise);
    let written = 0;
    const writing = (async () => {
      for (; written < 40; written++) await writer.write(Buffer.alloc(piece));
    })();
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.ok(written <= 6, `${written} chunks were taken while nothing went out`);
    gate.resolve();
    await writing;
    await writer.end();
  });

  test('passes at 150 MB a second and more, each way, in memory that does not grow', async () => {
    const chunk = randomBytes(piece);
    const stored: Buffer[] = [];
    let held = 0;
    const writing = process.cpuUsage();
    const writer = await beginAge(to(alice.recipient), async (encrypted) => {
      if (stored.length < 1000) stored.push(encrypted);
      held = Math.max(held, process.memoryUsage().arrayBuffers);
    });
    for (let n = 0; n < 4000; n++) await writer.write(chunk);
    await writer.end();
    atLeast(150, 4000 * piece, process.cpuUsage(writing));
    const reading = process.cpuUsage();
    const source = stored.values();
    const { plain } = await openAge({ next: async () => source.next() }, keys(alice.identity));
    let opened = 0;
    for await (const { length } of plain) {
      opened += length;
      if (opened === 999 * piece) break;
    }
    atLeast(150, opened, process.cpuUsage(reading));
    assert.ok(held < 200_000_000, `${held} bytes were held at once`);
  });

  test('fails with the error of whoever takes it, at the latest with its end', async () => {
    const full = new Error('the disk is full');
    const writer = await beginAge(to(alice.recipient), async () => {
      throw full;
    });
    await assert.rejects(
      async () => {
        for (let n = 0; n < 40; n++) await writer.write(Buffer.alloc(piece));
        await writer.end();
      },
      (error) => error === full,
    );
  });
});

describe('what the stock age program encrypted', () => {
  test('we open, at every size around the pieces of the format', async () => {
    for (const size of sizes) {
      const content = randomBytes(size);
      const file = execFileSync('age', ['-r', bob.recipient, '-r', alice.recipient], {
        input: content,
        maxBuffer: 10 * piece,
      });
      const { plain, recipient } = await decrypt(file, keys(alice.identity));
      assert.ok(plain.equals(content), `${size} bytes`);
      assert.equal(recipient, alice.recipient);
    }
  });
});

describe('an age file that is not what was written', () => {
  test('cut anywhere is never taken for whole', async () => {
    const file = await encrypt(randomBytes(2 * piece), to(alice.recipient));
    const header = file.indexOf('\n---') + 49;
    const cuts = [0, 1, 20, 100, header, header + 16, header + 17, file.length - 1, file.length - 16];
    cuts.push(header + 16 + piece + 16, header + 16 + piece + 15, header + 16 + 2 * (piece + 16) - 1);
    for (const cut of cuts)
      await assert.rejects(decrypt(file.subarray(0, cut), keys(alice.identity)), NotAgeFile, `cut at ${cut}`);
  });

  test('changed anywhere is never opened to its end', async () => {
    const file = await encrypt(randomBytes(piece + 1000), to(alice.recipient));
    for (let at = 0; at < file.length; at += at < 300 ? 7 : 3001) {
      const changed = Buffer.from(file);
      changed[at] = (changed[at] ?? 0) ^ 1;
      await assert.rejects(
        decrypt(changed, keys(alice.identity)),
        (error) => error instanceof NotAgeFile || error instanceof WrongKey,
        `byte ${at}`,
      );
    }
    for (const extra of [Buffer.from('x'), Buffer.alloc(piece + 16)])
      await assert.rejects(decrypt(Buffer.concat([file, extra]), keys(alice.identity)), NotAgeFile);
  });

  test('is told from one for somebody else', async () => {
    const file = await encrypt(randomBytes(10), to(alice.recipient));
    await assert.rejects(decrypt(file, keys(bob.identity, hybrid.identity)), WrongKey);
    await assert.rejects(decrypt(file, { identities: [], passphrase: 'correct horse battery staple' }), WrongKey);
    await assert.rejects(decrypt(Buffer.from('PGDMP'), keys(alice.identity)), NotAgeFile);
    await assert.rejects(decrypt(Buffer.alloc(0), keys(alice.identity)), NotAgeFile);
  });
});

/** MB a second of one processor, whatever else the machine does meanwhile. */
function atLeast(least: number, bytes: number, { user, system }: NodeJS.CpuUsage): void {
  const rate = Math.round(bytes / (user + system));
  assert.ok(rate >= least, `${rate} MB/s`);
}

/** Passphrases are typed: age reads them from a terminal and from nothing else. */
function atTerminal(command: string, typed: string): void {
  const { status, stdout } = spawnSync('script', ['-qec', command, '/dev/null'], { input: typed, encoding: 'utf8' });
  assert.equal(status, 0, stdout);
}
