import { once } from 'node:events';
import { createServer, type IncomingMessage, request as open, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';

export type Operation =
  | 'CreateMultipartUpload'
  | 'UploadPart'
  | 'CompleteMultipartUpload'
  | 'AbortMultipartUpload'
  | 'PutObject'
  | 'GetObject'
  | 'HeadObject'
  | 'DeleteObject'
  | 'DeleteObjects'
  | 'PutObjectRetention'
  | 'GetObjectRetention'
  | 'HeadBucket'
  | 'ListObjectsV2'
  | 'ListObjectVersions'
  | 'ListMultipartUploads'
  | 'Other';

export interface Answer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer | string;
}

export type Fault =
  /** An S3 error of the proxy's own, once the request's body is read; the server hears nothing of it. */
  | { readonly kind: 'status'; readonly status: number; readonly code: string; readonly message?: string }
  /** As 'status', but the error comes with 200, as of a copy or a completion that failed late. */
  | { readonly kind: 'ok-with-error'; readonly code: string; readonly message?: string }
  /** RST after half of the request's body, or at once when it has none; the server hears nothing of it. */
  | { readonly kind: 'reset' }
  /** The server does it and answers, but the client gets an RST. */
  | { readonly kind: 'reset-after' }
  /** Reads nothing and answers nothing until `release` or `stop`; the server hears nothing of it. */
  | { readonly kind: 'stall' }
  /** No faster than this, in each direction. */
  | { readonly kind: 'slow'; readonly bytesPerSecond: number }
  /** The connection ends (FIN) after so many bytes of the answer's body, whatever its content-length says. */
  | { readonly kind: 'truncate'; readonly bytes: number }
  /** One bit in the middle of the answer's body is flipped. */
  | { readonly kind: 'corrupt' }
  /** One bit in the middle of the request's body is flipped on the way to the server. */
  | { readonly kind: 'corrupt-request' }
  /** The answer comes without these headers. */
  | { readonly kind: 'drop-response-headers'; readonly headers: readonly string[] }
  /** Whatever this says, before anything of the request's body is read; undefined forwards the request. */
  | { readonly kind: 'function'; readonly answer: (request: Readonly<Exchange>) => Answer | undefined };

/** One request, and what became of it. */
export interface Exchange {
  readonly operation: Operation;
  readonly method: string;
  /** `/bucket/key`, decoded. */
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  /** The request's, with names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** What the client was answered; undefined as long as nothing was. */
  readonly status: number | undefined;
  /** Whether the connection ended before the whole answer was sent. */
  readonly aborted: boolean;
}

export interface FaultRange {
  /** The first request that fails, counted from now on; 1. */
  readonly nth?: number;
  /** How many fail from there on; 1. `Infinity` for all of them. */
  readonly times?: number;
}

interface Rule {
  readonly operation: Operation | '*';
  readonly fault: Fault;
  readonly first: number;
  readonly end: number;
  seen: number;
}

type Writable<T> = { -readonly [Name in keyof T]: T[Name] };

/**
 * An HTTP proxy on loopback in front of an S3 server, which breaks what it is told to break and forwards everything else
 * as it comes. The client signs for the proxy's host, which the server is shown.
 */
export class S3Proxy implements AsyncDisposable {
  readonly endpoint: string;
  /** Every request in the order of arrival, those under way included. */
  readonly requests: readonly Readonly<Exchange>[];
  /** By how much the clock in the answers' Date header is ahead of the true one. */
  skewMs = 0;
  /** How much older than they are objects, uploads and parts look in every list. */
  olderMs = 0;
  readonly #server: Server;
  readonly #target: URL;
  readonly #log: Writable<Exchange>[] = [];
  readonly #stalled = new Set<IncomingMessage>();
  #rules: Rule[] = [];

