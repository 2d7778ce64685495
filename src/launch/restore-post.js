import { restorePost } from './index.js';

await restorePost();
