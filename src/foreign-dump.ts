import { createReadStream } from 'node:fs';
import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { newId } from './backup-id.ts';
import { Failure } from './failure.ts';
import type { Log } from './log.ts';
import { type Machine, type ProgramChoice, programsReading, withPrivateFolder } from './machine.ts';
import { type Census, fileNames, type Manifest } from './manifest.ts';
import { type Archive, readArchiveAt } from './postgres/archive.ts';
import { NotAnArchive, type Toc, type TocEntry, TocReader } from './postgres/archive-toc.ts';
import { describeDump } from './postgres/dump-kinds.ts';
import { nameKey } from './postgres/names.ts';
import { readScript, type Script } from './postgres/script-restore.ts';
import { requireWholeTar, tocOfTar } from './postgres/tar-archive.ts';
import { extensionsOf, localeOf, rolesNamedIn } from './postgres/toc-facts.ts';
import { formatVersion, type PgVersion, parseVersion, restoreSecurityWarning } from './postgres/version.ts';
import { release } from './release.ts';
import type { TestSubject } from './test-subject.ts';

/**
 * A dump that somebody has, as something to be tested: an archive of the custom, directory or tar format, or a
 * plain script, gzipped or not; read to its last byte where it lies, its rows counted. What the database held when it was dumped nobody can say any more. Throws a
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
  if ('script' in found) return scriptSubject(await readScript(path, found.script === 'gzip', io.signal), name, found);
  const programs = await programsReading(versionIn(found.toc.dumpVersion, path), choice, machine, io);
  const warning = restoreSecurityWarning(programs.version);
  if (warning !== undefined) io.log.warn(warning);
  const archive = await withPrivateFolder(machine, (folder) =>
    readArchiveAt(programs, { path, toc: found.toc }, folder, io.signal),
  );
  const { toc } = archive;
  const census = censusOf(archive);
  const definitions = toc.entries.some((entry) => entry.kind === 'TABLE');
  const mode = archive.tables.size + archive.inserted.size === 0 ? 'schema-only' : definitions ? 'full' : 'data-only';
  const database = { name: toc.databaseName, encoding: toc.encoding, ...localeOf(toc) };
  const versions = { server: versionIn(toc.serverVersion, path), dumpedBy: versionIn(toc.dumpVersion, path) };
  return {
    ...subjectOf(manifestOf({ name, mode, database, versions, census, found }), census),
    archive: async () => ({
      ...{ file: undefined, path, toc, recipient: null, parallel: toc.format !== 'tar' },
      mayLack: new Set(
        toc.entries
          .filter(({ kind, oid }) => kind === 'TABLE DATA' && archive.inserted.get(oid)?.skips === true)
          .map(({ schema, tag }) => nameKey({ schema: schema ?? '', name: tag })),
      ),
    }),
  };
}

/** A plain dump. Encoding and locale of its database are not in it; it is restored as UTF-8. */
function scriptSubject(script: Script, name: string, found: Written): TestSubject {
  const tables = script.tables.map(({ schema, name: table, rows = 0 }) => ({
    ...{ schema, name: table, rows, archiveRows: rows },
    data: script.tables.some((each) => each.schema === schema && each.name === table && each.rows !== undefined),
  }));
  const census: Census = {
    tables,
    digest: null,
    sequences: [],
    contents: [],
    extensions: script.extensions.map((each) => ({ ...each, version: '' })),
    roles: script.roles,
    memberships: [],
    largeObjects: null,
    migrations: null,
  };
  const mode = tables.some((table) => table.rows > 0) ? 'full' : 'schema-only';
  const database = { name, encoding: 'UTF8', collation: 'C', lcCollate: 'C', lcCtype: 'C' };
  const toc: Toc = {
    ...{
      format: 'custom',
      archiveVersion: '',
      databaseName: name,
      serverVersion: '',
      dumpVersion: '',
      compression: '',
    },
    ...{ encoding: 'UTF8', entries: [...script.schemas.map(schemaEntry), ...contentsEntries(script)] },
  };
  return {
    ...subjectOf(manifestOf({ name, mode, database, versions: script, census, found }), census),
    archive: async () => ({
      ...{ file: undefined, path: script.path, toc, recipient: null, parallel: false, script },
      mayLack: new Set(script.tables.filter((table) => table.skips).map(nameKey)),
    }),
  };
}

function schemaEntry({ name, owner }: Script['schemas'][number], at: number): TocEntry {
  return {
    ...{ dumpId: at + 1, tableOid: 0, oid: 0, kind: 'SCHEMA', tag: name, schema: null, owner },
    ...{ definition: '', copyStatement: '', dependencies: [] },
  };
}

/** One in each schema for some owner: whoever owns something there must be able to create it. */
function contentsEntries({ schemas, roles }: Script): TocEntry[] {
  const [owner] = roles;
  if (owner === undefined) return [];
  return ['public', ...schemas.map((each) => each.name)].map((schema, at) => ({
    ...schemaEntry({ name: '', owner }, schemas.length + at),
    ...{ kind: 'TABLE', schema },
  }));
}

function subjectOf(manifest: Manifest, census: Census): Omit<TestSubject, 'archive'> {
  return {
    manifest,
    manifestSha256: '',
    census: async () => census,
    roles: async () => undefined,
    now: async () => new Date(),
    keep: async () => undefined,
  };
}

interface Written {
  readonly bytes: number;
  readonly written: Date;
}

type Found = Written & ({ readonly toc: Toc } | { readonly script: 'plain' | 'gzip' });

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
  if (kind === 'script') return { script: 'plain', bytes, written };
  if (kind === 'gzip') return { script: 'gzip', bytes, written };
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
    hint: 'assay reads what pg_dump wrote, in any of its formats, and databases by their URL',
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
      const rows = archive.tables.get(oid)?.rows ?? archive.inserted.get(oid)?.rows;
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
  readonly mode: 'full' | 'schema-only' | 'data-only';
  readonly database: Pick<Manifest['database'], 'name' | 'encoding' | 'collation'>;
  readonly versions: { readonly server: PgVersion; readonly dumpedBy: PgVersion };
  readonly census: Census;
  readonly found: Written;
}): Manifest {
  const { name, mode, database, versions, census, found } = parts;
  return {
    format: 'pgassay/1',
    id: newId(new Date(), []),
    name,
    label: 'assayed',
    series: mode,
    // A dump's own clock has no time zone.
    createdAt: found.written.toISOString(),
    finishedAt: new Date().toISOString(),
    expiresAt: null,
    database: { id: null, serverVersion: formatVersion(versions.server), sizeBytes: found.bytes * 5, ...database },
    tools: { pgDump: formatVersion(versions.dumpedBy), pgassay: release },
    source: null,
    scope: { mode, schemas: [], excludeSchemas: [], tables: [], excludeTables: [], excludeTableData: [] },
    store: '',
    previous: null,
    signing: null,
    files: [{ name: fileNames.dump, bytes: found.bytes, sha256: '', compression: '', encryption: null }],
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
