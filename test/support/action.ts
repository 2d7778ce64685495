import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, writeFile } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parse } from 'yaml';
import { Masker, parseCommand, parseCommandFile } from './workflow-commands.ts';

export type Phase = 'pre' | 'main' | 'post';

export interface ActionOptions {
  /** By their public names. A name that action.yml does not know throws: the runner would only warn. */
  readonly inputs?: Readonly<Record<string, string | number | boolean>>;
  /** Over the runner's own variables. Nothing comes from the environment of the tests. */
  readonly env?: Readonly<Record<string, string>>;
  /** The webhook's payload, at GITHUB_EVENT_PATH; that of a private repository unless set. */
  readonly event?: unknown;
  /** What `${{ github.token }}` in a default gives; empty unless set. */
  readonly token?: string;
  /** Called with each line of the log as a user reads it. */
  readonly onLine?: (line: string, step: Step) => void;
  /** The step's time limit, 5 minutes; then it is killed. */
  readonly timeoutMs?: number;
}

/** The running process, for those who watch it. */
export interface Step {
  readonly phase: Phase;
  readonly pid: number;
  signal(name: NodeJS.Signals): void;
  /** What the runner does on "Cancel workflow": SIGINT, SIGTERM after 7.5 s, SIGKILL after 2.5 s more. */
  cancel(): void;
}

export interface Annotation {
  readonly level: 'error' | 'warning' | 'notice';
  readonly message: string;
  readonly properties: Readonly<Record<string, string>>;
}

export interface PhaseResult {
  /** 128 + number for a process that a signal ended. */
  readonly exitCode: number;
  readonly signal: NodeJS.Signals | null;
  readonly log: string;
}

export interface ActionResult {
  /** Main's, or pre's when that failed and main did not run. */
  readonly exitCode: number;
  /** What another job would get. */
  readonly outputs: Readonly<Record<string, string>>;
  /** Names of the outputs that the runner holds back because a masked value is in them. */
  readonly droppedOutputs: readonly string[];
  /** As GitHub shows it: commands carried out, secrets as `***`, errors as `Error: …`. */
  readonly log: string;
  /** Line for line what the action printed, commands and all. */
  readonly rawLog: string;
  /** The job summary, masked; empty when it is larger than GitHub takes (1 MiB). */
  readonly summary: string;
  readonly masks: readonly string[];
  readonly annotations: readonly Annotation[];
  readonly phases: Readonly<Partial<Record<Phase, PhaseResult>>>;
  /** What it added to GITHUB_ENV and GITHUB_PATH for later steps. */
  readonly exported: { readonly env: Readonly<Record<string, string>>; readonly path: readonly string[] };
  readonly state: Readonly<Record<string, string>>;
  /** RUNNER_TEMP, kept until this process ends. */
  readonly temp: string;
  /** What the action left in RUNNER_TEMP. */
  readonly leftovers: readonly string[];
  readonly workspace: string;
  readonly home: string;
  /** Command lines of processes the action left running, found as the runner finds them; they are killed. Linux only. */
  readonly orphans: readonly string[];
}

interface Manifest {
  readonly inputs: Readonly<Record<string, { readonly default?: unknown } | null>>;
  readonly runs: Readonly<Record<string, string>>;
}

interface Session {
  readonly masker: Masker;
  readonly outputs: Map<string, string>;
  readonly state: Map<string, string>;
  readonly env: Map<string, string>;
  readonly path: string[];
  readonly annotations: Annotation[];
  log: string;
  rawLog: string;
  summary: string;
}

