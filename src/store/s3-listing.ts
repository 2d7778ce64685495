import { ListObjectsV2Command, ListObjectVersionsCommand } from '@aws-sdk/client-s3';
import type { S3Bucket } from './s3-client.ts';
import { factsOf, type S3Action } from './s3-failure.ts';

export const listing: S3Action = { stage: 'locate', verb: 'list', permission: 's3:ListBucket', key: undefined };

/** One key of the bucket, with every version that was ever written to it. */
export interface S3Object {
  readonly key: string;
  /** Oldest first, at least one. `id` is undefined where the store keeps no versions. */
  readonly versions: readonly S3Version[];
  /** A delete marker lies on top: whoever does not look at versions sees nothing. */
  readonly deleted: boolean;
  /** The delete markers among its versions, wherever they lie. */
  readonly markers: readonly string[];
}

export interface S3Version {
  readonly id: string | undefined;
  readonly bytes: number;
  readonly written: Date;
}

export interface S3Page {
  readonly objects: readonly S3Object[];
  /** With a delimiter: everything up to and with it, once each. */
  readonly prefixes: readonly string[];
}

/** Of an object that the store does not date: it may be from a moment ago. */
const unknownTime = new Date(8.64e15);

/** Answers that mean "not here", or "not you", to a question that a plain list can stand in for. */
const withoutVersions = new Set([400, 403, 405, 501]);

/**
 * Lists a bucket with its versions where it keeps them, because a delete marker or a second manifest must not make a
 * backup disappear. Stores that have no such call, and credentials without s3:ListBucketVersions, get the plain list.
 */
export class S3Lister {
  readonly #bucket: S3Bucket;
  #versions = true;

  constructor(bucket: S3Bucket) {
    this.#bucket = bucket;
  }

  async *pages(prefix: string, delimiter?: string, signal?: AbortSignal): AsyncGenerator<S3Page> {
    if (this.#versions) {
      const pages = this.#versioned(prefix, delimiter, signal);
      const first = await pages.next().catch((error: unknown) => {
        if (!withoutVersions.has(factsOf(error).status ?? 0)) throw this.#bucket.failure(error, listing);
        this.#versions = false;
      });
      if (first !== undefined) {
        if (!first.done) yield first.value;
        try {
          return yield* pages;
        } catch (error) {
          throw this.#bucket.failure(error, listing);
        }
      }
    }
    yield* this.#plain(prefix, delimiter, signal);
  }

  async *#plain(
    prefix: string,
    delimiter: string | undefined,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<S3Page> {
    for (let token: string | undefined, more = true; more; ) {
      const page = await this.#bucket.ask(listing, (send) =>
        send(
          new ListObjectsV2Command({
            Bucket: this.#bucket.name,
            Prefix: prefix,
            Delimiter: delimiter,
            ContinuationToken: token,
          }),
          signal === undefined ? {} : { abortSignal: signal },
        ),
      );
      yield {
        objects: (page.Contents ?? []).map(({ Key = '', Size = 0, LastModified = unknownTime }) => {
          return {
            key: Key,
            versions: [{ id: undefined, bytes: Size, written: LastModified }],
            deleted: false,
            markers: [],
          };
        }),
        prefixes: (page.CommonPrefixes ?? []).map(({ Prefix = '' }) => Prefix),
      };
      token = page.NextContinuationToken;
      more = page.IsTruncated === true && token !== undefined;
    }
  }

  /** Throws the SDK's errors. A key whose versions go over the end of a page is given with the next one. */
  async *#versioned(
    prefix: string,
    delimiter: string | undefined,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<S3Page> {
    const open = new Map<string, { versions: S3Version[]; deleted: boolean; markers: string[] }>();
    for (let next: { key: string; version: string | undefined } | undefined, more = true; more; ) {
      const page = await this.#bucket.raw(
        new ListObjectVersionsCommand({
          Bucket: this.#bucket.name,
          Prefix: prefix,
          Delimiter: delimiter,
          KeyMarker: next?.key,
          VersionIdMarker: next?.version,
        }),
        signal === undefined ? {} : { abortSignal: signal },
      );
      for (const { Key = '', VersionId, Size = 0, LastModified = unknownTime } of page.Versions ?? []) {
        const entry = open.get(Key) ?? { versions: [], deleted: false, markers: [] };
        entry.versions.unshift({
          id: VersionId === 'null' ? undefined : VersionId,
          bytes: Size,
          written: LastModified,
        });
        open.set(Key, entry);
      }
      for (const { Key = '', IsLatest, VersionId } of page.DeleteMarkers ?? []) {
        const entry = open.get(Key) ?? { versions: [], deleted: false, markers: [] };
        entry.deleted ||= IsLatest === true;
        if (VersionId !== undefined) entry.markers.push(VersionId);
        open.set(Key, entry);
      }
      more = page.IsTruncated === true && page.NextKeyMarker !== undefined;
      const last = more ? page.NextKeyMarker : undefined;
      const done = [...open].filter(([key]) => key !== last);
      for (const [key] of done) open.delete(key);
      yield {
        objects: done.filter(([, { versions }]) => versions.length > 0).map(([key, entry]) => ({ key, ...entry })),
        prefixes: (page.CommonPrefixes ?? []).map(({ Prefix = '' }) => Prefix),
      };
      next = more ? { key: page.NextKeyMarker ?? '', version: page.NextVersionIdMarker } : undefined;
    }
  }
}
