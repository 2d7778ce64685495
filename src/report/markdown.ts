/** A fence longer than any run of backticks inside. */
export function fenced(language: string, lines: readonly string[]): string {
  const text = lines.join('\n');
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map((match) => match[0].length));
  const fence = '`'.repeat(longest + 1);
  return `${fence}${language}\n${text}\n${fence}`;
}

/** Names come from databases and may be anything: no markup, no mention, no link. */
export function markdown(text: string): string {
  return text
    .replace(/[\r\n]+/g, ' ')
    .replace(/[\\`*_{}[\]<>()#+!|@~&]/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** A table's cell in code face. */
export function cell(text: string): string {
  return `\`${text.replace(/[\r\n`|]+/g, ' ')}\``;
}
