import pg from 'pg';

export interface Writers {
  /** Statements that have been carried out so far. */
  readonly statements: number;
  /** Lets every transaction that has begun finish, then resolves. Rejects with what stopped a writer before its time. */
  stop(): Promise<{ readonly statements: number }>;
}

/** What concurrent writers do to each other, and what is no reason to stop: conflicts, deadlocks, and rows gone by. */
const expected = new Set(['40001', '40P01', '23503', '23505', '55P03']);

/**
 * `count` connections that insert, update and delete in the sample database without pause until they are stopped: whole
 * orders in transactions, moves of balances whose sum stays the same, rows that change partitions, sequences, large
 * objects. They never truncate and change no definitions. Resolves when all of them are connected.
 */
export async function startWriters(target: string | pg.ClientConfig, count: number): Promise<Writers> {
  const state = { statements: 0, stopping: false };
  const clients = await Promise.all(Array.from({ length: count }, () => connected(target)));
  const work = Promise.all(clients.map((client, writer) => write(client, writer, state)));
  // Reported by `stop`; until then nobody listens.
  work.catch(() => {});
  return {
    get statements() {
      return state.statements;
    },
    async stop() {
      state.stopping = true;
      await work;
      return { statements: state.statements };
    },
  };
}

async function connected(target: string | pg.ClientConfig): Promise<pg.Client> {
  const client = new pg.Client(target);
  client.on('error', () => {});
  await client.connect();
  return client;
}

async function write(
  client: pg.Client,
  writer: number,
  state: { statements: number; readonly stopping: boolean },
): Promise<void> {
  const run = async (sql: string, values: readonly unknown[] = []): Promise<pg.QueryResult> => {
    const result = await client.query(sql, [...values]);
    state.statements += 1;
    return result;
  };
  try {
    for (let turn = 0; !state.stopping; turn += 1) {
      const step = steps[turn % steps.length];
      try {
        await step?.(run, writer * 1_000_003 + turn * 7919);
      } catch (error) {
        await client.query('ROLLBACK');
        if (!(error instanceof pg.DatabaseError) || !expected.has(error.code ?? '')) throw error;
      }
    }
  } finally {
    await client.end();
  }
}

type Run = (sql: string, values?: readonly unknown[]) => Promise<pg.QueryResult>;

/** Each gets a number that is new every time and picks its rows with it. */
const steps: readonly ((run: Run, n: number) => Promise<void>)[] = [
  async (run, n) => {
    await run('BEGIN');
    await run(
      `INSERT INTO shop.orders (customer, placed_at, region, total, note)
       VALUES ($1, timestamptz '2024-03-01 UTC' + $2 * interval '1 minute', $3, $4, 'written meanwhile')`,
      [1001 + (n % 8000), n % 1_400_000, ['eu', 'us', 'uk', 'moon'][n % 4], 1 + (n % 500)],
    );
    await run(`INSERT INTO audit.events (kind, payload) VALUES ('order', jsonb_build_object('n', $1::int))`, [n]);
    await run('COMMIT');
  },
  async (run, n) => {
    const [from, to] = [1001 + (n % 8000), 1001 + ((n * 31 + 1) % 8000)].sort((a, b) => a - b);
    if (from === to) return;
    await run('BEGIN');
    await run('UPDATE shop.customers SET balance = balance - 1 WHERE id = $1', [from]);
    await run('UPDATE shop.customers SET balance = balance + 1 WHERE id = $1', [to]);
    await run('COMMIT');
  },
  async (run, n) => {
    await run(
      `UPDATE shop.orders SET placed_at = placed_at + interval '400 days' WHERE id = $1 AND isfinite(placed_at)`,
      [1 + (n % 64_000)],
    );
  },
  async (run, n) => {
    await run('DELETE FROM shop.orders WHERE id = $1', [1 + ((n * 17) % 64_000)]);
  },
  async (run, n) => {
    await run(`SELECT nextval('shop.numbers'), nextval('shop.countdown')`);
    await run(
      'INSERT INTO public.t (t, "T") VALUES ($1, \'meanwhile\') ON CONFLICT (t) DO UPDATE SET "T" = excluded."T"',
      [n % 5000],
    );
  },
  async (run, n) => {
    const { rows } = await run('SELECT lo_from_bytea(0, $1) AS loid', [Buffer.from(`object ${n}`)]);
    await run('SELECT lo_unlink($1)', [rows[0]?.loid]);
    await run('UPDATE shop.sessions SET data = $2 WHERE token = md5($1)::uuid', [String(1 + (n % 500)), { n }]);
  },
];
