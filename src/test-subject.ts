import type { FileHandle } from 'node:fs/promises';
import type { Keys } from './age.ts';
import type { Backup } from './catalog.ts';
import { checkedArchive } from './checked-archive.ts';
import { type Census, encryptionOf, fileNames, type Manifest, plainName } from './manifest.ts';
import type { Toc } from './postgres/archive-toc.ts';
import type { Script } from './postgres/script-restore.ts';
import { type Proof, withoutNames } from './proof.ts';
import { writeProof } from './proofs.ts';
import type { SigningKey } from './signing.ts';
import type { Store } from './store/store.ts';
import { readSmall, requireKeys } from './stored-files.ts';
import { readCensus } from './verify.ts';

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
  /** Whose identity opened it, or `passphrase`; null where it is not encrypted. */
  readonly recipient: string | null;
  /** False for an archive of one file whose parts cannot be read side by side. */
  readonly parallel: boolean;
  /** Tables (`nameKey`) that may come to hold fewer rows than were counted: their INSERTs say ON CONFLICT. */
  readonly mayLack?: ReadonlySet<string>;
  /** It is no archive at all: statements, and no table of contents to compare. */
  readonly script?: Script;
}

/** A backup in a store; its proof is written beside it. Throws a `Failure` (exit 41) when there is no key to open it with. */
export function storedSubject(store: Store, backup: Backup, keys: Keys): TestSubject {
  const { manifest, manifestSha256 } = backup;
  requireKeys(manifest, keys);
  const from = { store, manifest, keys };
  return {
    manifest,
    manifestSha256,
    census: () => readCensus(from),
    roles: async () => {
      if (!manifest.files.some((file) => plainName(file) === fileNames.roles)) return undefined;
      return (await readSmall(from, fileNames.roles)).toString('utf8');
    },
    archive: async (folder, signal) => ({
      ...(await checkedArchive(from, folder, signal)),
      parallel: true,
    }),
    now: () => store.now(),
    keep: (proof, key) => writeProof(store, encryptionOf(manifest) === null ? proof : withoutNames(proof), key),
  };
}
