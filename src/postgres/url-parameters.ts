import type { SslMode } from './tls.ts';
import type { Mistake } from './url-mistakes.ts';

/** What the part after `?` asks for, once everything we leave out or refuse is gone. */
export interface Parameters {
  readonly socketDirectory: string | undefined;
  /** Only ever set together with `socketDirectory`. */
  readonly socketPort: string | undefined;
  readonly sslMode: SslMode | undefined;
  /** `sslrootcert=system`: the authorities everybody trusts. */
  readonly systemRoots: boolean;
  readonly channelBinding: 'disable' | 'prefer' | 'require';
  readonly connectTimeoutSeconds: number;
  readonly targetSessionAttrs: TargetSessionAttrs;
  readonly options: string | undefined;
  readonly pgbouncer: boolean;
}

export type TargetSessionAttrs = 'any' | 'read-write' | 'read-only' | 'primary' | 'standby' | 'prefer-standby';

const sslModes = ['disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full'] as const;
const bindings = ['disable', 'prefer', 'require'] as const;
const sessionAttrs = ['any', 'read-write', 'read-only', 'primary', 'standby', 'prefer-standby'] as const;

const defaultConnectTimeout = 15;
const longestConnectTimeout = 3600;

const understood = new Set([
  'channel_binding',
  'connect_timeout',
  'options',
  'pgbouncer',
  'ssl',
  'sslmode',
  'sslrootcert',
  'target_session_attrs',
]);

/** Settings of ORMs, drivers and of libpq that mean nothing to a backup, or that pgassay sets itself. */
const leftOut = new Set([
  'allowEncodingChanges',
  'application_name',
  'ApplicationName',
  'binary_parameters',
  'charset',
  'client_encoding',
  'connection_limit',
  'connectTimeout',
  'currentSchema',
  'default_query_exec_mode',
  'encoding',
  'fallback_application_name',
  'gssdelegation',
  'gssencmode',
  'gsslib',
  'keepalives',
  'keepalives_count',
  'keepalives_idle',
  'keepalives_interval',
  'krbsrvname',
  'load_balance_hosts',
  'loginTimeout',
  'max',
  'max_idle_connection_lifetime',
  'max_protocol_version',
  'min_protocol_version',
  'pool',
  'pool_max_conns',
  'pool_max_conn_lifetime',
  'pool_min_conns',
  'pool_mode',
  'pool_size',
  'pool_timeout',
  'poolclass',
  'prepareThreshold',
  'preparedStatementCacheQueries',
  'prepared_statement_cache_size',
  'prepared_statements',
  'preferQueryMode',
  'reaping_frequency',
  'reconnect',
  'reWriteBatchedInserts',
  'schema',
  'search_path',
  'serverVersion',
  'single_use_connections',
  'socketTimeout',
  'socket_timeout',
  'sslaccept',
  'sslcertmode',
  'sslcompression',
  'sslnegotiation',
  'sslsni',
  'statement_cache_mode',
  'statement_cache_size',
  'statement_timeout',
  'stringtype',
  'supa',
  'tcp_user_timeout',
  'tcpKeepAlive',
  'timezone',
  'uselibpqcompat',
  'workaround',
]);

const inAuthority = 'give it once, in the URL itself: postgres://user:password@host:5432/database';
const byInput = (name: string): string => `remove it and give the PEM text, or a path, in the input ${name}`;
const unsupported = 'remove it: it is not supported here, and dropping it silently would weaken what you asked for';

/** Parameters that would send the backup elsewhere, read files of the machine, or ask for a guarantee we do not give. */
const refused: Readonly<Record<string, string>> = {
  user: inAuthority,
  password: inAuthority,
  host: inAuthority,
  port: inAuthority,
  dbname: inAuthority,
  hostaddr: 'remove it: the host in the URL decides where the connection goes',
  service: 'remove it: service files are not read, write the settings into the URL',
  servicefile: 'remove it: service files are not read, write the settings into the URL',
  passfile: 'remove it: password files are not read, write the password into the URL',
  sslcert: byInput('tls-client-cert'),
  sslkey: byInput('tls-client-key'),
  sslpassword: 'remove it and give the decrypted key in the input tls-client-key',
  sslidentity: byInput('tls-client-cert'),
  sslcrl: unsupported,
  sslcrldir: unsupported,
  sslkeylogfile: unsupported,
  ssl_min_protocol_version: unsupported,
  ssl_max_protocol_version: unsupported,
  require_auth: unsupported,
  requirepeer: unsupported,
  requiressl: 'use sslmode=require',
  replication: unsupported,
  scram_client_key: unsupported,
  scram_server_key: unsupported,
};

/**
 * Judges the decoded pairs of the query part. `authorityIsEmpty` says that the URL names no host, so that
 * `?host=/socket/folder` is no override; `mayName` is false when a pair may be a stray piece of a password.
 */
