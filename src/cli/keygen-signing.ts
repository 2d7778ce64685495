import { generateSigningKeys } from '../signing.ts';

/** Ed25519, for the manifests of backups and, another pair, for the proofs of restore tests. */
export function signingKeys(): { readonly document: Readonly<Record<string, string>>; readonly text: string } {
  const { id, privateKey, publicKey } = generateSigningKeys();
  return {
    document: { kind: 'signing', keyId: id, privateKey, publicKey },
    text: [
      `an Ed25519 pair, key id ${id}`,
      '',
      'The private half signs. Store it as a secret that only the job which takes backups can read (BACKUP_SIGNING_KEY,',
      'for instance), hand it over as signing-key, and keep no other copy: when it is lost, a new pair does as well.',
      '',
      privateKey,
      'The public half is no secret. Give it as verify-key to every action and command that reads backups, out of the',
      'workflow file or a variable of the repository, and keep a copy where you would look in an emergency. Never take',
      'it from the store: whoever can write there could put another one in its place.',
      '',
      publicKey,
      'For the proofs of restore tests make a second pair: its private half is proof-key, its public half',
      'proof-verify-key. docs/signing.md tells how to change keys.',
    ].join('\n'),
  };
}
