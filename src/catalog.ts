import { createHash, randomInt } from 'node:crypto';
import { safetyLabel, timeOfId } from './backup-id.ts';
import { Failure } from './failure.ts';
import { fileNames, type Manifest, MisplacedManifest, parseManifest, UnreadableDocument } from './manifest.ts';
import { formatCount, formatSeconds, parseDuration } from './numbers.ts';
import { proofPattern } from './proof.ts';
import { largestSignature } from './signing.ts';
import type { Store } from './store/store.ts';
import { judgeSignature, type Signed, type Trust } from './trust.ts';

/** A backup that has a manifest, and the digest of that manifest's bytes. */
export interface Backup {
  readonly manifest: Manifest;
  readonly manifestSha256: string;
  /** The id of the trusted key that signed it; absent where nobody asked. */
  readonly signedBy?: string | undefined;
  /** What somebody did to its files after it was stored, where the store remembers; such a backup is whole all the same. */
  readonly tampering: readonly string[];
  /** Names of the proofs beside it, `proofs/<time>.json`, oldest first. */
  readonly proofs: readonly string[];
}

/** What a folder with a backup's id turned out to be. */
export type Entry =
  | { readonly kind: 'backup'; readonly backup: Backup }
  /**
   * There is a manifest, but it cannot be used, or a file it names is missing or has another size. `untrusted`: nobody
   * whom we trust wrote it for this place, so it is evidence, and neither counts nor is deleted.
   */
  | {
      readonly kind: 'damaged';
      readonly name: string;
      readonly id: string;
      readonly reason: string;
      readonly untrusted?: true;
      /** The file at fault; undefined: the manifest itself. */
      readonly file?: string;
    }
  /** No manifest: an upload that is running, or one that was cut off. Not a backup. */
  | { readonly kind: 'unfinished'; readonly name: string; readonly id: string };

export interface Catalog {
  /** Newest first. */
  readonly backups: readonly Backup[];
  readonly damaged: readonly Extract<Entry, { kind: 'damaged' }>[];
  readonly unfinished: readonly Extract<Entry, { kind: 'unfinished' }>[];
}

/** Manifests read at the same time. */
const atOnce = 48;

/** It names files, not tables: a few kilobytes. */
const largestManifest = 4 * 1024 * 1024;

/** `files` is what the store has of it, where that is known already. */
export async function readBackup(
  store: Store,
  trust: Trust,
  name: string,
  id: string,
  files?: ReadonlyMap<string, number>,
): Promise<Entry> {
  const sizes = files ?? (await store.files(name, id)).get(id);
  if (sizes?.has(fileNames.manifest) !== true) return { kind: 'unfinished', name, id };
  const place = { name, id, sizes };
  const signatures = new Signatures(versions(store, place, fileNames.signature, largestSignature));
  // The first version of a manifest that can be used is the backup: later ones are somebody else's.
  let damaged: Entry | undefined;
  for await (const bytes of versions(store, place, fileNames.manifest, largestManifest)) {
    const entry =
      bytes instanceof Failure
        ? unreadable(place, trust, bytes)
        : judge(store, trust, place, bytes, await signatures.judge(bytes, trust));
    if (entry.kind === 'backup') return entry;
    damaged ??= entry;
  }
  return damaged ?? { kind: 'unfinished', name, id };
}

interface Place {
  readonly name: string;
  readonly id: string;
  readonly sizes: ReadonlyMap<string, number>;
}

/**
 * Every version of a small file, the first one first. What the store itself says is too large to be one, or not what was
 * written, comes as its word for it: whoever may write here shall not be able to stop everybody from reading the rest.
 */
async function* versions(
  store: Store,
  { name, id, sizes }: Place,
  file: string,
  largest: number,
): AsyncGenerator<Buffer | Failure> {
  if (!sizes.has(file)) return;
  for (let version = 0; ; version++) {
    const bytes = await store.read(`${name}/${id}/${file}`, version, largest).catch((error: unknown) => {
      if (error instanceof Failure && error.exit === 'verification') return error;
      throw error;
    });
    if (bytes === undefined) return;
    yield bytes;
  }
}

function unreadable({ name, id }: Place, trust: Trust, { message }: Failure): Entry {
  const damaged = { kind: 'damaged', name, id, reason: message } as const;
  return trust.keys.length > 0 ? { ...damaged, untrusted: true } : damaged;
}

/** The signatures beside a manifest. Of many versions, only as many are read as it takes to find one that fits. */
class Signatures {
  readonly #unread: AsyncGenerator<Buffer | Failure>;
  readonly #read: Buffer[] = [];

  constructor(unread: AsyncGenerator<Buffer | Failure>) {
    this.#unread = unread;
  }

