import type { Backup } from '../catalog.ts';
import { describeGap, findGaps } from '../chain.ts';
import { Inputs } from '../inputs.ts';
import { tellGaps, warnOf } from '../locate.ts';
import { encryptionOf, shortRecipient } from '../manifest.ts';
import { formatAge, formatBytes, formatCount, formatNumber, formatSeconds, formatTime } from '../numbers.ts';
import { readOpenings } from '../openings.ts';
import { displayName, displayWord } from '../postgres/names.ts';
import { countFindings, type Proof, restoreSeconds } from '../proof.ts';
import { newestProof, readProofs } from '../proofs.ts';
import { describeEncryption } from '../report/encryption.ts';
import { table } from '../report/table.ts';
import { type RestoreRecord, readRecords } from '../restore-record.ts';
import { shortKeyId } from '../signing.ts';
import { warnUnneeded } from '../stored-files.ts';
import { readCensus } from '../verify.ts';
import { answer, type Command, type Terminal } from './command.ts';
import {
  backupArgument,
  decryptFlags,
  openBackup,
  openCatalog,
  openNamed,
  readFlags,
  readKeyFlags,
  storeFlags,
} from './shared-flags.ts';

export const listCommand: Command = {
  name: 'list',
  summary: 'Lists the backups of a store, newest first.',
  flags: [
    ...storeFlags,
    ...readFlags,
    { name: 'restores', help: 'what was restored from it instead, by whom and into which database' },
  ],
  async run(terminal) {
    if (new Inputs(terminal.flags.read).flag('restores', false)) return listRestores(terminal);
    const { store, catalog } = await openCatalog(terminal);
    warnOf(catalog, terminal.log);
    if (catalog.unfinished.length > 0)
      terminal.log.notice(
        `${formatCount(catalog.unfinished.length, 'upload')} without a manifest: running, or cut off; not a backup`,
      );
    tellGaps(findGaps(catalog), terminal.log);
    const now = await store.now();
    const proofs = new Map(
      await Promise.all(
        catalog.backups.map(async (each) => {
          const proof = await newestProof(store, each);
          return [each, proof && summaryOf(proof)] as const;
        }),
      ),
    );
    answer(
      terminal,
      { backups: catalog.backups.map((each) => listed(each, proofs.get(each))) },
      catalog.backups.length === 0
        ? `no backups in ${store.uri}`
        : table(
            ['name', 'id', 'age', 'label', 'size', 'tables', 'rows', 'server', 'encrypted', 'restore test'],
            catalog.backups.map((each) => {
              const { manifest } = each;
              return [
                manifest.name,
                manifest.id,
                formatAge(manifest.createdAt, now),
                manifest.label,
                formatBytes(manifest.files[0]?.bytes ?? 0),
                formatNumber(manifest.totals.tables),
                formatNumber(manifest.totals.rows),
                manifest.database.serverVersion,
                encryptionOf(manifest) === null ? 'no' : 'yes',
                describeProof(proofs.get(each), now),
              ];
            }),
            [4, 5, 6],
          ),
    );
  },
};

async function listRestores(terminal: Terminal): Promise<void> {
  const { store, name } = openNamed(terminal);
  const [records, now] = [await readRecords(store, name), await store.now()];
  answer(
    terminal,
    { restores: records },
    records.length === 0
      ? `no restore is recorded in ${store.uri}`
      : table(
          ['age', 'backup', 'into', 'what', 'result', 'by', 'safety backup'],
          records.map((each) => [
            formatAge(each.finishedAt, now),
            `${each.name}/${each.backupId}`,
            displayWord(each.database),
            describeScope(each),
            describeEnd(each),
            displayWord(each.by),
            each.safetyBackupId ?? '',
          ]),
        ),
  );
}

function describeScope({ scope: { mode, tables, schemas, clean } }: RestoreRecord): string {
  if (tables === null || schemas === null) return 'a part, names withheld';
  const what = [...tables.map((each) => `table ${each}`), ...schemas.map((each) => `schema ${each}`)];
  const rows = mode === 'full' ? '' : `, ${mode}`;
  return `${what.length === 0 ? 'all' : what.join(', ')}${rows}${clean ? ', clean' : ''}`;
}

function describeEnd({ result, exitCode, totals }: RestoreRecord): string {
  if (totals === null) return `${result}, exit ${exitCode ?? 'unknown'}`;
  return `${result}: ${formatCount(totals.tables, 'table')}, ${formatCount(totals.rows, 'row')}`;
}

