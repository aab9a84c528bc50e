// What lies in a data folder: images, captions, lists of captions, and what is neither. Reads no file's content.

import type { Dirent } from "node:fs";
import { readdir, realpath, stat } from "node:fs/promises";
import path from "node:path";
import { ConfigError, FormatError, quoted } from "../../errors.js";
import { reasonOf } from "../../storage/file-access.js";
import { METADATA_FILES } from "./caption-metadata.js";
import { sortMasks, stemOf } from "./folder-conventions.js";

const READ = new Set(".png .apng .jpg .jpeg .jpe .jfif .webp .gif .tif .tiff .avif .svg".split(" "));
const NOT_READ = new Set(
  ".bmp .cr2 .dng .exr .heic .heif .ico .jp2 .jxl .nef .pbm .pgm .ppm .psd .raw .tga".split(" "),
);
const PARQUET = ".parquet";
/** Endings of caption files; of two beside one image the first is read. */
export const CAPTION_EXTENSIONS: readonly string[] = [".txt", ".caption"];
/** What folders hold beside their images, and nobody takes for training data. */
const NO_DATA = /^(?:readme|licen[cs]e|copying|notice|attribution)(?:\.[^.]*)?$|^thumbs\.db$|^desktop\.ini$|\.md$/i;
/** What kohya's GUI makes beside the folder `img`: adapters with samples, and logs. */
const BESIDE_IMG = ["model", "log"];
/** Of a training's output folder. */
const METRICS = "metrics.jsonl";

/** Something in the folder that is not used, and why. */
export interface Skipped {
  /** Relative to the folder, with forward slashes. */
  path: string;
  reason: string;
}

/** A folder's content; all paths are relative to it, with forward slashes, in a fixed order. */
export interface FolderContents {
  images: string[];
  /** Masks by the image's path. */
  masks: Map<string, string>;
  /** Tables. */
  parquet: string[];
  /** Caption files of an image, by its path without ending, in the order of preference. */
  captionFiles: Map<string, string[]>;
  /** Lists of captions: of each folder the first of `METADATA_FILES` that it has. */
  metadata: string[];
  skipped: Skipped[];
  /** Caption files and lists that cannot be used. They decide what is learned, so the folder is refused. */
  refused: Skipped[];
}

/** Settings of {@link walkFolder}. */
export interface WalkOptions {
  /** The one ending of caption files; by default each of `CAPTION_EXTENSIONS`. */
  captionExtension?: string | undefined;
  /** Folders that are left out. */
  exclude?: readonly string[];
  /** Whether links are followed that lead out of the folder. */
  followLinks?: boolean;
}

/**
 * Lists a folder with its subfolders. Hidden files are left alone.
 *
 * Links are followed inside the folder (of a snapshot in a hub's cache: inside that repository's cache). One that leads
 * elsewhere could make a stranger's folder read any file of the user's, so it is not followed unless asked for. A folder
 * that is reached twice is read once. Another training's output (`metrics.jsonl` in it; `model` and `log` beside kohya's
 * `img`) is left out. Masks are told from images by their names: `sortMasks`.
 *
 * @throws {FormatError} If the folder is missing or cannot be listed.
 * @throws {ConfigError} If the folder itself is to be left out.
 */
export async function walkFolder(root: string, options: WalkOptions = {}): Promise<FolderContents> {
  return new Walk(root, options).run();
}

class Walk {
  private readonly found: FolderContents = {
    images: [],
    masks: new Map(),
    parquet: [],
    captionFiles: new Map(),
    metadata: [],
    skipped: [],
    refused: [],
  };
  private readonly captionExtensions: readonly string[];
  /** Real paths of folders that were listed, and where. */
  private readonly visited = new Map<string, string>();
  private readonly linkedFolders: string[] = [];
  private readonly unusableCaptions: Skipped[] = [];
  private trusted: string[] = [];
  private excluded: string[] = [];

  constructor(
    private readonly root: string,
    private readonly options: WalkOptions,
  ) {
    const { captionExtension } = options;
    this.captionExtensions = captionExtension === undefined ? CAPTION_EXTENSIONS : [captionExtension.toLowerCase()];
  }

