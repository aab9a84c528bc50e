// What holds of every kind of adapter: fresh ones change nothing, training moves them, files bring them back.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { referenceBatch } from "../../test/support/reference-batch.js";
import { relativeError } from "../../test/support/relative-error.js";
import { UNet2DConditionModel } from "../models/index.js";
import "../runtime/node.js";
import { readSafetensors, writeSafetensors } from "../storage/index.js";
import "../storage/node.js";
import { Generator, randn } from "../tensor/random.js";
import { type Tensor, tensor } from "../tensor/tensor.js";
import { AdamW } from "../training/index.js";
import type { AdapterConfig } from "./adapter.js";
import { readAdapter } from "./adapter-format.js";
import { AdapterModel } from "./adapter-model.js";
import { DoRAConfig } from "./dora/dora-config.js";
import { FeRAConfig } from "./fera/fera-config.js";
import { freezeGates } from "./fera/frozen-gates.js";
import { LoHaConfig } from "./loha/loha-config.js";
import { LoKrConfig } from "./lokr/lokr-config.js";
import { fusedWeights } from "./lora/fuse-lora.js";
import { LoRAConfig } from "./lora/lora-config.js";
import { TLoRAConfig } from "./t-lora/t-lora-config.js";

const REFERENCE = "test/reference/unet-sd15";
/** A linear layer, a convolution, one of stride 2, one of kernel 1. */
const layers = { rank: 2, targetModules: ["to_q", "conv1", "downsamplers.0.conv", "proj_in"] };
const KINDS: readonly (readonly [string, AdapterConfig])[] = [
  ["FeRA", new FeRAConfig(layers)],
  ["FeRA with a shared A", new FeRAConfig({ ...layers, sharedDown: true })],
  ["LoRA", new LoRAConfig(layers)],
  ["rsLoRA", new LoRAConfig({ ...layers, useRslora: true, alpha: 3 })],
  ["DoRA", new DoRAConfig(layers)],
  ["LoKr", new LoKrConfig({ ...layers, rank: 1, decomposeBoth: true, factor: 4 })],
  ["LoKr of whole matrices", new LoKrConfig({ ...layers, fullMatrix: true })],
  ["LoKr by Tucker", new LoKrConfig({ ...layers, rank: 1, useTucker: true })],
  ["LoHa", new LoHaConfig(layers)],
  ["LoHa by Tucker", new LoHaConfig({ ...layers, useTucker: true })],
  ["T-LoRA", new TLoRAConfig({ ...layers, rank: 4, minRank: 2, maskPower: 2 })],
];

let unet: UNet2DConditionModel;
let batch: { latents: Tensor; timesteps: Tensor; encoderHiddenStates: Tensor; target: Tensor };
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fera-kinds-"));
  unet = await UNet2DConditionModel.fromPretrained(`${REFERENCE}/unet`);
  batch = await referenceBatch(REFERENCE);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const stepShape = () => {
  const [batchSize, , latentHeight, latentWidth] = batch.latents.shape as [number, number, number, number];
  return { batchSize, latentHeight, latentWidth, tokens: batch.encoderHiddenStates.shape[1]! };
};

/** Moves everything away from where it begins. */
function shake(model: AdapterModel, seed: number): void {
  const generator = new Generator(seed);
  for (const { data, shape } of model.parameters.values()) {
    const noise = randn(shape, { generator }).data;
    for (let i = 0; i < data.length; i++) data[i] = data[i]! + 0.2 * noise[i]!;
  }
}

