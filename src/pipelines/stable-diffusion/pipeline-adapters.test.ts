// Several adapters in a pipeline, by name, on the denoiser and on text encoders.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { relativeError } from "../../../test/support/relative-error.js";
import { writeTinyPipeline } from "../../../test/support/tiny-pipeline.js";
import {
  AdapterModel,
  FeRAConfig,
  FeRAModel,
  type LoadedAdapter,
  LoRAAdapter,
  LoRAConfig,
  recordLayers,
} from "../../adapters/index.js";
import { ConfigError, FormatError } from "../../errors.js";
import type { CLIPTextModel } from "../../models/clip-text/clip-text-model.js";
import "../../runtime/node.js";
import "../../storage/node.js";
import { Generator, randn } from "../../tensor/random.js";
import { Tensor } from "../../tensor/tensor.js";
import { StableDiffusionPipeline } from "./stable-diffusion-pipeline.js";
import { StableDiffusionXLPipeline } from "./stable-diffusion-xl-pipeline.js";

/** The same sums in another order. */
const TOLERANCE = 1e-5;
/** Of runs that must differ. */
const DIFFERENT = 1e-3;

let dir: string;
let pipe: StableDiffusionPipeline;
const CONVOLUTIONS = ["to_q", "to_v", "conv1", "proj_in"];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fera-pipeline-adapters-"));
  await writeTinyPipeline(dir);
  pipe = await StableDiffusionPipeline.fromPretrained(dir);
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

const latentsOf = async (): Promise<Float32Array> =>
  (await pipe.generate({ prompt: "a red circle", steps: 2, seed: 1 })).latents.data;

/** A state dict with every tensor drawn. */
function drawn(state: ReadonlyMap<string, Tensor<"float32">>, seed: number): Map<string, Tensor<"float32">> {
  const generator = new Generator(seed);
  return new Map(
    [...state].map(([name, { shape }]) => [
      name,
      new Tensor(
        "float32",
        shape,
        randn(shape, { generator }).data.map((value) => 0.3 * value),
      ),
    ]),
  );
}

/** A LoRA on the UNet, as a file would give it. */
function lora(seed: number, options: { rank?: number; alpha?: number } = {}): LoadedAdapter<LoRAConfig> {
  const config = new LoRAConfig({ rank: 2, alpha: 3, targetModules: CONVOLUTIONS, ...options });
  const model = new AdapterModel(pipe.unet, config);
  return { config, state: drawn(model.stateDict(), seed), layers: model.layers, hasConfig: true };
}

/** A LoRA on the text encoder alone. */
function textLora(seed: number, textEncoder: CLIPTextModel = pipe.textEncoder): LoadedAdapter<LoRAConfig> {
  const layers = recordLayers((graph, adapters) => {
    textEncoder.build(textEncoder.frozenScope(graph, adapters), graph.input("ids", "int64", [1, 1]));
  });
  const config = new LoRAConfig({ rank: 2, targetModules: ["q_proj", "fc1"] });
  const adapter = LoRAAdapter.on(layers, config);
  const state = drawn(adapter.initialize(new Generator(0)), seed);
  const part = { config, state, layers: adapter.layers };
  return { config, state: new Map(), layers: [], hasConfig: true, textEncoders: new Map([["text_encoder", part]]) };
}

async function fera(): Promise<LoadedAdapter<FeRAConfig>> {
  const model = new FeRAModel(pipe.unet, new FeRAConfig({ rank: 2 }));
  return { config: model.config, state: drawn(model.stateDict(), 5), layers: model.layers, hasConfig: true };
}

