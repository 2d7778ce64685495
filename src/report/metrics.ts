import { bytesOf, type HealthStatus } from '../health-findings.ts';
import { restoreSeconds } from '../proof.ts';
import type { Health, NameHealth } from './health.ts';

interface Family {
  readonly name: string;
  /** OpenMetrics wants it to be the end of the name. */
  readonly unit?: 'seconds' | 'bytes';
  readonly help: string;
  /** Undefined: there is nothing to tell of this name. */
  readonly of: (each: NameHealth, now: Date) => number | undefined;
}

const levels: Record<HealthStatus, number> = { ok: 0, warning: 1, critical: 2 };

const families: readonly Family[] = [
  {
    name: 'pgassay_status',
    help: 'What health said of the backups: 0 ok, 1 warning, 2 critical.',
    of: ({ status }) => levels[status],
  },
  {
    ...{ name: 'pgassay_backup_age_seconds', unit: 'seconds' },
    help: 'How old the newest backup was when health looked.',
    of: ({ newest }, now) => newest && ageOf(newest.manifest.createdAt, now),
  },
  {
    ...{ name: 'pgassay_backup_timestamp_seconds', unit: 'seconds' },
    help: 'When the newest backup was taken, in seconds since 1970.',
    of: ({ newest }) => newest && Date.parse(newest.manifest.createdAt) / 1000,
  },
  {
    ...{ name: 'pgassay_backup_size_bytes', unit: 'bytes' },
    help: 'Size of the newest backup in the store.',
    of: ({ newest }) => newest && bytesOf(newest.manifest),
  },
  {
    name: 'pgassay_backups',
    help: 'How many backups there are that can be restored.',
    of: ({ series }) => series.length,
  },
  {
    name: 'pgassay_backups_damaged',
    help: 'How many backups there are that cannot be used.',
    of: ({ damaged }) => damaged,
  },
  {
    ...{ name: 'pgassay_backups_size_bytes', unit: 'bytes' },
    help: 'Size of all backups in the store.',
    of: ({ totalBytes }) => totalBytes,
  },
  {
    ...{ name: 'pgassay_proof_age_seconds', unit: 'seconds' },
    help: 'How long ago a restore test last passed, when health looked.',
    of: ({ proven }, now) => proven && ageOf(proven.testedAt, now),
  },
  {
    ...{ name: 'pgassay_restore_seconds', unit: 'seconds' },
    help: 'How long that restore took, download included.',
    of: ({ proven }) => proven && restoreSeconds(proven.timings),
  },
];

/**
 * OpenMetrics text, which Prometheus and the agents that read its files take. `undefined`: the store could not be read,
 * so that nothing is known but that.
 */
export function openMetrics(health: Health | undefined, checkedAt: Date): string {
  const lines = [
    ...head({ name: 'pgassay_store_up', help: 'Whether health could read the store.' }),
    `pgassay_store_up ${health === undefined ? 0 : 1}`,
    ...head({
      ...{ name: 'pgassay_checked_timestamp_seconds', unit: 'seconds' },
      help: 'When health looked, in seconds since 1970.',
    }),
    `pgassay_checked_timestamp_seconds ${checkedAt.getTime() / 1000}`,
  ];
  if (health !== undefined)
    for (const family of families) {
      const samples = health.names.flatMap((each) => {
        const value = family.of(each, health.checkedAt);
        return value === undefined ? [] : [`${family.name}{name="${escaped(each.name)}"} ${value}`];
      });
      if (samples.length > 0) lines.push(...head(family), ...samples);
    }
  return `${lines.join('\n')}\n# EOF\n`;
}

function head({ name, unit, help }: Omit<Family, 'of'>): string[] {
  return [`# TYPE ${name} gauge`, ...(unit === undefined ? [] : [`# UNIT ${name} ${unit}`]), `# HELP ${name} ${help}`];
}

function ageOf(time: string, now: Date): number {
  return Math.round((now.getTime() - Date.parse(time)) / 1000);
}

function escaped(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}
