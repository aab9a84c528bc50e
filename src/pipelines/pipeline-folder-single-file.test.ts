import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { SD1_LAYOUT, SD2_LAYOUT, SDXL_LAYOUT, singleFileOf, weightsOf } from "../../test/support/single-file.js";
import type { Model } from "../models/model.js";
import type { Weight } from "../nn/index.js";
import { encodeSafetensors } from "../storage/index.js";
import { float32ToFloat16 } from "../tensor/float16.js";
import { type Tensor, tensor, toBytes } from "../tensor/tensor.js";
import "../storage/node.js";
import "../runtime/node.js";
import { describePipeline } from "./pipeline-folder.js";
import { StableDiffusionPipeline } from "./stable-diffusion/stable-diffusion-pipeline.js";
import { StableDiffusionXLPipeline } from "./stable-diffusion/stable-diffusion-xl-pipeline.js";

const TINY = "test/reference/pipeline-tiny";
const TINY_XL = "test/reference/pipeline-tiny-xl";

let root: string;
let file: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "fera-single-"));
  file = join(root, "model.safetensors");
});
afterEach(() => rm(root, { recursive: true, force: true }));

async function bytesOf(weight: Weight): Promise<Buffer> {
  if ("tensor" in weight) return Buffer.from(toBytes(weight.tensor));
  const { path, offset, length } = weight.range;
  return (await readFile(path)).subarray(offset, offset + length);
}

/** Every weight of the model is that of the folder. */
async function expectSame(model: Model<unknown>, dir: string, component: string): Promise<void> {
  const expected = await weightsOf(dir, component);
  const { weights } = model.weights;
  expect([...weights.keys()].sort()).toEqual([...expected.keys()].sort());
  for (const [name, value] of expected) {
    const weight = weights.get(name)!;
    expect([name, weight.shape]).toEqual([name, value.shape]);
    expect([name, (await bytesOf(weight)).equals(toBytes(value))]).toEqual([name, true]);
  }
}

const latentsOf = async (pipeline: StableDiffusionPipeline) => {
  const { latents } = await pipeline.generate({ prompt: "a red circle", steps: 2, seed: 1 });
  await pipeline.release();
  return latents;
};

