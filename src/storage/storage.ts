// Where a model's or an adapter's bytes are. One interface; a platform's entry (node.ts, web.ts) says how a location becomes
// one of its implementations, once.

import { FormatError } from "../errors.js";
import type { CopyType } from "./float-weights.js";
import type { HubOptions } from "./hub/hub-options.js";
import type { Wanted } from "./hub/needed-files.js";
import type { OpenedSafetensors, SafetensorsDType } from "./safetensors.js";

/** A range of a file's bytes. */
export interface ByteRange {
  offset: number;
  /** All of them must be there. */
  length: number;
}

/**
 * A folder of files: on disk, behind an address, or on the hub. Names are relative, with slashes.
 *
 * What takes long is reported, and ends with the signal, as the options said with which the storage was opened.
 */
export interface Storage {
  /** The folder, as the caller named it; for messages, and to open it again. */
  readonly location: string;
  /** The name of the file, where the location names one file and no folder. */
  readonly file?: string;
  /** A file as messages name it. */
  nameOf(name: string): string;
  exists(name: string): Promise<boolean>;
  /** Bytes; undefined where there is no such file, or a server does not say. */
  size(name: string): Promise<number | undefined>;
  /**
   * Reads a whole file, or a part.
   *
   * @returns Undefined where there is no such file.
   * @throws {FormatError} If it is there but cannot be read, or ends inside the range.
   * @throws The signal's reason, an AbortError unless the caller gave another.
   */
  read(name: string, range?: ByteRange): Promise<Uint8Array | undefined>;
  /** Names in a folder, sorted; undefined where there is none, or nothing that can be asked for a list. */
  list(folder?: string): Promise<string[] | undefined>;
  /** Where the files lie on this machine, so that weights can be used in place. */
  readonly local?: LocalFiles;
}

/** What can be done with files on this machine only. */
export interface LocalFiles {
  /** Absolute path with links resolved. @throws {FormatError} If there is no such file. */
  pathOf(name: string): Promise<string>;
  /** The largest magnitude of an 8-bit integer that this machine's products take. */
  int8Range(): number;
  /** A copy of a file's tensors as `dtype` in the cache; undefined where there is no room for it. */
  convertedCopy(
    name: string,
    detail: string,
    prepare: () => Promise<Conversion>,
    dtype: CopyType,
  ): Promise<OpenedSafetensors | undefined>;
}

/** Weights that are to be kept in another precision. */
export interface Conversion {
  /** The form they have, for the message: "float16", "a pickle". */
  form: string;
  /** Kept with the copy. */
  metadata?: Record<string, string>;
  /** In the order of the copy, of its own precision where nothing else is said; `chunks` are their bytes in the same order. */
  tensors: readonly { name: string; shape: readonly number[]; dtype?: SafetensorsDType }[];
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/** How {@link openStorage} finds and reads a location. */
export interface StorageOptions extends HubOptions, Partial<Wanted> {}

/** What a platform provides; installed once by its entry. */
export interface StoragePlatform {
  open(location: string, options: StorageOptions): Promise<Storage>;
  /** A file by its path or address: the folder around it, unopened, and its name there. */
  fileAt(path: string): { storage: Storage; name: string };
  /** Writes a whole file or nothing; makes the folder where asked to. @throws {FormatError} If that fails. */
  write(path: string, bytes: Uint8Array, options: { makeFolder?: boolean }): Promise<void>;
}

let platform: StoragePlatform | undefined;

/** Called once, by the platform's entry. */
export function installStorage(next: StoragePlatform): void {
  platform = next;
}

function installed(location: string): StoragePlatform {
  if (platform) return platform;
  throw new FormatError(location, 'nothing says how files are read here; import the package by its name, "fera".');
}

/**
 * Opens what a model's name stands for: a folder or file, an address, or an id on the hub (owner/name).
 *
 * In Node, what is `wanted` of a hub's model is downloaded into the cache first.
 *
 * @throws {FormatError} If there is no such place.
 * @throws {HubError} If the hub refuses or cannot be reached.
 */
export async function openStorage(location: string, options: StorageOptions = {}): Promise<Storage> {
  options.signal?.throwIfAborted();
  return installed(location).open(location, options);
}

/** Reads one file, or a part of it, by its path or address. @throws {FormatError} If it is missing or unreadable. */
export async function readFileAt(path: string, range?: ByteRange): Promise<Uint8Array> {
  const { storage, name } = installed(path).fileAt(path);
  return readRequired(storage, name, range);
}

/** Writes one file, whole or not at all. @throws {FormatError} If that fails, or a page asks for it. */
export function writeFileAt(path: string, bytes: Uint8Array, options: { makeFolder?: boolean } = {}): Promise<void> {
  return installed(path).write(path, bytes, options);
}

/** A file that must be there. @throws {FormatError} If it is not, or cannot be read. */
export async function readRequired(storage: Storage, name: string, range?: ByteRange): Promise<Uint8Array> {
  const bytes = await storage.read(name, range);
  if (!bytes) throw new FormatError(storage.nameOf(name), "cannot be read: no such file.");
  return bytes;
}

/** Parts of a name with slashes between; empty ones are left out. */
export const joined = (...parts: (string | undefined)[]): string => parts.filter((part) => part).join("/");
