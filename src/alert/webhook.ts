import { createHmac } from 'node:crypto';
import type { HttpAddress } from './address.ts';
import { send } from './http.ts';

/** Of the very bytes of the body, as `sha256=` and hexadecimal digits; GitHub signs its own webhooks like this. */
export const signatureHeader = 'x-pgassay-signature-256';

export function signatureOf(body: string, secret: string): string {
  return `sha256=${createHmac('sha256', secret).update(body).digest('hex')}`;
}

/** Posts `payload` as JSON, signed when there is a secret. */
export async function postJson(
  { address, secret }: { readonly address: HttpAddress; readonly secret: string | undefined },
  payload: unknown,
  stop: AbortSignal,
): Promise<void> {
  const body = JSON.stringify(payload);
  const signed = secret === undefined ? {} : { [signatureHeader]: signatureOf(body, secret) };
  await send(address, { method: 'POST', headers: { 'content-type': 'application/json', ...signed }, body }, stop);
}
