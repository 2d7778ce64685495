import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { readBackupConfig } from '../src/backup-inputs.ts';
import { Failure } from '../src/failure.ts';
import { Inputs } from '../src/inputs.ts';

const from = (values: Readonly<Record<string, string>>): Inputs => new Inputs((name) => values[name]);

/** What one reader makes of a text, and the problem it notes. */
function reading<T>(
  text: string,
  read: (inputs: Inputs) => T,
): { readonly value: T; readonly problem: string | undefined } {
  const inputs = from({ it: text });
  const value = read(inputs);
  return { value, problem: inputs.problems[0]?.message };
}

describe('one input', () => {
  test('is trimmed, and empty is not given; a secret stays as it is', () => {
    assert.equal(from({ it: '  a \n' }).optional('it'), 'a');
    assert.equal(from({ it: ' \n ' }).optional('it'), undefined);
    assert.equal(from({}).optional('it'), undefined);
    assert.equal(from({ it: ' pass \n' }).raw('it'), ' pass \n');
    assert.equal(from({ it: ' \n' }).raw('it'), undefined);
  });

  test("B45: a flag is YAML 1.2's true or false and nothing else", () => {
    for (const text of ['true', 'True', 'TRUE', ' true '])
      assert.deepEqual(
        reading(text, (it) => it.flag('it', false)),
        { value: true, problem: undefined },
      );
    for (const text of ['false', 'False', 'FALSE'])
      assert.deepEqual(
        reading(text, (it) => it.flag('it', true)),
        { value: false, problem: undefined },
      );
    assert.deepEqual(
      reading('', (it) => it.flag('it', true)),
      { value: true, problem: undefined },
    );
    for (const text of ['yes', 'no', '1', '0', 'on', 'tRUE', 'truee', 'null'])
      assert.equal(reading(text, (it) => it.flag('it', false)).problem, `${text} is neither true nor false`);
  });

  test('B46, B39: a number is whole, in digits, and within its limits', () => {
    const read = (it: Inputs): number => it.integer('it', 3, 1, 16);
    assert.deepEqual(reading('', read), { value: 3, problem: undefined });
    for (const [text, value] of [
      ['1', 1],
      ['16', 16],
      [' 7 ', 7],
      ['007', 7],
    ] as const)
      assert.deepEqual(reading(text, read), { value, problem: undefined });
    for (const text of ['0', '17', '-1', '1.5', '1e1', 'abc', '٣', '0x2', '9'.repeat(20), '1,000', '+3', '7d'])
      assert.equal(reading(text, read).problem, `${text} is not a whole number from 1 to 16`);
  });

  test('B48: a duration has a unit, is some time and not too much', () => {
    const read = (it: Inputs): number => it.duration('it', '5m', '2h');
    for (const [text, value] of [
      ['', 300_000],
      ['90s', 90_000],
      ['250ms', 250],
      ['2h', 7_200_000],
      ['1m', 60_000],
    ] as const)
      assert.deepEqual(reading(text, read), { value, problem: undefined });
    for (const text of ['10', '5 m', '1.5h', 'm', '-5m', '5M', '5min', '1h30m', 'forever'])
      assert.equal(reading(text, read).problem, `${text} is not a duration`);
    assert.equal(reading('0s', read).problem, '0s is no time at all');
    assert.equal(reading('121m', read).problem, '121m is more than 2h');
    assert.equal(reading('1d', read).problem, '1d is more than 2h');
  });

  test('of many lines has one item a line; blanks and # lines do not count', () => {
    assert.deepEqual(from({ it: ' a \r\n\n# no\n  b c\n#\n' }).lines('it'), ['a', 'b c']);
    assert.deepEqual(from({}).lines('it'), []);
    const inputs = from({ it: 'a\n--file=/x\n -n\n"-quoted"' });
    assert.deepEqual(inputs.patterns('it').length, 4);
    assert.deepEqual(
      inputs.problems.map(({ message }) => message),
      ['the pattern --file=/x begins with a hyphen', 'the pattern -n begins with a hyphen'],
    );
  });

  test('of a few choices is one of them', () => {
    const read = (it: Inputs): string => it.choice('it', ['full', 'schema-only'], 'full');
    assert.deepEqual(reading('', read), { value: 'full', problem: undefined });
    assert.deepEqual(reading('schema-only', read), { value: 'schema-only', problem: undefined });
    assert.equal(reading('Full', read).problem, 'Full is not one of full, schema-only');
  });
});

