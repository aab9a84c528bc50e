// Reading regular files in ranges, writing files atomically, and where files are kept that can be recreated. Errors say
// what to do. Node only.

import { randomBytes } from "node:crypto";
import { type FileHandle, mkdir, open, realpath, rename, stat, statfs, unlink } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import { setTimeout } from "node:timers/promises";
import { FormatError } from "../errors.js";
import { isObject, parseJson } from "./json.js";

// A single read or write system call moves at most 2 GiB - 4096 bytes.
const CHUNK_BYTES = 2 ** 30;
/** With a signal, reads are shorter, so that it is heard. */
const SIGNALLED_BYTES = 2 ** 26;

/** An open regular file. */
export interface OpenFile {
  /** Absolute path with symbolic links resolved. */
  path: string;
  sizeBytes: number;
  /** Reads exactly `length` bytes at `offset`. Throws FormatError if the file ends earlier. */
  read(offset: number, length: number): Promise<Uint8Array>;
}

/**
 * Opens a regular file for reading in ranges, and closes it when `use` is done.
 *
 * @throws {FormatError} If the path is missing, not a regular file, or unreadable; `cause` is the system's error.
 * @throws The signal's reason.
 */
export async function withFile<T>(path: string, use: (file: OpenFile) => Promise<T>, signal?: AbortSignal): Promise<T> {
  let handle: FileHandle | undefined;
  try {
    const real = await realpath(path);
    // Asked before opening: opening a named pipe would wait for a writer.
    if (!(await stat(real)).isFile()) throw new FormatError(path, "is not a file. Name the file itself.");
    handle = await open(real, "r");
    const { size } = await handle.stat();
    const from = handle;
    return await use({
      path: real,
      sizeBytes: size,
      read: (offset, length) => readRange(from, path, offset, length, signal),
    });
  } catch (cause) {
    if (isSystemError(cause)) throw new FormatError(path, `cannot be read: ${reasonOf(cause)}.`, { cause });
    throw cause;
  } finally {
    await handle?.close();
  }
}

/** Reads a whole regular file. Throws FormatError as {@link withFile} does. */
export function readWholeFile(path: string): Promise<Uint8Array> {
  return withFile(path, (file) => file.read(0, file.sizeBytes));
}

/**
 * Reads a JSON file.
 *
 * @throws {FormatError} If it is missing, not UTF-8 or not JSON.
 */
export async function readJson(path: string): Promise<unknown> {
  return parseJson(await readWholeFile(path), path);
}

/**
 * Reads a JSON file that holds an object.
 *
 * @throws {FormatError} As {@link readJson}, and if it holds anything else.
 */
export async function readJsonObject(path: string): Promise<Record<string, unknown>> {
  const value = await readJson(path);
  if (!isObject(value)) throw new FormatError(path, "must hold a JSON object.");
  return value;
}

/**
 * Makes a folder with the folders above it; one that is there is fine.
 *
 * One level at a time: Node's own recursive mkdir (20.20) never ends where a file system refuses with ENOENT, as /proc does.
 *
 * @throws The system's error.
 */
export async function makeFolder(folder: string): Promise<void> {
  const target = resolve(folder);
  const known = await stat(target).catch(() => undefined);
  if (known?.isDirectory()) return;
  if (dirname(target) !== target) await makeFolder(dirname(target));
  await mkdir(target).catch(async (error: NodeJS.ErrnoException) => {
    // Another process may have made it meanwhile.
    if (error.code !== "EEXIST" || !(await stat(target)).isDirectory()) throw error;
  });
}

/**
 * Writes a file so that a reader sees the old content or the new, never a part: under a temporary name in the same
 * folder, flushed to disk, then renamed. A symbolic link is followed and stays. A device or a pipe (`/dev/stdout`,
 * `/dev/null`) is written to: a rename would put a file in its place, for every program of the machine.
 *
 * @throws {FormatError} If the folder is missing or not writable, or the disk is full; `cause` is the system's error,
 *   and nothing is left behind.
 */
export async function writeFileAtomically(
  path: string,
  parts: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
): Promise<void> {
  const target = await realpath(path).catch(() => resolve(path));
  const known = await stat(target).catch(() => undefined);
  if (known && !known.isFile() && !known.isDirectory()) return writeInto(target, path, parts);
  const folder = dirname(target);
  const temporary = join(folder, `.${basename(target)}.${process.pid}.${randomBytes(4).toString("hex")}.tmp`);
  let created = false;
  try {
    const handle = await open(temporary, "wx");
    created = true;
    try {
      for await (const part of parts) await writeAll(handle, part);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, target);
  } catch (cause) {
    if (created) await unlink(temporary).catch(() => undefined);
    throw writeError(path, cause);
  }
  await syncFolder(folder);
}

