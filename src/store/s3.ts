import type { FileHandle } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { DeleteObjectCommand, GetObjectCommand, ListObjectsV2Command } from '@aws-sdk/client-s3';
import { idPattern, namePattern } from '../backup-id.ts';
import { Failure } from '../failure.ts';
import type { S3Options } from './s3-address.ts';
import { S3Bucket } from './s3-client.ts';
import type { S3Action } from './s3-failure.ts';
import { abortUploads, type S3Habits, S3Upload } from './s3-upload.ts';
import { largestRead, type Store, type StoredFile, type Upload } from './store.ts';

const defaultIdleMs = 60_000;
/** How often a download that breaks off is taken up again where it broke. */
const resumptions = 5;
const cleanUpMs = 5000;
const listing: S3Action = { stage: 'locate', verb: 'list', permission: 's3:ListBucket', key: undefined };

export interface StoreUse {
  /** Ends whatever the store is doing, but for cleaning up. */
  readonly signal?: AbortSignal | undefined;
  /** A connection on which nothing moves for so long is given up. Milliseconds; a minute unless told. */
  readonly idleMs?: number | undefined;
}

/** A bucket of AWS S3, or of any server that speaks its protocol. */
export class S3Store implements Store {
  readonly uri: string;
  readonly #bucket: S3Bucket;
  readonly #prefix: string;
  readonly #signal: AbortSignal | undefined;
  readonly #habits: S3Habits;

  constructor(
    { bucket, prefix, options }: { readonly bucket: string; readonly prefix: string; readonly options: S3Options },
    { signal, idleMs = defaultIdleMs }: StoreUse = {},
  ) {
    this.uri = prefix === '' ? `s3://${bucket}` : `s3://${bucket}/${prefix}`;
    this.#bucket = new S3Bucket(bucket, options, { idleMs });
    this.#prefix = prefix === '' ? '' : `${prefix}/`;
    this.#signal = signal;
    this.#habits = { checksums: options.checksums === 'auto' ? 'crc32' : 'md5', createOnly: 'unknown' };
  }

  names(): Promise<string[]> {
    return this.#folders('', namePattern);
  }

  ids(name: string): Promise<string[]> {
    return this.#folders(`${name}/`, idPattern);
  }

