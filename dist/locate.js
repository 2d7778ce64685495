import { locate } from './index.js';

await locate();
