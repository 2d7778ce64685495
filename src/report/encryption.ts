import { encryptionOf, type Manifest, shortRecipient } from '../manifest.ts';
import { formatCount } from '../numbers.ts';

/** `to 2 recipients: age1…, age1…`; `no` where it is not encrypted. */
export function describeEncryption(manifest: Manifest): string {
  const encryption = encryptionOf(manifest);
  if (encryption === null) return 'no';
  if (encryption.type === 'age-passphrase') return 'with a passphrase';
  const { recipients } = encryption;
  return `to ${formatCount(recipients.length, 'recipient')}: ${recipients.map(shortRecipient).join(', ')}`;
}

/** `Encrypted to 2 recipients`, the beginning of a sentence. */
export function encryptionWords(manifest: Manifest): string {
  const encryption = encryptionOf(manifest);
  if (encryption === null) return 'Not encrypted';
  if (encryption.type === 'age-passphrase') return 'Encrypted with a passphrase';
  return `Encrypted to ${formatCount(encryption.recipients.length, 'recipient')}`;
}

/** What a command that reads the backup needs besides, with a space before it; nothing where it is not encrypted. */
export function keyFlag(manifest: Manifest): string {
  const encryption = encryptionOf(manifest);
  if (encryption === null) return '';
  return encryption.type === 'age' ? ' --decrypt-identity-file key.txt' : ' --decrypt-passphrase-file passphrase.txt';
}
