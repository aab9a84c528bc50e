// Whole runs against diffusers': test/parity/make-pipeline-golden.py.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import "../../storage/node.js";
import { readSafetensors, type Safetensors } from "../../storage/index.js";
import "../../runtime/node.js";
import { createScheduler } from "../../schedulers/index.js";
import { rowsOf } from "../../tensor/rows.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { RoutingTrace } from "../denoise.js";
import { type AnyPipeline, loadPipeline } from "../load-pipeline.js";
import { type StableDiffusionXLOptions, StableDiffusionXLPipeline } from "./stable-diffusion-xl-pipeline.js";

/** Mean absolute difference of images in 0 … 1: a hundredth of one level of 255. */
const IMAGE_TOLERANCE = 0.01 / 255;
const LATENT_TOLERANCE = 2e-5;
const GATE_TOLERANCE = 1e-5;

interface Case extends Omit<StableDiffusionXLOptions, "scheduler"> {
  /** Its class. */
  scheduler: string;
  schedulerOptions?: object;
  /** How many of the start images. */
  images?: number;
  fera?: boolean;
}

const FAMILIES = {
  "pipeline-tiny": [
    "ddim",
    "unguided",
    "euler",
    "ddpm",
    "pndm",
    "rescaled",
    "clip-skip",
    "image-ddpm",
    "image-euler",
    "image-dpm",
    "image-unipc",
    "fera",
    "fera-image",
  ],
  "pipeline-tiny-xl": ["zeros", "unguided", "everything", "image", "fera", "fera-image"],
};

describe.each(Object.entries(FAMILIES))("%s", (name, cases) => {
  const folder = `test/reference/${name}`;
  let golden: Safetensors;
  let pipe: AnyPipeline;
  let options: Record<string, Case>;

  beforeAll(async () => {
    golden = await readSafetensors(`${folder}/expected.safetensors`);
    options = JSON.parse(golden.metadata.cases!);
    pipe = await loadPipeline(folder);
  });
  afterAll(() => pipe?.release());

  it("has values for these cases", () => {
    expect(Object.keys(options)).toEqual(cases);
    expect(pipe instanceof StableDiffusionXLPipeline).toBe(name.endsWith("xl"));
  });

  it.each(cases)("%s: images agree with diffusers, and gates at every step", async (key) => {
    const { scheduler: className, schedulerOptions, images: imageCount, fera, ...rest } = options[key]!;
    if (fera) await pipe.loadAdapters(`${folder}/adapters.safetensors`);
    else pipe.unloadAdapters();
    const start = [...rowsOf(golden.tensors.get("startImages") as Tensor<"float32">)];
    const { images, latents, route } = await pipe.generate({
      ...rest,
      ...(imageCount && { image: start.slice(0, imageCount).map((image) => image.reshape(image.shape.slice(1))) }),
      scheduler: createScheduler({ ...pipe.scheduler.config, ...schedulerOptions, _class_name: className }),
    });
    const expectedLatents = golden.tensors.get(`${key}.latents`)!;
    expect(latents.shape).toEqual(expectedLatents.shape);
    expect(relativeError(latents.data, expectedLatents.data as Float32Array)).toBeLessThan(LATENT_TOLERANCE);
    const expectedImages = golden.tensors.get(`${key}.images`)!.data as Float32Array;
    const pixels = images.flatMap(({ data }) => Array.from(data, (value) => (value + 1) / 2));
    expect(pixels).toHaveLength(expectedImages.length);
    const distance = pixels.reduce((sum, value, i) => sum + Math.abs(value - expectedImages[i]!), 0) / pixels.length;
    expect(distance).toBeLessThan(IMAGE_TOLERANCE);
    expect(route !== undefined).toBe(fera === true);
    if (route) {
      expectTable(route.energies, golden.tensors.get(`${key}.energies`)!);
      expectTable(route.gates, golden.tensors.get(`${key}.gates`)!);
    }
  });
});

/** `[S][N][E]` against a tensor, value by value. */
function expectTable(table: RoutingTrace["gates"], expected: Tensor): void {
  expect([table.length, table[0]!.length, table[0]![0]!.length]).toEqual(expected.shape);
  const largest = table.flat(2).reduce((max, value, i) => Math.max(max, Math.abs(value - Number(expected.data[i]))), 0);
  expect(largest).toBeLessThan(GATE_TOLERANCE);
}
