-- A shop with one of everything that has ever broken a backup. PostgreSQL 14 to 18, no psql commands, one transaction:
-- any client can send it into an empty database. What the server or the role cannot do (an extension, ICU, roles, superuser) is left
-- out or has a plainer stand-in. `SET sample.event_trigger = on` before it adds an event trigger, which only a superuser
-- can restore. Everything in it is the same on every load.

BEGIN;
SET LOCAL TIME ZONE 'UTC';
SET LOCAL client_min_messages = warning;

-- Roles, shared by all databases of a server and therefore perhaps here already.
DO $$
DECLARE
  wanted text;
BEGIN
  FOREACH wanted IN ARRAY ARRAY['shop_owner', 'shop_app', 'shop_readonly'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted)
       AND (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL; -- another load, at the same moment
      END;
    END IF;
  END LOOP;
END
$$;

CREATE SCHEMA shop;
CREATE SCHEMA audit;
CREATE SCHEMA "Büro ☕ ""two""";
COMMENT ON SCHEMA shop IS E'The shop.\nCOPY public.x FROM stdin;\n\\.\n-- PostgreSQL database dump complete';

-- Types
CREATE TYPE shop.status AS ENUM ('new', 'paid', 'shipped', 'it''s back', 'größer');
CREATE DOMAIN shop.positive AS numeric(12, 2) NOT NULL DEFAULT 1 CONSTRAINT above_zero CHECK (VALUE > 0);
CREATE DOMAIN shop.country AS char(2) CHECK (VALUE ~ '^[A-Z]{2}$');
CREATE TYPE shop.address AS (street text, "Postal Code" text, country shop.country);
CREATE TYPE shop.float_range AS RANGE (subtype = float8, subtype_diff = float8mi);

DO $$
DECLARE
  extension text;
BEGIN
  IF EXISTS (SELECT FROM pg_collation WHERE collprovider = 'i') THEN
    CREATE COLLATION shop.german (provider = icu, locale = 'de');
    CREATE COLLATION shop.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
  ELSE
    CREATE COLLATION shop.german FROM "C";
    CREATE COLLATION shop.any_case FROM "C";
  END IF;
  FOREACH extension IN ARRAY ARRAY['citext', 'hstore', 'pgcrypto'] LOOP
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = extension) THEN
      EXECUTE format('CREATE EXTENSION IF NOT EXISTS %I WITH SCHEMA public', extension);
    END IF;
  END LOOP;
  IF to_regtype('public.citext') IS NOT NULL THEN
    CREATE DOMAIN shop.email AS public.citext CHECK (VALUE ~ '@');
  ELSE
    CREATE DOMAIN shop.email AS text CHECK (VALUE ~ '@');
  END IF;
END
$$;

-- Functions whose text looks like the dump around them.
CREATE FUNCTION shop.looks_like_a_dump() RETURNS text LANGUAGE plpgsql STABLE AS $body$
BEGIN
  RETURN $text$
COPY public.x FROM stdin;
1	one
\.
COPY shop.orders (id) FROM stdin;
\.

SELECT pg_catalog.setval('shop.numbers', 99, true);
--
-- PostgreSQL database dump complete
--
$text$;
END
$body$;
CREATE FUNCTION shop.label(code text, "Größe" int) RETURNS text LANGUAGE sql IMMUTABLE STRICT
  AS 'SELECT pg_catalog.upper(code) || ''-'' || "Größe"';
CREATE FUNCTION shop.new_style(a int, b int DEFAULT 2) RETURNS int LANGUAGE sql IMMUTABLE RETURN a + b;
CREATE PROCEDURE shop.nothing_much(INOUT n int) LANGUAGE plpgsql AS 'BEGIN n := n + 1; END';
CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.touched := NEW.touched + 1; -- a restore that fires it changes every row
  RETURN NEW;
END
$$;
CREATE FUNCTION audit.record() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  INSERT INTO audit.events (kind, payload) VALUES (TG_OP, jsonb_build_object('table', TG_RELID::regclass::text));
  RETURN NULL;
