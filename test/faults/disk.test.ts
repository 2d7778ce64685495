import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmod, chown, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { cli } from '../support/backup.ts';
import { backUp, createShop, errorOf, filesIn, repository, scratch } from '../support/faults.ts';
import { Cluster, unprivileged } from '../support/postgres.ts';

let cluster: Cluster;
const mounted: string[] = [];
before(async () => {
  cluster = await Cluster.start();
  await createShop(cluster);
});
after(async () => {
  for (const folder of mounted) execFileSync('umount', [folder]);
  await cluster?.stop();
});

const root = process.getuid?.() === 0;
/** A file system of so many bytes; only root can make one. */
async function smallDisk(bytes: number): Promise<string> {
  const folder = await scratch();
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', folder]);
  mounted.push(folder);
  return folder;
}
const mountable = root && canMount();
function canMount(): boolean {
  try {
    execFileSync('sh', ['-c', 'd=$(mktemp -d) && mount -t tmpfs tmpfs "$d" && umount "$d" && rmdir "$d"'], {
      stdio: 'ignore',
    });
    return true;
  } catch {
    return false;
  }
}
const skip = mountable ? false : 'not on this platform: only root may mount a small disk';

describe('F5: the disk is full', { skip }, () => {
  test('the store, in the middle of the dump: exit 20, nothing left, and room again afterwards', async () => {
    const disk = await smallDisk(1_000_000);
    const store = join(disk, 'backups');
    const result = await backUp(cluster.url('shop'), store);
    assert.equal(result.exitCode, 20, result.log);
    assert.match(errorOf(result), /^upload: no space is left where .*database\.dump is\nhint: free space/);
    assert.deepEqual(await filesIn(disk), []);
    assert.deepEqual(result.leftovers, []);
    assert.deepEqual(result.orphans, []);
    await cluster.createDatabase('tiny');
    await cluster.query('tiny', 'CREATE TABLE t (a int); INSERT INTO t VALUES (1)');
    const next = await backUp(cluster.url('tiny'), store, { name: 'tiny' });
    assert.equal(next.exitCode, 0, next.log);
  });

  test('less room than the last backup took is known before anything is dumped', async () => {
    const disk = await smallDisk(8_000_000);
    const first = await backUp(cluster.url('shop'), disk);
    assert.equal(first.exitCode, 0, first.log);
    await writeFile(join(disk, 'ballast'), Buffer.alloc(8_000_000 - Number(first.outputs['size-bytes']) - 700_000));
    const second = await backUp(cluster.url('shop'), disk);
    assert.equal(second.exitCode, 20, second.log);
    assert.match(errorOf(second), /^preflight: the store has .* free, and the last backup took /);
    const listed = await cli(['list', '--store', `file://${disk}`, '--json']);
    assert.equal((listed.json as { backups: unknown[] }).backups.length, 1);
  });

  test('the temporary folder: exit 20, and no talk of a defect', async () => {
    const full = await smallDisk(4096 * 3);
    await writeFile(join(full, 'ballast'), Buffer.alloc(4096 * 2)).catch(() => {});
    await writeFile(join(full, 'more'), Buffer.alloc(4096)).catch(() => {});
    const store = await scratch();
    const result = await backUp(cluster.url('shop'), store, {}, { env: { RUNNER_TEMP: full } });
    assert.equal(result.exitCode, 20, result.log);
    assert.doesNotMatch(errorOf(result), /defect/);
    assert.deepEqual(await filesIn(store), []);
  });

  test('fetch into a full disk leaves no file', async () => {
    const store = await scratch();
    const taken = await backUp(cluster.url('shop'), store);
    assert.equal(taken.exitCode, 0, taken.log);
    const disk = await smallDisk(200_000);
    const fetched = await cli(['fetch', '--store', `file://${store}`, '--out', join(disk, 'shop.dump')]);
    assert.equal(fetched.exitCode, 20, fetched.stderr);
    assert.deepEqual(await filesIn(disk), []);
  });
});

describe('F5: every step in the file system can find no space', () => {
  for (const [method, nth] of [
    ['mkdir', 1],
    ['open', 1],
    ['write', 1],
    ['write', 3],
    ['sync', 1],
    ['link', 1],
    ['link', 2],
    ['sync', 6],
    ['link', 4],
  ] as const) {
    test(`${method}, for the ${nth}. time`, async () => {
      const store = join(await scratch(), 'backups');
      const hook = join(await scratch(), 'full.mjs');
      await writeFile(
        hook,
        `import fs from 'node:fs';
         import { syncBuiltinESMExports } from 'node:module';
         const handle = await fs.promises.open('/dev/null');
         const owner = ${JSON.stringify(method)} in fs.promises ? fs.promises : Object.getPrototypeOf(handle);
         await handle.close();
         const original = owner[${JSON.stringify(method)}];
         let calls = 0;
         if (process.argv[1].endsWith('/backup.js')) owner[${JSON.stringify(method)}] = async function (...args) {
           const ours = owner === fs.promises ? String(args[0]).startsWith(${JSON.stringify(store)}) : true;
           if (ours && ++calls === ${nth}) throw Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
           return original.apply(this, args);
         };
         syncBuiltinESMExports();`,
      );
      const result = await backUp(cluster.url('shop'), store, {}, { env: { NODE_OPTIONS: `--import ${hook}` } });
      assert.equal(result.exitCode, 20, result.log);
      assert.match(errorOf(result), /^upload: no space is left where /);
      assert.deepEqual(await filesIn(store), []);
      assert.deepEqual(result.leftovers, []);
      assert.deepEqual(result.outputs, {});
    });
  }
});

describe('F22: a store that may not be written', {
  skip: root ? false : 'not on this platform: needs another user',
}, () => {
  test('exit 31 with the command that helps', async () => {
    const { uid = 65534, gid = 65534 } = unprivileged();
    const store = await scratch();
    await chmod(store, 0o555);
    const temporary = await scratch();
    await chown(temporary, uid, gid);
    let text = '';
    try {
      execFileSync(
        process.execPath,
        [join(repository, 'dist', 'cli.js'), 'backup', '--store', `file://${store}`, '--name', 'shop'],
        {
          env: { DATABASE_URL: cluster.url('shop'), PATH: '/usr/bin:/bin', TMPDIR: temporary },
          uid,
          gid,
          cwd: '/',
          stdio: ['ignore', 'ignore', 'pipe'],
        },
      );
    } catch (error) {
      const { status, stderr } = error as { status: number; stderr: Buffer };
      text = `${status} ${stderr}`;
    }
    assert.match(text, /^31 /);
    assert.match(text, /upload: this user may not write or read .*\(EACCES\)\nhint: .*chown -R "\$USER"/);
    assert.deepEqual(await filesIn(store), []);
    assert.deepEqual(await filesIn(temporary), []);
    await mkdir(temporary, { recursive: true });
  });
});
