import { idPattern } from './backup-id.ts';
import { JsonCheck, parseJsonObject } from './manifest.ts';
import type { Finding } from './verdict.ts';

/** What `proofs/<time>.json` beside a backup says: what a restore test of it found. Times are ISO 8601 in UTC. */
export interface Proof {
  readonly format: 'pgassay-proof/1';
  readonly backupId: string;
  readonly name: string;
  /** Of the manifest's exact bytes: the proof is of this backup and no other. */
  readonly manifestSha256: string;
  readonly testedAt: string;
  readonly result: 'passed' | 'failed';
  /** How much was compared: `content` every value by digest, `rows` every table's rows, `schema` definitions only. */
  readonly level: Level;
  readonly findings: readonly Finding[];
  /** Findings that were too many to be kept, or that name what an encrypted backup keeps secret. */
  readonly findingsLeftOut: number;
  /** What was not restored, because it would have reached out of the scratch server. */
  readonly leftOut: readonly string[];
  readonly notes: readonly string[];
  /** Seconds, by phase; `restore` is pg_restore alone, `total` everything. */
  readonly timings: Readonly<Record<string, number>>;
  /** The limit that was asked for, seconds. */
  readonly maxRestoreSeconds: number | null;
  /** The PostgreSQL version that it was restored into. */
  readonly server: string;
  /** Whose identity opened it, or `passphrase`; null where it is not encrypted, or where none did. */
  readonly recipient: string | null;
  readonly tools: { readonly pgRestore: string; readonly pgassay: string };
  /** The run on GitHub that tested it; null elsewhere. */
  readonly runUrl: string | null;
}

export type Level = 'content' | 'rows' | 'schema';

/** What recovery took: to get the archive, and to restore it. */
export function restoreSeconds(timings: Proof['timings']): number {
  return Math.round(((timings.download ?? 0) + (timings.restore ?? 0)) * 10) / 10;
}

/** `proofs/20261121T020004Z.json` */
export function proofName(testedAt: Date): string {
  return `proofs/${testedAt
    .toISOString()
    .replace(/[-:]/g, '')
    .replace(/\.\d+Z$/, 'Z')}.json`;
}

/** A proof's path within its backup's folder, and nothing else that may lie there. */
export const proofPattern = /^proofs\/\d{8}T\d{6}Z(?:-\d+)?\.json$/;

/** An old proof under a newer name is not a newer proof. */
export function isNamedAfter(file: string, at: string): boolean {
  return file.replace(/-\d+\.json$/, '.json') === proofName(new Date(at));
}

/** What may lie in plain text beside an encrypted backup: the verdict, and no name of anything in it. */
export function withoutNames(proof: Proof): Proof {
  const findingsLeftOut = proof.findingsLeftOut + proof.findings.length;
  return { ...proof, findings: [], findingsLeftOut, leftOut: [], notes: [] };
}

/** How many there were, kept or not. */
export function countFindings({ findings, findingsLeftOut }: Proof): number {
  return findings.length + findingsLeftOut;
}

const mostFindings = 1000;

/** A file that is larger is no proof. Bytes. */
export const largestProof = 1024 * 1024;

/** The bytes to store, no more than {@link largestProof}: of what would be more, the verdict. */
export function serializeProof(proof: Proof): Buffer {
  const findings = proof.findings.slice(0, mostFindings);
  const findingsLeftOut = proof.findingsLeftOut + proof.findings.length - findings.length;
  const bytes = Buffer.from(`${JSON.stringify({ ...proof, findings, findingsLeftOut }, null, 2)}\n`);
  return bytes.length > largestProof ? serializeProof(withoutNames(proof)) : bytes;
}

/** Parses and checks a proof. Throws {@link UnreadableDocument}. */
export function parseProof(bytes: Buffer): Proof {
  const value = parseJsonObject(bytes, 'the proof');
  const check = new JsonCheck(value, 'the proof');
  check.text('format', /^pgassay-proof\/1$/);
  check.text('backupId', idPattern);
  for (const key of ['name', 'server']) check.text(key);
  check.text('manifestSha256', /^[0-9a-f]{64}$/);
  check.time('testedAt');
  check.text('result', /^(?:passed|failed)$/);
  check.text('level', /^(?:content|rows|schema)$/);
  for (const finding of check.list('findings')) for (const key of ['object', 'expected', 'found']) finding.text(key);
  check.count('findingsLeftOut');
  for (const key of ['leftOut', 'notes']) check.texts(key);
  check.numbers('timings');
  return value as unknown as Proof;
}
