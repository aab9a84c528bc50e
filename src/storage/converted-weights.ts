// A cache of weights as safetensors of one precision, made once from files of another and from pickles, so that they can be
// used in place. Node only.

import { createHash } from "node:crypto";
import { readdir, realpath, stat, unlink } from "node:fs/promises";
import { basename, join } from "node:path";
import { FormatError } from "../errors.js";
import { sizeOf } from "../tensor/tensor.js";
import { cacheFolder, freeBytes, isSystemError, makeFolder, writeFileAtomically } from "./file-access.js";
import { formatBytes } from "./file-descriptions.js";
import { withFileLock } from "./file-lock.js";
import { type CopyType, SAFETENSORS_NAMES } from "./float-weights.js";
import { BYTES_PER_DTYPE, type OpenedSafetensors, safetensorsHead } from "./safetensors.js";
import type { Conversion } from "./storage.js";
import { openSafetensors } from "./tensor-file.js";

/** Options of {@link convertedCopy}. */
export interface ConvertedCopyOptions {
  /** Told of what takes long or much room before it begins, and of why there is no cache. */
  onMessage?: (message: string) => void;
  signal?: AbortSignal;
  /** What the copy holds; default `float32`. */
  dtype?: CopyType;
  /** Default: one named after the dtype, in {@link cacheFolder}. */
  folder?: string;
}

/** Part of every key: a new layout of the copies makes old ones unused. */
const VERSION = 1;
/** Left free on the disk, at least. */
const SPARE_BYTES = 2 ** 26;
/** A temporary file this old belongs to no conversion under way. */
const ABANDONED_MS = 3_600_000;

/**
 * The copy of a file's tensors in one precision, made on first use and found again as long as the file stays as it is.
 *
 * The copy is written under a temporary name and renamed, so that nobody sees half of it; of several processes that
 * want the same copy, one makes it and the others wait.
 *
 * @param path - The original.
 * @param detail - Distinguishes several copies from one file, such as one per model in it.
 * @param prepare - Called when there is no copy yet.
 * @returns Undefined where the cache cannot hold it (no room, no permission), which `onMessage` has been told.
 * @throws {FormatError} If the original is missing, or `prepare` or its chunks throw it.
 */
export async function convertedCopy(
  path: string,
  detail: string,
  prepare: () => Promise<Conversion>,
  options: ConvertedCopyOptions = {},
): Promise<OpenedSafetensors | undefined> {
  const { dtype = "float32", folder = join(cacheFolder(), dtype), onMessage, signal } = options;
  const target = join(folder, await fileNameFor(path, detail));
  const found = await openCopy(target);
  if (found) return found;
  const refuse = (reason: string): undefined => {
    const what =
      dtype === "int8" || dtype === "nf4" ? "cannot be converted" : "is converted in memory, again at every start";
    onMessage?.(`${path} ${what}: ${reason}. Set FERA_CACHE to a folder with more room.`);
    return undefined;
  };
  try {
    await makeFolder(folder);
    const onWait = () => onMessage?.(`Waiting for another process that converts ${path}.`);
    return await withFileLock(
      `${target}.lock`,
      async () => {
        const made = await openCopy(target);
        if (made) return made;
        await removeAbandoned(folder, basename(target));
        const conversion = await prepare();
        const floatType = SAFETENSORS_NAMES[dtype === "int8" || dtype === "nf4" ? "float32" : dtype];
        const tensors = conversion.tensors.map((tensor) => ({ dtype: floatType, ...tensor }));
        const head = safetensorsHead(tensors, { source: path, ...conversion.metadata });
        const sizeBytes = tensors.reduce(
          (sum, tensor) => sum + BYTES_PER_DTYPE[tensor.dtype] * sizeOf(tensor.shape),
          head.length,
        );
        const free = await freeBytes(folder);
        if (free !== undefined && free < sizeBytes + SPARE_BYTES) {
          return refuse(`its copy takes ${formatBytes(sizeBytes)}, and ${folder} has ${formatBytes(free)} left`);
        }
        onMessage?.(
          `${path} is ${conversion.form}: converting it once to ${dtype}, ${formatBytes(sizeBytes)} in ${folder}.`,
        );
        await writeFileAtomically(target, withHead(head, conversion.chunks, signal));
        return openSafetensors(target);
      },
      { signal, onWait },
    );
  } catch (error) {
    signal?.throwIfAborted();
    const reason = reasonNotToWrite(error, folder);
    if (reason === undefined) throw error;
    return refuse(reason);
  }
}

/** The same bytes under the same path give the same name: path, size, time of change and the detail are its key. */
async function fileNameFor(path: string, detail: string): Promise<string> {
  let real: string;
  let size: bigint;
  let mtimeNs: bigint;
  try {
    real = await realpath(path);
    ({ size, mtimeNs } = await stat(real, { bigint: true }));
  } catch (cause) {
    throw new FormatError(path, "cannot be read: no such file.", { cause });
  }
  const key = JSON.stringify([VERSION, real, `${size}`, `${mtimeNs}`, detail]);
  const stem = basename(path).replace(/\.[^.]+$/, "");
  return `${stem.slice(0, 80)}-${createHash("sha256").update(key).digest("hex").slice(0, 24)}.safetensors`;
}

/** A copy that is there and whole; its length is checked by its header. */
async function openCopy(target: string): Promise<OpenedSafetensors | undefined> {
  if (!(await stat(target).catch(() => undefined))) return undefined;
  return openSafetensors(target).catch(() => undefined);
}

async function* withHead(head: Uint8Array, chunks: Conversion["chunks"], signal: AbortSignal | undefined) {
  yield head;
  for await (const chunk of chunks) {
    signal?.throwIfAborted();
    yield chunk;
  }
}

/** Removes what processes that were killed while converting have left. */
async function removeAbandoned(folder: string, name: string): Promise<void> {
  for (const other of await readdir(folder)) {
    if (!other.startsWith(`.${name}.`) || !other.endsWith(".tmp")) continue;
    const known = await stat(join(folder, other)).catch(() => undefined);
    if (known && Date.now() - known.mtimeMs > ABANDONED_MS) await unlink(join(folder, other)).catch(() => undefined);
  }
}

/** Says why the cache could not be written; undefined where the failure is another. */
function reasonNotToWrite(error: unknown, folder: string): string | undefined {
  const system = error instanceof FormatError ? error.cause : error;
  if (!isSystemError(system)) return undefined;
  const { code, message } = system;
  // What fails while the original is read is no reason to read it again.
  if (error instanceof FormatError && !error.source.startsWith(folder)) return undefined;
  switch (code) {
    case "ENOSPC":
    case "EDQUOT":
      return `no space is left in ${folder}`;
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return `${folder} is not writable`;
    default:
      return `${folder} cannot be written (${message})`;
  }
}
