import { findGaps } from '../chain.ts';
import { inputsOf, sourceOf } from '../environment.ts';
import { Failure } from '../failure.ts';
import { tellGaps } from '../locate.ts';
import { encryptionOf, shortRecipient } from '../manifest.ts';
import { formatBytes, formatCount } from '../numbers.ts';
import { writeOpening } from '../openings.ts';
import { release } from '../release.ts';
import { shortKeyId } from '../signing.ts';
import { readProofKey, readTrust } from '../signing-inputs.ts';
import { verify } from '../verify.ts';
import { answer, type Command } from './command.ts';
import {
  backupArgument,
  decryptFlags,
  openBackup,
  programFlags,
  proofKeyFlag,
  readFlags,
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
    ...readFlags,
    ...decryptFlags,
    { name: 'sign-proof', help: 'record beside the backup which recipient opened it' },
    proofKeyFlag,
    ...programFlags,
  ],
  async run(terminal) {
    const inputs = inputsOf(terminal.flags.read);
    const programs = readPrograms(inputs);
    const record = inputs.flag('sign-proof', false);
    const proofKey = readProofKey(inputs, readTrust(inputs));
    if (proofKey !== undefined && !record)
      inputs.problem('proof-key', 'signs a record, and none is asked for', 'say --sign-proof too');
    inputs.finish();
    const keys = readKeyFlags(terminal);
    const { store, backup, catalog } = await openBackup(terminal);
    const { manifest, manifestSha256, signedBy = null } = backup;
    const { name, id } = manifest;
    const gaps = findGaps(catalog).filter((each) => each.id === id);
    tellGaps(gaps, terminal.log);
    if (record && encryptionOf(manifest) === null)
      throw new Failure('input', 'badInput', `sign-proof: ${name}/${id} is not encrypted, so no recipient opens it`, {
        hint: 'leave it out; restore-test proves that a backup restores',
      });
    const { census, bytes, recipient } = await verify({ store, manifest, keys }, programs, terminal.machine, terminal);
    const proof =
      record && recipient !== null
        ? await writeOpening(
            store,
            {
              ...{ format: 'pgassay-opening/1', backupId: id, name, manifestSha256, recipient, bytes },
              openedAt: (await store.now()).toISOString(),
              tools: { pgassay: release },
              runUrl: sourceOf(terminal.variables)?.runUrl ?? null,
            },
            proofKey,
          )
        : null;
    const opened = recipient === null ? '' : `, opened with the key of ${shortRecipient(recipient)}`;
    const signed = signedBy === null ? '' : `, signed by key ${shortKeyId(signedBy)}`;
    const counted = { bytes, tables: census.tables.length, rows: manifest.totals.rows };
    answer(
      terminal,
      { id, name, verified: true, signedBy, ...counted, recipient, proof },
      [
        `${name}/${id} is whole: ${formatBytes(bytes)} read back${opened}, ${formatCount(census.tables.length, 'table')}, ${formatCount(manifest.totals.rows, 'row')}, every checksum and count as recorded${signed}`,
        ...(proof === null ? [] : [`  proof     ${proof}`]),
      ].join('\n'),
    );
  },
};
