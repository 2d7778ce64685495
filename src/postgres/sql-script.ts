/**
 * Reads a plain dump as psql would, without psql: whoever wrote the script could have psql run programs of this machine.
 * It is split into statements, rows and comments here, and nothing of it is carried out.
 */

export type ScriptPart =
  | { readonly kind: 'statement'; readonly text: string; readonly inserts: Inserted | undefined }
  /** The rows that follow a COPY; they have to be read to their end before the next part. */
  | { readonly kind: 'rows'; readonly copy: string; readonly rows: AsyncIterable<Buffer> }
  /** A command of psql's, `\connect shop`. */
  | { readonly kind: 'command'; readonly text: string }
  | { readonly kind: 'comment'; readonly text: string };

/** What an `INSERT … VALUES` puts in. */
export interface Inserted {
  readonly rows: number;
  /** It says ON CONFLICT: rows that are there already are not put in. */
  readonly skips: boolean;
}

/** The script ends in the middle of something. */
export class ScriptCutOff extends Error {}

/** Latin-1 stands for bytes here; the pieces are decoded when they are whole. Block comments are read without nesting. */
const token =
  /\s+|--[^\n]*(?:\n|$)|\/\*[\s\S]*?\*\/|[eE]'(?:[^'\\]|\\[\s\S]|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)?\$|[A-Za-z_\x80-\xff][\w$\x80-\xff]*|\d[\w.]*|[\s\S]/y;
const mostStatement = 1024 * 1024 * 1024;
const endOfRows = Buffer.from('\n\\.\n');

/** Throws {@link ScriptCutOff}. */
export async function* scriptParts(stream: AsyncIterable<Buffer>): AsyncGenerator<ScriptPart> {
  const source = new Source(stream);
  for (;;) {
    const part = await nextPart(source);
    if (part === undefined) return;
    yield part;
    if (part.kind === 'statement' && isCopy(part.text)) {
      await source.skipLine();
      const rows = rowsOf(source);
      yield { kind: 'rows', copy: part.text, rows };
      // Whoever does not want them has not read them.
      for await (const _ of rows);
    }
  }
}

/** `COPY shop.orders (id, total) FROM stdin` */
export function isCopy(statement: string): boolean {
  return /^COPY\s[\s\S]*\sFROM\s+stdin\b/i.test(statement);
}

async function nextPart(source: Source): Promise<ScriptPart | undefined> {
  for (let wanted = 64 * 1024; ; wanted *= 2) {
    await source.fill(wanted);
    const found = scan(source.text, source.ended);
    if (found === 'more') {
      if (source.ended) throw new ScriptCutOff('it ends in the middle of a statement');
      if (wanted > mostStatement) throw new ScriptCutOff('a statement has no end');
      continue;
    }
    if (found === 'end') return undefined;
    const bytes = source.take(found.end);
    if (found.kind === 'space') {
      wanted = 32 * 1024;
      continue;
    }
    const text = bytes.subarray(found.begin).toString('utf8').trim();
    return found.kind === 'statement'
      ? { kind: 'statement', text, inserts: found.inserts }
      : { kind: found.kind, text };
  }
}

type Scanned =
  | {
      readonly kind: 'statement';
      readonly begin: number;
      readonly end: number;
      readonly inserts: Inserted | undefined;
    }
  | { readonly kind: 'command' | 'comment' | 'space'; readonly begin: number; readonly end: number }
  | 'more'
  | 'end';

/** What an INSERT puts in; undefined where the text is none, or its rows come from a query. `text`: one statement. */
export function insertedBy(text: string): Inserted | undefined {
  const found = scan(text, true);
  return found !== 'more' && found !== 'end' && found.kind === 'statement' ? found.inserts : undefined;
}

/** Counts the rows of one INSERT, word by word. */
class TupleCounter {
  #inserts: boolean | undefined;
  #values = false;
  #defaults = false;
  #rows = 0;
  #behind = false;