/** Both LoRAs as one of the sum of their ranks. */
function joined(a: LoadedAdapter<LoRAConfig>, b: LoadedAdapter<LoRAConfig>, scales: [number, number]) {
  const [rank, rankB] = [a.config.rank, b.config.rank];
  const state = new Map<string, Tensor<"float32">>();
  for (const [name, first] of a.state) {
    const second = b.state.get(name)!;
    if (name.endsWith("lora_A.weight")) {
      const data = Float32Array.of(...first.data, ...second.data);
      state.set(name, new Tensor("float32", [rank + rankB, ...first.shape.slice(1)], data));
      continue;
    }
    const [out] = first.shape as [number];
    const data = new Float32Array(out * (rank + rankB));
    for (let row = 0; row < out; row++) {
      const put = (from: Tensor<"float32">, width: number, at: number, factor: number) => {
        for (let i = 0; i < width; i++) data[row * (rank + rankB) + at + i] = factor * from.data[row * width + i]!;
      };
      put(first, rank, 0, (scales[0] * a.config.alpha) / rank);
      put(second, rankB, rank, (scales[1] * b.config.alpha) / rankB);
    }
    state.set(name, new Tensor("float32", [out, rank + rankB, ...first.shape.slice(2)], data));
  }
  return { ...a, config: a.config.with({ rank: rank + rankB, alpha: rank + rankB }), state };
}

describe("several adapters", () => {
  it("add up: two LoRAs at their scales act as one of both ranks", async () => {
    const [a, b] = [lora(1), lora(2, { rank: 3, alpha: 1.5 })];
    await pipe.loadAdapters(joined(a, b, [0.5, 2]));
    const expected = await latentsOf();
    pipe.unloadAdapters();
    const base = await latentsOf();
    await pipe.loadAdapters(a, { name: "a" });
    await pipe.loadAdapters(b, { name: "b" });
    expect([...pipe.activeAdapters]).toEqual([
      ["a", 1],
      ["b", 1],
    ]);
    pipe.setAdapters(["a", "b"], [0.5, 2]);
    const together = await latentsOf();
    expect(relativeError(together, expected)).toBeLessThan(TOLERANCE);
    expect(relativeError(together, base)).toBeGreaterThan(DIFFERENT);
    pipe.setAdapters(["a", "b"], [1, 2]);
    expect(relativeError(await latentsOf(), expected)).toBeGreaterThan(DIFFERENT);
  });

  it("are chosen, left out, let back in and deleted by name", async () => {
    const base = await latentsOf();
    await pipe.loadAdapters(lora(1));
    expect(pipe.adapterNames).toEqual(["default"]);
    const alone = await latentsOf();
    await pipe.loadAdapters(lora(2), { name: "b" });
    const both = await latentsOf();
    expect(relativeError(both, alone)).toBeGreaterThan(DIFFERENT);
    pipe.setAdapters("default");
    expect(await latentsOf()).toEqual(alone);
    pipe.disableAdapters();
    expect(await latentsOf()).toEqual(base);
    pipe.enableAdapters();
    pipe.setAdapters(["default", "b"]);
    expect(await latentsOf()).toEqual(both);
    pipe.deleteAdapters("b");
    expect(pipe.adapterNames).toEqual(["default"]);
    expect(await latentsOf()).toEqual(alone);
  });

  it("without a name take the place of all others", async () => {
    await pipe.loadAdapters(lora(1), { name: "a" });
    await pipe.loadAdapters(lora(2), { name: "b" });
    await pipe.loadAdapters(lora(3));
    expect(pipe.adapterNames).toEqual(["default"]);
  });

  it("may be of different kinds; those that are routed report how", async () => {
    await pipe.loadAdapters(await fera(), { name: "routed" });
    const alone = await pipe.generate({ prompt: "a", steps: 2, seed: 1 });
    await pipe.loadAdapters(lora(1), { name: "plain" });
    pipe.setAdapters(["plain", "routed"], [0, 1]);
    const together = await pipe.generate({ prompt: "a", steps: 2, seed: 1 });
    expect(relativeError(together.latents.data, alone.latents.data)).toBeLessThan(TOLERANCE);
    expect([...together.routes.keys()]).toEqual(["routed"]);
    expect(together.route).toBe(together.routes.get("routed"));
    expect(relativeError(together.route!.gates.flat(2), alone.route!.gates.flat(2))).toBeLessThan(TOLERANCE);
    pipe.setAdapters("plain");
    const plain = await pipe.generate({ prompt: "a", steps: 2, seed: 1 });
    expect(plain.route).toBeUndefined();
    expect(relativeError(plain.latents.data, alone.latents.data)).toBeGreaterThan(DIFFERENT);
  });

  it("follow a model that is being trained", async () => {
    const model = new AdapterModel(pipe.unet, new LoRAConfig({ rank: 2 }));
    pipe.useAdapters(model);
    await pipe.loadAdapters(lora(1), { name: "beside" });
    const before = await latentsOf();
    for (const [name, { data }] of model.parameters) if (name.includes("lora_B")) data.fill(0.2);
    const after = await latentsOf();
    expect(relativeError(after, before)).toBeGreaterThan(DIFFERENT);
    for (const [name, { data }] of model.parameters) if (name.includes("lora_B")) data.fill(0);
    expect(relativeError(await latentsOf(), before)).toBeLessThan(TOLERANCE);
  });

  it("are refused by name where they are not known, taken, named twice, or scales do not fit", async () => {
    await pipe.loadAdapters(lora(1), { name: "a" });
    await expect(pipe.loadAdapters(lora(2), { name: "a" })).rejects.toThrow(/"a" is loaded already/);
    await expect(pipe.loadAdapters(lora(2), { name: "" })).rejects.toThrow(/name must be a text/);
    expect(() => pipe.setAdapters(["a", "b"])).toThrow(/setAdapters: there is no adapter "b"; loaded are "a"/);
    expect(() => pipe.setAdapters(["a", "a"])).toThrow(/"a" is named twice/);
    expect(() => pipe.setAdapters(["a"], [1, 2])).toThrow(/got 2 for 1/);
    expect(() => pipe.setAdapters("a", Number.NaN)).toThrow(/"a".*must be finite; got NaN/);
    expect(() => pipe.deleteAdapters("b")).toThrow(/deleteAdapters: there is no adapter "b"/);
    expect([...pipe.activeAdapters]).toEqual([["a", 1]]);
  });
});

