// What of the disk may be read: the folders that were named when the studio was started, and what lies in them. Node only.

import { realpath, stat } from "node:fs/promises";
import { isAbsolute, join, normalize, relative, resolve, sep } from "node:path";
import { quoted } from "../errors.js";
import { StudioError } from "./studio-error.js";

/** Whether a path is a folder or lies in it; both absolute. */
export function isInside(folder: string, path: string): boolean {
  const way = relative(folder, path);
  return way !== ".." && !way.startsWith(`..${sep}`) && !isAbsolute(way);
}

/**
 * The real path of something in a folder.
 *
 * @param folder - Absolute.
 * @param name - Relative to it, with forward slashes.
 * @throws {StudioError} 403 if it leads out of the folder, by its name or by a link, or is hidden; 404 if there is none.
 */
export async function pathInside(folder: string, name: string): Promise<string> {
  const parts = name.split(/[/\\]/);
  const isPlain = name !== "" && !name.includes("\0") && !isAbsolute(name) && !/^[a-z]:/i.test(name);
  if (!isPlain || parts.some((part) => part === "..") || !isInside(folder, join(folder, normalize(name)))) {
    throw new StudioError(403, `${quoted(name)} lies outside the folder; only what is in it can be reached.`);
  }
  if (parts.some((part) => part.startsWith(".") && part !== ".")) {
    throw new StudioError(403, `${quoted(name)} is hidden, and hidden files are not shown.`);
  }
  return realInside(folder, join(folder, name), name);
}

async function realInside(folder: string, path: string, name: string): Promise<string> {
  const [realFolder, real] = await Promise.all([realpath(folder), realpath(path)]).catch((cause: unknown) => {
    throw new StudioError(404, `${quoted(name)}: there is no such file.`, { cause });
  });
  if (isInside(realFolder, real)) return real;
  throw new StudioError(
    403,
    `${quoted(name)} is a link that leads out of the folder; only what lies in it can be reached.`,
  );
}

/** Folders that may be read. */
export class ChosenFolders {
  private readonly folders: readonly string[];

  /** @param folders - Relative ones are taken from where the program was started. */
  constructor(folders: readonly string[]) {
    this.folders = folders.map((folder) => resolve(folder));
  }

  /**
   * The real path of something that was chosen, or lies in what was.
   *
   * @throws {StudioError} 403 if it does not, also behind links; 404 if there is none.
   */
  async check(path: string): Promise<string> {
    const asked = path.includes("\0") ? undefined : resolve(path);
    const owner = asked === undefined ? undefined : this.folders.find((folder) => isInside(folder, asked));
    if (owner === undefined) {
      throw new StudioError(
        403,
        `${quoted(path)} lies outside the folders that the studio was started with. ` +
          "Start it with --data FOLDER (or --runs, --model) to use what is there.",
      );
    }
    return realInside(owner, asked!, path);
  }

  /** As {@link check}, a folder. */
  async checkFolder(path: string): Promise<string> {
    const real = await this.check(path);
    if ((await stat(real)).isDirectory()) return real;
    throw new StudioError(404, `${quoted(path)} is no folder.`);
  }
}
