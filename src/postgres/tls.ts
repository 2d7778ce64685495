import { createPrivateKey, X509Certificate } from 'node:crypto';
import { type ConnectionOptions, checkServerIdentity, getCACertificates } from 'node:tls';
import type { Problem } from '../failure.ts';

/** libpq's six answers to "how much encryption". */
export type SslMode = 'disable' | 'allow' | 'prefer' | 'require' | 'verify-ca' | 'verify-full';

/** PEM text, never paths. `rootCert` absent means: the system's and Node's own authorities where one is asked for. */
export interface TlsFiles {
  readonly rootCert?: string;
  readonly cert?: string;
  readonly key?: string;
}

/** The PEM texts of the three inputs, checked as far as that goes without a connection. */
export function readTlsFiles(inputs: {
  readonly tlsCa?: string | undefined;
  readonly tlsClientCert?: string | undefined;
  readonly tlsClientKey?: string | undefined;
}): { readonly tls: TlsFiles; readonly problems: Problem[] } {
  const ca = given(inputs.tlsCa);
  const cert = given(inputs.tlsClientCert);
  const key = given(inputs.tlsClientKey);
  const problems: Problem[] = [];

  if (ca !== undefined) {
    const blocks = ca.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? [];
    if (blocks.length === 0 || blocks.some((block) => certificate(block) === undefined)) {
      problems.push({
        input: 'tls-ca',
        message: 'is not a list of PEM certificates',
        hint: 'it holds one or more blocks that start with -----BEGIN CERTIFICATE-----',
      });
    }
  }
  const parsed = cert === undefined ? undefined : certificate(cert);
  if (cert !== undefined && parsed === undefined) {
    problems.push({ input: 'tls-client-cert', message: 'is not a PEM certificate' });
  }
  if (cert !== undefined && key === undefined) {
    problems.push({ input: 'tls-client-key', message: 'is empty, but tls-client-cert needs its private key' });
  }
  if (key !== undefined) {
    const problem = keyProblem(key, cert, parsed);
    if (problem !== undefined) problems.push(problem);
  }
  return {
    tls: {
      ...(ca === undefined ? {} : { rootCert: ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
    },
    problems,
  };
}

function given(pem: string | undefined): string | undefined {
  const text = pem?.trim() ?? '';
  return text === '' ? undefined : `${text}\n`;
}

function certificate(pem: string): X509Certificate | undefined {
  try {
    return new X509Certificate(pem);
  } catch {
    return undefined;
  }
}

function keyProblem(key: string, cert: string | undefined, parsed: X509Certificate | undefined): Problem | undefined {
  const input = 'tls-client-key';
  if (cert === undefined) return { input: 'tls-client-cert', message: 'is empty, but tls-client-key is given' };
  if (/ENCRYPTED/.test(key)) {
    return {
      input,
      message: 'is protected by a passphrase, which nobody can type here',
      hint: 'store it decrypted as a secret: openssl pkey -in client.key -out plain.key',
    };
  }
  try {
    const privateKey = createPrivateKey(key);
    if (parsed !== undefined && !parsed.checkPrivateKey(privateKey)) {
      return { input, message: 'does not belong to the certificate in tls-client-cert' };
    }
    return undefined;
  } catch {
    return { input, message: 'is not a PEM private key' };
  }
}

/** Node's and the system's certificate authorities (and NODE_EXTRA_CA_CERTS) as one PEM bundle. */
export function defaultAuthorities(): string {
  return `${getCACertificates('default').join('\n').trim()}\n`;
}

/**
 * What `tls.connect` needs to behave like libpq in `mode`: the chain is verified in the verify modes and wherever a
 * root certificate is given, the host's name in verify-full only.
 */
export function tlsOptions(mode: SslMode, files: TlsFiles): ConnectionOptions {
  const chain = mode === 'verify-ca' || mode === 'verify-full' || files.rootCert !== undefined;
  return {
    rejectUnauthorized: chain,
    ...(chain ? { ca: files.rootCert ?? getCACertificates('default') } : {}),
    ...(files.cert === undefined ? {} : { cert: files.cert }),
    ...(files.key === undefined ? {} : { key: files.key }),
    checkServerIdentity: mode === 'verify-full' ? checkServerIdentity : () => undefined,
  };
}
