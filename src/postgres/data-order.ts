import type { Session } from './connect.ts';
import type { QualifiedName } from './names.ts';

/** A foreign key of the target, between two tables or parts of them. */
export interface ForeignKey {
  readonly name: string;
  readonly from: QualifiedName & { readonly oid: number; readonly root: number };
  readonly to: QualifiedName & { readonly oid: number; readonly root: number };
  readonly deferrable: boolean;
  /** Of a partition, and goes with its parent's. */
  readonly inherited: boolean;
  /** This role may alter it. */
  readonly owned: boolean;
  /** Its triggers are disabled. */
  readonly unchecked: boolean;
}

/** Foreign keys that these relations have, or that point at them. */
export async function readForeignKeys(session: Session, oids: readonly number[]): Promise<ForeignKey[]> {
  const side = (table: string, place: string): string =>
    `json_build_object('schema', ${place}.nspname, 'name', ${table}.relname, 'oid', ${table}.oid::int8,
       'root', coalesce(pg_partition_root(${table}.oid)::oid, ${table}.oid)::int8)`;
  return session.query<ForeignKey>(
    `SELECT k.conname::text AS name, ${side('f', 'fn')} AS "from", ${side('t', 'tn')} AS "to",
            k.condeferrable AS deferrable, k.conparentid <> 0 AS inherited,
            pg_has_role(f.relowner, 'USAGE') AS owned,
            EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgconstraint = k.oid AND g.tgenabled IN ('D', 'R')) AS unchecked
     FROM pg_catalog.pg_constraint k
     JOIN pg_catalog.pg_class f ON f.oid = k.conrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
     JOIN pg_catalog.pg_class t ON t.oid = k.confrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
     WHERE k.contype = 'f' AND (k.conrelid = ANY ($1::oid[]) OR k.confrelid = ANY ($1::oid[]))
     ORDER BY k.conname COLLATE "C", k.oid`,
    [oids],
  );
}

export interface LoadingOrder<T> {
  readonly order: readonly T[];
  /** Tables that refer to each other in a circle, or stand between two. */
  readonly circle: readonly T[];
  /** Keys of the circle that have to be made deferrable. */
  readonly postponed: readonly ForeignKey[];
}

/**
 * Referenced tables first. Partitions of one table go together: what refers to the table refers to any of them. A table
 * that refers to itself needs nothing, as its rows go in with one statement; partitions that do are a circle.
 */
export function loadingOrder<T extends { readonly oid: number; readonly ancestors: readonly number[] }>(
  tables: readonly T[],
  keys: readonly ForeignKey[],
): LoadingOrder<T> {
  const roots = new Map<number, T[]>();
  for (const table of tables) {
    const root = table.ancestors.at(-1) ?? table.oid;
    roots.set(root, [...(roots.get(root) ?? []), table]);
  }
  const alone = (root: number): boolean => roots.get(root)?.length === 1;
  const edges = keys.filter(
    ({ from, to }) => roots.has(from.root) && roots.has(to.root) && (from.root !== to.root || !alone(from.root)),
  );
  const order: T[] = [];
  let left = new Set(roots.keys());
  for (;;) {
    const free = [...left].filter((root) => !edges.some((key) => key.from.root === root && left.has(key.to.root)));
    if (free.length === 0) break;
    order.push(...free.flatMap((root) => roots.get(root) ?? []));
    left = new Set([...left].filter((root) => !free.includes(root)));
  }
  // Who refers to a circle, and to whom nobody in it refers, is no part of it, and comes after it.
  const behind: number[] = [];
  for (;;) {
    const last = [...left].filter((root) => !edges.some((key) => key.to.root === root && left.has(key.from.root)));
    if (last.length === 0) break;
    behind.unshift(...last);
    left = new Set([...left].filter((root) => !last.includes(root)));
  }
  const membersOf = (some: Iterable<number>): T[] => [...some].flatMap((root) => roots.get(root) ?? []);
  const circle = membersOf(left);
  const postponed = edges.filter(
    (key) => left.has(key.from.root) && left.has(key.to.root) && !key.deferrable && !key.inherited,
  );
  return { order: [...order, ...circle, ...membersOf(behind)], circle, postponed };
}
