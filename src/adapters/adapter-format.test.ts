import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { UNet2DConditionModel } from "../models/unet-2d-condition/unet-2d-condition.js";
import { readSafetensors, readTorch, writeSafetensors, writeTorch } from "../storage/index.js";
import "../storage/node.js";
import { float32ToFloat16 } from "../tensor/float16.js";
import { Generator } from "../tensor/random.js";
import { type Tensor, tensor, zeros } from "../tensor/tensor.js";
import { readFeRAAdapter, writeAdapter } from "./adapter-format.js";
import { FeRAConfig } from "./fera/fera-config.js";
import { FeRAModel } from "./fera/fera-model.js";

const TRAINED = "test/reference/unet-sd15/adapters_trained.safetensors";
const configOf = (name: string) => JSON.parse(readFileSync(`test/reference/${name}/unet/config.json`, "utf8"));
const model = UNet2DConditionModel.fromConfig(configOf("unet-sd15"), new Generator(0));

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "fera-adapters-"));
});
afterAll(() => rm(folder, { recursive: true }));
const at = (name: string): string => join(folder, name);

describe("an adapter", () => {
  const config = new FeRAConfig({
    rank: 2,
    alpha: 3,
    numExperts: 4,
    numBands: 2,
    bands: "complete",
    sigma: { rule: "latent", divisor: 8 },
    targetModules: ["to_q", "to_out.0"],
  });

  for (const name of ["adapter.safetensors", "adapter-folder"]) {
    it(`comes back whole from ${name}`, async () => {
      const saved = new FeRAModel(model, config, { seed: 4 });
      await saved.saveAdapters(at(name));
      const loaded = new FeRAModel(model);
      await loaded.loadAdapters(at(name));
      expect(loaded.config).toEqual(config);
      expect(new Set(loaded.layers)).toEqual(new Set(saved.layers));
      expect(loaded.stateDict()).toEqual(saved.stateDict());
    });
  }

  it("comes back from .pt, with what the file does not say as the model was made with", async () => {
    const saved = new FeRAModel(model, config, { seed: 4 });
    await saved.saveAdapters(at("adapter.pt"));
    const plain = new FeRAModel(model);
    await plain.loadAdapters(at("adapter.pt"));
    expect(plain.stateDict()).toEqual(saved.stateDict());
    expect(plain.config).toMatchObject({ rank: 2, numExperts: 4, numBands: 2, alpha: 1, bands: "reference" });
    expect(plain.config.targetModules).toEqual(["to_q", "to_out.0"]);
    expect(new FeRAModel(model, plain.config).layers).toEqual(plain.layers);
    const told = new FeRAModel(model, config.with({ rank: 7 }));
    await told.loadAdapters(at("adapter.pt"));
    expect(told.config).toEqual(config);
  });

  it("lies in a folder as PEFT's do, with the configuration in both files", async () => {
    await new FeRAModel(model, config).saveAdapters(at("nested/adapter"));
    expect((await readdir(at("nested/adapter"))).sort()).toEqual(["adapter_config.json", "adapter_model.safetensors"]);
    const json = JSON.parse(readFileSync(at("nested/adapter/adapter_config.json"), "utf8"));
    expect(json).toMatchObject({ peft_type: "FERA", rank: 2, num_bands: 2, target_modules: ["to_q", "to_out.0"] });
    const { metadata } = await readSafetensors(at("nested/adapter/adapter_model.safetensors"));
    expect(FeRAConfig.fromJSON(JSON.parse(metadata.fera_config!))).toEqual(config);
  });

  it("is converted between formats without its model", async () => {
    const adapter = await readFeRAAdapter("test/reference/unet-sd15/fera_output.pt");
    expect(adapter).toMatchObject({ hasConfig: false, config: { rank: 4, numExperts: 3, numBands: 3 } });
    expect(adapter.config.targetModules).toEqual(["to_q", "to_k", "to_v"]);
    await writeAdapter(at("converted.safetensors"), adapter);
    const again = await readFeRAAdapter(at("converted.safetensors"));
    expect(again.hasConfig).toBe(true);
    expect(again.config).toEqual(adapter.config);
    await writeAdapter(at("converted.pt"), again);
    const { tensors } = await readSafetensors(TRAINED);
    const torch = await readTorch(at("converted.pt"));
    expect(torch.size).toBe(tensors.size);
    for (const [name, value] of tensors) expect(torch.get(name), name).toEqual(value);
  });

  it("loads from bytes of either kind", async () => {
    const fera = new FeRAModel(model);
    await fera.loadAdapters(new Uint8Array(readFileSync(TRAINED)));
    const state = fera.stateDict();
    fera.loadStateDict(new FeRAModel(model).stateDict());
    await fera.loadAdapters(new Uint8Array(readFileSync("test/reference/unet-sd15/fera_output.pt")));
    expect(fera.stateDict()).toEqual(state);
    await expect(fera.loadAdapters(new Uint8Array(3))).rejects.toThrow(/^adapter data: /);
  });

  it("may be float16", async () => {
    const { tensors } = await readSafetensors(TRAINED);
    const halves = [...tensors].map(([name, { data, shape }]) => {
      return [name, tensor(float32ToFloat16(data as Float32Array), shape, "float16")] as const;
    });
    await writeSafetensors(at("half.safetensors"), new Map(halves));
    const fera = new FeRAModel(model);
    await fera.loadAdapters(at("half.safetensors"));
    const [name, value] = [...fera.stateDict()][5]!;
    value.data.forEach((element, i) => {
      expect(element).toBeCloseTo((tensors.get(name)!.data as Float32Array)[i]!, 2);
    });
  });
});

