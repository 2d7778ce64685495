import { Failure } from '../failure.ts';
import { type ConnectOptions, connect, type Session } from './connect.ts';
import { isDatabaseError } from './messages.ts';
import { detectPooling, prepareSession } from './server.ts';
import type { ConnectionTarget } from './url.ts';

/** How long a lock is waited for: whoever comes after us waits as long. */
export const lockTimeout = '10s';

/**
 * A session in a database that others are working in: settings of ours must not reach theirs, so a transaction pooler is
 * refused (exit 15), and the server ends it soon after we are gone, whatever it was doing. Throws a `Failure`.
 */
export async function connectToLive(target: ConnectionTarget, options: ConnectOptions): Promise<Session> {
  if (target.poolerHint !== undefined)
    throw new Failure('connect', 'pooler', `${target.poolerHint.reason}, and temporary tables do not last there`, {
      hint: target.poolerHint.direct,
    });
  const session = await connect(target, options);
  try {
    const pooling = await detectPooling(session, () => connect(target, { ...options, pinned: session.server }));
    if (pooling === 'transaction')
      throw new Failure(
        'connect',
        'pooler',
        'this URL leads to a pooler that shares server sessions between transactions; settings and temporary tables would end up in those of your application',
        { hint: 'use the direct URL of the server, or the port of its session pool' },
      );
    await prepareSession(session);
    await session.query(
      [
        // Decides what a money value is read as: pg_restore would take the target's own.
        'RESET lc_monetary',
        'SET standard_conforming_strings = on',
        // A read-only transaction that is serializable and deferrable waits for others to end.
        `SET default_transaction_isolation = 'read committed'`,
        'SET default_transaction_deferrable = off',
        `SET lock_timeout = '${lockTimeout}'`,
        // We answer at once, or the network is gone and the locks we hold must go too.
        `SET idle_in_transaction_session_timeout = '60s'`,
      ].join('; '),
    );
    // Not every platform can; there the server notices when it next has something to say to us.
    await session.query('SET client_connection_check_interval = 1000').catch((error: unknown) => {
      if (!isDatabaseError(error)) throw error;
    });
    // New in 17, for superusers: event triggers would run for our temporary tables.
    await session
      .query(`SELECT set_config(name, 'off', false) FROM pg_catalog.pg_settings WHERE name = 'event_triggers'`)
      .catch((error: unknown) => {
        if (!isDatabaseError(error)) throw error;
      });
    return session;
  } catch (error) {
    await session.close();
    throw error;
  }
}

/** The SQLSTATE of a lock that was not given in time. */
export const lockNotAvailable = '55P03';

/** Its failure, in our words; `where` is the table it was about, where that is known. */
export function lockFailure(cause: Error, where = 'a table'): Failure {
  return new Failure('restore', 'timeLimit', `somebody else held a lock on ${where} for more than ${lockTimeout}`, {
    hint: 'nothing was changed; run it again when that is over (pg_stat_activity shows who it is)',
    cause,
  });
}