describe.each(KINDS)("%s", (name, config) => {
  it("begins without a change, learns on linear layers and convolutions, and comes back from a file and a folder", async () => {
    const model = await AdapterModel.create(unet, config);
    expect(model.layers.filter(({ kind }) => kind === "convolution").length).toBeGreaterThan(0);
    const base = (await unet.predict(batch)).data;
    expect(relativeError((await model.predict(batch)).data, base)).toBeLessThan(1e-5);

    const step = await model.compileTrainStep({ ...stepShape(), optimizer: new AdamW({ lr: 3e-3 }) });
    const before = (await step.evaluate(batch)).loss;
    for (let i = 0; i < 4; i++) await step.run(batch);
    expect((await step.evaluate(batch)).loss).toBeLessThan(before);

    // The gradient along itself is its norm.
    shake(model, 3);
    const { gradients } = await step.compute(batch);
    const norm = Math.hypot(...[...gradients.values()].map((values) => Math.hypot(...values)));
    const lossAt = async (distance: number): Promise<number> => {
      const { losses } = await (async () => {
        const move = (by: number) => {
          for (const [key, gradient] of gradients) {
            const { data } = model.parameters.get(key)!;
            for (let i = 0; i < data.length; i++) data[i] = data[i]! + (by * gradient[i]!) / norm;
          }
        };
        const kept = new Map([...model.parameters].map(([key, { data }]) => [key, data.slice()]));
        move(distance);
        const losses = await step.evaluate(batch);
        for (const [key, values] of kept) model.parameters.get(key)!.data.set(values);
        return { losses };
      })();
      return losses.loss;
    };
    const h = 0.01;
    const derivative = ((await lossAt(h)) - (await lossAt(-h))) / (2 * h);
    // DoRA's norm is a constant to the gradient: its derivative is another one.
    if (name !== "DoRA") expect(Math.abs(derivative / norm - 1)).toBeLessThan(0.02);
    await step.release();

    const wanted = (await model.predict(batch)).data;
    for (const path of [join(folder, `${name}.safetensors`), join(folder, name)]) {
      await model.saveAdapters(path);
      const again: AdapterModel = new AdapterModel(unet, new LoRAConfig());
      await again.loadAdapters(path);
      expect(again.config.adapterType).toBe(config.adapterType);
      expect(relativeError((await again.predict(batch)).data, wanted)).toBeLessThan(1e-5);
      expect(again.stateDict().size).toBe(model.stateDict().size);
      await again.release();
    }
    await model.release();
  });
});

it("DoRA's fresh magnitudes are the norms of the frozen weights' rows", async () => {
  const model = await AdapterModel.create(unet, new DoRAConfig({ targetModules: ["to_q"] }));
  const { path, inFeatures, outFeatures } = model.layers[0]!;
  const { tensors } = await readSafetensors(`${REFERENCE}/unet/diffusion_pytorch_model.safetensors`);
  const weight = tensors.get(`${path}.weight`)!.data as Float32Array;
  const norms = Array.from({ length: outFeatures }, (_, row) =>
    Math.hypot(...weight.subarray(row * inFeatures, (row + 1) * inFeatures)),
  );
  const found = model.stateDict().get(`${path}.lora_magnitude_vector`)!;
  expect(relativeError(found.data, Float32Array.from(norms))).toBeLessThan(1e-6);
});

it("LoKr has the shapes that LyCORIS gives factor and rank, and whole matrices from half a side on", () => {
  const shapesOf = (options: object) => {
    const model = new AdapterModel(unet, new LoKrConfig({ targetModules: ["to_q"], ...options }));
    const { path } = model.layers.find(({ outFeatures }) => outFeatures === 32)!;
    return [...model.stateDict()].flatMap(([name, { shape }]) =>
      name.startsWith(path) ? [`${name.slice(path.length + 1)} ${shape.join("x")}`] : [],
    );
  };
  expect(shapesOf({ rank: 3 })).toEqual(["lokr_w1 4x4", "lokr_w2_a 8x3", "lokr_w2_b 3x8"]);
  expect(shapesOf({ rank: 4 })).toEqual(["lokr_w1 4x4", "lokr_w2 8x8"]);
  expect(shapesOf({ rank: 4, factor: 2 })).toEqual(["lokr_w1 2x2", "lokr_w2_a 16x4", "lokr_w2_b 4x16"]);
  expect(shapesOf({ rank: 1, decomposeBoth: true })).toContain("lokr_w1_a 4x1");
  expect(shapesOf({ rank: 1, fullMatrix: true })).toEqual(["lokr_w1 4x4", "lokr_w2 8x8"]);
});

