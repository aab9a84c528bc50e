// Whole runs of the families of flow matching against diffusers': test/parity/make-flow-pipeline-golden.py.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "../../test/support/relative-error.js";
import "../runtime/node.js";
import { createScheduler } from "../schedulers/index.js";
import { readSafetensors, type Safetensors } from "../storage/index.js";
import "../storage/node.js";
import { rowsOf } from "../tensor/rows.js";
import type { Tensor } from "../tensor/tensor.js";
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
};

describe.each(Object.entries(FAMILIES))("%s", (name, family) => {
  const folder = `${FOLDER}/${name}`;
  let golden: Safetensors;
  let pipe: AnyPipeline;
  let cases: Record<string, Case>;

  beforeAll(async () => {
    golden = await readSafetensors(`${folder}/expected.safetensors`);
    cases = JSON.parse(golden.metadata.cases!);
    pipe = await loadPipeline(folder);
  });
  afterAll(() => pipe?.release());

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
    expect(relativeError(latents.data, expectedLatents.data as Float32Array)).toBeLessThan(LATENT_TOLERANCE);
    const expectedImages = golden.tensors.get(`${key}.images`)!.data as Float32Array;
    const pixels = images.flatMap(({ data }) => Array.from(data, (value) => (value + 1) / 2));
    expect(pixels).toHaveLength(expectedImages.length);
    const distance = pixels.reduce((sum, value, i) => sum + Math.abs(value - expectedImages[i]!), 0) / pixels.length;
    expect(distance).toBeLessThan(IMAGE_TOLERANCE);
    expect(route !== undefined).toBe(adapter === "fera");
  });
});
