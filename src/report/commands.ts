const untold = "'…'";

/**
 * `pgassay restore 20261120T020004Z-3f9a1c --store s3://acme-backups/prod`: a command on a store that a shell names so,
 * with the variables before it that it takes. Without `details` it does not say which store.
 */
export function commandOn(store: string, command: string, details: boolean): string {
  const variables = variablesFor(store, details);
  if (variables.length > 0) return `${variables.join(' ')} pgassay ${command} --store artifact`;
  return `pgassay ${command} --store ${details ? store : untold}`;
}

/** On the command line, artifacts are found by the repository's name, and read with a token; other stores take nothing. */
export function variablesFor(store: string, details: boolean): string[] {
  const [, host, repository] = /^artifact:\/\/([^/]+)\/(.+)$/.exec(store) ?? [];
  if (host === undefined || repository === undefined) return [];
  const server =
    host === 'github.com' ? {} : { GITHUB_SERVER_URL: `https://${host}`, GITHUB_API_URL: `https://api.${host}` };
  const told = Object.entries({ GITHUB_REPOSITORY: repository, ...server });
  return ['GITHUB_TOKEN=…', ...told.map(([name, value]) => `${name}=${details ? value : untold}`)];
}
