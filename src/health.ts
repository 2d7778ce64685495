import { GitHub } from './alert/github.ts';
import { watchedWorkflow } from './alert/workflows.ts';
import { timeOfId } from './backup-id.ts';
import { type Catalog, futureMs, readCatalog } from './catalog.ts';
import { type Damage, damageOf, readComparedTables } from './compared-tables.ts';
import {
  backupsThatCount,
  type Condition,
  type HealthFinding,
  type HealthPolicy,
  judge,
  statusOf,
} from './health-findings.ts';
import { judgeWorkflow, type WorkflowPlace } from './health-workflows.ts';
import type { Log } from './log.ts';
import { formatSeconds } from './numbers.ts';
import { lastKeyUses } from './openings.ts';
import { type ProofKeys, proofsDownToPassed } from './proofs.ts';
import type { Health, NameHealth } from './report/health.ts';
import type { Store } from './store/store.ts';
import { checkStored } from './stored-files.ts';
import type { Trust } from './trust.ts';

export interface HealthRequest {
  readonly store: Store;
  /** Each is expected to have backups; none: whatever the store has. */
  readonly names: readonly string[];
  readonly policy: HealthPolicy;
  /** Which backups and which restore tests count. */
  readonly trust: Trust;
  readonly proofKeys: ProofKeys;
  /** `full` reads every byte of every backup. */
  readonly integrity: 'none' | 'sizes' | 'full';
  readonly workflows: readonly WorkflowPlace[];
  /** Needed for `workflows`. */
  readonly github: { readonly apiUrl: string; readonly graphqlUrl: string; readonly token: string } | undefined;
}

export interface HealthIo {
  readonly log: Log;
  readonly signal: AbortSignal;
  /** This machine's clock. */
  readonly now: () => Date;
}

/** GitHub has so long to say what it knows of all workflows. */
const githubMs = 60_000;

/**
 * Judges the backups of some names, or of all that the store has. Reads only, and of each backup no more than its manifest
 * unless it is to be read whole. Throws a `Failure` when the store cannot be used.
 */
export async function health(request: HealthRequest, io: HealthIo): Promise<Health> {
  const { store, policy } = request;
  const expected = request.names.length > 0;
  const listed = expected ? request.names : await store.names();
  const catalogs = await Promise.all(
    listed.map(async (name) => ({ name, catalog: await readCatalog(store, request.trust, name) })),
  );
  const [now, here] = [await store.now(), io.now()];
  const found = expected ? catalogs : catalogs.filter(({ catalog }) => !isFirstUpload(catalog, now, policy));
  const changed = request.integrity === 'full' ? await readEveryByte(store, found, io) : [];
  const names = await Promise.all(
    found.map(async ({ name, catalog }): Promise<NameHealth> => {
      const damage = changed.filter((each) => each.name === name);
      return { name, damaged: catalog.damaged.length, ...(await judgeName(request, { catalog, damage, now })) };
    }),
  );
  const findings = [
    ...(names.length === 0 ? [noBackups(store)] : []),
    ...clockFindings(now, here),
    ...(await workflowFindings(request, found, now, io)),
  ];
  return {
    status: statusOf([...findings, ...names.flatMap((each) => each.findings)]),
    checkedAt: now,
    store: store.uri,
    findings,
    names,
    notes: notesOn(store, names, policy),
  };
}

async function judgeName(
  { store, policy, proofKeys: keys }: HealthRequest,
  { catalog, damage, now }: { readonly catalog: Catalog; readonly damage: readonly Damage[]; readonly now: Date },
): Promise<Condition> {
  const series = backupsThatCount(catalog, now);
  const [compared, proofs, keyUses] = await Promise.all([
    readComparedTables(store, series),
    proofsDownToPassed(store, series, { keys }),
    policy.maxKeyAgeMs === undefined ? [] : lastKeyUses(store, series, { now, keys }),
  ]);
  const all = withoutRepetition([...damage, ...compared.damage]);
  return judge({ catalog, proofs, keyUses, tables: compared.tables, damage: all, now }, policy);
}

