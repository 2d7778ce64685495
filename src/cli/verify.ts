import { sourceOf } from '../environment.ts';
import { Failure } from '../failure.ts';
import { Inputs } from '../inputs.ts';
import { encryptionOf } from '../manifest.ts';
import { formatBytes, formatCount } from '../numbers.ts';
import { writeOpening } from '../openings.ts';
import { release } from '../release.ts';
import { shortRecipient } from '../report/encryption.ts';
import { verify } from '../verify.ts';
import { answer, type Command } from './command.ts';
import {
  backupArgument,
  decryptFlags,
  openBackup,
  programFlags,
  readKeyFlags,
  readPrograms,
  storeFlags,
} from './shared-flags.ts';

export const verifyCommand: Command = {
  name: 'verify',
  summary: 'Reads a backup back, every byte: checksums, pg_restore to the end, rows and sequences against the census.',
  argument: backupArgument,
  flags: [
    ...storeFlags,
    ...decryptFlags,
    { name: 'sign-proof', help: 'record beside the backup which recipient opened it' },
    ...programFlags,
  ],
  async run(terminal) {
    const inputs = new Inputs(terminal.flags.read);
    const programs = readPrograms(inputs);
    const record = inputs.flag('sign-proof', false);
    inputs.finish();
    const keys = readKeyFlags(terminal);
    const { store, backup } = await openBackup(terminal);
    const { manifest, manifestSha256 } = backup;
    const { name, id } = manifest;
    if (record && encryptionOf(manifest) === null)
      throw new Failure('input', 'badInput', `sign-proof: ${name}/${id} is not encrypted, so no recipient opens it`, {
        hint: 'leave it out; restore-test proves that a backup restores',
      });
    const { census, bytes, recipient } = await verify({ store, manifest, keys }, programs, terminal.machine, terminal);
    const proof =
      record && recipient !== null
        ? await writeOpening(store, {
            ...{ format: 'pgassay-opening/1', backupId: id, name, manifestSha256, recipient, bytes },
            openedAt: (await store.now()).toISOString(),
            tools: { pgassay: release },
            runUrl: sourceOf(terminal.variables)?.runUrl ?? null,
          })
        : null;
    const opened = recipient === null ? '' : `, opened with the key of ${shortRecipient(recipient)}`;
    answer(
      terminal,
      { id, name, verified: true, bytes, tables: census.tables.length, rows: manifest.totals.rows, recipient, proof },
      [
        `${name}/${id} is whole: ${formatBytes(bytes)} read back${opened}, ${formatCount(census.tables.length, 'table')}, ${formatCount(manifest.totals.rows, 'row')}, every checksum and count as recorded`,
        ...(proof === null ? [] : [`  proof     ${proof}`]),
      ].join('\n'),
    );
  },
};
