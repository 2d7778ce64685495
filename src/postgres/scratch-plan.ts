import type { Finding } from '../verdict.ts';
import type { Toc, TocEntry } from './archive-toc.ts';
import { displayWord } from './names.ts';
import { describeContent, displayTag } from './restored-objects.ts';

/** What of an archive goes through pg_restore. */
export interface ScratchPlan {
  readonly entries: readonly TocEntry[];
  readonly leftOut: readonly string[];
  readonly skipped: readonly Finding[];
  /** Entries whose work the superuser does beforehand: schemas. */
  readonly schemas: readonly TocEntry[];
  /** Who owns what in which schema. */
  readonly owners: readonly { readonly schema: string; readonly owner: string }[];
  /** Rows and values of extensions' configuration tables and sequences. */
  readonly configuration: readonly TocEntry[];
}

/** They would reach the production server, or the machine's disks; or hold its passwords. */
const dangerous = new Set([
  'SUBSCRIPTION',
  'SUBSCRIPTION TABLE',
  'PUBLICATION',
  'PUBLICATION TABLE',
  'PUBLICATION TABLES IN SCHEMA',
  'USER MAPPING',
]);

/** `replaced` are owners whose objects the tester gets. */
export function planOf(
  { toc, skipExtensions }: { readonly toc: Toc; readonly skipExtensions: readonly string[] },
  replaced: ReadonlySet<string>,
): ScratchPlan {
  const byId = new Map(toc.entries.map((entry) => [entry.dumpId, entry]));
  const skip = new Set(skipExtensions);
  const reach = new Reach(toc.entries, byId);
  const entries: TocEntry[] = [];
  const leftOut: string[] = [];
  const skipped: Finding[] = [];
  const tables = new Set(toc.entries.filter((entry) => entry.kind === 'TABLE').map((entry) => entry.oid));
  for (const entry of toc.entries) {
    const about = /^(SUBSCRIPTION|PUBLICATION|EXTENSION|DATABASE) /.exec(entry.tag)?.[1];
    const annotates = entry.kind === 'COMMENT' || entry.kind === 'SECURITY LABEL' || entry.kind === 'ACL';
    if (dangerous.has(entry.kind)) {
      // Its tables go with a publication.
      if (!/^\w+ TABLE/.test(entry.kind)) leftOut.push(describeContent(entry));
    } else if (entry.kind === 'DEFAULT ACL' && replaced.has(entry.owner))
      leftOut.push(`default privileges of ${displayWord(entry.owner)}, who is powerful on the scratch server`);
    else if (entry.kind === 'MATERIALIZED VIEW DATA' && reach.foreign(entry))
      leftOut.push(`the rows of materialized view ${displayWord(entry.tag)}, which reads from another server`);
    else if (annotates && isOfOthers(entry, byId))
      leftOut.push(`${entry.kind} of ${displayTag(entry.tag)}, which belongs to an extension or to PostgreSQL`);
    else if (entry.kind === 'ACL' && /^SET SESSION AUTHORIZATION /m.test(entry.definition))
      leftOut.push(`grants on ${displayTag(entry.tag)}, some of them passed on by who is not its owner`);
    else if (entry.kind === 'EXTENSION' || entry.kind === 'SCHEMA' || /^DATABASE/.test(entry.kind)) continue;
    else if (annotates && about !== undefined) continue;
    else {
      const extension = reach.extension(entry, skip);
      if (extension === undefined) entries.push(entry);
      else
        skipped.push({
          object: `${entry.kind} ${displayWord(entry.tag)}`,
          expected: 'restored',
          found: `left out with the extension ${displayWord(extension)}`,
        });
    }
  }
  for (const name of skip)
    skipped.unshift({
      object: `extension ${displayWord(name)}`,
      expected: 'there',
      found: 'left out (skip-extensions)',
    });
  const owners = new Map<string, { schema: string; owner: string }>();
  for (const { schema, owner } of entries)
    if (schema !== null && owner !== '') owners.set(JSON.stringify([schema, owner]), { schema, owner });
  return {
    entries,
    leftOut,
    skipped,
    schemas: toc.entries.filter((entry) => entry.kind === 'SCHEMA'),
    owners: [...owners.values()],
    configuration: entries.filter(
      ({ kind, oid, dependencies }) =>
        (kind === 'TABLE DATA' && !tables.has(oid)) ||
        (kind === 'SEQUENCE SET' && !dependencies.some((id) => byId.has(id))),
    ),
  };
}

/** Of an object whose definition is not in the archive; the schema public is there without one. */
function isOfOthers({ tag, dependencies }: TocEntry, byId: ReadonlyMap<number, TocEntry>): boolean {
  return !/^(?:SCHEMA public$|LARGE OBJECTS? )/.test(tag) && !dependencies.some((id) => byId.has(id));
}

/** Functions of extensions that connect to somewhere. */
const connects = /\b(?:dblink\w*|http(?:_\w+)?|net\.http_\w+)\s*\(/i;

/** What an entry depends on, over any number of steps. */
class Reach {
  readonly #entries: ReadonlyMap<number, TocEntry>;
  /** Tables that have a foreign table for a partition or a child: to read them is to read it. */
  readonly #parents = new Set<number>();
  readonly #foreign = new Map<number, boolean>();
  readonly #extension = new Map<number, string | null>();

  constructor(all: readonly TocEntry[], entries: ReadonlyMap<number, TocEntry>) {
    this.#entries = entries;
    const isForeign = (id: number): boolean => entries.get(id)?.kind === 'FOREIGN TABLE';
    for (const { dumpId, kind, dependencies } of all)
      if (isForeign(dumpId) || (/ATTACH$/.test(kind) && dependencies.some(isForeign)))
        for (const id of dependencies) if (entries.get(id)?.kind === 'TABLE') this.#parents.add(id);
  }

  foreign(entry: TocEntry): boolean {
    const known = this.#foreign.get(entry.dumpId);
    if (known !== undefined) return known;
    this.#foreign.set(entry.dumpId, false);
    const found =
      entry.kind === 'FOREIGN TABLE' ||
      this.#parents.has(entry.dumpId) ||
      connects.test(entry.definition) ||
      this.#below(entry).some((each) => this.foreign(each));
    this.#foreign.set(entry.dumpId, found);
    return found;
  }

  /** The one of `names` that it needs. */
  extension(entry: TocEntry, names: ReadonlySet<string>): string | undefined {
    if (names.size === 0) return undefined;
    const known = this.#extension.get(entry.dumpId);
    if (known !== undefined) return known ?? undefined;
    this.#extension.set(entry.dumpId, null);
    let found = entry.kind === 'EXTENSION' && names.has(entry.tag) ? entry.tag : undefined;
    for (const each of this.#below(entry)) found ??= this.extension(each, names);
    this.#extension.set(entry.dumpId, found ?? null);
    return found;
  }

  #below(entry: TocEntry): TocEntry[] {
    return entry.dependencies.flatMap((id) => this.#entries.get(id) ?? []);
  }
}
