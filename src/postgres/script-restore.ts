import { createReadStream } from 'node:fs';
import { createGunzip } from 'node:zlib';
import { from as copyFrom } from 'pg-copy-streams';
import { Failure } from '../failure.ts';
import type { Log } from '../log.ts';
import type { Session } from './connect.ts';
import { isDatabaseError, reduceMessage } from './messages.ts';
import type { QualifiedName } from './names.ts';
import type { Refused } from './restore.ts';
import { isCopy, ScriptCutOff, scriptParts } from './sql-script.ts';
import { type PgVersion, parseVersion } from './version.ts';

export interface ScriptTable extends QualifiedName {
  /** Of each COPY and INSERT; undefined where they come from a query. */
  readonly rows: number | undefined;
  /** Rows that are there already are not put in once more (ON CONFLICT). */
  readonly skips: boolean;
}

/** What a plain dump of pg_dump's was found to hold, once all of it has been read. */
export interface Script {
  readonly path: string;
  readonly compressed: boolean;
  readonly server: PgVersion;
  readonly dumpedBy: PgVersion;
  readonly tables: readonly ScriptTable[];
  readonly schemas: readonly { readonly name: string; readonly owner: string }[];
  readonly extensions: readonly { readonly name: string; readonly schema: string }[];
  readonly roles: readonly string[];
  /** What is not restored, because it would reach out of the scratch server. */
  readonly leftOut: readonly string[];
}

const word = '((?:"(?:[^"]|"")*"|[^\\s"(),.;]+))';
const qualified = `${word}\\.${word}`;
const patterns = {
  server: /^-- Dumped from database version (\S+)/,
  dumpedBy: /^-- Dumped by pg_dump version (\S+)/,
  trailer: /^-- PostgreSQL database dump complete/,
  rows: new RegExp(`^(?:COPY|INSERT INTO) ${qualified}`),
  table: new RegExp(`^CREATE (?:UNLOGGED )?TABLE ${qualified}`),
  schema: new RegExp(`^CREATE SCHEMA ${word}$`),
  schemaOwner: new RegExp(`^ALTER SCHEMA ${word} OWNER TO ${word}$`),
  extension: new RegExp(`^CREATE EXTENSION IF NOT EXISTS ${word}(?: WITH SCHEMA ${word})?`),
  roles: new RegExp(`\\b(?:OWNER TO|FOR ROLE|TO|FROM) ${word}(?:$|\\s(?:IN|USING|WITH|GRANT|REVOKE)\\b)`, 'g'),
};

