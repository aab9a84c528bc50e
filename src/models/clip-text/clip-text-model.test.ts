import { describe, expect, it } from "vitest";
import { checkEncodeAll } from "../../../test/support/check-clip-text.js";
import { checkGradients } from "../../../test/support/check-gradients.js";
import { relativeError } from "../../../test/support/relative-error.js";
import { ConfigError, FormatError, ShapeError } from "../../errors.js";
import { type ParameterSource, Scope } from "../../nn/index.js";
import { readSafetensors } from "../../storage/index.js";
import { Generator, randn } from "../../tensor/random.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import "../../storage/node.js";
import { CLIPTextModel, clipTextModel } from "./clip-text-model.js";

const FOLDER = "test/reference/clip-text";
/** Relative L2 distance between two float32 implementations. */
const TOLERANCE = 2e-5;

const tiny = {
  vocab_size: 5,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  max_position_embeddings: 6,
};

describe("golden values", () => {
  for (const activation of ["quick_gelu", "gelu"] as const) {
    it(`agrees with transformers, activation ${activation}`, async () => {
      const loaded = await CLIPTextModel.fromPretrained(FOLDER);
      const model = new CLIPTextModel({ ...loaded.config, hidden_act: activation }, loaded.weights);
      const { tensors } = await readSafetensors(`${FOLDER}/expected.safetensors`);
      const states = await model.encode(tensors.get("input_ids") as Tensor<"int64">);
      const expected = tensors.get(activation)!;
      expect(states.shape).toEqual(expected.shape);
      expect(relativeError(states.data, expected.data as Float32Array)).toBeLessThan(TOLERANCE);
      await model.release();
    });
  }

  for (const activation of ["quick_gelu", "gelu"] as const) {
    it(`agrees with transformers in every hidden state and the pooled state, activation ${activation}`, async () => {
      const loaded = await CLIPTextModel.fromPretrained(FOLDER);
      const model = new CLIPTextModel({ ...loaded.config, hidden_act: activation }, loaded.weights);
      const legacy = new CLIPTextModel({ ...model.config, eos_token_id: 2 }, loaded.weights);
      await checkEncodeAll(model, legacy, `${FOLDER}/expected.safetensors`, activation);
    });
  }

  it("reads weights saved without their common prefix", async () => {
    const { tensors } = await readSafetensors(`${FOLDER}/expected.safetensors`);
    const model = await CLIPTextModel.fromPretrained(FOLDER, { subfolder: "text_encoder_without_prefix" });
    const states = await model.encode(tensors.get("input_ids") as Tensor<"int64">);
    expect(relativeError(states.data, tensors.get("quick_gelu")!.data as Float32Array)).toBeLessThan(TOLERANCE);
    await model.release();
  });
});

it("encodes a shorter input as the beginning of a longer one: positions start at 0, tokens see earlier ones only", async () => {
  const model = CLIPTextModel.fromConfig(tiny, new Generator(0));
  const long = await model.encode(ids([0, 3, 1, 4, 2, 2], [1, 6]));
  const short = await model.encode(ids([0, 3, 1], [1, 3]));
  expect(relativeError(short.data, long.data.subarray(0, short.size))).toBeLessThan(TOLERANCE);
  await model.release();
});

it("draws fresh weights from the generator, under the checkpoint's names", () => {
  const { weights } = CLIPTextModel.fromConfig(tiny, new Generator(3)).weights;
  const values = (name: string) => (weights.get(name) as { tensor: Tensor<"float32"> }).tensor.data;
  const table = values("text_model.embeddings.token_embedding.weight");
  expect(Math.max(...table.map(Math.abs))).toBeLessThan(0.1);
  expect(new Set(table).size).toBeGreaterThan(30);
  expect(values("text_model.final_layer_norm.weight")).toEqual(new Float32Array(8).fill(1));
  expect(weights.size).toBe(2 + 2 * 16 + 2);
});

it("has gradients in the token embeddings and in a weight that agree with finite differences", async () => {
  const { config, weights } = CLIPTextModel.fromConfig(tiny, new Generator(5));
  const watched = {
    "text_model.embeddings.token_embedding.weight": randn([5, 8], { generator: new Generator(1) }),
    "text_model.encoder.layers.0.self_attn.k_proj.weight": randn([8, 8], { generator: new Generator(2) }),
    "text_model.encoder.layers.1.mlp.fc1.weight": randn([12, 8], { generator: new Generator(4) }),
  };
  await checkGradients({
    inputs: watched,
    fixed: { ids: ids([0, 3, 1, 4, 2, 2, 4, 0], [2, 4]) },
    build: (values) => {
      const source: ParameterSource = {
        parameter: (graph, path, shape) => values[path] ?? weights.parameter(graph, path, shape),
      };
      return clipTextModel(new Scope(values.ids!.graph, source), { inputIds: values.ids! }, config);
    },
  });
});