/** One backup after the other: the store's bandwidth is what it takes. */
async function readEveryByte(
  store: Store,
  found: readonly { readonly catalog: Catalog }[],
  { log, signal }: HealthIo,
): Promise<(Damage & { readonly name: string })[]> {
  const damage: (Damage & { readonly name: string })[] = [];
  for (const { manifest } of found.flatMap(({ catalog }) => catalog.backups)) {
    const { name, id } = manifest;
    log.progress(`reading ${name}/${id} back`);
    for (const file of manifest.files) {
      const read = await damageOf(() => checkStored(store, manifest, file, signal));
      if (typeof read === 'string') damage.push({ name, id, reason: read });
    }
  }
  return damage;
}

/** What is read twice is damaged once. */
function withoutRepetition(damage: readonly Damage[]): Damage[] {
  return [...new Map(damage.map((each) => [`${each.id} ${each.reason}`, each])).values()];
}

/** A name nobody asked for, whose first upload may still be running. */
function isFirstUpload(
  { backups, damaged, unfinished }: Catalog,
  now: Date,
  { criticalAfterMs }: HealthPolicy,
): boolean {
  if (backups.length > 0 || damaged.length > 0) return false;
  return unfinished.every(({ id }) => now.getTime() - (timeOfId(id) ?? 0) < criticalAfterMs);
}

function noBackups(store: Store): HealthFinding {
  return {
    ...{ check: 'store', severity: 'critical', object: 'store', expected: 'backups of at least one name' },
    found: `there is none in ${store.uri}`,
    hint: 'check the address: it must be the one that the backup job writes to; list names, so that each is expected',
  };
}

function clockFindings(now: Date, here: Date): HealthFinding[] {
  const aheadMs = now.getTime() - here.getTime();
  if (Math.abs(aheadMs) <= futureMs) return [];
  return [
    {
      ...{ check: 'clock', severity: 'warning', object: "this machine's clock" },
      expected: `within ${formatSeconds(futureMs / 1000)} of the store's`,
      found: `${formatSeconds(Math.round(Math.abs(aheadMs) / 60_000) * 60)} ${aheadMs > 0 ? 'behind' : 'ahead'}`,
      hint: 'ages here are by the clock of the store; set the clock of this machine (NTP), or a backup taken on it may look younger or older than it is',
    },
  ];
}

async function workflowFindings(
  { workflows, github, policy: { criticalAfterMs } }: HealthRequest,
  names: readonly { readonly catalog: Catalog }[],
  now: Date,
  { signal }: HealthIo,
): Promise<HealthFinding[]> {
  if (workflows.length === 0 || github === undefined) return [];
  const stop = AbortSignal.any([signal, AbortSignal.timeout(githubMs)]);
  const backups = names.map(({ catalog }) => catalog.backups);
  const oldest = Math.min(...backups.flat().map(({ manifest }) => Date.parse(manifest.createdAt)), now.getTime());
  const findings: HealthFinding[] = [];
  for (const place of workflows) {
    const watched = await watchedWorkflow(
      place,
      new Date(oldest),
      (repository) => new GitHub({ ...github, repository }, stop),
    );
    findings.push(...judgeWorkflow(watched, backups, { now, criticalAfterMs }));
  }
  return findings;
}

function notesOn({ uri }: Store, names: readonly NameHealth[], { maxKeyAgeMs }: HealthPolicy): string[] {
  if (!uri.startsWith('artifact:') || names.length === 0) return [];
  return [
    'the backups here are artifacts of GitHub: they expire, and go with the repository; keep a second copy elsewhere',
    ...(maxKeyAgeMs === undefined
      ? []
      : [
          'for max-recovery-key-age only restore tests that passed count here: verify --sign-proof can add no record to artifacts',
        ]),
  ];
}
