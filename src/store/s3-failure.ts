import { type ExitName, Failure, type Stage } from '../failure.ts';
import type { S3Options } from './s3-address.ts';

/** What we were doing, and the permission that it takes. */
export interface S3Action {
  readonly stage: Stage;
  /** `write`, as in "may not write database.dump". */
  readonly verb: string;
  /** `s3:PutObject` */
  readonly permission: string;
  /** The key, or a prefix; undefined for the bucket as a whole. */
  readonly key: string | undefined;
}

export interface S3Place {
  readonly bucket: string;
  readonly options: Pick<S3Options, 'endpoint' | 'region' | 'role' | 'credentials' | 'storageClass' | 'encryption'>;
}

interface Facts {
  readonly name: string;
  readonly status: number | undefined;
  readonly code: string | undefined;
  readonly headers: Readonly<Record<string, string>>;
}

/** What the SDK throws, reduced to what is safe to repeat: the server's own message may hold anything. */
export function factsOf(error: unknown): Facts {
  const { name, code, cause, $metadata, $response } = (error ?? {}) as {
    name?: unknown;
    code?: unknown;
    cause?: { code?: unknown };
    $metadata?: { httpStatusCode?: number };
    $response?: { headers?: Record<string, string>; statusCode?: number };
  };
  return {
    name: typeof name === 'string' && /^[A-Za-z][A-Za-z.]{0,63}$/.test(name) ? name : 'UnknownError',
    status: $metadata?.httpStatusCode ?? $response?.statusCode,
    code: [code, cause?.code].find((each): each is string => typeof each === 'string'),
    headers: $response?.headers ?? {},
  };
}

const unreachable = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EPIPE',
  'ETIMEDOUT',
  'UND_ERR_SOCKET',
]);
const certificate = /^(?:CERT_|ERR_TLS_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|HOSTNAME_MISMATCH|ERR_SSL_)/;
const expiredSession = new Set(['ExpiredToken', 'ExpiredTokenException', 'TokenRefreshRequired']);
const expired = new Set([...expiredSession, 'RequestExpired']);
const full = new Set(['QuotaExceeded', 'XMinioStorageFull', 'InsufficientStorage', 'NotEnoughStorage', 'StorageFull']);

