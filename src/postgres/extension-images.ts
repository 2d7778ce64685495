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
