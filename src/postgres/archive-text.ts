/**
 * Reads the text that `pg_restore --data-only --verbose --file=-` decodes from an archive: how many rows each table's
 * COPY holds, what every sequence is set to, how many large objects there are. Definitions are not in that text, so
 * no function body can imitate a COPY; names with newlines stand inside quotes, which the reader follows.
 */

import { type Inserted, insertedBy } from './sql-script.ts';

/** Where a `SEQUENCE SET` puts a sequence. The value is text: a bigint does not fit a JavaScript number. */
export interface SequencePosition {
  readonly value: string;
  readonly called: boolean;
}

export interface ArchiveText {
  /** Rows of every `TABLE DATA` entry, by its number in the table of contents. */
  readonly rows: ReadonlyMap<number, number>;
  /** The same where they are not a COPY but INSERTs; `undefined` when one of them holds no values. */
  readonly inserted: ReadonlyMap<number, Inserted | undefined>;
  /** Positions by the `SEQUENCE SET` entry's number in the table of contents. */
  readonly sequences: ReadonlyMap<number, SequencePosition>;
  readonly largeObjects: number;
  /** The last line of a whole text was seen. */
  readonly complete: boolean;
}

/** What the text says about one large object: it begins, so many bytes of it as hexadecimal digits, it ends. */
export type LargeObjectPart =
  | { readonly kind: 'begin'; readonly oid: string }
  | { readonly kind: 'bytes'; readonly hex: Buffer }
  | { readonly kind: 'end' };

/** The text is not what pg_restore writes, or ends in the middle. */
export class UnreadableArchiveText extends Error {}

const newline = 0x0a;
const quote = 0x27;
const doubleQuote = 0x22;
const backslash = 0x5c;
const dash = 0x2d;
const semicolon = 0x3b;
const endOfCopy = Buffer.from('\n\\.\n');
/** A COPY of 1,600 columns with 63-byte names is 0.2 MB; a piece of a large object is 32 KB. */
const longestStatement = 16 * 1024 * 1024;

/** Push the text in as it comes; `end()` gives the result. Memory does not grow with rows. */
export class ArchiveTextReader {
  readonly #rows = new Map<number, number>();
  readonly #sequences = new Map<number, SequencePosition>();
  readonly #inserted = new Map<number, Inserted | undefined>();
  #largeObjects = 0;
  #complete = false;

  /** The entry whose header was read last; what follows belongs to it. */
  #entry = 0;
  /** Rows counted so far in the COPY we are in; undefined outside one. */
  #copying: number | undefined;
  /** In a COPY: the last row is not whole yet, and too long to be the end marker. */
  #midRow = false;
  #carry: Buffer = Buffer.alloc(0);
  readonly #onRows: ((entry: number, rows: Buffer) => void) | undefined;
  readonly #onLargeObject: ((part: LargeObjectPart) => void) | undefined;

  /**
   * `onRows` is handed the lines of every COPY as they come, cut anywhere, `onLargeObject` large objects piece by piece;
   * their memory is the chunk's.
   */
  constructor(onRows?: (entry: number, rows: Buffer) => void, onLargeObject?: (part: LargeObjectPart) => void) {
    this.#onRows = onRows;
    this.#onLargeObject = onLargeObject;
  }

  /** Keeps no part of the chunk. Throws {@link UnreadableArchiveText}. */
  push(chunk: Buffer): void {
    let bytes = this.#carry.length === 0 ? chunk : Buffer.concat([this.#carry, chunk]);
    this.#carry = Buffer.alloc(0);
    while (bytes.length > 0) {
      const used = this.#copying === undefined ? this.#readStatement(bytes) : this.#readRows(bytes, this.#copying);
      if (used === 0) {
        if (bytes.length > longestStatement) throw new UnreadableArchiveText('a statement has no end');
        this.#carry = Buffer.from(bytes);
        return;
      }
      bytes = bytes.subarray(used);
    }
  }

