import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { cp, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Manifest } from '../../src/manifest.ts';
import { type CliResult, cli, type Taken, takeBackup } from '../support/backup.ts';
import { backUp, createShop, errorOf, filesIn, scratch } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';

let cluster: Cluster;
let original: Taken;
/** A store with that one backup, for every test to spoil. */
let store: string;

before(async () => {
  cluster = await Cluster.start();
  await createShop(cluster, 'shop', 3000);
  original = await takeBackup(cluster, 'shop', { name: 'shop' });
});
after(() => cluster?.stop());

async function copy(): Promise<string> {
  store = await scratch();
  await cp(new URL(original.store), store, { recursive: true });
  return join(store, 'shop', original.id);
}

const ask = (command: string, ...args: string[]): Promise<CliResult> =>
  cli([command, ...args, '--store', `file://${store}`]);

async function flip(path: string, bit: number): Promise<void> {
  const bytes = await readFile(path);
  const at = Math.floor(bit / 8);
  bytes[at] = (bytes[at] ?? 0) ^ (1 << (bit % 8));
  await writeFile(path, bytes);
}

describe('F17: a file that lost its end', () => {
  for (const cut of ['0 %', '5 %', '30 %', '60 %', '90 %', '99 %', '20 bytes', '1 byte']) {
    test(`database.dump cut at ${cut === '0 %' ? 'its first byte' : cut} is found by list and verify`, async () => {
      const dump = join(await copy(), 'database.dump');
      const { length } = await readFile(dump);
      const number = Number.parseInt(cut, 10);
      await truncate(dump, cut.endsWith('%') ? Math.floor((length * number) / 100) : length - number);
      const verified = await ask('verify', original.id);
      assert.equal(verified.exitCode, 40, verified.stderr);
      assert.match(verified.stderr, /database\.dump has \d+ bytes instead of \d+/);
      const listed = await ask('list', '--json');
      assert.deepEqual(listed.json, { backups: [] });
      assert.match(listed.stderr, /is damaged: database\.dump has/);
    });
  }
});

describe('F18: one bit flipped', () => {
  for (const [file, positions] of [
    ['database.dump', 40],
    ['census.json', 12],
    ['roles.sql', 12],
  ] as const) {
    test(`at ${positions} places of ${file}: verify exits 40 and names the file`, async () => {
      const path = join(await copy(), file);
      const whole = await readFile(path);
      const positionsOf = Array.from({ length: positions }, (_, index) =>
        index === positions - 1 ? whole.length * 8 - 1 : Math.floor((index * whole.length * 8) / positions) + index,
      );
      const wrong: string[] = [];
      const flips = [...positionsOf.entries()];
      for (const [, bit] of flips) {
        await flip(path, bit);
        const { exitCode, stderr } = await ask('verify', original.id);
        if (exitCode !== 40 || !stderr.includes(`${file} does not have the SHA-256 it was stored with`))
          wrong.push(`bit ${bit}: exit ${exitCode} ${stderr}`);
        await writeFile(path, whole);
      }
      assert.deepEqual(wrong, []);
    });
  }

  test('at 40 places of manifest.json: refused, or nothing that is relied on has changed', async () => {
    const folder = await copy();
    const path = join(folder, 'manifest.json');
    const whole = await readFile(path);
    let refused = 0;
    for (let index = 0; index < 40; index++) {
      await flip(path, Math.floor((index * whole.length * 8) / 40) + (index % 8));
      const { exitCode, stderr } = await ask('verify', original.id);
      assert.ok(exitCode === 0 || exitCode === 40 || exitCode === 13, `${exitCode} ${stderr}`);
      if (exitCode === 0) {
        // Without a signature a changed label goes unnoticed; a changed file name, size, checksum or id may not.
        const read = JSON.parse(await readFile(path, 'utf8')) as Manifest;
        const bare = (manifest: Manifest) => manifest.files.map(({ name, bytes, sha256 }) => ({ name, bytes, sha256 }));
        assert.deepEqual(bare(read), bare(original.manifest));
        assert.deepEqual([read.id, read.name, read.format], [original.id, 'shop', 'pgassay/1']);
      } else refused += 1;
      await writeFile(path, whole);
    }
    assert.ok(refused >= 10, `${refused}`);
  });

  test('fetch leaves no file, and restore refuses before it touches the target', async () => {
    const dump = join(await copy(), 'database.dump');
    await flip(dump, (await readFile(dump)).length * 4);
    const out = await scratch();
    const fetched = await ask('fetch', original.id, '--out', join(out, 'shop.dump'));
    assert.equal(fetched.exitCode, 40, fetched.stderr);
    assert.match(fetched.stderr, /database\.dump does not have the SHA-256/);
    assert.deepEqual(await filesIn(out), []);

    await cluster.createDatabase('untouched');
    for (const database of ['untouched', 'never_made']) {
      const restored = await cli(['restore', original.id, '--store', `file://${store}`], {
        TARGET_URL: cluster.url(database),
      });
      assert.equal(restored.exitCode, 40, restored.stderr);
      assert.match(restored.stderr, /database\.dump does not have the SHA-256/);
    }
    const databases = await cluster.query<{ name: string }>('postgres', 'SELECT datname AS name FROM pg_database');
    assert.ok(!databases.some(({ name }) => name === 'never_made'));
    assert.deepEqual(
      await cluster.query('untouched', "SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace"),
      [],
    );
  });
});

