import { setTimeout as sleep } from 'node:timers/promises';
import type { HttpAddress } from './address.ts';
import { ChannelError, type ChannelTrouble, networkTrouble } from './trouble.ts';

export interface Message {
  readonly method: 'GET' | 'POST';
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** Each request by itself, the reading of its answer included. */
const requestMs = 10_000;
/** Tries, the first one included. */
const tries = 3;
const firstPauseMs = 500;
/** A rate limit that passes sooner is waited for. */
const patienceSeconds = 5;
/** Of an answer no more is read. */
const mostAnswer = 2_000;

/**
 * Sends one request, and again when the other side failed in a way that may pass: a message told twice is better than
 * none. Never follows a redirect, which would take the message, and what is secret in it, to somebody else. Resolves with
 * the beginning of the answer's text; throws a `ChannelError` and nothing else; ends with `stop`.
 */
export async function send(address: HttpAddress, message: Message, stop: AbortSignal): Promise<string> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await once(address, message, stop);
    } catch (error) {
      if (!(error instanceof ChannelError) || attempt === tries || stop.aborted) throw error;
      const pause = pauseMs(error.trouble, attempt);
      if (pause === undefined) throw error;
      await sleep(pause, undefined, { signal: stop }).catch(() => {
        throw error;
      });
    }
  }
}

async function once({ url, authorization }: HttpAddress, message: Message, stop: AbortSignal): Promise<string> {
  const timeout = AbortSignal.timeout(requestMs);
  try {
    const response = await fetch(url, {
      method: message.method,
      headers: {
        'user-agent': 'pgassay',
        ...(authorization === undefined ? {} : { authorization }),
        ...message.headers,
      },
      body: message.body ?? null,
      redirect: 'manual',
      signal: AbortSignal.any([stop, timeout]),
    });
    const text = await beginningOf(response);
    if (response.ok) return text;
    throw new ChannelError(troubleOf(response, text));
  } catch (error) {
    if (error instanceof ChannelError) throw error;
    if (timeout.aborted || stop.aborted) throw new ChannelError({ kind: 'silent' }, error);
    throw new ChannelError(networkTrouble(error), error);
  }
}

async function beginningOf({ body }: Response): Promise<string> {
  if (body === null) return '';
  const decoder = new TextDecoder();
  let text = '';
  for await (const chunk of body) {
    text += decoder.decode(chunk, { stream: true });
    if (text.length >= mostAnswer) break;
  }
  return text.slice(0, mostAnswer).trim();
}

/** How long to wait before the next try; undefined: another one would not help. */
function pauseMs(trouble: ChannelTrouble, attempt: number): number | undefined {
  const pause = firstPauseMs * 3 ** (attempt - 1);
  if (trouble.kind === 'rate-limit')
    return trouble.waitSeconds !== undefined && trouble.waitSeconds <= patienceSeconds
      ? Math.max(trouble.waitSeconds * 1000, pause)
      : undefined;
  return trouble.kind === 'server' || trouble.kind === 'unreachable' ? pause : undefined;
}

function troubleOf({ status, headers }: Response, text: string): ChannelTrouble {
  if (status >= 500) return { kind: 'server', status };
  if (status === 429) {
    const after = headers.get('retry-after') ?? '';
    return { kind: 'rate-limit', waitSeconds: /^\d{1,6}$/.test(after) ? Number(after) : undefined };
  }
  if (status >= 300 && status < 400) return { kind: 'redirected', status };
  return { kind: 'refused', status, reason: /^[a-z]+(?:_[a-z]+)+$/.test(text) && text.length <= 50 ? text : undefined };
}
