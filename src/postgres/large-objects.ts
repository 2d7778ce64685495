/** Whether a restored database's large objects are the archive's: their contents, owners and grants. */
import { createHash, type Hash } from 'node:crypto';
import type { Finding } from '../verdict.ts';
import { decodeEntries, type RowsSource } from './archive-rows.ts';
import { ArchiveTextReader, type LargeObjectPart } from './archive-text.ts';
import type { TocEntry } from './archive-toc.ts';
import type { Session } from './connect.ts';
import { displayWord } from './names.ts';

/** Contents are compared in parts of this size, so that neither side ever holds one as a whole. */
const partBytes = 1024 * 1024;
const partsPerQuery = 500;
const objectsPerQuery = 10_000;
/** So many are named. */
const most = 20;

const holders = new Set(['BLOB', 'BLOBS', 'BLOB METADATA']);

export interface LargeObjectSource extends Omit<RowsSource, 'entries'> {
  /** What went through pg_restore. */
  readonly entries: readonly TocEntry[];
}

/**
 * Findings about large objects that differ from the archive's, none of their bytes in them. `session` is a superuser's;
 * `ownerHere` says who owns in this database what a role owns in the archive, undefined where grants cannot be compared.
 * Memory holds no more than the table of contents does. Throws a `Failure` (exit 40) when the archive cannot be read.
 */
export async function compareLargeObjects(
  session: Session,
  source: LargeObjectSource,
  ownerHere: (owner: string) => { readonly owner: string; readonly grants: boolean },
  signal: AbortSignal,
): Promise<Finding[]> {
  const holding = source.entries.filter((entry) => holders.has(entry.kind));
  if (holding.length === 0) return [];
  const differing = new Differences();
  await compareContents(session, { ...source, entries: holding.map((entry) => entry.dumpId) }, differing, signal);
  await compareRights(session, expectedRights(source.entries), ownerHere, differing);
  return differing.findings;
}

class Differences {
  readonly #findings = new Map<string, Finding>();
  #unnamed = 0;

