import type { Census, Manifest } from '../manifest.ts';
import type { Toc } from './archive-toc.ts';

/** What an archive without a census tells of its database, read out of its definitions. */

const identifier = '("(?:[^"]|"")*"|[^\\s",;()]+)';

function unquoted(word: string): string {
  return word.startsWith('"') ? word.slice(1, -1).replaceAll('""', '"') : word;
}

/** Without their versions, which no archive holds. */
export function extensionsOf(toc: Toc): Census['extensions'] {
  return toc.entries
    .filter((entry) => entry.kind === 'EXTENSION')
    .map(({ tag, definition }) => {
      const [, schema = 'public'] = new RegExp(`WITH SCHEMA ${identifier}`).exec(definition) ?? [];
      return { name: tag, version: '', schema: unquoted(schema) };
    });
}

/** Owners, and whoever is granted something or named by a policy. */
export function rolesNamedIn(toc: Toc): string[] {
  const roles = new Set<string>();
  for (const { kind, owner, definition } of toc.entries) {
    if (owner !== '') roles.add(owner);
    if (kind !== 'ACL' && kind !== 'DEFAULT ACL' && kind !== 'POLICY') continue;
    const lists = new RegExp(`\\b(?:TO|FROM|FOR ROLE) ${identifier}((?:, ?${identifier})*)`, 'g');
    // A policy's condition may select FROM anything.
    const [head = ''] = kind === 'POLICY' ? definition.split(/ (?:USING|WITH CHECK) \(/, 1) : [definition];
    for (const [, first = '', more = ''] of head.matchAll(lists))
      for (const word of [first, ...more.split(',').map((each) => each.trim())])
        if (word !== '' && !/^(?:PUBLIC|CURRENT_USER|SESSION_USER)$/i.test(word)) roles.add(unquoted(word));
  }
  return [...roles].filter((role) => !role.startsWith('pg_')).sort();
}

type Locale = Pick<Manifest['database'], 'collation' | 'lcCollate' | 'lcCtype' | 'icuRules'>;

/** Out of `CREATE DATABASE`, which pg_dump writes for `pg_restore --create`. */
export function localeOf(toc: Toc): Locale {
  const definition = toc.entries.find((entry) => entry.kind === 'DATABASE')?.definition ?? '';
  const value = (name: string): string | undefined =>
    new RegExp(`\\b${name} = '((?:[^']|'')*)'`).exec(definition)?.[1]?.replaceAll("''", "'");
  const both = value('LOCALE');
  const lcCollate = value('LC_COLLATE') ?? both ?? 'C';
  const lcCtype = value('LC_CTYPE') ?? both ?? lcCollate;
  const icu = value('ICU_LOCALE');
  const builtin = value('BUILTIN_LOCALE');
  const collation = icu !== undefined ? `icu:${icu}` : builtin !== undefined ? `builtin:${builtin}` : lcCollate;
  const icuRules = value('ICU_RULES');
  return { collation, lcCollate, lcCtype, ...(icuRules === undefined ? {} : { icuRules }) };
}
