import { execFile } from 'node:child_process';
import { createHash, createHmac, randomBytes, randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chown, readFile, writeFile } from 'node:fs/promises';
import { type IncomingHttpHeaders, request as open } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { freePort, ownFolder, type Server, startWatched, unprivileged } from './postgres.ts';

const kmsKey = Buffer.alloc(32, 'pgassay test key').toString('base64');

export interface S3Request {
  /** An empty value names a subresource: `{ versions: '' }`. */
  readonly query?: Readonly<Record<string, string>>;
  /** Sent and signed. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer | string;
  /** Whom to send it to instead of the server: a proxy in front of it. */
  readonly endpoint?: string;
  /** Leave the body out of the signature, so that nobody notices when it arrives changed. */
  readonly unsignedPayload?: boolean;
  readonly signal?: AbortSignal;
}

export interface S3Response {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

export interface S3Version {
  readonly key: string;
  readonly versionId: string;
  readonly isLatest: boolean;
  readonly isDeleteMarker: boolean;
  /** 0 of a delete marker. */
  readonly size: number;
}

/**
 * A real S3 server of a test's own (a Ceph RADOS Gateway that keeps up to `gibibytes`, 2, in memory), on loopback. It knows the
 * storage classes STANDARD and STANDARD_IA and the KMS key `testkey`. Nothing survives the test: `stop` (or `await
 * using`) ends it, so does the end of this process, and a watcher outside of it does when this process is killed.
 */
export class S3Server implements AsyncDisposable {
  readonly endpoint: string;
  readonly region = 'us-east-1';
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** In the arguments of every process of the server. */
  readonly directory: string;
  readonly #end: () => Promise<void>;

  /** A server that is neither started nor stopped here; its keys are the URL's user and password. */
  static at({ origin: endpoint, username, password }: URL): S3Server {
    const [accessKeyId, secretAccessKey] = [username, password].map(decodeURIComponent) as [string, string];
    return new S3Server({ endpoint, directory: '', accessKeyId, secretAccessKey }, async () => {});
  }

  private constructor(
    place: Pick<S3Server, 'endpoint' | 'directory' | 'accessKeyId' | 'secretAccessKey'>,
    end: () => Promise<void>,
  ) {
    this.endpoint = place.endpoint;
    this.accessKeyId = place.accessKeyId;
    this.secretAccessKey = place.secretAccessKey;
    this.directory = place.directory;
    this.#end = end;
  }

  /** A server that answers requests. Throws with the end of its log when it does not come up. */
  static async start({ gibibytes = 2 }: { gibibytes?: number } = {}): Promise<S3Server> {
    const missing = ['ceph-mon', 'ceph-osd', 'radosgw'].filter((name) => !existsSync(join('/usr/bin', name)));
    if (missing.length > 0) throw new Error(`not on this machine: ${missing.join(', ')} (packages of the same names)`);
    const deadline = Date.now() + 60_000;
    for (let attempt = 1; ; attempt += 1) {
      const place = await prepare(gibibytes);
      const process = startWatched(place.directory, '/bin/sh', ['-c', supervisor, 'sh', ...argumentsFor(place)]);
      const server = new S3Server({ ...place, endpoint: `http://127.0.0.1:${place.port}` }, process.end);
      try {
        await server.#ready(process, deadline);
        return server;
      } catch (error) {
        await server.stop();
        // Somebody else may have taken a port between our look and the server's, who does not always come to say so.
        if (attempt === 3 || Date.now() > deadline) throw error;
      }
    }
  }

  /** Another user of the same server, who may do nothing until a bucket policy lets `arn:aws:iam:::user/<name>` in. */
  async user(name: string): Promise<S3Server> {
    const accessKeyId = `AKIA${randomBytes(8).toString('hex').toUpperCase()}`;
    const secretAccessKey = randomBytes(30).toString('base64');
    await promisify(execFile)('radosgw-admin', [
      ...['-c', join(this.directory, 'ceph.conf'), 'user', 'create', `--uid=${name}`, `--display-name=${name}`],
      ...[`--access-key=${accessKeyId}`, `--secret-key=${secretAccessKey}`],
    ]);
    const { endpoint, directory } = this;
    return new S3Server({ endpoint, directory, accessKeyId, secretAccessKey }, async () => {});
  }