  /** A word outside of parentheses, in lower case, or the parenthesis that opens. */
  add(word: string): void {
    this.#inserts ??= word === 'insert';
    if (!this.#inserts || this.#behind) return;
    if (word === '(') {
      if (this.#values) this.#rows++;
    } else if (!this.#values) {
      this.#values = word === 'values';
      if (!this.#values) this.#defaults = word === 'default';
    } else if (word === 'on') this.#behind = true;
  }

  get result(): Inserted | undefined {
    if (this.#inserts !== true || !this.#values) return undefined;
    return { rows: this.#defaults ? 1 : this.#rows, skips: this.#behind };
  }
}

/** What `text` begins with. `last`: nothing comes after it. */
function scan(text: string, last: boolean): Scanned {
  if (text === '') return last ? 'end' : 'more';
  let begin = -1;
  let parentheses = 0;
  /** Of a function's `BEGIN ATOMIC … END`, whose statements end with semicolons too. */
  let blocks = 0;
  const head: string[] = [];
  const tuples = new TupleCounter();
  token.lastIndex = 0;
  for (let at = 0; at < text.length; ) {
    const [word = ''] = token.exec(text) ?? [];
    const end = at + word.length;
    // It may go on in what has not been read yet.
    if (end === text.length && !last) return 'more';
    if (begin === -1) {
      if (/^\s/.test(word)) return { kind: 'space', begin: at, end };
      if (word.startsWith('--') || word.startsWith('/*')) return { kind: 'comment', begin: at, end };
      if (word === '\\') {
        const line = text.indexOf('\n', at);
        if (line === -1 && !last) return 'more';
        return { kind: 'command', begin: at, end: line === -1 ? text.length : line + 1 };
      }
      begin = at;
    }
    if (word === "'" || word === '"') return 'more';
    if (/^\$.*\$$/s.test(word)) {
      const close = text.indexOf(word, end);
      if (close === -1) return 'more';
      token.lastIndex = close + word.length;
      at = token.lastIndex;
      continue;
    }
    if (word === ';' && parentheses === 0 && blocks === 0)
      return { kind: 'statement', begin, end, inserts: tuples.result };
    if (word === '(' && parentheses === 0) tuples.add(word);
    if (word === '(') parentheses++;
    else if (word === ')') parentheses--;
    else if (/^[a-z]/i.test(word)) {
      const lower = word.toLowerCase();
      if (parentheses === 0) tuples.add(lower);
      if (head.length < 4) head.push(lower);
      if (/^create (?:or replace )?(?:function|procedure)/.test(head.join(' '))) {
        if (lower === 'begin' || (lower === 'case' && blocks > 0)) blocks++;
        else if (lower === 'end' && blocks > 0) blocks--;
      }
    }
    at = end;
  }
  return begin === -1 && last ? 'end' : 'more';
}

/** Up to the line `\.`, which is not among them; whole lines at the end, pieces of any size before. */
async function* rowsOf(source: Source): AsyncGenerator<Buffer> {
  let lineBegins = true;
  for (;;) {
    if (!(await source.fill(endOfRows.length - 1))) throw new ScriptCutOff('it ends among the rows of a table');
    const bytes = source.peek();
    if (lineBegins && bytes.subarray(0, 3).equals(endOfRows.subarray(1))) {
      source.take(3);
      return;
    }
    const close = bytes.indexOf(endOfRows);
    if (close !== -1) {
      yield source.take(close + 1);
      source.take(3);
      return;
    }
    // The end marker may have begun in the last bytes.
    const sure = source.ended ? bytes.length : bytes.length - endOfRows.length + 1;
    if (sure <= 0) {
      await source.fill(bytes.length + 1);
      continue;
    }
    if (source.ended) throw new ScriptCutOff('it ends among the rows of a table');
    const piece = source.take(sure);
    lineBegins = piece.at(-1) === 0x0a;
    yield piece;
  }
}

/** Bytes that have been read and not yet taken. */
class Source {
  ended = false;
  readonly #chunks: AsyncIterator<Buffer>;
  #bytes: Buffer = Buffer.alloc(0);
  #text: string | undefined;

  constructor(stream: AsyncIterable<Buffer>) {
    this.#chunks = stream[Symbol.asyncIterator]();
  }

  /** Reads on until there are so many, or no more; false when there are fewer. */
  async fill(wanted: number): Promise<boolean> {
    const pieces = [this.#bytes];
    let length = this.#bytes.length;
    while (length < wanted && !this.ended) {
      const { value, done } = await this.#chunks.next();
      if (done === true) this.ended = true;
      else {
        pieces.push(value);
        length += value.length;
      }
    }
    if (pieces.length > 1) {
      this.#bytes = Buffer.concat(pieces);
      this.#text = undefined;
    }
    return length >= wanted;
  }

  get text(): string {
    this.#text ??= this.#bytes.toString('latin1');
    return this.#text;
  }

  peek(): Buffer {
    return this.#bytes;
  }

  take(bytes: number): Buffer {
    const taken = this.#bytes.subarray(0, bytes);
    this.#bytes = this.#bytes.subarray(bytes);
    this.#text = this.#text?.slice(bytes);
    return taken;
  }

  async skipLine(): Promise<void> {
    for (let wanted = 1024; ; wanted *= 2) {
      const enough = await this.fill(wanted);
      const end = this.#bytes.indexOf(0x0a);
      if (end !== -1) return void this.take(end + 1);
      if (!enough) throw new ScriptCutOff('it ends in the line of a COPY');
    }
  }
}