describe('F19, F20: files that are missing, foreign or moved', () => {
  for (const file of ['database.dump', 'census.json', 'roles.sql']) {
    test(`${file} missing: not offered as latest, and said so`, async () => {
      const folder = await copy();
      await rm(join(folder, file));
      const listed = await ask('list', '--json');
      assert.deepEqual(listed.json, { backups: [] });
      assert.match(listed.stderr, new RegExp(`is damaged: ${file.replace('.', '\\.')} is missing`));
      const latest = await ask('verify');
      assert.equal(latest.exitCode, 2, latest.stderr);
      assert.match(latest.stderr, /there is no backup yet/);
      assert.match(latest.stderr, /is damaged/);
      const named = await ask('verify', original.id);
      assert.equal(named.exitCode, 40, named.stderr);
      assert.match(named.stderr, new RegExp(`${file.replace('.', '\\.')} is missing`));
    });
  }

  test('a damaged newest backup does not hide the whole one before it', async () => {
    await copy();
    const second = await backUp(cluster.url('shop'), store);
    assert.equal(second.exitCode, 0, second.log);
    await rm(join(store, 'shop', second.outputs['backup-id'] ?? '', 'database.dump'));
    const verified = await ask('verify', '--json');
    assert.equal(verified.exitCode, 0, verified.stderr);
    assert.equal((verified.json as { id: string }).id, original.id);
    assert.match(verified.stderr, /is damaged: database\.dump is missing/);
    const third = await backUp(cluster.url('shop'), store);
    assert.equal(third.exitCode, 0, third.log);
  });

  test('without its manifest it is no backup', async () => {
    const folder = await copy();
    await rm(join(folder, 'manifest.json'));
    const listed = await ask('list', '--json');
    assert.deepEqual(listed.json, { backups: [] });
    assert.match(listed.stderr, /1 upload without a manifest/);
    assert.equal((await ask('verify', original.id)).exitCode, 2);
  });

  test('a manifest cut short is refused', async () => {
    const folder = await copy();
    await truncate(join(folder, 'manifest.json'), 200);
    const verified = await ask('verify', original.id);
    assert.equal(verified.exitCode, 40, verified.stderr);
    assert.match(verified.stderr, /is damaged: manifest\.json/);
  });

  test("another backup's manifest, and a folder under another id or name, are refused", async () => {
    const folder = await copy();
    const other = '20991231T000000Z-abcdef';
    await cp(folder, join(store, 'shop', other), { recursive: true });
    const verified = await ask('verify', other);
    assert.equal(verified.exitCode, 40, verified.stderr);
    assert.match(verified.stderr, /is damaged: it belongs to shop\/\S+, not to the folder it is in/);
    await rm(join(store, 'shop', other), { recursive: true });

    await rename(join(store, 'shop'), join(store, 'till'));
    const renamed = await ask('verify', original.id);
    assert.equal(renamed.exitCode, 40, renamed.stderr);
  });

  test("another backup's dump of the same size is refused", async () => {
    const folder = await copy();
    const second = await backUp(cluster.url('shop'), store);
    const stolen = join(store, 'shop', second.outputs['backup-id'] ?? '', 'census.json');
    await cp(stolen, join(folder, 'census.json'));
    await cp(join(store, 'shop', second.outputs['backup-id'] ?? '', 'database.dump'), join(folder, 'database.dump'));
    const verified = await ask('verify', original.id);
    assert.equal(verified.exitCode, 40, verified.stderr);
  });

  test('file names in a manifest cannot lead out of the store', async () => {
    const folder = await copy();
    for (const name of ['../../../etc/passwd', '/etc/passwd', 'a.b/../c.d', 'x\u0000.y']) {
      const files = original.manifest.files.map((file, index) => (index === 0 ? { ...file, name } : file));
      await writeFile(join(folder, 'manifest.json'), JSON.stringify({ ...original.manifest, files }));
      const verified = await ask('verify', original.id);
      assert.equal(verified.exitCode, 40, verified.stderr);
      assert.doesNotMatch(verified.stderr, /etc\/passwd (is missing|has)/);
    }
  });
});

