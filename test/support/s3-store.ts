import { S3Store } from '../../src/store/s3.ts';
import type { S3Options } from '../../src/store/s3-address.ts';
import type { StoreUse } from '../../src/store/store.ts';

/** This program's own store on a server of the test's, everything at its default but what is named. */
export function openS3(
  server: Readonly<Record<'accessKeyId' | 'secretAccessKey' | 'region' | 'endpoint', string>>,
  bucket: string,
  prefix = 'nightly',
  options: Partial<S3Options> = {},
  use: StoreUse = {},
): S3Store {
  const { accessKeyId, secretAccessKey, region, endpoint } = server;
  return new S3Store(
    {
      bucket,
      prefix,
      options: {
        endpoint,
        region,
        pathStyle: true,
        credentials: { accessKeyId, secretAccessKey, sessionToken: undefined },
        role: undefined,
        storageClass: undefined,
        encryption: undefined,
        lock: undefined,
        checksums: 'auto',
        ...options,
      },
    },
    use,
  );
}
