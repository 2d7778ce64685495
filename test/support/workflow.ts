import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { type ActionResult, runAction } from './action.ts';
import { repository } from './faults.ts';
import { type Contexts, evaluate, filledIn } from './workflow-parser.ts';

export interface WorkflowStep {
  readonly id?: string;
  readonly name?: string;
  readonly if?: string;
  readonly uses?: string;
  readonly run?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly with?: Readonly<Record<string, string>>;
}

export interface WorkflowJob {
  readonly name?: string;
  readonly needs?: string | readonly string[];
  readonly if?: string;
  readonly uses?: string;
  readonly environment?: string;
  readonly permissions?: Readonly<Record<string, string>>;
  readonly 'runs-on'?: string;
  readonly 'timeout-minutes'?: number | string;
  readonly strategy?: { readonly matrix: Readonly<Record<string, readonly unknown[]>> };
  readonly services?: Readonly<Record<string, { readonly image: string; readonly ports?: readonly string[] }>>;
  readonly outputs?: Readonly<Record<string, string>>;
  readonly steps?: readonly WorkflowStep[];
  readonly with?: Readonly<Record<string, string>>;
  readonly secrets?: Readonly<Record<string, string>>;
}

export interface Declared {
  readonly type?: string;
  readonly required?: boolean;
  readonly default?: unknown;
}

export interface Workflow {
  readonly name: string;
  readonly on: {
    readonly schedule?: readonly { readonly cron: string; readonly timezone?: string }[];
    readonly workflow_dispatch?: { readonly inputs?: Readonly<Record<string, Declared>> } | null;
    readonly workflow_call?: {
      readonly inputs: Readonly<Record<string, Declared>>;
      readonly secrets: Readonly<Record<string, Declared>>;
      readonly outputs: Readonly<Record<string, { readonly value: string }>>;
    };
  };
  readonly permissions?: unknown;
  readonly concurrency?: { readonly group: string; readonly 'cancel-in-progress': boolean };
  readonly jobs: Readonly<Record<string, WorkflowJob>>;
}

/** The workflow at this path of the repository. */
export function workflowAt(path: string): Workflow {
  return parse(readFileSync(join(repository, path), 'utf8')) as Workflow;
}

/** What `uses` names when it is ours: `$/restore-test`, `./`, `pgassay/pgassay/restore-test@v1` or a workflow of ours. */
export function oursIn(uses: string): { readonly kind: 'action' | 'workflow'; readonly path: string } | undefined {
  const [, own, local, foreign] = /^(?:\$\/(.+)|\.\/(.*)|pgassay\/pgassay(?:\/(.+))?@\S+)$/.exec(uses) ?? [];
  const path = own ?? local ?? foreign;
  if (path === undefined && !uses.startsWith('pgassay/pgassay@')) return undefined;
  return path?.startsWith('.github/workflows/') ? { kind: 'workflow', path } : { kind: 'action', path: path || '.' };
}

/** Where a workflow runs, in place of GitHub. */
export interface Place {
  readonly vars?: Readonly<Record<string, string>>;
  /** The repository's, and on top of them those of each environment. */
  readonly secrets?: Readonly<Record<string, string>>;
  readonly environments?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** The port that a service container's 5432 is reached at, by the service's name. */
  readonly services?: Readonly<Record<string, number>>;
  /** `${{ runner.temp }}`. */
  readonly temp?: string;
  readonly event?: string;
  /** What somebody typed who started it by hand. */
  readonly typed?: Given;
  readonly env?: Readonly<Record<string, string>>;
  /** On top of that, for a job that was granted `id-token: write`: where it asks for its identity. */
  readonly identity?: Readonly<Record<string, string>>;
  readonly token?: string;
  /** Inputs of our actions that are given here whatever the workflow says: where the store is, for instance. */
  readonly instead?: Readonly<Record<string, string>>;
}

export interface StepRun {
  readonly job: string;
  /** The folder of our action; undefined for somebody else's and for `run`, which are not carried out. */
  readonly action?: string;
  readonly step: WorkflowStep;
  /** Somebody else's action: what it would have been given. */
  readonly given?: Given;
  readonly result?: ActionResult;
}

export interface JobRun {
  readonly result: 'success' | 'failure' | 'skipped';
  readonly outputs: Readonly<Record<string, string>>;
  /** What a service container of it would have been made from. */
  readonly images: Readonly<Record<string, string>>;
  readonly environment: string;
}

export interface WorkflowRun {
  /** By id; a matrix's are `id (value)`, those of a called workflow `id / its id`. */
  readonly jobs: Readonly<Record<string, JobRun>>;
  readonly steps: readonly StepRun[];
  readonly outputs: Readonly<Record<string, string>>;
}