export function readParameters(
  pairs: readonly (readonly [string, string])[],
  { authorityIsEmpty, authorityHasPort, mayName }: Record<'authorityIsEmpty' | 'authorityHasPort' | 'mayName', boolean>,
): { readonly parameters: Parameters; readonly mistakes: Mistake[]; readonly notices: string[] } {
  const mistakes: Mistake[] = [];
  const dropped: string[] = [];
  const notices: string[] = [];
  const values = new Map<string, string>();
  const duplicates = new Set<string>();
  const socketDirectory = authorityIsEmpty
    ? pairs.find(([key, value]) => key === 'host' && value.startsWith('/'))
    : undefined;

  for (const [key, value] of pairs) {
    if (values.has(key)) duplicates.add(key);
    const first = !values.has(key);
    values.set(key, value);
    if (!first || understood.has(key)) continue;
    if (socketDirectory !== undefined && (key === 'host' || (key === 'port' && !authorityHasPort))) continue;
    const hint = Object.hasOwn(refused, key) ? refused[key] : undefined;
    if (hint !== undefined) mistakes.push({ message: `the parameter ${key} is refused in the URL`, hint });
    else if (leftOut.has(key)) dropped.push(key);
    else mistakes.push(unknownKey(key, mayName));
  }
  for (const key of duplicates) {
    mistakes.push({
      message: mayName || isKnown(key) ? `the parameter ${key} is given twice` : 'a parameter is given twice',
      hint: 'keep one of them: programs disagree on which one counts',
    });
  }
  if (dropped.length > 0) {
    notices.push(`left out of the URL, because a backup has no use for it: ${[...new Set(dropped)].join(', ')}`);
  }

  const choice = <T extends string>(key: string, allowed: readonly T[], hint?: string): T | undefined => {
    const value = values.get(key);
    if (value === undefined) return undefined;
    const found = allowed.find((one) => one === value);
    if (found === undefined) {
      mistakes.push({
        message: `${key} has a value that does not exist`,
        hint: hint ?? `use one of ${allowed.join(', ')}`,
      });
    }
    return found;
  };

  const noVerify =
    values.get('sslmode') === 'no-verify' ? 'no-verify is a node-postgres word: use sslmode=require' : undefined;
  const sslMode = choice('sslmode', sslModes, noVerify);
  const parameters: Parameters = {
    socketDirectory: socketDirectory?.[1],
    socketPort: socketDirectory === undefined || authorityHasPort ? undefined : values.get('port'),
    sslMode: withSsl(values.get('ssl'), sslMode, values.has('sslmode'), mistakes),
    systemRoots: systemRoots(values.get('sslrootcert'), sslMode, mistakes),
    channelBinding: choice('channel_binding', bindings) ?? 'prefer',
    connectTimeoutSeconds: connectTimeout(values.get('connect_timeout'), mistakes),
    targetSessionAttrs: choice('target_session_attrs', sessionAttrs) ?? 'any',
    options: routingOptions(values.get('options'), notices),
    pgbouncer: values.has('pgbouncer') && !/^(false|0|no|off)$/i.test(values.get('pgbouncer') ?? ''),
  };
  if (values.get('pgbouncer') !== undefined && !parameters.pgbouncer) {
    notices.push('left out of the URL, because a backup has no use for it: pgbouncer');
  }
  return { parameters, mistakes, notices };
}

function isKnown(key: string): boolean {
  return understood.has(key) || leftOut.has(key) || Object.hasOwn(refused, key);
}

function unknownKey(key: string, mayName: boolean): Mistake {
  const near = [...understood].find((known) => known === key.toLowerCase().replaceAll('-', '_'));
  if (near !== undefined)
    return { message: `there is a parameter that is spelled almost like ${near}`, hint: `write ${near}` };
  if (!mayName || !/^[A-Za-z][A-Za-z0-9_.-]{0,39}$/.test(key)) {
    return {
      message: 'there is a parameter after the ? that is not known',
      hint: `known are ${[...understood].join(', ')}`,
    };
  }
  return { message: `the parameter ${key} is not known`, hint: `remove it; known are ${[...understood].join(', ')}` };
}

/** JDBC's `ssl=true`, which libpq takes for `sslmode=require`. */
function withSsl(
  ssl: string | undefined,
  mode: SslMode | undefined,
  modeGiven: boolean,
  mistakes: Mistake[],
): SslMode | undefined {
  if (ssl === undefined) return mode;
  if (ssl !== 'true') {
    mistakes.push({ message: 'ssl is only known as ssl=true', hint: `use sslmode=, one of ${sslModes.join(', ')}` });
    return mode;
  }
  if (!modeGiven) return 'require';
  if (mode === 'disable' || mode === 'allow' || mode === 'prefer') {
    mistakes.push({
      message: `ssl=true and sslmode=${mode} contradict each other`,
      hint: 'keep sslmode= and remove ssl=',
    });
  }
  return mode;
}

function systemRoots(value: string | undefined, mode: SslMode | undefined, mistakes: Mistake[]): boolean {
  if (value === undefined) return false;
  if (value !== 'system') {
    mistakes.push({
      message: 'the parameter sslrootcert is refused in the URL, except as sslrootcert=system',
      hint: byInput('tls-ca'),
    });
    return false;
  }
  if (mode !== undefined && mode !== 'verify-full') {
    mistakes.push({
      message: `sslrootcert=system needs sslmode=verify-full, not ${mode}`,
      hint: 'anybody can get a certificate from a public authority, so the name in it has to be checked',
    });
  }
  return true;
}

function connectTimeout(value: string | undefined, mistakes: Mistake[]): number {
  if (value === undefined) return defaultConnectTimeout;
  const seconds = /^\d{1,5}$/.test(value) ? Number(value) : 0;
  if (seconds >= 1 && seconds <= longestConnectTimeout) return seconds;
  mistakes.push({
    message: `connect_timeout is not a number of seconds from 1 to ${longestConnectTimeout}`,
    hint: `remove it to wait ${defaultConnectTimeout} s`,
  });
  return defaultConnectTimeout;
}

/** Neon's and Supabase's proxies route by `options`; every other setting would change the sessions of the backup. */
function routingOptions(value: string | undefined, notices: string[]): string | undefined {
  if (value === undefined || value.trim() === '') return undefined;
  const words = value.trim().split(/\s+/);
  const routing = words.filter((word) => /^(endpoint|project|reference)=[A-Za-z0-9._-]+$/.test(word));
  if (routing.length < words.length) {
    notices.push(
      'left out of the URL: options, except for endpoint=, project= and reference=, which route the connection',
    );
  }
  return routing.length === 0 ? undefined : routing.join(' ');
}
