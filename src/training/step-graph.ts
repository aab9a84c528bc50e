// The graphs of a training step: adapted pass, base pass where a loss needs it, all losses, the gradients of everything
// that is trained, and where the state stays on a device, the optimizer's step. For any denoiser and any adapter.

import type { AttachedAdapter, StepAdapter } from "../adapters/adapter.js";
import type { Losses, SampleLosses, TrainStepInputs, TrainStepOptions } from "../adapters/train-step-options.js";
import { gradients } from "../autodiff/index.js";
import {
  type Denoiser,
  type DenoiserShape,
  LOSS_INPUT_NAMES,
  type LossInputName,
  type LossTerms,
  MEAN_SQUARED_ERROR,
} from "../diffusion/index.js";
import type { Graph, Value } from "../graph/index.js";
import * as ops from "../graph/index.js";
import type { IoBinding } from "../runtime/index.js";
import { sizeOf, type Tensor } from "../tensor/tensor.js";
import { addAverage } from "./average.js";
import type { ElementwiseOptimizer } from "./optimizers/elementwise-optimizer.js";
import { addGradientClipping } from "./optimizers/gradient-clipping.js";
import { factorOf } from "./optimizers/optimizer.js";
import { PackedScalars, Packing } from "./packing.js";

/** What a step is built from. */
export interface StepParts {
  model: Denoiser;
  adapter: StepAdapter;
  shape: DenoiserShape;
  /** The objective's loss terms, to which the adapter's are added. Default: the mean squared error. */
  objective?: LossTerms;
  /** Whether batches have them. */
  lossWeights?: boolean;
  lossMask?: boolean;
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

/** The input with the factor on the loss, of a step in mixed precision: gradients are divided by it again. */
export const LOSS_SCALE = "lossScale";

/** The output with a loss per sample. */
export const SAMPLE_LOSSES = "sampleLosses";

/** Of an input that a loss takes beside target and prediction. */
export interface LossInput {
  shape: readonly number[];
  /** Whether a batch must have it; otherwise it counts 1 where a batch has none. */
  isNeeded: boolean;
}

/** The inputs that the losses take of a batch, beside its target. */
export function lossInputsOf(parts: Omit<StepParts, "adapter">): Map<LossInputName, LossInput> {
  const { batchSize, latentHeight, latentWidth } = parts.shape;
  const needed = parts.objective?.neededInputs ?? [];
  const shapes = {
    lossWeights: [batchSize],
    lossMask: [batchSize, 1, latentHeight, latentWidth],
    huberC: [batchSize],
  } satisfies Record<LossInputName, readonly number[]>;
  const isTaken = (name: LossInputName) => needed.includes(name) || (name !== "huberC" && parts[name] === true);
  const names = LOSS_INPUT_NAMES.filter(isTaken);
  return new Map(names.map((name) => [name, { shape: shapes[name], isNeeded: needed.includes(name) }]));
}

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
  const declared = model.declareInputs(graph, shape);
  const attached = graph.inLayer("adapter", () => adapter.attach(graph, parameters, { ...declared, training }));
  const inputs = { ...declared, ...attached.inputs };
  const output = model.build(model.frozenScope(graph, attached.layers), inputs);
  return { inputs, output, attached, parameters };
}

function parameterInputs(graph: Graph, { shapes }: StepAdapter): Map<string, Value> {
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
  options: Pick<TrainStepOptions, "gradientCheckpointing" | "mixedPrecision"> = {},
): AttachedAdapter["masks"] {
  const { loss, parameters, attached } = buildLosses(graph, parts, true);
  const names = [...parameters.keys()];
  const recompute = options.gradientCheckpointing ?? false;
  const scale = options.mixedPrecision === "fp16" ? graph.input(LOSS_SCALE, "float32", []) : undefined;
  const scaled = scale ? ops.mul(loss, scale) : loss;
  gradients(scaled, [...parameters.values()], { recompute }).forEach((gradient, i) => {
    graph.output(`gradient.${names[i]}`, scale ? ops.div(gradient, scale) : gradient);
  });
  return attached.masks;
}

/** Graph inputs of {@link buildDeviceStep} that stay on the device. */
export const PARAMETERS = "parameters";
export const AVERAGE = "average";
export const stateInput = (slot: string): string => `optimizer.${slot}`;

