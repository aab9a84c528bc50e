// A dataset as a pipeline's denoiser sees it, read row by row when a batch is drawn: latents and text states from the cache,
// sizes, weights and masks beside them. Node only.

import { join } from "node:path";
import type { Conditioning } from "../../diffusion/index.js";
import { ConfigError } from "../../errors.js";
import { type AnyPipeline, FlowPipeline, StableDiffusionXLPipeline } from "../../pipelines/index.js";
import { cacheFolder } from "../../storage/file-access.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import { checkCaptions } from "../check-captions.js";
import type { ImageDataset } from "../data/dataset.js";
import type { ImageVariant } from "../data/image-variant.js";
import type { EncodedRowBatch, EncodedRows, LatentSize, RowDraw } from "../encoded-dataset.js";
import { encoderKey } from "./cache-key.js";
import type { CacheMode } from "./cache-modes.js";
import { DiskEntries, type EntryStore, MemoryEntries, NO_ENTRIES } from "./entry-store.js";
import { type ImageDraw, LatentRows } from "./latent-rows.js";
import { type CaptionRows, TextRows } from "./text-rows.js";
import { TokenRows } from "./token-rows.js";

/** How {@link openDatasetRows} encodes and keeps. */
export interface DatasetRowsOptions {
  /** Default `disk`; `none` where the crop is random. */
  cacheLatents?: CacheMode | undefined;
  /** Default `disk`; `none` where captions vary. */
  cacheTextEncoderOutputs?: CacheMode | undefined;
  /** Default `encoded` in the user's cache folder. */
  cacheDir?: string | undefined;
  /** Whether images come mirrored, too: both variants are encoded. */
  flip?: boolean;
  /** Whether images are cut at random places: they are encoded when they are drawn. */
  randomCrop?: boolean;
  /** Whether captions differ each time: they are encoded when they are drawn. */
  variedCaptions?: boolean;
  /** Whether something of the text encoders is trained: rows then have token ids in place of text states. */
  trainsText?: boolean;
  onProgress?: (what: "captions" | "images", done: number, of: number) => void;
  onMessage?: (message: string) => void;
  signal?: AbortSignal | undefined;
}

/** Rows that are open: to be closed. */
export interface DatasetRows extends EncodedRows {
  /** The sizes of latents, the largest first. */
  readonly sizes: readonly LatentSize[];
  /** Whether rows have weights that differ from 1, and masks. */
  readonly hasLossWeights: boolean;
  readonly hasMasks: boolean;
  close(): Promise<void>;
}

/**
 * Encodes what is not in the cache yet, and frees what the encoders have compiled.
 *
 * An entry's key is everything that it depends on: the image's content, how it is read and cut, mirrored or not, or the
 * caption's tokens; the encoders' weights and configurations; how this version encodes. Entries are never stale, and other
 * trainings with the same images and model find them.
 *
 * @throws {ConfigError} If a caption is longer than the model allows, or what cannot be kept shall be.
 */
export async function openDatasetRows(
  pipeline: AnyPipeline,
  dataset: ImageDataset,
  options: DatasetRowsOptions = {},
): Promise<DatasetRows> {
  const { flip, randomCrop, variedCaptions, trainsText, onProgress, onMessage = () => undefined, signal } = options;
  const { cacheDir = join(cacheFolder(), "encoded") } = options;
  const latentMode = modeOf("cacheLatents", options.cacheLatents, randomCrop, "the crop is random");
  const whyNoText = trainsText ? "what makes them of captions is trained" : "captions vary";
  const keepsNoText = trainsText || variedCaptions;
  const textMode = modeOf("cacheTextEncoderOutputs", options.cacheTextEncoderOutputs, keepsNoText, whyNoText);
  const open = (mode: CacheMode, kind: string, modelKey: string): EntryStore | Promise<EntryStore> => {
    if (mode === "disk") return DiskEntries.open(join(cacheDir, `${kind}-${modelKey.slice(0, 16)}`), onMessage);
    return mode === "memory" ? new MemoryEntries() : NO_ENTRIES;
  };

  const captions = Array.from({ length: dataset.size }, (_, i) => dataset.caption(i));
  checkCaptions(pipeline, captions, (i) => dataset.name(i));

  const stores: EntryStore[] = [];
  let text: CaptionRows;
  if (trainsText && !(pipeline instanceof FlowPipeline)) text = new TokenRows(pipeline);
  else {
    const textKey = await encoderKey(Object.values(pipeline.promptEncoders), signal);
    const store = await open(textMode, "text", textKey);
    stores.push(store);
    const encoded = await TextRows.open({ pipeline, store, modelKey: textKey, staysLoaded: textMode === "none" });
    if (textMode !== "none") await encoded.encode(captions, (done, of) => onProgress?.("captions", done, of), signal);
    await encoded.release();
    text = encoded;
  }

  const { vae } = pipeline;
  const latentKey = await encoderKey([vae], signal);
  const latentStore = await open(latentMode, "latents", latentKey);
  const latents = new LatentRows({
    ...{ vae, dataset, store: latentStore, modelKey: latentKey },
    staysLoaded: latentMode === "none",
  });
  const variants: ImageVariant[] = flip ? [{}, { flip: true }] : [{}];
  const draws = Array.from({ length: dataset.size }, (_, index) => index).flatMap((index) =>
    variants.map((variant): ImageDraw => ({ index, variant })),
  );
  if (latentMode !== "none") {
    const report = (done: number) => onProgress?.("images", Math.floor(done / variants.length), dataset.size);
    await latents.encode(draws, report, signal);
  }
  await vae.release();
  return new CachedRows(pipeline, dataset, latents, text, [...stores, latentStore]);
}

