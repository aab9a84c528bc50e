// Training images out of Parquet files. Node only.

import path from "node:path";
import { ConfigError, FormatError, printable } from "../../errors.js";
import { MAX_CAPTION_BYTES } from "./caption-metadata.js";
import type { Skipped } from "./folder-walk.js";
import { captionOfFile } from "./image-folder.js";
import { KnownImages } from "./known-images.js";
import { type ParquetColumns, ParquetFile, type ParquetRow } from "./parquet-file.js";
import type { OpenedSource, SourceImage, SourceOptions } from "./source-image.js";

/** Row groups are kept until they hold this much together, and one in any case. */
const KEPT_BYTES = 2 ** 28;

/** Settings of {@link openParquet}. */
export interface ParquetOptions extends SourceOptions, ParquetColumns {}

/**
 * Opens Parquet files of images, and reads every image once to know that it can be read.
 *
 * A row's caption is the text of its caption column; where there is none, `instancePrompt`, or of regularization images
 * `regularizationPrompt`; else the image's name. At a time one row group is in memory with its column of images, and
 * later up to 256 MiB of the groups that were read last: pictures are read fastest in the order of their rows.
 *
 * @param root - What paths are relative to in names of images.
 * @param files - Relative to it, with forward slashes.
 * @throws {FormatError} If a file is damaged, has no such columns, or no row holds an image that can be used.
 * @throws {ConfigError} If nothing says what the captions are.
 */
export async function openParquet(
  root: string,
  files: readonly string[],
  options: ParquetOptions,
): Promise<OpenedSource> {
  const { onProgress, signal, isRegularization = false } = options;
  const prompt = isRegularization ? options.regularizationPrompt : options.instancePrompt;
  const promptSource = isRegularization ? "regularizationPrompt" : "instancePrompt";
  const known = await KnownImages.of(path.join(root, files.length === 1 ? files[0]! : ""), options.cache);
  const tables: ParquetFile[] = [];
  for (const file of files) tables.push(await ParquetFile.open(path.join(root, file), options));
  const total = tables.reduce((sum, { rows }) => sum + rows, 0);
  const groups = new GroupCache();
  const images: SourceImage[] = [];
  const skipped: Skipped[] = [];
  let done = 0;
  const namelessRows: string[] = [];
  for (const [index, table] of tables.entries()) {
    for (let group = 0; group < table.groups; group++) {
      signal?.throwIfAborted();
      const start = table.starts[group]!;
      for (const [offset, row] of (await table.readGroup(group)).entries()) {
        signal?.throwIfAborted();
        const name = `${files[index]!}/${start + offset}`;
        const image = await imageOfRow(name, row, () => groups.bytes(table, group, offset, name));
        if (image) images.push(image);
        onProgress?.(++done, total);
      }
    }
  }
  await known.keep();
  if (namelessRows.length > 0) {
    const column = tables[0]!.captionColumn;
    const why = column === undefined ? "no column is named as captions are" : `the column "${column}" is empty there`;
    throw new ConfigError(
      `${printable(path.join(root, files[0]!))}: ${namelessRows.length} rows have no caption, first ${namelessRows[0]!}: ` +
        `${why}. Name it with captionColumn, or give ${promptSource}.`,
    );
  }
  if (images.length === 0) {
    const first = skipped[0];
    const why = first ? `${skipped.length} rows skipped, first ${first.path}: ${first.reason}` : "there are no rows";
    throw new FormatError(root, `holds no image that can be used (${why}).`);
  }
  return { images, skipped };

  async function imageOfRow(
    name: string,
    { bytes, name: own, caption }: ParquetRow,
    read: SourceImage["read"],
  ): Promise<SourceImage | undefined> {
    const file = path.join(root, name);
    if (!bytes) {
      skipped.push({ path: name, reason: own ? `holds no image, only the name ${printable(own)}` : "holds no image" });
      return undefined;
    }
    if (caption !== undefined && caption.length > MAX_CAPTION_BYTES) {
      throw new FormatError(
        file,
        `its caption has ${caption.length} characters; at most ${MAX_CAPTION_BYTES} are read.`,
      );
    }
    try {
      const { traits, hash } = await known.describe(bytes, file);
      const words = own === undefined ? "" : captionOfFile(own);
      if (caption === undefined && prompt === undefined && words === "") namelessRows.push(name);
      return {
        path: name,
        file,
        ...traits,
        contentHash: hash,
        ...(caption !== undefined
          ? { caption: caption.trim(), captionSource: "column" }
          : prompt !== undefined
            ? { caption: prompt, captionSource: promptSource }
            : { caption: words, captionSource: "fileName" }),
        isRegularization,
        repeats: 1,
        read,
      };
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      skipped.push({ path: name, reason: error.message.replace(`${printable(file)}: `, "") });
      return undefined;
    }
  }
}

/** Row groups of images that were read last. */
class GroupCache {
  private readonly groups = new Map<string, Promise<{ rows: ParquetRow[]; bytes: number }>>();

  async bytes(table: ParquetFile, group: number, offset: number, name: string): Promise<Uint8Array> {
    const { bytes } = (await this.read(table, group))[offset] ?? {};
    if (!bytes) throw new FormatError(table.path, `row ${name} no longer holds an image: the file has been changed.`);
    return bytes;
  }

  private async read(table: ParquetFile, group: number): Promise<ParquetRow[]> {
    const key = `${table.path}/${group}`;
    const known = this.groups.get(key);
    const reading =
      known ??
      table.readGroup(group, { captions: false }).then((rows) => ({
        rows,
        bytes: rows.reduce((sum, { bytes }) => sum + (bytes?.length ?? 0), 0),
      }));
    // The newest last.
    this.groups.delete(key);
    this.groups.set(key, reading);
    const { rows } = await reading.catch((error: unknown) => {
      this.groups.delete(key);
      throw error;
    });
    if (!known) await this.evict();
    return rows;
  }

  private async evict(): Promise<void> {
    let total = 0;
    for (const [key, reading] of [...this.groups].reverse()) {
      total += await reading.then(
        ({ bytes }) => bytes,
        () => 0,
      );
      if (total > KEPT_BYTES && key !== [...this.groups.keys()].at(-1)) this.groups.delete(key);
    }
  }
}
