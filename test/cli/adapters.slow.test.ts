import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  AdapterModel,
  DoRAConfig,
  LoHaConfig,
  LoKrConfig,
  readFeRAAdapter,
  TLoRAConfig,
} from "../../src/adapters/index.js";
import { StableDiffusionPipeline } from "../../src/pipelines/index.js";
import "../../src/runtime/node.js";
import { readSafetensors } from "../../src/storage/index.js";
import "../../src/storage/node.js";
import { runFera, writeTinyAdapter, writeTinyImages } from "../support/fera-program.js";
import { writeTinyPipeline } from "../support/tiny-pipeline.js";

let dir: string;
let model: string;
let adapter: string;
const at = (...parts: string[]) => join(dir, ...parts);

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-cli-adapters-"));
  model = at("model");
  adapter = at("adapter.safetensors");
  await writeTinyPipeline(model);
  await writeTinyImages(at("images"));
  await writeTinyAdapter(model, adapter, { rank: 2, alpha: 3, numExperts: 2, sigma: { rule: "latent", divisor: 8 } });
});
afterAll(() => rm(dir, { recursive: true, force: true }));

describe("fera convert", () => {
  it("loses nothing on the way through a folder", async () => {
    expect((await runFera("convert", adapter, at("new/folder"))).code).toBe(0);
    expect((await runFera("convert", at("new/folder"), at("back.safetensors"))).code).toBe(0);
    expect(readFileSync(at("back.safetensors")).equals(readFileSync(adapter))).toBe(true);
  });

  it("keeps all tensors in a .pt, says that it has no configuration, and takes one on the way back", async () => {
    const there = await runFera("convert", adapter, at("adapter.pt"));
    expect(there.stderr).toMatch(/keeps no configuration; remember: alpha 3, .*latent blur \/ 8/);
    const untold = ["--alpha", "3", "--sigma-rule", "latent", "--sigma-divisor", "8"];
    const back = await runFera("convert", at("adapter.pt"), at("from-pt.safetensors"), ...untold);
    expect(back.code).toBe(0);
    const [before, after] = [await readFeRAAdapter(adapter), await readFeRAAdapter(at("from-pt.safetensors"))];
    expect(after.state).toEqual(before.state);
    expect(after.config).toMatchObject({ rank: 2, numExperts: 2, alpha: 3, sigma: { rule: "latent", divisor: 8 } });
  });

  it.each([
    ["an adapter that is missing", 1, ["none.pt", "x.safetensors"], /none\.pt: cannot be read/],
    ["a format that is unknown", 2, ["ADAPTER", "x.bin"], /x\.bin: an adapter is a \.safetensors file/],
    ["the same file twice", 2, ["ADAPTER", "ADAPTER"], /IN and OUT are the same/],
    ["options that the file has itself", 2, ["ADAPTER", "x.pt", "--alpha", "1"], /leave --alpha out/],
    ["an empty OUT", 2, ["ADAPTER", ""], /path must be a text that is not empty/],
    ["no OUT", 2, ["ADAPTER"], /missing required argument 'OUT'/],
  ])("ends with a message for %s, with exit code %i", async (_, expected, args, message) => {
    const { code, stderr } = await runFera("convert", ...args.map((arg) => (arg === "ADAPTER" ? adapter : arg)));
    expect(stderr).toMatch(message);
    expect(code).toBe(expected);
    expect(existsSync("x.pt")).toBe(false);
  });
});

