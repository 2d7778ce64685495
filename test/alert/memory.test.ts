import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { stateIn } from '../../src/alert-state.ts';
import { isTold } from '../../src/tell-channels.ts';
import { failed, found, passed, Runs } from '../support/alerts.ts';
import { GitHubServer } from '../support/github.ts';

const id = '20261120T020004Z-3f9a1c';
const hour = 60 * 60 * 1000;

describe('what the issue remembers for the other channels', () => {
  test('health: told when its judgement changes, and every 24 hours while it does not; told when it is good again', async () => {
    await using server = await GitHubServer.start();
    const runs = new Runs(server, { kind: 'health' });
    const told: string[] = [];
    const judge = async (run: string, at: number, report = found(id, true)): Promise<void> => {
      runs.now = new Date(Date.parse('2026-11-21T02:00:34Z') + (at - 1) * hour);
      await runs.end(run, report);
      if (isTold('change', report, runs.known)) told.push(run);
    };
    for (const at of [0, 6, 12, 18, 24, 30]) await judge(String(at), at);
    await judge('36', 36, found(id, true, ['public.users', 'public.orders']));
    await judge('42', 42, found(id, true, ['public.users', 'public.orders']));
    assert.deepEqual(told, ['0', '24', '36']);
    assert.equal(runs.known?.since, '2026-11-21T02:00:34.000Z');
    assert.equal(runs.known?.runs, 8);
    const again = { ...passed(), subject: { of: 'backup', id, latest: true } } as const;
    runs.now = new Date(runs.now.getTime() + hour);
    await runs.end('48', again);
    assert.deepEqual([runs.known?.news, runs.known?.runs], [true, 8]);
    await runs.end('54', again);
    assert.equal(runs.known, undefined);
  });

  test('advances only once somebody was told: a comment that GitHub refuses is due again', async () => {
    await using server = await GitHubServer.start();
    const runs = new Runs(server, { kind: 'health' });
    await runs.end('1', failed());
    const [before] = await server.issues();
    server.fault = ({ method, path }) =>
      method === 'POST' && path.endsWith('/comments') ? { status: 403 } : undefined;
    await assert.rejects(runs.end('2', found(id, true)));
    const [after] = await server.issues();
    assert.deepEqual(stateIn(after?.body ?? ''), stateIn(before?.body ?? ''));
    server.fault = () => undefined;
    await runs.end('3', found(id, true));
    assert.equal(runs.known?.news, true);
    assert.equal((await server.comments(1)).length, 1);
  });
});
