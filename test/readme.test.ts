import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { loadSampleDatabase } from '../scripts/sample-database.ts';
import { countedRows, recordedRows, takeBackup } from './support/backup.ts';
import { Cluster } from './support/postgres.ts';

const readme = readFileSync(join(import.meta.dirname, '../README.md'), 'utf8');
const execute = promisify(execFile);

describe('README.md', () => {
  let source: Cluster;
  let target: Cluster;
  before(async () => {
    [source, target] = await Promise.all([Cluster.start(), Cluster.start()]);
    await source.createDatabase('shop');
    await loadSampleDatabase(source.url('shop'));
  });
  after(() => Promise.all([source?.stop(), target?.stop()]));

  test('its lines for recovery with stock tools alone give the database back, on a server that knows nothing of it', async () => {
    const [, lines] = /<!-- stock-recovery:start -->\s*```bash\n([\s\S]*?)```/.exec(readme) ?? [];
    assert.ok(lines !== undefined, 'README.md has no block of stock recovery lines');
    const backup = await takeBackup(source, 'shop');
    await target.createDatabase('shop_restored', 'TEMPLATE template0');
    const { stdout } = await execute('bash', ['-c', `set -o pipefail\n${lines}`], {
      env: {
        PATH: `${target.bin}:${dirname(process.execPath)}:/usr/local/bin:/usr/bin:/bin`,
        BACKUP: backup.folder,
        TARGET_URL: target.url('shop_restored'),
      },
    });
    assert.equal(stdout.match(/: OK$/gm)?.length, backup.manifest.files.length, stdout);
    assert.deepEqual(await countedRows(target, 'shop_restored', backup.census), recordedRows(backup.census));
  });
});
