import { idPattern } from './backup-id.ts';
import { JsonCheck, parseJsonObject } from './manifest.ts';
import type { Proof } from './proof.ts';

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

/** A key that opened a backup, in a restore test that passed or for `verify --sign-proof`. */
export interface KeyUse {
  readonly backupId: string;
  /** Whose identity it was, or `passphrase`. */
  readonly recipient: string;
  /** ISO 8601 in UTC. */
  readonly at: string;
}

/** What a file under `proofs/` tells of a key; undefined where it tells of none. */
export function keyUseOf(said: Proof | Opening): KeyUse | undefined {
  const { backupId, recipient } = said;
  if (said.format === 'pgassay-opening/1') return { backupId, recipient: said.recipient, at: said.openedAt };
  return said.result === 'passed' && recipient !== null ? { backupId, recipient, at: said.testedAt } : undefined;
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
