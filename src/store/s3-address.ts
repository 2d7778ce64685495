import { isIP } from 'node:net';
import { placeOf } from '../reach.ts';

/** How an S3 bucket is reached and how objects are kept in it. Every field is judged. */
export interface S3Options {
  /** `https://host[:port]`, without a path; undefined: AWS. */
  readonly endpoint: string | undefined;
  readonly region: string;
  readonly pathStyle: boolean;
  /** Undefined: the role below, else the SDK's default chain (environment, shared files, metadata services). */
  readonly credentials:
    | { readonly accessKeyId: string; readonly secretAccessKey: string; readonly sessionToken: string | undefined }
    | undefined;
  /** Assumed with GitHub's OIDC token, which `identity` tells where to ask for. */
  readonly role: { readonly arn: string; readonly identity: IdentityService | undefined } | undefined;
  readonly storageClass: string | undefined;
  readonly encryption: { readonly kind: 'AES256' | 'aws:kms'; readonly kmsKeyId: string | undefined } | undefined;
  readonly lock: { readonly mode: 'GOVERNANCE' | 'COMPLIANCE'; readonly days: number } | undefined;
  readonly checksums: 'auto' | 'when-required';
}

/** GitHub's token service, as the runner names it in ACTIONS_ID_TOKEN_REQUEST_URL and …_TOKEN. */
export interface IdentityService {
  readonly url: string;
  readonly token: string;
}

type Parsed =
  | { readonly address: { readonly kind: 's3'; readonly bucket: string; readonly prefix: string } }
  | { readonly problem: string };

/** Longest prefix: an object's key has 1,024 bytes, and name, id and file need up to 130 of them. */
const longestPrefix = 800;

/** `s3://bucket/prefix`, judged by the rules that every provider shares. */
export function parseS3Address(value: string): Parsed {
  if (!value.startsWith('s3://')) return { problem: 'is not written as an S3 address: s3://bucket/prefix' };
  if (value.startsWith('s3://arn:'))
    return { problem: 'names an ARN; give the bucket by its name: s3://bucket/prefix' };
  const [bucket = '', ...segments] = value.slice('s3://'.length).split('/');
  if (bucket === '') return { problem: 'names no bucket: s3://bucket/prefix' };
  if (/[:@]/.test(bucket))
    return {
      problem: 'has a host, a port or keys where the bucket belongs; write s3://bucket/prefix and use s3-endpoint',
    };
  if (bucket.length < 3 || bucket.length > 63 || !/^[a-z0-9][a-z0-9.-]*[a-z0-9]$/.test(bucket) || isIP(bucket) !== 0)
    return {
      problem: `has a bucket name that no provider allows: 3 to 63 lower-case letters, digits, hyphens or dots, with a letter or digit at both ends`,
    };
  const prefix = segments.join('/').replace(/\/+$/, '');
  if (/[?#]/.test(prefix)) return { problem: 'has a ? or # in its prefix' };
  // Printable ASCII without a backslash: what every provider and every shell takes.
  if (!/^[\x20-\x5b\x5d-\x7e]*$/.test(prefix))
    return { problem: 'has a character in its prefix that does not travel well; use letters, digits and - _ . /' };
  if (prefix.split('/').some((part, _, all) => part === '.' || part === '..' || (part === '' && all.length > 1)))
    return { problem: 'has an empty part, . or .. in its prefix' };
  if (prefix.length > longestPrefix) return { problem: `has a prefix of more than ${longestPrefix} characters` };
  return { address: { kind: 's3', bucket, prefix } };
}

/** `s3-endpoint`: the canonical form, or what is wrong with it. */
export function parseEndpoint(
  text: string,
  bucket: string | undefined,
): { readonly endpoint: string } | { readonly problem: string; readonly hint?: string } {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return { problem: 'is not a URL', hint: 'write https://host, without the bucket' };
  }
  if (url.protocol !== 'https:' && url.protocol !== 'http:')
    return { problem: 'has no scheme', hint: 'write https:// before it' };
  if (url.username !== '' || url.password !== '')
    return { problem: 'has keys in it', hint: 'give them in s3-access-key-id and s3-secret-access-key' };
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '')
    return {
      problem: 'has something after the host',
      hint: `the bucket belongs into store: s3://bucket/prefix; write ${url.origin} here`,
    };
  if (bucket !== undefined && url.hostname.startsWith(`${bucket}.`))
    return {
      problem: 'begins with the name of the bucket',
      hint: `write ${url.protocol}//${url.host.slice(bucket.length + 1)}`,
    };
  const place = placeOf(url.hostname);
  if (place === 'link-local')
    return { problem: 'is a link-local address, which no store has', hint: 'use the host name of the store' };
  if (url.protocol === 'http:' && place === 'public')
    return {
      problem: 'is http to a public host, where everybody on the way can read the backup',
      hint: 'use https://',
    };
  return { endpoint: url.origin };
}
