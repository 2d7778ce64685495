/**
 * Reads the table of contents at the head of a custom-format archive while it streams by, or the file that holds that of
 * a directory or tar archive.
 *
 * `pg_restore --list` prints names with their newlines folded, knows no dependencies and ends early on a pipe, so the
 * bytes are read here. Layout: PostgreSQL's pg_backup_archiver.c (ReadHead, ReadToc), archive versions 1.14
 * (PostgreSQL 14, 15), 1.15 (16) and 1.16 (17, 18).
 */

export interface TocEntry {
  readonly dumpId: number;
  /** The catalog's own id of the object, `0` where it has none. */
  readonly tableOid: number;
  readonly oid: number;
  /** What it is: `TABLE`, `TABLE DATA`, `SEQUENCE SET`, `ACL` … */
  readonly kind: string;
  readonly tag: string;
  /** Null where the object lives in no schema. */
  readonly schema: string | null;
  readonly owner: string;
  readonly definition: string;
  /** Of a `TABLE DATA`: `COPY public.users (id, mail) FROM stdin;`, empty where rows are INSERTs. */
  readonly copyStatement: string;
  readonly dependencies: readonly number[];
}

export interface Toc {
  readonly format: ArchiveFormat;
  /** `1.16` */
  readonly archiveVersion: string;
  readonly databaseName: string;
  /** `17.11 (Debian …)`: the server that was dumped and the pg_dump that did it. */
  readonly serverVersion: string;
  readonly dumpVersion: string;
  readonly compression: string;
  /** PostgreSQL's name of the encoding of everything in it, rows included. */
  readonly encoding: string;
  readonly entries: readonly TocEntry[];
}

/** The bytes are no custom-format archive that this program knows. */
export class NotAnArchive extends Error {}

/** There are fewer bytes than the field needs; the caller comes back with more. */
class NeedMore extends Error {}

const magic = 'PGDMP';
/** Numbers of pg_backup_archiver.h. */
const formats = new Map([
  [1, 'custom'],
  [3, 'tar'],
  [5, 'directory'],
] as const);
export type ArchiveFormat = 'custom' | 'tar' | 'directory';
const oldest = version(1, 14);
const newest = version(1, 16);
/** Ten thousand tables make about 15 MB; a hostile length field must not make us buffer the world. */
const largestHead = 1024 * 1024 * 1024;
const compressions = ['none', 'gzip', 'lz4', 'zstd'];
/** Entries that carry settings, not objects; `pg_restore --list` leaves them out too. */
const settings = new Set(['ENCODING', 'STDSTRINGS', 'SEARCHPATH']);

/** Push an archive's bytes in as they come until `toc` is there. */
export class TocReader {
  toc: Toc | undefined;
  readonly #cursor = new Cursor();
  #head: Head | undefined;
  readonly #entries: TocEntry[] = [];

