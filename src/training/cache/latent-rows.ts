// Images as latents, one entry each: encoded once and kept, or encoded when they are drawn. Node only.

import type { Autoencoder } from "../../models/autoencoder.js";
import { concatRows, sliceRows } from "../../tensor/rows.js";
import { Tensor, tensor } from "../../tensor/tensor.js";
import type { ImageDataset } from "../data/dataset.js";
import type { ImageVariant } from "../data/image-variant.js";
import { encodeImageBatch, imagesPerBatch } from "../encode-images.js";
import type { LatentSize } from "../encoded-dataset.js";
import { entryKey } from "./cache-key.js";
import type { EntryTensors } from "./entry-file.js";
import type { EntryStore } from "./entry-store.js";

/** An image and how it is seen. */
export interface ImageDraw {
  index: number;
  variant?: ImageVariant | undefined;
}

/** Latents of images, with their masks on the latents' grid. B images. */
export interface LatentBatch {
  latents: Tensor<"float32">;
  latentStd?: Tensor<"float32">;
  /** `[B, 1, h, w]`, where the dataset has masks. */
  lossMask?: Tensor<"float32">;
}

/** What {@link LatentRows} are made of. */
export interface LatentParts {
  vae: Autoencoder;
  dataset: ImageDataset;
  store: EntryStore;
  /** Of the autoencoder; see `encoderKey`. */
  modelKey: string;
  /** Whether images are encoded at each draw, so that the autoencoder stays loaded between them. */
  staysLoaded?: boolean;
}

/** From this size on, the graph of one image size is freed before that of another is made: each holds a gigabyte. */
const LARGE_PIXELS = 256 * 256;

/** The images of a dataset as latents. */
export class LatentRows {
  /** Of what was encoded last. */
  private lastPixels: string | undefined;

  constructor(private readonly parts: LatentParts) {}

  /** Size of an image's latents. */
  sizeOf(index: number): LatentSize {
    const { width, height } = this.parts.dataset.shape(index);
    const { downscale } = this.parts.vae;
    return { latentHeight: height / downscale, latentWidth: width / downscale };
  }

  /**
   * Encodes and keeps what is not there yet, images of the largest size first: what does not fit into memory fails at once.
   *
   * Each entry is kept when it is made, so that what was cut off goes on where it stopped. The autoencoder is released in
   * the end.
   *
   * @param onProgress - Called with the number of draws that are there.
   */
  async encode(draws: readonly ImageDraw[], onProgress?: (done: number) => void, signal?: AbortSignal): Promise<void> {
    const { store, dataset, vae } = this.parts;
    const missing = draws.filter((draw) => !store.has(this.keyOf(draw)));
    const bySize = new Map<string, ImageDraw[]>();
    for (const draw of missing) {
      const { width, height } = dataset.shape(draw.index);
      const key = `${width}x${height}`;
      bySize.set(key, [...(bySize.get(key) ?? []), draw]);
    }
    const pixels = ([{ index }]: readonly [ImageDraw, ...ImageDraw[]]): number => {
      const { width, height } = dataset.shape(index);
      return width * height;
    };
    const groups = ([...bySize.values()] as [ImageDraw, ...ImageDraw[]][]).sort((a, b) => pixels(b) - pixels(a));
    let done = draws.length - missing.length;
    onProgress?.(done);
    for (const group of groups) {
      const count = imagesPerBatch(dataset.shape(group[0].index));
      for (let start = 0; start < group.length; start += count) {
        signal?.throwIfAborted();
        const batch = group.slice(start, start + count);
        const entries = await this.make(batch);
        for (const [i, draw] of batch.entries()) await store.put(this.keyOf(draw), entries[i]!);
        done += batch.length;
        onProgress?.(done);
      }
      // The next size is another graph, with memory of its own.
      await vae.release();
    }
  }