describe("refused:", () => {
  const refusal = async (path: string) => {
    const fera = new FeRAModel(model);
    const before = fera.stateDict();
    const error = await fera.loadAdapters(path).then(
      () => "nothing was refused",
      (reason: Error) => reason.message,
    );
    expect(fera.stateDict()).toEqual(before);
    return error;
  };
  const changed = async (name: string, change: (tensors: Map<string, Tensor>) => void, config?: object) => {
    const { tensors } = await readSafetensors(TRAINED);
    change(tensors);
    await writeSafetensors(at(name), tensors, config && { fera_config: JSON.stringify(config) });
    return refusal(at(name));
  };
  const FIRST = "base_model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.experts";

  it("an adapter for a model with other layers", async () => {
    const message = await refusal("test/reference/unet-sdxl/fera_output.pt");
    expect(message).toMatch(/another model: the layer "\S+" (does not exist|is \d+→\d+ in the adapter).*and \d+ more/);
  });

  it("an adapter for a model with layers of other sizes", async () => {
    const other = UNet2DConditionModel.fromConfig(
      { ...configOf("unet-sd15"), cross_attention_dim: 40 },
      new Generator(0),
    );
    await new FeRAModel(other, FeRAConfig.reference()).saveAdapters(at("other.safetensors"));
    const message = await refusal(at("other.safetensors"));
    expect(message).toMatch(/attn2.to_k" is 40→16 in the adapter and 24→16 in the model, and 7 more of its 24 layers/);
  });

  it("missing tensors", async () => {
    const message = await changed("missing.safetensors", (tensors) => {
      tensors.delete(`${FIRST}.1.lora_up.weight`);
      tensors.delete(`${FIRST}.2.lora_up.weight`);
    });
    expect(message).toContain(`"${FIRST}.1.lora_up.weight" is missing (and 1 more such problems)`);
  });

  it("tensors of contradicting shapes", async () => {
    const message = await changed("shape.safetensors", (tensors) => {
      tensors.set(`${FIRST}.1.lora_down.weight`, zeros([5, 16]));
    });
    expect(message).toContain(`"${FIRST}.1.lora_down.weight" is [5,16], but the other tensors ask for [4,16]`);
  });

  it("unknown tensors", async () => {
    const message = await changed("unknown.safetensors", (tensors) => tensors.set("lora_A.weight", zeros([2])));
    expect(message).toContain('"lora_A.weight" is no tensor of a FeRA adapter');
  });

  it("another kind of adapter", async () => {
    await writeSafetensors(at("lora.safetensors"), new Map([["unet.to_q.lora_A.weight", zeros([4, 16])]]));
    expect(await refusal(at("lora.safetensors"))).toMatch(/"to_q" lacks its up matrix/);
    await writeSafetensors(at("model.safetensors"), new Map([["conv_in.weight", zeros([2, 2])]]));
    expect(await refusal(at("model.safetensors"))).toMatch(/is no FeRA adapter: .*it holds conv_in\.weight\./);
    const router = new Map([
      ["router.net.0.weight", zeros([64, 3])],
      ["router.net.2.weight", zeros([3, 64])],
    ]);
    await writeTorch(at("router.pt"), router);
    expect(await refusal(at("router.pt"))).toContain("holds no experts");
  });

  it("a router that asks for more experts than there are tensors", async () => {
    const message = await changed("experts.safetensors", (tensors) => {
      tensors.set("router.net.2.weight", zeros([100_000, 64]));
    });
    expect(message).toMatch(/100000 experts .* on 24 layers need 4800004 tensors; it holds 148/);
  });

  it("values that are not finite, and integers", async () => {
    const notFinite = await changed("nan.safetensors", (tensors) => {
      (tensors.get("router.net.0.bias")!.data as Float32Array)[3] = Number.NaN;
    });
    expect(notFinite).toMatch(/"router.net.0.bias" holds values not finite/);
    const integers = await changed("integers.safetensors", (tensors) => {
      tensors.set("router.net.0.bias", zeros([64], "int64"));
    });
    expect(integers).toMatch(/"router.net.0.bias" is int64/);
  });

  it("a configuration that contradicts the tensors, or is none", async () => {
    const nothing = () => undefined;
    expect(await changed("a.safetensors", nothing, { rank: 8 })).toMatch(/configuration says rank=8, its tensors 4/);
    expect(await changed("b.safetensors", nothing, { rank: -8 })).toMatch(/fera_config\): rank: .*got -8/);
    await writeSafetensors(at("c.safetensors"), (await readSafetensors(TRAINED)).tensors, { fera_config: "{" });
    expect(await refusal(at("c.safetensors"))).toMatch(/not valid JSON/);
  });

  it("a folder of another kind of adapter, an empty one, and none", async () => {
    await new FeRAModel(model).saveAdapters(at("lora"));
    await writeFile(at("lora/adapter_config.json"), JSON.stringify({ peft_type: "LORA", r: 8 }));
    expect(await refusal(at("lora"))).toMatch(/holds what is no plain LoRA.*"router\.net\./);
    await writeFile(at("lora/adapter_config.json"), JSON.stringify({ peft_type: "IA3" }));
    expect(await refusal(at("lora"))).toMatch(/peft_type must be "FERA" or .*"LORA" or .*; got "IA3"/);
    expect(await refusal(at("nowhere"))).toMatch(
      /nowhere: is no adapter's folder .*no such file.*Name a \.safetensors/,
    );
    expect(await refusal("")).toMatch(/must be a text that is not empty; got ""/);
    expect(await refusal(at("nowhere.safetensors"))).toMatch(/no such file/);
    expect(await refusal(at("adapter.bin"))).toMatch(/\.safetensors file, a \.pt file, or a folder/);
  });

  it("truncated files", async () => {
    await writeFile(at("cut.safetensors"), readFileSync(TRAINED).subarray(0, 30_000));
    expect(await refusal(at("cut.safetensors"))).toMatch(/cut\.safetensors: /);
    await writeFile(at("cut.pt"), readFileSync("test/reference/unet-sd15/fera_output.pt").subarray(0, 30_000));
    expect(await refusal(at("cut.pt"))).toMatch(/cut\.pt: /);
  });

  it("writing where there is no folder", async () => {
    const fera = new FeRAModel(model);
    await expect(fera.saveAdapters(at("gone/a.safetensors"))).rejects.toThrow(/its folder does not exist/);
    await writeFile(at("file"), "");
    await expect(fera.saveAdapters(at("file/adapter"))).rejects.toThrow(/the folder cannot be made/);
    expect(existsSync(at("gone"))).toBe(false);
  });
});
