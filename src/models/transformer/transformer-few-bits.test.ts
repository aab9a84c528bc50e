import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import { AdapterModel, LoRAConfig } from "../../adapters/index.js";
import "../../runtime/node.js";
import "../../storage/node.js";
import { writeSafetensors } from "../../storage/index.js";
import { Generator, randn } from "../../tensor/random.js";
import { type Tensor, tensor } from "../../tensor/tensor.js";
import { Flux2Transformer2DModel } from "../flux2-transformer-2d/flux2-transformer-2d.js";
import type { WeightType } from "../weight-loading.js";

const CONFIG = {
  ...{ in_channels: 16, num_layers: 1, num_single_layers: 1, num_attention_heads: 2, attention_head_dim: 32 },
  ...{ joint_attention_dim: 48, axes_dims_rope: [8, 8, 8, 8], guidance_embeds: false },
};
const generator = new Generator(2);
const inputs = {
  latents: randn([1, 4, 8, 8], { generator }),
  timesteps: tensor([600]),
  encoderHiddenStates: randn([1, 5, 48], { generator }),
};
const target = randn([1, 4, 8, 8], { generator });

let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "fera-few-bits-"));
  vi.stubEnv("FERA_CACHE", join(folder, "cache"));
  const { weights } = Flux2Transformer2DModel.fromConfig(CONFIG, new Generator(1)).weights;
  const tensors = [...weights].map(([name, weight]) => [name, (weight as { tensor: Tensor }).tensor] as const);
  writeFileSync(join(folder, "config.json"), JSON.stringify({ _class_name: "Flux2Transformer2DModel", ...CONFIG }));
  await writeSafetensors(join(folder, "diffusion_pytorch_model.safetensors"), new Map(tensors));
});
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

/** The prediction, and the gradients of a fresh LoRA, as one vector each. */
async function answer(dtype: WeightType) {
  const model = await Flux2Transformer2DModel.fromPretrained(folder, { dtype });
  const output = await model.predict(inputs);
  const lora = new AdapterModel(model, new LoRAConfig({ rank: 2 }));
  const step = await lora.compileTrainStep({ batchSize: 1, height: 8, width: 8, tokens: 5 });
  const { gradients } = await step.gradients({ ...inputs, target });
  await step.release();
  await model.dispose();
  const all = [...gradients.values()].flatMap(({ data }) => [...data]);
  return { output: output.data, gradients: all, quantization: model.weights.quantization };
}

describe("a transformer whose large layers are kept in few bits", () => {
  it.each([
    ["int8", 0.03, 0.06],
    ["nf4", 0.2, 0.3],
  ] as const)("%s: close in prediction and gradients", async (dtype, outputLimit, gradientLimit) => {
    const exact = await answer("float32");
    const rounded = await answer(dtype);
    expect([exact.quantization, rounded.quantization]).toEqual([undefined, dtype]);
    const outputError = relativeError(rounded.output, exact.output);
    const gradientError = relativeError(rounded.gradients, exact.gradients);
    expect(outputError).toBeLessThan(outputLimit);
    expect(gradientError).toBeLessThan(gradientLimit);
    expect(Math.min(outputError, gradientError)).toBeGreaterThan(1e-5);
  });
});
