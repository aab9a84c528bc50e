// Adapters of one batch's images chosen for each prompt, adapters swapped without compiling, and fused ones of every kind.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import { writeTinyPipeline } from "../../../test/support/tiny-pipeline.js";
import {
  type AdapterConfig,
  AdapterModel,
  DoRAConfig,
  FeRAConfig,
  type LoadedAdapter,
  LoHaConfig,
  LoKrConfig,
  LoRAAdapter,
  LoRAConfig,
  recordLayers,
  TLoRAConfig,
} from "../../adapters/index.js";
import type { Value } from "../../graph/index.js";
import { UNet2DConditionModel } from "../../models/index.js";
import type { Scope } from "../../nn/index.js";
import "../../runtime/node.js";
import "../../storage/node.js";
import { Generator, randn } from "../../tensor/random.js";
import { Tensor } from "../../tensor/tensor.js";
import type { AdapterChoice } from "../adapter-set.js";
import { StableDiffusionPipeline } from "./stable-diffusion-pipeline.js";

/** The same sums in another order, over the steps of a run. */
const TOLERANCE = 1e-4;
const DIFFERENT = 1e-3;
const PROMPTS = ["a red circle", "a blue square", "a red circle"];

/** Counts how often its graph is built. */
class CountingUNet extends UNet2DConditionModel {
  built = 0;
  override build(scope: Scope, inputs: Readonly<Record<string, Value>>): Value {
    this.built++;
    return super.build(scope, inputs);
  }
}

let dir: string;
let pipe: StableDiffusionPipeline;
let unet: CountingUNet;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-mixed-adapters-"));
  await writeTinyPipeline(dir);
  const loaded = await StableDiffusionPipeline.fromPretrained(dir);
  unet = new CountingUNet(loaded.unet.config, loaded.unet.weights, loaded.unet.runtime);
  const { vae, scheduler, textEncoder, tokenizer } = loaded;
  pipe = new StableDiffusionPipeline({ unet, vae, scheduler, textEncoder, tokenizer });
});
afterEach(async () => {
  await pipe.unfuseLora();
  pipe.unloadAdapters();
  pipe.enableAdapters();
});
afterAll(async () => {
  await pipe?.dispose();
  await rm(dir, { recursive: true, force: true });
});

function drawn(state: ReadonlyMap<string, Tensor<"float32">>, seed: number, from = false) {
  const generator = new Generator(seed);
  return new Map(
    [...state].map(([name, { shape, data }]) => {
      const noise = randn(shape, { generator }).data.map((value, i) => 0.3 * value + (from ? data[i]! : 0));
      return [name, new Tensor("float32", shape, noise)];
    }),
  );
}

/** An adapter of any kind with drawn values, as a file would give it. */
async function adapter(config: AdapterConfig, seed: number): Promise<LoadedAdapter> {
  const model = await AdapterModel.create(unet, config);
  return { config, state: drawn(model.stateDict(), seed, true), layers: model.layers, hasConfig: true };
}

const options = { rank: 2, targetModules: ["to_q", "conv1", "proj_in"] };

/** The latents of each image of a batch. */
async function rows(
  prompt: string | string[],
  adapters: boolean | AdapterChoice[],
  first = 0,
): Promise<Float32Array[]> {
  const count = typeof prompt === "string" ? 1 : prompt.length;
  const noise = randn([PROMPTS.length, 4, 8, 8], { generator: new Generator(7) });
  const size = noise.size / PROMPTS.length;
  const latents = new Tensor("float32", [count, 4, 8, 8], noise.data.slice(first * size, (first + count) * size));
  const result = await pipe.generate({ prompt, steps: 2, seed: 1, latents, adapters });
  return Array.from({ length: count }, (_, i) => result.latents.data.slice(i * size, (i + 1) * size));
}

