// Data sets in the browser's storage: a folder of images each, with captions beside them as NAME.txt. In the page.

import type {
  AddedFiles,
  DataSetImage,
  DataSetQuery,
  DataSetSummary,
  DataSetView,
} from "../../../src/studio/protocol.js";
import { placeImage } from "../../../src/training/data/image-placement.js";
import {
  DATA_FOLDER,
  findFile,
  findFolder,
  makeFolder,
  namesIn,
  plainName,
  readText,
  remove,
  writeFile,
} from "./files.js";
import { type ImageFacts, imageFacts, imageWarnings } from "./image-warnings.js";
import { captionName, isImageName, readImage, scaledCanvas } from "./images.js";

const MOST_CAPTION_BYTES = 64e3;
const MOST_IMAGES = 2000;
/** Addresses of pictures that are kept; the oldest are given up. */
const KEPT_URLS = 1000;

type Folder = FileSystemDirectoryHandle;

/** What is in `data/`. */
export class DataSets {
  /** By data set and image: what reading it told, as long as the file is the same. */
  private readonly facts = new Map<string, { stamp: string; facts: Promise<ImageFacts> }>();
  private readonly urls = new Map<string, Promise<string>>();

  constructor(private readonly root: Folder) {}

  async list(): Promise<DataSetSummary[]> {
    const data = await makeFolder(this.root, DATA_FOLDER);
    const names = await namesIn(data, "directory");
    return Promise.all(
      names.map(async (name) => ({
        id: name,
        label: name,
        images: (await namesIn(await this.folder(name), "file")).filter(isImageName).length,
        isWritable: true,
      })),
    );
  }

  /** @throws {Error} If there is one of that name already. */
  async create(label: string): Promise<DataSetSummary> {
    const name = plainName("A data set's name", label);
    if (await findFolder(this.root, DATA_FOLDER, name)) {
      throw new Error(`There is a data set "${name}" already. Choose another name, or add the images to it.`);
    }
    await makeFolder(this.root, DATA_FOLDER, name);
    return { id: name, label: name, images: 0, isWritable: true };
  }

  async view(id: string, { resolution, bucket }: DataSetQuery): Promise<DataSetView> {
    if (bucket)
      throw new Error("A tab trains squares only: leave aspect-ratio buckets off, or train with fera studio.");
    const folder = await this.folder(id);
    const names = await namesIn(folder, "file");
    const skipped: DataSetView["skipped"] = [];
    const found: { name: string; facts: ImageFacts; caption: string | undefined }[] = [];
    const namesOf = new Map<string, string[]>();
    for (const name of names.filter(isImageName)) {
      const file = await findFile(folder, name);
      if (!file) continue;
      let facts: ImageFacts;
      try {
        facts = await this.factsOf(id, name, file, resolution);
      } catch (error) {
        skipped.push({ path: name, reason: `${name} ${(error as Error).message}.` });
        continue;
      }
      const caption = names.includes(captionName(name)) ? await readText(folder, captionName(name)) : undefined;
      found.push({ name, facts, caption });
      namesOf.set(facts.hash, [...(namesOf.get(facts.hash) ?? []), name]);
    }
    const images = found.map(({ name, facts, caption }): DataSetImage => {
      const { width, height } = facts;
      const place = placeImage({ width, height }, { width: resolution, height: resolution });
      const { scaled, left, top } = place;
      return {
        name,
        caption: caption?.trim() ?? "",
        isEditable: true,
        originalWidth: width,
        originalHeight: height,
        width: resolution,
        height: resolution,
        crop: {
          left: left / scaled.width,
          top: top / scaled.height,
          width: resolution / scaled.width,
          height: resolution / scaled.height,
        },
        repeats: 1,
        warnings: imageWarnings(name, facts, { ...place, side: resolution }, caption, namesOf.get(facts.hash)!),
      };
    });
    for (const name of names) {
      if (isImageName(name) || names.some((image) => isImageName(image) && captionName(image) === name)) continue;
      skipped.push({ path: name, reason: `${name} is no image, and no image's caption.` });
    }
    const buckets = images.length === 0 ? [] : [{ width: resolution, height: resolution, images: images.length }];
    return { id, label: id, isWritable: true, images, buckets, skipped };
  }

