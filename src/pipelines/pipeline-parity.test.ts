import { afterAll, beforeAll, expect, it } from "vitest";
import { relativeError } from "../../test/support/check-gradients.js";
import { readSafetensors, type Safetensors } from "../formats/index.js";
import "../models/pretrained-node.js";
import "../runtime/node.js";
import { createScheduler } from "../schedulers/index.js";
import "./pipeline-node.js";
import { StableDiffusionPipeline } from "./stable-diffusion-pipeline.js";

const FOLDER = "test/reference/pipeline-tiny";
/** Mean absolute difference of images in 0 … 1: a hundredth of one level of 255. */
const IMAGE_TOLERANCE = 0.01 / 255;
const LATENT_TOLERANCE = 2e-5;

interface Case {
  scheduler: string;
  guidanceScale: number;
  seed: number;
  steps: number;
  numImages: number;
}

let golden: Safetensors;
let pipe: StableDiffusionPipeline;

beforeAll(async () => {
  golden = await readSafetensors(`${FOLDER}/expected.safetensors`);
  pipe = await StableDiffusionPipeline.fromPretrained(FOLDER);
});
afterAll(() => pipe?.release());

it.each(["ddim", "unguided", "euler", "ddpm", "pndm"])("%s: images agree with diffusers", async (name) => {
  const { scheduler: className, ...options } = (JSON.parse(golden.metadata.cases!) as Record<string, Case>)[name]!;
  const schedulerOptions = JSON.parse(golden.metadata.schedulerOptions!)[name];
  const { images, latents } = await pipe.generate({
    ...options,
    prompt: JSON.parse(golden.metadata.prompts!),
    negativePrompt: JSON.parse(golden.metadata.negativePrompts!),
    scheduler: createScheduler({ ...pipe.scheduler.config, ...schedulerOptions, _class_name: className }),
  });
  const expectedLatents = golden.tensors.get(`${name}.latents`)!;
  expect(latents.shape).toEqual(expectedLatents.shape);
  expect(relativeError(latents.data, expectedLatents.data as Float32Array)).toBeLessThan(LATENT_TOLERANCE);
  const expectedImages = golden.tensors.get(`${name}.images`)!.data as Float32Array;
  const pixels = images.flatMap(({ data }) => Array.from(data, (value) => (value + 1) / 2));
  expect(pixels).toHaveLength(expectedImages.length);
  const distance = pixels.reduce((sum, value, i) => sum + Math.abs(value - expectedImages[i]!), 0) / pixels.length;
  expect(distance).toBeLessThan(IMAGE_TOLERANCE);
});
