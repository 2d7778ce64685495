import type { Keys } from '../age.ts';
import { type Backup, type Catalog, parseSelector, readCatalog, requireName } from '../catalog.ts';
import { encryptionSecrets, readKeys } from '../encryption-inputs.ts';
import { artifactPlaceOf, identityOf, inputsOf } from '../environment.ts';
import type { Problem } from '../failure.ts';
import { Inputs } from '../inputs.ts';
import { locate } from '../locate.ts';
import type { ProgramChoice } from '../machine.ts';
import { hideKeys, readTrust } from '../signing-inputs.ts';
import type { ArtifactPlace } from '../store/artifact-place.ts';
import { openStore } from '../store/open.ts';
import type { Store } from '../store/store.ts';
import { readStore, storeSecrets } from '../store-inputs.ts';
import type { Trust } from '../trust.ts';
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
    name: 'verify-key',
    value: 'FILE',
    help: 'Ed25519 public keys in PEM: a backup that none of them signed does not count',
    refuseEmpty: true,
  },
  {
    name: 'github-token',
    help: 'reads the artifacts of GITHUB_REPOSITORY, for --store artifact (or GITHUB_TOKEN)',
    secret: { variable: 'PGASSAY_GITHUB_TOKEN', also: 'GITHUB_TOKEN' },
  },
];

/** For those who only read. */
export const readFlags: readonly Flag[] = [
  {
    name: 'accept-moved',
    help: 'with --verify-key: signed backups that were copied here from another store count too',
  },
];

export const proofVerifyFlag: Flag = {
  name: 'proof-verify-key',
  value: 'FILE',
  help: 'Ed25519 public keys in PEM: a restore test that none of them signed does not count',
  refuseEmpty: true,
};

/** By what `health` and the page judge. */
export const judgementFlags: readonly Flag[] = [
  { name: 'warn-after', value: 'TIME', help: 'a newest backup that is older is a warning (default 26h)' },
  { name: 'critical-after', value: 'TIME', help: 'and one that is older than this is critical (default 30h)' },
  { name: 'min-backups', value: 'N', help: 'fewer are critical' },
  { name: 'max-shrink', value: 'N%', help: 'how much smaller than usual the newest may be (default 50%)' },
  { name: 'max-proof-age', value: 'TIME', help: 'how long ago a restore test may have passed' },
  proofVerifyFlag,
  {
    name: 'max-recovery-key-age',
    value: 'TIME',
    help: 'how long ago each key of the newest backup may have opened one',
  },
];

export const proofKeyFlag: Flag = {
  name: 'proof-key',
  help: 'an Ed25519 private key in PEM, which signs the proof; not the one that signs backups',
  secret: { variable: 'PGASSAY_PROOF_KEY' },
};

export const signingFlag: Flag = {
  name: 'signing-key',
  help: 'an Ed25519 private key in PEM, which signs the backup',
  secret: { variable: 'PGASSAY_SIGNING_KEY' },
};

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

/** To whom a backup is encrypted. */
export const encryptFlags: readonly Flag[] = [
  { name: 'encrypt-to', value: 'RECIPIENT', many: true, help: 'an age recipient, age1… (repeat the flag for more)' },
  {
    name: 'encrypt-passphrase',
    help: 'instead of recipients: a passphrase, 16 characters or more',
    secret: { variable: 'PGASSAY_ENCRYPT_PASSPHRASE' },
  },
];

/** What opens an encrypted backup. */
export const decryptFlags: readonly Flag[] = [
  {
    name: 'decrypt-identity',
    help: 'secret keys of age that open an encrypted backup, AGE-SECRET-KEY-…, one a line',
    secret: { variable: 'PGASSAY_DECRYPT_IDENTITY' },
  },
  {
    name: 'decrypt-passphrase',
    help: 'the passphrase that it was encrypted with',
    secret: { variable: 'PGASSAY_DECRYPT_PASSPHRASE' },
  },
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
  hideKeys(flags.read, secrets);
  for (const secret of encryptionSecrets(flags.read)) secrets.add(secret);
}

/** What opens the backup, where the command has the flags for it. Hides it before anything is printed. */
export function readKeyFlags(terminal: Terminal): Keys {
  hideStoreSecrets(terminal);
  const inputs = new Inputs(terminal.flags.read);
  const keys = readKeys(inputs);
  inputs.finish();
  return keys;
}

/** Whose artifacts `--store artifact` means. GitHub's client prints to the standard output, which is ours: none are added. */
export function placeOf({ variables, machine }: Terminal): ArtifactPlace | undefined {
  const place = artifactPlaceOf(variables, machine.temporary);
  return place && { ...place, writable: false };
}

interface Opened {
  readonly store: Store;
  readonly name: string | undefined;
  readonly trust: Trust;
}

/** The store the flags name, the name they give, whether it is there or not, and which backups count. */
export function openNamed(terminal: Terminal, known: readonly Problem[] = []): Opened {
  hideStoreSecrets(terminal);
  const inputs = inputsOf(terminal.flags.read);
  inputs.add(known);
  const choice = readStore(inputs, identityOf(terminal.variables), placeOf(terminal));
  const trust = readTrust(inputs);
  inputs.finish();
  return { store: openStore(choice, { signal: terminal.signal }), name: inputs.optional('name'), trust };
}

/** The store the flags name, and everything in it that they let in. */
export async function openCatalog(terminal: Terminal): Promise<{ store: Store; catalog: Catalog }> {
  const { store, name: wanted, trust } = openNamed(terminal);
  const name = wanted === undefined ? undefined : await requireName(store, wanted);
  return { store, catalog: await readCatalog(store, trust, name) };
}

/** The one backup the flags and the argument name, and everything beside it. */
export async function openBackup(terminal: Terminal): Promise<{ store: Store; backup: Backup; catalog: Catalog }> {
  const parsed = parseSelector(terminal.flags.argument ?? 'latest');
  const known = 'problem' in parsed ? [{ input: 'backup', message: parsed.problem }] : [];
  const { store, name, trust } = openNamed(terminal, known);
  if ('problem' in parsed) throw new Error('a selector with a problem that nobody told');
  const { backup, catalog } = await locate(store, { name, selector: parsed.selector, trust }, terminal.log);
  return { store, backup, catalog };
}
