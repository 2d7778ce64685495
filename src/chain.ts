import type { Catalog } from './catalog.ts';

/** A backup that follows one which is not there as it was. */
export interface Gap {
  readonly name: string;
  /** Who names it as the one before. */
  readonly id: string;
  readonly previous: string;
  /**
   * `missing`: nothing is there under that id. Retention explains that, or somebody deleted it. `unusable`: it is damaged, not
   * trusted or has no manifest. `another`: its manifest is not the one that was followed, which nothing explains.
   */
  readonly kind: 'missing' | 'unusable' | 'another';
}

/**
 * Every manifest names the one before it and the digest of its bytes. Whoever may write to the store but not sign can
 * delete backups; he cannot make the ones after them say something else. Oldest first.
 */
export function findGaps({ backups, damaged, unfinished }: Catalog): Gap[] {
  const held = new Map(backups.map((each) => [keyOf(each.manifest), each]));
  const broken = new Set([...damaged, ...unfinished].map(keyOf));
  const gaps = backups.flatMap(({ manifest: { name, id, previous } }): Gap[] => {
    if (previous === null) return [];
    const key = keyOf({ name, id: previous.id });
    const before = held.get(key);
    if (before?.manifestSha256 === previous.manifestSha256) return [];
    const kind = before !== undefined ? 'another' : broken.has(key) ? 'unusable' : 'missing';
    return [{ name, id, previous: previous.id, kind }];
  });
  return gaps.sort((a, b) => (a.id < b.id ? -1 : 1));
}

/** `follows 20261120T020004Z-3f9a1c, which is not here` */
export function describeGap({ previous, kind }: Pick<Gap, 'previous' | 'kind'>): string {
  const what = {
    missing: 'is not here: retention or somebody deleted it',
    unusable: 'cannot be used',
    another: 'is here with another manifest than the one it followed',
  }[kind];
  return `follows ${previous}, which ${what}`;
}

function keyOf({ name, id }: { readonly name: string; readonly id: string }): string {
  return `${name}/${id}`;
}
