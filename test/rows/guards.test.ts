import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';
import { clientBin, type Taken } from '../support/backup.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';
import { backupOf } from '../support/restoring.ts';
import { counts, everything, rows } from '../support/rows.ts';

for (const major of majorsAvailable()) {
  describe(`triggers, PostgreSQL ${major}`, () => {
    let cluster: Cluster;
    let backup: Taken;
    const flags = ['--table', 'users', '--where', 'id <= 3', '--json'];
    before(async () => {
      cluster = await Cluster.start({ major });
      backup = await backupOf(
        cluster,
        'shop',
        `CREATE TABLE users (id int PRIMARY KEY, name text, touched int DEFAULT 0);
         CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users);
         CREATE TABLE mails (what text);
         INSERT INTO users SELECT g, 'user ' || g, g FROM generate_series(1, 9) g;
         INSERT INTO orders SELECT g, g FROM generate_series(1, 9) g;
         CREATE FUNCTION mail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           INSERT INTO public.mails SELECT TG_NAME; RETURN new; END $$;`,
        clientBin(cluster),
      );
    });
    after(() => cluster.stop());

    let copies = 0;
    const shopWith = async (sql: string): Promise<string> => {
      copies += 1;
      const name = `shop_${copies}`;
      await cluster.createDatabase(name, 'TEMPLATE shop');
      await cluster.query(name, `DELETE FROM orders WHERE id <= 3; DELETE FROM users WHERE id <= 3; ${sql}`);
      return name;
    };
    const mailing = 'CREATE TRIGGER send AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION mail();';

    test('nobody said what to do with them: refused, all of them named', async () => {
      const name = await shopWith(`${mailing}
        CREATE TRIGGER "On ""all""" BEFORE INSERT ON users EXECUTE FUNCTION mail();
        CREATE TRIGGER deleted AFTER DELETE ON users EXECUTE FUNCTION mail();
        CREATE TRIGGER changed AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION mail();
        CREATE TRIGGER disabled AFTER INSERT ON users EXECUTE FUNCTION mail(); ALTER TABLE users DISABLE TRIGGER disabled`);
      const before = await everything(cluster, name);
      const result = await rows(cluster, backup, name, flags);
      assert.equal(result.exitCode, 2, result.stderr);
      assert.match(
        result.stderr,
        /^preflight: public\.users has triggers that would run: "On ""all""", send\nhint: --triggers off .*--triggers on/m,
      );
      const updating = await rows(cluster, backup, name, [...flags, '--on-conflict', 'update']);
      assert.match(updating.stderr, /triggers that would run: "On ""all""", changed, send$/m);
      assert.deepEqual(await everything(cluster, name), before);
    });

    test('off: none of them runs, foreign keys are still checked, and each is again as it was', async () => {
      const name = await shopWith(`${mailing}
        CREATE TRIGGER always BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION mail(); ALTER TABLE users ENABLE ALWAYS TRIGGER always;
        CREATE TRIGGER replica BEFORE INSERT ON users EXECUTE FUNCTION mail(); ALTER TABLE users ENABLE REPLICA TRIGGER replica;
        CREATE TRIGGER disabled BEFORE INSERT ON users EXECUTE FUNCTION mail(); ALTER TABLE users DISABLE TRIGGER disabled;
        CREATE CONSTRAINT TRIGGER later AFTER INSERT ON users DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION mail();
        CREATE TRIGGER send AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION mail()`);
      const before = await everything(cluster, name);
      const orphan = await rows(cluster, backup, name, ['--table', 'orders', '--where', 'id = 1', '--triggers', 'off']);
      assert.equal(orphan.exitCode, 50, orphan.stderr);
      assert.match(orphan.stderr, /rows of public\.orders refer to rows of public\.users that are not there/);
      assert.deepEqual(await everything(cluster, name), before);
      const result = await rows(cluster, backup, name, [
        ...flags,
        '--table',
        'orders',
        '--where',
        'id <= 3',
        '--triggers',
        'off',
      ]);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.match(
        result.stderr,
        /note: triggers of public\.users are switched off inside the transaction, .*: always, later, send$/m,
      );
      const now = await everything(cluster, name);
      assert.equal(now.catalog, before.catalog);
      assert.equal(now['r public.mails'], '');
      const source = await everything(cluster, 'shop');
      assert.equal(now['r public.users'], source['r public.users']);
      assert.equal(now['r public.orders'], source['r public.orders']);
    });

    test('on: they run', async () => {
      const name = await shopWith(mailing);
      const result = await rows(cluster, backup, name, [...flags, '--triggers', 'on']);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.match(result.stderr, /note: triggers of public\.users will run: send$/m);
      assert.equal((await everything(cluster, name))['r public.mails'], Array(3).fill('{"what":"send"}').join('\n'));
    });

    for (const [what, timing, body, column] of [
      ['changes a value before', 'BEFORE', 'new.touched := 1000; RETURN new;', ' \\(touched\\)'],
      ['drops a row before', 'BEFORE', 'IF new.id = 2 THEN RETURN NULL; END IF; RETURN new;', ''],
      ['changes a row after', 'AFTER', `UPDATE public.users SET name = 'x' WHERE id = new.id; RETURN NULL;`, ''],
      ['deletes a row after', 'AFTER', 'DELETE FROM public.users WHERE id = new.id AND id = 3; RETURN NULL;', ''],
    ] as const)
      test(`on: one that ${what} the insert is found out, and everything rolled back`, async () => {
        const name = await shopWith(
          `CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ${body} END $$;
           CREATE TRIGGER meddle ${timing} INSERT ON users FOR EACH ROW EXECUTE FUNCTION meddle()`,
        );
        const before = await everything(cluster, name);
        const result = await rows(cluster, backup, name, [...flags, '--triggers', 'on']);
        assert.equal(result.exitCode, 50, result.stderr);
        assert.match(
          result.stderr,
          new RegExp(
            `^restore: [123] of the 3 rows of public\\.users would not be as in the backup${column}: its triggers change what is inserted, meddle$`,
            'm',
          ),
        );
        assert.match(result.stderr, /hint: it was rolled back, nothing was changed; --triggers off/);
        assert.deepEqual(await everything(cluster, name), before);
        const off = await rows(cluster, backup, name, [...flags, '--triggers', 'off']);
        assert.equal(off.exitCode, 0, off.stderr);
      });

    test('on: one that keeps an update out is found out too', async () => {
      const name = await shopWith(
        `CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF old.id = 5 THEN RETURN NULL; END IF; RETURN new; END $$;
         CREATE TRIGGER keep BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION keep(); UPDATE users SET name = 'x' WHERE id = 4`,
      );
      const before = await everything(cluster, name);
      const update = ['--table', 'users', '--where', 'id in (4, 5)', '--on-conflict', 'update'];
      const result = await rows(cluster, backup, name, [...update, '--triggers', 'on']);
      assert.equal(result.exitCode, 50, result.stderr);
      assert.match(
        result.stderr,
        /^restore: 1 of the 2 rows of public\.users would not be as in the backup: its triggers .*keep$/m,
      );
      assert.deepEqual(await everything(cluster, name), before);
      const off = await rows(cluster, backup, name, [...update, '--triggers', 'off', '--json']);
      assert.deepEqual(counts(off), ['public.users 2 0 0 2'], off.stderr);
    });

    test('of partitions, in states of their own, are off and then as they were', async () => {
      const database = 'parts';
      const taken = await backupOf(
        cluster,
        database,
        `CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE mails (what text);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
         CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (20) TO (30) PARTITION BY RANGE (id); CREATE TABLE p31 PARTITION OF p3 DEFAULT;
         INSERT INTO p SELECT generate_series(1, 29);
         CREATE FUNCTION mail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.mails SELECT TG_NAME; RETURN new; END $$;
         CREATE TRIGGER t BEFORE INSERT ON p FOR EACH ROW EXECUTE FUNCTION mail();
         CREATE TRIGGER own AFTER INSERT ON p31 FOR EACH ROW EXECUTE FUNCTION mail();
         CREATE TRIGGER other AFTER INSERT ON p EXECUTE FUNCTION mail();
         ALTER TABLE p1 ENABLE ALWAYS TRIGGER t; ALTER TABLE p2 DISABLE TRIGGER t; ALTER TABLE ONLY p DISABLE TRIGGER other;`,
        { name: 'parts', ...clientBin(cluster) },
      );
      const whole = await everything(cluster, database);
      await cluster.query(database, 'DELETE FROM p WHERE id % 3 = 0');
      const result = await rows(cluster, taken, database, [
        '--table',
        'p',
        '--where',
        'id % 3 = 0',
        '--triggers',
        'off',
        '--json',
      ]);
      assert.equal(result.exitCode, 0, result.stderr);
      assert.deepEqual(counts(result), ['public.p 9 9 0 0']);
      assert.deepEqual(await everything(cluster, database), whole);
    });

    test('what runs on insert finds its tables as in the application, whatever our own search path', async () => {
      const name = await shopWith(`
        CREATE SCHEMA app; CREATE TABLE app.log (day date, zone text, idle text); CREATE TABLE app.known AS SELECT generate_series(1, 9) id;
        ALTER DATABASE shop_${copies + 1} SET search_path = app, public; ALTER DATABASE shop_${copies + 1} SET timezone = 'Asia/Tokyo';
        CREATE FUNCTION app.known(i int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RETURN EXISTS (SELECT FROM known WHERE known.id = i); END $$;
        SET search_path = app, public; ALTER TABLE users ADD CHECK (app.known(id)); ALTER TABLE users ADD seen text DEFAULT current_setting('TimeZone');
        CREATE FUNCTION app.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (current_date, current_setting('TimeZone'), current_setting('idle_in_transaction_session_timeout')); RETURN new; END $$;
        CREATE TRIGGER note AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION app.note()`);
      const result = await rows(cluster, backup, name, [...flags, '--triggers', 'on']);
      assert.equal(result.exitCode, 0, result.stderr);
      const [zones] = await cluster.query(
        name,
        `SELECT count(*)::int, min(zone) AS zone, min(idle) AS idle, (SELECT min(seen) FROM users WHERE id <= 3) AS seen FROM app.log`,
      );
      assert.deepEqual(zones, { count: 3, zone: 'Asia/Tokyo', idle: '1min', seen: 'Asia/Tokyo' });
    });

    test('event triggers: off where a superuser may, else told', async () => {
      const name = await shopWith(`
        CREATE TABLE ddl (tag text);
        CREATE FUNCTION ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.ddl VALUES (tg_tag); END $$;
        CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION ddl()`);
      const result = await rows(cluster, backup, name, flags);
      assert.equal(result.exitCode, 0, result.stderr);
      const seen = (await cluster.query(name, 'SELECT FROM ddl')).length > 0;
      assert.equal(seen, major < 17);
      assert.equal(
        /note: event triggers of the target will see our temporary tables: watch$/m.test(result.stderr),
        seen,
      );
    });

    test('a rule that rewrites the insert is refused', async () => {
      const name = await shopWith('CREATE RULE swallow AS ON INSERT TO users DO INSTEAD NOTHING');
      const result = await rows(cluster, backup, name, [...flags, '--triggers', 'on']);
      assert.equal(result.exitCode, 2, result.stderr);
      assert.match(result.stderr, /public\.users has rules that rewrite what is written to it: swallow/);
    });
  });
}