const summaryLimit = 1024 * 1024;
const systemPath = ['/opt/homebrew/bin', '/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];

/** The folders of every step so far. */
const steps = new Set<string>();
process.once('exit', () => {
  for (const folder of steps) rmSync(folder, { recursive: true, force: true });
});

/**
 * Runs the action in `folder` (the one with action.yml) as GitHub's runner would run its step: defaults, INPUT_*, command
 * files, masks, then pre, main and post with this very node. Resolves whatever the action's exit code; throws when
 * action.yml or the request make no sense.
 */
export async function runAction(folder: string, options: ActionOptions = {}): Promise<ActionResult> {
  const manifest = readManifest(folder);
  const root = await mkdtemp(join(tmpdir(), 'pgassay-step-'));
  steps.add(root);
  const [temp, workspace, home, tools] = ['temp', 'workspace', 'home', 'tools'].map((name) => join(root, name)) as [
    string,
    string,
    string,
    string,
  ];
  for (const path of [temp, workspace, home, tools]) await mkdir(path);
  const eventFile = join(root, 'event.json');
  await writeFile(eventFile, JSON.stringify(options.event ?? privateRepository));

  const tracking = `github_${randomUUID()}`;
  const runner: Record<string, string> = {
    ...contextVariables,
    PATH: systemPath.join(':'),
    HOME: home,
    RUNNER_TEMP: temp,
    RUNNER_TOOL_CACHE: tools,
    RUNNER_TRACKING_ID: tracking,
    GITHUB_WORKSPACE: workspace,
    GITHUB_EVENT_PATH: eventFile,
    GITHUB_ACTION_PATH: folder,
    ...options.env,
  };
  const inputs = inputVariables(manifest, runner, options);

  const session: Session = {
    ...{ masker: new Masker(), outputs: new Map(), state: new Map(), env: new Map(), path: [], annotations: [] },
    ...{ log: '', rawLog: '', summary: '' },
  };
  if (options.token !== undefined) session.masker.add(options.token);

  const phases: Partial<Record<Phase, PhaseResult>> = {};
  for (const phase of ['pre', 'main', 'post'] as const) {
    const file = manifest.runs[phase];
    if (file === undefined) continue;
    const failed = Object.values(phases).some((result) => result.exitCode !== 0);
    const condition = phase === 'main' ? 'success()' : (manifest.runs[`${phase}-if`] ?? 'always()');
    if (!holds(condition, failed) || (phase === 'post' && phases.main === undefined)) continue;
    const env = {
      ...runner,
      ...Object.fromEntries(session.env),
      PATH: [...session.path.toReversed(), runner.PATH].join(':'),
      ...inputs,
      ...Object.fromEntries([...session.state].map(([name, value]) => [`STATE_${name}`, value])),
    };
    phases[phase] = await runPhase(phase, join(folder, file), root, env, session, options);
  }

  const dropped = [...session.outputs].filter(([, value]) => session.masker.mask(value) !== value);
  return {
    exitCode: phases.main?.exitCode ?? phases.pre?.exitCode ?? -1,
    outputs: Object.fromEntries([...session.outputs].filter(([name]) => !dropped.some(([other]) => other === name))),
    droppedOutputs: dropped.map(([name]) => name),
    log: session.log,
    rawLog: session.rawLog,
    summary: session.summary,
    masks: session.masker.values,
    annotations: session.annotations,
    phases,
    exported: { env: Object.fromEntries(session.env), path: session.path },
    state: Object.fromEntries(session.state),
    temp,
    leftovers: (await readdir(temp, { recursive: true })).sort(),
    workspace,
    home,
    orphans: endOrphans(tracking),
  };
}

function readManifest(folder: string): Manifest {
  const file = ['action.yml', 'action.yaml'].map((name) => join(folder, name)).find((path) => existsSync(path));
  if (file === undefined) throw new Error(`no action.yml in ${folder}`);
  const { inputs, runs } = parse(readFileSync(file, 'utf8')) as Partial<Manifest>;
  if (runs === undefined) throw new Error(`${file} has no runs`);
  const wanted = /^node(\d+)$/.exec(runs.using ?? '')?.[1];
  if (wanted === undefined) throw new Error(`${file} does not run on node: ${runs.using}`);
  const here = process.versions.node.split('.')[0];
  if (here !== wanted) throw new Error(`${file} asks for node ${wanted}, the tests run on node ${here}`);
  return { inputs: inputs ?? {}, runs };
}

/** INPUT_*: blanks become underscores, hyphens stay; what neither the user nor a default sets is empty. */
function inputVariables(
  { inputs }: Manifest,
  runner: Readonly<Record<string, string>>,
  options: ActionOptions,
): Record<string, string> {
  const unknown = Object.keys(options.inputs ?? {}).filter((name) => !Object.hasOwn(inputs, name));
  if (unknown.length > 0) throw new Error(`Unexpected input(s) '${unknown.join("', '")}'`);
  const context = (expression: string): string => {
    const name = /^github\.(\w+)$/.exec(expression)?.[1];
    if (name === undefined) throw new Error(`cannot evaluate the default \${{ ${expression} }}`);
    return name === 'token' ? (options.token ?? '') : (runner[`GITHUB_${name.toUpperCase()}`] ?? '');
  };
  return Object.fromEntries(
    Object.entries(inputs).map(([name, input]) => {
      const fallback = String(input?.default ?? '').replace(/\$\{\{\s*(.*?)\s*\}\}/g, (_, text: string) =>
        context(text),
      );
      return [`INPUT_${name.replaceAll(' ', '_').toUpperCase()}`, String(options.inputs?.[name] ?? fallback)];
    }),
  );
}

function holds(condition: string, failed: boolean): boolean {
  if (condition === 'always()' || condition === '!cancelled()') return true;
  if (condition === 'success()') return !failed;
  if (condition === 'failure()') return failed;
  throw new Error(`cannot evaluate the condition ${condition}`);
}

async function runPhase(
  phase: Phase,
  file: string,
  root: string,
  variables: Readonly<Record<string, string>>,
  session: Session,
  options: ActionOptions,
): Promise<PhaseResult> {
  const fileOf = (name: string): string => join(root, `${phase}-${name}`);
  const files = ['OUTPUT', 'ENV', 'PATH', 'STATE', 'STEP_SUMMARY'];
  for (const name of files) await writeFile(fileOf(name), '');
  const env = { ...variables, ...Object.fromEntries(files.map((name) => [`GITHUB_${name}`, fileOf(name)])) };
  const workspace = variables.GITHUB_WORKSPACE;
  const child = spawn(process.execPath, [file], { env, cwd: workspace, stdio: ['ignore', 'pipe', 'pipe'] });
  const timers: NodeJS.Timeout[] = [];
  const later = (ms: number, name: NodeJS.Signals): void => void timers.push(setTimeout(() => child.kill(name), ms));
  later(options.timeoutMs ?? 300_000, 'SIGKILL');
  const killWithUs = (): void => void child.kill('SIGKILL');
  process.once('exit', killWithUs);
  const step: Step = {
    phase,
    pid: child.pid ?? -1,
    signal: (name) => void child.kill(name),
    cancel: () => {
      child.kill('SIGINT');
      later(7_500, 'SIGTERM');
      later(10_000, 'SIGKILL');
    },
  };

  const before = session.log.length;
  const screen = new Screen(session, phase, variables.RUNNER_DEBUG === '1', (line) => options.onLine?.(line, step));
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY }).on('line', (line) => screen.take(line));
  }
  let [exitCode, signal] = await new Promise<[number, NodeJS.Signals | null]>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, name) => resolve([code ?? 128 + (name === null ? 0 : constants.signals[name]), name]));
  });
  for (const timer of timers) clearTimeout(timer);
  process.removeListener('exit', killWithUs);

  try {
    const read = (name: string): Promise<string> => readFile(fileOf(name), 'utf8');
    for (const [name, value] of parseCommandFile(await read('OUTPUT'))) session.outputs.set(name, value);
    for (const [name, value] of parseCommandFile(await read('STATE'))) session.state.set(name, value);
    for (const [name, value] of parseCommandFile(await read('ENV'))) {
      if (name === 'NODE_OPTIONS')
        throw new Error("Can't store NODE_OPTIONS output parameter using '$GITHUB_ENV' command.");
      session.env.set(name, value);
    }
    session.path.push(...(await read('PATH')).split(/\r?\n/).filter((line) => line !== ''));
    const summary = await read('STEP_SUMMARY');
    if (Buffer.byteLength(summary) > summaryLimit) {
      screen.take('::error::$GITHUB_STEP_SUMMARY upload aborted, supports content up to a size of 1024k');
    } else {
      session.summary += session.masker.mask(summary);
    }
  } catch (error) {
    screen.take(`::error::${error instanceof Error ? error.message : String(error)}`);
    exitCode = exitCode === 0 ? 1 : exitCode;
  }
  return { exitCode, signal, log: session.log.slice(before) };
}

