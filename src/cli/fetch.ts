import { isAbsolute, join } from 'node:path';
import { fetchArchive } from '../fetch.ts';
import { Inputs } from '../inputs.ts';
import { formatBytes } from '../numbers.ts';
import { warnUnneeded } from '../stored-files.ts';
import { answer, type Command } from './command.ts';
import { backupArgument, decryptFlags, openBackup, readFlags, readKeyFlags, storeFlags } from './shared-flags.ts';

export const fetchCommand: Command = {
  name: 'fetch',
  summary: "Writes a backup's plain archive to a file, checked, for pg_restore and other stock tools.",
  argument: backupArgument,
  flags: [
    ...storeFlags,
    ...readFlags,
    ...decryptFlags,
    { name: 'out', value: 'FILE', help: 'the file to write; it must not exist' },
  ],
  async run(terminal) {
    const inputs = new Inputs(terminal.flags.read);
    const out = inputs.required('out', 'name the file to write: --out shop.dump');
    inputs.finish();
    const keys = readKeyFlags(terminal);
    const { store, backup } = await openBackup(terminal);
    warnUnneeded(backup.manifest, keys, terminal.log);
    const path = isAbsolute(out) ? out : join(process.cwd(), out);
    const { bytes } = await fetchArchive({ store, manifest: backup.manifest, keys }, path, terminal.signal);
    const { id, name } = backup.manifest;
    answer(
      terminal,
      { id, name, file: path, bytes },
      `${name}/${id}: ${formatBytes(bytes)} written to ${path}, SHA-256 as recorded`,
    );
  },
};