describe('the inputs of a backup', () => {
  const machine = { temporary: '/tmp', toolCache: '/tmp', path: '', onRunner: false };
  const good: Record<string, string> = {
    store: 'file:///backups',
    name: 'shop',
    'database-url': 'postgresql://u:p4ssw0rd@localhost/shop',
  };

  function failure(values: Record<string, string>, event?: string): Failure {
    try {
      readBackupConfig((name) => ({ ...good, ...values })[name], { machine, source: null, event });
    } catch (error) {
      if (error instanceof Failure) return error;
      throw error;
    }
    return assert.fail('no problem was found');
  }

  test('report every problem of every one at once, as bad input, and no piece of the password', () => {
    const bad: Record<string, string> = {
      ...{
        store: 's4://bucket',
        name: 'a/b',
        'database-url': 'postgresql://u:p4ssw0rd@h:70000/shop',
        mode: 'all',
        tables: '--table=x\na.b.c.d',
      },
      ...{
        schemas: 'x',
        roles: 'yes',
        compression: 'zstd:99',
        jobs: '999',
        census: 'digest',
        label: 'a b',
        'allow-empty': '1',
        'dry-run': 'si',
      },
      ...{
        'lock-wait-timeout': '60',
        'on-blocked-ddl': 'ignore',
        'max-replica-lag': '1 hour',
        'verify-upload': 'no',
        timeout: '10',
        retries: '-1',
      },
      ...{
        'stall-timeout': '0s',
        'encrypt-to': 'age1x',
        'allow-pooler': 'maybe',
        'accept-new-database': 'x',
        'install-client': 'TrUe',
        'keep-last': '0',
      },
    };
    const { message, exitCode, stage, hint } = failure(bad);
    assert.equal(stage, 'input');
    assert.equal(exitCode, 2);
    for (const name of Object.keys(bad).filter((each) => each !== 'schemas'))
      assert.match(message, new RegExp(`^  ${name}: `, 'm'), `${name} in ${message}`);
    assert.doesNotMatch(`${message}${hint}`, /p4ssw0rd/);
    assert.match(message, /^\d+ problems\n/);
  });

  test('alone, a problem is one sentence with its hint', () => {
    const { message, hint } = failure({ timeout: '10' });
    assert.equal(message, 'timeout: 10 is not a duration');
    assert.equal(hint, 'write a number and a unit: 90s, 5m, 2h');
  });

  test('B47: a compression has a known method and a level of that method', () => {
    for (const [text, message] of [
      ['zstd:99', 'zstd has the levels 1 to 22, not 99'],
      ['zstd:0', 'zstd has the levels 1 to 22, not 0'],
      ['gzip:10', 'gzip has the levels 1 to 9, not 10'],
      ['brotli', 'brotli is not a compression'],
      ['zstd:x', 'zstd:x is not a compression'],
      ['9', '9 is not a compression'],
      ['zstd:3,long', 'zstd:3,long is not a compression'],
    ] as const)
      assert.equal(failure({ compression: text }).message, `compression: ${message}`);
    for (const text of ['auto', 'none', 'lz4', 'gzip', 'zstd', 'zstd:1', 'zstd:22', 'gzip:9', 'lz4:12'])
      assert.equal(
        readBackupConfig((name) => ({ ...good, compression: text })[name], { machine, source: null, event: undefined })
          .compression,
        text,
      );
  });

  test('B46: more than one job, several stores and schemas beside tables are refused', () => {
    assert.match(failure({ jobs: '4' }).message, /^jobs: /);
    assert.match(failure({ jobs: '0' }).message, /^jobs: 0 is not a whole number from 1 to 16/);
    assert.match(failure({ store: 'file:///a\nfile:///b' }).message, /^store: several stores/);
    assert.match(failure({ schemas: 'a', tables: 'b' }).message, /^tables: schemas and tables are both given/);
    assert.match(failure({ label: 'pre-restore' }).message, /^label: pre-restore is kept for safety backups/);
  });

  test('an event that a stranger can cause is refused unless it is allowed by name', () => {
    for (const event of ['pull_request', 'pull_request_target', 'issue_comment', 'workflow_run', 'fork']) {
      assert.match(
        failure({}, event).message,
        new RegExp(`^allow-events: this run was started by ${event}, which a stranger can cause`),
      );
      assert.match(failure({ 'allow-events': 'push' }, event).message, /^allow-events: /);
      const config = readBackupConfig((name) => ({ ...good, 'allow-events': `push\n${event}` })[name], {
        machine,
        source: null,
        event,
      });
      assert.equal(config.name, 'shop');
    }
    for (const event of ['schedule', 'push', 'workflow_dispatch', 'repository_dispatch'])
      assert.equal(readBackupConfig((name) => good[name], { machine, source: null, event }).name, 'shop');
  });
});
