import { readFileSync } from 'node:fs';
import { record } from './alert/github.ts';

export type Visibility = 'private' | 'public' | 'unknown';

/** What one repository object of GitHub's says; of two answers that differ, the careful one. */
export function visibilityOf(repository: unknown): Visibility {
  const { visibility, private: hidden } = record(repository);
  if (visibility === 'public' || hidden === false) return 'public';
  return visibility === 'private' || visibility === 'internal' || hidden === true ? 'private' : 'unknown';
}

/** Of the repository of a run, as the event that started it says: `eventPath` is the runner's file with it. */
export function visibilityOfEvent(eventPath: string | undefined): Visibility {
  return visibilityOf(record(eventOf(eventPath)).repository);
}

function eventOf(path: string | undefined): unknown {
  try {
    return path === undefined ? undefined : JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}
