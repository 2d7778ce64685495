import { isIP, isIPv6 } from 'node:net';
import type { Problem } from '../failure.ts';
import { type Reach, reachOf } from '../reach.ts';
import { readTlsFiles, type SslMode, type TlsFiles } from './tls.ts';
import { type Mistake, pasteMistake } from './url-mistakes.ts';
import { type Parameters, readParameters, type TargetSessionAttrs } from './url-parameters.ts';
import { cutAt, form, leniently, type Parts, percentDecoded, splitUrl, trimmed } from './url-syntax.ts';

export type { SslMode, TlsFiles } from './tls.ts';

export interface Place {
  /** A name, an IP address without brackets, or the absolute path of a socket directory. */
  readonly host: string;
  readonly port: number;
}

/** Everything a connection needs, parsed by us: the text of the URL itself never reaches another program. */
export interface ConnectionTarget {
  readonly hosts: readonly Place[];
  readonly user: string;
  readonly password: string | undefined;
  readonly database: string;
  readonly sslMode: SslMode;
  readonly tls: TlsFiles;
  readonly channelBinding: 'disable' | 'prefer' | 'require';
  /** For each address: TCP, TLS and authentication together. */
  readonly connectTimeoutSeconds: number;
  readonly targetSessionAttrs: TargetSessionAttrs;
  /** The startup parameter `options`, reduced to the words that proxies route by. */
  readonly options: string | undefined;
  /** Set when the URL itself shows a transaction pooler. `direct` says where to connect instead. */
  readonly poolerHint: { readonly reason: string; readonly direct: string } | undefined;
  /** What was ignored or assumed; sentences without secrets. */
  readonly notices: readonly string[];
}

export interface UrlContext {
  /** The input's public name, `database-url`. */
  readonly input: string;
  /** PEM text, already read where the user gave a path. */
  readonly tlsCa?: string | undefined;
  readonly tlsClientCert?: string | undefined;
  readonly tlsClientKey?: string | undefined;
}

export type ParsedUrl =
  | { readonly target: ConnectionTarget; readonly problems: readonly [] }
  | { readonly target: undefined; readonly problems: readonly [Problem, ...Problem[]] };

/**
 * Reads a PostgreSQL URL with libpq's rules, and refuses what libpq would silently take for something else. Reports
 * every independent problem; no problem or notice holds a piece of the password, wherever in the URL it ended up.
 */
export function parseDatabaseUrl(text: string, context: UrlContext): ParsedUrl {
  const { tls, problems: tlsProblems } = readTlsFiles(context);
  const mistakes: Mistake[] = [];
  const failed = (): ParsedUrl => {
    const own = mistakes.map((mistake): Problem => ({ input: context.input, ...mistake }));
    const [first, ...rest] = [...own, ...tlsProblems];
    if (first === undefined) throw new Error('a URL failed without a problem');
    return { target: undefined, problems: [first, ...rest] };
  };

  const value = trimmed(text);
  const pasted = pasteMistake(value);
  if (pasted !== undefined) {
    mistakes.push(pasted);
    return failed();
  }
  if (/\p{Cc}/u.test(value)) {
    mistakes.push({
      message: 'has a line break or another control character inside',
      hint: 'paste it again as one line',
    });
  }
  if (/[^\P{White_Space}\t-\r]/u.test(value)) {
    mistakes.push({ message: 'has a space inside', hint: 'write a space in a password or a name as %20' });
  }

  const parts = splitUrl(value.slice(value.indexOf('://') + 3));
  if ('mistake' in parts) {
    mistakes.push(parts.mistake);
    return failed();
  }
  const word: Reader = (raw, what, fallback = 'unreadable') => {
    const decoded = percentDecoded(raw, what);
    if (typeof decoded === 'string') return decoded;
    mistakes.push(decoded);
    return fallback;
  };

  const user = word(parts.user, 'the user name');
  const password = parts.password === '' ? undefined : word(parts.password, 'the password');
  if (user === '') mistakes.push({ message: 'has no user name', hint: `write it before the host: ${form}` });

  if (parts.fragment) {
    mistakes.push({ message: 'has text after a #', hint: 'remove it; a # that belongs to a name is written %23' });
  }
  if (parts.database.includes('/')) {
    mistakes.push({
      message: 'has unexpected text after the database name',
      hint: 'only ?name=value may follow it; a / that belongs to the name is written %2F',
    });
  }
  const database = word(parts.database, 'the database name');
  if (database === '') {
    mistakes.push({ message: 'has no database name', hint: `write it after the host: ${form}` });
  }

  const pairs = parts.query.flatMap(([key, raw]): [string, string][] => {
    const before = mistakes.length;
    const pair: [string, string] = [word(key, 'a parameter'), word(raw, 'the value of a parameter')];
    return mistakes.length === before ? [pair] : [];
  });
  const authority = readHosts(parts.hosts, word, mistakes);
  const {
    parameters,
    mistakes: wrong,
    notices,
  } = readParameters(pairs, {
    authorityIsEmpty: parts.hosts.length === 1 && parts.hosts[0]?.host === '',
    authorityHasPort: parts.hosts.some(({ port }) => port !== undefined && port !== ''),
    mayName: user !== '' && !authority.suspect,
  });
  mistakes.push(...wrong);

  const hosts = withSocket(authority.hosts, parameters, mistakes);
  const reach = hosts.map(({ host }) => reachOf(host));
  if (password === undefined && tls.cert === undefined && reach.some((one) => one !== 'loopback')) {
    mistakes.push({
      message: 'has no password, and no other way to authenticate is set up',
      hint: `write it after the user name: ${form}; or give tls-client-cert and tls-client-key`,
    });
  }
  const sslMode = chosenMode(parameters, reach);
  if (sslMode === 'disable' && reach.includes('public')) {
    mistakes.push({
      message:
        'says sslmode=disable, but the host is not in a private network: everybody on the way could read the database',
      hint: 'use sslmode=verify-full, or at least sslmode=require',
    });
  }
  if (mistakes.length > 0 || tlsProblems.length > 0) return failed();

  const files = parameters.systemRoots ? withoutRoot(tls) : tls;
  if (parameters.systemRoots && tls.rootCert !== undefined) {
    notices.push('sslrootcert=system in the URL wins over tls-ca');
  }
  if (value !== text) notices.unshift('spaces or line breaks around the URL were ignored');
  notices.push(...tlsNotices(parameters.sslMode, sslMode, reach, files), ...providerNotices(hosts, user));
  const target: ConnectionTarget = {
    hosts,
    user,
    password,
    database,
    sslMode,
    tls: files,
    channelBinding: parameters.channelBinding,
    connectTimeoutSeconds: parameters.connectTimeoutSeconds,
    targetSessionAttrs: parameters.targetSessionAttrs,
    options: parameters.options,
    poolerHint: poolerHint(hosts, parameters.pgbouncer),
    notices,
  };
  return { target, problems: [] };
}