describe("T-LoRA", () => {
  it("is written under names of its own, so that no program takes it for plain LoRA", async () => {
    const path = join(folder, "own.safetensors");
    await new AdapterModel(unet, new TLoRAConfig(layers)).saveAdapters(path);
    const { tensors, metadata } = await readSafetensors(path);
    expect([...tensors.keys()].every((name) => /\.t_lora_[AB]\.weight$/.test(name))).toBe(true);
    expect(JSON.parse(metadata.fera_adapter_config!)).toMatchObject({ adapter_type: "t-lora", min_rank: 1 });
    await writeSafetensors(path, tensors);
    await expect(readAdapter(path)).rejects.toThrow(/a T-LoRA without its configuration.*which ranks act when/);
    await expect(new AdapterModel(unet, new TLoRAConfig(layers)).saveAdapters(join(folder, "own.pt"))).rejects.toThrow(
      /a \.pt file cannot say which ranks of a T-LoRA act when/,
    );
  });

  it("cannot be fused, which is said by name", async () => {
    const { attachable } = new AdapterModel(unet, new TLoRAConfig(layers));
    await expect(fusedWeights(unet, [{ ...attachable, name: "mine", scale: 1 }])).rejects.toThrow(
      /the adapter "mine" is of the kind t-lora .*ranks act depends on the timestep/,
    );
  });

  it("refuses a smallest rank above its rank", () => {
    expect(() => new TLoRAConfig({ rank: 2, minRank: 3 })).toThrow("minRank must be 2 or less");
  });
});

describe("FeRA's experts", () => {
  it("with a shared A are those of experts that all have it, frozen gates too", async () => {
    const shared = new AdapterModel(unet, new FeRAConfig({ ...layers, sharedDown: true }));
    shake(shared, 5);
    const state = shared.stateDict();
    const names = [...state.keys()].filter((name) => name.endsWith(".experts.lora_down.weight"));
    expect(names.length).toBe(shared.layers.length);
    const each = new Map(state);
    for (const name of names) {
      each.delete(name);
      for (let k = 0; k < 3; k++) each.set(name.replace("experts.", `experts.${k}.`), state.get(name)!);
    }
    const own = new AdapterModel(unet, new FeRAConfig(layers));
    own.loadStateDict(each);
    const wanted = (await own.predict(batch)).data;
    expect(relativeError((await shared.predict(batch)).data, wanted)).toBeLessThan(1e-5);
    const path = join(folder, "shared.safetensors");
    await shared.saveAdapters(path);
    const frozen = freezeGates((await readAdapter(path)) as never, [0.2, 0.3, 0.5]);
    const plain = new AdapterModel(unet, new FeRAConfig({ ...layers }));
    plain.useAdapter(frozen);
    expect([...frozen.state.values()].every(({ size }) => size > 0)).toBe(true);
    await Promise.all([shared.release(), own.release(), plain.release()]);
  });
});

describe("which layers", () => {
  const paths = (options: object) => new AdapterModel(unet, new LoRAConfig(options)).layers.map(({ path }) => path);

  it("a text is a regular expression of whole paths, or all-linear; excluded ones are left out", () => {
    const all = paths({ targetModules: "all-linear" });
    expect(all).toContain("time_embedding.linear_1");
    const mid = paths({ targetModules: "mid_block\\..*attn[12]\\.to_(q|k)" });
    expect(mid.length).toBeGreaterThan(0);
    expect(mid.every((path) => /^mid_block.*to_[qk]$/.test(path))).toBe(true);
    expect(paths({ targetModules: "all-linear", excludeModules: ["to_q", "to_k"] })).toEqual(
      all.filter((path) => !/\.to_[qk]$/.test(path)),
    );
    expect(paths({ targetModules: "all-linear", excludeModules: ".*attn.*" })).toEqual(
      all.filter((path) => !path.includes("attn")),
    );
    expect(paths({ targetModules: ["all-linear"] })).toEqual(all);
  });

  it.each([
    [{ targetModules: ["to_qq"] }, /targetModules: "to_qq" names no layer.*to_q,/],
    [{ targetModules: ".*attn3.*" }, /targetModules: the pattern ".*" is the path of no layer.*attn/],
    [{ excludeModules: ["to_z"] }, /excludeModules: "to_z" names no layer.*to_/],
    [{ excludeModules: ["to_q", "to_k", "to_v", "to_out.0"] }, /excludeModules: leaves no layer/],
    [{ targetModules: "(?=a)" }, /targetModules: the pattern of layers .* without look-around/],
    [{ rankPattern: { "attn9.*": 2 } }, /rankPattern: "attn9\.\*" names none of the adapted layers/],
  ])("%j is refused, with near names", (options, message) => {
    expect(() => paths(options)).toThrow(message);
  });

  it("patterns that make backtracking engines hang are answered at once", () => {
    const start = performance.now();
    expect(() => paths({ targetModules: `(([a-z_.0-9]+)+)+${"x?".repeat(40)}!` })).toThrow(/is the path of no layer/);
    expect(performance.now() - start).toBeLessThan(5000);
  });

  it("ranks and alphas by pattern are those of PEFT: the path or its end, the first that matches", () => {
    const config = new LoRAConfig({
      rank: 4,
      alpha: 8,
      rankPattern: { "attn1.to_q": 2, "mid_block.*": 3 },
      alphaPattern: { "to_(q|k)": 1 },
    });
    const mid = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
    expect([config.rankOf(mid), config.rankOf(mid.replace("attn1", "attn2")), config.rankOf("x.to_v")]).toEqual([
      2, 3, 4,
    ]);
    expect([config.scaleOf(mid), config.scaleOf("x.to_v")]).toEqual([0.5, 2]);
  });
});

