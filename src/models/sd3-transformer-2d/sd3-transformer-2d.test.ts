import { expect, it } from "vitest";
import { checkTransformer } from "../../../test/support/check-transformer.js";
import { transformerGolden } from "../../../test/support/transformer-golden.js";
import { zeros } from "../../tensor/tensor.js";
import { SD3Transformer2DModel } from "./sd3-transformer-2d.js";

await checkTransformer("sd3", SD3Transformer2DModel, {
  names: ["sd3", "sd3.5"],
  extraWeights: ["pos_embed.pos_embed"],
  refused: [
    ["qk_norm", "layer_norm", /got "layer_norm"/],
    ["out_channels", 8, /must be in_channels=4.*got 8/],
    ["caption_projection_dim", 20, /must be num_attention_heads · attention_head_dim = 16.*got 20/],
    ["dual_attention_layers", [0, 2], /must name blocks 0 … 1; got 2/],
  ],
});

it("refuses latents larger than its table of positions", async () => {
  const golden = await transformerGolden("sd3", SD3Transformer2DModel);
  const { model, inputs } = golden.draw("sd3");
  await expect(model.predict({ ...inputs, latents: zeros([3, 4, 26, 8]) })).rejects.toThrow(
    /must be 24 or less \(pos_embed_max_size=12\); got 26 × 8/,
  );
  await expect(model.predict({ ...inputs, pooledProjections: zeros([3, 9]) })).rejects.toThrow(
    /pooledProjections must be \[3, 10\] \(pooled_projection_dim\); got \[3,9\]/,
  );
});
