import type { Cluster } from '../test/support/postgres.ts';

/** The commonest words of English text, and some of a shop's. */
const words =
  'the of and to a in is you that it he was for on are as with his they at be this have from or one had by word but not what all were we when your can said there use an each which she do how their if will up other about out many then them these so some her would make like him into time has look two more write go see number no way could people my than first water been call who oil its now find long down day did get come made may part order customer payment delivery invoice address support question refund account shipping product return package';

/**
 * Fills a database with what business data look like: users, orders, JSON events, messages of words that are the more
 * frequent the commoner they are, and files that do not compress. Deterministic; gzip makes a third of it. `gigabytes`
 * is the size of a plain dump.
 */
export async function fill(cluster: Cluster, database: string, gigabytes: number): Promise<void> {
  await cluster.createDatabase(database);
  const n = (perGigabyte: number): number => Math.round(perGigabyte * gigabytes);
  for (const statement of [
    `CREATE FUNCTION pick(seed bigint, words text[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$
       SELECT words[1 + (array_length(words, 1) * (hashint8extended(seed, 1) & 65535) / 65536 * (hashint8extended(seed, 2) & 65535) / 65536)]
     $$`,
    `CREATE TABLE users (id bigint PRIMARY KEY, email text NOT NULL, name text, created_at timestamptz, settings jsonb)`,
    `INSERT INTO users SELECT g, 'user' || g || '@example.com', 'User ' || md5(g::text), '2020-01-01'::timestamptz + g * interval '41 s',
       jsonb_build_object('theme', (ARRAY['dark', 'light'])[1 + g % 2], 'locale', (ARRAY['de', 'en', 'fr'])[1 + g % 3])
     FROM generate_series(1, ${n(700_000)}) g`,
    `CREATE TABLE orders (id bigint PRIMARY KEY, user_id bigint, total numeric(12, 2), state text, placed_at timestamptz, note text)`,
    `INSERT INTO orders SELECT g, 1 + g % ${n(700_000)}, (g % 100000) / 7.0, (ARRAY['new', 'paid', 'sent', 'done'])[1 + g % 4],
       '2022-01-01'::timestamptz + g * interval '11 s', CASE WHEN g % 5 = 0 THEN md5(g::text) || ' ' || md5((g * 3)::text) END
     FROM generate_series(1, ${n(2_500_000)}) g`,
    `CREATE TABLE events (id bigint PRIMARY KEY, at timestamptz, body jsonb)`,
    `INSERT INTO events SELECT g, '2023-01-01'::timestamptz + g * interval '3 s', jsonb_build_object('type', 'event' || g % 50, 'session', md5((g / 20)::text),
       'request', md5((g * 31)::text), 'path', '/products/' || g % 10000, 'duration', g % 5000, 'tags', jsonb_build_array(g % 7, g % 11, 'x' || g % 13))
     FROM generate_series(1, ${n(1_500_000)}) g`,
    `CREATE TABLE messages (id bigint PRIMARY KEY, order_id bigint, body text)`,
    `INSERT INTO messages SELECT g, 1 + g % ${n(2_500_000)}, (SELECT string_agg(pick(g * 100::bigint + part, string_to_array('${words}', ' ')), ' ') FROM generate_series(1, 20 + g % 40) part)
     FROM generate_series(1, ${n(1_000_000)}) g`,
    `CREATE TABLE files (id bigint PRIMARY KEY, content bytea)`,
    `INSERT INTO files SELECT g, decode((SELECT string_agg(md5(g || '/' || part), '') FROM generate_series(1, 128) part), 'hex')
     FROM generate_series(1, ${n(50_000)}) g`,
    `ALTER TABLE orders ADD FOREIGN KEY (user_id) REFERENCES users`,
    `CREATE INDEX ON orders (placed_at)`,
    'VACUUM ANALYZE',
  ])
    await cluster.query(database, statement);
}
