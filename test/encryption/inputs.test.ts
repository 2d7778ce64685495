// What is accepted as a recipient, an identity and a passphrase, and what is said of everything else.
import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { generateKeyPair, type KeyPair } from '../../src/age.ts';
import { encryptionSecrets, readEncryption, readKeys, strayKeys } from '../../src/encryption-inputs.ts';
import { Inputs } from '../../src/inputs.ts';

let pair: KeyPair;
let other: KeyPair;
let hybrid: KeyPair;
before(async () => {
  [pair, other] = await Promise.all([generateKeyPair('x25519'), generateKeyPair('x25519')]);
  hybrid = await generateKeyPair('post-quantum');
});

type Given = Readonly<Record<string, string>>;
const reading = (given: Given): Inputs => new Inputs((name) => given[name]);

function problemsOf(read: (inputs: Inputs) => unknown, given: Given): string {
  const inputs = reading(given);
  read(inputs);
  return inputs.problems.map(({ input, message, hint }) => `${input}: ${message}; ${hint}`).join('\n');
}

const encryptProblems = (given: Given): string => problemsOf(readEncryption, given);
const keyProblems = (given: Given): string => problemsOf(readKeys, given);

describe('encrypt-to', () => {
  test('takes one recipient a line, comments and blanks between them, each once', () => {
    const text = `# drill\n${pair.recipient}\n\n  ${other.recipient}  \r\n${pair.recipient}\n`;
    assert.deepEqual(readEncryption(reading({ 'encrypt-to': text })), {
      to: 'recipients',
      recipients: [pair.recipient, other.recipient],
    });
    assert.deepEqual(readEncryption(reading({ 'encrypt-to': hybrid.recipient })), {
      to: 'recipients',
      recipients: [hybrid.recipient],
    });
    assert.equal(readEncryption(reading({})), undefined);
  });

  test('refuses a secret key, in whatever case, and shows nothing of it', () => {
    for (const key of [pair.identity, pair.identity.toLowerCase(), hybrid.identity, `x ${pair.identity}`]) {
      const said = encryptProblems({ 'encrypt-to': `${other.recipient}\n${key}` });
      assert.match(
        said,
        /^encrypt-to: recipient 2 is a secret key, and a backup job must never have one; give its public/,
      );
      assert.ok(!said.includes(key.slice(20, 40)));
      assert.ok(
        encryptionSecrets((name) => (name === 'encrypt-to' ? key : undefined)).some((each) => key.includes(each)),
      );
    }
  });

  test('says which line is wrong and why, and repeats nothing of it', () => {
    const cut = pair.recipient.slice(0, -3);
    const swapped = pair.recipient.replace(/.$/, (last) => (last === 'q' ? 'p' : 'q'));
    for (const [line, message] of [
      [cut, /recipient 1 was not copied whole/],
      [swapped, /recipient 1 was not copied whole/],
      [hybrid.recipient.slice(0, 900), /recipient 1 was not copied whole/],
      ['ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFrXIq', /recipient 1 is an SSH key/],
      [
        'age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t',
        /is no recipient of age that can be used/,
      ],
      [`${pair.recipient} ${other.recipient}`, /is no recipient of age.* stands alone on its line/],
      ['hunter2-is-the-password', /is no recipient of age/],
      ['age1-CHANGE-drill', /is no recipient of age/],
    ] as const) {
      const said = encryptProblems({ 'encrypt-to': line });
      assert.match(said, message);
      assert.ok(!said.includes(line.slice(0, 20)), said);
    }
  });

  test('that names nobody is not the same as none', () => {
    assert.match(
      encryptProblems({ 'encrypt-to': '# recovery\n# drill\n' }),
      /holds comments only and names no recipient/,
    );
  });

  test('does not mix post-quantum recipients with others', () => {
    const said = encryptProblems({ 'encrypt-to': `${pair.recipient}\n${hybrid.recipient}` });
    assert.match(said, /mixes post-quantum recipients .* with others/);
  });
});

