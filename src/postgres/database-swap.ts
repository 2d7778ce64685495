/**
 * A restored database takes the place of another one: where that is possible without losing anything that is not in the
 * archive, and how. Both renames are one transaction, so nobody ever finds no database, or half of this done.
 */
import { Failure } from '../failure.ts';
import { entryKey } from './archive-selection.ts';
import type { Toc, TocEntry } from './archive-toc.ts';
import type { Session } from './connect.ts';
import { applyToDatabase, databaseStatements } from './database-settings.ts';
import { expectedRights } from './large-objects.ts';
import { sqlState } from './messages.ts';
import { displayWord, quoteName } from './names.ts';
import { describeContent } from './restored-objects.ts';
import { type DatabaseIdentity, identify, isSame } from './target-database.ts';

/** Why the target cannot be swapped; undefined when it can. `session` is in the target, `toc` is its table of contents. */
export async function swapObstacle(session: Session, toc: Toc, archive: Toc): Promise<string | undefined> {
  const extra = beyond(toc.entries, archive.entries);
  if (extra !== undefined) return `it holds what the backup does not have (${describeContent(extra)}), which stays`;
  const statement = databaseStatements(toc).find((each) => each.sqlFor === undefined);
  if (statement !== undefined) return `${statement.title} of it cannot be carried over`;
  const [row] = await session.query<{
    creates: boolean;
    owns: boolean;
    others: boolean;
    prepared: boolean;
    slots: boolean;
    elsewhere: boolean;
    extensions: string | null;
  }>(
    `SELECT r.rolsuper OR r.rolcreatedb AS creates, pg_has_role(d.datdba, 'USAGE') AS owns,
            EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.datid = d.oid AND a.pid <> pg_backend_pid()
                    AND a.application_name !~ '^pgassay '
                    -- Autovacuum belongs to nobody, and makes way.
                    AND a.usesysid IS NOT NULL) AS others,
            EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts x WHERE x.database = d.datname) AS prepared,
            EXISTS (SELECT FROM pg_catalog.pg_replication_slots s WHERE s.database = d.datname) AS slots,
            (SELECT spcname <> 'pg_default' FROM pg_catalog.pg_tablespace t WHERE t.oid = d.dattablespace) AS elsewhere,
            (SELECT min(e.name::text) FROM pg_catalog.pg_available_extensions e
             WHERE e.installed_version <> e.default_version) AS extensions
     FROM pg_catalog.pg_database d, pg_catalog.pg_roles r
     WHERE d.datname = current_database() AND r.rolname = current_user`,
  );
  if (row === undefined) return 'the server did not tell about it';
  if (!row.creates) return 'this role may not create a database beside it (CREATEDB)';
  if (!row.owns) return 'this role does not own it';
  if (row.others) return 'others are connected to it';
  if (row.prepared) return 'it has prepared transactions';
  if (row.slots) return 'it has replication slots';
  if (row.elsewhere) return 'it is in a tablespace of its own';
  if (row.extensions !== null)
    return `its extension ${displayWord(row.extensions)} is not of the version a new one gets`;
  const [large] = await session.query<{ oid: string | null }>(
    'SELECT min(oid)::text AS oid FROM pg_catalog.pg_largeobject_metadata WHERE oid <> ALL ($1::oid[])',
    [[...expectedRights(archive.entries).keys()]],
  );
  return large?.oid == null ? undefined : `it has the large object ${large.oid}, which the backup does not have`;
}

/** What goes with its object, and says nothing about one of its own. */
const attached = /^(?:ACL|COMMENT|SECURITY LABEL)$/;

function beyond(target: readonly TocEntry[], archive: readonly TocEntry[]): TocEntry | undefined {
  const ours = new Set(archive.map(entryKey));
  return target.find((entry) => {
    if (/^DATABASE/.test(entry.kind) || ours.has(entryKey(entry))) return false;
    if (entry.kind === 'SCHEMA' && entry.tag === 'public') return false;
    // Of a table they went with it in any case; schemas and extensions are kept by a restore in place.
    return !attached.test(entry.kind) || /^(?:SCHEMA|EXTENSION|LANGUAGE) /.test(entry.tag);
  });
}

/** `shop`, and a suffix; no longer than a name may be. */
export function nameWith(name: string, suffix: string): string {
  let stem = name;
  while (Buffer.byteLength(stem) + Buffer.byteLength(suffix) > 63) stem = [...stem].slice(0, -1).join('');
  return `${stem}${suffix}`;
}

