import { expect, it } from "vitest";
import { isLarge } from "./few-bits.js";
import { int8 } from "./int8-weights.js";

const LARGE = [64, 64];

it.each([
  "transformer_blocks.0.attn.to_q.weight",
  "transformer_blocks.0.attn.add_k_proj.weight",
  "transformer_blocks.0.ff_context.net.2.weight",
  "transformer_blocks.0.norm1.linear.weight",
  "single_transformer_blocks.12.proj_out.weight",
  "single_transformer_blocks.12.attn.to_qkv_mlp_proj.weight",
  "layers.3.feed_forward.w1.weight",
  "encoder.block.0.layer.0.SelfAttention.q.weight",
  "encoder.block.0.layer.1.DenseReluDense.wo.weight",
  "model.layers.0.mlp.down_proj.weight",
])("%s is kept in few bits", (name) => {
  expect(isLarge(name, LARGE)).toBe(true);
  expect(isLarge(name, [64, 16])).toBe(false);
});

it.each([
  "proj_out.weight",
  "x_embedder.weight",
  "context_embedder.weight",
  "cap_embedder.1.weight",
  "all_final_layer.2-1.linear.weight",
  "norm_out.linear.weight",
  "time_text_embed.timestep_embedder.linear_1.weight",
  "time_guidance_embed.guidance_embedder.linear_2.weight",
  "t_embedder.mlp.0.weight",
  "down_blocks.0.attentions.0.proj_out.weight",
  "transformer_blocks.0.attn.to_q.bias",
  "shared.weight",
  "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
  "model.embed_tokens.weight",
])("%s is not: it is at an end, a table, or tells of time", (name) => {
  expect(isLarge(name, LARGE)).toBe(false);
});

it("weights of integers are divided where their products are", () => {
  const blocks = (name: string, shape: readonly number[]) => int8(127).tensors(name, shape)[0]!.shape[0];
  expect(blocks("a.ff.net.0.proj.weight", [8 * 32, 32])).toBe(2);
  expect(blocks("a.ff.net.0.proj.weight", [4 * 32, 32])).toBe(1);
  expect(blocks("a.ff_context.linear_in.weight", [6 * 32, 32])).toBe(2);
  expect(blocks("a.attn.to_qkv_mlp_proj.weight", [9 * 32, 32])).toBe(9);
  expect(blocks("a.attn.to_qkv_mlp_proj.weight", [3 * 32 + 2 * 80, 32])).toBe(16);
  expect(blocks("a.attn.to_q.weight", [32, 32])).toBe(1);
});
