// AdamW with its moments in eight bits: its options, and its formula on arrays in main memory. It has no graph form: codes are
// bytes, which graphs do not compute with.

import { sizeOf } from "../../tensor/tensor.js";
import { type AdamWCoefficients, updateByAdamW } from "./adamw-update.js";
import { dynamicCode, QUANTIZATION_BLOCK, quantizeBlock } from "./block-quantization.js";
import { checkBetas, checkCount, checkNonNegative, refuseUnknown } from "./hyperparameters.js";
import { Optimizer, type ParameterUpdate, type StepRate } from "./optimizer.js";

/** Hyperparameters of AdamW in eight bits, with bitsandbytes' defaults. */
export interface AdamW8bitOptions {
  /** Learning rate γ, 0 or more. Default 1e-3. */
  lr?: number;
  /** Decay rates β1 and β2 of the two moments, each in [0, 1). Default 0.9 and 0.999. */
  betas?: readonly [number, number];
  /** Added to the root of the second moment, 0 or more. Default 1e-8. */
  eps?: number;
  /** Decoupled weight decay λ, 0 or more. Default 0.01. */
  weightDecay?: number;
  /** Parameters with fewer elements keep float32 moments. Default 4096. */
  min8bitSize?: number;
}

/** Moments of small parameters; codes (four to an int32) and scales of the others. */
type Slot = "exp_avg" | "exp_avg_sq" | "state1" | "state2" | "absmax1" | "absmax2";

/**
 * AdamW whose two moments are kept as 8-bit dynamic codes with a scale for every 256 values: a quarter of its memory.
 *
 * As `AdamW`, the moments being read from their codes before a step and rounded to the nearest code after it; the step itself
 * takes them unrounded.
 *
 * @see Dettmers et al. 2021, arXiv:2110.02861; bitsandbytes 0.50
 */
export class AdamW8bit extends Optimizer<Slot> {
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weightDecay: number;
  readonly min8bitSize: number;

  /**
   * @throws {ConfigError} If an option is out of its range, or none of these.
   */
  constructor({
    lr = 1e-3,
    betas = [0.9, 0.999],
    eps = 1e-8,
    weightDecay = 0.01,
    min8bitSize = 4096,
    ...unknown
  }: AdamW8bitOptions = {}) {
    const isSmall = (shape: readonly number[]) => sizeOf(shape) < min8bitSize;
    const small = (shape: readonly number[]) => (isSmall(shape) ? sizeOf(shape) : 0);
    const codes = (shape: readonly number[]) => (isSmall(shape) ? 0 : Math.ceil(sizeOf(shape) / 4));
    const scales = (shape: readonly number[]) => (isSmall(shape) ? 0 : Math.ceil(sizeOf(shape) / QUANTIZATION_BLOCK));
    super("AdamW8bit", lr, {
      exp_avg: { size: small },
      exp_avg_sq: { size: small, nonNegative: true },
      state1: { size: codes, dtype: "int32" },
      state2: { size: codes, dtype: "int32" },
      absmax1: { size: scales, nonNegative: true },
      absmax2: { size: scales, nonNegative: true },
    });
    refuseUnknown(this.name, unknown);
    this.betas = checkBetas(this.name, betas);
    checkNonNegative(this.name, "eps", eps);
    checkNonNegative(this.name, "weightDecay", weightDecay);
    checkCount(this.name, "min8bitSize", min8bitSize);
    this.eps = eps;
    this.weightDecay = weightDecay;
    this.min8bitSize = min8bitSize;
  }

  protected updateAll(updates: readonly ParameterUpdate<Slot>[], rate: StepRate): void {
    const { betas, eps, weightDecay } = this;
    for (const update of updates) {
      const learningRate = rate.learningRate * update.factor;
      const coefficients = { betas, eps, weightDecay, learningRate, k: rate.k };
      const { parameter, gradient, state } = update;
      if (parameter.length < this.min8bitSize) {
        const moments = { first: state.exp_avg as Float32Array, second: state.exp_avg_sq as Float32Array };
        updateByAdamW(parameter, gradient, moments, coefficients);
      } else {
        this.updateBlocks(update, coefficients);
      }
    }
  }

  private updateBlocks({ parameter, gradient, state }: ParameterUpdate<Slot>, coefficients: AdamWCoefficients): void {
    const [codes1, codes2] = [bytesOf(state.state1), bytesOf(state.state2)];
    const { absmax1, absmax2 } = state;
    const first = new Float32Array(QUANTIZATION_BLOCK);
    const second = new Float32Array(QUANTIZATION_BLOCK);
    for (let start = 0, block = 0; start < parameter.length; start += QUANTIZATION_BLOCK, block++) {
      const end = Math.min(start + QUANTIZATION_BLOCK, parameter.length);
      const moments = { first: first.subarray(0, end - start), second: second.subarray(0, end - start) };
      for (let i = start; i < end; i++) {
        first[i - start] = SIGNED[codes1[i]!]! * absmax1[block]!;
        second[i - start] = UNSIGNED[codes2[i]!]! * absmax2[block]!;
      }
      updateByAdamW(parameter.subarray(start, end), gradient.subarray(start, end), moments, coefficients);
      absmax1[block] = quantizeBlock(moments.first, SIGNED, codes1.subarray(start, end));
      absmax2[block] = quantizeBlock(moments.second, UNSIGNED, codes2.subarray(start, end));
    }
  }
}

const SIGNED = dynamicCode(true);
const UNSIGNED = dynamicCode(false);

const bytesOf = ({
  buffer,
  byteOffset,
  byteLength,
}: {
  buffer: ArrayBufferLike;
  byteOffset: number;
  byteLength: number;
}) => new Uint8Array(buffer, byteOffset, byteLength);