/** Numbers of a step beside the optimizer's coefficients. */
export interface StepScalars {
  /** As `fedMaxNorm` gives it. */
  maxGradientNorm: number;
  /** Of the average, where there is one. */
  averageDecay: number;
  /** On the loss, in mixed precision. */
  lossScale: number;
}

/** What runs the graph of {@link buildDeviceStep}. */
export interface DeviceStepGraph {
  /** The dropout masks that a run must feed. */
  masks: AttachedAdapter["masks"];
  /** How parameters, gradients, state and average are packed. */
  packing: Packing;
  /** Of the input `scalars`: the optimizer's coefficients and {@link StepScalars}. */
  scalars: PackedScalars;
  /** What stays on the device. */
  ioBinding: IoBinding;
  lossNames: readonly string[];
}

/**
 * Adds the whole step, the optimizer's included, to a graph: the losses; the parameters, the optimizer's state and with
 * `options.average` the average, packed, as inputs and, after one step, as outputs; the packed `gradient` and its `norm`;
 * the input `scalars`.
 */
export function buildDeviceStep(
  graph: Graph,
  parts: StepParts,
  options: Pick<TrainStepOptions, "gradientCheckpointing" | "average" | "rateOf" | "mixedPrecision"> & {
    optimizer: ElementwiseOptimizer;
  },
): DeviceStepGraph {
  const { optimizer } = options;
  const packing = new Packing(parts.adapter.shapes);
  const next = new Map<string, Value>();
  const input = (name: string) => graph.input(name, "float32", [packing.size]);
  const parameters = input(PARAMETERS);
  const state = Object.fromEntries(optimizer.slotNames.map((slot) => [slot, input(stateInput(slot))]));
  const flat = packing.split(parameters);
  const { loss, attached } = buildLosses(graph, parts, true, packing.withShapes(flat));
  const recompute = options.gradientCheckpointing ?? false;
  const isScaled = options.mixedPrecision === "fp16";
  const own: (keyof StepScalars)[] = ["maxGradientNorm"];
  if (options.average) own.push("averageDecay");
  if (isScaled) own.push(LOSS_SCALE);
  const scalars = new PackedScalars([...optimizer.coefficientNames, ...own]);
  const values = scalars.input(graph, "scalars");
  const scaled = isScaled ? ops.mul(loss, values.lossScale!) : loss;
  const packed = packing.concat(gradients(scaled, [...flat.values()], { recompute }));
  const gradient = isScaled ? ops.div(packed, values.lossScale!) : packed;
  const factors = rateFactors(graph, packing, parts.adapter.shapes, options);
  if (factors) for (const name of optimizer.rateCoefficients) values[name] = ops.mul(values[name]!, factors.rates);
  const [clipped, stepped] = graph.inPhase("optimizer", () => {
    // What is not trained does not count in the norm.
    const counted = factors?.trained ? ops.mul(gradient, factors.trained) : gradient;
    const clipped = addGradientClipping(counted, values.maxGradientNorm!);
    return [clipped, optimizer.addToGraph({ parameters, state }, clipped.gradient, values)] as const;
  });
  graph.output("gradient", gradient);
  graph.output("norm", clipped.norm);
  next.set(PARAMETERS, stepped.parameters);
  for (const [slot, value] of Object.entries(stepped.state)) next.set(stateInput(slot), value);
  if (options.average) {
    const average = input(AVERAGE);
    next.set(
      AVERAGE,
      graph.inPhase("average", () => addAverage(average, stepped.parameters, values.averageDecay!)),
    );
  }
  for (const [name, value] of next) graph.output(`next.${name}`, value);
  const inPlace = Object.fromEntries([...next.keys()].map((name) => [name, `next.${name}`]));
  const ioBinding = { state: inPlace, outputs: ["gradient"] };
  return { masks: attached.masks, packing, scalars, ioBinding, lossNames: lossNamesOf(parts) };
}

