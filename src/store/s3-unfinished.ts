import { AbortMultipartUploadCommand, ListMultipartUploadsCommand, ListPartsCommand } from '@aws-sdk/client-s3';
import type { S3Bucket } from './s3-client.ts';
import type { S3Action } from './s3-failure.ts';

const cleanUpMs = 5000;

/** Gives up every unfinished upload of exactly this key, also one whose beginning we never heard back about. */
export async function abortUploads(bucket: S3Bucket, key: string): Promise<void> {
  const abortSignal = AbortSignal.timeout(cleanUpMs);
  const { Uploads = [] } = await bucket.raw(new ListMultipartUploadsCommand({ Bucket: bucket.name, Prefix: key }), {
    abortSignal,
  });
  await Promise.all(
    Uploads.filter((upload) => upload.Key === key).map((upload) =>
      bucket.raw(new AbortMultipartUploadCommand({ Bucket: bucket.name, Key: key, UploadId: upload.UploadId }), {
        abortSignal,
      }),
    ),
  );
}

/** Gives up every upload below `prefix` of which no part has arrived since `before`; returns their keys. */
export async function abortStale(
  bucket: S3Bucket,
  prefix: string,
  before: Date,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  const options = signal === undefined ? {} : { abortSignal: signal };
  const found: { Key: string; UploadId: string }[] = [];
  await bucket.ask(
    {
      stage: 'locate',
      verb: 'list unfinished uploads in',
      permission: 's3:ListBucketMultipartUploads',
      key: undefined,
    },
    async (send) => {
      for (let next: { key: string; id: string } | undefined, more = true; more; ) {
        const page = await send(
          new ListMultipartUploadsCommand({
            Bucket: bucket.name,
            Prefix: prefix,
            KeyMarker: next?.key,
            UploadIdMarker: next?.id,
          }),
          options,
        );
        for (const { Key, UploadId, Initiated } of page.Uploads ?? [])
          if (Key !== undefined && UploadId !== undefined && Initiated !== undefined && Initiated < before)
            found.push({ Key, UploadId });
        more = page.IsTruncated === true && page.NextKeyMarker !== undefined;
        next = { key: page.NextKeyMarker ?? '', id: page.NextUploadIdMarker ?? '' };
      }
    },
  );
  const aborted: string[] = [];
  for (const { Key, UploadId } of found) {
    const upload = { Bucket: bucket.name, Key, UploadId };
    const action: S3Action = {
      stage: 'locate',
      verb: 'abort the upload of',
      permission: 's3:AbortMultipartUpload',
      key: Key,
    };
    const done = await bucket.askFor(action, async (send) => {
      // A dump may take days: what counts is when its last part came, in pages of a thousand parts.
      for (let marker: string | undefined, more = true; more; ) {
        const {
          Parts = [],
          IsTruncated,
          NextPartNumberMarker,
        } = await send(new ListPartsCommand({ ...upload, PartNumberMarker: marker }), options);
        if (Parts.some((part) => part.LastModified === undefined || part.LastModified >= before)) return false;
        more = IsTruncated === true && NextPartNumberMarker !== undefined;
        marker = NextPartNumberMarker;
      }
      await send(new AbortMultipartUploadCommand(upload), options);
      return true;
    });
    if (done === true) aborted.push(Key);
  }
  return aborted;
}