/** Databases that earlier restores of `name` have left on the server: unfinished ones, and those that were replaced. */
export async function leftovers(
  session: Session,
  name: string,
): Promise<{ readonly unfinished: readonly string[]; readonly replaced: readonly string[] }> {
  const rows = await session.query<{ name: string }>(
    `SELECT datname::text AS name FROM pg_catalog.pg_database WHERE datname ~ '_(?:pgassay_[0-9a-f]{6}|before_[0-9]{14})$' ORDER BY 1`,
  );
  const named = rows.filter((row) => {
    const [suffix = ''] = /_(?:pgassay_[0-9a-f]{6}|before_\d{14})$/.exec(row.name) ?? [];
    return row.name === nameWith(name, suffix);
  });
  return {
    unfinished: named.flatMap((row) => (/_pgassay_/.test(row.name) ? [row.name] : [])),
    replaced: named.flatMap((row) => (/_before_/.test(row.name) ? [row.name] : [])),
  };
}

/** Gives `database` what `toc` says about the one that it is to replace. Throws a `Failure` when anything is refused. */
export async function carryOver(session: Session, database: string, toc: Toc): Promise<void> {
  const owner = toc.entries.find((entry) => entry.kind === 'DATABASE')?.owner ?? '';
  const left = await applyToDatabase(session, database, [
    ...(owner === ''
      ? []
      : [
          {
            ...{ title: 'its owner', grants: false, custom: undefined },
            sqlFor: (name: string) => `ALTER DATABASE ${quoteName(name)} OWNER TO ${quoteName(owner)}`,
          },
        ]),
    ...databaseStatements(toc),
  ]);
  if (left.length === 0) return;
  throw new Failure(
    'restore',
    'privilege',
    `of the database that is to be replaced, this role may not carry over ${[...new Set(left)].join(', ')}`,
    { hint: 'restore as a superuser, or with --jobs 1: then it is not replaced but changed' },
  );
}

/** `old` gets the name `aside`, and `fresh` the name that `old` has. Throws a `Failure`; both are as they were then. */
export async function swapDatabases(
  maintenance: Session,
  { old, fresh, aside }: { readonly old: DatabaseIdentity; readonly fresh: DatabaseIdentity; readonly aside: string },
): Promise<void> {
  const another = (name: string): Failure =>
    new Failure('restore', 'restore', `${displayWord(name)} is another database now`);
  for (const database of [old, fresh]) {
    const now = await identify(maintenance, database.name);
    if (now === undefined || !isSame(now, database)) throw another(database.name);
  }
  await maintenance.query('BEGIN READ WRITE');
  try {
    // Fails while anybody is in it, or has prepared a transaction there; until the COMMIT nobody new comes in.
    await maintenance.query(`ALTER DATABASE ${quoteName(old.name)} RENAME TO ${quoteName(aside)}`);
    const [slot] = await maintenance.query<{ name: string }>(
      'SELECT slot_name::text AS name FROM pg_catalog.pg_replication_slots WHERE datoid = $1::oid LIMIT 1',
      [old.oid],
    );
    if (slot !== undefined)
      throw new Failure(
        'restore',
        'restore',
        `${displayWord(old.name)} has got a replication slot meanwhile: ${displayWord(slot.name)}`,
        {
          hint: 'drop the slot and run it again; --jobs 1 replaces what is in the database, and leaves the slot',
        },
      );
    await maintenance.query(`ALTER DATABASE ${quoteName(fresh.name)} RENAME TO ${quoteName(old.name)}`);
    // A statement knows them by name alone; from here on both are locked.
    const renamed = await maintenance.query(
      'SELECT FROM pg_catalog.pg_database WHERE (oid, datname) IN (($1::oid, $2::name), ($3::oid, $4::name))',
      [old.oid, aside, fresh.oid, old.name],
    );
    if (renamed.length < 2) throw another(old.name);
    await maintenance.query('COMMIT');
  } catch (error) {
    await maintenance.query('ROLLBACK').catch(() => {});
    // Object in use.
    if (sqlState(error) !== '55006') throw error;
    throw new Failure(
      'restore',
      'restore',
      `others have connected to ${displayWord(old.name)} meanwhile, so that it could not be renamed`,
      {
        hint: 'stop what uses it and run it again; --jobs 1 replaces what is in it, and waits for others',
        cause: error,
      },
    );
  }
}

/** Which of the two has the name now. */
export async function swapped(
  maintenance: Session,
  { old, fresh }: { readonly old: DatabaseIdentity; readonly fresh: DatabaseIdentity },
): Promise<boolean> {
  const now = await identify(maintenance, old.name);
  return now !== undefined && isSame(now, fresh);
}
