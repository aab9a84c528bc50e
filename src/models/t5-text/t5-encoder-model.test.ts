import { describe, expect, it } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import { readSafetensors } from "../../storage/index.js";
import "../../runtime/node.js";
import "../../storage/node.js";
import { Generator } from "../../tensor/random.js";
import { tensor, zeros } from "../../tensor/tensor.js";
import { T5EncoderModel } from "./t5-encoder-model.js";
import { positionBuckets } from "./t5-position-buckets.js";

const FOLDER = "test/reference/t5-text";
const TOLERANCE = 2e-5;
const { tensors, metadata } = await readSafetensors(`${FOLDER}/expected.safetensors`);

describe("agrees with transformers", () => {
  it.each(["gated", "relu"])("the %s form", async (name) => {
    await using model = await T5EncoderModel.fromPretrained(FOLDER, { subfolder: name });
    const states = await model.encode(tensors.get("input_ids")!);
    const expected = tensors.get(name)!;
    expect(states.shape).toEqual(expected.shape);
    expect(relativeError(states.data, expected.data as Float32Array)).toBeLessThan(TOLERANCE);
  });

  it.each(Object.entries(JSON.parse(metadata.buckets!) as Record<string, [number, number, number]>))(
    "the buckets of distances, %s",
    (name, [tokens, buckets, maxDistance]) => {
      const table = positionBuckets(tokens, { buckets, maxDistance });
      // The last query sees −L+1 … 0, the first one 0 … L−1.
      const found = [...table.slice((tokens - 1) * tokens), ...table.slice(1, tokens)].map(Number);
      expect(found).toEqual([...(tensors.get(`buckets.${name}`)!.data as Int32Array)]);
    },
  );
});

describe("refuses", () => {
  const make = (change: object) => () => T5EncoderModel.fromConfig(change, new Generator(0));
  it.each([
    [{ feed_forward_proj: "gated-silu" }, /feed_forward_proj.*"gated-silu"/],
    [{ feed_forward_proj: "gated-gelu", dense_act_fn: "relu" }, /dense_act_fn: must be what feed_forward_proj says/],
    [{ feed_forward_proj: "relu", is_gated_act: true }, /is_gated_act: must be what feed_forward_proj says/],
    [{ is_decoder: true }, /is_decoder/],
    [{ relative_attention_max_distance: 8 }, /above a quarter of relative_attention_num_buckets/],
    [{ rope_theta: 1 }, /unsupported option rope_theta/],
  ])("%j", (change, message) => expect(make(change)).toThrow(message));

  it("ids that are none, and too many of them", async () => {
    const model = await T5EncoderModel.fromPretrained(FOLDER, { subfolder: "gated" });
    await expect(model.encode(tensor([60], [1, 1], "int64"))).rejects.toThrow(/ids must be in 0 … 59.*got 60/);
    await expect(model.encode(zeros([1, 2]))).rejects.toThrow(/inputIds must be int64 \[B, L\]/);
    await expect(model.encode(zeros([1, 5000], "int64"))).rejects.toThrow(/at most 4096 tokens/);
  });
});