  private constructor(server: Server, target: string) {
    this.endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    this.requests = this.#log;
    this.#server = server;
    this.#target = new URL(target);
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      // Either side may vanish at any moment; the other one then learns it the same way.
      this.#serve(request, response).catch(() => response.destroy());
    });
  }

  static async start(server: { readonly endpoint: string }): Promise<S3Proxy> {
    // What is idle, slow or stalled stays open for as long as the client likes.
    const proxy = createServer({ keepAliveTimeout: 0, requestTimeout: 0, headersTimeout: 0 });
    proxy.listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    return new S3Proxy(proxy, server.endpoint);
  }

  /** Of several faults for the same request, the one that was asked for last happens. '*' is every operation. */
  fail(operation: Operation | '*', fault: Fault, { nth = 1, times = 1 }: FaultRange = {}): void {
    this.#rules.unshift({ operation, fault, first: nth, end: nth + times, seen: 0 });
  }

  /** No further request fails. Those that do already are left as they are. */
  heal(): void {
    this.#rules = [];
  }

  /** Resets the connections of stalled requests. */
  release(): void {
    for (const request of this.#stalled) request.socket.resetAndDestroy();
  }

  /** The log's entries of one operation. */
  requestsOf(operation: Operation): Readonly<Exchange>[] {
    return this.#log.filter((each) => each.operation === operation);
  }

  /** The headers of each request of one operation, with names in lower case. */
  headersSeen(operation: Operation): Readonly<Record<string, string>>[] {
    return this.requestsOf(operation).map(({ headers }) => headers);
  }

  async stop(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const exchange = described(request);
    this.#log.push(exchange);
    response.once('close', () => {
      exchange.aborted = !response.writableFinished;
      this.#stalled.delete(request);
    });
    const fault = this.#faultFor(exchange.operation);
    switch (fault?.kind) {
      case 'status':
        return this.#answer(exchange, request, response, () => s3Error(fault.status, fault));
      case 'ok-with-error':
        return this.#answer(exchange, request, response, () => s3Error(200, fault));
      case 'function':
        return this.#answer(exchange, request, response, () => fault.answer(exchange));
      case 'stall':
        this.#stalled.add(request);
        return;
      case 'reset':
        await half(request);
        request.socket.resetAndDestroy();
        return;
      default:
        return this.#forward(exchange, request, response, fault);
    }
  }

  #faultFor(operation: Operation): Fault | undefined {
    const matching = this.#rules.filter((rule) => rule.operation === operation || rule.operation === '*');
    for (const rule of matching) rule.seen += 1;
    return matching.find(({ seen, first, end }) => seen >= first && seen < end)?.fault;
  }

  async #answer(
    exchange: Writable<Exchange>,
    request: IncomingMessage,
    response: ServerResponse,
    say: () => Answer | undefined,
  ): Promise<void> {
    const answer = say();
    if (answer === undefined) return this.#forward(exchange, request, response, undefined);
    for await (const _ of request);
    const body = Buffer.from(answer.body ?? '');
    const headers = Object.entries({
      'content-length': String(body.length),
      'x-amz-request-id': 'PROXY',
      date: new Date().toUTCString(),
      ...answer.headers,
    });
    this.#head(exchange, response, answer.status, headers);
    response.end(body);
  }

  async #forward(
    exchange: Writable<Exchange>,
    request: IncomingMessage,
    response: ServerResponse,
    fault: Fault | undefined,
  ): Promise<void> {
    const upstream = open({
      ...{ host: this.#target.hostname, port: this.#target.port, method: exchange.method, path: request.url },
      // The server would not read the rest of a refused body on a connection it is to close, but reset it.
      headers: [...forwardedHeaders(request), ['connection', 'keep-alive']].flat(),
      agent: false,
    });
    upstream.on('error', () => {});
    response.once('close', () => {
      if (!response.writableFinished) upstream.destroy();
    });
    const answered = once(upstream, 'response') as Promise<[IncomingMessage]>;
    const size = lengthOf(request);
    const sent = pipeline(
      request.iterator({ destroyOnReturn: false }),
      (body) => (fault?.kind === 'slow' ? paced(body, fault.bytesPerSecond) : body),
      (body) => (fault?.kind === 'corrupt-request' ? flipped(body, size) : body),
      upstream,
    );
    sent.catch(() => request.resume());
    const [answer] = await answered;
    // A server may answer without having read everything. A client that is busy sending the rest still needs a reader.
    answer.once('end', () => upstream.destroy());
    if (fault?.kind === 'reset-after') {
      for await (const _ of answer);
      request.socket.resetAndDestroy();
      return;
    }
    const dropped = fault?.kind === 'drop-response-headers' ? fault.headers.map((name) => name.toLowerCase()) : [];
    const headers = pairs(answer.rawHeaders).filter(([name]) => !dropped.includes(name.toLowerCase()));
    this.#head(exchange, response, answer.statusCode ?? 502, headers);
    if (fault?.kind === 'truncate') {
      // With no byte of a body to follow, they would stay here.
      response.flushHeaders();
      await pipeline(answer, (body) => beginning(body, fault.bytes), response, { end: false });
      request.socket.destroySoon();
      return;
    }
    const isList = exchange.method === 'GET' && /xml/.test(answer.headers['content-type'] ?? '');
    await pipeline(
      answer,
      (body) => (isList && this.olderMs !== 0 ? aged(body, this.olderMs) : body),
      (body) => (fault?.kind === 'slow' ? paced(body, fault.bytesPerSecond) : body),
      (body) => (fault?.kind === 'corrupt' ? flipped(body, lengthOf(answer)) : body),
      response,
    );
  }

  /** `headers` go out as they are, but for those that concern one connection only and the time. */
  #head(
    exchange: Writable<Exchange>,
    response: ServerResponse,
    status: number,
    headers: readonly (readonly [string, string])[],
  ): void {
    exchange.status = status;
    response.sendDate = false;
    const skewed = headers
      .filter(([name]) => !/^(connection|keep-alive)$/i.test(name))
      .map(([name, value]) =>
        name.toLowerCase() === 'date' ? [name, new Date(Date.parse(value) + this.skewMs).toUTCString()] : [name, value],
      );
    response.writeHead(status, skewed.flat());
  }
}

