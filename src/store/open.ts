import { isAbsolute, normalize } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { ArtifactStore } from './artifact.ts';
import { type ArtifactOptions, type ArtifactPlace, artifactUri } from './artifact-place.ts';
import { FolderStore } from './folder.ts';
import { S3Store } from './s3.ts';
import { parseS3Address, type S3Options } from './s3-address.ts';
import type { Store, StoreUse } from './store.ts';

/** A store's address, judged but not touched. */
export type StoreAddress =
  | { readonly kind: 'folder'; readonly root: string }
  | { readonly kind: 's3'; readonly bucket: string; readonly prefix: string }
  /** The workflow artifacts of the repository that this runs in or for. */
  | { readonly kind: 'artifact' };

/** All that is needed to open a store. */
export type StoreChoice =
  | Extract<StoreAddress, { kind: 'folder' }>
  | (Extract<StoreAddress, { kind: 's3' }> & { readonly options: S3Options })
  | (Extract<StoreAddress, { kind: 'artifact' }> & { readonly options: ArtifactOptions });

/** Reads a `store` input. The problem, when there is one, is a sentence for the user. */
export function parseStoreAddress(text: string): { readonly address: StoreAddress } | { readonly problem: string } {
  const value = text.trim();
  if (value === '') return { problem: 'is empty; give s3://bucket/prefix, file:///absolute/folder or artifact' };
  if (value === 'artifact') return { address: { kind: 'artifact' } };
  if (/^s3:/i.test(value)) return parseS3Address(value);
  if (value.startsWith('file://')) return folderAddress(value);
  if (isAbsolute(value)) return { problem: `is a path; write it as an address: file://${value}` };
  return { problem: 'is not an address of a store; use s3://bucket/prefix, file:///absolute/folder or artifact' };
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

export function openStore(choice: StoreChoice, use: StoreUse = {}): Store {
  if (choice.kind === 'artifact') return new ArtifactStore(choice.options, use);
  return choice.kind === 'folder' ? new FolderStore(choice.root) : new S3Store(choice, use);
}

/** The canonical URI of the store at this address, as it says it itself; artifacts are those of `place`. */
export function uriOf(address: StoreAddress, place: ArtifactPlace | undefined): string {
  if (address.kind === 'artifact') return place === undefined ? 'artifact' : artifactUri(place);
  if (address.kind === 'folder') return pathToFileURL(address.root).href;
  return address.prefix === '' ? `s3://${address.bucket}` : `s3://${address.bucket}/${address.prefix}`;
}

/** A word that names the store and must stay readable: the folder, the bucket, or the repository. */
export function publicWordOf(choice: StoreChoice): string {
  if (choice.kind === 'artifact') return choice.options.place.repository;
  return choice.kind === 'folder' ? choice.root : choice.bucket;
}
