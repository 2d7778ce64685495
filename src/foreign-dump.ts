import { createReadStream } from 'node:fs';
import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { newId } from './backup-id.ts';
import { Failure } from './failure.ts';
import type { Log } from './log.ts';
import { type Machine, type ProgramChoice, programsReading, withPrivateFolder } from './machine.ts';
import { type Census, fileNames, type Manifest } from './manifest.ts';
import { type Archive, readArchiveAt } from './postgres/archive.ts';
import { NotAnArchive, type Toc, TocReader } from './postgres/archive-toc.ts';
import { describeDump } from './postgres/dump-kinds.ts';
import { requireWholeTar, tocOfTar } from './postgres/tar-archive.ts';
import { extensionsOf, localeOf, rolesNamedIn } from './postgres/toc-facts.ts';
import { formatVersion, parseVersion } from './postgres/version.ts';
import { release } from './release.ts';
import type { TestSubject } from './restore-test.ts';

/**
 * A dump that somebody has, as something to be tested: an archive of the custom, directory or tar format, read to its
 * last byte where it lies, its rows counted. What the database held when it was dumped nobody can say any more. Throws a
 * `Failure` when it is no archive (exit 2) or not whole (exit 40).
 */
export async function foreignDump(
  path: string,
  name: string,
  choice: ProgramChoice,
  machine: Machine,
  io: { readonly log: Log; readonly signal: AbortSignal },
): Promise<TestSubject> {
  const found = await look(path);
  const programs = await programsReading(versionIn(found.toc.dumpVersion, path), choice, machine, io);
  const archive = await withPrivateFolder(machine, (folder) =>
    readArchiveAt(programs, { path, toc: found.toc }, folder, io.signal),
  );
  const census = censusOf(archive);
  return {
    manifest: manifestOf({ name, archive, census, bytes: found.bytes, written: found.written, path }),
    manifestSha256: '',
    census: async () => census,
    roles: async () => undefined,
    archive: async () => ({ file: undefined, path, toc: found.toc, parallel: found.toc.format !== 'tar' }),
    now: async () => new Date(),
    keep: async () => undefined,
  };
}

interface Found {
  readonly toc: Toc;
  readonly bytes: number;
  readonly written: Date;
}

async function look(path: string): Promise<Found> {
  const information = await stat(path).catch((error: NodeJS.ErrnoException) => {
    throw new Failure('input', 'badInput', `${path} cannot be read (${error.code})`, {
      hint: 'give a dump file, or a URL: postgresql://user@host/database',
      cause: error,
    });
  });
  const written = information.mtime;
  if (information.isDirectory()) {
    const files = await readdir(path);
    if (!files.includes('toc.dat')) throw unusable(path, 'a folder without toc.dat, so no archive of pg_dump -Fd');
    const sizes = await Promise.all(files.map(async (file) => (await stat(join(path, file))).size));
    const bytes = sizes.reduce((sum, size) => sum + size, 0);
    return { toc: await tocOf(createReadStream(join(path, 'toc.dat')), path), bytes, written };
  }
  const bytes = information.size;
  const kind = describeDump(await headOf(path));
  if (kind === 'custom') return { toc: await tocOf(createReadStream(path), path), bytes, written };
  if (kind !== 'tar') throw unusable(path, kind);
  await requireWholeTar(path);
  return { toc: await tocOf(tocOfTar(path), path), bytes, written };
}

async function headOf(path: string): Promise<Buffer> {
  const file = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    throw new Failure('input', 'badInput', `${path} cannot be read (${error.code})`, { cause: error });
  });
  try {
    const head = Buffer.alloc(64 * 1024);
    const { bytesRead } = await file.read(head, 0, head.length, 0);
    return head.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

async function tocOf(stream: AsyncIterable<Buffer>, path: string): Promise<Toc> {
  const reader = new TocReader();
  try {
    for await (const chunk of stream) {
      reader.push(chunk);
      if (reader.toc !== undefined) return reader.toc;
    }
  } catch (error) {
    if (!(error instanceof NotAnArchive)) throw error;
    throw unusable(path, `an archive that cannot be read: ${error.message}`);
  }
  throw new Failure('validate', 'verification', `${path} ends inside its table of contents: it was cut off`, {
    hint: 'nothing of it can be restored; look for another copy',
  });
}

function unusable(path: string, what: string): Failure {
  return new Failure('input', 'badInput', `${path} is ${what}`, {
    hint: 'assay reads the archives of pg_dump -Fc, -Fd and -Ft, and databases by their URL',
  });
}

function versionIn(text: string, path: string): NonNullable<ReturnType<typeof parseVersion>> {
  const version = parseVersion(text.split(' ', 1)[0] ?? '');
  if (version === undefined) throw unusable(path, 'an archive that does not say which pg_dump wrote it');
  return version;
}

function censusOf(archive: Archive): Census {
  const { toc } = archive;
  const tables = toc.entries
    .filter(({ kind, oid }) => kind === 'TABLE' || (kind === 'TABLE DATA' && !archive.defined.has(oid)))
    .map(({ oid, schema, tag }) => {
      const rows = archive.tables.get(oid)?.rows;
      const counted = rows ?? 0;
      return { schema: schema ?? '', name: tag, rows: counted, archiveRows: counted, data: rows !== undefined };
    });
  return {
    tables,
    digest: null,
    sequences: archive.sequences,
    contents: archive.contents,
    extensions: extensionsOf(toc),
    roles: rolesNamedIn(toc),
    memberships: [],
    largeObjects: archive.largeObjects,
    migrations: null,
  };
}

/** What a manifest would have said. Nobody stores it. */
function manifestOf(parts: {
  readonly name: string;
  readonly archive: Archive;
  readonly census: Census;
  readonly bytes: number;
  readonly written: Date;
  readonly path: string;
}): Manifest {
  const { archive, census, bytes, written, path } = parts;
  const { toc } = archive;
  const definitions = toc.entries.some((entry) => entry.kind === 'TABLE');
  const mode = archive.tables.size === 0 ? 'schema-only' : definitions ? 'full' : 'data-only';
  const now = new Date().toISOString();
  return {
    format: 'pgassay/1',
    id: newId(new Date(), []),
    name: parts.name,
    label: 'imported',
    series: mode,
    // The archive's own clock has no time zone.
    createdAt: written.toISOString(),
    finishedAt: now,
    expiresAt: null,
    database: {
      id: null,
      name: toc.databaseName,
      serverVersion: formatVersion(versionIn(toc.serverVersion, path)),
      encoding: toc.encoding,
      ...localeOf(toc),
      sizeBytes: bytes * 5,
    },
    tools: { pgDump: formatVersion(versionIn(toc.dumpVersion, path)), pgassay: release },
    source: null,
    scope: { mode, schemas: [], excludeSchemas: [], tables: [], excludeTables: [], excludeTableData: [] },
    store: '',
    previous: null,
    signing: null,
    files: [{ name: fileNames.dump, bytes, sha256: '', compression: toc.compression, encryption: null }],
    totals: {
      tables: census.tables.length,
      rows: census.tables.reduce((rows, table) => rows + table.rows, 0),
      largeObjects: census.largeObjects,
    },
    selfContained: mode !== 'data-only',
    warnings: [],
    timings: {},
  };
}