/** A time keeps its length, and the answer its own. */
async function* aged(body: AsyncIterable<Buffer>, ms: number): AsyncGenerator<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of body) chunks.push(chunk);
  const older = (time: string): string => new Date(Date.parse(time) - ms).toISOString();
  yield Buffer.from(
    Buffer.concat(chunks)
      .toString('utf8')
      .replace(/(?<=<(?:LastModified|Initiated)>)[^<]+/g, older),
  );
}

function described(request: IncomingMessage): Writable<Exchange> {
  const [path = '', query = ''] = (request.url ?? '').split(/\?(.*)/s);
  const method = request.method ?? '';
  const parameters = Object.fromEntries(new URLSearchParams(query));
  const decoded = decodeURIComponent(path);
  return {
    operation: operationOf(method, decoded, parameters),
    method,
    path: decoded,
    query: parameters,
    headers: Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, String(value)])),
    status: undefined,
    aborted: false,
  };
}

/** What a request is, by its method and the parameters that it must have. The first match counts. */
const objectOperations: readonly (readonly [Operation, string, ...string[]])[] = [
  ['CreateMultipartUpload', 'POST', 'uploads'],
  ['UploadPart', 'PUT', 'uploadId', 'partNumber'],
  ['CompleteMultipartUpload', 'POST', 'uploadId'],
  ['AbortMultipartUpload', 'DELETE', 'uploadId'],
  ['PutObjectRetention', 'PUT', 'retention'],
  ['GetObjectRetention', 'GET', 'retention'],
];
const bucketOperations: readonly (readonly [Operation, string, ...string[]])[] = [
  ['ListObjectsV2', 'GET', 'list-type'],
  ['ListObjectVersions', 'GET', 'versions'],
  ['ListMultipartUploads', 'GET', 'uploads'],
  ['DeleteObjects', 'POST', 'delete'],
];
const plainOperations: Readonly<Record<string, Operation>> = {
  PUT: 'PutObject',
  GET: 'GetObject',
  HEAD: 'HeadObject',
  DELETE: 'DeleteObject',
};

