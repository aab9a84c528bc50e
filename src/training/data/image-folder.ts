// Images and captions from a folder, as kohya's scripts and Hugging Face's imagefolder lay them out. Node only.

import path from "node:path";
import { FormatError, printable } from "../../errors.js";
import { readImageBytes } from "../../images/image-file.js";
import { type ListedCaption, MAX_CAPTION_BYTES, readCaptionMetadata } from "./caption-metadata.js";
import { type FolderMeaning, meaningOfFolders, stemOf } from "./folder-conventions.js";
import { type FolderContents, type Skipped, type WalkOptions, walkFolder } from "./folder-walk.js";
import type { ImageMemory } from "./image-memory.js";
import { KnownImages } from "./known-images.js";
import type { ImageTraits, OpenedSource, SourceImage, SourceOptions } from "./source-image.js";
import { readTextFile } from "./text-file.js";

/** Most that a mask's proportions may differ from its image's, as a share: a pixel of a small image. */
const MASK_TOLERANCE = 0.02;
const PARALLEL_CHECKS = 2;
/** Most files that a message names. */
const NAMED = 20;

/** Settings of {@link openImageFolder}. */
export interface ImageFolderOptions extends WalkOptions, SourceOptions {
  /** For programs that open the same folder again and again. */
  memory?: ImageMemory | undefined;
}

/**
 * Opens a folder of training images, subfolders included, and reads every image once to know that it can be read.
 *
 * The caption of `a/cat.png` is, in this order: the text of `a/cat.txt` or `a/cat.caption`; the `text` of the line of
 * `a/metadata.jsonl` or `a/metadata.csv` whose `file_name` is `cat.png` (of a folder further up: its path from there);
 * `instancePrompt`, or of a regularization image `regularizationPrompt`; the words of a folder such as `10_sks dog`; the
 * file name with spaces for "-" and "_". What folders say beside: `meaningOfFolders`; what is followed and what is left
 * out: `walkFolder`.
 *
 * @throws {FormatError} If the folder is missing, holds no usable image, or captions or masks that cannot be used: all are
 *   named.
 * @throws {ConfigError} If an option is invalid.
 */
export async function openImageFolder(dir: string, options: ImageFolderOptions = {}): Promise<OpenedSource> {
  return openWalkedFolder(dir, await walkFolder(dir, options), options);
}

/** As {@link openImageFolder}, of a folder that has been walked with the same options. */
export async function openWalkedFolder(
  dir: string,
  contents: FolderContents,
  options: ImageFolderOptions,
): Promise<OpenedSource> {
  const { onProgress, signal, cache, memory } = options;
  const { skipped } = contents;
  const known = await KnownImages.of(dir, cache, memory);
  for (const file of contents.parquet) {
    skipped.push({ path: file, reason: "is not read, because there are images; name it as data by itself" });
  }
  const captions = await readCaptions(dir, contents, options.captionColumn);

  const images: (SourceImage | undefined)[] = new Array(contents.images.length);
  const reasons = new Map<string, string>();
  const refusedMasks: Skipped[] = [];
  let next = 0;
  let done = 0;
  async function checkRemaining(): Promise<void> {
    while (next < contents.images.length) {
      signal?.throwIfAborted();
      const index = next++;
      const image = contents.images[index]!;
      const file = path.join(dir, image);
      try {
        const { traits, hash } = await known.describeFile(file);
        const meaning = meaningOfFolders(image);
        const isRegularization = options.isRegularization || meaning.isRegularization;
        images[index] = {
          path: image,
          file,
          contentHash: hash,
          ...traits,
          ...captionOfImage(image, captions, isRegularization, meaning, options),
          isRegularization,
          repeats: meaning.repeats,
          read: () => readImageBytes(file),
          ...(await maskOf(image, traits)),
        };
      } catch (error) {
        if (!(error instanceof FormatError)) throw error;
        reasons.set(image, reasonIn(error, file));
      }
      onProgress?.(++done, contents.images.length);
    }
  }
  async function maskOf(image: string, { own }: ImageTraits): Promise<Pick<SourceImage, "maskHash" | "readMask">> {
    const mask = contents.masks.get(image);
    if (mask === undefined) return {};
    if (!options.mask) {
      skipped.push({ path: mask, reason: "is a mask; masks count only where they are asked for (mask)" });
      return {};
    }
    const file = path.join(dir, mask);
    try {
      const {
        traits: { own: size },
        hash,
      } = await known.describeFile(file);
      if (Math.abs(size.width / size.height / (own.width / own.height) - 1) > MASK_TOLERANCE) {
        const sizes = `has ${size.width}×${size.height} pixels, and its image ${own.width}×${own.height}`;
        throw new FormatError(file, `${sizes}: other proportions.`);
      }
      return { maskHash: hash, readMask: () => readImageBytes(file) };
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      refusedMasks.push({ path: mask, reason: reasonIn(error, file) });
      return {};
    }
  }
  await Promise.all(Array.from({ length: PARALLEL_CHECKS }, checkRemaining));
  refuseAll(dir, refusedMasks, "mask", "masks");
  await known.keep();

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
  return { images: usable, skipped };
}

