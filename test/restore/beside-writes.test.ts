import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Taken } from '../support/backup.ts';
import { ourSessions, until } from '../support/faults.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';
import { backupOf, databasesOf, door, type Restoring, startRestore } from '../support/restoring.ts';
import { TcpProxy } from '../support/tcp-proxy.ts';

for (const major of majorsAvailable())
  describe(`a database of PostgreSQL ${major} is replaced, and what was there is dropped`, () => {
    let cluster: Cluster;
    let backup: Taken;
    before(async () => {
      cluster = await Cluster.start({ major, conf: { wal_level: 'logical' } });
      backup = await backupOf(cluster, 'shop', 'CREATE TABLE t AS SELECT generate_series(1, 9) x');
    });
    after(() => cluster.stop());

    const replace = async (name: string, { url = cluster.url(name), bin = cluster.bin } = {}): Promise<Restoring> => {
      await cluster.createDatabase(name, 'TEMPLATE shop');
      return startRestore(cluster, backup, url, [
        ...['--clean', '--confirm', name, '--jobs', '2', '--client-bin', bin],
      ]);
    };
    const rowsOf = async (name: string): Promise<number> => (await cluster.query(name, 'SELECT FROM t')).length;
    const asideOf = async (name: string): Promise<string | undefined> =>
      (await databasesOf(cluster)).find((each) => each.startsWith(`${name}_`));
    /** A proxy that lets nothing more through to the server once these statements have been sent there, in this order. */
    const stopsAfter = async (
      ...statements: string[]
    ): Promise<{ readonly relay: TcpProxy; readonly stopped: Promise<void> }> => {
      const { promise: stopped, resolve } = Promise.withResolvers<void>();
      const relay = await TcpProxy.start(cluster, {
        onChunk: (chunk, direction, self) => {
          const [next] = statements;
          if (next === undefined || direction === 'down' || !chunk.includes(next)) return undefined;
          statements.shift();
          if (statements.length > 0) return undefined;
          self.stall('up');
          resolve();
          return undefined;
        },
      });
      return { relay, stopped };
    };

    test('if nobody wrote there', async () => {
      const result = await (await replace('quiet')).done;
      assert.equal(result.exitCode, 0, result.stderr);
      assert.match(result.stderr, /quiet is the restored database now; what it was before was dropped/);
      assert.equal(await asideOf('quiet'), undefined);
    });

    test('but kept, if somebody comes, writes and leaves right before it is renamed', async () => {
      const { relay, stopped } = await stopsAfter('BEGIN READ WRITE');
      await using proxy = relay;
      const run = await replace('late', { url: proxy.through(cluster.url('late')) });
      await stopped;
      await cluster.query('late', 'INSERT INTO t VALUES (10)');
      proxy.resume('up');
      const result = await run.done;
      assert.equal(result.exitCode, 0, result.stderr);
      assert.match(
        result.stderr,
        /warning: late is the restored database now; it was written to after the safety backup had begun, so what it was before is late_before_/,
      );
      assert.deepEqual([await rowsOf('late'), await rowsOf((await asideOf('late')) ?? '')], [9, 10]);
    });

    test('but kept, if the server does not count what is written', async () => {
      await cluster.query('postgres', 'ALTER SYSTEM SET track_counts = off');
      await cluster.query('postgres', 'SELECT pg_reload_conf()');
      const gate = await door(cluster);
      const run = await replace('uncounted', { bin: gate.bin });
      await gate.reached();
      await cluster.query('uncounted', 'INSERT INTO t VALUES (10)');
      await gate.open();
      const result = await run.done;
      await cluster.query('postgres', 'ALTER SYSTEM RESET track_counts');
      await cluster.query('postgres', 'SELECT pg_reload_conf()');
      assert.equal(result.exitCode, 0, result.stderr);
      assert.match(result.stderr, /gets the name uncounted_before_\d{14} and is kept, as the server does not tell/);
      assert.match(result.stderr, /warning: uncounted is the restored database now; the server does not tell whether/);
      assert.deepEqual([await rowsOf('uncounted'), await rowsOf((await asideOf('uncounted')) ?? '')], [9, 10]);
    });

    test('and cancelled after it was renamed, the error says what it is called', async () => {
      const { relay, stopped } = await stopsAfter('RENAME TO', 'COMMIT\0');
      await using proxy = relay;
      const run = await replace('cut', { url: proxy.through(cluster.url('cut')) });
      await stopped;
      const { accepted } = proxy;
      await until(() => proxy.accepted > accepted || undefined);
      run.signal('SIGINT');
      await until(() => proxy.accepted > accepted + 1 || undefined);
      proxy.resume('up');
      const result = await run.done;
      assert.equal(result.exitCode, 130, result.stderr);
      const aside = await asideOf('cut');
      assert.match(aside ?? '', /^cut_before_\d{14}$/);
      assert.ok(
        result.stderr.includes(
          `restore: cancelled; cut is the restored database, and every table was compared; what it was before may still be there as ${aside}`,
        ),
        result.stderr,
      );
      assert.equal(await rowsOf('cut'), 9);
      await until(async () => (await ourSessions(cluster)).length === 0 || undefined);
    });

    test('but not even renamed, if it has got a replication slot', async () => {
      const gate = await door(cluster);
      const run = await replace('followed', { bin: gate.bin });
      await gate.reached();
      await cluster.query('followed', `SELECT pg_create_logical_replication_slot('follower', 'pgoutput')`);
      await gate.open();
      const result = await run.done;
      assert.equal(result.exitCode, 50, result.stderr);
      assert.match(
        result.stderr,
        /^restore: followed has got a replication slot meanwhile: follower\nhint: drop the slot/m,
      );
      assert.match(result.stderr, /followed is as it was before/);
      assert.equal(await asideOf('followed'), undefined);
      const slots = await cluster.query('postgres', 'SELECT database FROM pg_replication_slots');
      assert.deepEqual(slots, [{ database: 'followed' }]);
    });
  });
