import { readFileSync } from "node:fs";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { UNet2DConditionModel } from "../../models/index.js";
import { readSafetensors, writeSafetensors } from "../../storage/index.js";
import "../../storage/node.js";
import { Generator, randn } from "../../tensor/random.js";
import { DoRAConfig } from "../dora/dora-config.js";
import { AdapterModel, readAdapter } from "../index.js";
import { LoRAConfig } from "./lora-config.js";
import { writeLora } from "./write-lora.js";

const PIPELINES = ["pipeline-tiny", "pipeline-tiny-xl"] as const;
const structure = async (pipeline: string) =>
  UNet2DConditionModel.fromConfig(
    JSON.parse(readFileSync(`test/reference/${pipeline}/unet/config.json`, "utf8")),
    new Generator(0),
  );
let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-write-lora-"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

/** On linear layers and convolutions, samplers too, with ranks and alphas that differ. */
const query = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
const config = new LoRAConfig({
  rank: 3,
  alpha: 1.7,
  dropout: 0.25,
  targetModules: ["to_q", "to_out.0", "conv1", "downsamplers.0.conv", "upsamplers.0.conv", "conv_in", "linear_1"],
  rankPattern: { [query]: 2 },
  alphaPattern: { [query]: 5, conv_in: 0.3 },
});

/** A model with random adapters, and one without to load them into. */
async function models(pipeline: string, own = config) {
  const unet = await structure(pipeline);
  const saved = new AdapterModel(unet, own, { seed: 3 });
  const generator = new Generator(9);
  saved.loadStateDict(new Map([...saved.stateDict()].map(([name, { shape }]) => [name, randn(shape, { generator })])));
  return { saved, loaded: new AdapterModel(unet, new LoRAConfig()) };
}

describe.each(PIPELINES)("a LoRA on %s", (pipeline) => {
  it.each(["lora.safetensors", "folder"])("comes back whole from %s", async (name) => {
    const { saved, loaded } = await models(pipeline);
    const path = join(dir, pipeline, name);
    await saved.saveAdapters(name === "folder" ? path : join(dir, `${pipeline}.safetensors`));
    const { hasConfig } = await loaded.loadAdapters(name === "folder" ? path : join(dir, `${pipeline}.safetensors`));
    expect(hasConfig).toBe(true);
    expect(loaded.config).toEqual(config);
    expect(new Map(loaded.stateDict())).toEqual(new Map(saved.stateDict()));
    expect(new Set(loaded.layers)).toEqual(new Set(saved.layers));
  });

  it("comes back from .pt and from diffusers' names but for what they cannot say", async () => {
    const { saved, loaded } = await models(pipeline);
    const path = join(dir, `${pipeline}.pt`);
    await saved.saveAdapters(path);
    await loaded.loadAdapters(path);
    expect(new Map(loaded.stateDict())).toEqual(new Map(saved.stateDict()));
    expect(loaded.config.dropout).toBe(0);
    for (const { path: layer } of saved.layers) {
      expect(loaded.config.scaleOf(layer) / config.scaleOf(layer)).toBeCloseTo(1, 6);
    }
    const folder = join(dir, `${pipeline}-diffusers`);
    const part = { config, state: saved.stateDict(), layers: saved.layers };
    await writeLora(folder, part, "diffusers");
    expect(await readdir(folder)).toEqual(["pytorch_lora_weights.safetensors"]);
    await loaded.loadAdapters(folder);
    const [found, wanted] = [loaded.stateDict(), saved.stateDict()];
    expect([...found.keys()].sort()).toEqual([...wanted.keys()].sort());
    const factor = config.scaleOf(query);
    const up = `${query}.lora_B.weight`;
    expect(found.get(up)!.data).toEqual(wanted.get(up)!.data.map((value) => Math.fround(value * factor)));
    expect(loaded.config.scaleOf(query)).toBe(1);
  });
});

