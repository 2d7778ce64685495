import { outputSettings } from './census.ts';

const names = ['search_path', 'row_security', ...outputSettings.map((each) => /^SET (\w+)/.exec(each)?.[1] ?? '')];

/**
 * What the database's own code goes by, triggers, CHECKs, defaults and indexes alike: the same as in the application's
 * sessions of this role, not our empty search path. Statements that run meanwhile name everything in full.
 */
export const theirSettings = names.map((name) => `SET LOCAL ${name} TO DEFAULT`).join('; ');

/** Those of our own sessions again, in the same transaction. */
export const ourSettings = [`SET search_path = ''`, 'SET row_security = off', ...outputSettings]
  .map((each) => each.replace(/^SET/, 'SET LOCAL'))
  .join('; ');
