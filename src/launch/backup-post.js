import { backupPost } from './index.js';

await backupPost();
