import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { OutputPipe } from '../src/output-pipe.ts';
import { type Running, start } from '../src/program.ts';

const folder = mkdtempSync(join(tmpdir(), 'pgassay-test-'));
after(() => rmSync(folder, { recursive: true }));

async function started(command: string, place = folder): Promise<{ output: OutputPipe; program: Running }> {
  const output = await OutputPipe.open(place);
  const program = start({
    path: '/bin/sh',
    args: ['-c', command],
    env: { PATH: '/usr/bin:/bin' },
    stdout: output.stdout,
  });
  output.started();
  program.stdin.end();
  return { output, program };
}

/** `lines` numbers, as seq writes them. */
function numbers(lines: number): Buffer {
  return Buffer.from(Array.from({ length: lines }, (_, at) => `${at + 1}\n`).join(''));
}

const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

describe('what a program writes by gigabytes', () => {
  for (const [what, place, isPipe] of [
    ["a pipe of the kernel's", folder, true],
    ['a pair of sockets where there is no mkfifo', join(folder, 'absent'), false],
  ] as const) {
    test(`arrives whole and in order through ${what}, for a reader that takes it at once`, async () => {
      const { output, program } = await started('seq 300000', place);
      assert.equal(typeof output.stdout === 'number', isPipe);
      const hash = createHash('sha256');
      await output.read(program.stdout, (chunk) => void hash.update(chunk));
      assert.equal(hash.digest('hex'), sha256(numbers(300_000)));
      assert.equal((await program.exited).code, 0);
      assert.deepEqual(readdirSync(folder), []);
    });

    test(`arrives whole and in order through ${what}, for a reader that takes its time`, async () => {
      const { output, program } = await started('seq 60000; sleep 0.2; seq 60000', place);
      const hash = createHash('sha256');
      let turn = 0;
      await output.read(program.stdout, async (chunk) => {
        if (turn++ % 3 === 0) await sleep(2);
        else if (turn % 3 === 0) await Promise.resolve();
        // As late as it may be.
        hash.update(chunk);
      });
      assert.equal(hash.digest('hex'), sha256(Buffer.concat([numbers(60_000), numbers(60_000)])));
    });

    test(`says what the reader threw, through ${what}, and ends the program`, async () => {
      for (const take of [
        () => {
          throw new Error('no more of this');
        },
        () => Promise.reject(new Error('no more of this')),
      ]) {
        const { output, program } = await started('exec seq 30000000', place);
        await assert.rejects(output.read(program.stdout, take), /^Error: no more of this$/);
        assert.notEqual((await program.stop()).code, 0);
      }
    });
  }

  test('is not mistaken for the whole when the pipe is closed before its end', async () => {
    const { output, program } = await started('exec seq 30000000');
    const reading = output.read(program.stdout, () => sleep(5));
    await sleep(50);
    output.close();
    await assert.rejects(reading, /closed before its end/);
    assert.equal((await program.exited).signal, 'SIGPIPE');
  });

  test('is not mistaken for the whole when the pipe was closed before it was read', async () => {
    const { output, program } = await started('exec seq 30000000');
    output.close();
    await assert.rejects(
      output.read(program.stdout, () => undefined),
      /closed before its end/,
    );
    assert.equal((await program.exited).signal, 'SIGPIPE');
  });

  test('ends at once when the program cannot be started', async () => {
    const output = await OutputPipe.open(folder);
    const program = start({ path: join(folder, 'absent'), args: [], env: {}, stdout: output.stdout });
    output.started();
    await output.read(program.stdout, () => assert.fail('there is nothing to read'));
    await assert.rejects(program.exited, /ENOENT/);
  });

  test('leaves no descriptor behind, read or not', async () => {
    const open = (): number => readdirSync('/proc/self/fd').length;
    const before = open();
    for (let round = 0; round < 20; round++) {
      const { output, program } = await started('seq 10');
      if (round % 2 === 0) await output.read(program.stdout, () => undefined);
      output.close();
      await program.exited;
    }
    await sleep(50);
    assert.ok(open() <= before + 2, `${open()} descriptors, ${before} before`);
  });
});
