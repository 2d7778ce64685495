import type { Encryption, Keys } from './age.ts';
import type { Log } from './log.ts';
import type { Machine, ProgramChoice } from './machine.ts';
import type { Manifest, Source as RunSource } from './manifest.ts';
import type { Wanted } from './postgres/archive-selection.ts';
import type { OwnerChoice } from './postgres/restore.ts';
import type { ConnectionTarget } from './postgres/url.ts';
import type { SigningKey } from './signing.ts';
import type { StoreChoice } from './store/open.ts';
import type { Trust } from './trust.ts';
import type { Recorded } from './verdict.ts';

export interface RestoreConfig extends ProgramChoice {
  readonly target: ConnectionTarget;
  /** A backup that is older is refused. */
  readonly maxAgeMs: number | undefined;
  /** Both empty: the whole backup. */
  readonly wanted: Wanted;
  readonly mode: 'full' | 'schema-only' | 'data-only';
  /** What the target has of it is dropped first; with `data-only`, its rows. */
  readonly clean: boolean;
  /** The user has typed the target database's name. */
  readonly confirmed: boolean;
  /** Of a target that loses something, before it does. */
  readonly safetyBackup: boolean;
  /** To whom that backup is encrypted. */
  readonly encryption: Encryption | undefined;
  /** What there is to open the restored one with. */
  readonly keys: Keys;
  /** Where that backup goes: the store that is restored from. */
  readonly store: StoreChoice;
  /** Signs it. */
  readonly signing: SigningKey | undefined;
  /** Which backups count. */
  readonly trust: Trust;
  readonly stallMs: number;
  readonly source: RunSource | null;
  /** Who started it, for the record of it. */
  readonly actor: string;
  /** A pg_restore with a known hole may be used without a warning. */
  readonly acceptClientRisk: boolean;
  readonly jobs: number;
  readonly owners: OwnerChoice;
  /** For all attempts together. */
  readonly timeoutMs: number;
  readonly retries: number;
  readonly machine: Machine;
}

export interface Restored {
  readonly manifest: Manifest;
  readonly tables: number;
  readonly rows: number;
  /** Each table as recorded and as found in the target, both by the server's own count. */
  readonly compared: readonly Recorded[];
  /** Tables that the server would not let this role count: `found` is undefined for them. */
  readonly uncounted: number;
  readonly seconds: number;
  readonly createdDatabase: boolean;
  readonly createdRoles: readonly string[];
  /** The backup of the target that was taken first. */
  readonly safetyBackup: Manifest | undefined;
}

export interface RestoreIo {
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Called with the id of the safety backup before anything is written under it. */
  readonly began?: (id: string) => void;
  /** Called when it is stored. */
  readonly safe?: (id: string) => void;
}
