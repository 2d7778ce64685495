/** Container images that bring an extension along, as their own projects publish them; `N` is PostgreSQL's major. */
const images: readonly (readonly [extensions: readonly string[], image: string])[] = [
  [['vector'], 'pgvector/pgvector:pgN'],
  [
    [
      'postgis',
      'postgis_raster',
      'postgis_topology',
      'postgis_sfcgal',
      'postgis_tiger_geocoder',
      'address_standardizer',
    ],
    'postgis/postgis:N-3.5',
  ],
  [['timescaledb'], 'timescale/timescaledb:latest-pgN'],
  [['citus', 'citus_columnar'], 'citusdata/citus'],
  [['age'], 'apache/age'],
  [
    ['pg_graphql', 'pg_net', 'pgsodium', 'supabase_vault', 'wrappers', 'pgjwt', 'pg_jsonschema', 'pgmq', 'pg_tle'],
    'supabase/postgres, a tag of major N',
  ],
];

/** What to write into `services:` so that the scratch server has these extensions; empty when nobody is known to. */
export function imagesFor(extensions: readonly string[], major: number): string[] {
  return images
    .filter(([names]) => names.some((name) => extensions.includes(name)))
    .map(([, image]) => image.replace(/N(?=$|-)/, String(major)));
}

export interface ServiceImage {
  /** What `services:` takes as it is: `postgres:17`, or the image that has most of the extensions. */
  readonly image: string;
  /** Extensions that come with an image of their own, which is another one. */
  readonly without: readonly string[];
}

/** One image for a scratch server of this major that shall have these extensions. */
export function serviceImage(extensions: readonly string[], major: number): ServiceImage {
  const known = images.map(([names, image]) => ({
    image: image.replace(/N(?=$|-)/, String(major)),
    has: extensions.filter((name) => names.includes(name)),
  }));
  // Where only the project's name is known, somebody has to choose a tag.
  const [best] = known
    .filter(({ image, has }) => has.length > 0 && image.includes(':'))
    .toSorted((a, b) => b.has.length - a.has.length);
  const without = known.flatMap(({ has }) => has).filter((name) => best?.has.includes(name) !== true);
  return { image: best?.image ?? `postgres:${major}`, without };
}
