import { randomBytes } from 'node:crypto';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Catalog, readCatalog } from './catalog.ts';
import { readComparedTables } from './compared-tables.ts';
import { Failure } from './failure.ts';
import { backupsThatCount } from './health-findings.ts';
import { keyUseOf } from './opening.ts';
import { type NameFacts, type PageFacts, type PageView, pageFacts } from './page-facts.ts';
import { countFindings, type Proof, withoutNames } from './proof.ts';
import { isProof, type ProofKeys, readProofFiles } from './proofs.ts';
import { shellWord } from './publish.ts';
import { release } from './release.ts';
import { generator, page } from './report/page/page.ts';
import type { Store } from './store/store.ts';
import type { Trust } from './trust.ts';

export interface PageRequest extends PageView {
  readonly store: Store;
  /** Undefined: every name of the store. */
  readonly name: string | undefined;
  /** Which backups and which restore tests count. */
  readonly trust: Trust;
  readonly proofKeys: ProofKeys;
  /** The folder that gets `index.html`; made when it is missing. */
  readonly folder: string;
}

/** Writes the page and returns its path and what it says. Throws a `Failure`; then an older page stays as it was. */
export async function writePage(request: PageRequest): Promise<{ readonly path: string; readonly facts: PageFacts }> {
  const { store, name, folder, trust } = request;
  const path = join(folder, 'index.html');
  await refuseForeign(path);
  const catalog = await readCatalog(store, trust, name);
  const now = await store.now();
  const names = name === undefined ? namesOf(catalog) : [name];
  const read = await Promise.all(names.map((each) => readName(request, each, catalogOf(catalog, each), now)));
  const facts = pageFacts(read, request, {
    ...{ store: store.uri, shellStore: shellWord(store.uri), now, release },
  });
  await writeWhole(folder, path, page(facts).text);
  return { path, facts };
}

/** Only what this program wrote is ever replaced. */
async function refuseForeign(path: string): Promise<void> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw unwritable(path, error);
  }
  if (text.includes(generator.text)) return;
  throw new Failure('publish', 'exists', `${path} is there, and is no page of pgassay's`, {
    hint: 'give --out a folder of its own',
  });
}

/** Whoever looks at it at this moment sees the old page or the new one. */
async function writeWhole(folder: string, path: string, text: string): Promise<void> {
  const partial = join(folder, `.index-${randomBytes(4).toString('hex')}.html`);
  try {
    await mkdir(folder, { recursive: true });
    await writeFile(partial, text, { flag: 'wx' });
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true }).catch(() => {});
    throw unwritable(path, error);
  }
}

function unwritable(path: string, cause: unknown): Failure {
  const code = (cause as NodeJS.ErrnoException).code ?? 'error';
  return new Failure('publish', 'disk', `${path} cannot be written (${code})`, {
    hint: 'give --out a folder that you may write to',
    cause,
  });
}

function namesOf({ backups, damaged, unfinished }: Catalog): string[] {
  const all = [...backups.map(({ manifest }) => manifest), ...damaged, ...unfinished];
  return [...new Set(all.map(({ name }) => name))].sort();
}

function catalogOf({ backups, damaged, unfinished }: Catalog, name: string): Catalog {
  return {
    backups: backups.filter(({ manifest }) => manifest.name === name),
    damaged: damaged.filter((each) => each.name === name),
    unfinished: unfinished.filter((each) => each.name === name),
  };
}

async function readName(
  { store, proofKeys }: PageRequest,
  name: string,
  catalog: Catalog,
  now: Date,
): Promise<NameFacts> {
  const series = backupsThatCount(catalog, now);
  const tested = catalog.backups.filter(({ proofs }) => proofs.length > 0);
  const read = await Promise.all(
    tested.map(async (each) => {
      const files = await readProofFiles(store, each, proofKeys);
      return [each.manifest.id, files.map((said) => (isProof(said) ? briefly(said) : said))] as const;
    }),
  );
  const proofs = new Map(read.map(([id, files]) => [id, files.filter(isProof)]));
  const keyUses = read.flatMap(([, files]) => files.flatMap((said) => keyUseOf(said) ?? []));
  return { name, catalog, proofs, keyUses, ...(await readComparedTables(store, series)) };
}

/** What the page says of a restore test: there may be thousands of them. */
function briefly(proof: Proof): Proof {
  const findings = proof.findings.slice(0, 1);
  return { ...withoutNames(proof), findings, findingsLeftOut: countFindings(proof) - findings.length };
}
