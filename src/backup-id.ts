import { randomBytes } from 'node:crypto';

/** The label of backups that a restore takes of its target first: they are picked by id only. */
export const safetyLabel = 'pre-restore';

/** `YYYYMMDDTHHMMSSZ-<6 hex>`, UTC: sorts by time. */
export const idPattern = /^\d{8}T\d{6}Z-[0-9a-f]{6}$/;

/** What groups one database's backups: a folder's name that is safe in every store. */
export const namePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** Ids further ahead than this are from a clock that was wrong, and order nothing. */
const graceMs = 5 * 60 * 1000;

/**
 * A new id that sorts after every id in `existing`, except those in the future of `now` (the store's clock, five
 * minutes' grace). When the newest is of this very second, or within the grace, the new one is a second later.
 */
export function newId(now: Date, existing: readonly string[]): string {
  const newest = existing
    .map(timeOfId)
    .filter((time) => time !== undefined && time <= now.getTime() + graceMs)
    .reduce<number>((latest, time) => Math.max(latest, time ?? 0), 0);
  const second = Math.max(Math.floor(now.getTime() / 1000), Math.floor(newest / 1000) + 1);
  const stamp = new Date(second * 1000).toISOString().replace(/[-:]/g, '').replace('.000', '');
  return `${stamp}-${randomBytes(3).toString('hex')}`;
}

/** Milliseconds since the epoch; undefined for text that is no id or no time. */
export function timeOfId(id: string): number | undefined {
  if (!idPattern.test(id)) return undefined;
  const iso = id.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z.*$/, '$1-$2-$3T$4:$5:$6Z');
  const time = Date.parse(iso);
  return Number.isNaN(time) ? undefined : time;
}
