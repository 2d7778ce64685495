import { isAbsolute, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FolderStore } from './folder.ts';
import type { Store } from './store.ts';

/** A store's address, judged but not touched. */
export type StoreAddress = { readonly kind: 'folder'; readonly root: string };

/** Reads a `store` input. The problem, when there is one, is a sentence for the user. */
export function parseStoreAddress(text: string): { readonly address: StoreAddress } | { readonly problem: string } {
  const value = text.trim();
  if (value === '') return { problem: 'is empty; give a folder, file:///absolute/folder' };
  if (value.startsWith('s3://') || value === 'artifact')
    return {
      problem: `${value.startsWith('s3') ? 's3:// stores are' : 'the artifact store is'} not part of this release; use file:///absolute/folder`,
    };
  if (value.startsWith('file://')) return folderAddress(value);
  if (isAbsolute(value)) return { problem: `is a path; write it as an address: file://${value}` };
  return { problem: 'is not an address of a store; use file:///absolute/folder' };
}

function folderAddress(value: string): { readonly address: StoreAddress } | { readonly problem: string } {
  if (!value.startsWith('file:///'))
    return { problem: 'needs three slashes and an absolute path: file:///absolute/folder' };
  let path: string;
  try {
    path = fileURLToPath(value);
  } catch {
    return { problem: 'has a percent sequence that cannot be decoded' };
  }
  if (/[?#]/.test(value)) return { problem: 'has a ? or # in it; write them as %3F and %23' };
  if (value.split('/').includes('..')) return { problem: 'may not contain ..' };
  const root = normalize(path).replace(/(?<=.)\/+$/, '');
  if (root === '/') return { problem: 'is the root of the file system; name a folder' };
  return { address: { kind: 'folder', root } };
}

export function openStore(address: StoreAddress): Store {
  return new FolderStore(address.root);
}
