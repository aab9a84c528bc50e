import { expect, it } from "vitest";
import { checkTransformer } from "../../../test/support/check-transformer.js";
import { relativeError } from "../../../test/support/relative-error.js";
import { transformerGolden } from "../../../test/support/transformer-golden.js";
import { tensor, zeros } from "../../tensor/tensor.js";
import { ZImageTransformer2DModel } from "./z-image-transformer-2d.js";

await checkTransformer("z-image", ZImageTransformer2DModel, {
  names: ["z-image", "long"],
  refused: [
    ["all_patch_size", [2, 4], /got \[2,4\]/],
    ["all_f_patch_size", [2], /got 2/],
    ["n_kv_heads", 1, /must be n_heads=2; got 1/],
    ["siglip_feat_dim", 1152, /got 1152/],
    ["axes_dims", [4, 4, 6], /must add up to dim \/ n_heads = 12; got 4, 4, 6/],
    ["n_heads", 5, /must divide dim=24; got 5/],
  ],
});

const golden = await transformerGolden("z-image", ZImageTransformer2DModel);
const mask = (...lengths: number[]) =>
  tensor(
    lengths.flatMap((length) => Array.from({ length: 32 }, (_, i) => +(i < length))),
    [lengths.length, 32],
  );

it("takes captions of several lengths, filled up to one, as diffusers takes each by itself", async () => {
  const { model, inputs } = golden.draw("z-image");
  const states = inputs.encoderHiddenStates!;
  const width = states.shape[2]!;
  const filled = zeros([2, 32, width], "float32");
  // The second caption has three tokens; what follows must not count.
  for (const row of [0, 1]) {
    const own = (states.data as Float32Array).subarray(row * 5 * width, (row + 1) * 5 * width);
    filled.data.set(own, row * 32 * width);
  }
  const together = await model.predict({
    ...inputs,
    encoderHiddenStates: filled,
    encoderAttentionMask: mask(5, 3),
  });
  const whole = await model.predict(inputs);
  const size = whole.size / 2;
  expect(relativeError(together.data.subarray(0, size), whole.data.subarray(0, size))).toBeLessThan(1e-5);
  const short = tensor(
    [0, 1].flatMap((row) => [...(states.data as Float32Array).subarray(row * 5 * width, (row * 5 + 3) * width)]),
    [2, 3, width],
  );
  const alone = await model.predict({ ...inputs, encoderHiddenStates: short });
  expect(relativeError(together.data.subarray(size), alone.data.subarray(size))).toBeLessThan(1e-5);
  expect(relativeError(together.data.subarray(size), whole.data.subarray(size))).toBeGreaterThan(1e-3);
  await model.dispose();
});

it("refuses captions that are too long, and masks that mean no length", async () => {
  const { model, inputs } = golden.draw("z-image");
  const refusal = (change: object) => expect(model.predict({ ...inputs, ...change })).rejects;
  await refusal({ encoderHiddenStates: zeros([2, 79, 10]) }).toThrow(/shorter than axes_lens\[0\]=80 − 1 tokens; got/);
  await refusal({ latents: zeros([2, 4, 34, 4]) }).toThrow(/must be 32 or less \(axes_lens=16\); got 34 × 4/);
  const encoderHiddenStates = zeros([2, 64, 10]);
  const lengths = tensor([...mask(32, 32).data, ...mask(20, 0).data], [2, 64]);
  await refusal({ encoderHiddenStates, encoderAttentionMask: lengths }).toThrow(
    /must fill the same multiple of 32 tokens, 64 here; row 1 has 20/,
  );
  const holes = tensor(
    Array.from({ length: 10 }, (_, i) => i % 2),
    [2, 5],
  );
  await refusal({ encoderAttentionMask: holes }).toThrow(/must be ones, then zeros, in every row; row 0 is not/);
  await refusal({ encoderAttentionMask: zeros([2, 6]) }).toThrow(/encoderAttentionMask must be \[2, 5\]/);
});
