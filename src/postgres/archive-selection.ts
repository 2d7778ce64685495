/**
 * Which entries of an archive a restore takes, and what of a target they would run over: pure, by the dependencies in the
 * tables of contents of both. `pg_restore --table` restores no key, sequence, foreign key or view, and says nothing of it.
 */
import type { TocEntry } from './archive-toc.ts';
import { displayName, displayWord } from './names.ts';
import { parsePattern } from './pattern.ts';

/** What was asked for; patterns as pg_dump's options take them. Both empty: everything. */
export interface Wanted {
  readonly tables: readonly string[];
  readonly schemas: readonly string[];
}

export interface Selection {
  /** In an order in which they can be restored: the archive's, but for partitions of a parent that is not among them. */
  readonly entries: readonly TocEntry[];
  /** What was asked for, holds rows or was named itself, and is in the target already. */
  readonly existing: readonly TocEntry[];
  /** What pointed at them and cannot come back, because the target lacks something else that it needs. */
  readonly leftOut: readonly TocEntry[];
}

/** The request cannot be met; the message is a sentence for the user. */
export class BadSelection extends Error {}

/** The same for the same object in two tables of contents. */
export function entryKey({ kind, schema, tag }: Pick<TocEntry, 'kind' | 'schema' | 'tag'>): string {
  return JSON.stringify([kind, schema, tag]);
}

const relations = new Set(['TABLE', 'FOREIGN TABLE', 'VIEW', 'MATERIALIZED VIEW', 'SEQUENCE']);
/** They hold or show rows of their own: they come when they are asked for, never because somebody needs them. */
const askedFor = new Set(['TABLE', 'FOREIGN TABLE', 'VIEW', 'MATERIALIZED VIEW']);
const holdsRows = new Set(['TABLE', 'FOREIGN TABLE', 'MATERIALIZED VIEW']);
const beforeAttaching = new Set(['TABLE', 'TABLE DATA', 'CONSTRAINT', 'INDEX', 'INDEX ATTACH']);
/** Go wherever their object goes. */
const attributes = new Set([
  ...['ACL', 'COMMENT', 'SECURITY LABEL', 'SEQUENCE SET', 'SEQUENCE OWNED BY', 'TABLE DATA', 'MATERIALIZED VIEW DATA'],
  ...['DEFAULT', 'ROW SECURITY', 'STATISTICS DATA'],
]);
/** Parts of a relation, and what points at one from elsewhere. */
const dependents = new Set([
  ...['CONSTRAINT', 'CHECK CONSTRAINT', 'FK CONSTRAINT', 'INDEX', 'INDEX ATTACH', 'TABLE ATTACH', 'TRIGGER', 'RULE'],
  ...['POLICY', 'STATISTICS', 'PUBLICATION TABLE', 'SEQUENCE', 'VIEW', 'MATERIALIZED VIEW'],
  ...['FUNCTION', 'PROCEDURE', 'AGGREGATE'],
]);
/** Never dropped to be made again: what is in them or belongs to them is not all ours. */
const kept = new Set(['SCHEMA', 'EXTENSION', 'PROCEDURAL LANGUAGE', 'SUBSCRIPTION']);

/** Everything in the archive, but for schemas and extensions that are there, and what is said about extensions. */
export function selectAll(archive: readonly TocEntry[], existing: ReadonlySet<string>): Selection {
  const byId = new Map(archive.map((entry) => [entry.dumpId, entry]));
  const stays = (entry: TocEntry): boolean => kept.has(entry.kind) && existing.has(entryKey(entry));
  const keepsExtensions = archive.some((entry) => entry.kind === 'EXTENSION' && stays(entry));
  const entries = archive.filter((entry) => {
    if (isAboutDatabase(entry) || stays(entry)) return false;
    // What is said about an extension that stays, and the rows that its own tables have.
    if (entry.kind === 'TABLE DATA' || entry.kind === 'SEQUENCE SET')
      return !keepsExtensions || entry.dependencies.some((id) => isRelation(byId.get(id)));
    if (entry.kind !== 'COMMENT') return true;
    return !entry.dependencies.some((id) => {
      const about = byId.get(id);
      return about !== undefined && stays(about);
    });
  });
  return { entries, existing: entries.filter((each) => isRelation(each) && existing.has(entryKey(each))), leftOut: [] };
}