describe("adapters for each prompt of a batch", () => {
  it("give each image what its own adapters give alone, text encoders' parts and routed ones among them", async () => {
    const textLayers = recordLayers((graph, adapters) => {
      pipe.textEncoder.build(pipe.textEncoder.frozenScope(graph, adapters), graph.input("ids", "int64", [1, 1]));
    });
    const text = LoRAAdapter.on(textLayers, new LoRAConfig({ rank: 2, targetModules: ["q_proj", "fc1"] }));
    const part = { config: text.config, layers: text.layers, state: drawn(text.initialize(new Generator(0)), 4) };
    const inks = await adapter(new LoRAConfig(options), 1);
    await pipe.loadAdapters({ ...inks, textEncoders: new Map([["text_encoder", part]]) }, { name: "inks" });
    await pipe.loadAdapters(await adapter(new LoKrConfig({ ...options, factor: 4 }), 2), { name: "film" });
    await pipe.loadAdapters(await adapter(new FeRAConfig({ rank: 2 }), 3), { name: "routed" });
    await pipe.loadAdapters(await adapter(new DoRAConfig(options), 5), { name: "strong" });
    const choices: AdapterChoice[] = ["inks", { inks: 0.5, film: 1, strong: 0.7 }, ["routed"]];
    const mixed = await rows(PROMPTS, choices);
    for (const [i, prompt] of PROMPTS.entries()) {
      const [alone] = await rows(prompt, [choices[i]!], i);
      expect(relativeError(mixed[i]!, alone!), `${i}`).toBeLessThan(TOLERANCE);
      const [base] = await rows(prompt, false, i);
      expect(relativeError(mixed[i]!, base!), `${i}`).toBeGreaterThan(DIFFERENT);
    }
    const [, none] = await rows(PROMPTS, ["inks", false, true]);
    const [base] = await rows(PROMPTS[1]!, false, 1);
    expect(relativeError(none!, base!)).toBeLessThan(TOLERANCE);
  }, 120_000);

  it("are refused where their number, a name or a scale does not fit, or one batch cannot have them", async () => {
    await pipe.loadAdapters(await adapter(new DoRAConfig(options), 5), { name: "strong" });
    const refused = (adapters: unknown) => expect(rows(PROMPTS, adapters as AdapterChoice[])).rejects;
    await refused(["strong"]).toThrow("adapters must be true, false, or a list with one entry per prompt; got 1 for 3");
    await refused("strong").toThrow('one entry per prompt; got "strong"');
    await refused([true, "weak", false]).toThrow('generate: adapters: there is no adapter "weak"; loaded are "strong"');
    await refused([true, 3, false]).toThrow("a name, names, or names with scales; got 3");
    await refused([{ strong: Number.NaN }, true, true]).toThrow('("strong"): the scale must be finite; got NaN');
    await refused([{ strong: 1 }, { strong: 0.5 }, false]).toThrow(
      /"strong" is of the kind dora, whose change is not linear in its scale.*got 1, 0\.5, 0/,
    );
  });
});

describe("swapping adapters", () => {
  it.each<[string, AdapterConfig]>([
    ["LoRA", new LoRAConfig(options)],
    ["FeRA", new FeRAConfig({ rank: 2 })],
    ["LoHa", new LoHaConfig(options)],
  ])(
    "of the same shapes compiles nothing: %s",
    async (_, config) => {
      const [first, second] = [await adapter(config, 1), await adapter(config, 2)];
      await pipe.loadAdapters(first);
      const [before] = await rows(PROMPTS[0]!, true);
      await pipe.loadAdapters(second);
      const loaded = unet.built;
      const [after] = await rows(PROMPTS[0]!, true);
      expect(unet.built).toBe(loaded);
      expect(relativeError(after!, before!)).toBeGreaterThan(DIFFERENT);
      pipe.setAdapterScale(0.5);
      pipe.disableAdapters();
      pipe.enableAdapters();
      await rows(PROMPTS[0]!, true);
      pipe.setAdapterScale(1);
      await pipe.loadAdapters(first, { name: "again" });
      pipe.setAdapters("again");
      pipe.deleteAdapters("default");
      const placed = unet.built;
      const [again] = await rows(PROMPTS[0]!, true);
      expect(unet.built).toBe(placed);
      expect(again).toEqual(before);
    },
    60_000,
  );
});

describe("fusing", () => {
  it.each<[string, AdapterConfig]>([
    ["DoRA", new DoRAConfig(options)],
    ["LoKr", new LoKrConfig({ ...options, rank: 1, factor: 4 })],
    ["LoHa", new LoHaConfig(options)],
  ])(
    "%s after a LoRA gives what both give unfused, at half the scale too",
    async (_, config) => {
      await pipe.loadAdapters(await adapter(new LoRAConfig(options), 1), { name: "plain" });
      await pipe.loadAdapters(await adapter(config, 2), { name: "other" });
      pipe.setAdapters(["plain", "other"], [1, 0.5]);
      const [unfused] = await rows(PROMPTS[0]!, true);
      await pipe.fuseLora();
      expect([...pipe.activeAdapters]).toEqual([]);
      const [fused] = await rows(PROMPTS[0]!, true);
      expect(relativeError(fused!, unfused!)).toBeLessThan(TOLERANCE);
    },
    60_000,
  );

  it("T-LoRA is refused by name", async () => {
    await pipe.loadAdapters(await adapter(new TLoRAConfig(options), 1), { name: "timed" });
    await expect(pipe.fuseLora()).rejects.toThrow(/the adapter "timed" is of the kind t-lora and cannot be fused/);
    expect([...pipe.activeAdapters.keys()]).toEqual(["timed"]);
  });
});