  /** What a program that finds its credentials in the environment needs. */
  get env(): { AWS_ACCESS_KEY_ID: string; AWS_SECRET_ACCESS_KEY: string; AWS_REGION: string } {
    return {
      AWS_ACCESS_KEY_ID: this.accessKeyId,
      AWS_SECRET_ACCESS_KEY: this.secretAccessKey,
      AWS_REGION: this.region,
    };
  }

  /**
   * Sends one signed request on a connection of its own. `path` is `/bucket/key` as it is, unencoded. Every answer is
   * returned, whatever its status; rejects only when there is none.
   */
  request(method: string, path: string, options: S3Request = {}): Promise<S3Response> {
    const url = new URL(options.endpoint ?? this.endpoint);
    const body = Buffer.from(options.body ?? '');
    const target = path.split('/').map(percentEncoded).join('/');
    const query = Object.entries(options.query ?? {})
      .map(([name, value]) => `${percentEncoded(name)}=${percentEncoded(value)}`)
      .sort()
      .join('&');
    const headers: Record<string, string> = {
      host: url.host,
      'x-amz-date': new Date().toISOString().replace(/[-:]|\.\d+/g, ''),
      'x-amz-content-sha256': options.unsignedPayload === true ? 'UNSIGNED-PAYLOAD' : sha256(body),
      ...lowerCased(options.headers ?? {}),
    };
    const authorization = this.#signature(method, target, query, headers);
    return new Promise((resolve, reject) => {
      const sent = open(
        {
          ...{ host: url.hostname, port: url.port, method, path: query === '' ? target : `${target}?${query}` },
          // The server would not read the rest of a refused body on a connection it is to close, but reset it.
          headers: { ...headers, authorization, 'content-length': body.length, connection: 'keep-alive' },
          agent: false,
          ...(options.signal === undefined ? {} : { signal: options.signal }),
        },
        (response) => {
          response.toArray().then(
            (chunks: Buffer[]) =>
              resolve({
                status: response.statusCode ?? 0,
                headers: response.headers,
                body: Buffer.concat(chunks),
              }),
            reject,
          );
        },
      );
      sent.once('error', reject);
      sent.end(body);
    });
  }

  /** A lock needs versioning, so `objectLock` turns that on too. */
  async createBucket(name: string, options: { objectLock?: boolean; versioning?: boolean } = {}): Promise<void> {
    const headers = options.objectLock === true ? { 'x-amz-bucket-object-lock-enabled': 'true' } : {};
    await this.#done('PUT', `/${name}`, { headers });
    if (options.versioning !== true || options.objectLock === true) return;
    const body = '<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>';
    await this.#done('PUT', `/${name}`, { query: { versioning: '' }, body });
  }

  /** `headers` as S3 knows them: `{ 'x-amz-storage-class': 'STANDARD_IA' }`. */
  put(bucket: string, key: string, body: Buffer | string, headers: Record<string, string> = {}): Promise<S3Response> {
    return this.#done('PUT', `/${bucket}/${key}`, { body, headers });
  }