/** What the runner does with each line a step prints. */
class Screen {
  readonly #session: Session;
  readonly #phase: Phase;
  readonly #debug: boolean;
  readonly #shown: (line: string) => void;
  /** The token that ends `stop-commands`. */
  #resume: string | undefined;

  constructor(session: Session, phase: Phase, debug: boolean, shown: (line: string) => void) {
    this.#session = session;
    this.#phase = phase;
    this.#debug = debug;
    this.#shown = shown;
  }

  take(line: string): void {
    const session = this.#session;
    session.rawLog += `${line}\n`;
    const command = parseCommand(line, this.#resume);
    if (command === undefined) {
      this.#show(line);
      return;
    }
    if (this.#resume !== undefined) {
      this.#resume = undefined;
      return;
    }
    const { name, properties, data } = command;
    if (name === 'stop-commands') this.#resume = data;
    else if (name === 'add-mask') {
      if (!session.masker.add(data))
        this.#annotate('warning', "Can't add secret mask for empty string in ##[add-mask] command.");
    } else if (name === 'error' || name === 'warning' || name === 'notice') this.#annotate(name, data, properties);
    else if (name === 'debug') this.#debug && this.#show(`##[debug]${data}`);
    else if (name === 'group') this.#show(`##[group]${data}`);
    else if (name === 'endgroup') this.#show('##[endgroup]');
    else if (name === 'set-output') session.outputs.set(properties.name ?? '', data);
    else if (name === 'save-state') session.state.set(properties.name ?? '', data);
    else if (name === 'set-env' || name === 'add-path') {
      this.#annotate('error', `The \`${name}\` command is disabled (${this.#phase}).`);
    }
  }

  #annotate(level: Annotation['level'], text: string, properties: Readonly<Record<string, string>> = {}): void {
    const message = this.#session.masker.mask(text);
    this.#session.annotations.push({ level, message, properties });
    this.#show(`${level.charAt(0).toUpperCase()}${level.slice(1)}: ${text}`);
  }

