import { DeleteObjectCommand, HeadObjectCommand } from '@aws-sdk/client-s3';
import { Failure } from '../failure.ts';
import { formatTime } from '../numbers.ts';
import type { S3Bucket } from './s3-client.ts';
import type { S3Object } from './s3-listing.ts';
import { ownFile, type Removal } from './store.ts';

/** Requests of one removal that are under way at the same time. */
const atOnce = 8;

/**
 * Deletes a backup's objects, given as they were listed, every version of each. The newest version of the manifest goes
 * first and the one that was written first last: until then it is the backup. Throws a `Failure` when the store cannot be
 * used; what it refuses is an answer.
 */
export async function removeBackup(bucket: S3Bucket, folder: string, objects: readonly S3Object[]): Promise<Removal> {
  const manifest = objects.find(({ key }) => key === `${folder}manifest.json`);
  for (const { id } of manifest?.versions.toReversed() ?? []) {
    const refused = await removeVersion(bucket, `${folder}manifest.json`, id);
    if (refused !== undefined) return { kind: 'kept', reason: refused };
  }
  const ours = objects.filter(({ key }) => ownFile.test(key.slice(folder.length)));
  const rest = [
    ...(manifest?.markers ?? []).map((id) => ({ key: `${folder}manifest.json`, id })),
    ...ours.flatMap(({ key, versions, markers }) =>
      [...versions.map(({ id }) => id), ...markers].map((id) => ({ key, id })),
    ),
  ];
  const reasons: string[] = [];
  const waiting = rest.values();
  const remover = async (): Promise<void> => {
    for (const { key, id } of waiting) {
      const refused = await removeVersion(bucket, key, id);
      if (refused !== undefined) reasons.push(refused);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, remover));
  const [reason] = reasons;
  return reason === undefined ? { kind: 'removed' } : { kind: 'partly', reason };
}

/** Why it was refused; undefined when it is gone. */
async function removeVersion(bucket: S3Bucket, key: string, id: string | undefined): Promise<string | undefined> {
  const permission = id === undefined ? 's3:DeleteObject' : 's3:DeleteObjectVersion';
  try {
    await bucket.ask({ stage: 'prune', verb: 'delete', permission, key }, (send) =>
      send(new DeleteObjectCommand({ Bucket: bucket.name, Key: key, VersionId: id })),
    );
    return undefined;
  } catch (error) {
    if (!(error instanceof Failure) || error.exit !== 'storeCredentials') throw error;
    return (await lockOf(bucket, key, id)) ?? `it needs the permission ${permission}`;
  }
}

/** `locked until …`, for those who may ask. */
async function lockOf(bucket: S3Bucket, key: string, id: string | undefined): Promise<string | undefined> {
  try {
    const head = await bucket.raw(new HeadObjectCommand({ Bucket: bucket.name, Key: key, VersionId: id }));
    if (head.ObjectLockLegalHoldStatus === 'ON') return 'a legal hold is on it';
    const until = head.ObjectLockRetainUntilDate;
    return until === undefined ? undefined : `it is locked until ${formatTime(until)}`;
  } catch {
    // Whoever may delete need not be allowed to read; the refusal itself is the answer then.
    return undefined;
  }
}
