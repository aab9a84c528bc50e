import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { relativeError } from "../../test/support/relative-error.js";
import "../runtime/node.js";
import "../storage/node.js";
import { writeSafetensors } from "../storage/index.js";
import { Generator } from "../tensor/random.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import type { Model } from "./model.js";
import { Qwen3Model } from "./qwen3/qwen3-model.js";
import { T5EncoderModel } from "./t5-text/t5-encoder-model.js";

const T5 = {
  ...{ vocab_size: 96, d_model: 64, d_kv: 16, d_ff: 128, num_layers: 2, num_heads: 32 },
  feed_forward_proj: "gated-gelu",
};
const QWEN = {
  ...{ vocab_size: 96, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2 },
  ...{ num_attention_heads: 4, num_key_value_heads: 2, head_dim: 16 },
};
const ids = tensor([3, 1, 4, 1, 5, 9, 2, 6], [1, 8], "int64");

let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "fera-text-few-bits-"));
  vi.stubEnv("FERA_CACHE", join(folder, "cache"));
});
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

it.each([
  ["T5EncoderModel", T5, "int8", 0.06],
  ["T5EncoderModel", T5, "nf4", 0.3],
  ["Qwen3Model", QWEN, "int8", 0.06],
  ["Qwen3Model", QWEN, "nf4", 0.3],
] as const)(
  "%s %#: its layers in few bits give states close to float32's, its tables stay",
  async (name, config, dtype, limit) => {
    const own = name === "T5EncoderModel" ? T5EncoderModel : Qwen3Model;
    const made: Model<unknown> = own.fromConfig(config, new Generator(1));
    const tensors = [...made.weights.weights].map(
      ([path, weight]) => [path, (weight as { tensor: Tensor }).tensor] as const,
    );
    writeFileSync(join(folder, "config.json"), JSON.stringify({ architectures: [name], ...config }));
    await writeSafetensors(join(folder, "model.safetensors"), new Map(tensors));
    const statesOf = async (kept: "float32" | typeof dtype) => {
      const model = await own.fromPretrained(folder, { subfolder: "", dtype: kept });
      const states =
        model instanceof T5EncoderModel
          ? await model.encode(ids)
          : (await model.hiddenStates(ids, { layers: [-1] }))[0]!;
      await model.dispose();
      const few = [...model.weights.weights].filter(
        ([, weight]) => "range" in weight && typeof weight.range.stored === "object",
      );
      return { data: states.data, few: few.map(([path]) => path) };
    };
    const [exact, rounded] = [await statesOf("float32"), await statesOf(dtype)];
    expect(exact.few).toEqual([]);
    expect(rounded.few.length).toBeGreaterThanOrEqual(14);
    expect(rounded.few.some((path) => /shared|embed_tokens|relative_attention_bias/.test(path))).toBe(false);
    const error = relativeError(rounded.data, exact.data);
    expect(error).toBeLessThan(limit);
    expect(error).toBeGreaterThan(1e-4);
  },
);