  async get(bucket: string, key: string): Promise<Buffer> {
    return (await this.#done('GET', `/${bucket}/${key}`)).body;
  }

  /** Without `versionId`, a bucket with versions only gets a delete marker. */
  async delete(bucket: string, key: string, versionId?: string): Promise<void> {
    await this.#done('DELETE', `/${bucket}/${key}`, versionId === undefined ? {} : { query: { versionId } });
  }

  /** Every key, however many there are, in the server's order. */
  async keys(bucket: string, prefix = ''): Promise<string[]> {
    const found: string[] = [];
    let token: string | undefined;
    do {
      const query = { 'list-type': '2', prefix, ...(token === undefined ? {} : { 'continuation-token': token }) };
      const page = await this.#xml(bucket, query);
      found.push(...elements(page, 'Contents').map((each) => text(each, 'Key')));
      token = text(page, 'NextContinuationToken') || undefined;
    } while (token !== undefined);
    return found;
  }

  /** Every version of every key and every delete marker. */
  async versions(bucket: string, prefix = ''): Promise<S3Version[]> {
    const found: S3Version[] = [];
    let marker: Record<string, string> | undefined = {};
    while (marker !== undefined) {
      const page = await this.#xml(bucket, { versions: '', prefix, ...marker });
      for (const name of ['Version', 'DeleteMarker']) {
        for (const each of elements(page, name)) {
          found.push({
            key: text(each, 'Key'),
            versionId: text(each, 'VersionId'),
            isLatest: text(each, 'IsLatest') === 'true',
            isDeleteMarker: name === 'DeleteMarker',
            size: Number(text(each, 'Size')),
          });
        }
      }
      const next = {
        'key-marker': text(page, 'NextKeyMarker'),
        'version-id-marker': text(page, 'NextVersionIdMarker'),
      };
      marker = text(page, 'IsTruncated') === 'true' ? next : undefined;
    }
    return found;
  }

  /** The multipart uploads that are neither complete nor aborted; the first thousand. */
  async uploads(bucket: string): Promise<{ key: string; uploadId: string }[]> {
    const page = await this.#xml(bucket, { uploads: '' });
    return elements(page, 'Upload').map((each) => ({ key: text(each, 'Key'), uploadId: text(each, 'UploadId') }));
  }

  /** Everything the processes of the server have written so far. */
  log(): Promise<string> {
    return readFile(join(this.directory, 'server.log'), 'utf8');
  }

  /** Ends every process of the server at once and removes its folder. Harmless when repeated. */
  stop(): Promise<void> {
    return this.#end();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #ready(process: Server, deadline: number): Promise<void> {
    for (;;) {
      const answer = await this.request('GET', '/', { signal: AbortSignal.timeout(2000) }).catch(() => undefined);
      if (answer?.status === 200) return;
      const log = await this.log();
      // A monitor without its port stays alive to try again, and everybody else waits for it.
      if (!process.alive() || log.includes('Address already in use') || Date.now() > deadline) {
        throw new Error(`no S3 server came up at ${this.endpoint}:\n${log.slice(-4000)}`);
      }
      await sleep(20);
    }
  }

  async #done(method: string, path: string, options: S3Request = {}): Promise<S3Response> {
    const response = await this.request(method, path, options);
    if (response.status < 300) return response;
    throw new Error(`${method} ${path}: ${response.status} ${response.body}`);
  }