describe('what this role may not do, all at once', () => {
  let cluster: Cluster;
  let backup: Taken;
  const flags = ['--table', 'users', '--where', 'id = 1'];
  const as = (role: string, database = 'shop'): string => cluster.url(database, role, 'secret-of-the-role');
  before(async () => {
    cluster = await Cluster.start();
    backup = await backupOf(
      cluster,
      'shop',
      `CREATE TABLE users (id int PRIMARY KEY, v text); INSERT INTO users VALUES (1, 'a'), (2, 'b'); CREATE SCHEMA hidden; CREATE TABLE hidden.t AS SELECT 1 id`,
    );
    await cluster.query(
      'shop',
      `DELETE FROM users WHERE id = 1; REVOKE TEMP ON DATABASE shop FROM PUBLIC;
      CREATE ROLE reader LOGIN PASSWORD 'secret-of-the-role'; GRANT SELECT ON users TO reader;
      CREATE ROLE writer LOGIN PASSWORD 'secret-of-the-role'; GRANT SELECT, INSERT ON users TO writer; GRANT TEMP ON DATABASE shop TO writer`,
    );
  });
  after(() => cluster.stop());

  test('temporary tables, schemas, tables', async () => {
    const result = await rows(
      cluster,
      backup,
      'shop',
      [...flags, '--table', 'hidden.t', '--where', 'true'],
      as('reader'),
    );
    assert.equal(result.exitCode, 12, result.stderr);
    assert.match(result.stderr, /role reader may not create temporary tables/);
    assert.match(result.stderr, /this role may not INSERT on public\.users$/m);
    assert.match(result.stderr, /this role may not .* on hidden\.t$/m);
    assert.match(result.stderr, /GRANT TEMPORARY ON DATABASE shop TO reader;/);
    assert.match(result.stderr, /GRANT INSERT ON public\.users TO/);
  });

  test('a role that may insert and read is enough, except for an update and for triggers', async () => {
    const update = await rows(cluster, backup, 'shop', [...flags, '--on-conflict', 'update'], as('writer'));
    assert.equal(update.exitCode, 12, update.stderr);
    assert.match(update.stderr, /may not UPDATE on public\.users/);
    await cluster.query(
      'shop',
      `CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'; CREATE TRIGGER f BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION f()`,
    );
    const triggers = await rows(cluster, backup, 'shop', [...flags, '--triggers', 'off'], as('writer'));
    assert.equal(triggers.exitCode, 12, triggers.stderr);
    assert.match(triggers.stderr, /only the owner of public\.users may switch its triggers off/);
    await cluster.query('shop', 'DROP TRIGGER f ON users');
    const result = await rows(cluster, backup, 'shop', [...flags, '--json'], as('writer'));
    assert.equal(result.exitCode, 0, result.stderr);
    await cluster.query('shop', 'DELETE FROM users WHERE id = 1');
  });

  test("a table's owner who is no superuser switches triggers off, through partitions and foreign keys", async () => {
    await cluster.query('postgres', `CREATE ROLE owner LOGIN PASSWORD 'secret-of-the-role'`);
    await cluster.createDatabase('owned', 'OWNER owner');
    const client = await cluster.client('owned', 'owner', 'secret-of-the-role');
    await client.query(`CREATE SCHEMA mine; CREATE TABLE mine.a (id int PRIMARY KEY);
      CREATE TABLE mine.b (id int PRIMARY KEY, a int REFERENCES mine.a) PARTITION BY RANGE (id); CREATE TABLE mine.b1 PARTITION OF mine.b DEFAULT;
      CREATE FUNCTION mine.no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';
      INSERT INTO mine.a VALUES (1), (2); INSERT INTO mine.b VALUES (1, 1), (2, 2);
      CREATE TRIGGER no BEFORE INSERT OR UPDATE ON mine.b FOR EACH ROW EXECUTE FUNCTION mine.no();
      CREATE TRIGGER no BEFORE INSERT ON mine.a EXECUTE FUNCTION mine.no()`);
    const taken = await backupOf(cluster, 'owned', 'SELECT 1', { name: 'owned' });
    const whole = await everything(cluster, 'owned');
    await client.query('DELETE FROM mine.b WHERE id = 1; DELETE FROM mine.a WHERE id = 1');
    await client.end();
    const both = ['--table', 'b', '--where', 'true', '--table', 'a', '--where', 'true', '--json'];
    const result = await rows(
      cluster,
      taken,
      'owned',
      [...both, '--triggers', 'off', '--on-conflict', 'update'],
      as('owner', 'owned'),
    );
    assert.deepEqual(counts(result), ['mine.b 2 1 0 1', 'mine.a 2 1 1 0'], result.stderr);
    assert.deepEqual(await everything(cluster, 'owned'), whole);
  });

  test('row-level security that applies to it', async () => {
    await cluster.query(
      'shop',
      'ALTER TABLE users ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON users USING (true)',
    );
    const result = await rows(cluster, backup, 'shop', flags, as('writer'));
    assert.equal(result.exitCode, 12, result.stderr);
    assert.match(
      result.stderr,
      /row-level security policies of public\.users apply to this role, and would hide or refuse rows/,
    );
    const owner = await rows(cluster, backup, 'shop', flags);
    assert.equal(owner.exitCode, 0, owner.stderr);
    await cluster.query('shop', 'DELETE FROM users WHERE id = 1; ALTER TABLE users DISABLE ROW LEVEL SECURITY');
  });

  test("sessions that check no foreign keys, and the server's own databases", async () => {
    await cluster.query(
      'postgres',
      'CREATE ROLE lax SUPERUSER LOGIN PASSWORD $$secret-of-the-role$$; ALTER ROLE lax SET session_replication_role = replica',
    );
    const lax = await rows(cluster, backup, 'shop', flags, as('lax'));
    assert.equal(lax.exitCode, 2, lax.stderr);
    assert.match(lax.stderr, /session_replication_role = replica, so no foreign key would be checked/);
    const own = await rows(cluster, backup, 'postgres', flags);
    assert.equal(own.exitCode, 2, own.stderr);
    assert.match(own.stderr, /postgres is the server's own database/);
  });

  test('somebody holds the table: not for ever', { timeout: 60_000 }, async () => {
    const client = await cluster.client('shop');
    try {
      for (const [mode, exit] of [
        ['ACCESS EXCLUSIVE', 14],
        ['EXCLUSIVE', 14],
        ['ROW EXCLUSIVE', 0],
      ] as const) {
        await client.query(`BEGIN; LOCK TABLE users IN ${mode} MODE`);
        const result = await rows(cluster, backup, 'shop', flags);
        await client.query('ROLLBACK');
        assert.equal(result.exitCode, exit, result.stderr);
        if (exit !== 0)
          assert.match(result.stderr, /somebody else held a lock .*for more than 10s\nhint: .*nothing was changed/);
      }
      await client.query('BEGIN; LOCK TABLE users IN EXCLUSIVE MODE');
      const late = await rows(cluster, backup, 'shop', [...flags, '--on-conflict', 'skip', '--timeout', '2s']);
      assert.equal(late.exitCode, 14, late.stderr);
      assert.match(late.stderr, /the rows were not back within 2 s; nothing was changed\nhint: .*--timeout/);
    } finally {
      await client.end();
    }
  });
});

describe('a target whose tables are not what they were', () => {
  let cluster: Cluster;
  let backup: Taken;
  before(async () => {
    cluster = await Cluster.start();
    backup = await backupOf(
      cluster,
      'shop',
      `CREATE TABLE t (id int PRIMARY KEY, a text, b numeric(12, 4), n int, always int GENERATED ALWAYS AS IDENTITY, twice int GENERATED ALWAYS AS (id * 2) STORED);
       INSERT INTO t (id, a, b, n) VALUES (1, 'value', 1.2345, NULL), (2, NULL, 1.5000, 2), (3, NULL, 3, 3);
       CREATE TABLE other (id int); INSERT INTO other VALUES (1);
       CREATE TABLE unlogged (id int); INSERT INTO unlogged VALUES (1);`,
      { 'exclude-table-data': 'unlogged' },
    );
  });
  after(() => cluster.stop());

  let copies = 0;
  const changed = async (sql: string, where: string, flags: readonly string[] = []) => {
    copies += 1;
    const name = `shop_${copies}`;
    await cluster.createDatabase(name, 'TEMPLATE shop');
    await cluster.query(name, `DELETE FROM t; ${sql}`);
    const before = await everything(cluster, name);
    const result = await rows(cluster, backup, name, ['--table', 't', '--where', where, '--json', ...flags]);
    const after = await everything(cluster, name);
    if (result.exitCode !== 0) assert.deepEqual(after, before);
    return { result, name };
  };

  test('a column that is gone: only where it was NULL, and the condition may still use it', async () => {
    const drop = 'ALTER TABLE t DROP COLUMN a';
    const { result } = await changed(drop, 'id < 3');
    assert.equal(result.exitCode, 50, result.stderr);
    assert.match(result.stderr, /the rows of public\.t have values in 1 column that the target does not have: a$/m);
    const other = await changed(drop, 'a IS NULL');
    assert.equal(other.result.exitCode, 0, other.result.stderr);
    assert.doesNotMatch(other.result.stderr, /other types/);
    assert.deepEqual(counts(other.result), ['public.t 2 2 0 0']);
  });

  test('a new column gets its default; one that must be filled and has none stops everything', async () => {
    const { result, name } = await changed(
      `ALTER TABLE t ADD COLUMN fresh text NOT NULL DEFAULT 'new', ADD COLUMN sum int GENERATED ALWAYS AS (id + n) STORED`,
      'id = 2',
    );
    assert.equal(result.exitCode, 0, result.stderr);
    assert.deepEqual(await cluster.query(name, 'SELECT fresh, sum, twice FROM t'), [
      { fresh: 'new', sum: 4, twice: 4 },
    ]);
    const refused = await changed('ALTER TABLE t ADD COLUMN fresh text NOT NULL', 'id = 2');
    assert.equal(refused.result.exitCode, 50, refused.result.stderr);
    assert.match(refused.result.stderr, /NOT NULL without a default, and the backup does not know them: fresh$/m);
  });

  test('a key that the backup does not know: rows come back with a new one, and no update finds them by it', async () => {
    const rekeyed = 'ALTER TABLE t DROP CONSTRAINT t_pkey, ADD COLUMN key serial PRIMARY KEY, ADD UNIQUE (id)';
    const dry = await changed(rekeyed, 'id < 3', ['--dry-run']);
    assert.equal(dry.result.exitCode, 0, dry.result.stderr);
    const { result, name } = await changed(rekeyed, 'id < 3');
    assert.equal(result.exitCode, 0, result.stderr);
    assert.deepEqual(await cluster.query(name, 'SELECT id FROM t WHERE key > 0 ORDER BY 1'), [{ id: 1 }, { id: 2 }]);
    const update = await changed(rekeyed, 'true', ['--on-conflict', 'update']);
    assert.equal(update.result.exitCode, 2, update.result.stderr);
    assert.match(
      update.result.stderr,
      /the primary key of public\.t has columns that the backup does not know, .*: key$/m,
    );
  });

  test('a NOT NULL that some rows do not meet is named', async () => {
    const { result } = await changed('ALTER TABLE t ALTER COLUMN n SET NOT NULL; DELETE FROM other', 'true', [
      ...['--table', 'other', '--where', 'true'],
    ]);
    assert.equal(result.exitCode, 50, result.stderr);
    assert.match(
      result.stderr,
      /public\.t refused the rows: null value in column "n" of relation "t" violates not-null constraint/,
    );
  });

  test('a wider type takes everything, a narrower one only what it need not round', async () => {
    const wide = await changed('ALTER TABLE t ALTER COLUMN n TYPE bigint, ALTER COLUMN b TYPE numeric', 'true');
    assert.equal(wide.result.exitCode, 0, wide.result.stderr);
    assert.match(
      wide.result.stderr,
      /^warning: columns of public\.t have other types than in the backup, and their values are converted: b, n$/m,
    );
    const scale = 'ALTER TABLE t ALTER COLUMN b TYPE numeric(12, 2)';
    const kept = await changed(scale, 'id > 1');
    assert.equal(kept.result.exitCode, 0, kept.result.stderr);
    assert.match(kept.result.stderr, /other types than in the backup, .*: b$/m);
    const { result } = await changed(scale, 'true');
    assert.equal(result.exitCode, 50, result.stderr);
    assert.match(result.stderr, /the target would cut or round values of public\.t: b$/m);
  });

  test('a type that cannot read the values', async () => {
    const { result } = await changed('ALTER TABLE t ALTER COLUMN b TYPE date USING NULL', 'true');
    assert.equal(result.exitCode, 50, result.stderr);
    assert.match(result.stderr, /the target does not take the rows of public\.t as they are in the backup: /);
    assert.doesNotMatch(result.stderr, /1\.2345/);
  });

  test('no such table, a view, rows that were left out', async () => {
    for (const [sql, message] of [
      ['DROP TABLE t', /the target has no table public\.t$/m],
      ['ALTER TABLE t RENAME TO u; CREATE VIEW t AS SELECT * FROM u', /public\.t of the target is not a table$/m],
    ] as const) {
      const { result } = await changed(sql, 'true');
      assert.equal(result.exitCode, 2, result.stderr);
      assert.match(result.stderr, message);
    }
    const left = await rows(cluster, backup, 'shop', ['--table', 'unlogged', '--where', 'true']);
    assert.equal(left.exitCode, 2, left.stderr);
    assert.match(left.stderr, /the rows of public\.unlogged are not in this backup, only its definition/);
    const definitions = await backupOf(cluster, 'shop', 'SELECT 1', { mode: 'schema-only', name: 'definitions' });
    const none = await rows(cluster, definitions, 'shop', ['--table', 't', '--where', 'true']);
    assert.equal(none.exitCode, 2, none.stderr);
    assert.match(none.stderr, /holds definitions only, no rows/);
  });

  test('a backup of rows only is as good as a whole one', async () => {
    const data = await backupOf(cluster, 'shop', 'SELECT 1', { mode: 'data-only', name: 'data' });
    await cluster.createDatabase('emptied', 'TEMPLATE shop');
    await cluster.query('emptied', 'DELETE FROM t');
    const result = await rows(cluster, data, 'emptied', ['--table', 't', '--where', 'true', '--json']);
    assert.deepEqual(counts(result), ['public.t 3 3 0 0'], result.stderr);
    assert.deepEqual(
      await everything(cluster, 'emptied').then((all) => all['r public.t']),
      (await everything(cluster, 'shop'))['r public.t'],
    );
  });

  test('an archive with a changed byte: exit 40, and nobody is asked anything', async () => {
    const damaged = await backupOf(cluster, 'shop', 'SELECT 1', { name: 'damaged' });
    const file = await open(damaged.dump, 'r+');
    const { size } = await file.stat();
    await file.write(Buffer.from([0x55, 0xaa]), 0, 2, size - 20);
    await file.close();
    const result = await rows(cluster, damaged, 'shop', ['--table', 't', '--where', 'true']);
    assert.equal(result.exitCode, 40, result.stderr);
  });
});
