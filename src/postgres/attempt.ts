import { type ExitName, Failure } from '../failure.ts';
import { type ConnectionTarget, describePlace, type Place } from './url.ts';

/** One attempt to reach one address, for the sentences about it. */
export interface Attempt {
  readonly place: Place;
  /** The IP address tried; undefined for a socket, or when the name had not been resolved yet. */
  readonly address: string | undefined;
  readonly target: ConnectionTarget;
  /** True on a CI runner, where "localhost" surprises people. */
  readonly onRunner: boolean;
}

/** Why an attempt failed, and whether the next address is worth trying: the network's fault, not the server's answer. */
export interface Refusal {
  readonly failure: Failure;
  readonly tryNext: boolean;
  /** The server, or this side before it sent anything, said that TLS is needed or not to be had. */
  readonly tls?: 'unavailable' | 'demanded';
  /** No route to this kind of address from here. */
  readonly unreachable?: true;
}

/** What was raised, whoever raised it. */
export interface Raised {
  readonly message: string;
  readonly code: string | undefined;
  readonly routine: string | undefined;
  readonly certificate: { readonly subjectaltname?: string; readonly subject?: { readonly CN?: string } } | undefined;
}

/** A failure of connecting; `code` is kept as its cause. */
export function failure(exit: ExitName, message: string, hint?: string, transient = false, code?: string): Failure {
  return new Failure('connect', exit, message, {
    hint,
    transient,
    ...(code === undefined ? {} : { cause: new Error(code) }),
  });
}

export function read(error: unknown): Raised {
  const raw = (typeof error === 'object' && error !== null ? error : {}) as Record<string, unknown>;
  const text = (key: string): string | undefined => (typeof raw[key] === 'string' ? raw[key] : undefined);
  return {
    message: text('message') ?? 'an unknown error',
    code: text('code'),
    routine: text('routine'),
    certificate: raw.cert as Raised['certificate'],
  };
}

/** `db.example.com:5432 (192.0.2.7)`. */
export function where({ place, address }: Attempt): string {
  const known = address === undefined || address === place.host ? '' : ` (${address})`;
  return `${describePlace(place)}${known}`;
}

/** Withholds a text of somebody else's that repeats four characters of the password in a row. */
export function withoutPassword(text: string, { password }: ConnectionTarget): string {
  const line = text.split(/[\r\n]/, 1)[0] ?? '';
  if (password === undefined) return line;
  for (const form of [password, encodeURIComponent(password.toWellFormed())]) {
    for (let i = 0; i + 4 <= form.length; i += 1) {
      if (line.includes(form.slice(i, i + 4))) return 'its text is withheld, because it may repeat the password';
    }
  }
  return line;
}
