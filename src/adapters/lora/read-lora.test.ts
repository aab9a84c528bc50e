import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runGraph } from "../../../test/support/check-gradients.js";
import { relativeError } from "../../../test/support/relative-error.js";
import "../../runtime/node.js";
import * as ops from "../../graph/index.js";
import { Graph, type Value } from "../../graph/index.js";
import { CLIPTextModel, clipTextModel } from "../../models/clip-text/clip-text-model.js";
import { CLIPTextModelWithProjection, CLIPTokenizer, UNet2DConditionModel } from "../../models/index.js";
import { type LayerAdapters, linear } from "../../nn/index.js";
import { readSafetensors, writeSafetensors } from "../../storage/index.js";
import "../../storage/node.js";
import { type Tensor, tensor, zeros } from "../../tensor/tensor.js";
import { AdapterModel } from "../adapter-model.js";
import { createAdapter } from "../create-adapter.js";
import { type AdapterPart, FeRAModel, readAdapter, type TextEncoderName } from "../index.js";
import { checkLayers, recordLayers } from "../target-layers.js";
import { LoRAConfig } from "./lora-config.js";

const GOLDEN = "test/reference/lora-files";
const PIPELINES = { sd: "test/reference/pipeline-tiny", xl: "test/reference/pipeline-tiny-xl" };
/** As diffusers' own loaders were held to. */
const TOLERANCE = 2e-4;
type Family = keyof typeof PIPELINES;

interface GoldenFile {
  path: string;
  layers: Record<string, number>;
  ranks: number[];
  alphas: number[];
  dora: string;
}

const golden = {} as Record<Family, { values: Map<string, Tensor>; files: Record<string, GoldenFile>; prompt: string }>;
const unets = {} as Record<Family, UNet2DConditionModel>;
let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-lora-"));
  for (const family of ["sd", "xl"] as const) {
    const { tensors, metadata } = await readSafetensors(`${GOLDEN}/${family}/expected.safetensors`);
    const { prompt } = JSON.parse(metadata.generation!);
    golden[family] = { values: tensors, files: JSON.parse(metadata.files!), prompt };
    unets[family] = await UNet2DConditionModel.fromPretrained(PIPELINES[family], { subfolder: "unet" });
  }
});
afterAll(async () => {
  await Promise.all(Object.values(unets).map((unet) => unet.release()));
  await rm(dir, { recursive: true, force: true });
});

const PLAIN: Record<Family, string[]> = {
  sd: [
    ...["kohya", "kohya-float16", "kohya-locon", "kohya-varied", "kohya-doubled", "kohya-doubled-underscore"],
    ...["diffusers", "diffusers-down-up", "diffusers-metadata", "diffusers-processors", "diffusers-processors-bare"],
    ...["bare", "peft", "peft-rslora", "cloneofsimo", "cloneofsimo-extended"],
  ],
  xl: ["kohya-original", "kohya-original-locon", "kohya-diffusers", "diffusers"],
};
const DORA = ["peft-dora", "diffusers-dora", "kohya-dora", "kohya-dora-input"];

function inputsOf(family: Family) {
  const value = (name: string) => golden[family].values.get(name)!;
  return {
    latents: value("latents"),
    timesteps: value("timesteps"),
    encoderHiddenStates: value("encoder_hidden_states"),
    ...(family === "xl" && { addedConditions: { textEmbeds: value("text_embeds"), timeIds: value("time_ids") } }),
  };
}
const pathOf = (family: Family, name: string) => `${GOLDEN}/${family}/${golden[family].files[name]!.path}`;
const errorOf = (found: Tensor, family: Family, name: string) =>
  relativeError(found.data as Float32Array, golden[family].values.get(name)!.data as Float32Array);

it("no golden file is left out", () => {
  expect(Object.keys(golden.sd.files).sort()).toEqual([...PLAIN.sd, ...DORA].sort());
  expect(Object.keys(golden.xl.files).sort()).toEqual([...PLAIN.xl].sort());
});

describe.each(["sd", "xl"] as const)("a UNet of %s with a file in the format", (family) => {
  it.each([...PLAIN[family], ...(family === "sd" ? DORA : [])])(
    "%s predicts what its program predicts, at full and half strength",
    async (name) => {
      const model = new AdapterModel(unets[family], new LoRAConfig());
      const { notes } = await model.loadAdapters(pathOf(family, name));
      expect(model.layers).toHaveLength(golden[family].files[name]!.layers.unet!);
      const inputs = inputsOf(family);
      expect(errorOf(await model.predict(inputs), family, `${name}.unet`)).toBeLessThan(TOLERANCE);
      const half = await model.predict({ ...inputs, adapterScale: 0.5 });
      // kohya's programs have no half strength of DoRA.
      if (!name.startsWith("kohya-dora")) {
        expect(errorOf(half, family, `${name}.half.unet`)).toBeLessThan(TOLERANCE);
      }
      expect(errorOf(half, family, `${name}.unet`)).toBeGreaterThan(10 * TOLERANCE);
      expect(notes).toEqual(name.startsWith("cloneofsimo") ? [expect.stringMatching(/1 learned token \(<s1>\)/)] : []);
      await model.release();
    },
  );
});

