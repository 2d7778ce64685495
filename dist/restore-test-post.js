import { restoreTestPost } from './index.js';

await restoreTestPost();
