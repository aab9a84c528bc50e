// Storage on this machine's disk. Node only.

import { readdir, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { FormatError } from "../errors.js";
import { convertedCopy } from "./converted-weights.js";
import { withFile } from "./file-access.js";
import type { HubOptions } from "./hub/hub-options.js";
import { ownInt8Range } from "./int8-range.js";
import type { ByteRange, LocalFiles, Storage } from "./storage.js";

/** A folder on disk. Links are followed. */
export class FileStorage implements Storage {
  readonly local: LocalFiles;

  /**
   * @param location - A folder; it is looked at when something is asked for.
   * @param file - Where the caller named this one file of it.
   */
  constructor(
    readonly location: string,
    readonly options: Pick<HubOptions, "signal" | "onMessage"> = {},
    readonly file?: string,
  ) {
    this.local = {
      pathOf: (name) =>
        realpath(this.nameOf(name)).catch((cause: Error) => {
          throw new FormatError(this.nameOf(name), "cannot be read: no such file.", { cause });
        }),
      int8Range: ownInt8Range,
      convertedCopy: (name, detail, prepare, dtype) =>
        convertedCopy(this.nameOf(name), detail, prepare, { ...options, dtype }),
    };
  }

  nameOf(name: string): string {
    return join(this.location, name);
  }

  async exists(name: string): Promise<boolean> {
    return (await this.#stat(name)) !== undefined;
  }

  async size(name: string): Promise<number | undefined> {
    const known = await this.#stat(name);
    return known?.isFile() ? known.size : undefined;
  }

  async read(name: string, range?: ByteRange): Promise<Uint8Array | undefined> {
    const { signal } = this.options;
    signal?.throwIfAborted();
    if (!(await this.#stat(name))) return undefined;
    return withFile(
      this.nameOf(name),
      (file) => file.read(range?.offset ?? 0, range?.length ?? file.sizeBytes),
      signal,
    );
  }

  async list(folder = ""): Promise<string[] | undefined> {
    try {
      return (await readdir(this.nameOf(folder))).sort();
    } catch (cause) {
      if (isMissing(cause)) return undefined;
      throw new FormatError(this.nameOf(folder), `cannot be listed: ${(cause as Error).message}.`, { cause });
    }
  }

  /** Undefined where there is nothing of that name. */
  #stat(name: string) {
    return stat(this.nameOf(name)).catch((cause: Error) => {
      if (isMissing(cause)) return undefined;
      throw new FormatError(this.nameOf(name), `cannot be read: ${cause.message}.`, { cause });
    });
  }
}

const isMissing = (error: unknown): boolean =>
  ["ENOENT", "ENOTDIR"].includes((error as NodeJS.ErrnoException).code ?? "");
