import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { parse } from 'yaml';
import { locateInputs } from '../../src/action/locate.ts';
import { alertInputs, readAlertConfig } from '../../src/alert-inputs.ts';
import { backupInputs, readBackupConfig } from '../../src/backup-inputs.ts';
import { backupCommand } from '../../src/cli/backup.ts';
import { healthCommand } from '../../src/cli/health.ts';
import { restoreCommand } from '../../src/cli/restore.ts';
import { restoreTestCommand } from '../../src/cli/restore-test.ts';
import { writeFlags } from '../../src/cli/shared-flags.ts';
import { healthInputs, readHealthConfig } from '../../src/health-inputs.ts';
import { Inputs } from '../../src/inputs.ts';
import { pruneInputs } from '../../src/prune-inputs.ts';
import { release } from '../../src/release.ts';
import { readRestore, restoreInputs } from '../../src/restore-inputs.ts';
import { readRestoreTest, restoreTestInputs } from '../../src/restore-test-inputs.ts';

const root = join(import.meta.dirname, '../..');
interface Action {
  inputs: Record<string, { default?: string }>;
}
const actionIn = (folder: string): Action => parse(readFileSync(join(root, folder, 'action.yml'), 'utf8')) as Action;
const action = actionIn('.');
const surroundings = {
  machine: { temporary: '/tmp', toolCache: '/tmp', path: '', onRunner: false },
  source: null,
  event: undefined,
};
const needed: Record<string, string> = {
  store: 'file:///srv/backups',
  name: 'shop',
  'database-url': 'postgresql://u:secret@localhost/shop',
};

describe('the inputs of a backup', () => {
  test('are the same in action.yml, in the code and, but for the alerts, on the command line', () => {
    assert.deepEqual(Object.keys(action.inputs).sort(), [...backupInputs, ...alertInputs].sort());
    assert.deepEqual(backupCommand.flags.map((flag) => flag.name).sort(), [...backupInputs].sort());
  });

  test('have the defaults that action.yml declares: giving them changes nothing', () => {
    const declared = Object.fromEntries(
      Object.entries(action.inputs).flatMap(([name, { default: value }]) =>
        value === undefined ? [] : [[name, value]],
      ),
    );
    assert.ok(Object.keys(declared).length > 10);
    const bare = readBackupConfig((name) => needed[name], surroundings);
    const given = readBackupConfig((name) => ({ ...declared, ...needed })[name], surroundings);
    const empty = readBackupConfig((name) => needed[name] ?? '', surroundings);
    assert.deepEqual(given, bare);
    assert.deepEqual(empty, bare);
    const alerts = (read: (name: string) => string | undefined) => readAlertConfig(new Inputs(read));
    const token = (name: string) => (name === 'github-token' ? '' : undefined);
    assert.deepEqual(
      alerts((name) => token(name) ?? declared[name]),
      alerts(token),
    );
  });
});

describe('the inputs of a restore test', () => {
  const tested = actionIn('restore-test');
  const around = { machine: surroundings.machine, source: null, identity: undefined };

  test('are the same in action.yml, in the code and on the command line, where the backup is an argument', () => {
    assert.deepEqual(Object.keys(tested.inputs).sort(), [...restoreTestInputs, ...alertInputs].sort());
    const flags = restoreTestCommand.flags.map((flag) => flag.name);
    const expected = restoreTestInputs.filter(
      (name) => name !== 'backup' && !writeFlags.some((flag) => flag.name === name),
    );
    assert.deepEqual(flags.sort(), [...expected].sort());
  });

  test('have the defaults that action.yml declares', () => {
    const declared: Record<string, string | undefined> = Object.fromEntries(
      Object.entries(tested.inputs).map(([name, { default: value }]) => [name, value]),
    );
    const bare = readRestoreTest((name) => needed[name], around);
    assert.deepEqual(
      readRestoreTest((name) => needed[name] ?? declared[name], around),
      bare,
    );
    assert.deepEqual(
      readRestoreTest((name) => needed[name] ?? '', around),
      bare,
    );
  });

  test('are read to the end, and every problem is told at once', () => {
    assert.throws(
      () => readRestoreTest((name) => (name === 'jobs' || name === 'backup' ? 'x' : needed[name]), around),
      (error: Error) => ['jobs', 'backup'].every((name) => error.message.includes(`  ${name}: `)),
    );
  });
});

describe('the inputs of a restore', () => {
  const declaring = actionIn('restore');
  const around = { machine: surroundings.machine, source: null, actor: 'somebody', identity: undefined };
  const given: Record<string, string> = {
    store: 'file:///srv/backups',
    'target-url': 'postgresql://u:secret@localhost/shop',
  };

  test('are the same in action.yml, in the code and on the command line, where the backup is an argument', () => {
    assert.deepEqual(Object.keys(declaring.inputs).sort(), [...restoreInputs].sort());
    const expected = restoreInputs.filter((name) => name !== 'backup');
    assert.deepEqual(restoreCommand.flags.map((flag) => flag.name).sort(), [...expected].sort());
  });

  test('have the defaults that action.yml declares', () => {
    const bare = readRestore((name) => given[name], around);
    assert.deepEqual(
      readRestore((name) => given[name] ?? declaring.inputs[name]?.default, around),
      bare,
    );
    assert.deepEqual(
      readRestore((name) => given[name] ?? '', around),
      bare,
    );
  });

  test('are read to the end, and every problem is told at once', () => {
    assert.throws(
      () =>
        readRestore((name) => (['jobs', 'backup', 'max-age', 'confirm'].includes(name) ? 'x' : given[name]), around),
      (error: Error) => ['jobs', 'backup', 'max-age', 'confirm'].every((name) => error.message.includes(`  ${name}: `)),
    );
  });
});

describe('the program', () => {
  test('the release is the version of package.json', () => {
    assert.equal(JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version, release);
  });
});

describe('the inputs of health', () => {
  const declaring = actionIn('health');
  const around = { identity: undefined, artifacts: undefined, repository: 'octo/backups' };
  const read = (inputs: Record<string, string | undefined>) =>
    readHealthConfig(new Inputs((name) => inputs[name]), around);

  test('are the same in action.yml, in the code and on the command line, which has a second word for one', () => {
    assert.deepEqual(Object.keys(declaring.inputs).sort(), [...healthInputs, ...alertInputs].sort());
    const flags = healthCommand.flags
      .map((flag) => flag.name)
      .filter((name) => !['metrics', 'github-token'].includes(name));
    assert.deepEqual(flags.sort(), healthInputs.filter((name) => name !== 'github-token').sort());
  });

  test('have the defaults that action.yml declares', () => {
    const store = 'file:///srv/backups';
    const declared = Object.fromEntries(
      Object.entries(declaring.inputs).map(([name, { default: value }]) => [name, value]),
    );
    assert.deepEqual(read({ ...declared, store }), read({ store }));
  });
});

test('the inputs of prune are the same in action.yml and in the code', () => {
  assert.deepEqual(Object.keys(actionIn('prune').inputs).sort(), [...pruneInputs, ...alertInputs].sort());
});

test('the inputs of locate are the same in action.yml and in the code', () => {
  assert.deepEqual(Object.keys(actionIn('locate').inputs).sort(), [...locateInputs].sort());
});
