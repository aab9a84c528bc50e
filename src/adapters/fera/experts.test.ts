import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { runGraph } from "../../../test/support/check-gradients.js";
import { goldenCases } from "../../../test/support/golden-cases.js";
import { relativeError } from "../../../test/support/relative-error.js";
import { gradients } from "../../autodiff/index.js";
import * as ops from "../../graph/index.js";
import { Graph, type Value } from "../../graph/index.js";
import { UNet2DConditionModel } from "../../models/unet-2d-condition/unet-2d-condition.js";
import { parseUNetConfig } from "../../models/unet-2d-condition/unet-config.js";
import { ModelWeights } from "../../nn/index.js";
import { readSafetensors } from "../../storage/index.js";
import type { Tensor } from "../../tensor/tensor.js";
import { matchesTarget, pathSuffix, selectLayers, type TargetLayer, targetLayers } from "../target-layers.js";
import { addExperts, expandGates } from "./experts.js";
import { FeRAConfig } from "./fera-config.js";
import { FeRAModel } from "./fera-model.js";

const GRADIENT_TOLERANCE = 2e-3;

/** A model whose weights are nowhere: enough to look at its structure. */
class Nowhere extends ModelWeights {
  override parameter(graph: Graph, path: string, shape: readonly number[]): Value {
    return graph.file(path, "float32", shape, { path: "/nowhere", offset: 0, length: 0 });
  }
}

const configOf = (name: string) => JSON.parse(readFileSync(`test/reference/${name}/unet/config.json`, "utf8"));
const structure = (config: unknown) =>
  new UNet2DConditionModel(parseUNetConfig(config, "config.json"), new Nowhere(new Map(), "nowhere"));

const linear = (model: UNet2DConditionModel) => targetLayers(model).filter(({ kind }) => kind === "linear");
const selected = (layers: TargetLayer[], config: FeRAConfig) => selectLayers(layers, config);

const stableDiffusion15 = {
  ...configOf("unet-sd15"),
  down_block_types: ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
  up_block_types: ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
  block_out_channels: [320, 640, 1280, 1280],
  layers_per_block: 2,
  attention_head_dim: 8,
  norm_num_groups: 32,
  cross_attention_dim: 768,
};

describe("experts of one layer", () => {
  it("agree with the reference, gradients included, for inputs of rank 2, 3 and 4", async () => {
    const { tensors, metadata } = await readSafetensors("test/reference/layer.safetensors");
    for (const { name, settings } of goldenCases(metadata, 3)) {
      const { rank, alpha, num_experts: experts } = settings;
      const graph = new Graph();
      const feeds: Record<string, Tensor> = {};
      const input = (key: string): Value => {
        feeds[key] = tensors.get(`${name}.${key}`)!;
        return graph.input(key, "float32", feeds[key].shape);
      };
      const x = input("x");
      const weights = input("routing_weights");
      const indices = Array.from({ length: experts }, (_, k) => k);
      const downs = indices.map((k) => input(`experts.${k}.lora_down.weight`));
      const ups = indices.map((k) => input(`experts.${k}.lora_up.weight`));
      const bias = tensors.has(`${name}.base_layer.bias`) ? input("base_layer.bias") : undefined;
      const base = ops.linear(x, input("base_layer.weight"), bias);
      const gates = expandGates(weights, rank, alpha);
      const y = addExperts(x, base, { down: ops.concat(downs, 0), up: ops.concat(ups, 1), gates });
      const loss = ops.reduceMean(ops.mul(y, y));
      const wanted = { x, routing_weights: weights } as Record<string, Value>;
      indices.forEach((k) => {
        wanted[`experts.${k}.lora_down.weight`] = downs[k]!;
        wanted[`experts.${k}.lora_up.weight`] = ups[k]!;
      });
      graph.output("output", y);
      gradients(loss, Object.values(wanted)).forEach((gradient, i) => {
        graph.output(`grad.${Object.keys(wanted)[i]}`, gradient);
      });
      for (const [key, value] of Object.entries(await runGraph(graph, feeds))) {
        const expected = tensors.get(`${name}.${key}`)!.data as Float32Array;
        const limit = key === "output" ? 2e-4 : GRADIENT_TOLERANCE;
        expect(relativeError(value.data as Float32Array, expected), `${name} ${key}`).toBeLessThan(limit);
      }
    }
  });

  it("refuse an input of another batch size", () => {
    const graph = new Graph();
    const input = (name: string, ...shape: number[]): Value => graph.input(name, "float32", shape);
    const values = { down: input("d", 4, 8), up: input("u", 8, 4), gates: input("g", 2, 4) };
    expect(() => addExperts(input("x", 3, 8), input("y", 3, 8), values)).toThrow(/B=2; got float32\[3,8\]/);
  });
});

describe("matching", () => {
  it("by path accepts a whole path and its end at a dot; by name only the last component", () => {
    expect(matchesTarget("a.attn.to_out.0", "to_out.0", "path")).toBe(true);
    expect(matchesTarget("to_q", "to_q", "path")).toBe(true);
    expect(matchesTarget("a.not_to_q", "to_q", "path")).toBe(false);
    expect(matchesTarget("a.attn.to_out.0", "to_out.0", "name")).toBe(false);
    expect(matchesTarget("a.attn.to_q", "to_q", "name")).toBe(true);
    expect(pathSuffix("a.0.to_out.0")).toBe("to_out.0");
    expect(pathSuffix("a.0.to_q")).toBe("to_q");
  });

  it("adapts 96 layers of Stable Diffusion 1.5 by name and 128 by path", () => {
    const model = structure(stableDiffusion15);
    const reference = new FeRAModel(model, FeRAConfig.reference());
    expect(reference.layers).toHaveLength(96);
    expect(reference.parameterCount).toBe(1_792_963);
    expect(new FeRAModel(model, new FeRAConfig()).layers).toHaveLength(128);
  });

  for (const name of ["unet-sd15", "unet-sd21", "unet-sdxl"]) {
    it(`finds the reference's layers of ${name} by name, and the output projections too by path`, async () => {
      const { metadata } = await readSafetensors(`test/reference/${name}/expected.safetensors`);
      const expected = JSON.parse(metadata.layers!) as string[];
      const layers = linear(structure(configOf(name)));
      const byName = selected(layers, FeRAConfig.reference()).map(({ path }) => path);
      expect(byName.sort()).toEqual([...expected].sort());
      const outputs = expected.filter((path) => path.endsWith("to_q")).map((path) => path.replace("to_q", "to_out.0"));
      const byPath = selected(layers, new FeRAConfig()).map(({ path }) => path);
      expect(byPath.sort()).toEqual([...expected, ...outputs].sort());
    });
  }

  it("refuses a target that names no layer", () => {
    const layers = linear(structure(configOf("unet-sd15")));
    const config = new FeRAConfig({ targetModules: ["to_q", "to_x"] });
    expect(() => selected(layers, config)).toThrow(/"to_x" names no linear layer.*to_q/);
    expect(() => selected(layers, FeRAConfig.reference({ targetModules: ["to_out.0"] }))).toThrow(/to_out\.0/);
  });
});
