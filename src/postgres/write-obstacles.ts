import type { ExitName } from '../failure.ts';
import type { Session } from './connect.ts';
import { sqlWord } from './names.ts';

/** Something that would keep rows from being written; all of them are told at once. */
export interface WriteObstacle {
  readonly message: string;
  readonly hint: string;
  readonly exit: ExitName;
}

/** What is wrong with the session itself, whatever tables it is to write. */
export async function judgeWriter(session: Session): Promise<WriteObstacle[]> {
  const [state] = await session.query<{ standby: boolean; replica: boolean; role: string }>(
    `SELECT pg_is_in_recovery() AS standby, current_setting('session_replication_role') = 'replica' AS replica,
            current_user::text AS role`,
  );
  const obstacles: WriteObstacle[] = [];
  if (state?.standby)
    obstacles.push({
      message: 'the target is a standby, which takes no rows',
      hint: 'use the URL of the primary (target_session_attrs=primary in the URL looks for it)',
      exit: 'badInput',
    });
  if (state?.replica)
    obstacles.push({
      message: 'sessions of this role run with session_replication_role = replica, so no foreign key would be checked',
      hint: `ALTER ROLE ${sqlWord(state.role)} RESET session_replication_role; or use another role`,
      exit: 'badInput',
    });
  return obstacles;
}
