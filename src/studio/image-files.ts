// Changes data sets: new ones, images that are dropped, captions beside them. Node only.

import { createHash, randomBytes } from "node:crypto";
import { createWriteStream } from "node:fs";
import { access, constants, link, lstat, mkdir, readdir, readFile, rename, stat, unlink } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import { Readable, Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { ReadableStream } from "node:stream/web";
import { FeraError, FormatError, quoted } from "../errors.js";
import { describeSystemError, makeFolder, writeFileAtomically } from "../storage/file-access.js";
import { MAX_CAPTION_BYTES } from "../training/data/caption-metadata.js";
import { stemOf } from "../training/data/folder-conventions.js";
import { CAPTION_EXTENSIONS, walkFolder } from "../training/data/folder-walk.js";
import { describeImage } from "../training/data/image-pixels.js";
import { pathInside } from "./chosen-folders.js";
import { type DataSets, summaryOf } from "./data-sets.js";
import { nameProblem } from "./file-names.js";
import type { AddedFiles, DataSetSummary } from "./protocol.js";
import { StudioError } from "./studio-error.js";

/** Most bytes of an image: more than any photo has. */
const IMAGE_BYTES = 2 ** 27;
const IMAGE_ENDINGS: readonly string[] = ".png .apng .jpg .jpeg .jpe .jfif .webp .gif .tif .tiff .avif .svg".split(" ");
/** Where removed images go, in their data set: hidden files are no data. */
const REMOVED = ".removed";

/** Settings of {@link ImageFiles}. */
export interface ImageFilesOptions {
  dataSets: DataSets;
  /** Where new data sets are made. */
  newSets: string;
  onChange(): void;
}

/** Writes into data sets. */
export class ImageFiles {
  constructor(private readonly options: ImageFilesOptions) {}

  async create(label: string): Promise<DataSetSummary> {
    const name = label.trim();
    const problem = nameProblem(name);
    if (problem !== undefined) throw new StudioError(400, `A data set cannot be called ${quoted(label)}: ${problem}.`);
    const { newSets, onChange } = this.options;
    await makeFolder(newSets);
    const folder = join(newSets, name);
    await mkdir(folder).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code !== "EEXIST") throw cause;
      throw new StudioError(409, `There is already a data set ${quoted(name)}. Choose another name.`, { cause });
    });
    onChange();
    return summaryOf(folder);
  }

  /**
   * Adds a file: an image, or the caption of one as NAME.txt. What cannot be used is refused with the reason, and does not
   * stay.
   */
  async add(id: string, name: string, content: globalThis.ReadableStream<Uint8Array> | null): Promise<AddedFiles> {
    const folder = await this.writable(id);
    try {
      const added = await this.addFile(folder, name, content);
      this.options.onChange();
      return { added: [added], refused: [] };
    } catch (error) {
      const reason = reasonOf(error);
      if (reason === undefined) throw error;
      return { added: [], refused: [{ name, reason }] };
    }
  }

  private async addFile(
    folder: string,
    name: string,
    content: globalThis.ReadableStream<Uint8Array> | null,
  ): Promise<string> {
    const problem = nameProblem(name);
    if (problem !== undefined) throw new StudioError(400, `Its name cannot be used: ${problem}.`);
    const ending = extname(name).toLowerCase();
    const isCaption = CAPTION_EXTENSIONS.includes(ending);
    if (!isCaption && !IMAGE_ENDINGS.includes(ending)) {
      throw new StudioError(400, `It is no image that is read. Use PNG, JPEG, WebP, TIFF, GIF, AVIF or SVG.`);
    }
    const temporary = join(folder, `.${randomBytes(8).toString("hex")}.tmp`);
    try {
      const hash = await receive(content, temporary, isCaption ? MAX_CAPTION_BYTES : IMAGE_BYTES);
      if (isCaption) checkText(await readFile(temporary));
      else await describeImage(await readFile(temporary), name);
      return await placeIn(folder, name, temporary, hash);
    } finally {
      await unlink(temporary).catch(() => undefined);
    }
  }

  /** Writes NAME.txt. @throws {StudioError} If the image's caption comes from elsewhere. */
  async setCaption(id: string, image: string, caption: string): Promise<void> {
    const folder = await this.writable(id);
    const bytes = new TextEncoder().encode(caption === "" ? "" : `${caption}\n`);
    if (bytes.length > MAX_CAPTION_BYTES) {
      throw new StudioError(413, `A caption may have ${MAX_CAPTION_BYTES} bytes; got ${bytes.length}. Shorten it.`);
    }
    await pathInside(folder, image);
    const contents = await walkFolder(folder);
    if (!contents.images.includes(image)) throw new StudioError(404, `${quoted(image)} is no image of this data set.`);
    if (contents.metadata.length > 0 && !(await this.options.dataSets.isEditable(id, image))) {
      const list = basename(contents.metadata[0]!);
      throw new StudioError(409, `The caption of ${quoted(image)} comes from ${list}. Change it there.`);
    }
    const known = contents.captionFiles.get(stemOf(image))?.find((file) => extname(file).toLowerCase() === ".txt");
    const target = known ?? `${stemOf(image)}.txt`;
    const path = join(folder, target);
    // What is there may be a link that leads out of the folder, and would be followed.
    if (await lstat(path).catch(() => undefined)) await pathInside(folder, target);
    await writeFileAtomically(path, [bytes]);
    this.options.onChange();
  }

  /** Takes an image with its caption out of a data set: both stay in its hidden folder `.removed`. */
  async remove(id: string, image: string): Promise<void> {
    const folder = await this.writable(id);
    await pathInside(folder, image);
    const { images, captionFiles } = await walkFolder(folder);
    if (!images.includes(image)) throw new StudioError(404, `${quoted(image)} is no image of this data set.`);
    const hasTwin = images.some((other) => other !== image && stemOf(other) === stemOf(image));
    const files = [image, ...(hasTwin ? [] : (captionFiles.get(stemOf(image)) ?? []))];
    const place = join(folder, REMOVED, `${Date.now()}-${randomBytes(2).toString("hex")}`);
    for (const file of files) {
      await makeFolder(dirname(join(place, file)));
      await rename(join(folder, file), join(place, file));
    }
    this.options.onChange();
  }

  /** @throws {StudioError} If the data set is no folder of images that can be written. */
  private async writable(id: string): Promise<string> {
    const folder = await this.options.dataSets.check(id);
    const known = await stat(folder).catch(() => undefined);
    if (known?.isDirectory() && (await isWritable(folder))) return folder;
    throw new StudioError(409, `${quoted(id)} is no folder of images that the studio may write to.`);
  }
}

