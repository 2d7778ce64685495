import type { FileHandle } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { DeleteObjectCommand, GetObjectCommand, ListObjectsV2Command } from '@aws-sdk/client-s3';
import { idPattern, namePattern } from '../backup-id.ts';
import { Failure } from '../failure.ts';
import type { S3Options } from './s3-address.ts';
import { S3Bucket } from './s3-client.ts';
import { listing, S3Lister, type S3Object } from './s3-listing.ts';
import { removeBackup } from './s3-removal.ts';
import { abortStale, abortUploads } from './s3-unfinished.ts';
import { type S3Habits, S3Upload } from './s3-upload.ts';
import {
  type History,
  largestRead,
  ownFile,
  proofsFolder,
  type Removal,
  recordsFolder,
  type Store,
  type StoredFile,
  type StoreUse,
  type Upload,
} from './store.ts';

const defaultIdleMs = 60_000;
/** How often a download that breaks off is taken up again where it broke. */
const resumptions = 5;
const cleanUpMs = 5000;

/** A bucket of AWS S3, or of any server that speaks its protocol. */
export class S3Store implements Store {
  readonly uri: string;
  readonly #bucket: S3Bucket;
  readonly #prefix: string;
  readonly #signal: AbortSignal | undefined;
  readonly #habits: S3Habits;
  readonly #lister: S3Lister;
  /** What the last listing said of each path. */
  readonly #objects = new Map<string, S3Object>();

