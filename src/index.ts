/** The bundle's face: one function for each launcher in `launch/`. */
export { runBackup as backup, runBackupPost as backupPost } from './action/backup.ts';
export { runHealth as health } from './action/health.ts';
export { runLocate as locate } from './action/locate.ts';
export { runPrune as prune } from './action/prune.ts';
export { runRestore as restore, runRestorePost as restorePost } from './action/restore.ts';
export { runRestoreTest as restoreTest, runRestoreTestPost as restoreTestPost } from './action/restore-test.ts';
export { runCli as cli } from './cli/main.ts';
