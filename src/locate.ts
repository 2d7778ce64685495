import { randomInt } from 'node:crypto';
import { timeOfId } from './backup-id.ts';
import {
  type Backup,
  type Catalog,
  describeDamaged,
  readCatalog,
  requireName,
  type Selector,
  select,
} from './catalog.ts';
import { describeGap, type Gap } from './chain.ts';
import { Failure } from './failure.ts';
import type { Log } from './log.ts';
import { formatCount } from './numbers.ts';
import type { Store } from './store/store.ts';
import type { Trust } from './trust.ts';

export interface Located {
  readonly backup: Backup;
  /** Everything under its name. */
  readonly catalog: Catalog;
}

/**
 * The one backup that is asked for, with a warning for everything else that is wrong under its name. `strict`: a damaged
 * backup is not passed over for a whole one. Throws a `Failure`.
 */
export async function locate(
  store: Store,
  wanted: {
    readonly name: string | undefined;
    readonly selector: Selector;
    readonly trust: Trust;
    readonly strict?: boolean;
  },
  log: Log,
): Promise<Located> {
  const name = await requireName(store, wanted.name);
  const catalog = await readCatalog(store, wanted.trust, name);
  warnOf(catalog, log);
  const now = await store.now();
  const { selector } = wanted;
  if (wanted.strict !== true)
    return { backup: noteUnchecked(select(catalog, selector, now), wanted.trust, log), catalog };
  const drawn = selector.by === 'random' ? drawDamaged(catalog, selector.withinMs, now) : undefined;
  if (drawn !== undefined) throw damaged(drawn, catalog);
  const backup = select(catalog, selector, now);
  const newer = catalog.damaged.find((each) => each.id > backup.manifest.id);
  const passedOver =
    selector.by === 'latest' ||
    (selector.by === 'before' && newer !== undefined && (timeOfId(newer.id) ?? 0) <= selector.time);
  if (newer !== undefined && passedOver) throw damaged(newer, catalog);
  return { backup: noteUnchecked(backup, wanted.trust, log), catalog };
}

/** A `verify-key` that came out empty, as a misspelt variable does, would go unnoticed. */
function noteUnchecked(backup: Backup, { keys }: Trust, log: Log): Backup {
  const { name, id, signing } = backup.manifest;
  if (signing !== null && keys.length === 0)
    log.notice(`${name}/${id} says that it is signed, and without verify-key nobody looks by whom`);
  return backup;
}

/** One that cannot be tested, as often as chance would have it: drawn from whole ones only, a test would never find it. */
function drawDamaged(
  { backups, damaged: broken }: Catalog,
  withinMs: number,
  now: Date,
): Catalog['damaged'][number] | undefined {
  const since = now.getTime() - withinMs;
  const young = broken.filter((each) => (timeOfId(each.id) ?? 0) >= since);
  const whole = backups.filter(({ manifest }) => Date.parse(manifest.createdAt) >= since);
  return young.length === 0 ? undefined : young[randomInt(young.length + whole.length)];
}

function damaged({ name, id, reason, untrusted }: Catalog['damaged'][number], { backups: [whole] }: Catalog): Failure {
  const instead =
    whole === undefined
      ? 'no other is whole'
      : `the newest whole one is ${whole.manifest.id}, which backup: ${whole.manifest.id} tests`;
  return new Failure(
    'locate',
    'verification',
    `the backup to be tested, ${name}/${id}, is ${untrusted === true ? 'not trusted' : 'damaged'}: ${reason}`,
    {
      hint: `${untrusted === true ? whoWrote : 'take a new backup'}; ${instead}`,
    },
  );
}

const whoWrote = 'find out who wrote or changed it, and whether verify-key has the key of every job that signs';

/** What is wrong in a store besides the backups that are asked for. */
export function warnOf({ backups, damaged }: Catalog, log: Log): void {
  for (const each of damaged) log.warn(describeDamaged(each));
  for (const { manifest, tampering } of backups)
    if (tampering.length > 0)
      log.warn(
        `${manifest.name}/${manifest.id} is used as it was first stored, but somebody changed it: ${tampering.join(', ')}`,
      );
}

const mostGaps = 3;

/**
 * Which backups follow one that is not there as it was. Retention leaves a gap wherever it thins out, so those are notes, of
 * the newest; nothing explains another manifest.
 */
export function tellGaps(gaps: readonly Gap[], log: Log): void {
  const explained = gaps.filter(({ kind }) => kind !== 'another');
  for (const gap of gaps)
    if (gap.kind === 'another') log.warn(`${gap.name}/${gap.id} ${describeGap(gap)}`);
    else if (explained.indexOf(gap) >= explained.length - mostGaps)
      log.notice(`${gap.name}/${gap.id} ${describeGap(gap)}`);
  if (explained.length > mostGaps)
    log.notice(`and ${formatCount(explained.length - mostGaps, 'older backup')} before them; show <id> tells of one`);
}