  async #xml(bucket: string, query: Record<string, string>): Promise<string> {
    return String((await this.#done('GET', `/${bucket}`, { query })).body);
  }

  /** AWS Signature Version 4 over all of `headers`, whose names are in lower case. */
  #signature(method: string, path: string, query: string, headers: Readonly<Record<string, string>>): string {
    const names = Object.keys(headers).sort();
    const signed = names.join(';');
    const lines = names.map((name) => `${name}:${headers[name]?.trim()}\n`).join('');
    const canonical = [method, path, query, lines, signed, headers['x-amz-content-sha256']].join('\n');
    const time = headers['x-amz-date'] ?? '';
    const scope = [time.slice(0, 8), this.region, 's3', 'aws4_request'];
    const key = scope.reduce<string | Buffer>((secret, part) => hmac(secret, part), `AWS4${this.secretAccessKey}`);
    const toSign = ['AWS4-HMAC-SHA256', time, scope.join('/'), sha256(canonical)].join('\n');
    const credential = `${this.accessKeyId}/${scope.join('/')}`;
    const signature = hmac(key, toSign).toString('hex');
    return `AWS4-HMAC-SHA256 Credential=${credential}, SignedHeaders=${signed}, Signature=${signature}`;
  }
}

function hmac(key: string | Buffer, data: string): Buffer {
  return createHmac('sha256', key).update(data).digest();
}

function sha256(data: string | Buffer): string {
  return createHash('sha256').update(data).digest('hex');
}

function percentEncoded(part: string): string {
  return encodeURIComponent(part).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

function lowerCased(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

/** The content of every element `name`, which never has one of its own name inside. */
function elements(xml: string, name: string): string[] {
  return [...xml.matchAll(new RegExp(`<${name}>(.*?)</${name}>`, 'gs'))].map((match) => match[1] ?? '');
}

/** The text of the first element `name`, unescaped; empty when there is none. */
function text(xml: string, name: string): string {
  const entities: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };
  return (elements(xml, name)[0] ?? '').replace(/&(?:#x([\da-f]+)|#(\d+)|(\w+));/gi, (all, hex, decimal, named) => {
    if (named !== undefined) return entities[named] ?? all;
    return String.fromCodePoint(hex === undefined ? Number(decimal) : Number.parseInt(hex, 16));
  });
}

interface Place {
  readonly gibibytes: number;
  readonly directory: string;
  readonly port: number;
  readonly monitorPort: number;
  readonly fsid: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/**
 * Brings up a monitor, one storage daemon and the gateway below the folder $1 and waits for the gateway. SIGQUIT ends
 * them all at once, which loses nothing that anybody wants; so does the end of the shell, in whatever way.
 */
const supervisor = `set -eu
directory=$1 monitor=$2 fsid=$3 access_key=$4 secret_key=$5
conf=$directory/ceph.conf
daemons= step=
trap 'trap "" QUIT; kill -KILL $daemons $step 2>/dev/null || :; wait' EXIT
trap 'exit 0' QUIT
# Neither waits for anything in the foreground, which would put off the traps.
daemon() { setpriv --pdeathsig KILL "$@" & daemons="$daemons $!"; }
run() { setpriv --pdeathsig KILL "$@" & step=$!; wait "$step"; step=; }
admin() { run radosgw-admin -c "$conf" "$@"; }

mkdir mon osd rgw
run monmaptool --create --addv a "$monitor" --fsid "$fsid" monmap
run osdmaptool --createsimple 1 osdmap
run ceph-mon -c "$conf" --mkfs -i a --monmap monmap --osdmap osdmap
daemon ceph-mon -c "$conf" -f -i a
run ceph-osd -c "$conf" -i 0 --mkfs --osd-uuid "$fsid"
daemon ceph-osd -c "$conf" -f -i 0
# A client that comes before the storage is up tries again only seconds later.
until grep -q 'booting -> active' server.log; do sleep 0.02; done
admin user create --uid=pgassay --display-name=pgassay --access-key="$access_key" --secret-key="$secret_key"
set -- placement add --placement-id default-placement --storage-class STANDARD_IA
admin zonegroup "$@" --rgw-zonegroup default
admin zone "$@" --rgw-zone default --data-pool default.rgw.buckets.data
daemon radosgw -c "$conf" -f -n client.rgw
wait "$!"`;

function argumentsFor(place: Place): string[] {
  const monitor = `v2:127.0.0.1:${place.monitorPort}`;
  return [place.directory, monitor, place.fsid, place.accessKeyId, place.secretAccessKey];
}

async function prepare(gibibytes: number): Promise<Place> {
  const place = {
    gibibytes,
    directory: await ownFolder('pgassay-s3-'),
    port: await freePort(),
    monitorPort: await freePort(),
    fsid: randomUUID(),
    accessKeyId: `AKIA${randomBytes(8).toString('hex').toUpperCase()}`,
    secretAccessKey: randomBytes(30).toString('base64'),
  };
  const { uid, gid } = unprivileged();
  for (const [name, content] of [
    ['keyring', keyring()],
    ['ceph.conf', configuration(place)],
  ] as const) {
    const path = join(place.directory, name);
    await writeFile(path, content, { mode: 0o600 });
    if (uid !== undefined && gid !== undefined) await chown(path, uid, gid);
  }
  return place;
}

/** One key for everybody in this cluster, so that no daemon joins another one's by mistake. */
function keyring(): string {
  // Type 1 (AES), created at the beginning of time, 16 bytes long.
  const header = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0]);
  const key = Buffer.concat([header, randomBytes(16)]).toString('base64');
  const section = (name: string): string =>
    `[${name}]\nkey = ${key}\ncaps mon = "allow *"\ncaps osd = "allow *"\ncaps mgr = "allow *"\n`;
  return ['mon.', 'client.admin', 'client.rgw', 'osd.0'].map(section).join('');
}

function configuration(place: Place): string {
  const { gibibytes, directory, port, monitorPort, fsid } = place;
  return `[global]
fsid = ${fsid}
mon host = v2:127.0.0.1:${monitorPort}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
ms bind msgr1 = false
keyring = ${directory}/keyring
run dir = ${directory}
crash dir = ${directory}
admin socket =
log file =
log to stderr = true
mon cluster log file =
mon cluster log to file = false
debug rocksdb = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 0
mon tick interval = 1
# By default the monitor takes a second for every pool it creates.
paxos propose interval = 0.02
paxos min wait = 0.01
[mon.a]
mon data = ${directory}/mon
mon addr = 127.0.0.1:${monitorPort}
[osd.0]
osd data = ${directory}/osd
osd objectstore = memstore
memstore device bytes = ${gibibytes * 1024 ** 3}
[client.rgw]
rgw data = ${directory}/rgw
rgw frontends = beast endpoint=127.0.0.1:${port} tcp_nodelay=1
rgw dns name = localhost
rgw enable lc threads = false
rgw enable quota threads = false
rgw run sync thread = false
rgw gc obj min wait = 1
rgw thread pool size = 32
rgw crypt require ssl = false
rgw crypt s3 kms backend = testing
rgw crypt s3 kms encryption keys = testkey=${kmsKey}
`;
}
