// Whole runs with the LoRA files of other programs against diffusers': test/parity/make-lora-golden.py.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import "../../runtime/node.js";
import { readSafetensors, type Safetensors } from "../../storage/index.js";
import "../../storage/node.js";
import { type AnyPipeline, loadPipeline } from "../load-pipeline.js";

const TOLERANCE = 2e-4;
const FAMILIES = {
  sd: ["kohya-locon", "diffusers-metadata", "peft", "cloneofsimo"],
  xl: ["kohya-original-locon", "diffusers"],
};

describe.each(["sd", "xl"] as const)("a pipeline of %s", (family) => {
  const folder = `test/reference/lora-files/${family}`;
  let golden: Safetensors;
  let pipe: AnyPipeline;
  const errorOf = (found: Float32Array, name: string) =>
    relativeError(found, golden.tensors.get(name)!.data as Float32Array);

  beforeAll(async () => {
    golden = await readSafetensors(`${folder}/expected.safetensors`);
    pipe = await loadPipeline(`test/reference/pipeline-tiny${family === "xl" ? "-xl" : ""}`);
  });
  afterAll(() => pipe?.dispose());

  const generated = async () => {
    const options = JSON.parse(golden.metadata.generation!);
    const { latents } = await pipe.generate({
      prompt: options.prompt,
      negativePrompt: options.negative_prompt,
      guidanceScale: options.guidance_scale,
      steps: options.num_inference_steps,
      height: options.height,
      width: options.width,
      seed: options.seed,
    });
    return latents.data;
  };
  const promptStates = async () => {
    const { prompt } = JSON.parse(golden.metadata.generation!);
    const encoded = await pipe.encodePrompt([prompt]);
    return "encoderHiddenStates" in encoded ? encoded.encoderHiddenStates.data : encoded.data;
  };

  it.each(FAMILIES[family])("generates with %s what its program generates", async (name) => {
    const { path } = JSON.parse(golden.metadata.files!)[name];
    await pipe.loadAdapters(`${folder}/${path}`);
    expect(errorOf(await generated(), `${name}.image_latents`)).toBeLessThan(TOLERANCE);
    if (golden.tensors.has(`${name}.prompt_embeds`)) {
      expect(errorOf(await promptStates(), `${name}.prompt_embeds`)).toBeLessThan(TOLERANCE);
      pipe.setAdapterScale(0.5);
      expect(errorOf(await promptStates(), `${name}.half.prompt_embeds`)).toBeLessThan(TOLERANCE);
      pipe.setAdapterScale(1);
    }
    pipe.unloadAdapters();
    expect(errorOf(await generated(), "base.image_latents")).toBeLessThan(TOLERANCE);
  });

  it("generates the same with the file's LoRA fused into the weights", async () => {
    const name = FAMILIES[family][0]!;
    await pipe.loadAdapters(`${folder}/${name}.safetensors`);
    await pipe.fuseLora();
    expect(errorOf(await generated(), `${name}.image_latents`)).toBeLessThan(TOLERANCE);
    await pipe.unfuseLora();
    pipe.unloadAdapters();
  });
});
