// The graphs of a training step of FeRA: indicator, router, adapted and base pass, both losses, the gradients of everything
// that is trained, and where the state stays on a device, the optimizer's step.

import { type AdapterLayout, ROUTER, stackedShapes } from "../adapters/fera/adapter-state.js";
import { feclLoss } from "../adapters/fera/consistency-loss.js";
import { expandGates, RoutedExperts } from "../adapters/fera/experts.js";
import type { FeRAConfig } from "../adapters/fera/fera-config.js";
import { bandEnergies, frequencyBands } from "../adapters/fera/indicator.js";
import { route } from "../adapters/fera/router.js";
import { gradients } from "../autodiff/index.js";
import type { Graph, Value } from "../graph/index.js";
import * as ops from "../graph/index.js";
import {
  type UNet2DConditionModel,
  type UNetShape,
  type UNetValues,
  unet,
  unetInputs,
} from "../models/unet-2d-condition/unet-2d-condition.js";
import { Scope } from "../nn/index.js";
import type { IoBinding } from "../runtime/index.js";
import type { Tensor } from "../tensor/tensor.js";
import { addAverage } from "./average.js";
import { addAdamW, COEFFICIENTS_SHAPE } from "./optimizers/device-adamw.js";
import { Packing } from "./packing.js";
import type { TrainStepOptions } from "./train-step-options.js";
import type { Losses } from "./trainable.js";

/** An adapted pass under construction. */
export interface AdaptedPass {
  inputs: UNetValues;
  /** `[B, K]`. */
  energies: Value;
  /** `[B, E]`. */
  weights: Value;
  output: Value;
  /** The trainable tensors under their stacked names, graph inputs unless given. */
  parameters: Map<string, Value>;
  /** Dropout masks to be fed, by name. */
  masks: ReadonlyMap<string, readonly number[]>;
}

/** Declares the router's parameters, and adds indicator and router to a graph. */
export function buildRoute(
  latents: Value,
  layout: AdapterLayout,
  config: FeRAConfig,
  known = new Map<string, Value>(),
) {
  const router = new Map<string, Value>();
  for (const [name, shape] of stackedShapes(layout)) {
    if (!name.startsWith(ROUTER)) continue;
    const value = known.get(name) ?? latents.graph.input(name, "float32", shape);
    router.set(name.slice(ROUTER.length), value);
  }
  const energies = bandEnergies(frequencyBands(latents, config));
  return { energies, weights: route(energies, router, config.routerTau) };
}

/**
 * Adds indicator, router and the adapted UNet to a graph.
 *
 * @param options.scale - Factor on all experts, a scalar.
 * @param options.dropout - Whether dropout masks are taken as inputs.
 * @param options.parameters - The trainable tensors; made as inputs when absent.
 */
export function buildAdaptedPass(
  graph: Graph,
  model: UNet2DConditionModel,
  layout: AdapterLayout,
  config: FeRAConfig,
  shape: UNetShape,
  options: { scale?: Value; dropout?: boolean; parameters?: Map<string, Value> } = {},
): AdaptedPass {
  const inputs = unetInputs(graph, model.config, shape);
  const parameters = options.parameters ?? parameterInputs(graph, layout);
  const { energies, weights } = buildRoute(inputs.latents, layout, config, parameters);
  const gates = expandGates(weights, config.rank, config.alpha);
  const scaled = options.scale ? ops.mul(gates, options.scale) : gates;
  const experts = new RoutedExperts(parameters, scaled, options.dropout ?? false);
  const output = unet(new Scope(graph, model.weights, experts), inputs, model.config);
  return { inputs, energies, weights, output, parameters, masks: experts.masks };
}

function parameterInputs(graph: Graph, layout: AdapterLayout): Map<string, Value> {
  const shapes = [...stackedShapes(layout)];
  return new Map(shapes.map(([name, shape]) => [name, graph.input(name, "float32", shape)]));
}

/**
 * Adds the whole step to a graph: the losses `mse`, `fecl` and `loss`, and `gradient.NAME` of every parameter, as
 * outputs.
 */
