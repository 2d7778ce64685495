import type { ExitName } from '../failure.ts';
import { type Attempt, failure, type Raised, type Refusal, where, withoutPassword } from './attempt.ts';

const accessRule = "the server's pg_hba.conf, or the provider's list of allowed addresses, decides this";

/** The refusal a server or a pooler put into words; undefined when what was raised is no answer of a server. */
export function fromServer(raised: Raised, attempt: Attempt): Refusal | undefined {
  const { code, message } = raised;
  if (code === undefined || !/^[0-9A-Z]{5}$/.test(code) || /^E[A-Z]{4}$/.test(code)) return undefined;
  const { target } = attempt;
  const at = where(attempt);
  const user = `"${target.user}"`;
  const database = `"${target.database}"`;
  const stop = (exit: ExitName, text: string, hint?: string, transient = false): Refusal => ({
    failure: failure(exit, text, hint, transient, `SQLSTATE ${code}`),
    tryNext: false,
  });

  if (code === '3D000' || /^no such database|^database .* does not exist/.test(message)) {
    return stop(
      'connect',
      `the server at ${at} has no database ${database}`,
      'the name after the last / of the URL counts, upper and lower case included; psql -l lists the databases',
    );
  }
  if (
    code === '28P01' ||
    /^((?:role|user) .* does not exist|no such user|Tenant or user not found|SASL authentication failed|password authentication failed)/.test(
      message,
    )
  ) {
    return stop(
      'authentication',
      `the server at ${at} does not accept the password of user ${user}, or has no such user`,
      'was the password changed, or does it hold a character that must be percent-encoded in a URL (@ is %40, / is %2F, % is %25)?\n' +
        (attempt.place.host.endsWith('.pooler.supabase.com')
          ? "Supabase's poolers want the user as postgres.<project ref>"
          : 'some providers want a suffix to the user name (user.project, user@server)'),
    );
  }
  if (code === '28000') return { ...refusedRole(raised, attempt, stop), ...demandsTls(message) };
  if (code === '42501') {
    return stop(
      'privilege',
      `user ${user} may not connect to database ${database}`,
      `GRANT CONNECT ON DATABASE ${quoted(target.database)} TO ${quoted(target.user)};`,
    );
  }
  if (code === '53300') {
    return stop(
      'connect',
      `the server at ${at} has no connection left`,
      'raise max_connections, reserve some for this role, or run at another time; pgassay needs 3 and one more per parallel job',
      true,
    );
  }
  if (code === '57P03') {
    const starting = stop(
      'connect',
      `the server at ${at} is not accepting connections yet (starting, stopping or recovering)`,
      'try again in a minute',
      true,
    );
    return { ...starting, tryNext: true };
  }
  if (/unsupported startup parameter/.test(message)) {
    return stop(
      'connect',
      `the pooler at ${at} refuses a startup parameter`,
      "connect to the database itself, not to its pooler, or add the parameter to PgBouncer's ignore_startup_parameters",
    );
  }
  if (/endpoint ID is not specified/i.test(message)) {
    return stop(
      'connect',
      `the proxy at ${at} does not know which endpoint is meant`,
      "use Neon's full host name, or add options=endpoint%3D<endpoint id> to the URL",
    );
  }
  const text = withoutPassword(message, target);
  return stop('connect', `the server at ${at} refused the connection: ${text}`, undefined, /^(08|53|57)/.test(code));
}

type Stop = (exit: ExitName, text: string, hint?: string) => Refusal;

/** The server's own texts may be in any language; its source routines are not. */
function refusedRole({ message, routine }: Raised, attempt: Attempt, stop: Stop): Refusal {
  const { target } = attempt;
  const at = where(attempt);
  if (routine === 'InitializeSessionUserId') {
    return stop(
      'authentication',
      `the server at ${at} has no user "${target.user}" that may log in`,
      'the name between postgres:// and the : of the URL counts; does the role exist, with LOGIN?',
    );
  }
  if (/valid client certificate|client certificate/i.test(message)) {
    return stop(
      'authentication',
      `the server at ${at} asks for a client certificate`,
      'give it in tls-client-cert and tls-client-key',
    );
  }
  if (routine === 'ClientAuthentication') {
    return stop(
      'authentication',
      `the server at ${at} has no rule that lets user "${target.user}" into "${target.database}" from here with sslmode=${target.sslMode}`,
      accessRule,
    );
  }
  return stop('authentication', `the server at ${at} does not let user "${target.user}" in`, accessRule);
}

function demandsTls(message: string): { tls?: 'demanded' } {
  return /no encryption|SSL off|requires? (an )?SSL|secure connection|insecure/i.test(message)
    ? { tls: 'demanded' }
    : {};
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
