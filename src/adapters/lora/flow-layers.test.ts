import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import {
  Flux2Transformer2DModel,
  FluxTransformer2DModel,
  SD3Transformer2DModel,
  ZImageTransformer2DModel,
} from "../../models/index.js";
import { type FlowFamily, FlowNames } from "../../storage/flow-names.js";
import { readSafetensors, writeSafetensors } from "../../storage/index.js";
import "../../storage/node.js";
import "../../runtime/node.js";
import { Generator, randn } from "../../tensor/random.js";
import { Tensor, tensor } from "../../tensor/tensor.js";
import { DoRAConfig } from "../dora/dora-config.js";
import { FeRAConfig } from "../fera/fera-config.js";
import { AdapterModel, freezeGates, readAdapter, targetLayers, writeLora, writePlainLora } from "../index.js";
import { flowFamilyOf } from "./flow-layers.js";
import { LoRAConfig } from "./lora-config.js";

interface Golden {
  config: Record<string, unknown>;
  /** Name, original name, first row, and rows: null for all, "swapped" for halves in the other order. */
  names: [string, string, number, number | "swapped" | null][];
}
const golden = JSON.parse(readFileSync("test/reference/flow-names.json", "utf8")) as Record<FlowFamily, Golden>;
const CLASSES = { FluxTransformer2DModel, SD3Transformer2DModel, Flux2Transformer2DModel, ZImageTransformer2DModel };
const FAMILIES = Object.keys(CLASSES) as FlowFamily[];

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-flow-layers-"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const denoiserOf = (family: FlowFamily) => CLASSES[family].fromConfig(golden[family].config, new Generator(0));

/** On all linear layers, with ranks and alphas that differ. */
const config = new LoRAConfig({
  rank: 2,
  alpha: 3,
  targetModules: "all-linear",
  rankPattern: { to_k: 3 },
  alphaPattern: { to_v: 5, "to_out.0": 1.5 },
});

async function randomAdapter(family: FlowFamily, own: LoRAConfig | DoRAConfig = config) {
  const model = await AdapterModel.create(denoiserOf(family), own, { seed: 3 });
  const generator = new Generator(9);
  model.loadStateDict(new Map([...model.stateDict()].map(([name, { shape }]) => [name, randn(shape, { generator })])));
  return model;
}

const withoutEnd = (name: string) => name.replace(/\.(weight|bias|scale)$/, "");

describe.each(FAMILIES)("the original names of %s", (family) => {
  it("are those that diffusers converts from, rows too", () => {
    const names = new FlowNames(family);
    for (const [name, original, first, rows] of golden[family].names) {
      const path = withoutEnd(name);
      const module = names.byPart(path) ?? names.byPart(name);
      if (!module) {
        expect(withoutEnd(original)).toBe(path);
        continue;
      }
      expect([withoutEnd(original), module.original]).toContain(module.original);
      expect(withoutEnd(original)).toBe(module.original);
      expect(names.byOriginal(module.original)).toEqual(module);
      const place = Math.max(module.parts.indexOf(path), module.parts.indexOf(name));
      const before = module.shares.slice(0, place).reduce((sum, share) => sum + share, 0);
      if (typeof rows === "number") expect(before * (rows / module.shares[place]!)).toBe(first);
      else expect(module.parts).toHaveLength(1);
      if (rows === "swapped") expect(module.swapped).toBeDefined();
      else expect(module.swapped).not.toBe("always");
    }
  });

  it.each(["kohya", "comfyui", "diffusers", "peft"] as const)("carry a LoRA to %s's names and back", async (to) => {
    const saved = await randomAdapter(family);
    const available = targetLayers(denoiserOf(family));
    const path = join(dir, `${family}-${to}${to === "peft" ? "" : ".safetensors"}`);
    expect(flowFamilyOf(available)).toBe(family);
    const state = saved.stateDict() as Map<string, Tensor<"float32">>;
    await writeLora(path, { config, layers: saved.layers, state }, to, { blocks: available });
    const read = (await readAdapter(path)).resolve!(available);
    expect(read.layers.map((layer) => layer.path).sort()).toEqual(saved.layers.map((layer) => layer.path).sort());
    const own = read.config as LoRAConfig;
    for (const { path: layer } of saved.layers) {
      expect(read.state.get(`${layer}.lora_A.weight`), layer).toEqual(state.get(`${layer}.lora_A.weight`));
      const up = (from: typeof state, { scaleOf }: { scaleOf: (path: string) => number }) =>
        (from.get(`${layer}.lora_B.weight`)!.data as Float32Array).map((value) => value * scaleOf(layer));
      const wanted = up(state, { scaleOf: (path) => config.scaleOf(path) });
      const found = up(read.state as typeof state, { scaleOf: (path) => own.scaleOf(path) });
      expect(relativeError(found, wanted), layer).toBeLessThan(1e-6);
    }
  });
});