/** Decodes one part; on a mistake reports it and answers with `fallback`, which causes no other complaint. */
type Reader = (raw: string, what: string, fallback?: string) => string;

function readHosts(
  written: Parts['hosts'],
  word: Reader,
  mistakes: Mistake[],
): { readonly hosts: Place[]; readonly suspect: boolean } {
  const hosts: Place[] = [];
  let badPort = false;
  let badHost = false;
  for (const one of written) {
    const host = word(one.host, 'the host');
    const port = portNumber(word(one.port ?? '', 'the port', ''));
    badPort ||= port === undefined;
    badHost ||= host !== '' ? !isHost(host) : written.length > 1;
    hosts.push({ host, port: port ?? 0 });
  }
  if (badHost) {
    mistakes.push({
      message: 'has a host that is no name, IP address or socket folder',
      hint: `is a special character of the password not percent-encoded, or a comma too many? ${form}`,
    });
  }
  if (badPort) mistakes.push(portMistake);
  return { hosts, suspect: badPort || badHost };
}

const portMistake: Mistake = {
  message: 'has a port that is not a number from 1 to 65535',
  hint: `if a password stands in its place, the form is ${form}`,
};

function portNumber(text: string): number | undefined {
  if (text === '') return 5432;
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  return port >= 1 && port <= 65_535 ? port : undefined;
}

function isHost(host: string): boolean {
  if (host.startsWith('/')) return !/[\p{Cc},]/u.test(host);
  return isIP(host) !== 0 || /^[\p{L}\p{N}_](?:[\p{L}\p{N}\p{M}._-]{0,253})$/u.test(host);
}

/** An empty host is only good together with `?host=/socket/folder`. */
function withSocket(hosts: Place[], parameters: Parameters, mistakes: Mistake[]): Place[] {
  const [first] = hosts;
  if (hosts.length !== 1 || first === undefined || first.host !== '') return hosts;
  const { socketDirectory, socketPort } = parameters;
  if (socketDirectory === undefined) {
    mistakes.push({ message: 'has no host', hint: `write it after the @: ${form}; for a socket, ?host=/folder` });
    return [];
  }
  if (!isHost(socketDirectory)) mistakes.push({ message: 'has a host= that is not one socket folder' });
  const port = socketPort === undefined ? first.port : portNumber(socketPort);
  if (port === undefined) mistakes.push(portMistake);
  return [{ host: socketDirectory, port: port ?? 0 }];
}

function chosenMode({ sslMode, systemRoots }: Parameters, reach: readonly Reach[]): SslMode {
  if (sslMode !== undefined) return sslMode;
  if (systemRoots) return 'verify-full';
  return reach.includes('public') ? 'require' : 'prefer';
}

function withoutRoot({ rootCert: _, ...files }: TlsFiles): TlsFiles {
  return files;
}

