// Which files of a data set are for training, by their names as the hub's data sets have them. Pure.

import { FormatError } from "../../errors.js";

const PARQUET = /\.parquet$/i;
/** `train-00000-of-00002.parquet`, `train.parquet`, `data/train/0.parquet`. */
const OF_TRAIN = /(?:^|\/)train(?:ing)?(?:$|[-_./])/i;
const IMAGES_AND_CAPTIONS =
  /\.(?:png|apng|jpe?g|jpe|jfif|webp|gif|tiff?|avif|svg|txt|caption)$|(?:^|\/)metadata\.(?:jsonl|csv)$/i;

/** Parquet files of the split train; all of them where no name says so. */
export function trainingSplit(files: readonly string[]): { used: string[]; others: string[] } {
  const used = files.filter((file) => OF_TRAIN.test(file));
  if (used.length === 0) return { used: [...files], others: [] };
  return { used, others: files.filter((file) => !OF_TRAIN.test(file)) };
}

/**
 * What is fetched of a data set: the Parquet files of its training split, else its images and captions.
 *
 * @param id - Names it in messages.
 * @throws {FormatError} If it has neither.
 */
export function chooseDatasetFiles(id: string, paths: readonly string[]): string[] {
  const tables = paths.filter((path) => PARQUET.test(path));
  if (tables.length > 0) return trainingSplit(tables).used;
  const files = paths.filter((path) => IMAGES_AND_CAPTIONS.test(path));
  if (files.length > 0) return files;
  const few = paths.slice(0, 5).join(", ");
  throw new FormatError(
    id,
    `holds neither Parquet files nor images${few && `, but ${few}`}. Fetch and unpack it first.`,
  );
}