  add(oid: string, what: 'content' | 'owner' | 'grants', finding: Omit<Finding, 'object'>): void {
    const key = `${oid} ${what}`;
    if (this.#findings.has(key)) return;
    if (this.#findings.size < most) this.#findings.set(key, { object: `large object ${oid}`, ...finding });
    else this.#unnamed++;
  }

  get findings(): Finding[] {
    const rest = { object: 'large objects', expected: 'as in the archive', found: `${this.#unnamed} more differences` };
    return [...this.#findings.values(), ...(this.#unnamed > 0 ? [rest] : [])];
  }
}

interface Part {
  readonly oid: string;
  readonly at: number;
  readonly digest: string;
}

async function compareContents(
  session: Session,
  source: RowsSource,
  differing: Differences,
  signal: AbortSignal,
): Promise<void> {
  const parts = new Parts();
  const text = new ArchiveTextReader(undefined, (part) => parts.add(part));
  const drain = async (least: number): Promise<void> => {
    while (parts.ready.length >= least && parts.ready.length > 0)
      await compareParts(session, parts.ready.splice(0, partsPerQuery), differing);
  };
  const more = (): Promise<void> | undefined => (parts.ready.length < partsPerQuery ? undefined : drain(partsPerQuery));
  await decodeEntries(source, text, more, signal);
  await drain(1);
}

/** The same digests on the server's side. */
async function compareParts(session: Session, parts: readonly Part[], differing: Differences): Promise<void> {
  const rows = await session.query<{ at: string; digest: string | null }>(
    `SELECT w.at::text AS at,
            CASE WHEN m.oid IS NOT NULL THEN pg_catalog.encode(pg_catalog.sha256(
              pg_catalog.lo_get(m.oid, w.part OPERATOR(pg_catalog.*) ${partBytes}::int8, ${partBytes})), 'hex') END AS digest
     FROM ROWS FROM (unnest($1::oid[]), unnest($2::int8[])) WITH ORDINALITY AS w(oid, part, at)
     LEFT JOIN pg_catalog.pg_largeobject_metadata m ON m.oid = w.oid`,
    [parts.map((part) => part.oid), parts.map((part) => part.at)],
  );
  for (const { at, digest } of rows) {
    const part = parts[Number(at) - 1];
    if (part === undefined || part.digest === digest) continue;
    differing.add(part.oid, 'content', {
      expected: 'the content in the archive',
      found: digest === null ? 'missing' : 'another content',
    });
  }
}

/** Digests of each part of each object, and one of nothing behind it: it must not go on. */
class Parts {
  readonly ready: Part[] = [];
  #oid = '';
  #at = 0;
  #filled = 0;
  #hash: Hash = createHash('sha256');

  add(part: LargeObjectPart): void {
    if (part.kind === 'begin') {
      this.#oid = part.oid;
      this.#at = 0;
      this.#restart();
    } else if (part.kind === 'end') this.#cut();
    else {
      const bytes = Buffer.from(part.hex.toString('latin1'), 'hex');
      for (let from = 0; from < bytes.length; ) {
        const some = bytes.subarray(from, from + partBytes - this.#filled);
        this.#hash.update(some);
        this.#filled += some.length;
        from += some.length;
        if (this.#filled === partBytes) this.#cut();
      }
    }
  }

  #cut(): void {
    this.ready.push({ oid: this.#oid, at: this.#at, digest: this.#hash.digest('hex') });
    this.#at++;
    this.#restart();
  }

  #restart(): void {
    this.#filled = 0;
    this.#hash = createHash('sha256');
  }
}

interface Rights {
  readonly owner: string;
  /** `["reader","SELECT",false]`: to whom, what, whether he may pass it on; PUBLIC is the empty name. */
  readonly grants: Set<string>;
}

/** What the archive gives to whom. Since 17 one entry stands for many objects with the same owner and grants. */
export function expectedRights(entries: readonly TocEntry[]): Map<string, Rights> {
  const rights = new Map<string, Rights>();
  const oidsOf = new Map<number, readonly string[]>();
  for (const { kind, dumpId, tag, owner, definition } of entries) {
    if (kind !== 'BLOB' && kind !== 'BLOB METADATA') continue;
    const oids = kind === 'BLOB' ? [tag] : definition.split('\n').filter((line) => /^\d+$/.test(line));
    oidsOf.set(dumpId, oids);
    for (const oid of oids) rights.set(oid, { owner, grants: new Set(grantsOf(owner, ['SELECT', 'UPDATE'], false)) });
  }
  for (const { kind, tag, definition, dependencies } of entries) {
    if (kind !== 'ACL' || !/^LARGE OBJECTS? /.test(tag)) continue;
    const oids = dependencies.flatMap((id) => oidsOf.get(id) ?? []);
    for (const oid of oids) {
      const grants = rights.get(oid)?.grants;
      if (grants !== undefined) applyGrants(grants, definition);
    }
  }
  return rights;
}

const statement =
  /^(GRANT|REVOKE) (.+) ON LARGE OBJECT \d+ (?:TO|FROM) ((?:"(?:[^"]|"")*"|[^\s";])+)( WITH GRANT OPTION)?;$/gm;

function applyGrants(grants: Set<string>, definition: string): void {
  for (const [, verb, what = '', name = '', passing] of definition.matchAll(statement)) {
    const privileges = /^ALL\b/.test(what) ? ['SELECT', 'UPDATE'] : what.split(', ');
    const role = name === 'PUBLIC' ? '' : name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name;
    for (const passed of [false, true])
      for (const each of grantsOf(role, privileges, passed)) {
        if (verb === 'REVOKE') grants.delete(each);
        else if (passed === (passing !== undefined)) grants.add(each);
      }
  }
}

function grantsOf(role: string, privileges: readonly string[], passed: boolean): string[] {
  return privileges.map((privilege) => JSON.stringify([role, privilege, passed]));
}

async function compareRights(
  session: Session,
  expected: ReadonlyMap<string, Rights>,
  ownerHere: (owner: string) => { readonly owner: string; readonly grants: boolean },
  differing: Differences,
): Promise<void> {
  for (let last = '0'; ; ) {
    const rows = await session.query<{ oid: string; owner: string; grants: [string, string, boolean][] }>(
      `SELECT m.oid::text AS oid, pg_catalog.pg_get_userbyid(m.lomowner)::text AS owner,
              (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(coalesce(r.rolname, ''), a.privilege_type, a.is_grantable)), '[]')
               FROM pg_catalog.aclexplode(coalesce(m.lomacl, pg_catalog.acldefault('L', m.lomowner))) a
               LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee) AS grants
       FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid > $1::oid ORDER BY m.oid LIMIT ${objectsPerQuery}`,
      [last],
    );
    for (const { oid, owner, grants } of rows) {
      const right = expected.get(oid);
      if (right === undefined) continue;
      const here = ownerHere(right.owner);
      if (owner !== here.owner)
        differing.add(oid, 'owner', {
          expected: `owned by ${displayWord(here.owner)}`,
          found: `owned by ${displayWord(owner)}`,
        });
      else if (here.grants && !isSameSet(right.grants, new Set(grants.map((each) => JSON.stringify(each)))))
        differing.add(oid, 'grants', { expected: 'the grants in the archive', found: 'other grants' });
    }
    const next = rows.at(-1);
    if (next === undefined || rows.length < objectsPerQuery) return;
    last = next.oid;
  }
}

function isSameSet(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  return a.size === b.size && a.isSubsetOf(b);
}