it("metadata that disagree with the tensors are said", async () => {
  const path = join(folder, "disagree.safetensors");
  const model = new AdapterModel(unet, new LoRAConfig({ rank: 2 }));
  await model.saveAdapters(path);
  expect((await readAdapter(path)).notes).toEqual([]);
  const { tensors, metadata } = await readSafetensors(path);
  await writeSafetensors(path, tensors, { ...metadata, ss_network_dim: "16", ss_network_alpha: "8" });
  const { notes } = await readAdapter(path);
  expect(notes).toEqual([
    expect.stringMatching(/disagree with its tensors.*ss_network_dim is 16, the rank of its matrices is 2/),
    expect.stringMatching(/ss_network_alpha is 8, its alphas are 2/),
  ]);
});

it("a wrong alpha in export: files that PEFT merges by its formula give fera's output", async () => {
  for (const config of [
    new LoRAConfig({ ...layers, alpha: 3, alphaPattern: { conv1: 5 }, rankPattern: { to_q: 3 } }),
    new LoRAConfig({ ...layers, alpha: 3, useRslora: true }),
  ]) {
    const model = new AdapterModel(unet, config);
    shake(model, 9);
    const wanted = (await model.predict(batch)).data;
    const path = join(folder, `export-${config.useRslora}`);
    await model.saveAdapters(path);
    const { tensors } = await readSafetensors(`${path}/adapter_model.safetensors`);
    const json = JSON.parse(await (await import("node:fs/promises")).readFile(`${path}/adapter_config.json`, "utf8"));
    const weights = new Map(unet.weights.weights);
    const { tensors: frozen } = await readSafetensors(`${REFERENCE}/unet/diffusion_pytorch_model.safetensors`);
    for (const layer of model.layers) {
      const [a, b] = ["A", "B"].map((side) => tensors.get(`base_model.model.${layer.path}.lora_${side}.weight`)!);
      // PEFT's rule: the first pattern that is the path or its end.
      const byPattern = (patterns: Record<string, number>, usual: number) =>
        Object.entries(patterns).find(([key]) => new RegExp(`^(?:.*\\.)?(?:${key})$`).test(layer.path))?.[1] ?? usual;
      const r = byPattern(json.rank_pattern, json.r);
      const alpha = byPattern(json.alpha_pattern, json.lora_alpha);
      const scale = alpha / (json.use_rslora ? Math.sqrt(r) : r);
      expect(a!.shape[0]).toBe(r);
      const weight = frozen.get(`${layer.path}.weight`)!;
      const data = Float32Array.from(weight.data as Float32Array);
      const columns = a!.size / r;
      for (let i = 0; i < data.length; i++) {
        let sum = 0;
        for (let k = 0; k < r; k++) {
          sum += Number(b!.data[Math.floor(i / columns) * r + k]) * Number(a!.data[k * columns + (i % columns)]);
        }
        data[i] = data[i]! + scale * sum;
      }
      weights.set(`${layer.path}.weight`, { shape: weight.shape, tensor: tensor(data, weight.shape) });
    }
    const { ModelWeights } = await import("../nn/index.js");
    const merged = new UNet2DConditionModel(unet.config, new ModelWeights(weights, "merged"), unet.runtime);
    expect(relativeError((await merged.predict(batch)).data, wanted)).toBeLessThan(1e-5);
    await Promise.all([merged.release(), model.release()]);
  }
});
