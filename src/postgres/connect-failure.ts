import { Failure } from '../failure.ts';
import { type Attempt, failure, type Raised, type Refusal, read, where, withoutPassword } from './attempt.ts';
import { recoveryConflict, recoveryConflictState } from './recovery-conflict.ts';
import { fromServer } from './server-refusal.ts';
import { describePlace, type Place } from './url.ts';

export class ConnectTimeout extends Error {}
/** We stopped the login ourselves before a secret went out; `reason` is printed. */
export class LoginStopped extends Error {
  readonly hint: string | undefined;
  constructor(reason: string, hint?: string) {
    super(reason);
    this.hint = hint;
  }
}

/** Turns whatever `pg`, the sockets, TLS or the server raised while connecting into one sentence with a hint. */
export function refusalOf(error: unknown, attempt: Attempt): Refusal {
  if (error instanceof Failure) return { failure: error, tryNext: false };
  if (error instanceof LoginStopped) {
    return { failure: failure('authentication', `${error.message} (${where(attempt)})`, error.hint), tryNext: false };
  }
  if (error instanceof ConnectTimeout) {
    const failed = failure(
      'connect',
      `no answer from ${where(attempt)} within ${attempt.target.connectTimeoutSeconds} s`,
      'a firewall or an allow-list that drops packets looks like this: does the server admit this machine (hosted runners\n' +
        'have changing addresses)? is the port right? a longer wait: connect_timeout=60 in the URL',
      true,
    );
    return { failure: failed, tryNext: true };
  }
  const raised = read(error);
  return (
    fromServer(raised, attempt) ??
    fromTls(raised, attempt) ??
    fromNetwork(raised, attempt) ?? {
      failure: failure(
        'connect',
        `connecting to ${where(attempt)} failed: ${withoutPassword(raised.message, attempt.target)}`,
        undefined,
        false,
        raised.code,
      ),
      tryNext: true,
    }
  );
}

function fromTls({ code = '', message, certificate }: Raised, attempt: Attempt): Refusal | undefined {
  const at = where(attempt);
  const stop = (text: string, hint?: string): Refusal => ({
    failure: failure('connect', text, hint, false, code === '' ? undefined : code),
    tryNext: false,
  });
  if (message === 'The server does not support SSL connections') {
    return {
      ...stop(
        `the server at ${at} does not offer TLS, and sslmode=${attempt.target.sslMode} needs it`,
        'switch it on in the server (ssl = on); only inside a private network or a tunnel, sslmode=disable is an answer',
      ),
      tls: 'unavailable',
    };
  }
  if (message === 'There was an error establishing an SSL connection') {
    return {
      failure: failure(
        'connect',
        `what listens at ${at} does not answer like a PostgreSQL server`,
        'is the port right?',
        true,
      ),
      tryNext: true,
    };
  }
  const authority = "give the certificate of the authority that signed it in tls-ca (the provider's CA bundle)";
  switch (code) {
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'UNABLE_TO_GET_ISSUER_CERT':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'CERT_UNTRUSTED':
    case 'INVALID_CA':
      return attempt.target.tls.rootCert === undefined
        ? stop(`the certificate of ${at} is signed by an authority this machine does not know`, authority)
        : stop(`the certificate of ${at} was not signed by the authority in tls-ca`, authority);
    case 'CERT_SIGNATURE_FAILURE':
      return stop(`the certificate of ${at} was not signed by the authority in tls-ca`, authority);
    case 'CERT_HAS_EXPIRED':
      return stop(`the certificate of ${at} has expired`, 'renew it on the server');
    case 'CERT_NOT_YET_VALID':
      return stop(
        `the certificate of ${at} is not valid yet`,
        'are the clocks of the server and of this machine right?',
      );
    case 'CERT_REVOKED':
      return stop(`the certificate of ${at} was revoked`, 'renew it on the server');
    case 'ERR_TLS_CERT_ALTNAME_INVALID': {
      const names = certificate?.subjectaltname ?? certificate?.subject?.CN;
      const made = typeof names === 'string' ? ` but for ${names.slice(0, 200)}` : '';
      return stop(
        `the certificate of ${at} is not made for "${attempt.place.host}"${made}`,
        'use the host name the certificate is made for; sslmode=verify-ca checks the authority only',
      );
    }
    default:
  }
  if (/ALERT_CERTIFICATE_REQUIRED|ALERT_(BAD|UNKNOWN)_?C|ALERT_UNKNOWN_CA|ALERT_CERTIFICATE/.test(code)) {
    return {
      failure: failure(
        'authentication',
        `the server at ${at} does not accept the client certificate, or misses one`,
        'check tls-client-cert and tls-client-key',
        false,
        code,
      ),
      tryNext: false,
    };
  }
  if (message.startsWith('SASL channel binding')) {
    return stop(
      `the certificate of ${at} has a signature that channel binding does not know`,
      'add channel_binding=disable to the URL',
    );
  }
  if (code === 'EPROTO' || code.startsWith('ERR_SSL_') || code.startsWith('ERR_OSSL_') || code.startsWith('ERR_TLS_')) {
    return stop(`the TLS handshake with ${at} failed (${code})`, 'the server must offer TLS 1.2 or later');
  }
  if (message.startsWith('SASL: SCRAM-SERVER-FINAL-MESSAGE')) {
    return {
      failure: failure(
        'authentication',
        `the server at ${at} could not prove that it knows the password: it may be an impostor`,
      ),
      tryNext: false,
    };
  }
  if (message.startsWith('SASL:')) {
    return {
      failure: failure(
        'authentication',
        `the password login at ${at} failed: ${withoutPassword(message.slice(5).trim(), attempt.target)}`,
      ),
      tryNext: false,
    };
  }
  return undefined;
}

