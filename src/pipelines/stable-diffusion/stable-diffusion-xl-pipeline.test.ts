import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import { ConfigError, FormatError } from "../../errors.js";
import "../../storage/node.js";
import { CLIPTextModelWithProjection } from "../../models/clip-text/clip-text-model-with-projection.js";
import "../../runtime/node.js";
import { Generator } from "../../tensor/random.js";
import { StableDiffusionPipeline } from "./stable-diffusion-pipeline.js";
import { type StableDiffusionXLOptions, StableDiffusionXLPipeline } from "./stable-diffusion-xl-pipeline.js";

const FOLDER = "test/reference/pipeline-tiny-xl";
const PROMPT = "a red circle";
/** Two images that should differ, do so by more than rounding. */
const DIFFERENT = 1e-4;

let pipe: StableDiffusionXLPipeline;

beforeAll(async () => {
  pipe = await StableDiffusionXLPipeline.fromPretrained(FOLDER);
});
afterAll(() => pipe?.release());

const latentsOf = async (options: Partial<StableDiffusionXLOptions> = {}, from = pipe) =>
  (await from.generate({ prompt: PROMPT, steps: 2, seed: 1, ...options })).latents.data;
const parts = () => {
  const { unet, vae, textEncoder, tokenizer, textEncoder2, tokenizer2, scheduler } = pipe;
  return { unet, vae, textEncoder, tokenizer, textEncoder2, tokenizer2, scheduler };
};

describe("StableDiffusionXLPipeline", () => {
  it("gives both encoders' states side by side, and the pooled text of the second", async () => {
    const { encoderHiddenStates, textEmbeds } = await pipe.encodePrompt([PROMPT, "blue", PROMPT]);
    expect(encoderHiddenStates.shape).toEqual([3, 16, 40]);
    expect(textEmbeds.shape).toEqual([3, 20]);
    expect(textEmbeds.data.slice(0, 20)).toEqual(textEmbeds.data.slice(40));
    expect(relativeError(textEmbeds.data.slice(0, 20), textEmbeds.data.slice(20, 40))).toBeGreaterThan(DIFFERENT);
  });

  it("is told sizes, crops and a second prompt", async () => {
    const plain = await latentsOf();
    const stated = {
      prompt2: PROMPT,
      originalSize: [32, 32],
      targetSize: [32, 32],
      cropsCoordsTopLeft: [0, 0],
    } as const;
    expect(await latentsOf(stated)).toEqual(plain);
    for (const options of [
      { prompt2: "blue" },
      { originalSize: [64, 32] },
      { targetSize: [32, 64] },
      { cropsCoordsTopLeft: [8, 0] },
      { negativeOriginalSize: [8, 8] },
      { negativeTargetSize: [8, 8] },
      { negativeCropsCoordsTopLeft: [8, 8] },
      { clipSkip: 1 },
    ] as Partial<StableDiffusionXLOptions>[]) {
      expect(relativeError(await latentsOf(options), plain), JSON.stringify(options)).toBeGreaterThan(DIFFERENT);
    }
  });

  it("takes zeros for a missing negative prompt, but not for an empty one", async () => {
    const zeros = await latentsOf();
    const empty = await latentsOf({ negativePrompt: "" });
    expect(relativeError(empty, zeros)).toBeGreaterThan(DIFFERENT);
    const encoding = new StableDiffusionXLPipeline({ ...parts(), forceZerosForEmptyPrompt: false });
    expect(await latentsOf({}, encoding)).toEqual(empty);
  });

  it("uses adapters as far as their scale says", async () => {
    const base = await latentsOf();
    await pipe.loadAdapters(`${FOLDER}/adapters.safetensors`);
    pipe.setAdapterScale(0);
    expect(relativeError(await latentsOf(), base)).toBeLessThan(1e-5);
    pipe.setAdapterScale(1);
    expect(relativeError(await latentsOf(), base)).toBeGreaterThan(DIFFERENT);
    pipe.unloadAdapters();
    expect(await latentsOf()).toEqual(base);
    await expect(pipe.loadAdapters("test/reference/pipeline-tiny/adapters.safetensors")).rejects.toThrow(FormatError);
  });

  it("reports its steps, and ends with an AbortError", async () => {
    const controller = new AbortController();
    const seen: number[] = [];
    const onStep = ({ step }: { step: number }) => {
      seen.push(step);
      if (step === 2) controller.abort();
    };
    const run = latentsOf({ steps: 4, onStep, signal: controller.signal });
    await expect(run).rejects.toMatchObject({ name: "AbortError" });
    expect(seen).toEqual([1, 2]);
  });

  it.each<[string, Partial<StableDiffusionXLOptions>, RegExp]>([
    ["a negative second prompt alone", { negativePrompt2: "blue" }, /negativePrompt2 needs a negativePrompt/],
    ["second prompts of another number", { prompt2: ["a", "b"] }, /prompt2 must be one text or one per prompt; got 2/],
    ["a size of one number", { originalSize: [8] as never }, /originalSize must be two numbers of pixels; got \[8\]/],
    ["a crop that is no number", { cropsCoordsTopLeft: [0, Number.NaN] }, /cropsCoordsTopLeft must be two numbers/],
    ["a layer that is not there", { clipSkip: 3 }, /clip_skip.*0 … 3; got 4/],
  ])("refuses %s", async (_, options, message) => {
    const run = latentsOf(options);
    await expect(run).rejects.toBeInstanceOf(ConfigError);
    await expect(run).rejects.toThrow(message);
  });

  it("refuses parts that are missing or do not fit", () => {
    const { textEncoder2, ...rest } = parts();
    const without = { ...rest } as ReturnType<typeof parts>;
    expect(() => new StableDiffusionXLPipeline(without)).toThrow(/textEncoder2 is missing/);
    const fresh = (options: object) =>
      CLIPTextModelWithProjection.fromConfig({ ...textEncoder2.config, ...options }, new Generator(0));
    expect(() => new StableDiffusionXLPipeline({ ...parts(), textEncoder2: fresh({ hidden_size: 32 }) })).toThrow(
      /sum of both text encoders' hidden_size; got 40, 16 and 32/,
    );
    expect(() => new StableDiffusionXLPipeline({ ...parts(), textEncoder2: fresh({ projection_dim: 8 }) })).toThrow(
      /takes 20 features of pooled text.*projection_dim is 8/,
    );
    expect(() => new StableDiffusionXLPipeline({ ...parts(), textEncoder2: fresh({ vocab_size: 9 }) })).toThrow(
      /second text encoder's vocab_size is 9/,
    );
  });

  it("is told apart from Stable Diffusion 1 and 2", async () => {
    await expect(StableDiffusionPipeline.fromPretrained(FOLDER)).rejects.toThrow(
      /must be StableDiffusionPipeline; got "StableDiffusionXLPipeline"\. Load it with StableDiffusionXLPipeline/,
    );
    await expect(StableDiffusionXLPipeline.fromPretrained("test/reference/pipeline-tiny")).rejects.toThrow(FormatError);
    expect(() => new StableDiffusionPipeline(parts())).toThrow(/addition_embed_type must be null or "text"/);
  });
});
