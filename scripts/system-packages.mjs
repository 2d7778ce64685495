// Installs packages with the machine's own manager, and nothing else: no service is started or left enabled, and no
// database cluster that a package creates on the way stays behind.
import { spawnSync } from 'node:child_process';

/**
 * `packages` and, with `postgresql`, the server and the client of the major this machine's sources prefer, both brought
 * to the same minor. Throws with the command to run when we may not install anything here.
 */
export function installWithApt({ packages, postgresql }) {
  const asRoot = rights();
  const names = [...new Set(packages)];
  if (asRoot === undefined) {
    const all = [...(postgresql ? (preferredPostgresql() ?? ['postgresql']) : []), ...names].join(' ');
    throw new Error(
      `no right to install packages here. Please run:\n\n  sudo apt-get update && sudo apt-get install -y ${all}\n`,
    );
  }
  privileged(asRoot, 'apt-get -qq update', 'apt-get update');
  if (postgresql) {
    const both = preferredPostgresql();
    if (both === undefined) throw new Error('apt knows no package "postgresql" that depends on a server');
    names.push(...both);
  }
  privileged(asRoot, installScript, `apt-get install ${names.join(' ')}`, names);
}

/**
 * The server this machine's sources prefer, and its client. Together, because the server does not ask for a client as new
 * as itself, and an older one cannot dump it safely.
 */
function preferredPostgresql() {
  const depends = spawnSync('apt-cache', ['depends', 'postgresql'], { encoding: 'utf8' }).stdout ?? '';
  const server = /postgresql-\d+/.exec(depends)?.[0];
  return server === undefined ? undefined : [server, server.replace('postgresql', 'postgresql-client')];
}

/** What brew calls formulae. */
export function installWithBrew(formulae) {
  const result = spawnSync('brew', ['install', '--quiet', ...formulae], { encoding: 'utf8' });
  if (result.status !== 0) throw new Error(`brew install ${formulae.join(' ')} failed:\n${tail(result)}`);
}

/**
 * Runs as root with the packages as arguments. A policy-rc.d that answers 101 keeps maintainer scripts from starting
 * services, with and without systemd; one that is there already is the machine owner's and stays in force.
 */
const installScript = `
set -eu
policy=/usr/sbin/policy-rc.d
ours=
finish() { [ -z "$ours" ] || rm -f "$policy"; }
trap finish EXIT
trap 'exit 130' HUP INT TERM
if [ ! -e "$policy" ]; then
  ours=1
  printf '#!/bin/sh\\nexit 101\\n' > "$policy"
  chmod 755 "$policy"
fi
had_pgbouncer=; [ ! -e /usr/sbin/pgbouncer ] || had_pgbouncer=1
clusters=$(ls -d /etc/postgresql/*/main 2>/dev/null || true)

apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 install "$@"

for cluster in $(ls -d /etc/postgresql/*/main 2>/dev/null || true); do
  case " $(echo $clusters) " in *" $cluster "*) continue ;; esac
  major=\${cluster%/main}
  [ -e "/var/lib/postgresql/\${major##*/}/main/postmaster.pid" ] || pg_dropcluster "\${major##*/}" main || true
done
if [ -z "$had_pgbouncer" ] && [ -e /usr/sbin/pgbouncer ] && [ -d /run/systemd/system ]; then
  systemctl --quiet disable pgbouncer.service || true
fi
`;

/** The words to put before a command that needs root; undefined when we cannot become root without asking. */
function rights() {
  if (process.getuid?.() === 0) return [];
  return spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status === 0 ? ['sudo', '-n'] : undefined;
}

function privileged(asRoot, script, name, args = []) {
  const quiet = ['DEBIAN_FRONTEND=noninteractive', 'NEEDRESTART_SUSPEND=1', 'APT_LISTCHANGES_FRONTEND=none'];
  const [program = 'env', ...rest] = [...asRoot, 'env', ...quiet, 'sh', '-c', script, 'setup', ...args];
  const result = spawnSync(program, rest, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    maxBuffer: 64 * 1024 * 1024,
  });
  if (result.error !== undefined) throw new Error(`${name}: ${result.error.message}`);
  if (result.status !== 0) throw new Error(`${name} failed:\n${tail(result)}`);
}

function tail(result) {
  return `${result.stdout ?? ''}${result.stderr ?? ''}`.trim().split('\n').slice(-30).join('\n');
}
