import { existsSync } from 'node:fs';
import { type Browser, chromium } from 'playwright-core';
import type { Backup, Catalog } from '../../src/catalog.ts';
import type { Manifest } from '../../src/manifest.ts';
import { type NameFacts, type PageFacts, type PageView, pageFacts } from '../../src/page-facts.ts';
import type { Proof } from '../../src/proof.ts';
import type { RetentionPolicy } from '../../src/retention.ts';

const hourMs = 3_600_000;
export const dayMs = 24 * hourMs;
/** When every made-up page is looked at. */
export const now = new Date('2026-11-21T05:10:00Z');

/** A nightly history, newest first; what a night differs in is said by `night`, 0 the last one. */
export interface NightlyOptions {
  readonly name?: string;
  readonly night?: (night: number) => Partial<Manifest> | 'none';
  readonly tested?: (night: number) => Partial<Proof> | undefined;
  readonly everyMs?: number;
}

export function nightly(nights: number, options: NightlyOptions = {}): NameFacts {
  const { name = 'shop', night: change = () => ({}), tested = weekly, everyMs = dayMs } = options;
  const backups: Backup[] = [];
  const proofs = new Map<string, Proof[]>();
  let previous: Manifest['previous'] = null;
  for (let night = nights - 1; night >= 0; night--) {
    const differs = change(night);
    if (differs === 'none') continue;
    const at = new Date(now.getTime() - 3 * hourMs - 6 * 60_000 - night * everyMs);
    const id = `${at.toISOString().slice(0, 19).replace(/[-:]/g, '')}Z-${(night + 0x3f9a1c).toString(16)}`;
    const manifest = manifestOf(name, id, at, nights - night, { previous, ...differs });
    const backup: Backup = { manifest, manifestSha256: 'ab'.repeat(32), tampering: [], proofs: [] };
    backups.unshift(backup);
    previous = { id, manifestSha256: backup.manifestSha256 };
    const test = tested(night);
    if (test !== undefined) proofs.set(id, [proofOf(backup, test)]);
  }
  const catalog: Catalog = { backups, damaged: [], unfinished: [] };
  return { name, catalog, proofs, tables: undefined, damage: [], keyUses: [] };
}

const weekly = (night: number): Partial<Proof> | undefined => (night % 7 === 2 ? {} : undefined);

function manifestOf(name: string, id: string, at: Date, age: number, more: Partial<Manifest>): Manifest {
  const bytes = Math.round(380e6 + age * 0.6e6 + 6e6 * Math.sin(age));
  const file = { sha256: '12'.repeat(32), plainSha256: '12'.repeat(32), compression: 'zstd:3', encryption: null };
  return {
    ...{ format: 'pgassay/1', id, name, label: 'scheduled', series: 'full' },
    ...{ createdAt: at.toISOString(), finishedAt: at.toISOString(), expiresAt: null },
    database: {
      ...{ id: '34'.repeat(32), name, serverVersion: '17.12', encoding: 'UTF8', collation: 'C.UTF-8' },
      sizeBytes: bytes * 3,
    },
    tools: { pgDump: '17.12', pgassay: '0.1.0' },
    source: null,
    scope: { mode: 'full', schemas: [], excludeSchemas: [], tables: [], excludeTables: [], excludeTableData: [] },
    ...{ store: 's3://acme-backups/prod', previous: null, signing: null },
    files: [{ ...file, name: 'database.dump', bytes }],
    totals: { tables: 48, rows: 9_430_112 + age * 3110, largeObjects: 0 },
    ...{ selfContained: true, warnings: [], timings: { total: 6 } },
    ...more,
  };
}

function proofOf({ manifest, manifestSha256 }: Backup, more: Partial<Proof>): Proof {
  const tested = new Date(Date.parse(manifest.createdAt) + 2 * hourMs);
  const restore = 245 + (Number.parseInt(manifest.id.slice(-4), 16) % 40);
  return {
    ...{ format: 'pgassay-proof/1', backupId: manifest.id, name: manifest.name, manifestSha256 },
    ...{ testedAt: tested.toISOString(), result: 'passed', level: 'rows', findings: [], findingsLeftOut: 0 },
    ...{ leftOut: [], notes: [], timings: { download: 5, restore, total: restore + 40 }, maxRestoreSeconds: 1800 },
    ...{ server: '17.12', recipient: null, tools: { pgRestore: '17.12', pgassay: '0.1.0' } },
    runUrl: 'https://github.com/acme/shop/actions/runs/1',
    ...more,
  };
}

export const policy = (rules: Partial<RetentionPolicy>): RetentionPolicy => ({
  ...{ last: undefined, within: undefined, daily: undefined, weekly: undefined, monthly: undefined, yearly: undefined },
  ...{ labels: new Map() },
  ...rules,
});

export function factsOf(names: readonly NameFacts[], view: Partial<PageView> = {}): PageFacts {
  return pageFacts(
    names,
    {
      health: {
        ...{ warnAfterMs: 26 * hourMs, criticalAfterMs: 30 * hourMs, maxShrink: 0.5 },
        ...{ minBackups: undefined, maxProofAgeMs: undefined },
      },
      ...{ retention: policy({ daily: 14, weekly: 8, monthly: 12 }), targetSeconds: undefined, details: true },
      ...view,
    },
    { store: 's3://acme-backups/prod', shellStore: 's3://acme-backups/prod', now, release: '0.1.0' },
  );
}

const browserPath = [
  ...['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'],
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
].find((path) => existsSync(path));

/** For `skip`: no set-up of ours can give a Mac a browser. */
export const withoutBrowser =
  browserPath === undefined && process.platform === 'darwin' ? 'not on this platform: Chromium or Chrome' : false;

/** The Chromium of this machine, or what else is built from it. */
export function startBrowser(): Promise<Browser> {
  if (browserPath === undefined) throw new Error('no Chromium here: node scripts/setup.mjs test');
  // Root, as in a container, has no sandbox to offer; the pages are our own.
  return chromium.launch({
    executablePath: browserPath,
    args: process.getuid?.() === 0 ? ['--no-sandbox'] : [],
  });
}
