/** Markdown out of texts that may be anything: names come from databases, messages from servers. */

/** As running text in a job summary, where nobody is notified: no markup, no link. */
export function markdown(text: string): string {
  return text
    .replace(/[\r\n]+/g, ' ')
    .replace(/[\\`*_{}[\]<>()#+!|@~&]/g, (character) => `&#${character.charCodeAt(0)};`);
}

/**
 * As code on one line, which is where GitHub makes neither links nor mentions nor references, also in a table. Control
 * characters and those that turn the reading direction become blanks, a pipe becomes a broken one.
 */
export function code(text: string): string {
  const line = text.replace(unseen, ' ').replaceAll('|', '¦');
  if (line.trim() === '') return '` `';
  const fence = '`'.repeat(longestRun(line) + 1);
  const pad = line.startsWith('`') || line.endsWith('`') || /^ .* $/.test(line) ? ' ' : '';
  return `${fence}${pad}${line}${pad}${fence}`;
}

/** A fence longer than any run of backticks inside. */
export function fenced(language: string, lines: readonly string[]): string {
  const text = lines.join('\n');
  const fence = '`'.repeat(Math.max(2, longestRun(text)) + 1);
  return `${fence}${language}\n${text}\n${fence}`;
}

/** `text` in `bytes` of UTF-8 at most, with a mark where it was cut. */
export function cut(text: string, bytes: number): string {
  if (Buffer.byteLength(text) <= bytes) return text;
  let kept = '';
  let size = Buffer.byteLength('…');
  for (const character of text) {
    size += Buffer.byteLength(character);
    if (size > bytes) break;
    kept += character;
  }
  return `${kept}…`;
}

/** Control characters, and those that turn the reading direction. */
export const unseen = /[\p{Cc}\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+/gu;

function longestRun(text: string): number {
  return Math.max(0, ...[...text.matchAll(/`+/g)].map((match) => match[0].length));
}