describe('encrypt-passphrase', () => {
  test('is taken when it is long and not made of little, without the line break of its file', () => {
    for (const passphrase of ['correct horse battery staple', 'Xk3/9vQ2mLw+8sTq0uZb', 'päßwörter sind lang genug'])
      assert.deepEqual(readEncryption(reading({ 'encrypt-passphrase': `${passphrase}\n` })), {
        to: 'passphrase',
        passphrase,
      });
  });

  test('that is weak is refused, and not shown', () => {
    for (const [passphrase, message] of [
      ['hunter2hunter2', /is shorter than 16 characters/],
      ['aaaaaaaaaaaaaaaaaaaaaaaa', /fewer than 8 different characters/],
      ['password1password1', /is the same few characters again and again/],
      ['abcdefghijklmnopqrst', /is a row of neighbouring characters/],
      ['zyxwvutsrqponmlkjihg', /is a row of neighbouring characters/],
      ['two lines\nof a passphrase', /has a line break inside/],
      [' correct horse battery staple', /a space at one of its ends/],
    ] as const) {
      const said = encryptProblems({ 'encrypt-passphrase': passphrase });
      assert.match(said, message);
      assert.ok(!said.includes(passphrase), said);
    }
  });

  test('stands alone, and is no key', () => {
    const passphrase = 'correct horse battery staple';
    assert.match(
      encryptProblems({ 'encrypt-to': pair.recipient, 'encrypt-passphrase': passphrase }),
      /encrypt-passphrase: and encrypt-to are both given/,
    );
    for (const key of [pair.recipient, pair.identity])
      assert.match(encryptProblems({ 'encrypt-passphrase': key }), /is a key of age and no passphrase/);
  });
});

describe('decrypt-identity', () => {
  test('takes the file that age-keygen or pgassay keygen wrote, and several of them', () => {
    const file = `# created: 2026-11-21T02:00:00Z\n# public key: ${pair.recipient}\n${pair.identity}\n`;
    assert.deepEqual(readKeys(reading({ 'decrypt-identity': file })), {
      identities: [pair.identity],
      passphrase: undefined,
    });
    assert.deepEqual(readKeys(reading({ 'decrypt-identity': `${file}${hybrid.identity}` })).identities, [
      pair.identity,
      hybrid.identity,
    ]);
    assert.deepEqual(readKeys(reading({})), { identities: [], passphrase: undefined });
    const secrets = encryptionSecrets((name) => (name === 'decrypt-identity' ? file : undefined));
    assert.deepEqual(secrets, [pair.identity]);
  });

  test('says what else it was given, and shows nothing of it', () => {
    for (const [given, message] of [
      [pair.recipient, /key 1 is a public key, which opens nothing/],
      ['age-encryption.org/v1\n-> scrypt abc 18', /is itself encrypted with a passphrase/],
      ['-----BEGIN AGE ENCRYPTED FILE-----\nYWdl', /is itself encrypted with a passphrase/],
      [pair.identity.slice(0, -2), /was not copied whole/],
      ['hunter2', /is no secret key of age/],
      ['# nothing', /holds comments only and no secret key/],
    ] as const) {
      const said = keyProblems({ 'decrypt-identity': given });
      assert.match(said, message);
      assert.ok(!said.includes(given), said);
    }
  });
});

describe('a secret key in the environment of a backup', () => {
  test('is a problem of its own', () => {
    assert.deepEqual(strayKeys({ PATH: '/usr/bin', PGASSAY_DECRYPT_IDENTITY: ' ' }), []);
    const [problem] = strayKeys({ PGASSAY_DECRYPT_IDENTITY: pair.identity });
    assert.equal(problem?.input, 'PGASSAY_DECRYPT_IDENTITY');
    assert.match(problem?.message ?? '', /was given to a backup, which never needs it/);
    assert.ok(!JSON.stringify(problem).includes(pair.identity));
  });
});
