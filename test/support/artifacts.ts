import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import {
  BlobSASPermissions,
  BlobServiceClient,
  type ContainerClient,
  generateBlobSASQueryParameters,
  StorageSharedKeyCredential,
} from '@azure/storage-blob';
import { artifactPlaceOf } from '../../src/environment.ts';
import { ArtifactStore } from '../../src/store/artifact.ts';
import { parseArtifactName } from '../../src/store/artifact-names.ts';
import type { ArtifactOptions } from '../../src/store/artifact-place.ts';
import type { StoreUse } from '../../src/store/store.ts';
import { repository as root, scratch } from './faults.ts';

/** A run of a workflow in the repository, or one that a pull request of a fork started there. */
export interface Run {
  readonly id: number;
  readonly fork?: boolean;
}

export interface Artifact {
  readonly id: number;
  readonly name: string;
  readonly run: Run;
  readonly createdAt: Date;
  expiresAt: Date;
  size: number;
  /** `sha256:…` */
  digest: string | null;
  /** Only what was finalized is listed. */
  finalized: boolean;
}

export interface ApiRequest {
  readonly method: string;
  readonly path: string;
  readonly body: string;
}

export type Fault =
  | { readonly status: number; readonly message?: string; readonly headers?: Readonly<Record<string, string>> }
  | 'reset'
  | 'silence';

const account = 'artifacts';
const repositoryId = 1001;
const dayMs = 86_400_000;

/**
 * GitHub's workflow artifacts on loopback: the results service that an action uploads through, the REST API that lists them
 * across runs, and a real blob service (Azurite) that has their bytes. The repository is `octo/backups`.
 */
export class ArtifactServer implements AsyncDisposable {
  readonly repository = 'octo/backups';
  /** For GITHUB_API_URL and ACTIONS_RESULTS_URL. */
  readonly url: string;
  /** May do everything with artifacts, only read them, or nothing. */
  readonly token = 'ghs_writes';
  readonly readToken = 'ghs_reads';
  readonly strangerToken = 'ghs_nothing';
  readonly requests: ApiRequest[] = [];
  readonly artifacts: Artifact[] = [];
  visibility: 'private' | 'internal' | 'public' | undefined = 'private';
  /** How long the repository keeps artifacts at most. */
  mostDays = 90;
  /** Asked before each request. */
  fault: (request: ApiRequest) => Fault | undefined = () => undefined;
  /** Reads that end in the middle of the bytes, so many. */
  cuts = 0;
  readonly #runs = new Map<string, Run>();
  #nextId = 7000;
  readonly #server: Server;
  readonly #azurite: ChildProcess;
  readonly #container: ContainerClient;
  readonly #credential: StorageSharedKeyCredential;

  private constructor(
    server: Server,
    azurite: ChildProcess,
    container: ContainerClient,
    credential: StorageSharedKeyCredential,
  ) {
    this.#server = server;
    this.#azurite = azurite;
    this.#container = container;
    this.#credential = credential;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on('request', (request, response) => void this.#serve(request, response));
  }

