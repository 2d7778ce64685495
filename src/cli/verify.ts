import { findGaps } from '../chain.ts';
import { inputsOf, sourceOf } from '../environment.ts';
import { Failure } from '../failure.ts';
import type { Inputs } from '../inputs.ts';
import { tellGaps } from '../locate.ts';
import { encryptionOf, shortRecipient } from '../manifest.ts';
import { formatBytes, formatCount } from '../numbers.ts';
import { writeOpening } from '../openings.ts';
import { release } from '../release.ts';
import { shortKeyId } from '../signing.ts';
import { readProofKey, readTrust } from '../signing-inputs.ts';
import { parseStoreAddress } from '../store/open.ts';
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
    if (record) refuseArtifacts(inputs);
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

/** Before everything is downloaded for a record that cannot be kept. */
function refuseArtifacts(inputs: Inputs): void {
  const store = parseStoreAddress(inputs.optional('store') ?? '');
  if (!('address' in store) || store.address.kind !== 'artifact') return;
  inputs.problem(
    'sign-proof',
    'keeps its record beside the backup, and only a step of GitHub Actions that uses an action can add artifacts',
    'leave it out to verify the backup; in artifacts a key is tried by a restore test (decrypt-identity of pgassay/pgassay/restore-test); for a key that stays offline, keep a copy in a bucket or a folder too (one more line in store of the backup step), and verify that one',
  );
}
