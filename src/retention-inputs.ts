import { namePattern } from './backup-id.ts';
import type { Inputs } from './inputs.ts';
import { parseDuration } from './numbers.ts';
import { keepsAnything, type RetentionPolicy } from './retention.ts';

/** Every input that says what stays, for each action and command that deletes. */
export const keepInputs: readonly string[] = [
  'keep-last',
  'keep-within',
  'keep-daily',
  'keep-weekly',
  'keep-monthly',
  'keep-yearly',
  'keep-labels',
];

const most = 100_000;
/** A thousand years, and far from where a date ends. */
const longestMs = 365_250 * 86_400_000;

/** Undefined when all are empty: nothing is ever deleted then. */
export function readRetention(inputs: Inputs): RetentionPolicy | undefined {
  const policy = {
    last: readCount(inputs, 'keep-last'),
    within: readWithin(inputs),
    daily: readCount(inputs, 'keep-daily'),
    weekly: readCount(inputs, 'keep-weekly'),
    monthly: readCount(inputs, 'keep-monthly'),
    yearly: readCount(inputs, 'keep-yearly'),
    labels: readLabels(inputs),
  };
  return keepsAnything(policy) ? policy : undefined;
}

/** A rule of 0 says that all may go, which nobody means. */
function readCount(inputs: Inputs, name: string): number | undefined {
  const text = inputs.optional(name);
  if (text === undefined) return undefined;
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= 1 && value <= most) return value;
  const hint =
    parseDuration(text) === undefined
      ? 'leave it empty for no such rule'
      : 'it is a number of backups; keep-within takes a duration';
  inputs.problem(name, `${text} is not a whole number from 1 to ${most}`, hint);
  return undefined;
}

function readWithin(inputs: Inputs): number | undefined {
  const text = inputs.optional('keep-within');
  return text === undefined ? undefined : duration(inputs, 'keep-within', text);
}

/** `pre-migration=90d`, one a line. */
function readLabels(inputs: Inputs): Map<string, number> {
  const labels = new Map<string, number>();
  for (const line of inputs.lines('keep-labels')) {
    const [, label = '', text = ''] = /^([^=]+)=(.*)$/.exec(line) ?? [];
    if (!namePattern.test(label.trim()))
      inputs.problem('keep-labels', `${line} is not a label, =, and a duration`, 'pre-migration=90d, for instance');
    else if (labels.has(label.trim())) inputs.problem('keep-labels', `${label.trim()} is given twice`);
    else labels.set(label.trim(), duration(inputs, 'keep-labels', text.trim()));
  }
  return labels;
}

function duration(inputs: Inputs, name: string, text: string): number {
  const ms = parseDuration(text);
  if (ms !== undefined && ms > 0 && ms <= longestMs) return ms;
  const what = ms === undefined ? 'is not a duration' : ms === 0 ? 'is no time at all' : 'is more than anybody waits';
  inputs.problem(name, `${text} ${what}`, 'write a number and a unit: 30d, 12h');
  return longestMs;
}
