/** Something wrong with a URL, before it has an input's name: never holds a piece of the value it is about. */
export interface Mistake {
  readonly message: string;
  readonly hint?: string;
}

const form = 'postgres://user:password@host:5432/database';

/** Schemes that may be named in a message; anything else before `://` might be somebody's secret. */
const foreignSchemes = [
  'cockroachdb',
  'file',
  'ftp',
  'http',
  'https',
  'libsql',
  'mariadb',
  'mongodb',
  'mongodb+srv',
  'mssql',
  'mysql',
  'mysql2',
  'oracle',
  'redis',
  'rediss',
  'redshift',
  'sqlite',
  'sqlserver',
  'ssh',
  'tcp',
];

/** What was pasted when it is no PostgreSQL URL at all: `value` is trimmed. */
export function pasteMistake(value: string): Mistake | undefined {
  if (value === '') {
    return {
      message: 'is empty',
      hint:
        'is the secret defined, and spelled the same here? Secrets are not passed to workflows of forked pull requests,\n' +
        'and a reusable workflow gets only those its caller passes',
    };
  }
  return wrapping(value) ?? placeholder(value) ?? scheme(value);
}

function wrapping(value: string): Mistake | undefined {
  if (/^["'`\u2018-\u201f]/.test(value) || /["'`\u2018-\u201f]$/.test(value)) {
    return { message: 'has quotes around it', hint: 'remove the quotes: the value is used exactly as it is stored' };
  }
  if (/^(?!jdbc:)(export\s+|set\s+)?[A-Za-z_][A-Za-z0-9_]*\s*[=:]\s*["'`]?[A-Za-z][A-Za-z0-9+.-]*:\/\//.test(value)) {
    return {
      message: 'starts with a variable name',
      hint: `paste only the value, from postgres:// on: ${form}`,
    };
  }
  if (/^(sudo\s+)?(psql|pg_dump|pg_restore|pg_dumpall|createdb)\s/.test(value)) {
    return { message: 'is a command, not a URL', hint: `paste only the URL inside it: ${form}` };
  }
  return undefined;
}

function placeholder(value: string): Mistake | undefined {
  const variable = /^\$(\{\w+\}|\w+|env:\w+)$|^%\w+%$|^\$?\{?\{?\s*(secrets|env|vars|inputs)\.\w+\s*\}?\}?$/i;
  if (/\$\{\{.*\}\}/s.test(value) || variable.test(value)) {
    return {
      message: 'holds an expression that was not expanded',
      hint: `write it unquoted in the workflow, where GitHub expands it: \${{ secrets.DATABASE_URL }};\nthe secret itself holds the plain URL`,
    };
  }
  if (
    /\[your[-_ a-z]*\]|\[([a-z]+[-_ ])?password\]|<(your[-_ a-z]*|([a-z]+[-_ ])?(password|user|host))>/i.test(value)
  ) {
    return {
      message: 'still holds a placeholder such as [YOUR-PASSWORD]',
      hint: 'replace every placeholder, brackets included, with its real value; write special characters percent-encoded',
    };
  }
  return undefined;
}

function scheme(value: string): Mistake | undefined {
  if (/^postgres(ql)?:\/\//.test(value)) return undefined;
  if (/^postgres(ql)?:\/\//i.test(value)) {
    return {
      message: 'has its scheme in upper case',
      hint: 'write postgres:// in lower case: PostgreSQL programs take anything else for a database name and connect elsewhere',
    };
  }
  if (/^postgres(ql)?\+[a-z0-9_]+:\/\//i.test(value)) {
    return { message: 'names a driver after the +, as SQLAlchemy does', hint: 'drop it: postgresql://…' };
  }
  if (/^jdbc:/i.test(value)) {
    return { message: 'is a JDBC URL', hint: `write the user and password into the URL and drop jdbc: ${form}` };
  }
  if (/^prisma(\+postgres(ql)?)?:\/\//i.test(value)) {
    return {
      message: 'is a Prisma Accelerate URL, and Accelerate cannot be dumped',
      hint: "use the database's direct URL (DIRECT_URL in many projects)",
    };
  }
  const name = /^([a-z][a-z0-9+.-]*):\/\//i.exec(value)?.[1]?.toLowerCase();
  if (name !== undefined && foreignSchemes.includes(name)) {
    return {
      message: `starts with ${name}://, which is not PostgreSQL`,
      hint: `a PostgreSQL URL looks like this: ${form}`,
    };
  }
  if (/^postgres(ql)?:/i.test(value)) {
    return { message: 'has not exactly two slashes after its scheme', hint: `it looks like this: ${form}` };
  }
  if (name === undefined && /(^|\s)(host|hostaddr|dbname|user|port|password|service|sslmode)\s*=/.test(value)) {
    return { message: 'is a keyword string (host=… dbname=…), not a URL', hint: `use a URL: ${form}` };
  }
  return {
    message: 'does not start with postgres:// or postgresql://',
    hint: `a PostgreSQL URL looks like this: ${form}`,
  };
}
