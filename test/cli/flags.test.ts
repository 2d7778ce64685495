import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { backupCommand } from '../../src/cli/backup.ts';
import type { Command } from '../../src/cli/command.ts';
import { commandHelp, type Flags, parseFlags } from '../../src/cli/flags.ts';
import { healthCommand } from '../../src/cli/health.ts';
import { listCommand } from '../../src/cli/list.ts';
import { pruneCommand } from '../../src/cli/prune.ts';
import { Failure } from '../../src/failure.ts';

const parsed = (command: Command, args: string[], variables: Record<string, string> = {}): Flags =>
  parseFlags(command, args, variables);

describe('a flag that is given twice', () => {
  test('is two lines where several may be given: stores of a backup, labels, names', () => {
    const stores = ['--store', 's3://acme-backups/prod', '--store', 'file:///mnt/backups'];
    assert.equal(parsed(backupCommand, stores).read('store'), 's3://acme-backups/prod\nfile:///mnt/backups');
    const labels = ['--keep-labels', 'pre-migration=90d', '--keep-labels=release=1y'];
    assert.equal(parsed(pruneCommand, labels).read('keep-labels'), 'pre-migration=90d\nrelease=1y');
    const names = ['--store', 'file:///srv/a', '--names', 'shop', '--names', 'billing'];
    assert.equal(parsed(healthCommand, names).read('names'), 'shop\nbilling');
    assert.match(commandHelp(backupCommand), /--store ADDRESS .*repeat the flag for several/);
    assert.doesNotMatch(commandHelp(listCommand), /repeat the flag for several/);
  });

  test('is refused with exit code 2 where one of them would be forgotten', () => {
    const refused: readonly (readonly [Command, string[], string])[] = [
      [listCommand, ['--store', 'file:///srv/a', '--store', 'file:///srv/b'], 'store'],
      [pruneCommand, ['--keep-daily', '7', '--keep-daily=30'], 'keep-daily'],
      [backupCommand, ['--dry-run', '--dry-run=false'], 'dry-run'],
      [backupCommand, ['--verify-key', 'a.pem', '--verify-key', 'b.pem'], 'verify-key'],
      [backupCommand, ['--database-url-file', '/dev/null', '--database-url-file', '/dev/null'], 'database-url-file'],
      [listCommand, ['--json', '--json'], 'json'],
    ];
    for (const [command, args, name] of refused)
      assert.throws(
        () => parsed(command, args),
        (error) =>
          error instanceof Failure &&
          error.exitCode === 2 &&
          error.message.includes(`${name}: was given more than once`),
        `${command.name} ${args.join(' ')}`,
      );
  });
});

describe('a token of GitHub', () => {
  test('comes from PGASSAY_GITHUB_TOKEN, else from GITHUB_TOKEN, for every command that takes one', () => {
    for (const command of [backupCommand, healthCommand, listCommand]) {
      const token = (variables: Record<string, string>): string | undefined =>
        parsed(command, [], variables).read('github-token');
      assert.equal(token({ GITHUB_TOKEN: 'theirs' }), 'theirs', command.name);
      assert.equal(token({ PGASSAY_GITHUB_TOKEN: 'ours', GITHUB_TOKEN: 'theirs' }), 'ours', command.name);
    }
  });
});