END
$$;
CREATE AGGREGATE shop.product(numeric) (SFUNC = numeric_mul, STYPE = numeric, INITCOND = '1');
CREATE OPERATOR shop.<~> (LEFTARG = int, RIGHTARG = int, FUNCTION = shop.new_style);
CREATE FUNCTION shop.address_line(shop.address) RETURNS text LANGUAGE sql IMMUTABLE
  AS $$ SELECT ($1).street || ', ' || ($1)."Postal Code" $$;
CREATE CAST (shop.address AS text) WITH FUNCTION shop.address_line(shop.address) AS ASSIGNMENT;
CREATE TEXT SEARCH CONFIGURATION shop.plain (COPY = pg_catalog.simple);

-- Sequences: called, never called, set but not called, counting down and around, at the end of their range.
CREATE SEQUENCE shop.numbers START 100 INCREMENT 5 CACHE 10;
CREATE SEQUENCE shop.untouched MINVALUE -5;
CREATE SEQUENCE shop.set_only;
CREATE SEQUENCE shop.countdown INCREMENT -3 MINVALUE -9 MAXVALUE 9 START 9 CYCLE;
CREATE SEQUENCE shop."at the end" MAXVALUE 9223372036854775807 START 9223372036854775806;
SELECT nextval('shop.numbers') FROM generate_series(1, 7);
SELECT setval('shop.set_only', 42, false);
SELECT nextval('shop.countdown') FROM generate_series(1, 10);
SELECT nextval('shop."at the end"'), nextval('shop."at the end"');

-- Customers
CREATE TABLE shop.customers (
  id bigint GENERATED ALWAYS AS IDENTITY (START 1000) PRIMARY KEY,
  email shop.email NOT NULL UNIQUE,
  name text NOT NULL COLLATE shop.german,
  home shop.address,
  other_addresses shop.address[] DEFAULT '{}',
  tags text[] NOT NULL DEFAULT '{}',
  settings jsonb NOT NULL DEFAULT '{}',
  balance numeric(12, 2) NOT NULL DEFAULT 0,
  initials text GENERATED ALWAYS AS (upper(left(name, 1))) STORED,
  member_during tstzrange,
  secret_note text,
  touched int NOT NULL DEFAULT 0,
  dropped_later int,
  CONSTRAINT old_rows_may_break_it CHECK (balance < 1000000)
) WITH (fillfactor = 90);
INSERT INTO shop.customers (email, name, home, tags, settings, balance, member_during)
SELECT format('user%s@example.com', i),
       (ARRAY['Ada', 'Özlem', 'Zoë', '李雷', 'O''Brien', 'Émile', E'Tab\there', '🦉'])[1 + i % 8] || ' ' || i,
       ROW('Hauptstraße ' || i, lpad(i::text, 5, '0'), (ARRAY['DE', 'FR', 'PL'])[1 + i % 3])::shop.address,
       CASE WHEN i % 3 = 0 THEN ARRAY['vip', 'a "b"', 'c\d', NULL] ELSE '{}' END,
       jsonb_build_object('n', i, 'nested', jsonb_build_array(1, NULL, 'x"y', jsonb_build_object('k', i % 7))),
       (i * 7919 % 100000) / 100.0,
       tstzrange(timestamptz '2025-01-01 UTC' + i * interval '1 hour', NULL)
FROM generate_series(1, 8000) AS i;
UPDATE shop.customers SET settings = settings || '{"big": 1e400, "zero": -0.0}', home = NULL WHERE id % 500 = 0;
ALTER TABLE shop.customers DROP COLUMN dropped_later;
ALTER TABLE shop.customers ADD COLUMN added_later timestamptz DEFAULT '-infinity';
ALTER TABLE shop.customers ALTER COLUMN name SET STATISTICS 500;
CREATE INDEX customers_lower ON shop.customers (lower(name)) INCLUDE (balance) WHERE balance > 0;
CREATE INDEX ON shop.customers USING gin (settings jsonb_path_ops);
CREATE INDEX ON shop.customers USING gist (member_during);
CREATE INDEX ON shop.customers USING hash (name);
CREATE STATISTICS shop.customer_statistics (ndistinct, dependencies, mcv) ON balance, initials FROM shop.customers;
CREATE STATISTICS shop.expression_statistics ON (lower(name)), (balance * 2) FROM shop.customers;
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON shop.customers FOR EACH ROW EXECUTE FUNCTION shop.touch();

