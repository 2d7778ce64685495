import assert from 'node:assert/strict';
import { readFileSync, statSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import type { ActionResult } from '../support/action.ts';
import { cli } from '../support/backup.ts';
import {
  backUp,
  createShop,
  descendants,
  errorOf,
  filesIn,
  scratch,
  startBackup,
  type Underway,
} from '../support/faults.ts';
import { Cluster, freePort } from '../support/postgres.ts';
import { parseCommand } from '../support/workflow-commands.ts';

let cluster: Cluster;
before(async () => {
  cluster = await Cluster.start();
  await createShop(cluster, 'shop', 3000);
});
after(() => cluster?.stop());

/** Every form in which a password may turn up somewhere. */
function formsOf(password: string): string[] {
  const encoded = encodeURIComponent(password.toWellFormed());
  const forms = [
    password,
    encoded,
    encoded.replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16)}`),
    JSON.stringify(password).slice(1, -1),
    password.replace(/[\\:]/g, '\\$&'),
    password.replaceAll("'", "''"),
    Buffer.from(password).toString('base64'),
    Buffer.from(password).toString('hex'),
  ];
  return [...new Set(forms)].filter((form) => form.length >= 4);
}

/** What was seen of the programs of one run. */
interface Seen {
  readonly programs: Set<string>;
  readonly commandLines: Set<string>;
  readonly environments: Map<string, Record<string, string>>;
  /** Mode of each password file and of its folder, in octal. */
  readonly modes: Set<string>;
}

async function watch(run: Underway): Promise<Seen> {
  const seen: Seen = { programs: new Set(), commandLines: new Set(), environments: new Map(), modes: new Set() };
  let over = false;
  run.done.finally(() => {
    over = true;
  });
  while (!over) {
    for (const { pid, args } of descendants(run.pid)) {
      const name = args[0]?.split('/').at(-1) ?? '';
      seen.programs.add(name);
      seen.commandLines.add(args.join(' '));
      try {
        const variables = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').filter(Boolean);
        const environment = Object.fromEntries(
          variables.map((each) => [each.slice(0, each.indexOf('=')), each.slice(each.indexOf('=') + 1)]),
        );
        // Between fork and exec a child still shows our own.
        if (environment.GITHUB_ACTIONS !== undefined) continue;
        seen.environments.set(`${name} ${pid}`, environment);
        const file = environment.PGPASSFILE;
        if (file !== undefined && !file.endsWith('/absent'))
          seen.modes.add([file, dirname(file)].map((path) => (statSync(path).mode & 0o777).toString(8)).join(' in '));
      } catch {
        // Gone in between.
      }
    }
    await sleep(2);
  }
  return seen;
}

function publicText(result: ActionResult): string {
  const said = result.rawLog
    .split('\n')
    .filter((line) => parseCommand(line)?.name !== 'add-mask')
    .join('\n');
  return [
    said,
    result.log,
    result.summary,
    JSON.stringify(result.outputs),
    JSON.stringify(result.state),
    JSON.stringify(result.exported),
    JSON.stringify(result.annotations),
  ].join('\n');
}

function requireHidden(text: string, forms: readonly string[], where: string): void {
  for (const form of forms) assert.ok(!text.includes(form), `${JSON.stringify(form)} is in ${where}:\n${text}`);
}

let users = 0;
async function userWith(password: string, name = `user_${++users}`): Promise<string> {
  await cluster.query(
    'postgres',
    `CREATE ROLE ${pg.escapeIdentifier(name)} SUPERUSER LOGIN PASSWORD ${pg.escapeLiteral(password)}`,
  );
  return name;
}

describe('I-40: a password', () => {
  const passwords: [string, string][] = [
    ['of everything a URL is made of', 'p@ss:w/rd?with#all%of&it=[x]'],
    ['with spaces inside and around', ' pass word '],
    ['with quotes', `it's "quoted" \`here\``],
    ['with backslashes and colons', 'back\\slash:and\\:both\\'],
    ['with a line break', 'first-line\nsecond-line'],
    ['with a line break at its end', 'last-line\n'],
    ['with a carriage return at its end', 'carriage\r'],
    ['outside of ASCII', 'pässwörd-密码-🔑'],
    ['that looks percent-encoded', '%41%42%2Fabc'],
    ['with shell and workflow words', '$(id)`id`$' + '{{ x }}::add-mask::%0A'],
    ['of three characters', 'ab9'],
  ];
  for (const [what, password] of passwords) {
    test(`${what} logs in, and is seen nowhere`, async () => {
      const user = await userWith(password);
      const store = await scratch();
      const run = await startBackup(cluster.url('shop', user, password), store, {}, { env: { RUNNER_DEBUG: '1' } });
      const seen = await watch(run);
      const result = await run.done;
      assert.equal(result.exitCode, 0, result.log);
      assert.deepEqual(result.droppedOutputs, []);
      assert.equal(result.outputs.rows, '3100');
      assert.deepEqual(result.leftovers, []);

      for (const word of ['127.0.0.1', 'shop', user, 'file', 'postgres']) assert.ok(!result.masks.includes(word), word);
      assert.ok(result.masks.includes(cluster.url('shop', user, password)));
      // Three characters would blot out every log; the runner is not asked to hide them, and the user is told.
      const short = password.length < 4;
      assert.equal(result.masks.includes(password), !short);
      assert.equal(/^Warning: the password is too short to be hidden/m.test(result.log), short);

      const forms = formsOf(password);
      requireHidden([...seen.commandLines].join('\n'), forms, 'a command line');
      requireHidden(publicText(result), forms, 'what the run said');
      for (const file of await filesIn(store))
        requireHidden(await readFile(join(store, file), 'latin1'), forms.map(latin1), file);

      for (const name of ['pg_dump', 'pg_restore']) assert.ok(seen.programs.has(name), [...seen.programs].join());
      const inEnvironment = /\n|\r$/.test(password);
      if (!inEnvironment) assert.deepEqual([...seen.modes], ['600 in 700']);
      for (const [program, environment] of seen.environments) {
        const strange = Object.keys(environment).filter(
          (key) => !key.startsWith('PG') && !['PATH', 'HOME', 'LC_ALL', 'LD_LIBRARY_PATH', 'PWD'].includes(key),
        );
        assert.deepEqual(strange, [], program);
        assert.equal(environment.PGPASSWORD, inEnvironment && environment.PGHOST ? password : undefined, program);
        const { PGPASSWORD: _, ...others } = environment;
        requireHidden(JSON.stringify(others), forms, `the environment of ${program}`);
      }
    });
  }

  for (const [what, user, password] of [
    ['equal to the user name', 'reporter', 'reporter'],
    ['equal to the database name', undefined, 'shop'],
    ['equal to a folder of the store', undefined, 'backups'],
    ['with a piece that is in every id', undefined, 'my/2026'],
    ['with a piece that is a folder of the store', undefined, 'our:backups'],
    ['equal to the name of the backups', undefined, 'shop-nightly'],
  ] as const) {
    test(`${what} costs no output`, async () => {
      const name = await userWith(password, user);
      const store = join(await scratch(), 'backups');
      const result = await backUp(cluster.url('shop', name, password), store, { name: 'shop-nightly' });
      assert.equal(result.exitCode, 0, result.log);
      assert.deepEqual(result.droppedOutputs, []);
      assert.match(result.outputs.location ?? '', /\/backups\/shop-nightly\//);
    });
  }
});

