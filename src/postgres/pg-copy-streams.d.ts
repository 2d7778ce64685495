/** The part of pg-copy-streams that is used here; it comes without types. */
declare module 'pg-copy-streams' {
  import type { Readable, Writable } from 'node:stream';
  import type { Submittable } from 'pg';

  /** For `client.query`: the data of a `COPY … TO STDOUT`, with backpressure. */
  export function to(text: string): Readable & Submittable;

  /** For `client.query`: takes the data of a `COPY … FROM STDIN`; finished when the server has answered. */
  export function from(text: string): Writable & Submittable & { readonly rowCount: number };
}
