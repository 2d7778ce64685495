import { Failure } from './failure.ts';
import type { Census } from './manifest.ts';
import { formatCount } from './numbers.ts';
import {
  BadSelection,
  entryKey,
  inDroppableOrder,
  inTheWay,
  type Obstacle,
  redefined,
  type Selection,
  select,
  selectAll,
  type Wanted,
} from './postgres/archive-selection.ts';
import type { Toc, TocEntry } from './postgres/archive-toc.ts';
import { displayWord, nameKey, sqlWord } from './postgres/names.ts';
import { BadPattern } from './postgres/pattern.ts';
import { describeContent } from './postgres/restored-objects.ts';
import { describeObjects, type TargetObject } from './postgres/target-checks.ts';

/** What a user wants restored, and what may be done to the target for it. */
export interface RestoreRequest {
  readonly database: string;
  readonly wanted: Wanted;
  readonly mode: 'full' | 'schema-only';
  readonly clean: boolean;
  /** The user has typed the target database's name. */
  readonly confirmed: boolean;
}

/** What a restore takes out of the archive. */
export interface Choice {
  /** Undefined: all of it, as pg_restore does it, into a database that is empty. */
  readonly only: readonly TocEntry[] | undefined;
  /** What is there of it is dropped first. */
  readonly clean: boolean;
  /** The target holds something, which has to be there still if anything fails. */
  readonly occupied: boolean;
  /** What the target must hold afterwards, of what is restored. */
  readonly census: Census;
  /** What pointed at it and cannot come back. */
  readonly leftOut: readonly TocEntry[];
  /** What is dropped and is not what comes back. */
  readonly redefined: readonly TocEntry[];
}

/** Rows and values. */
const dataKinds = new Set([
  ...['TABLE DATA', 'SEQUENCE SET', 'MATERIALIZED VIEW DATA', 'STATISTICS DATA'],
  ...['BLOB', 'BLOBS', 'BLOB METADATA'],
]);

/** Every database has it, and most archives do not name it. */
const publicSchema = entryKey({ kind: 'SCHEMA', schema: null, tag: 'public' });

/**
 * What to restore into a target that holds `objects`. `readTarget` reads its table of contents; it is asked only when
 * something is there. Throws a `Failure` (exit 2) that says what stands in the way; nothing was changed then.
 */
export async function choose(
  request: RestoreRequest,
  { toc, census }: { readonly toc: Toc; readonly census: Census },
  objects: readonly TargetObject[],
  readTarget: () => Promise<Toc>,
): Promise<Choice> {
  const { database, wanted, mode, clean, confirmed } = request;
  const whole = wanted.tables.length === 0 && wanted.schemas.length === 0;
  if (objects.length === 0) {
    if (whole && mode === 'full')
      return { only: undefined, clean: false, occupied: false, census, leftOut: [], redefined: [] };
    const selection = selected(toc, wanted, { existing: new Set([publicSchema]), clean: false });
    return chosen(selection, { mode, clean: false, occupied: false, census });
  }
  const name = displayWord(database);
  if (whole && !clean)
    throw refused(
      `the database ${name} is not empty: it has ${describeObjects(objects)}`,
      `restore into a database that does not exist yet (it is created) or an empty one, look at it, then switch over; or say clean: true and confirm: ${name} to have what the backup holds replaced here`,
    );
  if (!confirmed)
    throw refused(
      `the database ${name} is not empty: it has ${describeObjects(objects)}`,
      `say that this one is meant with confirm: ${name}`,
    );
  const subscriptions = objects.filter((each) => each.kind === 'subscription ');
  if (clean && subscriptions.length > 0)
    throw refused(
      `${name} has ${describeObjects(subscriptions)}, which would go on writing into it`,
      `detach it first, without touching the publisher's slot:\n${subscriptions.flatMap((each) => detaching(each.name)).join('\n')}`,
    );
  const target = await readTarget();
  const existing = new Set([publicSchema, ...target.entries.map(entryKey)]);
  const selection = selected(toc, wanted, { existing, clean });
  if (!clean && selection.existing.length > 0)
    throw refused(
      `${name} has ${listed(selection.existing)} already`,
      `rename it there (ALTER TABLE … RENAME TO …) to compare the two, or say clean: true to have it dropped and restored`,
    );
  const choice = chosen(selection, { mode, clean, occupied: true, census });
  if (clean) requireRows(choice, existing, name);
  const obstacles = inTheWay(target.entries, choice.only ?? [], { clean });
  if (obstacles.length > 0) throw obstructed(name, obstacles);
  return { ...choice, redefined: clean ? redefined(target.entries, choice.only ?? []) : [] };
}