  /** The rows of images of one size. What is not kept, or damaged, is encoded now. */
  async read(draws: readonly ImageDraw[]): Promise<LatentBatch> {
    const { store, vae, staysLoaded } = this.parts;
    const entries = await Promise.all(draws.map((draw) => store.get(this.keyOf(draw))));
    const missing = draws.filter((_, i) => entries[i] === undefined);
    if (missing.length > 0) {
      const made = await this.makeAll(missing);
      for (const [i, draw] of draws.entries()) {
        if (entries[i] !== undefined) continue;
        entries[i] = made.shift()!;
        await store.put(this.keyOf(draw), entries[i]);
      }
      if (!staysLoaded) await vae.release();
    }
    const column = (name: string): Tensor<"float32"> | undefined => {
      if (!entries.some((entry) => entry!.has(name))) return undefined;
      return concatRows(entries.map((entry) => entry!.get(name) as Tensor<"float32">));
    };
    const [latentStd, lossMask] = [column("latentStd"), column("lossMask")];
    return { latents: column("latents")!, ...(latentStd && { latentStd }), ...(lossMask && { lossMask }) };
  }

  private async makeAll(draws: readonly ImageDraw[]): Promise<EntryTensors[]> {
    const count = imagesPerBatch(this.parts.dataset.shape(draws[0]!.index));
    const made: EntryTensors[] = [];
    for (let start = 0; start < draws.length; start += count) {
      made.push(...(await this.make(draws.slice(start, start + count))));
    }
    return made;
  }

  private async make(draws: readonly ImageDraw[]): Promise<EntryTensors[]> {
    const { dataset, vae } = this.parts;
    const shape = dataset.shape(draws[0]!.index);
    const pixels = `${shape.width}x${shape.height}`;
    if (this.lastPixels !== pixels && shape.width * shape.height > LARGE_PIXELS) await vae.release();
    this.lastPixels = pixels;
    const images = await Promise.all(draws.map(({ index, variant }) => dataset.image(index, variant)));
    const encoded = await encodeImageBatch(vae, images, shape);
    const made: EntryTensors[] = [];
    for (const [i, { index, variant }] of draws.entries()) {
      const entry = new Map<string, Tensor>();
      for (const [name, rows] of Object.entries(encoded)) entry.set(name, copied(sliceRows(rows, i, i + 1)));
      if (dataset.hasMasks) {
        entry.set("lossMask", latentMask(await dataset.mask(index, variant), shape, this.sizeOf(index)));
      }
      made.push(entry);
    }
    return made;
  }

  private keyOf({ index, variant = {} }: ImageDraw): string {
    const { dataset, modelKey } = this.parts;
    const { flip = false, crop } = variant;
    const { width, height } = dataset.shape(index);
    const centred = !crop || (crop.x === 0.5 && crop.y === 0.5);
    const pixels = [dataset.contentHash(index), dataset.pixelKey(index), width, height, dataset.hasMasks];
    return entryKey("latents", modelKey, ...pixels, flip, centred ? null : [crop.x, crop.y]);
  }
}

const copied = ({ shape, data }: Tensor<"float32">): Tensor<"float32"> => new Tensor("float32", shape, data.slice());

/**
 * A mask on the grid of latents: the mean over the pixels of each.
 *
 * @param mask - `[1, H, W]`; undefined for 1 everywhere.
 * @returns `[1, 1, h, w]`.
 */
export function latentMask(
  mask: Float32Array | undefined,
  { width, height }: { width: number; height: number },
  { latentHeight, latentWidth }: LatentSize,
): Tensor<"float32"> {
  const result = new Float32Array(latentHeight * latentWidth);
  if (!mask) return tensor(result.fill(1), [1, 1, latentHeight, latentWidth]);
  const [rows, columns] = [height / latentHeight, width / latentWidth];
  for (let y = 0; y < height; y++) {
    const row = Math.floor(y / rows) * latentWidth;
    for (let x = 0; x < width; x++) result[row + Math.floor(x / columns)]! += mask[y * width + x]!;
  }
  for (let i = 0; i < result.length; i++) result[i] = result[i]! / (rows * columns);
  return tensor(result, [1, 1, latentHeight, latentWidth]);
}
