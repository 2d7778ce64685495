import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { recoveryChart, sizeChart } from '../../src/report/mermaid.ts';
import { nightly } from '../support/page.ts';

const manifests = (nights: number) =>
  nightly(nights)
    .catalog.backups.map(({ manifest }) => manifest)
    .toReversed();

describe('the charts of a job summary', () => {
  test('two backups say nothing over time, three do', () => {
    assert.deepEqual(sizeChart(manifests(2)), []);
    const [block = '', blank] = sizeChart(manifests(3));
    assert.equal(blank, '');
    assert.match(
      block,
      /^```mermaid\nxychart-beta\n {2}title "Size of the last 3 backups"\n {2}x-axis \["11-19", "11-20", "11-21"\]\n {2}y-axis "MB" 0 --> 387\n {2}bar \[386, 387, 383\]\n```$/,
    );
  });

  test('of many the last 30 are shown, and no number has an exponent', () => {
    const tiny = manifests(40).map((each) => ({ ...each, files: each.files.map((file) => ({ ...file, bytes: 1 })) }));
    for (const chart of [sizeChart(manifests(40)), sizeChart(tiny)]) {
      const [, values = ''] = /bar \[(.*)\]/.exec(chart[0] ?? '') ?? [];
      assert.equal(values.split(', ').length, 30);
      assert.match(values, /^[\d., ]+$/);
    }
  });

  test('recoveries are drawn from the oldest to the newest, in minutes when they take some', () => {
    const tests = [...nightly(30).proofs.values()].flat().toReversed();
    const [block = ''] = recoveryChart(tests);
    assert.match(
      block,
      /title "Download and restore in the last 4 tests"\n {2}x-axis \["10-29", "11-05", "11-12", "11-19"\]/,
    );
    assert.match(block, /y-axis "seconds" 0 --> 285\n {2}bar \[285, 278, 271, 264\]/);
    const slow = tests.map((each) => ({ ...each, timings: { restore: 1200 } }));
    assert.match(recoveryChart(slow)[0] ?? '', /y-axis "minutes" 0 --> 20\n {2}bar \[20, 20, 20, 20\]/);
    assert.deepEqual(recoveryChart(tests.slice(0, 2)), []);
  });
});
