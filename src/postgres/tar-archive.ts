import { type FileHandle, open } from 'node:fs/promises';
import { Failure } from '../failure.ts';

const block = 512;

interface Member {
  readonly name: string;
  readonly at: number;
  readonly bytes: number;
}

/** Throws a `Failure` (exit 40) for a tar file that was cut off: pg_restore would look for its end for ever. */
export async function requireWholeTar(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    for await (const _ of members(file, path));
  } finally {
    await file.close();
  }
}

/** The bytes of `toc.dat`. The same. */
export async function* tocOfTar(path: string): AsyncGenerator<Buffer> {
  const file = await open(path, 'r');
  try {
    for await (const { name, at, bytes } of members(file, path)) {
      if (name !== 'toc.dat') continue;
      const content = Buffer.alloc(bytes);
      await file.read(content, 0, bytes, at);
      yield content;
      return;
    }
  } finally {
    await file.close();
  }
}

/** As pg_dump -Ft writes them: plain ustar headers, sizes in octal, or in base 256 from 8 GiB on. */
async function* members(file: FileHandle, path: string): AsyncGenerator<Member> {
  const header = Buffer.alloc(block);
  const { size } = await file.stat();
  for (let at = 0; ; ) {
    const { bytesRead } = await file.read(header, 0, block, at);
    if (bytesRead < block) throw cutOff(path);
    if (header.every((byte) => byte === 0)) return;
    const name = header.toString('latin1', 0, 100).split('\0', 1)[0] ?? '';
    const bytes = sizeIn(header.subarray(124, 136));
    if (!Number.isSafeInteger(bytes)) throw cutOff(path);
    yield { name, at: at + block, bytes };
    at += block + Math.ceil(bytes / block) * block;
    if (at > size) throw cutOff(path);
  }
}

function sizeIn(field: Buffer): number {
  if ((field[0] ?? 0) & 0x80) return field.subarray(1).reduce((sum, byte) => sum * 256 + byte, 0);
  const digits = field.toString('latin1').replace(/[\0 ]/g, '');
  return /^[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : Number.NaN;
}

function cutOff(path: string): Failure {
  return new Failure('validate', 'verification', `${path} is a tar archive without its end: it was cut off`, {
    hint: 'what is missing cannot be restored; look for another copy',
  });
}