function tlsNotices(asked: SslMode | undefined, mode: SslMode, reach: readonly Reach[], tls: TlsFiles): string[] {
  const verify = 'add sslmode=verify-full to the URL, and give the certificate of a private authority in tls-ca';
  const weak = mode === 'allow' || mode === 'prefer';
  if (weak && tls.rootCert !== undefined) {
    return [`tls-ca is given, but sslmode=${mode} goes on without encryption when the server offers none: ${verify}`];
  }
  if (!reach.includes('public')) return [];
  if (weak) return [`sslmode=${mode} lets anybody between here and the server switch encryption off: ${verify}`];
  if (asked !== undefined || mode !== 'require') return [];
  const checked = tls.rootCert === undefined ? 'the server is not verified' : "the server's name is not verified";
  return [`the URL has no sslmode: the connection is encrypted, but ${checked}. To verify it, ${verify}`];
}

function providerNotices(hosts: readonly Place[], user: string): string[] {
  const direct = hosts
    .map(({ host }) => /^db\.([a-z0-9]+)\.supabase\.co$/i.exec(host)?.[1])
    .find((ref) => ref !== undefined);
  if (direct === undefined) return [];
  const login = user.includes('.') ? user : `${user}.${direct}`;
  return [
    "Supabase's direct hosts have IPv6 addresses only, unless the project has the IPv4 add-on, and GitHub's hosted runners have no IPv6: " +
      `if connecting fails, use the session pooler (Connect → Session pooler, port 5432, user ${login})`,
  ];
}

function poolerHint(hosts: readonly Place[], pgbouncer: boolean): ConnectionTarget['poolerHint'] {
  for (const { host, port } of hosts) {
    const neon = /^([^.]+)-pooler(\..+)$/i.exec(host);
    if (neon !== null) {
      return {
        reason: `${host} is a transaction pooler by its name`,
        direct: `use the direct host ${neon[1]}${neon[2]}`,
      };
    }
    if (port === 6543 && /\.pooler\.supabase\.com$/i.test(host)) {
      return {
        reason: `port 6543 of ${host} is Supabase's transaction pooler`,
        direct: `use its session pooler, ${host}:5432 (same user and password)`,
      };
    }
    if (port === 6543 && /^db\.[a-z0-9]+\.supabase\.co$/i.test(host)) {
      return { reason: `port 6543 of ${host} is a transaction pooler`, direct: `use ${host}:5432` };
    }
  }
  if (!pgbouncer) return undefined;
  return {
    reason: 'the URL says pgbouncer=true',
    direct: "use the database's own host and port (DIRECT_URL in many projects) and remove pgbouncer=true",
  };
}

/**
 * The secrets in `text`, for masking, even when it does not parse: all of it, what stands between the first `:` and
 * the last `@` raw and decoded, and, when it does not parse, the pieces that other programs would print.
 */
export function secretsOf(text: string, target?: ConnectionTarget): string[] {
  const value = trimmed(text);
  if (value === '') return [];
  const secrets = new Set([text, value]);
  const rest = value.slice(value.indexOf('://') === -1 ? 0 : value.indexOf('://') + 3);
  const colon = rest.indexOf(':');
  const lastAt = rest.lastIndexOf('@');
  const add = (raw: string | undefined): void => {
    if (raw === undefined || raw === '') return;
    secrets.add(raw);
    secrets.add(leniently(raw));
  };

  const raws = [
    colon !== -1 && colon < lastAt ? rest.slice(colon + 1, lastAt) : undefined,
    ...[...value.matchAll(/(?:^|[?&\s])(?:ssl)?password\s*=\s*('(?:[^'\\]|\\.)*'|[^&\s]+)/gi)].map((match) =>
      match[1]?.replace(/^'|'$/g, ''),
    ),
  ];
  if (target === undefined && lastAt === -1 && colon !== -1) {
    const port = rest.slice(colon + 1);
    if (!/^\d{1,5}(?![^/?,])/.test(port)) raws.push(port, cutAt(cutAt(port, '/'), '?'));
  }
  for (const raw of raws) {
    add(raw);
    if (target !== undefined || raw === undefined) continue;
    for (const piece of [...raw.split(/[@/?#:&=,\s]/), ...leniently(raw).split(/[@/?#:&=,\s]/)]) {
      if (piece.length >= 4) add(piece);
    }
  }
  if (target?.password !== undefined) secrets.add(target.password);
  return [...secrets];
}

/** Words that must stay readable even if somebody's password equals one of them. */
export function publicWordsOf(target: ConnectionTarget): string[] {
  return [...new Set([...target.hosts.map(({ host }) => host), target.user, target.database])];
}

/** `db.example.com:5432`, `[::1]:5432`, `/run/postgresql (port 5432)`. */
export function describePlace({ host, port }: Place): string {
  if (host.startsWith('/')) return `${host} (port ${port})`;
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}
