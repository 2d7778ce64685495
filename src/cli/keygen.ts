import { Failure } from '../failure.ts';
import { Inputs } from '../inputs.ts';
import { answer, type Command, type KeyKind } from './command.ts';
import { signingKeys } from './keygen-signing.ts';

const kinds: readonly KeyKind[] = [signingKeys];

export const keygenCommand: Command = {
  name: 'keygen',
  summary: 'Makes a pair of keys, and says where to put which half. Nothing is written anywhere.',
  flags: kinds.map(({ flag }) => flag),
  async run(terminal) {
    const inputs = new Inputs(terminal.flags.read);
    const wanted = kinds.filter(({ flag }) => inputs.flag(flag.name, false));
    inputs.finish();
    const [kind, ...others] = wanted;
    if (kind === undefined || others.length > 0)
      throw new Failure('input', 'badInput', 'say which kind of key, one at a time', {
        hint: kinds.map(({ flag }) => `--${flag.name}: ${flag.help}`).join('\n'),
      });
    const { document, text } = kind.make();
    answer(terminal, document, text);
  },
};