  /** Adds images, and captions of images; every refusal is told. */
  async add(id: string, files: readonly File[]): Promise<AddedFiles> {
    const folder = await this.folder(id);
    const result: AddedFiles = { added: [], refused: [] };
    const names = new Set(await namesIn(folder, "file"));
    const stems = new Map([...names].filter(isImageName).map((image) => [captionName(image), image]));
    for (const file of files) {
      try {
        if (file.name.includes("/")) {
          throw new Error(
            "lies in a folder of its own, which a tab does not keep: drop the images of one folder at a time",
          );
        }
        const name = plainName("A file's name", file.name);
        if (isImageName(name)) {
          const other = stems.get(captionName(name));
          if (other !== undefined) throw new Error(`would share its caption with ${other}, which is there; rename it`);
          if (stems.size >= MOST_IMAGES) throw new Error(`is too much: a tab takes ${MOST_IMAGES} images`);
          (await readImage(file)).close();
          await writeFile(folder, name, file);
          stems.set(captionName(name), name);
        } else if (/\.txt$/i.test(name)) {
          if (file.size > MOST_CAPTION_BYTES) throw new Error("is too long for a caption");
          await writeFile(folder, name, await file.text());
        } else {
          throw new Error("is neither an image nor a caption");
        }
        result.added.push(name);
      } catch (error) {
        result.refused.push({ name: file.name, reason: (error as Error).message });
      }
    }
    return result;
  }

  async removeImage(id: string, image: string): Promise<void> {
    const folder = await this.folder(id);
    await remove(folder, image);
    await remove(folder, captionName(image));
    this.forgetUrls(`${id}/${image}/`);
  }

  /** @throws {Error} If there is no such image, or the caption is too long. */
  async setCaption(id: string, image: string, caption: string): Promise<void> {
    const folder = await this.folder(id);
    if (!(await findFile(folder, image))) throw new Error(`There is no image "${image}" in "${id}" any more.`);
    if (caption.length > MOST_CAPTION_BYTES) throw new Error(`${image}: this is too long for a caption.`);
    await writeFile(folder, captionName(image), caption);
  }

  /** An address of an image, at most `side` pixels large. */
  imageUrl(id: string, image: string, side: number): Promise<string> {
    const key = `${id}/${image}/${side}`;
    let url = this.urls.get(key);
    if (!url) {
      url = this.makeUrl(id, image, side);
      this.urls.set(key, url);
      url.catch(() => this.urls.delete(key));
      const [oldest] = this.urls.keys();
      if (this.urls.size > KEPT_URLS) this.forgetUrls(oldest!);
    }
    return url;
  }

  private async makeUrl(id: string, image: string, side: number): Promise<string> {
    const file = await findFile(await this.folder(id), image);
    if (!file) throw new Error(`There is no image "${image}" in "${id}" any more.`);
    const bitmap = await readImage(file);
    const isSmall = Math.max(bitmap.width, bitmap.height) <= side;
    const canvas = isSmall ? undefined : scaledCanvas(bitmap, side);
    bitmap.close();
    return URL.createObjectURL(canvas ? await canvas.convertToBlob({ type: "image/webp", quality: 0.85 }) : file);
  }

  private forgetUrls(start: string): void {
    for (const [key, url] of this.urls) {
      if (!key.startsWith(start)) continue;
      this.urls.delete(key);
      void url.then((address) => URL.revokeObjectURL(address)).catch(() => undefined);
    }
  }

  private factsOf(id: string, name: string, file: File, resolution: number): Promise<ImageFacts> {
    const key = `${id}/${name}`;
    const stamp = `${file.size} ${file.lastModified} ${resolution}`;
    const known = this.facts.get(key);
    if (known?.stamp === stamp) return known.facts;
    const facts = imageFacts(file, resolution);
    facts.catch(() => undefined);
    this.facts.set(key, { stamp, facts });
    return facts;
  }

  /** @throws {Error} If there is no such data set. */
  private async folder(id: string): Promise<Folder> {
    const folder = await findFolder(this.root, DATA_FOLDER, id);
    if (!folder) throw new Error(`There is no data set "${id}" any more.`);
    return folder;
  }
}
