import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Inputs } from '../../src/inputs.ts';
import { parseStoreAddress } from '../../src/store/open.ts';
import { parseEndpoint } from '../../src/store/s3-address.ts';
import { readStore, storeInputs } from '../../src/store-inputs.ts';

const problem = (text: string): string => {
  const parsed = parseStoreAddress(text);
  assert.ok('problem' in parsed, `${text} was accepted`);
  return parsed.problem;
};

describe('the address of a bucket', () => {
  test('is a bucket and, if wanted, a prefix', () => {
    for (const [text, bucket, prefix] of [
      ['s3://backups', 'backups', ''],
      ['s3://backups/', 'backups', ''],
      ['s3://backups/nightly/eu/', 'backups', 'nightly/eu'],
      [' s3://my.bucket-1/a b+c ', 'my.bucket-1', 'a b+c'],
    ] as const)
      assert.deepEqual(parseStoreAddress(text), { address: { kind: 's3', bucket, prefix } });
  });

  test('B35: what is no bucket is refused, with the reason', () => {
    for (const [text, reason] of [
      ['b/p', /is not an address/],
      ['https://b.s3.amazonaws.com/p', /is not an address/],
      ['S3://backups', /is not written as an S3 address/],
      ['s3:backups', /is not written as an S3 address/],
      ['s3://', /names no bucket/],
      ['s3://Backups/p', /lower-case/],
      ['s3://ab', /3 to 63/],
      ['s3://-abc', /a letter or digit at both ends/],
      ['s3://10.0.0.1/p', /no provider allows/],
      ['s3://arn:aws:s3:::backups', /names an ARN/],
      ['s3://key:secret@backups', /use s3-endpoint/],
      ['s3://localhost:9000/backups', /use s3-endpoint/],
    ] as const)
      assert.match(problem(text), reason, text);
  });

  test('B37: prefixes that do not travel are refused', () => {
    for (const prefix of ['..', 'a/../b', '.', 'a//b', '/a', 'a\\b', 'ä', '🐘', 'a\nb', 'a?b', 'a#b', 'x'.repeat(801)])
      assert.ok(problem(`s3://backups/${prefix}`).length > 10, prefix);
  });
});

describe('s3-endpoint', () => {
  test('is a host and nothing else', () => {
    for (const [text, endpoint] of [
      ['https://s3.example.com', 'https://s3.example.com'],
      ['https://s3.example.com/', 'https://s3.example.com'],
      ['https://s3.example.com:8443', 'https://s3.example.com:8443'],
      ['http://localhost:9000', 'http://localhost:9000'],
      ['http://minio:9000', 'http://minio:9000'],
      ['http://10.1.2.3', 'http://10.1.2.3'],
      ['http://[::1]:9000', 'http://[::1]:9000'],
    ] as const)
      assert.deepEqual(parseEndpoint(text, 'backups'), { endpoint });
  });

  test('B36: says what is wrong with any other', () => {
    for (const [text, reason] of [
      ['s3.example.com', /is not a URL/],
      ['ftp://s3.example.com', /has no scheme/],
      ['localhost:9000', /has no scheme/],
      ['https://s3.example.com/backups', /after the host/],
      ['https://backups.s3.example.com', /begins with the name of the bucket/],
      ['https://key:secret@s3.example.com', /has keys in it/],
      ['http://s3.example.com', /is http to a public host/],
      ['http://8.8.8.8', /is http to a public host/],
      ['http://169.254.169.254', /link-local/],
      ['https://169.254.169.254', /link-local/],
      ['http://[fe80::1]', /link-local/],
      ['http://metadata.google.internal', /link-local/],
      // WHATWG URLs turn other spellings of an address into the usual one.
      ['http://0xa9fea9fe/', /link-local/],
      ['http://2852039166', /link-local/],
      ['http://[::ffff:169.254.169.254]', /link-local/],
    ] as const) {
      const parsed = parseEndpoint(text, 'backups');
      assert.ok('problem' in parsed, text);
      assert.match(parsed.problem, reason, text);
    }
  });
});