describe("encodeAll", () => {
  it("without options gives encode's states, and their row at the first end token", async () => {
    const model = CLIPTextModel.fromConfig({ ...tiny, eos_token_id: 4 }, new Generator(1));
    const prompts = ids([0, 3, 4, 4, 4, 0, 1, 2, 3, 4], [2, 5]);
    const states = await model.encode(prompts);
    const all = await model.encodeAll(prompts);
    expect(all.lastHiddenState.data).toEqual(states.data);
    expect(all.hiddenState).toBe(all.lastHiddenState);
    expect(all.pooled.shape).toEqual([2, 8]);
    expect([...all.pooled.data]).toEqual([...states.data.subarray(2 * 8, 3 * 8), ...states.data.subarray(9 * 8)]);
    await model.release();
  });

  it("pools the first position where there is no end token, as transformers does", async () => {
    const model = CLIPTextModel.fromConfig(tiny, new Generator(1));
    const { lastHiddenState, pooled } = await model.encodeAll(ids([3, 1, 2], [1, 3]));
    expect(pooled.data).toEqual(lastHiddenState.data.slice(0, 8));
    await model.release();
  });

  it("refuses layers that the model does not have, and ids outside the vocabulary", async () => {
    const model = CLIPTextModel.fromConfig(tiny, new Generator(1));
    for (const hiddenLayersFromEnd of [3, -1, 0.5]) {
      const wrong = model.encodeAll(ids([0], [1, 1]), { hiddenLayersFromEnd });
      await expect(wrong).rejects.toThrow(ConfigError);
      await expect(wrong).rejects.toThrow(`0 … 2; got ${hiddenLayersFromEnd}`);
    }
    await expect(model.encodeAll(ids([5], [1, 1]))).rejects.toThrow(ShapeError);
  });
});

describe("refuses by name", () => {
  const make = (change: object) => () => CLIPTextModel.fromConfig({ ...tiny, ...change }, new Generator(0));

  it("an activation that is not supported", () => {
    expect(make({ hidden_act: "relu" })).toThrow(/hidden_act.*"relu"/);
    expect(make({ hidden_act: "relu" })).toThrow(ConfigError);
  });

  it("an end token that is no id", () => {
    expect(make({ eos_token_id: [4] })).toThrow(/eos_token_id/);
    expect(make({ eos_token_id: null })).toThrow(ConfigError);
  });

  it("an option that is not known", () => {
    expect(make({ rope_theta: 10000 })).toThrow(/unsupported option rope_theta=10000/);
  });

  it("heads that do not divide the hidden size", () => {
    expect(make({ num_attention_heads: 3 })).toThrow(/num_attention_heads: must divide hidden_size; got 3/);
  });

  it("more tokens than there are positions", async () => {
    const model = make({})();
    await expect(model.encode(ids([0, 1, 2, 3, 4, 0, 1], [1, 7]))).rejects.toThrow(/1 to 6 tokens/);
    await expect(model.encode(ids([0, 1, 2, 3, 4, 0, 1], [1, 7]))).rejects.toThrow(ShapeError);
    await expect(model.encode(ids([], [1, 0]))).rejects.toThrow(ShapeError);
  });

  it("ids outside the vocabulary, and inputs that are not [B, L]", async () => {
    const model = make({})();
    await expect(model.encode(ids([0, 5], [1, 2]))).rejects.toThrow(/0 … 4 \(vocab_size\); got 5/);
    await expect(model.encode(ids([0, -1], [1, 2]))).rejects.toThrow(/got -1/);
    await expect(model.encode(ids([0, 1], [2]))).rejects.toThrow(/int64 \[B, L\]/);
  });

  it("another model's folder", async () => {
    await expect(CLIPTextModel.fromPretrained("test/reference/vae-tiny", { subfolder: "vae" })).rejects.toThrow(
      FormatError,
    );
  });
});

/** Token ids. */
function ids(values: readonly number[], shape: readonly number[]): Tensor<"int64"> {
  return tensor(values, shape, "int64");
}