-- Orders: ranges, a range that is divided again, a default partition; more than 60 000 rows.
CREATE TABLE shop.orders (
  id bigserial,
  customer bigint NOT NULL REFERENCES shop.customers ON DELETE CASCADE,
  placed_at timestamptz NOT NULL,
  region text NOT NULL,
  status shop.status NOT NULL DEFAULT 'new',
  total shop.positive,
  note text,
  PRIMARY KEY (id, placed_at, region)
) PARTITION BY RANGE (placed_at);
CREATE TABLE shop.orders_2025 PARTITION OF shop.orders FOR VALUES FROM ('2025-01-01 UTC') TO ('2026-01-01 UTC');
CREATE TABLE shop.orders_2026 PARTITION OF shop.orders FOR VALUES FROM ('2026-01-01 UTC') TO ('2027-01-01 UTC')
  PARTITION BY LIST (region);
CREATE TABLE shop.orders_2026_eu PARTITION OF shop.orders_2026 FOR VALUES IN ('eu', 'uk');
CREATE TABLE shop."orders 2026: rest" PARTITION OF shop.orders_2026 DEFAULT;
CREATE TABLE shop.orders_other PARTITION OF shop.orders DEFAULT;
CREATE TABLE shop.orders_2024 ( -- columns in another order than the parent's, and a gap where one was dropped
  note text, total shop.positive, gone int, status shop.status NOT NULL DEFAULT 'new', region text NOT NULL,
  placed_at timestamptz NOT NULL, customer bigint NOT NULL, id bigint NOT NULL DEFAULT nextval('shop.orders_id_seq')
);
ALTER TABLE shop.orders_2024 DROP COLUMN gone;
ALTER TABLE shop.orders ATTACH PARTITION shop.orders_2024 FOR VALUES FROM ('2024-01-01 UTC') TO ('2025-01-01 UTC');
INSERT INTO shop.orders (customer, placed_at, region, status, total, note)
SELECT 1000 + i * 31 % 8000, timestamptz '2024-06-01 UTC' + i * interval '20 minutes',
       (ARRAY['eu', 'us', 'uk', 'asia'])[1 + i % 4], (enum_range(NULL::shop.status))[1 + i % 5], 0.5 + i % 977,
       CASE i % 10 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN E'\\N' WHEN 3 THEN E'\\.' ELSE 'order ' || md5(i::text) END
FROM generate_series(1, 64000) AS i;
INSERT INTO shop.orders (customer, placed_at, region) VALUES (1001, 'infinity', 'moon'), (1002, '1999-12-31 UTC', 'eu');
CREATE INDEX orders_by_customer ON shop.orders (customer, placed_at DESC NULLS LAST);
CREATE INDEX ON shop.orders_2025 USING brin (placed_at);
CREATE INDEX not_on_the_parent ON shop.orders_2024 (status) WHERE status <> 'shipped';

