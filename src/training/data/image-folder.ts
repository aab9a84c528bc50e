// Images and captions from a folder, as kohya's scripts and Hugging Face's imagefolder lay them out. Node only.

import { type Dirent, readdirSync, statSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { ConfigError, FormatError, ShapeError } from "../../errors.js";
import { readImage, readImageSize } from "../../images/image-file.js";
import { centreCrop, type ImagePlacement } from "./image-placement.js";

const READ = new Set([".png", ".jpg", ".jpeg", ".webp", ".svg"]);
const NOT_READ = new Set([".avif", ".bmp", ".gif", ".heic", ".heif", ".jxl", ".tif", ".tiff"]);
const PARALLEL_CHECKS = 2;

/** An image of the folder. */
export interface FolderImage {
  /** Relative to the folder, with forward slashes. */
  path: string;
  caption: string;
}

/** A folder of images. */
export interface ImageFolder {
  readonly images: readonly FolderImage[];
  /** What looked like training data and cannot be used, with the reason. */
  readonly skipped: readonly { path: string; reason: string }[];
  /**
   * Reads one image: centre crop, scaled to S×S.
   *
   * @returns `[3, S, S]` in [-1, 1].
   * @throws {FormatError} If the file has been removed or damaged since the folder was opened.
   */
  load(index: number): Promise<Float32Array>;
  /** How an image came to S×S. Throws as `load`. */
  placement(index: number): Promise<ImagePlacement>;
}

/**
 * Opens a folder of training images, subfolders included, and reads every image once to know that it can be read.
 *
 * The caption of `a/cat.png` is, in this order: the text of `a/cat.txt`; the `text` of the line of `a/metadata.jsonl`
 * whose `file_name` is `cat.png` (of a folder further up: its path from there); the file name with spaces for "-" and "_". Hidden files are left alone.
 *
 * @param options - `size` S, in pixels.
 * @throws {FormatError} If the folder is missing, holds no usable image, or a `metadata.jsonl` is malformed.
 * @throws {ConfigError} If `size` is no positive integer.
 */
export async function openImageFolder(dir: string, { size }: { size: number }): Promise<ImageFolder> {
  if (!Number.isInteger(size) || size < 1) {
    throw new ConfigError(`image folder: size must be a positive integer; got ${size}.`);
  }
  const found = await walk(dir);
  const skipped = found.skipped;
  const reasons = new Array<string | undefined>(found.images.length);
  let next = 0;
  async function checkRemaining(): Promise<void> {
    while (next < found.images.length) {
      const index = next++;
      const file = path.join(dir, found.images[index]!.path);
      await readImage(file, { size }).catch((error: Error) => {
        reasons[index] = error.message.replace(`${file}: `, "");
      });
    }
  }
  await Promise.all(Array.from({ length: PARALLEL_CHECKS }, checkRemaining));

  const images = found.images.filter((image, index) => {
    const reason = reasons[index];
    if (reason !== undefined) skipped.push({ path: image.path, reason });
    return reason === undefined;
  });
  if (images.length === 0) {
    const first = skipped[0];
    const why = first ? `${skipped.length} skipped, first ${first.path}: ${first.reason}` : "there are none";
    throw new FormatError(dir, `holds no image that can be used (${why}). Put PNG, JPEG, WebP or SVG files there.`);
  }
  const fileOf = (index: number): string => {
    const image = images[index];
    if (!image) throw new ShapeError(`image folder: index ${index} is outside the ${images.length} images.`);
    return path.join(dir, image.path);
  };
  return {
    images,
    skipped,
    load: async (index) => (await readImage(fileOf(index), { size })).data,
    placement: async (index) => centreCrop(await readImageSize(fileOf(index)), size),
  };
}

interface Found {
  images: FolderImage[];
  skipped: { path: string; reason: string }[];
}

async function walk(root: string): Promise<Found> {
  const found: Found = { images: [], skipped: [] };
  const ownCaptions = new Map<string, string>();
  const listed = new Map<string, string>();
  async function visit(folder: string): Promise<void> {
    const entries = list(root, folder).filter((entry) => !entry.name.startsWith("."));
    const files = new Set(entries.filter((entry) => isFile(path.join(root, folder), entry)).map((entry) => entry.name));
    if (files.has("metadata.jsonl")) await readMetadata(root, folder, listed);
    for (const name of files) {
      const relative = path.posix.join(folder, name);
      const extension = path.extname(name).toLowerCase();
      if (READ.has(extension)) {
        const text = `${path.parse(name).name}.txt`;
        if (files.has(text)) ownCaptions.set(relative, (await readText(path.join(root, folder, text))).trim());
        found.images.push({ path: relative, caption: captionOfFile(name) });
      } else if (NOT_READ.has(extension)) {
        found.skipped.push({ path: relative, reason: `${extension} files are not read; convert it to PNG` });
      } else if (name === "metadata.csv" || name === "metadata.parquet") {
        found.skipped.push({ path: relative, reason: "only metadata.jsonl is read for captions" });
      }
    }
    for (const entry of entries) if (entry.isDirectory()) await visit(path.posix.join(folder, entry.name));
  }
  await visit("");

  for (const image of found.images) {
    image.caption = ownCaptions.get(image.path) ?? listed.get(image.path) ?? image.caption;
    listed.delete(image.path);
  }
  const named = new Set(found.skipped.map((skipped) => skipped.path));
  for (const file of listed.keys()) {
    if (!named.has(file))
      found.skipped.push({ path: file, reason: "metadata.jsonl names it, but there is no such image" });
  }
  return found;
}

/** The entries of a folder in code-unit order, the same on every file system. */
function list(root: string, folder: string): Dirent[] {
  try {
    const entries = readdirSync(path.join(root, folder), { withFileTypes: true });
    return entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const why = code === "ENOENT" ? "no such folder" : code === "ENOTDIR" ? "is a file, not a folder" : message;
    throw new FormatError(path.join(root, folder), `${why}. Name a folder of images.`, { cause });
  }
}

/** Links to files count, as a hub cache consists of them; links to folders could run in circles and are not followed. */
function isFile(folder: string, entry: Dirent): boolean {
  if (!entry.isSymbolicLink()) return entry.isFile();
  return statSync(path.join(folder, entry.name), { throwIfNoEntry: false })?.isFile() ?? false;
}

/** Adds the captions of a folder's `metadata.jsonl`, by path relative to the root. */
async function readMetadata(root: string, folder: string, captions: Map<string, string>): Promise<void> {
  const file = path.join(root, folder, "metadata.jsonl");
  for (const [index, line] of (await readText(file)).split(/\r?\n/).entries()) {
    if (line.trim() === "") continue;
    let row: { file_name?: unknown; text?: unknown } | null;
    try {
      row = JSON.parse(line);
    } catch (cause) {
      throw new FormatError(file, `line ${index + 1} is not valid JSON: ${(cause as Error).message}`, { cause });
    }
    if (typeof row?.file_name !== "string" || typeof row.text !== "string") {
      throw new FormatError(file, `line ${index + 1} must have a "file_name" and a "text".`);
    }
    captions.set(path.posix.join(folder, row.file_name), row.text.trim());
  }
}

async function readText(file: string): Promise<string> {
  const text = await readFile(file, "utf8").catch((cause: Error) => {
    throw new FormatError(file, `cannot be read: ${cause.message}`, { cause });
  });
  return text.replace(/^\uFEFF/, "");
}

function captionOfFile(name: string): string {
  return path
    .parse(name)
    .name.replace(/[-_\s]+/g, " ")
    .trim();
}
