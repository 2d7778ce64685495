// GitHub's own parser of workflows and its evaluator of expressions, as the editor extensions use them. The parser imports
// JSON without saying so, which Node refuses; a hook serves those files as modules.

import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';
import { fileURLToPath } from 'node:url';
import { data, Evaluator, Lexer, Parser } from '@actions/expressions';

registerHooks({
  load(url, context, next) {
    if (!url.endsWith('.min.json')) return next(url, context);
    return {
      format: 'module',
      shortCircuit: true,
      source: `export default ${readFileSync(fileURLToPath(url), 'utf8')}`,
    };
  },
});
const { convertWorkflowTemplate, NoOperationTraceWriter, parseWorkflow } = await import('@actions/workflow-parser');

/** What GitHub would refuse of a workflow, one line each. */
export async function problemsOf(name: string, content: string): Promise<string[]> {
  const { context, value } = parseWorkflow({ name, content }, new NoOperationTraceWriter());
  if (value !== undefined) {
    const { errors = [] } = await convertWorkflowTemplate(context, value);
    return [...context.errors.getErrors(), ...errors].map((error) =>
      'Message' in error ? error.Message : error.message,
    );
  }
  return context.errors.getErrors().map((error) => error.message);
}

/** The contexts an expression may look at: `inputs`, `secrets`, `needs`, … */
export type Contexts = Readonly<Record<string, unknown>>;

/** The functions that ask how the job stands. */
export type Standing = Readonly<Record<'success' | 'failure' | 'cancelled' | 'always', boolean>>;

/** The value of one expression, without its `${{ }}`. Throws when it cannot be parsed, or names a context that is not there. */
export function evaluate(expression: string, contexts: Contexts, standing?: Standing): unknown {
  const status = Object.entries(standing ?? {}).map(([name, value]) => ({
    ...{ name, minArgs: 0, maxArgs: 0 },
    call: () => new data.BooleanData(value),
  }));
  const tree = new Parser(new Lexer(expression).lex().tokens, Object.keys(contexts), status).parse();
  const dictionary = JSON.parse(JSON.stringify(contexts), data.reviver) as data.Dictionary;
  const functions = new Map(status.map((each) => [each.name, each]));
  return JSON.parse(JSON.stringify(new Evaluator(tree, dictionary, functions).evaluate(), data.replacer));
}

/** A text with every `${{ … }}` in it evaluated; a text that is nothing but one expression keeps its value's kind. */
export function filledIn(text: string, contexts: Contexts): unknown {
  const whole = /^\s*\$\{\{((?:(?!\}\}).)*)\}\}\s*$/s.exec(text);
  if (whole?.[1] !== undefined) return evaluate(whole[1], contexts);
  return text.replaceAll(/\$\{\{(.*?)\}\}/gs, (_, expression: string) => String(evaluate(expression, contexts) ?? ''));
}
