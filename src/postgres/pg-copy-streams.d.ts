/** The part of pg-copy-streams that is used here; it comes without types. */
declare module 'pg-copy-streams' {
  import type { Readable } from 'node:stream';
  import type { Submittable } from 'pg';

  /** For `client.query`: the data of a `COPY … TO STDOUT`, with backpressure. */
  export function to(text: string): Readable & Submittable;
}