const reasonIn = (error: FormatError, file: string): string => error.message.replace(`${printable(file)}: `, "");

/** @throws {FormatError} That names what cannot be used, if anything. */
function refuseAll(dir: string, refused: readonly Skipped[], one: string, many: string): void {
  if (refused.length === 0) return;
  const named = refused.slice(0, NAMED).map(({ path, reason }) => `${printable(path)} ${reason}`);
  if (refused.length > NAMED) named.push(`… and ${refused.length - NAMED} more`);
  const what = refused.length === 1 ? `one ${one}` : `${refused.length} ${many}`;
  throw new FormatError(dir, `${what} cannot be used:\n  ${named.join("\n  ")}\nMend or remove what is named.`);
}

interface Captions {
  /** By the image's path without its ending. */
  own: Map<string, string>;
  /** By the image's path. */
  listed: Map<string, ListedCaption>;
}

/** Reads all captions, and adds to `skipped` what of them is not used. */
async function readCaptions(dir: string, contents: FolderContents, column: string | undefined): Promise<Captions> {
  const { skipped, refused } = contents;
  const own = new Map<string, string>();
  for (const [stem, [file]] of contents.captionFiles) {
    try {
      own.set(stem, (await readTextFile(path.join(dir, file!), MAX_CAPTION_BYTES)).trim());
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      refused.push({ path: file!, reason: reasonIn(error, path.join(dir, file!)) });
    }
  }
  refuseAll(dir, refused, "file of captions", "files of captions");

  const listed = new Map<string, ListedCaption>();
  for (const file of contents.metadata) {
    const captions = await readCaptionMetadata(dir, file, column, (image, before, now) => {
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
    } else if ((own.get(stemOf(image)) ?? text) !== text) {
      const reason = `line ${line} is not used: ${printable(image)} has a caption file that says something else`;
      skipped.push({ path: file, reason });
    }
  }
  return { own, listed };
}

function captionOfImage(
  image: string,
  { own, listed }: Captions,
  isRegularization: boolean,
  { words }: FolderMeaning,
  { instancePrompt, regularizationPrompt }: SourceOptions,
): Pick<SourceImage, "caption" | "captionSource"> {
  const text = own.get(stemOf(image));
  if (text !== undefined) return { caption: text, captionSource: "textFile" };
  const line = listed.get(image);
  if (line) return { caption: line.text, captionSource: "metadata" };
  const prompt = isRegularization ? regularizationPrompt : instancePrompt;
  const captionSource = isRegularization ? "regularizationPrompt" : "instancePrompt";
  if (prompt !== undefined) return { caption: prompt, captionSource };
  if (words !== undefined) return { caption: words, captionSource: "folderName" };
  return { caption: captionOfFile(image), captionSource: "fileName" };
}

/** The file name as words. */
export function captionOfFile(file: string): string {
  return path.posix
    .parse(file)
    .name.replace(/[-_\s]+/g, " ")
    .trim();
}
