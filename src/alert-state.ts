import { createHash } from 'node:crypto';
import { type ExitName, exitCodes, type Stage } from './failure.ts';
import type { Finding } from './verdict.ts';

/** What can go wrong with a name's backups; each is a section of its one issue. */
export const alertKinds = ['backup', 'restore-test', 'health', 'prune'] as const;
export type AlertKind = (typeof alertKinds)[number];

/** Whose backups an issue is about. */
export interface AlertPlace {
  /** The store's canonical URI. */
  readonly store: string;
  /** Or `everyName`. */
  readonly name: string;
}

/** In place of a name: what concerns the whole store, as when it cannot be read. No backup can have this name. */
export const everyName = '*';

/** What failed or passed, so that only a pass of the same thing clears a failure. */
export type Subject =
  /** The work itself: a backup could not be taken, nothing could be tested, judged or pruned. */
  | { readonly of: 'name' }
  /** One stored backup. `latest`: it was chosen for being the newest. */
  | { readonly of: 'backup'; readonly id: string; readonly latest: boolean };

/** The run that speaks. */
export interface RunOfAlert {
  /** Stays the same when the run is started again. */
  readonly id: string;
  readonly attempt: string;
  readonly url: string;
  readonly workflow: string;
  /** When this job began its work, ISO. */
  readonly began: string;
}

/** An error as its user reads it; `defect`: pgassay's own. */
export interface AlertError {
  readonly stage: Stage | undefined;
  readonly exit: ExitName | 'defect';
  readonly message: string;
  readonly hint: string | undefined;
}

/** A run that failed. Texts hold no row value; secrets are taken out before anything is made of them. */
export interface Failed {
  readonly outcome: 'failed';
  readonly subject: Subject;
  readonly error: AlertError | undefined;
  readonly findings: readonly Finding[];
  /** Seconds per stage. */
  readonly timings: Readonly<Record<string, number>>;
  /** Of a backup that is in some of its stores and not in others: how many have it. */
  readonly partly?: { readonly stored: number; readonly of: number } | undefined;
  /** The id of the newest backup with a proof, null: there is none; undefined: nobody looked. */
  readonly newestProven?: string | null | undefined;
}

/** A run that passed. */
export interface Passed {
  readonly outcome: 'passed';
  readonly subject: Subject;
  /** The backup that was stored, tested or judged, when there is one. */
  readonly backup?: { readonly id: string; readonly createdAt: string } | undefined;
  readonly seconds: number;
  /** Ids that are in the store now. With them a failed backup that is gone is cleared; without, it waits. */
  readonly stored?: readonly string[] | undefined;
}

export type Report = Failed | Passed;

/** When an issue gets a comment. */
export type NotifyOn = 'change' | 'failure' | 'always';

/** A thing that failed and has not passed since. */
export interface Failing {
  readonly subject: Subject;
  /** When it last failed, ISO. */
  readonly at: string;
}

/** What an issue knows of one kind. A section exists while something of its kind fails. */
export interface Section {
  readonly failing: readonly Failing[];
  /** The first failure, ISO. */
  readonly since: string;
  /** Runs that failed since then; starting the same run again does not count. */
  readonly runs: number;
  /** The run that failed last, `id/attempt`. */
  readonly run: string;
  /** The last time somebody was told, ISO. */
  readonly told: string;
  /** Digests of what was wrong, to tell what changed. They give nothing away that is withheld. */
  readonly wrong: readonly string[];
  /** For the title: `backup failed: the store refused the credentials`. */
  readonly headline: string;
}

export type AlertState = Readonly<Partial<Record<AlertKind, Section>>>;

/** What a failed run changes. `first`: nothing of this kind failed before. */
export interface FailedChange {
  readonly section: Section;
  readonly first: boolean;
  /** A comment is due. */
  readonly tell: boolean;
  /** How the digests differ from those of the last failure. */
  readonly news: { readonly fresh: readonly string[]; readonly gone: number; readonly same: number };
}

/** `health` judges a state again and again; a failed run of any other kind is an event. */
const repeatMs = 22 * 60 * 60 * 1000;
/** So that the states of four kinds leave room for their texts. */
const mostFailing = 20;
const mostDigests = 100;

/**
 * What an issue's section is after a failed run. Under `change`, `health` is told when its judgement changed and every
 * 24 hours (two of them are left to schedules that start late); each failed run of another kind is told once, because
 * each is a backup that was not taken or a proof that was not given.
 */
export function afterFailure(
  before: Section | undefined,
  {
    kind,
    report,
    run,
    headline,
    wrong,
    now,
    notifyOn,
  }: {
    readonly kind: AlertKind;
    readonly report: Failed;
    readonly run: RunOfAlert;
    readonly headline: string;
    readonly wrong: readonly string[];
    readonly now: Date;
    readonly notifyOn: NotifyOn;
  },
): FailedChange {
  const at = now.toISOString();
  const failing = [
    ...(before?.failing ?? []).filter((each) => !same(each.subject, report.subject)),
    { subject: report.subject, at },
  ].slice(-mostFailing);
  const compared = wrong.slice(0, mostDigests);
  const known = before?.wrong ?? [];
  const news = {
    fresh: compared.filter((each) => !known.includes(each)),
    gone: known.filter((each) => !compared.includes(each)).length,
    same: compared.filter((each) => known.includes(each)).length,
  };
  const again = before !== undefined && before.run.split('/')[0] === run.id;
  const changed = news.fresh.length > 0 || news.gone > 0;
  const due = before !== undefined && now.getTime() - new Date(before.told).getTime() >= repeatMs;
  const tell = before !== undefined && (again ? changed : kind !== 'health' || notifyOn !== 'change' || changed || due);
  return {
    section: {
      failing,
      since: before?.since ?? at,
      runs: (before?.runs ?? 0) + (again ? 0 : 1),
      run: `${run.id}/${run.attempt}`,
      told: before === undefined || tell ? at : before.told,
      wrong: compared,
      headline,
    },
    first: before === undefined,
    tell,
    news,
  };
}