/** Why a file is refused, beside its name; undefined for an error of our own. */
function reasonOf(error: unknown): string | undefined {
  if (error instanceof FormatError) return `It ${error.reason}`;
  return error instanceof FeraError ? error.message : describeSystemError(error);
}

/** As its summary says; a folder with an image in it, to which thousands may be added, is not read to its end for each. */
async function isWritable(folder: string): Promise<boolean> {
  const hasImage = (await readdir(folder)).some((name) => IMAGE_ENDINGS.includes(extname(name).toLowerCase()));
  if (!hasImage) return (await summaryOf(folder)).isWritable;
  return access(folder, constants.W_OK).then(
    () => true,
    () => false,
  );
}

/** Streams to disk. @returns The hash of what came. @throws {StudioError} If it is more than `limit` bytes. */
async function receive(
  content: globalThis.ReadableStream<Uint8Array> | null,
  path: string,
  limit: number,
): Promise<string> {
  if (!content) throw new StudioError(400, "It is empty.");
  const hash = createHash("sha256");
  let received = 0;
  const counted = new Transform({
    transform(chunk: Uint8Array, _encoding, done) {
      received += chunk.length;
      hash.update(chunk);
      if (received > limit) done(new StudioError(413, `It has more than ${limit} bytes, the most that is taken.`));
      else done(undefined, chunk);
    },
  });
  await pipeline(Readable.fromWeb(content as ReadableStream), counted, createWriteStream(path, { flags: "wx" }));
  if (received === 0) throw new StudioError(400, "It is empty.");
  return hash.digest("hex");
}

function checkText(bytes: Uint8Array): void {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new StudioError(400, "It is no text in UTF-8.", { cause });
  }
}

/** Gives a file its name, or one with a number where another file has it. @returns The name. */
async function placeIn(folder: string, name: string, temporary: string, hash: string): Promise<string> {
  const ending = extname(name);
  const stem = name.slice(0, name.length - ending.length);
  for (let number = 1; ; number++) {
    const candidate = number === 1 ? name : `${stem}-${number}${ending}`;
    // Of two systems one takes A.png and a.png for the same.
    const taken = (await readdir(folder)).find((other) => other.toLowerCase() === candidate.toLowerCase());
    if (taken === undefined) {
      try {
        await link(temporary, join(folder, candidate));
        return candidate;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      }
    } else {
      const same = await readFile(join(folder, taken)).catch(() => undefined);
      if (same && createHash("sha256").update(same).digest("hex") === hash) {
        throw new StudioError(409, `It is there already, as ${quoted(taken)}.`);
      }
      // A caption belongs to the image of its name.
      if (CAPTION_EXTENSIONS.includes(ending.toLowerCase())) {
        throw new StudioError(409, `There is another file ${quoted(taken)}, which was left alone.`);
      }
    }
  }
}
