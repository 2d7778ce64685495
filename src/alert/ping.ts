import type { HttpAddress } from './address.ts';
import { send } from './http.ts';
import { ChannelError } from './trouble.ts';

/** What a dead-man's switch is told, in the way of healthchecks.io: a run began, went well, failed. */
export type PingEvent = 'start' | 'success' | 'fail';

/** The address itself for a success, `/start` and `/fail` below it; a query stays where it is. */
export function pingAddress({ url, authorization }: HttpAddress, event: PingEvent): HttpAddress {
  const at = new URL(url);
  if (event !== 'success') at.pathname = `${at.pathname.replace(/\/+$/, '')}/${event}`;
  return { url: at, authorization };
}

/** Throws a `ChannelError`; healthchecks.io answers 200 for a check that it does not have, and says so in the text. */
export async function ping(address: HttpAddress, event: PingEvent, stop: AbortSignal): Promise<void> {
  const answer = await send(pingAddress(address, event), { method: 'GET' }, stop);
  if (/^OK \(not found\)$/i.test(answer)) throw new ChannelError({ kind: 'unknown-check' });
}
