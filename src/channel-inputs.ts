import {
  type AddressProblem,
  type HttpAddress,
  type MailAddress,
  parseHttpAddress,
  parseMailAddress,
  parseMailServer,
  secretsInUrl,
} from './alert/address.ts';
import type { Mail } from './alert/mail.ts';
import type { Inputs, ReadInput } from './inputs.ts';

/** Every input that names somebody to be told beside the issue. */
export const channelInputs: readonly string[] = [
  'slack-webhook-url',
  'webhook-url',
  'webhook-secret',
  'smtp-url',
  'email-from',
  'email-to',
  'ping-url',
];

/** Who is told of a run; undefined: not asked for. */
export interface Channels {
  readonly slack: HttpAddress | undefined;
  readonly webhook: { readonly address: HttpAddress; readonly secret: string | undefined } | undefined;
  readonly mail: Mail | undefined;
  /** A dead-man's switch, which is told of each run whatever `notify-on` says. */
  readonly ping: HttpAddress | undefined;
}

const mostRecipients = 50;

/** Never throws: problems are added to `inputs`, without a piece of a URL in them, and the other channels can be used. */
export function readChannels(inputs: Inputs): Channels {
  const webhook = readHttp(inputs, 'webhook-url');
  const secret = inputs.optional('webhook-secret');
  if (secret !== undefined && inputs.optional('webhook-url') === undefined)
    inputs.problem('webhook-secret', 'is given without webhook-url, so nothing is signed with it');
  return {
    slack: readHttp(inputs, 'slack-webhook-url'),
    webhook: webhook && { address: webhook, secret },
    mail: readMail(inputs),
    ping: readHttp(inputs, 'ping-url'),
  };
}

/** What of these inputs must not be printed, whether they can be read or not. */
export function secretsOfChannels(read: ReadInput): string[] {
  const urls = ['slack-webhook-url', 'webhook-url', 'smtp-url', 'ping-url'].flatMap((name) => read(name)?.trim() || []);
  return [...urls.flatMap(secretsInUrl), ...(read('webhook-secret')?.trim() || [])];
}

function readHttp(inputs: Inputs, name: string): HttpAddress | undefined {
  const text = inputs.optional(name);
  if (text === undefined) return undefined;
  const parsed = parseHttpAddress(text);
  if ('address' in parsed) return parsed.address;
  report(inputs, name, parsed);
  return undefined;
}

function readMail(inputs: Inputs): Mail | undefined {
  const url = inputs.optional('smtp-url');
  const from = inputs.optional('email-from');
  const to = inputs.lines('email-to').flatMap((line) => line.split(','));
  const wanted = [...new Set(to.map((each) => each.trim()).filter((each) => each !== ''))];
  if (url === undefined) {
    for (const [name, given] of [
      ['email-from', from !== undefined],
      ['email-to', wanted.length > 0],
    ] as const)
      if (given) inputs.problem(name, 'is given without smtp-url, so no mail is sent');
    return undefined;
  }
  const parsed = parseMailServer(url);
  if ('problem' in parsed) report(inputs, 'smtp-url', parsed);
  const sender = readAddress(inputs, 'email-from', from);
  if (wanted.length === 0) readAddress(inputs, 'email-to', undefined);
  if (wanted.length > mostRecipients)
    inputs.problem(
      'email-to',
      `names ${wanted.length} addresses; ${mostRecipients} are the most`,
      'use a mailing list',
    );
  const recipients = wanted.map((each) => readAddress(inputs, 'email-to', each));
  if ('problem' in parsed || sender === undefined) return undefined;
  const readable = recipients.filter((each) => each !== undefined);
  return readable.length === 0 ? undefined : { server: parsed.server, from: sender, to: readable };
}

function readAddress(inputs: Inputs, name: string, text: string | undefined): MailAddress | undefined {
  if (text === undefined) {
    inputs.problem(name, 'is required with smtp-url and was empty', 'ops@acme.example, for instance');
    return undefined;
  }
  const address = parseMailAddress(text);
  if (address === undefined)
    inputs.problem(name, `${JSON.stringify(text)} is no mail address`, 'ops@acme.example, or Ops <ops@acme.example>');
  return address;
}

function report(inputs: Inputs, name: string, { problem, hint }: AddressProblem): void {
  inputs.problem(name, problem, hint);
}
