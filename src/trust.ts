import { signerOf, type VerifyKey } from './signing.ts';

/** What a reader demands before a backup counts. */
export interface Trust {
  /** Manifests that none of these signed are refused; none at all: nobody asks for a signature. */
  readonly keys: readonly VerifyKey[];
  /** A signed manifest may say that it was written to another store: this one is a copy. */
  readonly acceptMoved: boolean;
}

/** For a store in which nobody else writes. */
export const noSignatures: Trust = { keys: [], acceptMoved: false };

/** Who signed a document, or why it is not to be trusted: the end of a sentence, `it is not signed`. */
export type Signed = { readonly by: VerifyKey | undefined } | { readonly distrust: string };

/**
 * Judges bytes before anybody reads them. `signatures` are all versions of the file beside them; without keys nothing is
 * asked, and nobody is known to have signed.
 */
export function judgeSignature(bytes: Buffer, signatures: readonly Buffer[], { keys }: Pick<Trust, 'keys'>): Signed {
  if (keys.length === 0) return { by: undefined };
  if (signatures.length === 0) return { distrust: 'it is not signed' };
  for (const signature of signatures) {
    const by = signerOf(bytes, signature, keys);
    if (by !== undefined) return { by };
  }
  return { distrust: 'its signature is not by a key of verify-key over what the manifest says now' };
}
