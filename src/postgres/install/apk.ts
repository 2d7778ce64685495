import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { cannotInstall, complaint, manage, type Order, type Unpacked } from './unpacked.ts';

/**
 * Installs Alpine's packages into a root of their own below `work`, with the machine's repositories and keys and
 * without running package scripts. The programs start with the machine's musl loader, which takes its own C library
 * whatever LD_LIBRARY_PATH holds.
 */
export async function unpackWithApk(apk: string, order: Order, work: string): Promise<Unpacked> {
  const tree = join(work, 'tree');
  await mkdir(tree, { mode: 0o755 });
  const client = `postgresql${order.major}-client`;
  const server = [`postgresql${order.major}`, `postgresql${order.major}-contrib`];
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C', ...order.packages.proxies };
  // apk 3 demands --usermode of everybody but root, and refuses it from root.
  const usermode = process.getuid?.() === 0 ? [] : ['--usermode'];
  const roots = [
    '--root',
    tree,
    '--keys-dir',
    '/etc/apk/keys',
    '--repositories-file',
    '/etc/apk/repositories',
    '--no-cache',
  ];
  order.log.progress(`installing ${client} into a folder of its own`);
  const packages = [client, ...(order.serverPrograms ? server : [])];
  const args = ['add', ...roots, '--initdb', ...usermode, '--no-scripts', '--no-progress', ...packages];
  const added = await manage({ path: apk, args, env }, 20, order.signal);
  if (added.code !== 0) {
    if (/no such package/i.test(`${added.stdout}\n${added.stderr}`)) {
      throw cannotInstall(`this release of Alpine has no ${client}`, {
        hints: ['use a newer image, or add its repository to /etc/apk/repositories'],
      });
    }
    throw cannotInstall(`apk could not install ${client}: ${complaint(added)}`, { transient: true });
  }
  const info = await manage({ path: apk, args: ['info', '--root', tree, '-v'], env }, 1, order.signal);
  const version = new RegExp(`^${client}-(\\d[\\w.]*-r\\d+)`, 'm').exec(info.stdout)?.[1];
  if (version === undefined) throw cannotInstall(`apk installed no ${client}`);
  return { tree, packageVersion: version, source: "Alpine's packages" };
}
