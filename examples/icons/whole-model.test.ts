import { expect, it } from "vitest";
import { CLIPTextModel } from "../../src/models/clip-text/clip-text-model.js";
import { UNet2DConditionModel } from "../../src/models/unet-2d-condition/unet-2d-condition.js";
import "../../src/runtime/node.js";
import { Generator, randn } from "../../src/tensor/random.js";
import { tensor } from "../../src/tensor/tensor.js";
import { WholeModel } from "./whole-model.js";

const UNET = {
  down_block_types: ["CrossAttnDownBlock2D", "DownBlock2D"],
  up_block_types: ["UpBlock2D", "CrossAttnUpBlock2D"],
  block_out_channels: [8, 16],
  layers_per_block: 1,
  norm_num_groups: 4,
  cross_attention_dim: 16,
  attention_head_dim: 2,
};
const TEXT = {
  vocab_size: 20,
  hidden_size: 16,
  intermediate_size: 32,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  max_position_embeddings: 4,
  hidden_act: "quick_gelu",
};

it("gives the very same gradients of all weights with recomputation", async () => {
  const generator = new Generator(3);
  const unet = UNet2DConditionModel.fromConfig(UNET, generator);
  const textEncoder = CLIPTextModel.fromConfig(TEXT, generator);
  const batch = {
    latents: randn([2, 4, 8, 8], { generator }),
    timesteps: tensor([10, 900], [2], "int64"),
    inputIds: tensor([1, 5, 6, 2, 1, 7, 2, 2], [2, 4], "int64"),
    target: randn([2, 4, 8, 8], { generator }),
  };
  const results = [];
  for (const gradientCheckpointing of [false, true]) {
    const sizes = { batchSize: 2, height: 8, width: 8, tokens: 4 };
    const whole = await WholeModel.compile({ denoiser: unet, textEncoder }, { ...sizes, gradientCheckpointing });
    results.push(await whole.compute(batch));
    await whole.release();
  }
  expect(results[1]!.gradients.size).toBeGreaterThan(100);
  expect(results[1]).toEqual(results[0]);
});
