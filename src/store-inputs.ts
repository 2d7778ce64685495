import { readToken } from './alert-inputs.ts';
import type { Inputs } from './inputs.ts';
import { type ArtifactPlace, isEnterpriseServer } from './store/artifact-place.ts';
import { parseStoreAddress, type StoreAddress, type StoreChoice, uriOf } from './store/open.ts';
import { type IdentityService, parseEndpoint, type S3Options } from './store/s3-address.ts';

/** Every input that says where backups are and which of them count, for each action and command that opens a store. */
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
  'verify-key',
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
  'verify-key',
  'github-token',
];

/** Of all of them, the ones whose values are hidden wherever they would appear. */
export const storeSecrets: readonly string[] = ['s3-secret-access-key', 's3-session-token', 'github-token'];

/** Longer locks need to be confirmed: nobody can take one back in compliance mode. */
const longestLock = 400;
const mostLock = 36_500;

/** Never opened: there is a problem that says why. */
const nowhere: StoreChoice = { kind: 'folder', root: '/nonexistent' };

/**
 * Reads the one store of whoever reads. Every problem of its inputs is told; what is returned then is never opened.
 * `place`: whose artifacts are meant.
 */
export function readStore(inputs: Inputs, identity?: IdentityService, place?: ArtifactPlace): StoreChoice {
  const [first, ...others] = readStores(inputs, identity, place);
  if (others.length > 0)
    inputs.problem('store', `names ${others.length + 1} stores, and only a backup goes to several`, 'give one');
  return first ?? nowhere;
}

/** Reads the stores a backup goes to, one per line. The inputs of a kind are those of all stores of that kind. */
export function readStores(inputs: Inputs, identity?: IdentityService, place?: ArtifactPlace): readonly StoreChoice[] {
  const addresses = readAddresses(inputs, place);
  const buckets = addresses.flatMap((address) => (address.kind === 's3' ? [address.bucket] : []));
  const s3 = buckets.length > 0 ? readS3Options(inputs, buckets, identity) : undefined;
  const artifacts = addresses.some(({ kind }) => kind === 'artifact') ? readArtifacts(inputs, place) : undefined;
  if (addresses.length > 0) refuseUnused(inputs, addresses);
  return addresses.flatMap((address): StoreChoice[] => {
    if (address.kind === 'folder') return [address];
    if (address.kind === 'artifact') return artifacts === undefined ? [] : [artifacts];
    return s3 === undefined ? [] : [{ ...address, options: s3(address.bucket) }];
  });
}

function readAddresses(inputs: Inputs, place: ArtifactPlace | undefined): StoreAddress[] {
  const lines = inputs.lines('store');
  const addresses = (lines.length === 0 ? [''] : lines).flatMap((line) => {
    const parsed = parseStoreAddress(line);
    if ('address' in parsed) return [parsed.address];
    inputs.problem('store', lines.length > 1 ? `${line} ${parsed.problem}` : parsed.problem);
    return [];
  });
  const uris = addresses.map((address) => uriOf(address, place));
  const twice = uris.find((uri, at) => uris.indexOf(uri) !== at);
  if (twice !== undefined) inputs.problem('store', `names ${twice} twice`, 'take one of them out');
  return addresses;
}

/** Inputs of a kind of store that is not among them: a setting that is ignored protects nothing. */
function refuseUnused(inputs: Inputs, addresses: readonly StoreAddress[]): void {
  const kinds = new Set(addresses.map(({ kind }) => kind));
  if (!kinds.has('artifact') && inputs.flag('allow-plaintext-artifact', false))
    inputs.problem('allow-plaintext-artifact', 'is for store: artifact', 'take it out');
  if (kinds.has('s3')) return;
  for (const name of storeInputs)
    if (/^(?:s3|aws)-/.test(name) && inputs.optional(name) !== undefined && !harmless(inputs, name))
      inputs.problem(
        name,
        `is for S3 stores, and the store is ${kinds.has('folder') ? 'a folder' : 'artifact'}`,
        'take it out, or give store: s3://bucket/prefix',
      );
}

function readArtifacts(inputs: Inputs, place: ArtifactPlace | undefined): StoreChoice | undefined {
  const allowPlaintext = inputs.flag('allow-plaintext-artifact', false);
  const token = readToken(inputs);
  if (place === undefined) {
    inputs.problem(
      'store',
      'artifact does not say of which repository',
      'outside of GitHub Actions, set GITHUB_REPOSITORY to owner/name',
    );
    return undefined;
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

/** Read once for all buckets, so that every problem is told once. */
function readS3Options(
  inputs: Inputs,
  buckets: readonly string[],
  identity: IdentityService | undefined,
): (bucket: string) => S3Options {
  const endpoint = readEndpoint(inputs, buckets);
  const roleArn = inputs.optional('aws-role-arn');
  const credentials = readCredentials(inputs);
  if (roleArn !== undefined && !/^arn:aws[a-z-]*:iam::\d{12}:role\/[\w+=,.@/-]{1,512}$/.test(roleArn))
    inputs.problem('aws-role-arn', 'is not the ARN of a role', 'write arn:aws:iam::123456789012:role/name');
  if (roleArn !== undefined && credentials !== undefined)
    inputs.problem('aws-role-arn', 'and access keys are both given', 'give one of them');
  if (roleArn !== undefined && endpoint !== undefined)
    inputs.problem('aws-role-arn', 'is for AWS, and s3-endpoint names another store', 'give access keys of that store');
  const pathStyle = inputs.optional('s3-path-style') === undefined ? undefined : inputs.flag('s3-path-style', false);
  const common = {
    endpoint,
    region: inputs.matching('s3-region', 'us-east-1', /^[a-z0-9-]{1,32}$/, 'lower-case letters, digits and hyphens'),
    credentials,
    role: roleArn === undefined ? undefined : { arn: roleArn, identity },
    storageClass: readStorageClass(inputs),
    encryption: readEncryption(inputs),
    lock: readLock(inputs),
    checksums: inputs.choice('s3-checksums', ['auto', 'when-required'], 'auto'),
  };
  // A certificate for *.s3.amazonaws.com does not cover a bucket with a dot in its name.
  return (bucket) => ({ ...common, pathStyle: pathStyle ?? (endpoint !== undefined || bucket.includes('.')) });
}

function readEndpoint(inputs: Inputs, buckets: readonly string[]): string | undefined {
  const text = inputs.optional('s3-endpoint');
  if (text === undefined) return undefined;
  const parsed = buckets.map((bucket) => parseEndpoint(text, bucket));
  const [wrong] = parsed.flatMap((each) => ('problem' in each ? [each] : []));
  if (wrong !== undefined) inputs.problem('s3-endpoint', wrong.problem, wrong.hint);
  const [first] = parsed;
  return first !== undefined && 'endpoint' in first ? first.endpoint : undefined;
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
