import { idPattern, namePattern } from '../backup-id.ts';
import { proofsFolder, recordsFolder } from './store.ts';

/** What an artifact's name says that it is. */
export type ArtifactName =
  /** One file of a backup: `pgassay-<name>-<id>.dump` and the like. */
  | { readonly kind: 'file'; readonly name: string; readonly id: string; readonly file: string }
  /** `pgassay-manifest-<name>`: publishes a backup whose id only its content tells. */
  | { readonly kind: 'manifest'; readonly name: string }
  /** `pgassay-proof-<name>`: of which backup, only its content tells. */
  | { readonly kind: 'proof'; readonly name: string }
  /** `pgassay-proofsig-<name>`: the signature of the proof that has the same number in the same run. */
  | { readonly kind: 'proof signature'; readonly name: string }
  /** `pgassay-restores`: one record of a restore. */
  | { readonly kind: 'record' };

/** The names of a backup's data files here, and the ends that stand for them in an artifact's name. */
const ends = [
  ['database.dump', 'dump'],
  ['database.tar', 'tar'],
  ['roles.sql', 'roles'],
  ['census.json', 'census'],
  ['manifest.sig', 'sig'],
] as const;
const encrypted = '.age';

const manifestStart = 'pgassay-manifest-';
const proofStart = 'pgassay-proof-';
const signatureStart = 'pgassay-proofsig-';
const records = 'pgassay-restores';

const nameText = namePattern.source.slice(1, -1);
const idText = idPattern.source.slice(1, -1);
const filePattern = new RegExp(`^pgassay-(${nameText})-(${idText})\\.([a-z]+)(\\.age)?$`);

/** The artifact that holds a path of the store. `shared`: many have that name, and the next free one is taken. */
export function artifactNameOf(path: string): { readonly artifact: string; readonly shared: boolean } {
  const [name = '', id = '', ...rest] = path.split('/');
  const file = rest.join('/');
  if (name === recordsFolder && file === '') return { artifact: records, shared: true };
  if (file === 'manifest.json') return { artifact: manifestsOf(name), shared: true };
  if (file.startsWith(`${proofsFolder}/`)) {
    if (file.endsWith('.json')) return { artifact: proofsOf(name), shared: true };
    if (file.endsWith('.json.sig')) return { artifact: proofSignaturesOf(name), shared: true };
  }
  const plain = file.endsWith(encrypted) ? file.slice(0, -encrypted.length) : file;
  const end = ends.find(([known]) => known === plain)?.[1];
  if (end === undefined) throw new Error(`no artifact is made for ${path}`);
  return { artifact: `pgassay-${name}-${id}.${end}${plain === file ? '' : encrypted}`, shared: false };
}

/** The name under which `nth` of a shared one goes: `~2` and so on after the first. */
export function nthName(artifact: string, nth: number): string {
  return nth === 1 ? artifact : `${artifact}~${nth}`;
}

export function manifestsOf(name: string): string {
  return `${manifestStart}${name}`;
}

export function proofsOf(name: string): string {
  return `${proofStart}${name}`;
}

export function proofSignaturesOf(name: string): string {
  return `${signatureStart}${name}`;
}

/** `pgassay-proof-shop~2` of `pgassay-proofsig-shop~2` */
export function proofSignedBy(signature: string): string {
  return `${proofStart}${signature.slice(signatureStart.length)}`;
}

export const recordsName = records;

/** Undefined for what is somebody else's. */
export function parseArtifactName(text: string): ArtifactName | undefined {
  const [, name, id, end, age = ''] = filePattern.exec(text) ?? [];
  if (name !== undefined && id !== undefined) {
    const file = ends.find((each) => each[1] === end)?.[0];
    return file === undefined ? undefined : { kind: 'file', name, id, file: `${file}${age}` };
  }
  const shared = text.replace(/~(?:[2-9]|[1-9]\d{1,3})$/, '');
  if (shared === records) return { kind: 'record' };
  for (const [start, kind] of [
    [manifestStart, 'manifest'],
    [proofStart, 'proof'],
    [signatureStart, 'proof signature'],
  ] as const) {
    const of = shared.slice(start.length);
    if (shared.startsWith(start) && namePattern.test(of)) return { kind, name: of };
  }
  return undefined;
}
