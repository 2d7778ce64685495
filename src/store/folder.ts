import { randomBytes } from 'node:crypto';
import {
  type FileHandle,
  link,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  rmdir,
  stat,
  statfs,
  unlink,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { idPattern, namePattern } from '../backup-id.ts';
import { Failure, type Stage } from '../failure.ts';
import {
  type History,
  largestRead,
  ownFile,
  proofsFolder,
  type Removal,
  recordsFolder,
  type Store,
  type StoredFile,
  type Upload,
} from './store.ts';

/** What link(2) answers on FAT, some network and some FUSE file systems. */
const noHardLinks = ['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS'];
const partial = /^\.partial-[0-9a-f]{12}$/;

/**
 * A folder of this machine: `file:///absolute/folder`. A file is written under a temporary name, synced, given its own
 * name with link(2), which never replaces anything, and the folder is synced, so a crash leaves a whole file or none
 * (on a file system without links: a whole one, none, or an empty one, which no reader takes for a backup).
 */
export class FolderStore implements Store {
  readonly uri: string;
  readonly #root: string;

  /** `root` is an absolute path. */
  constructor(root: string) {
    this.#root = root;
    this.uri = pathToFileURL(root).href;
  }

  names(): Promise<string[]> {
    return this.#folders('locate', this.#root, namePattern);
  }

  ids(name: string): Promise<string[]> {
    return this.#folders('locate', join(this.#root, name), idPattern);
  }

  async files(name: string, id?: string): Promise<Map<string, Map<string, number>>> {
    const ids = id === undefined ? await this.ids(name) : [id];
    const folders = await Promise.all(
      ids.map(async (each): Promise<[string, Map<string, number>]> => [each, await this.#sizes(`${name}/${each}`)]),
    );
    return new Map(folders);
  }

  async records(): Promise<string[]> {
    return [...(await this.#sizes(recordsFolder)).keys()].sort();
  }

  history(): History {
    return 'as written';
  }

  async read(path: string, version = 0, largest = largestRead): Promise<Buffer | undefined> {
    if (version > 0) return undefined;
    const bytes = await this.#size(path);
    if (bytes === undefined) return undefined;
    if (bytes > largest)
      throw new Failure('download', 'verification', `${this.#path(path)} has ${bytes} bytes, too many for what it is`);
    return readFile(this.#path(path)).catch((error: unknown) => {
      if (isCode(error, 'ENOENT')) return undefined;
      throw this.#failure('download', path, error);
    });
  }

  async open(path: string): Promise<StoredFile | undefined> {
    const file = await this.openLocal(path);
    if (file === undefined) return undefined;
    const { size } = await file.stat();
    return { bytes: size, stream: file.createReadStream({ highWaterMark: 256 * 1024 }) };
  }

  async openLocal(path: string): Promise<FileHandle | undefined> {
    try {
      return await open(this.#path(path), 'r');
    } catch (error) {
      if (isCode(error, 'ENOENT')) return undefined;
      throw this.#failure('download', path, error);
    }
  }

  async #size(path: string): Promise<number | undefined> {
    try {
      const found = await stat(this.#path(path));
      // A folder, a device or a pipe under a file's name holds nothing that can be read to its end.
      return found.isFile() ? found.size : undefined;
    } catch (error) {
      if (isCode(error, 'ENOENT') || isCode(error, 'ENOTDIR')) return undefined;
      throw this.#failure('locate', path, error);
    }
  }

  commandToRead(): undefined {
    return undefined;
  }

  async begin(path: string): Promise<Upload> {
    const final = this.#path(path);
    const folder = dirname(final);
    const temporary = join(folder, `.partial-${randomBytes(6).toString('hex')}`);
    try {
      const made = await mkdir(folder, { recursive: true });
      if (made !== undefined) await syncUpwards(folder, dirname(made));
      const file = await open(temporary, 'wx', 0o600);
      return new FolderUpload(file, temporary, final, (error) => this.#failure('upload', path, error));
    } catch (error) {
      throw this.#failure('upload', path, error);
    }
  }

  async discard(name: string, id: string): Promise<void> {
    const folder = `${name}/${id}`;
    const files = [...(await this.#sizes(folder).catch(() => new Map<string, number>())).keys()];
    const whole = files.includes('manifest.json');
    // Killed between a file's two names, a run leaves the temporary one beside a whole backup.
    const ours = files.filter((file) => partial.test(file) || (!whole && ownFile.test(file)));
    await Promise.all(ours.map((file) => rm(this.#path(`${folder}/${file}`), { force: true })));
    if (!whole) await this.#removeIfEmpty(`${folder}/${proofsFolder}`, folder, name);
  }

  async sweep(name: string, before: Date): Promise<string[]> {
    const swept: string[] = [];
    for (const id of await this.ids(name)) {
      const folder = join(this.#root, name, id);
      const files = await readdir(folder).catch((): string[] => []);
      if (files.includes('manifest.json')) continue;
      // The folder's own time says when a file last came or went, a file's when it last grew.
      const times = await Promise.all(
        [folder, ...files.map((file) => join(folder, file))].map(async (path) => (await stat(path)).mtime),
      ).catch((): Date[] => [before]);
      if (times.some((time) => time >= before)) continue;
      await this.discard(name, id);
      swept.push(id);
    }
    return swept;
  }

  async remove(name: string, id: string): Promise<Removal> {
    const folder = `${name}/${id}`;
    try {
      await rm(this.#path(`${folder}/manifest.json`), { force: true });
      // Only once its name is gone for good may what it names go.
      await syncUpwards(this.#path(folder), this.#path(folder));
    } catch (error) {
      return this.#refused('kept', folder, error);
    }
    try {
      const files = [...(await this.#sizes(folder)).keys()].filter((file) => ownFile.test(file));
      await Promise.all(files.map((file) => rm(this.#path(`${folder}/${file}`), { force: true })));
    } catch (error) {
      return this.#refused('partly', folder, error);
    }
    await this.#removeIfEmpty(`${folder}/${proofsFolder}`, folder, name);
    return { kind: 'removed' };
  }

  #refused(kind: 'kept' | 'partly', path: string, error: unknown): Removal {
    const failure = this.#failure('prune', path, error);
    if (failure.exit !== 'storeCredentials') throw failure;
    return { kind, reason: failure.message };
  }

  /** Somebody else's file keeps its folder. */
  async #removeIfEmpty(...folders: readonly string[]): Promise<void> {
    for (const folder of folders) await rmdir(this.#path(folder)).catch(() => {});
  }

  pathFor(path: string): string {
    return this.#path(path);
  }

  async freeBytes(): Promise<number | undefined> {
    for (let folder = this.#root; ; folder = dirname(folder)) {
      try {
        const { bavail, bsize } = await statfs(folder);
        return bavail * bsize;
      } catch (error) {
        if (!isCode(error, 'ENOENT') || folder === dirname(folder)) return undefined;
      }
    }
  }

  async now(): Promise<Date> {
    return new Date();
  }

  async admit(): Promise<void> {}

  async #sizes(folder: string): Promise<Map<string, number>> {
    const sizes = new Map<string, number>();
    const list = (path: string): Promise<string[]> =>
      readdir(this.#path(path)).catch((error: unknown) => {
        if (isCode(error, 'ENOENT') || isCode(error, 'ENOTDIR')) return [];
        throw this.#failure('locate', path, error);
      });
    const files = await list(folder);
    const proofs = files.includes(proofsFolder) ? await list(`${folder}/${proofsFolder}`) : [];
    const nested = proofs.map((file) => `${proofsFolder}/${file}`);
    for (const file of [...files.filter((each) => each !== proofsFolder), ...nested]) {
      const bytes = await this.#size(`${folder}/${file}`);
      if (bytes !== undefined) sizes.set(file, bytes);
    }
    return sizes;
  }

  async #folders(stage: Stage, folder: string, pattern: RegExp): Promise<string[]> {
    try {
      const entries = await readdir(folder, { withFileTypes: true });
      return entries
        .filter((entry) => entry.isDirectory() && pattern.test(entry.name))
        .map((entry) => entry.name)
        .sort();
    } catch (error) {
      if (isCode(error, 'ENOENT')) return [];
      throw this.#failure(stage, folder, error);
    }
  }

  #path(path: string): string {
    return join(this.#root, ...path.split('/'));
  }

  #failure(stage: Stage, path: string, error: unknown): Failure {
    if (error instanceof Failure) return error;
    const where = path.startsWith('/') ? path : this.#path(path);
    const code = (error as { code?: string }).code;
    if (code === 'ENOSPC' || code === 'EDQUOT')
      return new Failure(stage, 'disk', `no space is left where ${where} is`, {
        hint: 'free space or move the store to a larger disk; nothing was published',
        cause: error,
      });
    if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS')
      return new Failure(stage, 'storeCredentials', `this user may not write or read ${where} (${code})`, {
        hint: `give the user that runs pgassay the folder: chown -R "$USER" ${JSON.stringify(this.#root)}`,
        cause: error,
      });
    if (code === 'EEXIST')
      return new Failure(stage, 'exists', `${where} is already there and is never overwritten`, { cause: error });
    return new Failure(stage, 'store', `${where} cannot be used (${code ?? 'unknown error'})`, {
      hint: 'the store must be a folder on a disk that is mounted',
      cause: error,
    });
  }
}

class FolderUpload implements Upload {
  readonly #file: FileHandle;
  readonly #temporary: string;
  readonly #final: string;
  readonly #failure: (error: unknown) => Failure;
  #open = true;

  constructor(file: FileHandle, temporary: string, final: string, failure: (error: unknown) => Failure) {
    this.#file = file;
    this.#temporary = temporary;
    this.#final = final;
    this.#failure = failure;
  }

  async write(chunk: Buffer): Promise<void> {
    try {
      for (let at = 0; at < chunk.length; ) at += (await this.#file.write(chunk, at)).bytesWritten;
    } catch (error) {
      throw this.#failure(error);
    }
  }

  async complete(): Promise<{ readonly bytes: number }> {
    try {
      await this.#file.sync();
      await this.#close();
      await this.#publish();
      await syncUpwards(dirname(this.#final), dirname(this.#final));
      return { bytes: (await stat(this.#final)).size };
    } catch (error) {
      throw this.#failure(error);
    }
  }

  async abort(): Promise<void> {
    await this.#close().catch(() => {});
    await unlink(this.#temporary).catch(() => {});
  }

  async #close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#file.close();
  }

  async #publish(): Promise<void> {
    try {
      await link(this.#temporary, this.#final);
      await unlink(this.#temporary);
    } catch (error) {
      if (!noHardLinks.some((code) => isCode(error, code))) throw error;
      // Claim the name, so that nobody else's file is replaced, then put the whole file over the claim.
      await (await open(this.#final, 'wx', 0o600)).close();
      await rename(this.#temporary, this.#final).catch(async (failed: unknown) => {
        await unlink(this.#final);
        throw failed;
      });
    }
  }
}

/** A new name is only durable once its folder is synced: `folder`, its parent and so on up to `last`. */
async function syncUpwards(folder: string, last: string): Promise<void> {
  for (let path = folder; ; path = dirname(path)) {
    const handle = await open(path, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
    if (path === last || path === dirname(path)) return;
  }
}

function isCode(error: unknown, code: string): boolean {
  return (error as { code?: unknown } | undefined)?.code === code;
}