describe("FLUX.1", () => {
  const model = () => targetLayers(denoiserOf("FluxTransformer2DModel"));
  const down = randn([2, 24], { generator: new Generator(1) });
  const up = randn([72, 2], { generator: new Generator(2) });

  it.each([
    ["lora_unet_double_blocks_0_img_attn_qkv", "lora_down", "lora_up"],
    ["diffusion_model.double_blocks.0.img_attn.qkv", "lora_A", "lora_B"],
    ["transformer.double_blocks.0.img_attn.qkv", "lora_A", "lora_B"],
    ["lora_transformer_double_blocks_0_img_attn_qkv", "lora_down", "lora_up"],
  ])("a fused layer that was trained as one is split by rows: %s", async (name, a, b) => {
    const path = join(dir, `${name}.safetensors`);
    await writeSafetensors(path, { [`${name}.${a}.weight`]: down, [`${name}.${b}.weight`]: up });
    const { state, layers } = (await readAdapter(path)).resolve!(model());
    expect(layers.map((layer) => layer.path)).toEqual(["q", "k", "v"].map((n) => `transformer_blocks.0.attn.to_${n}`));
    for (const [i, { path: layer }] of layers.entries()) {
      expect(state.get(`${layer}.lora_A.weight`)).toEqual(down);
      const rows = new Tensor("float32", [24, 2], up.data.slice(i * 48, (i + 1) * 48));
      expect(state.get(`${layer}.lora_B.weight`)).toEqual(rows);
    }
  });

  it("OneTrainer's and PEFT's names with diffusers' layers are read", async () => {
    const path = join(dir, "names.safetensors");
    const own = {
      down: randn([2, 24], { generator: new Generator(1) }),
      up: randn([24, 2], { generator: new Generator(2) }),
    };
    await writeSafetensors(path, {
      "lora_transformer_transformer_blocks_0_attn_to_q.lora_down.weight": own.down,
      "lora_transformer_transformer_blocks_0_attn_to_q.lora_up.weight": own.up,
      "base_model.model.transformer_blocks.0.attn.to_k.lora_A.weight": own.down,
      "base_model.model.transformer_blocks.0.attn.to_k.lora_B.weight": own.up,
    });
    const { layers } = (await readAdapter(path)).resolve!(model());
    expect(layers.map((layer) => layer.path).sort()).toEqual(
      ["k", "q"].map((n) => `transformer_blocks.0.attn.to_${n}`),
    );
  });

  it.each([
    ["double_blocks.0.processor.qkv_lora1", "down", "up", /is in XLabs' format, for FLUX\.1, .*save_lora_adapter/],
    [
      "lora_te3_encoder_block_0_layer_0_SelfAttention_q",
      ...["lora_down", "lora_up"],
      /adapts layers of T5, such as "lora_te3_encoder_block_0_layer_0_SelfAttention_q\.lora_\w+\.weight" \(2 tensors\)/,
    ],
  ] as const)("%s is refused by name", async (name, a, b, message) => {
    const path = join(dir, "refused.safetensors");
    await writeSafetensors(path, { [`${name}.${a}.weight`]: down, [`${name}.${b}.weight`]: up });
    await expect(readAdapter(path)).rejects.toThrow(message);
  });

  it("FeRA with frozen gates is a LoRA in the original names that predicts the same", async () => {
    const denoiser = denoiserOf("FluxTransformer2DModel");
    const own = new FeRAConfig({
      rank: 2,
      alpha: 3,
      numExperts: 2,
      numBands: 2,
      targetModules: ["to_q", "to_k", "to_v"],
    });
    const fera = await AdapterModel.create(denoiser, own, { seed: 3 });
    const generator = new Generator(9);
    const state = new Map(
      [...fera.stateDict()].map(([name, { shape }]) => [name, randn(shape, { generator }) as Tensor<"float32">]),
    );
    const adapter = { config: own, layers: fera.layers, state, hasConfig: true };
    const gates = [0.3, 0.7];
    const path = join(dir, "frozen.safetensors");
    await writePlainLora(path, adapter, gates, { to: "comfyui", modelLayers: model() });
    const inputs = {
      latents: randn([1, 8, 4, 4], { generator }),
      timesteps: tensor([600]),
      encoderHiddenStates: randn([1, 3, 16], { generator }),
      pooledProjections: randn([1, 12], { generator }),
      guidance: tensor([3.5]),
    };
    fera.useAdapter(freezeGates(adapter, gates));
    const expected = await fera.predict(inputs);
    const read = (await readAdapter(path)).resolve!(model());
    const lora = await AdapterModel.create(denoiser, read.config);
    lora.loadStateDict(read.state);
    const found = await lora.predict(inputs);
    expect(relativeError(found.data, expected.data)).toBeLessThan(1e-5);
    const base = await denoiser.predict(inputs);
    expect(relativeError(base.data, expected.data)).toBeGreaterThan(0.01);
    for (const each of [fera, lora, denoiser]) await each.release();
  });

  it("a fused layer with other rows is refused", async () => {
    const path = join(dir, "rows.safetensors");
    const name = "lora_unet_single_blocks_0_linear1";
    await writeSafetensors(path, { [`${name}.lora_down.weight`]: down, [`${name}.lora_up.weight`]: up });
    const read = await readAdapter(path);
    expect(() => read.resolve!(model())).toThrow(
      /"single_blocks_0_linear1" must have the rows .*24 \+ 24 \+ 24 \+ 96.*it has 72/,
    );
  });

  it("the names need the model, which an adapter's layers alone do not tell", async () => {
    const saved = await randomAdapter("FluxTransformer2DModel");
    const part = { config, layers: saved.layers, state: saved.stateDict() as Map<string, Tensor<"float32">> };
    await expect(writeLora(join(dir, "none.safetensors"), part, "comfyui")).rejects.toThrow(/need its model/);
  });

  it("DoRA is fused where all parts are adapted, and refused by name where not", async () => {
    const available = model();
    const dora = (targetModules: string[]) =>
      randomAdapter("FluxTransformer2DModel", new DoRAConfig({ rank: 2, alpha: 2, targetModules }));
    const all = await dora(["to_q", "to_k", "to_v", "proj_mlp"]);
    const path = join(dir, "dora.safetensors");
    const partOf = (model: AdapterModel) => ({
      config: (model.config as DoRAConfig).lora,
      layers: model.layers,
      state: model.stateDict() as Map<string, Tensor<"float32">>,
    });
    await writeLora(path, partOf(all), "kohya", { blocks: available });
    const { tensors } = await readSafetensors(path);
    expect(tensors.get("lora_unet_single_blocks_0_linear1.dora_scale")!.shape).toEqual([168, 1]);
    const read = (await readAdapter(path)).resolve!(available);
    for (const { path: layer } of all.layers) {
      const key = `${layer}.lora_magnitude_vector`;
      expect(read.state.get(key), layer).toEqual(all.stateDict().get(key));
    }
    const some = await dora(["to_q"]);
    await expect(writeLora(path, partOf(some), "kohya", { blocks: available })).rejects.toThrow(
      /transformer_blocks\.0\.attn\.to_q: .*"double_blocks\.0\.img_attn\.qkv", whose magnitudes/,
    );
  });
});