/** Reads all of it. Throws a `Failure`: exit 40 when it was cut off, exit 2 when pg_dump did not write it. */
export async function readScript(path: string, compressed: boolean, signal: AbortSignal): Promise<Script> {
  const tables = new Map<string, ScriptTable>();
  const owners = new Map<string, string>();
  const schemas: string[] = [];
  const extensions: { name: string; schema: string }[] = [];
  const roles = new Set<string>();
  const leftOut: string[] = [];
  let server: PgVersion | undefined;
  let dumpedBy: PgVersion | undefined;
  let complete = false;
  const count = (text: string, rows: number | undefined, skips = false): void => {
    const [, schema = '', name = ''] = patterns.rows.exec(text) ?? patterns.table.exec(text) ?? [];
    if (name === '') return;
    const known = tables.get(`${schema}.${name}`);
    const before = known === undefined ? 0 : known.rows;
    const total = rows === undefined || before === undefined ? undefined : before + rows;
    const either = skips || known?.skips === true;
    tables.set(`${schema}.${name}`, { schema: unquoted(schema), name: unquoted(name), rows: total, skips: either });
  };
  try {
    for await (const part of scriptParts(bytesOf(path, compressed, signal))) {
      if (part.kind === 'comment') {
        server ??= versionIn(patterns.server.exec(part.text)?.[1]);
        dumpedBy ??= versionIn(patterns.dumpedBy.exec(part.text)?.[1]);
        complete ||= patterns.trailer.test(part.text);
      } else if (part.kind === 'rows') {
        let lines = 0;
        for await (const rows of part.rows) for (const byte of rows) if (byte === 0x0a) lines++;
        count(part.copy, lines);
      } else if (part.kind === 'statement') {
        // Whatever comes after the end was put there by somebody else.
        complete = false;
        if (dangerous.test(part.text)) leftOut.push(headOf(part.text));
        const text = part.text.replace(/;$/, '');
        if (text.startsWith('CREATE ') && patterns.table.test(text)) count(text, 0);
        else if (text.startsWith('INSERT ')) count(text, part.inserts?.rows, part.inserts?.skips);
        const [, schema] = patterns.schema.exec(text) ?? [];
        if (schema !== undefined) schemas.push(unquoted(schema));
        const [, owned = '', owner] = patterns.schemaOwner.exec(text) ?? [];
        if (owner !== undefined) owners.set(unquoted(owned), unquoted(owner));
        const [, extension, where = 'public'] = patterns.extension.exec(text) ?? [];
        if (extension !== undefined) extensions.push({ name: unquoted(extension), schema: unquoted(where) });
        if (/^(?:ALTER|GRANT|REVOKE|CREATE POLICY)\b/.test(text))
          for (const [, role = ''] of text.split(/ (?:USING|WITH CHECK) \(/, 1)[0]?.matchAll(patterns.roles) ?? [])
            if (!/^(?:PUBLIC|CURRENT_USER|SESSION_USER)$/.test(role)) roles.add(unquoted(role));
      }
    }
  } catch (error) {
    signal.throwIfAborted();
    const code = (error as { code?: string }).code;
    if (!(error instanceof ScriptCutOff) && code !== 'Z_BUF_ERROR' && code !== 'Z_DATA_ERROR') throw error;
    throw cutOff(path, error instanceof ScriptCutOff ? error.message : 'its compressed data is damaged or has no end');
  }
  if (server === undefined || dumpedBy === undefined)
    throw new Failure('input', 'badInput', `${path} is an SQL script, and not one of pg_dump's`, {
      hint: 'assay reads what pg_dump wrote, in any of its formats, and databases by their URL',
    });
  if (!complete) throw cutOff(path, "it lacks pg_dump's last line");
  return {
    ...{ path, compressed, server, dumpedBy, extensions, leftOut },
    tables: [...tables.values()],
    schemas: schemas.map((name) => ({ name, owner: owners.get(name) ?? '' })),
    roles: [...roles].filter((role) => !role.startsWith('pg_')),
  };
}

function cutOff(path: string, why: string): Failure {
  return new Failure('validate', 'verification', `${path} was cut off: ${why}`, {
    hint: 'psql would load it without an error and leave out what is missing; look for another copy',
  });
}

function versionIn(text: string | undefined): PgVersion | undefined {
  return text === undefined ? undefined : parseVersion(text);
}

function unquoted(name: string): string {
  return name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name;
}

function bytesOf(path: string, compressed: boolean, signal: AbortSignal): AsyncIterable<Buffer> {
  const file = createReadStream(path, { signal });
  if (!compressed) return file;
  const plain = createGunzip();
  file.on('error', (error) => plain.destroy(error));
  return file.pipe(plain);
}

/** Done beforehand by the superuser, or of the server and not of this database. */
const elsewhere =
  /^(?:CREATE EXTENSION|COMMENT ON EXTENSION|CREATE SCHEMA|ALTER SCHEMA \S+ OWNER TO|(?:CREATE|ALTER|DROP|COMMENT ON) DATABASE|(?:GRANT|REVOKE) .* ON DATABASE|SET default_tablespace|SET client_encoding)\b/i;
/** They would reach another server, or hold its passwords. */
const dangerous = /^(?:(?:CREATE|ALTER|COMMENT ON|DROP) (?:SUBSCRIPTION|PUBLICATION|USER MAPPING))\b/i;

/**
 * Carries the script out, statement by statement, and goes on after an error: returns them all. What would reach out of
 * the server is left out.
 */
export async function runScript(
  session: Session,
  script: Script,
  { signal, log }: { readonly signal: AbortSignal; readonly log: Log },
): Promise<Refused[]> {
  const names = new Set(script.tables.flatMap((table) => [table.schema, table.name]));
  const refused: Refused[] = [];
  let done = 0;
  const progress = setInterval(() => log.progress(`restore ${done} statements`), 10_000);
  const attempt = async (text: string, work: () => Promise<unknown>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      session.lost.throwIfAborted();
      if (!isDatabaseError(error)) throw error;
      const message = reduceMessage(error.message, (each) => names.has(each));
      refused.push({ dumpId: undefined, object: headOf(text), message });
    }
  };
  try {
    for await (const part of scriptParts(bytesOf(script.path, script.compressed, signal))) {
      done++;
      if (part.kind === 'rows') await attempt(part.copy, () => copyRows(session, part.copy, part.rows));
      else if (part.kind === 'command' && !/^\\(?:(?:un)?restrict|connect)\b/.test(part.text))
        refused.push({
          dumpId: undefined,
          object: headOf(part.text),
          message: "a command of psql's, which is not run",
        });
      if (part.kind !== 'statement' || isCopy(part.text)) continue;
      if (elsewhere.test(part.text) || dangerous.test(part.text)) continue;
      await attempt(part.text, () => session.query(part.text));
    }
    return refused;
  } finally {
    clearInterval(progress);
  }
}

/** Reads the rows to their end also when the server does not want them. */
async function copyRows(session: Session, copy: string, rows: AsyncIterable<Buffer>): Promise<void> {
  const stream = session.client.query(copyFrom(copy));
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  promise.catch(() => {});
  let ended = false;
  stream.once('error', (error) => {
    ended = true;
    reject(error);
  });
  stream.once('finish', resolve);
  for await (const piece of rows) {
    if (ended || stream.write(piece)) continue;
    const drained = Promise.withResolvers<void>();
    stream.once('drain', drained.resolve);
    await Promise.race([drained.promise, promise.catch(() => {})]);
  }
  if (!ended) stream.end();
  await promise;
}

/** What a statement does and to what, and none of its values. */
function headOf(text: string): string {
  return (/^[^('$;=]*/.exec(text)?.[0] ?? '').replace(/\s+/g, ' ').trim().slice(0, 100);
}
