import { Inputs } from '../inputs.ts';
import { formatBytes, formatCount } from '../numbers.ts';
import { verify } from '../verify.ts';
import { answer, type Command } from './command.ts';
import { backupArgument, openBackup, programFlags, readPrograms, storeFlags } from './shared-flags.ts';

export const verifyCommand: Command = {
  name: 'verify',
  summary: 'Reads a backup back, every byte: checksums, pg_restore to the end, rows and sequences against the census.',
  argument: backupArgument,
  flags: [...storeFlags, ...programFlags],
  async run(terminal) {
    const inputs = new Inputs(terminal.flags.read);
    const programs = readPrograms(inputs);
    inputs.finish();
    const { store, backup } = await openBackup(terminal);
    const { manifest, census, bytes } = await verify(store, backup, programs, terminal.machine, terminal);
    answer(
      terminal,
      {
        id: manifest.id,
        name: manifest.name,
        verified: true,
        bytes,
        tables: census.tables.length,
        rows: manifest.totals.rows,
      },
      `${manifest.name}/${manifest.id} is whole: ${formatBytes(bytes)} read back, ${formatCount(census.tables.length, 'table')}, ${formatCount(manifest.totals.rows, 'row')}, every checksum and count as recorded`,
    );
  },
};
