import { readStore } from '../backup-inputs.ts';
import { type Backup, type Catalog, parseSelector, readCatalog, requireName, select } from '../catalog.ts';
import { Failure } from '../failure.ts';
import { Inputs } from '../inputs.ts';
import type { ProgramChoice } from '../machine.ts';
import { openStore } from '../store/open.ts';
import type { Store } from '../store/store.ts';
import type { Flag, Terminal } from './command.ts';

export const storeFlags: readonly Flag[] = [
  { name: 'store', value: 'ADDRESS', help: 'where backups live: file:///absolute/folder' },
  { name: 'name', value: 'NAME', help: "which database's backups; may be left out where the store has only one" },
];

export const programFlags: readonly Flag[] = [
  { name: 'client-bin', value: 'FOLDER', help: "PostgreSQL's programs, and no others" },
  { name: 'install-client', value: 'true|false', help: 'install missing programs in the cache (default true)' },
];

export const tlsFlags: readonly Flag[] = [
  { name: 'tls-ca', value: 'FILE', help: "the authority that signed the server's certificate" },
  { name: 'tls-client-cert', value: 'FILE', help: 'a certificate to log in with' },
  { name: 'tls-client-key', help: 'its private key', secret: { variable: 'PGASSAY_TLS_CLIENT_KEY' } },
];

export const backupArgument = {
  name: 'backup',
  help: 'latest, an id or its beginning, label:<label>, or before:<ISO time>',
  fallback: 'latest',
};

export function readPrograms(inputs: Inputs): ProgramChoice {
  return { clientBin: inputs.optional('client-bin'), installClient: inputs.flag('install-client', true) };
}

/** The store the flags name, and everything in it that they let in. */
export async function openCatalog(terminal: Terminal): Promise<{ store: Store; catalog: Catalog }> {
  const inputs = new Inputs(terminal.flags.read);
  const address = readStore(inputs);
  inputs.finish();
  const store = openStore(address);
  const wanted = inputs.optional('name');
  const name = wanted === undefined ? undefined : await requireName(store, wanted);
  return { store, catalog: await readCatalog(store, name) };
}

/** The one backup the flags and the argument name. */
export async function openBackup(terminal: Terminal): Promise<{ store: Store; backup: Backup }> {
  const inputs = new Inputs(terminal.flags.read);
  const address = readStore(inputs);
  const parsed = parseSelector(terminal.flags.argument ?? 'latest');
  if ('problem' in parsed) inputs.problem('backup', parsed.problem);
  inputs.finish();
  if ('problem' in parsed) throw new Failure('input', 'badInput', parsed.problem);
  const store = openStore(address);
  const name = await requireName(store, inputs.optional('name'));
  const catalog = await readCatalog(store, name);
  for (const entry of catalog.damaged) terminal.log.warn(`${entry.name}/${entry.id} is damaged: ${entry.reason}`);
  return { store, backup: select(catalog, parsed.selector, await store.now()) };
}