/** Where the cut lies in the mirrored image, which SDXL is told of: as far from the left as it was from the right. */
function asSeen(variant: ImageVariant | undefined): ImageVariant | undefined {
  if (!variant?.flip || !variant.crop) return variant;
  return { ...variant, crop: { ...variant.crop, x: 1 - variant.crop.x } };
}

/** @throws {ConfigError} If what differs each time shall be kept. */
function modeOf(option: string, given: CacheMode | undefined, isVaried: boolean | undefined, why: string): CacheMode {
  if (!isVaried) return given ?? "disk";
  if (given === undefined || given === "none") return "none";
  throw new ConfigError(
    `${option}: ${why}, so that nothing can be kept; got "${given}". Leave it out, or take "none".`,
  );
}

class CachedRows implements DatasetRows {
  readonly size: number;
  readonly empty: Conditioning;
  readonly sizes: readonly LatentSize[];
  readonly hasLossWeights: boolean;
  readonly hasMasks: boolean;

  constructor(
    private readonly pipeline: AnyPipeline,
    private readonly dataset: ImageDataset,
    private readonly latents: LatentRows,
    private readonly text: CaptionRows,
    private readonly stores: readonly EntryStore[],
  ) {
    this.size = dataset.size;
    this.empty = text.empty;
    this.hasMasks = dataset.hasMasks;
    const all = Array.from({ length: dataset.size }, (_, i) => i);
    this.hasLossWeights = all.some((i) => dataset.lossWeight(i) !== 1);
    const sizes = new Map(
      all.map((i) => {
        const size = latents.sizeOf(i);
        return [`${size.latentHeight}x${size.latentWidth}`, size];
      }),
    );
    const area = ({ latentHeight, latentWidth }: LatentSize) => latentHeight * latentWidth;
    this.sizes = [...sizes.values()].sort((a, b) => area(b) - area(a));
  }

  latentSize(index: number): LatentSize {
    return this.latents.sizeOf(index);
  }

  repeats(index: number): number {
    return this.dataset.repeats(index);
  }

  async read(draws: readonly RowDraw[]): Promise<EncodedRowBatch> {
    const { dataset, pipeline } = this;
    const [images, states] = await Promise.all([
      this.latents.read(draws),
      this.text.read(draws.map(({ index, caption }) => caption ?? dataset.caption(index))),
    ]);
    const timeIds = pipeline instanceof StableDiffusionXLPipeline ? await this.timeIds(draws) : undefined;
    const weights = Float32Array.from(draws, ({ index }) => dataset.lossWeight(index));
    return {
      ...images,
      conditioning: { ...states, ...(timeIds && { timeIds }) },
      ...(this.hasLossWeights && { lossWeights: tensor(weights, [draws.length]) }),
    };
  }

  async close(): Promise<void> {
    await this.text.release();
    await this.pipeline.vae.release();
    for (const store of this.stores) await store.close();
  }

  /** What SDXL is told of each image: its size before scaling, where it was cut, and the size that it has now. */
  private async timeIds(draws: readonly RowDraw[]): Promise<Tensor<"float32">> {
    const rows = await Promise.all(
      draws.map(async ({ index, variant }) => {
        const { originalSize, cropTopLeft } = await this.dataset.placement(index, asSeen(variant));
        const { width, height } = this.dataset.shape(index);
        return [...originalSize, ...cropTopLeft, height, width];
      }),
    );
    return tensor(Float32Array.from(rows.flat()), [draws.length, 6]);
  }
}
