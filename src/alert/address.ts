import { placeOf } from '../reach.ts';

/** Where a webhook or a dead-man's switch listens. The URL is a secret as a whole, its host is not. */
export interface HttpAddress {
  /** Without user and password, which fetch refuses in a sentence that repeats them. */
  readonly url: URL;
  /** The `Authorization` header that user and password stand for. */
  readonly authorization: string | undefined;
}

/** A mail server that takes messages for others. */
export interface MailServer {
  readonly host: string;
  readonly port: number;
  /** TLS from the first byte; else STARTTLS. */
  readonly secure: boolean;
  /** Without STARTTLS nothing is sent: not a password, and nothing across a public network. */
  readonly requireTls: boolean;
  readonly login: { readonly user: string; readonly password: string } | undefined;
}

export interface MailAddress {
  readonly name: string;
  readonly address: string;
}

export interface AddressProblem {
  readonly problem: string;
  readonly hint?: string;
}

/** A URL of `http` or `https`. What is wrong is said without a piece of it. */
export function parseHttpAddress(text: string): { readonly address: HttpAddress } | AddressProblem {
  const url = urlOf(text);
  if (url === undefined) return { problem: 'is not a URL', hint: 'copy it again, as a whole: https://…' };
  if (url.protocol !== 'https:' && url.protocol !== 'http:')
    return { problem: 'has another scheme than https', hint: 'copy it again, as a whole: https://…' };
  if (url.hash !== '') return { problem: 'has a # in it, which is not sent', hint: 'write it as %23, or leave it out' };
  const place = placeOf(url.hostname);
  if (place === 'link-local') return { problem: 'is a link-local address, where nobody reads messages' };
  if (url.protocol === 'http:' && place === 'public')
    return { problem: 'is http to a public host, where everybody on the way can read it', hint: 'use https://' };
  const [user, password] = [decoded(url.username), decoded(url.password)];
  if (user === undefined || password === undefined) return badPercent;
  const bare = new URL(url);
  bare.username = '';
  bare.password = '';
  const pair = `${user}:${password}`;
  return {
    address: { url: bare, authorization: pair === ':' ? undefined : `Basic ${Buffer.from(pair).toString('base64')}` },
  };
}

/** `smtp://user:password@host:587` or `smtps://…:465`. What is wrong is said without a piece of it. */
export function parseMailServer(text: string): { readonly server: MailServer } | AddressProblem {
  const url = urlOf(text);
  const hint = 'write smtp://user:password@host:587, or smtps://…:465 for TLS from the first byte';
  if (url === undefined || url.hostname === '') return { problem: 'is not a URL with a host', hint };
  const secure = url.protocol === 'smtps:';
  if (!secure && url.protocol !== 'smtp:') return { problem: 'has another scheme than smtp or smtps', hint };
  if (!['', '/'].includes(url.pathname) || url.search !== '' || url.hash !== '')
    return {
      problem: 'has something after the host and the port',
      hint: 'a /, ?, # or @ in the password is written %2F, %3F, %23, %40',
    };
  const place = placeOf(url.hostname);
  if (place === 'link-local') return { problem: 'is a link-local address, where no mail server is' };
  const port = url.port === '' ? (secure ? 465 : 587) : Number(url.port);
  if (!secure && port === 465)
    return { problem: 'is smtp:// with port 465, which speaks TLS from the first byte', hint: 'write smtps://' };
  const [user, password] = [decoded(url.username), decoded(url.password)];
  if (user === undefined || password === undefined) return badPercent;
  if ((user === '') !== (password === '')) return { problem: 'has a user without a password, or the other way round' };
  return {
    server: {
      ...{ host: url.hostname.replace(/^\[|\]$/g, ''), port, secure },
      requireTls: password !== '' || place === 'public',
      login: user === '' ? undefined : { user, password },
    },
  };
}

const badPercent = { problem: 'has a % that begins no code', hint: 'a % in a password is written %25' };

/** Neither a second header nor a second address fits in. */
const mailbox = /^[^\s@<>()[\]\\,;:"\p{C}]{1,64}@[^\s@<>()[\]\\,;:"\p{C}]{1,255}$/u;

/** `ops@acme.example` or `Ops <ops@acme.example>`; undefined for anything else. */
export function parseMailAddress(text: string): MailAddress | undefined {
  const [, name = '', inside] = /^([^<>"\p{C}]*)<([^<>]*)>$/u.exec(text) ?? [];
  const address = inside ?? text;
  return mailbox.test(address) ? { name: name.trim(), address } : undefined;
}

/**
 * Every piece of a channel's URL that must not be printed: the whole, what is in it for a login, and what in its path and
 * query looks like a key rather than a word. The host never is one. Of a text that is no URL every longer piece counts.
 */
export function secretsInUrl(text: string): string[] {
  const url = urlOf(text) ?? urlOf(`https://${text}`);
  if (url === undefined) return [text, ...text.split(/[/?#&=@:\s]+/).filter((piece) => piece.length >= shortKey)];
  const login = url.password === '' && !url.protocol.startsWith('smtp') ? url.username : url.password;
  const path = `${url.pathname}${url.search}`;
  return [
    ...[text, url.href, login],
    ...(path.length > shortKey ? [path] : []),
    ...url.pathname.split('/').filter(isKey),
    ...[...url.searchParams.values()].filter((value) => value.length >= 6),
  ].filter((piece) => piece !== '');
}

const shortKey = 12;

function isKey(piece: string): boolean {
  return piece.length >= 20 || (piece.length >= shortKey && /\d/.test(piece));
}

/** A space or a line break would be left out or encoded in silence. */
function urlOf(text: string): URL | undefined {
  return /[\s\p{Cc}]/u.test(text) || !URL.canParse(text) ? undefined : new URL(text);
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