/**
 * What was asked for with all that belongs to it, what it needs and the target (`existing`) lacks, and what pointed at it
 * and is missing there. With `clean`, what points at it comes even if it is there, to be dropped and made again. Throws
 * {@link BadSelection}.
 */
export function select(
  archive: readonly TocEntry[],
  wanted: Wanted,
  { existing, clean }: { readonly existing: ReadonlySet<string>; readonly clean: boolean },
): Selection {
  const selector = new Selector(archive, existing, clean);
  const seeds = wanted.tables.length > 0 ? seedTables(archive, wanted.tables) : seedSchemas(archive, wanted.schemas);
  return selector.select(seeds, wanted.tables.length > 0);
}

class Selector {
  readonly #archive: readonly TocEntry[];
  readonly #byId: ReadonlyMap<number, TocEntry>;
  readonly #existing: ReadonlySet<string>;
  readonly #clean: boolean;
  readonly #selected = new Set<number>();

  constructor(archive: readonly TocEntry[], existing: ReadonlySet<string>, clean: boolean) {
    this.#archive = withWholeViews(archive.filter((entry) => !isAboutDatabase(entry)));
    this.#byId = new Map(this.#archive.map((entry) => [entry.dumpId, entry]));
    this.#existing = existing;
    this.#clean = clean;
  }