describe("a single-file checkpoint", () => {
  it("of Stable Diffusion 1.x is its folder again, weight for weight and in what it makes", async () => {
    const tensors: Map<string, Tensor> = new Map(await singleFileOf(TINY, SD1_LAYOUT));
    tensors.set("cond_stage_model.transformer.text_model.embeddings.position_ids", tensor([0, 1], [1, 2]));
    tensors.set("model_ema.decay", tensor([1]));
    tensors.set("alphas_cumprod", tensor([1]));
    await writeFile(file, encodeSafetensors(tensors));
    const pipeline = await StableDiffusionPipeline.fromSingleFile(file, { config: TINY });
    await expectSame(pipeline.unet, TINY, "unet");
    await expectSame(pipeline.vae, TINY, "vae");
    await expectSame(pipeline.textEncoder, TINY, "text_encoder");
    const folder = await StableDiffusionPipeline.fromPretrained(TINY);
    expect((await latentsOf(pipeline)).data).toEqual((await latentsOf(folder)).data);
  });

  it("of float16 is converted, whatever prefix its text encoder has", async () => {
    const tensors = await singleFileOf(TINY, SD2_LAYOUT);
    tensors.set("cond_stage_model.model.transformer.resblocks.99.ln_1.weight", tensor([1]));
    tensors.set("cond_stage_model.model.text_projection", tensor([1], [1, 1]));
    const half = [...tensors].map(([name, { data, shape }]): [string, Tensor] => [
      name,
      tensor(float32ToFloat16(data), shape, "float16"),
    ]);
    await writeFile(file, encodeSafetensors(new Map(half)));
    const pipeline = await StableDiffusionPipeline.fromSingleFile(file, { config: TINY });
    for (const [component, model] of [
      ["unet", pipeline.unet],
      ["text_encoder", pipeline.textEncoder],
    ] as const) {
      for (const [name, expected] of await weightsOf(TINY, component)) {
        const { tensor: found } = model.weights.weights.get(name) as { tensor: Tensor<"float32"> };
        expect([name, float32ToFloat16(found.data)]).toEqual([name, float32ToFloat16(expected.data)]);
      }
    }
  });

  it("of Stable Diffusion XL is its folder again", async () => {
    await writeFile(file, encodeSafetensors(await singleFileOf(TINY_XL, SDXL_LAYOUT)));
    const pipeline = await StableDiffusionXLPipeline.fromSingleFile(file, { config: TINY_XL });
    await expectSame(pipeline.unet, TINY_XL, "unet");
    await expectSame(pipeline.vae, TINY_XL, "vae");
    await expectSame(pipeline.textEncoder, TINY_XL, "text_encoder");
    await expectSame(pipeline.textEncoder2, TINY_XL, "text_encoder_2");
  });

  it("without a tokenizer beside it or a config is refused with what to do", async () => {
    await writeFile(file, encodeSafetensors(await singleFileOf(TINY, SD1_LAYOUT)));
    await expect(describePipeline(file)).rejects.toThrow(
      /holds no tokenizer.*Put a folder "tokenizer".*or give `config`/,
    );
    await cp(join(TINY, "tokenizer"), join(root, "tokenizer"), { recursive: true });
    await expect(describePipeline(file)).resolves.toMatchObject({
      source: file,
      tokenizerSource: root,
      vaeClass: "AutoencoderKL",
      schedulerConfig: { _class_name: "PNDMScheduler", steps_offset: 1 },
    });
    // The built-in configuration is the real model's; the tiny one does not fit it.
    await expect(StableDiffusionPipeline.fromSingleFile(file)).rejects.toThrow(
      /the weight "text_model\.embeddings\.token_embedding\.weight" is \[\d+,\d+\]; the configuration needs/,
    );
  });

  it("of 2.x and XL without a config are refused", async () => {
    for (const [dir, layout, family] of [
      [TINY, SD2_LAYOUT, "2.x"],
      [TINY_XL, SDXL_LAYOUT, "XL"],
    ] as const) {
      await writeFile(file, encodeSafetensors(await singleFileOf(dir, layout)));
      await expect(describePipeline(file)).rejects.toThrow(
        new RegExp(`is a Stable Diffusion ${family} checkpoint.*config`),
      );
    }
  });

  it("with tensors that the model has no place for is refused", async () => {
    const tensors = await singleFileOf(TINY, SD1_LAYOUT);
    tensors.set("model.diffusion_model.extra.weight", tensor([1]));
    await writeFile(file, encodeSafetensors(tensors));
    const loading = StableDiffusionPipeline.fromSingleFile(file, { config: TINY });
    await expect(loading).rejects.toThrow(/"extra\.weight", which this model has no place for/);
  });

  it("with tensors that are of no model is refused, unless they are known to change nothing", async () => {
    const tensors: Map<string, Tensor> = new Map(await singleFileOf(TINY, SD1_LAYOUT));
    const load = async () => {
      await writeFile(file, encodeSafetensors(tensors));
      return StableDiffusionPipeline.fromSingleFile(file, { config: TINY });
    };
    const harmless = [
      "model_ema.diffusion_modelinput_blocks00weight",
      "betas",
      "alphas_cumprod_prev",
      "sqrt_one_minus_alphas_cumprod",
      "log_one_minus_alphas_cumprod",
      "sqrt_recipm1_alphas_cumprod",
      "posterior_log_variance_clipped",
      "posterior_mean_coef2",
      "first_stage_model.loss.logvar",
      "cond_stage_model.transformer.vision_model.post_layernorm.weight",
      "cond_stage_model.transformer.logit_scale",
    ];
    for (const name of harmless) tensors.set(name, tensor([1]));
    await expect(load()).resolves.toBeDefined();
    tensors.set("control_model.input_blocks.0.0.weight", tensor([1]));
    await expect(load()).rejects.toThrow(
      /of no part of a Stable Diffusion 1\.x pipeline: "control_model\.input_blocks/,
    );
  });

  it("that is marked as trained to predict velocity needs a scheduler that says so", async () => {
    const tensors: Map<string, Tensor> = new Map(await singleFileOf(TINY, SD1_LAYOUT));
    tensors.set("v_pred", tensor([], [0]));
    await writeFile(file, encodeSafetensors(tensors));
    await expect(describePipeline(file, undefined, { config: TINY })).rejects.toThrow(
      /is marked "v_pred": its scheduler needs prediction_type "v_prediction"; the configuration says "epsilon"/,
    );
    const config = join(root, "config");
    await cp(TINY, config, { recursive: true });
    const scheduler = join(config, "scheduler/scheduler_config.json");
    const given = JSON.parse(await readFile(scheduler, "utf8"));
    await writeFile(scheduler, JSON.stringify({ ...given, prediction_type: "v_prediction" }));
    await expect(StableDiffusionPipeline.fromSingleFile(file, { config })).resolves.toBeDefined();
  });

  it("of Stable Diffusion 2.x may have one layer of the text encoder more, not two", async () => {
    const tensors: Map<string, Tensor> = new Map(await singleFileOf(TINY, SD2_LAYOUT));
    const load = async (...layers: number[]) => {
      const more = layers.map(
        (i) => [`cond_stage_model.model.transformer.resblocks.${i}.ln_1.weight`, tensor([1])] as const,
      );
      await writeFile(file, encodeSafetensors(new Map([...tensors, ...more])));
      return StableDiffusionPipeline.fromSingleFile(file, { config: TINY });
    };
    await expect(load(2)).resolves.toBeDefined();
    await expect(load(2, 3)).rejects.toThrow(/layers 2 and 3, but num_hidden_layers is 2/);
  });

  it("that is none is refused", async () => {
    await writeFile(file, encodeSafetensors({ "lora.up": tensor([1]) }));
    await expect(StableDiffusionPipeline.fromSingleFile(file)).rejects.toThrow(/no whole Stable Diffusion.*lora\.up/);
    const pickled = join(root, "model.ckpt");
    await writeFile(pickled, "");
    await expect(StableDiffusionPipeline.fromSingleFile(pickled)).rejects.toThrow(/pickled checkpoint.*convert it/);
  });
});
