// One Parquet file of images and captions, as the hub serves data sets: read by row groups, never as a whole. Node only.

import type { AsyncBuffer, FileMetaData, SchemaTree } from "hyparquet";
import { FormatError, quoted } from "../../errors.js";
import { withFile } from "../../storage/file-access.js";
import { isObject } from "../../storage/json.js";

/** Which columns hold what. */
export interface ParquetColumns {
  /** Bytes of image files, or of a struct of them with their names, as `datasets.Image` is kept. */
  imageColumn?: string | undefined;
  captionColumn?: string | undefined;
}

/** One row. */
export interface ParquetRow {
  /** Bytes of an image file; undefined where there are none. */
  bytes?: Uint8Array;
  /** The image's name, where the file keeps it. */
  name?: string;
  /** Undefined where there is no caption column, or nothing in it. */
  caption?: string;
}

const IMAGE_NAMES = ["image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo"];
const CAPTION_NAMES = ["text", "caption", "prompt", "description", "txt", "captions", "label"];

/** Larger row groups cannot be held as one array, and should not be held at all. */
const MAX_GROUP_BYTES = 2 ** 31 - 1;

/** A Parquet file whose columns are known. */
export class ParquetFile {
  private constructor(
    readonly path: string,
    readonly imageColumn: string,
    /** Undefined where no column is named as captions are. */
    readonly captionColumn: string | undefined,
    private readonly buffer: AsyncBuffer,
    private readonly metadata: FileMetaData,
    /** First row of each group, and one past the last. */
    readonly starts: readonly number[],
  ) {}

  /** @throws {FormatError} If it is damaged, or has no such columns; it says which there are. */
  static async open(path: string, columns: ParquetColumns): Promise<ParquetFile> {
    const { parquetMetadataAsync, parquetSchema } = await import("hyparquet");
    const byteLength = await withFile(path, async ({ sizeBytes }) => sizeBytes);
    const buffer: AsyncBuffer = {
      byteLength,
      slice: (start, end = byteLength) =>
        withFile(path, async ({ read }) => {
          const bytes = await read(start, end - start);
          return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;
        }),
    };
    const metadata = await damaged(path, () => parquetMetadataAsync(buffer));
    const starts = [0];
    for (const { num_rows, columns } of metadata.row_groups) {
      const size = columns.reduce((sum, { meta_data }) => sum + Number(meta_data?.total_uncompressed_size ?? 0), 0);
      if (!(size <= MAX_GROUP_BYTES)) {
        throw new FormatError(
          path,
          `a row group has ${size} bytes; at most ${MAX_GROUP_BYTES} are read. Write it with smaller row groups.`,
        );
      }
      starts.push(starts.at(-1)! + Number(num_rows));
    }
    const { children } = parquetSchema(metadata);
    const image = imageColumnOf(path, children, metadata, columns.imageColumn);
    const caption = captionColumnOf(path, children, columns.captionColumn);
    return new ParquetFile(path, image, caption, buffer, metadata, starts);
  }

  get groups(): number {
    return this.starts.length - 1;
  }

  get rows(): number {
    return this.starts.at(-1)!;
  }

  /** All rows of a group. @throws {FormatError} If they are damaged, or the columns hold something else. */
  async readGroup(group: number, { captions = true } = {}): Promise<ParquetRow[]> {
    const { parquetReadObjects } = await import("hyparquet");
    const { compressors } = await import("hyparquet-compressors");
    const { path, imageColumn, captionColumn, buffer, metadata, starts } = this;
    const columns = captions && captionColumn !== undefined ? [imageColumn, captionColumn] : [imageColumn];
    const [rowStart, rowEnd] = [starts[group]!, starts[group + 1]!];
    const rows = await damaged(path, () =>
      parquetReadObjects({ file: buffer, metadata, columns, rowStart, rowEnd, compressors, utf8: false }),
    );
    if (rows.length !== rowEnd - rowStart) {
      throw new FormatError(path, `row group ${group} has ${rows.length} rows; ${rowEnd - rowStart} are announced.`);
    }
    return rows.map((row, i) => ({
      ...this.imageOf(row[imageColumn], rowStart + i),
      ...(columns.length > 1 && this.captionIn(row[captionColumn!], rowStart + i)),
    }));
  }

