import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import fc from 'fast-check';
import pg from 'pg';
import { connect, type Session } from '../../src/postgres/connect.ts';
import { BadPattern, parsePattern } from '../../src/postgres/pattern.ts';
import { resolveScope, type ScopeRequest } from '../../src/postgres/scope.ts';
import { prepareSession } from '../../src/postgres/server.ts';
import { parseDatabaseUrl } from '../../src/postgres/url.ts';
import { scratch } from '../support/faults.ts';
import { Cluster, majorsAvailable } from '../support/postgres.ts';

const tables = [
  ...[
    'a',
    'A',
    'b',
    'ab',
    'aB',
    'a.b',
    'a"b',
    'a$b',
    '$1',
    'a*',
    'a?',
    'a[]',
    'a|b',
    'a+',
    'a b',
    'a\\b',
    '(a)',
    '^a',
    'ä',
    'Ä',
    'grÖsse',
  ],
  ...['a{2}', 'aa', '-a', '', 'orders', 'orders_2024', 'Orders'],
].filter((name) => name !== '');
const schemas = ['public', 's', 'S', 's.t', 'a'];

const none: ScopeRequest = {
  mode: 'full',
  schemas: [],
  excludeSchemas: [],
  tables: [],
  excludeTables: [],
  excludeTableData: [],
};

