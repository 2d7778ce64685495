import * as numbers from '../../numbers.ts';

/** Numbers that no end of a line tears from one another or from their units. */
export const bytes = (value: number): string => unbroken(numbers.formatBytes(value));
export const number = (value: number): string => unbroken(numbers.formatNumber(value));
export const count = (value: number, noun: string): string => unbroken(numbers.formatCount(value, noun));
export const seconds = (value: number): string => unbroken(numbers.formatSeconds(value));

/** `text` with spaces that do not break after its numbers. */
export function unbroken(text: string): string {
  return text.replace(/(?<=\d) (?=\d{3}\b|(?:B|[kMGTP]B|ms|s|min|h|d|days|UTC|tables?|findings?)\b)/g, '\u00a0');
}
