import { closeSync, constants, openSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { Socket } from 'node:net';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { run } from './program.ts';

/** What a pipe of Linux holds. */
const pipeBytes = 64 * 1024;
const mkfifo = '/usr/bin/mkfifo';

/**
 * Carries the output of a program that writes gigabytes, in pieces of 4 KiB as pg_dump and pg_restore do. What `spawn`
 * calls a pipe is a pair of sockets, where every piece costs a message, and reading it a new buffer of 64 KiB: together
 * a tenth of a backup's CPU time. This one is the kernel's, read into the same buffer again and again.
 */
export class OutputPipe {
  /** The program's standard output, for `start`. */
  readonly stdout: number | 'pipe';
  #readEnd: number | Socket | undefined;

  private constructor(ends: { readonly read: number; readonly write: number } | undefined) {
    this.stdout = ends?.write ?? 'pipe';
    this.#readEnd = ends?.read;
  }

  /** `folder` is a private one. Where the system has no mkfifo, the one way to such a pipe from here, it is the sockets. */
  static async open(folder: string): Promise<OutputPipe> {
    const path = join(folder, `pipe-${process.hrtime.bigint()}`);
    const made = await run({ path: mkfifo, args: ['-m', '600', path], env: {} }).catch(() => undefined);
    if (made?.code !== 0) return new OutputPipe(undefined);
    const read = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const write = openSync(path, constants.O_WRONLY);
    await rm(path);
    return new OutputPipe({ read, write });
  }

  /** The program has its end: without ours, its own end is the end of the stream. */
  started(): void {
    if (typeof this.stdout === 'number') closeSync(this.stdout);
  }

  /**
   * Gives `take` every chunk up to the end, the next one when it has resolved; the memory of a chunk is used again then.
   * `stdout` is the program's. Rejects with what `take` throws, and when the pipe is closed before its end.
   */
  async read(stdout: Readable, take: (chunk: Buffer) => Promise<void> | undefined): Promise<void> {
    if (this.stdout === 'pipe') {
      for await (const chunk of stdout as AsyncIterable<Buffer>) await take(chunk);
      return;
    }
    const closed = (): Error => new Error('the pipe was closed before its end');
    if (typeof this.#readEnd !== 'number') throw closed();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const fail = (error: unknown): false => {
      reject(error);
      socket.destroy();
      return false;
    };
    const callback = (bytes: number, buffer: Uint8Array): boolean => {
      try {
        const taken = take(buffer.subarray(0, bytes) as Buffer);
        if (taken === undefined) return true;
        taken.then(() => socket.resume(), fail);
        return false;
      } catch (error) {
        return fail(error);
      }
    };
    const onread = { buffer: Buffer.allocUnsafeSlow(pipeBytes), callback };
    const socket = new Socket({ fd: this.#readEnd, readable: true, writable: false, onread });
    this.#readEnd = socket;
    socket.once('end', resolve).once('error', reject);
    socket.once('close', () => reject(closed()));
    socket.resume();
    return promise;
  }

  /** For a reader that has lost interest. */
  close(): void {
    if (typeof this.#readEnd === 'number') closeSync(this.#readEnd);
    else this.#readEnd?.destroy();
    this.#readEnd = undefined;
  }
}
