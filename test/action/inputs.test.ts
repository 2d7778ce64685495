import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { parse } from 'yaml';
import { alertInputs, readAlertConfig } from '../../src/alert-inputs.ts';
import { backupInputs, laterInputs, readBackupConfig } from '../../src/backup-inputs.ts';
import { backupCommand } from '../../src/cli/backup.ts';
import { Inputs } from '../../src/inputs.ts';
import { release } from '../../src/release.ts';

const root = join(import.meta.dirname, '../..');
const action = parse(readFileSync(join(root, 'action.yml'), 'utf8')) as {
  inputs: Record<string, { default?: string }>;
};
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

  test('of later releases are refused, each by its name, all at once', () => {
    for (const name of laterInputs) assert.ok(!backupInputs.includes(name), name);
    assert.throws(
      () => readBackupConfig((name) => (laterInputs.includes(name) ? 'x' : needed[name]), surroundings),
      (error: Error) => laterInputs.every((name) => error.message.includes(`  ${name}: `)),
    );
  });

  test('the release is the version of package.json', () => {
    assert.equal(JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version, release);
  });
});