  async judge(bytes: Buffer, trust: Trust): Promise<Signed> {
    let signed = judgeSignature(bytes, this.#read, trust);
    while ('distrust' in signed) {
      const next = await this.#unread.next();
      if (next.done === true) break;
      const signature = next.value instanceof Failure ? Buffer.alloc(0) : next.value;
      this.#read.push(signature);
      signed = judgeSignature(bytes, [signature], trust);
    }
    return signed;
  }
}

/** Signature first: of bytes that nobody signed, not even the format is believed. */
function judge(store: Store, trust: Trust, { name, id, sizes }: Place, bytes: Buffer, signed: Signed): Entry {
  const untrusted = (reason: string): Entry => ({ kind: 'damaged', name, id, reason, untrusted: true });
  const asked = trust.keys.length > 0;
  if ('distrust' in signed) return untrusted(signed.distrust);
  try {
    const manifest = parseManifest(bytes, { name, id });
    if (asked && !trust.acceptMoved && manifest.store !== store.uri)
      return untrusted(`it was written to ${manifest.store}, and this is ${store.uri}`);
    for (const file of manifest.files) {
      const size = sizes.get(file.name);
      if (size === undefined) return { kind: 'damaged', name, id, file: file.name, reason: `${file.name} is missing` };
      if (size !== file.bytes)
        return {
          ...{ kind: 'damaged', name, id, file: file.name },
          reason: `${file.name} has ${size} bytes instead of ${file.bytes}`,
        };
    }
    const own: readonly string[] = [fileNames.manifest, fileNames.signature];
    const tampering = [...own, ...manifest.files.map((file) => file.name)].flatMap((file) => {
      const history = store.history(`${name}/${id}/${file}`);
      // A second copy of a small data file is our own question whether the store overwrites.
      if (history === 'as written' || (history === 'overwritten' && !own.includes(file))) return [];
      return [`${file} was ${history} after it was stored`];
    });
    const manifestSha256 = createHash('sha256').update(bytes).digest('hex');
    const proofs = [...sizes.keys()].filter((file) => proofPattern.test(file)).sort();
    return { kind: 'backup', backup: { manifest, manifestSha256, signedBy: signed.by?.id, tampering, proofs } };
  } catch (error) {
    if (!(error instanceof UnreadableDocument)) throw error;
    if (asked && error instanceof MisplacedManifest) return untrusted(error.message);
    return { kind: 'damaged', name, id, reason: error.message };
  }
}

/** Everything under one name, or under every name of the store. */
export async function readCatalog(store: Store, trust: Trust, name?: string): Promise<Catalog> {
  const names = name === undefined ? await store.names() : [name];
  const places = (
    await Promise.all(
      names.map(async (each) => [...(await store.files(each))].map(([id, files]) => ({ name: each, id, files }))),
    )
  ).flat();
  const entries: Entry[] = [];
  const waiting = places.entries();
  const reader = async (): Promise<void> => {
    for (const [at, { name, id, files }] of waiting) entries[at] = await readBackup(store, trust, name, id, files);
  };
  await Promise.all(Array.from({ length: atOnce }, reader));
  return {
    backups: entries
      .flatMap((entry) => (entry.kind === 'backup' ? [entry.backup] : []))
      .sort((a, b) => compareText(b.manifest.id, a.manifest.id)),
    damaged: entries.filter((entry) => entry.kind === 'damaged'),
    unfinished: entries.filter((entry) => entry.kind === 'unfinished'),
  };
}

/** The last whole backups of a name, oldest first. */
export async function readRecent(store: Store, trust: Trust, name: string, most: number): Promise<Backup[]> {
  const recent = [...(await store.files(name))].slice(-most);
  const entries = await Promise.all(recent.map(([id, files]) => readBackup(store, trust, name, id, files)));
  return entries.flatMap((entry) => (entry.kind === 'backup' ? [entry.backup] : []));
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** The name asked for, else the only one of the store. Throws a `Failure` that lists them. */
export async function requireName(store: Store, name: string | undefined): Promise<string> {
  // Where artifacts are, names are the expensive question.
  if (name !== undefined && (await store.ids(name)).length > 0) return name;
  const names = await store.names();
  if (name !== undefined) {
    if (names.includes(name)) return name;
    throw new Failure('locate', 'badInput', `${store.uri} has no backups named ${name}`, { hint: hintOf(names) });
  }
  const [only, ...others] = names;
  if (only === undefined)
    throw new Failure('locate', 'badInput', `${store.uri} holds no backups`, { hint: hintOf([]) });
  if (others.length > 0)
    throw new Failure('locate', 'badInput', `${store.uri} holds backups of ${names.length} names`, {
      hint: hintOf(names),
    });
  return only;
}

function hintOf(names: readonly string[]): string {
  return names.length === 0
    ? 'check the store address; it must be the one the backup job writes to'
    : `say which with name: ${names.join(', ')}`;
}

/** Which backup: `latest`, an id, the unambiguous beginning of one, `label:<label>`, `before:<ISO time>`, `random:<duration>`. */
export type Selector =
  | { readonly by: 'latest' }
  | { readonly by: 'id'; readonly prefix: string }
  | { readonly by: 'label'; readonly label: string }
  | { readonly by: 'before'; readonly time: number }
  /** Any one that is not older than so many milliseconds. */
  | { readonly by: 'random'; readonly withinMs: number };

/** The sentence after "backup", when the text is no selector. */
export function parseSelector(text: string): { readonly selector: Selector } | { readonly problem: string } {
  if (text === 'latest') return { selector: { by: 'latest' } };
  if (text.startsWith('label:') && text.length > 6) return { selector: { by: 'label', label: text.slice(6) } };
  if (text.startsWith('before:')) {
    const time = Date.parse(text.slice(7));
    if (Number.isNaN(time)) return { problem: `${text} names no time; write before:2026-11-21T02:00:00Z` };
    return { selector: { by: 'before', time } };
  }
  if (text.startsWith('random:')) {
    const withinMs = parseDuration(text.slice(7));
    if (!withinMs) return { problem: `${text} names no duration; write random:7d` };
    return { selector: { by: 'random', withinMs } };
  }
  if (/^\d{4,8}(?:T\d{0,6}(?:Z(?:-[0-9a-f]{0,6})?)?)?$/.test(text)) return { selector: { by: 'id', prefix: text } };
  return {
    problem: `${text} is neither latest, an id (20261121T020004Z-3f9a1c), label:<label>, before:<ISO time> nor random:<duration>`,
  };
}

/** Clocks may differ by this much before a backup counts as made in the future. */
export const futureMs = 5 * 60 * 1000;

/**
 * Picks one backup. Safety backups (label `pre-restore`) and backups dated in the future are picked by id only, and
 * series never mix: `full` unless the name has only one other. Throws a `Failure` that lists the candidates.
 */
export function select(catalog: Catalog, selector: Selector, now: Date): Backup {
  if (selector.by === 'id') return selectId(catalog, selector.prefix);
  const series = seriesToUse(catalog.backups);
  const wanted = catalog.backups.filter(({ manifest }) => {
    const created = Date.parse(manifest.createdAt);
    if (manifest.series !== series || created > now.getTime() + futureMs || idTime(manifest) > now.getTime() + futureMs)
      return false;
    if (selector.by === 'label') return manifest.label === selector.label;
    if (manifest.label === safetyLabel) return false;
    if (selector.by === 'random') return created >= now.getTime() - selector.withinMs;
    return selector.by === 'latest' || created <= selector.time;
  });
  const chosen = wanted[selector.by === 'random' && wanted.length > 0 ? randomInt(wanted.length) : 0];
  if (chosen !== undefined) return chosen;
  const what =
    selector.by === 'latest'
      ? 'there is no backup yet'
      : selector.by === 'label'
        ? `no backup has the label ${selector.label}`
        : selector.by === 'random'
          ? `no backup is younger than ${formatSeconds(selector.withinMs / 1000)}`
          : `no backup is from ${new Date(selector.time).toISOString()} or earlier`;
  const distrusted = catalog.damaged.filter((entry) => entry.untrusted === true);
  if (distrusted.length > 0)
    throw new Failure(
      'locate',
      'verification',
      `${what}; ${formatCount(distrusted.length, 'backup')} here ${distrusted.length === 1 ? 'is' : 'are'} not trusted`,
      { hint: candidates(catalog) },
    );
  throw new Failure('locate', 'badInput', what, { hint: candidates(catalog) });
}

function seriesToUse(backups: readonly Backup[]): string {
  const series = new Set(backups.map(({ manifest }) => manifest.series));
  const [only] = series;
  return series.size === 1 && only !== undefined ? only : 'full';
}

function idTime(manifest: Manifest): number {
  return timeOfId(manifest.id) ?? 0;
}

function selectId(catalog: Catalog, prefix: string): Backup {
  const matches = catalog.backups.filter(({ manifest }) => manifest.id.startsWith(prefix));
  const [first, second] = matches;
  if (first !== undefined && second === undefined) return first;
  const broken = catalog.damaged.find((entry) => entry.id.startsWith(prefix));
  if (first === undefined && broken !== undefined)
    throw new Failure('locate', 'verification', describeDamaged(broken), { hint: candidates(catalog) });
  const what =
    first === undefined ? `there is no backup ${prefix}` : `${prefix} is the beginning of ${matches.length} ids`;
  throw new Failure('locate', 'badInput', what, { hint: candidates(catalog) });
}

/** `shop/20261121T020004Z-3f9a1c is not trusted: it is not signed` */
export function describeDamaged({ name, id, reason, untrusted }: Catalog['damaged'][number]): string {
  return `${name}/${id} is ${untrusted === true ? 'not trusted' : 'damaged'}: ${reason}`;
}

function candidates({ backups, damaged, unfinished }: Catalog): string {
  const lines = backups
    .slice(0, 5)
    .map(
      ({ manifest }) =>
        `  ${manifest.name}/${manifest.id}  ${manifest.createdAt}  ${manifest.series}  ${manifest.label}`,
    );
  if (lines.length === 0) lines.push('  no usable backup');
  if (backups.length > 5) lines.push(`  and ${backups.length - 5} older`);
  if (damaged.length > 0)
    lines.push(`  damaged: ${damaged.map((entry) => `${entry.id} (${entry.reason})`).join(', ')}`);
  if (unfinished.length > 0) lines.push(`  without a manifest: ${unfinished.map((entry) => entry.id).join(', ')}`);
  return `this is what there is:\n${lines.join('\n')}`;
}
