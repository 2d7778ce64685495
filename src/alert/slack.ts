import type { HttpAddress } from './address.ts';
import { send } from './http.ts';

/** Posts `text`, in Slack's mrkdwn, to an incoming webhook of Slack's or of one that speaks like it. */
export async function postToSlack(address: HttpAddress, text: string, stop: AbortSignal): Promise<void> {
  const body = JSON.stringify({ text, mrkdwn: true, unfurl_links: false, unfurl_media: false });
  await send(address, { method: 'POST', headers: { 'content-type': 'application/json' }, body }, stop);
}
