import type { FileHandle } from 'node:fs/promises';
import type { Backup } from './catalog.ts';
import { checkedArchive } from './checked-archive.ts';
import { type Census, fileNames, type Manifest } from './manifest.ts';
import type { Toc } from './postgres/archive-toc.ts';
import type { Script } from './postgres/script-restore.ts';
import type { Proof } from './proof.ts';
import { writeProof } from './proofs.ts';
import type { SigningKey } from './signing.ts';
import type { Store } from './store/store.ts';
import { readCensus, readSmall } from './verify.ts';

/** What is tested: a stored backup, or a dump that somebody has. */
export interface TestSubject {
  readonly manifest: Manifest;
  readonly manifestSha256: string;
  /** Throws a `Failure` (exit 40) when it is not what was written. */
  census(): Promise<Census>;
  /** The source's `roles.sql`, where there is one. The same. */
  roles(): Promise<string | undefined>;
  /** Every byte of it read and checked; a copy, where one is needed, goes into the private `folder`. The same. */
  archive(folder: string, signal: AbortSignal): Promise<TestArchive>;
  now(): Promise<Date>;
  /** Writes the proof, signed where there is a key; returns its address, undefined where it is not to be kept. Throws a `Failure`. */
  keep(proof: Proof, key: SigningKey | undefined): Promise<string | undefined>;
}

/** An archive that pg_restore can open: a descriptor, where what was checked must be what is read, or a path. */
export interface TestArchive {
  readonly file: FileHandle | undefined;
  readonly path: string | undefined;
  readonly toc: Toc;
  /** False for an archive of one file whose parts cannot be read side by side. */
  readonly parallel: boolean;
  /** Tables (`nameKey`) that may come to hold fewer rows than were counted: their INSERTs say ON CONFLICT. */
  readonly mayLack?: ReadonlySet<string>;
  /** It is no archive at all: statements, and no table of contents to compare. */
  readonly script?: Script;
}

/** A backup in a store; its proof is written beside it. */
export function storedSubject(store: Store, backup: Backup): TestSubject {
  const { manifest, manifestSha256 } = backup;
  return {
    manifest,
    manifestSha256,
    census: () => readCensus(store, manifest),
    roles: async () => {
      if (!manifest.files.some((file) => file.name === fileNames.roles)) return undefined;
      return (await readSmall(store, manifest, fileNames.roles)).toString('utf8');
    },
    archive: async (folder, signal) => ({
      ...(await checkedArchive(store, manifest, folder, signal)),
      parallel: true,
    }),
    now: () => store.now(),
    keep: (proof, key) => writeProof(store, proof, key),
  };
}
