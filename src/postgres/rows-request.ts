/** What `pgassay rows` is asked for: a table as people write it, and a condition in SQL. Pure: nothing is looked up. */

import type { QualifiedName } from './names.ts';

/** One word of a written name; without quotes it may also stand for its lower-case form, as in SQL. */
interface NameWord {
  readonly word: string;
  readonly quoted: boolean;
}

export interface WrittenTable {
  readonly schema: NameWord | undefined;
  readonly name: NameWord;
}

export interface Mistake {
  readonly problem: string;
}

const nameWord = /"((?:[^"]|"")+)"|([^".]+)/y;

/** Reads `users`, `public.users` and `"We.ird"."Users"`. */
export function parseTable(text: string): WrittenTable | Mistake {
  const words: NameWord[] = [];
  let at = 0;
  for (;;) {
    nameWord.lastIndex = at;
    const match = nameWord.exec(text);
    if (match === null) break;
    const [whole, quoted, bare = ''] = match;
    words.push(
      quoted === undefined ? { word: bare, quoted: false } : { word: quoted.replaceAll('""', '"'), quoted: true },
    );
    at += whole.length;
    if (text[at] !== '.') break;
    at += 1;
  }
  const [first, second, ...more] = words;
  if (at !== text.length || text.endsWith('.') || first === undefined || more.length > 0)
    return {
      problem:
        'is not the name of a table: write table or schema.table, each part in double quotes where it holds a dot',
    };
  return second === undefined ? { schema: undefined, name: first } : { schema: first, name: second };
}

/** The tables a written name may mean: those spelled exactly so, else those of its lower-case form. */
export function tablesNamed<T extends QualifiedName>({ schema, name }: WrittenTable, tables: readonly T[]): T[] {
  const exactly = tables.filter(
    (each) => each.name === name.word && (schema === undefined || each.schema === schema.word),
  );
  if (exactly.length > 0) return exactly;
  const folded = ({ word, quoted }: NameWord): string => (quoted ? word : word.toLowerCase());
  return tables.filter(
    (each) => each.name === folded(name) && (schema === undefined || each.schema === folded(schema)),
  );
}

/** A condition that stays one expression when it is put between parentheses. */
export interface Condition {
  readonly text: string;
  /** The identifiers in it: words an error may repeat. */
  readonly names: ReadonlySet<string>;
}

const tokens = {
  space: /[ \t\n\r\f\v]+|--[^\n\r]*/y,
  escaped: /[eE]'(?:[^'\\]|\\[\s\S]|'')*'/y,
  text: /(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*'/y,
  quotedName: /(?:[uU]&)?"((?:[^"]|"")*)"/y,
  dollar: /\$(?:[A-Za-z_\u0080-\uffff][A-Za-z0-9_\u0080-\uffff]*)?\$/y,
  name: /[A-Za-z_\u0080-\uffff][A-Za-z0-9_$\u0080-\uffff]*/y,
  number: /\d[\w.]*/y,
} as const;

const closes: Readonly<Record<string, string>> = { '(': ')', '[': ']' };

/**
 * Follows PostgreSQL's quoting rules (standard_conforming_strings on). A slip such as `1=1) OR (…` or a second statement
 * is refused here, with a sentence; whether it is a boolean the server says. Whoever writes it runs it with his own rights.
 */
export function readCondition(text: string): Condition | Mistake {
  const names = new Set<string>();
  const open: string[] = [];
  let empty = true;
  let at = 0;
  const match = (pattern: RegExp): RegExpExecArray | undefined => {
    pattern.lastIndex = at;
    const found = pattern.exec(text) ?? undefined;
    if (found !== undefined) at += found[0].length;
    return found;
  };
  while (at < text.length) {
    if (match(tokens.space) !== undefined) continue;
    if (text.startsWith('/*', at)) {
      const end = endOfComment(text, at);
      if (end === -1) return { problem: 'has a comment without its end' };
      at = end;
      continue;
    }
    empty = false;
    if (match(tokens.escaped) !== undefined) {
      // PostgreSQL goes on in the next line's string with the same escapes.
      while (match(tokens.space) !== undefined);
      if (text[at] === "'") return { problem: "continues an E'…' string with another string; write it as one" };
      continue;
    }
    if (/^[eE]'/.test(text.slice(at, at + 2))) return { problem: "has a ' without its partner" };
    if (match(tokens.text) !== undefined) continue;
    const quoted = match(tokens.quotedName)?.[1];
    if (quoted !== undefined) {
      names.add(quoted.replaceAll('""', '"'));
      continue;
    }
    const dollar = match(tokens.dollar)?.[0];
    if (dollar !== undefined) {
      const end = text.indexOf(dollar, at);
      if (end === -1) return { problem: 'has a dollar-quoted string without its end' };
      at = end + dollar.length;
      continue;
    }
    const name = match(tokens.name)?.[0];
    if (name !== undefined) {
      names.add(name).add(name.toLowerCase());
      continue;
    }
    if (match(tokens.number) !== undefined) continue;
    const character = text[at] ?? '';
    at += 1;
    if (character === "'" || character === '"') return { problem: `has a ${character} without its partner` };
    if (character === ';') return { problem: 'holds a semicolon: it is one expression, not a statement' };
    if (character === '(' || character === '[') open.push(closes[character] ?? '');
    if ((character === ')' || character === ']') && open.pop() !== character)
      return { problem: `has a ${character} that closes nothing` };
  }
  if (empty) return { problem: 'is empty; true stands for every row' };
  if (open.length > 0) return { problem: `lacks a ${open.at(-1)}` };
  return { text, names };
}

/** Comments nest. */
function endOfComment(text: string, from: number): number {
  let depth = 0;
  for (let at = from; at < text.length; at++) {
    if (text.startsWith('/*', at)) {
      depth += 1;
      at += 1;
    } else if (text.startsWith('*/', at)) {
      depth -= 1;
      at += 1;
      if (depth === 0) return at + 1;
    }
  }
  return -1;
}
