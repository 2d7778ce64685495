import { findGaps } from '../chain.ts';
import { Inputs } from '../inputs.ts';
import { tellGaps } from '../locate.ts';
import { formatBytes, formatCount } from '../numbers.ts';
import { shortKeyId } from '../signing.ts';
import { verify } from '../verify.ts';
import { answer, type Command } from './command.ts';
import { backupArgument, openBackup, programFlags, readFlags, readPrograms, storeFlags } from './shared-flags.ts';

export const verifyCommand: Command = {
  name: 'verify',
  summary: 'Reads a backup back, every byte: checksums, pg_restore to the end, rows and sequences against the census.',
  argument: backupArgument,
  flags: [...storeFlags, ...readFlags, ...programFlags],
  async run(terminal) {
    const inputs = new Inputs(terminal.flags.read);
    const programs = readPrograms(inputs);
    inputs.finish();
    const { store, backup, catalog } = await openBackup(terminal);
    const gaps = findGaps(catalog).filter((each) => each.id === backup.manifest.id);
    tellGaps(gaps, terminal.log);
    const { manifest, census, bytes } = await verify(store, backup, programs, terminal.machine, terminal);
    answer(
      terminal,
      {
        id: manifest.id,
        name: manifest.name,
        verified: true,
        signedBy: backup.signedBy ?? null,
        bytes,
        tables: census.tables.length,
        rows: manifest.totals.rows,
      },
      `${manifest.name}/${manifest.id} is whole: ${formatBytes(bytes)} read back, ${formatCount(census.tables.length, 'table')}, ${formatCount(manifest.totals.rows, 'row')}, every checksum and count as recorded${backup.signedBy === undefined ? '' : `, signed by key ${shortKeyId(backup.signedBy)}`}`,
    );
  },
};
