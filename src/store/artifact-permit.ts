import { Failure } from '../failure.ts';

export type Visibility = 'private' | 'public' | 'unknown';

/** Whoever may read a repository may download its artifacts, and of a public one that is everybody who is signed in. */
export function requireReadableByFew({
  encrypted,
  visibility,
  allowPlaintext,
}: {
  /** Any of `encrypt-to` and `encrypt-passphrase` is given. */
  readonly encrypted: boolean;
  readonly visibility: Visibility;
  readonly allowPlaintext: boolean;
}): void {
  if (encrypted) return;
  const ways =
    'encrypt the backup (encrypt-to or encrypt-passphrase), or keep it in a bucket or a folder: store: s3://… or file:///…';
  if (visibility === 'public')
    throw new Failure(
      'preflight',
      'badInput',
      'this repository is public: everybody who is signed in could download the backup from its artifacts',
      { hint: `${ways}; allow-plaintext-artifact changes nothing here` },
    );
  if (visibility === 'unknown')
    throw new Failure(
      'preflight',
      'badInput',
      'GitHub does not say whether this repository is public; if it is, everybody who is signed in could download the backup',
      { hint: `check github-token, which must be able to read the repository; or ${ways}` },
    );
  if (!allowPlaintext)
    throw new Failure(
      'preflight',
      'badInput',
      'this backup is not encrypted, and everybody who may read the repository could download it from its artifacts',
      { hint: `${ways}; allow-plaintext-artifact: true insists` },
    );
}

const dayMs = 86_400_000;

/**
 * Throws a `Failure` when the repository keeps artifacts for less than `keep-within` says (milliseconds). No time is asked
 * for: the most that the repository allows is what it gives to those who do not ask.
 */
export function requireLongEnough(keepWithinMs: number | undefined, mostDays: number | undefined): void {
  if (keepWithinMs === undefined) return;
  const days = Math.ceil(keepWithinMs / dayMs);
  const most = mostDays ?? 400;
  if (days > most)
    throw new Failure(
      'preflight',
      'badInput',
      `keep-within asks for ${days} days, and this repository keeps artifacts for ${most} at most`,
      {
        hint: 'raise the retention in the settings of the repository (Actions, General; 90 days at most if it is public, 400 if not), lower keep-within, or use a bucket',
      },
    );
}

/** The same after the upload, when GitHub has said until when it keeps the artifact. Throws a `Failure`. */
export function requireKept(expiresAt: Date | undefined, keepWithinMs: number | undefined, now: Date): void {
  // A day's grace: GitHub counts whole days from a moment of its own.
  if (keepWithinMs === undefined || expiresAt === undefined) return;
  if (expiresAt.getTime() >= now.getTime() + keepWithinMs - dayMs) return;
  throw new Failure(
    'upload',
    'store',
    `GitHub keeps this backup until ${expiresAt.toISOString()} only, which is less than keep-within asks for`,
    { hint: 'raise the retention of artifacts in the settings of the repository or its organization' },
  );
}
