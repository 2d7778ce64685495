import type { Census, CensusTable } from './manifest.ts';

/** One thing that is not as it was recorded. */
export interface Finding {
  /** `public.users`, `sequence public.users_id_seq`, `database.dump` */
  readonly object: string;
  readonly expected: string;
  readonly found: string;
}

/** A table as the server counted it in the snapshot. */
export interface Counted {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly object: string;
  readonly data: boolean;
  /** The archive must hold its definition. */
  readonly defined: boolean;
  /** Undefined: not counted, though it has data. */
  readonly rows: number | undefined;
  readonly digest: string | undefined;
}

/** What the archive was found to hold, reduced to what is compared. */
export interface Held {
  readonly tables: ReadonlyMap<number, { readonly schema: string; readonly name: string; readonly rows: number }>;
  readonly defined: ReadonlySet<number>;
}

/**
 * Compares the snapshot with the archive: every table defined, every table's rows equal, nothing extra. No finding
 * means that the archive is the snapshot.
 */
export function compareCensus(counted: readonly Counted[], held: Held): Finding[] {
  const findings: Finding[] = [];
  const known = new Set<number>();
  for (const table of counted) {
    known.add(table.oid);
    if (table.defined && !held.defined.has(table.oid))
      findings.push({ object: table.object, expected: 'its definition', found: 'no definition in the archive' });
    const archived = held.tables.get(table.oid);
    if (!table.data) {
      if (archived !== undefined)
        findings.push({
          object: table.object,
          expected: 'structure only',
          found: `${archived.rows} rows in the archive`,
        });
    } else if (archived === undefined) {
      findings.push({ object: table.object, expected: rowsText(table.rows), found: 'no rows section in the archive' });
    } else if (table.rows === undefined) {
      findings.push({ object: table.object, expected: 'a count on the server', found: 'none' });
    } else if (archived.rows !== table.rows) {
      findings.push({ object: table.object, expected: rowsText(table.rows), found: rowsText(archived.rows) });
    }
  }
  for (const [oid, table] of held.tables) {
    if (known.has(oid)) continue;
    const object = `${table.schema}.${table.name}`;
    findings.push({ object, expected: 'nothing, it is not in the census', found: rowsText(table.rows) });
  }
  return findings;
}

function rowsText(rows: number | undefined): string {
  if (rows === undefined) return 'its rows';
  return rows === 1 ? '1 row' : `${rows} rows`;
}

/** The census's table list, from what both sides counted. */
export function censusTables(counted: readonly Counted[], held: Held): CensusTable[] {
  return counted.map((table) => {
    const archiveRows = held.tables.get(table.oid)?.rows ?? 0;
    return {
      schema: table.schema,
      name: table.name,
      rows: table.data ? (table.rows ?? archiveRows) : 0,
      archiveRows,
      data: table.data,
      ...(table.digest === undefined ? {} : { digest: table.digest }),
    };
  });
}

/** `a: expected b, found c`, the first few of many, one a line. */
export function describeFindings(findings: readonly Finding[], most = 10): string {
  const lines = findings
    .slice(0, most)
    .map((finding) => `  ${finding.object}: expected ${finding.expected}, found ${finding.found}`);
  if (findings.length > most) lines.push(`  and ${findings.length - most} more`);
  return lines.join('\n');
}

/** One table of the census beside what a restored database holds. */
export interface Recorded {
  readonly schema: string;
  readonly name: string;
  readonly object: string;
  readonly recorded: number;
  /** Undefined: the table is not there. */
  readonly found: number | undefined;
}

/** What a restored database was found to hold; keys are `nameKey`s. */
export interface RestoredState {
  readonly tables: ReadonlyMap<string, { readonly rows: number; readonly digest?: string }>;
  readonly sequences: ReadonlyMap<string, { readonly value: string; readonly called: boolean }>;
  readonly largeObjects: number;
  /** How an object is written for people, and what finds it in the maps. */
  readonly show: (name: { readonly schema: string; readonly name: string }) => string;
  readonly key: (name: { readonly schema: string; readonly name: string }) => string;
}

/** Every table's rows (and digest), every sequence and the large objects, as recorded and as restored. */
export function compareRestored(
  census: Census,
  restored: RestoredState,
): { readonly compared: Recorded[]; readonly findings: Finding[] } {
  const findings: Finding[] = [];
  const compared: Recorded[] = [];
  for (const table of census.tables) {
    const object = restored.show(table);
    const found = restored.tables.get(restored.key(table));
    compared.push({ schema: table.schema, name: table.name, object, recorded: table.rows, found: found?.rows });
    if (found?.rows !== table.rows)
      findings.push({
        object,
        expected: rowsText(table.rows),
        found: found === undefined ? 'no such table' : rowsText(found.rows),
      });
    else if (table.digest !== undefined && table.digest !== found.digest)
      findings.push({ object, expected: 'the digest recorded', found: 'another digest: values differ' });
  }
  for (const sequence of census.sequences) {
    const found = restored.sequences.get(restored.key(sequence));
    if (found?.value === sequence.value && found.called === sequence.called) continue;
    findings.push({
      object: `sequence ${restored.show(sequence)}`,
      expected: `${sequence.value}, ${sequence.called ? 'called' : 'not called'}`,
      found: found === undefined ? 'no such sequence' : `${found.value}, ${found.called ? 'called' : 'not called'}`,
    });
  }
  if (census.largeObjects !== null && census.largeObjects !== restored.largeObjects)
    findings.push({ object: 'large objects', expected: `${census.largeObjects}`, found: `${restored.largeObjects}` });
  return { compared, findings };
}