/** One sentence and one hint for whatever went wrong with a store. */
export function s3Failure(error: unknown, place: S3Place, action: S3Action): Failure {
  // A role that cannot be assumed does not know for what.
  if (error instanceof Failure)
    return new Failure(action.stage, error.exit, error.message, {
      hint: error.hint,
      cause: error.cause,
      transient: error.transient,
    });
  const { bucket, options } = place;
  const { name, status, code, headers } = factsOf(error);
  const where = options.endpoint ?? `AWS S3 in ${options.region}`;
  const what = action.key === undefined ? `the bucket ${bucket}` : `s3://${bucket}/${action.key}`;
  const fail = (exit: ExitName, message: string, hint: string, transient = false): Failure =>
    new Failure(action.stage, exit, message, { hint, cause: error, transient });

  if (name === 'CredentialsProviderError' || name === 'CredentialIsNotSet')
    return fail(
      'storeCredentials',
      options.role === undefined
        ? 'there are no credentials for the store'
        : `the role ${options.role.arn} could not be assumed`,
      options.role === undefined
        ? 'give s3-access-key-id and s3-secret-access-key, or aws-role-arn, or configure them as for the AWS command line'
        : 'check the role\'s trust policy (its condition on sub must match this repository, branch or environment), and that the job has "permissions: id-token: write"',
    );
  if (name === 'InvalidAccessKeyId')
    return fail(
      'storeCredentials',
      `${where} does not know this access key id`,
      options.encryption?.kmsKeyId === undefined
        ? 'copy it again; a key of another provider or account looks the same'
        : 'copy it again; or, on Ceph, correct s3-sse-kms-key-id, of which it says the same',
    );
  if (name === 'SignatureDoesNotMatch')
    return fail(
      'storeCredentials',
      'the secret access key does not belong to this access key id',
      'copy it again, whole and without spaces',
    );
  if (name === 'InvalidToken')
    return fail(
      'storeCredentials',
      'the session token does not belong to these keys',
      'give all three of one session: s3-access-key-id, s3-secret-access-key, s3-session-token',
    );
  if (expired.has(name))
    return fail(
      'storeCredentials',
      'the session token of the store has expired',
      options.role === undefined
        ? 'use aws-role-arn, which is refreshed while a backup runs, or ask for a longer session (role-duration-seconds)'
        : 'so has the new session that was asked for at once: compare the clocks of this machine and of the store',
    );
  if (name === 'RequestTimeTooSkewed')
    return fail(
      'store',
      "this machine's clock and the store's are more than 15 minutes apart",
      "set this machine's clock",
    );
  if (name === 'NoSuchBucket')
    return fail(
      'store',
      `there is no bucket ${bucket} at ${where}`,
      'create it, or check store, s3-endpoint and s3-region',
    );
  if (status === 301 || status === 307 || name === 'PermanentRedirect' || name === 'AuthorizationHeaderMalformed') {
    const region = headers['x-amz-bucket-region'];
    const known = region !== undefined && /^[a-z0-9-]{1,32}$/.test(region) ? region : undefined;
    return fail(
      'store',
      `the bucket ${bucket} is not in ${options.region}`,
      known === undefined ? "set s3-region to the bucket's region" : `set s3-region: ${known}`,
    );
  }
  if (name === 'InvalidStorageClass')
    return fail('badInput', `the store has no storage class ${options.storageClass}`, 'correct s3-storage-class');
  if (name.startsWith('KMS.') || name.startsWith('KMSKey'))
    return fail(
      'storeCredentials',
      `the store may not use the KMS key (${name})`,
      'check s3-sse-kms-key-id, and that these credentials may use the key: kms:GenerateDataKey, kms:Decrypt',
    );
  if (status === 412 || name === 'PreconditionFailed')
    return fail(
      'exists',
      `${what} is already there and is never overwritten`,
      'another run wrote it; run the backup again',
    );
  if (status === 409)
    return fail('store', `another writer was at ${what} at the same moment (${name})`, 'run it again', true);
  if (full.has(name) || status === 507)
    return fail('disk', `the store has no space left (${name})`, 'raise its quota or remove old backups');
  if (status === 403 || status === 401)
    return fail(
      'storeCredentials',
      `these credentials may not ${action.verb} ${what}`,
      `allow ${action.permission} on arn:aws:s3:::${bucket}${action.key === undefined ? '' : `/${action.key}`}`,
    );
  if (code !== undefined && certificate.test(code))
    return fail(
      'store',
      `${where} could not prove who it is (${code})`,
      'its certificate must be valid for that host and signed by an authority this machine knows (NODE_EXTRA_CA_CERTS names a file with others)',
    );
  if (name === 'TimeoutError' || name === 'RequestTimeout' || (code !== undefined && unreachable.has(code)))
    return fail(
      'store',
      `${where} could not be reached to ${action.verb} ${what} (${code ?? 'no answer in time'})`,
      'check s3-endpoint and the network between here and there',
      true,
    );
  if (status === 429 || status === 503 || name === 'SlowDown')
    return fail('store', `the store kept asking to slow down (${name})`, 'run it again later', true);
  if (status !== undefined && status >= 500 && status !== 501)
    return fail('store', `the store failed to ${action.verb} ${what} (${status} ${name})`, 'run it again later', true);
  // Some say no more than InvalidArgument about a class, a kind of encryption or a key that they do not have.
  const asked = [
    options.storageClass === undefined ? [] : 's3-storage-class',
    options.encryption === undefined ? [] : 's3-sse',
    options.encryption?.kmsKeyId === undefined ? [] : 's3-sse-kms-key-id',
  ].flat();
  const suspects = status === 400 && asked.length > 0 ? `it may not have what ${asked.join(', ')} asked for; ` : '';
  return fail(
    'store',
    `the store refused to ${action.verb} ${what} (${[status, name, code].filter((each) => each !== undefined).join(' ')})`,
    `${suspects}docs/stores.md says what each provider supports`,
  );
}

/** Another session may do what this one was refused. The answer to a HEAD has no body that could say so. */
export function isExpiredSession(error: unknown, command: string | undefined): boolean {
  const { name, status } = factsOf(error);
  return expiredSession.has(name) || (status === 400 && command?.startsWith('Head') === true);
}

/** A server that does not know the header, rather than one that judged it. */
export function isNotSupported(error: unknown): boolean {
  const { name, status } = factsOf(error);
  return (
    status === 501 ||
    (status === 400 && /^(?:NotImplemented|InvalidArgument|InvalidRequest|XNotImplemented)$/.test(name))
  );
}

export function isMissing(error: unknown): boolean {
  const { name, status } = factsOf(error);
  return (
    name !== 'NoSuchBucket' &&
    (name === 'NoSuchKey' || name === 'NotFound' || name === 'NoSuchVersion' || status === 404)
  );
}