describe("an adapter of a text encoder", () => {
  it("acts when prompts are encoded, as far as its scale says, as if added to the weights", async () => {
    const base = (await pipe.encodePrompt(["a red circle"])).data;
    await pipe.loadAdapters(textLora(1), { name: "text" });
    expect(pipe.fera).toBeUndefined();
    pipe.setAdapters("text", 0.7);
    const adapted = (await pipe.encodePrompt(["a red circle"])).data;
    expect(relativeError(adapted, base)).toBeGreaterThan(DIFFERENT);
    const latents = await latentsOf();
    await pipe.fuseLora();
    expect(pipe.activeAdapters.size).toBe(0);
    expect(relativeError((await pipe.encodePrompt(["a red circle"])).data, adapted)).toBeLessThan(TOLERANCE);
    expect(relativeError(await latentsOf(), latents)).toBeLessThan(TOLERANCE);
    await pipe.unfuseLora();
    pipe.setAdapters("text", 0);
    expect(relativeError((await pipe.encodePrompt(["a red circle"])).data, base)).toBeLessThan(TOLERANCE);
    pipe.disableAdapters();
    expect((await pipe.encodePrompt(["a red circle"])).data).toEqual(base);
  });

  it("that the pipeline does not have, or with layers that it does not have, is refused", async () => {
    const given = textLora(1);
    const part = given.textEncoders!.get("text_encoder")!;
    await expect(pipe.loadAdapters({ ...given, textEncoders: new Map([["text_encoder_2", part]]) })).rejects.toThrow(
      /a part for "text_encoder_2", which this pipeline does not have/,
    );
    const state = new Map([...part.state].map(([name, value]) => [name.replace("layers.1", "layers.7"), value]));
    await expect(
      pipe.loadAdapters({ ...given, textEncoders: new Map([["text_encoder", { ...part, state }]]) }),
    ).rejects.toBeInstanceOf(FormatError);
    expect(pipe.adapterNames).toEqual([]);
  });
});

