// The cache folder of Python's huggingface_hub, shared with it: models--OWNER--NAME or datasets--OWNER--NAME with refs (revision to commit),
// blobs (content by its hash) and snapshots (per commit, links to blobs). Node only.
// Source of the layout: huggingface_hub's guide "Understand caching".

import { copyFile, link, readFile, stat, symlink, unlink } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { makeFolder, writeFileAtomically } from "../file-access.js";
import type { HubFile, RepositoryKind } from "./hub-client.js";

const COMMIT = /^[0-9a-f]{40}$/;

/** One repository's part of the cache. */
export class HubCache {
  /** The repository's folder. */
  readonly folder: string;
  readonly #locks: string;

  constructor(cacheDir: string, id: string, kind: RepositoryKind = "model") {
    const name = `${kind}s--${id.replace("/", "--")}`;
    this.folder = join(cacheDir, name);
    this.#locks = join(cacheDir, ".locks", name);
  }

  snapshot(commit: string): string {
    return join(this.folder, "snapshots", commit);
  }

  blob(hash: string): string {
    return join(this.folder, "blobs", hash);
  }

  /** Another name than Python's locks, which are held by flock: what exists there means nothing. */
  async lock(hash: string): Promise<string> {
    await makeFolder(this.#locks);
    return join(this.#locks, `${hash}.fera-lock`);
  }

  /** The snapshot of a revision that is in the cache. */
  async find(revision: string): Promise<string | undefined> {
    const commit = COMMIT.test(revision)
      ? revision
      : (await readFile(join(this.folder, "refs", revision), "utf8").catch(() => "")).trim();
    if (!COMMIT.test(commit)) return undefined;
    const folder = this.snapshot(commit);
    return (await isFolder(folder)) ? folder : undefined;
  }

  /** Records which commit a branch or tag stands for. */
  async point(revision: string, commit: string): Promise<void> {
    if (revision === commit) return;
    const file = join(this.folder, "refs", revision);
    await makeFolder(dirname(file));
    await writeFileAtomically(file, [new TextEncoder().encode(commit)]);
  }

  /** Whether a file of a snapshot is there in full; its content was checked when it came. */
  async has(commit: string, file: HubFile): Promise<boolean> {
    return (await sizeOf(join(this.snapshot(commit), file.path))) === file.sizeBytes;
  }

  /** Whether the content is there in full, whatever snapshots it is in. */
  async hasBlob({ hash, sizeBytes }: HubFile): Promise<boolean> {
    return (await sizeOf(this.blob(hash))) === sizeBytes;
  }

  /** Makes a snapshot's file of a blob: a relative link, or where links are not allowed, a second name or a copy. */
  async link(commit: string, { path, hash }: HubFile): Promise<void> {
    const pointer = join(this.snapshot(commit), path);
    const blob = this.blob(hash);
    await makeFolder(dirname(pointer));
    const make = () =>
      symlink(relative(dirname(pointer), blob), pointer).catch(async (error: NodeJS.ErrnoException) => {
        if (error.code === "EEXIST") throw error;
        await link(blob, pointer).catch(() => copyFile(blob, pointer));
      });
    await make().catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw error;
      await unlink(pointer);
      await make();
    });
  }
}

async function sizeOf(path: string): Promise<number | undefined> {
  const known = await stat(path).catch(() => undefined);
  return known?.isFile() ? known.size : undefined;
}

function isFolder(path: string): Promise<boolean> {
  return stat(path).then(
    (known) => known.isDirectory(),
    () => false,
  );
}
