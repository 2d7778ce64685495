import type { Encryption } from './age.ts';
import { backup } from './backup.ts';
import { safetyLabel } from './backup-id.ts';
import type { Backup } from './catalog.ts';
import { Failure } from './failure.ts';
import type { Log } from './log.ts';
import type { Machine, ProgramChoice } from './machine.ts';
import { encryptionOf, type Manifest, type Source } from './manifest.ts';
import { formatCount } from './numbers.ts';
import { displayWord } from './postgres/names.ts';
import type { ConnectionTarget } from './postgres/url.ts';
import { release } from './release.ts';
import type { SigningKey } from './signing.ts';
import type { StoreChoice } from './store/open.ts';
import type { Trust } from './trust.ts';

export interface SafetyRequest extends ProgramChoice {
  readonly target: ConnectionTarget;
  readonly store: StoreChoice;
  /** The name under which it is kept, that of the backup that is restored. */
  readonly name: string;
  readonly signing: SigningKey | undefined;
  readonly trust: Trust;
  readonly encryption: Encryption | undefined;
  readonly timeoutMs: number;
  readonly stallMs: number;
  readonly source: Source | null;
  readonly machine: Machine;
}

/** What protects the backup that is restored has to protect the one of what was there. Throws a `Failure` (exit 2). */
export function requireSafetyKeys(
  { manifest, signedBy }: Backup,
  given: Pick<SafetyRequest, 'encryption' | 'signing'>,
): void {
  const { name, id, signing } = manifest;
  if (encryptionOf(manifest) !== null && given.encryption === undefined)
    throw new Failure(
      'input',
      'badInput',
      `${name}/${id} is encrypted, and the safety backup of the target would not be`,
      {
        hint: 'give encrypt-to (or encrypt-passphrase), as the backup job does; safety-backup: false goes on without one',
      },
    );
  if ((signing === null && signedBy === undefined) || given.signing !== undefined) return;
  throw new Failure(
    'input',
    'badInput',
    `signing-key: ${name}/${id} is signed, and the safety backup beside it would not be: whoever asks for signatures could not restore it`,
    { hint: 'give signing-key here too, or say safety-backup: false to go on without a safety backup' },
  );
}

/**
 * Takes a whole backup of a database that is about to be changed. Its label keeps it from being picked as the latest one,
 * and from telling the next backup of that name which database it should be of. Throws a `Failure`.
 */
export async function takeSafetyBackup(
  request: SafetyRequest,
  io: {
    readonly log: Log;
    readonly signal: AbortSignal;
    /** Called with its id before anything is written under it, and when it is stored. */
    readonly began?: ((id: string) => void) | undefined;
    readonly safe?: ((id: string) => void) | undefined;
  },
): Promise<Manifest> {
  const { began, safe, ...rest } = io;
  const { name, target } = request;
  io.log.info(`a safety backup of ${displayWord(target.database)} first, under ${name} with the label ${safetyLabel}`);
  try {
    const result = await backup(
      {
        ...request,
        stores: [request.store],
        label: safetyLabel,
        scope: { mode: 'full', schemas: [], excludeSchemas: [], tables: [], excludeTables: [], excludeTableData: [] },
        roles: true,
        compression: 'auto',
        census: 'rows',
        // Whatever the target holds is to be kept, whichever database it is.
        allowEmpty: true,
        allowPooler: false,
        acceptNewDatabase: true,
        lockWaitMs: 60_000,
        onBlockedDdl: 'warn',
        maxReplicaLagMs: 60_000,
        verifyUpload: 'checksum',
        dryRun: false,
        retention: undefined,
        retries: 2,
        version: release,
      },
      { ...rest, ...(began === undefined ? {} : { began }) },
    );
    if (result.kind !== 'stored') throw new Error('a backup that is no dry run was not stored');
    const { id, totals } = result.manifest;
    safe?.(id);
    io.log.notice(
      `safety backup ${name}/${id}: ${formatCount(totals.tables, 'table')}, ${formatCount(totals.rows, 'row')}; what is written from now on is not in it`,
    );
    return result.manifest;
  } catch (error) {
    if (!(error instanceof Failure) || error.exit === 'cancelled') throw error;
    const database = displayWord(target.database);
    throw new Failure(error.stage, error.exit, `the safety backup of ${database} failed: ${error.message}`, {
      hint: `${error.hint === undefined ? '' : `${error.hint}\n`}${database} was not changed; safety-backup: false goes on without one`,
      cause: error,
    });
  }
}