  #show(text: string): void {
    const masked = this.#session.masker.mask(text);
    this.#session.log += `${masked}\n`;
    for (const line of masked.split('\n')) this.#shown(line);
  }
}

/** Ends whatever still carries the step's tracking id, as the runner does at the end of a job. */
function endOrphans(tracking: string): string[] {
  const orphans: string[] = [];
  for (const pid of existsSync('/proc') ? readdirSync('/proc').filter((name) => /^\d+$/.test(name)) : []) {
    try {
      const environment = readFileSync(`/proc/${pid}/environ`, 'utf8');
      if (!environment.split('\0').includes(`RUNNER_TRACKING_ID=${tracking}`)) continue;
      orphans.push(readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim());
      process.kill(Number(pid), 'SIGKILL');
    } catch {
      // Gone in between, or somebody else's.
    }
  }
  return orphans;
}

const privateRepository = { repository: { full_name: 'octo/backups', private: true, visibility: 'private' } };

/** A scheduled run of a private repository's workflow. The API's address leads nowhere, so that no test leaves the machine. */
const contextVariables: Readonly<Record<string, string>> = {
  LANG: 'C.UTF-8',
  CI: 'true',
  GITHUB_ACTIONS: 'true',
  GITHUB_ACTION: '__self',
  GITHUB_ACTOR: 'octo',
  GITHUB_API_URL: 'http://127.0.0.1:9',
  GITHUB_GRAPHQL_URL: 'http://127.0.0.1:9/graphql',
  GITHUB_SERVER_URL: 'https://github.com',
  GITHUB_EVENT_NAME: 'schedule',
  GITHUB_JOB: 'backup',
  GITHUB_REF: 'refs/heads/main',
  GITHUB_REF_NAME: 'main',
  GITHUB_REF_TYPE: 'branch',
  GITHUB_REPOSITORY: 'octo/backups',
  GITHUB_REPOSITORY_ID: '1001',
  GITHUB_REPOSITORY_OWNER: 'octo',
  GITHUB_RUN_ATTEMPT: '1',
  GITHUB_RUN_ID: '4711',
  GITHUB_RUN_NUMBER: '12',
  GITHUB_SHA: '0123456789abcdef0123456789abcdef01234567',
  GITHUB_WORKFLOW: 'backup',
  GITHUB_WORKFLOW_REF: 'octo/backups/.github/workflows/backup.yml@refs/heads/main',
  RUNNER_ARCH: process.arch === 'arm64' ? 'ARM64' : 'X64',
  RUNNER_ENVIRONMENT: 'github-hosted',
  RUNNER_NAME: 'GitHub Actions 1',
  RUNNER_OS: process.platform === 'darwin' ? 'macOS' : 'Linux',
};