describe("DoRA from the files of other programs", () => {
  const golden = "test/reference/lora-files/sd";

  it.each(["kohya-dora.safetensors", "kohya-dora-input.safetensors", "peft-dora", "diffusers-dora.safetensors"])(
    "%s comes back whole",
    async (name) => {
      const unet = await structure("pipeline-tiny");
      const saved = new AdapterModel(unet, new LoRAConfig());
      await saved.loadAdapters(`${golden}/${name}`);
      expect(saved.config.adapterType).toBe("dora");
      const isPerInput = name.includes("input");
      for (const path of [join(dir, "dora.safetensors"), join(dir, "dora")]) {
        if (isPerInput && !path.endsWith("s")) {
          await expect(saved.saveAdapters(path)).rejects.toThrow(
            /PEFT and diffusers know DoRA's magnitudes per output only/,
          );
          continue;
        }
        await saved.saveAdapters(path);
        const loaded = new AdapterModel(unet, new LoRAConfig());
        await loaded.loadAdapters(path);
        expect(loaded.config).toEqual(saved.config);
        expect(new Map(loaded.stateDict())).toEqual(new Map(saved.stateDict()));
      }
    },
  );

  it("is the kohya file that it was, name by name", async () => {
    const saved = new AdapterModel(await structure("pipeline-tiny"), new LoRAConfig());
    for (const name of ["kohya-dora.safetensors", "kohya-dora-input.safetensors"]) {
      await saved.loadAdapters(`${golden}/${name}`);
      await saved.saveAdapters(join(dir, name));
      const [before, after] = [await readSafetensors(`${golden}/${name}`), await readSafetensors(join(dir, name))];
      expect(new Map([...after.tensors].sort())).toEqual(new Map([...before.tensors].sort()));
    }
  });

  it("begins anew with the model's weights, which the constructor cannot read: it says what to call", async () => {
    const unet = await structure("pipeline-tiny");
    expect(() => new AdapterModel(unet, new DoRAConfig())).toThrow(/dora begins .* await AdapterModel\.create/);
  });
});

describe("the file", () => {
  it("has kohya's names, with an alpha for each layer; of XL the original code's, counted through the model", async () => {
    const path = join(dir, "kohya.safetensors");
    await (await models("pipeline-tiny")).saved.saveAdapters(path);
    const sd = (await readSafetensors(path)).tensors;
    const name = `lora_unet_${query.replaceAll(".", "_")}`;
    expect(sd.get(`${name}.lora_down.weight`)!.shape).toEqual([2, 16]);
    expect(sd.get(`${name}.alpha`)).toMatchObject({ shape: [], data: Float32Array.of(5) });
    await (await models("pipeline-tiny-xl")).saved.saveAdapters(path);
    const xl = (await readSafetensors(path)).tensors;
    const places = ["input_blocks_0_0", "input_blocks_2_0_op", "output_blocks_1_2_conv", "label_emb_0_0"];
    for (const place of places) expect(xl.has(`lora_unet_${place}.lora_up.weight`), place).toBe(true);
  });

  it("scales as rsLoRA does, in programs that do not know it too", async () => {
    const own = config.with({ useRslora: true });
    const { saved, loaded } = await models("pipeline-tiny", own);
    const path = join(dir, "rslora.safetensors");
    await saved.saveAdapters(path);
    await loaded.loadAdapters(path);
    expect(loaded.config).toEqual(own);
    const { tensors } = await readSafetensors(path);
    await writeSafetensors(path, tensors);
    await loaded.loadAdapters(path);
    expect(loaded.config.useRslora).toBe(false);
    expect(loaded.config.scaleOf("conv_in")).toBeCloseTo(0.3 / Math.sqrt(3), 6);
  });

  it("is read by its tensors where they are no longer those of its configuration", async () => {
    const { saved, loaded } = await models("pipeline-tiny");
    const path = join(dir, "edited.safetensors");
    await saved.saveAdapters(path);
    const { tensors, metadata } = await readSafetensors(path);
    const kept = [...tensors].filter(([name]) => !name.includes("conv_in"));
    for (const [name, value] of kept) if (name.endsWith(".alpha")) (value.data as Float32Array)[0]! *= 2;
    await writeSafetensors(path, new Map(kept), metadata);
    await loaded.loadAdapters(path);
    expect(loaded.config.scaleOf(query)).toBe(5);
    expect(loaded.config.dropout).toBe(0.25);
    expect(loaded.layers.map((layer) => layer.path)).not.toContain("conv_in");
  });

  it("as a folder is what PEFT reads: patterns of whole paths", async () => {
    const { saved } = await models("pipeline-tiny");
    await saved.saveAdapters(join(dir, "peft"));
    const json = JSON.parse(readFileSync(join(dir, "peft/adapter_config.json"), "utf8"));
    expect(json).toMatchObject({ peft_type: "LORA", r: 3, lora_alpha: 1.7, lora_dropout: 0.25, use_dora: false });
    expect(json.rank_pattern).toEqual({ [`^${query.replaceAll(".", "\\.")}`]: 2 });
    expect(json.target_modules).toEqual(saved.layers.map(({ path }) => path));
    const { layers } = await readAdapter(join(dir, "peft"));
    expect(layers.map(({ path }) => path).sort()).toEqual(saved.layers.map(({ path }) => path).sort());
  });
});