test('F26: two runs at once both complete, with ids of their own', async () => {
  await copy();
  const runs = await Promise.all([0, 1, 2].map(() => backUp(cluster.url('shop'), store)));
  for (const run of runs) assert.equal(run.exitCode, 0, run.log);
  assert.equal(new Set(runs.map((run) => run.outputs['backup-id'])).size, 3);
  for (const run of runs) {
    const verified = await ask('verify', run.outputs['backup-id'] ?? '');
    assert.equal(verified.exitCode, 0, verified.stderr);
  }
});

test('a disk that stores other bytes is found by verify-upload: read-back', async () => {
  await copy();
  const hook = join(await scratch(), 'lie.mjs');
  await writeFile(
    hook,
    `import fs from 'node:fs';
     const handle = await fs.promises.open('/dev/null');
     const prototype = Object.getPrototypeOf(handle);
     const write = prototype.write;
     let lied = false; // once, in the archive, which is the first file to be written
     prototype.write = function (bytes, ...rest) {
       const lie = Buffer.from(bytes);
       if (!lied) lie[lie.length >> 1] ^= 1;
       lied = true;
       return write.call(this, lie, ...rest);
     };
     await handle.close();`,
  );
  const before = await filesIn(store);
  const env = { NODE_OPTIONS: `--import ${hook}` };
  const result = await backUp(cluster.url('shop'), store, { 'verify-upload': 'read-back' }, { env });
  assert.equal(result.exitCode, 30, result.log);
  assert.match(errorOf(result), /^upload: the stored bytes are not the bytes that were sent/);
  assert.deepEqual(await filesIn(store), before);
});

describe('a manifest that was made to fit', () => {
  async function forge(file: string, change: (bytes: Buffer) => Buffer): Promise<CliResult> {
    const folder = await copy();
    const bytes = change(await readFile(join(folder, file)));
    await writeFile(join(folder, file), bytes);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const files = original.manifest.files.map((each) =>
      each.name === file ? { ...each, bytes: bytes.length, sha256, plainSha256: sha256 } : each,
    );
    await writeFile(join(folder, 'manifest.json'), JSON.stringify({ ...original.manifest, files }));
    return ask('verify', original.id);
  }

  test('a truncated dump does not decode to its end', async () => {
    for (const part of [0, 0.05, 0.3, 0.6, 0.9, 0.99]) {
      const verified = await forge('database.dump', (bytes) => bytes.subarray(0, Math.floor(bytes.length * part)));
      assert.equal(verified.exitCode, 40, `${part}: ${verified.stderr}`);
      assert.match(verified.stderr, /^validate: the archive cannot be read to its end/m, `${part}`);
    }
  });

  test('a changed byte in the rows does not decode', async () => {
    const verified = await forge('database.dump', (bytes) => {
      const at = Math.floor(bytes.length / 2);
      bytes[at] = (bytes[at] ?? 0) ^ 0x10;
      return bytes;
    });
    assert.equal(verified.exitCode, 40, verified.stderr);
  });

  test('a census that promises one row more is named, table by table', async () => {
    const verified = await forge('census.json', (bytes) =>
      Buffer.from(bytes.toString().replaceAll('"archiveRows": 3000', '"archiveRows": 3001')),
    );
    assert.equal(verified.exitCode, 40, verified.stderr);
    assert.match(verified.stderr, /public\.items: expected 3001 rows, found 3000 rows/);
  });
});
