import { to } from 'pg-copy-streams';
import type { Session } from './connect.ts';
import { HashChain } from './hash.ts';
import { type QualifiedName, quoteName, quoteQualified } from './names.ts';

/** What is read of a table, names as the catalog spells them. */
export interface CopiedColumns {
  /** Every column that COPY can name, in the order in which a digest takes them; generated ones cannot be named. */
  readonly names: readonly string[];
  /** The one that is read when rows are only counted; undefined when there is none. */
  readonly narrow: string | undefined;
}

/**
 * Counts (and digests) a table through `COPY … TO STDOUT`, as pg_dump reads it: no planner runs, so no expression that
 * the table's owner made does. Only the table's own rows, not its children's; refused where row security would filter.
 * Needs the output settings of `prepareSession`. Rows stream through; memory holds the widest value at most.
 */
export async function readTableByCopy(
  session: Session,
  table: QualifiedName,
  columns: CopiedColumns,
  content: boolean,
): Promise<{ readonly rows: number; readonly digest?: string }> {
  if (!content || columns.names.length === 0) {
    let rows = 0;
    const narrow = columns.narrow === undefined ? [] : [columns.narrow];
    await readCopy(session, table, narrow, (chunk) => {
      rows += linesIn(chunk);
    });
    return { rows, ...(content ? { digest: '0' } : {}) };
  }
  const digest = new CopyDigest();
  await readCopy(session, table, columns.names, (chunk) => digest.add(chunk));
  return { rows: digest.rows, digest: digest.value.toString() };
}

/** SQL_ASCII stands for no conversion: the bytes are the database's own, which its hash functions see. */
async function readCopy(
  session: Session,
  table: QualifiedName,
  columns: readonly string[],
  take: (chunk: Uint8Array) => void,
): Promise<void> {
  const list = columns.length === 0 ? '' : ` (${columns.map(quoteName).join(', ')})`;
  try {
    const stream = session.client.query(
      to(`COPY ${quoteQualified(table)}${list} TO STDOUT (FORMAT text, ENCODING 'SQL_ASCII')`),
    );
    for await (const chunk of stream) take(chunk as Uint8Array);
  } catch (error) {
    // Says whether it is the session that ended; in a failed transaction this fails too, and means nothing.
    await session.query('SELECT 1').catch(() => {});
    session.lost.throwIfAborted();
    throw error;
  }
}

const newline = 0x0a;
const tab = 0x09;
const backslash = 0x5c;

/** A line break in a value is escaped, so one line is one row. */
function linesIn(chunk: Uint8Array): number {
  let lines = 0;
  for (let at = 0; at < chunk.length; at += 1) if (chunk[at] === newline) lines += 1;
  return lines;
}

/** What follows a backslash in COPY's text format, where it is not the byte itself. */
const escapes = new Uint8Array(256).map((_, byte) => byte);
for (const [letter, byte] of Object.entries({ b: 8, t: 9, n: 10, v: 11, f: 12, r: 13 }))
  escapes[letter.charCodeAt(0)] = byte;
const letterN = 'N'.charCodeAt(0);

const nullMark = new TextEncoder().encode('n');
const valueMark = 'v'.charCodeAt(0);
const flushedAfter = 1_000_000;

/** The digest that `census.ts` defines, computed from COPY's text format. */
export class CopyDigest {
  rows = 0;
  readonly #chain = new HashChain();
  /** The value so far, unescaped, behind its mark. */
  #value = new Uint8Array(64 * 1024);
  #length = 1;
  #escaped = false;
  #null = false;
  // Sums of halves are exact for a million rows; then they go into the total.
  #high = 0;
  #low = 0;
  #total = 0n;

  /** The next bytes; where they are cut does not matter. */
  add(chunk: Uint8Array): void {
    this.#makeRoom(chunk.length);
    const value = this.#value;
    let length = this.#length;
    let escaped = this.#escaped;
    for (let at = 0; at < chunk.length; at += 1) {
      const byte = chunk[at] ?? 0;
      if (escaped) {
        escaped = false;
        if (byte === letterN) this.#null = true;
        else value[length++] = escapes[byte] ?? 0;
      } else if (byte === backslash) {
        escaped = true;
      } else if (byte === tab || byte === newline) {
        this.#endValue(length);
        length = 1;
        if (byte === newline) this.#endRow();
      } else {
        value[length++] = byte;
      }
    }
    this.#length = length;
    this.#escaped = escaped;
  }

  get value(): bigint {
    return this.#total + (BigInt(this.#high) << 32n) + BigInt(this.#low);
  }

  #makeRoom(more: number): void {
    if (this.#length + more <= this.#value.length) return;
    const wider = new Uint8Array(2 * (this.#length + more));
    wider.set(this.#value.subarray(0, this.#length));
    this.#value = wider;
  }

  #endValue(length: number): void {
    if (this.#null) {
      this.#null = false;
      this.#chain.add(nullMark, 1);
      return;
    }
    this.#value[0] = valueMark;
    this.#chain.add(this.#value, length);
  }

  #endRow(): void {
    this.#high += this.#chain.high;
    this.#low += this.#chain.low >>> 0;
    this.#chain.high = 0;
    this.#chain.low = 0;
    this.rows += 1;
    if (this.rows % flushedAfter !== 0) return;
    this.#total = this.value;
    this.#high = 0;
    this.#low = 0;
  }
}
