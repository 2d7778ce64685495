/** What kept a channel from taking a message. Nothing of it repeats what was sent, or the address. */
export type ChannelTrouble =
  /** `reason` is a word of the other side's own, `no_service`. */
  | { readonly kind: 'refused'; readonly status: number; readonly reason: string | undefined }
  | { readonly kind: 'redirected'; readonly status: number }
  | { readonly kind: 'rate-limit'; readonly waitSeconds: number | undefined }
  | { readonly kind: 'server'; readonly status: number }
  | { readonly kind: 'unreachable'; readonly code: string }
  | { readonly kind: 'untrusted'; readonly code: string }
  | { readonly kind: 'silent' }
  | { readonly kind: 'unknown-check' }
  | { readonly kind: 'no-starttls' }
  | { readonly kind: 'login'; readonly status: number | undefined }
  | {
      readonly kind: 'mail-refused';
      readonly status: number | undefined;
      readonly what: 'sender' | 'everybody' | 'text';
    };

export class ChannelError extends Error {
  override readonly name = 'ChannelError';
  readonly trouble: ChannelTrouble;

  constructor(trouble: ChannelTrouble, cause?: unknown) {
    super(`channel: ${trouble.kind}`, cause === undefined ? undefined : { cause });
    this.trouble = trouble;
  }
}

/** What a network error's code says; `network` when it has none that can be shown. */
export function networkTrouble(error: unknown): ChannelTrouble {
  const { code, cause } = (error ?? {}) as { readonly code?: unknown; readonly cause?: { readonly code?: unknown } };
  const found = [cause?.code, code].find((each): each is string => typeof each === 'string' && shown.test(each));
  if (found === undefined) return { kind: 'unreachable', code: 'network' };
  return { kind: certificate.test(found) ? 'untrusted' : 'unreachable', code: found };
}

const shown = /^[A-Z_0-9]{2,50}$/;
const certificate = /CERT|SELF_SIGNED|LEAF_SIGNATURE|ALTNAME/;
