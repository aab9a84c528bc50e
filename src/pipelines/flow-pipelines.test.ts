// What the families of flow matching refuse, and how they are told apart. Their images: flow-parity.test.ts.

import { afterAll, describe, expect, it } from "vitest";
import "../runtime/node.js";
import { EulerDiscreteScheduler } from "../schedulers/index.js";
import "../storage/node.js";
import { zeros } from "../tensor/tensor.js";
import { FluxPipeline } from "./flux/flux-pipeline.js";
import { Flux2KleinPipeline } from "./flux2-klein/flux2-klein-pipeline.js";
import { loadPipeline } from "./load-pipeline.js";
import { schedulerFor } from "./samplers.js";
import { StableDiffusion3Pipeline } from "./stable-diffusion-3/stable-diffusion-3-pipeline.js";

const FOLDER = "test/reference/pipelines";
const sd3 = await StableDiffusion3Pipeline.fromPretrained(`${FOLDER}/stable-diffusion-3`);
const flux = await FluxPipeline.fromPretrained(`${FOLDER}/flux`);
const klein = await Flux2KleinPipeline.fromPretrained(`${FOLDER}/flux2-klein`);
const one = { prompt: "a red circle", width: 16, height: 16, steps: 1, maxSequenceLength: 24 };
afterAll(() => Promise.all([sd3, flux, klein].map((pipe) => pipe.dispose())));

describe("generate refuses", () => {
  it("sizes that are no whole tokens", async () => {
    expect(sd3.sizeStep).toBe(4);
    await expect(sd3.generate({ ...one, width: 18 })).rejects.toThrow(/multiple of 4 \(pixels per token\); got 18/);
    await expect(
      sd3.generate({ ...one, width: undefined, height: undefined, image: zeros([3, 16, 18]) }),
    ).rejects.toThrow(/the image's width must be a positive multiple of 4/);
  });

  it("samplers that are not of flow matching", async () => {
    const scheduler = new EulerDiscreteScheduler();
    await expect(sd3.generate({ ...one, scheduler })).rejects.toThrow(
      /EulerDiscreteScheduler is not; take FlowMatchEuler/,
    );
    expect(() => schedulerFor(sd3, "ddim")).toThrow(/sampler ddim: this model is of flow matching/);
    expect(schedulerFor(sd3, "euler").className).toBe("FlowMatchEulerDiscreteScheduler");
  });

  it("prompts that are too long for the encoder that reads the whole, and not for CLIP", async () => {
    const prompt = "a red circle and a blue square, and so on";
    await expect(sd3.generate({ ...one, prompt, maxSequenceLength: 8 })).rejects.toThrow(
      /longer than the 7 tokens that T5 takes here; ".*" does not fit/,
    );
    const { encoderHiddenStates } = await sd3.encodePrompt([prompt], { maxSequenceLength: 64 });
    expect(encoderHiddenStates.shape).toEqual([1, sd3.tokenizer.maxLength + 64, 24]);
    await expect(klein.generate({ ...one, prompt, textEncoderOutLayers: [1, 2, 3] })).rejects.toThrow(
      /longer than the 24 tokens .* those of the chat around it included/,
    );
    await expect(sd3.generate({ ...one, maxSequenceLength: 600 })).rejects.toThrow(/an integer from 2 to 512; got 600/);
  });

  it("guidance without what it needs", async () => {
    await expect(flux.generate({ ...one, negativePrompt: "blue" })).rejects.toThrow(/needs a trueCfgScale above 1/);
    await expect(flux.generate({ ...one, trueCfgScale: 3 })).rejects.toThrow(/trueCfgScale needs a negativePrompt/);
    await expect(flux.generate({ ...one, clipSkip: 1 })).rejects.toThrow(/clipSkip has no meaning for FLUX.1/);
    await expect(klein.generate({ ...one, negativePrompt: "blue", guidanceScale: 1 })).rejects.toThrow(
      /negativePrompt acts by guidance, and guidanceScale must be above 1/,
    );
    const longer = { ...one, maxSequenceLength: 48 };
    await expect(klein.generate(longer)).rejects.toThrow(/layers must be integers in 0 … 4, .*; got 9/);
    await expect(klein.generate({ ...longer, textEncoderOutLayers: [1] })).rejects.toThrow(
      /textEncoderOutLayers must be 3 layers, .* joint_attention_dim=36; got 1/,
    );
  });
});

it("without T5, zeros stand for its states, and CLIP must take the whole prompt", async () => {
  const { transformer, vae, scheduler, textEncoder, tokenizer, textEncoder2, tokenizer2 } = sd3;
  const bare = new StableDiffusion3Pipeline({
    ...{ transformer, vae, scheduler, textEncoder, tokenizer, textEncoder2, tokenizer2 },
  });
  const { encoderHiddenStates } = await bare.encodePrompt(["a red circle"], { maxSequenceLength: 8 });
  const states = encoderHiddenStates.data.subarray(tokenizer.maxLength * 24);
  expect(states.every((value) => value === 0)).toBe(true);
  await expect(bare.encodePrompt(["a red circle and a blue square, and so on"])).rejects.toThrow(/14 tokens/);
});

it("parts of different pipelines are refused", () => {
  const { vae, scheduler, textEncoder, tokenizer, textEncoder2, tokenizer2 } = flux;
  const parts = { vae, scheduler, textEncoder, tokenizer, textEncoder2, tokenizer2 };
  const other = { ...parts, transformer: flux.transformer, textEncoder2: sd3.textEncoder3! };
  expect(() => new FluxPipeline(other)).toThrow(
    /T5's d_model must be the transformer's joint_attention_dim; got 24 and 16/,
  );
});

it("an unknown family is named, with those that are known", async () => {
  await expect(FluxPipeline.fromPretrained(`${FOLDER}/z-image`)).rejects.toThrow(
    /_class_name must be FluxPipeline; got "ZImagePipeline". Load it with ZImagePipeline.fromPretrained/,
  );
  await expect(loadPipeline("test/reference/unet-sd15")).rejects.toThrow(/has no model_index.json/);
});
