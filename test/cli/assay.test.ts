import assert from 'node:assert/strict';
import { chmod, cp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { loadSampleDatabase } from '../../scripts/sample-database.ts';
import { type CliResult, cli, clientBin, program } from '../support/backup.ts';
import { filesIn, scratch } from '../support/faults.ts';
import { Cluster } from '../support/postgres.ts';
import { dumpOf, said, scratchFolders, type TestReport } from '../support/restore-test.ts';

describe('pgassay assay', () => {
  let cluster: Cluster;
  let folder: string;
  before(async () => {
    cluster = await Cluster.start();
    folder = await scratch();
    await cluster.createDatabase('shop');
    await loadSampleDatabase(cluster.url('shop'));
  });
  after(() => cluster.stop());

  const assay = (args: readonly string[], env: Record<string, string> = {}): Promise<CliResult> => {
    const bin = clientBin(cluster)['client-bin'];
    return cli(['assay', ...args, ...(bin === undefined ? [] : ['--client-bin', bin])], env);
  };

  test('a URL: dumped, restored, compared, and nothing of it is left', async () => {
    const temporary = await scratch();
    await chmod(temporary, 0o755);
    const result = await assay([], { DATABASE_URL: cluster.url('shop'), TMPDIR: temporary });
    assert.equal(result.exitCode, 0, said(result));
    assert.match(result.stdout, /^shop\/\S+ restores: 26 tables, [\d ]+ rows, all as recorded\n/);
    assert.match(result.stderr, /^dumped shop: 26 tables, .* in .*; counted on the server and again in the archive$/m);
    assert.deepEqual(await filesIn(temporary), []);
    assert.deepEqual(scratchFolders(temporary), []);
  });

  test('a URL as an argument is taken with a warning, and --out keeps the proven backup as a store', async () => {
    const out = join(folder, 'kept');
    const result = await assay([cluster.url('shop'), '--out', out, '--census', 'content', '--json']);
    assert.equal(result.exitCode, 0, said(result));
    assert.match(result.stderr, /the password in the URL can be seen by every user of this machine/);
    assert.doesNotMatch(said(result), new RegExp(cluster.password.slice(-12)));
    const report = result.json as TestReport & { store: string };
    assert.equal(report.level, 'content');
    const listed = await cli(['list', '--store', report.store]);
    assert.match(listed.stdout, /passed just now/);
  });

  test('a dump file that somebody else made: read, restored, described, and compared with its own rows', async () => {
    const file = join(folder, 'shop.dump');
    await writeFile(file, await dumpOf(cluster, 'shop'));
    const result = await assay([file, '--checks', 'SELECT count(*) = 8000 FROM shop.customers']);
    assert.equal(result.exitCode, 0, said(result));
    assert.match(
      result.stderr,
      /shop\.dump is whole: an archive of shop, PostgreSQL 15\.\d+, by pg_dump 15\.\d+; 26 tables, /,
    );
    assert.match(result.stdout, /restores: 26 tables, [\d ]+ rows, all as recorded/);
    assert.match(result.stdout, /unknown {3}what the database held when it was dumped/);
    const wrong = await assay([file, '--checks', 'SELECT count(*) = 7 FROM shop.customers', '--json']);
    assert.equal(wrong.exitCode, 51, said(wrong));
    assert.equal((wrong.json as TestReport).findings.length, 1);
  });

  for (const [format, name] of [
    ['d', 'directory'],
    ['t', 'tar'],
  ] as const)
    test(`a ${name} archive is read and restored where it lies; cut short it is refused`, async () => {
      const path = join(folder, `shop.${name}`);
      await program(cluster, 'pg_dump', [`-F${format}`, '-f', path, '-d', cluster.url('shop')]);
      const result = await assay([path, '--json']);
      assert.equal(result.exitCode, 0, said(result));
      assert.match(result.stderr, /is whole: an archive of shop, PostgreSQL 15\.\d+/);
      assert.match(result.stderr, /; 26 tables, /);
      const damaged = join(folder, `cut.${name}`);
      await cp(path, damaged, { recursive: true });
      if (format === 't') {
        for (const share of [0.3, 0.99]) {
          await writeFile(damaged, (await readFile(path)).subarray(0, Math.floor(share * (await stat(path)).size)));
          const cut = await assay([damaged]);
          assert.equal(cut.exitCode, 40, said(cut));
          assert.match(cut.stderr, /is a tar archive without its end: it was cut off/);
        }
      } else {
        const [data = ''] = (await readdir(damaged)).filter((file) => file.endsWith('.dat.gz'));
        await rm(join(damaged, data));
        const cut = await assay([damaged]);
        assert.equal(cut.exitCode, 40, said(cut));
        assert.match(cut.stderr, /the archive cannot be read to its end/);
        assert.match((await assay([folder])).stderr, /is a folder without toc\.dat/);
      }
    });

  test('a plain dump, gzipped or not, is read, carried out without psql, and compared with its own rows', async () => {
    const plain = await program(cluster, 'pg_dump', ['-d', cluster.url('shop')]);
    const file = join(folder, 'shop.sql');
    await writeFile(file, plain);
    await writeFile(`${file}.gz`, gzipSync(plain));
    for (const path of [file, `${file}.gz`]) {
      const result = await assay([path, '--checks', 'SELECT count(*) = 8000 FROM shop.customers', '--json']);
      const report = result.json as TestReport;
      assert.deepEqual(report?.findings, [], said(result));
      assert.equal(result.exitCode, 0);
      assert.match(result.stderr, /; 26 tables, 9\d \d{3} rows, /);
      assert.ok(
        report.leftOut.some((each) => each.startsWith('CREATE PUBLICATION sample_orders')),
        report.leftOut.join(),
      );
    }
  });

  for (const [what, flags] of [
    ['--inserts', ['--inserts']],
    ['--column-inserts', ['--column-inserts']],
    ['--rows-per-insert', ['--rows-per-insert=7', '--on-conflict-do-nothing']],
  ] as const)
    test(`rows that are INSERTs (${what}) are counted too, in an archive and in a plain dump`, async () => {
      for (const format of ['c', 'p']) {
        const path = join(folder, `inserts${what}.${format}`);
        await program(cluster, 'pg_dump', [
          ...[`-F${format}`, ...flags, '-t', 'public.t', '-f', path, '-d', cluster.url('shop')],
        ]);
        const result = await assay([path, '--checks', 'SELECT count(*) = 33 FROM public.t', '--json']);
        assert.deepEqual((result.json as TestReport)?.findings, [], said(result));
        assert.match(result.stderr, /; 1 table, 33 rows, /);
      }
    });

  test('an INSERT that puts in less than it says is a finding; with ON CONFLICT DO NOTHING a note', async () => {
    const plain = await program(cluster, 'pg_dump', ['--inserts', '-t', 'public.t', '-d', cluster.url('shop')]);
    const file = join(folder, 'fewer.sql');
    const rule = 'CREATE RULE none AS ON INSERT TO public.t DO INSTEAD NOTHING;\n';
    await writeFile(file, plain.replace('INSERT INTO', `${rule}INSERT INTO`));
    const fewer = await assay([file, '--json']);
    assert.equal(fewer.exitCode, 51, said(fewer));
    assert.deepEqual((fewer.json as TestReport).findings, [
      { object: 'public.t', expected: '33 rows', found: '0 rows' },
    ]);
    const twice = join(folder, 'twice.sql');
    const key = 'CREATE UNIQUE INDEX one ON public.t ((true));\n';
    await writeFile(
      twice,
      plain.replace('INSERT INTO', `${key}INSERT INTO`).replace(/^(INSERT .*);$/gm, '$1 ON CONFLICT DO NOTHING;'),
    );
    const noted = await assay([twice, '--json']);
    assert.deepEqual((noted.json as TestReport)?.findings, [], said(noted));
    assert.match((noted.json as TestReport).notes.join(), /public\.t has 1 of 33 rows: .*ON CONFLICT/);
  });

  test('a plain dump that attacks who reads it: commands of psql are not run, and are findings', async () => {
    const mark = join(folder, 'attacked');
    const plain = await program(cluster, 'pg_dump', ['-d', cluster.url('shop'), '-t', 'public.t']);
    const attack = `\\! touch ${mark}\nCOPY public.t FROM PROGRAM 'touch ${mark}';\n`;
    const file = join(folder, 'attack.sql');
    await writeFile(file, plain.replace('CREATE TABLE', `${attack}CREATE TABLE`));
    const result = await assay([file, '--json']);
    assert.equal(result.exitCode, 51, said(result));
    assert.deepEqual(
      (result.json as TestReport).findings.map(({ object }) => object),
      [`\\! touch ${mark}`, 'COPY public.t FROM PROGRAM'],
      said(result),
    );
    await assert.rejects(stat(mark));
  });

  test('a dump file that does not restore: its constraint asks a table that it cannot find then', async () => {
    await cluster.createDatabase('broken');
    await cluster.query(
      'broken',
      `CREATE TABLE limits (most int); INSERT INTO limits VALUES (5);
       CREATE FUNCTION most() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT most FROM limits); END';
       CREATE TABLE a (x int CHECK (x <= most())); INSERT INTO a VALUES (1); CREATE ROLE app; GRANT SELECT ON a TO app`,
    );
    const file = join(folder, 'broken.dump');
    await writeFile(file, await dumpOf(cluster, 'broken'));
    const result = await assay([file, '--json']);
    assert.equal(result.exitCode, 51, said(result));
    assert.deepEqual(
      (result.json as TestReport).findings.map((each) => each.object),
      ['TABLE DATA public.a', 'public.a'],
    );
  });

  test('what is no archive is named for what it is', async () => {
    const whole = await dumpOf(cluster, 'shop');
    const plain = await program(cluster, 'pg_dump', ['-d', cluster.url('shop')]);
    const cases: readonly (readonly [string, Buffer | string, RegExp, number])[] = [
      ['empty', '', /is an empty file/, 2],
      ['plain, cut off', plain.slice(0, plain.length / 2), /was cut off: it ends (?:among the rows|in the middle)/, 40],
      [
        'plain, without its end',
        `${plain.slice(0, plain.lastIndexOf('\n--\n-- PostgreSQL database dump complete'))}\n`,
        /lacks pg_dump's last line/,
        40,
      ],
      [
        'gzip, cut off',
        gzipSync(plain).subarray(0, 40_000),
        /was cut off: its compressed data is damaged or has no end/,
        40,
      ],
      ["somebody's SQL", 'SELECT 1;\n', /is an SQL script, and not one of pg_dump's/, 2],
      ['html', '<!DOCTYPE html><title>403</title>', /is a web page/, 2],
      ['age', 'age-encryption.org/v1\n-> X25519', /is encrypted with age/, 2],
      ['noise', 'hello', /is no dump of PostgreSQL/, 2],
      ['cut in its head', whole.subarray(0, 3000), /ends inside its table of contents: it was cut off/, 40],
      ['cut in its data', whole.subarray(0, whole.length - 2000), /the archive cannot be read to its end/, 40],
    ];
    for (const [name, content, message, exitCode] of cases) {
      const file = join(folder, name.replaceAll(' ', '-'));
      await writeFile(file, content);
      const result = await assay([file]);
      assert.match(result.stderr, message, name);
      assert.equal(result.exitCode, exitCode, `${name}: ${said(result)}`);
      assert.equal(result.stdout, '', name);
    }
    const flipped = Buffer.from(await readFile(join(folder, 'shop.dump')));
    flipped[flipped.length - 5000] = (flipped[flipped.length - 5000] ?? 0) ^ 0xff;
    await writeFile(join(folder, 'flipped.dump'), flipped);
    assert.equal((await assay([join(folder, 'flipped.dump')])).exitCode, 40);
  });

  test('nothing, no such file, a URL that is none: exit 2 with what to write', async () => {
    assert.match((await assay([])).stderr, /there is nothing to assay\nhint: name a URL or a dump file/);
    assert.match((await assay(['/no/such.dump'])).stderr, /cannot be read \(ENOENT\)/);
    const result = await assay(['mysql://root@localhost/shop']);
    assert.equal(result.exitCode, 2);
    assert.match(result.stderr, /^input: database-url: /m);
  });
});
