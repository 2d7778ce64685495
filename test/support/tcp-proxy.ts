import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/** `up` is from the client to the server, `down` the way back. */
export type Direction = 'up' | 'down' | 'both';

export interface ProxyOptions {
  /** Calls `chunk` with every chunk before it is forwarded; a Buffer it returns is forwarded instead. */
  readonly onChunk?: (chunk: Buffer, direction: 'up' | 'down', proxy: TcpProxy) => Buffer | undefined;
}

interface Pair {
  readonly client: Socket;
  readonly server: Socket;
}

/** A TCP relay on loopback that can fall silent or break, as networks do. */
export class TcpProxy implements AsyncDisposable {
  readonly host = '127.0.0.1';
  readonly port: number;
  /** Bytes forwarded so far, over all connections. */
  readonly bytes = { up: 0, down: 0 };
  /** How many connections it has accepted so far. */
  accepted = 0;
  readonly #server: Server;
  readonly #target: { readonly host: string; readonly port: number };
  readonly #options: ProxyOptions;
  readonly #pairs = new Set<Pair>();
  readonly #stalled = { up: false, down: false };
  #refusing = false;

  private constructor(server: Server, target: { host: string; port: number }, options: ProxyOptions) {
    this.#server = server;
    this.#target = target;
    this.#options = options;
    this.port = (server.address() as AddressInfo).port;
    server.on('connection', (client) => this.#relay(client));
  }

  static async start(target: { host: string; port: number }, options: ProxyOptions = {}): Promise<TcpProxy> {
    const server = createServer({ pauseOnConnect: true, allowHalfOpen: true });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', resolve);
    });
    return new TcpProxy(server, target, options);
  }

  /** How many connections are open. */
  get open(): number {
    return this.#pairs.size;
  }

  /** `url` with this proxy's host and port in the place of its own. */
  through(url: string): string {
    return url.replace(/^([a-z]+:\/\/(?:[^@/]*@)?)[^/?]*/, `$1${this.host}:${this.port}`);
  }

  /** Forwards nothing any more, of old and new connections alike, while every socket stays open. */
  stall(direction: Direction = 'both'): void {
    this.#set(direction, true);
  }

  resume(direction: Direction = 'both'): void {
    this.#set(direction, false);
  }

  /** Resets every open connection on both sides (RST, no FIN). New ones are served. */
  cut(): void {
    for (const { client, server } of this.#pairs) {
      client.resetAndDestroy();
      server.resetAndDestroy();
    }
  }

  /** With true, new connections are reset as soon as they are made; with false they are served again. */
  refuse(refusing = true): void {
    this.#refusing = refusing;
  }

  async stop(): Promise<void> {
    for (const { client, server } of this.#pairs) {
      client.destroy();
      server.destroy();
    }
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  #set(direction: Direction, stalled: boolean): void {
    for (const way of direction === 'both' ? (['up', 'down'] as const) : [direction]) {
      this.#stalled[way] = stalled;
      for (const pair of this.#pairs) {
        const source = way === 'up' ? pair.client : pair.server;
        if (stalled) source.pause();
        else source.resume();
      }
    }
  }

  #relay(client: Socket): void {
    this.accepted += 1;
    if (this.#refusing) {
      client.resetAndDestroy();
      return;
    }
    const server = connect({ ...this.#target, allowHalfOpen: true });
    const pair = { client, server };
    this.#pairs.add(pair);
    this.#forward(pair, 'up');
    this.#forward(pair, 'down');
  }

  #forward(pair: Pair, direction: 'up' | 'down'): void {
    const [source, sink] = direction === 'up' ? [pair.client, pair.server] : [pair.server, pair.client];
    source.on('data', (received) => {
      const chunk = Buffer.from(received);
      const sent = this.#options.onChunk?.(chunk, direction, this) ?? chunk;
      if (sink.destroyed) return;
      this.bytes[direction] += sent.length;
      if (!sink.write(sent)) source.pause();
    });
    sink.on('drain', () => {
      if (!this.#stalled[direction]) source.resume();
    });
    source.on('end', () => sink.end());
    source.on('error', () => sink.resetAndDestroy());
    source.on('close', () => {
      this.#pairs.delete(pair);
      sink.destroySoon();
    });
    if (this.#stalled[direction]) source.pause();
    else source.resume();
  }
}
