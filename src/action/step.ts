import { mkdtemp, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import * as core from '@actions/core';
import { idPattern, namePattern } from '../backup-id.ts';
import { encryptionSecrets } from '../encryption-inputs.ts';
import { artifactPlaceOf, identityOf, machineOf } from '../environment.ts';
import { Failure } from '../failure.ts';
import { Inputs, nearest } from '../inputs.ts';
import type { Log } from '../log.ts';
import type { Secrets } from '../secrets.ts';
import { hideKeys } from '../signing-inputs.ts';
import { openStore } from '../store/open.ts';
import { readStores, storeSecrets } from '../store-inputs.ts';

/** An input of this step, as the runner hands it over. */
export function input(name: string): string | undefined {
  return process.env[`INPUT_${name.toUpperCase()}`];
}

/** The runner only warns about an input it does not know; a misspelt one may be the important one. */
export function reportUnknown(known: readonly string[], log: Log): void {
  for (const variable of Object.keys(process.env)) {
    if (!variable.startsWith('INPUT_')) continue;
    const name = variable.slice(6).toLowerCase();
    if (known.includes(name)) continue;
    const meant = nearest(name, known);
    log.warn(`there is no input ${name}${meant === undefined ? '' : `; did you mean ${meant}?`}`);
  }
}

export function refuseWindows(): void {
  if (process.platform !== 'win32') return;
  throw new Failure('input', 'badInput', 'Windows runners are not supported', { hint: 'use runs-on: ubuntu-latest' });
}

/** Inputs that are secrets in whatever action they appear, hidden before anything is logged. */
export function hideSecretInputs(secrets: Secrets): void {
  const key = input('tls-client-key');
  if (key?.includes('-----BEGIN ')) secrets.add(key);
  for (const secret of encryptionSecrets(input)) secrets.add(secret);
  for (const name of storeSecrets) {
    const value = input(name)?.trim();
    if (value) secrets.add(value);
  }
  hideKeys(input, secrets);
}

/** Runs `work` with a private folder of this step's; the post step removes it when the run is killed. */
export async function withStepFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(machineOf(process.env).temporary, 'pgassay-'));
  core.saveState('temporary', folder);
  try {
    await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** After the job: removes the folder of a run that was killed. */
export async function removeStepFolder(): Promise<void> {
  const folder = core.getState('temporary');
  if (basename(folder).startsWith('pgassay-')) await rm(folder, { recursive: true, force: true });
}

/** The backup that this step is writing: should the step be killed, its post step removes what is there of it. */
export function saveUnfinished(name: string, id: string): void {
  core.saveState('name', name);
  core.saveState('id', id);
}

/** After the job: what a killed run had begun to store, unless it is whole. */
export async function discardUnfinished(): Promise<void> {
  const [name, id] = [core.getState('name'), core.getState('id')];
  if (!namePattern.test(name) || !idPattern.test(id)) return;
  const inputs = new Inputs(input);
  const artifacts = artifactPlaceOf(process.env, machineOf(process.env).temporary);
  const stores = readStores(inputs, identityOf(process.env), artifacts);
  if (inputs.problems.length > 0) return;
  await Promise.all(stores.map((store) => openStore(store).discard(name, id)));
}

/** An output may be 64 KB. */
export const mostBytes = 60_000;

/** Values that are JSON already as one array for an output, cut after a whole one. */
export function jsonArray(values: readonly string[]): string {
  const kept: string[] = [];
  let bytes = 2;
  for (const value of values) {
    bytes += Buffer.byteLength(value) + 1;
    if (bytes > mostBytes) break;
    kept.push(value);
  }
  return `[${kept.join(',')}]`;
}

/** A summary that cannot be written changes nothing about the result. */
export async function writeSummary(markdown: string, log: Log): Promise<void> {
  if (!process.env.GITHUB_STEP_SUMMARY) return;
  try {
    await core.summary.addRaw(markdown).write();
  } catch {
    log.warn('the job summary could not be written; the result is not changed by that');
  }
}
