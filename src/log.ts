/** What the program tells the person who watches it. The edges supply one each: the runner's log and a terminal. */
export interface Log {
  info(message: string): void;
  /** Worth knowing, nothing to do: an annotation on GitHub. */
  notice(message: string): void;
  /** Worth doing something about, though the run goes on. */
  warn(message: string): void;
  /** A passing state, `dump 412 MB · 68 MB/s`: a bar's text on a terminal, a line elsewhere. */
  progress(message: string): void;
  /** Runs `work` with its lines folded under `title` where the medium can fold. */
  group<T>(title: string, work: () => Promise<T>): Promise<T>;
}

export const silent: Log = {
  info() {},
  notice() {},
  warn() {},
  progress() {},
  group: (_title, work) => work(),
};
