import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { HashChain } from '../../src/postgres/hash.ts';
import { CopyDigest } from '../../src/postgres/table-copy.ts';
import { Cluster } from '../support/postgres.ts';

function seeded(seed: bigint): HashChain {
  const chain = new HashChain();
  chain.high = Number(BigInt.asIntN(32, seed >> 32n));
  chain.low = Number(BigInt.asIntN(32, seed));
  return chain;
}

test("0.22: a hash is the server's hashtextextended, for every length, text and seed", async () => {
  await using cluster = await Cluster.start();
  const seed = fc.oneof(
    fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n),
    fc.constantFrom(0n, 1n, -1n, 2n ** 32n, -(2n ** 32n), 2n ** 31n, 2n ** 63n - 1n, -(2n ** 63n)),
  );
  const text = fc.string({ unit: 'binary', maxLength: 150 }).map((drawn) => drawn.replaceAll('\0', ''));
  const cases: [string, bigint][] = [
    ...Array.from({ length: 301 }, (_, length): [string, bigint] => ['\u007f'.repeat(length), BigInt(length % 3)]),
    ...fc.sample(fc.tuple(text, seed), 5000),
  ];
  const rows = await cluster.query<{ hash: string }>(
    'postgres',
    `SELECT hashtextextended(text, seed)::text AS hash
     FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS c(text, seed, at) ORDER BY at`,
    [cases.map(([each]) => each), cases.map(([, each]) => each.toString())],
  );
  assert.equal(rows.length, cases.length);
  for (const [at, [drawn, from]] of cases.entries()) {
    const bytes = new TextEncoder().encode(drawn);
    const chain = seeded(from);
    chain.add(bytes, bytes.length);
    assert.equal(chain.value.toString(), rows[at]?.hash, `${JSON.stringify(drawn)} from ${from}`);
  }
});

test('a digest does not depend on where the stream is cut', () => {
  const line = fc.array(fc.constantFrom('a', 'ö', '\\t', '\\n', '\\\\', '\\N', '\t', '🐘', 'N', '\\b'), {
    maxLength: 40,
  });
  const copies = fc.array(line.map((parts) => `${parts.join('')}\n`));
  fc.assert(
    fc.property(copies, fc.array(fc.nat(12)), (lines, cuts) => {
      const bytes = Buffer.from(lines.join(''));
      const whole = new CopyDigest();
      whole.add(bytes);
      const parts = new CopyDigest();
      let at = 0;
      for (const cut of cuts) {
        parts.add(bytes.subarray(at, at + cut));
        at = Math.min(bytes.length, at + cut);
      }
      parts.add(bytes.subarray(at));
      assert.equal(parts.rows, lines.length);
      assert.equal(parts.value, whole.value);
    }),
  );
});

test('sums are exact beyond a million rows', () => {
  const [one, many] = [new CopyDigest(), new CopyDigest()];
  one.add(Buffer.from('x\n'));
  const thousand = Buffer.from('x\n'.repeat(1000));
  for (let part = 0; part < 2500; part += 1) many.add(thousand);
  assert.equal(many.rows, 2_500_000);
  assert.equal(many.value, 2_500_000n * one.value);
});
