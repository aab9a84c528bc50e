import { describe, expect, it } from "vitest";
import { kohyaName, kohyaNamingOf } from "../index.js";

describe("kohya's names", () => {
  it.each([
    [
      "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0",
      "down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0",
    ],
    [
      "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
      "mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj",
    ],
    ["up_blocks.3.resnets.2.time_emb_proj", "up_blocks_3_resnets_2_time_emb_proj"],
  ])("of Stable Diffusion 1 and 2 are the paths: %s", (path, name) => {
    expect(kohyaName(path, "diffusers")).toBe(`lora_unet_${name}`);
  });

  // The numbers are those of the published checkpoint sd_xl_base_1.0.
  it.each([
    ["down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k", "input_blocks_4_1_transformer_blocks_1_attn2_to_k"],
    ["down_blocks.2.attentions.1.proj_in", "input_blocks_8_1_proj_in"],
    ["down_blocks.0.resnets.0.time_emb_proj", "input_blocks_1_0_emb_layers_1"],
    ["mid_block.attentions.0.transformer_blocks.9.ff.net.2", "middle_block_1_transformer_blocks_9_ff_net_2"],
    ["mid_block.resnets.1.time_emb_proj", "middle_block_2_emb_layers_1"],
    ["up_blocks.0.attentions.2.transformer_blocks.0.attn1.to_q", "output_blocks_2_1_transformer_blocks_0_attn1_to_q"],
    ["up_blocks.1.attentions.0.proj_out", "output_blocks_3_1_proj_out"],
    ["time_embedding.linear_2", "time_embed_2"],
    ["add_embedding.linear_1", "label_emb_0_0"],
  ])("of XL are the original code's: %s", (path, name) => {
    expect(kohyaName(path, "original")).toBe(`lora_unet_${name}`);
  });

  it("are told from the layers", () => {
    const layer = (path: string, inFeatures = 320) => ({
      path,
      kind: "linear" as const,
      inFeatures,
      outFeatures: 320,
      kernelSize: 1,
    });
    const query = "down_blocks.1.attentions.0.transformer_blocks.0.attn2";
    expect(kohyaNamingOf([layer(`${query}.to_k`, 768)])).toBe("diffusers");
    expect(kohyaNamingOf([layer(`${query}.to_k`, 1024)])).toBe("diffusers");
    expect(kohyaNamingOf([layer(`${query}.to_k`, 2048)])).toBe("original");
    expect(kohyaNamingOf([layer("mid_block.attentions.0.transformer_blocks.1.attn1.to_q")])).toBe("original");
  });

  it("are refused where the original code has no such layer", () => {
    expect(() => kohyaName("encoder.layer", "original")).toThrow(/encoder\.layer: kohya's format has no name/);
  });
});
