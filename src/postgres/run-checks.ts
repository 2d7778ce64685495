import { type Check, describeCheck } from '../checks.ts';
import type { Finding } from '../verdict.ts';
import type { Session } from './connect.ts';
import { isDatabaseError, reduceMessage } from './messages.ts';

/** What a query may take, the others not counted. */
const checkMs = 5 * 60_000;
const boolean = 16;

/**
 * Asks every check of the restored database: read-only, one statement each, with the time of the backup's snapshot in
 * `current_setting('pgassay.backup_time')`. Whatever is not one row with one true is a finding; no value is repeated.
 */
export async function runChecks(session: Session, checks: readonly Check[], backupTime: string): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const check of checks) {
    const found = await answerOf(session, check, backupTime);
    if (found !== true) findings.push({ object: `check ${describeCheck(check)}`, expected: 'true', found });
  }
  return findings;
}

async function answerOf(session: Session, { sql }: Check, backupTime: string): Promise<true | string> {
  await session.query('BEGIN READ ONLY');
  try {
    await session.query(`SET LOCAL statement_timeout = ${checkMs}`);
    await session.query(`SELECT pg_catalog.set_config('pgassay.backup_time', $1, true)`, [backupTime]);
    // As an application finds it: the server's own, or what the database was set to.
    await session.query('SET LOCAL search_path TO DEFAULT');
    // The extended protocol takes one statement only, so a check cannot end its transaction and begin another.
    // Two rows say enough of a million.
    await session.client.query({ text: `DECLARE pgassay_check NO SCROLL CURSOR FOR ${sql}`, queryMode: 'extended' } as {
      text: string;
    });
    const result = await session.client.query<unknown[]>({ text: 'FETCH 2 FROM pgassay_check', rowMode: 'array' });
    const [field, ...more] = result.fields;
    if (field === undefined) return 'no result: it is no query';
    if (more.length > 0) return `${result.fields.length} columns`;
    if (result.rows.length !== 1) return result.rows.length === 0 ? 'no row' : 'several rows';
    if (field.dataTypeID !== boolean) return 'a value that is no boolean';
    const [value] = result.rows[0] ?? [];
    return value === true ? true : value === false ? 'false' : 'null';
  } catch (error) {
    session.lost.throwIfAborted();
    if (!isDatabaseError(error)) throw error;
    if (error.code === '57014') return `no answer within ${checkMs / 60_000} min`;
    return `error: ${reduceMessage(error.message)}`;
  } finally {
    await session.query('ROLLBACK');
  }
}
