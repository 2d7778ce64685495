import { Failure } from './failure.ts';
import type { Log } from './log.ts';
import type { Census } from './manifest.ts';
import type { Toc, TocEntry } from './postgres/archive-toc.ts';
import type { Session } from './postgres/connect.ts';
import { applyToDatabase, databaseStatements } from './postgres/database-settings.ts';
import { settleDefaultGrants } from './postgres/default-grants.ts';
import { displayName, nameKey } from './postgres/names.ts';
import { readRestored } from './postgres/read-back.ts';
import { compareRestored, describeFindings, type Recorded } from './verdict.ts';

/** What a restored database was found to hold, all of it as recorded. */
export interface Compared {
  readonly compared: readonly Recorded[];
  /** Tables that the server would not let this role count. */
  readonly uncounted: number;
}

/**
 * Counts what the census says in `session`'s database. Throws a `Failure` with `otherwise` for its hint when it differs,
 * or with `all` when something could not be read; else that is told.
 */
export async function compareWithCensus(
  session: Session,
  census: Census,
  { otherwise, all = false, log }: { readonly otherwise: string; readonly all?: boolean; readonly log: Log },
): Promise<Compared> {
  const { state, unread } = await readRestored(session, census, { harmless: false });
  const without = new Set(unread.map((each) => `${each.kind} ${nameKey(each)}`));
  const { compared, findings } = compareRestored(
    {
      ...census,
      tables: census.tables.filter((table) => !without.has(`table ${nameKey(table)}`)),
      sequences: census.sequences.filter((sequence) => !without.has(`sequence ${nameKey(sequence)}`)),
    },
    state,
  );
  if (findings.length > 0)
    throw new Failure(
      'restore',
      'restore',
      `the restored database is not what was backed up\n${describeFindings(findings)}`,
      { hint: otherwise },
    );
  if (unread.length > 0) {
    const lines = unread.slice(0, 10).map((each) => `  ${each.kind} ${displayName(each)}: ${each.reason}`);
    if (unread.length > 10) lines.push(`  and ${unread.length - 10} more`);
    if (all)
      throw new Failure('restore', 'restore', `these could not be read to compare them\n${lines.join('\n')}`, {
        hint: otherwise,
      });
    log.warn(`restored, but this role may not read them to compare:\n${lines.join('\n')}`);
  }
  const uncounted = census.tables
    .filter((table) => without.has(`table ${nameKey(table)}`))
    .map(({ schema, name, rows }): Recorded => {
      return { schema, name, object: displayName({ schema, name }), recorded: rows, found: undefined };
    });
  return { compared: [...compared, ...uncounted], uncounted: uncounted.length };
}

/** Settings, grants and comment of the database itself: applied to one created here, told for one that was there. */
export async function finishDatabase(
  session: Session,
  toc: Toc,
  {
    database,
    created,
    keepOwners,
    log,
  }: { readonly database: string; readonly created: boolean; readonly keepOwners: boolean; readonly log: Log },
): Promise<void> {
  const statements = databaseStatements(toc);
  const wanted = statements.filter((each) => keepOwners || !each.grants);
  const left = created ? await applyToDatabase(session, database, wanted) : statements.map((each) => each.title);
  if (left.length === 0) return;
  const why = created
    ? 'this role may not set them'
    : 'the database was there before, and these belong to whoever made it';
  log.warn(`of the database itself, these are not as in the backup: ${[...new Set(left)].join(', ')} (${why})`);
}

/** Grants as in the backup, whatever this database's default privileges made of them. */
export async function settleGrants(session: Session, only: readonly TocEntry[], log: Log): Promise<void> {
  const { changed, left } = await settleDefaultGrants(session, only);
  const lines = (grants: readonly string[]): string =>
    [...grants.slice(0, 10), ...(grants.length > 10 ? [`and ${grants.length - 10} more`] : [])]
      .map((each) => `\n  ${each}`)
      .join('');
  const what = "this database's default privileges give new objects other grants than the backup has";
  if (changed.length > 0) log.notice(`${what}; set as they were:${lines(changed)}`);
  if (left.length > 0) log.warn(`${what}, and this role may not set them as they were:${lines(left)}`);
}