describe("fera convert of a plain LoRA", () => {
  const golden = "test/reference/lora-files/sd";
  const tiny = "test/reference/pipeline-tiny";

  it("takes it from kohya's names to diffusers' and back, text encoder too", async () => {
    const there = await runFera(
      ...["convert", `${golden}/kohya.safetensors`, at("diffusers.safetensors"), "--to", "diffusers", "--model", tiny],
    );
    expect(there.stdout).toMatch(/plain LoRA for diffusers, 48 layers and 12 of text encoders/);
    const names = [...(await readSafetensors(at("diffusers.safetensors"))).tensors.keys()];
    expect(names).toContain("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight");
    expect((await runFera("convert", at("diffusers.safetensors"), at("kohya.safetensors"))).code).toBe(0);
    const before = (await readSafetensors(`${golden}/kohya.safetensors`)).tensors;
    const after = (await readSafetensors(at("kohya.safetensors"))).tensors;
    expect([...after.keys()].sort()).toEqual([...before.keys()].sort());
    // alpha / rank was 1 / 2, a power of two: it went into the up matrix without rounding.
    for (const [name, { data }] of before) {
      const factor = name.endsWith(".alpha") ? 2 : name.includes("lora_up") ? 0.5 : 1;
      expect(after.get(name)!.data, name).toEqual((data as Float32Array).map((value) => value * factor));
    }
  });

  it.each([
    [
      "names that only the model explains",
      2,
      ["kohya.safetensors", "x.safetensors"],
      /only its model explains: give --model/,
    ],
    ["gates", 2, ["bare.safetensors", "x", "--to", "peft", "--gates", "1"], /is a plain LoRA; leave --gates out/],
    ["a text encoder's layers in PEFT's folder", 1, ["diffusers.safetensors", "x"], /cannot also hold layers of text/],
  ])("ends with a message for %s, with exit code %i", async (_, expected, [from, to, ...flags], message) => {
    const { code, stderr } = await runFera("convert", `${golden}/${from}`, at(to!), ...flags);
    expect(stderr).toMatch(message);
    expect(code).toBe(expected);
    expect(existsSync(at(to!))).toBe(false);
  });
});

