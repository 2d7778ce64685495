import { GitHub } from '../../src/alert/github.ts';
import type { Failed, Passed, Report, RunOfAlert, Subject } from '../../src/alert-state.ts';
import type { Log } from '../../src/log.ts';
import { type AlertRequest, raiseAlert } from '../../src/raise-alert.ts';
import type { KnownOfRun } from '../../src/report/message.ts';
import type { GitHubServer } from './github.ts';

/** Nothing was chosen: the backup itself could not be taken. */
export const work: Subject = { of: 'name' };

export function failed(over: Partial<Failed> = {}): Failed {
  const error = {
    stage: 'connect',
    exit: 'connect',
    message: 'the server does not answer',
    hint: 'wake it up',
  } as const;
  return { outcome: 'failed', subject: work, error, findings: [], timings: {}, ...over };
}

/** A restore test that found something. */
export function found(id: string, latest: boolean, objects: readonly string[] = ['public.users']): Failed {
  const findings = objects.map((object) => ({ object, expected: '12 rows', found: '11 rows' }));
  return failed({ subject: { of: 'backup', id, latest }, error: undefined, findings });
}

export function passed(over: Partial<Passed> = {}): Passed {
  return { outcome: 'passed', subject: work, seconds: 6.2, ...over };
}

export function runOf(id: string, now: Date, attempt = '1'): RunOfAlert {
  const url = `https://github.com/octo/backups/actions/runs/${id}`;
  return { id, attempt, url, workflow: 'backup', began: now.toISOString() };
}

/** Somebody whose runs end, one after the other, an hour apart unless told otherwise. */
export class Runs {
  readonly lines: string[] = [];
  readonly #server: GitHubServer;
  readonly #over: Partial<AlertRequest>;
  readonly #token: string;
  now = new Date('2026-11-21T02:00:34Z');
  /** What the issue said of the last run that could ask it. */
  known: KnownOfRun | undefined;

  constructor(server: GitHubServer, over: Partial<AlertRequest> = {}, token = server.jobToken) {
    this.#server = server;
    this.#over = over;
    this.#token = token;
  }

  async end(
    id: string,
    report: Report,
    over: Partial<AlertRequest> & { readonly attempt?: string; readonly began?: Date; readonly settleMs?: number } = {},
  ): Promise<number | undefined> {
    this.now = new Date(this.now.getTime() + 60 * 60 * 1000);
    const { now } = this;
    const { attempt, began, settleMs = 0, ...rest } = over;
    const access = {
      apiUrl: this.#server.url,
      graphqlUrl: `${this.#server.url}/graphql`,
      repository: this.#server.repository,
      token: this.#token,
    };
    const known = await raiseAlert(
      {
        kind: 'backup',
        place: { store: 's3://acme-backups/prod', name: 'shop' },
        run: runOf(id, began ?? now, attempt),
        config: { labels: ['pgassay'], assignees: [], notifyOn: 'change' },
        repository: this.#server.repository,
        shown: { store: 's3://acme-backups/prod', storeFlags: '--store s3://acme-backups/prod' },
        details: true,
        ...this.#over,
        ...rest,
      },
      report,
      { github: new GitHub(access, new AbortController().signal), log: this.#log, now: () => now, settleMs },
    );
    this.known = known;
    return known?.issue.number;
  }

  get #log(): Log {
    const take = (message: string): void => void this.lines.push(message);
    return { info: take, notice: take, warn: take, progress: take, group: (_title, work) => work() };
  }
}
