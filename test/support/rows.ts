import { createHash } from 'node:crypto';
import pg from 'pg';
import { type CliResult, cli, clientBin, type Taken } from './backup.ts';
import type { Cluster } from './postgres.ts';

export interface RowsReport {
  readonly backupId: string;
  readonly dryRun: boolean;
  readonly tables: readonly {
    readonly schema: string;
    readonly name: string;
    readonly found: number;
    readonly inserted: number;
    readonly skipped: number;
    readonly updated: number;
    readonly shown?: { readonly columns: readonly string[]; readonly rows: readonly (readonly (string | null)[])[] };
  }[];
}

/** What every `pgassay rows` of that backup needs on its command line. */
export function rowsArguments(cluster: Cluster, backup: Pick<Taken, 'id' | 'store' | 'name'>): string[] {
  const bin = clientBin(cluster)['client-bin'];
  return [
    ...['rows', '--backup', backup.id, '--store', backup.store, '--name', backup.name],
    ...(bin === undefined ? [] : ['--client-bin', bin]),
  ];
}

/** `pgassay rows` of that backup into `database` with the committed `dist/cli.js`. */
export function rows(
  cluster: Cluster,
  backup: Pick<Taken, 'id' | 'store' | 'name'>,
  database: string,
  flags: readonly string[],
  url = cluster.url(database),
): Promise<CliResult> {
  return cli([...rowsArguments(cluster, backup), ...flags], { TARGET_URL: url });
}

/** `public.users 2 2 0 0`: found, inserted, skipped, updated. */
export function counts(result: CliResult): string[] {
  return ((result.json as RowsReport | undefined)?.tables ?? []).map((each) =>
    [`${each.schema}.${each.name}`, each.found, each.inserted, each.skipped, each.updated].join(' '),
  );
}

/** Everything a database holds: every row, sequence, definition of a table, trigger and its state. */
export async function everything(cluster: Cluster, database: string): Promise<Record<string, string>> {
  const client = await cluster.client(database);
  const held: Record<string, string> = {};
  try {
    const relations = await client.query<{ schema: string; name: string; kind: string }>(
      `SELECT nspname AS schema, relname AS name, relkind AS kind FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
       WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' AND relkind IN ('r', 'p', 'S') ORDER BY 1, 2`,
    );
    for (const { schema, name, kind } of relations.rows) {
      const from = `${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(name)}`;
      const columns = kind === 'S' ? "last_value || ' ' || is_called" : 'row_to_json(each_row)::text';
      const { rows } = await client.query<{ all: string }>(
        `SELECT coalesce(string_agg(x, E'\\n' ORDER BY x COLLATE "C"), '') AS all FROM (SELECT ${columns} AS x FROM ${kind === 'r' ? 'ONLY ' : ''}${from} AS each_row) s`,
      );
      held[`${kind} ${schema}.${name}`] = rows[0]?.all ?? '';
    }
    const catalog = await client.query<{ all: string }>(
      `SELECT string_agg(x, E'\\n' ORDER BY x) AS all FROM (
         SELECT format('trigger %s %s %s', tgrelid::regclass, tgname, tgenabled) FROM pg_trigger
         UNION ALL SELECT format('relation %s %s', oid::regclass, relfilenode) FROM pg_class WHERE oid > 16383 AND relpersistence <> 't' AND relnamespace <> 'pg_toast'::regnamespace
         UNION ALL SELECT format('constraint %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint WHERE conrelid > 16383) s(x)`,
    );
    held.catalog = catalog.rows[0]?.all ?? '';
  } finally {
    await client.end();
  }
  return Object.fromEntries(Object.entries(held).map(([name, text]) => [name, short(text)]));
}

/** A difference is to be read by people. */
function short(text: string): string {
  if (text.length < 5000) return text;
  return `${text.slice(0, 200)}… ${text.length} ${createHash('sha256').update(text).digest('hex')}`;
}