  private imageOf(value: unknown, row: number): Pick<ParquetRow, "bytes" | "name"> {
    if (value instanceof Uint8Array) return { bytes: value };
    if (value === null || value === undefined) return {};
    if (!isObject(value)) {
      throw new FormatError(this.path, `row ${row}: ${quoted(this.imageColumn)} holds no bytes of an image.`);
    }
    const { bytes, path } = value;
    return {
      ...(bytes instanceof Uint8Array && { bytes }),
      ...(typeof path === "string" && path !== "" && { name: path }),
    };
  }

  private captionIn(value: unknown, row: number): Pick<ParquetRow, "caption"> {
    if (value === null || value === undefined) return {};
    if (typeof value === "string") return { caption: value };
    const what = Array.isArray(value) ? "a list" : typeof value;
    throw new FormatError(
      this.path,
      `row ${row}: the column ${quoted(this.captionColumn)} holds ${what}, no text. Name another with captionColumn.`,
    );
  }
}

function imageColumnOf(
  path: string,
  columns: readonly SchemaTree[],
  { key_value_metadata }: FileMetaData,
  asked: string | undefined,
): string {
  const holdsBytes = ({ element, children }: SchemaTree): boolean =>
    children.length > 0 ? children.some((child) => child.element.name === "bytes") : element.type === "BYTE_ARRAY";
  const names = columns.map(({ element }) => element.name);
  if (asked !== undefined) {
    const column = columns.find(({ element }) => element.name === asked);
    if (column && holdsBytes(column)) return asked;
    throw new FormatError(
      path,
      `imageColumn ${quoted(asked)} ${column ? "holds no bytes" : "is not there"}; its columns are ${names.join(", ")}.`,
    );
  }
  const fromFeatures = imageFeature(key_value_metadata?.find(({ key }) => key === "huggingface")?.value);
  const found =
    columns.find(({ element }) => element.name === fromFeatures) ??
    columns.find(({ children }) => children.some((child) => child.element.name === "bytes")) ??
    columns.find((column) => IMAGE_NAMES.includes(column.element.name.toLowerCase()) && holdsBytes(column));
  if (found) return found.element.name;
  throw new FormatError(
    path,
    `has no column of images that is known; its columns are ${names.join(", ")}. Name it: imageColumn.`,
  );
}

/** The first feature of the type Image in what the `datasets` library writes beside the rows. */
function imageFeature(json: string | undefined): string | undefined {
  try {
    const value: unknown = JSON.parse(json ?? "");
    const info = isObject(value) ? value.info : undefined;
    const features = isObject(info) ? info.features : undefined;
    if (!isObject(features)) return undefined;
    return Object.entries(features).find(([, feature]) => isObject(feature) && feature._type === "Image")?.[0];
  } catch {
    return undefined;
  }
}

function captionColumnOf(path: string, columns: readonly SchemaTree[], asked: string | undefined): string | undefined {
  const names = columns.map(({ element }) => element.name);
  if (asked !== undefined) {
    if (names.includes(asked)) return asked;
    throw new FormatError(path, `captionColumn ${quoted(asked)} is not there; its columns are ${names.join(", ")}.`);
  }
  const texts = columns.filter(
    ({ element, children }) =>
      children.length === 0 && (element.logical_type?.type === "STRING" || element.converted_type === "UTF8"),
  );
  for (const name of CAPTION_NAMES) {
    const found = texts.find(({ element }) => element.name.toLowerCase() === name);
    if (found) return found.element.name;
  }
  return undefined;
}

async function damaged<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof FormatError) throw cause;
    throw new FormatError(path, `is no readable Parquet file: ${(cause as Error).message}.`, { cause });
  }
}
