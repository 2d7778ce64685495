import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { SMTPServer } from 'smtp-server';
import { scratch } from './faults.ts';

export interface Certificate {
  /** For those who have to trust it. */
  readonly path: string;
  readonly cert: string;
  readonly key: string;
}

/** A self-signed certificate for 127.0.0.1. */
export async function newCertificate(): Promise<Certificate> {
  const folder = await scratch();
  const [path, key] = [join(folder, 'server.crt'), join(folder, 'server.key')];
  await promisify(execFile)('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'],
    ...['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', path],
  ]);
  return { path, cert: readFileSync(path, 'utf8'), key: readFileSync(key, 'utf8') };
}

/** A request as it arrived. */
export interface Received {
  readonly method: string;
  /** With the query. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

/** `drip`: an answer that goes on for ever, a byte at a time. */
export type Answer =
  | { readonly status: number; readonly text?: string; readonly headers?: Readonly<Record<string, string>> }
  | 'silence'
  | 'drip'
  | 'reset';

/** Whatever takes messages over HTTP: it notes each request and answers as it is told. */
export class HttpReceiver implements AsyncDisposable {
  readonly url: string;
  readonly requests: Received[] = [];
  /** Asked before each answer; Slack's own word for "taken" unless set. */
  answer: (request: Received, nth: number) => Answer = () => ({ status: 200, text: 'ok' });
  readonly #server: Server;
  readonly #timers: NodeJS.Timeout[] = [];

  private constructor(server: Server, scheme: string) {
    this.#server = server;
    this.url = `${scheme}://127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on('request', (request, response) => void this.#serve(request, response));
  }

  static async start(certificate?: Certificate): Promise<HttpReceiver> {
    const server = certificate === undefined ? createServer() : createTlsServer(certificate);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new HttpReceiver(server, certificate === undefined ? 'http' : 'https');
  }

  /** Forgets what came, and answers well again. */
  reset(): void {
    this.requests.length = 0;
    this.answer = () => ({ status: 200, text: 'ok' });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    this.#server.close();
    this.#server.closeAllConnections();
  }

  async #serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', url: path = '', headers } = incoming;
    const request = { method, path, headers, body: await text(incoming) };
    this.requests.push(request);
    const answer = this.answer(request, this.requests.length);
    if (answer === 'silence') return;
    if (answer === 'reset') return void incoming.socket.destroy();
    if (answer === 'drip') {
      response.writeHead(200);
      this.#timers.push(setInterval(() => response.write('.'), 200));
      return;
    }
    response.writeHead(answer.status, answer.headers).end(answer.text ?? '');
  }
}

export interface MailOptions {
  readonly certificate: Certificate;
  /** TLS from the first byte. */
  readonly secure?: boolean;
  /** Offers no STARTTLS, and takes logins in the clear. */
  readonly plain?: boolean;
  /** Recipients it does not take. */
  readonly refused?: readonly string[];
  /** Senders it does not take. */
  readonly foreign?: readonly string[];
}

/** A mail as it arrived. */
export interface Mail {
  readonly from: string;
  readonly to: readonly string[];
  readonly raw: string;
  /** Whether it came over TLS. */
  readonly secure: boolean;
  readonly user: string | null | undefined;
}

export const mailUser = 'backups@acme.example';
export const mailPassword = 'p@ss/w0rd?#:of%mail';

/** A mail server that knows one user. */
export class MailReceiver implements AsyncDisposable {
  readonly port: number;
  readonly mails: Mail[] = [];
  /** Every password that reached it, and whether over TLS. */
  readonly passwords: { readonly password: string | null | undefined; readonly secure: boolean }[] = [];
  readonly #server: SMTPServer;

  private constructor(server: SMTPServer, port: number) {
    this.#server = server;
    this.port = port;
  }

  static async start({ certificate, secure, plain, refused = [], foreign = [] }: MailOptions): Promise<MailReceiver> {
    let receiver: MailReceiver | undefined;
    const server = new SMTPServer({
      ...{ key: certificate.key, cert: certificate.cert, secure: secure ?? false, logger: false },
      ...(plain === true ? { hideSTARTTLS: true, disabledCommands: ['STARTTLS'], allowInsecureAuth: true } : {}),
      authOptional: true,
      onAuth: ({ username, password }, session, done) => {
        receiver?.passwords.push({ password, secure: session.secure });
        if (username === mailUser && password === mailPassword) done(null, { user: username });
        else done(new Error(`Invalid username or password: ${password}`));
      },
      onMailFrom: ({ address }, _session, done) =>
        done(foreign.includes(address) ? refusal('5.7.1 not your address') : null),
      onRcptTo: ({ address }, _session, done) => done(refused.includes(address) ? refusal('5.1.1 nobody here') : null),
      onData: (stream, session, done) => {
        text(stream).then((raw) => {
          const { mailFrom, rcptTo } = session.envelope;
          const from = mailFrom === false ? '' : mailFrom.address;
          const to = rcptTo.map(({ address }) => address);
          receiver?.mails.push({ from, to, raw, secure: session.secure, user: session.user });
          done();
        }, done);
      },
    });
    // A client that does not trust the certificate hangs up.
    server.on('error', () => {});
    server.listen(0, '127.0.0.1');
    await once(server.server, 'listening');
    receiver = new MailReceiver(server, (server.server.address() as AddressInfo).port);
    return receiver;
  }

  /** For `smtp-url`. */
  url(scheme: 'smtp' | 'smtps' = 'smtp', password = mailPassword): string {
    return `${scheme}://${encodeURIComponent(mailUser)}:${encodeURIComponent(password)}@127.0.0.1:${this.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise<void>((resolve) => this.#server.close(resolve));
  }
}

function refusal(message: string): Error {
  return Object.assign(new Error(message), { responseCode: 550 });
}

/** A mail's headers, folded lines joined, and its text, decoded. */
export function readMail(raw: string): { readonly headers: Readonly<Record<string, string>>; readonly text: string } {
  const [head = '', ...rest] = raw.split('\r\n\r\n');
  const lines = head.replace(/\r\n[ \t]+/g, ' ').split('\r\n');
  const headers = Object.fromEntries(
    lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]),
  );
  const body = rest.join('\r\n\r\n');
  const encoding = headers['content-transfer-encoding'];
  if (encoding === 'base64') return { headers, text: Buffer.from(body, 'base64').toString() };
  const bytes = body
    .replace(/=\r\n/g, '')
    .replace(/=([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  return { headers, text: encoding === 'quoted-printable' ? Buffer.from(bytes, 'latin1').toString() : body };
}
