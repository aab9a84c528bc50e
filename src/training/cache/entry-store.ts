// Where encoded images and captions are kept: on disk, in memory, or not at all. Node only.

import { randomBytes } from "node:crypto";
import { type FileHandle, open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { printable } from "../../errors.js";
import { isSystemError, makeFolder, reasonOf } from "../../storage/file-access.js";
import { type EntryPlace, type EntryTensors, encodeEntry, readEntry, scanEntries } from "./entry-file.js";

/** Entries by key: 64 hexadecimal digits that tell all that the content depends on. */
export interface EntryStore {
  has(key: string): boolean;
  /** Undefined where there is none, or it is damaged; it is then no longer there. */
  get(key: string): Promise<EntryTensors | undefined>;
  put(key: string, tensors: EntryTensors): Promise<void>;
  /** Flushes what was written, and closes files; entries can still be read, which opens them again. */
  close(): Promise<void>;
}

/** Keeps nothing: what is needed is made each time. */
export const NO_ENTRIES: EntryStore = {
  has: () => false,
  get: async () => undefined,
  put: async () => undefined,
  close: async () => undefined,
};

/** Entries for as long as the process runs. */
export class MemoryEntries implements EntryStore {
  private readonly entries = new Map<string, EntryTensors>();

  has(key: string): boolean {
    return this.entries.has(key);
  }

  async get(key: string): Promise<EntryTensors | undefined> {
    return this.entries.get(key);
  }

  async put(key: string, tensors: EntryTensors): Promise<void> {
    this.entries.set(key, tensors);
  }

  async close(): Promise<void> {}
}

/** A file of this size is full: the next entry begins another. */
const FULL_BYTES = 2 ** 30;
const ENDING = ".entries";

/**
 * Entries in the files of one folder, which several processes may share: each writes files of its own and reads those that
 * were there when it began. One file per run that encodes, and per gigabyte.
 *
 * Where the folder cannot be written, entries are kept in memory, and `onMessage` is told once.
 */
export class DiskEntries implements EntryStore {
  private readonly places = new Map<string, EntryPlace & { path: string }>();
  /** Open for reading. */
  private readonly files = new Map<string, Promise<FileHandle>>();
  private readonly unwritten = new MemoryEntries();
  private isWritable = true;
  private current: { path: string; file: FileHandle; size: number } | undefined;

  private constructor(
    private readonly folder: string,
    private readonly onMessage: (message: string) => void,
  ) {}

  /** @param onMessage - Told of damaged entries, and of why nothing can be written. */
  static async open(folder: string, onMessage: (message: string) => void): Promise<DiskEntries> {
    const store = new DiskEntries(folder, onMessage);
    const names = await readdir(folder).catch(() => []);
    for (const name of names.filter((each) => each.endsWith(ENDING)).sort()) {
      const path = join(folder, name);
      try {
        for (const [key, place] of await scanEntries(path)) store.places.set(key, { ...place, path });
      } catch (error) {
        if (!isSystemError(error)) throw error;
        onMessage(`${printable(path)} is not used: ${reasonOf(error)}. What it holds is encoded again.`);
      }
    }
    return store;
  }

  has(key: string): boolean {
    return this.places.has(key) || this.unwritten.has(key);
  }

  async get(key: string): Promise<EntryTensors | undefined> {
    const place = this.places.get(key);
    if (!place) return this.unwritten.get(key);
    let reason = "it is not what was written";
    try {
      const tensors = await readEntry(await this.fileOf(place.path), key, place);
      if (tensors) return tensors;
    } catch (error) {
      if (!isSystemError(error)) throw error;
      reason = reasonOf(error);
    }
    this.places.delete(key);
    this.onMessage(`${printable(place.path)}: an entry of the cache is damaged (${reason}); it is made again.`);
    return undefined;
  }

  async put(key: string, tensors: EntryTensors): Promise<void> {
    if (this.isWritable) {
      try {
        return await this.append(key, tensors);
      } catch (error) {
        if (!isSystemError(error)) throw error;
        this.isWritable = false;
        this.onMessage(
          `${printable(this.folder)} cannot be written: ${reasonOf(error)}. What is encoded from here on is kept in memory ` +
            "and made again by the next run; --cache-dir names another folder.",
        );
      }
    }
    return this.unwritten.put(key, tensors);
  }

  async close(): Promise<void> {
    const { current, files } = this;
    this.current = undefined;
    if (current) await current.file.sync().finally(() => current.file.close());
    const open = [...files.values()];
    files.clear();
    for (const file of open) await (await file).close();
  }

  private async append(key: string, tensors: EntryTensors): Promise<void> {
    const { parts, place } = encodeEntry(key, tensors);
    const { path, file, size } = await this.writable();
    let at = size;
    for (const part of parts) {
      for (let done = 0; done < part.length; ) {
        done += (await file.write(part, done, part.length - done, at + done)).bytesWritten;
      }
      at += part.length;
    }
    this.current!.size = at;
    this.places.set(key, { ...place, offset: size + place.offset, path });
  }

  private async writable(): Promise<NonNullable<typeof this.current>> {
    if (this.current && this.current.size < FULL_BYTES) return this.current;
    if (this.current) await this.close();
    await makeFolder(this.folder);
    const path = join(this.folder, `${Date.now().toString(36)}-${randomBytes(6).toString("hex")}${ENDING}`);
    this.current = { path, file: await open(path, "wx"), size: 0 };
    return this.current;
  }

  private fileOf(path: string): Promise<FileHandle> {
    let file = this.files.get(path);
    if (!file) {
      file = open(path, "r");
      file.catch(() => this.files.delete(path));
      this.files.set(path, file);
    }
    return file;
  }
}
