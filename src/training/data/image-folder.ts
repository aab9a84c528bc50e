// Images and captions from a folder, as kohya's scripts and Hugging Face's imagefolder lay them out. Node only.

import { createHash } from "node:crypto";
import path from "node:path";
import { ConfigError, FormatError, printable, quoted, ShapeError } from "../../errors.js";
import { decodeImage, readImage, readImageBytes, readImageSize } from "../../images/image-file.js";
import { type ListedCaption, MAX_CAPTION_BYTES, readCaptionMetadata } from "./caption-metadata.js";
import { type FolderContents, type Skipped, type WalkOptions, walkFolder, withoutExtension } from "./folder-walk.js";
import { centreCrop, type ImagePlacement } from "./image-placement.js";
import { readTextFile } from "./text-file.js";

const PARALLEL_CHECKS = 2;
/** Most files that a message names. */
const NAMED = 20;

/** Where an image's caption comes from. */
export type FolderCaptionSource = "textFile" | "metadata" | "instancePrompt" | "fileName";

/** An image of the folder. */
export interface FolderImage {
  /** Relative to the folder, with forward slashes. */
  path: string;
  caption: string;
  captionSource: FolderCaptionSource;
  /** SHA-256 of the file, in hex. */
  contentHash: string;
}

/** A folder of images. */
export interface ImageFolder {
  readonly images: readonly FolderImage[];
  /** What lies in the folder and is not used, with the reason. */
  readonly skipped: readonly Skipped[];
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

/** Settings of {@link openImageFolder}. */
export interface ImageFolderOptions extends WalkOptions {
  /** Side S of the images, in pixels. */
  size: number;
  /** Caption of images that have none of their own; by default their file name. */
  instancePrompt?: string | undefined;
  /** Called after each image that was read. */
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

/**
 * Opens a folder of training images, subfolders included, and reads every image once to know that it can be read.
 *
 * The caption of `a/cat.png` is, in this order: the text of `a/cat.txt` or `a/cat.caption`; the `text` of the line of
 * `a/metadata.jsonl` or `a/metadata.csv` whose `file_name` is `cat.png` (of a folder further up: its path from there);
 * `instancePrompt`; the file name with spaces for "-" and "_". What is followed and what is left out: `walkFolder`.
 *
 * @throws {FormatError} If the folder is missing, holds no usable image, or captions that cannot be used: all are named.
 * @throws {ConfigError} If an option is invalid.
 */
export async function openImageFolder(dir: string, options: ImageFolderOptions): Promise<ImageFolder> {
  const { size, captionExtension, instancePrompt, onProgress, signal } = options;
  if (!Number.isInteger(size) || size < 1) {
    throw new ConfigError(`image folder: size must be a positive integer; got ${size}.`);
  }
  if (captionExtension !== undefined && !/^\.[^./\\]+$/.test(captionExtension)) {
    throw new ConfigError(
      `image folder: captionExtension must be an ending such as .txt; got ${quoted(captionExtension)}.`,
    );
  }
  const contents = await walkFolder(dir, options);
  const { skipped } = contents;
  const captions = await readCaptions(dir, contents);

  const images: (FolderImage | undefined)[] = new Array(contents.images.length);
  const reasons = new Map<string, string>();
  let next = 0;
  let done = 0;
  async function checkRemaining(): Promise<void> {
    while (next < contents.images.length) {
      signal?.throwIfAborted();
      const index = next++;
      const image = contents.images[index]!;
      const file = path.join(dir, image);
      try {
        const bytes = await readImageBytes(file);
        await decodeImage(bytes, file, { size });
        const contentHash = createHash("sha256").update(bytes).digest("hex");
        images[index] = { path: image, contentHash, ...captionOfImage(image, captions, instancePrompt) };
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
        reasons.set(image, error.message.replace(`${printable(file)}: `, ""));
      }
      onProgress?.(++done, contents.images.length);
    }
  }
  await Promise.all(Array.from({ length: PARALLEL_CHECKS }, checkRemaining));

  const usable = images.filter((image) => image !== undefined);
  for (const image of contents.images) {
    const reason = reasons.get(image);
    if (reason !== undefined) skipped.push({ path: image, reason });
  }
  if (usable.length === 0) {
    const first = skipped[0];
    const why = first ? `${skipped.length} skipped, first ${printable(first.path)}: ${first.reason}` : "there are none";
    throw new FormatError(dir, `holds no image that can be used (${why}). Put PNG, JPEG, WebP or SVG files there.`);
  }
  const fileOf = (index: number): string => {
    const image = usable[index];
    if (!image) throw new ShapeError(`image folder: index ${index} is outside the ${usable.length} images.`);
    return path.join(dir, image.path);
  };
  return {
    images: usable,
    skipped,
    load: async (index) => (await readImage(fileOf(index), { size })).data,
    placement: async (index) => centreCrop(await readImageSize(fileOf(index)), size),
  };
}

interface Captions {
  /** By the image's path without its ending. */
  own: Map<string, string>;
  /** By the image's path. */
  listed: Map<string, ListedCaption>;
}

/** Reads all captions, and adds to `skipped` what of them is not used. */
async function readCaptions(dir: string, contents: FolderContents): Promise<Captions> {
  const { skipped, refused } = contents;
  const own = new Map<string, string>();
  for (const [stem, [file]] of contents.captionFiles) {
    try {
      own.set(stem, (await readTextFile(path.join(dir, file!), MAX_CAPTION_BYTES)).trim());
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      refused.push({ path: file!, reason: error.message.replace(`${printable(path.join(dir, file!))}: `, "") });
    }
  }
  if (refused.length > 0) {
    const named = refused.slice(0, NAMED).map(({ path, reason }) => `${printable(path)} ${reason}`);
    if (refused.length > NAMED) named.push(`… and ${refused.length - NAMED} more`);
    const what = refused.length === 1 ? "one file of captions" : `${refused.length} files of captions`;
    throw new FormatError(dir, `${what} cannot be used:\n  ${named.join("\n  ")}\nMend or remove what is named.`);
  }

  const listed = new Map<string, ListedCaption>();
  for (const file of contents.metadata) {
    const captions = await readCaptionMetadata(dir, file, (image, before, now) => {
      const reason = `line ${before.line} is not used: line ${now.line} names ${printable(image)} again`;
      skipped.push({ path: file, reason });
    });
    // A folder's own list comes after those further up.
    for (const [image, caption] of captions) {
      const before = listed.get(image);
      if (before) skipped.push({ path: before.file, reason: `line ${before.line} is not used: ${file} names it, too` });
      listed.set(image, caption);
    }
  }
  const images = new Set(contents.images);
  const named = new Set(skipped.map((one) => one.path));
  for (const [image, { file, line, text }] of listed) {
    const base = path.posix.basename(file);
    if (!images.has(image)) {
      if (!named.has(image)) skipped.push({ path: image, reason: `${base} names it, but there is no such image` });
    } else if ((own.get(withoutExtension(image)) ?? text) !== text) {
      const reason = `line ${line} is not used: ${printable(image)} has a caption file that says something else`;
      skipped.push({ path: file, reason });
    }
  }
  return { own, listed };
}

function captionOfImage(
  image: string,
  { own, listed }: Captions,
  instancePrompt: string | undefined,
): Pick<FolderImage, "caption" | "captionSource"> {
  const text = own.get(withoutExtension(image));
  if (text !== undefined) return { caption: text, captionSource: "textFile" };
  const line = listed.get(image);
  if (line) return { caption: line.text, captionSource: "metadata" };
  if (instancePrompt !== undefined) return { caption: instancePrompt, captionSource: "instancePrompt" };
  return { caption: captionOfFile(image), captionSource: "fileName" };
}

function captionOfFile(file: string): string {
  return path.posix
    .parse(file)
    .name.replace(/[-_\s]+/g, " ")
    .trim();
}