/** A table that would be dropped, and come back empty because the backup, or what was asked of it, has no rows of it. */
function requireRows({ only = [], census }: Choice, existing: ReadonlySet<string>, name: string): void {
  const empty = new Set(census.tables.filter((table) => !table.data).map(nameKey));
  const lost = only.filter(
    (entry) =>
      entry.kind === 'TABLE' &&
      existing.has(entryKey(entry)) &&
      empty.has(nameKey({ schema: entry.schema ?? '', name: entry.tag })) &&
      // Its rows are its partitions'.
      !/\nPARTITION BY /.test(entry.definition),
  );
  if (lost.length === 0) return;
  throw refused(
    `${name} would lose the rows of ${listed(lost)}: what is restored holds their definitions only`,
    'restore the definitions into another database, or take a backup that holds the rows',
  );
}

function selected(toc: Toc, wanted: Wanted, target: { existing: ReadonlySet<string>; clean: boolean }): Selection {
  try {
    const whole = wanted.tables.length === 0 && wanted.schemas.length === 0;
    return whole ? selectAll(toc.entries, target.existing) : select(toc.entries, wanted, target);
  } catch (error) {
    if (error instanceof BadSelection || error instanceof BadPattern)
      throw refused(error.message, 'pgassay show lists what a backup holds');
    throw error;
  }
}

function chosen(
  { entries, leftOut }: Selection,
  parts: {
    readonly mode: RestoreRequest['mode'];
    readonly clean: boolean;
    readonly occupied: boolean;
    readonly census: Census;
  },
): Choice {
  const { mode, clean, occupied, census } = parts;
  const kept = mode === 'full' ? entries : entries.filter((entry) => !dataKinds.has(entry.kind));
  const only = clean ? inDroppableOrder(kept) : kept;
  return { only, clean, occupied, census: censusOf(only, census), leftOut, redefined: [] };
}

/** The census of these entries alone; large objects of somebody else may be in the target too, and are not counted. */
function censusOf(entries: readonly TocEntry[], census: Census): Census {
  const keysOf = (kind: string): Set<string> =>
    new Set(
      entries
        .filter((entry) => entry.kind === kind)
        .map((entry) => nameKey({ schema: entry.schema ?? '', name: entry.tag })),
    );
  const [tables, data, sequences] = [keysOf('TABLE'), keysOf('TABLE DATA'), keysOf('SEQUENCE SET')];
  const extensions = new Set(entries.filter((entry) => entry.kind === 'EXTENSION').map((entry) => entry.tag));
  const names = (role: string): boolean =>
    entries.some(
      ({ owner, kind, definition }) => owner === role || (needsRoles.has(kind) && definition.includes(role)),
    );
  return {
    ...census,
    tables: census.tables
      .filter((table) => tables.has(nameKey(table)))
      .map((table) => {
        const { schema, name } = table;
        return data.has(nameKey(table)) ? table : { schema, name, rows: 0, archiveRows: 0, data: false };
      }),
    sequences: census.sequences.filter((sequence) => sequences.has(nameKey(sequence))),
    contents: entries.map(({ kind, schema, tag, owner }) => ({ kind, schema, tag, owner })),
    extensions: census.extensions.filter((each) => extensions.has(each.name)),
    roles: census.roles.filter(names),
    largeObjects: null,
  };
}

const needsRoles = new Set(['ACL', 'DEFAULT ACL', 'POLICY']);

function obstructed(name: string, obstacles: readonly Obstacle[]): Failure {
  const shown = obstacles.slice(0, 20).map(({ entry, why }) => `  ${describeContent(entry)}: ${why}`);
  if (obstacles.length > 20) shown.push(`  and ${obstacles.length - 20} more`);
  return refused(
    `${formatCount(obstacles.length, 'object')} of ${name} stand${obstacles.length === 1 ? 's' : ''} in the way, and ${obstacles.length === 1 ? 'is' : 'are'} not part of what is restored\n${shown.join('\n')}`,
    'drop or rename them if they can go, and make them again afterwards; or restore into another database',
  );
}

export function listed(entries: readonly TocEntry[]): string {
  const shown = entries.slice(0, 10).map(describeContent).join(', ');
  return entries.length > 10 ? `${shown} and ${entries.length - 10} more` : shown;
}

function detaching(subscription: string): string[] {
  const name = sqlWord(subscription);
  return [
    `  ALTER SUBSCRIPTION ${name} DISABLE;`,
    `  ALTER SUBSCRIPTION ${name} SET (slot_name = NONE);`,
    `  DROP SUBSCRIPTION ${name};`,
  ];
}

function refused(message: string, hint: string): Failure {
  return new Failure('restore', 'badInput', `${message}; nothing was changed`, { hint });
}

/**
 * Where a provider has created the extensions, they are his, and only he may comment on them; their comments are the
 * same everywhere.
 */
export function withoutExtensionComments(entries: readonly TocEntry[]): TocEntry[] {
  return entries.filter(({ kind, tag }) => kind !== 'COMMENT' || !tag.startsWith('EXTENSION '));
}
