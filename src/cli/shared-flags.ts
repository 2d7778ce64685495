import { type Backup, type Catalog, parseSelector, readCatalog, requireName } from '../catalog.ts';
import { artifactPlaceOf, identityOf } from '../environment.ts';
import { Failure } from '../failure.ts';
import { Inputs } from '../inputs.ts';
import { locate } from '../locate.ts';
import type { ProgramChoice } from '../machine.ts';
import type { ArtifactPlace } from '../store/artifact-place.ts';
import { openStore } from '../store/open.ts';
import type { Store } from '../store/store.ts';
import { readStore, storeSecrets } from '../store-inputs.ts';
import type { Flag, Terminal } from './command.ts';

export const storeFlags: readonly Flag[] = [
  {
    name: 'store',
    value: 'ADDRESS',
    help: 'where backups live: s3://bucket/prefix, file:///absolute/folder or artifact',
  },
  { name: 'name', value: 'NAME', help: "which database's backups; may be left out where the store has only one" },
  { name: 's3-endpoint', value: 'URL', help: 'an S3 server other than AWS, https://host' },
  { name: 's3-region', value: 'REGION', help: "the bucket's region (default us-east-1)" },
  { name: 's3-path-style', value: 'true|false', help: 'the bucket in the path (default: true with an endpoint)' },
  {
    name: 's3-access-key-id',
    value: 'ID',
    help: 'an access key (default: what the AWS SDK finds: variables, profiles, roles)',
  },
  { name: 's3-secret-access-key', help: 'its secret', secret: { variable: 'PGASSAY_S3_SECRET_ACCESS_KEY' } },
  { name: 's3-session-token', help: 'its session token', secret: { variable: 'PGASSAY_S3_SESSION_TOKEN' } },
  { name: 'aws-role-arn', value: 'ARN', help: "a role to assume with GitHub's OIDC token, inside a workflow" },
  {
    name: 'github-token',
    help: 'reads the artifacts of GITHUB_REPOSITORY, for --store artifact (or GITHUB_TOKEN)',
    secret: { variable: 'PGASSAY_GITHUB_TOKEN', also: 'GITHUB_TOKEN' },
  },
];

/** How a backup is kept in S3. */
export const writeFlags: readonly Flag[] = [
  { name: 's3-storage-class', value: 'CLASS', help: 'STANDARD_IA, for instance' },
  { name: 's3-sse', value: 'KIND', help: 'encryption by the store: AES256 or aws:kms' },
  { name: 's3-sse-kms-key-id', value: 'ID', help: 'the key for aws:kms' },
  { name: 's3-object-lock-days', value: 'DAYS', help: 'nobody deletes it for so long (1 to 400)' },
  { name: 's3-object-lock-confirm', value: 'DAYS', help: 'the same number again, for more than 400 days' },
  { name: 's3-object-lock-mode', value: 'MODE', help: 'governance (default) or compliance' },
  {
    name: 's3-checksums',
    value: 'WHEN',
    help: 'auto (default) or when-required, for servers that refuse checksum headers',
  },
  { name: 'allow-plaintext-artifact', help: 'keep a backup in artifacts without encryption; never where all can read' },
];

export const programFlags: readonly Flag[] = [
  { name: 'client-bin', value: 'FOLDER', help: "PostgreSQL's programs, and no others" },
  { name: 'install-client', value: 'true|false', help: 'install missing programs in the cache (default true)' },
];

export const tlsFlags: readonly Flag[] = [
  { name: 'tls-ca', value: 'FILE', help: "the authority that signed the server's certificate" },
  { name: 'tls-client-cert', value: 'FILE', help: 'a certificate to log in with' },
  { name: 'tls-client-key', help: 'its private key', secret: { variable: 'PGASSAY_TLS_CLIENT_KEY' } },
];

export const backupArgument = {
  name: 'backup',
  help: 'latest, an id or its beginning, label:<label>, before:<ISO time>, or random:<duration>',
  fallback: 'latest',
};

export function readPrograms(inputs: Inputs): ProgramChoice {
  return { clientBin: inputs.optional('client-bin'), installClient: inputs.flag('install-client', true) };
}

/** Before anything is printed. */
export function hideStoreSecrets({ flags, secrets }: Terminal): void {
  for (const name of storeSecrets) {
    const value = flags.read(name)?.trim();
    if (value) secrets.add(value);
  }
}

/** Whose artifacts `--store artifact` means. GitHub's client prints to the standard output, which is ours: none are added. */
export function placeOf({ variables, machine }: Terminal): ArtifactPlace | undefined {
  const place = artifactPlaceOf(variables, machine.temporary);
  return place && { ...place, writable: false };
}

/** The store the flags name, and the name they give, whether it is there or not. */
export function openNamed(terminal: Terminal): { readonly store: Store; readonly name: string | undefined } {
  const inputs = new Inputs(terminal.flags.read);
  hideStoreSecrets(terminal);
  const choice = readStore(inputs, identityOf(terminal.variables), placeOf(terminal));
  inputs.finish();
  return { store: openStore(choice, { signal: terminal.signal }), name: inputs.optional('name') };
}

/** The store the flags name, and everything in it that they let in. */
export async function openCatalog(terminal: Terminal): Promise<{ store: Store; catalog: Catalog }> {
  const { store, name: wanted } = openNamed(terminal);
  const name = wanted === undefined ? undefined : await requireName(store, wanted);
  return { store, catalog: await readCatalog(store, name) };
}

/** The one backup the flags and the argument name. */
export async function openBackup(terminal: Terminal): Promise<{ store: Store; backup: Backup }> {
  const inputs = new Inputs(terminal.flags.read);
  hideStoreSecrets(terminal);
  const choice = readStore(inputs, identityOf(terminal.variables), placeOf(terminal));
  const parsed = parseSelector(terminal.flags.argument ?? 'latest');
  if ('problem' in parsed) inputs.problem('backup', parsed.problem);
  inputs.finish();
  if ('problem' in parsed) throw new Failure('input', 'badInput', parsed.problem);
  const store = openStore(choice, { signal: terminal.signal });
  const wanted = { name: inputs.optional('name'), selector: parsed.selector };
  const { backup } = await locate(store, wanted, terminal.log);
  return { store, backup };
}
