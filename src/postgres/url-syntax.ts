import type { Mistake } from './url-mistakes.ts';

export const form = 'postgres://user:password@host:5432/database';
const encodeHint =
  'percent-encode the user name and the password: @ is %40, / is %2F, : is %3A, ? is %3F, # is %23, % is %25, a space is %20';

/** The parts of a URL as written: percent-encoding kept. */
export interface Parts {
  readonly user: string;
  readonly password: string;
  /** As written: brackets gone, percent-encoding kept, `port` undefined without a colon. */
  readonly hosts: readonly { readonly host: string; readonly port: string | undefined; readonly bracketed: boolean }[];
  readonly database: string;
  readonly query: readonly (readonly [string, string])[];
  readonly fragment: boolean;
}

/**
 * libpq's conninfo_uri_parse_options: the first `@` before any `/` ends the user part. Where a raw `@` or `/` in a
 * password would make it read the rest of the password as a host, a port or a database, this refuses instead.
 */
export function splitUrl(rest: string): Parts | { readonly mistake: Mistake } {
  const at = rest.indexOf('@');
  const slash = rest.indexOf('/');
  if (at !== -1 && slash !== -1 && slash < at) {
    return { mistake: { message: 'has a / before its @, so the password would be cut in two', hint: encodeHint } };
  }
  if (at !== rest.lastIndexOf('@')) {
    return {
      mistake: { message: 'has more than one @, so where the password ends would be a guess', hint: encodeHint },
    };
  }
  const login = at === -1 ? '' : rest.slice(0, at);
  const colon = login.indexOf(':');
  const place = /^(?<hosts>[^/?]*)(?:\/(?<database>[^?]*))?(?:\?(?<query>.*))?$/s.exec(rest.slice(at + 1))?.groups;
  const database = cutAt(place?.database ?? '', '#');
  const query = cutAt(place?.query ?? '', '#');
  const hosts = splitHosts(cutAt(place?.hosts ?? '', '#'));
  if ('mistake' in hosts) return hosts;
  return {
    user: colon === -1 ? login : login.slice(0, colon),
    password: colon === -1 ? '' : login.slice(colon + 1),
    hosts: hosts.list,
    database,
    query: query
      .split('&')
      .filter((pair) => pair !== '')
      .map((pair) => {
        const key = cutAt(pair, '=');
        return [key, pair.slice(key.length + 1)] as const;
      }),
    fragment: rest.slice(at + 1).includes('#'),
  };
}

/** `text` up to the first `mark`. */
export function cutAt(text: string, mark: string): string {
  const index = text.indexOf(mark);
  return index === -1 ? text : text.slice(0, index);
}

function splitHosts(text: string): { readonly list: Parts['hosts'] } | { readonly mistake: Mistake } {
  const list: { host: string; port: string | undefined; bracketed: boolean }[] = [];
  for (const one of text.split(',')) {
    const inBrackets = /^\[(?<host>[^\]]+)\](?::(?<port>.*))?$/s.exec(one)?.groups;
    const [host = '', ...ports] =
      inBrackets === undefined ? one.split(':') : [inBrackets.host, ...portOf(inBrackets.port)];
    const colons = inBrackets === undefined && ports.length > 1 && /^[0-9a-f:.]+(%[\w.]+)?$/i.test(one);
    if (colons || (inBrackets === undefined && /^\[|\]$/.test(one))) {
      return {
        mistake: {
          message: 'has an IPv6 address that is not written in brackets',
          hint: 'write it [address] or [address]:port: postgres://user:password@[2001:db8::1]:5432/database',
        },
      };
    }
    list.push({ host, port: ports.length === 0 ? undefined : ports.join(':'), bracketed: inBrackets !== undefined });
  }
  return { list };
}

function portOf(port: string | undefined): string[] {
  return port === undefined ? [] : [port];
}

/** Percent-decoding to UTF-8, as strict as libpq about `%` and stricter about bytes that are no text. */
export function percentDecoded(raw: string, what: string): string | Mistake {
  if (/%(?![0-9a-f]{2})/i.test(raw)) {
    return {
      message: `has a bad percent-encoding in ${what}: a % is not followed by two hexadecimal digits`,
      hint: 'write a % itself as %25',
    };
  }
  if (raw.includes('%00')) {
    return { message: `has %00 in ${what}, and PostgreSQL knows no NUL characters`, hint: 'remove it' };
  }
  try {
    return decodeURIComponent(raw);
  } catch {
    return {
      message: `has a percent-encoding in ${what} that is not UTF-8`,
      hint: 'encode it again as UTF-8: é is %C3%A9',
    };
  }
}

/** Without the spaces, line breaks and invisible marks that pasting leaves around a value. */
export function trimmed(text: string): string {
  return text.replace(/^[\s\p{Cc}\u200b\ufeff]+|[\s\p{Cc}\u200b\ufeff]+$/gu, '');
}

/** Decodes what can be decoded and leaves the rest as it is. */
export function leniently(raw: string): string {
  return raw.replace(/(?:%[0-9a-f]{2})+/gi, (bytes) => {
    try {
      return decodeURIComponent(bytes);
    } catch {
      return bytes;
    }
  });
}