  /** Throws {@link NotAnArchive} on bytes that are none. Does nothing once the table of contents is whole. */
  push(chunk: Uint8Array): void {
    if (this.toc !== undefined) return;
    this.#cursor.append(chunk);
    for (;;) {
      const checkpoint = this.#cursor.at;
      try {
        if (this.#head === undefined) this.#head = readHead(this.#cursor);
        else if (this.#entries.length < this.#head.count) this.#entries.push(readEntry(this.#cursor, this.#head));
        else {
          this.#finish(this.#head);
          return;
        }
      } catch (error) {
        if (!(error instanceof NeedMore)) throw error;
        this.#cursor.at = checkpoint;
        return;
      }
    }
  }

  #finish(head: Head): void {
    const encoding = encodingOf(this.#entries);
    const decoder = new TextDecoder(webName(encoding));
    const decode = (latin1: string): string => decoder.decode(Buffer.from(latin1, 'latin1'));
    this.toc = {
      format: head.format,
      archiveVersion: `${head.version >> 8}.${head.version & 0xff}`,
      compression: head.compression,
      encoding,
      databaseName: decode(head.databaseName),
      serverVersion: head.serverVersion,
      dumpVersion: head.dumpVersion,
      entries: this.#entries
        .filter((entry) => !settings.has(entry.kind))
        .map((entry) => ({
          ...entry,
          tag: decode(entry.tag),
          schema: entry.schema === null ? null : decode(entry.schema),
          owner: decode(entry.owner),
          definition: decode(entry.definition),
          copyStatement: decode(entry.copyStatement),
        })),
    };
    this.#cursor.release();
  }
}

interface Head {
  readonly version: number;
  readonly format: ArchiveFormat;
  readonly compression: string;
  readonly databaseName: string;
  readonly serverVersion: string;
  readonly dumpVersion: string;
  readonly count: number;
}

function readHead(cursor: Cursor): Head {
  if (cursor.text(magic.length) !== magic) throw new NotAnArchive('it does not begin with PGDMP');
  const archiveVersion = version(cursor.byte(), cursor.byte());
  cursor.byte();
  if (archiveVersion < oldest || archiveVersion > newest)
    throw new NotAnArchive(
      `its archive version ${archiveVersion >> 8}.${archiveVersion & 0xff} is not one of 1.14 to 1.16`,
    );
  cursor.integerBytes = cursor.byte();
  if (cursor.integerBytes < 1 || cursor.integerBytes > 8)
    throw new NotAnArchive(`its integers have ${cursor.integerBytes} bytes`);
  cursor.offsetBytes = cursor.byte();
  const format = formats.get(cursor.byte() as 1 | 3 | 5);
  if (format === undefined) throw new NotAnArchive('it is in a format that is not known');
  let compression: string;
  if (archiveVersion >= version(1, 15)) compression = compressions[cursor.byte()] ?? 'unknown';
  else compression = cursor.integer() === 0 ? 'none' : 'gzip';
  for (let field = 0; field < 7; field++) cursor.integer(); // when it was made: seconds to daylight saving
  const databaseName = cursor.string() ?? '';
  const serverVersion = cursor.string() ?? '';
  const dumpVersion = cursor.string() ?? '';
  return {
    version: archiveVersion,
    format,
    compression,
    databaseName,
    serverVersion,
    dumpVersion,
    count: cursor.integer(),
  };
}

/** Strings of an entry stay Latin-1, one character a byte, until the archive's own encoding is known. */
function readEntry(cursor: Cursor, { version: archiveVersion, format }: Head): TocEntry {
  const dumpId = cursor.integer();
  cursor.integer(); // had a data dumper
  const tableOid = Number(cursor.string() ?? 0);
  const oid = Number(cursor.string() ?? 0);
  const tag = cursor.string() ?? '';
  const kind = cursor.string() ?? '';
  cursor.integer(); // section
  const definition = cursor.string() ?? '';
  cursor.string(); // drop statement
  const copyStatement = cursor.string() ?? '';
  const schema = cursor.string();
  cursor.string(); // tablespace
  cursor.string(); // table access method
  if (archiveVersion >= version(1, 16)) cursor.integer(); // relation kind
  const owner = cursor.string() ?? '';
  cursor.string(); // with OIDs
  const dependencies: number[] = [];
  for (let id = cursor.string(); id !== null; id = cursor.string()) dependencies.push(Number(id));
  // Where its data is: a state and an offset, or the name of a file.
  if (format === 'custom') cursor.skip(1 + cursor.offsetBytes);
  else cursor.string();
  return {
    ...{ dumpId, tableOid, oid, kind, tag, schema: schema === '' ? null : schema, owner },
    ...{ definition, copyStatement, dependencies },
  };
}

class Cursor {
  at = 0;
  integerBytes = 4;
  offsetBytes = 8;
  #bytes = Buffer.alloc(256 * 1024);
  #length = 0;

  append(chunk: Uint8Array): void {
    const length = this.#length + chunk.length;
    if (length > largestHead) throw new NotAnArchive('its table of contents has no end');
    if (length > this.#bytes.length) {
      const larger = Buffer.alloc(Math.max(this.#bytes.length * 2, length));
      this.#bytes.copy(larger, 0, 0, this.#length);
      this.#bytes = larger;
    }
    this.#bytes.set(chunk, this.#length);
    this.#length = length;
  }

  release(): void {
    this.#bytes = Buffer.alloc(0);
  }

  skip(bytes: number): void {
    if (this.at + bytes > this.#length) throw new NeedMore();
    this.at += bytes;
  }

  byte(): number {
    this.skip(1);
    return this.#bytes[this.at - 1] ?? 0;
  }

  /** A sign byte, then the magnitude with its lowest byte first. */
  integer(): number {
    const negative = this.byte() !== 0;
    let value = 0;
    for (let place = 0; place < this.integerBytes; place++) value += this.byte() * 256 ** place;
    return negative ? -value : value;
  }

  text(bytes: number): string {
    this.skip(bytes);
    return this.#bytes.toString('latin1', this.at - bytes, this.at);
  }

  string(): string | null {
    const bytes = this.integer();
    return bytes < 0 ? null : this.text(bytes);
  }
}

function version(major: number, minor: number): number {
  return (major << 8) | minor;
}

/** PostgreSQL's encoding names that differ from the web's. Others (`UTF8`, `WIN1252`, `LATIN1`) follow a pattern. */
const encodings: Record<string, string> = {
  SQL_ASCII: 'latin1',
  EUC_JP: 'euc-jp',
  EUC_JIS_2004: 'euc-jp',
  EUC_KR: 'euc-kr',
  EUC_CN: 'gb18030',
  LATIN9: 'iso-8859-15',
  LATIN10: 'iso-8859-16',
  KOI8R: 'koi8-r',
  KOI8U: 'koi8-u',
  WIN866: 'ibm866',
  WIN874: 'windows-874',
};
const latinParts = [0, 1, 2, 3, 4, 9, 10, 13, 14];

function encodingOf(entries: readonly TocEntry[]): string {
  const setting = entries.find((entry) => entry.kind === 'ENCODING')?.definition ?? '';
  return /'([A-Za-z0-9_]+)'/.exec(setting)?.[1] ?? 'UTF8';
}

function webName(name: string): string {
  const known = encodings[name];
  if (known !== undefined) return known;
  const windows = /^WIN(\d+)$/.exec(name)?.[1];
  if (windows !== undefined) return `windows-${windows}`;
  const latin = /^LATIN(\d+)$/.exec(name)?.[1];
  if (latin !== undefined) return `iso-8859-${latinParts[Number(latin)] ?? 1}`;
  const iso = /^ISO_8859_(\d+)$/.exec(name)?.[1];
  if (iso !== undefined) return `iso-8859-${iso}`;
  return name === 'UTF8' ? 'utf-8' : 'latin1';
}
