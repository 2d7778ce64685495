import type { Log } from '../log.ts';
import type { Machine } from '../machine.ts';
import type { Secrets } from '../secrets.ts';
import type { Flags } from './flags.ts';

/** One flag: its name is the input's name. */
export interface Flag {
  readonly name: string;
  readonly help: string;
  /** What stands for the value in the help; absent for on/off flags, which may be written without a value. */
  readonly value?: string;
  /** May be given more than once: one line each. */
  readonly many?: boolean;
  /** Never a value on the command line: a variable or `--<name>-file`. */
  readonly secret?: {
    readonly variable: string;
    /** Another one that counts where the first is not set. */
    readonly also?: string;
  };
  /** An empty value, of a variable that is not set for instance, is not the same as leaving the flag out. */
  readonly refuseEmpty?: true;
}

export interface Command {
  readonly name: string;
  readonly summary: string;
  /** The positional argument, `<backup>`; absent when there is none. */
  readonly argument?: { readonly name: string; readonly help: string; readonly fallback?: string };
  readonly flags: readonly Flag[];
  readonly run: (terminal: Terminal) => Promise<void>;
}

/** What a command has to work with. */
export interface Terminal {
  readonly flags: Flags;
  readonly log: Log;
  readonly secrets: Secrets;
  readonly signal: AbortSignal;
  readonly machine: Machine;
  readonly variables: Readonly<Record<string, string | undefined>>;
  readonly json: boolean;
  /** Somebody reads stdout on a screen: it is no file, pipe or log. */
  readonly screen: boolean;
  /** A result, on stdout. */
  readonly print: (text: string) => void;
}

/** Prints one JSON document, or the text made for people. */
export function answer(terminal: Terminal, document: unknown, text: string): void {
  terminal.print(terminal.json ? JSON.stringify(document, null, 2) : text);
}
