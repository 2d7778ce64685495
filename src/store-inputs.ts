import { readToken } from './alert-inputs.ts';
import type { Inputs } from './inputs.ts';
import { type ArtifactPlace, isEnterpriseServer } from './store/artifact-place.ts';
import { parseStoreAddress, type StoreChoice } from './store/open.ts';
import { type IdentityService, parseEndpoint, type S3Options } from './store/s3-address.ts';

/** Every input that says where backups are, for each action and command that opens a store. */
export const storeInputs: readonly string[] = [
  'store',
  's3-endpoint',
  's3-region',
  's3-path-style',
  's3-access-key-id',
  's3-secret-access-key',
  's3-session-token',
  'aws-role-arn',
  's3-storage-class',
  's3-sse',
  's3-sse-kms-key-id',
  's3-object-lock-days',
  's3-object-lock-confirm',
  's3-object-lock-mode',
  's3-checksums',
  'allow-plaintext-artifact',
  'github-token',
];

/** Of them, the ones that matter to somebody who only reads. */
export const storeReadInputs: readonly string[] = [
  'store',
  's3-endpoint',
  's3-region',
  's3-path-style',
  's3-access-key-id',
  's3-secret-access-key',
  's3-session-token',
  'aws-role-arn',
  'github-token',
];

/** Of all of them, the ones whose values are hidden wherever they would appear. */
export const storeSecrets: readonly string[] = ['s3-secret-access-key', 's3-session-token', 'github-token'];

/** Longer locks need to be confirmed: nobody can take one back in compliance mode. */
const longestLock = 400;
const mostLock = 36_500;

/** Every problem of the store's inputs is told; what is returned then is never opened. `place`: whose artifacts are meant. */
export function readStore(inputs: Inputs, identity?: IdentityService, place?: ArtifactPlace): StoreChoice {
  const [first = '', ...others] = inputs.lines('store');
  if (others.length > 0) inputs.problem('store', 'several stores are not part of this release', 'give one');
  const parsed = parseStoreAddress(first);
  if ('problem' in parsed) {
    inputs.problem('store', parsed.problem);
    return { kind: 'folder', root: '/nonexistent' };
  }
  const { address } = parsed;
  const allowPlaintext = inputs.flag('allow-plaintext-artifact', false);
  if (allowPlaintext && address.kind !== 'artifact')
    inputs.problem('allow-plaintext-artifact', 'is for store: artifact', 'take it out');
  if (address.kind === 's3') return { ...address, options: readS3Options(inputs, address.bucket, identity) };
  for (const name of storeInputs)
    if (/^(?:s3|aws)-/.test(name) && inputs.optional(name) !== undefined && !harmless(inputs, name))
      inputs.problem(
        name,
        `is for S3 stores, and the store is ${address.kind === 'folder' ? 'a folder' : 'artifact'}`,
        'take it out, or give store: s3://bucket/prefix',
      );
  if (address.kind === 'folder') return address;
  return readArtifacts(inputs, place, allowPlaintext);
}

function readArtifacts(inputs: Inputs, place: ArtifactPlace | undefined, allowPlaintext: boolean): StoreChoice {
  const token = readToken(inputs);
  if (place === undefined) {
    inputs.problem(
      'store',
      'artifact does not say of which repository',
      'outside of GitHub Actions, set GITHUB_REPOSITORY to owner/name',
    );
    return { kind: 'folder', root: '/nonexistent' };
  }
  if (isEnterpriseServer(place.serverUrl))
    inputs.problem(
      'store',
      'artifact needs artifacts that GitHub Enterprise Server does not have',
      'use s3://bucket/prefix or file:///absolute/folder',
    );
  return { kind: 'artifact', options: { place, token, allowPlaintext } };
}

/** action.yml's own defaults, which every run of the action has. */
function harmless(inputs: Inputs, name: string): boolean {
  const defaults: Record<string, string> = {
    's3-region': 'us-east-1',
    's3-object-lock-mode': 'governance',
    's3-checksums': 'auto',
  };
  return inputs.optional(name) === defaults[name];
}

function readS3Options(inputs: Inputs, bucket: string, identity: IdentityService | undefined): S3Options {
  const endpoint = readEndpoint(inputs, bucket);
  const roleArn = inputs.optional('aws-role-arn');
  const credentials = readCredentials(inputs);
  if (roleArn !== undefined && !/^arn:aws[a-z-]*:iam::\d{12}:role\/[\w+=,.@/-]{1,512}$/.test(roleArn))
    inputs.problem('aws-role-arn', 'is not the ARN of a role', 'write arn:aws:iam::123456789012:role/name');
  if (roleArn !== undefined && credentials !== undefined)
    inputs.problem('aws-role-arn', 'and access keys are both given', 'give one of them');
  if (roleArn !== undefined && endpoint !== undefined)
    inputs.problem('aws-role-arn', 'is for AWS, and s3-endpoint names another store', 'give access keys of that store');
  return {
    endpoint,
    region: inputs.matching('s3-region', 'us-east-1', /^[a-z0-9-]{1,32}$/, 'lower-case letters, digits and hyphens'),
    // A certificate for *.s3.amazonaws.com does not cover a bucket with a dot in its name.
    pathStyle: inputs.flag('s3-path-style', endpoint !== undefined || bucket.includes('.')),
    credentials,
    role: roleArn === undefined ? undefined : { arn: roleArn, identity },
    storageClass: readStorageClass(inputs),
    encryption: readEncryption(inputs),
    lock: readLock(inputs),
    checksums: inputs.choice('s3-checksums', ['auto', 'when-required'], 'auto'),
  };
}