describe("SDXL's text encoders", () => {
  let xl: StableDiffusionXLPipeline;
  beforeAll(async () => {
    xl = await StableDiffusionXLPipeline.fromPretrained("test/reference/pipeline-tiny-xl");
  });
  afterAll(() => xl?.dispose());

  it.each(["text_encoder", "text_encoder_2"] as const)(
    "%s: its adapter changes its states and no other's",
    async (name) => {
      const index = name === "text_encoder" ? 0 : 1;
      const widths = xl.textEncoders.map(({ config }) => config.hidden_size);
      const before = await xl.encodePrompt(["a"]);
      const { textEncoders, ...rest } = textLora(1, xl.textEncoders[index]);
      const part = textEncoders!.get("text_encoder")!;
      await xl.loadAdapters({ ...rest, textEncoders: new Map([[name, part]]) });
      const after = await xl.encodePrompt(["a"]);
      xl.unloadAdapters();
      const statesOf = (states: typeof before, encoder: number) => {
        const width = widths[0]! + widths[1]!;
        const start = encoder === 0 ? 0 : widths[0]!;
        const { data } = states.encoderHiddenStates;
        return data.filter((_, i) => i % width >= start && i % width < start + widths[encoder]!);
      };
      expect(relativeError(statesOf(after, index), statesOf(before, index))).toBeGreaterThan(DIFFERENT);
      expect(statesOf(after, 1 - index)).toEqual(statesOf(before, 1 - index));
      const pooled = relativeError(after.textEmbeds.data, before.textEmbeds.data);
      if (index === 1) expect(pooled).toBeGreaterThan(DIFFERENT);
      else expect(pooled).toBe(0);
    },
  );
});

describe("fusing", () => {
  it("adds plain LoRA to the weights, beside others that stay, and takes it out again", async () => {
    const base = await latentsOf();
    await pipe.loadAdapters(lora(1), { name: "a" });
    await pipe.loadAdapters(lora(2), { name: "b" });
    pipe.setAdapters(["a", "b"], [0.5, 1]);
    pipe.setAdapterScale(0.8);
    const both = await latentsOf();
    await pipe.fuseLora({ adapterNames: ["a"] });
    expect([...pipe.activeAdapters]).toEqual([["b", 1]]);
    expect(relativeError(await latentsOf(), both)).toBeLessThan(TOLERANCE);
    expect(() => pipe.setAdapters("a")).toThrow(/"a" is fused into the weights; call unfuseLora first/);
    await expect(pipe.fuseLora()).rejects.toThrow(/fused already/);
    await pipe.unfuseLora();
    pipe.setAdapterScale(1);
    expect([...pipe.activeAdapters]).toEqual([
      ["a", 0.5],
      ["b", 1],
    ]);
    pipe.unloadAdapters();
    expect(await latentsOf()).toEqual(base);
  });

  it("is refused where there is nothing to fuse", async () => {
    pipe.unloadAdapters();
    await expect(pipe.fuseLora()).rejects.toThrow("fuseLora: no adapter is in use; load one, or name some.");
  });

  it("refuses routed adapters by name, and changes nothing", async () => {
    const before = pipe.unet.weights;
    await pipe.loadAdapters(lora(1), { name: "plain" });
    await pipe.loadAdapters(await fera(), { name: "routed" });
    const fused = pipe.fuseLora();
    await expect(fused).rejects.toBeInstanceOf(ConfigError);
    await expect(fused).rejects.toThrow(/fuseLora: the adapter "routed" is of the kind fera.*routed by the latents/);
    expect(pipe.unet.weights).toBe(before);
    expect([...pipe.activeAdapters.keys()]).toEqual(["plain", "routed"]);
  });
});
