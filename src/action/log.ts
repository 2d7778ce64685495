import * as core from '@actions/core';
import type { Log } from '../log.ts';
import type { Secrets } from '../secrets.ts';

/** The runner's log: scrubbed, and with nothing in it that the runner could take for a command. */
export function runnerLog(secrets: Secrets): Log {
  const clean = (message: string): string => harmless(secrets.redact(message));
  return {
    info: (message) => core.info(clean(message)),
    notice: (message) => core.notice(clean(message)),
    warn: (message) => core.warning(clean(message)),
    progress: (message) => core.info(clean(message)),
    group: (title, work) => core.group(clean(title), work),
  };
}

/** The runner obeys `::command::` at the start of a line and `##[command]` anywhere in one. */
export function harmless(text: string): string {
  return text.replace(/^(\s*):(?=:)/gm, '$1:\u200b').replaceAll('##[', '##\u200b[');
}