describe('the inputs of an S3 store', () => {
  const problems = (values: Record<string, string>): string[] => {
    const inputs = new Inputs((name) => ({ store: 's3://backups/p', ...values })[name]);
    readStore(inputs);
    return inputs.problems.map((each) => `${each.input}: ${each.message}; ${each.hint ?? ''}`);
  };

  test('B38: a key is whole or refused', () => {
    for (const [values, reason] of [
      [{ 's3-access-key-id': 'AKIA' }, /^s3-secret-access-key: is missing/],
      [{ 's3-secret-access-key': 'x' }, /^s3-access-key-id: is missing/],
      [{ 's3-session-token': 'x' }, /^s3-session-token: is given without its keys/],
      [{ 's3-access-key-id': 'ASIAABCDEFGHIJKLMNOP', 's3-secret-access-key': 'x' }, /^s3-session-token: is missing/],
      [{ 's3-access-key-id': 'wJalrXUtnFEMI', 's3-secret-access-key': 'AKIAABCDEFGHIJKLMNOP' }, /may be swapped/],
      [{ 's3-access-key-id': 'AKIA', 's3-secret-access-key': 'two\nlines' }, /line break/],
    ] as const)
      assert.match(problems(values).join('\n'), reason);
    assert.deepEqual(problems({ 's3-access-key-id': ' AKIA\n', 's3-secret-access-key': 'abc\n' }), []);
  });

  test('no problem repeats a secret', () => {
    const secret = 'S3CRET/value with space';
    const said = problems({ 's3-access-key-id': 'AKIA', 's3-secret-access-key': secret, 's3-session-token': secret });
    assert.ok(said.length > 0 && !said.join().includes('S3CRET'));
  });

  test('a lock is for 1 to 400 days, or for more when the number is said twice', () => {
    assert.deepEqual(problems({ 's3-object-lock-days': '400' }), []);
    assert.match(problems({ 's3-object-lock-days': '401' }).join(), /more than 400 days.*s3-object-lock-confirm: 401/);
    assert.match(problems({ 's3-object-lock-days': '500', 's3-object-lock-confirm': '401' }).join(), /more than 400/);
    assert.deepEqual(problems({ 's3-object-lock-days': '500', 's3-object-lock-confirm': '500' }), []);
    for (const days of ['0', '-1', '1.5', 'abc', '36501'])
      assert.match(problems({ 's3-object-lock-days': days }).join(), /not a whole number/);
    assert.match(problems({ 's3-object-lock-confirm': '5' }).join(), /needs s3-object-lock-days/);
  });

  test('combinations that cannot be meant are refused', () => {
    const keys = { 's3-access-key-id': 'AKIA', 's3-secret-access-key': 'x' };
    const role = { 'aws-role-arn': 'arn:aws:iam::123456789012:role/backup' };
    assert.deepEqual(problems(role), []);
    for (const [values, reason] of [
      [{ ...keys, ...role }, /both given/],
      [{ ...role, 's3-endpoint': 'https://s3.example.com' }, /is for AWS/],
      [{ 'aws-role-arn': 'backup' }, /not the ARN of a role/],
      [{ 's3-sse-kms-key-id': 'k' }, /needs s3-sse: aws:kms/],
      [{ 's3-sse': 'AES256', 's3-sse-kms-key-id': 'k' }, /needs s3-sse: aws:kms/],
      [{ 's3-storage-class': 'DEEP_ARCHIVE' }, /hours to read back/],
      [{ 's3-storage-class': 'cheap' }, /not written as storage classes are/],
      [{ 's3-checksums': 'never' }, /not one of auto, when-required/],
      [{ 's3-region': 'EU West' }, /not allowed/],
    ] as const)
      assert.match(problems(values).join(), reason);
  });

  test('a folder takes none of them, but for what action.yml gives every run', () => {
    const read = (values: Record<string, string>): string[] => {
      const inputs = new Inputs((name) => ({ store: 'file:///srv/x', ...values })[name]);
      readStore(inputs);
      return inputs.problems.map((each) => each.input);
    };
    assert.deepEqual(
      read({ 's3-region': 'us-east-1', 's3-object-lock-mode': 'governance', 's3-checksums': 'auto' }),
      [],
    );
    // The token is the alerts' too, and signatures are the same everywhere.
    for (const name of storeInputs.filter((each) => !['store', 'github-token', 'verify-key'].includes(each)))
      assert.deepEqual(read({ [name]: 'something' }), [name]);
  });

  test('a bucket with a dot, or an endpoint, means path style', () => {
    const style = (values: Record<string, string>): boolean => {
      const choice = readStore(new Inputs((name) => ({ store: 's3://backups', ...values })[name]));
      return choice.kind === 's3' && choice.options.pathStyle;
    };
    assert.equal(style({}), false);
    assert.equal(style({ store: 's3://my.backups' }), true);
    assert.equal(style({ 's3-endpoint': 'https://s3.example.com' }), true);
    assert.equal(style({ 's3-endpoint': 'https://s3.example.com', 's3-path-style': 'false' }), false);
  });
});
