import * as core from '@actions/core';
import { parseSelector } from '../catalog.ts';
import { decryptInputs, readKeys } from '../encryption-inputs.ts';
import { artifactPlaceOf, identityOf, inputsOf, machineOf } from '../environment.ts';
import { Failure } from '../failure.ts';
import { locate } from '../locate.ts';
import type { Log } from '../log.ts';
import { encryptionOf } from '../manifest.ts';
import { imagesFor, serviceImage } from '../postgres/extension-images.ts';
import { displayWord } from '../postgres/names.ts';
import { parseVersion } from '../postgres/version.ts';
import { readTrust } from '../signing-inputs.ts';
import { openStore, publicWordOf } from '../store/open.ts';
import { readStore, storeReadInputs } from '../store-inputs.ts';
import type { StoredBackup } from '../stored-files.ts';
import { readCensus } from '../verify.ts';
import { maskAll, type Run, runAction } from './run.ts';
import { hideSecretInputs, input, refuseWindows, reportUnknown } from './step.ts';

/** Every input of this action; a test holds locate/action.yml to this list. */
export const locateInputs: readonly string[] = [...storeReadInputs, 'name', 'backup', ...decryptInputs];

/** The action `pgassay/pgassay/locate`: which backup, and which service image fits it. Nothing is written anywhere. */
export function runLocate(): Promise<void> {
  return runAction(async (run) => {
    refuseWindows();
    reportUnknown(locateInputs, run.log);
    const { store, name, selector, trust, keys } = readRequest(run);
    const opened = openStore(store, { signal: run.signal });
    const { backup } = await locate(opened, { name, selector, trust, strict: true }, run.log);
    const { manifest } = backup;
    const extensions = await extensionsOf({ store: opened, manifest, keys }, run.log);
    const version = manifest.database.serverVersion;
    const major = parseVersion(version)?.major;
    if (major === undefined)
      throw new Failure(
        'locate',
        'verification',
        `${manifest.name}/${manifest.id} is of no known PostgreSQL: ${version}`,
        {
          hint: 'its manifest was changed, or written by something else; take a new backup',
        },
      );
    const { image, without } = serviceImage(extensions, major);
    if (without.length > 0)
      run.log.warn(
        `no one image is known to have ${[...new Set(without)].map(displayWord).join(', ')} with the rest: ${image} has not; ` +
          `look at ${imagesFor(without, major).join(', ')}, and name the one that fits as postgres-image`,
      );
    const outputs: Record<string, string> = {
      // A test of the latest backup stays one: its issue is closed when a newer latest passes.
      backup: selector.by === 'latest' ? 'latest' : manifest.id,
      'backup-id': manifest.id,
      name: manifest.name,
      'postgres-major': String(major),
      'postgres-image': image,
    };
    for (const [output, value] of Object.entries(outputs)) core.setOutput(output, value);
    run.log.info(`${manifest.name}/${manifest.id}: PostgreSQL ${version}, service image ${image}`);
  });
}

/** Without a key nobody knows those of an encrypted backup: the plain image of its major serves where it has none. */
async function extensionsOf(from: StoredBackup, log: Log): Promise<string[]> {
  const { manifest, keys } = from;
  if (encryptionOf(manifest) !== null && keys.identities.length === 0 && keys.passphrase === undefined) {
    log.notice(
      `${manifest.name}/${manifest.id} is encrypted, and without a key its extensions are not known: give decrypt-identity here too, or name postgres-image, if it has any`,
    );
    return [];
  }
  return (await readCensus(from)).extensions.map((each) => each.name);
}

/** Reads the inputs and hides the secrets among them, before anything is logged, also when they are wrong. */
function readRequest({ secrets }: Run) {
  hideSecretInputs(secrets);
  try {
    const inputs = inputsOf(input);
    const artifacts = artifactPlaceOf(process.env, machineOf(process.env).temporary);
    const store = readStore(inputs, identityOf(process.env), artifacts);
    const trust = readTrust(inputs);
    const parsed = parseSelector(inputs.optional('backup') ?? 'latest');
    if ('problem' in parsed) inputs.problem('backup', parsed.problem);
    const name = inputs.optional('name');
    for (const word of [name, publicWordOf(store)]) secrets.spare(word);
    const keys = readKeys(inputs);
    inputs.finish();
    if ('problem' in parsed) throw new Error('a selector with a problem that nobody told');
    return { store, name, selector: parsed.selector, trust, keys };
  } finally {
    maskAll(secrets);
  }
}