export function buildTrainStep(
  graph: Graph,
  model: UNet2DConditionModel,
  layout: AdapterLayout,
  config: FeRAConfig,
  shape: UNetShape,
  options: Pick<TrainStepOptions, "gradientCheckpointing"> = {},
): AdaptedPass {
  const pass = buildLosses(graph, model, layout, config, shape, config.dropout > 0);
  const names = [...pass.parameters.keys()];
  const recompute = options.gradientCheckpointing ?? false;
  gradients(pass.loss, [...pass.parameters.values()], { recompute }).forEach((gradient, i) => {
    graph.output(`gradient.${names[i]}`, gradient);
  });
  return pass;
}

/** Each device-resident input of {@link buildDeviceStep}, with the output that is its next value. */
const DEVICE_STATE = { parameters: "newParameters", first: "newFirst", second: "newSecond", average: "newAverage" };

/**
 * Adds the whole step, the optimizer's included, to a graph: the losses; the parameters, both moments and with
 * `options.average` the average, packed, as inputs and, after one step of AdamW, as outputs; the packed `gradient` and
 * its `norm`; `coefficients` and, with an average, `averageDecay` as inputs.
 *
 * @returns `ioBinding` says what of it is to stay on the device.
 */
export function buildDeviceStep(
  graph: Graph,
  model: UNet2DConditionModel,
  layout: AdapterLayout,
  config: FeRAConfig,
  shape: UNetShape,
  options: Pick<TrainStepOptions, "gradientCheckpointing" | "average"> = {},
): { masks: AdaptedPass["masks"]; packing: Packing; ioBinding: IoBinding } {
  const packing = new Packing(stackedShapes(layout));
  const input = (name: string) => graph.input(name, "float32", [packing.size]);
  const state = { parameters: input("parameters"), first: input("first"), second: input("second") };
  const flat = packing.cut(state.parameters);
  const pass = buildLosses(graph, model, layout, config, shape, config.dropout > 0, packing.shaped(flat));
  const recompute = options.gradientCheckpointing ?? false;
  const gradient = packing.join(gradients(pass.loss, [...flat.values()], { recompute }));
  const { norm, ...stepped } = addAdamW(state, gradient, graph.input("coefficients", "float32", COEFFICIENTS_SHAPE));
  graph.output("gradient", gradient);
  graph.output("norm", norm);
  const next: Partial<Record<keyof typeof DEVICE_STATE, Value>> = stepped;
  if (options.average) {
    next.average = addAverage(input("average"), stepped.parameters, graph.input("averageDecay", "float32", []));
  }
  const names = Object.entries(DEVICE_STATE).filter(([name]) => name in next);
  for (const [name, output] of names) graph.output(output, next[name as keyof typeof DEVICE_STATE]!);
  return { masks: pass.masks, packing, ioBinding: { state: Object.fromEntries(names), outputs: ["gradient"] } };
}

/** Both passes and both losses, with the losses as outputs. */
export function buildLosses(
  graph: Graph,
  model: UNet2DConditionModel,
  layout: AdapterLayout,
  config: FeRAConfig,
  shape: UNetShape,
  dropout: boolean,
  parameters?: Map<string, Value>,
): AdaptedPass & { loss: Value } {
  const pass = buildAdaptedPass(graph, model, layout, config, shape, { dropout, parameters });
  const target = graph.input("target", "float32", pass.output.shape);
  const difference = ops.sub(pass.output, target);
  const mse = ops.reduceMean(ops.mul(difference, difference));
  let loss = mse;
  if (config.feclWeight > 0) {
    const base = unet(model.frozenScope(graph), pass.inputs, model.config);
    const fecl = ops.mul(feclLoss(base, pass.output, target, config), config.feclWeight);
    loss = ops.add(mse, fecl);
    graph.output("fecl", fecl);
    graph.output("loss", loss);
  }
  graph.output("mse", mse);
  return { ...pass, loss };
}

/** Reads the losses among the outputs of a graph with {@link buildLosses}. */
export function lossesOf(result: Record<string, Tensor>): Losses {
  const scalar = (name: string): number | undefined => (result[name]?.data as Float32Array | undefined)?.[0];
  const mse = scalar("mse")!;
  return { loss: scalar("loss") ?? mse, mse, fecl: scalar("fecl") ?? 0 };
}
