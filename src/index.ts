/** The bundle's face: one function for each launcher in `launch/`. */
export { runBackup as backup, runBackupPost as backupPost } from './action/backup.ts';
export { runCli as cli } from './cli/main.ts';
