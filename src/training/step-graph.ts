// The graphs of a training step: adapted pass, base pass where a loss needs it, all losses, the gradients of everything
// that is trained, and where the state stays on a device, the optimizer's step. For any denoiser and any adapter.

import type { Adapter, AttachedAdapter } from "../adapters/adapter.js";
import type { Losses, TrainStepOptions } from "../adapters/train-step-options.js";
import { gradients } from "../autodiff/index.js";
import type { Denoiser, DenoiserShape } from "../diffusion/index.js";
import type { Graph, Value } from "../graph/index.js";
import * as ops from "../graph/index.js";
import type { IoBinding } from "../runtime/index.js";
import type { Tensor } from "../tensor/tensor.js";
import { addAverage } from "./average.js";
import { addAdamW, COEFFICIENTS_SHAPE } from "./optimizers/device-adamw.js";
import { Packing } from "./packing.js";

/** What a step is built from. */
export interface StepParts {
  model: Denoiser;
  adapter: Adapter;
  shape: DenoiserShape;
}

/** An adapted pass under construction. */
export interface AdaptedPass {
  /** By input name. */
  inputs: Record<string, Value>;
  output: Value;
  attached: AttachedAdapter;
  /** The trainable tensors under their stacked names, graph inputs unless given. */
  parameters: Map<string, Value>;
}

/** Prefix of the outputs that are losses; `loss` is their sum. */
const LOSS = "loss.";

/**
 * Adds the adapted denoiser to a graph.
 *
 * @param parameters - The trainable tensors; made as inputs when absent.
 */
function buildAdaptedPass(
  graph: Graph,
  { model, adapter, shape }: StepParts,
  training: boolean,
  parameters = parameterInputs(graph, adapter),
): AdaptedPass {
  const inputs = model.declareInputs(graph, shape);
  const attached = graph.inLayer("adapter", () => adapter.attach(graph, parameters, { ...inputs, training }));
  const output = model.build(model.frozenScope(graph, attached.layers), inputs);
  return { inputs, output, attached, parameters };
}

function parameterInputs(graph: Graph, { shapes }: Adapter): Map<string, Value> {
  return new Map([...shapes].map(([name, shape]) => [name, graph.input(name, "float32", shape)]));
}

/**
 * Adds the whole step to a graph: the losses, and `gradient.NAME` of every parameter, as outputs.
 *
 * @returns The dropout masks that a run must feed.
 */
export function buildTrainStep(
  graph: Graph,
  parts: StepParts,
  options: Pick<TrainStepOptions, "gradientCheckpointing"> = {},
): AttachedAdapter["masks"] {
  const { loss, parameters, attached } = buildLosses(graph, parts, true);
  const names = [...parameters.keys()];
  const recompute = options.gradientCheckpointing ?? false;
  gradients(loss, [...parameters.values()], { recompute }).forEach((gradient, i) => {
    graph.output(`gradient.${names[i]}`, gradient);
  });
  return attached.masks;
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
  parts: StepParts,
  options: Pick<TrainStepOptions, "gradientCheckpointing" | "average"> = {},
): { masks: AttachedAdapter["masks"]; packing: Packing; ioBinding: IoBinding } {
  const packing = new Packing(parts.adapter.shapes);
  const input = (name: string) => graph.input(name, "float32", [packing.size]);
  const state = { parameters: input("parameters"), first: input("first"), second: input("second") };
  const flat = packing.cut(state.parameters);
  const { loss, attached } = buildLosses(graph, parts, true, packing.shaped(flat));
  const recompute = options.gradientCheckpointing ?? false;
  const gradient = packing.join(gradients(loss, [...flat.values()], { recompute }));
  const { norm, ...stepped } = addAdamW(state, gradient, graph.input("coefficients", "float32", COEFFICIENTS_SHAPE));
  graph.output("gradient", gradient);
  graph.output("norm", norm);
  const next: Partial<Record<keyof typeof DEVICE_STATE, Value>> = stepped;
  if (options.average) {
    next.average = addAverage(input("average"), stepped.parameters, graph.input("averageDecay", "float32", []));
  }
  const names = Object.entries(DEVICE_STATE).filter(([name]) => name in next);
  for (const [name, output] of names) graph.output(output, next[name as keyof typeof DEVICE_STATE]!);
  return { masks: attached.masks, packing, ioBinding: { state: Object.fromEntries(names), outputs: ["gradient"] } };
}

/**
 * The passes and all losses, with each loss as the output `loss.NAME` and their sum as `loss`.
 *
 * @param training - Whether dropout acts.
 */
export function buildLosses(
  graph: Graph,
  parts: StepParts,
  training: boolean,
  parameters?: Map<string, Value>,
): AdaptedPass & { loss: Value } {
  const { model } = parts;
  const pass = buildAdaptedPass(graph, parts, training, parameters);
  const target = graph.input("target", "float32", pass.output.shape);
  const mse = graph.inLayer("loss", () => {
    const difference = ops.sub(pass.output, target);
    return ops.reduceMean(ops.mul(difference, difference));
  });
  let base: Value | undefined;
  const sources = {
    output: pass.output,
    target,
    base: () => {
      base ??= graph.inPhase("base", () => model.build(model.frozenScope(graph), pass.inputs));
      return base;
    },
  };
  const terms = graph.inLayer("loss", () => pass.attached.lossTerms?.(sources));
  let loss = mse;
  for (const [name, term] of Object.entries(terms ?? {})) {
    if (!term) continue;
    loss = ops.add(loss, term);
    graph.output(LOSS + name, term);
  }
  if (loss !== mse) graph.output("loss", loss);
  graph.output(`${LOSS}mse`, mse);
  return { ...pass, loss };
}

/**
 * Reads the losses among the outputs of a graph with {@link buildLosses}.
 *
 * @param names - The adapter's terms; 0 for those that the graph does not have.
 */
export function lossesOf(result: Record<string, Tensor>, names: readonly string[] = []): Losses {
  const scalar = (name: string): number | undefined => (result[name]?.data as Float32Array | undefined)?.[0];
  const mse = scalar(`${LOSS}mse`)!;
  const terms = names.map((name) => [name, scalar(LOSS + name) ?? 0] as const);
  return { loss: scalar("loss") ?? mse, mse, ...Object.fromEntries(terms) };
}
