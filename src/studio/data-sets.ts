// The data sets that can be looked at and trained on: the chosen folders, and the folders in them. Node only.

import { access, constants, readdir } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { quoted } from "../errors.js";
import { encodePng } from "../images/image-file.js";
import { tensor } from "../tensor/tensor.js";
import { walkFolder } from "../training/data/folder-walk.js";
import { ImageMemory } from "../training/data/image-memory.js";
import { placeImage } from "../training/data/image-placement.js";
import { bucketsOf, type ImageDataset, openDataset } from "../training/index.js";
import { Blurs } from "./blurs.js";
import { type ChosenFolders, pathInside } from "./chosen-folders.js";
import { imageWarnings } from "./image-warnings.js";
import type { DataSetImage, DataSetQuery, DataSetSummary, DataSetView } from "./protocol.js";
import { StudioError } from "./studio-error.js";
import { Thumbnails } from "./thumbnails.js";

/** Folders such as kohya's `10_sks dog`, whose images belong together. */
const NUMBERED = /^\d+_/;
const ICONS = "icons:";

/** Captions of an image that NAME.txt would not win over, or that come from a file that is not written. */
const NOT_EDITABLE: readonly string[] = ["metadata", "column", "iconName"];

/** Settings of {@link DataSets}. */
export interface DataSetsOptions {
  /** Places that were chosen: folders, Parquet files, `icons:STYLE`. */
  places: readonly string[];
  /** Where new data sets are made; listed like a chosen one. */
  newSets: string;
  folders: ChosenFolders;
  /** Called where more is known of them than when they were looked at. */
  onChange(): void;
}

/** Looks at data sets; `ImageFiles` changes them. */
export class DataSets {
  private readonly thumbnails = new Thumbnails();
  private readonly blurs: Blurs;
  private readonly opened = new Map<string, ImageDataset>();
  private readonly memory = new ImageMemory();

  constructor(private readonly options: DataSetsOptions) {
    this.blurs = new Blurs(() => options.onChange());
  }

  async list(): Promise<DataSetSummary[]> {
    const { places, newSets } = this.options;
    const all = [...new Set([...places, newSets].map((place) => (place.startsWith(ICONS) ? place : resolve(place))))];
    const found = await Promise.all(all.map((place) => this.listPlace(place, place === resolve(newSets))));
    return found.flat();
  }

  private async listPlace(place: string, isOwn: boolean): Promise<DataSetSummary[]> {
    if (isNoFolder(place)) {
      return [{ id: place, label: basename(place), images: (await this.openOther(place)).size, isWritable: false }];
    }
    const entries = await readdir(place, { withFileTypes: true }).catch(() => undefined);
    if (!entries) return [];
    const inside = entries.filter((entry) => entry.isDirectory() && !entry.name.startsWith("."));
    const nested = await Promise.all(inside.map(({ name }) => summaryOf(join(place, name))));
    const sets = nested.filter(({ images }) => images > 0 || isOwn);
    const whole = await summaryOf(place);
    const below = sets.reduce((sum, { images }) => sum + images, 0);
    const isWhole = whole.images > below || inside.some(({ name }) => NUMBERED.test(name));
    // A chosen folder that is empty is there to be filled.
    const isSet = isWhole || (sets.length === 0 && !(isOwn && this.isUnchosen));
    return isSet ? [whole, ...sets] : sets;
  }

  private get isUnchosen(): boolean {
    return !this.options.places.some((place) => resolve(place) === resolve(this.options.newSets));
  }