it("a linear layer's matrices fit a 1×1 convolution, as other versions of a model have it", async () => {
  const { tensors } = await readSafetensors(pathOf("sd", "kohya"));
  let count = 0;
  const flat = [...tensors].map(([name, value]): [string, Tensor] => {
    if (value.shape.length !== 4) return [name, value];
    count++;
    return [name, value.reshape(value.shape.slice(0, 2))];
  });
  expect(count).toBe(16);
  const path = join(dir, "flat.safetensors");
  await writeSafetensors(path, new Map(flat));
  const model = new AdapterModel(unets.sd, new LoRAConfig());
  const other = new AdapterModel(unets.sd, new LoRAConfig());
  await model.loadAdapters(path);
  await other.loadAdapters(pathOf("sd", "kohya"));
  expect(model.stateDict()).toEqual(other.stateDict());
});

/** What a text encoder makes of the golden prompt with a part of a LoRA: its states, and where it has one its projection. */
async function encodeWith(family: Family, name: TextEncoderName, part: AdapterPart, scale: number) {
  const isProjected = name === "text_encoder_2";
  const encoder = await (isProjected ? CLIPTextModelWithProjection : CLIPTextModel).fromPretrained(PIPELINES[family]);
  const { config } = encoder;
  const tokenizer = await CLIPTokenizer.fromPretrained(PIPELINES[family], {
    subfolder: isProjected ? "tokenizer_2" : "tokenizer",
  });
  const {
    ids,
    lengths: [length],
  } = tokenizer.encodeBatch([golden[family].prompt]);
  const build = (graph: Graph, adapters: LayerAdapters) => {
    const scope = encoder.frozenScope(graph, adapters);
    const states = clipTextModel(scope, { inputIds: graph.input("ids", "int64", ids.shape) }, config);
    if (!isProjected) return { states };
    const end = ops.slice(states, 1, length! - 1, length!);
    const { projection_dim: features } = config as CLIPTextModelWithProjection["config"];
    const rows = ops.reshape(end, [1, config.hidden_size]);
    return { states, pooled: linear(scope.in("text_projection"), rows, features, { bias: false }) };
  };
  const layers = recordLayers((graph, adapters) => void build(graph, adapters));
  checkLayers(part.layers, layers, name);
  const adapter = createAdapter(part.config, layers).withLayersOf(part.state, name);
  const graph = new Graph();
  const parameters = new Map<string, Value>();
  for (const [key, value] of adapter.fromStateDict(part.state)) parameters.set(key, graph.constant(value));
  const attached = adapter.attach(graph, parameters, { scale: graph.input("scale", "float32", []) });
  for (const [key, value] of Object.entries(build(graph, attached.layers))) graph.output(key, value);
  return runGraph(graph, { ids, scale: tensor(Float32Array.of(scale), []) });
}

describe("a text encoder with a file in the format", () => {
  const withText = [
    ...["kohya", "kohya-float16", "kohya-locon", "kohya-varied", "cloneofsimo", "cloneofsimo-extended"],
    ...["diffusers", "diffusers-down-up", "diffusers-metadata", "diffusers-processors"],
  ];

  it.each(withText)("%s gives the states that its program gives, at full and half strength", async (name) => {
    const { textEncoders } = await readAdapter(pathOf("sd", name));
    const part = textEncoders!.get("text_encoder")!;
    expect(part.layers).toHaveLength(golden.sd.files[name]!.layers.text_encoder!);
    for (const [prefix, scale] of [["", 1] as const, ["half.", 0.5] as const]) {
      const { states } = await encodeWith("sd", "text_encoder", part, scale);
      expect(errorOf(states!, "sd", `${name}.${prefix}prompt_embeds`)).toBeLessThan(TOLERANCE);
    }
  });

  it.each(PLAIN.xl)("%s of XL has a part for each encoder; the projected state is its program's", async (name) => {
    const { textEncoders } = await readAdapter(pathOf("xl", name));
    const { layers } = golden.xl.files[name]!;
    expect(textEncoders!.get("text_encoder")!.layers).toHaveLength(layers.text_encoder!);
    const part = textEncoders!.get("text_encoder_2")!;
    expect(part.layers).toHaveLength(layers.text_encoder_2!);
    const { pooled } = await encodeWith("xl", "text_encoder_2", part, 1);
    expect(errorOf(pooled!, "xl", `${name}.pooled_prompt_embeds`)).toBeLessThan(TOLERANCE);
  });
});

