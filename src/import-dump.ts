import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { newId } from './backup-id.ts';
import type { Backup } from './catalog.ts';
import { readBackup } from './catalog.ts';
import { cancelled, Failure } from './failure.ts';
import type { Log } from './log.ts';
import { type Machine, type ProgramChoice, programsReading, withPrivateFolder } from './machine.ts';
import { type Census, fileNames, type Manifest, serialize } from './manifest.ts';
import { type Archive, ArchiveDecoder } from './postgres/archive.ts';
import { NotAnArchive, type Toc, TocReader } from './postgres/archive-toc.ts';
import { describeDump } from './postgres/dump-kinds.ts';
import { extensionsOf, localeOf, rolesNamedIn } from './postgres/toc-facts.ts';
import { formatVersion, parseVersion } from './postgres/version.ts';
import { Publisher } from './publish.ts';
import { release } from './release.ts';
import type { Store } from './store/store.ts';

/**
 * Takes a custom-format archive that somebody else made into a store, as a backup: read to its last byte, its rows
 * counted, its own table of contents for a census. What the database held when it was dumped nobody can say any more.
 * Throws a `Failure` when the file is no such archive or is not whole.
 */
export async function importDump(
  store: Store,
  path: string,
  name: string,
  choice: ProgramChoice,
  machine: Machine,
  io: { readonly log: Log; readonly signal: AbortSignal },
): Promise<Backup> {
  const file = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
    throw new Failure('input', 'badInput', `${path} cannot be read (${error.code})`, {
      hint: 'give a dump file, or a URL: postgresql://user@host/database',
      cause: error,
    });
  });
  try {
    const information = await file.stat();
    if (information.isDirectory()) throw unusable(path, 'a folder; only archives of one file (pg_dump -Fc) are read');
    const head = Buffer.alloc(64 * 1024);
    const { bytesRead } = await file.read(head, 0, head.length, 0);
    const kind = describeDump(head.subarray(0, bytesRead));
    if (kind !== 'custom') throw unusable(path, kind);
    const toc = await tocOf(createReadStream(path), path);
    const programs = await programsReading(versionIn(toc.dumpVersion, path), choice, machine, io);
    const id = newId(await store.now(), await store.ids(name));
    const folder = `${name}/${id}`;
    const publisher = new Publisher(store, folder, io.signal);
    const started = Date.now();
    const archive = await withPrivateFolder(machine, async (privateFolder) => {
      const decoder = await ArchiveDecoder.start(programs, privateFolder);
      const upload = await store.begin(`${folder}/${fileNames.dump}`, information.size);
      try {
        const hash = createHash('sha256');
        let bytes = 0;
        for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
          if (io.signal.aborted) throw cancelled('validate');
          hash.update(chunk);
          bytes += chunk.length;
          await decoder.write(chunk);
          await upload.write(chunk);
        }
        const whole = await decoder.finish();
        const written = { bytes, sha256: hash.digest('hex') };
        await publisher.completeDump(upload, written, whole.toc.compression, 'checksum');
        return whole;
      } catch (error) {
        await upload.abort();
        throw error;
      } finally {
        await decoder.stop();
      }
    });
    const census = censusOf(archive);
    await publisher.put(fileNames.census, serialize(census));
    const manifest = manifestOf({ id, name, store, archive, census, publisher, information, started, path });
    await publisher.publish(manifest);
    const entry = await readBackup(store, name, id);
    if (entry.kind !== 'backup') throw new Failure('publish', 'store', `${name}/${id} cannot be read back`);
    return entry.backup;
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
    hint: 'assay reads archives in the custom format, which pg_dump -Fc writes, and databases by their URL',
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

function manifestOf(parts: {
  readonly id: string;
  readonly name: string;
  readonly store: Store;
  readonly archive: Archive;
  readonly census: Census;
  readonly publisher: Publisher;
  readonly information: { readonly mtime: Date; readonly size: number };
  readonly started: number;
  readonly path: string;
}): Manifest {
  const { archive, census, information, path } = parts;
  const { toc } = archive;
  const definitions = toc.entries.some((entry) => entry.kind === 'TABLE');
  const mode = archive.tables.size === 0 ? 'schema-only' : definitions ? 'full' : 'data-only';
  const now = new Date().toISOString();
  return {
    format: 'pgassay/1',
    id: parts.id,
    name: parts.name,
    label: 'imported',
    series: mode,
    // The archive's own clock has no time zone.
    createdAt: information.mtime.toISOString(),
    finishedAt: now,
    expiresAt: null,
    database: {
      id: null,
      name: toc.databaseName,
      serverVersion: formatVersion(versionIn(toc.serverVersion, path)),
      encoding: toc.encoding,
      ...localeOf(toc),
      sizeBytes: information.size * 5,
    },
    tools: { pgDump: formatVersion(versionIn(toc.dumpVersion, path)), pgassay: release },
    source: null,
    scope: { mode, schemas: [], excludeSchemas: [], tables: [], excludeTables: [], excludeTableData: [] },
    store: parts.store.uri,
    previous: null,
    signing: null,
    files: parts.publisher.files,
    totals: {
      tables: census.tables.length,
      rows: census.tables.reduce((rows, table) => rows + table.rows, 0),
      largeObjects: census.largeObjects,
    },
    selfContained: mode !== 'data-only',
    warnings: [],
    timings: { total: Math.round((Date.now() - parts.started) / 100) / 10 },
  };
}
