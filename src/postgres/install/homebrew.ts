import { userInfo } from 'node:os';
import { dirname, join } from 'node:path';
import type { Place } from '../programs.ts';
import { cannotInstall, complaint, manage, type Order } from './unpacked.ts';

/** Installs `postgresql@N` beside what is there (the formula is keg-only) and never upgrades an installed one. */
export async function installWithHomebrew(brew: string, order: Order): Promise<Place> {
  const formula = `postgresql@${order.major}`;
  const env = {
    PATH: `${dirname(brew)}:/usr/bin:/bin:/usr/sbin:/sbin`,
    HOME: userInfo().homedir,
    LC_ALL: 'C',
    HOMEBREW_NO_AUTO_UPDATE: '1',
    HOMEBREW_NO_INSTALL_UPGRADE: '1',
    HOMEBREW_NO_INSTALL_CLEANUP: '1',
    HOMEBREW_NO_INSTALLED_DEPENDENTS_CHECK: '1',
    HOMEBREW_NO_ANALYTICS: '1',
    HOMEBREW_NO_ENV_HINTS: '1',
    ...order.packages.proxies,
  };
  order.log.progress('reading the list of formulae');
  await manage({ path: brew, args: ['update', '--quiet'], env }, 10, order.signal);
  order.log.progress(`downloading ${formula}`);
  const installed = await manage({ path: brew, args: ['install', '--quiet', formula], env }, 30, order.signal);
  if (installed.code !== 0) {
    throw cannotInstall(`Homebrew could not install ${formula}: ${complaint(installed)}`, { transient: true });
  }
  const prefix = await manage({ path: brew, args: ['--prefix', formula], env }, 1, order.signal);
  const bin = join(prefix.stdout.trim(), 'bin');
  return { bin, libraryPath: undefined, origin: `Homebrew's ${bin}` };
}
