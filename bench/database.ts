import type { Cluster } from '../test/support/postgres.ts';

/**
 * Fills a database with what business data looks like: users, orders, JSON events and some binary files. Deterministic;
 * `gigabytes` is about the size of its text in a plain dump.
 */
export async function fill(cluster: Cluster, database: string, gigabytes: number): Promise<void> {
  await cluster.createDatabase(database);
  const n = (perGigabyte: number): number => Math.round(perGigabyte * gigabytes);
  await cluster.query(
    database,
    `CREATE TABLE users (id bigint PRIMARY KEY, email text NOT NULL, name text, created_at timestamptz, settings jsonb);
     INSERT INTO users SELECT g, 'user' || g || '@example.com', 'User ' || md5(g::text), '2020-01-01'::timestamptz + g * interval '41 s',
       jsonb_build_object('theme', (ARRAY['dark', 'light'])[1 + g % 2], 'locale', (ARRAY['de', 'en', 'fr'])[1 + g % 3])
     FROM generate_series(1, ${n(800_000)}) g;
     CREATE TABLE orders (id bigint PRIMARY KEY, user_id bigint, total numeric(12, 2), state text, placed_at timestamptz, note text);
     INSERT INTO orders SELECT g, 1 + g % ${n(800_000)}, (g % 100000) / 7.0, (ARRAY['new', 'paid', 'sent', 'done'])[1 + g % 4],
       '2022-01-01'::timestamptz + g * interval '11 s', CASE WHEN g % 5 = 0 THEN md5(g::text) || ' ' || md5((g * 3)::text) END
     FROM generate_series(1, ${n(3_000_000)}) g;
     CREATE TABLE events (id bigint PRIMARY KEY, at timestamptz, body jsonb);
     INSERT INTO events SELECT g, '2023-01-01'::timestamptz + g * interval '3 s', jsonb_build_object('type', 'event' || g % 50, 'session', md5((g / 20)::text),
       'path', '/products/' || g % 10000, 'duration', g % 5000, 'tags', jsonb_build_array(g % 7, g % 11, 'x' || g % 13))
     FROM generate_series(1, ${n(2_500_000)}) g;
     CREATE TABLE files (id bigint PRIMARY KEY, content bytea);
     INSERT INTO files SELECT g, decode(repeat(md5(g::text) || md5((g * 7)::text) || md5((g * 13)::text), 40), 'hex')
     FROM generate_series(1, ${n(15_000)}) g;
     ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES users;
     CREATE INDEX ON orders (placed_at);
     VACUUM ANALYZE`.replaceAll(/;\s*VACUUM ANALYZE$/g, ''),
  );
  await cluster.query(database, 'VACUUM ANALYZE');
}
