// One file from the hub into the cache: resumed where it was cut off, and checked before anyone sees it. Node only.

import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { makeFolder, pause } from "../file-access.js";
import { withFileLock } from "../file-lock.js";
import type { HubCache } from "./hub-cache.js";
import type { HubClient, HubFile } from "./hub-client.js";
import { HubError } from "./hub-error.js";

/** Cut-off connections in a row that brought nothing. */
const FRUITLESS_TRIES = 5;
const PAUSE_MS = 100;

/** What {@link downloadFile} tells meanwhile. */
export interface DownloadFileOptions {
  /** Bytes of this file so far. */
  onBytes?: (receivedBytes: number) => void;
  onMessage?: (message: string) => void;
  signal?: AbortSignal;
}

/**
 * Puts a file's content among the cache's blobs.
 *
 * What has come is kept when the connection ends early, and the rest is asked for: now, or by the next call. Of several
 * processes that want the same content, one fetches it.
 *
 * @throws {HubError} If the hub refuses, the connection fails again and again, or the content has another checksum than
 *   the hub names; then nothing of it is kept.
 */
export async function downloadFile(
  client: HubClient,
  cache: HubCache,
  commit: string,
  file: HubFile,
  options: DownloadFileOptions = {},
): Promise<void> {
  const { onMessage, signal } = options;
  const onWait = () => onMessage?.(`Waiting for another process that downloads ${file.path}.`);
  const lock = await cache.lock(file.hash);
  await withFileLock(
    lock,
    async () => {
      if (await cache.hasBlob(file)) return;
      const blob = cache.blob(file.hash);
      await makeFolder(dirname(blob));
      const partial = `${blob}.fera-incomplete`;
      const resumed = await fetchInto(partial, client, commit, file, options);
      // The beginning may be a leftover of something else: only what came in one go is the hub's own fault.
      if (resumed === "damaged-leftover") await fetchInto(partial, client, commit, file, options);
      await rename(partial, blob);
    },
    { onWait, signal },
  );
}

/** Fills and checks the partial file. */
async function fetchInto(
  partial: string,
  client: HubClient,
  commit: string,
  file: HubFile,
  { onBytes, signal }: DownloadFileOptions,
): Promise<"complete" | "damaged-leftover"> {
  const target = await PartialFile.open(partial, file);
  const hadLeftover = target.received > 0;
  try {
    for (let fruitless = 0; target.received < file.sizeBytes; ) {
      const before = target.received;
      onBytes?.(before);
      const cut = await receive(target, client, commit, file, onBytes);
      if (target.received === file.sizeBytes) break;
      signal?.throwIfAborted();
      fruitless = target.received > before ? 0 : fruitless + 1;
      if (fruitless === FRUITLESS_TRIES) {
        throw new HubError(
          `${client.id}: the connection was cut off ${fruitless} times at byte ${target.received} of ${file.sizeBytes} of ` +
            `${file.path}. What has come is kept; run the same again to go on.`,
          { cause: cut },
        );
      }
      await pause(PAUSE_MS * 2 ** fruitless, signal);
    }
  } finally {
    await target.close();
  }
  const found = target.digest();
  if (found === file.hash) return "complete";
  await rm(partial, { force: true });
  if (hadLeftover) return "damaged-leftover";
  throw new HubError(
    `${client.id}: ${file.path} arrived damaged: its checksum is ${found}, the hub names ${file.hash}. It was removed; ` +
      "run the same again, and if this stays so, the server or something on the way changes files.",
  );
}

/** One answer's bytes. @returns Why it ended early, if it did. */
async function receive(
  target: PartialFile,
  client: HubClient,
  commit: string,
  file: HubFile,
  onBytes: ((receivedBytes: number) => void) | undefined,
): Promise<unknown> {
  const response = await client.read(commit, file.path, target.received);
  if (response.status === 416) {
    await response.body?.cancel();
    await target.restart();
    return undefined;
  }
  const start = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1];
  // A server that knows no ranges sends all of it, with status 200.
  if (target.received > 0 && (response.status !== 206 || Number(start) !== target.received)) await target.restart();
  try {
    for await (const chunk of response.body ?? []) {
      if (target.received + chunk.length > file.sizeBytes) {
        throw new HubError(`${client.id}: ${file.path} is longer than the ${file.sizeBytes} bytes that the hub names.`);
      }
      await target.append(chunk);
      onBytes?.(target.received);
    }
    return undefined;
  } catch (error) {
    client.signal?.throwIfAborted();
    if (error instanceof HubError) {
      await target.discard();
      throw error;
    }
    // A disk that is full will not be less so at the next try.
    if (["ENOSPC", "EDQUOT", "EIO"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
    return error;
  }
}

/** A file that is being filled, and the checksum of what is in it. */
class PartialFile {
  #hash: Hash;

  private constructor(
    readonly path: string,
    private readonly handle: FileHandle,
    private readonly file: HubFile,
    public received: number,
  ) {
    this.#hash = emptyHash(file);
  }

  /** Goes on where an earlier download ended. */
  static async open(path: string, file: HubFile): Promise<PartialFile> {
    const known = await stat(path).catch(() => undefined);
    const usable = known?.isFile() && known.size > 0 && known.size <= file.sizeBytes ? known.size : 0;
    const handle = await open(path, usable > 0 ? "r+" : "w");
    const partial = new PartialFile(path, handle, file, usable);
    if (usable > 0) for await (const chunk of createReadStream(path)) partial.#hash.update(chunk);
    return partial;
  }

  async append(chunk: Uint8Array): Promise<void> {
    let done = 0;
    while (done < chunk.length) {
      const { bytesWritten } = await this.handle.write(chunk, done, chunk.length - done, this.received + done);
      done += bytesWritten;
    }
    this.#hash.update(chunk);
    this.received += chunk.length;
  }

  async restart(): Promise<void> {
    await this.handle.truncate(0);
    this.#hash = emptyHash(this.file);
    this.received = 0;
  }

  /** Leaves nothing behind; the handle is still to be closed. */
  discard(): Promise<void> {
    return rm(this.path, { force: true });
  }

  digest(): string {
    return this.#hash.digest("hex");
  }

  async close(): Promise<void> {
    await this.handle.sync().catch(() => undefined);
    await this.handle.close();
  }
}

/** SHA-256 of the content, or SHA-1 of a git blob with it, as the length of the hub's checksum tells. */
function emptyHash({ hash, sizeBytes }: HubFile): Hash {
  if (hash.length === 64) return createHash("sha256");
  return createHash("sha1").update(`blob ${sizeBytes}\0`);
}