function latin1(text: string): string {
  return Buffer.from(text).toString('latin1');
}

describe('I-40: errors', () => {
  const password = 'Zq9aa@Xw8bb:Lk7cc/Pm6dd?Rt5ee#Vb4ff%Nn3gg&Hh2hh Jj1ii';
  const pieces = password.split(/[@:/?#%& ]/);
  const command = ['backup', '--store', 'file:///nonexistent/x', '--retries', '0'];
  const all = (): string[] => [...formsOf(password), ...pieces];

  test('a wrong password: exit 11', async () => {
    const user = await userWith('another');
    const result = await backUp(cluster.url('shop', user, password), await scratch(), { retries: 2 });
    assert.equal(result.exitCode, 11, result.log);
    assert.match(errorOf(result), /^connect: the server at .* does not accept the password of user "user_\d+"/);
    assert.doesNotMatch(result.log, /trying again/);
    requireHidden(publicText(result), all(), 'what the run said');
  });

  test('nobody listens: exit 10', async () => {
    const url = cluster.url('shop', 'somebody', password).replace(`:${cluster.port}/`, `:${await freePort()}/`);
    const result = await backUp(url, await scratch());
    assert.equal(result.exitCode, 10, result.log);
    requireHidden(publicText(result), all(), 'what the run said');
  });

  test('a host that does not exist: exit 10', async () => {
    const url = cluster.url('shop', 'somebody', password).replace('127.0.0.1', 'nowhere.invalid');
    const result = await backUp(url, await scratch());
    assert.equal(result.exitCode, 10, result.log);
    requireHidden(publicText(result), all(), 'what the run said');
  });

  for (const character of ['@', '/', '?', '#', '%', ' ', ':', '\n', '[', '&']) {
    test(`a password with a raw ${JSON.stringify(character)} in a URL: no piece of it is printed`, async () => {
      const words = ['Zq9aaWord', 'Xw8bbWord', 'Lk7ccWord'];
      const url = `postgresql://somebody:${words.join(character)}@127.0.0.1:${await freePort()}/shop`;
      const result = await backUp(url, await scratch());
      assert.notEqual(result.exitCode, 0);
      requireHidden(publicText(result), words, 'what the run said');
      const told = await cli([...command, '--name', 'shop'], { DATABASE_URL: url });
      assert.equal(told.exitCode, result.exitCode, told.stderr);
      requireHidden(`${told.stdout}${told.stderr}`, words, 'what the command line said');
    });
  }

  test('a URL in the place of another input is hidden there too', async () => {
    const url = 'postgresql://somebody:Zq9aaWord@127.0.0.1/shop';
    const result = await backUp(url, await scratch(), { name: url, label: url });
    assert.equal(result.exitCode, 2);
    requireHidden(publicText(result), ['Zq9aaWord'], 'what the run said');
  });

  for (const [how, args] of [
    ['apart', (url: string) => ['--database-url', url]],
    ['joined', (url: string) => [`--database-url=${url}`]],
  ] as const) {
    test(`a password on the command line (${how}) is accepted with a warning that does not repeat it`, async () => {
      const url = `postgresql://somebody:Zq9aaWord@127.0.0.1:${await freePort()}/shop`;
      const told = await cli([...command, '--name', 'shop', ...args(url)]);
      assert.equal(told.exitCode, 10, told.stderr);
      assert.match(told.stderr, /^warning: the password in --database-url can be seen by every user of this machine/m);
      requireHidden(`${told.stdout}${told.stderr}`, ['Zq9aaWord'], 'what the command line said');
    });
  }

  test('a URL where no argument belongs is refused and not repeated', async () => {
    for (const word of [
      'postgresql://somebody:Zq9aaWord@127.0.0.1/shop',
      'postgresql://somebody:Zq9aaWord/Xw8bbWord@h/d',
    ])
      for (const args of [
        [word],
        ['backup', word],
        ['list', word],
        ['restore', word, word],
        ['backup', `--jobs=${word}`],
      ]) {
        const told = await cli(args);
        assert.equal(told.exitCode, 2, told.stderr);
        requireHidden(`${told.stdout}${told.stderr}`, ['Zq9aaWord', 'Xw8bbWord'], args.join(' '));
      }
  });
});
