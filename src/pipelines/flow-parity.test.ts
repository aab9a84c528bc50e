// Whole runs of the families of flow matching against diffusers': test/parity/make-flow-pipeline-golden.py.

import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "../../test/support/relative-error.js";
import "../runtime/node.js";
import { unscaledLatents } from "../models/autoencoder-kl/latent-scaling.js";
import { createScheduler } from "../schedulers/index.js";
import { readSafetensors, type Safetensors, writeSafetensors } from "../storage/index.js";
import "../storage/node.js";
import { Generator, randn } from "../tensor/random.js";
import { rowsOf } from "../tensor/rows.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import type { GenerateOptions } from "./generate-options.js";
import { type AnyPipeline, loadPipeline } from "./load-pipeline.js";

/** Mean absolute difference of images in 0 … 1: a hundredth of one level of 255. */
const IMAGE_TOLERANCE = 0.01 / 255;
const LATENT_TOLERANCE = 5e-5;
const FOLDER = "test/reference/pipelines";

interface Case extends GenerateOptions {
  schedulerOptions?: object;
  /** How many of the start images. */
  images?: number;
  adapter?: "lora" | "fera";
}

const FAMILIES = {
  "stable-diffusion-3": {
    class: "StableDiffusion3Pipeline",
    cases: ["guided", "unguided", "dynamic", "clip-skip", "image", "lora", "fera"],
  },
  flux: {
    class: "FluxPipeline",
    cases: ["dev", "true-guidance", "texts", "karras", "image", "lora", "fera"],
  },
  "flux2-klein": { class: "Flux2KleinPipeline", cases: ["guided", "unguided", "image", "lora", "fera"] },
  "z-image": { class: "ZImagePipeline", cases: ["guided", "lengths", "turbo", "image", "lora", "fera"] },
};

describe.each(Object.entries(FAMILIES))("%s", (name, family) => {
  const folder = `${FOLDER}/${name}`;
  let golden: Safetensors;
  let pipe: AnyPipeline;
  let cases: Record<string, Case>;
  let drawnFolder: string | undefined;

  beforeAll(async () => {
    golden = await readSafetensors(`${folder}/expected.safetensors`);
    cases = JSON.parse(golden.metadata.cases!);
    const { transformer } = golden.metadata;
    if (transformer) {
      drawnFolder = await mkdtemp(join(tmpdir(), "fera-flow-"));
      await cp(folder, drawnFolder, { recursive: true });
      const path = join(drawnFolder, "transformer", "diffusion_pytorch_model.safetensors");
      await writeSafetensors(path, drawnWeights(JSON.parse(transformer)));
    }
    pipe = await loadPipeline(drawnFolder ?? folder);
  });
  afterAll(async () => {
    await pipe?.release();
    if (drawnFolder) await rm(drawnFolder, { recursive: true });
  });

  it("is loaded by its model_index.json, and has values for these cases", () => {
    expect(pipe.constructor.name).toBe(family.class);
    expect(Object.keys(cases)).toEqual(family.cases);
  });

  it.each(family.cases)("%s: images agree with diffusers", async (key) => {
    const { schedulerOptions, images: imageCount, adapter, ...rest } = cases[key]!;
    pipe.unloadAdapters();
    if (adapter) await pipe.loadAdapters(`${folder}/${adapter}.safetensors`);
    const start = [...rowsOf(golden.tensors.get("startImages") as Tensor<"float32">)];
    const { images, latents, route } = await pipe.generate({
      ...rest,
      ...(imageCount && { image: start.slice(0, imageCount).map((image) => image.reshape(image.shape.slice(1))) }),
      ...(schedulerOptions && { scheduler: createScheduler({ ...pipe.schedulerConfig, ...schedulerOptions }) }),
    });
    const expectedLatents = golden.tensors.get(`${key}.latents`)!;
    expect(latents.shape).toEqual(expectedLatents.shape);
    // diffusers gives FLUX.2's latents as the autoencoder takes them.
    const found = name === "flux2-klein" ? unscaledLatents(latents, await pipe.vae.latentScaling()) : latents;
    expect(relativeError(found.data, expectedLatents.data as Float32Array)).toBeLessThan(LATENT_TOLERANCE);
    const expectedImages = golden.tensors.get(`${key}.images`)!.data as Float32Array;
    const pixels = images.flatMap(({ data }) => Array.from(data, (value) => (value + 1) / 2));
    expect(pixels).toHaveLength(expectedImages.length);
    const distance = pixels.reduce((sum, value, i) => sum + Math.abs(value - expectedImages[i]!), 0) / pixels.length;
    expect(distance).toBeLessThan(IMAGE_TOLERANCE);
    expect(route !== undefined).toBe(adapter === "fera");
  });
});

/** Weights that are drawn as the script draws them. */
function drawnWeights({ seed, parameters }: { seed: number; parameters: [string, number[]][] }): Map<string, Tensor> {
  const generator = new Generator(seed);
  return new Map(
    parameters.map(([name, shape]) => {
      const noise = randn(shape, { generator }).data;
      const scale = shape.length > 1 ? shape.slice(1).reduce((a, b) => a * b, 1) ** -0.5 : 0.1;
      const isNorm = name.includes("norm") && name.endsWith("weight");
      return [
        name,
        tensor(
          noise.map((value) => (isNorm ? 1 + 0.2 * value : value * scale)),
          shape,
        ),
      ];
    }),
  );
}