  async run(): Promise<FolderContents> {
    const { captionExtension } = this.options;
    if (captionExtension !== undefined && !/^\.[^./\\]+$/.test(captionExtension)) {
      throw new ConfigError(
        `dataset: captionExtension must be an ending such as .txt; got ${quoted(captionExtension)}.`,
      );
    }
    const real = await realpath(this.root).catch((cause: NodeJS.ErrnoException) => {
      throw cannotList(this.root, cause);
    });
    this.trusted = await trustedRoots(real);
    const { exclude = [] } = this.options;
    this.excluded = await Promise.all(exclude.map((folder) => realpath(folder).catch(() => path.resolve(folder))));
    if (this.excluded.includes(real)) {
      throw new ConfigError(
        `dataset: "${this.root}" is the data folder and to be left out of it. Write results to another folder.`,
      );
    }
    await this.visit("", real);
    // Last, so that a folder keeps the path at which it really lies.
    for (let next = this.linkedFolders.shift(); next !== undefined; next = this.linkedFolders.shift()) {
      await this.visit(next, await realpath(path.join(this.root, next)));
    }
    const { images, masks, unused } = sortMasks(this.found.images);
    Object.assign(this.found, { images, masks });
    this.found.skipped.push(...unused);
    this.reportLeftOverCaptions();
    return this.found;
  }

  private async visit(folder: string, real: string): Promise<void> {
    const known = this.visited.get(real);
    if (known !== undefined) {
      return this.skip(folder, `is a link to ${known === "" ? "the data folder" : known}, which is read already`);
    }
    if (this.excluded.includes(real)) return this.skip(folder, "is left out: results are written there");
    this.visited.set(real, folder);
    let entries: Dirent[];
    try {
      entries = await readdir(path.join(this.root, folder), { withFileTypes: true });
    } catch (cause) {
      if (folder === "") throw cannotList(this.root, cause as Error);
      return this.skip(folder, `cannot be listed: ${reasonOf(cause as Error)}`);
    }
    // In code-unit order, the same on every file system.
    entries = entries.filter(({ name }) => !name.startsWith(".")).sort((a, b) => (a.name < b.name ? -1 : 1));
    if (folder !== "" && entries.some((entry) => entry.name === METRICS)) {
      return this.skip(folder, `is left out: it is the output of a training (it holds ${METRICS})`);
    }
    const isKohyaProject = entries.some((entry) => entry.name === "img" && entry.isDirectory());
    const folders: string[] = [];
    const lists: string[] = [];
    for (const entry of entries) {
      const relative = path.posix.join(folder, entry.name);
      const kind = await this.kindOf(relative, entry);
      if (kind === "folder" && isKohyaProject && BESIDE_IMG.includes(entry.name)) {
        this.skip(relative, "is left out: beside a folder img it holds a training's results");
      } else if (kind === "folder") folders.push(relative);
      else if (kind === "linked folder") this.linkedFolders.push(relative);
      else if (kind === "file") this.file(relative, lists);
      else this.unusable(relative, kind.reason);
    }
    const [list, ...others] = METADATA_FILES.filter((name) => lists.includes(name));
    if (list !== undefined) this.found.metadata.push(path.posix.join(folder, list));
    for (const name of others) this.skip(path.posix.join(folder, name), `is not read: ${list} beside it is`);
    for (const relative of folders) await this.visit(relative, await realpath(path.join(this.root, relative)));
  }

