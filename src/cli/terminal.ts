import type { Log } from '../log.ts';
import type { Secrets } from '../secrets.ts';

export interface TerminalLog extends Log {
  /** Leaves the line after a progress text. */
  close(): void;
}

/** Writes to stderr: a progress line that renews itself on a terminal, a line each elsewhere. */
export function terminalLog(secrets: Secrets, stream: NodeJS.WriteStream): TerminalLog {
  let showing = false;
  const clear = (): void => {
    if (showing) stream.write('\r\u001b[2K');
    showing = false;
  };
  const line = (text: string): void => {
    clear();
    stream.write(`${harmless(secrets.redact(text))}\n`);
  };
  return {
    info: line,
    notice: (message) => line(`note: ${message}`),
    warn: (message) => line(`warning: ${message}`),
    progress(message) {
      if (!stream.isTTY) return line(message);
      clear();
      stream.write(harmless(secrets.redact(message)).slice(0, Math.max(20, (stream.columns ?? 80) - 1)));
      showing = true;
    },
    group: (_title, work) => work(),
    close: clear,
  };
}

/** Names come from databases: nothing of them moves the cursor or paints the screen. */
export function harmless(text: string): string {
  return text.replace(/(?![\n\t])\p{Cc}/gu, '\ufffd');
}