  async files(name: string, id?: string): Promise<Map<string, Map<string, number>>> {
    const folder = id === undefined ? `${name}/` : `${name}/${id}/`;
    const found = new Map<string, Map<string, number>>();
    for await (const page of this.#pages(folder)) {
      for (const { Key = '', Size = 0 } of page.Contents ?? []) {
        const [, of = '', file = '', ...deeper] = Key.slice(this.#prefix.length).split('/');
        if (deeper.length > 0 || file === '' || !idPattern.test(of)) continue;
        const files = found.get(of) ?? new Map<string, number>();
        found.set(of, files.set(file, Size));
      }
    }
    return new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  async read(path: string): Promise<Buffer | undefined> {
    const file = await this.open(path);
    if (file === undefined) return undefined;
    if (file.bytes > largestRead) {
      file.stream.destroy();
      throw new Failure(
        'download',
        'verification',
        `${this.pathFor(path)} has ${file.bytes} bytes, too many for what it is`,
      );
    }
    return buffer(file.stream);
  }

  async open(path: string): Promise<StoredFile | undefined> {
    const first = await this.#get(path, 0, undefined);
    if (first === undefined) return undefined;
    const bytes = first.bytes;
    return {
      bytes,
      stream: Readable.from(this.#download(path, first), { objectMode: false, highWaterMark: 1024 * 1024 }),
    };
  }

  async openLocal(): Promise<FileHandle | undefined> {
    return undefined;
  }

  async begin(path: string, expected: number): Promise<Upload> {
    return new S3Upload(this.#bucket, this.#key(path), expected, this.#habits, this.#signal);
  }

  async discard(name: string, id: string): Promise<void> {
    const abortSignal = AbortSignal.timeout(cleanUpMs);
    const folder = `${name}/${id}/`;
    const keys: string[] = [];
    for await (const page of this.#pages(folder, undefined, abortSignal))
      keys.push(...(page.Contents ?? []).map(({ Key = '' }) => Key));
    await abortUploads(this.#bucket, this.#key(`${folder}database.dump`));
    if (keys.includes(this.#key(`${folder}manifest.json`))) return;
    const action: S3Action = {
      stage: 'upload',
      verb: 'delete what an unfinished run left at',
      permission: 's3:DeleteObject',
      key: this.#key(folder),
    };
    await Promise.all(
      keys
        .filter((key) => /^(?:database|roles|census)\./.test(key.slice(key.lastIndexOf('/') + 1)))
        .map((Key) =>
          this.#bucket.ask(action, (send) =>
            send(new DeleteObjectCommand({ Bucket: this.#bucket.name, Key }), { abortSignal }),
          ),
        ),
    );
  }

  pathFor(path: string): string {
    return `s3://${this.#bucket.name}/${this.#key(path)}`;
  }

  commandToRead(path: string): readonly string[] {
    const { endpoint, region } = this.#bucket.options;
    return [
      ...['aws', 's3', 'cp', this.pathFor(path), '-'],
      ...(endpoint === undefined ? ['--region', region] : ['--endpoint-url', endpoint]),
    ];
  }

  async freeBytes(): Promise<undefined> {
    return undefined;
  }

  async now(): Promise<Date> {
    // A list and no HEAD, whose refusal would not say why.
    if (this.#bucket.clockAhead === undefined)
      await this.#bucket.ask(listing, (send) =>
        send(
          new ListObjectsV2Command({ Bucket: this.#bucket.name, Prefix: this.#prefix, MaxKeys: 1 }),
          this.#abortable,
        ),
      );
    return new Date(Date.now() + (this.#bucket.clockAhead ?? 0));
  }

  get #abortable(): { abortSignal?: AbortSignal } {
    return this.#signal === undefined ? {} : { abortSignal: this.#signal };
  }

  #key(path: string): string {
    return `${this.#prefix}${path}`;
  }

  async #folders(folder: string, pattern: RegExp): Promise<string[]> {
    const found: string[] = [];
    const from = this.#key(folder).length;
    for await (const page of this.#pages(folder, '/'))
      for (const { Prefix = '' } of page.CommonPrefixes ?? []) found.push(Prefix.slice(from, -1));
    return found.filter((name) => pattern.test(name)).sort();
  }

  async *#pages(folder: string, delimiter?: string, signal = this.#signal) {
    for (let token: string | undefined, more = true; more; ) {
      const page = await this.#bucket.ask(listing, (send) =>
        send(
          new ListObjectsV2Command({
            Bucket: this.#bucket.name,
            Prefix: this.#key(folder),
            ...(delimiter === undefined ? {} : { Delimiter: delimiter }),
            ...(token === undefined ? {} : { ContinuationToken: token }),
          }),
          signal === undefined ? {} : { abortSignal: signal },
        ),
      );
      yield page;
      token = page.NextContinuationToken;
      more = page.IsTruncated === true && token !== undefined;
    }
  }

  /** One GET, from `start` on; undefined when the object is not there. */
  async #get(path: string, start: number, etag: string | undefined) {
    const answer = await this.#bucket.askFor(
      { stage: 'download', verb: 'read', permission: 's3:GetObject', key: this.#key(path) },
      (send) =>
        send(
          new GetObjectCommand({
            Bucket: this.#bucket.name,
            Key: this.#key(path),
            ...(start === 0 ? {} : { Range: `bytes=${start}-`, IfMatch: etag }),
          }),
          this.#abortable,
        ),
    );
    if (answer === undefined) return undefined;
    return { body: answer.Body as Readable, bytes: start + (answer.ContentLength ?? 0), etag: answer.ETag };
  }

  /** The bytes of one object, taken up again where the connection breaks. Throws a `Failure` when that does not help. */
  async *#download(
    path: string,
    first: { readonly body: Readable; readonly bytes: number; readonly etag: string | undefined },
  ): AsyncGenerator<Buffer> {
    let at = 0;
    let body = first.body;
    for (let broken = 0; ; broken++) {
      try {
        for await (const chunk of body as AsyncIterable<Buffer>) {
          at += chunk.length;
          yield chunk;
        }
        if (at >= first.bytes) return;
        throw Object.assign(new Error('the answer ended early'), { code: 'ECONNRESET' });
      } catch (error) {
        body.destroy();
        if (this.#signal?.aborted === true) throw this.#signal.reason;
        if (broken >= resumptions)
          throw this.#bucket.failure(error, {
            stage: 'download',
            verb: 'read',
            permission: 's3:GetObject',
            key: this.#key(path),
          });
        await new Promise((resolve) => setTimeout(resolve, 200 * 2 ** broken));
        const rest = await this.#get(path, at, first.etag);
        if (rest === undefined)
          throw new Failure('download', 'store', `${this.pathFor(path)} went away while it was read`, {
            hint: 'somebody deletes backups while they are read: look at the lifecycle rules of the bucket',
          });
        body = rest.body;
      }
    }
  }
}