  /** What a training would see of one. @throws {StudioError} If it is none that may be read. */
  async view(id: string, query: DataSetQuery): Promise<DataSetView> {
    const place = await this.check(id);
    const summary = isNoFolder(place) ? { label: basename(place), isWritable: false } : await summaryOf(place);
    const { label, isWritable } = summary;
    const dataset =
      isNoFolder(place) || (await walkFolder(place)).images.length > 0 ? await this.open(place, query) : undefined;
    if (!dataset) {
      const { skipped } = await walkFolder(place);
      return { id, label, isWritable, images: [], buckets: [], skipped };
    }
    const warnings = imageWarnings(dataset, await this.blurs.of(place, dataset));
    const buckets = bucketsOf(dataset).map(({ width, height, indices }) => ({ width, height, images: indices.length }));
    const images = Array.from({ length: dataset.size }, (_, index) => ({
      ...imageOf(dataset, index, isWritable),
      warnings: warnings[index]!,
    }));
    return { id, label, isWritable, images, buckets, skipped: [...dataset.skipped] };
  }

  /** Whether an image's caption may be written. @throws {StudioError} As {@link view}. */
  async isEditable(id: string, image: string): Promise<boolean> {
    const dataset = await this.open(await this.check(id), { resolution: OTHER_SIDE });
    const index = indexOf(dataset, image);
    return index !== undefined && !NOT_EDITABLE.includes(dataset.captionSource(index));
  }

  /** An image at most `side` pixels large, as the bytes of a file. */
  async image(id: string, name: string, side: number): Promise<Uint8Array> {
    const place = await this.check(id);
    if (!isNoFolder(place)) return this.thumbnails.of(await pathInside(place, name), side);
    const dataset = await this.openOther(place);
    const index = indexOf(dataset, name);
    if (index === undefined) throw new StudioError(404, `${id} holds no image ${quoted(name)}.`);
    const { width, height } = dataset.shape(index);
    return encodePng(tensor(await dataset.image(index), [3, height, width]));
  }

  /** Where a data set lies. @throws {StudioError} 403 or 404. */
  async check(id: string): Promise<string> {
    const { places, folders } = this.options;
    if (id.startsWith(ICONS) && places.includes(id)) return id;
    return isNoFolder(id) ? folders.check(id) : folders.checkFolder(id);
  }

  /** Icons and tables, whose images are no files. */
  private async openOther(place: string): Promise<ImageDataset> {
    const known = this.opened.get(place) ?? (await this.open(place, { resolution: OTHER_SIDE }));
    this.opened.set(place, known);
    return known;
  }

  private open(place: string, { resolution, bucket = false }: DataSetQuery): Promise<ImageDataset> {
    return openDataset(place, { size: resolution, bucket, split: "all", validationSplit: 0, memory: this.memory });
  }
}

/** Side at which images that are no files are shown. */
const OTHER_SIDE = 256;

const isNoFolder = (place: string): boolean => place.startsWith(ICONS) || place.toLowerCase().endsWith(".parquet");

const indexOf = (dataset: ImageDataset, name: string): number | undefined =>
  Array.from({ length: dataset.size }, (_, i) => i).find((i) => dataset.name(i) === name);

/** A folder of images, in a few words. */
export async function summaryOf(folder: string): Promise<DataSetSummary> {
  const { images, parquet } = await walkFolder(folder);
  const isWritable =
    (images.length > 0 || parquet.length === 0) &&
    (await access(folder, constants.W_OK).then(
      () => true,
      () => false,
    ));
  return { id: folder, label: basename(folder), images: images.length, isWritable };
}

function imageOf(dataset: ImageDataset, index: number, isWritable: boolean): Omit<DataSetImage, "warnings"> {
  const shape = dataset.shape(index);
  const own = dataset.traits(index)?.own ?? shape;
  const { scaled, left, top } = placeImage(own, shape);
  return {
    name: dataset.name(index),
    caption: dataset.caption(index),
    isEditable: isWritable && !NOT_EDITABLE.includes(dataset.captionSource(index)),
    originalWidth: own.width,
    originalHeight: own.height,
    width: shape.width,
    height: shape.height,
    crop: {
      left: left / scaled.width,
      top: top / scaled.height,
      width: shape.width / scaled.width,
      height: shape.height / scaled.height,
    },
    repeats: dataset.repeats(index),
  };
}