-- Keys that point at each other, at themselves, and wait for the end of the transaction.
CREATE TABLE shop.departments (
  id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
  name text UNIQUE DEFERRABLE INITIALLY DEFERRED,
  head int NOT NULL
);
CREATE TABLE shop.employees (
  id serial PRIMARY KEY,
  department int NOT NULL REFERENCES shop.departments DEFERRABLE INITIALLY DEFERRED,
  boss int REFERENCES shop.employees ON DELETE SET NULL,
  badge smallserial,
  present int4range,
  EXCLUDE USING gist (present WITH &&) WHERE (present IS NOT NULL) DEFERRABLE
);
ALTER TABLE shop.departments ADD FOREIGN KEY (head) REFERENCES shop.employees DEFERRABLE INITIALLY DEFERRED;
INSERT INTO shop.departments (name, head) SELECT 'Abteilung ' || i, i FROM generate_series(1, 5) AS i;
INSERT INTO shop.employees (department, boss, present)
SELECT 1 + i % 5, NULLIF(i / 2, 0), int4range(i * 10, i * 10 + 5) FROM generate_series(1, 200) AS i;
SET CONSTRAINTS ALL IMMEDIATE;

-- Inheritance without partitions: rows in the parent and in both children, one with a column of its own.
CREATE TABLE shop.vehicles (id int PRIMARY KEY, wheels int CHECK (wheels >= 0), name text DEFAULT 'nameless');
CREATE TABLE shop.cars (doors int NOT NULL DEFAULT 4) INHERITS (shop.vehicles);
CREATE TABLE shop.boats (CHECK (wheels = 0) NO INHERIT) INHERITS (shop.vehicles);
INSERT INTO shop.vehicles SELECT i, i % 5 FROM generate_series(1, 50) AS i;
INSERT INTO shop.cars SELECT 100 + i, 4, 'car ' || i, 5 FROM generate_series(1, 40) AS i;
INSERT INTO shop.boats SELECT 200 + i, 0 FROM generate_series(1, 30) AS i;

-- Names that have to be quoted, everywhere.
CREATE TABLE public.t (t int PRIMARY KEY, "T" text, "select" text, " " text, "a""b" text, "$$" text, "x.y" text);
INSERT INTO public.t SELECT i, 'T' || i, 's', ' ', '"', '$', '.' FROM generate_series(1, 33) AS i;
CREATE TABLE public."🐘 elephants" ("größe" int, "имя" text, "数" int DEFAULT 7);
INSERT INTO public."🐘 elephants" SELECT i, 'слон' FROM generate_series(1, 21) AS i;
CREATE TABLE public.U&"line\000Abreak" (U&"tab\0009column" text, "back\slash" text);
INSERT INTO public.U&"line\000Abreak" VALUES (E'a\nb\r\nc\td', E'\\'), (NULL, ''), (E'\\.', 'COPY public.x FROM stdin;');
CREATE TABLE "Büro ☕ ""two"""."Table; DROP TABLE x; --" (id int PRIMARY KEY, "it's" text DEFAULT E'it''s \\ "so"');
INSERT INTO "Büro ☕ ""two"""."Table; DROP TABLE x; --" SELECT i FROM generate_series(1, 12) AS i;
CREATE TABLE shop.a_name_of_exactly_sixty_three_bytes_which_is_all_that_there_isxx (id int);
INSERT INTO shop.a_name_of_exactly_sixty_three_bytes_which_is_all_that_there_isxx VALUES (1);
COMMENT ON TABLE public.t IS 'alias; its column "t" hides the row';
COMMENT ON COLUMN public.t."a""b" IS E'a quote\nand a line';

-- Few or no rows, few or no columns.
CREATE TABLE shop.empty (id int, value text);
CREATE TABLE shop.no_columns ();
INSERT INTO shop.no_columns DEFAULT VALUES;
INSERT INTO shop.no_columns DEFAULT VALUES;
INSERT INTO shop.no_columns DEFAULT VALUES;
CREATE TABLE shop.only_generated (a int GENERATED ALWAYS AS (1 + 1) STORED);
INSERT INTO shop.only_generated DEFAULT VALUES;

