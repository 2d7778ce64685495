import { randomUUID } from 'node:crypto';
import type { HttpAddress } from './alert/address.ts';
import { sendMail } from './alert/mail.ts';
import { type PingEvent, ping } from './alert/ping.ts';
import { postToSlack } from './alert/slack.ts';
import { ChannelError, type ChannelTrouble } from './alert/trouble.ts';
import { postJson } from './alert/webhook.ts';
import type { NotifyOn, Report } from './alert-state.ts';
import type { Channels } from './channel-inputs.ts';
import type { Log } from './log.ts';
import { formatCount } from './numbers.ts';
import {
  type KnownOfRun,
  type MessageContext,
  messageJson,
  messageOf,
  plainText,
  slackText,
} from './report/message.ts';

export interface ChannelIo {
  readonly log: Log;
  /** Ends whatever is under way. */
  readonly stop: AbortSignal;
}

/** All channels at once, and no longer: none of them is worth a step that hangs. */
const wholeMs = 20_000;

/**
 * Whether the channels are told of a run. What the issue knows decides under `change`; without it nobody remembers
 * anything, and `change` is `failure`.
 */
export function isTold(notifyOn: NotifyOn, report: Report, known: KnownOfRun | undefined): boolean {
  if (notifyOn === 'always') return true;
  if (report.outcome === 'failed') return known === undefined || known.news;
  return notifyOn === 'change' && known?.news === true;
}

/**
 * Tells Slack, the webhook and the mail server of one run, side by side. Never throws: whatever a channel does is a
 * warning of its own. `report` and `context` hold no secret any more.
 */
export async function tellChannels(
  { slack, webhook, mail }: Channels,
  context: MessageContext,
  report: Report,
  io: ChannelIo,
): Promise<void> {
  const message = messageOf(context, report);
  const told: Promise<void>[] = [];
  if (slack !== undefined)
    told.push(
      attempt('slack-webhook-url', slack.url.hostname, io, async (stop) => {
        await postToSlack(slack, slackText(message), stop);
        return `told ${slack.url.hostname}`;
      }),
    );
  if (webhook !== undefined)
    told.push(
      attempt('webhook-url', webhook.address.url.hostname, io, async (stop) => {
        await postJson(webhook, messageJson(context, report, { id: randomUUID(), message }), stop);
        return `told the webhook at ${webhook.address.url.hostname}`;
      }),
    );
  if (mail !== undefined)
    told.push(
      attempt('smtp-url', mail.server.host, io, async (stop) => {
        const { refused } = await sendMail(mail, { subject: message.title, text: plainText(message) }, stop);
        if (refused > 0)
          io.log.warn(
            `email-to: ${mail.server.host} did not take ${formatCount(refused, 'recipient')} of ${mail.to.length}; the others were mailed`,
          );
        return `mailed ${formatCount(mail.to.length - refused, 'recipient')} through ${mail.server.host}`;
      }),
    );
  await Promise.all(told);
}

/** Tells a dead-man's switch. Never throws. */
export function tellSwitch(address: HttpAddress, event: PingEvent, io: ChannelIo): Promise<void> {
  const { hostname } = address.url;
  return attempt('ping-url', hostname, io, async (stop) => {
    await ping(address, event, stop);
    return `pinged ${hostname}: ${event}`;
  });
}

/** `work` resolves with what to say when it went well. */
async function attempt(
  input: string,
  host: string,
  { log, stop }: ChannelIo,
  work: (stop: AbortSignal) => Promise<string>,
): Promise<void> {
  try {
    log.info(await work(AbortSignal.any([stop, AbortSignal.timeout(wholeMs)])));
  } catch (error) {
    const why = error instanceof ChannelError ? sentenceOf(error.trouble, host) : 'an error that nobody foresaw';
    log.warn(`${input}: the message did not arrive: ${why}; the result of this run is not changed by that`);
  }
}

function sentenceOf(trouble: ChannelTrouble, host: string): string {
  switch (trouble.kind) {
    case 'refused':
      return `${host} answered ${trouble.status}${trouble.reason === undefined ? '' : ` (${trouble.reason})`}. ${refusal(trouble.status, trouble.reason)}`;
    case 'redirected':
      return `${host} answered ${trouble.status} and names another address, which is not followed, because the message would go to somebody else: give the final address`;
    case 'rate-limit':
      return `${host} takes no more for now (429)${trouble.waitSeconds === undefined ? '' : `, for another ${trouble.waitSeconds} s`}`;
    case 'server':
      return `${host} answered ${trouble.status}, three times`;
    case 'unreachable':
      return `${host} cannot be reached (${trouble.code})`;
    case 'untrusted':
      return `the certificate of ${host} cannot be trusted (${trouble.code}); a company's own authority goes into the file that NODE_EXTRA_CA_CERTS names`;
    case 'silent':
      return `${host} did not answer in time`;
    case 'unknown-check':
      return `${host} knows no such check; copy its ping URL again`;
    case 'no-starttls':
      return `${host} does not offer STARTTLS, and nothing is sent in the clear; is the port that of submission (587), or smtps:// meant`;
    case 'login':
      return `${host} refused the login${coded(trouble.status)}; see user and password of smtp-url, where an account with a second factor needs a password for this alone`;
    case 'mail-refused':
      return `${host} refused ${refusedWords[trouble.what]}${coded(trouble.status)}`;
  }
}

const refusedWords = {
  sender: 'the sender; email-from must be an address that this account may use',
  everybody: 'every address of email-to',
  text: 'the message',
};

function coded(status: number | undefined): string {
  return status === undefined ? '' : ` (${status})`;
}

function refusal(status: number, reason: string | undefined): string {
  if (reason === 'channel_is_archived')
    return 'The channel is archived: unarchive it, or make a webhook for another one';
  if (reason === 'invalid_payload' || status === 400)
    return 'It did not take the message; is it the kind of webhook that this input is for';
  if (status === 401 || status === 403) return 'It does not let this address in: make a new one';
  if (status === 404 || status === 410) return 'The address is not there any more: make a new one';
  return 'Try the address by hand';
}