/** What `list --json` says of a backup. */
function listed({ manifest, signedBy }: Backup, proof: ProofSummary | undefined): Record<string, unknown> {
  return {
    id: manifest.id,
    name: manifest.name,
    label: manifest.label,
    series: manifest.series,
    createdAt: manifest.createdAt,
    expiresAt: manifest.expiresAt,
    sizeBytes: manifest.files[0]?.bytes ?? 0,
    tables: manifest.totals.tables,
    rows: manifest.totals.rows,
    serverVersion: manifest.database.serverVersion,
    encrypted: encryptionOf(manifest) !== null,
    signed: signedBy !== undefined || manifest.signing !== null,
    proof: proof ?? null,
  };
}

/** Without a key of ours the manifest's own word is all there is, and anybody can write that. */
function describeSignature({ manifest: { signing }, signedBy }: Backup): string {
  if (signedBy !== undefined) return `by key ${shortKeyId(signedBy)}, checked`;
  return signing === null ? 'no' : `says key ${shortKeyId(signing.keyId)}; --verify-key checks it`;
}

/** Of a proof, what a list says: the rest may be large. */
interface ProofSummary extends Pick<Proof, 'testedAt' | 'result' | 'level'> {
  readonly findings: number;
  readonly restoreSeconds: number;
}

function summaryOf(proof: Proof): ProofSummary {
  const { testedAt, result, level, timings } = proof;
  return { testedAt, result, level, findings: countFindings(proof), restoreSeconds: restoreSeconds(timings) };
}

/** `passed 2 days ago, 4 min 10 s` */
function describeProof(proof: ProofSummary | undefined, now: Date): string {
  if (proof === undefined) return 'not yet';
  return `${proof.result} ${formatAge(proof.testedAt, now)}, ${formatSeconds(proof.restoreSeconds)}`;
}

export const showCommand: Command = {
  name: 'show',
  summary: 'Shows what one backup holds, table by table.',
  argument: backupArgument,
  flags: [...storeFlags, ...readFlags, ...decryptFlags],
  async run(terminal) {
    const keys = readKeyFlags(terminal);
    const { store, backup, catalog } = await openBackup(terminal);
    const { manifest } = backup;
    warnUnneeded(manifest, keys, terminal.log);
    const census = await readCensus({ store, manifest, keys });
    const openings = await readOpenings(store, backup);
    const proofs = await readProofs(store, backup);
    const now = await store.now();
    const { totals, database } = manifest;
    answer(
      terminal,
      { manifest, census, proofs, openings },
      [
        `${manifest.name}/${manifest.id}`,
        `  taken     ${formatTime(manifest.createdAt)} (${formatAge(manifest.createdAt, now)}), label ${manifest.label}, series ${manifest.series}`,
        `  database  ${displayWord(database.name)}, PostgreSQL ${database.serverVersion}, ${database.encoding}, ${database.collation}, ${formatBytes(database.sizeBytes)}`,
        `  holds     ${formatCount(totals.tables, 'table')}, ${formatCount(totals.rows, 'row')}, ${formatCount(census.sequences.length, 'sequence')}${totals.largeObjects === null ? '' : `, ${formatCount(totals.largeObjects, 'large object')}`}`,
        `  needs     roles ${census.roles.map(displayWord).join(', ') || 'none'}; extensions ${census.extensions.map((each) => `${displayWord(each.name)} ${each.version}`).join(', ') || 'none'}`,
        `  signed    ${describeSignature(backup)}`,
        ...findGaps(catalog)
          .filter((each) => each.id === manifest.id)
          .map((gap) => `  chain     ${describeGap(gap)}`),
        ...(manifest.expiresAt === null ? [] : [`  expires   ${formatTime(manifest.expiresAt)}`]),
        `  took      ${formatSeconds(manifest.timings.total ?? 0)} with pg_dump ${manifest.tools.pgDump}`,
        `  encrypted ${describeEncryption(manifest)}`,
        ...manifest.files.map((file) => `  file      ${file.name}  ${formatBytes(file.bytes)}  sha256 ${file.sha256}`),
        ...(census.warnings ?? manifest.warnings).map((warning) => `  warning   ${warning}`),
        ...proofs
          .map(summaryOf)
          .map(
            (proof) =>
              `  tested    ${describeProof(proof, now)}${proof.findings === 0 ? '' : `, ${formatCount(proof.findings, 'finding')}`}`,
          ),
        ...openings.map(
          ({ openedAt, recipient }) => `  opened    ${formatAge(openedAt, now)} with ${shortRecipient(recipient)}`,
        ),
        '',
        table(
          ['table', 'rows', ''],
          census.tables.map((each) => [displayName(each), formatNumber(each.rows), each.data ? '' : 'structure only']),
          [1],
        ),
      ].join('\n'),
    );
  },
};
