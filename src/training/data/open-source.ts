// What a name of data stands for: a folder of images, Parquet files, or a data set on the hub. Node only.

import path from "node:path";
import { ConfigError, quoted } from "../../errors.js";
import { pathExists } from "../../storage/file-access.js";
import type { HubOptions } from "../../storage/hub/index.js";
import { fetchDataset, isHubId } from "../../storage/hub/index.js";
import { walkFolder } from "./folder-walk.js";
import { type ImageFolderOptions, openWalkedFolder } from "./image-folder.js";
import { openParquet, type ParquetOptions } from "./parquet-source.js";
import type { OpenedSource } from "./source-image.js";
import { chooseDatasetFiles, trainingSplit } from "./training-split.js";

/** Settings of {@link openSource}. */
export interface OpenSourceOptions extends ImageFolderOptions, ParquetOptions {
  /** For data sets on the hub. */
  hub?: Omit<HubOptions, "signal"> | undefined;
}

/** A place of data, and how often its images come. */
export interface DataSpec {
  location: string;
  repeats: number;
}

const MOST_REPEATS = 100_000;

/**
 * Reads `DIR=3`: the folder DIR, each image three times an epoch. Where there is a folder of that whole name, it is meant.
 *
 * @throws {ConfigError} If the number is none.
 */
export async function parseDataSpec(spec: string): Promise<DataSpec> {
  const [, location, number] = /^(.+)=(\d+)$/.exec(spec) ?? [];
  if (location === undefined || (await pathExists(spec))) return { location: spec, repeats: 1 };
  const repeats = Number(number);
  if (repeats >= 1 && repeats <= MOST_REPEATS) return { location, repeats };
  throw new ConfigError(`dataset: ${quoted(spec)}: repeats must be a whole number from 1 to ${MOST_REPEATS}.`);
}

/**
 * Opens a folder of images (`openImageFolder`); a Parquet file, or a folder that holds such and no images (`openParquet`);
 * or, where there is no such path, a data set on the hub by its id, owner/name, which is fetched into the hub's cache.
 *
 * Of Parquet files, only those of the split `train` are read, where there is one by the files' names.
 *
 * @throws {FormatError} If there is no such place, or it holds nothing that can be used.
 * @throws {HubError} If a data set cannot be had from the hub.
 */
export async function openSource(location: string, options: OpenSourceOptions): Promise<OpenedSource> {
  if (isParquet(location)) return openParquet(path.dirname(location), [path.basename(location)], options);
  let folder = location;
  if (!(await pathExists(location)) && isHubId(location)) {
    folder = await fetchDataset(location, { ...options.hub, signal: options.signal, choose: chooseDatasetFiles });
  }
  const contents = await walkFolder(folder, options);
  if (contents.images.length > 0 || contents.parquet.length === 0) return openWalkedFolder(folder, contents, options);
  const { used, others } = trainingSplit(contents.parquet);
  const { images, skipped } = await openParquet(folder, used, options);
  const unused = others.map((file) => ({ path: file, reason: "is not of the split train" }));
  return { images, skipped: [...contents.skipped, ...contents.refused, ...unused, ...skipped] };
}

const isParquet = (location: string): boolean => location.toLowerCase().endsWith(".parquet");
