import { expect, it } from "vitest";
import { checkTransformer } from "../../../test/support/check-transformer.js";
import { transformerGolden } from "../../../test/support/transformer-golden.js";
import { AdapterModel, LoRAConfig } from "../../adapters/index.js";
import { Flux2Transformer2DModel } from "./flux2-transformer-2d.js";

await checkTransformer("flux2", Flux2Transformer2DModel, {
  names: ["klein", "dev"],
  refused: [
    ["patch_size", 2, /got 2/],
    ["out_channels", 32, /must be in_channels=16.*got 32/],
    ["axes_dims_rope", [4, 4, 6, 4], /must add up to attention_head_dim=16; got 4, 4, 6, 4/],
    ["axes_dims_rope", [4, 6, 6], /axes_dims_rope/],
    ["guidance_embeds", "yes", /got "yes"/],
  ],
});

it("adapts attentions and the single blocks' whole projections unless told otherwise", async () => {
  const golden = await transformerGolden("flux2", Flux2Transformer2DModel);
  const { layers } = new AdapterModel(golden.draw("klein").model, new LoRAConfig({ rank: 1 }));
  expect(layers.map(({ path }) => path).filter((path) => path.includes("blocks.1."))).toEqual([
    ...["to_q", "to_k", "to_v", "to_out.0"].map((name) => `transformer_blocks.1.attn.${name}`),
    ...["to_qkv_mlp_proj", "to_out"].map((name) => `single_transformer_blocks.1.attn.${name}`),
  ]);
});
