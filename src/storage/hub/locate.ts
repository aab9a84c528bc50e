// Where a model that is named by the user lies: a local folder or file, else on the hub, fetched into the cache. Node only.

import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { FormatError } from "../../errors.js";
import { freeBytes, isSystemError, makeFolder, readJson } from "../file-access.js";
import { formatBytes } from "../file-descriptions.js";
import { downloadFile } from "./download-file.js";
import { HubCache } from "./hub-cache.js";
import { HubClient, type HubListing, type RepositoryKind } from "./hub-client.js";
import { HubError } from "./hub-error.js";
import type { HubOptions } from "./hub-options.js";
import { hubSettings, isHubId } from "./hub-settings.js";
import { MODEL_INDEX, neededFiles, type Wanted } from "./needed-files.js";

/** A place on this machine. */
export interface ModelPlace {
  kind: "folder" | "file";
  path: string;
}

const DEFAULT_REVISION = "main";

/**
 * Finds a model. A local folder or file of that name goes before a model on the hub.
 *
 * @param name - A path, or owner/name on the hub.
 * @throws {FormatError} If there is no such folder and the name can be none on the hub.
 * @throws {HubError} If it cannot be had from the hub.
 */
export async function locateModel(name: string, options: HubOptions & Wanted): Promise<ModelPlace> {
  const known = await stat(name).catch(() => undefined);
  if (known) return { kind: known.isDirectory() ? "folder" : "file", path: name };
  if (!isHubId(name)) throw new FormatError(name, "there is no such folder.");
  const path = await fetchModel(name, options).catch(async (error: unknown) => {
    const folder = dirname(name);
    const isLocal = await stat(folder).then(
      (found) => found.isDirectory(),
      () => false,
    );
    // Most likely a path was meant, and mistyped.
    if (!(error instanceof HubError) || !isLocal) throw error;
    throw new HubError(`${error.message} The folder ${folder} is here, but has no ${basename(name)} in it.`, {
      status: error.status,
      cause: error,
    });
  });
  return { kind: "folder", path };
}

/**
 * Fetches what is wanted of a model on the hub into the cache that Python's huggingface_hub uses too.
 *
 * Where the hub cannot be reached, what an earlier call has fetched is used, and `onMessage` is told.
 *
 * @param id - owner/name.
 * @returns The snapshot's folder.
 * @throws {HubError} If the hub refuses, breaks off, or sends damaged files; or offline, if the cache has no such model.
 * @throws {FormatError} If the model's weights are in no form that can be loaded.
 */
export async function fetchModel(id: string, options: HubOptions & Wanted): Promise<string> {
  return fetchRepository("model", id, options, async ({ commit, files }, { cache, store }) => {
    const { parts } = options;
    if (files.has(MODEL_INDEX)) await store(MODEL_INDEX);
    const index = () => readIndex(files.has(MODEL_INDEX) ? cache.snapshot(commit) : undefined);
    const folders = typeof parts === "function" ? parts(await index()) : parts;
    return neededFiles(id, [...files.keys()], { ...options, parts: folders });
  });
}

/**
 * Fetches files of a data set on the hub, as {@link fetchModel} does of a model.
 *
 * @param options.choose - Which of its files; throws if none can be used.
 * @returns The snapshot's folder.
 * @throws {HubError} If the hub refuses, breaks off, or sends damaged files; or offline, if the cache has no such data set.
 */
export async function fetchDataset(
  id: string,
  options: HubOptions & { choose: (id: string, paths: readonly string[]) => string[] },
): Promise<string> {
  return fetchRepository("dataset", id, options, async ({ files }) => options.choose(id, [...files.keys()].sort()));
}

/** What {@link fetchRepository} lends for choosing. */
interface ChoosingTools {
  cache: HubCache;
  /** Fetches one file now. */
  store(path: string): Promise<void>;
}

async function fetchRepository(
  kind: RepositoryKind,
  id: string,
  options: HubOptions,
  choose: (listing: HubListing, tools: ChoosingTools) => Promise<string[]>,
): Promise<string> {
  const { revision = DEFAULT_REVISION, onMessage, signal } = options;
  const settings = await hubSettings(options);
  const cache = new HubCache(settings.cacheDir, id, kind);
  const client = new HubClient(id, revision, settings, signal, kind);
  if (settings.offline) {
    const found = await cache.find(revision);
    if (found) return found;
    throw new HubError(
      `${id}: revision ${JSON.stringify(revision)} is not in ${settings.cacheDir}, and nothing is downloaded in offline ` +
        "mode (HF_HUB_OFFLINE or localFilesOnly).",
    );
  }
  let listing: HubListing;
  try {
    listing = await client.list();
  } catch (error) {
    const found = error instanceof HubError && error.isOutage ? await cache.find(revision) : undefined;
    if (!found) throw error;
    onMessage?.(`${(error as Error).message} The copy in ${found} is used.`);
    return found;
  }
  try {
    await fetchFiles(client, cache, listing, options, choose);
    await cache.point(revision, listing.commit);
  } catch (cause) {
    signal?.throwIfAborted();
    if (!isSystemError(cause)) throw cause;
    throw new HubError(
      `${id}: the files cannot be stored in ${settings.cacheDir} (${cause.message}). Free some space there, ` +
        "or set HF_HOME to another folder.",
      { cause },
    );
  }
  return cache.snapshot(listing.commit);
}

async function fetchFiles(
  client: HubClient,
  cache: HubCache,
  listing: HubListing,
  { onMessage, onProgress, signal }: HubOptions,
  choose: (listing: HubListing, tools: ChoosingTools) => Promise<string[]>,
): Promise<void> {
  const { commit, files } = listing;
  const store = async (path: string, onBytes?: (bytes: number) => void): Promise<void> => {
    const file = files.get(path)!;
    if (await cache.has(commit, file)) return;
    if (!(await cache.hasBlob(file))) {
      await downloadFile(client, cache, commit, file, { onBytes, onMessage, signal });
    }
    await cache.link(commit, file);
  };
  const needed = await choose(listing, { cache, store });
  let totalBytes = 0;
  let missingBytes = 0;
  for (const path of needed) {
    const file = files.get(path)!;
    totalBytes += file.sizeBytes;
    if (!(await cache.has(commit, file)) && !(await cache.hasBlob(file))) missingBytes += file.sizeBytes;
  }
  if (missingBytes > 0) {
    await checkRoom(client.id, cache.folder, missingBytes);
    onMessage?.(`Downloading ${client.id}: ${formatBytes(missingBytes)} into ${cache.folder}.`);
  }
  let done = 0;
  for (const path of needed) {
    signal?.throwIfAborted();
    await store(path, (bytes) => onProgress?.({ path, receivedBytes: done + bytes, totalBytes }));
    done += files.get(path)!.sizeBytes;
    onProgress?.({ path, receivedBytes: done, totalBytes });
  }
}

async function readIndex(snapshot: string | undefined): Promise<Record<string, unknown>> {
  if (snapshot === undefined) return {};
  const value = await readJson(join(snapshot, MODEL_INDEX));
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

async function checkRoom(id: string, folder: string, neededBytes: number): Promise<void> {
  await makeFolder(folder);
  const free = await freeBytes(folder);
  if (free !== undefined && free < neededBytes) {
    throw new HubError(
      `${id}: ${formatBytes(neededBytes)} are to be downloaded, but ${folder} has ${formatBytes(free)} left. Free some ` +
        "space there, or set HF_HOME to another folder.",
    );
  }
}