  constructor(
    { bucket, prefix, options }: { readonly bucket: string; readonly prefix: string; readonly options: S3Options },
    { signal, idleMs = defaultIdleMs }: StoreUse = {},
  ) {
    this.uri = prefix === '' ? `s3://${bucket}` : `s3://${bucket}/${prefix}`;
    this.#bucket = new S3Bucket(bucket, options, { idleMs, signal });
    this.#lister = new S3Lister(this.#bucket);
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
    for await (const { objects } of this.#lister.pages(this.#key(folder), undefined, this.#signal)) {
      for (const object of objects) {
        const path = object.key.slice(this.#prefix.length);
        const [, of = '', ...names] = path.split('/');
        const nested = names.length === 2 && names[0] === proofsFolder;
        if ((names.length !== 1 && !nested) || names.includes('') || !idPattern.test(of)) continue;
        const file = names.join('/');
        const files = found.get(of) ?? new Map<string, number>();
        found.set(of, files.set(file, object.versions[0]?.bytes ?? 0));
        this.#objects.set(path, object);
      }
    }
    return new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  async records(): Promise<string[]> {
    const from = this.#key(`${recordsFolder}/`);
    const found: string[] = [];
    for await (const { objects } of this.#lister.pages(from, undefined, this.#signal))
      for (const object of objects) {
        found.push(object.key.slice(from.length));
        this.#objects.set(object.key.slice(this.#prefix.length), object);
      }
    return found.sort();
  }

  history(path: string): History {
    const object = this.#objects.get(path);
    if (object?.deleted === true) return 'deleted';
    return object !== undefined && object.versions.length > 1 ? 'overwritten' : 'as written';
  }

  async read(path: string, version = 0, largest = largestRead): Promise<Buffer | undefined> {
    if (version > 0 && version >= (this.#objects.get(path)?.versions.length ?? 1)) return undefined;
    const file = await this.open(path, version);
    if (file === undefined) return undefined;
    if (file.bytes > largest) {
      file.stream.destroy();
      throw new Failure(
        'download',
        'verification',
        `${this.pathFor(path)} has ${file.bytes} bytes, too many for what it is`,
      );
    }
    return buffer(file.stream);
  }

  async open(path: string, version = 0): Promise<StoredFile | undefined> {
    const versionId = this.#objects.get(path)?.versions[version]?.id;
    const first = await this.#get(path, 0, { versionId });
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
    const objects: S3Object[] = [];
    for await (const page of this.#lister.pages(this.#key(folder), undefined, abortSignal))
      objects.push(...page.objects);
    for (const file of ['database.dump', 'database.dump.age'])
      await abortUploads(this.#bucket, this.#key(`${folder}${file}`));
    if (objects.some((object) => object.key === this.#key(`${folder}manifest.json`))) return;
    await this.#remove(this.#key(folder), objects, abortSignal);
  }

  async sweep(name: string, before: Date): Promise<string[]> {
    const swept = new Set<string>();
    for (const key of await abortStale(this.#bucket, this.#key(`${name}/`), before, this.#signal))
      swept.add(key.slice(this.#key(`${name}/`).length).split('/')[0] ?? '');
    for (const [id, objects] of await this.#unfinished(name)) {
      if (objects.some(({ versions }) => versions.some(({ written }) => written >= before))) continue;
      await this.#remove(this.#key(`${name}/${id}/`), objects, this.#signal);
      swept.add(id);
    }
    return [...swept].filter((id) => idPattern.test(id)).sort();
  }

  async remove(name: string, id: string): Promise<Removal> {
    const folder = this.#key(`${name}/${id}/`);
    const objects: S3Object[] = [];
    for await (const page of this.#lister.pages(folder, undefined, this.#signal)) objects.push(...page.objects);
    return removeBackup(this.#bucket, folder, objects);
  }

  /** Every object below an id of this name that has no manifest, in no version. */
  async #unfinished(name: string): Promise<Map<string, S3Object[]>> {
    const from = this.#key(`${name}/`);
    const found = new Map<string, S3Object[]>();
    for await (const page of this.#lister.pages(from, undefined, this.#signal))
      for (const object of page.objects) {
        const [id = ''] = object.key.slice(from.length).split('/');
        if (idPattern.test(id)) found.set(id, [...(found.get(id) ?? []), object]);
      }
    const whole = ([id, objects]: [string, S3Object[]]): boolean =>
      objects.some(({ key }) => key === `${from}${id}/manifest.json`);
    return new Map([...found].filter((each) => !whole(each)));
  }

  /** Our own files among a folder's objects, every version of them. */
  async #remove(folder: string, objects: readonly S3Object[], signal: AbortSignal | undefined): Promise<void> {
    const ours = objects.filter(({ key }) => ownFile.test(key.slice(folder.length)));
    await Promise.all(
      ours.flatMap(({ key, versions }) =>
        versions.map((version) =>
          this.#bucket.ask(
            {
              stage: 'upload',
              verb: 'delete what an unfinished run left at',
              permission: 's3:DeleteObject and s3:DeleteObjectVersion',
              key,
            },
            (send) =>
              send(
                new DeleteObjectCommand({ Bucket: this.#bucket.name, Key: key, VersionId: version.id }),
                signal === undefined ? {} : { abortSignal: signal },
              ),
          ),
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

  async admit(): Promise<void> {}

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
    const found = new Set<string>();
    const from = this.#key(folder).length;
    for await (const { prefixes } of this.#lister.pages(this.#key(folder), '/', this.#signal))
      for (const prefix of prefixes) found.add(prefix.slice(from, -1));
    return [...found].filter((name) => pattern.test(name)).sort();
  }

  /** One GET, from `start` on; undefined when the object is not there. */
  async #get(
    path: string,
    start: number,
    { versionId, etag }: { readonly versionId?: string | undefined; readonly etag?: string | undefined },
  ) {
    const answer = await this.#bucket.askFor(
      { stage: 'download', verb: 'read', permission: 's3:GetObject', key: this.#key(path) },
      (send) =>
        send(
          new GetObjectCommand({
            Bucket: this.#bucket.name,
            Key: this.#key(path),
            VersionId: versionId,
            ...(start === 0 ? {} : { Range: `bytes=${start}-`, IfMatch: etag }),
          }),
          this.#abortable,
        ),
    );
    if (answer === undefined) return undefined;
    return { body: answer.Body as Readable, bytes: start + (answer.ContentLength ?? 0), etag: answer.ETag, versionId };
  }

  /** The bytes of one object, taken up again where the connection breaks. Throws a `Failure` when that does not help. */
  async *#download(
    path: string,
    first: {
      readonly body: Readable;
      readonly bytes: number;
      readonly etag: string | undefined;
      readonly versionId: string | undefined;
    },
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
        const rest = await this.#get(path, at, first);
        if (rest === undefined)
          throw new Failure('download', 'store', `${this.pathFor(path)} went away while it was read`, {
            hint: 'somebody deletes backups while they are read: look at the lifecycle rules of the bucket',
          });
        body = rest.body;
      }
    }
  }
}
