import { Failure } from './failure.ts';
import type { Census } from './manifest.ts';
import { BadSelection, entryKey, expression, select, type Wanted } from './postgres/archive-selection.ts';
import type { Toc, TocEntry } from './postgres/archive-toc.ts';
import { nameKey } from './postgres/names.ts';
import { BadPattern, parsePattern } from './postgres/pattern.ts';

/** Which rows and sequence positions of an archive are brought back, in the archive's order. */
export interface DataChoice {
  /** `TABLE DATA` */
  readonly rows: readonly TocEntry[];
  /** `SEQUENCE SET` */
  readonly positions: readonly TocEntry[];
}

const largeObjects = new Set(['BLOB', 'BLOBS', 'BLOB METADATA']);

/**
 * The rows of what was asked for: of tables with their partitions, children and sequences by the archive's own
 * dependencies, where it holds definitions; else by name alone. Throws a `Failure` (exit 2).
 */
export function chooseData({ entries }: Toc, wanted: Wanted): DataChoice {
  const whole = wanted.tables.length === 0 && wanted.schemas.length === 0;
  if (whole && entries.some((entry) => largeObjects.has(entry.kind)))
    throw refused(
      'the backup holds large objects, which are no rows of a table and cannot be put into a database that may have others of the same numbers',
      'schemas: * brings back the rows of all tables and leaves large objects as they are; a full restore brings both',
    );
  const chosen = whole ? wholeOf(entries) : partOf(entries, wanted);
  const rows = chosen.filter((entry) => entry.kind === 'TABLE DATA');
  const positions = chosen.filter((entry) => entry.kind === 'SEQUENCE SET');
  if (rows.length === 0 && positions.length === 0)
    throw refused('the backup has no rows of what was asked for', 'pgassay show lists what a backup holds');
  const inserts = rows.find((entry) => entry.copyStatement === '');
  if (inserts !== undefined) throw new Error('a backup of ours whose rows are not a COPY');
  return { rows, positions };
}

/** Rows of extensions' own tables have no definition in an archive that has definitions, and are the extension's. */
function wholeOf(entries: readonly TocEntry[]): TocEntry[] {
  const byId = new Map(entries.map((entry) => [entry.dumpId, entry]));
  const defined = entries.some((entry) => entry.kind === 'TABLE');
  return entries.filter(
    (entry) => isData(entry) && (!defined || entry.dependencies.some((id) => definesRelation(byId.get(id)))),
  );
}

function definesRelation(entry: TocEntry | undefined): boolean {
  return entry?.kind === 'TABLE' || entry?.kind === 'SEQUENCE';
}

function isData({ kind }: TocEntry): boolean {
  return kind === 'TABLE DATA' || kind === 'SEQUENCE SET';
}

function partOf(entries: readonly TocEntry[], wanted: Wanted): TocEntry[] {
  try {
    if (!entries.some((entry) => entry.kind === 'TABLE')) return byName(entries.filter(isData), wanted);
    // As if everything were there and were made again: then nothing is brought along that was not asked for.
    const existing = new Set(entries.map(entryKey));
    return select(entries, wanted, { existing, clean: true }).entries.filter(isData);
  } catch (error) {
    if (error instanceof BadSelection || error instanceof BadPattern)
      throw refused(error.message, 'pgassay show lists what a backup holds');
    throw error;
  }
}

/** A backup of rows alone knows no partitions and no owners of sequences. */
function byName(entries: readonly TocEntry[], { tables, schemas }: Wanted): TocEntry[] {
  const chosen = new Set<TocEntry>();
  for (const text of tables.length > 0 ? tables : schemas) {
    const { name, schema } = parsePattern(text, tables.length > 0 ? 3 : 2);
    const names = expression(text, name);
    const places = schema === undefined ? undefined : expression(text, schema);
    const found = entries.filter((entry) =>
      tables.length > 0
        ? names.test(entry.tag) && (places?.test(entry.schema ?? '') ?? true)
        : names.test(entry.schema ?? ''),
    );
    if (found.length === 0)
      throw new BadSelection(
        `the backup has no rows of ${text}${tables.length > 0 ? '; it holds rows alone, so partitions have to be named themselves' : ''}`,
      );
    for (const entry of found) chosen.add(entry);
  }
  return entries.filter((entry) => chosen.has(entry));
}

/** The census of these rows and positions alone. */
export function censusOfData({ rows, positions }: DataChoice, census: Census): Census {
  const keysOf = (entries: readonly TocEntry[]): Set<string> =>
    new Set(entries.map(({ schema, tag }) => nameKey({ schema: schema ?? '', name: tag })));
  const [tables, sequences] = [keysOf(rows), keysOf(positions)];
  return {
    ...census,
    tables: census.tables.filter((table) => tables.has(nameKey(table))),
    sequences: census.sequences.filter((sequence) => sequences.has(nameKey(sequence))),
    extensions: [],
    largeObjects: null,
  };
}

function refused(message: string, hint: string): Failure {
  return new Failure('restore', 'badInput', `${message}; nothing was changed`, { hint });
}
