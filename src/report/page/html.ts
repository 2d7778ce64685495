import { unseen } from '../markdown.ts';

/** A piece of HTML. Whatever text is put into a template is escaped; only what is a piece already goes in as it is. */
export class Html {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

type Value = Html | string | number | undefined | false | readonly Value[];

/** Attributes are always written with double quotes. Nothing stands for undefined and false; lists are joined. */
export function html(parts: TemplateStringsArray, ...values: readonly Value[]): Html {
  return new Html(parts.map((part, at) => (at === 0 ? part : written(values[at - 1]) + part)).join(''));
}

function written(value: Value): string {
  if (value === undefined || value === false) return '';
  if (value instanceof Html) return value.text;
  return typeof value === 'object' ? value.map(written).join('') : escaped(String(value));
}

const entities: Readonly<Record<string, string>> = {
  ...{ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' },
};

/** Names come from databases and files from anybody: no markup, and nothing that turns the reading direction. */
function escaped(text: string): string {
  return text.replace(unseen, '\ufffd').replace(/[&<>"']/g, (character) => entities[character] ?? '');
}

/** A link to an address of the web, `heard` for whoever does not see what it stands beside; plain text for any other. */
export function link(address: string, text: string, heard: string): Html {
  const url = URL.canParse(address) ? new URL(address) : undefined;
  if (url?.protocol !== 'https:' && url?.protocol !== 'http:') return html`${text}`;
  return html`<a href="${url.href}" rel="noreferrer" aria-label="${heard}">${text}</a>`;
}
