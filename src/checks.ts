/** A user's own question to a restored database: one query that answers true when all is well. */
export interface Check {
  /** As it was written, without the semicolon at its end. */
  readonly sql: string;
}

/** One query a line; blank lines and lines that begin with `#` or `--` do not count. */
export function checksOfLines(lines: readonly string[]): Check[] {
  return lines.filter((line) => !line.startsWith('--')).flatMap((line) => checkOf(line.replace(/;\s*$/, '')));
}

/** A dollar quote begins where no word goes on; block comments are read without nesting. */
const token =
  /--[^\n]*|\/\*[\s\S]*?\*\/|[eE]'(?:[^'\\]|\\[\s\S]|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|(?<![\w$])\$(\w*)\$[\s\S]*?\$\1\$|;/g;

/** Queries separated by `;`, outside of quotes and comments. */
export function checksOfText(sql: string): Check[] {
  const checks: Check[] = [];
  let from = 0;
  for (const match of sql.matchAll(token)) {
    if (match[0] !== ';') continue;
    checks.push(...checkOf(sql.slice(from, match.index)));
    from = match.index + 1;
  }
  return [...checks, ...checkOf(sql.slice(from))];
}

/** None where there is nothing but space and comments. */
function checkOf(sql: string): Check[] {
  const bare = sql.replace(/--[^\n]*|\/\*[\s\S]*?\*\//g, '').trim();
  return bare === '' ? [] : [{ sql: sql.trim() }];
}

/** The query on one line, for a finding; it is the user's own text and holds no row of the database. */
export function describeCheck({ sql }: Check, most = 200): string {
  const line = sql
    .replace(/^(?:\s*--[^\n]*\n)+/, '')
    .replace(/\s+/g, ' ')
    .trim();
  return line.length > most ? `${line.slice(0, most)}…` : line;
}
