import { Failure } from '../failure.ts';
import { run, TooMuchOutput } from '../program.ts';
import { databaseArgument } from './child-environment.ts';
import { readReports } from './messages.ts';
import type { Programs } from './programs.ts';

const trailer = '-- PostgreSQL database cluster dump complete\n--';

/**
 * The cluster's role definitions as SQL: no passwords, and no `ALTER ROLE … SET`, whose values may be secrets.
 * Throws a `Failure` when pg_dumpall does not exit 0.
 */
export async function dumpRoles(
  programs: Programs,
  environment: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<Buffer> {
  // Without -l it would connect to the database postgres, which need not exist.
  const database = databaseArgument(environment.PGDATABASE ?? '');
  const exit = await run(
    {
      path: programs.pgDumpall,
      args: ['--roles-only', '--no-role-passwords', '--no-password', '-l', database],
      env: environment,
    },
    { signal, timeoutMs: 5 * 60_000 },
  ).catch((error: unknown) => {
    if (signal.aborted) throw signal.reason;
    if (error instanceof TooMuchOutput)
      throw new Failure('dump', 'verification', 'the role definitions are larger than 256 MiB', {
        hint: 'back up without them (roles: false) and keep them elsewhere',
        cause: error,
      });
    throw new Failure('dump', 'timeLimit', 'pg_dumpall did not finish the role definitions in 5 minutes', {
      cause: error,
      transient: true,
    });
  });
  if (exit.code !== 0) {
    const said = readReports(exit.stderr).find((report) => report.severity === 'error')?.message;
    throw new Failure('dump', 'privilege', `pg_dumpall could not read the roles: ${said ?? `exit ${exit.code}`}`, {
      hint: 'where the provider hides roles, back up without them: roles: false',
    });
  }
  if (!exit.stdout.trimEnd().endsWith(trailer))
    throw new Failure('dump', 'verification', 'pg_dumpall exited 0 without finishing the role definitions');
  return Buffer.from(withoutSettings(exit.stdout));
}

/**
 * The script without its `ALTER ROLE … SET` statements, and without the `\restrict` lines that keep psql of before
 * August 2025 from reading it.
 */
export function withoutSettings(sql: string): string {
  const kept = splitStatements(sql.replace(/^\\(?:un)?restrict [A-Za-z0-9]+\n/gm, '')).filter((statement) => {
    const bare = statement.replace(/^(?:\s|--[^\n]*\n)+/, '');
    return !/^ALTER ROLE (?:"(?:[^"]|"")*"|[^\s"]+)(?: IN DATABASE (?:"(?:[^"]|"")*"|[^\s"]+))? SET /.test(bare);
  });
  return kept.join('').replace(/\n{3,}/g, '\n\n');
}

/** Splits at `;` outside quotes and comments; the pieces joined are the script again. */
function splitStatements(sql: string): string[] {
  const statements: string[] = [];
  let from = 0;
  const token = /--[^\n]*|[eE]'(?:[^'\\]|\\[\s\S]|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|;/g;
  for (const match of sql.matchAll(token)) {
    if (match[0] !== ';') continue;
    const end = match.index + 1;
    statements.push(sql.slice(from, end));
    from = end;
  }
  statements.push(sql.slice(from));
  return statements;
}
