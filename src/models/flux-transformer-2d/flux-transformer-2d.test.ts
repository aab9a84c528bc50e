import { expect, it } from "vitest";
import { checkTransformer } from "../../../test/support/check-transformer.js";
import { transformerGolden } from "../../../test/support/transformer-golden.js";
import { zeros } from "../../tensor/tensor.js";
import { FluxTransformer2DModel } from "./flux-transformer-2d.js";

await checkTransformer("flux", FluxTransformer2DModel, {
  names: ["dev", "schnell"],
  refused: [
    ["patch_size", 2, /got 2/],
    ["in_channels", 18, /got 18/],
    ["out_channels", 64, /must be in_channels=16.*got 64\. Fill, Canny and Depth/],
    ["axes_dims_rope", [4, 4, 6], /must add up to attention_head_dim=12; got 4, 4, 6/],
    ["axes_dims_rope", [4, 3, 5], /axes_dims_rope/],
  ],
});

it("needs a guidance scale where it was distilled with one, and takes none elsewhere", async () => {
  const golden = await transformerGolden("flux", FluxTransformer2DModel);
  const dev = golden.draw("dev");
  await expect(dev.model.predict({ ...dev.inputs, guidance: undefined } as never)).rejects.toThrow(
    /needs guidance \(guidance_embeds is true\)/,
  );
  await expect(dev.model.predict({ ...dev.inputs, guidance: zeros([3]) })).rejects.toThrow(/guidance must be \[2\]/);
  const schnell = golden.draw("schnell");
  await expect(schnell.model.predict({ ...schnell.inputs, guidance: zeros([3]) })).rejects.toThrow(/takes no guidance/);
});