describe('a pattern means what it means to pg_dump', () => {
  let cluster: Cluster;
  let session: Session;
  let file: string;

  before(async () => {
    cluster = await Cluster.start({ major: majorsAvailable().at(-1) ?? 15 });
    await cluster.createDatabase('shop');
    await cluster.query(
      'shop',
      schemas
        .flatMap((schema, at) => [
          ...(schema === 'public' ? [] : [`CREATE SCHEMA ${pg.escapeIdentifier(schema)}`]),
          ...tables
            .filter((_, index) => (index + at) % 3 !== 0 || at === 0)
            .map((name) => `CREATE TABLE ${pg.escapeIdentifier(schema)}.${pg.escapeIdentifier(name)} ()`),
        ])
        .join(';\n'),
    );
    await cluster.query('shop', 'ALTER DATABASE shop SET search_path = s, public');
    const { target } = parseDatabaseUrl(cluster.url('shop'), { input: 'database-url' });
    assert.ok(target !== undefined);
    session = await connect(target, { applicationName: 'patterns' });
    await prepareSession(session);
    file = join(await scratch(), 'dump');
  });
  after(async () => {
    await session.close();
    await cluster.stop();
  });

  let dumps = 0;
  /** What pg_dump takes with these options, or undefined when it refuses them. */
  async function theirs(options: readonly string[]): Promise<string[] | undefined> {
    const archive = `${file}-${++dumps}`;
    const env = { PATH: '/usr/bin:/bin', LC_ALL: 'C' };
    const run = promisify(execFile);
    try {
      await run(join(cluster.bin, 'pg_dump'), ['-Fc', '-s', '-f', archive, ...options, cluster.url('shop')], { env });
    } catch {
      return undefined;
    }
    const { stdout } = await run(join(cluster.bin, 'pg_restore'), ['-l', archive], { env });
    return (
      [...stdout.matchAll(/^\d+; \d+ \d+ TABLE (.*) postgres$/gm)]
        .map(([, name]) => name ?? '')
        // It takes the system's own tables with *; nobody wants them back.
        .filter((name) => !/^(?:pg_catalog|information_schema) /.test(name))
        .sort()
    );
  }

  /** What the scope resolves to, or undefined when it is refused. */
  async function ours(request: Partial<ScopeRequest>): Promise<string[] | undefined> {
    try {
      const scope = await resolveScope(session, { ...none, ...request }, { standby: false, database: 'shop' });
      return scope.tables.map(({ schema, name }) => `${schema} ${name}`).sort();
    } catch (error) {
      // A refusal is one of these two, nothing else.
      if (error instanceof BadPattern || (error as Error).name === 'Failure') return undefined;
      throw error;
    }
  }

  const fixed = [
    ...[
      'a',
      'A',
      '"A"',
      'a*',
      'a?',
      '"a*"',
      '"a?"',
      '*',
      '?',
      '*.*',
      's.*',
      'S.*',
      '"S".*',
      '"s.t".*',
      's.t.a',
      'shop.s.a',
      'SHOP.s.a',
    ],
    ...[
      '"SHOP".s.a',
      'other.s.a',
      'a.b.c.d',
      '"a.b"',
      'a"."b',
      '"a""b"',
      'a$b',
      '"a$b"',
      '$1',
      'a[]',
      '"a[]"',
      'a|b',
      '"a|b"',
      '(a|b)',
      'a+',
      '"a+"',
    ],
    ...[
      'a b',
      'a\\b',
      '"a\\b"',
      '\\(a\\)',
      '^a',
      '"^a"',
      'a{2}',
      '"a{2}"',
      'ä',
      'Ä',
      'GRÖSSE',
      '"grÖsse"',
      'orders',
      'ORDERS*',
      'or[d-e]ers',
      '"open',
      'a(',
      '.a',
    ],
    ...['a.', '..', 's."A"', 's|a.a', '[^a]', 'a.*b', '"*"', '""', 'nothing', '"-a"', '-a'],
  ];
  test('for every kind of pattern of a table', async () => {
    for (const pattern of fixed)
      assert.deepEqual(await ours({ tables: [pattern] }), await theirs([`--table=${pattern}`]), pattern);
  });

  test('and of a schema', async () => {
    for (const pattern of ['s', 'S', '"S"', '*', 's*', '"s.t"', 's.t', 'public|a', 'other.s', 'x'])
      assert.deepEqual(await ours({ schemas: [pattern] }), await theirs([`--schema=${pattern}`]), pattern);
  });

  test('and for random ones', async () => {
    const piece = fc.constantFrom(
      ...[
        'a',
        'b',
        'A',
        'ä',
        's',
        'S',
        '"',
        '"',
        '.',
        '*',
        '?',
        '$',
        '[',
        ']',
        '(',
        ')',
        '|',
        '+',
        '^',
        '\\',
        ' ',
        'order',
        '""',
        '{2}',
      ],
    );
    const pattern = fc
      .array(piece, { minLength: 1, maxLength: 6 })
      .map((pieces) => pieces.join(''))
      .filter((text) => text.trim() === text && !text.startsWith('-'));
    const sample = fc.sample(pattern, { numRuns: 60, seed: 4711 });
    for (const text of new Set(sample))
      assert.deepEqual(await ours({ tables: [text] }), await theirs([`--table=${text}`]), JSON.stringify(text));
  });

  test('and where patterns exclude', async () => {
    assert.deepEqual(
      await ours({ schemas: ['s*'], excludeTables: ['a*', 's."A"'] }),
      await theirs(['--schema=s*', '--exclude-table=a*', '--exclude-table=s."A"']),
    );
    assert.deepEqual(
      await ours({ excludeSchemas: ['"S"', 'p*'] }),
      await theirs(['--exclude-schema="S"', '--exclude-schema=p*']),
    );
  });
});

test('a pattern keeps its text, and its names as anchored regular expressions', () => {
  assert.deepEqual(parsePattern('Sales."Order.Items"', 3), {
    text: 'Sales."Order.Items"',
    schema: '^(sales)$',
    name: '^(Order\\.Items)$',
    database: undefined,
  });
  assert.deepEqual(parsePattern('db.*', 2), { text: 'db.*', schema: undefined, name: '^(.*)$', database: 'db' });
  assert.throws(() => parsePattern('"a', 3), BadPattern);
  assert.throws(() => parsePattern('a..b', 3), BadPattern);
  assert.throws(() => parsePattern('a.b.c', 2), BadPattern);
});