  private file(relative: string, lists: string[]): void {
    const { dir, base, name } = path.posix.parse(relative);
    const extension = path.extname(base).toLowerCase();
    if (READ.has(extension)) this.found.images.push(relative);
    else if (extension === PARQUET) this.found.parquet.push(relative);
    else if (NOT_READ.has(extension)) this.skip(relative, `${extension} files are not read; convert it to PNG`);
    else if ((METADATA_FILES as readonly string[]).includes(base)) lists.push(base);
    else if (this.captionExtensions.includes(extension)) {
      const stem = path.posix.join(dir, name);
      const beside = [...(this.found.captionFiles.get(stem) ?? []), relative];
      const rank = (file: string) => this.captionExtensions.indexOf(path.extname(file).toLowerCase());
      this.found.captionFiles.set(
        stem,
        beside.sort((a, b) => rank(a) - rank(b)),
      );
    } else if (!NO_DATA.test(base)) this.skip(relative, `${extension || "such"} files are not read`);
  }

  /** What an entry is, with links followed; or why it is nothing that is read. */
  private async kindOf(
    relative: string,
    entry: Dirent,
  ): Promise<"file" | "folder" | "linked folder" | { reason: string }> {
    if (entry.isFile()) return "file";
    if (entry.isDirectory()) return "folder";
    if (!entry.isSymbolicLink()) return { reason: "is neither a file nor a folder" };
    try {
      const real = await realpath(path.join(this.root, relative));
      if (!this.options.followLinks && !this.trusted.some((folder) => isInside(folder, real))) {
        return { reason: "is a link out of the data folder, which is not followed unless asked for (followLinks)" };
      }
      const target = await stat(real);
      if (target.isDirectory()) return "linked folder";
      return target.isFile() ? "file" : { reason: "is a link to what is neither a file nor a folder" };
    } catch (cause) {
      const { code } = cause as NodeJS.ErrnoException;
      if (code === "ENOENT") return { reason: "is a link that leads nowhere" };
      if (code === "ELOOP") return { reason: "is a link that leads in a circle" };
      return { reason: `is a link that cannot be followed: ${reasonOf(cause as Error)}` };
    }
  }

  private unusable(relative: string, reason: string): void {
    const base = path.posix.basename(relative);
    if ((METADATA_FILES as readonly string[]).includes(base)) this.found.refused.push({ path: relative, reason });
    else if (this.captionExtensions.includes(path.extname(base).toLowerCase())) {
      this.unusableCaptions.push({ path: relative, reason });
    } else if (!NO_DATA.test(base)) this.skip(relative, reason);
  }

  private reportLeftOverCaptions(): void {
    const stems = new Set(this.found.images.map(stemOf));
    for (const caption of this.unusableCaptions) {
      if (stems.has(stemOf(caption.path))) this.found.refused.push(caption);
      else if (!NO_DATA.test(path.posix.basename(caption.path))) this.found.skipped.push(caption);
    }
    for (const [stem, [first, ...others]] of this.found.captionFiles) {
      if (!stems.has(stem)) {
        for (const file of [first!, ...others]) {
          if (!NO_DATA.test(path.posix.basename(file)))
            this.skip(file, "is no caption: there is no image of that name");
        }
        this.found.captionFiles.delete(stem);
      } else for (const file of others) this.skip(file, `is not read: ${path.posix.basename(first!)} beside it is`);
    }
  }

  private skip(relative: string, reason: string): void {
    this.found.skipped.push({ path: relative, reason });
  }
}

/** The folder itself; of a snapshot in a hub's cache the cached repository, whose `blobs` its files are links to. */
async function trustedRoots(real: string): Promise<string[]> {
  const repository = real.match(/^(.*)[/\\]snapshots[/\\][^/\\]+(?:[/\\]|$)/)?.[1];
  if (repository === undefined) return [real];
  const blobs = await stat(path.join(repository, "blobs")).catch(() => undefined);
  return blobs?.isDirectory() ? [real, repository] : [real];
}

function isInside(folder: string, file: string): boolean {
  const relative = path.relative(folder, file);
  return relative !== ".." && !relative.startsWith(`..${path.sep}`) && !path.isAbsolute(relative);
}

function cannotList(folder: string, cause: NodeJS.ErrnoException): FormatError {
  const { code } = cause;
  const why = code === "ENOENT" ? "no such folder" : code === "ENOTDIR" ? "is a file, not a folder" : reasonOf(cause);
  return new FormatError(folder, `${why}. Name a folder of images.`, { cause });
}
