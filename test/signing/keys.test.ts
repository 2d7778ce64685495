import assert from 'node:assert/strict';
import { createHash, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { withPemFiles } from '../../src/environment.ts';
import { Inputs } from '../../src/inputs.ts';
import { Secrets } from '../../src/secrets.ts';
import {
  generateSigningKeys,
  parseSigningKey,
  parseVerifyKeys,
  type SigningKey,
  signatureOf,
  signerOf,
  type VerifyKey,
  verifyKeyOf,
} from '../../src/signing.ts';
import { hideKeys } from '../../src/signing-inputs.ts';
import { cli } from '../support/backup.ts';
import { scratch } from '../support/faults.ts';

const pair = generateSigningKeys();
const other = generateSigningKeys();
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const pem = { private: { type: 'pkcs8', format: 'pem' }, public: { type: 'spki', format: 'pem' } } as const;
const rsaPrivate = rsa.privateKey.export(pem.private).toString();
const rsaPublic = rsa.publicKey.export(pem.public).toString();
const x25519 = generateKeyPairSync('x25519').publicKey.export(pem.public).toString();
const locked = generateKeyPairSync('ed25519')
  .privateKey.export({ ...pem.private, cipher: 'aes-256-cbc', passphrase: 'correct horse' })
  .toString();

function signing(text: string): SigningKey {
  const parsed = parseSigningKey(text);
  assert.ok('key' in parsed, 'problem' in parsed ? parsed.problem : '');
  return parsed.key;
}

function verifying(text: string): readonly VerifyKey[] {
  const parsed = parseVerifyKeys(text);
  assert.ok('keys' in parsed, 'problem' in parsed ? parsed.problem : '');
  return parsed.keys;
}

describe('keys', () => {
  test('have one id for both halves: SHA-256 of the 32 bytes of the public one', () => {
    const der = createPublicKey(pair.publicKey).export({ type: 'spki', format: 'der' });
    const id = createHash('sha256').update(der.subarray(-32)).digest('hex');
    assert.equal(pair.id, id);
    assert.equal(signing(pair.privateKey).id, id);
    assert.deepEqual(
      verifying(pair.publicKey).map((key) => key.id),
      [id],
    );
    assert.equal(verifyKeyOf(signing(pair.privateKey)).id, id);
  });

  test('to verify with may be several, with comments between, and count once each', () => {
    const text = `# since 2025\n${pair.publicKey}\n# until 2025\n${other.publicKey.replaceAll('\n', '\r\n')}${pair.publicKey}`;
    assert.deepEqual(
      verifying(text).map((key) => key.id),
      [pair.id, other.id],
    );
  });

  test('survive what forms and files do to line breaks and indentation', () => {
    const [first = '', body = '', last = ''] = pair.privateKey.trim().split('\n');
    for (const text of [
      pair.privateKey.trim(),
      pair.privateKey.replaceAll('\n', '\r\n'),
      pair.privateKey.replaceAll('\n', '\r'),
      `\uFEFF\n\n${pair.privateKey}\n\n`,
      pair.privateKey.replaceAll(/^/gm, '    '),
      pair.privateKey.replaceAll('\n', ' '),
      [first, body.slice(0, 30), body.slice(30), last].join('\n'),
    ])
      assert.equal(signing(text).id, pair.id, JSON.stringify(text));
    const two = `${pair.publicKey} ${other.publicKey}`.replaceAll('\n', ' ');
    assert.deepEqual(
      verifying(two).map((key) => key.id),
      [pair.id, other.id],
    );
  });

  test('that are none are told apart, each with what to do, and nothing of them is said', () => {
    const cut = pair.privateKey.slice(0, 60);
    for (const [text, says] of [
      [pair.publicKey, /is a public key, which cannot sign/],
      [rsaPrivate, /is a key for rsa, and Ed25519 is needed/],
      [locked, /is protected by a passphrase/],
      [pair.privateKey.replace(/\n(.{20})/, '\n'), /cannot be read as a key; it may be cut short/],
      [cut, /is no key in PEM/],
      [pair.privateKey.split('\n')[1] ?? '', /is no key in PEM/],
      [pair.privateKey.replaceAll('\n', '\\n'), /has \\n in it in place of line breaks/],
      [pair.privateKey + other.privateKey, /holds several keys/],
      [`${pair.privateKey}rest of another`, /it may be cut short/],
      [pair.privateKey.replaceAll('PRIVATE', 'OPENSSH PRIVATE'), /is an OPENSSH PRIVATE KEY, and no Ed25519 key/],
    ] as const) {
      const parsed = parseSigningKey(text);
      assert.ok('problem' in parsed, text);
      assert.match(parsed.problem, says);
      assert.ok(parsed.hint !== undefined && !parsed.hint.includes(pair.privateKey.split('\n')[1] ?? '-'));
    }
    for (const [text, says] of [
      [pair.privateKey, /holds a private key, and whoever reads that can sign/],
      [pair.publicKey + pair.privateKey, /holds a private key/],
      [rsaPublic, /is a key for rsa/],
      [x25519, /is a key for x25519/],
      [pair.publicKey.replaceAll('PUBLIC KEY', 'CERTIFICATE'), /holds a CERTIFICATE, and no Ed25519 key/],
      [pair.publicKey.replace('MCow', 'MCo'), /cannot be read as a key/],
      ['ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 somebody', /is no key in PEM/],
    ] as const) {
      const parsed = parseVerifyKeys(text);
      assert.ok('problem' in parsed, text);
      assert.match(parsed.problem, says);
    }
  });
});

describe('keys among the inputs', () => {
  const body = pair.privateKey.split('\n')[1] ?? '';
  const hidden = (name: string, text: string): string[] => {
    const secrets = new Secrets();
    hideKeys((input) => (input === name ? text : undefined), secrets);
    return secrets.forms();
  };

  test('are hidden in whatever form they come, as far as they are private', () => {
    for (const text of [
      pair.privateKey,
      pair.privateKey.replaceAll('\n', '\r\n'),
      pair.privateKey.replaceAll('\n', ' '),
      pair.privateKey.replaceAll('\n', '\\n'),
      pair.privateKey.replaceAll(/^/gm, '  '),
      body,
    ])
      for (const name of ['signing-key', 'proof-key', 'verify-key'])
        assert.ok(hidden(name, text).includes(body), `${name} ${JSON.stringify(text)}`);
    const again = Buffer.from(pair.privateKey).toString('base64');
    assert.ok(hidden('signing-key', again).includes(again) && hidden('verify-key', again).includes(again));
    assert.ok(!hidden('signing-key', pair.privateKey).some((form) => form.startsWith('-----BEGIN PRIVATE KEY')));
    assert.deepEqual(hidden('verify-key', pair.publicKey + other.publicKey), []);
  });

  test('in a file that is empty, or in base64, are no reason to go on without', async () => {
    const empty = join(await scratch(), 'empty.pem');
    await writeFile(empty, '\n');
    const base64 = Buffer.from(pair.publicKey).toString('base64');
    for (const [given, says, hint] of [
      [empty, /is the path of an empty file/, undefined],
      [base64, /is neither PEM text nor the path/, /looks like base64/],
      [body, /is neither PEM text nor the path/, /looks like base64/],
      ['keys/verify.pem', /is neither PEM text nor the path/, undefined],
    ] as const) {
      const inputs = new Inputs(() => undefined);
      withPemFiles((name) => (name === 'verify-key' ? given : undefined), inputs);
      const [problem, ...others] = inputs.problems;
      assert.deepEqual(others, []);
      assert.match(problem?.message ?? '', says);
      assert.ok(hint === undefined ? problem?.hint === undefined : hint.test(problem?.hint ?? ''), problem?.hint);
    }
    const unset = await cli(['list', '--store', 'file:///nonexistent', '--verify-key', '']);
    assert.equal(unset.exitCode, 2);
    assert.match(unset.stderr, /verify-key: was given, and is empty/);
    const file = await cli(['backup', '--signing-key-file', empty]);
    assert.equal(file.exitCode, 2);
    assert.match(file.stderr, /signing-key-file: .* is empty/);
  });
});

describe('a signature', () => {
  const bytes = Buffer.from('{"format": "pgassay/1"}\n');
  const signature = signatureOf(bytes, signing(pair.privateKey));
  const keys = verifying(other.publicKey + pair.publicKey);

  test('is 64 bytes in base64 and a line break, and tells whose it is', () => {
    assert.match(signature.toString(), /^[A-Za-z0-9+/]{86}==\n$/);
    assert.equal(signerOf(bytes, signature, keys)?.id, pair.id);
    assert.equal(signerOf(bytes, Buffer.from(` ${signature.toString().trim()} `), keys)?.id, pair.id);
  });

  test('is of these bytes and these keys only', () => {
    for (let at = 0; at < bytes.length; at++) {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ 1;
      assert.equal(signerOf(changed, signature, keys), undefined, `byte ${at}`);
    }
    assert.equal(signerOf(bytes.subarray(1), signature, keys), undefined);
    assert.equal(signerOf(bytes, signature, verifying(other.publicKey)), undefined);
    assert.equal(signerOf(bytes, signature, []), undefined);
  });

  test('that is malformed is none: empty, short, long, other letters, raw bytes', () => {
    const text = signature.toString();
    for (const wrong of [
      '',
      text.slice(0, 40),
      `${text}${text}`,
      text.replace('==', '=-'),
      Buffer.from(text, 'base64').toString('hex'),
      text + 'A'.repeat(2_000_000),
      `${text}${' '.repeat(2000)}`,
    ])
      assert.equal(signerOf(bytes, Buffer.from(wrong), keys), undefined);
    assert.equal(signerOf(bytes, Buffer.from(text, 'base64'), keys), undefined);
  });
});

describe('pgassay keygen', () => {
  test('--signing prints both halves, and says where to put which; nobody else has them', async () => {
    const [first, second] = await Promise.all([cli(['keygen', '--signing']), cli(['keygen', '--signing', '--json'])]);
    assert.equal(first.exitCode, 0, first.stderr);
    const [privateHalf = '', publicHalf = ''] = first.stdout.match(/-----BEGIN [\s\S]*?-----END .*-----/g) ?? [];
    const key = signing(privateHalf);
    assert.equal(verifying(publicHalf)[0]?.id, key.id);
    assert.ok(first.stdout.includes(key.id));
    assert.match(first.stdout, /signing-key[\s\S]*verify-key/);
    const made = second.json as Record<string, string>;
    assert.equal(signing(made.privateKey ?? '').id, made.keyId);
    assert.equal(verifying(made.publicKey ?? '')[0]?.id, made.keyId);
    assert.notEqual(made.keyId, key.id);
  });

  test('makes one kind at a time', async () => {
    const asked = await cli(['keygen', '--signing', '--post-quantum']);
    assert.equal(asked.exitCode, 2);
    assert.match(asked.stderr, /post-quantum pairs encrypt/);
  });
});
