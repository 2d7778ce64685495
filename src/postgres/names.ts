/** A schema-qualified object name as the catalog spells it, unquoted. */
export interface QualifiedName {
  readonly schema: string;
  readonly name: string;
}

/** An identifier for SQL text and for pg_dump's patterns, always quoted. */
export function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

export function quoteQualified({ schema, name }: QualifiedName): string {
  return `${quoteName(schema)}.${quoteName(name)}`;
}

/** The same for equal names only, whatever characters they hold. */
export function nameKey({ schema, name }: QualifiedName): string {
  return JSON.stringify([schema, name]);
}

/** For people: quotes only where SQL needs them, control characters made visible, so a name cannot break a log line. */
export function displayName({ schema, name }: QualifiedName): string {
  return `${displayWord(schema)}.${displayWord(name)}`;
}

export function displayWord(word: string): string {
  const visible = word.replace(controls, (character) => {
    const known: Record<string, string> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };
    return known[character] ?? `\\u${hex(character)}`;
  });
  return isBare(visible) ? visible : quoteName(visible);
}

/** For statements that people paste: SQL on one line, whatever the name. */
export function sqlWord(word: string): string {
  if (isBare(word)) return word;
  const quoted = quoteName(word);
  if (quoted.search(controls) === -1) return quoted;
  return `U&${quoted.replaceAll('\\', '\\\\').replace(controls, (character) => `\\${hex(character)}`)}`;
}

export function sqlName({ schema, name }: QualifiedName): string {
  return `${sqlWord(schema)}.${sqlWord(name)}`;
}

const controls = /[\p{Cc}\u2028\u2029]/gu;

function hex(character: string): string {
  return character.charCodeAt(0).toString(16).padStart(4, '0');
}

/** Words that need quotes as a name: `pg_get_keywords()` of PostgreSQL 17, categories R and T. */
const reserved = new Set(
  (
    'all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation column ' +
    'concurrently constraint create cross current_catalog current_date current_role current_schema current_time ' +
    'current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign freeze from ' +
    'full grant group having ilike in initially inner intersect into is isnull join lateral leading left like limit localtime ' +
    'localtimestamp natural not notnull null offset on only or order outer overlaps placing primary references returning right ' +
    'select session_user similar some symmetric system_user table tablesample then to trailing true union unique user using ' +
    'variadic verbose when where window with'
  ).split(' '),
);

function isBare(word: string): boolean {
  return /^[a-z_][a-z0-9_$]*$/.test(word) && !reserved.has(word);
}

/** `a, b, c and 12 more`: the first few of many names. */
export function displayList(names: readonly QualifiedName[], most = 10): string {
  const shown = names.slice(0, most).map(displayName).join(', ');
  return names.length > most ? `${shown} and ${names.length - most} more` : shown;
}