/** The factors on the learning rate `[P]`, and 0 where they are 0, 1 elsewhere; undefined where all are 1. */
function rateFactors(
  graph: Graph,
  packing: Packing,
  shapes: StepAdapter["shapes"],
  { optimizer, rateOf }: Pick<TrainStepOptions, "rateOf"> & { optimizer: ElementwiseOptimizer },
): { rates: Value; trained?: Value } | undefined {
  const factors = [...shapes.keys()].map((name) => factorOf(optimizer.name, name, rateOf));
  if (factors.every((factor) => factor === 1)) return undefined;
  const constant = (of: (factor: number) => number) => {
    const filled = [...shapes].map(([name, shape], i) => [name, new Float32Array(sizeOf(shape)).fill(of(factors[i]!))]);
    return graph.constant(packing.pack(new Map(filled as [string, Float32Array][])));
  };
  const rates = constant((factor) => factor);
  return factors.includes(0) ? { rates, trained: constant((factor) => (factor === 0 ? 0 : 1)) } : { rates };
}

/**
 * The passes and all losses, with each loss as the output `loss.NAME` and their sum as `loss`, and the samples' own as
 * `sampleLosses` where the objective tells them.
 *
 * @param training - Whether dropout acts.
 */
export function buildLosses(
  graph: Graph,
  parts: StepParts,
  training: boolean,
  parameters?: Map<string, Value>,
): AdaptedPass & { loss: Value } {
  const { model, objective = MEAN_SQUARED_ERROR } = parts;
  const pass = buildAdaptedPass(graph, parts, training, parameters);
  const target = graph.input("target", "float32", pass.output.shape);
  const weighting: Partial<Record<LossInputName, Value>> = {};
  for (const [name, { shape }] of lossInputsOf(parts)) weighting[name] = graph.input(name, "float32", shape);
  const inputs = { ...weighting, output: pass.output, target, timesteps: pass.inputs.timesteps! };
  let base: Value | undefined;
  const sources = {
    ...inputs,
    base: () => {
      base ??= graph.inPhase("base", () => model.build(model.frozenScope(graph), pass.inputs));
      return base;
    },
  };
  const terms = graph.inLayer("loss", () => ({
    ...objective.lossTerms(inputs),
    ...pass.attached.lossTerms?.(sources),
  }));
  const present = Object.entries(terms).filter((entry): entry is [string, Value] => entry[1] !== undefined);
  for (const [name, term] of present) graph.output(LOSS + name, term);
  const loss = present.map(([, term]) => term).reduce((sum, term) => ops.add(sum, term));
  if (present.length > 1) graph.output("loss", loss);
  const samples = graph.inLayer("loss", () => objective.sampleLosses?.(inputs));
  if (samples) graph.output(SAMPLE_LOSSES, samples);
  return { ...pass, loss };
}

/** Names of the loss terms, the objective's first. */
export const lossNamesOf = ({
  objective = MEAN_SQUARED_ERROR,
  adapter,
}: Pick<StepParts, "objective" | "adapter">): readonly string[] => [...objective.lossNames, ...adapter.lossNames];

/**
 * Reads the losses among the outputs of a graph with {@link buildLosses}.
 *
 * @param names - As {@link lossNamesOf} gives them; 0 for terms of weight 0, which the graph does not have.
 */
export function lossesOf(result: Record<string, Tensor>, names: readonly string[]): Losses {
  const scalar = (name: string): number | undefined => (result[name]?.data as Float32Array | undefined)?.[0];
  const terms = names.map((name) => [name, scalar(LOSS + name) ?? 0] as const);
  // A single term is the loss itself.
  const loss = scalar("loss") ?? terms.reduce((sum, [, value]) => sum + value, 0);
  return { loss, ...Object.fromEntries(terms) } as Losses;
}

/** The samples' losses among the outputs of a graph with {@link buildLosses}, with their timesteps; undefined without. */
export function sampleLossesOf(
  result: Record<string, Tensor>,
  { timesteps }: Pick<TrainStepInputs, "timesteps">,
): { sampleLosses?: SampleLosses } {
  const output = result[SAMPLE_LOSSES];
  if (!output) return {};
  const losses = Array.from(output.data as Float32Array);
  const given = Array.from(timesteps.data as ArrayLike<number | bigint>, Number);
  return { sampleLosses: { timesteps: losses.map((_, i) => given[given.length === 1 ? 0 : i]!), losses } };
}