-- Values: everything that has an unusual text form.
CREATE TABLE shop.odd_values (
  id int PRIMARY KEY, r real, d double precision, n numeric, at timestamptz, day date, span interval, b bit varying(9),
  ip inet, mac macaddr, ranges int4multirange, money_range shop.float_range, point point, path path, document tsvector,
  uuid uuid, j json, states shop.status[], grid int[], key_values text
);
INSERT INTO shop.odd_values VALUES
  (1, 'NaN', '-Infinity', 'NaN', 'infinity', '4713-01-01 BC', '-1 year 2 mons -3 days', B'101', '::1/64', '08:00:2b:01:02:03',
   '{[1,3),[5,)}', '[1.5,2.5]', '(1,-0)', '[(0,0),(1,1)]', 'fat:1A cat:2', '00000000-0000-0000-0000-000000000000',
   '{"dup": 1, "dup": 2,  "spaces":   true}', '{"it''s back",NULL}', '[0:1][2:3]={{1,2},{3,NULL}}', '"a"=>"b,c", "n"=>NULL'),
  (2, 1e-45, 0.1 + 0.2, 1e100 / 3, '-infinity', 'infinity', '178000000 years', B'', '10.0.0.0/8', NULL, '{}', 'empty',
   '(Infinity,NaN)', '((0,0),(1,1))', '', NULL, 'null', '{}', '{}', '');
CREATE TABLE shop.documents (id int PRIMARY KEY, name text, content bytea, checksum bytea, long_text text);
ALTER TABLE shop.documents ALTER COLUMN content SET STORAGE EXTERNAL;
INSERT INTO shop.documents
SELECT i, 'scan ' || i || '.pdf', content, sha256(content), CASE WHEN i = 7 THEN repeat('Zeile\n' || chr(10), 100000) END
FROM generate_series(1, 160) AS i,
     LATERAL (SELECT string_agg(sha256(int4send(i * 1000 + k)), ''::bytea ORDER BY k) AS content
              FROM generate_series(1, 640) AS k) AS made;
ALTER TABLE shop.documents ADD CONSTRAINT never_checked CHECK (id > 50) NOT VALID; -- its first fifty rows break it
CREATE UNLOGGED TABLE shop.sessions (token uuid PRIMARY KEY, data jsonb);
INSERT INTO shop.sessions SELECT md5(i::text)::uuid, '{}' FROM generate_series(1, 500) AS i;

CREATE TABLE audit.events (
  id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT '2026-11-01 UTC', kind text, payload jsonb
);
INSERT INTO audit.events (kind, payload)
SELECT 'page', jsonb_build_object('path', '/p/' || i, 'agent', repeat(md5(i::text), 3)) FROM generate_series(1, 20000) AS i;
ALTER TABLE audit.events REPLICA IDENTITY FULL;
CREATE TRIGGER record AFTER DELETE ON shop.orders FOR EACH STATEMENT EXECUTE FUNCTION audit.record();
CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON shop.employees DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION audit.record();
CREATE TRIGGER switched_off AFTER DELETE ON shop.vehicles FOR EACH STATEMENT EXECUTE FUNCTION audit.record();
ALTER TABLE shop.vehicles DISABLE TRIGGER switched_off;
ALTER TABLE shop.employees ENABLE ALWAYS TRIGGER late;

-- Large objects, one of them empty, one longer than a page, one with a comment and a fixed number.
SELECT lo_from_bytea(0, content) FROM shop.documents WHERE id <= 3 ORDER BY id;
SELECT lo_create(424242);
COMMENT ON LARGE OBJECT 424242 IS 'empty, and it''s fine';

-- Views, some on views, some on what is created after them in the alphabet.
CREATE VIEW shop.a_summary AS
  SELECT c.id, c.name, count(o.id) AS orders, sum(o.total) AS total
  FROM shop.customers AS c LEFT JOIN shop.orders AS o ON o.customer = c.id GROUP BY c.id;
CREATE VIEW shop.open_orders WITH (security_barrier) AS
  SELECT * FROM shop.orders WHERE status IN ('new', 'paid') WITH LOCAL CHECK OPTION;
CREATE RECURSIVE VIEW shop.chain (id, depth) AS
  SELECT id, 0 FROM shop.employees WHERE boss IS NULL
  UNION ALL SELECT e.id, depth + 1 FROM shop.employees AS e JOIN chain ON e.boss = chain.id;