function operationOf(method: string, path: string, query: Readonly<Record<string, string>>): Operation {
  const [, bucket = '', key = ''] = path.split(/^\/([^/]*)\/?/);
  if (bucket === '') return 'Other';
  const known = (key === '' ? bucketOperations : objectOperations).find(
    ([, verb, ...parameters]) => verb === method && parameters.every((name) => name in query),
  );
  if (known !== undefined) return known[0];
  // A parameter without a value names something about the object instead of itself: `?tagging`.
  if ('uploadId' in query || Object.values(query).includes('')) return 'Other';
  if (key === '') return method === 'HEAD' ? 'HeadBucket' : 'Other';
  return plainOperations[method] ?? 'Other';
}

function s3Error(status: number, { code, message = code }: { code: string; message?: string }): Answer {
  const xml = `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>${message}</Message></Error>`;
  return { status, headers: { 'content-type': 'application/xml' }, body: xml };
}

/** As the client spelled them, but for those of its connection; it has been told to continue already. */
function forwardedHeaders(request: IncomingMessage): (readonly [string, string])[] {
  const headers = pairs(request.rawHeaders).filter(([name]) => !/^(connection|keep-alive|expect)$/i.test(name));
  const framed = headers.some(([name]) => /^(content-length|transfer-encoding)$/i.test(name));
  // Otherwise an empty body would be sent in chunks, which the client did not.
  return framed || !/^(PUT|POST|DELETE)$/.test(request.method ?? '') ? headers : [...headers, ['content-length', '0']];
}

function pairs(raw: readonly string[]): (readonly [string, string])[] {
  return raw.flatMap((name, i) => (i % 2 === 0 ? [[name, raw[i + 1] ?? ''] as const] : []));
}

function lengthOf(message: IncomingMessage): number | undefined {
  const header = message.headers['content-length'];
  return header === undefined ? undefined : Number(header);
}

/** Reads half of the body, or a first piece of one whose length is unknown, and leaves the rest. */
async function half(request: IncomingMessage): Promise<void> {
  let left = (lengthOf(request) ?? 0) / 2;
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    left -= chunk.length;
    if (left <= 0) return;
  }
}

async function* beginning(body: AsyncIterable<Buffer>, bytes: number): AsyncGenerator<Buffer> {
  let left = bytes;
  if (left <= 0) return;
  for await (const chunk of body) {
    yield chunk.subarray(0, left);
    left -= chunk.length;
    if (left <= 0) return;
  }
}

async function* paced(body: AsyncIterable<Buffer>, bytesPerSecond: number): AsyncGenerator<Buffer> {
  const step = Math.max(1, Math.floor(bytesPerSecond / 20));
  for await (const chunk of body) {
    for (let at = 0; at < chunk.length; at += step) {
      const piece = chunk.subarray(at, at + step);
      await sleep((piece.length / bytesPerSecond) * 1000);
      yield piece;
    }
  }
}

/** Flips the lowest bit of the byte in the middle; of the first piece's middle when the length is unknown. */
async function* flipped(body: AsyncIterable<Buffer>, length: number | undefined): AsyncGenerator<Buffer> {
  let target = length === undefined ? undefined : Math.floor(length / 2);
  let at = 0;
  for await (const received of body) {
    const chunk = Buffer.from(received);
    target ??= Math.floor(chunk.length / 2);
    const byte = chunk[target - at];
    if (byte !== undefined) chunk[target - at] = byte ^ 1;
    at += chunk.length;
    yield chunk;
  }
}
