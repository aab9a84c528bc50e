import { describe, expect, it } from "vitest";
import { operationCount } from "../../test/support/operation-count.js";
import { tracedOrder } from "../../test/support/traced-order.js";
import type { DenoiserShape } from "../diffusion/index.js";
import { Graph } from "../graph/index.js";
import { STABLE_DIFFUSION_1_CONFIG } from "../models/single-file/stable-diffusion-1-config.js";
import { UNet2DConditionModel, unet, unetFeeds, unetInputs } from "../models/unet-2d-condition/unet-2d-condition.js";
import { parseUNetConfig } from "../models/unet-2d-condition/unet-config.js";
import { activationMemory } from "../onnx/activation-memory.js";
import { lower } from "../onnx/index.js";
import { readSafetensors } from "../storage/index.js";
import "../storage/node.js";
import { FeRAConfig } from "../adapters/fera/fera-config.js";
import { FeRAModel } from "../adapters/fera/fera-model.js";
import { ModelWeights, type ParameterSource, Scope, type Weight } from "../nn/index.js";
import type { Tensor } from "../tensor/tensor.js";
import { buildTrainStep } from "./step-graph.js";

async function reference(name: string) {
  const model = await UNet2DConditionModel.fromPretrained(`test/reference/${name}`, { subfolder: "unet" });
  const fera = new FeRAModel(model, FeRAConfig.reference());
  await fera.loadAdapters(`test/reference/${name}/adapters_initial.safetensors`);
  const { tensors } = await readSafetensors(`test/reference/${name}/expected.safetensors`);
  const given = (key: string): Tensor => tensors.get(key)!;
  const textEmbeds = tensors.get("text_embeds");
  const batch = {
    latents: given("latents"),
    timesteps: given("timesteps"),
    encoderHiddenStates: given("encoder_hidden_states"),
    ...(textEmbeds ? { addedConditions: { textEmbeds, timeIds: given("time_ids") } } : {}),
    target: given("target"),
  };
  const [batchSize, , latentHeight, latentWidth] = batch.latents.shape as [number, number, number, number];
  return { fera, batch, shape: { batchSize, latentHeight, latentWidth, tokens: batch.encoderHiddenStates.shape[1]! } };
}

/** Stable Diffusion 1.5 with the reference's experts, its weights named in a file that nothing reads. */
function stableDiffusion15(): FeRAModel {
  const config = parseUNetConfig(STABLE_DIFFUSION_1_CONFIG.unet, "stable diffusion 1.5");
  const weights = new Map<string, Weight>();
  const recorder: ParameterSource = {
    parameter(graph, path, shape) {
      const range = { path: "/weights.safetensors", offset: 0, length: 4 * shape.reduce((a, b) => a * b, 1) };
      weights.set(path, { shape, dtype: "float32", range });
      return graph.file(path, "float32", shape, range);
    },
  };
  const graph = new Graph();
  unet(
    new Scope(graph, recorder),
    unetInputs(graph, config, { batchSize: 1, latentHeight: 8, latentWidth: 8, tokens: 1 }),
    config,
  );
  const model = new UNet2DConditionModel(config, new ModelWeights(weights, "stable diffusion 1.5"));
  return new FeRAModel(model, FeRAConfig.reference());
}

function buildStep(fera: FeRAModel, shape: DenoiserShape, gradientCheckpointing: boolean): Graph {
  const graph = new Graph();
  buildTrainStep(graph, { model: fera.model, adapter: fera.adapter, shape }, { gradientCheckpointing });
  return graph;
}

for (const name of ["unet-sd15", "unet-sdxl"]) {
  it(`recomputation on ${name} gives the very same losses and gradients`, async () => {
    const { fera, batch, shape } = await reference(name);
    const results = [];
    for (const gradientCheckpointing of [false, true]) {
      const step = await fera.compileTrainStep({ ...shape, gradientCheckpointing });
      results.push(await step.gradients(batch));
      await step.release();
    }
    const [expected, result] = results as [(typeof results)[0], (typeof results)[0]];
    expect(result.loss).toBe(expected!.loss);
    expect([...result!.gradients.keys()].sort()).toEqual([...fera.stateDict().keys()].sort());
    for (const [key, gradient] of result!.gradients) expect(gradient, key).toEqual(expected!.gradients.get(key));
  });
}

describe("recomputation at the size of Stable Diffusion 1.5", () => {
  it("needs less than a third of the activation memory for less than an eighth more operations", () => {
    const fera = stableDiffusion15();
    const shape = { batchSize: 1, latentHeight: 64, latentWidth: 64, tokens: 77 };
    const [plain, saving] = [false, true].map((recompute) => {
      const graph = buildStep(fera, shape, recompute);
      return { bytes: activationMemory(lower(graph, "cpu").bytes).peakBytes, operations: operationCount(graph) };
    });
    expect(plain!.bytes).toBeLessThan(1.5e9);
    expect(saving!.bytes).toBeLessThan(plain!.bytes / 3);
    expect(saving!.operations).toBeGreaterThan(plain!.operations);
    expect(saving!.operations).toBeLessThan(plain!.operations * 1.125);
  });
});

it("runs in the order that the estimate of its memory assumes", async () => {
  const { fera, batch, shape } = await reference("unet-sd15");
  const graph = buildStep(fera, shape, true);
  const feeds = { ...unetFeeds(batch), target: batch.target, ...Object.fromEntries(fera.parameters) };
  expect(await tracedOrder(graph, feeds)).toEqual(activationMemory(lower(graph, "cpu").bytes).order);
});
