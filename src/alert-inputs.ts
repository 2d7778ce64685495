import type { NotifyOn } from './alert-state.ts';
import { type Channels, channelInputs, readChannels } from './channel-inputs.ts';
import type { Inputs } from './inputs.ts';

/**
 * Every input that only the alerts have, for each action that raises them; a test holds the action.yml files to this list.
 * `github-token` is the stores' too.
 */
export const alertInputs: readonly string[] = [
  'alert-issue',
  'alert-labels',
  'alert-assignees',
  'alert-details',
  'notify-on',
  ...channelInputs,
];

export interface AlertConfig {
  /** `auto`: each action knows when. */
  readonly issue: 'auto' | boolean;
  /** The first one is what an issue is found by. Never empty. */
  readonly labels: readonly [string, ...string[]];
  readonly assignees: readonly string[];
  /** `auto`: names and counts are shown where the repository is known not to be public. */
  readonly details: 'auto' | boolean;
  readonly notifyOn: NotifyOn;
  readonly token: string | undefined;
  /** Who is told beside the issue. */
  readonly channels: Channels;
  /** What was given and is left out, as sentences: an alert without a label is better than none. */
  readonly notes: readonly string[];
}

/** GitHub's own limit. */
const longestLabel = 50;

/** Never throws: problems are added to `inputs`, and what is returned then can still be used to tell about them. */
export function readAlertConfig(inputs: Inputs): AlertConfig {
  const notes: string[] = [];
  const given = items(inputs, 'alert-labels').filter((label) => {
    if ([...label].length <= longestLabel) return true;
    notes.push(`alert-labels: a label has at most ${longestLabel} characters, so this one is left out: ${label}`);
    return false;
  });
  const [first = 'pgassay', ...others] = given;
  return {
    issue: autoOr(inputs, 'alert-issue'),
    labels: [first, ...others],
    assignees: items(inputs, 'alert-assignees').map((login) => login.replace(/^@/, '')),
    details: autoOr(inputs, 'alert-details'),
    notifyOn: inputs.choice('notify-on', ['change', 'failure', 'always'], 'change'),
    token: readToken(inputs),
    channels: readChannels(inputs),
    notes,
  };
}

function autoOr(inputs: Inputs, name: string): 'auto' | boolean {
  const value = inputs.optional(name)?.toLowerCase() ?? 'auto';
  if (value === 'auto') return value;
  if (value === 'true' || value === 'false') return value === 'true';
  inputs.problem(name, `${value} is not one of auto, true, false`);
  return 'auto';
}

/** A token with a line break in it is refused by fetch in a sentence that repeats it. */
export function readToken(inputs: Inputs): string | undefined {
  const token = inputs.optional('github-token');
  if (token === undefined || /^[\x21-\x7e]+$/.test(token)) return token;
  if (inputs.problems.some(({ input }) => input === 'github-token')) return undefined;
  inputs.problem('github-token', 'has a space, a line break or a letter in it that no token has', 'copy it again');
  return undefined;
}

/** One a line, or with commas between them; each once. */
function items(inputs: Inputs, name: string): string[] {
  const all = inputs.lines(name).flatMap((line) => line.split(','));
  return [...new Set(all.map((item) => item.trim()).filter((item) => item !== ''))];
}
