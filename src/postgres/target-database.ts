import { Failure } from '../failure.ts';
import type { Manifest } from '../manifest.ts';
import type { Session } from './connect.ts';
import { isDatabaseError, reduceMessage } from './messages.ts';
import { displayWord, quoteName } from './names.ts';

/** One database of one cluster: a name alone may mean another one on another server, or a later one. */
export interface DatabaseIdentity {
  readonly name: string;
  readonly oid: string;
  /** The cluster's system identifier; null where the server does not tell. */
  readonly system: string | null;
}

/** Undefined: this server has no database of that name. */
export async function identify(session: Session, name: string): Promise<DatabaseIdentity | undefined> {
  const [row] = await session.query<{ oid: string }>(
    'SELECT oid::text AS oid FROM pg_catalog.pg_database WHERE datname = $1',
    [name],
  );
  if (row === undefined) return undefined;
  const system = await session
    .query<{ id: string }>('SELECT system_identifier::text AS id FROM pg_catalog.pg_control_system()')
    .catch((error: unknown) => {
      if (isDatabaseError(error)) return [];
      throw error;
    });
  return { name, oid: row.oid, system: system[0]?.id ?? null };
}

export function isMissingDatabase(error: unknown): boolean {
  return error instanceof Failure && error.cause instanceof Error && error.cause.message === 'SQLSTATE 3D000';
}

/** The connection ended before the server answered: the database may be there, and nobody knows which it is. */
export class CreationUnknown extends Error {}

/**
 * Creates the database as the source was: encoding, locale, its provider and rules. Throws a `Failure` when the server
 * refuses and {@link CreationUnknown} when it did not answer.
 */
export async function createDatabase(
  maintenance: Session,
  name: string,
  source: Manifest['database'],
): Promise<DatabaseIdentity> {
  try {
    await maintenance.query(
      `CREATE DATABASE ${quoteName(name)} TEMPLATE template0 ENCODING ${literal(source.encoding)}${localeOf(source)}`,
    );
    const created = await identify(maintenance, name);
    if (created !== undefined) return created;
  } catch (error) {
    if (!isDatabaseError(error)) throw new CreationUnknown('no answer', { cause: error });
    throw refusal(error, error.code, name, source);
  }
  throw new Failure('restore', 'restore', `the database ${displayWord(name)} is gone again right after its creation`);
}

function refusal(error: Error, code: string, name: string, source: Manifest['database']): Failure {
  if (code === '42501')
    return new Failure('restore', 'privilege', `this role may not create the database ${displayWord(name)}`, {
      hint: 'let somebody who may create it, then restore into the empty database',
      cause: error,
    });
  return new Failure(
    'restore',
    'restore',
    `the database ${displayWord(name)} could not be created: ${reduceMessage(error.message)}`,
    {
      hint: `the source has encoding ${source.encoding} and collation ${source.collation}; create the database yourself with what this server has, then restore into it`,
      cause: error,
    },
  );
}

/** Backups of before lcCollate was recorded name one locale, which stands for both categories. */
function localeOf(source: Manifest['database']): string {
  const [, provider, locale = ''] = /^(icu|builtin):(.*)$/s.exec(source.collation) ?? [];
  const collate = source.lcCollate ?? (provider === undefined ? source.collation : undefined);
  const ctype = source.lcCtype ?? collate;
  let clauses = '';
  if (provider !== undefined)
    clauses += ` LOCALE_PROVIDER ${provider} ${provider === 'icu' ? 'ICU_LOCALE' : 'BUILTIN_LOCALE'} ${literal(locale)}`;
  if (provider === 'icu' && source.icuRules !== undefined) clauses += ` ICU_RULES ${literal(source.icuRules)}`;
  if (collate !== undefined) clauses += ` LC_COLLATE ${literal(collate)}`;
  if (ctype !== undefined) clauses += ` LC_CTYPE ${literal(ctype)}`;
  return clauses;
}

function literal(text: string): string {
  const quoted = `'${text.replaceAll("'", "''").replaceAll('\\', '\\\\')}'`;
  return text.includes('\\') ? ` E${quoted}` : quoted;
}

/**
 * Drops that very database; with every session in it, or not while there is one. `another`: what has its name now is
 * not it, and stays.
 */
export async function dropDatabase(
  maintenance: Session,
  database: DatabaseIdentity,
  { force }: { readonly force: boolean },
): Promise<'dropped' | 'gone' | 'another'> {
  const found = await identify(maintenance, database.name);
  if (found === undefined) return 'gone';
  if (!isSame(found, database)) return 'another';
  await maintenance.query(`DROP DATABASE ${quoteName(database.name)}${force ? ' WITH (FORCE)' : ''}`);
  return 'dropped';
}

export function isSame(a: DatabaseIdentity, b: DatabaseIdentity): boolean {
  return a.oid === b.oid && a.system === b.system;
}