type Given = Readonly<Record<string, unknown>>;

/**
 * Runs a workflow of this repository as GitHub would, as far as it is ours: jobs in their order, conditions, matrices,
 * called workflows, and each step that uses one of our actions through its launcher in dist. Somebody else's actions and
 * `run` are taken as done. `given` is for a workflow that is called. Throws where GitHub would refuse it: an unknown or
 * a missing input or secret.
 */
export async function runWorkflow(
  path: string,
  place: Place,
  given?: { readonly inputs: Given; readonly secrets: Given; readonly permissions?: WorkflowJob['permissions'] },
): Promise<WorkflowRun> {
  const workflow = workflowAt(path);
  const { workflow_call: callable } = workflow.on;
  if (given !== undefined && callable === undefined) throw new Error(`${path} cannot be called`);
  const call = given && {
    inputs: handedOver(callable?.inputs ?? {}, given.inputs, `${path}: input`),
    secrets: handedOver(callable?.secrets ?? {}, given.secrets, `${path}: secret`),
  };
  const github = {
    ...{
      token: place.token ?? '',
      event_name: place.event ?? 'schedule',
      repository: 'octo/backups',
      ref: 'refs/heads/main',
    },
  };
  const typed = handedOver(workflow.on.workflow_dispatch?.inputs ?? {}, place.typed ?? {}, `${path}: input`);
  const base = { github, vars: place.vars ?? {}, inputs: call?.inputs ?? typed };
  const jobs: Record<string, JobRun> = {};
  const steps: StepRun[] = [];
  const waiting = Object.entries(workflow.jobs);
  while (waiting.length > 0) {
    const at = waiting.findIndex(([, job]) => needsOf(job).every((id) => jobs[id] !== undefined));
    if (at < 0) throw new Error(`${path}: jobs wait for each other`);
    const [[id, job] = ['', {}]] = waiting.splice(at, 1) as [[string, WorkflowJob]];
    const needs = Object.fromEntries(
      needsOf(job).map((each) => [each, { result: jobs[each]?.result, outputs: jobs[each]?.outputs }]),
    );
    const bad = Object.values(needs).some(({ result }) => result !== 'success');
    const standing = { success: !bad, failure: bad, cancelled: false, always: true };
    const condition = bare(job.if ?? 'success()');
    const holds = evaluate(condition, { ...base, needs }, standing);
    const checked = /\b(success|failure|cancelled|always)\(/.test(condition) ? holds : holds && !bad;
    if (!checked) {
      jobs[id] = { result: 'skipped', outputs: {}, images: {}, environment: '' };
      continue;
    }
    for (const matrix of combinations(job.strategy?.matrix ?? {})) {
      const contexts = { ...base, needs, matrix, strategy: {} };
      const values = Object.values(matrix).join(', ');
      const key = values === '' ? id : `${id} (${values})`;
      const environment = String(filledIn(job.environment ?? '', contexts));
      // An environment's secrets win over those of the same name that the repository has, or a caller hands over.
      const secrets = { ...(call?.secrets ?? place.secrets), ...place.environments?.[environment] };
      if (job.uses !== undefined) {
        const called = await callWorkflow(job, { ...contexts, secrets }, place);
        const ran = Object.values(called.jobs);
        const result = ran.some((each) => each.result === 'failure') ? 'failure' : 'success';
        jobs[key] = { result, outputs: called.outputs, images: {}, environment };
        for (const [inner, each] of Object.entries(called.jobs)) jobs[`${key} / ${inner}`] = each;
        steps.push(...called.steps.map((step) => ({ ...step, job: `${key} / ${step.job}` })));
      } else {
        // A called job has what its caller grants.
        const granted = job.permissions ?? given?.permissions;
        const env = { ...place.env, ...(granted?.['id-token'] === 'write' ? place.identity : {}) };
        const { run, done } = await runSteps(key, job, { ...contexts, secrets }, { ...place, env });
        jobs[key] = { ...run, environment };
        steps.push(...done);
      }
    }
  }
  const results = Object.fromEntries(
    Object.entries(jobs).map(([id, { outputs, result }]) => [id, { outputs, result }]),
  );
  const outputs = Object.entries(callable?.outputs ?? {}).map(([name, { value }]) => [
    name,
    String(filledIn(value, { ...base, jobs: results }) ?? ''),
  ]);
  return { jobs, steps, outputs: Object.fromEntries(outputs) };
}

function callWorkflow(job: WorkflowJob, contexts: Contexts, place: Place): Promise<WorkflowRun> {
  const named = oursIn(job.uses ?? '');
  if (named?.kind !== 'workflow') throw new Error(`${job.uses} is no workflow of this repository`);
  // A called workflow does not see the caller's secrets in `with`.
  const { secrets: _, ...open } = contexts;
  const inputs = evaluated(job.with, open);
  const secrets = evaluated(job.secrets, contexts);
  return runWorkflow(named.path, place, { inputs, secrets, ...(job.permissions && { permissions: job.permissions }) });
}

function handedOver(declared: Readonly<Record<string, Declared>>, given: Given, what: string): Given {
  for (const name of Object.keys(given))
    if (!Object.hasOwn(declared, name)) throw new Error(`${what} ${name} is not declared`);
  return Object.fromEntries(
    Object.entries(declared).map(([name, { required, default: fallback, type = 'string' }]) => {
      if (required === true && given[name] === undefined) throw new Error(`${what} ${name} is missing`);
      const value = given[name] ?? fallback ?? (type === 'number' ? 0 : type === 'boolean' ? false : '');
      return [name, type === 'string' ? String(value) : value];
    }),
  );
}

async function runSteps(
  id: string,
  job: WorkflowJob,
  contexts: Contexts,
  place: Place,
): Promise<{ run: Omit<JobRun, 'environment'>; done: StepRun[] }> {
  const images: Record<string, string> = {};
  const services: Record<string, unknown> = {};
  for (const [name, { image }] of Object.entries(job.services ?? {})) {
    images[name] = String(filledIn(image, contexts));
    const port = place.services?.[name];
    if (port === undefined) throw new Error(`nobody stands in for the service ${name}`);
    services[name] = { id: name, ports: { '5432': String(port) } };
  }
  for (const field of ['runs-on', 'timeout-minutes'] as const) {
    const value = filledIn(String(job[field] ?? ''), contexts);
    if (value === '' || value === null) throw new Error(`${id} has no ${field}`);
  }
  const ran: Record<string, { outputs: Readonly<Record<string, string>> }> = {};
  const done: StepRun[] = [];
  let failed = false;
  const seen = (): Contexts => ({
    ...contexts,
    ...{ steps: ran, env: {}, job: { services }, runner: { temp: place.temp ?? '', os: 'Linux' } },
  });
  for (const step of job.steps ?? []) {
    const standing = { success: !failed, failure: failed, cancelled: false, always: true };
    const condition = bare(step.if ?? 'success()');
    const holds = evaluate(condition, seen(), standing);
    if (!holds || (failed && !/\b(failure|cancelled|always)\(/.test(condition))) continue;
    evaluated(step.env, seen());
    const ours = step.uses === undefined ? undefined : oursIn(step.uses);
    if (ours === undefined) {
      done.push({ job: id, step, given: evaluated(step.with, seen()) });
      continue;
    }
    const inputs = Object.fromEntries(
      Object.entries(evaluated(step.with, seen())).map(([name, value]) => [name, String(value ?? '')]),
    );
    const known = (parse(readFileSync(join(repository, ours.path, 'action.yml'), 'utf8')) as { inputs: object }).inputs;
    const instead = Object.entries(place.instead ?? {}).filter(([name]) => Object.hasOwn(known, name));
    const result = await runAction(join(repository, ours.path), {
      inputs: { ...inputs, ...Object.fromEntries(instead) },
      env: { GITHUB_EVENT_NAME: place.event ?? 'schedule', ...place.env },
      ...(place.token === undefined ? {} : { token: place.token }),
    });
    done.push({ job: id, action: ours.path, step, result });
    failed ||= result.exitCode !== 0;
    if (step.id !== undefined) ran[step.id] = { outputs: result.outputs };
  }
  const outputs = Object.fromEntries(
    Object.entries(evaluated(job.outputs, seen())).map(([name, value]) => [name, String(value ?? '')]),
  );
  return { run: { result: failed ? 'failure' : 'success', outputs, images }, done };
}

function evaluated(texts: Readonly<Record<string, unknown>> | undefined, contexts: Contexts): Given {
  return Object.fromEntries(
    Object.entries(texts ?? {}).map(([name, text]) => [
      name,
      typeof text === 'string' ? (filledIn(text, contexts) ?? '') : text,
    ]),
  );
}

function needsOf({ needs }: WorkflowJob): readonly string[] {
  return typeof needs === 'string' ? [needs] : (needs ?? []);
}

/** A condition may be written with or without `${{ }}`. */
function bare(condition: string): string {
  return /^\s*\$\{\{(.*)\}\}\s*$/s.exec(condition)?.[1] ?? condition;
}

function combinations(matrix: Readonly<Record<string, readonly unknown[]>>): Record<string, unknown>[] {
  return Object.entries(matrix).reduce<Record<string, unknown>[]>(
    (all, [name, values]) => all.flatMap((each) => values.map((value) => ({ ...each, [name]: value }))),
    [{}],
  );
}
