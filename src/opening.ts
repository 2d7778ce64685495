import { idPattern } from './backup-id.ts';
import { JsonCheck, parseJsonObject } from './manifest.ts';

/**
 * What `proofs/<time>.json` beside an encrypted backup may say instead of a restore test's verdict: which key opened it
 * and read it to its end. Times are ISO 8601 in UTC.
 */
export interface Opening {
  readonly format: 'pgassay-opening/1';
  readonly backupId: string;
  readonly name: string;
  /** Of the manifest's exact bytes: the record is of this backup and no other. */
  readonly manifestSha256: string;
  readonly openedAt: string;
  /** Whose identity opened it, or `passphrase`. */
  readonly recipient: string;
  /** Stored bytes that were read and decrypted, all files together. */
  readonly bytes: number;
  readonly tools: { readonly pgassay: string };
  /** The run on GitHub that did it; null elsewhere. */
  readonly runUrl: string | null;
}

/** The bytes to store. */
export function serializeOpening(opening: Opening): Buffer {
  return Buffer.from(`${JSON.stringify(opening, null, 2)}\n`);
}

/** Parses and checks one. Throws {@link UnreadableDocument}. */
export function parseOpening(bytes: Buffer): Opening {
  const value = parseJsonObject(bytes, 'the record');
  const check = new JsonCheck(value, 'the record');
  check.text('format', /^pgassay-opening\/1$/);
  check.text('backupId', idPattern);
  check.text('name');
  check.text('manifestSha256', /^[0-9a-f]{64}$/);
  check.time('openedAt');
  check.text('recipient', /^(?:age1[0-9a-z]{8,4000}|passphrase)$/);
  check.count('bytes');
  check.object('tools').text('pgassay');
  if (!check.isNull('runUrl')) check.text('runUrl');
  return value as unknown as Opening;
}
