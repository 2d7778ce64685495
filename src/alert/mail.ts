import type { MailAddress, MailServer } from './address.ts';
import { ChannelError, type ChannelTrouble, networkTrouble } from './trouble.ts';

export interface Mail {
  readonly server: MailServer;
  readonly from: MailAddress;
  readonly to: readonly MailAddress[];
}

/** Between two answers of the server; the whole ends with `stop`. */
const answerMs = 10_000;

/**
 * Sends one mail of plain text. Resolves with how many addresses the server did not take, when it took any; throws a
 * `ChannelError` and nothing else. nodemailer is in the one bundle, and runs from here on: most runs
 * send nothing.
 */
export async function sendMail(
  { server, from, to }: Mail,
  { subject, text }: { readonly subject: string; readonly text: string },
  stop: AbortSignal,
): Promise<{ readonly refused: number }> {
  const { createTransport } = await import(/* webpackMode: "eager" */ 'nodemailer');
  const { host, port, secure, requireTls, login } = server;
  const transport = createTransport({
    ...{ host, port, secure, requireTLS: requireTls },
    ...(login === undefined ? {} : { auth: { user: login.user, pass: login.password } }),
    ...{ connectionTimeout: answerMs, greetingTimeout: answerMs, socketTimeout: answerMs, dnsTimeout: answerMs },
    ...{ socketCloseTimeout: 0, disableFileAccess: true, disableUrlAccess: true },
  });
  try {
    const { rejected } = await transport.sendMail({
      ...{ from: { ...from }, to: to.map((each) => ({ ...each })), subject, text, signal: stop },
      headers: { 'Auto-Submitted': 'auto-generated' },
    });
    return { refused: rejected.length };
  } catch (error) {
    throw new ChannelError(stop.aborted ? { kind: 'silent' } : troubleOf(error), error);
  }
}

/** Of nodemailer's errors only codes are used: their sentences repeat what the server said, and that may be anything. */
function troubleOf(error: unknown): ChannelTrouble {
  const { code, originalCode, command, responseCode } = (error ?? {}) as Readonly<Record<string, unknown>>;
  const status = typeof responseCode === 'number' ? responseCode : undefined;
  if (code === 'ETIMEDOUT') return { kind: 'silent' };
  if (code === 'EAUTH') return { kind: 'login', status };
  if (code === 'ETLS' && command === 'STARTTLS' && status !== undefined) return { kind: 'no-starttls' };
  if (code === 'EENVELOPE' && command === 'MAIL FROM') return { kind: 'mail-refused', status, what: 'sender' };
  if (code === 'EENVELOPE' && command === 'RCPT TO') return { kind: 'mail-refused', status, what: 'everybody' };
  if (code === 'EMESSAGE' || code === 'EENVELOPE') return { kind: 'mail-refused', status, what: 'text' };
  return networkTrouble({ code: originalCode ?? code });
}
