// What a training step's graphs are fed of a batch: checked inputs, and dropout masks.

import type { TrainStepInputs } from "../adapters/train-step-options.js";
import { LOSS_INPUT_NAMES, type LossInputName } from "../diffusion/index.js";
import { ConfigError, ShapeError } from "../errors.js";
import { Generator } from "../tensor/random.js";
import { rowsOf, sliceRows } from "../tensor/rows.js";
import { sizeOf, type Tensor, tensor, toBytes } from "../tensor/tensor.js";
import { lossInputsOf, type StepParts } from "./step-graph.js";

/** How a training step draws dropout masks. */
export interface StepDropout {
  /** Inputs of the graph, with their shapes. */
  masks: ReadonlyMap<string, readonly number[]>;
  /** Share of elements that become 0, in [0, 1). */
  rate: number;
  /** Each sample has its own masks, drawn from this and from its latents: the same ones in whatever part of a batch it is. */
  seed: number;
}

/** Feeds for graphs of one shape. */
export class StepFeeds {
  constructor(
    private readonly parts: Omit<StepParts, "adapter">,
    private readonly dropout: StepDropout,
    /** Whether the graphs are still those of the model and of its adapters. */
    private readonly isCurrent: () => boolean,
  ) {}

  /**
   * The batch, and dropout masks.
   *
   * @throws As {@link evaluation}.
   */
  training(batch: TrainStepInputs): Record<string, Tensor> {
    return { ...this.evaluation(batch), ...this.masks(batch.latents) };
  }

  /**
   * The batch alone.
   *
   * @throws {ShapeError} If it does not fit the shape.
   * @throws {ConfigError} If the graphs are of other adapters or weights than the model has now; if the batch has weights of
   *   the loss that the graphs do not take, or lacks some that the objective needs.
   */
  evaluation({ target, lossWeights, lossMask, huberC, ...inputs }: TrainStepInputs): Record<string, Tensor> {
    if (!this.isCurrent()) {
      throw new ConfigError(
        "train step: adapters of another kind or other base weights were loaded since; call compileTrainStep again.",
      );
    }
    const { model, shape } = this.parts;
    const came = model.shapeOf(inputs);
    for (const [name, value] of Object.entries(shape)) {
      if (came[name] !== value) {
        throw new ShapeError(`train step: it was compiled for ${name}=${value}; got ${name}=${came[name]}.`);
      }
    }
    return { ...model.feedsOf(inputs), target, ...this.lossInputs({ lossWeights, lossMask, huberC }) };
  }

  private lossInputs(given: Partial<Record<LossInputName, Tensor>>): Record<string, Tensor> {
    const taken = lossInputsOf(this.parts);
    const fed: Record<string, Tensor> = {};
    for (const name of LOSS_INPUT_NAMES) {
      const [input, value] = [taken.get(name), given[name]];
      if (value && !input) {
        throw new ConfigError(
          name === "huberC"
            ? "train step: the batch has huberC, of which the step's objective has no use. Compile it with the batch's objective."
            : `train step: the batch has ${name}, which the step was compiled without; give compileTrainStep ${name}: true.`,
        );
      }
      if (!input) continue;
      if (!value && input.isNeeded) {
        throw new ConfigError(
          `train step: the objective needs ${name} in every batch; got none. Its noised() gives it beside the target.`,
        );
      }
      fed[name] = value ?? ones(input.shape);
    }
    return fed;
  }

  private masks(latents: Tensor): Record<string, Tensor> {
    const { masks, rate, seed } = this.dropout;
    if (masks.size === 0) return {};
    const scale = 1 / (1 - rate);
    const drawn = Object.fromEntries(
      [...masks].map(([name, shape]) => [name, tensor(new Float32Array(sizeOf(shape)), shape)]),
    );
    let row = 0;
    for (const sample of rowsOf(latents)) {
      const generator = new Generator(hash(toBytes(sample), seed));
      for (const mask of Object.values(drawn)) {
        const { data } = sliceRows(mask, row, row + 1);
        for (let i = 0; i < data.length; i++) data[i] = generator.uniform() < rate ? 0 : scale;
      }
      row++;
    }
    return drawn;
  }
}

const ones = (shape: readonly number[]): Tensor => tensor(new Float32Array(sizeOf(shape)).fill(1), shape);

/** FNV-1a over bytes, started from a seed: 32 bits. */
function hash(bytes: Uint8Array, seed: number): number {
  let value = (0x811c9dc5 ^ seed) >>> 0;
  for (const byte of bytes) value = Math.imul(value ^ byte, 0x01000193);
  return value >>> 0;
}
