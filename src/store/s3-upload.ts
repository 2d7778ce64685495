import { createHash, randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import {
  type CompletedPart,
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  GetObjectRetentionCommand,
  HeadObjectCommand,
  type HeadObjectCommandOutput,
  PutObjectCommand,
  PutObjectRetentionCommand,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { Failure } from '../failure.ts';
import type { S3Bucket } from './s3-client.ts';
import { factsOf, isNotSupported, type S3Action } from './s3-failure.ts';
import { abortUploads } from './s3-unfinished.ts';
import type { Upload } from './store.ts';

const MiB = 1024 * 1024;
const smallestPart = 8 * MiB;
/** Parts that travel at the same time hold about this much memory, or one part if that is larger. */
const inFlightBytes = 32 * MiB;
/** How long an upload that is given up waits to hear its own name. */
const lastWordMs = 1000;
const runMark = 'pgassay-upload';

/** What this store turned out not to understand; learnt once, for all uploads of a run. */
export interface S3Habits {
  checksums: 'crc32' | 'md5';
  /** Whether `If-None-Match: *` is honoured for whole objects: believed once a second write of a key was refused. */
  createOnly: 'unknown' | 'honoured' | 'ignored' | 'refused';
}

/** The size of every part but the last, so that as many as the provider takes hold half as much again as is expected. */
export function partBytes(expected: number, mostParts: number): number {
  return Math.max(smallestPart, Math.ceil((expected * 1.5) / mostParts / MiB) * MiB);
}

/** S3's own limit is 10,000; Scaleway takes 1,000 (its documentation of multipart uploads). */
export function mostPartsAt(endpoint: string | undefined): number {
  return endpoint !== undefined && new URL(endpoint).hostname.endsWith('.scw.cloud') ? 1000 : 10_000;
}

/**
 * One object, written in parts as the bytes come, or in one piece when they are few. Nothing is visible at its key before
 * `complete`. Memory is bounded by the parts in flight.
 */
export class S3Upload implements Upload {
  readonly #bucket: S3Bucket;
  readonly #key: string;
  readonly #habits: S3Habits;
  readonly #mostParts: number;
  readonly #partBytes: number;
  readonly #signal: AbortSignal;
  readonly #ending = new AbortController();
  /** Ends even the request that begins the upload. */
  readonly #noUpload = new AbortController();
  readonly #mark = randomBytes(12).toString('hex');
  readonly #lockUntil: Date | undefined;
  readonly #inFlight = new Set<Promise<void>>();
  readonly #spare: Buffer[] = [];
  readonly #parts: (CompletedPart & { readonly crc: Buffer })[] = [];
  #buffer: Buffer;
  #filled = 0;
  #bytes = 0;
  #crc = 0;
  #creating: Promise<string> | undefined;
  #trouble: Failure | undefined;
  /** An answer was lost: the store may hold a second, empty upload of this key. */
  #begunTwice = false;
  #state: 'open' | 'complete' | 'aborted' = 'open';

  constructor(bucket: S3Bucket, key: string, expected: number, habits: S3Habits, signal: AbortSignal | undefined) {
    this.#bucket = bucket;
    this.#key = key;
    this.#habits = habits;
    this.#mostParts = mostPartsAt(bucket.options.endpoint);
    this.#partBytes = partBytes(expected, this.#mostParts);
    this.#buffer = Buffer.allocUnsafeSlow(Math.min(this.#partBytes, Math.max(64 * 1024, expected)));
    this.#signal = AbortSignal.any([this.#ending.signal, ...(signal === undefined ? [] : [signal])]);
    const { lock } = bucket.options;
    this.#lockUntil = lock === undefined ? undefined : new Date(Date.now() + lock.days * 86_400_000);
  }

  async write(chunk: Buffer): Promise<void> {
    for (let at = 0; at < chunk.length; ) {
      this.#throwTrouble();
      if (this.#filled === this.#buffer.length) await this.#makeRoom();
      const copied = chunk.copy(this.#buffer, this.#filled, at);
      this.#filled += copied;
      this.#bytes += copied;
      at += copied;
    }
  }

  async complete(): Promise<{ readonly bytes: number }> {
    if (this.#creating === undefined) await this.#putWhole();
    else {
      if (this.#filled > 0) this.#dispatch();
      await Promise.all(this.#inFlight);
      this.#throwTrouble();
      await this.#completeParts(await this.#unlessAborted(this.#creating));
    }
    const head = await this.#head();
    if (head === undefined)
      throw new Failure('upload', 'store', `${this.#uri} is not in the store after its upload`, {
        hint: 'the store lost it; nothing was published',
        transient: true,
      });
    this.#judge(head);
    await this.#requireLock(head);
    this.#state = 'complete';
    if (this.#begunTwice) await abortUploads(this.#bucket, this.#key).catch(() => {});
    return { bytes: head.ContentLength ?? -1 };
  }

  async abort(): Promise<void> {
    if (this.#state !== 'open') return;
    this.#state = 'aborted';
    this.#ending.abort(new Error('the upload was given up'));
    // An upload that the store is just beginning is not in its list yet: what is given up here must be heard of first.
    await Promise.race([this.#creating?.catch(() => {}), sleep(lastWordMs, undefined, { ref: false })]);
    this.#noUpload.abort(new Error('the upload was given up'));
    await Promise.allSettled([...this.#inFlight, this.#creating]);
    if (this.#creating !== undefined) await abortUploads(this.#bucket, this.#key).catch(() => {});
  }

  /** Does not wait for it after the upload was given up. */
  async #unlessAborted<T>(work: Promise<T>): Promise<T> {
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const onAbort = (): void => reject(this.#signal.reason);
    this.#signal.addEventListener('abort', onAbort, { once: true });
    if (this.#signal.aborted) onAbort();
    try {
      return await Promise.race([work, aborted]);
    } finally {
      this.#signal.removeEventListener('abort', onAbort);
    }
  }

  get #uri(): string {
    return `s3://${this.#bucket.name}/${this.#key}`;
  }

  get #writing(): S3Action {
    return { stage: 'upload', verb: 'write', permission: 's3:PutObject', key: this.#key };
  }

  #throwTrouble(): void {
    if (this.#signal.aborted) throw this.#signal.reason;
    if (this.#trouble !== undefined) throw this.#trouble;
  }

  /** The buffer is full: it grows to the size of a part, and then is sent as one. */
  async #makeRoom(): Promise<void> {
    if (this.#buffer.length < this.#partBytes) {
      const larger = Buffer.allocUnsafeSlow(Math.min(this.#partBytes, this.#buffer.length * 4));
      this.#buffer.copy(larger, 0, 0, this.#filled);
      this.#buffer = larger;
      return;
    }
    this.#dispatch();
    const atOnce = Math.max(1, Math.floor(inFlightBytes / this.#partBytes));
    while (this.#inFlight.size > atOnce) await Promise.race(this.#inFlight);
    this.#throwTrouble();
    this.#buffer = this.#spare.pop() ?? Buffer.allocUnsafeSlow(this.#partBytes);
    this.#filled = 0;
  }

  #dispatch(): void {
    const buffer = this.#buffer;
    const body = buffer.subarray(0, this.#filled);
    const number = this.#parts.length + 1;
    const crc = Buffer.alloc(4);
    crc.writeUInt32BE(crc32(body));
    this.#crc = crc32(body, this.#crc);
    const part: CompletedPart & { readonly crc: Buffer } = { PartNumber: number, crc };
    this.#parts.push(part);
    this.#filled = 0;
    this.#creating ??= this.#create();
    this.#creating.catch(() => {});
    const sending = this.#send(part, body)
      .then(() => void this.#spare.push(buffer))
      .catch((error: unknown) => {
        this.#trouble ??= this.#bucket.failure(error, this.#writing);
      })
      .finally(() => this.#inFlight.delete(sending));
    this.#inFlight.add(sending);
  }

  async #send(part: CompletedPart & { readonly crc: Buffer }, body: Buffer): Promise<void> {
    const uploadId = await this.#unlessAborted(this.#creating as Promise<string>);
    if ((part.PartNumber ?? 0) > this.#mostParts)
      throw new Failure('upload', 'store', `${this.#uri} needs more than ${this.#mostParts} parts`, {
        hint: 'the dump is half as large again as its database, or more: use a compression',
      });
    const { ETag } = await this.#patiently((send) =>
      send(
        new UploadPartCommand({
          Bucket: this.#bucket.name,
          Key: this.#key,
          UploadId: uploadId,
          PartNumber: part.PartNumber,
          Body: body,
          ContentLength: body.length,
          ...this.#checksumOf(body, part.crc),
        }),
        { abortSignal: this.#signal },
      ),
    );
    part.ETag = ETag;
  }

  #checksumOf(body: Buffer, crc: Buffer): { ChecksumCRC32: string } | { ContentMD5: string } {
    if (this.#habits.checksums === 'crc32') return { ChecksumCRC32: crc.toString('base64') };
    return { ContentMD5: createHash('md5').update(body).digest('base64') };
  }

  async #create(): Promise<string> {
    const { UploadId, $metadata } = await this.#patiently((send) =>
      send(
        new CreateMultipartUploadCommand({
          ...this.#properties(),
          ...(this.#habits.checksums === 'crc32' ? { ChecksumAlgorithm: 'CRC32' as const } : {}),
        }),
        { abortSignal: this.#noUpload.signal },
      ),
    );
    if (UploadId === undefined) throw new Failure('upload', 'store', 'the store began an upload and did not name it');
    this.#begunTwice = ($metadata.attempts ?? 1) > 1;
    return UploadId;
  }

  /** Sent with the first request of an object, whichever that is. */
  #properties() {
    const { storageClass, encryption, lock } = this.#bucket.options;
    return {
      Bucket: this.#bucket.name,
      Key: this.#key,
      ContentType: this.#key.endsWith('.json') ? 'application/json' : 'application/octet-stream',
      Metadata: { [runMark]: this.#mark },
      ...(storageClass === undefined ? {} : { StorageClass: storageClass as 'STANDARD' }),
      ...(encryption === undefined ? {} : { ServerSideEncryption: encryption.kind }),
      ...(encryption?.kmsKeyId === undefined ? {} : { SSEKMSKeyId: encryption.kmsKeyId }),
      ...(lock === undefined ? {} : { ObjectLockMode: lock.mode, ObjectLockRetainUntilDate: this.#lockUntil }),
    };
  }

  async #putWhole(): Promise<void> {
    const body = this.#buffer.subarray(0, this.#filled);
    this.#crc = crc32(body);
    const crc = Buffer.alloc(4);
    crc.writeUInt32BE(this.#crc);
    if (this.#habits.createOnly !== 'honoured' && (await this.#head()) !== undefined) throw this.#exists();
    const put = () =>
      this.#patiently(
        (send) =>
          send(
            new PutObjectCommand({
              ...this.#properties(),
              Body: body,
              ContentLength: body.length,
              ...this.#checksumOf(body, crc),
              ...this.#createOnly(),
            }),
            { abortSignal: this.#signal },
          ),
        { conditional: true },
      );
    await this.#unlessItIsOurs(put);
    if (
      this.#habits.createOnly === 'unknown' &&
      body.length <= 64 * 1024 &&
      !/\/manifest\.(?:json|sig)$/.test(this.#key)
    )
      await this.#probe(put);
  }

  /** Writes the same bytes to the same key once more. A store that honours the condition refuses. */
  async #probe(put: () => Promise<unknown>): Promise<void> {
    try {
      await put();
      if (this.#habits.createOnly === 'unknown') this.#habits.createOnly = 'ignored';
    } catch (error) {
      // A bucket whose own rules forbid overwriting says 403, and keeps the promise just as well.
      if (![403, 409, 412].includes(factsOf(error).status ?? 0)) throw this.#bucket.failure(error, this.#writing);
      this.#habits.createOnly = 'honoured';
    }
  }

  #createOnly(): { readonly IfNoneMatch?: '*' } {
    return this.#habits.createOnly === 'refused' ? {} : { IfNoneMatch: '*' };
  }

  async #completeParts(uploadId: string): Promise<void> {
    // Servers that honour the condition for a whole object may ignore it here, and there is nothing to probe it with.
    if ((await this.#head()) !== undefined) throw this.#exists();
    const parts = this.#parts.map(({ crc, ...part }) =>
      this.#habits.checksums === 'crc32' ? { ...part, ChecksumCRC32: crc.toString('base64') } : part,
    );
    await this.#unlessItIsOurs(() =>
      this.#patiently(
        (send) =>
          send(
            new CompleteMultipartUploadCommand({
              Bucket: this.#bucket.name,
              Key: this.#key,
              UploadId: uploadId,
              MultipartUpload: { Parts: parts },
              ...this.#createOnly(),
            }),
            { abortSignal: this.#signal },
          ),
        { conditional: true },
      ),
    );
  }

  /** A request whose answer was lost is sent again, and then refused because of what it did the first time. */
  async #unlessItIsOurs(request: () => Promise<unknown>): Promise<void> {
    try {
      await request();
    } catch (error) {
      if (this.#signal.aborted) throw this.#signal.reason;
      const status = factsOf(error).status;
      const head = status === 412 || status === 404 ? await this.#head() : undefined;
      if (head?.Metadata?.[runMark] === this.#mark) return;
      if (status !== 412 || head !== undefined || this.#habits.createOnly !== 'unknown')
        throw this.#bucket.failure(error, this.#writing);
      // Refused because of an object that is not there: this server does not mean what the condition says.
      this.#habits.createOnly = 'refused';
      await this.#unlessItIsOurs(request);
    }
  }

  /** Once more without the headers that a store says it does not know. Throws the SDK's errors. */
  async #patiently<T>(
    request: (send: S3Bucket['raw']) => Promise<T>,
    { conditional = false }: { readonly conditional?: boolean } = {},
  ): Promise<T> {
    for (;;) {
      const { checksums, createOnly } = this.#habits;
      try {
        return await request(this.#bucket.raw);
      } catch (error) {
        if (!isNotSupported(error)) throw error;
        if (conditional && createOnly === 'unknown') this.#habits.createOnly = 'refused';
        else if (checksums === 'crc32' && this.#bucket.options.checksums === 'auto') this.#habits.checksums = 'md5';
        else throw error;
      }
    }
  }

  #exists(): Failure {
    return new Failure('upload', 'exists', `${this.#uri} is already there and is never overwritten`, {
      hint: 'another run wrote it; run the backup again',
    });
  }

  #head(): Promise<HeadObjectCommandOutput | undefined> {
    return this.#bucket.askFor(
      { stage: 'upload', verb: 'look at', permission: 's3:GetObject and s3:ListBucket', key: this.#key },
      (send) =>
        send(
          new HeadObjectCommand({
            Bucket: this.#bucket.name,
            Key: this.#key,
            ...(this.#habits.checksums === 'crc32' ? { ChecksumMode: 'ENABLED' as const } : {}),
          }),
          { abortSignal: this.#signal },
        ),
    );
  }

  /** What was asked for and silently not done is a failure. */
  #judge(head: HeadObjectCommandOutput): void {
    const wrong = (message: string, hint: string): Failure =>
      new Failure('upload', 'store', `${this.#uri} ${message}`, { hint: `${hint}; nothing was published` });
    if (head.ContentLength !== this.#bytes)
      throw wrong(`has ${head.ContentLength} bytes of the ${this.#bytes} that were sent`, 'the store lost data');
    if (head.ChecksumCRC32 !== undefined && !this.#checksums().includes(head.ChecksumCRC32))
      throw wrong('has another checksum than what was sent', 'the store, or the way to it, changed the data');
    const { storageClass, encryption } = this.#bucket.options;
    if (storageClass !== undefined && (head.StorageClass ?? 'STANDARD') !== storageClass)
      throw wrong(
        `was stored as ${head.StorageClass ?? 'STANDARD'} and not as ${storageClass}`,
        'this store ignores s3-storage-class: leave it empty',
      );
    if (encryption !== undefined && head.ServerSideEncryption !== encryption.kind)
      throw wrong(
        `is not encrypted with ${encryption.kind} by the store`,
        'this store ignores s3-sse: leave it empty, or use a store that has it',
      );
    if (encryption?.kmsKeyId !== undefined && !sameKey(head.SSEKMSKeyId, encryption.kmsKeyId))
      throw wrong('is not encrypted with the key of s3-sse-kms-key-id', 'check the key');
  }

  /** Of the whole object, and of its parts' checksums: stores give the one or the other. */
  #checksums(): string[] {
    const whole = Buffer.alloc(4);
    whole.writeUInt32BE(this.#crc);
    if (this.#parts.length === 0) return [whole.toString('base64')];
    const ofParts = Buffer.alloc(4);
    ofParts.writeUInt32BE(crc32(Buffer.concat(this.#parts.map(({ crc }) => crc))));
    return [
      whole.toString('base64'),
      `${ofParts.toString('base64')}-${this.#parts.length}`,
      ofParts.toString('base64'),
    ];
  }

  /** Some servers forget the lock of an object that came in parts: then it is set on the version, and read again. */
  async #requireLock(head: HeadObjectCommandOutput): Promise<void> {
    const { lock } = this.#bucket.options;
    const until = this.#lockUntil;
    if (lock === undefined || until === undefined) return;
    const holds = (mode: string | undefined, date: Date | undefined): boolean =>
      mode === lock.mode && date !== undefined && Math.abs(date.getTime() - until.getTime()) <= 1000;
    if (holds(head.ObjectLockMode, head.ObjectLockRetainUntilDate)) return;
    const version = { Bucket: this.#bucket.name, Key: this.#key, VersionId: head.VersionId };
    const action: S3Action = {
      stage: 'upload',
      verb: 'lock',
      permission: 's3:PutObjectRetention and s3:GetObjectRetention',
      key: this.#key,
    };
    const { Retention } = await this.#bucket.ask(action, async (send) => {
      await send(
        new PutObjectRetentionCommand({ ...version, Retention: { Mode: lock.mode, RetainUntilDate: until } }),
        { abortSignal: this.#signal },
      );
      return send(new GetObjectRetentionCommand(version), { abortSignal: this.#signal });
    });
    if (holds(Retention?.Mode, Retention?.RetainUntilDate)) return;
    throw new Failure('upload', 'store', `${this.#uri} is not locked as s3-object-lock-days asks`, {
      hint: 'the bucket must have been made with object lock; nothing was published',
    });
  }
}

function sameKey(found: string | undefined, wanted: string): boolean {
  return (
    found === wanted ||
    found?.endsWith(`/${wanted}`) === true ||
    wanted.startsWith('alias/') ||
    wanted.includes(':alias/')
  );
}