describe("what is refused by name", () => {
  const layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
  /** A LoRA of rank 2 on one layer of the tiny UNet, with other tensors and metadata. */
  async function written(more: Record<string, Tensor>, metadata: Record<string, string> = {}): Promise<string> {
    const path = join(dir, "one.safetensors");
    const pair = { [`unet.${layer}.lora_A.weight`]: zeros([2, 8]), [`unet.${layer}.lora_B.weight`]: zeros([8, 2]) };
    await writeSafetensors(path, { ...pair, ...more }, metadata);
    return path;
  }
  const load = async (file: string) => {
    const model = new AdapterModel(unets.sd, new LoRAConfig({ rank: 3 }));
    const before = model.stateDict();
    try {
      return await model.loadAdapters(file);
    } catch (reason) {
      expect(model.stateDict()).toEqual(before);
      throw reason;
    }
  };

  it("the one layer alone is read", async () => {
    expect((await load(await written({}))).layers).toHaveLength(1);
  });

  it.each([
    ["LoHa beside it", { [`unet.${layer}.hada_w1_a`]: zeros([2, 2]) }, /a mixture that is not supported: .*LoHa/],
    ["OFT", { [`unet.${layer}.oft_blocks`]: zeros([2]) }, /is OFT, not LoRA \(1 of its 1 layers, .*oft_blocks/],
    ["stray tensors", { "a.b": zeros([1]), c: zeros([1]) }, /no plain LoRA of layers .*: "a\.b", "c"\.$/],
    ["a second pair", { [`unet.${layer}.lora_A.b.weight`]: zeros([2, 8]) }, /known here: "unet\.down/],
    ["a trained bias", { [`unet.${layer}.lora_B.bias`]: zeros([8]) }, /lora_B\.bias/],
    ["a Tucker factor", { [`unet.${layer}.lora_mid.weight`]: zeros([2, 2, 3, 3]) }, /lora_mid\.weight/],
    ["half a pair", { "unet.mid_block.x.lora_A.weight": zeros([2, 8]) }, /"mid_block\.x" lacks its up matrix/],
    [
      "other layers",
      { "unet.x.lora_A.weight": zeros([2, 8]), "unet.x.lora_B.weight": zeros([8, 2]) },
      /1 of its 2 layers do not exist in this one \("x"\)/,
    ],
    ["an alpha of two numbers", { [`unet.${layer}.alpha`]: zeros([2]) }, /alpha" must be one number; it is \[2\]/],
    [
      "ranks that differ",
      { "unet.x.lora_A.weight": zeros([2, 8]), "unet.x.lora_B.weight": zeros([8, 3]) },
      /matrices of "x" must be .*\[2,8\] and \[8,3\]/,
    ],
    ["a third text encoder", { "text_encoder_3.encoder.block.0.lora_A.weight": zeros([2, 8]) }, /text_encoder_3/],
  ] as [string, Record<string, Tensor>, RegExp][])("%s", async (_, more, message) => {
    await expect(load(await written(more))).rejects.toThrow(message);
  });

  it("two names of the same layer", async () => {
    const flat = `lora_unet_${layer.replaceAll(".", "_")}`;
    const pair = { [`${flat}.lora_down.weight`]: zeros([2, 8]), [`${flat}.lora_up.weight`]: zeros([8, 2]) };
    await expect(load(await written(pair))).rejects.toThrow(/are the same one, "down_blocks\.0/);
  });

  it("a file for another model, or for text encoders alone, where there are none", async () => {
    const xl = new AdapterModel(unets.xl, new LoRAConfig());
    await expect(xl.loadAdapters(pathOf("sd", "kohya"))).rejects.toThrow(
      /is an adapter for another model: \d+ of its 48/,
    );
    await expect(xl.loadAdapters(pathOf("sd", "cloneofsimo"))).rejects.toThrow(/for another model/);
    const text = "text_encoder.text_model.encoder.layers.0.mlp.fc1";
    const path = join(dir, "text.safetensors");
    await writeSafetensors(path, {
      [`${text}.lora_A.weight`]: zeros([2, 8]),
      [`${text}.lora_B.weight`]: zeros([8, 2]),
    });
    await expect(xl.loadAdapters(path)).rejects.toThrow(/changes text encoders only/);
  });

  it("any of these files by a FeRAModel", async () => {
    const fera = new FeRAModel(unets.sd);
    await expect(fera.loadAdapters(pathOf("sd", "kohya"))).rejects.toThrow(/is a lora adapter; FeRAModel needs FeRA's/);
  });

  it.each([
    ["another rank", { r: 3 }, /says rank 3 at "down_blocks.*its tensors 2/],
    ["a trained bias", { r: 2, bias: "all" }, /sets bias to "all", which is not supported/],
    ["a beginning that changes the model", { r: 2, init_lora_weights: "pissa" }, /init_lora_weights to "pissa"/],
    ["what is not known", { r: 2, use_future: true }, /sets use_future to true/],
    ["a pattern with look-ahead", { r: 2, alpha_pattern: { "(?=a)b": 1 } }, /pattern of layers "\(\?=a\)b"/],
  ])("of a configuration: %s", async (_, config, message) => {
    const keys = Object.entries(config).map(([key, value]) => [`unet.${key}`, value]);
    const path = await written({}, { lora_adapter_metadata: JSON.stringify(Object.fromEntries(keys)) });
    await expect(load(path)).rejects.toThrow(message);
  });
});