  static async start(): Promise<ArtifactServer> {
    const key = randomBytes(32).toString('base64');
    const azurite = spawn(
      process.execPath,
      [
        join(root, 'node_modules/azurite/dist/src/blob/main.js'),
        ...['--blobHost', '127.0.0.1', '--blobPort', '0', '--inMemoryPersistence'],
        ...['--silent', '--disableTelemetry', '--skipApiVersionCheck'],
      ],
      {
        cwd: await scratch(),
        env: { PATH: '/usr/bin:/bin', AZURITE_ACCOUNTS: `${account}:${key}` },
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    const kill = (): void => void azurite.kill('SIGKILL');
    process.once('exit', kill);
    const lines = createInterface({ input: azurite.stdout });
    let port: string | undefined;
    for await (const line of lines) {
      port = /listen(?:s|ing) on http:\/\/127\.0\.0\.1:(\d+)/.exec(line)?.[1];
      if (port !== undefined) break;
    }
    if (port === undefined) throw new Error('the blob service did not start');
    azurite.stdout.resume();
    const credential = new StorageSharedKeyCredential(account, key);
    const service = new BlobServiceClient(`http://127.0.0.1:${port}/${account}`, credential);
    const container = service.getContainerClient('artifacts');
    await container.create();
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new ArtifactServer(server, azurite, container, credential);
  }

  /** What the runner gives a step of this run, beside what it gives every step. */
  env(run: Run): Readonly<Record<string, string>> {
    const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
    const scp = `Actions.GenericRead:00000000-0000-0000-0000-000000000000 Actions.Results:${run.id}:job-of-${run.id}`;
    this.#runs.set(String(run.id), run);
    return {
      GITHUB_API_URL: this.url,
      GITHUB_REPOSITORY: this.repository,
      GITHUB_RUN_ID: String(run.id),
      ACTIONS_RESULTS_URL: `${this.url}/`,
      ACTIONS_RUNTIME_TOKEN: `${part({ alg: 'RS256', typ: 'JWT' })}.${part({ scp })}.c2lnbmF0dXJl`,
      GITHUB_RETENTION_DAYS: String(this.mostDays),
    };
  }

  /** Those that are listed, by name, in the order in which they came. */
  named(name: string | RegExp): Artifact[] {
    return this.artifacts.filter(
      (each) => each.finalized && (typeof name === 'string' ? each.name === name : name.test(each.name)),
    );
  }

  async content({ id }: Artifact): Promise<Buffer> {
    return this.#blob(id).downloadToBuffer();
  }

  /** An artifact that somebody else made. */
  async add(name: string, run: Run, content: Buffer = Buffer.alloc(0)): Promise<Artifact> {
    const artifact = this.#create(name, run, undefined);
    if (content.length > 0) await this.#blob(artifact.id).getBlockBlobClient().upload(content, content.length);
    return Object.assign(artifact, { size: content.length, finalized: true });
  }

  /** Other bytes under an artifact; what GitHub says of it stays. */
  async tamper({ id }: Artifact, content: Buffer): Promise<void> {
    await this.#blob(id).getBlockBlobClient().upload(content, content.length);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    this.#azurite.kill('SIGTERM');
    if (this.#azurite.exitCode === null && this.#azurite.signalCode === null) await once(this.#azurite, 'exit');
  }

  #blob(id: number) {
    return this.#container.getBlobClient(String(id));
  }

  #signed(id: number, permissions: string): string {
    const sas = generateBlobSASQueryParameters(
      {
        containerName: 'artifacts',
        blobName: String(id),
        permissions: BlobSASPermissions.parse(permissions),
        expiresOn: new Date(Date.now() + 60_000),
      },
      this.#credential,
    );
    return `${this.#blob(id).url}?${sas}`;
  }

  #create(name: string, run: Run, expiresAt: Date | undefined): Artifact {
    // GitHub's times have no milliseconds.
    const createdAt = new Date(Math.floor(Date.now() / 1000) * 1000);
    const latest = createdAt.getTime() + this.mostDays * dayMs;
    const artifact: Artifact = {
      ...{ id: this.#nextId++, name, run, createdAt, digest: null, size: 0, finalized: false },
      expiresAt: new Date(Math.min(expiresAt?.getTime() ?? latest, latest)),
    };
    this.artifacts.push(artifact);
    return artifact;
  }

  async #serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = 'GET', url: path = '/' } = incoming;
    const request = { method, path, body: await text(incoming) };
    this.requests.push(request);
    const send = (status: number, body?: unknown, headers: Readonly<Record<string, string>> = {}): undefined => {
      response.writeHead(status, { 'content-type': 'application/json', ...headers });
      response.end(body === undefined ? '' : JSON.stringify(body));
    };
    const fault = this.fault(request);
    if (fault === 'silence') return;
    if (fault === 'reset') incoming.socket.destroy();
    else if (fault !== undefined) send(fault.status, { message: fault.message, msg: fault.message }, fault.headers);
    else if (path.startsWith('/twirp/')) this.#twirp(request, incoming.headers.authorization ?? '', send);
    else if (path.startsWith('/half/')) await this.#half(path.slice(6), incoming, response);
    else this.#rest(request, incoming.headers.authorization ?? '', send);
  }

