import type { Toc } from './archive-toc.ts';
import type { Session } from './connect.ts';
import { isDatabaseError } from './messages.ts';
import { quoteName } from './names.ts';

/** What an archive says about the database itself: its settings, limits, grants and comment. `pg_restore` without `--create` leaves it out. */
export interface DatabaseStatement {
  /** For people, without the value: `ALTER DATABASE … SET statement_timeout`. */
  readonly title: string;
  /** Of the grants: they need the roles. */
  readonly grants: boolean;
  /** A setting that no server knows, `app.tenant`, and its value: only a superuser may keep it, everybody may set it. */
  readonly custom: { readonly name: string; readonly value: string } | undefined;
  /** The statement for a database of this name; undefined when it is of a form that is not known here. */
  readonly sqlFor: ((database: string) => string) | undefined;
}

const identifier = '(?:"(?:[^"]|"")*"|[^\\s"]+)';
const forms = [
  new RegExp(`^(ALTER DATABASE )${identifier}( (?:SET|RESET|CONNECTION LIMIT|IS_TEMPLATE)\\b)`),
  new RegExp(`^(ALTER ROLE ${identifier} IN DATABASE )${identifier}( SET\\b)`),
  new RegExp(`^((?:GRANT|REVOKE) [A-Z, ]+ ON DATABASE )${identifier}( (?:TO|FROM)\\b)`),
  new RegExp(`^(COMMENT ON DATABASE )${identifier}( IS\\b)`),
];

export function databaseStatements(toc: Toc): DatabaseStatement[] {
  return toc.entries
    .filter(
      ({ kind, tag }) =>
        kind === 'DATABASE PROPERTIES' ||
        ((kind === 'ACL' || kind === 'COMMENT' || kind === 'SECURITY LABEL') && tag.startsWith('DATABASE ')),
    )
    .flatMap(({ kind, definition }) =>
      statementsOf(definition).map((statement) => ({
        title: titleOf(statement),
        grants: kind === 'ACL' || statement.startsWith('ALTER ROLE '),
        custom: customIn(statement),
        sqlFor: rewriterOf(statement),
      })),
    );
}

function rewriterOf(statement: string): ((database: string) => string) | undefined {
  const form = forms.find((pattern) => pattern.test(statement));
  if (form === undefined) return undefined;
  return (database) =>
    statement.replace(form, (_whole, before: string, after: string) => `${before}${quoteName(database)}${after}`);
}

function customIn(statement: string): DatabaseStatement['custom'] {
  const [, name, value] = /^ALTER DATABASE .* SET "?(\w+\.[\w.]+)"? TO '((?:[^'\\]|'')*)'$/s.exec(statement) ?? [];
  return name === undefined || value === undefined ? undefined : { name, value: value.replaceAll("''", "'") };
}

/** The startup parameter that sets them for one session. */
export function customOptions(statements: readonly DatabaseStatement[]): string | undefined {
  const options = statements.flatMap(({ custom }) =>
    custom === undefined ? [] : [`-c ${custom.name}=${custom.value.replace(/[\s\\]/g, '\\$&')}`],
  );
  return options.length === 0 ? undefined : options.join(' ');
}

/** Settings may hold secrets: their names only. */
function titleOf(statement: string): string {
  const setting = /^ALTER (?:DATABASE|ROLE) .*? SET ("(?:[^"]|"")*"|[\w.]+)/s.exec(statement)?.[1];
  if (setting !== undefined) return `the setting ${setting.replace(/[\p{Cc}"]/gu, '')}`;
  if (/^ALTER DATABASE/.test(statement)) return /IS_TEMPLATE/.test(statement) ? 'IS_TEMPLATE' : 'the connection limit';
  if (/^(?:GRANT|REVOKE)/.test(statement)) return 'its grants';
  return /^COMMENT/.test(statement) ? 'its comment' : 'a security label';
}

/** Splits at `;` outside of quotes; pg_dump writes no dollar quotes here. */
function statementsOf(sql: string): string[] {
  const statements: string[] = [];
  let from = 0;
  const take = (to: number): void => {
    const statement = sql.slice(from, to).trim();
    if (statement !== '') statements.push(statement);
  };
  for (const match of sql.matchAll(/[eE]'(?:[^'\\]|\\[\s\S]|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|;/g)) {
    if (match[0] !== ';') continue;
    take(match.index);
    from = match.index + 1;
  }
  take(sql.length);
  return statements;
}

/** Carries them out for `database`; the titles of those that were not. */
export async function applyToDatabase(
  session: Session,
  database: string,
  statements: readonly DatabaseStatement[],
): Promise<string[]> {
  const left: string[] = [];
  for (const { title, sqlFor } of statements) {
    try {
      if (sqlFor === undefined) left.push(title);
      else await session.query(sqlFor(database));
    } catch (error) {
      if (!isDatabaseError(error)) throw error;
      left.push(title);
    }
  }
  return left;
}
