import { cancelled, Failure } from './failure.ts';
import type { Log } from './log.ts';
import { type Machine, type ProgramChoice, programsFor, withPrivateFolder } from './machine.ts';
import { type Census, fileNames, type Manifest, parseCensus, plainName, UnreadableDocument } from './manifest.ts';
import { type Archive, ArchiveDecoder } from './postgres/archive.ts';
import { displayName, nameKey } from './postgres/names.ts';
import { damaged, fileOf, readSmall, readWhole, type StoredBackup, warnUnneeded } from './stored-files.ts';
import { describeFindings, type Finding } from './verdict.ts';

export interface Verified {
  readonly manifest: Manifest;
  readonly census: Census;
  /** Bytes read back from the store. */
  readonly bytes: number;
  /** Whose identity opened it, or `passphrase`; null where it is not encrypted. */
  readonly recipient: string | null;
}

/**
 * Reads a backup back from its store, every byte: sizes and SHA-256 of all files against the manifest, the dump through
 * pg_restore to its end, its rows and sequences against the census. Throws a `Failure` (exit 40, or 41 without the key)
 * that names what is wrong.
 */
export async function verify(
  from: StoredBackup,
  choice: ProgramChoice,
  machine: Machine,
  io: { readonly log: Log; readonly signal: AbortSignal },
): Promise<Verified> {
  const { manifest } = from;
  warnUnneeded(manifest, from.keys, io.log);
  const census = await readCensus(from);
  const programs = await programsFor(manifest, choice, machine, io);
  let bytes = fileOf(manifest, fileNames.census).bytes;
  for (const name of manifest.files.map(plainName)) {
    if (name === fileNames.dump || name === fileNames.census) continue;
    bytes += (await readWhole(from, name, io.signal, async () => {})).bytes;
  }
  const dump = await withPrivateFolder(machine, async (folder) => {
    const decoder = await ArchiveDecoder.start(programs, folder);
    const stop = (): void => void decoder.stop();
    io.signal.addEventListener('abort', stop, { once: true });
    try {
      let trouble: unknown;
      const read = await readWhole(from, fileNames.dump, io.signal, async (chunk) => {
        // A changed byte shows in the checksum too, which says more: read on to the end for it.
        if (trouble === undefined) await decoder.write(chunk).catch((error: unknown) => (trouble = error));
      });
      if (trouble !== undefined) throw trouble;
      requireSame(manifest, await decoder.finish(), census);
      return read;
    } catch (error) {
      if (io.signal.aborted) throw cancelled('verify');
      throw error;
    } finally {
      io.signal.removeEventListener('abort', stop);
      await decoder.stop();
    }
  });
  return { manifest, census, bytes: bytes + dump.bytes, recipient: dump.recipient };
}

/** The census of a backup, its checksum checked. Throws a `Failure` (exit 40 or 41). */
export async function readCensus(from: StoredBackup): Promise<Census> {
  const bytes = await readSmall(from, fileNames.census);
  try {
    return parseCensus(bytes);
  } catch (error) {
    if (error instanceof UnreadableDocument)
      throw damaged(from.manifest, fileNames.census, `cannot be used: ${error.message}`);
    throw error;
  }
}

function requireSame(manifest: Manifest, archive: Archive, census: Census): void {
  const findings = [...compareArchive(archive, census), ...compareTotals(manifest, census)];
  if (findings.length === 0) return;
  throw new Failure(
    'verify',
    'verification',
    `${manifest.name}/${manifest.id}: the archive is not what its census says\n${describeFindings(findings)}`,
    { hint: 'the census and the dump are not of one backup; take a new one' },
  );
}

/** The manifest's totals are what lists and summaries show; they must be the census's sums. */
function compareTotals({ totals }: Manifest, census: Census): Finding[] {
  const findings: Finding[] = [];
  const compare = (object: string, expected: number | null, found: number | null): void => {
    if (expected !== found) findings.push({ object, expected: `${found} as in the census`, found: `${expected}` });
  };
  compare("the manifest's total of tables", totals.tables, census.tables.length);
  compare(
    "the manifest's total of rows",
    totals.rows,
    census.tables.reduce((rows, table) => rows + table.rows, 0),
  );
  compare("the manifest's total of large objects", totals.largeObjects, census.largeObjects);
  return findings;
}

/** What differs between an archive that was read and the census beside it. */
export function compareArchive(archive: Archive, census: Census): Finding[] {
  const findings: Finding[] = [];
  const held = new Map([...archive.tables.values()].map((table) => [nameKey(table), table]));
  for (const table of census.tables) {
    const object = displayName(table);
    const rows = held.get(nameKey(table))?.rows;
    held.delete(nameKey(table));
    if (table.rows !== table.archiveRows)
      findings.push({ object, expected: `${table.rows} rows in the snapshot`, found: `${table.archiveRows} recorded` });
    if (table.data && rows !== table.archiveRows)
      findings.push({
        object,
        expected: `${table.archiveRows} rows`,
        found: rows === undefined ? 'nothing' : `${rows} rows`,
      });
    if (!table.data && rows !== undefined) findings.push({ object, expected: 'structure only', found: `${rows} rows` });
  }
  for (const table of held.values())
    findings.push({ object: displayName(table), expected: 'nothing', found: `${table.rows} rows` });
  const positions = new Map(archive.sequences.map((each) => [nameKey(each), `${each.value}, ${each.called}`]));
  for (const sequence of census.sequences) {
    const object = displayName(sequence);
    const expected = `${sequence.value}, ${sequence.called}`;
    const found = positions.get(nameKey(sequence)) ?? 'nothing';
    if (found !== expected) findings.push({ object: `sequence ${object}`, expected, found });
  }
  if (census.largeObjects !== null && census.largeObjects !== archive.largeObjects)
    findings.push({ object: 'large objects', expected: `${census.largeObjects}`, found: `${archive.largeObjects}` });
  if (archive.privateOption)
    findings.push({ object: 'definitions', expected: 'what a server accepts', found: 'the private option pg_attver' });
  const kinds = (entries: Census['contents']): string =>
    JSON.stringify(entries.map(({ kind, schema, tag, owner }) => [kind, schema, tag, owner]));
  if (kinds(archive.contents) !== kinds(census.contents))
    findings.push({
      object: 'table of contents',
      expected: `${census.contents.length} entries`,
      found: `${archive.contents.length} entries, not the same`,
    });
  return findings;
}
