import { describe, expect, it } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import { readSafetensors } from "../../storage/index.js";
import "../../runtime/node.js";
import "../../storage/node.js";
import { Generator } from "../../tensor/random.js";
import { sliceRows } from "../../tensor/rows.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import { Qwen3Model } from "./qwen3-model.js";

const FOLDER = "test/reference/qwen3";
const TOLERANCE = 2e-5;
const { tensors } = await readSafetensors(`${FOLDER}/expected.safetensors`);
const inputIds = tensors.get("input_ids")!;
const attentionMask = tensors.get("attention_mask")!;
const model = await Qwen3Model.fromPretrained(FOLDER, { subfolder: "" });

it("agrees with transformers on every hidden state, padding's too", async () => {
  const states = await model.hiddenStates(inputIds, { layers: [0, 1, 2, 3], attentionMask });
  const { data, shape } = tensors.get("hidden_states")! as Tensor<"float32">;
  for (const [layer, state] of states.entries()) {
    expect(state.shape).toEqual(shape.slice(1));
    const wanted = data.subarray(layer * state.size, (layer + 1) * state.size);
    expect(relativeError(state.data, wanted), `layer ${layer}`).toBeLessThan(TOLERANCE);
  }
});

it("counts layers from behind, and needs no mask where there is no padding", async () => {
  const first = sliceRows(inputIds, 0, 1);
  const [state, same] = await model.hiddenStates(first, { layers: [-2, 2] });
  expect(same).toEqual(state);
  const { data } = tensors.get("hidden_states")! as Tensor<"float32">;
  const wanted = data.subarray(4 * state!.size, 5 * state!.size);
  expect(relativeError(state!.data, wanted)).toBeLessThan(TOLERANCE);
});

describe("refuses", () => {
  const make = (change: object) => () => Qwen3Model.fromConfig(change, new Generator(0));
  it.each([
    [{ use_sliding_window: true }, /use_sliding_window/],
    [{ layer_types: ["sliding_attention"] }, /layer_types/],
    [{ rope_scaling: { rope_type: "yarn", factor: 4 } }, /rope_scaling/],
    [{ rope_parameters: { rope_type: "yarn" } }, /rope_parameters.rope_type/],
    [{ num_key_value_heads: 5 }, /num_key_value_heads: must divide num_attention_heads/],
    [{ hidden_act: "gelu" }, /hidden_act/],
  ])("%j", (change, message) => expect(make(change)).toThrow(message));

  it("layers, ids and masks that are none", async () => {
    await expect(model.hiddenStates(inputIds, { layers: [4] })).rejects.toThrow(
      /layers must be integers in 0 … 3.*got 4/,
    );
    const strange = tensor([80], [1, 1], "int64");
    await expect(model.hiddenStates(strange, { layers: [1] })).rejects.toThrow(/ids must be in 0 … 79.*got 80/);
    const left = tensor([0, 1, 1], [1, 3], "int64");
    await expect(
      model.hiddenStates(tensor([1, 2, 3], [1, 3], "int64"), { layers: [1], attentionMask: left }),
    ).rejects.toThrow(/ones and behind them zeros, in every row; row 0 is not/);
  });
});
