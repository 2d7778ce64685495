/**
 * The secrets of this run and every form in which a program or a library may echo them: decoded, percent-encoded,
 * base64, JSON-escaped. Used twice: the GitHub edge masks the forms, and whatever a child process prints is scrubbed.
 */
export class Secrets {
  readonly #forms = new Set<string>();
  /** Words that stay readable whatever happens: the runner drops any output that contains a masked value. */
  readonly #spared = new Set<string>();

  /** Adds a secret. Values of fewer than four characters would destroy every log and are left out. */
  add(value: string | undefined): void {
    if (value === undefined) return;
    for (const form of formsOf(value)) if (form.length >= 4) this.#forms.add(form);
  }

  /** Keeps a public word (host, user, database, name) out of the masks even if somebody uses it as a password too. */
  spare(word: string | undefined): void {
    if (word !== undefined && word !== '') this.#spared.add(word);
  }

  /** Longest first, so that a whole URL goes before the password inside it. */
  forms(): string[] {
    const spared = [...this.#spared];
    return [...this.#forms]
      .filter((form) => !spared.some((word) => word.includes(form)))
      .sort((a, b) => b.length - a.length);
  }

  /** `text` with every form of every secret replaced by `***`. */
  redact(text: string): string {
    let clean = text;
    for (const form of this.forms()) clean = clean.replaceAll(form, '***');
    return clean;
  }
}

function formsOf(value: string): Set<string> {
  const forms = new Set<string>();
  const plain = [value, value.trim(), ...value.split(/\r?\n/)];
  for (const text of plain) {
    forms.add(text);
    forms.add(decoded(text));
  }
  for (const text of [...forms]) {
    const encoded = encodeURIComponent(text.toWellFormed());
    forms.add(encoded);
    forms.add(encoded.replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`));
    forms.add(encoded.replace(/%[0-9A-F]{2}/g, (hex) => hex.toLowerCase()));
    forms.add(JSON.stringify(text).slice(1, -1));
    forms.add(text.replace(/[\\:]/g, '\\$&'));
    forms.add(Buffer.from(text).toString('base64'));
  }
  forms.delete('');
  return forms;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