CREATE MATERIALIZED VIEW shop.zz_totals AS SELECT region, count(*) AS n, sum(total) AS total FROM shop.orders GROUP BY region;
CREATE UNIQUE INDEX ON shop.zz_totals (region);
CREATE MATERIALIZED VIEW shop.aa_best AS SELECT region FROM shop.zz_totals ORDER BY total DESC LIMIT 1;
CREATE MATERIALIZED VIEW shop.never_filled AS SELECT 1 AS n WITH NO DATA;
CREATE RULE keep_them AS ON DELETE TO shop.empty DO INSTEAD NOTHING;
CREATE RULE forward AS ON INSERT TO shop.a_summary DO INSTEAD INSERT INTO shop.empty (id, value) VALUES (NEW.id, NEW.name);

DO $$
BEGIN
  IF current_setting('server_version_num')::int >= 150000 THEN
    CREATE VIEW shop.as_the_caller WITH (security_invoker) AS SELECT id, name FROM shop.customers;
    EXECUTE 'CREATE TABLE shop.nulls_once (a int, b int, UNIQUE NULLS NOT DISTINCT (a, b))';
    EXECUTE 'INSERT INTO shop.nulls_once VALUES (1, NULL), (NULL, NULL)';
  END IF;
  IF current_setting('server_version_num')::int >= 180000 THEN
    EXECUTE 'CREATE TABLE shop.virtual (a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL, CHECK (a > 0) NOT ENFORCED)';
    EXECUTE 'INSERT INTO shop.virtual VALUES (1), (-2), (3)';
  END IF;
  IF current_setting('sample.event_trigger', true) = 'on' AND current_setting('is_superuser') = 'on' THEN
    CREATE FUNCTION audit.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM 1; END';
    CREATE EVENT TRIGGER sample_ddl ON ddl_command_end EXECUTE FUNCTION audit.on_ddl();
  END IF;
END
$$;

-- Who may see what.
ALTER TABLE shop.customers ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit.events ENABLE ROW LEVEL SECURITY;
DO $$
DECLARE
  relation regclass;
BEGIN
  IF (SELECT count(*) FROM pg_roles WHERE rolname IN ('shop_owner', 'shop_app', 'shop_readonly')) < 3 THEN
    RETURN;
  END IF;
  CREATE POLICY own_rows ON shop.customers FOR SELECT TO shop_app USING (id::text = current_setting('shop.customer', true));
  CREATE POLICY not_secret ON shop.customers AS RESTRICTIVE TO shop_app USING (secret_note IS NULL) WITH CHECK (true);
  GRANT USAGE ON SCHEMA shop TO shop_app, shop_readonly;
  GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA shop TO shop_app;
  REVOKE SELECT ON shop.documents FROM shop_app;
  GRANT SELECT (id, name), UPDATE (name) ON shop.documents TO shop_app WITH GRANT OPTION;
  GRANT USAGE ON ALL SEQUENCES IN SCHEMA shop TO shop_app;
  GRANT SELECT ON LARGE OBJECT 424242 TO shop_readonly;
  REVOKE EXECUTE ON FUNCTION audit.record() FROM PUBLIC;
  ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO shop_readonly;
  ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
  IF current_setting('is_superuser') = 'on' THEN
    GRANT CREATE, USAGE ON SCHEMA shop TO shop_owner;
    GRANT SELECT ON shop.orders TO shop_owner; -- for its materialized view
    FOR relation IN SELECT unnest(ARRAY['shop.departments', 'shop.employees', 'shop.empty', 'shop.zz_totals', 'shop.chain'])
    LOOP
      EXECUTE format('ALTER TABLE %s OWNER TO shop_owner', relation);
    END LOOP;
    ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA shop GRANT ALL ON TABLES TO shop_app;
  END IF;
END
$$;

CREATE PUBLICATION sample_orders FOR TABLE shop.departments, shop.employees WITH (publish = 'insert, update');
COMMIT;
