import { backup } from './backup.ts';
import { safetyLabel } from './backup-id.ts';
import { Failure } from './failure.ts';
import type { Log } from './log.ts';
import type { Machine, ProgramChoice } from './machine.ts';
import type { Manifest, Source } from './manifest.ts';
import { displayWord } from './postgres/names.ts';
import type { ConnectionTarget } from './postgres/url.ts';
import { release } from './release.ts';
import type { StoreChoice } from './store/open.ts';

export interface SafetyRequest extends ProgramChoice {
  readonly target: ConnectionTarget;
  readonly store: StoreChoice;
  /** The name under which it is kept, that of the backup that is restored. */
  readonly name: string;
  readonly timeoutMs: number;
  readonly stallMs: number;
  readonly source: Source | null;
  readonly machine: Machine;
}

/**
 * Takes a whole backup of a database that is about to be changed. Its label keeps it from being picked as the latest one,
 * and from telling the next backup of that name which database it should be of. Throws a `Failure`.
 */
export async function takeSafetyBackup(
  request: SafetyRequest,
  io: { readonly log: Log; readonly signal: AbortSignal; readonly began?: ((id: string) => void) | undefined },
): Promise<Manifest> {
  const { began, ...rest } = io;
  try {
    const result = await backup(
      {
        ...request,
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
    return result.manifest;
  } catch (error) {
    if (!(error instanceof Failure) || error.exit === 'cancelled') throw error;
    const name = displayWord(request.target.database);
    throw new Failure(error.stage, error.exit, `the safety backup of ${name} failed: ${error.message}`, {
      hint: `${error.hint === undefined ? '' : `${error.hint}\n`}${name} was not changed; safety-backup: false goes on without one`,
      cause: error,
    });
  }
}
