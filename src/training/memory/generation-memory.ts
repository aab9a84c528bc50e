// What drawing takes of memory, and how it is made to fit. Node only.

import { latentsToImages } from "../../pipelines/image-latents.js";
import type { AnyPipeline, GenerateOptions } from "../../pipelines/index.js";
import { zeros } from "../../tensor/tensor.js";
import { setFittingTiles, tilesNote } from "./fitting-tiles.js";
import { MemoryEstimate, type MemoryPhase, type MemoryPlan } from "./memory-plan.js";

/** Sizes that are tried when a smaller image might fit, as parts of what was asked for. */
const SMALLER = [0.75, 0.5, 0.375, 0.25] as const;

/** What is drawn: of `generate`'s options those that make graphs larger. */
export type DrawnSize = Pick<GenerateOptions, "prompt" | "image" | "negativePrompt" | "guidanceScale" | "numImages"> & {
  width: number;
  height: number;
};

/**
 * Sets a pipeline up so that it draws within a limit: a model at a time, the autoencoder in tiles where it must be.
 *
 * @throws {ConfigError} If it cannot: the message says what would fit.
 */
export async function fitGeneration(pipeline: AnyPipeline, drawn: DrawnSize, limitBytes: number): Promise<MemoryPlan> {
  const estimate = new MemoryEstimate(limitBytes);
  return { limitBytes, phases: await generationPhases(pipeline, drawn, estimate) };
}

/** As {@link fitGeneration}, the phases alone. */
export async function generationPhases(
  pipeline: AnyPipeline,
  drawn: DrawnSize,
  estimate: MemoryEstimate,
): Promise<MemoryPhase[]> {
  const { vae } = pipeline;
  pipeline.keepsModelsLoaded = false;
  const { width, height } = drawn;
  const count = (typeof drawn.prompt === "string" ? 1 : drawn.prompt.length) * (drawn.numImages ?? 1);
  const side = Math.max(width, height);

  const sampling = (size: DrawnSize) => estimate.of(() => rehearse(pipeline, size));
  // Decoding is rehearsed apart: its tiles are what can be chosen.
  const decoding = async (size: DrawnSize) => {
    const { downscale } = vae;
    const latents = zeros([count, vae.config.latent_channels, size.height / downscale, size.width / downscale]);
    const work = () => latentsToImages(vae, latents, { together: 1 }).finally(() => vae.release());
    return estimate.of(work, 3 * imageBytes(size) * count);
  };
  const encoding = async () => {
    const image = zeros([1, 3, height, width]);
    return estimate.of(() => vae.encode(image).finally(() => vae.release()));
  };

  const phases: MemoryPhase[] = [];
  const add = (name: string, bytes: number, note?: string) => phases.push({ name, bytes, ...(note && { note }) });
  if (drawn.image) {
    const tiles = await setFittingTiles(vae, "encode", {
      side,
      fits: (bytes) => estimate.fits(bytes),
      bytesOf: encoding,
    });
    if (!estimate.fits(tiles.bytes))
      estimate.refuse("encoding the image, even in the smallest tiles,", tiles.bytes, []);
    add("encoding the image", tiles.bytes, tilesNote(tiles));
  }
  const bytes = await sampling(drawn);
  if (!estimate.fits(bytes)) {
    estimate.refuse(
      `drawing ${width}×${height} pixels`,
      bytes,
      await smallerDrawings(pipeline, drawn, estimate, sampling),
    );
  }
  add("text and sampling", bytes, "one model at a time");
  const tiles = await setFittingTiles(vae, "decode", {
    ...{ side, fits: (needed: number) => estimate.fits(needed) },
    bytesOf: () => decoding(drawn),
  });
  if (!estimate.fits(tiles.bytes)) {
    estimate.refuse("decoding the images, even in the smallest tiles,", tiles.bytes, []);
  }
  add("decoding samples", tiles.bytes, tilesNote(tiles));
  return phases;
}

const imageBytes = ({ width, height }: DrawnSize): number => 4 * 3 * width * height;

/** Text and two steps, as `generate` does them, and nothing else. */
async function rehearse(pipeline: AnyPipeline, { width, height, image, ...rest }: DrawnSize): Promise<void> {
  try {
    await pipeline.generate({ ...rest, width, height, steps: 1, seed: 0, decodes: false });
  } finally {
    await pipeline.release();
  }
}

async function smallerDrawings(
  pipeline: AnyPipeline,
  drawn: DrawnSize,
  estimate: MemoryEstimate,
  bytesOf: (size: DrawnSize) => Promise<number>,
): Promise<string[]> {
  const ways: string[] = [];
  if ((drawn.numImages ?? 1) > 1 && estimate.fits(await bytesOf({ ...drawn, numImages: 1 }))) {
    ways.push("one image at a time");
  }
  // Whole pixels of the denoiser's lowest level.
  const unit = 8 * pipeline.latentScale;
  const part = (pixels: number, share: number): number => Math.max(unit, Math.round((pixels * share) / unit) * unit);
  for (const share of SMALLER) {
    const [width, height] = [part(drawn.width, share), part(drawn.height, share)];
    if (width * height >= drawn.width * drawn.height) continue;
    if (!estimate.fits(await bytesOf({ ...drawn, width, height }))) continue;
    ways.push(`${width}×${height} pixels`);
    break;
  }
  return ways;
}
