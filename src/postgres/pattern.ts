/**
 * psql's object name patterns, as `pg_dump --table` reads them (processSQLNamePattern in PostgreSQL's string_utils.c):
 * `*` and `?` match, unquoted letters fold to lower case, double quotes protect, a dot separates schema and name,
 * the rest is a regular expression. They are resolved here so that a pattern that matches nothing is always an error.
 */
export interface Pattern {
  readonly text: string;
  /** A POSIX regular expression for the schema; undefined: whatever the search path shows. */
  readonly schema: string | undefined;
  readonly name: string;
  /** A database was named too; it must be the one we are connected to. */
  readonly database: string | undefined;
}

export class BadPattern extends Error {}

/** Throws {@link BadPattern}. `parts` is how many names may be dotted together: 2 for schemas, 3 for tables. */
export function parsePattern(text: string, parts: 2 | 3): Pattern {
  const pieces: string[] = [''];
  const literals: string[] = [''];
  let quoted = false;
  const characters = [...text];
  for (let at = 0; at < characters.length; at++) {
    const character = characters[at] ?? '';
    let piece = character;
    if (character === '"') {
      if (!quoted || characters[at + 1] !== '"') {
        quoted = !quoted;
        continue;
      }
      at++;
    } else if (!quoted && character === '.') {
      pieces.push('');
      literals.push('');
      continue;
    } else if (character === '$') piece = '\\$';
    else if (quoted && '|*+?()[]{}.^\\'.includes(character)) piece = `\\${character}`;
    else if (!quoted && character === '*') piece = '.*';
    else if (!quoted && character === '?') piece = '.';
    else if (!quoted && character === '[' && characters[at + 1] === ']') piece = '\\[';
    else if (!quoted) piece = folded(character);
    pieces[pieces.length - 1] += piece;
    literals[literals.length - 1] += quoted ? character : folded(character);
  }
  if (quoted) throw new BadPattern('a double quote is never closed');
  if (pieces.length > parts)
    throw new BadPattern(`it has ${pieces.length} dotted names; at most ${parts} are possible`);
  if (pieces.some((piece) => piece === '')) throw new BadPattern('one of its dotted names is empty');
  const [name = '', ...before] = pieces.map((piece) => `^(${piece})$`).reverse();
  return {
    text,
    name,
    schema: parts === 3 ? before[0] : undefined,
    database: pieces.length === parts ? literals[0] : undefined,
  };
}

/** ASCII only, as the server folds names: the table made by CREATE TABLE Ä is called Ä. */
function folded(character: string): string {
  return /^[A-Z]$/.test(character) ? character.toLowerCase() : character;
}