  /** The service that the runner's own token is for. */
  #twirp({ path, body }: ApiRequest, authorization: string, send: Send): undefined {
    const [, claims = ''] = authorization.replace('Bearer ', '').split('.');
    const { scp = '' } = JSON.parse(Buffer.from(claims, 'base64url').toString('utf8') || '{}') as { scp?: string };
    const run = this.#runs.get(/Actions\.Results:(\d+):/.exec(scp)?.[1] ?? '');
    if (run === undefined) return send(401, { code: 'unauthenticated', msg: 'the token is over' });
    const asked = JSON.parse(body) as Record<string, unknown>;
    const name = String(asked.name ?? asked.name_filter);
    const there = this.artifacts.find((each) => each.run.id === run.id && each.name === name);
    const method = path.split('/').at(-1);
    if (method === 'CreateArtifact') {
      if (there !== undefined)
        return send(409, {
          code: 'already_exists',
          msg: 'an artifact with this name already exists on the workflow run',
        });
      const until = asked.expires_at === undefined ? undefined : new Date(String(asked.expires_at));
      return send(200, { ok: true, signed_upload_url: this.#signed(this.#create(name, run, until).id, 'cw') });
    }
    if (method === 'ListArtifacts')
      return send(200, {
        artifacts: [there].flatMap((each) =>
          each?.finalized === true
            ? [
                {
                  ...{ workflow_run_backend_id: String(run.id), workflow_job_run_backend_id: `job-of-${run.id}` },
                  ...{ database_id: String(each.id), name, size: String(each.size) },
                },
              ]
            : [],
        ),
      });
    if (there === undefined) return send(404, { code: 'not_found', msg: 'no such artifact' });
    if (method === 'FinalizeArtifact') {
      Object.assign(there, { size: Number(asked.size ?? 0), digest: asked.hash ?? null, finalized: true });
      return send(200, { ok: true, artifact_id: String(there.id) });
    }
    if (method === 'DeleteArtifact') {
      this.artifacts.splice(this.artifacts.indexOf(there), 1);
      return send(200, { ok: true, artifact_id: String(there.id) });
    }
    return send(404, { code: 'bad_route', msg: path });
  }

  #rest({ method, path }: ApiRequest, authorization: string, send: Send): undefined {
    const url = new URL(path, this.url);
    const token = authorization.replace('Bearer ', '');
    if (![this.token, this.readToken, this.strangerToken].includes(token))
      return send(401, { message: 'Bad credentials' });
    const below = url.pathname.replace(`/repos/${this.repository}`, '');
    if (below === url.pathname) return send(404, { message: 'Not Found' });
    if (below === '') return send(200, { visibility: this.visibility });
    if (token === this.strangerToken || (method === 'DELETE' && token !== this.token))
      return send(403, { message: 'Resource not accessible by integration' });
    const [, run, id, zip] = /^\/actions(?:\/runs\/(\d+))?\/artifacts(?:\/(\d+)(\/zip)?)?$/.exec(below) ?? [];
    if (id === undefined) return send(200, this.#page(url.searchParams, run));
    const artifact = this.artifacts.find((each) => each.id === Number(id) && each.finalized);
    if (artifact === undefined) return send(404, { message: 'Not Found' });
    if (method === 'DELETE') {
      this.artifacts.splice(this.artifacts.indexOf(artifact), 1);
      return send(204);
    }
    if (zip === undefined) return send(200, shown(artifact));
    if (isExpired(artifact)) return send(410, { message: 'Artifact has expired' });
    if (this.cuts > 0) return send(302, undefined, { location: `${this.url}/half/${artifact.id}` });
    return send(302, undefined, { location: this.#signed(artifact.id, 'r') });
  }

  #page(query: URLSearchParams, run: string | undefined): unknown {
    const [size, page] = [Number(query.get('per_page') ?? 30), Number(query.get('page') ?? 1)];
    const name = query.get('name');
    const found = this.artifacts
      .filter((each) => each.finalized && (name === null || each.name === name))
      .filter((each) => run === undefined || each.run.id === Number(run))
      .reverse();
    return { total_count: found.length, artifacts: found.slice((page - 1) * size, page * size).map(shown) };
  }

  /** The blob service, through a connection that ends in the middle of what is left. */
  async #half(id: string, incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    this.cuts -= 1;
    const start = Number(/bytes=(\d+)-/.exec(incoming.headers.range ?? '')?.[1] ?? 0);
    const rest = (await this.#blob(Number(id)).downloadToBuffer()).subarray(start);
    response.writeHead(start === 0 ? 200 : 206, { 'content-length': String(rest.length) });
    response.write(rest.subarray(0, Math.ceil(rest.length / 2)), () => incoming.socket.destroy());
  }
}

type Send = (status: number, body?: unknown, headers?: Readonly<Record<string, string>>) => undefined;

function isExpired({ expiresAt }: Artifact): boolean {
  return expiresAt.getTime() <= Date.now();
}

/** As GitHub's documentation shows one. */
function shown(artifact: Artifact): unknown {
  const { id, name, run, createdAt, expiresAt, size, digest } = artifact;
  return {
    ...{ id, name, size_in_bytes: size, digest, expired: isExpired(artifact) },
    created_at: createdAt.toISOString().replace('.000Z', 'Z'),
    expires_at: expiresAt.toISOString().replace('.000Z', 'Z'),
    workflow_run: {
      ...{ id: run.id, repository_id: repositoryId, head_branch: 'main' },
      head_repository_id: run.fork === true ? 2002 : repositoryId,
    },
  };
}

/** This program's own store, in a step of a run. The client reads the environment of its process, so one run at a time. */
export async function openArtifacts(
  server: ArtifactServer,
  run: Run,
  { temporary, ...options }: Partial<Omit<ArtifactOptions, 'place'>> & { readonly temporary?: string } = {},
  use: StoreUse = {},
): Promise<ArtifactStore> {
  const env = { ...server.env(run), GITHUB_ACTIONS: 'true' };
  Object.assign(process.env, env);
  const place = artifactPlaceOf(env, temporary ?? (await scratch()));
  if (place === undefined) throw new Error('no repository');
  return new ArtifactStore({ place, token: server.token, allowPlaintext: true, ...options }, use);
}

/** The same from outside of any run, with a token that may only read. */
export function readArtifacts(server: ArtifactServer, token: string = server.readToken): ArtifactStore {
  const place = artifactPlaceOf({ GITHUB_API_URL: server.url, GITHUB_REPOSITORY: server.repository }, '/nonexistent');
  if (place === undefined) throw new Error('no repository');
  return new ArtifactStore({ place, token, allowPlaintext: false });
}

/** What lies in the artifacts, by the paths that files have in every other store. */
export async function pathsIn(server: ArtifactServer): Promise<string[]> {
  const paths = await Promise.all(
    server.artifacts.map(async (artifact) => {
      const name = parseArtifactName(artifact.name);
      if (name?.kind === 'file') return `${name.name}/${name.id}/${name.file}`;
      if (name?.kind !== 'manifest') return artifact.name;
      const { id } = JSON.parse((await server.content(artifact)).toString('utf8')) as { id?: string };
      return `${name.name}/${id}/manifest.json`;
    }),
  );
  return paths.sort();
}