describe("fera convert and inspect of LoRA's relatives", () => {
  const tiny = "test/reference/pipeline-tiny";
  const kinds = [
    ["DoRA", new DoRAConfig({ rank: 2 }), /DoRA for peft, 32 layers/, /DoRA .*kohya's names/],
    ["LoKr", new LoKrConfig({ rank: 1, targetModules: ["to_q", "conv1"] }), /LoKr for peft/, /LoKr \(LyCORIS\), kohya/],
    ["LoHa", new LoHaConfig({ rank: 2, targetModules: ["to_q", "conv1"] }), /LoHa for peft/, /LoHa \(LyCORIS\), kohya/],
  ] as const;
  it.each(kinds)("%s goes from kohya's names to PEFT's folder and back", async (name, config, converted, inspected) => {
    const { unet } = await StableDiffusionPipeline.fromPretrained(tiny);
    await (await AdapterModel.create(unet, config)).saveAdapters(at(`${name}.safetensors`));
    const from = await runFera("inspect", at(`${name}.safetensors`));
    expect(from.stdout).toMatch(inspected);
    expect(from.stdout).toContain("fera can load it");
    const there = await runFera("convert", at(`${name}.safetensors`), at(name), "--to", "peft", "--model", tiny);
    expect(there.stderr).toBe("");
    expect(there.stdout).toMatch(converted);
    expect((await runFera("inspect", at(name))).stdout).toContain(
      `peft_type ${config.adapterType === "dora" ? "LORA" : name.toUpperCase()}`,
    );
    const back = await runFera("convert", at(name), at(`${name}-back.safetensors`), "--to", "kohya", "--model", tiny);
    expect(back.stderr).toBe("");
    const [before, after] = [`${name}.safetensors`, `${name}-back.safetensors`].map((file) =>
      readSafetensors(at(file)),
    );
    expect((await after!).tensors).toEqual((await before!).tensors);
  });

  it("T-LoRA goes between fera's file and folder, and into no other program's format", async () => {
    const { unet } = await StableDiffusionPipeline.fromPretrained(tiny);
    await new AdapterModel(unet, new TLoRAConfig({ rank: 3, minRank: 2 })).saveAdapters(at("timed.safetensors"));
    expect((await runFera("inspect", at("timed.safetensors"))).stdout).toMatch(
      /T-LoRA adapter\n +rank 3, of which 2 act/,
    );
    expect((await runFera("convert", at("timed.safetensors"), at("timed"))).code).toBe(0);
    expect((await runFera("inspect", at("timed"))).stdout).toMatch(/T-LoRA adapter\n +rank 3, of which 2 act/);
    const refused = await runFera("convert", at("timed"), at("x.safetensors"), "--to", "kohya");
    expect(refused.stderr).toMatch(/is a T-LoRA, whose ranks follow the timestep: no other program's format/);
    expect(refused.code).toBe(2);
  });
});

describe("fera convert --to", () => {
  it("freezes the gates at their mean over sampled images, and prints the error against live routing", async () => {
    const flags = ["--to", "kohya", "--model", model, "--steps", "2", "--num-images", "1", "--timesteps", "2"];
    const { code, stdout, stderr } = await runFera("convert", adapter, at("kohya.safetensors"), ...flags);
    expect(stderr).not.toContain("fera:");
    expect(code).toBe(0);
    expect(stdout).toMatch(/plain LoRA for kohya, 32 layers, rank 4, alpha 4/);
    expect(stdout).toMatch(/gates 0\.\d+, 0\.\d+: the mean over 2 timesteps \(250 to 750\).* 1 image sampled/);
    expect(stdout).toMatch(/250 +0\.\d+ 0\.\d+ +\S+ % +\S+ %\n +750 .*\n +mean +\S+ % +\S+ %/);
    const { metadata } = await readSafetensors(at("kohya.safetensors"));
    const { gates } = JSON.parse(metadata.fera_frozen_gates!);
    expect(gates[0] + gates[1]).toBeCloseTo(1, 5);
    const inspected = await runFera("inspect", at("kohya.safetensors"));
    expect(inspected.stdout).toMatch(/plain LoRA, kohya's names.*\n +32 layers of the UNet/);
    expect(inspected.stdout).toMatch(/rank 4, alpha 4\n/);
    expect(inspected.stdout).toMatch(/made from a FeRA adapter with 2 experts, gates frozen at 0\.\d+, 0\.\d+/);
  });

  it("freezes them at one timestep of given images, into a folder that diffusers loads", async () => {
    const flags = ["--to", "diffusers", "--model", model, "--data", at("images"), "--limit", "2"];
    const { code, stdout } = await runFera(
      ...["convert", adapter, at("lora"), ...flags, "--gates", "timestep:600", "--timesteps", "1"],
    );
    expect(code).toBe(0);
    expect(stdout).toMatch(/at timestep 600, the mean over noisy latents of 2 images of /);
    const { tensors } = await readSafetensors(at("lora/pytorch_lora_weights.safetensors"));
    expect([...tensors.keys()][0]).toMatch(/^unet\.down_blocks\.0\..*\.lora_A\.weight$/);
    const inspected = await runFera("inspect", at("lora"));
    expect(inspected.stdout).toMatch(/plain LoRA, diffusers' names/);
  });

  it("takes gates as given without a model, and says what a .pt does not tell", async () => {
    const from = "test/reference/unet-sd15/fera_output.pt";
    const { code, stdout, stderr } = await runFera(
      ...["convert", from, at("peft"), "--to", "peft", "--gates", "0.2,0.5,0.3"],
    );
    expect(code).toBe(0);
    expect(stderr).toMatch(/holds no configuration; taken: alpha 1, temperature 0\.7, reference bands/);
    expect(stdout).toMatch(/rank 12, alpha 12\)\ngates 0\.200, 0\.500, 0\.300: as given\n.*not measured.*--model/);
    const inspected = await runFera("inspect", at("peft"));
    expect(inspected.stdout).toMatch(/PEFT adapter, peft_type LORA, r 12, lora_alpha 12\n +24 layers of the UNet/);
  });

  it.each([
    ["gates that are none", ["--to", "peft", "--gates", "most"], /--gates must be mean, timestep:N, or numbers/],
    ["another number of gates", ["--to", "peft", "--gates", "1"], /has 2 experts; got 1 gate/],
    ["a mean without a model", ["--to", "peft"], /--gates mean needs --model.*--gates 0\.50,0\.50/],
    ["images without a model", ["--to", "peft", "--gates", "1,0", "--data", "x"], /--data needs --model/],
    ["a limit without images", ["--to", "peft", "--model", "x", "--limit", "3"], /--limit needs --data/],
    [
      "images and a prompt",
      ["--to", "peft", "--model", "x", "--data", "x", "--prompt", "y"],
      /--prompt is for images that are sampled/,
    ],
    ["gates without --to", ["--gates", "1,0"], /--gates is for plain LoRA: it needs --to/],
    ["a folder for kohya", ["--to", "kohya", "--gates", "1,0"], /must end in \.safetensors/],
    ["an unknown program", ["--to", "comfy"], /--to must be one of kohya, diffusers, peft/],
  ])("ends with exit code 2 for %s", async (_, flags, message) => {
    const { code, stderr } = await runFera("convert", adapter, at("never"), ...flags);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
    expect(existsSync(at("never"))).toBe(false);
  });
});

describe("fera inspect", () => {
  it("tells an adapter's layers, configuration and norms, and draws its routing with its model", async () => {
    const plot = at("routing.png");
    const flags = ["--model", model, "--plot", plot, "--steps", "3", "--num-images", "1"];
    const { code, stdout } = await runFera("inspect", adapter, ...flags);
    expect(code).toBe(0);
    expect(stdout).toContain("rank 2, 2 experts, 3 bands");
    expect(stdout).toContain("32 layers");
    expect(stdout).toMatch(/alpha 3, .*\n.*blur latent \/ 8/);
    expect(stdout).toMatch(/down_blocks\.0\..*to_k +16 +16 +0\.\d+ +0\.\d+/);
    expect(stdout).toMatch(/all layers +\d/);
    expect(stdout).toMatch(/all energy in band 3 +[01]\.\d+ +[01]\.\d+\n +energy spread evenly/);
    expect(readFileSync(plot).subarray(1, 4).toString()).toBe("PNG");
  });

  it("tells the parts of a pipeline and of a model", async () => {
    const pipeline = await runFera("inspect", model);
    expect(pipeline.stdout).toMatch(/unet +UNet2DConditionModel +201,924 +808 kB +F32/);
    expect(pipeline.stdout).toContain("fera can load it");
    const unet = await runFera("inspect", join(model, "unet"));
    expect(unet.stdout).toMatch(
      /UNet2DConditionModel\n {2}family not known \(24 text features\)\n {2}201,924 parameters/,
    );
  });

  it.each([
    ["nothing", 1, ["none"], /none: there is no such file or folder/],
    ["a folder of something else", 1, ["IMAGES"], /is no adapter, training or model; it holds a-blue-square\.png/],
    ["a damaged file", 1, ["DAMAGED"], /damaged\.safetensors: /],
    ["--plot without a model", 2, ["ADAPTER", "--plot", "x.png"], /--plot needs --model/],
  ])("ends with a message for %s, with exit code %i", async (_, expected, args, message) => {
    await writeFile(at("damaged.safetensors"), readFileSync(adapter).subarray(0, 1000));
    const places: Record<string, string> = {
      ADAPTER: adapter,
      IMAGES: at("images"),
      DAMAGED: at("damaged.safetensors"),
    };
    const { code, stderr } = await runFera("inspect", ...args.map((arg) => places[arg] ?? arg));
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/\n {4}at /);
    expect(code).toBe(expected);
  });
});

describe("fera evaluate", () => {
  it("measures model and adapter with the same noise, and writes JSON", async () => {
    const run = async (name: string, ...flags: string[]) => {
      const json = at("reports", name);
      const { code, stdout } = await runFera(
        ...["evaluate", "--model", model, "--data", at("images"), "--json", json, "--batch-size", "4", ...flags],
      );
      expect(code).toBe(0);
      return { stdout, result: JSON.parse(readFileSync(json, "utf8")) };
    };
    const both = await run("both.json", "--adapter", adapter, "--split", "all");
    expect(both.result).toMatchObject({ split: "all", images: 6, timestepsPerImage: 4, predictions: 24, seed: 0 });
    expect(both.result.base).toBeGreaterThan(0);
    expect(both.result.adapted).not.toBe(both.result.base);
    expect(both.stdout).toMatch(/base +\d\.\d{5}\n +adapted +\d\.\d{5} +\([+-]\d+\.\d\d %\)/);
    const base = await run("base.json", "--split", "all");
    expect(base.result.base).toBe(both.result.base);
    expect(base.result.adapted).toBeUndefined();
    const limited = await run("limited.json", "--split", "train", "--limit", "2", "--timesteps-per-image", "1");
    expect(limited.result).toMatchObject({ images: 2, predictions: 2 });
  });
});
