import { describe, expect, it } from "vitest";
import { checkEncodeAll } from "../../../test/support/check-clip-text.js";
import { relativeError } from "../../../test/support/relative-error.js";
import { ConfigError, FormatError } from "../../errors.js";
import { readSafetensors } from "../../storage/index.js";
import { Generator } from "../../tensor/random.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import "../../runtime/node.js";
import "../../storage/node.js";
import { CLIPTextModelWithProjection } from "./clip-text-model-with-projection.js";

const FOLDER = "test/reference/clip-text-projection";
const EXPECTED = `${FOLDER}/expected.safetensors`;
/** Relative L2 distance between two float32 implementations. */
const TOLERANCE = 2e-5;

const tiny = {
  vocab_size: 5,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  max_position_embeddings: 6,
  hidden_act: "gelu",
  eos_token_id: 4,
  projection_dim: 3,
};

describe("CLIPTextModelWithProjection", () => {
  it.each(["quick_gelu", "gelu"] as const)("agrees with transformers, activation %s", async (activation) => {
    const loaded = await CLIPTextModelWithProjection.fromPretrained(FOLDER);
    const config = { ...loaded.config, hidden_act: activation };
    const model = new CLIPTextModelWithProjection(config, loaded.weights);
    const legacy = new CLIPTextModelWithProjection({ ...config, eos_token_id: 2 }, loaded.weights);
    await checkEncodeAll(model, legacy, EXPECTED, activation);
  });

  it("encodes the last hidden state alone, without a projection", async () => {
    const { tensors } = await readSafetensors(EXPECTED);
    const model = await CLIPTextModelWithProjection.fromPretrained(FOLDER);
    const states = await model.encode(tensors.get("input_ids") as Tensor<"int64">);
    expect(relativeError(states.data, tensors.get("gelu")!.data as Float32Array)).toBeLessThan(TOLERANCE);
    await model.release();
  });

  it("draws a fresh projection under the checkpoint's name, without a bias", async () => {
    const model = CLIPTextModelWithProjection.fromConfig(tiny, new Generator(2));
    const names = [...model.weights.weights.keys()].filter((name) => name.startsWith("text_projection"));
    expect(names).toEqual(["text_projection.weight"]);
    const { pooled } = await model.encodeAll(tensor([0, 1, 4, 0, 4, 4], [2, 3], "int64"));
    expect(pooled.shape).toEqual([2, 3]);
    await model.release();
  });

  it("refuses a projection without a size, by name", () => {
    const make = (projection_dim: unknown) => () =>
      CLIPTextModelWithProjection.fromConfig({ ...tiny, projection_dim }, new Generator(0));
    expect(make(0)).toThrow(/projection_dim/);
    expect(make(null)).toThrow(ConfigError);
  });

  it("refuses the folder of a model without a projection", async () => {
    const opened = CLIPTextModelWithProjection.fromPretrained("test/reference/clip-text", {
      subfolder: "text_encoder",
    });
    await expect(opened).rejects.toThrow(FormatError);
    await expect(opened).rejects.toThrow(/CLIPTextModelWithProjection/);
  });
});
