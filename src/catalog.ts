import { createHash, randomInt } from 'node:crypto';
import { safetyLabel, timeOfId } from './backup-id.ts';
import { Failure } from './failure.ts';
import { fileNames, type Manifest, parseManifest, UnreadableDocument } from './manifest.ts';
import { formatSeconds, parseDuration } from './numbers.ts';
import { proofPattern } from './proof.ts';
import type { Store } from './store/store.ts';

/** A backup that has a manifest, and the digest of that manifest's bytes. */
export interface Backup {
  readonly manifest: Manifest;
  readonly manifestSha256: string;
  /** What somebody did to its files after it was stored, where the store remembers; such a backup is whole all the same. */
  readonly tampering: readonly string[];
  /** Names of the proofs beside it, `proofs/<time>.json`, oldest first. */
  readonly proofs: readonly string[];
}

/** What a folder with a backup's id turned out to be. */
export type Entry =
  | { readonly kind: 'backup'; readonly backup: Backup }
  /** There is a manifest, but it cannot be used, or a file it names is missing or has another size. */
  | {
      readonly kind: 'damaged';
      readonly name: string;
      readonly id: string;
      readonly reason: string;
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

/** `files` is what the store has of it, where that is known already. */
export async function readBackup(
  store: Store,
  name: string,
  id: string,
  files?: ReadonlyMap<string, number>,
): Promise<Entry> {
  const sizes = files ?? (await store.files(name, id)).get(id);
  if (sizes?.has(fileNames.manifest) !== true) return { kind: 'unfinished', name, id };
  // The first version of a manifest that can be used is the backup: later ones are somebody else's.
  let damaged: Entry | undefined;
  for (let version = 0; ; version++) {
    const bytes = await store.read(`${name}/${id}/${fileNames.manifest}`, version);
    if (bytes === undefined) return damaged ?? { kind: 'unfinished', name, id };
    const entry = judge(store, { name, id }, bytes, sizes);
    if (entry.kind === 'backup') return entry;
    damaged ??= entry;
  }
}

function judge(
  store: Store,
  { name, id }: { readonly name: string; readonly id: string },
  bytes: Buffer,
  sizes: ReadonlyMap<string, number>,
): Entry {
  try {
    const manifest = parseManifest(bytes, { name, id });
    for (const file of manifest.files) {
      const size = sizes.get(file.name);
      if (size === undefined) return { kind: 'damaged', name, id, file: file.name, reason: `${file.name} is missing` };
      if (size !== file.bytes)
        return {
          ...{ kind: 'damaged', name, id, file: file.name },
          reason: `${file.name} has ${size} bytes instead of ${file.bytes}`,
        };
    }
    const tampering = [fileNames.manifest, ...manifest.files.map((file) => file.name)].flatMap((file) => {
      const history = store.history(`${name}/${id}/${file}`);
      // A second copy of a small data file is our own question whether the store overwrites.
      if (history === 'as written' || (history === 'overwritten' && file !== fileNames.manifest)) return [];
      return [`${file} was ${history} after it was stored`];
    });
    const manifestSha256 = createHash('sha256').update(bytes).digest('hex');
    const proofs = [...sizes.keys()].filter((file) => proofPattern.test(file)).sort();
    return { kind: 'backup', backup: { manifest, manifestSha256, tampering, proofs } };
  } catch (error) {
    if (!(error instanceof UnreadableDocument)) throw error;
    return { kind: 'damaged', name, id, reason: error.message };
  }
}

/** Everything under one name, or under every name of the store. */
export async function readCatalog(store: Store, name?: string): Promise<Catalog> {
  const names = name === undefined ? await store.names() : [name];
  const places = (
    await Promise.all(
      names.map(async (each) => [...(await store.files(each))].map(([id, files]) => ({ name: each, id, files }))),
    )
  ).flat();
  const entries: Entry[] = [];
  const waiting = places.entries();
  const reader = async (): Promise<void> => {
    for (const [at, { name, id, files }] of waiting) entries[at] = await readBackup(store, name, id, files);
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
export async function readRecent(store: Store, name: string, most: number): Promise<Backup[]> {
  const recent = [...(await store.files(name))].slice(-most);
  const entries = await Promise.all(recent.map(([id, files]) => readBackup(store, name, id, files)));
  return entries.flatMap((entry) => (entry.kind === 'backup' ? [entry.backup] : []));
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** The name asked for, else the only one of the store. Throws a `Failure` that lists them. */
export async function requireName(store: Store, name: string | undefined): Promise<string> {
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
    throw new Failure('locate', 'verification', `${broken.name}/${broken.id} is damaged: ${broken.reason}`, {
      hint: candidates(catalog),
    });
  const what =
    first === undefined ? `there is no backup ${prefix}` : `${prefix} is the beginning of ${matches.length} ids`;
  throw new Failure('locate', 'badInput', what, { hint: candidates(catalog) });
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
