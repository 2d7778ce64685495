/** A repository whose workflow artifacts are meant, and what the machine says about this run there. */
export interface ArtifactPlace {
  /** `https://api.github.com` */
  readonly apiUrl: string;
  /** `https://github.com` */
  readonly serverUrl: string;
  /** `owner/name` */
  readonly repository: string;
  /** The run that artifacts are added to; undefined outside of GitHub Actions. */
  readonly runId: string | undefined;
  /** The runner gave this step what it takes to add artifacts to its run. */
  readonly writable: boolean;
  /** How many days the repository keeps artifacts at most, where the runner says so. */
  readonly mostDays: number | undefined;
  /** Where a dump is spooled before it is uploaded. */
  readonly temporary: string;
}

export interface ArtifactOptions {
  readonly place: ArtifactPlace;
  /** Reads across runs take one. */
  readonly token: string | undefined;
  readonly allowPlaintext: boolean;
}

/** `artifact://github.com/octo/backups` */
export function artifactUri({ serverUrl, repository }: Pick<ArtifactPlace, 'serverUrl' | 'repository'>): string {
  return `artifact://${new URL(serverUrl).host}/${repository}`;
}

/** GitHub Enterprise Server has no such artifacts; github.com and its data-residency hosts have. */
export function isEnterpriseServer(serverUrl: string): boolean {
  const host = new URL(serverUrl).hostname.toLowerCase();
  return host !== 'github.com' && !host.endsWith('.ghe.com') && !host.endsWith('.localhost');
}