function readEndpoint(inputs: Inputs, bucket: string): string | undefined {
  const text = inputs.optional('s3-endpoint');
  if (text === undefined) return undefined;
  const parsed = parseEndpoint(text, bucket);
  if ('endpoint' in parsed) return parsed.endpoint;
  inputs.problem('s3-endpoint', parsed.problem, parsed.hint);
  return undefined;
}

function readCredentials(inputs: Inputs): S3Options['credentials'] {
  const accessKeyId = inputs.optional('s3-access-key-id');
  const secretAccessKey = inputs.optional('s3-secret-access-key');
  const sessionToken = inputs.optional('s3-session-token');
  if (accessKeyId === undefined && secretAccessKey === undefined) {
    if (sessionToken !== undefined) inputs.problem('s3-session-token', 'is given without its keys');
    return undefined;
  }
  for (const [name, value] of [
    ['s3-access-key-id', accessKeyId],
    ['s3-secret-access-key', secretAccessKey],
    ['s3-session-token', sessionToken],
  ] as const)
    if (value !== undefined && /\s|\p{Cc}/u.test(value))
      inputs.problem(name, 'has a space or a line break inside', 'copy it again');
  if (accessKeyId === undefined || secretAccessKey === undefined) {
    const absent = accessKeyId === undefined ? 's3-access-key-id' : 's3-secret-access-key';
    inputs.problem(absent, 'is missing, and the other half of the key is given', 'give both, or none');
    return undefined;
  }
  if (/^(?:AKIA|ASIA)[A-Z0-9]{16}$/.test(secretAccessKey))
    inputs.problem('s3-secret-access-key', 'looks like an access key id', 'the two may be swapped');
  if (/^ASIA[A-Z0-9]{16}$/.test(accessKeyId) && sessionToken === undefined)
    inputs.problem(
      's3-session-token',
      'is missing: an access key id that begins with ASIA belongs to a session',
      'give s3-session-token too, or use aws-role-arn',
    );
  return { accessKeyId, secretAccessKey, sessionToken };
}

function readStorageClass(inputs: Inputs): string | undefined {
  const value = inputs.optional('s3-storage-class');
  if (value === undefined) return undefined;
  if (!/^[A-Z][A-Z0-9_-]{1,63}$/.test(value))
    inputs.problem('s3-storage-class', 'is not written as storage classes are', 'STANDARD_IA, for instance');
  if (/^(?:GLACIER|DEEP_ARCHIVE)$/.test(value))
    inputs.problem(
      's3-storage-class',
      `${value} takes hours to read back, so no backup in it could be verified or restored at once`,
      'use GLACIER_IR or STANDARD_IA',
    );
  return value;
}

function readEncryption(inputs: Inputs): S3Options['encryption'] {
  const kmsKeyId = inputs.optional('s3-sse-kms-key-id');
  if (inputs.optional('s3-sse') === undefined) {
    if (kmsKeyId !== undefined) inputs.problem('s3-sse-kms-key-id', 'needs s3-sse: aws:kms');
    return undefined;
  }
  const kind = inputs.choice('s3-sse', ['AES256', 'aws:kms'], 'AES256');
  if (kind === 'AES256' && kmsKeyId !== undefined) inputs.problem('s3-sse-kms-key-id', 'needs s3-sse: aws:kms');
  return { kind, kmsKeyId };
}

function readLock(inputs: Inputs): S3Options['lock'] {
  const mode = inputs.choice('s3-object-lock-mode', ['governance', 'compliance'], 'governance');
  const confirmed = inputs.optional('s3-object-lock-confirm');
  if (inputs.optional('s3-object-lock-days') === undefined) {
    if (confirmed !== undefined) inputs.problem('s3-object-lock-confirm', 'needs s3-object-lock-days');
    return undefined;
  }
  const days = inputs.integer('s3-object-lock-days', 1, 1, mostLock);
  if (days > longestLock && confirmed !== String(days))
    inputs.problem(
      's3-object-lock-days',
      `${days} is more than ${longestLock} days, for which nobody could delete what is stored now`,
      `if that is meant, say s3-object-lock-confirm: ${days}`,
    );
  return { mode: mode === 'governance' ? 'GOVERNANCE' : 'COMPLIANCE', days };
}