function fromNetwork({ code, message }: Raised, attempt: Attempt): Refusal | undefined {
  const at = where(attempt);
  const { host } = attempt.place;
  const next = (text: string, hint: string | undefined, transient: boolean): Refusal => ({
    failure: failure('connect', text, hint, transient, code),
    tryNext: true,
  });
  switch (code) {
    case 'ENOTFOUND':
    case 'ENODATA':
      return next(
        `there is no host "${host}"`,
        host.includes('.')
          ? 'is it spelled right? does it exist only inside a private network, or has the provider paused the project?'
          : 'names of services resolve only in jobs with container:; elsewhere use localhost and the mapped port',
        false,
      );
    case 'EAI_AGAIN':
      return next(
        `the name "${host}" could not be looked up for now`,
        'the DNS server did not answer: try again',
        true,
      );
    case 'ECONNREFUSED':
      return next(
        `nothing listens at ${at}`,
        localhostHint(attempt) ?? 'is the server running, and the port right?',
        true,
      );
    case 'ENETUNREACH':
    case 'EHOSTUNREACH':
    case 'EADDRNOTAVAIL':
    case 'EAFNOSUPPORT': {
      const six = attempt.address?.includes(':') === true;
      const text = six ? `there is no route to ${at}: this machine has no IPv6` : `there is no route to ${at}`;
      return { ...next(text, six ? sixHint(host) : 'is it an address of a private network?', !six), unreachable: true };
    }
    case 'ENOENT':
      return next(
        `there is no socket for port ${attempt.place.port} in ${host}`,
        'is the server running here, and this its socket folder?',
        true,
      );
    case 'EACCES':
    case 'EPERM':
      return next(`this user may not use ${at}`, undefined, false);
    case 'ETIMEDOUT':
      return next(`no answer from ${at}`, 'a firewall or an allow-list that drops packets looks like this', true);
    case 'ECONNRESET':
    case 'EPIPE':
    case 'ECONNABORTED':
      return next(
        `${at} broke the connection off`,
        'a proxy or firewall in between, or a server that restarts, looks like this',
        true,
      );
    default:
  }
  if (/^Connection terminated|^timeout expired|socket hang up|socket disconnected/.test(message)) {
    return next(
      `${at} closed the connection without a word`,
      'a proxy in between, or a server that restarts, looks like this',
      true,
    );
  }
  return undefined;
}

function localhostHint({ place, onRunner }: Attempt): string | undefined {
  if (!onRunner || !/^(localhost|127\.|::1$)/i.test(place.host)) return undefined;
  return (
    'localhost is the runner itself. For a database in the same job, start it under services: with ports: [5432:5432]\n' +
    "(in a job with container:, use the service's name as the host); for any other, use the host name it has outside"
  );
}

function sixHint(host: string): string {
  if (/^db\.[a-z0-9]+\.supabase\.co$/i.test(host)) {
    return (
      "GitHub's hosted runners have no IPv6, and this host has no IPv4 address: use Supabase's session pooler\n" +
      '(Connect → Session pooler, port 5432, user postgres.<project ref>), or buy the IPv4 add-on'
    );
  }
  return "GitHub's hosted runners have no IPv6: use a host name with an IPv4 address, or a runner that has IPv6";
}

/** The end of an open connection that nobody asked for. */
export function connectionLost(error: unknown, place: Place): Failure {
  const { code } = read(error);
  if (code === recoveryConflictState) return recoveryConflict(new Error(code));
  const reason =
    code === '57P01'
      ? 'an administrator ended it, or the server is stopping'
      : code === '57P02'
        ? 'the server crashed and restarts'
        : code === '57P05' || code === '25P03' || code === '25P04'
          ? 'a time limit of the server ended it'
          : 'the network or the server broke it off';
  return failure(
    'connect',
    `the connection to ${describePlace(place)} was lost: ${reason}`,
    "try again; if it happens every time, the server's log of this moment says why",
    true,
    code,
  );
}
