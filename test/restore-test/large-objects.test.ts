import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type Taken, takeBackup } from '../support/backup.ts';
import { wrapped } from '../support/faults.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';
import { said, type TestReport, tryRestoreTest } from '../support/restore-test.ts';

for (const major of majorsAvailable())
  describe(`large objects in a restore test, PostgreSQL ${major}`, () => {
    let cluster: Cluster;
    let scratch: Cluster;
    let backup: Taken;
    before(async () => {
      [cluster, scratch] = await Promise.all([Cluster.start({ major }), Cluster.start({ major })]);
      await cluster.createDatabase('shop');
      await cluster.query(
        'shop',
        `CREATE ROLE keeper; CREATE ROLE reader; CREATE TABLE t AS SELECT 1 x;
         SELECT lo_from_bytea(4241, 'first'), lo_create(4242), lo_from_bytea(4243, decode(repeat('ab', 1048576), 'hex')),
                lo_from_bytea(4244, decode(repeat('cd', 2500000), 'hex')), lo_from_bytea(4245, 'one'), lo_from_bytea(4246, 'two');
         ALTER LARGE OBJECT 4241 OWNER TO keeper; ALTER LARGE OBJECT 4245 OWNER TO keeper; ALTER LARGE OBJECT 4246 OWNER TO keeper;
         GRANT SELECT ON LARGE OBJECT 4241 TO reader WITH GRANT OPTION; REVOKE UPDATE ON LARGE OBJECT 4241 FROM keeper;
         GRANT ALL ON LARGE OBJECT 4245 TO PUBLIC; GRANT ALL ON LARGE OBJECT 4246 TO PUBLIC`,
      );
      backup = await takeBackup(cluster, 'shop');
    });
    after(() => Promise.all([cluster.stop(), scratch.stop()]));

    /** A restore test in which `sql` runs as soon as pg_restore is done, which exits 1 after errors that are expected. */
    const tested = async (sql: string): Promise<TestReport> => {
      const bin = await wrapped(cluster, {
        pg_restore: `case "$*" in *--jobs*) ;; *) exec "$REAL" "$@";; esac
"$REAL" "$@"; code=$?
'${join(cluster.bin, 'psql')}' -X -q -v ON_ERROR_STOP=1 -c "${sql}" >&2 || exit 99
exit "$code"`,
      });
      const flags = ['--scratch-url', scratch.url('postgres'), '--client-bin', bin];
      const result = await tryRestoreTest(cluster, backup, flags);
      assert.ok(result.json !== undefined, said(result));
      return result.json as TestReport;
    };

    test('restored as they are in the archive, they pass', async () => {
      assert.deepEqual((await tested('SELECT 1')).findings, []);
    });

    test('another content, longer, shorter or missing; another owner; other grants: each is a finding', async () => {
      const { findings } = await tested(
        `SELECT lo_put(4242, 0, 'x'), lo_put(4243, 1048576, 'x'), lo_put(4244, 2400000, 'x'), lo_unlink(4245); GRANT SELECT ON LARGE OBJECT 4246 TO reader;
         ALTER LARGE OBJECT 4241 OWNER TO reader`,
      );
      const content = { expected: 'the content in the archive', found: 'another content' };
      assert.deepEqual(
        [...findings].sort((a, b) => a.object.localeCompare(b.object)),
        [
          { object: 'large object 4241', expected: 'owned by keeper', found: 'owned by reader' },
          { object: 'large object 4242', ...content },
          { object: 'large object 4243', ...content },
          { object: 'large object 4244', ...content },
          { object: 'large object 4245', expected: 'the content in the archive', found: 'missing' },
          { object: 'large object 4246', expected: 'the grants in the archive', found: 'other grants' },
          { object: 'large objects', expected: '6', found: '5' },
        ],
      );
    });
  });
