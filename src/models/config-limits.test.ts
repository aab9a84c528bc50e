import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import "../storage/node.js";
import { ConfigError, FormatError } from "../errors.js";
import { createScheduler } from "../schedulers/index.js";
import { encodeSafetensors } from "../storage/index.js";
import { tensor } from "../tensor/tensor.js";
import { KNOWN_MODELS } from "./known-models.js";

let root: string;

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "fera-limits-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

/** Loads a folder of one weight that has this configuration. */
async function load(className: string, config: object): Promise<unknown> {
  const name = className.startsWith("CLIP") ? "model" : "diffusion_pytorch_model";
  const kind = className.startsWith("CLIP") ? { architectures: [className] } : { _class_name: className };
  await writeFile(join(root, "config.json"), JSON.stringify({ ...kind, ...config }));
  await writeFile(join(root, `${name}.safetensors`), encodeSafetensors({ a: tensor([1]) }));
  return KNOWN_MODELS.get(className)!.fromPretrained(root, { subfolder: "" });
}

const HUGE = 2 ** 31;

describe("a number in config.json that would fill the memory is refused by its name", () => {
  it.each([
    ["UNet2DConditionModel", { layers_per_block: HUGE }, /layers_per_block/],
    ["UNet2DConditionModel", { layers_per_block: [2, 2, 2, HUGE] }, /layers_per_block/],
    ["UNet2DConditionModel", { transformer_layers_per_block: HUGE }, /transformer_layers_per_block/],
    ["UNet2DConditionModel", { block_out_channels: [HUGE, 640, 1280, 1280] }, /block_out_channels/],
    ["UNet2DConditionModel", { cross_attention_dim: HUGE }, /cross_attention_dim/],
    ["UNet2DConditionModel", { block_out_channels: Array(40).fill(32) }, /block_out_channels/],
    ["AutoencoderKL", { layers_per_block: HUGE }, /layers_per_block/],
    ["AutoencoderKL", { latent_channels: HUGE }, /latent_channels/],
    ["AutoencoderKL", { block_out_channels: Array(1100).fill(32) }, /block_out_channels/],
    ["AutoencoderTiny", { num_encoder_blocks: [1, 3, 3, HUGE] }, /num_encoder_blocks/],
    ["AutoencoderTiny", { encoder_block_out_channels: Array(1100).fill(64) }, /encoder_block_out_channels/],
    ["CLIPTextModel", { num_hidden_layers: HUGE }, /num_hidden_layers/],
    ["CLIPTextModel", { vocab_size: HUGE }, /vocab_size/],
    ["CLIPTextModelWithProjection", { projection_dim: HUGE }, /projection_dim/],
  ])("%s %j", async (className, config, message) => {
    const failure = await load(className, config).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(ConfigError);
    expect((failure as Error).message).toMatch(message);
  });

  it("in a scheduler's configuration", () => {
    for (const key of ["num_train_timesteps", "original_inference_steps"]) {
      const make = () => createScheduler({ _class_name: "LCMScheduler", [key]: 1_000_000_000 });
      expect(make).toThrow(new RegExp(`LCMScheduler: ${key}=1000000000 is invalid`));
    }
  });
});

it("a configuration within all limits that asks for a million weights is given up soon", async () => {
  const startedAt = performance.now();
  const deep = { layers_per_block: 1000, transformer_layers_per_block: 1000 };
  const failure = await load("UNet2DConditionModel", deep).catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(FormatError);
  expect((failure as Error).message).toMatch(/"time_embedding\.linear_1\.weight" is missing.* at least 999 more/);
  expect(performance.now() - startedAt).toBeLessThan(20_000);
});
