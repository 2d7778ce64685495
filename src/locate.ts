import { type Backup, type Catalog, readCatalog, requireName, type Selector, select } from './catalog.ts';
import { Failure } from './failure.ts';
import type { Log } from './log.ts';
import type { Store } from './store/store.ts';

export interface Located {
  readonly backup: Backup;
  /** Everything under its name. */
  readonly catalog: Catalog;
}

/**
 * The one backup that is asked for, with a warning for everything else that is wrong under its name. `newest` says that
 * `latest` means the very newest: a damaged one is not passed over for an older one. Throws a `Failure`.
 */
export async function locate(
  store: Store,
  wanted: { readonly name: string | undefined; readonly selector: Selector; readonly newest?: boolean },
  log: Log,
): Promise<Located> {
  const name = await requireName(store, wanted.name);
  const catalog = await readCatalog(store, name);
  warnOf(catalog, log);
  const backup = select(catalog, wanted.selector, await store.now());
  const newer = catalog.damaged.find((each) => each.id > backup.manifest.id);
  if (wanted.newest !== true || wanted.selector.by !== 'latest' || newer === undefined) return { backup, catalog };
  throw new Failure(
    'locate',
    'verification',
    `the newest backup, ${newer.name}/${newer.id}, is damaged: ${newer.reason}`,
    {
      hint: `take a new backup; the newest whole one is ${backup.manifest.id}, which backup: ${backup.manifest.id} tests`,
    },
  );
}

/** What is wrong in a store besides the backups that are asked for. */
export function warnOf({ backups, damaged }: Catalog, log: Log): void {
  for (const { name, id, reason } of damaged) log.warn(`${name}/${id} is damaged: ${reason}`);
  for (const { manifest, tampering } of backups)
    if (tampering.length > 0)
      log.warn(
        `${manifest.name}/${manifest.id} is used as it was first stored, but somebody changed it: ${tampering.join(', ')}`,
      );
}