  /** What was read. Throws {@link UnreadableArchiveText} when the text stops in the middle. */
  end(): ArchiveText {
    if (this.#copying !== undefined) throw new UnreadableArchiveText('the text ends inside the rows of a table');
    if (this.#carry.length > 0) throw new UnreadableArchiveText('the text ends inside a statement');
    return {
      rows: this.#rows,
      sequences: this.#sequences,
      inserted: this.#inserted,
      largeObjects: this.#largeObjects,
      complete: this.#complete,
    };
  }

  /** Rows are lines; a newline inside a value is written as `\n`, so counting lines counts rows. */
  #readRows(bytes: Buffer, before: number): number {
    if (!this.#midRow && isEndMarker(bytes, 0)) {
      this.#rows.set(this.#entry, before);
      this.#copying = undefined;
      return 3;
    }
    const end = bytes.indexOf(endOfCopy);
    const stop = end === -1 ? bytes.lastIndexOf(newline) + 1 : end + 1;
    this.#copying = before + countNewlines(bytes, stop);
    if (stop > 0) this.#midRow = false;
    // What is left is the beginning of a row, or of the end marker while it is this short.
    const whole = end !== -1 || (!this.#midRow && bytes.length - stop < 3);
    if (!whole) this.#midRow = true;
    const used = whole ? stop : bytes.length;
    if (used > 0) this.#onRows?.(this.#entry, bytes.subarray(0, used));
    return used;
  }

  /** Uses up one statement, comment or backslash line; 0 when it is not whole yet. */
  #readStatement(bytes: Buffer): number {
    const first = bytes[0];
    if (first === newline) return 1;
    const isComment = first === dash && bytes[1] === dash;
    if (isComment || first === backslash) {
      const end = bytes.indexOf(newline);
      if (end === -1) return 0;
      if (isComment) this.#comment(bytes.toString('latin1', 0, end));
      return end + 1;
    }
    if (first === dash && bytes.length < 2) return 0;
    const end = statementEnd(bytes);
    if (end === -1) return 0;
    return end + this.#statement(bytes, end);
  }

  #comment(line: string): void {
    const entry = /^-- TOC entry (\d+) \(class/.exec(line)?.[1];
    if (entry !== undefined) this.#entry = Number(entry);
    else if (line === '-- PostgreSQL database dump complete') this.#complete = true;
  }

  /** Takes note of a statement; returns how many bytes after it belong to it. */
  #statement(bytes: Buffer, end: number): number {
    const head = bytes.toString('latin1', 0, Math.min(end, 40));
    if (head.startsWith('COPY ')) {
      if (bytes.toString('latin1', Math.max(0, end - 12), end) !== ' FROM stdin;')
        throw new UnreadableArchiveText('a COPY that does not read rows');
      if (bytes.length <= end) return -end;
      if (this.#rows.has(this.#entry)) throw new UnreadableArchiveText('two COPYs in one entry');
      this.#copying = 0;
      this.#midRow = false;
      return 1;
    }
    if (head.startsWith('SELECT pg_catalog.setval(')) {
      const set = /, (-?\d+), (true|false)\);$/.exec(bytes.toString('latin1', 0, end));
      if (set?.[1] === undefined) throw new UnreadableArchiveText('a sequence is set to something unreadable');
      this.#sequences.set(this.#entry, { value: set[1], called: set[2] === 'true' });
    } else if (head.startsWith('INSERT INTO ')) this.#insert(bytes.toString('latin1', 0, end));
    else if (head.startsWith('SELECT pg_catalog.lo')) this.#largeObject(head, bytes, end);
    return 0;
  }

  #insert(statement: string): void {
    const more = insertedBy(statement);
    const known = this.#inserted.has(this.#entry);
    const before = this.#inserted.get(this.#entry);
    const total =
      more === undefined || (known && before === undefined)
        ? undefined
        : { rows: more.rows + (before?.rows ?? 0), skips: more.skips || before?.skips === true };
    this.#inserted.set(this.#entry, total);
  }

  #largeObject(head: string, bytes: Buffer, end: number): void {
    const oid = /^SELECT pg_catalog\.lo_open\('(\d+)'/.exec(head)?.[1];
    if (head.startsWith('SELECT pg_catalog.lo_open(')) this.#largeObjects++;
    if (this.#onLargeObject === undefined) return;
    if (oid !== undefined) this.#onLargeObject({ kind: 'begin', oid });
    else if (head.startsWith('SELECT pg_catalog.lo_close(')) this.#onLargeObject({ kind: 'end' });
    else if (head.startsWith('SELECT pg_catalog.lowrite(')) {
      const start = /^SELECT pg_catalog\.lowrite\(0, E?'\\{1,2}x/.exec(head)?.[0].length;
      const close = bytes.lastIndexOf(quote, end - 1);
      if (start === undefined || close < start)
        throw new UnreadableArchiveText('a large object is written in an unknown form');
      this.#onLargeObject({ kind: 'bytes', hex: bytes.subarray(start, close) });
    }
  }
}

function isEndMarker(bytes: Buffer, at: number): boolean {
  return bytes[at] === backslash && bytes[at + 1] === 0x2e && bytes[at + 2] === newline;
}

/** Four bytes at a time, twice as fast as one by one: this is every byte of a database. */
function countNewlines(bytes: Buffer, stop: number): number {
  let count = 0;
  let at = 0;
  const aligned = Math.min(stop, -bytes.byteOffset & 3);
  for (; at < aligned; at++) if (bytes[at] === newline) count++;
  const fours = (stop - at) >>> 2;
  const words = new Int32Array(bytes.buffer, fours === 0 ? 0 : bytes.byteOffset + at, fours);
  for (let word = 0; word < fours; word++) {
    // A newline's bits are all 0 now; the highest bit of every byte in `found` says whether the byte was one.
    const bits = (words[word] as number) ^ 0x0a0a0a0a;
    for (let found = ~(((bits & 0x7f7f7f7f) + 0x7f7f7f7f) | bits | 0x7f7f7f7f); found !== 0; found &= found - 1)
      count++;
  }
  for (at += words.byteLength; at < stop; at++) if (bytes[at] === newline) count++;
  return count;
}

/** The index after the `;` that ends the statement, -1 when it is not there yet. */
function statementEnd(bytes: Buffer): number {
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at];
    if (byte === semicolon) return at + 1;
    if (byte !== quote && byte !== doubleQuote) continue;
    const escapes = byte === quote && at > 0 && bytes[at - 1] === 0x45; // E'…'
    at = quotedEnd(bytes, at + 1, byte, escapes);
    if (at === -1) return -1;
  }
  return -1;
}

/** The index of the closing quote. A doubled quote closes and opens again at once, which comes to the same. */
function quotedEnd(bytes: Buffer, from: number, mark: number, escapes: boolean): number {
  if (!escapes) return bytes.indexOf(mark, from);
  for (let at = from; at < bytes.length; at++) {
    if (bytes[at] === backslash) at++;
    else if (bytes[at] === mark) return at;
  }
  return -1;
}