/** What a pass leaves of a section: undefined when nothing fails any more. */
export function afterPass(section: Section, report: Passed, run: RunOfAlert): Section | undefined {
  const failing = section.failing.filter((each) => !clears(report, run, each));
  return failing.length === 0 ? undefined : { ...section, failing };
}

/**
 * Whether a pass clears a failure. The run must have begun after the failure was told: a job that was already under way
 * says nothing about it.
 *
 * - The work itself (`of: 'name'`) is cleared by any pass of its kind: a backup that was stored, a test that took place.
 * - A backup is cleared by a pass of the same backup; by a newer one's when both were chosen for being the newest; and
 *   when it is not in the store any more. A pass of any other backup says nothing about it.
 */
function clears(report: Passed, run: RunOfAlert, failing: Failing): boolean {
  if (run.began < failing.at) return false;
  const { subject } = failing;
  if (subject.of === 'name') return true;
  const passed = report.subject;
  if (passed.of === 'backup') {
    if (passed.id === subject.id) return true;
    // Ids begin with their time and are given in ascending order.
    if (subject.latest && passed.latest && passed.id > subject.id) return true;
  }
  return report.stored !== undefined && !report.stored.includes(subject.id);
}

function same(one: Subject, other: Subject): boolean {
  return one.of === 'name' ? other.of === 'name' : other.of === 'backup' && one.id === other.id;
}

/**
 * One digest for the error and one per finding. With details withheld one for all of them: of a digest per table a list
 * of likely names would give the names away.
 */
export function digestsOf({ error, findings }: Failed, details: boolean): string[] {
  const texts = [
    ...(error === undefined ? [] : [JSON.stringify([error.exit, error.stage ?? null, error.message])]),
    ...findings.map(({ object, expected, found }) => JSON.stringify([object, expected, found])),
  ];
  return details ? texts.map(digest) : [digest(JSON.stringify(texts))];
}

export function digestOf(finding: Finding): string {
  return digest(JSON.stringify([finding.object, finding.expected, finding.found]));
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 12);
}

/** Names store and name to those who know them, and nobody else. */
export function keyOf({ store, name }: AlertPlace): string {
  return createHash('sha256')
    .update(JSON.stringify(['pgassay issue', store, name]))
    .digest('hex')
    .slice(0, 32);
}

const mark = /(?:^|\n)<!-- pgassay:1 ([0-9a-f]{32}) ([\w-]*) -->\s*$/;

/** The last line of an issue: whose it is, and its state. No name of anything is readable in it, or can end it early. */
export function markOf(key: string, state: AlertState): string {
  return `<!-- pgassay:1 ${key} ${Buffer.from(JSON.stringify(state)).toString('base64url')} -->`;
}

/** The key in an issue's last line; undefined when it has none. */
export function keyIn(body: string): string | undefined {
  return mark.exec(body)?.[1];
}

/** The state in an issue's last line. Whatever does not read as one is left out. */
export function stateIn(body: string): AlertState {
  try {
    const value: unknown = JSON.parse(Buffer.from(mark.exec(body)?.[2] ?? '', 'base64url').toString('utf8'));
    return Object.fromEntries(
      alertKinds.flatMap((kind) => {
        const section = sectionOf((value as Readonly<Record<string, unknown>> | null)?.[kind]);
        return section === undefined ? [] : [[kind, section]];
      }),
    );
  } catch {
    return {};
  }
}

function sectionOf(value: unknown): Section | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { failing, since, runs, run, told, wrong, headline } = value as Readonly<Record<string, unknown>>;
  if (!Array.isArray(failing) || !Array.isArray(wrong) || typeof runs !== 'number') return undefined;
  if (!isTime(since) || !isTime(told) || typeof run !== 'string' || typeof headline !== 'string') return undefined;
  const read = failing.map(failingOf).filter((each) => each !== undefined);
  if (read.length === 0) return undefined;
  const digests = wrong.filter((each): each is string => typeof each === 'string' && /^[0-9a-f]{12}$/.test(each));
  return { failing: read, since, runs, run, told, wrong: digests, headline: headline.slice(0, 200) };
}

function failingOf(value: unknown): Failing | undefined {
  const { subject, at } = (value ?? {}) as { readonly subject?: unknown; readonly at?: unknown };
  const { of, id, latest } = (subject ?? {}) as Readonly<Record<string, unknown>>;
  if (!isTime(at)) return undefined;
  if (of === 'name') return { subject: { of }, at };
  if (of !== 'backup' || typeof id !== 'string' || typeof latest !== 'boolean') return undefined;
  return { subject: { of, id, latest }, at };
}

function isTime(value: unknown): value is string {
  return typeof value === 'string' && !Number.isNaN(Date.parse(value));
}

/** Hidden, and the last line of a comment: one run says one thing about one kind. */
export function commentMark(kind: AlertKind, run: RunOfAlert, about: 'failed' | 'passed'): string {
  return `<!-- pgassay:comment ${kind} ${about} ${run.id.replace(/\D/g, '')} -->`;
}

/** The exit code a user saw. */
export function exitCodeOf({ exit }: AlertError): number {
  return exit === 'defect' ? 1 : exitCodes[exit];
}