/** Writes to what is no regular file, which cannot be done atomically. */
async function writeInto(
  target: string,
  path: string,
  parts: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
): Promise<void> {
  try {
    const handle = await open(target, "w");
    try {
      for await (const part of parts) await writeAll(handle, part);
    } finally {
      await handle.close();
    }
  } catch (cause) {
    throw writeError(path, cause);
  }
}

/** A refusal of the system as an error that names the file; anything else as it is. */
const writeError = (path: string, cause: unknown): unknown =>
  isSystemError(cause) ? new FormatError(path, `cannot be written: ${reasonOf(cause)}.`, { cause }) : cause;

/** Bytes that may still be written where the folder lies; undefined where the system does not tell. */
export async function freeBytes(folder: string): Promise<number | undefined> {
  const room = await statfs(folder).catch(() => undefined);
  return room && room.bavail * room.bsize;
}

async function readRange(
  handle: FileHandle,
  path: string,
  offset: number,
  length: number,
  signal: AbortSignal | undefined,
): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  const limit = signal ? SIGNALLED_BYTES : CHUNK_BYTES;
  let done = 0;
  while (done < length) {
    signal?.throwIfAborted();
    const { bytesRead } = await handle.read(bytes, done, Math.min(length - done, limit), offset + done);
    if (bytesRead === 0) throw new FormatError(path, `ends at byte ${offset + done}, inside the part being read.`);
    done += bytesRead;
  }
  return bytes;
}

async function writeAll(handle: FileHandle, part: Uint8Array): Promise<void> {
  let done = 0;
  while (done < part.length) {
    const { bytesWritten } = await handle.write(part, done, Math.min(part.length - done, CHUNK_BYTES));
    done += bytesWritten;
  }
}

/** Makes the rename itself durable; Windows cannot open folders, and losing only this is no failure. */
async function syncFolder(folder: string): Promise<void> {
  try {
    const handle = await open(folder, "r");
    await handle.sync().finally(() => handle.close());
  } catch {}
}

/** Where fera keeps files that it can recreate: `FERA_CACHE`, else `XDG_CACHE_HOME/fera`, else `~/.cache/fera`. */
export function cacheFolder(): string {
  if (process.env.FERA_CACHE) return resolve(process.env.FERA_CACHE);
  const base = process.env.XDG_CACHE_HOME;
  return join(base && isAbsolute(base) ? base : join(homedir(), ".cache"), "fera");
}

/**
 * Waits.
 *
 * @throws The signal's reason; Node's own timers reject with an error that is no DOMException.
 */
export async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await setTimeout(ms, undefined, { signal }).catch((error: unknown) => {
    signal?.throwIfAborted();
    throw error;
  });
}

/** Whether it is the operating system that refused. */
export function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && typeof (error as NodeJS.ErrnoException).syscall === "string";
}

/** Whether it is the operating system that refused to write a file. */
export function isFailedWrite(error: unknown): boolean {
  return isSystemError(error) || (error instanceof FormatError && isSystemError(error.cause));
}

/** Whether there is a file or a folder of that name, behind links too. */
export const pathExists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

/**
 * What the operating system refused, with the path that it names and what to do; undefined for what is no such
 * refusal, or none that a user could meet with a program in order.
 */
export function describeSystemError(error: unknown): string | undefined {
  if (!isSystemError(error)) return undefined;
  const reason = reasonOf(error);
  if (reason === error.message) return undefined;
  // Node names the path where the call took one; writing to an open file did not.
  return error.path === undefined ? `writing a file: ${reason}.` : `${error.path}: ${reason}.`;
}

/** What the operating system refused, in a user's words; its own message where there are none. */
export function reasonOf(error: NodeJS.ErrnoException): string {
  switch (error.code) {
    case "ENOENT":
      return error.syscall === "open" ? "its folder does not exist; create it first" : "no such file";
    case "ENOTDIR":
      return "a part of the path is a file, not a folder";
    case "EISDIR":
      return "there is a folder of that name";
    case "EACCES":
    case "EPERM":
      return "permission denied; check who owns it";
    case "EROFS":
      return "the file system is read-only";
    case "ENOSPC":
    case "EDQUOT":
      return "no space left; free some and try again";
    case "ELOOP":
      return "a link that leads in a circle; remove it";
    case "ENAMETOOLONG":
      return "the name is too long for this file system";
    case "EMFILE":
    case "ENFILE":
      return "too many open files; raise the limit (ulimit -n)";
    case "EFBIG":
      return "larger than a file may be here";
    case "EIO":
      return "the device failed to read or write; check the disk";
    default:
      return error.message;
  }
}