  /** `byName`: each of them was asked for by its own name, not by that of its schema. */
  select(seeds: readonly TocEntry[], byName: boolean): Selection {
    const asked = this.#withChildren(seeds.flatMap((seed) => this.#byId.get(seed.dumpId) ?? []));
    for (const entry of asked) if (this.#wants(entry)) this.#selected.add(entry.dumpId);
    for (const entry of asked) this.#bringNeeds(entry);
    const leftOut = this.#bringDependents();
    const entries = this.#archive.filter((entry) => this.#selected.has(entry.dumpId));
    const existing = asked.filter((each) => this.#has(each) && (byName ? isRelation(each) : holdsRows.has(each.kind)));
    return { entries: this.#attachedLast(entries), existing, leftOut };
  }

  /**
   * A partition that is attached to a parent outside of the selection gets the parent's indexes made, unless it has them
   * already: then they are taken for what they are, and attaching them once more does nothing.
   */
  #attachedLast(entries: readonly TocEntry[]): TocEntry[] {
    const outside = new Set(
      entries.filter(
        ({ kind, dependencies }) =>
          (kind === 'TABLE ATTACH' || kind === 'INDEX ATTACH') &&
          dependencies.some((id) => this.#byId.get(id)?.kind === 'TABLE' && !this.#selected.has(id)),
      ),
    );
    const rest = entries.filter((entry) => !outside.has(entry));
    const at = 1 + rest.findLastIndex(({ kind }) => beforeAttaching.has(kind));
    return [...rest.slice(0, at), ...outside, ...rest.slice(at)];
  }

  /** What is there stays as it is, unless all is to be made again. */
  #wants(entry: TocEntry): boolean {
    return !this.#has(entry) || (this.#clean && !kept.has(entry.kind));
  }

  #has(entry: TocEntry): boolean {
    return this.#existing.has(entryKey(entry));
  }

  /** Partitions, and tables that inherit, in the archive's order. */
  #withChildren(seeds: readonly TocEntry[]): TocEntry[] {
    const asked = new Set(seeds);
    const attached = new Map(
      this.#archive.filter((entry) => entry.kind === 'TABLE ATTACH').map((entry) => [nameOf(entry), entry]),
    );
    for (let before = -1; before !== asked.size; ) {
      before = asked.size;
      for (const entry of this.#archive) {
        if (entry.kind !== 'TABLE' && entry.kind !== 'FOREIGN TABLE') continue;
        const parents = /\bINHERITS \(/.test(entry.definition) ? entry.dependencies : [];
        const partitioned = attached.get(nameOf(entry))?.dependencies ?? [];
        const isChild = [...parents, ...partitioned].some((id) => {
          const parent = this.#byId.get(id);
          return parent !== undefined && parent !== entry && parent.kind === 'TABLE' && asked.has(parent);
        });
        if (isChild) asked.add(entry);
      }
    }
    return this.#archive.filter((entry) => asked.has(entry));
  }

  #bringNeeds(entry: TocEntry): void {
    const missing: TocEntry[] = [];
    const needs = this.#missingFor(entry, missing);
    if (needs === undefined) for (const need of missing) this.#selected.add(need.dumpId);
    // Parts of a relation that cannot come are left out and named; a relation without what it needs is nothing.
    else if (this.#selected.has(entry.dumpId) && isRelation(entry))
      throw new BadSelection(
        `${describe(entry)} needs ${describe(needs)}, which is neither in the target nor among what was asked for`,
      );
    else this.#selected.delete(entry.dumpId);
  }

  /** Gathers in `bring` what has to come along; returns what cannot. */
  #missingFor(entry: TocEntry, bring: TocEntry[], seen = new Set<number>()): TocEntry | undefined {
    for (const id of entry.dependencies) {
      const need = this.#byId.get(id);
      if (need === undefined || seen.has(id) || this.#selected.has(id) || this.#has(need)) continue;
      seen.add(id);
      if (askedFor.has(need.kind)) return need;
      const beyond = this.#missingFor(need, bring, seen);
      if (beyond !== undefined) return beyond;
      bring.push(need);
    }
    return undefined;
  }

  /** Until nothing more comes. Returns what pointed at a relation and cannot come. */
  #bringDependents(): TocEntry[] {
    const leftOut = new Set<TocEntry>();
    for (let before = -1; before !== this.#selected.size; ) {
      before = this.#selected.size;
      leftOut.clear();
      for (const entry of this.#archive) {
        if (this.#selected.has(entry.dumpId) || !this.#follows(entry)) continue;
        const bring: TocEntry[] = [];
        if (this.#missingFor(entry, bring) !== undefined) leftOut.add(entry);
        else for (const each of [...bring, entry]) this.#selected.add(each.dumpId);
      }
    }
    return [...leftOut].filter((entry) => !attributes.has(entry.kind));
  }

  #follows(entry: TocEntry): boolean {
    const on = entry.dependencies.filter((id) => this.#selected.has(id));
    if (attributes.has(entry.kind)) return on.length > 0;
    if (!dependents.has(entry.kind) || (this.#has(entry) && !this.#clean)) return false;
    return on.some((id) => isRelation(this.#byId.get(id)));
  }
}

/**
 * `pg_restore --clean` drops in the reverse of the order in which it restores, and the server refuses to drop a partition's
 * primary key before its parent's is gone, which takes it along. So the constraints of partitions come before their parents'.
 */
export function inDroppableOrder(entries: readonly TocEntry[]): TocEntry[] {
  const constraints = new Map(
    entries.filter((entry) => entry.kind === 'CONSTRAINT').map((entry) => [entry.dumpId, entry]),
  );
  const related = new Set<TocEntry>();
  for (const entry of constraints.values())
    for (const id of entry.dependencies) {
      const parent = constraints.get(id);
      if (parent !== undefined) related.add(entry).add(parent);
    }
  const reversed = entries.filter((entry) => related.has(entry)).reverse();
  return entries.map((entry) => (related.has(entry) ? (reversed.shift() ?? entry) : entry));
}

/** In the way of a restore: an object of the target, and why. */
export interface Obstacle {
  readonly entry: TocEntry;
  readonly why: 'depends on what is dropped' | 'has the name of something else';
}

/** What goes unsaid when its table is dropped and made again. */
const incidental = new Set([...attributes, 'INDEX ATTACH', 'DEFAULT ACL'].filter((kind) => kind !== 'ROW SECURITY'));

/**
 * What the target holds that dropping `entries` there would break or take along, or whose name they need. Without CASCADE
 * the server refuses the former too, but for indexes, triggers, partitions and the like, which go silently with their table.
 */
export function inTheWay(
  target: readonly TocEntry[],
  entries: readonly TocEntry[],
  { clean }: { readonly clean: boolean },
): Obstacle[] {
  const ours = new Set(entries.map(entryKey));
  const names = new Set(entries.filter(hasRelationName).map(nameOf));
  const dropped = new Set<number>();
  if (clean) for (const entry of target) if (ours.has(entryKey(entry))) dropped.add(entry.dumpId);
  const broken = new Set(dropped);
  for (let before = -1; before !== broken.size; ) {
    before = broken.size;
    for (const entry of target) if (entry.dependencies.some((id) => broken.has(id))) broken.add(entry.dumpId);
  }
  return target.flatMap((entry): Obstacle[] => {
    if (ours.has(entryKey(entry)) || isAboutDatabase(entry)) return [];
    if (broken.has(entry.dumpId) && !incidental.has(entry.kind)) return [{ entry, why: 'depends on what is dropped' }];
    if (hasRelationName(entry) && names.has(nameOf(entry))) return [{ entry, why: 'has the name of something else' }];
    return [];
  });
}

/**
 * pg_dump writes a view that needs a primary key (GROUP BY it) as an empty one and, later, its rule `_RETURN`: the view
 * then needs what its rule needs.
 */
function withWholeViews(archive: readonly TocEntry[]): TocEntry[] {
  const rules = new Map(
    archive.filter(({ kind, tag }) => kind === 'RULE' && tag.endsWith(' _RETURN')).map((rule) => [nameOf(rule), rule]),
  );
  return archive.map((entry) => {
    if (entry.kind !== 'VIEW') return entry;
    const rule = rules.get(JSON.stringify([entry.schema, `${entry.tag} _RETURN`]));
    if (rule === undefined) return entry;
    const needs = rule.dependencies.filter((id) => id !== entry.dumpId);
    return { ...entry, dependencies: [...entry.dependencies, ...needs] };
  });
}

/** Of what is dropped, the objects that are not what the archive makes again: a column that was added since is lost. */
export function redefined(target: readonly TocEntry[], entries: readonly TocEntry[]): TocEntry[] {
  const there = new Map(target.map((entry) => [entryKey(entry), entry.definition]));
  return entries.filter((entry) => {
    const now = there.get(entryKey(entry));
    return now !== undefined && !attributes.has(entry.kind) && now !== entry.definition;
  });
}

function seedTables(archive: readonly TocEntry[], patterns: readonly string[]): TocEntry[] {
  const seeds = new Set<TocEntry>();
  for (const text of patterns) {
    const { name, schema } = parsePattern(text, 3);
    const [names, schemas] = [expression(text, name), schema === undefined ? undefined : expression(text, schema)];
    const found = archive.filter(
      (entry) => isRelation(entry) && names.test(entry.tag) && (schemas?.test(entry.schema ?? '') ?? true),
    );
    if (found.length === 0) throw new BadSelection(`the backup has no table ${text}`);
    const places = new Set(found.map((entry) => entry.schema));
    if (schemas === undefined && places.size > 1)
      throw new BadSelection(
        `${text} is in several schemas (${[...places].map((each) => displayWord(each ?? '')).join(', ')}): write schema.table`,
      );
    for (const entry of found) seeds.add(entry);
  }
  return [...seeds];
}

function seedSchemas(archive: readonly TocEntry[], patterns: readonly string[]): TocEntry[] {
  const seeds = new Set<TocEntry>();
  for (const text of patterns) {
    const names = expression(text, parsePattern(text, 2).name);
    const found = archive.filter(
      (entry) => names.test(entry.schema ?? '') || (entry.kind === 'SCHEMA' && names.test(entry.tag)),
    );
    if (found.length === 0) throw new BadSelection(`the backup has no schema ${text}`);
    for (const entry of found) if (!attributes.has(entry.kind)) seeds.add(entry);
  }
  return [...seeds];
}

/** Throws {@link BadSelection}. */
export function expression(text: string, pattern: string): RegExp {
  try {
    return new RegExp(pattern, 'su');
  } catch {
    throw new BadSelection(`${text} is no pattern: put names with special characters into double quotes`);
  }
}

function isRelation(entry: TocEntry | undefined): boolean {
  return entry !== undefined && relations.has(entry.kind);
}

function hasRelationName({ kind }: TocEntry): boolean {
  return relations.has(kind) || kind === 'INDEX' || kind === 'TYPE' || kind === 'DOMAIN';
}

function nameOf({ schema, tag }: TocEntry): string {
  return JSON.stringify([schema, tag]);
}

/** Only `pg_restore --create` uses these. */
function isAboutDatabase({ kind, tag }: TocEntry): boolean {
  if (kind === 'DATABASE' || kind === 'DATABASE PROPERTIES') return true;
  return (kind === 'ACL' || kind === 'COMMENT' || kind === 'SECURITY LABEL') && tag.startsWith('DATABASE ');
}

function describe({ kind, schema, tag }: TocEntry): string {
  return `${kind} ${schema === null ? displayWord(tag) : displayName({ schema, name: tag })}`;
}
