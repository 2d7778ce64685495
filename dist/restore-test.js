import { restoreTest } from './index.js';

await restoreTest();
